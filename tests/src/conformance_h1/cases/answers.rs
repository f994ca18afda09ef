//! RFC 9112, 4 and 6.3; RFC 9110, 8.6, 15: answers of a shard, as bytes that Node writes.

use super::super::case::{After, Case, answered, answered_to, seen};
use super::HOST;

const EARLY: &str = "HTTP/1.1 103 Early Hints\r\nLink: </x>; rel=preload\r\n\r\n";
const OK: &str = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";

pub(super) fn cases() -> Vec<Case> {
    let get = format!("GET /TAG HTTP/1.1\r\n{HOST}");
    let head = format!("HEAD /TAG HTTP/1.1\r\n{HOST}");
    let get_seen = || seen("GET", "/TAG", b"");
    let head_seen = || seen("HEAD", "/TAG", b"");
    let to_get =
        |name: &'static str, status: u16, raw: &str| answered_to(name, status, &get, raw, get_seen());
    vec![
        answered("9112-6.3 answer-with-length-and-coding", 502,
            "HTTP/1.1 200 OK\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n"),
        answered("9112-6.3 answer-with-two-lengths", 502,
            "HTTP/1.1 200 OK\r\nContent-Length: 3\r\nContent-Length: 4\r\n\r\nabcd"),
        answered("9112-6.3 answer-with-list-of-lengths", 502, "HTTP/1.1 200 OK\r\nContent-Length: 3, 4\r\n\r\nabcd"),
        answered("9110-8.6 answer-with-signed-length", 502, "HTTP/1.1 200 OK\r\nContent-Length: +3\r\n\r\nabc"),
        answered("9112-6.1 answer-chunked-in-http-1.0", 502,
            "HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n"),
        answered("9112-4 answer-without-status", 502, "HTTP/1.1 OK\r\nContent-Length: 0\r\n\r\n"),
        answered("9112-4 answer-that-is-no-http", 502, "SSH-2.0-OpenSSH_9.2\r\n"),
        // Not repeated, as a GET would be on another connection.
        answered_to(
            "9112-4 answer-that-breaks-off",
            502,
            &format!("POST /TAG HTTP/1.1\r\n{HOST}X-Answer-Close: 1\r\n"),
            "HTTP/1.1 ",
            seen("POST", "/TAG", b""),
        ),
        answered("9112-5.1 answer-with-space-before-colon", 502, "HTTP/1.1 200 OK\r\nContent-Length : 2\r\n\r\nok"),
        answered("9112-5.2 answer-with-folded-field", 502, "HTTP/1.1 200 OK\r\nX: y\r\n z\r\nContent-Length: 2\r\n\r\nok"),
        answered("9110-5.5 answer-with-nul", 502, "HTTP/1.1 200 OK\r\nX: a\0b\r\nContent-Length: 2\r\n\r\nok"),
        answered("9112-2.2 answer-with-lone-cr", 502, "HTTP/1.1 200 OK\r\nX: a\rb\r\nContent-Length: 2\r\n\r\nok"),
        answered("9110-15.2.2 answer-101-unasked", 502,
            "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n"),
        answered("9112-6.3 answer-delimited-by-close", 200, "HTTP/1.1 200 OK\r\n\r\nabc").body(b"abc"),
        answered("9112-6.3 answer-of-http-1.0", 200, "HTTP/1.0 200 OK\r\n\r\nabc").body(b"abc"),
        answered("9112-7.1 answer-chunked", 200,
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3;x\r\nabc\r\n0\r\n\r\n").body(b"abc"),
        answered("9110-7.6.1 answer-with-fields-of-its-connection", 200,
            "HTTP/1.1 200 OK\r\nConnection: close, X-Private\r\nX-Private: 1\r\nKeep-Alive: timeout=5\r\nContent-Length: 2\r\n\r\nok")
            .no_line("x-private").no_line("keep-alive").body(b"ok"),
        answered_to("9112-6.3 answer-delimited-by-close-to-http-1.0", 200,
            &format!("GET /TAG HTTP/1.0\r\n{HOST}X-Answer-Close: 1\r\n"), "HTTP/1.1 200 OK\r\n\r\nabc", get_seen())
            .no_line("transfer-encoding").body(b"abc").then(After::Closed),
        answered_to("9112-7.1 answer-chunked-to-http-1.0", 200, &format!("GET /TAG HTTP/1.0\r\n{HOST}"),
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n", get_seen())
            .no_line("transfer-encoding").body(b"abc").then(After::Closed),
        answered_to("9112-7.1.2 answer-with-trailers", 200, &format!("{get}TE: trailers\r\n"),
            "HTTP/1.1 200 OK\r\nTrailer: X-Sum\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\nX-Sum: 6\r\n\r\n",
            get_seen()).body(b"abc").trailer("x-sum", "6"),
        to_get("9110-15.3.5 answer-204-with-content", 204, "HTTP/1.1 204 No Content\r\nContent-Length: 3\r\n\r\nabc"),
        to_get("9110-15.3.5 answer-204-with-chunks", 204,
            "HTTP/1.1 204 No Content\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n").no_line("transfer-encoding"),
        to_get("9110-15.4.5 answer-304-with-content", 304, "HTTP/1.1 304 Not Modified\r\nContent-Length: 3\r\n\r\nabc"),
        answered_to("9110-9.3.2 answer-to-head-with-content", 200, &head,
            "HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nabc", head_seen()).asked_by_head().line("content-length", "3"),
        answered_to("9110-9.3.2 answer-to-head-with-chunks", 200, &head,
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n", head_seen()).asked_by_head(),
        to_get("9110-15.2 interim-answer-is-passed-on", 200, &format!("{EARLY}{OK}")).interim(103).body(b"ok"),
        to_get("9110-15.2 several-interim-answers", 200, &format!("HTTP/1.1 102 Processing\r\n\r\n{EARLY}{EARLY}{OK}"))
            .interim(102).interim(103).interim(103).body(b"ok"),
        answered_to("9110-15.2 no-interim-answer-to-http-1.0", 200, &format!("GET /TAG HTTP/1.0\r\n{HOST}"),
            &format!("{EARLY}{OK}"), get_seen()).body(b"ok").then(After::Closed),
        to_get("9110-15.2.1 continue-unasked", 200, &format!("HTTP/1.1 100 Continue\r\n\r\n{OK}")).body(b"ok"),
        to_get("desync answers bytes-behind-an-answer", 200,
            &format!("{OK}HTTP/1.1 200 OK\r\nX-Saw: /nobody\r\nContent-Length: 4\r\n\r\nevil")).body(b"ok"),
        answered_to("desync answers bytes-behind-an-answer-to-head", 200, &head,
            "HTTP/1.1 200 OK\r\nContent-Length: 60\r\n\r\nHTTP/1.1 200 OK\r\nX-Saw: /nobody\r\nContent-Length: 4\r\n\r\nevil",
            head_seen()).asked_by_head(),
    ]
}
