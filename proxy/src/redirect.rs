//! Plain HTTP answered with where the same thing is over TLS. Pure.

use http::header::HOST;
use http::{HeaderMap, HeaderValue, Method, StatusCode, Uri};
use std::net::Ipv6Addr;

/// A listener's clients are sent on to `https://` of the same host.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ToHttps {
    /// At this port; 443 is not written.
    pub port: u16,
}

/// An answer that sends a client on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Elsewhere {
    /// 301, or 308 where the method has to stay the same.
    pub status: StatusCode,
    /// Where to.
    pub location: HeaderValue,
}

/// No `Host` that could stand in a URL.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("Host is none that could be redirected to, expected a name or an address, and perhaps a port")]
pub struct NoHost;

/// What stands below it a certificate authority asks for over plain HTTP (RFC 8555, 8.3).
const ACME: &str = "/.well-known/acme-challenge/";
/// Of a name in DNS.
const HOST_LEN_MAX: usize = 253;

impl ToHttps {
    /// Where a request is sent, if it is. Its Host and its target's authority must have been compared before.
    ///
    /// # Errors
    /// [`NoHost`], where it says of no host that it means, or of one that nobody can go to.
    pub fn of(self, method: &Method, uri: &Uri, headers: &HeaderMap) -> Result<Option<Elsewhere>, NoHost> {
        if is_challenge(uri.path()) {
            return Ok(None);
        }
        let named = headers.get(HOST).map(HeaderValue::as_bytes);
        // Over HTTP/2, and in an absolute target, the authority says it.
        let said = uri.authority().map(|authority| authority.as_str().as_bytes()).or(named);
        let host = said.and_then(host).ok_or(NoHost)?;
        let target = uri.path_and_query().map_or("/", |target| target.as_str());
        // `OPTIONS *`, which has no place in a URL.
        let target = if target.starts_with('/') { target } else { "/" };
        let location = match self.port {
            443 => format!("https://{host}{target}"),
            port => format!("https://{host}:{port}{target}"),
        };
        let location = HeaderValue::from_str(&location).map_err(|_| NoHost)?;
        let repeated = matches!(*method, Method::GET | Method::HEAD);
        let status = if repeated { StatusCode::MOVED_PERMANENTLY } else { StatusCode::PERMANENT_REDIRECT };
        Ok(Some(Elsewhere { status, location }))
    }
}

/// Whether a certificate authority looks for its challenge; not where the path leads elsewhere.
fn is_challenge(path: &str) -> bool {
    path.strip_prefix(ACME).is_some_and(|token| {
        !token.is_empty() && token.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_".contains(&byte))
    })
}

/// The host in `HOST[:PORT]`, if it is an address, or made of a name's characters: whatever else could stand there is another thing in
/// a URL than in a header.
fn host(said: &[u8]) -> Option<&str> {
    let said = str::from_utf8(said).ok()?;
    let (host, port) = match said.strip_prefix('[').and_then(|rest| rest.find(']')) {
        Some(end) => said.split_at(end + 2),
        None => said.split_at(said.find(':').unwrap_or(said.len())),
    };
    let port = port.is_empty() || port.strip_prefix(':')?.bytes().all(|byte| byte.is_ascii_digit());
    let literal = || host.strip_prefix('[')?.strip_suffix(']')?.parse::<Ipv6Addr>().ok();
    let named = (1..=HOST_LEN_MAX).contains(&host.len())
        && host.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-._".contains(&byte));
    (port && (named || literal().is_some())).then_some(host)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn asked(
        redirect: ToHttps,
        method: &Method,
        target: &str,
        host: Option<&str>,
    ) -> Result<Option<String>, NoHost> {
        let mut headers = HeaderMap::new();
        if let Some(host) = host {
            headers.insert(HOST, HeaderValue::from_bytes(host.as_bytes()).unwrap());
        }
        let elsewhere = redirect.of(method, &target.parse().unwrap(), &headers)?;
        Ok(elsewhere.map(|to| format!("{} {}", to.status.as_u16(), to.location.to_str().unwrap())))
    }

    const HTTPS: ToHttps = ToHttps { port: 443 };

    #[test]
    fn plain_requests_are_sent_to_the_same_place_over_tls() {
        for (method, target, host, answer) in [
            (Method::GET, "/", "meet.example", "301 https://meet.example/"),
            (Method::HEAD, "/a?b=c%20d&e=/f", "meet.example", "301 https://meet.example/a?b=c%20d&e=/f"),
            (Method::POST, "/http-bind?room=x", "meet.example", "308 https://meet.example/http-bind?room=x"),
            (Method::GET, "/a", "Meet.example:80", "301 https://Meet.example/a"),
            (Method::GET, "/a", "meet.example:8080", "301 https://meet.example/a"),
            (Method::GET, "/a", "192.0.2.1:", "301 https://192.0.2.1/a"),
            (Method::GET, "/a", "[2001:db8::1]:80", "301 https://[2001:db8::1]/a"),
            (Method::GET, "/a", "[::1]", "301 https://[::1]/a"),
            (Method::GET, "http://meet.example:80/a", "meet.example", "301 https://meet.example/a"),
            (Method::OPTIONS, "*", "meet.example", "308 https://meet.example/"),
            // Behind the host it is a path.
            (Method::GET, "//evil.example/x", "meet.example", "301 https://meet.example//evil.example/x"),
            (Method::GET, "/\\evil.example", "meet.example", "301 https://meet.example/\\evil.example"),
            (Method::GET, "/.well-known/acme-challenge", "h", "301 https://h/.well-known/acme-challenge"),
            (Method::GET, "/.well-known/acme-challenge/", "h", "301 https://h/.well-known/acme-challenge/"),
            (
                Method::GET,
                "/.well-known/acme-challenge/../x",
                "h",
                "301 https://h/.well-known/acme-challenge/../x",
            ),
            (
                Method::GET,
                "/.well-known/acme-challenge/%2e/x",
                "h",
                "301 https://h/.well-known/acme-challenge/%2e/x",
            ),
        ] {
            assert_eq!(asked(HTTPS, &method, target, Some(host)), Ok(Some(answer.to_owned())), "{target}");
        }
        let other = ToHttps { port: 8443 };
        let answer = Ok(Some("301 https://h:8443/a".to_owned()));
        assert_eq!(asked(other, &Method::GET, "/a", Some("h:8080")), answer);
        let challenge = "/.well-known/acme-challenge/Xy-1_z?x=1";
        assert_eq!(asked(HTTPS, &Method::GET, challenge, Some("h")), Ok(None));
    }

    #[test]
    fn what_is_no_host_is_not_redirected_to() {
        let long = "x".repeat(HOST_LEN_MAX + 1);
        for host in [
            "",
            ":80",
            "a b",
            "a@b",
            "a/b",
            "a?b",
            "a#b",
            "a\\b",
            "h:80:80",
            "h:x",
            "[::1",
            "[::1]x",
            "[zz]",
            "[127.0.0.1]",
            "::1",
            "a,b",
            "h\u{e9}",
            "a%00b",
            "<script>",
            &long,
        ] {
            assert_eq!(asked(HTTPS, &Method::GET, "/", Some(host)), Err(NoHost), "{host}");
        }
        assert_eq!(asked(HTTPS, &Method::GET, "/", None), Err(NoHost));
        assert_eq!(asked(HTTPS, &Method::GET, "http://u@h/", Some("u@h")), Err(NoHost));
    }
}
