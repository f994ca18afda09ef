//! RFC 9110, 7.8, 9, 10.1.1, 15.5.9: expectations, methods, upgrades, and clients that are slow.

use super::super::case::{After, Case, Step, answered_to, breaks, passes, refused, seen};
use super::super::upstream::Kind;
use super::{HOST, SMUGGLED, get, post};

const WEBSOCKET: &str = "Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n\
                         Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n";
/// No HTTP at all.
const FRAMES: &[u8] = b"\x81\x03\n\0\r\n GET  / HTTP/9.9\r\nContent-Length: x\r\n\r\n";

pub(super) fn cases() -> Vec<Case> {
    let five = || seen("POST", "/TAG", b"abcde").without("expect");
    let expect = "Expect: 100-continue\r\nContent-Length: 5\r\n";
    let head = format!("HEAD /TAG HTTP/1.1\r\n{HOST}\r\n");
    let upgrade = get(WEBSOCKET);
    let tunnel = |name: &'static str, sent: &[u8]| {
        passes(name, sent, seen("GET", "/TAG", b"")).at(Kind::Node).then(After::Tunnel)
    };
    let becomes_tunnel = |mut case: Case| {
        case.answers.clear();
        case.answer(101)
    };
    vec![
        passes("9110-10.1.1 continue", &post(expect, ""), five())
            .step(Step::Interim(100))
            .step(Step::Send(b"abcde".to_vec()))
            .interim(100),
        passes("9110-10.1.1 continue-not-waited-for", &post(expect, "abcde"), five()).interim(100),
        passes("9110-10.1.1 continue-in-any-case", &post("Expect: 100-Continue\r\nContent-Length: 5\r\n", ""), five())
            .step(Step::Interim(100))
            .step(Step::Send(b"abcde".to_vec()))
            .interim(100),
        passes("9110-10.1.1 continue-without-content", &get("Expect: 100-continue\r\n"), seen("GET", "/TAG", b"")),
        passes(
            "9110-10.1.1 continue-in-http-1.0",
            format!("POST /TAG HTTP/1.0\r\n{HOST}{expect}\r\nabcde").as_bytes(),
            five(),
        )
        .then(After::Closed),
        refused("9110-10.1.1 other-expectation", 417, &post("Expect: 200-ok\r\nContent-Length: 5\r\n", "")),
        refused("9110-10.1.1 no-continue-for-what-is-refused", 400, &post(&format!("X : y\r\n{expect}"), "")),
        passes("9110-9.3.2 head", head.as_bytes(), seen("HEAD", "/TAG", b"")).asked_by_head(),
        passes("9110-9.3.2 head-and-get-pipelined", &[head.as_bytes(), &get("")].concat(), seen("HEAD", "/TAG", b""))
            .asked_by_head()
            .answer(200)
            .and_seen(seen("GET", "/TAG", b"")),
        passes(
            "9110-9.3.7 options",
            format!("OPTIONS /TAG HTTP/1.1\r\n{HOST}\r\n").as_bytes(),
            seen("OPTIONS", "/TAG", b""),
        ),
        passes("9110-9.3.5 delete", format!("DELETE /TAG HTTP/1.1\r\n{HOST}\r\n").as_bytes(), seen("DELETE", "/TAG", b"")),
        refused("9110-15.5.9 slow-request-line", 408, b"GET /TAG HT"),
        refused("9110-15.5.9 slow-field", 408, b"GET /TAG HTTP/1.1\r\nHost: a.exam"),
        breaks("9110-15.5.9 slow-body", &post("Content-Length: 5\r\n", "abc")).with_status(408),
        breaks("9110-15.5.9 slow-chunk", &post("Transfer-Encoding: chunked\r\n", "5\r\nabc")).with_status(408),
        becomes_tunnel(tunnel("9110-7.8 tunnel-is-not-read", &upgrade))
            .step(Step::Answer)
            .step(Step::Send(FRAMES.to_vec()))
            .step(Step::Echo(FRAMES.to_vec())),
        becomes_tunnel(tunnel("9110-7.8 tunnel-with-bytes-behind-the-head", &[&upgrade, FRAMES].concat()))
            .step(Step::Answer)
            .step(Step::Echo(FRAMES.to_vec())),
        answered_to(
            "9110-7.8 refused-upgrade",
            426,
            &format!("GET /TAG HTTP/1.1\r\n{HOST}{WEBSOCKET}"),
            "HTTP/1.1 426 Upgrade Required\r\nContent-Length: 2\r\n\r\nno",
            seen("GET", "/TAG", b""),
        ),
        answered_to(
            "desync upgrade refused-with-a-request-behind-it",
            426,
            &format!("GET /TAG HTTP/1.1\r\n{HOST}{WEBSOCKET}"),
            "HTTP/1.1 426 Upgrade Required\r\nContent-Length: 2\r\n\r\nno",
            seen("GET", "/TAG", b""),
        )
        .continued(SMUGGLED.as_bytes())
        .then(After::Closed),
        passes(
            "desync upgrade h2c-with-a-request-behind-it",
            &[get("Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABkAAQAAP__\r\n"),
              SMUGGLED.as_bytes().to_vec()].concat(),
            seen("GET", "/TAG", b""),
        )
        .then(After::Closed),
        refused(
            "desync connect with-a-request-behind-it",
            400,
            format!("CONNECT a.example:80 HTTP/1.1\r\nHost: a.example:80\r\n\r\n{SMUGGLED}").as_bytes(),
        ),
    ]
}
