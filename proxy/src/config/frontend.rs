//! `[frontend]`: the side of the clients.

use super::listeners::{AcceptProxy, ListenerConfig};
use super::section::Section;
use super::tree::Item;
use super::value;
use super::write;
use crate::answer_headers::{HSTS, Hsts, ResponseHeader};
use crate::request_id::RequestIds;
use crate::trust::{ForwardedFor, Trust};
use crate::worker::ForwardedProto;
use std::fmt;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::num::NonZeroUsize;
use std::time::Duration;

const DAY: Duration = Duration::from_secs(86_400);
const SHORTEST: Duration = Duration::from_millis(10);
const WORKERS_MAX: usize = 256;

/// How many workers (one runtime, one listener per address and one pool each) serve clients.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Workers {
    /// One per core that this process may use.
    Auto,
    /// As many.
    Count(NonZeroUsize),
}

impl Workers {
    /// The number; for `Auto`, of the cores now.
    #[must_use]
    pub fn count(self) -> NonZeroUsize {
        match self {
            Self::Auto => std::thread::available_parallelism().unwrap_or(NonZeroUsize::MIN),
            Self::Count(count) => count,
        }
    }
}

impl fmt::Display for Workers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Auto => f.write_str("\"auto\""),
            Self::Count(count) => write!(f, "{count}"),
        }
    }
}

/// How clients are served.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FrontendConfig {
    /// Addresses for plain HTTP. Default `0.0.0.0:80`, as the HAProxy that is replaced; none where `[[listeners]]` are given.
    pub listen: Vec<SocketAddr>,
    /// Workers. Default `auto`: the hot path takes no lock across cores, so more than cores gain nothing.
    pub workers: Workers,
    /// Connections that the kernel holds for one listener until they are accepted. Default 1024: a burst of reconnects.
    pub backlog: u32,
    /// Connections open at once, over all workers; beyond it new ones wait in the backlog. Default 100000: with every tunnel
    /// two sockets, that fits a file limit of 262144.
    pub max_connections: usize,
    /// From a connection's first byte to the end of the request's head, else 408. Default 10 s: slow phones, not slowloris.
    pub header_timeout: Duration,
    /// Between two pieces of a request's or a response's body at the client. Default 3 min, HAProxy's `timeout client` at Jitsi.
    pub client_timeout: Duration,
    /// Between two requests on one connection. Default 60 s: longer than the client's `_unlock` look after connecting.
    pub keepalive_timeout: Duration,
    /// How long a half-closed tunnel waits for its other half. Default 50 s, HAProxy's `timeout client-fin` at Jitsi.
    pub client_fin: Duration,
    /// Bytes of a request's head, else 431, or 414 when they are the request line's. Default 16 KiB, HAProxy's buffer.
    pub max_header_size: usize,
    /// What shards are told in `X-Forwarded-Proto`. Default https: before the nodes stands what ends TLS, as at Jitsi.
    pub forwarded_proto: ForwardedProto,
    /// Headers of a request, else 431. Default 100, HAProxy's `tune.http.maxhdr` less one.
    pub max_headers: usize,
    /// `trusted_proxies`, by default none: whoever is not listed may have written what it says of others. `forwarded_for`, by default
    /// append, as HAProxy does.
    pub trust: Trust,
    /// `request_id`. Default accept: whoever looks for a request finds it in all logs.
    pub request_ids: RequestIds,
    /// The policy of Strict-Transport-Security. Default off: browsers keep it, so that a mistake lasts.
    pub hsts: Option<Hsts>,
    /// Lines that every answer has. Default none: pages are the shards' own.
    pub response_headers: Vec<ResponseHeader>,
}

const FORWARDED_FOR: [(&str, ForwardedFor); 2] =
    [("append", ForwardedFor::Append), ("replace", ForwardedFor::Replace)];
const REQUEST_IDS: [(&str, RequestIds); 3] =
    [("off", RequestIds::Off), ("make", RequestIds::Make), ("accept", RequestIds::Accept)];
/// Lines of `response_headers`: an answer's head has to stay small.
const RESPONSE_HEADERS_MAX: usize = 32;

impl Default for FrontendConfig {
    fn default() -> Self {
        Self {
            listen: vec![SocketAddr::new(IpAddr::V4(Ipv4Addr::UNSPECIFIED), 80)],
            workers: Workers::Auto,
            backlog: 1024,
            max_connections: 100_000,
            header_timeout: Duration::from_secs(10),
            client_timeout: Duration::from_secs(180),
            keepalive_timeout: Duration::from_secs(60),
            client_fin: Duration::from_secs(50),
            max_header_size: 16 << 10,
            forwarded_proto: ForwardedProto::Https,
            max_headers: 100,
            trust: Trust::default(),
            request_ids: RequestIds::default(),
            hsts: None,
            response_headers: Vec::new(),
        }
    }
}

impl FrontendConfig {
    pub(super) fn read(mut section: Section<'_>, listeners: &[ListenerConfig]) -> Self {
        let mut default = Self::default();
        if !listeners.is_empty() {
            default.listen.clear();
        }
        let timeout = || value::duration(SHORTEST..=DAY);
        let listen = section.list("listen", "addresses", value::listen_address).unwrap_or(default.listen);
        if listen.is_empty() && listeners.is_empty() {
            section.refuse("listen", &"[]", "at least one address".to_owned());
        }
        for (index, address) in listen.iter().enumerate() {
            section.bind("listen", Some(index), *address);
        }
        let config = Self {
            listen,
            workers: section.get("workers", workers).unwrap_or(default.workers),
            backlog: section.get("backlog", value::integer(1..=65_535)).unwrap_or(default.backlog),
            max_connections: section
                .get("max_connections", value::integer(1..=2_000_000))
                .unwrap_or(default.max_connections),
            header_timeout: section.get("header_timeout", timeout()).unwrap_or(default.header_timeout),
            client_timeout: section.get("client_timeout", timeout()).unwrap_or(default.client_timeout),
            keepalive_timeout: section
                .get("keepalive_timeout", timeout())
                .unwrap_or(default.keepalive_timeout),
            client_fin: section.get("client_fin", timeout()).unwrap_or(default.client_fin),
            // hyper's buffer has to hold at least 8 KiB.
            max_header_size: section
                .get("max_header_size", value::size(8 << 10..=1 << 20))
                .unwrap_or(default.max_header_size),
            forwarded_proto: section
                .get("forwarded_proto", value::word(ForwardedProto::WORDS))
                .unwrap_or(default.forwarded_proto),
            max_headers: section
                .get("max_headers", value::integer(16..=1_000))
                .unwrap_or(default.max_headers),
            trust: Trust {
                proxies: section
                    .list("trusted_proxies", "ranges of addresses", value::address_range)
                    .unwrap_or_default(),
                forwarded_for: section
                    .get("forwarded_for", value::word(&FORWARDED_FOR))
                    .unwrap_or(default.trust.forwarded_for),
            },
            request_ids: section.get("request_id", value::word(&REQUEST_IDS)).unwrap_or(default.request_ids),
            hsts: section.get("hsts", hsts).unwrap_or(default.hsts),
            response_headers: section
                .list("response_headers", "lines \"Name: value\"", response_header)
                .unwrap_or(default.response_headers),
        };
        let waiting = listeners.iter().find(|listener| listener.accept_proxy == AcceptProxy::Required);
        if let Some(listener) = waiting.filter(|_| config.trust.proxies.is_empty()) {
            let expected =
                format!("the balancers before listener {}, which requires PROXY headers", listener.name);
            section.refuse("trusted_proxies", &"[]", expected);
        }
        if config.response_headers.len() > RESPONSE_HEADERS_MAX {
            section.refuse("response_headers", &"", format!("at most {RESPONSE_HEADERS_MAX} lines"));
        }
        section.finish();
        config
    }
}

fn hsts(item: &Item) -> Result<Option<Hsts>, String> {
    match item.text() {
        Some("off") => Ok(None),
        Some(text) => Hsts::parse(text).map(Some).ok_or_else(|| HSTS.to_owned()),
        None => Err(HSTS.to_owned()),
    }
}

fn response_header(item: &Item) -> Result<ResponseHeader, String> {
    ResponseHeader::parse(item.text().unwrap_or_default())
}

fn workers(item: &Item) -> Result<Workers, String> {
    if item.text() == Some("auto") {
        return Ok(Workers::Auto);
    }
    let count = value::integer(1..=WORKERS_MAX)(item).ok().and_then(NonZeroUsize::new);
    count.map(Workers::Count).ok_or_else(|| format!("\"auto\" or an integer from 1 to {WORKERS_MAX}"))
}

impl fmt::Display for FrontendConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "[frontend]")?;
        writeln!(f, "listen = {}", write::list(&self.listen))?;
        writeln!(f, "workers = {}", self.workers)?;
        writeln!(f, "backlog = {}", self.backlog)?;
        writeln!(f, "max_connections = {}", self.max_connections)?;
        writeln!(f, "header_timeout = {}", write::duration(self.header_timeout))?;
        writeln!(f, "client_timeout = {}", write::duration(self.client_timeout))?;
        writeln!(f, "keepalive_timeout = {}", write::duration(self.keepalive_timeout))?;
        writeln!(f, "client_fin = {}", write::duration(self.client_fin))?;
        writeln!(f, "max_header_size = {}", write::size(self.max_header_size))?;
        writeln!(f, "forwarded_proto = {}", write::text(self.forwarded_proto.as_str()))?;
        writeln!(f, "max_headers = {}", self.max_headers)?;
        writeln!(f, "trusted_proxies = {}", write::list(&self.trust.proxies))?;
        writeln!(f, "forwarded_for = \"{}\"", value::word_of(&FORWARDED_FOR, self.trust.forwarded_for))?;
        writeln!(f, "request_id = \"{}\"", value::word_of(&REQUEST_IDS, self.request_ids))?;
        match &self.hsts {
            Some(hsts) => writeln!(f, "hsts = {}", write::text(&hsts.to_string()))?,
            None => writeln!(f, "hsts = \"off\"")?,
        }
        writeln!(f, "response_headers = {}", write::list(&self.response_headers))
    }
}
