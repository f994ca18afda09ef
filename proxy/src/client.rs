//! One client's exchange as its parts see it: what it waits for and since when, and an HTTP/1 connection's socket as hyper reads
//! and writes it.

use crate::clock::{Millis, to_millis};
use crate::counters::TimeoutKind;
use crate::forward::Limits;
use crate::frontend::{Frontend, OpenStream};
use crate::socket::Socket;
use crate::tunnel::Opening;
use crate::worker::Worker;
use http::header::SEC_WEBSOCKET_ACCEPT;
use http::{HeaderMap, HeaderValue, StatusCode};
use std::cell::{Cell, RefCell};
use std::io::{self, IoSlice};
use std::net::SocketAddr;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, Waker, ready};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::task::AbortHandle;

/// Whom a connection waits for; each has its timeout.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Waiting {
    /// The client, for a request.
    Request,
    /// The client, for the rest of a head.
    Head,
    /// The client, for more of a body.
    Body,
    /// The shard.
    Shard,
    /// The client, to take more of its answer (HTTP/2, whose windows are the client's; over HTTP/1 the socket itself tells).
    Reader,
    /// Us: whatever is awaited has its own bound.
    Ours,
}

/// How far the answer to the current request is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Answer {
    /// No request, or its answer is written: what hyper writes now is its own refusal of the next head.
    None,
    /// On its way.
    Going,
    /// Complete, but perhaps not written yet.
    Ended,
}

/// Where a connection comes from, the same for all its requests.
pub(crate) struct Origin {
    pub(crate) peer: SocketAddr,
    pub(crate) forwarded_for: HeaderValue,
    pub(crate) frontend: Rc<Frontend>,
}

impl Origin {
    pub(crate) fn new(peer: SocketAddr, frontend: Rc<Frontend>) -> Self {
        let peer = SocketAddr::new(peer.ip().to_canonical(), peer.port());
        // An address is plain ASCII.
        let forwarded_for = HeaderValue::from_str(&peer.ip().to_string())
            .unwrap_or_else(|_| HeaderValue::from_static("unknown"));
        Self { peer, forwarded_for, frontend }
    }
}

/// What carries an exchange.
pub(crate) enum Carrier {
    /// An HTTP/1 connection, which has one exchange after the other.
    Connection,
    /// One stream of an HTTP/2 connection.
    Stream(OpenStream),
}

/// The state of an HTTP/1 connection, or of one HTTP/2 stream. Timeouts are found by the worker's sweep, which looks at all clients
/// a few times a second; so a request sets no timer.
pub(crate) struct Client {
    pub(crate) origin: Rc<Origin>,
    pub(crate) carrier: Carrier,
    /// The task of a stream, which may have to be ended while it waits for the client's window and nothing of ours is asked.
    task: RefCell<Option<AbortHandle>>,
    accept: RefCell<Option<String>>,
    /// Set by the request whose answer is 101; the connection's task finds it when hyper is through.
    pub(crate) opening: RefCell<Option<Box<Opening>>>,
    waiting: Cell<Waiting>,
    since: Cell<Millis>,
    head_began: Cell<Option<Millis>>,
    blocked_since: Cell<Option<Millis>>,
    expired: Cell<Option<TimeoutKind>>,
    answer: Cell<Answer>,
    refused: Cell<Option<StatusCode>>,
    body: Cell<BodyState>,
    waker: RefCell<Option<Waker>>,
}

/// How the current request's body is doing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum BodyState {
    /// Nobody waits for it.
    Flowing,
    /// More of it is awaited from the client.
    Awaited,
    /// It is no valid HTTP, or ended before its end.
    Broken,
    /// Given up before its end: there may be more of it in the socket.
    Abandoned,
}

impl Client {
    pub(crate) fn new(origin: Rc<Origin>, carrier: Carrier, now: Millis) -> Self {
        Self {
            origin,
            carrier,
            task: RefCell::new(None),
            accept: RefCell::new(None),
            opening: RefCell::new(None),
            waiting: Cell::new(Waiting::Request),
            since: Cell::new(now),
            head_began: Cell::new(None),
            blocked_since: Cell::new(None),
            expired: Cell::new(None),
            answer: Cell::new(Answer::None),
            refused: Cell::new(None),
            body: Cell::new(BodyState::Flowing),
            waker: RefCell::new(None),
        }
    }

    /// Notes the connection's task; it is the same for as long as the connection lives.
    pub(crate) fn remember(&self, waker: &Waker) {
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

    /// Notes the task of a stream.
    pub(crate) fn runs_in(&self, task: AbortHandle) {
        *self.task.borrow_mut() = Some(task);
    }

    /// The answer waits for the client to take it, where HTTP/2's windows decide.
    pub(crate) fn offers(&self) {
        if let Carrier::Stream(stream) = &self.carrier {
            self.waiting.set(Waiting::Reader);
            self.since.set(stream.now());
        }
    }

    /// The shard has to answer a WebSocket handshake that this node made up with `accept`.
    pub(crate) fn expect(&self, accept: String) {
        *self.accept.borrow_mut() = Some(accept);
    }

    /// Whether a shard's consent is to the handshake it was sent. A client that made up its key looks itself.
    pub(crate) fn is_consent(&self, headers: &HeaderMap) -> bool {
        let answered = headers.get(SEC_WEBSOCKET_ACCEPT).map(HeaderValue::as_bytes);
        self.accept.borrow().as_ref().is_none_or(|accept| answered == Some(accept.as_bytes()))
    }

    /// A request's head is complete. Answers when it began.
    pub(crate) fn begin_answer(&self, now: Millis) -> Millis {
        self.answer.set(Answer::Going);
        self.body.set(BodyState::Flowing);
        self.progress();
        self.head_began.take().unwrap_or(now)
    }

    /// The answer is complete, or given up.
    pub(crate) fn end_answer(&self, now: Millis) {
        self.forgive();
        self.answer.set(Answer::Ended);
        self.waiting.set(Waiting::Request);
        self.since.set(now);
    }

    /// Notes whom the connection waits for; the time counts from when that began.
    pub(crate) fn wait(&self, waiting: Waiting, now: Millis) {
        if self.waiting.get() != waiting {
            self.waiting.set(waiting);
            self.since.set(now);
        }
    }

    /// What is awaited next is new: its time begins anew.
    pub(crate) fn progress(&self) {
        self.waiting.set(Waiting::Ours);
        self.forgive();
    }

    /// A timeout of an exchange that is over, or went on after all, does not count for the next.
    fn forgive(&self) {
        if matches!(self.expired.get(), Some(TimeoutKind::Body | TimeoutKind::Server)) {
            self.expired.set(None);
        }
    }

    pub(crate) fn is_between_requests(&self) -> bool {
        self.waiting.get() == Waiting::Request && self.answer.get() == Answer::None
    }

    pub(crate) fn expired(&self) -> Option<TimeoutKind> {
        self.expired.get()
    }

    /// The status with which hyper wanted to refuse a head.
    pub(crate) fn refused(&self) -> Option<StatusCode> {
        self.refused.get()
    }

    pub(crate) fn body(&self) -> BodyState {
        self.body.get()
    }

    pub(crate) fn set_body(&self, state: BodyState) {
        if self.body.get() != BodyState::Broken {
            self.body.set(state);
        }
    }

    /// Looks at the time. A connection expires once; then it is woken, and whoever waits answers.
    pub(crate) fn expire(&self, now: Millis, limits: &Limits) -> Option<TimeoutKind> {
        if self.expired.get().is_some() {
            return None;
        }
        let over = |since: Millis, limit| now.saturating_sub(since) >= to_millis(limit);
        let since = self.since.get();
        let kind = match self.waiting.get() {
            _ if self.blocked_since.get().is_some_and(|since| over(since, limits.client_timeout)) => {
                TimeoutKind::Client
            }
            Waiting::Request
                if self.answer.get() == Answer::None && over(since, limits.keep_alive_timeout) =>
            {
                TimeoutKind::KeepAlive
            }
            Waiting::Head if over(since, limits.head_timeout) => TimeoutKind::Head,
            Waiting::Body if over(since, limits.client_timeout) => TimeoutKind::Body,
            Waiting::Shard if over(since, limits.server_timeout) => TimeoutKind::Server,
            Waiting::Reader if over(since, limits.client_timeout) => TimeoutKind::Client,
            Waiting::Request
            | Waiting::Head
            | Waiting::Body
            | Waiting::Shard
            | Waiting::Reader
            | Waiting::Ours => return None,
        };
        self.end(kind);
        Some(kind)
    }

    /// The worker ends: whatever is going on, the connection is closed.
    pub(crate) fn let_go(&self) {
        self.end(TimeoutKind::Client);
    }

    fn end(&self, kind: TimeoutKind) {
        self.expired.set(Some(kind));
        match &*self.task.borrow() {
            // Dropping what answers a stream resets it.
            Some(task) if kind == TimeoutKind::Client => task.abort(),
            Some(_) | None => self.wake(),
        }
    }

    fn read(&self, worker: &Worker) {
        if self.waiting.get() == Waiting::Request && self.answer.get() != Answer::Going {
            self.waiting.set(Waiting::Head);
            self.since.set(worker.clock.coarse());
            self.head_began.set(Some(worker.clock.exact()));
        }
    }

    fn written(&self, worker: &Worker, result: &Poll<io::Result<usize>>) {
        match result {
            Poll::Ready(Ok(bytes)) => {
                self.blocked_since.set(None);
                worker.counters.client_bytes_out.add(*bytes as u64);
            }
            Poll::Ready(Err(_)) => {}
            Poll::Pending => {
                if self.blocked_since.get().is_none() {
                    self.blocked_since.set(Some(worker.clock.coarse()));
                }
            }
        }
    }
}

/// Pieces of an answer that are together no longer than this are written as one.
const JOINED_MAX: usize = 1024;

/// A client's socket as hyper has it.
///
/// What hyper writes while there is no answer to write is its own refusal of a head. It is swallowed, and its status kept: how
/// an error looks is for `rescue` alone to say.
pub(crate) struct ClientStream {
    stream: Socket,
    client: Rc<Client>,
    worker: Rc<Worker>,
}

impl ClientStream {
    pub(crate) fn new(stream: Socket, client: Rc<Client>, worker: Rc<Worker>) -> Self {
        Self { stream, client, worker }
    }

    pub(crate) fn into_inner(self) -> Socket {
        self.stream
    }

    fn swallow(&self, bytes: &[u8]) {
        if self.client.refused.get().is_none() {
            // "HTTP/1.1 431 ..."
            let status = bytes.get(9..12).and_then(|digits| StatusCode::from_bytes(digits).ok());
            self.client.refused.set(Some(status.unwrap_or(StatusCode::BAD_REQUEST)));
        }
    }
}

impl AsyncRead for ClientStream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if self.client.expired() == Some(TimeoutKind::Head) {
            // To hyper the client has left; the page is written when hyper is through.
            return Poll::Ready(Ok(()));
        }
        let before = buf.filled().len();
        let result = Pin::new(&mut self.stream).poll_read(cx, buf);
        let bytes = buf.filled().len() - before;
        if bytes > 0 {
            self.client.read(&self.worker);
            self.worker.counters.client_bytes_in.add(bytes as u64);
        }
        result
    }
}

impl AsyncWrite for ClientStream {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        if self.client.answer.get() == Answer::None {
            self.swallow(buf);
            return Poll::Ready(Ok(buf.len()));
        }
        let result = Pin::new(&mut self.stream).poll_write(cx, buf);
        self.client.written(&self.worker, &result);
        result
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        if self.client.answer.get() == Answer::None {
            self.swallow(bufs.first().map_or(&[], |buf| buf));
            return Poll::Ready(Ok(bufs.iter().map(|buf| buf.len()).sum()));
        }
        // A small answer is head and body: copying them together costs less than writev does.
        let len: usize = bufs.iter().map(|buf| buf.len()).sum();
        let mut joined = [0; JOINED_MAX];
        let result = match (bufs, joined.get_mut(..len)) {
            ([only], _) => Pin::new(&mut self.stream).poll_write(cx, only),
            (_, Some(joined)) => {
                let mut at = 0;
                for buf in bufs {
                    joined[at..at + buf.len()].copy_from_slice(buf);
                    at += buf.len();
                }
                Pin::new(&mut self.stream).poll_write(cx, joined)
            }
            (_, None) => Pin::new(&mut self.stream).poll_write_vectored(cx, bufs),
        };
        self.client.written(&self.worker, &result);
        result
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        // TLS may hold records that the socket did not take yet. TCP itself has nothing to flush.
        ready!(Pin::new(&mut self.stream).poll_flush(cx))?;
        // hyper flushes when all it had is written.
        if self.client.answer.get() == Answer::Ended {
            self.client.answer.set(Answer::None);
            self.client.since.set(self.worker.clock.coarse());
        }
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.client.refused().is_some() || self.client.expired() == Some(TimeoutKind::Head) {
            return Poll::Ready(Ok(()));
        }
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}
