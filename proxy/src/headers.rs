//! Headers on their way through: what belongs to one connection ends here, what tells of the proxy is added.

use crate::request_id::X_REQUEST_ID;
use crate::routing_key::{Compat, Flag, RoutingKey, Said, Told};
use crate::trust::{X_FORWARDED_FOR, X_FORWARDED_PROTO};
use crate::worker::ForwardedProto;
use http::header::{CONNECTION, CONTENT_LENGTH, EXPECT, HOST, TE, TRANSFER_ENCODING, UPGRADE};
use http::{HeaderMap, HeaderName, HeaderValue, Method, Uri, Version};

const X_ROOM: HeaderName = HeaderName::from_static("x-room");
const X_GROUP: HeaderName = HeaderName::from_static("x-group");
const X_STICK_TOKEN: HeaderName = HeaderName::from_static("x-sticktoken");
const X_STICK_TOKEN_FLAG: HeaderName = HeaderName::from_static("x-sticktokenflag");
const X_PROXY_REGION: HeaderName = HeaderName::from_static("x-proxy-region");
const X_PROXY_HOST: HeaderName = HeaderName::from_static("x-proxy-host");
const KEEP_ALIVE: &str = "keep-alive";
const PROXY_CONNECTION: &str = "proxy-connection";

/// Whether a request asks to become a WebSocket.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Upgrade {
    /// No, or to something else, which is not passed on.
    None,
    /// Yes.
    WebSocket,
}

/// Whether a request asks to become a WebSocket (RFC 6455, 4.1).
pub(crate) fn upgrade_of(method: &Method, version: Version, headers: &HeaderMap) -> Upgrade {
    if *method == Method::GET
        && version == Version::HTTP_11
        && names_token(headers, &UPGRADE, "websocket")
        && names_token(headers, &CONNECTION, "upgrade")
    {
        Upgrade::WebSocket
    } else {
        Upgrade::None
    }
}

/// Whether a 101 is the one that was asked for.
pub(crate) fn switches_to_websocket(headers: &HeaderMap) -> bool {
    names_token(headers, &UPGRADE, "websocket")
}

/// The headers that routing looks at, as they came.
#[derive(Debug, Default)]
pub(crate) struct Sent {
    host: Option<HeaderValue>,
    room: Option<HeaderValue>,
    group: Option<HeaderValue>,
    flag: Option<HeaderValue>,
}

impl Sent {
    /// Of several lines of one name the last one; the first Host, beside which no other one is let in.
    pub(crate) fn of(headers: &HeaderMap, compat: Compat) -> Self {
        let last = |name: HeaderName| headers.get_all(name).iter().next_back().cloned();
        let host = headers.get(HOST).cloned();
        match compat {
            Compat::None => Self { host, ..Self::default() },
            Compat::Haproxy => {
                Self { host, room: last(X_ROOM), group: last(X_GROUP), flag: last(X_STICK_TOKEN_FLAG) }
            }
        }
    }

    pub(crate) fn said(&self) -> Said<'_> {
        fn bytes(value: &Option<HeaderValue>) -> Option<&[u8]> {
            value.as_ref().map(HeaderValue::as_bytes)
        }
        Said {
            host: bytes(&self.host),
            room: bytes(&self.room),
            group: bytes(&self.group),
            flag: bytes(&self.flag),
        }
    }
}

/// Tells the shard what was made of the request (R05 to R17, R26): whatever the client sent under these names is gone, but where the key
/// says that it stays.
pub(crate) fn tell_key(headers: &mut HeaderMap, key: &RoutingKey<'_>) {
    for (name, told) in [(X_GROUP, key.group_told()), (X_ROOM, key.room_told())] {
        match told {
            Told::Nothing => drop(headers.remove(name)),
            Told::AsSent => {}
            Told::Text(text) => drop(headers.insert(name, value_of(text))),
        }
    }
    headers.insert(X_STICK_TOKEN, value_of(key.token()));
    match key.flag() {
        Flag::Unset => drop(headers.remove(X_STICK_TOKEN_FLAG)),
        Flag::AsSent => {}
        Flag::True => drop(headers.insert(X_STICK_TOKEN_FLAG, HeaderValue::from_static("true"))),
    }
}

/// A part of the request as a header's value: its characters are visible ASCII, or stand for the bytes of their numbers.
fn value_of(text: &str) -> HeaderValue {
    let value = if text.is_ascii() {
        HeaderValue::from_str(text)
    } else {
        let bytes: Vec<u8> = text.chars().filter_map(|letter| u8::try_from(u32::from(letter)).ok()).collect();
        HeaderValue::from_bytes(&bytes)
    };
    value.unwrap_or_else(|_| HeaderValue::from_static(""))
}

/// What a shard is told of a request's way here.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Way<'a> {
    /// The peer of the connection.
    pub(crate) forwarded_for: &'a HeaderValue,
    /// How the client speaks to the first proxy.
    pub(crate) forwarded_proto: ForwardedProto,
    /// The request's name, if it has one.
    pub(crate) request_id: Option<&'a HeaderValue>,
}

/// What this node writes into every request and answer, prepared once.
#[derive(Debug, Clone)]
pub(crate) struct Marks {
    region: HeaderValue,
    host: HeaderValue,
}

impl Marks {
    /// `None` when a name holds characters that no header can hold.
    pub(crate) fn new(region: &str, host: &str) -> Option<Self> {
        Some(Self { region: HeaderValue::from_str(region).ok()?, host: HeaderValue::from_str(host).ok()? })
    }

    /// What a request without Host is told to be for: its target's authority, else this node's name.
    pub(crate) fn host_of(&self, uri: &Uri) -> HeaderValue {
        let authority = uri.authority().map(|authority| authority.as_str());
        let host = authority.map(|text| text.rsplit_once('@').map_or(text, |(_, host)| host));
        host.and_then(|host| HeaderValue::from_str(host).ok()).unwrap_or_else(|| self.host.clone())
    }

    /// Prepares a request for its shard (R27): added to what the client sent, `X-Forwarded-For` as a line of its own.
    pub(crate) fn to_shard(&self, headers: &mut HeaderMap, upgrade: Upgrade, way: Way<'_>) {
        strip(headers, upgrade);
        // hyper says 100 when the shard takes the body; a second one from the shard would answer nothing (RFC 9110, 10.1.1).
        headers.remove(EXPECT);
        headers.append(X_FORWARDED_FOR, way.forwarded_for.clone());
        headers.append(X_FORWARDED_PROTO, HeaderValue::from_static(way.forwarded_proto.as_str()));
        headers.append(X_PROXY_REGION, self.region.clone());
        if let Some(id) = way.request_id {
            headers.insert(X_REQUEST_ID, id.clone());
        }
    }

    /// Prepares a shard's answer for the client.
    pub(crate) fn to_client(&self, headers: &mut HeaderMap, upgrade: Upgrade) {
        strip(headers, upgrade);
        headers.append(X_PROXY_REGION, self.region.clone());
        headers.append(X_PROXY_HOST, self.host.clone());
    }
}

/// Removes the hop-by-hop headers (RFC 9110, 7.6.1). `Trailer` stays: trailers are passed on. `Transfer-Encoding` is hyper's
/// to set again. One look at all names comes first, because mostly there is nothing to remove.
fn strip(headers: &mut HeaderMap, upgrade: Upgrade) {
    let (mut connection, mut te, mut rest) = (false, false, false);
    for name in headers.keys() {
        if *name == CONNECTION {
            connection = true;
        } else if *name == TE {
            te = true;
        } else {
            rest |= *name == TRANSFER_ENCODING
                || *name == UPGRADE
                || name.as_str() == KEEP_ALIVE
                || name.as_str() == PROXY_CONNECTION;
        }
    }
    if connection {
        remove_named(headers);
        if upgrade == Upgrade::WebSocket {
            headers.insert(CONNECTION, HeaderValue::from_static("Upgrade"));
        } else {
            headers.remove(CONNECTION);
        }
    }
    if te && names_token(headers, &TE, "trailers") {
        headers.insert(TE, HeaderValue::from_static("trailers"));
    } else if te {
        headers.remove(TE);
    }
    if rest {
        headers.remove(TRANSFER_ENCODING);
        headers.remove(KEEP_ALIVE);
        headers.remove(PROXY_CONNECTION);
        match upgrade {
            Upgrade::None => {
                headers.remove(UPGRADE);
            }
            // Nothing else that was offered beside it, such as h2c.
            Upgrade::WebSocket => {
                headers.insert(UPGRADE, HeaderValue::from_static("websocket"));
            }
        }
    }
}

/// Removes what `Connection` names. What frames or addresses the message stays, whoever names it.
fn remove_named(headers: &mut HeaderMap) {
    let mut named = Vec::new();
    for value in headers.get_all(CONNECTION) {
        for token in value.as_bytes().split(|byte| *byte == b',').map(<[u8]>::trim_ascii) {
            let known = ["close", KEEP_ALIVE, "upgrade", "te"];
            if known.iter().any(|known| token.eq_ignore_ascii_case(known.as_bytes())) {
                continue;
            }
            if let Ok(name) = HeaderName::from_bytes(token)
                && name != HOST
                && name != CONTENT_LENGTH
            {
                named.push(name);
            }
        }
    }
    for name in named {
        headers.remove(name);
    }
}

/// Whether the lists in all `name` headers hold `token`, in any case.
fn names_token(headers: &HeaderMap, name: &HeaderName, token: &str) -> bool {
    headers.get_all(name).iter().any(|value| {
        value
            .as_bytes()
            .split(|byte| *byte == b',')
            .any(|part| part.trim_ascii().eq_ignore_ascii_case(token.as_bytes()))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(lines: &[(&str, &str)]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for (name, value) in lines {
            headers.append(
                HeaderName::from_bytes(name.as_bytes()).unwrap(),
                HeaderValue::from_str(value).unwrap(),
            );
        }
        headers
    }

    fn lines(headers: &HeaderMap) -> Vec<String> {
        let mut lines: Vec<_> =
            headers.iter().map(|(name, value)| format!("{name}: {}", value.to_str().unwrap())).collect();
        lines.sort();
        lines
    }

    #[test]
    fn hop_by_hop_headers_end_here() {
        let mut headers = headers(&[
            ("Host", "h"),
            ("Connection", "keep-alive, X-Private, host"),
            ("Connection", "close"),
            ("X-Private", "1"),
            ("Keep-Alive", "timeout=5"),
            ("Proxy-Connection", "keep-alive"),
            ("TE", "gzip, trailers"),
            ("Trailer", "X-Sum"),
            ("Transfer-Encoding", "chunked"),
            ("Upgrade", "h2c"),
            ("Expect", "100-continue"),
            ("X-Forwarded-For", "10.0.0.1"),
            ("X-Request-Id", "theirs"),
            ("X-Request-Id", "theirs"),
        ]);
        let marks = Marks::new("here", "node").unwrap();
        let way = Way {
            forwarded_for: &HeaderValue::from_static("127.0.0.9"),
            forwarded_proto: ForwardedProto::Https,
            request_id: Some(&HeaderValue::from_static("ours")),
        };
        marks.to_shard(&mut headers, Upgrade::None, way);
        assert_eq!(
            lines(&headers),
            [
                "host: h",
                "te: trailers",
                "trailer: X-Sum",
                "x-forwarded-for: 10.0.0.1",
                "x-forwarded-for: 127.0.0.9",
                "x-forwarded-proto: https",
                "x-proxy-region: here",
                "x-request-id: ours",
            ]
        );
    }

    #[test]
    fn a_websocket_upgrade_passes() {
        let mut headers =
            headers(&[("Connection", "keep-alive, Upgrade"), ("Upgrade", "websocket"), ("TE", "gzip")]);
        assert_eq!(upgrade_of(&Method::GET, Version::HTTP_11, &headers), Upgrade::WebSocket);
        assert_eq!(upgrade_of(&Method::POST, Version::HTTP_11, &headers), Upgrade::None);
        assert_eq!(upgrade_of(&Method::GET, Version::HTTP_10, &headers), Upgrade::None);
        Marks::new("here", "node").unwrap().to_client(&mut headers, Upgrade::WebSocket);
        assert_eq!(
            lines(&headers),
            ["connection: Upgrade", "upgrade: websocket", "x-proxy-host: node", "x-proxy-region: here"]
        );
    }

    #[test]
    fn an_upgrade_needs_both_headers() {
        let only_upgrade = headers(&[("Upgrade", "websocket")]);
        assert_eq!(upgrade_of(&Method::GET, Version::HTTP_11, &only_upgrade), Upgrade::None);
        let h2c = headers(&[("Connection", "Upgrade"), ("Upgrade", "h2c")]);
        assert_eq!(upgrade_of(&Method::GET, Version::HTTP_11, &h2c), Upgrade::None);
    }
}
