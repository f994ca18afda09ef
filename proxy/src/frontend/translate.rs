//! From an HTTP/2 request's head to the HTTP/1.1 head that rules look at and shards are sent (RFC 9113, 8.3 and 8.2.3; RFC 8441, 5).

use crate::admission::Refusal;
use crate::rescue::Failure;
use http::header::{
    CONNECTION, CONTENT_LENGTH, COOKIE, HOST, SEC_WEBSOCKET_KEY, SEC_WEBSOCKET_VERSION, UPGRADE,
};
use http::request::Parts;
use http::uri::{Authority, PathAndQuery};
use http::{HeaderMap, HeaderValue, Method, StatusCode, Uri, Version};
use hyper::ext::Protocol;
use tokio_tungstenite::tungstenite::handshake::client::generate_key;
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;

/// What a stream's head asks for.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Asked {
    /// An exchange.
    Exchange,
    /// A WebSocket; the shard has to answer `accept` to the key that was made up for it (RFC 6455, 4.2.2).
    WebSocket { accept: String },
}

/// Makes `head` one of HTTP/1.1.
///
/// # Errors
/// [`Failure`] for what cannot be one.
pub(super) fn translate(head: &mut Parts) -> Result<Asked, Failure> {
    if head.headers.values().any(|value| is_padded(value.as_bytes())) {
        return Err(Failure::Head(StatusCode::BAD_REQUEST));
    }
    if head.uri.path() == "*" && head.method != Method::OPTIONS {
        return Err(Failure::Target(head.uri.to_string()));
    }
    let protocol = head.extensions.remove::<Protocol>();
    let authority = head.uri.authority().cloned();
    host(&mut head.headers, authority.as_ref(), &head.uri)?;
    crumbs(&mut head.headers);
    head.version = Version::HTTP_11;
    let asked = match protocol {
        None if head.method == Method::CONNECT => return Err(Failure::Connect),
        None => Asked::Exchange,
        Some(protocol) if protocol.as_str().eq_ignore_ascii_case("websocket") => {
            head.method = Method::GET;
            let key = generate_key();
            let accept = derive_accept_key(key.as_bytes());
            head.headers.insert(CONNECTION, HeaderValue::from_static("Upgrade"));
            head.headers.insert(UPGRADE, HeaderValue::from_static("websocket"));
            // Base64 is visible ASCII.
            let key = HeaderValue::from_str(&key).map_err(|_| Failure::Connect)?;
            head.headers.insert(SEC_WEBSOCKET_KEY, key);
            head.headers.entry(SEC_WEBSOCKET_VERSION).or_insert(HeaderValue::from_static("13"));
            head.headers.remove(CONTENT_LENGTH);
            Asked::WebSocket { accept }
        }
        Some(_) => return Err(Failure::Protocol),
    };
    let path = head.uri.path_and_query().cloned().unwrap_or_else(|| PathAndQuery::from_static("/"));
    head.uri = Uri::from(path);
    Ok(asked)
}

/// Whether a value begins or ends with a space (RFC 9113, 8.2.1): HTTP/1 would drop it, so both would not mean the same.
fn is_padded(value: &[u8]) -> bool {
    let space = |byte: Option<&u8>| matches!(byte, Some(b' ' | b'\t'));
    space(value.first()) || space(value.last())
}

/// One Host, that of `:authority` if there is one; both may not differ (RFC 9113, 8.3.1).
fn host(headers: &mut HeaderMap, authority: Option<&Authority>, uri: &Uri) -> Result<(), Failure> {
    let mut hosts = headers.get_all(HOST).iter();
    let (host, second) = (hosts.next(), hosts.next());
    if second.is_some() {
        return Err(Refusal::Hosts.into());
    }
    let Some(authority) = authority else {
        return if host.is_some_and(|host| !host.is_empty()) {
            Ok(())
        } else {
            Err(Failure::Target(uri.to_string()))
        };
    };
    if authority.as_str().contains('@') || authority.host().is_empty() {
        return Err(Failure::Target(uri.to_string()));
    }
    if host.is_some_and(|host| !host.as_bytes().eq_ignore_ascii_case(authority.as_str().as_bytes())) {
        return Err(Refusal::Hosts.into());
    }
    let value = HeaderValue::from_str(authority.as_str());
    headers.insert(HOST, value.map_err(|_| Failure::Target(uri.to_string()))?);
    Ok(())
}

/// HTTP/2 may send a cookie per line, HTTP/1 has one line (RFC 9113, 8.2.3).
fn crumbs(headers: &mut HeaderMap) {
    let mut lines = headers.get_all(COOKIE).iter();
    if lines.next().is_none() || lines.next().is_none() {
        return;
    }
    let lines: Vec<&[u8]> = headers.get_all(COOKIE).iter().map(HeaderValue::as_bytes).collect();
    // Parts that were values make a value.
    if let Ok(joined) = HeaderValue::from_bytes(&lines.join(&b"; "[..])) {
        headers.insert(COOKIE, joined);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::Request;

    fn head(method: Method, uri: &str, headers: &[(&str, &str)]) -> Parts {
        let mut request = Request::builder().method(method).uri(uri).version(Version::HTTP_2);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        request.body(()).unwrap().into_parts().0
    }

    #[test]
    fn authority_becomes_host_and_cookies_one_line() {
        let mut head =
            head(Method::GET, "https://Meet.example:8443/a?b", &[("cookie", "a=1"), ("cookie", "b=2")]);
        assert_eq!(translate(&mut head).unwrap(), Asked::Exchange);
        assert_eq!(head.uri, "/a?b");
        assert_eq!(head.headers[HOST], "Meet.example:8443");
        assert_eq!(head.headers.get_all(COOKIE).iter().collect::<Vec<_>>(), ["a=1; b=2"]);
        assert_eq!(head.version, Version::HTTP_11);
    }

    #[test]
    fn what_names_no_host_or_two_is_refused() {
        let status = |mut head: Parts| translate(&mut head).unwrap_err().status().as_u16();
        assert_eq!(status(head(Method::GET, "https://meet/a", &[("host", "other")])), 400);
        assert_eq!(status(head(Method::GET, "https://me@meet/a", &[])), 400);
        assert_eq!(status(head(Method::GET, "/a", &[])), 400);
        assert_eq!(status(head(Method::GET, "/a", &[("host", "a"), ("host", "a")])), 400);
        assert_eq!(status(head(Method::CONNECT, "meet:443", &[])), 400);
        let mut same = head(Method::GET, "https://meet/a", &[("host", "MEET")]);
        assert_eq!(translate(&mut same).unwrap(), Asked::Exchange);
    }

    #[test]
    fn spaces_around_a_value_and_a_lone_asterisk_are_refused() {
        let status = |mut head: Parts| translate(&mut head).unwrap_err().status().as_u16();
        for value in [" a", "a ", "\ta", "a\t"] {
            assert_eq!(status(head(Method::GET, "https://meet/a", &[("x-value", value)])), 400, "{value:?}");
        }
        assert!(!is_padded(b"a b") && !is_padded(b""));
        let mut asterisk = head(Method::GET, "https://meet/a", &[]);
        asterisk.uri = Uri::builder().scheme("https").authority("meet").path_and_query("*").build().unwrap();
        assert_eq!(status(asterisk), 400);
    }

    #[test]
    fn a_websocket_is_asked_for_as_over_http_1() {
        let mut head = head(Method::CONNECT, "https://meet/xmpp-websocket?room=r", &[]);
        head.extensions.insert(Protocol::from_static("websocket"));
        let Asked::WebSocket { accept } = translate(&mut head).unwrap() else { panic!("no websocket") };
        assert_eq!(head.method, Method::GET);
        assert_eq!(head.uri, "/xmpp-websocket?room=r");
        assert_eq!(
            (&head.headers[UPGRADE], &head.headers[CONNECTION]),
            (&"websocket".parse().unwrap(), &"Upgrade".parse().unwrap())
        );
        assert_eq!(derive_accept_key(head.headers[SEC_WEBSOCKET_KEY].as_bytes()), accept);
        let mut other = self::head(Method::CONNECT, "https://meet/", &[]);
        other.extensions.insert(Protocol::from_static("connect-udp"));
        assert_eq!(translate(&mut other).unwrap_err().status().as_u16(), 501);
    }
}
