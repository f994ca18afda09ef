//! What a built-in shard answers to each request, without any socket: the room page, `_unlock`, health, the upgrade.

use bytes::Bytes;
use http::header::{
    ALLOW, CACHE_CONTROL, CONNECTION, CONTENT_TYPE, SEC_WEBSOCKET_ACCEPT, SEC_WEBSOCKET_KEY, UPGRADE,
};
use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode};
use http_body_util::Full;
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;

use super::query;
use super::rooms::RoomError;
use super::shard::ShardSpec;

/// Body of every answer.
pub type Body = Full<Bytes>;

/// Longest room name, in bytes.
const ROOM_BYTES_MAX: usize = 256;
const PAGE: &str = include_str!("room.html");

/// What a request wants of the shard.
#[derive(Debug, PartialEq, Eq)]
pub enum Visit {
    /// The page of a room, or of none yet.
    Page,
    /// `_unlock`: which shard is this?
    Unlock,
    /// The health check.
    Health,
    /// The browser asks for an icon; there is none.
    Icon,
    /// A WebSocket into a room.
    Join {
        /// `tenant/room` or `room`, lower case.
        room: String,
        /// Display name as asked for.
        name: String,
        /// Region of the node it came through.
        via: String,
        /// Value of `Sec-WebSocket-Accept`.
        accept: String,
    },
}

/// Why a request is not served.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum Refused {
    /// Neither GET nor HEAD.
    #[error("method {0}, expected GET")]
    Method(Method),
    /// A path of more than two segments, or an unknown service.
    #[error("no such page: {0}, expected /ROOM or /TENANT/ROOM")]
    NotFound(String),
    /// A WebSocket without a usable room.
    #[error("parameter room: {bytes} bytes, expected 1 to {ROOM_BYTES_MAX}")]
    Room {
        /// Bytes seen.
        bytes: usize,
    },
    /// `xmpp-websocket` without an upgrade.
    #[error("xmpp-websocket: no WebSocket handshake, expected Upgrade: websocket and Sec-WebSocket-Key")]
    NoHandshake,
    /// No place left.
    #[error(transparent)]
    Full(#[from] RoomError),
}

/// Reads what a request wants; pure.
pub fn read<B>(request: &Request<B>) -> Result<Visit, Refused> {
    if request.method() != Method::GET && request.method() != Method::HEAD {
        return Err(Refused::Method(request.method().clone()));
    }
    let path = request.uri().path();
    let segments: Vec<&str> = path.split('/').filter(|segment| !segment.is_empty()).collect();
    match segments.as_slice() {
        ["about", "health"] => Ok(Visit::Health),
        ["favicon.ico"] => Ok(Visit::Icon),
        ["_unlock"] | [_, "_unlock"] => Ok(Visit::Unlock),
        ["xmpp-websocket"] => read_join(request, None),
        [tenant, "xmpp-websocket"] => read_join(request, Some(tenant)),
        [] | [_] | [_, _] => Ok(Visit::Page),
        [_, _, _, ..] => Err(Refused::NotFound(path.to_owned())),
    }
}

fn read_join<B>(request: &Request<B>, tenant: Option<&str>) -> Result<Visit, Refused> {
    let query = request.uri().query().unwrap_or_default();
    let room = query::value(query, "room").unwrap_or_default().to_lowercase();
    if room.is_empty() || room.len() > ROOM_BYTES_MAX {
        return Err(Refused::Room { bytes: room.len() });
    }
    let headers = request.headers();
    let upgrade = headers.get(UPGRADE).and_then(|value| value.to_str().ok());
    let (Some(true), Some(key)) =
        (upgrade.map(|value| value.eq_ignore_ascii_case("websocket")), headers.get(SEC_WEBSOCKET_KEY))
    else {
        return Err(Refused::NoHandshake);
    };
    Ok(Visit::Join {
        room: tenant.map_or_else(|| room.clone(), |tenant| format!("{}/{room}", tenant.to_lowercase())),
        name: query::value(query, "name").unwrap_or_default(),
        via: text(headers, "x-proxy-region"),
        accept: derive_accept_key(key.as_bytes()),
    })
}

fn text(headers: &HeaderMap, name: &str) -> String {
    headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default().to_owned()
}

/// The answer to everything but a join.
pub fn show(spec: ShardSpec, visit: &Visit) -> Response<Body> {
    match visit {
        Visit::Page => respond(spec, StatusCode::OK, "text/html; charset=utf-8", PAGE),
        Visit::Unlock | Visit::Health => respond(spec, StatusCode::OK, "text/plain", "OK\n"),
        Visit::Icon => respond(spec, StatusCode::NO_CONTENT, "image/x-icon", ""),
        Visit::Join { accept, .. } => switch_protocols(spec, accept),
    }
}

/// The answer to a refused request.
pub fn refuse(spec: ShardSpec, refused: &Refused) -> Response<Body> {
    let status = match refused {
        Refused::Method(_) => StatusCode::METHOD_NOT_ALLOWED,
        Refused::NotFound(_) => StatusCode::NOT_FOUND,
        Refused::Room { .. } | Refused::NoHandshake => StatusCode::BAD_REQUEST,
        Refused::Full(_) => StatusCode::SERVICE_UNAVAILABLE,
    };
    let mut response = respond(spec, status, "text/plain; charset=utf-8", format!("{refused}\n"));
    if status == StatusCode::METHOD_NOT_ALLOWED {
        response.headers_mut().insert(ALLOW, HeaderValue::from_static("GET, HEAD"));
    }
    response
}

/// 101 for a WebSocket.
pub fn switch_protocols(spec: ShardSpec, accept: &str) -> Response<Body> {
    let mut response = respond(spec, StatusCode::SWITCHING_PROTOCOLS, "text/plain", "");
    let headers = response.headers_mut();
    headers.remove(CONTENT_TYPE);
    headers.insert(CONNECTION, HeaderValue::from_static("upgrade"));
    headers.insert(UPGRADE, HeaderValue::from_static("websocket"));
    if let Ok(accept) = HeaderValue::from_str(accept) {
        headers.insert(SEC_WEBSOCKET_ACCEPT, accept);
    }
    response
}

fn respond(
    spec: ShardSpec,
    status: StatusCode,
    kind: &'static str,
    body: impl Into<Bytes>,
) -> Response<Body> {
    let mut response = Response::new(Full::new(body.into()));
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(kind));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers.insert("x-jitsi-shard", HeaderValue::from_static(spec.name));
    headers.insert("x-jitsi-region", HeaderValue::from_static(spec.region));
    headers.insert("x-jitsi-release", HeaderValue::from_static(spec.release));
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    fn get(target: &str) -> Request<()> {
        Request::get(target).body(()).unwrap()
    }

    #[test]
    fn pages_and_services_are_told_apart() {
        for target in ["/", "/hello", "/acme/hello", "/Hello?x=1"] {
            assert_eq!(read(&get(target)), Ok(Visit::Page), "{target}");
        }
        assert_eq!(read(&get("/acme/_unlock?room=x")), Ok(Visit::Unlock));
        assert_eq!(read(&get("/about/health")), Ok(Visit::Health));
        assert_eq!(read(&get("/a/b/c")), Err(Refused::NotFound("/a/b/c".into())));
        let post = Request::post("/hello").body(()).unwrap();
        assert_eq!(read(&post), Err(Refused::Method(Method::POST)));
    }

    #[test]
    fn a_join_needs_a_room_and_a_handshake() {
        assert_eq!(read(&get("/xmpp-websocket?room=")), Err(Refused::Room { bytes: 0 }));
        assert_eq!(read(&get("/xmpp-websocket?room=x")), Err(Refused::NoHandshake));
        let request = Request::get("/Acme/xmpp-websocket?room=Caf%C3%A9&name=Ann%20B")
            .header("upgrade", "WebSocket")
            .header("sec-websocket-key", "dGhlIHNhbXBsZSBub25jZQ==")
            .header("x-proxy-region", "region-b")
            .body(())
            .unwrap();
        let expected = Visit::Join {
            room: "acme/café".into(),
            name: "Ann B".into(),
            via: "region-b".into(),
            accept: "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=".into(), // the example of RFC 6455
        };
        assert_eq!(read(&request), Ok(expected));
    }
}
