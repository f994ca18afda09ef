//! RFC 9110, 8.6; RFC 9112, 6.3 and 9: bodies of a length, and what a connection goes on with.

use super::super::case::{After, Case, Step, breaks, passes, refused, seen};
use super::{HOST, SMUGGLED, get, post};

pub(super) fn cases() -> Vec<Case> {
    let length = |value: &str| post(&format!("Content-Length: {value}\r\n"), "abcde");
    let five = || seen("POST", "/TAG", b"abcde");
    let old = |lines: &str| format!("GET /TAG HTTP/1.0\r\n{HOST}{lines}\r\n").into_bytes();
    let get_seen = || seen("GET", "/TAG", b"");
    let two =
        [get(""), format!("POST /TAG/2 HTTP/1.1\r\n{HOST}Content-Length: 2\r\n\r\nab").into_bytes()].concat();
    vec![
        passes("9110-8.6 content-length", &length("5"), five().with("content-length", "5")),
        passes(
            "9110-8.6 content-length-of-nothing",
            &post("Content-Length: 0\r\n", ""),
            seen("POST", "/TAG", b""),
        ),
        passes("9112-6.3 post-without-length", &post("", ""), seen("POST", "/TAG", b"")),
        passes(
            "9110-9.3.1 get-with-content",
            format!("GET /TAG HTTP/1.1\r\n{HOST}Content-Length: 5\r\n\r\nabcde").as_bytes(),
            seen("GET", "/TAG", b"abcde"),
        ),
        passes("9110-8.6 leading-zeros", &length("005"), five()),
        refused("9110-8.6 plus-sign", 400, &length("+5")),
        refused("9110-8.6 minus-sign", 400, &length("-5")),
        refused("9110-8.6 hexadecimal", 400, &length("0x5")),
        refused("9110-8.6 two-numbers", 400, &length("5 5")),
        refused("9110-8.6 fraction", 400, &length("5.0")),
        refused("9110-8.6 exponent", 400, &length("5e0")),
        refused("9110-8.6 empty", 400, &length("")),
        refused("9110-8.6 overflow-of-64-bits", 400, &length("18446744073709551621")),
        refused("9110-8.6 overflow-of-63-bits", 400, &length("9223372036854775813")),
        refused("9110-8.6 underscores", 400, &length("5_0")),
        refused("9112-6.3 list-of-equal-lengths", 400, &length("5, 5")),
        refused("9112-6.3 list-of-other-lengths", 400, &length("5, 6")),
        refused("9112-6.3 the-same-length-twice", 400, &length("5\r\nContent-Length: 5")),
        refused("9112-6.3 two-lengths", 400, &length("5\r\nContent-Length: 6")),
        breaks("9112-8 body-shorter-than-its-length", &post("Content-Length: 9\r\n", "abc"))
            .step(Step::Finish),
        passes("9112-9.3.2 pipelined", &two, get_seen()).answer(200).and_seen(seen("POST", "/TAG/2", b"ab")),
        passes("9112-9.3.2 invalid-behind-valid", &[get(""), get("X : y\r\n")].concat(), get_seen())
            .answer(400)
            .then(After::Closed),
        passes("9112-9.3.2 lone-lf-behind-a-body", &[length("5"), b"\nGET ".to_vec()].concat(), five())
            .answer(400)
            .then(After::Closed),
        passes("9112-9.3 http-1.0-closes", &old(""), get_seen()).then(After::Closed),
        passes("9112-9.3 http-1.0-keep-alive", &old("Connection: keep-alive\r\n"), get_seen())
            .line("connection", "keep-alive"),
        passes("9112-9.6 close", &get("Connection: close\r\n"), get_seen()).then(After::Closed),
        passes(
            "9112-9.6 nothing-is-read-behind-close",
            &[get("Connection: close\r\n"), SMUGGLED.as_bytes().to_vec()].concat(),
            get_seen(),
        )
        .then(After::Closed),
    ]
}
