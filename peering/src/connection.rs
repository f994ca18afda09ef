//! One connection to one peer: writers for the lanes, readers for its streams, and the reason of its end.

use std::sync::Arc;
use std::time::Duration;

use bytes::BytesMut;
use quinn::{Connection, ConnectionError, RecvStream, SendStream, VarInt};
use shardgate_peering_core::{Message, PeerId};
use tokio::io::BufReader;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use tokio::time::Instant;
use tracing::{debug, info, warn};

use crate::codec::{Decoder, Encoder, FrameError, read_frame};
use crate::counters::{Counters, LinkEnd};
use crate::driver::LinkEvent;
use crate::outbox::Lanes;
use crate::relay::Acceptor;

/// How long messages of a busy lane wait for others at the most.
const COMPANY: Duration = Duration::from_millis(8);
/// How many messages in that time make a lane busy.
const BUSY: usize = 4;
/// The most that is written in one call.
const TOGETHER_MAX: usize = 256;

/// Streams of a peer that may be open at once: one for each lane, and some for lanes of the future.
pub(crate) const STREAMS_MAX: u32 = 16;

/// QUIC sends what has a higher one first; relayed streams have 0.
const LANES_PRIORITY: i32 = 1;

/// What a connection needs to run.
#[derive(Debug)]
pub(crate) struct Link {
    pub(crate) peer: PeerId,
    pub(crate) id: u64,
    pub(crate) connection: Connection,
    pub(crate) lanes: Lanes,
    pub(crate) relayed: Acceptor,
    pub(crate) events: mpsc::Sender<LinkEvent>,
    pub(crate) counters: Arc<Counters>,
}

impl Link {
    /// Runs until the connection ends for whatever reason, then tells the driver. Answers whose connection it was.
    pub(crate) async fn run(self) -> (PeerId, u64) {
        let Self { peer, id, connection, mut lanes, relayed, events, counters } = self;
        let end = {
            let (control, bulk) = (&mut lanes.control, &mut lanes.bulk);
            tokio::select! {
                biased;
                end = lanes.close.wait_for(Option::is_some) => end.map_or(LinkEnd::Shutdown, |end| end.unwrap_or(LinkEnd::Shutdown)),
                end = read_streams(&connection, &peer, id, &events, &counters) => end,
                end = relayed.run() => end,
                end = write_ordered(&connection, control, Pace::new(BUSY), &counters) => end,
                // Windows bound it, and what they wait for is the next message.
                end = write_ordered(&connection, bulk, Pace::new(usize::MAX), &counters) => end,
            }
        };
        counters.end(end);
        info!(%peer, reason = end.label(), "connection to peer ended");
        close(&connection, end);
        // A stopped driver needs to know nothing any more.
        drop(events.send(LinkEvent::Lost { peer: peer.clone(), link: id }).await);
        (peer, id)
    }
}

/// Closes with a reason the other side can read. Where the other side has closed already, its reason stays the one: quinn would put ours in
/// its place, and the dialler that has not looked yet would not learn that it is not listed there.
pub(crate) fn close(connection: &Connection, end: LinkEnd) {
    if connection.close_reason().is_none() {
        connection.close(VarInt::from_u32(1), end.label().as_bytes());
    }
}

/// Why a connection ended that neither side's driver ended.
pub(crate) fn end_of(error: &ConnectionError) -> LinkEnd {
    match error {
        ConnectionError::TimedOut => LinkEnd::TimedOut,
        ConnectionError::ApplicationClosed(_) | ConnectionError::Reset => LinkEnd::ClosedByPeer,
        ConnectionError::TransportError(error) => tls_end(&error.reason, u64::from(error.code)),
        ConnectionError::ConnectionClosed(close) => {
            tls_end(&String::from_utf8_lossy(&close.reason), u64::from(close.error_code))
        }
        ConnectionError::VersionMismatch
        | ConnectionError::LocallyClosed
        | ConnectionError::CidsExhausted => LinkEnd::Other,
    }
}

/// TLS alerts come as 0x100 + alert (RFC 9001 section 4.8): 120 no_application_protocol; certificates are told by rustls' words.
fn tls_end(reason: &str, code: u64) -> LinkEnd {
    if code == 0x178 || reason.contains("ALPN") || reason.contains("application protocol") {
        LinkEnd::WrongAlpn
    } else if reason.contains("UnknownIssuer") || reason.contains("BadSignature") || code == 0x130 {
        LinkEnd::WrongCa
    } else if reason.contains("NotValidForName") || reason.contains("not valid for name") {
        LinkEnd::WrongName
    } else {
        LinkEnd::Other
    }
}

/// Writes a lane to a stream of its own.
async fn write_ordered(
    connection: &Connection,
    lane: &mut mpsc::Receiver<Message>,
    mut pace: Pace,
    counters: &Counters,
) -> LinkEnd {
    let mut stream: Option<SendStream> = None;
    let mut encoder = Encoder::default();
    let mut messages = Vec::new();
    while let Some(message) = lane.recv().await {
        let opened = match stream.take() {
            Some(stream) => stream,
            None => match open_lane(connection).await {
                Ok(stream) => stream,
                Err(end) => return end,
            },
        };
        let writer = stream.insert(opened);
        messages.push(message);
        if let Some(until) = pace.waits() {
            tokio::time::sleep_until(until).await;
        }
        // What waits already goes out in one call, so that quinn fills its packets.
        while messages.len() < TOGETHER_MAX
            && let Ok(message) = lane.try_recv()
        {
            messages.push(message);
        }
        pace.sends(messages.len());
        let mut frames = BytesMut::new();
        encoder.encode(messages.drain(..), &mut frames);
        counters.sent(frames.len());
        if writer.write_chunk(frames.freeze()).await.is_err() {
            return closed(connection).await;
        }
    }
    closed(connection).await
}

/// Before all relayed streams, whatever these have to send.
async fn open_lane(connection: &Connection) -> Result<SendStream, LinkEnd> {
    let stream = connection.open_uni().await.map_err(|error| end_of(&error))?;
    stream.set_priority(LANES_PRIORITY).map_err(|_| LinkEnd::Other)?;
    Ok(stream)
}

/// When a lane is busy its messages wait for company: a packet, its acknowledgement and a frame cost as much as an entry each. A lane
/// that is not sends everything at once.
#[derive(Debug)]
struct Pace {
    /// Since when `sent` is counted.
    since: Instant,
    sent: usize,
    /// From how many on the lane is busy.
    busy: usize,
}

impl Pace {
    fn new(busy: usize) -> Self {
        Self { since: Instant::now(), sent: 0, busy }
    }

    /// Until when to wait before the next write.
    fn waits(&self) -> Option<Instant> {
        let until = self.since + COMPANY;
        (self.sent >= self.busy && Instant::now() < until).then_some(until)
    }

    fn sends(&mut self, messages: usize) {
        if self.since.elapsed() >= COMPANY {
            *self = Self::new(self.busy);
        }
        self.sent += messages;
    }
}

async fn closed(connection: &Connection) -> LinkEnd {
    end_of(&connection.closed().await)
}

async fn read_streams(
    connection: &Connection,
    peer: &PeerId,
    link: u64,
    events: &mpsc::Sender<LinkEvent>,
    counters: &Arc<Counters>,
) -> LinkEnd {
    let mut readers: JoinSet<Result<(), FrameError>> = JoinSet::new();
    let greeted = Arc::new(watch::Sender::new(false));
    let mut no_hello = std::pin::pin!(tokio::time::sleep(HANDSHAKE_MAX));
    loop {
        tokio::select! {
            () = &mut no_hello, if !no_hello.is_elapsed() => {
                if *greeted.borrow() {
                    continue;
                }
                warn!(%peer, "no hello within 3 s of connecting");
                return LinkEnd::TimedOut;
            }
            stream = connection.accept_uni() => match stream {
                Ok(stream) => {
                    let reader = Reader {
                        peer: peer.clone(),
                        link,
                        events: events.clone(),
                        counters: Arc::clone(counters),
                        connection: connection.clone(),
                        greeted: Arc::clone(&greeted),
                    };
                    readers.spawn(reader.run(stream));
                }
                Err(error) => return end_of(&error),
            },
            Some(done) = readers.join_next() => {
                if let Ok(Err(error)) = done {
                    warn!(%peer, %error, "refused a frame");
                    return LinkEnd::BadFrame;
                }
            }
        }
    }
}

struct Reader {
    peer: PeerId,
    link: u64,
    events: mpsc::Sender<LinkEvent>,
    counters: Arc<Counters>,
    connection: Connection,
    greeted: Arc<watch::Sender<bool>>,
}

impl Reader {
    /// Reads frames until the stream ends. The driver's queue is bounded: while it is full nothing is read, and QUIC's flow
    /// control holds the peer.
    async fn run(self, stream: RecvStream) -> Result<(), FrameError> {
        let mut decoder = Decoder::default();
        let mut stream = BufReader::new(stream);
        while let Some(body) = read_frame(&mut stream).await? {
            self.counters.received(body.len());
            let messages = decoder.decode(&body)?;
            if messages.is_empty() {
                debug!(peer = %self.peer, "skipped a message of a kind this version does not know");
            }
            for message in messages {
                if !self.pass_on(message).await {
                    return Ok(());
                }
            }
        }
        Ok(())
    }

    /// Gives a message to the driver; false when it has stopped.
    async fn pass_on(&self, message: Message) -> bool {
        let rtt_ms = u64::try_from(self.connection.rtt().as_millis()).unwrap_or(u64::MAX);
        let is_hello = matches!(message, Message::Hello(_));
        if !is_hello {
            // Streams overtake each other: what arrives before the hello waits for it.
            drop(self.greeted.subscribe().wait_for(|greeted| *greeted).await);
        }
        let (peer, link) = (self.peer.clone(), self.link);
        let event = LinkEvent::Received { peer, link, rtt_ms, message: Box::new(message) };
        if self.events.send(event).await.is_err() {
            return false;
        }
        if is_hello {
            self.greeted.send_replace(true);
        }
        true
    }
}

/// How long a handshake may take, and a dial in all.
pub(crate) const HANDSHAKE_MAX: Duration = Duration::from_secs(3);
