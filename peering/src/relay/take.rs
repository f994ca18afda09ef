//! The receiving side: streams that peers open, one frame read from each, and what becomes of them.

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use quinn::{Connection, VarInt};
use shardgate_peering_core::{PeerId, ShardName};
use tokio::sync::mpsc;
use tokio::sync::mpsc::error::TrySendError;
use tokio::task::JoinSet;
use tokio::time::timeout;
use tracing::debug;

use super::stream::{Halves, Place};
use super::{RelayError, RelaySide, RelayStream};
use crate::codec::{
    RELAY_FRAME_MAX, RelayOpen, RelayRefusal, decode_relay_open, encode_relay_opened, read_frame_within,
};
use crate::connection::end_of;
use crate::counters::{Counters, LinkEnd};

/// Relayed streams that wait to be taken, of all peers; at the bound they are refused.
pub(crate) const RELAYED_WAITING_MAX: usize = 256;
/// How long the first frame may take, and an answer to be written.
const FRAME_WITHIN: Duration = Duration::from_secs(3);
/// How many streams a peer may open at first. quinn keeps memory for each that may be opened, so the bound is raised as they are used.
const STREAMS_AT_FIRST: u32 = 64;

/// Who takes relayed streams, once there is somebody.
pub(crate) type Taker = Arc<OnceLock<mpsc::Sender<Relayed>>>;

/// A peer asks for a stream to a shard. Dropped without an answer, it is reset.
#[derive(Debug)]
pub struct Relayed {
    /// Who.
    pub from: PeerId,
    /// The shard.
    pub shard: ShardName,
    /// How long the peer waits for it.
    pub connect_within: Duration,
    halves: Halves,
    counters: Arc<Counters>,
}

impl Relayed {
    /// The shard has taken a connection: bytes follow.
    ///
    /// # Errors
    /// [`RelayError::Lost`] when the peer has left meanwhile, and [`RelayError::NoAnswer`] when it takes nothing.
    pub async fn accept(mut self) -> Result<RelayStream, RelayError> {
        self.answer(Ok(())).await?;
        let Self { from, halves, counters, .. } = self;
        Ok(RelayStream::new(halves, from, RelaySide::In, counters))
    }

    /// There is no way to the shard.
    pub async fn refuse(mut self, why: RelayRefusal) {
        self.counters.relays.refused(why);
        match self.answer(Err(why)).await {
            Ok(()) => self.halves.finish(),
            Err(error) => debug!(peer = %self.from, %error, "a refusal was not told"),
        }
    }

    async fn answer(&mut self, answer: Result<(), RelayRefusal>) -> Result<(), RelayError> {
        let frame = encode_relay_opened(answer);
        match timeout(FRAME_WITHIN, self.halves.send.write_chunk(frame)).await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(_)) => Err(RelayError::Lost),
            Err(_) => Err(RelayError::NoAnswer),
        }
    }
}

/// Takes the streams that one peer opens on one connection.
#[derive(Debug)]
pub(crate) struct Acceptor {
    peer: PeerId,
    connection: Connection,
    taker: Taker,
    counters: Arc<Counters>,
    streams_max: u32,
    /// Each stream has a share of it.
    open: Arc<()>,
}

impl Acceptor {
    pub(crate) fn new(
        peer: PeerId,
        connection: Connection,
        taker: Taker,
        counters: Arc<Counters>,
        streams_max: u32,
    ) -> Self {
        Self { peer, connection, taker, counters, streams_max, open: Arc::default() }
    }

    /// How many streams a connection may open when it begins.
    pub(crate) fn streams_at_first(streams_max: u32) -> VarInt {
        streams_max.min(STREAMS_AT_FIRST).into()
    }

    /// Runs until the connection ends.
    pub(crate) async fn run(self) -> LinkEnd {
        let mut greeting: JoinSet<()> = JoinSet::new();
        let mut allowed = self.streams_max.min(STREAMS_AT_FIRST);
        loop {
            tokio::select! {
                stream = self.connection.accept_bi() => match stream {
                    Ok((send, receive)) => {
                        greeting.spawn(self.greet(Halves::new(send, receive, Place::Given(Arc::clone(&self.open)))));
                        allowed = self.allow(allowed);
                    }
                    Err(error) => return end_of(&error),
                },
                Some(_) = greeting.join_next() => {}
            }
        }
    }

    /// Twice as many as before, when half of them are open.
    fn allow(&self, allowed: u32) -> u32 {
        let open = u32::try_from(Arc::strong_count(&self.open)).unwrap_or(u32::MAX);
        if allowed == self.streams_max || open < allowed / 2 {
            return allowed;
        }
        let allowed = allowed.saturating_mul(2).min(self.streams_max);
        self.connection.set_max_concurrent_bi_streams(allowed.into());
        allowed
    }

    /// Reads what a stream is for, and hands it on.
    fn greet(&self, mut halves: Halves) -> impl Future<Output = ()> + use<> {
        let (from, taker, counters) =
            (self.peer.clone(), Arc::clone(&self.taker), Arc::clone(&self.counters));
        async move {
            let body = timeout(FRAME_WITHIN, read_frame_within(&mut halves.receive, RELAY_FRAME_MAX)).await;
            let open = match body {
                // The opener has left already.
                Ok(Ok(None)) => return,
                Ok(Ok(Some(body))) => decode_relay_open(&body).map_err(|error| error.to_string()),
                Ok(Err(error)) => Err(error.to_string()),
                Err(_) => Err("nothing was said in time".to_owned()),
            };
            let RelayOpen { shard, connect_within } = match open {
                Ok(open) => open,
                Err(error) => {
                    debug!(peer = %from, error, "reset a stream that does not say what it is for");
                    counters.relays.bad_frame();
                    return;
                }
            };
            let relayed = Relayed { from, shard, connect_within, halves, counters };
            let Some(taker) = taker.get() else { return relayed.refuse(RelayRefusal::Overload).await };
            match taker.try_send(relayed) {
                Ok(()) => {}
                Err(TrySendError::Full(relayed)) => relayed.refuse(RelayRefusal::Overload).await,
                Err(TrySendError::Closed(relayed)) => relayed.refuse(RelayRefusal::ShuttingDown).await,
            }
        }
    }
}
