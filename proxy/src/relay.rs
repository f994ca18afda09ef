//! The other end of a second hop: streams of peers that do not reach a shard themselves. The shard is looked up by its name in what
//! discovery says now, and connected to, or the stream is refused; nothing else is tried, stored or passed on.

use std::net::SocketAddr;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use shardgate_discovery::{DiscoveryHandle, Snapshot};
use shardgate_peering::{RelayRefusal, RelayStream, Relayed};
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt, ReadBuf, copy_bidirectional};
use tokio::net::TcpStream;
use tokio::sync::{mpsc, watch};
use tokio::task::{JoinHandle, JoinSet};
use tokio::time::{sleep, timeout};
use tracing::debug;

use crate::backend::{ConnectError, tcp};
use crate::limits::Gate;

/// Streams of all peers at once; beyond it they are refused. Each takes two buffers of 8 KiB.
const RELAYED_MAX: usize = 8_192;
/// In so many parts the longest pause of a stream is looked at.
const LOOKS: u32 = 4;

/// What streams that come from now on find.
#[derive(Debug, Clone, Copy)]
enum Taking {
    /// They may pause for so long.
    Yes { idle: Duration },
    /// This node stops.
    No,
}

/// The task that carries what peers ask for, on the control runtime.
#[derive(Debug)]
pub struct Relaying {
    taking: watch::Sender<Taking>,
    open: watch::Receiver<usize>,
    task: JoinHandle<()>,
}

impl Relaying {
    /// Takes streams; one that pauses for `idle` ends. Must be called within a tokio runtime, which carries them.
    #[must_use = "what is refused and when it ends is said to it"]
    pub fn start(
        relayed: mpsc::Receiver<Relayed>,
        discovery: DiscoveryHandle,
        gate: Arc<Gate>,
        idle: Duration,
    ) -> Self {
        let (taking, seen) = watch::channel(Taking::Yes { idle });
        let (count, open) = watch::channel(0);
        Self { taking, open, task: tokio::spawn(take(relayed, seen, count, discovery, gate)) }
    }

    /// How long streams that come from now on may pause.
    pub fn set_idle(&self, idle: Duration) {
        self.taking.send_replace(Taking::Yes { idle });
    }

    /// New streams are refused from now on; those that are open go on.
    pub fn refuse(&self) {
        self.taking.send_replace(Taking::No);
    }

    /// Waits until nothing is open, as long as `within`.
    pub async fn emptied(&self, within: Duration) {
        let mut open = self.open.clone();
        // An end of the task, or of the time, is an end of the waiting.
        drop(timeout(within, open.wait_for(|open| *open == 0)).await);
    }

    /// Ends what is still open. The mesh has ended before, and with it the streams.
    pub async fn end(self) {
        self.task.abort();
        // Whether it was aborted or had ended by itself makes no difference.
        drop(self.task.await);
    }
}

async fn take(
    mut relayed: mpsc::Receiver<Relayed>,
    taking: watch::Receiver<Taking>,
    count: watch::Sender<usize>,
    discovery: DiscoveryHandle,
    gate: Arc<Gate>,
) {
    let mut open: JoinSet<()> = JoinSet::new();
    loop {
        tokio::select! {
            asked = relayed.recv() => {
                let Some(asked) = asked else { break };
                let taking = *taking.borrow();
                match taking {
                    Taking::No => drop(open.spawn(asked.refuse(RelayRefusal::ShuttingDown))),
                    Taking::Yes { .. } if open.len() >= RELAYED_MAX => {
                        drop(open.spawn(asked.refuse(RelayRefusal::Overload)));
                    }
                    Taking::Yes { idle } => {
                        drop(open.spawn(relay(asked, discovery.current(), Arc::clone(&gate), idle)));
                    }
                }
            }
            Some(_) = open.join_next() => {}
        }
        count.send_replace(open.len());
    }
    while open.join_next().await.is_some() {}
}

/// One stream, from the question to its end.
async fn relay(asked: Relayed, snapshot: Arc<Snapshot>, gate: Arc<Gate>, idle: Duration) {
    let Some(address) = snapshot.shard(asked.shard.as_str()).map(|shard| shard.address) else {
        return asked.refuse(RelayRefusal::UnknownShard).await;
    };
    drop(snapshot);
    let (peer, shard) = (asked.from.clone(), asked.shard.clone());
    let socket = match connect(address, asked.connect_within, &gate).await {
        Ok(socket) => socket,
        Err(why) => {
            debug!(%peer, %shard, why = why.as_str(), "refused to relay");
            return asked.refuse(why).await;
        }
    };
    match asked.accept().await {
        Ok(stream) => {
            debug!(%peer, %shard, "relaying");
            carry(stream, socket, idle).await;
        }
        Err(error) => debug!(%peer, %shard, %error, "the peer left while its shard was connected to"),
    }
}

async fn connect(address: SocketAddr, within: Duration, gate: &Gate) -> Result<TcpStream, RelayRefusal> {
    if gate.memory_is_full() {
        return Err(RelayRefusal::Overload);
    }
    let socket = match timeout(within, tcp(address)).await {
        Ok(Ok(socket)) => socket,
        Ok(Err(error)) => return Err(refusal(&error)),
        Err(_) => return Err(RelayRefusal::TimedOut),
    };
    // As for clients, the last descriptors are not for it: this node's own requests need them.
    gate.accepted(&socket).map_err(|_| RelayRefusal::Overload)?;
    Ok(socket)
}

const fn refusal(error: &ConnectError) -> RelayRefusal {
    match error {
        ConnectError::Refused { .. } => RelayRefusal::Refused,
        ConnectError::Timeout { .. } => RelayRefusal::TimedOut,
        ConnectError::Local { .. } => RelayRefusal::Overload,
        ConnectError::Unreachable { .. }
        | ConnectError::Down { .. }
        | ConnectError::Moved { .. }
        | ConnectError::Handshake { .. }
        | ConnectError::Disagreed { .. }
        | ConnectError::Relay { .. } => RelayRefusal::Unreachable,
    }
}

/// Carries bytes both ways until both sides have ended, one of them breaks off, or nothing has passed for `idle`.
async fn carry(stream: RelayStream, mut socket: TcpStream, idle: Duration) {
    let moved = AtomicBool::new(false);
    let mut stream = Watched { stream, moved: &moved, reading: Reading::Open };
    let ended = {
        let mut copying = pin!(copy_bidirectional(&mut stream, &mut socket));
        let mut quiet = 0;
        loop {
            tokio::select! {
                ended = &mut copying => break ended.map(drop),
                () = sleep(idle / LOOKS) => {
                    quiet = if moved.swap(false, Ordering::Relaxed) { 0 } else { quiet + 1 };
                    if quiet == LOOKS {
                        break Ok(());
                    }
                }
            }
        }
    };
    let ended = match ended {
        // For one that was idle; one that is over has ended both ways already.
        Ok(()) => stream.shutdown().await,
        // The peer had said its last word, and has left: what of it is under way to the shard still arrives.
        Err(error) if stream.reading == Reading::Ended => Err(error),
        // Whoever is at the other side learns that it is no end in order. The stream says so as it is dropped.
        Err(error) => socket.set_zero_linger().and(Err(error)),
    };
    if let Err(error) = ended {
        debug!(%error, "a relayed stream broke");
    }
}

/// Notes that something was read or written; all that passes does so here.
struct Watched<'a> {
    stream: RelayStream,
    moved: &'a AtomicBool,
    reading: Reading,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Reading {
    Open,
    /// By a FIN.
    Ended,
}

impl AsyncRead for Watched<'_> {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<std::io::Result<()>> {
        let Self { stream, moved, reading } = self.get_mut();
        let before = buf.filled().len();
        ready!(Pin::new(stream).poll_read(cx, buf))?;
        moved.store(true, Ordering::Relaxed);
        if buf.filled().len() == before {
            *reading = Reading::Ended;
        }
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Watched<'_> {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<std::io::Result<usize>> {
        let Self { stream, moved, .. } = self.get_mut();
        let written = Pin::new(stream).poll_write(cx, buf);
        if written.is_ready() {
            moved.store(true, Ordering::Relaxed);
        }
        written
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_shutdown(cx)
    }
}
