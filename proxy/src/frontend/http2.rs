//! HTTP/2 connections (RFC 9113), with WebSockets in streams of theirs (RFC 8441). hyper's server runs each stream in a task of its own;
//! to the rest of the proxy a stream is an exchange like any other.

use super::frame_budget::{Fault, FrameBudget, Frames, PREFACE_LEN};
use super::translate::{Asked, translate};
use crate::body::AnswerBody;
use crate::client::{Carrier, Client, Origin};
use crate::clock::{Millis, to_millis};
use crate::counters::TimeoutKind;
use crate::forward::{self, Limits};
use crate::socket::Socket;
use crate::tunnel::{self, ClientEnd, Opening, Place};
use crate::worker::{Connected, Registered, Watched, Worker};
use bytes::Bytes;
use http::header::{CONNECTION, SEC_WEBSOCKET_ACCEPT, UPGRADE};
use http::{Method, Request, Response, StatusCode};
use http_body::{Body, Frame, SizeHint};
use hyper::body::Incoming;
use hyper::rt::Executor;
use hyper::server::conn::http2::{Builder, Connection};
use hyper::upgrade::OnUpgrade;
use hyper_util::rt::TokioIo;
use std::cell::{Cell, RefCell};
use std::convert::Infallible;
use std::error::Error as _;
use std::future::poll_fn;
use std::io;
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::task::{Context, Poll, Waker, ready};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt, ReadBuf};
use tokio::task::spawn_local;
use tokio::time::timeout;

/// Streams that a client may have open at once (RFC 9113, 5.1.2): as HAProxy's `tune.h2.fe.max-concurrent-streams`.
const STREAMS_MAX: u32 = 100;
/// What a client may send into a stream before its shard takes it; 64 KiB as HAProxy's, and the protocol's own default.
const STREAM_WINDOW_BYTES: u32 = 65_535;
/// The same for all streams of a connection.
const CONNECTION_WINDOW_BYTES: u32 = 1 << 20;
/// What is kept of one stream's answer while its client's window is closed.
const SEND_BUFFER_BYTES: usize = 64 * 1024;
/// Streams that a client has reset before we saw them (CVE-2023-44487): more end the connection.
const RESETS_UNSEEN_MAX: usize = 20;
/// Streams whose answer the client did not wait for. From this many on, and when they are most of all, the connection ends, as Envoy's
/// premature resets do.
const ABORTED_MAX: u64 = 200;
/// How long a client has for our goodbye.
const GOODBYE: Duration = Duration::from_secs(1);
/// GOAWAY on stream 0 (RFC 9113, 6.8); the last stream is not told.
const fn goaway(fault: Fault) -> [u8; 17] {
    [0, 0, 8, 7, 0, 0, 0, 0, 0, 0x7f, 0xff, 0xff, 0xff, 0, 0, 0, fault.code()]
}

/// What hyper serves HTTP/2 connections by.
pub(crate) type Http2Builder = Builder<Streams>;

/// Runs what hyper wants to have run, and finds the task of each stream for its client.
#[derive(Clone, Default)]
pub(crate) struct Streams {
    /// The client of the stream whose task is started next: hyper starts it right after it has called the service.
    next: Rc<RefCell<Option<Rc<Client>>>>,
}

impl<F: Future<Output = ()> + 'static> Executor<F> for Streams {
    fn execute(&self, future: F) {
        let task = spawn_local(future);
        if let Some(client) = self.next.take() {
            client.runs_in(task.abort_handle());
        }
    }
}

/// Prepares HTTP/2 for all connections of a worker.
pub(crate) fn http2_builder(limits: &Limits, streams: &Streams) -> Http2Builder {
    let mut http = Builder::new(streams.clone());
    http.auto_date_header(false)
        .enable_connect_protocol()
        .max_concurrent_streams(STREAMS_MAX)
        .initial_stream_window_size(STREAM_WINDOW_BYTES)
        .initial_connection_window_size(CONNECTION_WINDOW_BYTES)
        .max_pending_accept_reset_streams(RESETS_UNSEEN_MAX)
        .max_send_buf_size(SEND_BUFFER_BYTES)
        .max_header_list_size(u32::try_from(limits.head_bytes_max).unwrap_or(u32::MAX));
    http
}

/// Why we end a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum End {
    /// Nothing is left to be said.
    LetGo,
    /// The client did what it must not.
    Fault(Fault),
}

/// A connection: what its streams share, and what the sweep looks at.
pub(crate) struct Http2 {
    origin: Rc<Origin>,
    worker: Rc<Worker>,
    open: Cell<usize>,
    streams: Cell<u64>,
    aborted: Cell<u64>,
    idle_since: Cell<Millis>,
    /// When the last of an answer's body was written: streams end when we have handed on all of theirs, not when clients have it.
    data_sent_at: Cell<Millis>,
    blocked_since: Cell<Option<Millis>>,
    /// When we said goodbye.
    leaving_since: Cell<Option<Millis>>,
    end: Cell<Option<End>>,
    waker: RefCell<Option<Waker>>,
}

impl Http2 {
    fn remember(&self, waker: &Waker) {
        let mut known = self.waker.borrow_mut();
        if known.is_none() {
            *known = Some(waker.clone());
        }
    }

    pub(crate) fn wake(&self) {
        if let Some(waker) = &*self.waker.borrow() {
            waker.wake_by_ref();
        }
    }

    /// Looks at the time: a connection without streams is told that it ends, and then closed; one that takes nothing is closed.
    pub(crate) fn expire(&self, now: Millis, limits: &Limits) -> Option<TimeoutKind> {
        let over = |since: Millis, limit| now.saturating_sub(since) >= to_millis(limit);
        if self.end.get().is_some() {
            return None;
        }
        if self.blocked_since.get().is_some_and(|since| over(since, limits.client_timeout)) {
            self.end(End::LetGo);
            return Some(TimeoutKind::Client);
        }
        if self.open.get() > 0 || self.blocked_since.get().is_some() {
            return None;
        }
        let idle_since = self.idle_since.get().max(self.data_sent_at.get());
        match self.leaving_since.get() {
            Some(since) if over(since.max(idle_since), GOODBYE) => self.end(End::LetGo),
            Some(_) => {}
            None => {
                let first = self.streams.get() == 0;
                let limit = if first { limits.head_timeout } else { limits.keep_alive_timeout };
                if over(idle_since, limit) {
                    self.leaving_since.set(Some(now));
                    self.wake();
                    return Some(if first { TimeoutKind::Head } else { TimeoutKind::KeepAlive });
                }
            }
        }
        None
    }

    /// The worker ends.
    pub(crate) fn let_go(&self) {
        self.end(End::LetGo);
    }

    fn end(&self, end: End) {
        self.end.set(Some(end));
        self.wake();
    }

    fn written(&self, written: &Poll<io::Result<usize>>) {
        if let Poll::Ready(Ok(bytes)) = written {
            self.worker.counters.client_bytes_out.add(*bytes as u64);
        }
        self.took(written.is_ready());
    }

    /// Notes whether the socket takes what it is given.
    fn took(&self, all: bool) {
        if all {
            self.blocked_since.set(None);
        } else if self.blocked_since.get().is_none() {
            self.blocked_since.set(Some(self.worker.clock.coarse()));
        }
    }
}

/// A stream's place in its connection: while it exists, the connection is not idle.
pub(crate) struct OpenStream(Rc<Http2>);

impl OpenStream {
    fn new(connection: &Rc<Http2>) -> Self {
        connection.open.set(connection.open.get() + 1);
        connection.streams.set(connection.streams.get() + 1);
        Self(Rc::clone(connection))
    }

    pub(crate) fn now(&self) -> Millis {
        self.0.worker.clock.coarse()
    }

    /// The client left before it had its answer.
    pub(crate) fn aborted(&self) {
        let Self(connection) = self;
        let aborted = connection.aborted.get() + 1;
        connection.aborted.set(aborted);
        if aborted >= ABORTED_MAX && aborted * 2 > connection.streams.get() && connection.end.get().is_none()
        {
            connection.end(End::Fault(Fault::Flood));
        }
    }
}

impl Drop for OpenStream {
    fn drop(&mut self) {
        let Self(connection) = self;
        connection.open.set(connection.open.get() - 1);
        connection.idle_since.set(connection.worker.clock.coarse());
        if connection.open.get() == 0 && connection.worker.is_draining() {
            connection.wake();
        }
    }
}

/// Serves a connection to its end.
pub(super) async fn serve(worker: Rc<Worker>, origin: Rc<Origin>, socket: Socket, connected: Connected) {
    let now = worker.clock.coarse();
    let connection = Rc::new(Http2 {
        origin,
        worker: Rc::clone(&worker),
        open: Cell::new(0),
        streams: Cell::new(0),
        aborted: Cell::new(0),
        idle_since: Cell::new(now),
        data_sent_at: Cell::new(now),
        blocked_since: Cell::new(None),
        leaving_since: Cell::new(None),
        end: Cell::new(None),
        waker: RefCell::new(None),
    });
    worker.counters.http2_connections.up();
    let registered = worker.register(Watched::Http2(Rc::clone(&connection)));
    let wire = Rc::new(RefCell::new(Wire {
        socket,
        received: Frames::after(PREFACE_LEN),
        sent: Frames::after(0),
        budget: FrameBudget::new(now),
    }));
    let io = TokioIo::new(Metered { wire: Rc::clone(&wire), connection: Rc::clone(&connection) });
    let service = Service { worker: Rc::clone(&worker), connection: Rc::clone(&connection) };
    let mut http = Box::pin(worker.protocols().client_http2.serve_connection(io, service));
    let mut leaving = Leaving::No;
    poll_fn(|cx| poll(&connection, http.as_mut(), &mut leaving, cx)).await;
    drop((http, registered));
    if connection.end.get() == Some(End::LetGo) && connection.blocked_since.get().is_some() {
        wire.borrow_mut().socket.discard_unread();
    }
    if let Some(End::Fault(fault)) = connection.end.get() {
        if fault == Fault::Flood {
            worker.counters.http2_calmed.up();
        }
        tracing::debug!(client = %connection.origin.peer, ?fault, "HTTP/2 connection ended");
        // hyper's half is gone, so this is the last reference.
        if let Some(wire) = Rc::into_inner(wire) {
            say_why(wire.into_inner(), fault).await;
        }
    }
    drop(connected);
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Leaving {
    No,
    Yes,
}

type ServedConnection = Connection<TokioIo<Metered>, Service, Streams>;

fn poll(
    connection: &Http2,
    mut http: Pin<&mut ServedConnection>,
    leaving: &mut Leaving,
    cx: &mut Context<'_>,
) -> Poll<()> {
    connection.remember(cx.waker());
    loop {
        if connection.end.get().is_some() {
            return Poll::Ready(());
        }
        if let Poll::Ready(ended) = http.as_mut().poll(cx) {
            if let Err(error) = ended {
                if is_calming(&error) {
                    connection.worker.counters.http2_calmed.up();
                }
                tracing::debug!(%error, client = %connection.origin.peer, "HTTP/2 connection ended");
            }
            return Poll::Ready(());
        }
        if *leaving == Leaving::Yes
            || !(connection.worker.is_draining() || connection.leaving_since.get().is_some())
        {
            return Poll::Pending;
        }
        // New streams go elsewhere, open ones may end (RFC 9113, 6.8).
        *leaving = Leaving::Yes;
        if connection.leaving_since.get().is_none() {
            connection.leaving_since.set(Some(connection.worker.clock.coarse()));
        }
        http.as_mut().graceful_shutdown();
    }
}

/// Whether hyper itself has had enough: of resets, CONTINUATION frames, or heads that are too large.
fn is_calming(error: &hyper::Error) -> bool {
    let error = error.source().and_then(|source| source.downcast_ref::<h2::Error>());
    error.is_some_and(|error| !error.is_remote() && error.reason() == Some(h2::Reason::ENHANCE_YOUR_CALM))
}

/// Says why, if the client can still be told.
async fn say_why(Wire { mut socket, sent, .. }: Wire, fault: Fault) {
    let saying = async {
        if sent.is_between() {
            socket.write_all(&goaway(fault)).await?;
        }
        socket.shutdown().await
    };
    if let Ok(Err(error)) = timeout(GOODBYE, saying).await {
        tracing::trace!(%error, "client was gone");
    }
}

/// A connection's socket and what was seen on it.
struct Wire {
    socket: Socket,
    received: Frames,
    sent: Frames,
    budget: FrameBudget,
}

/// The socket as hyper has it: counted, and watched for frames that ask for nothing.
struct Metered {
    wire: Rc<RefCell<Wire>>,
    connection: Rc<Http2>,
}

impl AsyncRead for Metered {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let Wire { socket, received, budget, .. } = &mut *self.wire.borrow_mut();
        let before = buf.filled().len();
        ready!(Pin::new(socket).poll_read(cx, buf))?;
        let read = &buf.filled()[before..];
        let worker = &self.connection.worker;
        worker.counters.client_bytes_in.add(read.len() as u64);
        let now = worker.clock.coarse();
        let mut within = Ok(());
        received.scan(read, |frame| within = within.and_then(|()| budget.received(frame, now)));
        if let Err(fault) = within {
            self.connection.end.set(Some(End::Fault(fault)));
            return Poll::Ready(Err(io::Error::other("frames that are refused")));
        }
        Poll::Ready(Ok(()))
    }
}

impl Metered {
    fn wrote(&self, bytes: &[u8], written: &Poll<io::Result<usize>>) {
        self.connection.written(written);
        if let Poll::Ready(Ok(len)) = written {
            let Wire { sent, budget, .. } = &mut *self.wire.borrow_mut();
            let now = self.connection.worker.clock.coarse();
            sent.scan(bytes.get(..*len).unwrap_or(bytes), |frame| {
                budget.sent(frame);
                if frame.is_data() {
                    self.connection.data_sent_at.set(now);
                }
            });
        }
    }
}

impl AsyncWrite for Metered {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.wire.borrow_mut().socket).poll_write(cx, buf);
        self.wrote(buf, &written);
        written
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let flushed = Pin::new(&mut self.wire.borrow_mut().socket).poll_flush(cx);
        self.connection.took(flushed.is_ready());
        flushed
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.wire.borrow_mut().socket).poll_shutdown(cx)
    }
}

/// What hyper asks for each stream.
struct Service {
    worker: Rc<Worker>,
    connection: Rc<Http2>,
}

impl hyper::service::Service<Request<Incoming>> for Service {
    type Response = Response<StreamBody>;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Infallible>>>>;

    fn call(&self, mut request: Request<Incoming>) -> Self::Future {
        let carrier = Carrier::Stream(OpenStream::new(&self.connection));
        let now = self.worker.clock.coarse();
        let client = Rc::new(Client::new(Rc::clone(&self.connection.origin), carrier, now));
        *self.worker.streams.next.borrow_mut() = Some(Rc::clone(&client));
        let upgraded = (*request.method() == Method::CONNECT).then(|| hyper::upgrade::on(&mut request));
        let worker = Rc::clone(&self.worker);
        Box::pin(async move { Ok(answer(worker, client, request, upgraded).await) })
    }
}

/// Answers one stream.
async fn answer(
    worker: Rc<Worker>,
    client: Rc<Client>,
    request: Request<Incoming>,
    upgraded: Option<OnUpgrade>,
) -> Response<StreamBody> {
    let registered = worker.register(Watched::Exchange(Rc::clone(&client)));
    let (mut head, body) = request.into_parts();
    let (method, target) = (head.method.clone(), head.uri.clone());
    let mut response = match translate(&mut head) {
        Ok(asked) => {
            if let Asked::WebSocket { accept } = asked {
                client.expect(accept);
            }
            let request = Request::from_parts(head, body);
            let mut answering = pin!(forward::answer(Rc::clone(&worker), Rc::clone(&client), request));
            poll_fn(|cx| {
                client.remember(cx.waker());
                answering.as_mut().poll(cx)
            })
            .await
        }
        Err(failure) => forward::refused(&worker, &client, (method, target, &head.headers), &failure),
    };
    response.headers_mut().remove(CONNECTION);
    let opening = client.opening.take();
    if let (Some(opening), Some(upgraded)) = (opening, upgraded) {
        // RFC 8441, 5.1: the handshake's headers are HTTP/1's alone.
        *response.status_mut() = StatusCode::OK;
        response.headers_mut().remove(UPGRADE);
        response.headers_mut().remove(SEC_WEBSOCKET_ACCEPT);
        drop(spawn_local(open(worker, Rc::clone(&client), upgraded, opening)));
    }
    client.offers();
    response.map(|body| StreamBody { body, last: Bytes::new(), client, _registered: registered })
}

/// Waits until hyper lets go of the stream, and makes it a tunnel.
async fn open(worker: Rc<Worker>, client: Rc<Client>, upgraded: OnUpgrade, opening: Box<Opening>) {
    match upgraded.await {
        Ok(upgraded) => {
            let origin = Rc::clone(&client.origin);
            let end = ClientEnd::Stream(Box::new(TokioIo::new(upgraded)));
            tunnel::open(&worker, end, &[], *opening, &origin, Place::Stream(client));
        }
        Err(error) => {
            tracing::debug!(%error, client = %client.origin.peer, "stream ended before its tunnel began")
        }
    }
}

/// What hyper may hold of an ended answer for a client that does not open its window.
const TAIL_MAX: usize = 4 * 1024;

/// An answer on its way into a stream. What was handed to hyper waits for the client's window; the sweep ends a stream whose client does
/// not open it. hyper takes a whole chunk when there is room for one byte of it, and forgets the stream with the last; so the last byte
/// of a large chunk goes by itself, and is awaited with the stream's timeout like all others.
pub(super) struct StreamBody {
    body: AnswerBody,
    /// The last byte of the chunk before.
    last: Bytes,
    client: Rc<Client>,
    _registered: Registered,
}

impl Body for StreamBody {
    type Data = Bytes;
    type Error = <AnswerBody as Body>::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        if !self.last.is_empty() {
            self.client.offers();
            return Poll::Ready(Some(Ok(Frame::data(std::mem::take(&mut self.last)))));
        }
        let polled = Pin::new(&mut self.body).poll_frame(cx);
        let Poll::Ready(Some(Ok(frame))) = polled else { return polled };
        self.client.offers();
        Poll::Ready(Some(Ok(match frame.into_data() {
            Ok(mut data) if data.len() > TAIL_MAX => {
                self.last = data.split_off(data.len() - 1);
                Frame::data(data)
            }
            Ok(data) => Frame::data(data),
            Err(trailers) => trailers,
        })))
    }

    fn is_end_stream(&self) -> bool {
        self.last.is_empty() && self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        // Only asked for at the beginning; afterwards no hint is a true one, too.
        if self.last.is_empty() { self.body.size_hint() } else { SizeHint::default() }
    }
}
