//! A built-in shard: a real HTTP and WebSocket server on a loopback address that plays Prosody's part for `dev`.
//!
//! It can be killed (listener and every connection closed at once) and started again on the same address, empty. All its
//! tasks hang on one task, so nothing of a killed shard goes on.

use std::convert::Infallible;
use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures_util::{SinkExt, StreamExt};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::upgrade::{OnUpgrade, Upgraded};
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::oneshot;
use tokio::task::{JoinHandle, JoinSet};
use tokio::time::timeout;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::protocol::{Message, Role, WebSocketConfig};

use super::chat::{FromShard, ToShard};
use super::room_page::{self, Body, Visit};
use super::rooms::{Counts, Place, Rooms, Seat};

/// Most connections of one shard; further ones wait in the kernel's queue.
const CONNECTIONS_MAX: usize = 4_096;
/// Largest WebSocket message; a larger one ends that session.
const MESSAGE_BYTES_MAX: usize = 16 * 1024;
/// A frame that the other side does not take for so long ends its session.
const WRITE_WAIT: Duration = Duration::from_secs(10);

/// What a shard is called, as it stands in the discovery file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ShardSpec {
    /// Name.
    pub name: &'static str,
    /// Number, unique.
    pub id: u32,
    /// Region.
    pub region: &'static str,
    /// Release.
    pub release: &'static str,
}

/// One built-in shard, running or killed.
pub struct DevShard {
    spec: ShardSpec,
    address: SocketAddr,
    running: Option<Running>,
}

struct Running {
    rooms: Rooms,
    stop: oneshot::Sender<()>,
    accepting: JoinHandle<()>,
}

impl DevShard {
    /// Starts a shard; port 0 takes a free one and keeps it over restarts.
    pub async fn start(spec: ShardSpec, address: SocketAddr) -> io::Result<Self> {
        let listener = TcpListener::bind(address).await?;
        let address = listener.local_addr()?;
        Ok(Self { spec, address, running: Some(Running::start(spec, listener)) })
    }

    /// What it is.
    pub fn spec(&self) -> ShardSpec {
        self.spec
    }

    /// Where it listens, or did until it was killed.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Rooms and people; `None` while killed.
    pub fn counts(&self) -> Option<Counts> {
        self.running.as_ref().map(|running| running.rooms.counts())
    }

    /// Closes the listener and every connection; when this returns, all of them are closed. No effect on a killed shard.
    pub async fn kill(&mut self) {
        if let Some(Running { stop, accepting, rooms: _ }) = self.running.take() {
            stop.send(()).ok();
            accepting.await.ok();
        }
    }

    /// Starts a killed shard again on its address, without rooms. No effect on a running one.
    pub async fn restart(&mut self) -> io::Result<()> {
        if self.running.is_none() {
            let listener = TcpListener::bind(self.address).await?;
            self.running = Some(Running::start(self.spec, listener));
        }
        Ok(())
    }
}

impl Running {
    fn start(spec: ShardSpec, listener: TcpListener) -> Self {
        let rooms = Rooms::new(Place { shard: spec.name, region: spec.region, release: spec.release });
        let (stop, stopped) = oneshot::channel();
        let accepting = tokio::spawn(accept(listener, spec, rooms.clone(), stopped));
        Self { rooms, stop, accepting }
    }
}

/// Accepts until told to stop, or until the shard is dropped.
async fn accept(listener: TcpListener, spec: ShardSpec, rooms: Rooms, mut stopped: oneshot::Receiver<()>) {
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            _ = &mut stopped => break,
            Some(_ended) = connections.join_next() => {}
            accepted = listener.accept(), if connections.len() < CONNECTIONS_MAX => match accepted {
                Ok((stream, _)) => { connections.spawn(serve(stream, spec, rooms.clone())); }
                // Out of descriptors or an aborted handshake: give the running connections time to end.
                Err(_) => tokio::time::sleep(Duration::from_millis(20)).await,
            },
        }
    }
    drop(listener);
    connections.shutdown().await;
}

/// A WebSocket that was granted: who comes, and the connection once hyper lets go of it.
struct Granted {
    seat: Seat,
    upgrade: OnUpgrade,
}

async fn serve(stream: TcpStream, spec: ShardSpec, rooms: Rooms) {
    stream.set_nodelay(true).ok();
    let granted: Arc<Mutex<Option<Granted>>> = Arc::default();
    let service = service_fn(|request: Request<Incoming>| {
        let (response, grant) = answer(request, spec, &rooms);
        if grant.is_some() {
            *granted.lock().unwrap_or_else(PoisonError::into_inner) = grant;
        }
        async move { Ok::<_, Infallible>(response) }
    });
    let served = http1::Builder::new().serve_connection(TokioIo::new(stream), service).with_upgrades().await;
    let granted = granted.lock().unwrap_or_else(PoisonError::into_inner).take();
    if let (Ok(()), Some(Granted { seat, upgrade })) = (served, granted)
        && let Ok(upgraded) = upgrade.await
    {
        let limits = WebSocketConfig::default()
            .max_message_size(Some(MESSAGE_BYTES_MAX))
            .max_frame_size(Some(MESSAGE_BYTES_MAX));
        let io = TokioIo::new(upgraded);
        let socket = WebSocketStream::from_raw_socket(io, Role::Server, Some(limits)).await;
        converse(socket, seat).await;
    }
}

fn answer(
    mut request: Request<Incoming>,
    spec: ShardSpec,
    rooms: &Rooms,
) -> (Response<Body>, Option<Granted>) {
    let visit = match room_page::read(&request) {
        Ok(visit) => visit,
        Err(refused) => return (room_page::refuse(spec, &refused), None),
    };
    let Visit::Join { room, name, via, accept } = visit else { return (room_page::show(spec, &visit), None) };
    match rooms.enter(&room, &name, &via) {
        Ok(seat) => {
            let upgrade = hyper::upgrade::on(&mut request);
            (room_page::switch_protocols(spec, &accept), Some(Granted { seat, upgrade }))
        }
        Err(error) => (room_page::refuse(spec, &room_page::Refused::Full(error)), None),
    }
}

/// Carries frames between one person and their room until either side ends it.
async fn converse(mut socket: WebSocketStream<TokioIo<Upgraded>>, mut seat: Seat) {
    loop {
        let reply = tokio::select! {
            frame = seat.next() => match frame {
                Some(frame) => frame.to_string(),
                None => break,
            },
            heard = socket.next() => match heard {
                Some(Ok(Message::Text(text))) => match hear(&seat, &text) {
                    Ok(()) => continue,
                    Err(reason) => FromShard::Refused { reason }.to_json(),
                },
                // Reading answers a ping and a close by itself.
                Some(Ok(Message::Ping(_) | Message::Pong(_))) => continue,
                Some(Ok(Message::Binary(_) | Message::Close(_) | Message::Frame(_)) | Err(_)) | None => break,
            },
        };
        if !matches!(timeout(WRITE_WAIT, socket.send(Message::text(reply))).await, Ok(Ok(()))) {
            break;
        }
    }
    drop(seat);
    timeout(WRITE_WAIT, socket.close(None)).await.ok();
}

fn hear(seat: &Seat, frame: &str) -> Result<(), String> {
    let ToShard::Say { text } = serde_json::from_str(frame)
        .map_err(|error| format!(r#"not understood ({error}), expected {{"type":"say","text":"…"}}"#))?;
    seat.say(&text).map_err(|error| error.to_string())
}
