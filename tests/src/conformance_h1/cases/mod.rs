//! The cases, by what they are about.

use super::case::Case;

mod answers;
mod chunks;
mod desync;
mod desync_coding;
mod exchange;
mod fields;
mod length;
mod request_line;

/// What begins most requests.
const HOST: &str = "Host: a.example\r\n";
/// A request that must never arrive.
const SMUGGLED: &str = "GET /TAG/smuggled HTTP/1.1\r\nHost: a.example\r\n\r\n";

/// All of them, in the order of their sections.
pub(super) fn cases() -> Vec<Case> {
    [
        request_line::cases(),
        fields::cases(),
        length::cases(),
        chunks::cases(),
        exchange::cases(),
        answers::cases(),
        desync_coding::cases(),
        desync::cases(),
    ]
    .concat()
}

/// A GET with these further lines.
fn get(lines: &str) -> Vec<u8> {
    format!("GET /TAG HTTP/1.1\r\n{HOST}{lines}\r\n").into_bytes()
}

/// A POST with these further lines, and what follows its head.
fn post(lines: &str, body: &str) -> Vec<u8> {
    format!("POST /TAG HTTP/1.1\r\n{HOST}{lines}\r\n{body}").into_bytes()
}

/// A POST with a chunked body.
fn chunked(body: &str) -> Vec<u8> {
    post("Transfer-Encoding: chunked\r\n", body)
}
