//! RFC 9112, 2 and 3: the request line, and how lines end.

use super::super::case::{After, Case, passes, refused, seen};
use super::super::upstream::Kind;
use super::{HOST, get};

pub(super) fn cases() -> Vec<Case> {
    let get_seen = || seen("GET", "/TAG", b"");
    let long = "x".repeat(20_000);
    let sized = |line: &str| format!("{line}\r\n{HOST}\r\n").into_bytes();
    let many = |count: usize| "X-Probe: y\r\n".repeat(count);
    vec![
        passes("9112-3 request-line", &get(""), get_seen()),
        refused("9112-3 two-spaces-before-target", 400, &sized("GET  /TAG HTTP/1.1")),
        refused("9112-3 two-spaces-before-version", 400, &sized("GET /TAG  HTTP/1.1")),
        refused("9112-3 tab-for-space", 400, &sized("GET\t/TAG HTTP/1.1")),
        refused("9112-3 space-behind-version", 400, &sized("GET /TAG HTTP/1.1 ")),
        refused("9112-3 space-before-method", 400, &sized(" GET /TAG HTTP/1.1")),
        refused("9112-3 space-in-target", 400, &sized("GET /TAG x HTTP/1.1")),
        refused("9112-3 no-version", 400, b"GET /TAG\r\n\r\n"),
        refused("9112-2.3 version-2.0", 505, &sized("GET /TAG HTTP/2.0")),
        refused("9112-2.3 version-1.2", 505, &sized("GET /TAG HTTP/1.2")),
        refused("9112-2.3 version-0.9", 505, &sized("GET /TAG HTTP/0.9")),
        refused("9112-2.3 version-in-lower-case", 400, &sized("GET /TAG http/1.1")),
        refused("9112-2.3 version-of-two-digits", 400, &sized("GET /TAG HTTP/1.10")),
        refused("9112-2.3 version-of-another-protocol", 400, &sized("GET /TAG HTCPCP/1.0")),
        passes("9112-2.2 empty-line-before", &[b"\r\n", &get("")[..]].concat(), get_seen()),
        refused("9112-2.2 many-empty-lines-before", 400, &[b"\r\n\r\n\r\n\r\n", &get("")[..]].concat()),
        refused("9112-2.2 lone-lf-behind-request-line", 400, b"GET /TAG HTTP/1.1\nHost: a.example\r\n\r\n"),
        refused("9112-2.2 lone-lf-behind-field", 400, b"GET /TAG HTTP/1.1\r\nHost: a.example\n\r\n"),
        refused("9112-2.2 lone-lf-ends-head", 400, b"GET /TAG HTTP/1.1\r\nHost: a.example\r\n\n"),
        refused("9112-2.2 only-lf", 400, b"GET /TAG HTTP/1.1\nHost: a.example\n\n"),
        refused("9112-2.2 lone-cr-in-request-line", 400, b"GET /TAG HTTP/1.1\rHost: a.example\r\n\r\n"),
        refused("9112-2.2 lone-cr-in-field", 400, &get("X-Probe: a\rb\r\n")),
        refused("9112-2.2 lf-cr", 400, b"GET /TAG HTTP/1.1\n\rHost: a.example\n\r\n\r"),
        refused("9112-3.1 method-is-no-token", 400, &sized("G(T /TAG HTTP/1.1")),
        refused("9112-3.1 method-is-missing", 400, &sized(" /TAG HTTP/1.1")),
        passes(
            "9112-3.1 method-of-an-extension",
            &sized("PROPFIND /TAG HTTP/1.1"),
            seen("PROPFIND", "/TAG", b""),
        ),
        passes("9112-3.1 method-unknown", &sized("FROB /TAG HTTP/1.1"), seen("FROB", "/TAG", b""))
            .at(Kind::Nginx),
        refused("9112-3.2 control-character-in-target", 400, &sized("GET /TAG\x01 HTTP/1.1")),
        refused("9112-3.2 nul-in-target", 400, &sized("GET /TAG\0 HTTP/1.1")),
        refused("9112-3.2 fragment-in-target", 400, &sized("GET /TAG#x HTTP/1.1")),
        refused("9112-3.2 bytes-above-ascii-in-target", 400, &sized("GET /TAG\u{e9} HTTP/1.1"))
            .then(After::Open),
        refused("9112-3.2 target-is-no-path", 400, &sized("GET TAG HTTP/1.1")).then(After::Open),
        refused("9112-3 target-too-long", 414, &sized(&format!("GET /TAG{long} HTTP/1.1"))),
        refused("6585-5 field-too-large", 431, &get(&format!("X-Probe: {long}\r\n"))),
        refused("6585-5 too-many-fields", 431, &get(&many(100))),
        passes("6585-5 as-many-fields-as-may-be", &get(&many(99)), get_seen()),
        passes(
            "9112-3.2.2 absolute-form",
            &sized("GET http://a.example/TAG HTTP/1.1"),
            seen("GET", "/TAG", b""),
        )
        .at(Kind::Nginx),
        refused("9112-3.2.2 absolute-form-of-another-host", 400, &sized("GET http://b.example/TAG HTTP/1.1"))
            .then(After::Open),
        refused("9112-3.2.3 connect", 400, b"CONNECT a.example:443 HTTP/1.1\r\nHost: a.example:443\r\n\r\n"),
        refused("9112-3.2.3 authority-form-of-get", 400, &sized("GET a.example:80 HTTP/1.1"))
            .then(After::Open),
        refused("9112-3.2.4 asterisk", 200, b"OPTIONS * HTTP/1.1\r\nHost: a.example\r\n\r\n")
            .line("x-saw", "*")
            .then(After::Open)
            .at(Kind::Node),
    ]
}
