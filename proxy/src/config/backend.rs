//! `[backend]`: the side of the shards.

use super::health::HealthConfig;
use super::section::Section;
use super::upstream::UpstreamConfig;
use super::value;
use super::write;
use std::fmt;
use std::time::Duration;

const DAY: Duration = Duration::from_secs(86_400);
const SHORTEST: Duration = Duration::from_millis(10);

/// Whether a request whose shard cannot be reached may go to another one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Redispatch {
    /// It may, and the whole conference moves with it.
    On,
    /// It may not; it fails.
    Off,
}

impl Redispatch {
    const fn as_str(self) -> &'static str {
        match self {
            Self::On => "on",
            Self::Off => "off",
        }
    }
}

/// How shards are spoken to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BackendConfig {
    /// For connecting to a shard. Default 10 s, as HAProxy at Jitsi.
    pub connect_timeout: Duration,
    /// Until a shard answers, and between two pieces of its answer. Default 3 min: BOSH polls wait for a minute.
    pub server_timeout: Duration,
    /// How long a tunnel may be silent in both directions. Default 1 h, as HAProxy at Jitsi.
    pub tunnel_timeout: Duration,
    /// Further attempts after the first could not connect. Default 3, as HAProxy at Jitsi.
    pub retries: u32,
    /// Whether the last of these goes to another shard. Default on, as HAProxy at Jitsi.
    pub redispatch: Redispatch,
    /// Idle connections that one worker keeps per shard. Default 64: enough for bursts, little for a shard with 100 proxies.
    pub max_idle_per_shard: usize,
    /// How long such a connection is kept. Default 30 s, below the keep-alive of any usual web server.
    pub idle_timeout: Duration,
    /// The most conferences of a shard in percent of the average, beyond which the next in hash order is taken. Default 150,
    /// as HAProxy's `hash-balance-factor` at Jitsi.
    pub balance_factor: u32,
    /// Requests and tunnels that one shard gets from this node at once; 0 is no limit. Default 0, as HAProxy without `maxconn`.
    pub max_connections_per_shard: usize,
    /// Requests that wait for a place at one shard. Default 1024: what has waited its time is answered 503 either way.
    pub queue_max: usize,
    /// How long they wait. Default: as long as connecting may take, as HAProxy's `timeout queue`.
    pub queue_timeout: Duration,
    /// What shards speak.
    pub upstream: UpstreamConfig,
    /// How shards are watched.
    pub health: HealthConfig,
}

impl Default for BackendConfig {
    fn default() -> Self {
        Self {
            connect_timeout: Duration::from_secs(10),
            server_timeout: Duration::from_secs(180),
            tunnel_timeout: Duration::from_secs(3_600),
            retries: 3,
            redispatch: Redispatch::On,
            max_idle_per_shard: 64,
            idle_timeout: Duration::from_secs(30),
            balance_factor: 150,
            max_connections_per_shard: 0,
            queue_max: 1_024,
            queue_timeout: Duration::from_secs(10),
            upstream: UpstreamConfig::default(),
            health: HealthConfig::default(),
        }
    }
}

impl BackendConfig {
    pub(super) fn balance_factor(section: &mut Section<'_>) -> u32 {
        let given = section.get("balance_factor", value::integer(100..=1_000));
        given.unwrap_or_else(|| Self::default().balance_factor)
    }

    pub(super) fn read(mut section: Section<'_>) -> Self {
        let default = Self::default();
        let timeout = || value::duration(SHORTEST..=DAY);
        let redispatch = value::word(&[("on", Redispatch::On), ("off", Redispatch::Off)]);
        let connect_timeout = section.get("connect_timeout", timeout()).unwrap_or(default.connect_timeout);
        let upstream = UpstreamConfig::read(&mut section);
        let health = HealthConfig::read(&mut section, &upstream);
        let config = Self {
            connect_timeout,
            server_timeout: section.get("server_timeout", timeout()).unwrap_or(default.server_timeout),
            tunnel_timeout: section.get("tunnel_timeout", timeout()).unwrap_or(default.tunnel_timeout),
            retries: section.get("retries", value::integer(0..=10)).unwrap_or(default.retries),
            redispatch: section.get("redispatch", redispatch).unwrap_or(default.redispatch),
            max_idle_per_shard: section
                .get("max_idle_per_shard", value::integer(0..=10_000))
                .unwrap_or(default.max_idle_per_shard),
            idle_timeout: section.get("idle_timeout", timeout()).unwrap_or(default.idle_timeout),
            balance_factor: Self::balance_factor(&mut section),
            max_connections_per_shard: section
                .get("max_connections_per_shard", value::integer(0..=1_000_000))
                .unwrap_or(default.max_connections_per_shard),
            queue_max: section.get("queue_max", value::integer(0..=1_000_000)).unwrap_or(default.queue_max),
            queue_timeout: section.get("queue_timeout", timeout()).unwrap_or(connect_timeout),
            upstream,
            health,
        };
        section.finish();
        config
    }
}

impl fmt::Display for BackendConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "[backend]")?;
        writeln!(f, "connect_timeout = {}", write::duration(self.connect_timeout))?;
        writeln!(f, "server_timeout = {}", write::duration(self.server_timeout))?;
        writeln!(f, "tunnel_timeout = {}", write::duration(self.tunnel_timeout))?;
        writeln!(f, "retries = {}", self.retries)?;
        writeln!(f, "redispatch = {}", write::text(self.redispatch.as_str()))?;
        writeln!(f, "max_idle_per_shard = {}", self.max_idle_per_shard)?;
        writeln!(f, "idle_timeout = {}", write::duration(self.idle_timeout))?;
        writeln!(f, "balance_factor = {}", self.balance_factor)?;
        writeln!(f, "max_connections_per_shard = {}", self.max_connections_per_shard)?;
        writeln!(f, "queue_max = {}", self.queue_max)?;
        writeln!(f, "queue_timeout = {}", write::duration(self.queue_timeout))?;
        write!(f, "{}{}", self.upstream, self.health)
    }
}
