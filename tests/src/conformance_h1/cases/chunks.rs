//! RFC 9112, 6.1 and 7.1: transfer codings, chunks, trailers.

use super::super::case::{Case, breaks, passes, refused, seen};
use super::{chunked, get, post};

pub(super) fn cases() -> Vec<Case> {
    let three = || seen("POST", "/TAG", b"abc");
    let with = |coding: &str| post(&format!("Transfer-Encoding: {coding}\r\n"), "3\r\nabc\r\n0\r\n\r\n");
    let trailers = "Transfer-Encoding: chunked\r\nTrailer: X-Sum\r\nTE: trailers\r\n";
    vec![
        passes("9112-7.1 chunked", &chunked("3\r\nabc\r\n0\r\n\r\n"), three()),
        passes("9112-7.1 chunked-in-any-case", &with("CHUNKED"), three()),
        passes("9112-7.1 empty", &chunked("0\r\n\r\n"), seen("POST", "/TAG", b"")),
        passes("9112-7.1 many-chunks", &chunked("1\r\na\r\n01\r\nb\r\n000001\r\nc\r\n000\r\n\r\n"), three()),
        passes("9112-7.1 size-in-either-case", &chunked("a\r\n0123456789\r\nA\r\n0123456789\r\n0\r\n\r\n"),
            seen("POST", "/TAG", b"01234567890123456789")),
        passes("9112-7.1 get", &get("Transfer-Encoding: chunked\r\n"), seen("GET", "/TAG", b"")).continued(b"0\r\n\r\n"),
        passes("9112-7.1.1 extensions", &chunked("3;x;y=z;w=\"q\"\r\nabc\r\n0;last\r\n\r\n"), three()),
        passes("9112-7.1.2 trailers", &post(trailers, "3\r\nabc\r\n0\r\nX-Sum: 6\r\n\r\n"), three().trailer("x-sum", "6")),
        breaks("9112-7.1 size-is-no-number", &chunked("g\r\nabc\r\n0\r\n\r\n")),
        breaks("9112-7.1 size-is-missing", &chunked("\r\nabc\r\n0\r\n\r\n")),
        breaks("9112-7.1 size-with-0x", &chunked("0x3\r\nabc\r\n0\r\n\r\n")),
        breaks("9112-7.1 size-with-sign", &chunked("+3\r\nabc\r\n0\r\n\r\n")),
        breaks("9112-7.1 negative-size", &chunked("-3\r\nabc\r\n0\r\n\r\n")),
        breaks("9112-7.1 space-before-size", &chunked(" 3\r\nabc\r\n0\r\n\r\n")),
        breaks("9112-7.1 space-behind-size", &chunked("3 \r\nabc\r\n0\r\n\r\n")),
        breaks("9112-7.1 size-of-64-bits-and-more", &chunked("10000000000000003\r\nabc\r\n0\r\n\r\n")),
        breaks("9112-7.1 size-of-32-bits-and-more", &chunked("10000000000000000000000003\r\nabc\r\n0\r\n\r\n")),
        breaks("9112-7.1 data-longer-than-size", &chunked("3\r\nabcd\r\n0\r\n\r\n")),
        breaks("9112-7.1 data-without-end", &chunked("3\r\nabc0\r\n\r\n")),
        breaks("9112-7.1 lone-lf-behind-size", &chunked("3\nabc\r\n0\r\n\r\n")),
        breaks("9112-7.1 lone-lf-behind-data", &chunked("3\r\nabc\n0\r\n\r\n")),
        breaks("9112-7.1 lone-lf-behind-last-chunk", &chunked("3\r\nabc\r\n0\n\r\n")),
        breaks("9112-7.1 lone-lf-ends-body", &chunked("3\r\nabc\r\n0\r\n\n")),
        breaks("9112-7.1.1 lf-in-extension", &chunked("3;a\nb\r\nabc\r\n0\r\n\r\n")),
        breaks("9112-7.1.1 cr-in-extension", &chunked("3;a\rb\r\nabc\r\n0\r\n\r\n")),
        breaks("9112-7.1.1 nul-in-extension", &chunked("3;a\0b\r\nabc\r\n0\r\n\r\n")),
        breaks("9112-7.1.1 endless-extensions", &chunked(&format!("3;{}\r\nabc\r\n0\r\n\r\n", "x".repeat(20_000)))),
        breaks("9112-7.1.2 folded-trailer", &post(trailers, "3\r\nabc\r\n0\r\nX-Sum: 6\r\n 7\r\n\r\n")),
        breaks("9112-7.1.2 lone-lf-behind-trailer", &post(trailers, "3\r\nabc\r\n0\r\nX-Sum: 6\n\r\n")),
        breaks("9112-7.1.2 space-before-colon-in-trailer", &post(trailers, "3\r\nabc\r\n0\r\nX-Sum : 6\r\n\r\n")),
        breaks("9110-6.5.1 content-length-as-trailer", &post(trailers, "3\r\nabc\r\n0\r\nContent-Length: 6\r\n\r\n")),
        breaks("9110-6.5.1 host-as-trailer", &post(trailers, "3\r\nabc\r\n0\r\nHost: b.example\r\n\r\n")),
        refused("9112-6.1 coding-before-chunked", 501, &with("gzip, chunked")),
        refused("9112-6.1 chunked-is-not-last", 400, &with("chunked, gzip")),
        refused("9112-6.1 chunked-twice", 400, &with("chunked, chunked")),
        refused("9112-6.1 chunked-in-two-lines", 400, &with("chunked\r\nTransfer-Encoding: chunked")),
        refused("9112-6.1 no-chunked", 400, &with("gzip")),
        refused("9112-6.1 identity", 400, &with("identity")),
        refused("9112-6.1 empty", 400, &with("")),
        refused("9112-6.1 parameters", 400, &with("chunked;q=1")),
        refused("9112-6.1 chunked-in-http-1.0", 400,
            b"POST /TAG HTTP/1.0\r\nHost: a.example\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n"),
        refused("9112-6.1 content-length-and-transfer-encoding", 400,
            &post("Content-Length: 13\r\nTransfer-Encoding: chunked\r\n", "3\r\nabc\r\n0\r\n\r\n")),
        refused("9112-6.1 transfer-encoding-and-content-length", 400,
            &post("Transfer-Encoding: chunked\r\nContent-Length: 13\r\n", "3\r\nabc\r\n0\r\n\r\n")),
    ]
}
