//! The only place where an error becomes a response.

use crate::admission::Refusal;
use crate::answer_headers::AnswerHeaders;
use crate::backend::ConnectError;
use crate::headers::Upgrade;
use crate::limits::{NoPlace, RetryAfter};
use crate::redirect::{Elsewhere, NoHost};
use crate::route::NoRoute;
use crate::routing_key::{KeyRefused, RoutingKey};
use crate::rule::Rule;
use crate::worker::ForwardedProto;
use bytes::Bytes;
use http::header::{CACHE_CONTROL, CONNECTION, CONTENT_TYPE, LOCATION, RETRY_AFTER};
use http::{HeaderMap, HeaderValue, Method, Response, StatusCode};

mod pages;
pub use pages::{PageError, Pages};

/// Who reads an answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Reader {
    /// A person at a browser, who may be shown a page.
    Person,
    /// A program: signaling, an upgrade, whatever is no plain view of a page.
    Program,
}

/// Who reads the answer to a request.
pub(crate) fn reader(method: &Method, key: &RoutingKey<'_>, upgrade: Upgrade) -> Reader {
    let views = matches!(*method, Method::GET | Method::HEAD) && upgrade == Upgrade::None;
    let signals = key.has_room_parameter()
        || key.pool().is_some()
        || [Rule::SignalingPath, Rule::HealthPath].iter().any(|rule| key.fired().has(*rule));
    if views && !signals { Reader::Person } else { Reader::Program }
}

/// Why a request is answered by this node and not by a shard.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Failure {
    /// The guard or hyper refused the head with this status (400, 414, 417, 431, 501 or 505).
    #[error("request head is not valid HTTP/1.1")]
    Head(StatusCode),
    /// The head was begun but did not come in time.
    #[error("request head did not come in time")]
    HeadTimeout,
    /// The target cannot be routed.
    #[error(transparent)]
    Key(#[from] KeyRefused),
    /// The target is neither a path nor a URL.
    #[error("request target {0:?} is neither a path nor a URL")]
    Target(String),
    /// CONNECT asks for a tunnel to anywhere.
    #[error("method CONNECT is not served")]
    Connect,
    /// An extended CONNECT (RFC 8441) asks for something else than a WebSocket.
    #[error("only websocket is served by CONNECT with :protocol")]
    Protocol,
    /// It is not let in.
    #[error(transparent)]
    Refused(#[from] Refusal),
    /// Its client asks too often.
    #[error("too many requests from this address")]
    TooManyRequests { retry_after: RetryAfter },
    /// Its client makes keys too often.
    #[error("too many new keys from this address")]
    TooManyNewKeys { retry_after: RetryAfter },
    /// This process takes as much memory as it may, and the request would be more of it.
    #[error("memory ceiling reached")]
    Memory,
    /// There is no place at the shard.
    #[error(transparent)]
    Queue(#[from] NoPlace),
    /// The listener sends it to where the same is over TLS.
    #[error("redirected to {:?}", _0.location)]
    Elsewhere(Elsewhere),
    /// It would, but for the Host.
    #[error(transparent)]
    NoHost(#[from] NoHost),
    /// The body is not what its head announced.
    #[error("request body is not valid HTTP/1.1")]
    Body,
    /// The body stalled.
    #[error("request body did not come in time")]
    BodyTimeout,
    /// No shard to go to.
    #[error(transparent)]
    NoRoute(#[from] NoRoute),
    /// The shard cannot be connected to, and the second one neither.
    #[error(transparent)]
    Unreachable(#[from] ConnectError),
    /// The shard went down before it answered, and what runs on it is to end.
    #[error("shard went down before it answered")]
    ShardDown,
    /// The shard did not answer in time.
    #[error("shard did not answer in time")]
    ShardTimeout,
    /// The shard's answer is no HTTP, or it closed the connection instead.
    #[error("shard broke off or sent no valid HTTP/1.1 answer")]
    Broken,
}

/// How a request ended, as HAProxy's log has it: who ended it (`C`lient, `S`erver, `P`roxy, the server's going `D`own; small letters for
/// timeouts; `-` for nobody), and in which phase (`R`equest, `Q`ueue, `C`onnect, `H`eaders, `D`ata).
pub(crate) type Termination = [u8; 2];

/// It ended as it should.
pub(crate) const COMPLETE: Termination = *b"--";

impl Failure {
    pub(crate) fn status(&self) -> StatusCode {
        match self {
            Self::Head(status) => *status,
            Self::Elsewhere(elsewhere) => elsewhere.status,
            Self::Key(_) | Self::Target(_) | Self::Connect | Self::NoHost(_) | Self::Body => {
                StatusCode::BAD_REQUEST
            }
            Self::Protocol => StatusCode::NOT_IMPLEMENTED,
            Self::Refused(Refusal::Hosts | Refusal::HeadBeyondBuffer) => StatusCode::BAD_REQUEST,
            Self::Refused(Refusal::RewrittenBeyondBuffer) => StatusCode::INTERNAL_SERVER_ERROR,
            Self::Refused(Refusal::UserAgent | Refusal::Banned) => StatusCode::FORBIDDEN,
            Self::Refused(Refusal::DeniedReferer | Refusal::Referer) => StatusCode::TOO_MANY_REQUESTS,
            Self::Refused(Refusal::BannedPage) => StatusCode::FOUND,
            Self::TooManyRequests { .. } | Self::TooManyNewKeys { .. } => StatusCode::TOO_MANY_REQUESTS,
            Self::HeadTimeout | Self::BodyTimeout => StatusCode::REQUEST_TIMEOUT,
            Self::NoRoute(_) | Self::Memory | Self::Queue(_) | Self::ShardDown => {
                StatusCode::SERVICE_UNAVAILABLE
            }
            Self::Unreachable(ConnectError::Timeout { .. }) | Self::ShardTimeout => {
                StatusCode::GATEWAY_TIMEOUT
            }
            // What this node lacks it has again in a moment, and another node has it now: 503, as HAProxy answers (STRM_ET_CONN_RES).
            Self::Unreachable(
                ConnectError::Local { .. }
                | ConnectError::Down { .. }
                | ConnectError::Moved { .. }
                | ConnectError::Refused { .. }
                | ConnectError::Unreachable { .. }
                | ConnectError::Handshake { .. }
                | ConnectError::Disagreed { .. }
                | ConnectError::Relay { .. },
            ) => StatusCode::SERVICE_UNAVAILABLE,
            Self::Broken => StatusCode::BAD_GATEWAY,
        }
    }

    pub(crate) fn termination(&self) -> Termination {
        *match self {
            Self::Refused(Refusal::BannedPage) | Self::Elsewhere(_) => b"LR",
            Self::Head(_)
            | Self::Key(_)
            | Self::Target(_)
            | Self::Connect
            | Self::Protocol
            | Self::Refused(_)
            | Self::TooManyRequests { .. }
            | Self::TooManyNewKeys { .. }
            | Self::NoHost(_) => b"PR",
            Self::Memory => b"RC",
            Self::Queue(NoPlace::QueueFull) => b"SQ",
            Self::Queue(NoPlace::QueueTimeout) => b"sQ",
            Self::HeadTimeout => b"cR",
            Self::Body => b"CD",
            Self::BodyTimeout => b"cD",
            Self::NoRoute(_) => b"SC",
            Self::Unreachable(ConnectError::Timeout { .. }) => b"sC",
            Self::Unreachable(ConnectError::Local { .. }) => b"RC",
            Self::Unreachable(ConnectError::Down { .. } | ConnectError::Moved { .. }) => b"DH",
            Self::Unreachable(
                ConnectError::Refused { .. }
                | ConnectError::Unreachable { .. }
                | ConnectError::Handshake { .. }
                | ConnectError::Disagreed { .. }
                | ConnectError::Relay { .. },
            ) => b"SC",
            Self::ShardTimeout => b"sH",
            Self::ShardDown => b"DH",
            Self::Broken => b"SH",
        }
    }

    /// The rule that refuses the request; `None` for what no rule says.
    pub(crate) fn rule(&self) -> Option<Rule> {
        match self {
            Self::Connect => Some(Rule::ConnectMethod),
            Self::Elsewhere(_) | Self::NoHost(_) => Some(Rule::HttpsRedirect),
            Self::Target(_) => Some(Rule::TargetForm),
            Self::Refused(refusal) => Some(refusal.rule()),
            Self::Key(refused) => Some(refused.rule()),
            Self::Protocol
            | Self::Head(_)
            | Self::HeadTimeout
            | Self::Body
            | Self::BodyTimeout
            | Self::TooManyRequests { .. }
            | Self::TooManyNewKeys { .. }
            | Self::Memory
            | Self::Queue(_)
            // The decision has noted its own.
            | Self::NoRoute(_)
            | Self::Unreachable(_)
            | Self::ShardTimeout
            | Self::ShardDown
            | Self::Broken => None,
        }
    }

    /// Whether no shard is left for whoever comes.
    const fn is_maintenance(&self) -> bool {
        matches!(self, Self::NoRoute(NoRoute::Nothing | NoRoute::NoLiveRelease))
    }

    /// When the client may come again.
    fn retry_after(&self, pages: &Pages) -> Option<RetryAfter> {
        match self {
            Self::NoRoute(_) if self.is_maintenance() => Some(pages.maintenance_retry_after()),
            Self::TooManyRequests { retry_after } | Self::TooManyNewKeys { retry_after } => {
                Some(*retry_after)
            }
            Self::Head(_)
            | Self::HeadTimeout
            | Self::Protocol
            | Self::Key(_)
            | Self::Target(_)
            | Self::Connect
            | Self::Refused(_)
            | Self::Elsewhere(_)
            | Self::NoHost(_)
            | Self::Memory
            | Self::Queue(_)
            | Self::Body
            | Self::BodyTimeout
            | Self::NoRoute(_)
            | Self::Unreachable(_)
            | Self::ShardTimeout
            | Self::ShardDown
            | Self::Broken => None,
        }
    }

    /// Whether the client's connection cannot go on: its position in the request is lost or the client is not trusted to keep it.
    fn ends_connection(&self) -> bool {
        matches!(self, Self::Head(_) | Self::HeadTimeout | Self::Connect | Self::Body | Self::BodyTimeout)
    }
}

/// The answer to a failure.
pub(crate) fn respond(failure: &Failure, pages: &Pages, reader: Reader) -> Response<Bytes> {
    let status = failure.status();
    if let Failure::Elsewhere(elsewhere) = failure {
        let mut response = Response::new(Bytes::new());
        *response.status_mut() = status;
        response.headers_mut().insert(LOCATION, elsewhere.location.clone());
        return response;
    }
    if status == StatusCode::FOUND {
        let mut response = Response::new(Bytes::new());
        *response.status_mut() = status;
        response.headers_mut().insert(LOCATION, HeaderValue::from_static("/"));
        response.headers_mut().insert(CACHE_CONTROL, HeaderValue::from_static("no-cache"));
        return response;
    }
    let maintenance = pages.maintenance().filter(|_| reader == Reader::Person && failure.is_maintenance());
    let mut response = Response::new(maintenance.unwrap_or_else(|| pages.body(status)));
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("text/html; charset=utf-8"));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-cache"));
    if let Some(RetryAfter(seconds)) = failure.retry_after(pages) {
        headers.insert(RETRY_AFTER, HeaderValue::from(seconds));
    }
    if failure.ends_connection() {
        headers.insert(CONNECTION, HeaderValue::from_static("close"));
    }
    response
}

/// The same as bytes, for a connection that hyper has given up, with the headers that every answer has.
pub(crate) fn respond_raw(
    failure: &Failure,
    pages: &Pages,
    set: &AnswerHeaders,
    proto: ForwardedProto,
) -> Vec<u8> {
    let status = failure.status();
    let body = pages.body(status);
    let mut headers = HeaderMap::new();
    set.set(&mut headers, proto);
    let mut raw = format!(
        "HTTP/1.1 {} {}\r\ncontent-type: text/html; charset=utf-8\r\ncache-control: no-cache\r\ncontent-length: {}\r\n\
         connection: close\r\n",
        status.as_u16(),
        status.canonical_reason().unwrap_or("Error"),
        body.len()
    )
    .into_bytes();
    for (name, value) in &headers {
        raw.extend_from_slice(name.as_str().as_bytes());
        raw.extend_from_slice(b": ");
        raw.extend_from_slice(value.as_bytes());
        raw.extend_from_slice(b"\r\n");
    }
    raw.extend_from_slice(b"\r\n");
    raw.extend_from_slice(&body);
    raw
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::answer_headers::ResponseHeader;

    #[test]
    fn a_failure_has_one_answer() {
        let pages = Pages::default();
        let set = AnswerHeaders::new(&[ResponseHeader::parse("X-A: b").unwrap()], None);
        for (failure, status, termination) in [
            (Failure::Head(StatusCode::URI_TOO_LONG), 414, "PR"),
            (Failure::Key(KeyRefused::TokenTooLong { len: 2000 }), 400, "PR"),
            (Failure::BodyTimeout, 408, "cD"),
            (Failure::NoRoute(NoRoute::Nothing), 503, "SC"),
            (Failure::ShardTimeout, 504, "sH"),
            (Failure::ShardDown, 503, "DH"),
            (Failure::TooManyRequests { retry_after: RetryAfter(3) }, 429, "PR"),
            (Failure::TooManyNewKeys { retry_after: RetryAfter(1) }, 429, "PR"),
            (Failure::Memory, 503, "RC"),
            (Failure::Queue(NoPlace::QueueFull), 503, "SQ"),
            (Failure::Queue(NoPlace::QueueTimeout), 503, "sQ"),
            (Failure::Broken, 502, "SH"),
        ] {
            let response = respond(&failure, &pages, Reader::Person);
            assert_eq!(response.status().as_u16(), status, "{failure}");
            assert_eq!(failure.termination(), termination.as_bytes(), "{failure}");
            let retry_after = response.headers().get(RETRY_AFTER).map(|seconds| seconds.to_str().unwrap());
            let again = status == 429 || matches!(failure, Failure::NoRoute(_));
            assert_eq!(retry_after.is_some(), again, "{failure}");
            let body = String::from_utf8(response.body().to_vec()).unwrap();
            assert!(body.contains("<h1>"), "{body}");
            let raw = respond_raw(&failure, &pages, &set, ForwardedProto::Http);
            let raw = String::from_utf8(raw).unwrap();
            assert!(raw.starts_with(&format!("HTTP/1.1 {status} ")) && raw.ends_with(&body), "{raw}");
            assert!(raw.contains("\r\nx-a: b\r\n\r\n<"), "{raw}");
        }
    }

    #[test]
    fn people_are_shown_that_nothing_is_left() {
        let mut pages = Pages::default();
        let nothing = Failure::NoRoute(NoRoute::Nothing);
        let plain = respond(&nothing, &pages, Reader::Person).into_body();
        pages.set_maintenance(Some(Bytes::from_static(b"back soon")), 90);
        for (failure, reader, body, retry_after) in [
            (&nothing, Reader::Person, "back soon", Some("90")),
            (&Failure::NoRoute(NoRoute::NoLiveRelease), Reader::Person, "back soon", Some("90")),
            (&nothing, Reader::Program, std::str::from_utf8(&plain).unwrap(), Some("90")),
            (&Failure::Memory, Reader::Person, std::str::from_utf8(&plain).unwrap(), None),
        ] {
            let response = respond(failure, &pages, reader);
            assert_eq!((response.status().as_u16(), response.body()), (503, &Bytes::from(body.to_owned())));
            let said = response.headers().get(RETRY_AFTER).map(|seconds| seconds.to_str().unwrap());
            assert_eq!(said, retry_after, "{failure}");
        }
    }

    #[test]
    fn who_reads_an_answer() {
        let routing = crate::routing_key::Routing::default();
        let read_by = |method: Method, target: &str, upgrade| {
            let key = RoutingKey::parse(target, &crate::routing_key::Said::default(), &routing).unwrap();
            reader(&method, &key, upgrade)
        };
        for target in ["/", "/foo", "/acme/foo", "/acme/foo?lang=de", "/libs/app.css", "/foo?release=2"] {
            assert_eq!(read_by(Method::GET, target, Upgrade::None), Reader::Person, "{target}");
            assert_eq!(read_by(Method::HEAD, target, Upgrade::None), Reader::Person, "{target}");
            assert_eq!(read_by(Method::POST, target, Upgrade::None), Reader::Program, "{target}");
            assert_eq!(read_by(Method::GET, target, Upgrade::WebSocket), Reader::Program, "{target}");
        }
        let programs = [
            "/http-bind",
            "/acme/_unlock",
            "/foo?room=x",
            "/conference-request/v1",
            "/xmpp-websocket",
            "/about/health",
        ];
        for target in programs {
            assert_eq!(read_by(Method::GET, target, Upgrade::None), Reader::Program, "{target}");
        }
    }
}
