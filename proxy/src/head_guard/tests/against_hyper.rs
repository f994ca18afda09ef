//! What the guard lets through, hyper must read as the guard framed it.

use super::*;
use bytes::Bytes;
use http::{Method, Request, Response, Uri};
use http_body_util::{BodyExt, Empty};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use std::cell::RefCell;
use std::convert::Infallible;
use std::path::Path;
use std::rc::Rc;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

/// A request with its body.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Read {
    method: String,
    target: Vec<u8>,
    body: Vec<u8>,
}

/// The messages in what passes, as the guard sees their bounds.
fn framed(bytes: &[u8]) -> Vec<Vec<u8>> {
    let mut guard = HeadGuard::new(RULES);
    let (mut messages, mut begin) = (Vec::new(), 0);
    for (at, byte) in bytes.iter().enumerate() {
        let scanned = guard.scan(&[*byte]);
        assert!(violation(scanned).is_none(), "what passed in one piece passes in many");
        if guard.is_between_messages() {
            messages.push(bytes[begin..=at].to_vec());
            begin = at + 1;
        }
    }
    messages
}

/// One complete message, read in the plainest way there is.
fn read(message: &[u8]) -> Read {
    let begin = message.iter().position(|byte| !b"\r\n".contains(byte)).unwrap();
    let message = &message[begin..];
    let mut words = message.split(|byte| *byte == b' ');
    let method = String::from_utf8_lossy(words.next().unwrap()).into_owned();
    let target = words.next().unwrap().to_vec();
    let end = message.windows(4).position(|window| window == b"\r\n\r\n").unwrap() + 4;
    let head = String::from_utf8_lossy(&message[..end]).to_ascii_lowercase();
    let body = if head.contains("\r\ntransfer-encoding:") {
        dechunked(&message[end..])
    } else {
        message[end..].to_vec()
    };
    Read { method, target, body }
}

fn dechunked(mut rest: &[u8]) -> Vec<u8> {
    let mut body = Vec::new();
    loop {
        let end = rest.windows(2).position(|window| window == b"\r\n").unwrap();
        let line = String::from_utf8_lossy(&rest[..end]);
        let size = usize::from_str_radix(line.split(';').next().unwrap(), 16).unwrap();
        if size == 0 {
            return body;
        }
        body.extend_from_slice(&rest[end + 2..end + 2 + size]);
        rest = &rest[end + 2 + size + 2..];
    }
}

/// Whether hyper has a reason of its own to read nothing behind this message.
fn ends_connection(message: &[u8]) -> bool {
    let text = String::from_utf8_lossy(message).to_ascii_lowercase();
    // Of HTTP/1.0, and of what names `close` anywhere, only what hyper does go on behind is compared.
    ["close", "http/1.0", "connect ", "upgrade:"].iter().any(|part| text.contains(part))
}

fn is_refused_by_hyper(message: &[u8]) -> bool {
    let Read { method, target, .. } = read(message);
    Method::from_bytes(method.as_bytes()).is_err() || Uri::try_from(target).is_err()
}

/// What hyper reads, whole requests only.
fn hyper_reads(bytes: &[u8]) -> Vec<Read> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let seen = Rc::new(RefCell::new(Vec::new()));
        let (mut client, server) = tokio::io::duplex(64 * 1024);
        client.write_all(bytes).await.unwrap();
        let service = service_fn(|request: Request<Incoming>| {
            let seen = Rc::clone(&seen);
            async move {
                let (head, body) = request.into_parts();
                if let Ok(body) = body.collect().await {
                    let body = body.to_bytes().to_vec();
                    let (method, target) = (head.method.to_string(), head.uri.to_string().into_bytes());
                    seen.borrow_mut().push(Read { method, target, body });
                }
                Ok::<_, Infallible>(Response::new(Empty::<Bytes>::new()))
            }
        });
        let serving = async {
            // Half-closed clients are served, so that everything that was sent is read.
            drop(
                http1::Builder::new().half_close(true).serve_connection(TokioIo::new(server), service).await,
            );
        };
        let reading = async {
            client.shutdown().await.unwrap();
            drop(client.read_to_end(&mut Vec::new()).await);
        };
        tokio::join!(serving, reading);
        seen.take()
    })
}

fn compare(bytes: &[u8]) {
    let passed = match scanned(bytes) {
        Scanned::Passed => bytes,
        Scanned::Upgrade { end } => &bytes[..end],
        Scanned::Refused { keep, .. } | Scanned::Broken { keep, .. } => &bytes[..keep],
    };
    let messages = framed(passed);
    let expected: Vec<Read> = messages.iter().map(|message| read(message)).collect();
    let seen = hyper_reads(passed);
    let of = String::from_utf8_lossy(passed);
    let uri =
        |target: &[u8]| Uri::try_from(target).map(|uri| uri.to_string().into_bytes()).unwrap_or_default();
    assert!(seen.len() <= expected.len(), "hyper saw more than the guard: {of:?}: {seen:?}");
    for (seen, expected) in seen.iter().zip(&expected) {
        let expected = Read { target: uri(&expected.target), ..expected.clone() };
        assert_eq!(*seen, expected, "{of:?}");
    }
    if seen.len() < expected.len() {
        let had_reason = seen.len().checked_sub(1).is_some_and(|last| ends_connection(&messages[last]))
            || is_refused_by_hyper(&messages[seen.len()]);
        assert!(had_reason, "hyper saw less than the guard: {of:?}: {seen:?}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn hyper_reads_what_the_guard_framed(bytes in streams()) {
        compare(&bytes);
    }
}

#[test]
fn hyper_reads_what_the_guard_framed_in_the_fuzz_corpus() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/fuzz/corpus/request_head");
    let mut files = 0;
    for entry in folder.read_dir().unwrap() {
        let data = std::fs::read(entry.unwrap().path()).unwrap();
        // The first byte are circumstances.
        compare(data.get(1..).unwrap_or_default());
        files += 1;
    }
    assert!(files > 0, "no corpus");
}
