//! Dialling one peer for as long as discovery lists it.

use std::sync::Arc;
use std::time::{Duration, Instant};

use quinn::{Connection, ConnectionError, Endpoint};
use shardgate_peering_core::{PeerId, hash64};
use tokio::sync::{mpsc, watch};
use tracing::{debug, warn};

use crate::connection::{HANDSHAKE_MAX, end_of};
use crate::counters::{Counters, LinkEnd};
use crate::driver::LinkEvent;
use crate::mesh::{Established, PeerAddress, Side};
use crate::tls::{Environment, dns_name};

/// First and longest pause between two dials: with the 3 s of a dial itself, a cut that heals is found healed within 5 s.
const BACKOFF_MIN: Duration = Duration::from_millis(100);
const BACKOFF_MAX: Duration = Duration::from_secs(1);
/// How long a peer that does not list this node yet is waited for: its discovery is behind, and it will let this node in. A node that is
/// ready without it decides beside it.
const LISTED_WITHIN: Duration = Duration::from_secs(5);
/// The side with the higher name gives the other one this head start, so that they seldom collide.
const HEAD_START: Duration = Duration::from_millis(30);
/// A dial that has taken so long waits for a packet that was lost, and QUIC sends it again after a second, two, four.
const STUCK: Duration = Duration::from_millis(500);

pub(crate) struct Dialer {
    pub(crate) me: PeerId,
    pub(crate) environment: Environment,
    pub(crate) peer: PeerAddress,
    pub(crate) endpoint: Endpoint,
    pub(crate) events: mpsc::Sender<LinkEvent>,
    pub(crate) established: mpsc::Sender<Established>,
    pub(crate) counters: Arc<Counters>,
    /// Whether there is a connection to the peer, whoever dialled it.
    pub(crate) connected: watch::Receiver<bool>,
    /// When any peer was found last: where one is others may be, and a cut is to heal at once.
    pub(crate) found: watch::Receiver<Instant>,
}

impl Dialer {
    /// Dials, waits while the connection lives, dials again with jittered backoff.
    pub(crate) async fn run(mut self) {
        let mut backoff = BACKOFF_MIN;
        let mut last_end = None;
        let mut refused = false;
        let mut unlisted_since = None;
        if self.me > self.peer.id {
            tokio::time::sleep(HEAD_START).await;
        }
        for attempt in 0_u64.. {
            if self.connected.wait_for(|connected| !connected).await.is_err() {
                return;
            }
            let mut connected = self.connected.clone();
            self.found.mark_unchanged();
            let mut found = self.found.clone();
            let dialled = tokio::select! {
                // A dial that has just succeeded counts: the peer may keep its connection and no other.
                biased;
                dialled = self.dial() => dialled,
                // The peer was faster: what is still under way would only replace its connection.
                _ = connected.wait_for(|connected| *connected) => continue,
                () = stuck_while(&mut found) => continue,
            };
            match dialled {
                Ok(connection) => {
                    let lived = Instant::now();
                    let (peer, dialled) = (self.peer.id.clone(), connection.clone());
                    let arrival = Established { peer, connection: dialled, side: Side::Us };
                    if self.established.send(arrival).await.is_err() {
                        return;
                    }
                    let end = connection.closed().await;
                    // The other connection of the pair stands, or it failed at once: do not hurry.
                    refused = lived.elapsed() < HANDSHAKE_MAX;
                    if !refused {
                        backoff = BACKOFF_MIN;
                    }
                    if is_unlisted(&end) {
                        refused = unlisted_since.get_or_insert(lived).elapsed() >= LISTED_WITHIN;
                    } else {
                        unlisted_since = None;
                    }
                    debug!(peer = %self.peer.id, reason = %end, "dialled connection ended");
                }
                Err((end, why)) => {
                    self.counters.dial_failed();
                    self.counters.end(end);
                    if last_end.replace(end) != Some(end) {
                        warn!(peer = %self.peer.id, address = %self.peer.address, reason = end.label(), why, "cannot reach peer");
                    }
                    drop(self.events.send(LinkEvent::DialFailed { peer: self.peer.id.clone() }).await);
                }
            }
            let pause = jittered(backoff, &self.me, &self.peer.id, attempt);
            // Whoever knows of others ends it.
            drop(tokio::time::timeout(pause, self.found.changed()).await);
            backoff = (backoff * 2).min(BACKOFF_MAX);
            // A peer that closes right after the handshake will not teach us; nobody has to wait for it.
            if std::mem::take(&mut refused) && !*self.connected.borrow() {
                drop(self.events.send(LinkEvent::DialFailed { peer: self.peer.id.clone() }).await);
            }
        }
    }

    async fn dial(&self) -> Result<Connection, (LinkEnd, String)> {
        let name = dns_name(&self.peer.id, &self.environment);
        let connecting = match self.endpoint.connect(self.peer.address, &name) {
            Ok(connecting) => connecting,
            Err(error) => return Err((LinkEnd::Other, error.to_string())),
        };
        match tokio::time::timeout(HANDSHAKE_MAX, connecting).await {
            Ok(Ok(connection)) => Ok(connection),
            Ok(Err(error)) => Err((end_of(&error), error.to_string())),
            Err(_) => Err((LinkEnd::TimedOut, "no answer within 3 s".to_owned())),
        }
    }
}

/// Until a dial is stuck, and others have been found since it began.
async fn stuck_while(found: &mut watch::Receiver<Instant>) {
    tokio::time::sleep(STUCK).await;
    if found.changed().await.is_err() {
        std::future::pending().await
    }
}

/// Whether the peer has closed because its discovery does not list this node.
fn is_unlisted(end: &ConnectionError) -> bool {
    matches!(end, ConnectionError::ApplicationClosed(close) if close.reason == LinkEnd::NotListed.label())
}

/// Between half and the whole of `pause`, spread by who dials whom for the how manieth time.
fn jittered(pause: Duration, me: &PeerId, peer: &PeerId, attempt: u64) -> Duration {
    let spread = hash64(format!("{me} {peer}").as_bytes(), attempt) % 512;
    pause / 2 + pause / 2 * u32::try_from(spread).unwrap_or(0) / 512
}
