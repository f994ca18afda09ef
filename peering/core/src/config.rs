//! Limits of a node, with defaults and reasons.

use core::fmt;

use crate::id::PeerId;

/// What a node is told at its start. Times in milliseconds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Config {
    /// This node.
    pub me: PeerId,
    /// Different for every start of the process; a peer that sees another one than before forgets what it knew of this node.
    pub incarnation: u64,
    /// How long an entry lives after its last use (`expire` of HAProxy's stick-table). Default 5 min, as in the production configuration.
    pub ttl_ms: u64,
    /// How many live entries the table takes. At the bound the home of a new key ends early what nobody holds; when there is
    /// nothing of the kind the new key is answered [`Unstored`](crate::Unstored).
    pub entries_max: usize,
    /// Period of heartbeats. Default 1 s: a home that missed a budget is asked again after its next heartbeat.
    pub heartbeat_ms: u64,
    /// The least time a home is given to answer. Default 300 ms, about a world-wide round trip.
    pub claim_budget_min_ms: u64,
    /// The most time a home is given to answer. Default 1 s: the client checks after 5 s.
    pub claim_budget_max_ms: u64,
    /// Claims of this node under way at once. Beyond it a new key is answered [`Unstored`](crate::Unstored).
    pub claims_max: usize,
    /// Requests that may wait for one key's claim. Beyond it they are answered [`Unstored`](crate::Unstored).
    pub waiters_max: usize,
    /// Own decisions kept for peers that reconnect. With a peer further behind this node reconciles.
    pub log_max: usize,
    /// Items in one update or gift. Default 256: about 20 kB, well below the frame's limit.
    pub batch_items: usize,
    /// Log positions sent and not yet acknowledged per peer. At the bound sending waits, and what changes meanwhile coalesces.
    pub window_items: u64,
    /// Least time between two batches of updates to one peer. Default 2 ms: a lone update goes at once, a busy node's share a packet.
    pub updates_pause_ms: u64,
    /// Gifts of a reconciliation sent and not yet acknowledged per peer.
    pub gives_window: u64,
    /// Least time between two moves of one key. Default 30 s: a flapping shard costs one move.
    pub move_pause_ms: u64,
    /// How long a home waits for its peers' probes of a shard that somebody could not reach. Default 500 ms: what answers later than that is no
    /// use to a client that checks after 5 s.
    pub probe_budget_ms: u64,
    /// How long the result of such a round holds for further claims, and so the least time between two rounds about one shard. Default 1 s.
    pub verdict_fresh_ms: u64,
    /// A node that did not run for longer than this starts anew: what it knows is of the past. Default 30 s.
    pub pause_max_ms: u64,
    /// How many peers are talked to. Beyond it, in the order of their names, they are taken for not listed.
    pub peers_max: usize,
}

/// Why a configuration is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ConfigError {
    /// The field.
    pub field: &'static str,
    /// Its value.
    pub value: u64,
    /// What would have been accepted.
    pub expected: &'static str,
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} is {}, expected {}", self.field, self.value, self.expected)
    }
}

impl core::error::Error for ConfigError {}

/// Slower paths are as good as cut.
pub(crate) const SLOW_PATH_MS: u64 = 1_500;

impl Config {
    /// The defaults for a node called `me`.
    #[must_use]
    pub const fn new(me: PeerId, incarnation: u64) -> Self {
        Self {
            me,
            incarnation,
            ttl_ms: 300_000,
            entries_max: 1_000_000,
            heartbeat_ms: 1_000,
            claim_budget_min_ms: 300,
            claim_budget_max_ms: 1_000,
            claims_max: 4_096,
            waiters_max: 1_024,
            log_max: 262_144,
            batch_items: 256,
            window_items: 8_192,
            gives_window: 256,
            updates_pause_ms: 2,
            move_pause_ms: 30_000,
            probe_budget_ms: 500,
            verdict_fresh_ms: 1_000,
            pause_max_ms: 30_000,
            peers_max: 256,
        }
    }

    /// Checks every field.
    ///
    /// # Errors
    /// [`ConfigError`] for the first field out of its range.
    pub fn validate(&self) -> Result<(), ConfigError> {
        let ranges: [(&'static str, u64, u64, u64, &'static str); 10] = [
            ("ttl_ms", self.ttl_ms, 1_000, 86_400_000, "1 s to 24 h"),
            ("entries_max", self.entries_max as u64, 1, 100_000_000, "1 to 100,000,000"),
            ("heartbeat_ms", self.heartbeat_ms, 100, 10_000, "100 ms to 10 s"),
            (
                "claim_budget_min_ms",
                self.claim_budget_min_ms,
                10,
                self.claim_budget_max_ms,
                "10 ms to the largest budget",
            ),
            ("claim_budget_max_ms", self.claim_budget_max_ms, 10, 5_000, "10 ms to 5 s"),
            ("batch_items", self.batch_items as u64, 1, 1_024, "1 to 1,024"),
            ("probe_budget_ms", self.probe_budget_ms, 10, 5_000, "10 ms to 5 s"),
            ("verdict_fresh_ms", self.verdict_fresh_ms, 100, 10_000, "100 ms to 10 s"),
            ("pause_max_ms", self.pause_max_ms, self.heartbeat_ms * 3, 86_400_000, "3 heartbeats to 24 h"),
            ("peers_max", self.peers_max as u64, 1, 1_024, "1 to 1,024"),
        ];
        for (field, value, least, most, expected) in ranges {
            if value < least || value > most {
                return Err(ConfigError { field, value, expected });
            }
        }
        Ok(())
    }

    /// How long a home waits beyond a lease's end: a use just before it may be reported up to half a ttl later, never more.
    pub(crate) const fn end_grace_ms(&self) -> u64 {
        self.ttl_ms / 8
    }

    /// How long the lease of an entry is taken to be over that comes without one: what is left before somebody ends or drops it is enough
    /// to ask everybody.
    pub(crate) const fn lapsed_for_ms(&self) -> u64 {
        self.ttl_ms - 3 * self.end_grace_ms()
    }

    /// How long a tombstone is kept: as long as the entry that it ended can stand anywhere by lease and backstop.
    pub(crate) const fn tombstone_ms(&self) -> u64 {
        self.ttl_ms * 3
    }

    /// So near its end a tombstone does not stand against what was decided after it: it is gone already at some nodes, perhaps at the
    /// home, which begins with the first generation again.
    pub(crate) const fn tombstone_fades_ms(&self) -> u64 {
        self.timer_grain_ms() + SLOW_PATH_MS
    }

    /// How long a report that a key is held is believed: holders report every half ttl, on timers of some grain, over slow paths.
    pub(crate) const fn hold_told_ms(&self) -> u64 {
        self.ttl_ms / 2 + self.ttl_ms / 8 + SLOW_PATH_MS
    }

    /// How coarse the expiry and report timers are.
    pub(crate) const fn timer_grain_ms(&self) -> u64 {
        self.ttl_ms / 64 + 1
    }
}
