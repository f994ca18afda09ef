//! Rule by rule, however the bytes are cut, and against what hyper makes of the same bytes.

use super::*;
use proptest::prelude::*;
use proptest::sample::{select, subsequence};

mod against_hyper;

const RULES: HeadRules = HeadRules { head_bytes_max: 1024, headers_max: 8, hosts: HostRule::Strict };

fn scanned(bytes: &[u8]) -> Scanned {
    HeadGuard::new(RULES).scan(bytes)
}

/// The same with cuts behind each of `cuts` bytes, as one verdict about all of it.
fn scanned_in_pieces(bytes: &[u8], cuts: &[usize]) -> Scanned {
    let mut guard = HeadGuard::new(RULES);
    let (mut from, mut refused_from) = (0, 0);
    for to in cuts.iter().copied().chain([bytes.len()]) {
        let piece = &bytes[from..to];
        match guard.scan(piece) {
            Scanned::Passed => {}
            Scanned::Upgrade { end } => return Scanned::Upgrade { end: from + end },
            Scanned::Broken { keep, violation } => return Scanned::Broken { keep: from + keep, violation },
            Scanned::Refused { keep, violation } => {
                // 0 stands for a message that began earlier, or here.
                let keep = if keep > 0 { from + keep } else { refused_from.max(begin_before(bytes, from)) };
                return Scanned::Refused { keep, violation };
            }
        }
        refused_from = refused_from.max(begin_before(bytes, to));
        from = to;
    }
    Scanned::Passed
}

/// Where the last message begins whose first byte is at or before `end`: known by scanning byte for byte.
fn begin_before(bytes: &[u8], end: usize) -> usize {
    let mut guard = HeadGuard::new(RULES);
    let mut begin = 0;
    for (at, byte) in bytes[..end].iter().enumerate() {
        match guard.scan(&[*byte]) {
            Scanned::Passed | Scanned::Upgrade { .. } if guard.is_between_messages() => begin = at + 1,
            Scanned::Passed | Scanned::Upgrade { .. } => {}
            Scanned::Refused { .. } | Scanned::Broken { .. } => break,
        }
    }
    begin
}

fn violation(scanned: Scanned) -> Option<Violation> {
    match scanned {
        Scanned::Passed | Scanned::Upgrade { .. } => None,
        Scanned::Refused { violation, .. } | Scanned::Broken { violation, .. } => Some(violation),
    }
}

#[test]
fn what_is_valid_passes() {
    for text in [
        "GET / HTTP/1.1\r\nHost: a\r\n\r\n",
        "\r\n\r\nGET / HTTP/1.1\r\nHost: a:80\r\n\r\n",
        "GET / HTTP/1.0\r\n\r\n",
        "GET http://a/?b HTTP/1.1\r\nhOST:\ta \t\r\n\r\n",
        "OPTIONS * HTTP/1.1\r\nHost:\r\n\r\n",
        "POST / HTTP/1.1\r\nHost: [::1]\r\nContent-Length: 003 \r\n\r\nabcGET / HTTP/1.1\r\nHost: a\r\n\r\n",
        "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\n\0\n\r",
        "POST / HTTP/1.1\r\nHost: a\r\ntransfer-encoding: Chunked\r\n\r\n3;x=\"y\";z\r\nabc\r\n0\r\nX: y\r\n\r\n",
        "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n00a\r\n0123456789\r\n0\r\n\r\n",
        "PUT / HTTP/1.1\r\nHost: a\r\nExpect: 100-Continue\r\nContent-Length: 1\r\n\r\nx",
        "GET / HTTP/1.1\r\nHost: a\r\nX: \u{e9}\t \"'\r\nY:\r\n\r\n",
        "POST / HTTP/1.1\r\nHost: a\r\nUpgrade: x\r\nContent-Length: 2\r\n\r\nab",
        "GET / HTTP/1.0\r\nUpgrade: x\r\n\r\n",
    ] {
        assert_eq!(scanned(text.as_bytes()), Scanned::Passed, "{text:?}");
    }
}

#[test]
fn each_rule_has_its_violation() {
    use Violation as V;
    let with = |lines: &str| format!("POST / HTTP/1.1\r\nHost: a\r\n{lines}\r\n");
    let chunked = |body: &str| with("Transfer-Encoding: chunked\r\n") + body;
    let line = |line: &str| format!("{line}\r\nHost: a\r\n\r\n");
    for (text, expected) in [
        ("\r\n\r\n\r\nGET / HTTP/1.1\r\n".to_owned(), V::EmptyLines),
        ("\nGET / HTTP/1.1\r\n".to_owned(), V::LineEnd),
        (" GET / HTTP/1.1\r\n".to_owned(), V::Method),
        (line("GET  / HTTP/1.1"), V::Target),
        (line("GET /\tx HTTP/1.1"), V::Target),
        (line("GET /#x HTTP/1.1"), V::Target),
        (line("GET /\0 HTTP/1.1"), V::Target),
        (line("GET /"), V::Target),
        (line("GET"), V::Method),
        (line("GE:T / HTTP/1.1"), V::Method),
        (line("GET /  HTTP/1.1"), V::Version),
        (line("GET / HTTP/1.1 "), V::Version),
        (line("GET / http/1.1"), V::Version),
        (line("GET / HTTP/3"), V::Version),
        (line("GET / HTTP/1.2"), V::VersionUnsupported),
        (line("PRI * HTTP/2.0"), V::VersionUnsupported),
        ("GET / HTTP/1.1\nHost: a\r\n\r\n".to_owned(), V::Version),
        (format!("GET /{} HTTP/1.1\r\n", "x".repeat(2000)), V::TargetTooLong),
        (with(&format!("X: {}\r\n", "x".repeat(2000))), V::HeadTooLarge),
        (with(&"X: y\r\n".repeat(8)), V::TooManyFields),
        (with("X: y\n"), V::LineEnd),
        (with("X: y\r"), V::LineEnd),
        (with("X: y\rZ: 1\r\n"), V::LineEnd),
        (with("X: a\0b\r\n"), V::Value),
        (with("X: a\x0bb\r\n"), V::Value),
        (with("X : y\r\n"), V::SpaceBeforeColon),
        (with("X\r\n"), V::LineEnd),
        (with(": y\r\n"), V::Name),
        (with("X(: y\r\n"), V::Name),
        (with("X\u{e9}: y\r\n"), V::Name),
        (with(" X: y\r\n"), V::Folded),
        (with("X: y\r\n z\r\n"), V::Folded),
        (with("Content-Length: +5\r\n"), V::Length),
        (with("Content-Length: 5, 5\r\n"), V::Length),
        (with("Content-Length:\r\n"), V::Length),
        (with("Content-Length: 0x5\r\n"), V::Length),
        (with("Content-Length: 5\r\nContent-Length: 5\r\n"), V::Length),
        (with("Content-Length: 9223372036854775808\r\n"), V::Length),
        (with("Content-Length: 00000000000000000000000000005\r\n"), V::Length),
        (with("Content-Length: 5\r\nTransfer-Encoding: chunked\r\n"), V::LengthAndCoding),
        (with("Transfer-Encoding: chunked\r\nContent-Length: 0\r\n"), V::LengthAndCoding),
        (with("Transfer-Encoding: gzip, chunked\r\n"), V::CodingUnsupported),
        (with("Transfer-Encoding: chunked, chunked\r\n"), V::Coding),
        (with("Transfer-Encoding: xchunked\r\n"), V::Coding),
        (with("Transfer-Encoding: chunked, identity\r\n"), V::Coding),
        (with("Transfer-Encoding: \"chunked\"\r\n"), V::Coding),
        (with("Transfer-Encoding: \x0bchunked\r\n"), V::Value),
        (with("Transfer-Encoding: chunked\r\nTransfer-Encoding: x\r\n"), V::Coding),
        (with("Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n"), V::Coding),
        ("POST / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n".to_owned(), V::Coding),
        ("GET / HTTP/1.1\r\n\r\n".to_owned(), V::HostMissing),
        (with("Host: a\r\n"), V::Host),
        ("GET / HTTP/1.1\r\nHost: a b\r\n\r\n".to_owned(), V::Host),
        ("GET / HTTP/1.0\r\nHost: u@a\r\n\r\n".to_owned(), V::Host),
        (with("Expect: 200-ok\r\n"), V::Expectation),
        (chunked("g\r\n"), V::ChunkSize),
        (chunked("\r\n"), V::ChunkSize),
        (chunked("0x5\r\nabcde\r\n"), V::ChunkSize),
        (chunked(" 5\r\n"), V::ChunkSize),
        (chunked("5 \r\n"), V::ChunkSize),
        (chunked("-5\r\n"), V::ChunkSize),
        (chunked("1000000000000000\r\n"), V::ChunkSize),
        (chunked("5\n"), V::ChunkSize),
        (chunked("5\rx"), V::LineEnd),
        (chunked("5;a\nb\r\n"), V::ChunkExtension),
        (chunked("5;\0\r\n"), V::ChunkExtension),
        (chunked(&format!("5;{}\r\n", "x".repeat(9000))), V::ChunkExtension),
        (chunked("1\r\nabc\r\n"), V::ChunkEnd),
        (chunked("1\r\na\n"), V::ChunkEnd),
        (chunked("0\r\nContent-Length: 5\r\n\r\n"), V::Trailer),
        (chunked("0\r\nX: y\r\n z\r\n"), V::Folded),
        (chunked("0\r\nX: y\n"), V::LineEnd),
        (chunked("0\r\n\n"), V::LineEnd),
        (chunked(&format!("0\r\n{}", "X: y\r\n".repeat(9))), V::TooManyFields),
    ] {
        assert_eq!(violation(scanned(text.as_bytes())), Some(expected), "{text:?}");
    }
}

#[test]
fn haproxys_hosts_are_let_through() {
    let rules = HeadRules { hosts: HostRule::AsHaproxy, ..RULES };
    for text in ["GET / HTTP/1.1\r\n\r\n", "GET / HTTP/1.1\r\nHost: a b\r\nHost: a@b\r\n\r\n"] {
        assert_eq!(HeadGuard::new(rules).scan(text.as_bytes()), Scanned::Passed, "{text:?}");
        assert_ne!(scanned(text.as_bytes()), Scanned::Passed, "{text:?}");
    }
}

#[test]
fn earlier_messages_pass() {
    let good = "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\nab";
    let text = format!("{good}GET / HTTP/1.1\r\nHost: a\r\nX : y\r\n\r\n");
    let refused = Scanned::Refused { keep: good.len(), violation: Violation::SpaceBeforeColon };
    assert_eq!(scanned(text.as_bytes()), refused);
    let upgrade = "GET / HTTP/1.1\r\nHost: a\r\nUpgrade: websocket\r\n\r\n";
    let text = format!("{good}{upgrade}\x01\x02");
    assert_eq!(scanned(text.as_bytes()), Scanned::Upgrade { end: good.len() + upgrade.len() });
}

#[test]
fn a_head_may_be_as_large_as_the_rules_say() {
    for (more, expected) in [(0, None), (1, Some(Violation::HeadTooLarge))] {
        let begin = "GET / HTTP/1.1\r\nHost: a\r\nX: ";
        let value = "x".repeat(RULES.head_bytes_max - begin.len() - 4 + more);
        let text = format!("{begin}{value}\r\n\r\n");
        assert_eq!(violation(scanned(text.as_bytes())), expected, "{more}");
    }
}

/// A part of a message, valid or not.
const PARTS: &[&str] = &[
    "GET / HTTP/1.1\r\n",
    "POST /x HTTP/1.1\r\n",
    "GET http://a/y HTTP/1.0\r\n",
    "Host: a\r\n",
    "Host: a\r\n",
    "Host: a\r\n",
    "Content-Length: 3\r\n",
    "Content-Length: 5\r\n",
    "Transfer-Encoding: chunked\r\n",
    "Transfer-Encoding: x, chunked\r\n",
    "Transfer-Encoding:\tchunked \r\n",
    "Upgrade: h2c\r\n",
    "Expect: 100-continue\r\n",
    "Connection: close\r\n",
    "Connection: keep-alive\r\n",
    "X: y\r\n",
    "X-Y: \u{e9}\t z\r\n",
    " folded\r\n",
    "X : y\r\n",
    "\r\n",
    "\r\n",
    "\r\n",
    "\r\n",
    "\n",
    "\r",
    " ",
    "abc",
    "abcde",
    "3\r\nabc\r\n",
    "5;x=y\r\nabcde\r\n",
    "0\r\n\r\n",
    "0\r\nX-Sum: 1\r\n\r\n",
    "0;\n\r\n\r\n",
    "\0",
];

/// Whole messages that are valid.
const MESSAGES: &[&str] = &[
    "GET / HTTP/1.1\r\nHost: a\r\n\r\n",
    "\r\nHEAD /h HTTP/1.1\r\nHost: a\r\nConnection: keep-alive\r\n\r\n",
    "POST /p HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nab\r\nc",
    "POST /c HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\nA;x=y\r\n0123456789\r\n0\r\n\r\n",
    "PUT /t HTTP/1.1\r\nHost: a\r\nTrailer: X\r\nTransfer-Encoding: chunked\r\n\r\n1\r\na\r\n0\r\nX: y\r\n\r\n",
    "GET /10 HTTP/1.0\r\nConnection: keep-alive\r\n\r\n",
    "PUT /e HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 2\r\n\r\nab",
];

/// Bytes that a client might send: parts in any order, or valid messages with a few bytes changed.
pub(super) fn streams() -> impl Strategy<Value = Vec<u8>> {
    let soup = prop::collection::vec(select(PARTS), 0..24).prop_map(|parts| parts.concat().into_bytes());
    let change = (any::<prop::sample::Index>(), 0..4u8, select(&b"\r\n \t:;,05aX\0\x0b\x80"[..]));
    let changed = (prop::collection::vec(select(MESSAGES), 1..5), prop::collection::vec(change, 0..3));
    let changed = changed.prop_map(|(messages, changes)| {
        let mut bytes = messages.concat().into_bytes();
        for (at, how, byte) in changes {
            let at = at.index(bytes.len());
            match how {
                0 => bytes[at] = byte,
                1 => bytes.insert(at, byte),
                2 => drop(bytes.remove(at)),
                _ => bytes.truncate(at + 1),
            }
        }
        bytes
    });
    prop_oneof![soup, changed]
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn cuts_change_nothing(
        (bytes, cuts) in streams().prop_flat_map(|bytes| {
            let all: Vec<usize> = (0..bytes.len()).collect();
            let len = all.len();
            (Just(bytes), subsequence(all, 0..=len))
        })
    ) {
        let (pieces, whole) = (scanned_in_pieces(&bytes, &cuts), scanned(&bytes));
        if let Scanned::Broken { violation: expected, .. } = whole {
            // How much of the line that breaks the rule passes does depend on the cuts.
            prop_assert!(matches!(pieces, Scanned::Broken { violation, .. } if violation == expected), "{:?}", pieces);
        } else {
            prop_assert_eq!(pieces, whole);
        }
    }
}
