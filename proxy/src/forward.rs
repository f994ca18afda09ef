//! One request on its way: decided, claimed, sent, and its answer brought back. Whatever fails ends as one [`Failure`] here.

use crate::admission::{check_key, check_security, read_head};
use crate::backend::{ConnectError, ConnectLimits, PoolLimits, Upstream};
use crate::body::{AnswerBody, RequestBody};
use crate::client::{AnswerEnds, Carrier, Client};
use crate::config::Redispatch;
use crate::counters::Refused;
use crate::headers::{Sent, Upgrade, Way, switches_to_websocket, tell_key, upgrade_of};
use crate::health::Observed;
use crate::limits::{admit_request, enter};
use crate::record::Record;
use crate::request_id::X_REQUEST_ID;
use crate::rescue::{self, Failure};
use crate::route::Why;
use crate::sessions::Hold;
use crate::trust::forwarded_proto;
use crate::tunnel::Opening;
use crate::worker::{ForwardedProto, Settings, Worker};
use bytes::Bytes;
use http::header::{CONNECTION, CONTENT_LENGTH, HOST, TRANSFER_ENCODING};
use http::request::Parts;
use http::uri::Scheme;
use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode, Uri, Version};
use http_body::Body;
use hyper::body::Incoming;
use shardgate_discovery::Shard;
use shardgate_peering_core::StickKey;
use std::future::poll_fn;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

mod by_cookie;
mod detours;
mod resolve;
mod send;
use by_cookie::ByCookie;
pub(crate) use detours::Detours;
use resolve::{Holds, Resolved, resolve};
use send::{SendError, send};

/// What hyper holds without a further allocation per request.
pub(crate) const HEADERS_USUAL: usize = 100;

/// How many ways a request may try: to its shard, by a peer, by another one, and to another shard.
const WAYS_MAX: u32 = 4;

/// How long things may take and how large they may be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Limits {
    /// Making connections to shards.
    pub connect: ConnectLimits,
    /// Keeping them.
    pub pool: PoolLimits,
    /// A request's head, from its first byte on.
    pub head_timeout: Duration,
    /// The pause between two requests of a connection, and before the first.
    pub keep_alive_timeout: Duration,
    /// A client's pause while it sends a body or reads an answer.
    pub client_timeout: Duration,
    /// A shard's pause before its answer, and within it.
    pub server_timeout: Duration,
    /// A tunnel's pause.
    pub tunnel_timeout: Duration,
    /// A tunnel's pause once one side has closed.
    pub client_fin_timeout: Duration,
    /// How long a BOSH session lasts behind its last request.
    pub bosh_pause: Duration,
    /// The largest head of a request, in bytes; also of an answer.
    pub head_bytes_max: usize,
    /// What is read and written at once at most, per connection and direction; at least 8 KiB.
    pub buffer_bytes_max: usize,
    /// The most headers of a request.
    pub headers_max: usize,
    /// The most conferences of a shard in percent of the average, for new ones.
    pub balance_percent: u32,
    /// Whether a request may go to another shard than the one chosen first.
    pub redispatch: Redispatch,
    /// Client connections of the whole process, tunnels included; at the bound nothing is accepted.
    pub connections_max: usize,
}

impl Default for Limits {
    /// Jitsi's timeouts. A head may be as large as HAProxy's buffer.
    fn default() -> Self {
        Self {
            connect: ConnectLimits::default(),
            pool: PoolLimits::default(),
            head_timeout: Duration::from_secs(10),
            keep_alive_timeout: Duration::from_secs(180),
            client_timeout: Duration::from_secs(180),
            server_timeout: Duration::from_secs(180),
            tunnel_timeout: Duration::from_secs(3600),
            client_fin_timeout: Duration::from_secs(50),
            // A client polls again at once; a second connection of it must not count as a second client for long.
            bosh_pause: Duration::from_secs(2),
            head_bytes_max: 16 * 1024,
            buffer_bytes_max: 64 * 1024,
            headers_max: HEADERS_USUAL,
            balance_percent: 150,
            redispatch: Redispatch::On,
            connections_max: 2_000_000,
        }
    }
}

/// Answers one request. It cannot fail: failures are answers, too.
pub(crate) async fn answer(
    worker: Rc<Worker>,
    client: Rc<Client>,
    request: Request<Incoming>,
) -> Response<AnswerBody> {
    let (head, body) = request.into_parts();
    let (method, target) = (head.method.clone(), head.uri.clone());
    let mut record = Record::begin(&worker, &client, method, target, &head.headers);
    let (settings, id, proto) = (Rc::clone(&record.settings), record.id.clone(), record.proto);
    let reached = forward(&worker, &client, &mut record, head, body).await;
    let mut response = match reached {
        Ok(Reached::Answer { response, upstream }) => {
            response.map(|incoming| AnswerBody::shard(incoming, upstream, record))
        }
        Ok(Reached::Switched { response }) => response.map(|()| AnswerBody::page(Bytes::new(), record)),
        Err(failure) => {
            record.failed(&failure);
            let response = rescue::respond(&failure, &record.settings.pages, record.reader);
            response.map(|page| AnswerBody::page(page, record))
        }
    };
    tell_client(&settings, response.headers_mut(), id, proto);
    let drains = worker.is_draining() && matches!(client.carrier, Carrier::Connection);
    if response.status() != StatusCode::SWITCHING_PROTOCOLS
        && (client.stays_http() == AnswerEnds::Connection || drains)
    {
        response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
    }
    response
}

/// Answers a request that cannot be forwarded at all.
pub(crate) fn refused(
    worker: &Rc<Worker>,
    client: &Rc<Client>,
    (method, target, headers): (Method, Uri, &HeaderMap),
    failure: &Failure,
) -> Response<AnswerBody> {
    let mut record = Record::begin(worker, client, method, target, headers);
    record.failed(failure);
    let (settings, id, proto) = (Rc::clone(&record.settings), record.id.clone(), record.proto);
    let response = rescue::respond(failure, &settings.pages, record.reader);
    let mut response = response.map(|page| AnswerBody::page(page, record));
    tell_client(&settings, response.headers_mut(), id, proto);
    response
}

/// Adds what every answer has, ours and shards'.
fn tell_client(settings: &Settings, headers: &mut HeaderMap, id: Option<HeaderValue>, proto: ForwardedProto) {
    settings.answer_headers.set(headers, proto);
    if let Some(id) = id {
        headers.insert(X_REQUEST_ID, id);
    }
}

/// An absolute target without the port that its scheme means anyway, if it names that: HAProxy drops it as well (R27).
fn without_default_port(uri: &Uri) -> Option<Uri> {
    let port = if uri.scheme() == Some(&Scheme::HTTPS) { 443 } else { 80 };
    let authority = uri.authority().filter(|authority| authority.port_u16() == Some(port))?;
    let (bare, _) = authority.as_str().rsplit_once(':')?;
    let mut parts = uri.clone().into_parts();
    parts.authority = bare.parse().ok();
    Uri::from_parts(parts).ok()
}

/// What came back.
enum Reached {
    /// A shard's answer, whose body is still to come over `upstream`.
    Answer { response: Response<Incoming>, upstream: Box<Upstream> },
    /// A shard's consent to an upgrade; the opening is left with the client.
    Switched { response: Response<()> },
}

async fn forward(
    worker: &Rc<Worker>,
    client: &Rc<Client>,
    record: &mut Record,
    mut head: Parts,
    body: Incoming,
) -> Result<Reached, Failure> {
    // First of all: whatever is refused, the connection knows that there may be a body.
    let mut body = RequestBody::new(body, Rc::clone(client));
    admit_request(worker, record.sender.ip())?;
    if matches!(client.carrier, Carrier::Stream(_)) && worker.gate.memory_is_full() {
        worker.counters.refused[Refused::Memory as usize].up();
        return Err(Failure::Memory);
    }
    let topology = worker.topology();
    let settings = Rc::clone(&record.settings);
    let (bans, routing) = (topology.snapshot().bans(), &settings.routing);
    // What the key borrows is copied: target and headers change before its last use.
    let (target, sent) = (record.target.clone(), Sent::of(&head.headers, routing.compat));
    let origin = &client.origin;
    // Behind a proxy that ends TLS for us the client is where it should be.
    let secure = forwarded_proto(origin.standing, &head.headers) == Some(ForwardedProto::Https);
    let to_https = origin.frontend.to_https.filter(|_| !secure);
    check_security(to_https, &head.method, &target, &head.headers, &mut record.fired)?;
    let key = read_head(&head.method, &target, &head.headers, &sent, bans, routing, &mut record.fired)?;
    check_key(&key, bans, routing.compat, &mut record.fired)?;
    let cookie = ByCookie::of(&key, &head.headers, routing);
    let polls = key.is_bosh() && matches!(head.method, Method::POST | Method::GET);
    if polls && !body.is_end_stream() {
        // The request's number tells the shard whether it was there before (XEP-0124, broken connections), and another shard that it knows nothing
        // of the session: the client starts anew at once. A 502 would leave it in back-off for 8 s, then 27.
        Box::pin(body.read_whole(|| worker.clock.coarse())).await?;
    }
    // An upgrade with a body is none: the tunnel could begin only after it.
    let upgrade = match body.is_end_stream() {
        true => upgrade_of(&head.method, head.version, &head.headers),
        false => Upgrade::None,
    };
    record.reader = rescue::reader(&head.method, &key, upgrade);
    settings.trust.strip(&mut head.headers, origin.standing);
    let way = Way {
        forwarded_for: &origin.forwarded_for,
        forwarded_proto: record.proto,
        request_id: record.id.as_ref(),
    };
    settings.marks.to_shard(&mut head.headers, upgrade, way);
    tell_key(&mut head.headers, &key);
    if let Some(uri) = without_default_port(&head.uri) {
        head.uri = uri;
    }
    if !head.headers.contains_key(HOST) {
        // HTTP/1.0 may say nothing of its host; HTTP/1.1 must (RFC 9112, 3.2).
        head.headers.insert(HOST, settings.marks.host_of(&head.uri));
    }
    let hears_interims = head.version == Version::HTTP_11 && matches!(client.carrier, Carrier::Connection);
    head.version = Version::HTTP_11;
    // hyper's own upgrade is not used.
    head.extensions = http::Extensions::new();
    if !body.is_end_stream() && body.size_hint().exact().is_none() {
        // hyper frames a body of unknown length so for most methods by itself, but drops that of a GET.
        head.headers.insert(TRANSFER_ENCODING, HeaderValue::from_static("chunked"));
    }
    // Boxed once: it is handed through several futures, which stay small by it.
    let mut request = Box::new(Request::from_parts(head, body));
    if hears_interims {
        client.hears_interims(&mut request);
    }
    // Its body may have taken a while.
    let seen = record.sees(worker.topology());
    let mut resolved = resolve(worker, &key, cookie.as_ref(), &seen, None, record).await?;
    let mut vain = 0;
    loop {
        client.sets_out();
        record.shard = Some(Arc::clone(&resolved.shard));
        record.why = Some(resolved.why);
        record.via.clone_from(&resolved.via);
        if polls {
            worker.poll_begins(record, key.token(), &resolved.shard.name, resolved.holds.entry());
        }
        take_place(worker, client, record, &resolved.shard).await?;
        let destination = settings.manners.destination(key.pool(), resolved.shard.address, &request, origin);
        let destination = destination.by_way_of(resolved.via.as_ref(), &resolved.shard.name);
        let (unsent, cause) = match send(worker, client, record, &resolved.shard, destination, request).await
        {
            Ok(response) => {
                let what = Observed::of_status(response.0.status().as_u16());
                worker.observed(&settings, key.pool(), &resolved.shard.name, what);
                let learned = cookie.as_ref();
                let learned = learned.and_then(|by| by.learn(record, response.0.headers(), &resolved.shard));
                if let Some(key) = learned {
                    resolved.holds = Holds::Cookie(key);
                }
                return finish(worker, client, record, resolved, upgrade, key.token(), response).await;
            }
            Err(SendError::Failed(failure)) => {
                if matches!(failure, Failure::Broken | Failure::ShardTimeout) {
                    worker.detour_doubted(&resolved.shard.name);
                    worker.observed(&settings, key.pool(), &resolved.shard.name, Observed::BadAnswer);
                }
                return Err(failure);
            }
            Err(SendError::Unreached { request, cause }) => {
                // What a peer says is about the peer, and that it is down the checks have said.
                let elsewhere = matches!(
                    cause,
                    ConnectError::Local { .. }
                        | ConnectError::Disagreed { .. }
                        | ConnectError::Relay { .. }
                        | ConnectError::Down { .. }
                        | ConnectError::Moved { .. }
                );
                if !elsewhere {
                    worker.observed(&settings, key.pool(), &resolved.shard.name, Observed::NoConnection);
                }
                (request, cause)
            }
        };
        // What this node lacks, descriptors or ports, is no reason to move a conference.
        let ours = match cause {
            ConnectError::Local { .. } => true,
            // A clock or a CA of this node's may be why: no reason to move what is stored, either.
            ConnectError::Disagreed { .. } => resolved.holds != Holds::Nothing,
            ConnectError::Down { .. }
            | ConnectError::Moved { .. }
            | ConnectError::Refused { .. }
            | ConnectError::Timeout { .. }
            | ConnectError::Unreachable { .. }
            | ConnectError::Handshake { .. }
            // Its home knows of another peer, or moves it.
            | ConnectError::Relay { .. } => false,
        };
        vain += 1;
        let failed = resolved.shard.name.clone();
        if let ConnectError::Relay { peer, .. } = &cause {
            worker.detour_failed(&failed, peer);
            record.via = None;
        }
        // Where it went was right, so that it goes elsewhere now is no redispatch.
        let moved = matches!(cause, ConnectError::Moved { .. });
        if vain == WAYS_MAX || ours || settings.limits.redispatch == Redispatch::Off && !moved {
            return Err(cause.into());
        }
        // To another shard, or another way to this one, as its home says. If there is none, the first failure is what happened.
        // A request may have waited for long: what it knew of the others at its beginning is of the past.
        let seen = record.sees(worker.topology());
        let excluded = (!moved).then_some(&failed);
        resolved = match resolve(worker, &key, cookie.as_ref(), &seen, excluded, record).await {
            Ok(resolved) => resolved,
            Err(_) => return Err(cause.into()),
        };
        if resolved.shard.name != failed && !moved {
            resolved.why = Why::Redispatch;
            worker.counters.redispatches.up();
        }
        tracing::debug!(%failed, shard = %resolved.shard.name, via = ?resolved.via, %cause, "tried in vain");
        request = unsent;
    }
}

/// Takes a place at a shard for a request, once there is one; the place at another shard is given back before.
async fn take_place(
    worker: &Worker,
    client: &Client,
    record: &mut Record,
    shard: &Shard,
) -> Result<(), Failure> {
    if !worker.gate.counts_shards() {
        return Ok(());
    }
    record.shard_place = None;
    client.progress();
    let began = record.elapsed();
    // Boxed: most nodes have no such limit.
    let entered = Box::pin(enter(worker, &shard.name)).await;
    record.timers.claim = Some(record.timers.claim.unwrap_or(0) + record.elapsed() - began);
    record.shard_place = entered?;
    Ok(())
}

async fn finish(
    worker: &Rc<Worker>,
    client: &Rc<Client>,
    record: &mut Record,
    resolved: Resolved,
    upgrade: Upgrade,
    token: &str,
    (mut response, upstream): (Response<Incoming>, Box<Upstream>),
) -> Result<Reached, Failure> {
    let switched = response.status() == StatusCode::SWITCHING_PROTOCOLS;
    let consented = || switches_to_websocket(response.headers()) && client.is_consent(response.headers());
    if switched && (upgrade == Upgrade::None || !consented()) {
        return Err(Failure::Broken);
    }
    // Over HTTP/2 any 2xx would open the tunnel (RFC 8441, 5) that nobody has agreed to.
    if !switched && client.awaits_consent() && response.status().is_success() {
        return Err(Failure::Broken);
    }
    // hyper reads such an answer by its chunks; whoever reads it otherwise would see another one (RFC 9112, 6.3).
    if response.headers().contains_key(CONTENT_LENGTH) && response.headers().contains_key(TRANSFER_ENCODING) {
        return Err(Failure::Broken);
    }
    // Each side has its own version (RFC 9112, 2.3); hyper knows the client's.
    *response.version_mut() = Version::HTTP_11;
    let kept = if switched { Upgrade::WebSocket } else { Upgrade::None };
    record.settings.marks.to_client(response.headers_mut(), kept);
    record.answered(response.status());
    if !switched {
        return Ok(Reached::Answer { response, upstream });
    }
    // Rare, so what it needs is not part of every request's future.
    Box::pin(switch(worker, client, record, resolved, token, upstream)).await?;
    Ok(Reached::Switched { response: response.map(drop) })
}

/// The shard has agreed to an upgrade: what the tunnel needs is left with the client.
async fn switch(
    worker: &Rc<Worker>,
    client: &Rc<Client>,
    record: &mut Record,
    resolved: Resolved,
    token: &str,
    mut upstream: Box<Upstream>,
) -> Result<(), Failure> {
    poll_fn(|cx| upstream.poll_drive(cx)).await;
    let Some((stream, leftover)) = upstream.into_stream() else { return Err(Failure::Broken) };
    let key = match resolved.holds {
        // The parser keeps tokens within the key's bounds.
        Holds::Entry => StickKey::parse(token).ok(),
        Holds::Cookie(key) => Some(key),
        Holds::Nothing => None,
    };
    let hold = match key {
        Some(key) => Some(Hold::take(worker, key, resolved.shard.name.clone()).await),
        None => None,
    };
    let shard_place = record.shard_place.take();
    let opening = Opening::new(stream, &leftover, resolved.shard, hold, shard_place, record);
    *client.opening.borrow_mut() = Some(Box::new(opening));
    Ok(())
}
