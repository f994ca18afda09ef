//! Request smuggling by transfer codings: CL.TE, TE.CL, and TE.TE with the known ways to hide one (PortSwigger, "HTTP Desync
//! Attacks", and the lists of HTTP Request Smuggler).

use super::super::case::{Case, passes, refused, seen};
use super::{HOST, SMUGGLED};

/// A coding, hidden in one way, beside a length.
struct Hidden {
    name: &'static str,
    lines: &'static [u8],
    status: u16,
}

const fn hidden(name: &'static str, status: u16, lines: &'static [u8]) -> Hidden {
    Hidden { name, lines, status }
}

const HIDDEN: &[Hidden] = &[
    hidden("desync CL.TE", 400, b"Transfer-Encoding: chunked"),
    hidden("desync TE.TE x-before-the-value", 400, b"Transfer-Encoding: xchunked"),
    hidden("desync TE.TE part-of-the-value", 400, b"Transfer-Encoding: chunk"),
    hidden("desync TE.TE space-before-colon", 400, b"Transfer-Encoding : chunked"),
    hidden("desync TE.TE tab-before-colon", 400, b"Transfer-Encoding\t: chunked"),
    hidden("desync TE.TE tab-behind-colon", 400, b"Transfer-Encoding:\tchunked"),
    hidden("desync TE.TE nothing-behind-colon", 400, b"Transfer-Encoding:chunked"),
    hidden("desync TE.TE space-behind-value", 400, b"Transfer-Encoding: chunked "),
    hidden("desync TE.TE tab-behind-value", 400, b"Transfer-Encoding: chunked\t"),
    hidden("desync TE.TE space-before-name", 400, b" Transfer-Encoding: chunked"),
    hidden("desync TE.TE tab-before-name", 400, b"\tTransfer-Encoding: chunked"),
    hidden("desync TE.TE vertical-tab-before-value", 400, b"Transfer-Encoding:\x0bchunked"),
    hidden("desync TE.TE form-feed-before-value", 400, b"Transfer-Encoding:\x0cchunked"),
    hidden("desync TE.TE vertical-tab-behind-value", 400, b"Transfer-Encoding: chunked\x0b"),
    hidden("desync TE.TE no-break-space", 400, b"Transfer-Encoding:\xa0chunked"),
    hidden("desync TE.TE byte-above-ascii", 400, b"Transfer-Encoding:\xffchunked"),
    hidden("desync TE.TE nul-in-name", 400, b"Transfer-Encoding\0: chunked"),
    hidden("desync TE.TE nul-in-value", 400, b"Transfer-Encoding: chunked\0"),
    hidden("desync TE.TE nul-before-value", 400, b"Transfer-Encoding: \0chunked"),
    hidden("desync TE.TE lf-before-name", 400, b"X: y\nTransfer-Encoding: chunked"),
    hidden("desync TE.TE cr-before-name", 400, b"X: y\rTransfer-Encoding: chunked"),
    hidden("desync TE.TE cr-at-the-lines-begin", 400, b"X: y\r\n\rTransfer-Encoding: chunked"),
    hidden("desync TE.TE lf-behind-name", 400, b"Transfer-Encoding\n: chunked"),
    hidden("desync TE.TE folded-before-colon", 400, b"Transfer-Encoding\r\n : chunked"),
    hidden("desync TE.TE folded-value", 400, b"Transfer-Encoding:\r\n chunked"),
    hidden("desync TE.TE folded-with-lf", 400, b"Transfer-Encoding:\n chunked"),
    hidden("desync TE.TE folded-into-another-field", 400, b"X: y\r\n\tTransfer-Encoding: chunked"),
    hidden("desync TE.TE in-quotes", 400, b"Transfer-Encoding: \"chunked\""),
    hidden("desync TE.TE in-single-quotes", 400, b"Transfer-Encoding: 'chunked'"),
    hidden("desync TE.TE identity-behind-it", 400, b"Transfer-Encoding: chunked, identity"),
    hidden("desync TE.TE identity-before-it", 501, b"Transfer-Encoding: identity, chunked"),
    hidden("desync TE.TE unknown-before-it", 400, b"Transfer-Encoding: cow, chunked"),
    hidden("desync TE.TE comma-before-it", 400, b"Transfer-Encoding: , chunked"),
    hidden("desync TE.TE comma-behind-it", 400, b"Transfer-Encoding: chunked,"),
    hidden("desync TE.TE semicolon-behind-it", 400, b"Transfer-Encoding: chunked;"),
    hidden(
        "desync TE.TE line-of-another-before-it",
        400,
        b"Transfer-Encoding: cow\r\nTransfer-Encoding: chunked",
    ),
    hidden(
        "desync TE.TE line-of-another-behind-it",
        400,
        b"Transfer-Encoding: chunked\r\nTransfer-encoding: cow",
    ),
    hidden(
        "desync TE.TE line-of-identity-behind-it",
        400,
        b"Transfer-Encoding: chunked\r\nTransfer-Encoding: identity",
    ),
    hidden("desync TE.TE two-lines", 400, b"Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked"),
    hidden("desync TE.TE empty-line-of-it", 400, b"Transfer-Encoding:\r\nTransfer-Encoding: chunked"),
    hidden("desync TE.TE backslash", 400, b"Transfer\\Encoding: chunked"),
    hidden("desync TE.TE space-in-name", 400, b"Transfer Encoding: chunked"),
    hidden("desync TE.TE two-colons", 400, b"Transfer-Encoding:: chunked"),
    hidden("desync TE.TE space-between-colons", 400, b"Transfer-Encoding: : chunked"),
    hidden("desync TE.TE upper-case", 400, b"TRANSFER-ENCODING: CHUNKED"),
    hidden("desync TE.TE name-as-first-word", 400, b"Transfer-Encoding chunked"),
    hidden("desync TE.TE dotless-i", 400, "Transfer-Encod\u{131}ng: chunked".as_bytes()),
    hidden("desync TE.TE kelvin-sign", 400, "Transfer-Encoding: chun\u{212a}ed".as_bytes()),
];

pub(super) fn cases() -> Vec<Case> {
    let mut cases: Vec<Case> = HIDDEN
        .iter()
        .map(|Hidden { name, lines, status }| {
            let body = format!("0\r\n\r\n{SMUGGLED}");
            let head = format!("POST /TAG HTTP/1.1\r\n{HOST}Content-Length: {}\r\n", body.len());
            refused(name, *status, &[head.as_bytes(), lines, b"\r\n\r\n", body.as_bytes()].concat())
        })
        .collect();
    let in_chunk = format!("{:x}\r\n{SMUGGLED}\r\n0\r\n\r\n", SMUGGLED.len());
    let with = |lines: &str| format!("POST /TAG HTTP/1.1\r\n{HOST}{lines}\r\n{in_chunk}").into_bytes();
    let underscored = format!("0\r\n\r\n{SMUGGLED}");
    let underscored = format!(
        "POST /TAG HTTP/1.1\r\n{HOST}Transfer_Encoding: chunked\r\nContent-Length: {}\r\n\r\n{underscored}",
        underscored.len()
    );
    cases.extend([
        refused("desync TE.CL", 400, &with("Content-Length: 4\r\nTransfer-Encoding: chunked\r\n")),
        refused(
            "desync TE.CL coding-first",
            400,
            &with("Transfer-Encoding: chunked\r\nContent-Length: 4\r\n"),
        ),
        refused(
            "desync TE.CL length-of-nothing",
            400,
            &with("Transfer-Encoding: chunked\r\nContent-Length: 0\r\n"),
        ),
        refused(
            "desync TE.CL http-1.0",
            400,
            &with_version("1.0", "Transfer-Encoding: chunked\r\n", &in_chunk),
        ),
        // Another field altogether: the length counts, and what looks like the end is content.
        passes(
            "desync TE.TE underscore",
            underscored.as_bytes(),
            seen("POST", "/TAG", b"0\r\n\r\nGET /TAG/smuggled HTTP/1.1\r\nHost: a.example\r\n\r\n"),
        ),
    ]);
    cases
}

fn with_version(version: &str, lines: &str, body: &str) -> Vec<u8> {
    format!("POST /TAG HTTP/{version}\r\n{HOST}{lines}\r\n{body}").into_bytes()
}
