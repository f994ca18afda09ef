//! One client's exchange as its parts see it: what it waits for and since when; in `stream`, an HTTP/1 connection's socket as hyper
//! reads and writes it.

use crate::clock::{Millis, to_millis};
use crate::counters::TimeoutKind;
use crate::forward::Limits;
use crate::frontend::{Frontend, OpenStream};
use crate::proxy_protocol::Addresses;
use crate::sessions::{BoshId, BoshOfConnection};
use crate::trust::{Peer, Trust, client_address};
use crate::tunnel::Opening;
use crate::worker::Worker;
use http::header::SEC_WEBSOCKET_ACCEPT;
use http::{HeaderMap, HeaderValue, Request, StatusCode};
use shardgate_peering_core::ShardName;
use std::cell::{Cell, OnceCell, RefCell};
use std::io;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Poll, Waker};
use tokio::task::AbortHandle;

mod interim;
mod stream;

use interim::Interims;
pub(crate) use stream::ClientStream;

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

/// What is still to be written before anything of the current exchange.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Ahead {
    Nothing,
    /// The end of an earlier answer. hyper usually reads the next head only when all is written, but not behind a request's body
    /// whose end it finds after its answer.
    Answer,
}

/// Where a connection comes from, the same for all its requests.
pub(crate) struct Origin {
    pub(crate) peer: SocketAddr,
    /// What it says of others is believed, or not.
    pub(crate) standing: Peer,
    /// Where the client was accepted, when a server wants to know.
    accepted_at: Option<SocketAddr>,
    pub(crate) forwarded_for: HeaderValue,
    pub(crate) frontend: Rc<Frontend>,
    pub(crate) bosh: BoshOfConnection,
}

impl Origin {
    /// `peer` is who the client is: the socket's other end, or whom a balancer's header names.
    pub(crate) fn new(peer: SocketAddr, frontend: Rc<Frontend>, trust: &Trust) -> Self {
        let peer = SocketAddr::new(peer.ip().to_canonical(), peer.port());
        // An address is plain ASCII.
        let forwarded_for = HeaderValue::from_str(&peer.ip().to_string())
            .unwrap_or_else(|_| HeaderValue::from_static("unknown"));
        let (standing, bosh) = (trust.peer(peer.ip()), BoshOfConnection::default());
        Self { peer, standing, accepted_at: None, forwarded_for, frontend, bosh }
    }

    /// The same, accepted there.
    pub(crate) fn accepted_at(self, accepted_at: Option<SocketAddr>) -> Self {
        Self { accepted_at, ..self }
    }

    /// What a PROXY header says of it.
    pub(crate) fn addresses(&self) -> Option<Addresses> {
        self.accepted_at.map(|destination| Addresses { source: self.peer, destination })
    }

    /// Who sent a request: the connection's client, or whom its trusted proxies name, whose port nobody knows.
    pub(crate) fn sender(&self, headers: &HeaderMap, trust: &Trust) -> SocketAddr {
        match self.standing {
            Peer::Client => self.peer,
            Peer::Proxy => match client_address(self.peer.ip(), headers, &trust.proxies) {
                address if address == self.peer.ip() => self.peer,
                address => SocketAddr::new(address, 0),
            },
        }
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
    ahead: Cell<Ahead>,
    refused: Cell<Option<StatusCode>>,
    beyond: Cell<Beyond>,
    /// Made for the first request that may be given interim answers.
    interims: OnceCell<Arc<Interims>>,
    body: Cell<BodyState>,
    /// The server whose answer is awaited.
    asks: RefCell<Option<ShardName>>,
    asked: Cell<Asked>,
    /// The BOSH session that the request is of.
    poll: Cell<Option<BoshId>>,
    waker: RefCell<Option<Waker>>,
}

/// Whether the answer of a server that was asked may still come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Asked {
    /// As far as is known.
    Answers,
    /// The server went down, and its sessions are to end.
    WentDown,
    /// The conference is on another shard by now. An answer that has begun may end.
    Moved,
}

/// What came behind a head that asks for an upgrade: HTTP, or what the shard shall get as it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Beyond {
    /// There is no such head.
    None,
    /// Nothing so far.
    Nothing,
    /// Bytes that nobody looked at: unless there is a tunnel, nothing more is read from this connection.
    Bytes,
}

/// What ends with an answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum AnswerEnds {
    /// The exchange only.
    Exchange,
    /// The connection too.
    Connection,
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
            ahead: Cell::new(Ahead::Nothing),
            refused: Cell::new(None),
            beyond: Cell::new(Beyond::None),
            interims: OnceCell::new(),
            body: Cell::new(BodyState::Flowing),
            asks: RefCell::new(None),
            asked: Cell::new(Asked::Answers),
            poll: Cell::new(None),
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

    /// The answer of this server is awaited from now on, or nobody's.
    pub(crate) fn awaits(&self, server: Option<&ShardName>) {
        self.asks.replace(server.cloned());
        if self.asked.get() == Asked::WentDown {
            self.asked.set(Asked::Answers);
        }
    }

    /// The request goes to a server, perhaps another one than before.
    pub(crate) fn sets_out(&self) {
        self.asked.set(Asked::Answers);
    }

    /// The server went down: whoever waits for its answer is woken, and waits no longer.
    pub(crate) fn went_down(&self, server: &ShardName) {
        if self.asks.borrow().as_ref() == Some(server) {
            self.asked.set(Asked::WentDown);
            self.wake();
        }
    }

    /// The request is one of this BOSH session.
    pub(crate) fn polls(&self, session: Option<BoshId>) {
        self.poll.set(session);
    }

    /// The conferences of these BOSH sessions, which are sorted, have moved to another shard than may be asked.
    pub(crate) fn moved(&self, sessions: &[BoshId]) {
        if self.poll.get().is_some_and(|session| sessions.binary_search(&session).is_ok())
            && self.asked.get() == Asked::Answers
        {
            self.asked.set(Asked::Moved);
            self.wake();
        }
    }

    /// Whether the answer that is awaited may still come.
    pub(crate) fn asked(&self) -> Asked {
        self.asked.get()
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

    /// Whether what is answered is a handshake that this node made up: anything but 101 is then no consent.
    pub(crate) fn awaits_consent(&self) -> bool {
        self.accept.borrow().is_some()
    }

    /// Whether a shard's consent is to the handshake it was sent. A client that made up its key looks itself.
    pub(crate) fn is_consent(&self, headers: &HeaderMap) -> bool {
        let answered = headers.get(SEC_WEBSOCKET_ACCEPT).map(HeaderValue::as_bytes);
        self.accept.borrow().as_ref().is_none_or(|accept| answered == Some(accept.as_bytes()))
    }

    /// hyper has read a head, and asks for the answer.
    pub(crate) fn asks(&self) {
        let unwritten = self.answer.replace(Answer::Going) != Answer::None;
        self.ahead.set(if unwritten { Ahead::Answer } else { Ahead::Nothing });
    }

    /// hyper gets the answer. What is not written of an earlier one can no longer be told from it, so nothing goes between the two.
    pub(crate) fn answers(&self) {
        if let (Ahead::Answer, Some(interims)) = (self.ahead.get(), self.interims.get()) {
            interims.clear();
        }
    }

    /// A request's head is complete. Answers when it began.
    pub(crate) fn begin_answer(&self, now: Millis) -> Millis {
        self.answer.set(Answer::Going);
        self.body.set(BodyState::Flowing);
        self.progress();
        self.head_began.take().unwrap_or(now)
    }

    /// Lets the client hear what the shard says before its answer (RFC 9110, 15.2), where it can: over HTTP/1.1.
    pub(crate) fn hears_interims<B>(&self, request: &mut Request<B>) {
        let interims = Arc::clone(self.interims.get_or_init(Arc::default));
        hyper::ext::on_informational(request, move |interim| {
            interims.push(interim.status(), interim.headers())
        });
    }

    /// The answer to come is no consent to an upgrade. Where one was asked for, bytes that came with it were let through unseen:
    /// behind them nothing can be read as HTTP.
    pub(crate) fn stays_http(&self) -> AnswerEnds {
        match self.beyond.get() {
            Beyond::None => AnswerEnds::Exchange,
            Beyond::Nothing => {
                self.beyond.set(Beyond::None);
                AnswerEnds::Exchange
            }
            Beyond::Bytes => AnswerEnds::Connection,
        }
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

    /// The status with which the guard or hyper wants a head refused.
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
            // While the answer before is being written, nobody waits for this head.
            Waiting::Head if self.answer.get() == Answer::None && over(since, limits.head_timeout) => {
                TimeoutKind::Head
            }
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

    /// Whether the socket has stopped taking what is written.
    pub(crate) fn is_blocked(&self) -> bool {
        self.blocked_since.get().is_some()
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
        if let Poll::Ready(Ok(bytes)) = result {
            worker.counters.client_bytes_out.add(*bytes as u64);
        }
        self.took(worker, result.is_ready());
    }

    /// Notes whether the socket takes what it is given.
    fn took(&self, worker: &Worker, all: bool) {
        if all {
            self.blocked_since.set(None);
        } else if self.blocked_since.get().is_none() {
            self.blocked_since.set(Some(worker.clock.coarse()));
        }
    }
}
