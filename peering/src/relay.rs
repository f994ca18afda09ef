//! The second hop: streams that lead to a shard by way of a peer. A stream names its shard; the peer connects to it or refuses, and asks
//! nobody else. The core knows nothing of them; they live and end with the connection to the peer.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use quinn::Connection;
use shardgate_peering_core::{PeerId, ShardName};
use tokio::sync::Semaphore;
use tokio::time::{Instant, timeout_at};

use crate::codec::{
    FrameError, RELAY_FRAME_MAX, RelayOpen, RelayRefusal, decode_relay_opened, encode_relay_open,
    read_frame_within,
};
use crate::counters::Counters;

mod counts;
mod stream;
mod take;

pub(crate) use counts::RelayCounters;
pub use counts::{RelayCounts, RelaySide};
pub use stream::RelayStream;
use stream::{Halves, Place};
pub use take::Relayed;
pub(crate) use take::{Acceptor, RELAYED_WAITING_MAX, Taker};

/// Relayed streams of one connection in each direction, where nothing else is said: a shard's people at one node, reached by one peer.
pub const RELAYED_STREAMS_MAX: u32 = 4_096;
/// What a peer may have sent on one stream before it is read, and so all that one whose reader stands still keeps of a connection's
/// window. Enough for 2.5 MB/s on a path of 100 ms.
pub(crate) const STREAM_WINDOW: u32 = 256 << 10;

/// What all streams of a connection may hold, unread or not yet acknowledged: so much that relayed ones whose readers stand still, as
/// many as there can be both ways, leave `lanes` to the others.
pub(crate) fn window(lanes: u32, relayed_streams_max: u32) -> u64 {
    u64::from(lanes) + 2 * u64::from(relayed_streams_max) * u64::from(STREAM_WINDOW)
}

/// Why no stream by way of a peer came about.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum RelayError {
    /// There is no connection to the peer.
    #[error("not connected to the peer")]
    NotConnected,
    /// As many streams are open as this node or the peer allows.
    #[error("too many streams by way of the peer are open")]
    TooMany,
    /// The peer did not answer in time.
    #[error("the peer did not answer in time")]
    NoAnswer,
    /// The connection, or the stream, ended before the peer answered.
    #[error("the connection to the peer was lost")]
    Lost,
    /// The peer's answer is none.
    #[error("the peer answered something else: {0}")]
    Garbled(FrameError),
    /// The peer does not reach the shard, or does not want to.
    #[error("the peer refused: {}", why.as_str())]
    Refused {
        /// Why.
        why: RelayRefusal,
    },
}

impl RelayError {
    /// Every label there is.
    pub const LABELS: [&'static str; 11] = [
        "not_connected",
        "too_many",
        "no_answer",
        "lost",
        "garbled",
        RelayRefusal::ALL[0].as_str(),
        RelayRefusal::ALL[1].as_str(),
        RelayRefusal::ALL[2].as_str(),
        RelayRefusal::ALL[3].as_str(),
        RelayRefusal::ALL[4].as_str(),
        RelayRefusal::ALL[5].as_str(),
    ];

    pub(crate) const fn index(&self) -> usize {
        match self {
            Self::NotConnected => 0,
            Self::TooMany => 1,
            Self::NoAnswer => 2,
            Self::Lost => 3,
            Self::Garbled(_) => 4,
            Self::Refused { why } => 5 + *why as usize,
        }
    }

    /// The word for it, a label of metrics.
    #[must_use]
    pub const fn label(&self) -> &'static str {
        Self::LABELS[self.index()]
    }
}

/// The way to one peer: its connection of now, and the places for streams that this node opens on it.
#[derive(Debug, Clone)]
pub(crate) struct Way {
    connection: Connection,
    places: Arc<Semaphore>,
}

impl Way {
    pub(crate) fn new(connection: Connection, relayed_streams_max: u32) -> Self {
        let places = usize::try_from(relayed_streams_max).unwrap_or(usize::MAX).min(Semaphore::MAX_PERMITS);
        Self { connection, places: Arc::new(Semaphore::new(places)) }
    }
}

/// The current ways; the mesh's supervisor alone writes them.
pub(crate) type Ways = ArcSwap<BTreeMap<PeerId, Way>>;

/// Opens relayed streams. Cheap to clone; usable from any runtime.
#[derive(Debug, Clone)]
pub struct Relays {
    ways: Arc<Ways>,
    counters: Arc<Counters>,
}

impl Relays {
    pub(crate) fn new(counters: Arc<Counters>) -> Self {
        Self { ways: Arc::default(), counters }
    }

    /// For the supervisor.
    pub(crate) fn ways(&self) -> Arc<Ways> {
        Arc::clone(&self.ways)
    }

    /// Those of `peers` that this node is connected to, the nearest first.
    #[must_use]
    pub fn nearest(&self, peers: &[PeerId]) -> Vec<PeerId> {
        let ways = self.ways.load();
        let connected = peers.iter().filter_map(|peer| Some((ways.get(peer)?.connection.rtt(), peer)));
        let mut connected: Vec<_> = connected.collect();
        connected.sort();
        connected.into_iter().map(|(_, peer)| peer.clone()).collect()
    }

    /// Opens a stream to `shard` by way of `peer`, and waits until the peer has connected to it. Where too many are open already on the
    /// peer's side it waits for a place as well, all together no longer than `within`.
    ///
    /// # Errors
    /// [`RelayError`].
    pub async fn open(
        &self,
        peer: &PeerId,
        shard: &ShardName,
        within: Duration,
    ) -> Result<RelayStream, RelayError> {
        let opened = self.ask(peer, shard, within).await;
        if let Err(error) = &opened {
            self.counters.relays.failed(error);
        }
        let halves = opened?;
        Ok(RelayStream::new(halves, peer.clone(), RelaySide::Out, Arc::clone(&self.counters)))
    }

    async fn ask(&self, peer: &PeerId, shard: &ShardName, within: Duration) -> Result<Halves, RelayError> {
        let way = self.ways.load().get(peer).cloned().ok_or(RelayError::NotConnected)?;
        let place = way.places.try_acquire_owned().map_err(|_| RelayError::TooMany)?;
        let deadline = Instant::now() + within;
        let (send, receive) = match timeout_at(deadline, way.connection.open_bi()).await {
            Ok(Ok(halves)) => halves,
            Ok(Err(_)) => return Err(RelayError::Lost),
            Err(_) => return Err(RelayError::TooMany),
        };
        let mut halves = Halves::new(send, receive, Place::Taken(place));
        // The peer gives up first, so that its answer says why.
        let left = deadline.saturating_duration_since(Instant::now());
        let connect_within = left.saturating_sub(way.connection.rtt()).max(left / 2);
        let open = encode_relay_open(&RelayOpen { shard: shard.clone(), connect_within });
        let asking = async {
            halves.send.write_chunk(open).await.map_err(|_| RelayError::Lost)?;
            let answer = read_frame_within(&mut halves.receive, RELAY_FRAME_MAX).await;
            answer.map_err(RelayError::Garbled)?.ok_or(RelayError::Lost)
        };
        let body = timeout_at(deadline, asking).await.map_err(|_| RelayError::NoAnswer)??;
        match decode_relay_opened(&body).map_err(RelayError::Garbled)? {
            Ok(()) => Ok(halves),
            Err(why) => Err(RelayError::Refused { why }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stalled_streams_leave_the_lanes_their_window() {
        let lanes = 8 << 20;
        let most = 2 * u64::from(RELAYED_STREAMS_MAX) * u64::from(STREAM_WINDOW);
        assert_eq!(window(lanes, RELAYED_STREAMS_MAX) - most, u64::from(lanes));
        assert_eq!(window(lanes, 0), u64::from(lanes));
    }

    #[test]
    fn errors_are_numbered_as_their_labels() {
        assert!(RelayRefusal::ALL.iter().enumerate().all(|(number, why)| *why as usize == number));
        for why in RelayRefusal::ALL {
            assert_eq!(RelayError::Refused { why }.label(), why.as_str());
        }
        assert_eq!(RelayError::Lost.label(), "lost");
    }
}
