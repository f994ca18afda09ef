//! RFC 9112, 5; RFC 9110, 5 and 7: field lines, Host, and what belongs to one connection.

use super::super::case::{Case, passes, refused, seen};
use super::super::upstream::Kind;
use super::{HOST, get};

pub(super) fn cases() -> Vec<Case> {
    let get_seen = || seen("GET", "/TAG", b"");
    let head = |lines: &str| format!("GET /TAG HTTP/1.1\r\n{lines}\r\n").into_bytes();
    let bytes = |value: &[u8]| [&get("")[..get("").len() - 2], value, b"\r\n\r\n"].concat();
    vec![
        refused("9112-5.1 space-before-colon", 400, &get("X-Probe : y\r\n")),
        refused("9112-5.1 tab-before-colon", 400, &get("X-Probe\t: y\r\n")),
        refused("9112-5.2 folded-with-space", 400, &get("X-Probe: y\r\n z\r\n")),
        refused("9112-5.2 folded-with-tab", 400, &get("X-Probe: y\r\n\tz\r\n")),
        refused("9112-2.2 space-before-first-field", 400, &head(" Host: a.example\r\n")),
        refused("9110-5.1 name-is-empty", 400, &get(": y\r\n")),
        refused("9110-5.1 name-is-no-token", 400, &get("X(Probe): y\r\n")),
        refused("9110-5.1 name-with-space", 400, &get("X Probe: y\r\n")),
        refused("9110-5.1 name-above-ascii", 400, &bytes(b"X-\xe9: y")),
        refused("9110-5.1 name-with-nul", 400, &get("X-\0Probe: y\r\n")),
        refused("9112-5 no-colon", 400, &get("X-Probe\r\n")),
        refused("9110-5.5 nul-in-value", 400, &get("X-Probe: a\0b\r\n")),
        refused("9110-5.5 vertical-tab-in-value", 400, &get("X-Probe: a\x0bb\r\n")),
        refused("9110-5.5 delete-in-value", 400, &get("X-Probe: a\x7fb\r\n")),
        refused("9110-5.5 escape-in-value", 400, &get("X-Probe: \x1b[2J\r\n")),
        passes("9110-5.5 bytes-above-ascii-in-value", &bytes(b"X-Other: \xe9"), get_seen()),
        passes(
            "9110-5.5 white-space-around-value",
            &get("X-Probe: \t y z \t\r\n"),
            get_seen().with("x-probe", "y z"),
        ),
        passes(
            "9110-5.5 no-white-space-before-value",
            &get("X-Probe:y\r\n"),
            get_seen().with("x-probe", "y"),
        ),
        passes("9110-5.5 empty-value", &get("X-Other:\r\n"), get_seen()),
        refused("9112-3.2 no-host", 400, &head("")),
        refused("9112-3.2 no-host-in-absolute-form", 400, b"GET http://a.example/TAG HTTP/1.1\r\n\r\n"),
        refused("9112-3.2 two-hosts", 400, &get("Host: b.example\r\n")),
        refused("9112-3.2 the-same-host-twice", 400, &get(HOST)),
        refused("9112-3.2 host-with-space", 400, &head("Host: a b\r\n")),
        refused("9112-3.2 host-with-path", 400, &head("Host: a.example/x\r\n")),
        refused("9112-3.2 host-with-user", 400, &head("Host: u@a.example\r\n")),
        refused("9112-3.2 host-with-backslash", 400, &head("Host: a.example\\b.example\r\n")),
        passes("9112-3.2 empty-host", &head("Host:\r\n"), get_seen()).at(Kind::Node),
        passes(
            "9112-3.2 host-with-port",
            &head("Host: a.example:8080\r\n"),
            get_seen().with("host", "a.example:8080"),
        ),
        passes(
            "9112-3.2 no-host-in-http-1.0",
            b"GET /TAG HTTP/1.0\r\nConnection: keep-alive\r\n\r\n",
            get_seen(),
        ),
        passes(
            "9110-7.6.1 fields-named-by-connection",
            &get("Connection: keep-alive, X-Private\r\nX-Private: 1\r\nKeep-Alive: timeout=5\r\n"),
            get_seen().without("x-private").without("keep-alive"),
        ),
        passes(
            "9110-7.6.1 connection-cannot-take-host-away",
            &get("Connection: keep-alive, host\r\n"),
            get_seen().with("host", "a.example"),
        ),
        passes(
            "9110-7.6.1 proxy-connection",
            &get("Proxy-Connection: keep-alive\r\n"),
            get_seen().without("proxy-connection"),
        ),
        passes("9110-10.1.4 te", &get("TE: gzip, trailers\r\n"), get_seen().with("te", "trailers")),
        passes("9110-10.1.4 te-without-trailers", &get("TE: gzip\r\n"), get_seen().without("te")),
        passes(
            "9110-7.8 upgrade-to-anything-else",
            &get(
                "Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABkAAQAAP__\r\n",
            ),
            get_seen().without("upgrade"),
        ),
    ]
}
