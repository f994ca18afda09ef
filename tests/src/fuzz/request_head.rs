//! A client's bytes under the guard: no cut changes its verdict, and what it lets through is framed beyond doubt. What hyper makes
//! of the same bytes is compared beside the guard itself, in `proxy/src/head_guard/tests`.

use shardgate_proxy::head_guard::{HeadGuard, HeadRules, HostRule, Scanned, Violation};

/// One byte of circumstances (how Host is looked at, and the length of the pieces), then what the client sends.
pub fn request_head(data: &[u8]) {
    let Some((&circumstances, bytes)) = data.split_first() else { return };
    let hosts = if circumstances & 1 == 0 { HostRule::Strict } else { HostRule::AsHaproxy };
    let rules = HeadRules { head_bytes_max: 1024, headers_max: 8, hosts };
    let whole = verdict(rules, bytes, bytes.len().max(1));
    for piece in [1, usize::from(circumstances >> 1).max(2)] {
        assert_eq!(verdict(rules, bytes, piece), whole, "cut into pieces of {piece}");
    }
    let passed = match HeadGuard::new(rules).scan(bytes) {
        Scanned::Passed => bytes,
        Scanned::Upgrade { end } => &bytes[..end],
        Scanned::Refused { keep, violation } => {
            assert!(violation.status().is_client_error() || violation.status().is_server_error());
            &bytes[..keep]
        }
        Scanned::Broken { keep, .. } => &bytes[..keep],
    };
    for message in messages(rules, passed) {
        check(message, hosts);
    }
}

/// What the guard says in the end, and behind which bytes it is between two messages for the last time.
#[derive(Debug, PartialEq, Eq)]
enum Verdict {
    Passed,
    Upgrade(usize),
    Refused(Violation),
    Broken(Violation),
}

fn verdict(rules: HeadRules, bytes: &[u8], piece: usize) -> Verdict {
    let mut guard = HeadGuard::new(rules);
    for (number, bytes) in bytes.chunks(piece).enumerate() {
        match guard.scan(bytes) {
            Scanned::Passed => {}
            Scanned::Upgrade { end } => return Verdict::Upgrade(number * piece + end),
            Scanned::Refused { violation, .. } => return Verdict::Refused(violation),
            Scanned::Broken { violation, .. } => return Verdict::Broken(violation),
        }
    }
    Verdict::Passed
}

/// The whole messages.
fn messages(rules: HeadRules, passed: &[u8]) -> Vec<&[u8]> {
    let mut guard = HeadGuard::new(rules);
    let (mut messages, mut begin) = (Vec::new(), 0);
    for at in 0..passed.len() {
        let scanned = guard.scan(&passed[at..=at]);
        assert!(matches!(scanned, Scanned::Passed | Scanned::Upgrade { .. }), "what passed is refused");
        if guard.is_between_messages() {
            messages.push(&passed[begin..=at]);
            begin = at + 1;
        }
    }
    messages
}

/// One whole message, read as plainly as it can be.
fn check(message: &[u8], hosts: HostRule) {
    let begin =
        message.iter().position(|byte| !b"\r\n".contains(byte)).expect("a message has a request line");
    let message = &message[begin..];
    let end = position(message, b"\r\n\r\n").expect("a head has an end");
    let (head, body) = (&message[..end], &message[end + 4..]);
    let lines: Vec<&[u8]> = split(head, b"\r\n");
    assert!(head.len() < 1024 && lines.len() <= 9, "the head is as small as the rules say");
    assert!(lines.iter().all(|line| !line.iter().any(|byte| matches!(byte, b'\r' | b'\n' | 0))));
    let words: Vec<&[u8]> = split(lines[0], b" ");
    assert_eq!(words.len(), 3, "three words");
    assert!(words[2] == b"HTTP/1.0" || words[2] == b"HTTP/1.1", "a version of HTTP/1");
    let values = |name: &str| -> Vec<String> {
        let fields = lines[1..].iter().map(|line| String::from_utf8_lossy(line).into_owned());
        fields
            .filter_map(|line| {
                let (other, value) = line.split_once(':').expect("a field has a colon");
                assert!(
                    !other.is_empty() && !other.ends_with([' ', '\t']) && !other.starts_with([' ', '\t'])
                );
                other.eq_ignore_ascii_case(name).then(|| value.trim_matches([' ', '\t']).to_owned())
            })
            .collect()
    };
    let (lengths, codings) = (values("content-length"), values("transfer-encoding"));
    match (&lengths[..], &codings[..]) {
        ([], []) => assert!(body.is_empty(), "a body that nothing announces"),
        ([length], []) => assert_eq!(length.parse(), Ok(body.len()), "the length is the body's"),
        ([], [coding]) => {
            assert!(coding.eq_ignore_ascii_case("chunked") && words[2] == b"HTTP/1.1");
            check_chunks(body);
        }
        _ => panic!("{lengths:?} and {codings:?}"),
    }
    if hosts == HostRule::Strict {
        let hosts = values("host").len();
        assert!(hosts == 1 || hosts == 0 && words[2] == b"HTTP/1.0", "{hosts} hosts");
    }
}

fn check_chunks(mut rest: &[u8]) {
    loop {
        let end = position(rest, b"\r\n").expect("a chunk's line ends");
        let line = std::str::from_utf8(split(&rest[..end], b";")[0]).expect("a size is ASCII");
        let size = usize::from_str_radix(line, 16).expect("a size is a number");
        rest = &rest[end + 2..];
        if size == 0 {
            break;
        }
        assert_eq!(&rest[size..size + 2], b"\r\n", "a chunk ends where its size says");
        rest = &rest[size + 2..];
    }
    assert!(rest == b"\r\n" || rest.ends_with(b"\r\n\r\n"), "trailers end");
}

fn position(bytes: &[u8], part: &[u8]) -> Option<usize> {
    bytes.windows(part.len()).position(|window| window == part)
}

fn split<'b>(bytes: &'b [u8], by: &[u8]) -> Vec<&'b [u8]> {
    let (mut parts, mut rest) = (Vec::new(), bytes);
    while let Some(at) = position(rest, by) {
        parts.push(&rest[..at]);
        rest = &rest[at + by.len()..];
    }
    parts.push(rest);
    parts
}
