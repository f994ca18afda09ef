//! What the workers count: each worker has its own numbers with one writer, and a reader sums them.

use crate::route::Why;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// A number that one thread adds to and others read: no locked instruction on the hot path.
#[derive(Debug, Default)]
pub(crate) struct Count(AtomicU64);

impl Count {
    pub(crate) fn add(&self, more: u64) {
        self.0.store(self.get().wrapping_add(more), Ordering::Relaxed);
    }

    pub(crate) fn up(&self) {
        self.add(1);
    }

    /// A number that goes down as well.
    pub(crate) fn set(&self, value: u64) {
        self.0.store(value, Ordering::Relaxed);
    }

    fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// Declares a closed set of labels with their words and numbers.
macro_rules! labels {
    ($(#[$doc:meta])* $type:ident { $($(#[$label_doc:meta])* $label:ident = $word:literal,)* }) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        pub enum $type { $($(#[$label_doc])* $label,)* }

        impl $type {
            /// All of them, in the order of their numbers.
            pub const ALL: &[Self] = &[$(Self::$label,)*];

            /// The word for it, a label of metrics.
            #[must_use]
            pub const fn as_str(self) -> &'static str {
                match self { $(Self::$label => $word,)* }
            }
        }
    };
}

labels! {
    /// Why no connection to a shard came about.
    ConnectReason {
        /// The shard's host refused it.
        Refused = "refused",
        /// No answer within the connect timeout.
        Timeout = "timeout",
        /// The network has no way there, or the connection broke at once.
        Unreachable = "unreachable",
        /// TLS did not come about, or the shard's certificate is not valid.
        Tls = "tls",
        /// This node has no port, descriptor or memory left for it.
        Local = "local",
        /// The peer that it was to lead by does not reach it, or is not reached itself.
        Relay = "relay",
    }
}

labels! {
    /// What a key's home made of a claim, as the asking request saw it.
    ClaimOutcome {
        /// The proposal stands.
        Proposed = "proposed",
        /// Another shard was known or chosen.
        Other = "other",
        /// It stays on a shard that could not be reached from here.
        Kept = "kept",
        /// Not stored: the request went by the plain hash.
        Unstored = "unstored",
    }
}

labels! {
    /// Which timeout ended something.
    TimeoutKind {
        /// A request's head took too long to come.
        Head = "head",
        /// A request's body stalled.
        Body = "body",
        /// A kept-alive client connection stayed without a request.
        KeepAlive = "keep_alive",
        /// The client did not read its answer.
        Client = "client",
        /// The shard took too long to answer, or stalled in the middle.
        Server = "server",
    }
}

labels! {
    /// Why a connection to a listener that takes PROXY headers was closed instead.
    ProxyRefusal {
        /// Its peer is none of the trusted proxies.
        Untrusted = "untrusted",
        /// It begins with something else.
        NoHeader = "no_header",
        /// Its header is none of those that exist.
        Invalid = "invalid",
        /// The header did not come in time.
        Timeout = "timeout",
        /// It ended before its header did, as balancers' probes do.
        Closed = "closed",
    }
}

labels! {
    /// Why a tunnel ended.
    TunnelEnd {
        /// The client closed it.
        Client = "client",
        /// The shard closed it.
        Shard = "shard",
        /// Nothing passed for the tunnel timeout, or for client-fin once one side had closed.
        Idle = "idle",
        /// Its connection broke.
        Broken = "broken",
        /// Its conference is on another shard.
        Moved = "moved",
        /// Its shard went down, and `on_marked_down` says that its sessions end.
        ShardDown = "shard_down",
        /// An operator closed it, or it outlived the drain.
        Closed = "closed",
    }
}

labels! {
    /// At which ceiling something was turned away: a connection closed, a request answered 429 or 503.
    Refused {
        /// The client's address has as many connections open as it may.
        AddressConnections = "address_connections",
        /// It opens connections too fast.
        ConnectionRate = "connection_rate",
        /// It asks too fast.
        RequestRate = "request_rate",
        /// It makes keys too fast.
        NewKeyRate = "new_key_rate",
        /// This process takes as much memory as it may.
        Memory = "memory",
        /// It has no descriptor left for clients.
        Descriptors = "descriptors",
        /// Too many wait for a place at the shard.
        QueueFull = "queue_full",
        /// No place at the shard became free in time.
        QueueTimeout = "queue_timeout",
    }
}

macro_rules! counters {
    ($($(#[$doc:meta])* $name:ident,)*) => {
        /// One worker's numbers.
        #[derive(Debug, Default)]
        pub(crate) struct WorkerCounters {
            $(pub(crate) $name: Count,)*
            pub(crate) responses: [Count; 6],
            pub(crate) decisions: [Count; Why::ALL.len()],
            pub(crate) connect_failures: [Count; ConnectReason::ALL.len()],
            pub(crate) claims: [Count; ClaimOutcome::ALL.len()],
            pub(crate) timeouts: [Count; TimeoutKind::ALL.len()],
            pub(crate) tunnel_ends: [Count; TunnelEnd::ALL.len()],
            pub(crate) refused: [Count; Refused::ALL.len()],
            pub(crate) proxy_refusals: [Count; ProxyRefusal::ALL.len()],
        }

        /// The sum over all workers since the start.
        #[derive(Debug, Clone, Default, PartialEq, Eq)]
        pub struct Totals {
            $($(#[$doc])* pub $name: u64,)*
            /// Answers by the first digit of their status; at 0 those that no status was sent for (the client left before).
            pub responses: [u64; 6],
            /// Decisions, in the order of [`Why::ALL`].
            pub decisions: [u64; Why::ALL.len()],
            /// In the order of [`ConnectReason::ALL`].
            pub connect_failures: [u64; ConnectReason::ALL.len()],
            /// In the order of [`ClaimOutcome::ALL`].
            pub claims: [u64; ClaimOutcome::ALL.len()],
            /// In the order of [`TimeoutKind::ALL`].
            pub timeouts: [u64; TimeoutKind::ALL.len()],
            /// In the order of [`TunnelEnd::ALL`].
            pub tunnel_ends: [u64; TunnelEnd::ALL.len()],
            /// In the order of [`Refused::ALL`].
            pub refused: [u64; Refused::ALL.len()],
            /// In the order of [`ProxyRefusal::ALL`].
            pub proxy_refusals: [u64; ProxyRefusal::ALL.len()],
        }

        impl Totals {
            fn add(&mut self, worker: &WorkerCounters) {
                $(self.$name += worker.$name.get();)*
                sum(&mut self.responses, &worker.responses);
                sum(&mut self.decisions, &worker.decisions);
                sum(&mut self.connect_failures, &worker.connect_failures);
                sum(&mut self.claims, &worker.claims);
                sum(&mut self.timeouts, &worker.timeouts);
                sum(&mut self.tunnel_ends, &worker.tunnel_ends);
                sum(&mut self.refused, &worker.refused);
                sum(&mut self.proxy_refusals, &worker.proxy_refusals);
            }
        }
    };
}

counters! {
    /// Client connections accepted.
    connections_opened,
    /// Client connections ended; one that became a tunnel counts when the tunnel ends.
    connections_closed,
    /// Connections whose PROXY header was taken.
    proxy_headers,
    /// TLS handshakes of clients completed.
    handshakes,
    /// TLS handshakes that failed or did not end in time.
    handshakes_failed,
    /// HTTP/2 connections.
    http2_connections,
    /// HTTP/2 connections ended because of too many resets or control frames.
    http2_calmed,
    /// Times that accepting paused: too many connections, or no descriptor left.
    accept_pauses,
    /// Requests whose head was read, and those refused before.
    requests,
    /// Requests that the parser refused.
    parse_refusals,
    /// Requests over plain HTTP sent on to TLS.
    https_redirects,
    /// Answers of our own making, errors.
    rescues,
    /// Requests that went by a peer, or were to.
    requests_relayed,
    /// Tunnels opened; they end by `tunnel_ends`.
    tunnels_opened,
    /// BOSH sessions now.
    bosh_sessions,
    /// BOSH requests that are no session's, because there are too many sessions.
    bosh_uncounted,
    /// Bytes read from clients.
    client_bytes_in,
    /// Bytes written to clients.
    client_bytes_out,
    /// Connections made to shards.
    shard_connects,
    /// Requests sent on a connection that had served another.
    shard_reuses,
    /// Further attempts at the same shard.
    retries,
    /// Requests sent to another shard than the one chosen first.
    redispatches,
    /// Requests whose client left before the answer was complete.
    client_aborts,
    /// Answers that a shard broke off.
    shard_aborts,
    /// Cookies whose servers were told to the table, because a pool's server set them.
    cookies_learned,
    /// Cookies that were not told because the table was too busy; the request that brings one back tells it.
    cookies_lost,
    /// Access log lines lost because their writer was behind.
    log_lines_lost,
}

impl Totals {
    /// Client connections open now.
    #[must_use]
    pub const fn connections(&self) -> u64 {
        self.connections_opened.saturating_sub(self.connections_closed)
    }

    /// Tunnels open now.
    #[must_use]
    pub fn tunnels(&self) -> u64 {
        self.tunnels_opened.saturating_sub(self.tunnel_ends.iter().sum())
    }
}

fn sum(total: &mut [u64], worker: &[Count]) {
    for (total, count) in total.iter_mut().zip(worker) {
        *total += count.get();
    }
}

/// The numbers of all workers.
#[derive(Debug, Clone)]
pub struct Counters(Arc<[Arc<WorkerCounters>]>);

impl Counters {
    pub(crate) fn new(workers: usize) -> Self {
        Self((0..workers).map(|_| Arc::default()).collect())
    }

    pub(crate) fn of_worker(&self, index: usize) -> Arc<WorkerCounters> {
        Arc::clone(&self.0[index])
    }

    /// Sums all workers' numbers, each as it is at this moment.
    #[must_use]
    pub fn snapshot(&self) -> Totals {
        let mut totals = Totals::default();
        for worker in self.0.iter() {
            totals.add(worker);
        }
        totals
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn workers_are_summed() {
        let counters = Counters::new(2);
        counters.of_worker(0).requests.up();
        counters.of_worker(1).requests.add(2);
        counters.of_worker(1).responses[5].up();
        counters.of_worker(0).tunnels_opened.add(3);
        counters.of_worker(1).tunnel_ends[TunnelEnd::Moved as usize].up();
        let totals = counters.snapshot();
        assert_eq!((totals.requests, totals.responses, totals.tunnels()), (3, [0, 0, 0, 0, 0, 1], 2));
    }

    #[test]
    fn labels_are_numbered_as_listed() {
        assert!(Why::ALL.iter().enumerate().all(|(number, why)| *why as usize == number));
        assert!(Refused::ALL.iter().enumerate().all(|(number, refused)| *refused as usize == number));
        assert!(TunnelEnd::ALL.iter().enumerate().all(|(number, end)| *end as usize == number));
    }
}
