//! Headers that the configuration sets on every answer to a client, ours and the shards': made once, when it is read.

use crate::worker::ForwardedProto;
use http::header::STRICT_TRANSPORT_SECURITY;
use http::{HeaderMap, HeaderName, HeaderValue};
use std::fmt;

/// Names that cannot be set on every answer, and why.
const RESERVED: &[(&str, &str)] = &[
    ("connection", "belongs to the connection"),
    ("keep-alive", "belongs to the connection"),
    ("proxy-connection", "belongs to the connection"),
    ("te", "belongs to the connection"),
    ("upgrade", "belongs to the connection"),
    ("content-length", "frames the answer"),
    ("trailer", "frames the answer"),
    ("transfer-encoding", "frames the answer"),
    ("set-cookie", "would take the shards' cookies away"),
    ("strict-transport-security", "is frontend.hsts"),
    ("x-request-id", "is frontend.request_id"),
    ("x-proxy-region", "is node.region"),
    ("x-proxy-host", "is node.host_name"),
];

/// The longest value of a line: answers have to fit into clients' buffers.
const VALUE_LEN_MAX: usize = 4096;

/// A line that every answer has.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ResponseHeader {
    name: HeaderName,
    value: HeaderValue,
    /// As it was written, for `check`.
    text: Box<str>,
}

impl ResponseHeader {
    /// Reads `Name: value`.
    ///
    /// # Errors
    /// What was expected, in words.
    pub fn parse(text: &str) -> Result<Self, String> {
        let form = || format!("a line \"Name: value\" of at most {VALUE_LEN_MAX} visible ASCII characters");
        let (name, value) = text.split_once(':').ok_or_else(form)?;
        let value = value.trim_matches(' ');
        let name = HeaderName::from_bytes(name.as_bytes()).map_err(|_| form())?;
        if let Some((_, why)) = RESERVED.iter().find(|(reserved, _)| *reserved == name.as_str()) {
            return Err(format!("another header than {name}, which {why}"));
        }
        let fit = (1..=VALUE_LEN_MAX).contains(&value.len())
            && value.bytes().all(|byte| byte.is_ascii_graphic() || byte == b' ');
        let value = HeaderValue::from_str(value).ok().filter(|_| fit).ok_or_else(form)?;
        Ok(Self { name, value, text: text.into() })
    }

    /// Its name.
    #[must_use]
    pub const fn name(&self) -> &HeaderName {
        &self.name
    }
}

impl fmt::Display for ResponseHeader {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

/// A policy of Strict-Transport-Security (RFC 6797, 6.1).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Hsts(Box<str>);

/// What [`Hsts::parse`] takes.
pub const HSTS: &str = "\"off\" or a policy such as \"max-age=63072000; includeSubDomains\", which has max-age in seconds once, and perhaps includeSubDomains and preload";

impl Hsts {
    /// Reads a policy.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let mut seen = Vec::new();
        for directive in text.split(';').map(str::trim_ascii) {
            let name = match directive.split_once('=') {
                Some((name, seconds)) if name.eq_ignore_ascii_case("max-age") => {
                    let digits = (1..=10).contains(&seconds.len())
                        && seconds.bytes().all(|byte| byte.is_ascii_digit());
                    digits.then_some("max-age")?
                }
                None if directive.eq_ignore_ascii_case("includeSubDomains") => "includeSubDomains",
                None if directive.eq_ignore_ascii_case("preload") => "preload",
                Some(_) | None => return None,
            };
            if seen.contains(&name) {
                return None;
            }
            seen.push(name);
        }
        (seen.contains(&"max-age")).then(|| Self(text.into()))
    }
}

impl fmt::Display for Hsts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// What is set on every answer.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct AnswerHeaders {
    always: Vec<(HeaderName, HeaderValue)>,
    hsts: Option<HeaderValue>,
}

impl AnswerHeaders {
    /// Prepares them; of several lines of one name all are set.
    #[must_use]
    pub fn new(lines: &[ResponseHeader], hsts: Option<&Hsts>) -> Self {
        let always = lines.iter().map(|line| (line.name.clone(), line.value.clone())).collect();
        // A policy is made of ASCII letters.
        Self { always, hsts: hsts.and_then(|Hsts(text)| HeaderValue::from_str(text).ok()) }
    }

    /// Sets them. What a shard said under their names goes; the policy is told only to those who come over TLS (RFC 6797, 7.2).
    pub(crate) fn set(&self, headers: &mut HeaderMap, proto: ForwardedProto) {
        for (index, (name, value)) in self.always.iter().enumerate() {
            if self.always[..index].iter().any(|(before, _)| before == name) {
                headers.append(name, value.clone());
            } else {
                headers.insert(name, value.clone());
            }
        }
        if let Some(hsts) = self.hsts.as_ref().filter(|_| proto == ForwardedProto::Https) {
            headers.insert(STRICT_TRANSPORT_SECURITY, hsts.clone());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_read_or_refused_in_words() {
        for text in [
            "X-Content-Type-Options: nosniff",
            "x-a:b",
            "Content-Security-Policy:  frame-ancestors 'self'; x \"y\" ",
        ] {
            let line = ResponseHeader::parse(text).unwrap();
            assert_eq!(line.to_string(), text);
            assert!(!line.value.as_bytes().starts_with(b" ") && !line.value.as_bytes().ends_with(b" "));
        }
        let long = format!("x: {}", "y".repeat(VALUE_LEN_MAX + 1));
        for text in ["", "x", ": y", "x:", "x y: z", "x : y", "x: y\r\nz: 1", "x: \u{e9}", "x: a\tb", &long] {
            let expected = ResponseHeader::parse(text).unwrap_err();
            assert!(expected.starts_with("a line \"Name: value\""), "{text:?} {expected}");
        }
        for (text, expected) in [
            ("Connection: close", "another header than connection, which belongs to the connection"),
            (
                "strict-transport-security: max-age=1",
                "another header than strict-transport-security, which is frontend.hsts",
            ),
            ("Set-Cookie: a=b", "another header than set-cookie, which would take the shards' cookies away"),
        ] {
            assert_eq!(ResponseHeader::parse(text).unwrap_err(), expected);
        }
    }

    #[test]
    fn policies_have_an_age() {
        for text in ["max-age=0", "Max-Age=63072000; includeSubDomains; preload", "preload;max-age=1"] {
            assert_eq!(Hsts::parse(text).unwrap().to_string(), text);
        }
        for text in [
            "",
            "63072000",
            "max-age",
            "max-age=",
            "max-age=-1",
            "max-age=\"1\"",
            "max-age=99999999999",
            "max-age=1;",
            "max-age=1; max-age=2",
            "max-age=1; includeSubdomain",
            "includeSubDomains",
            "max-age=1\r\nx: y",
        ] {
            assert_eq!(Hsts::parse(text), None, "{text:?}");
        }
    }

    #[test]
    fn they_replace_what_a_shard_said() {
        let lines = ["X-Frame-Options: DENY", "Link: </a>", "link: </b>"]
            .map(|line| ResponseHeader::parse(line).unwrap());
        let set = AnswerHeaders::new(&lines, Hsts::parse("max-age=9").as_ref());
        for (proto, hsts) in
            [(ForwardedProto::Http, Some("max-age=1")), (ForwardedProto::Https, Some("max-age=9"))]
        {
            let mut headers = HeaderMap::new();
            for (name, value) in [
                ("x-frame-options", "ALLOW"),
                ("x-frame-options", "X"),
                ("link", "</c>"),
                ("strict-transport-security", "max-age=1"),
            ] {
                headers.append(HeaderName::from_static(name), HeaderValue::from_static(value));
            }
            set.set(&mut headers, proto);
            assert_eq!(headers.get_all("x-frame-options").iter().collect::<Vec<_>>(), ["DENY"]);
            assert_eq!(headers.get_all("link").iter().collect::<Vec<_>>(), ["</a>", "</b>"]);
            assert_eq!(headers.get(STRICT_TRANSPORT_SECURITY).and_then(|value| value.to_str().ok()), hsts);
        }
    }
}
