//! Requests and answers on their way through.

use crate::harness::{DEADLINE, Node, Upstream, eventually, limits, name, shard};
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

async fn node_and_shard() -> (Node, Upstream) {
    let upstream = Upstream::start("s1").await;
    let node = Node::start(&[shard("s1", upstream.address)], limits());
    (node, upstream)
}

#[tokio::test(flavor = "multi_thread")]
async fn connections_are_kept_on_both_sides() {
    let (node, upstream) = node_and_shard().await;
    let mut client = node.client().await;
    for room in 0..5 {
        client.send(&format!("GET /http-bind?room=r{room} HTTP/1.1\r\nHost: meet\r\n\r\n")).await;
        let answer = client.answer().await;
        assert_eq!((answer.status, answer.text().lines().next()), (200, Some("s1")));
    }
    assert_eq!(upstream.connections(), 1);
    let totals = node.totals();
    assert_eq!(
        (totals.requests, totals.connections_opened, totals.shard_connects, totals.shard_reuses),
        (5, 1, 1, 4)
    );
    assert_eq!((totals.responses[2], totals.claims), (5, [5, 0, 0, 0]));
    let log = node.stop().await;
    assert_eq!(log.lines().count(), 5, "{log}");
    let line = log.lines().next().unwrap();
    assert!(
        line.contains("] http live/s1 ") && line.contains(" -- live 0 \"GET /http-bind?room=r0\" "),
        "{line}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn headers_and_target_on_the_way() {
    let (node, _upstream) = node_and_shard().await;
    let mut client = node.client().await;
    client
        .send(
            "GET /a%2Fb/../c,d\\\"[]{}|^?x=[]{}|^`\\;%zz&room=R HTTP/1.1\r\nHost: Meet:80\r\nConnection: keep-alive, X-Hop\r\n\
             X-Hop: 1\r\nKeep-Alive: 5\r\nX-Forwarded-For: 10.0.0.1\r\nAccept: a\r\nAccept: b\r\n\r\n",
        )
        .await;
    let answer = client.answer().await;
    let lines: Vec<_> = answer.text().lines().collect();
    assert_eq!(lines[1], "GET /a%2Fb/../c,d\\\"[]{}|^?x=[]{}|^`\\;%zz&room=R");
    for line in [
        "host: Meet:80",
        "x-forwarded-for: 10.0.0.1",
        "x-forwarded-for: 127.0.0.1",
        "x-forwarded-proto: https",
        "x-proxy-region: here",
        "accept: a",
        "accept: b",
    ] {
        assert!(lines.contains(&line), "{line} in {lines:?}");
    }
    assert!(!answer.text().contains("x-hop") && !answer.text().contains("keep-alive"), "{}", answer.text());
    assert_eq!(answer.header("x-proxy-region"), ["here"]);
    assert_eq!(answer.header("x-proxy-host"), ["node"]);
    assert_eq!(answer.header("x-jitsi-shard"), ["s1"]);
    assert!(answer.header("keep-alive").is_empty());
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn bodies_of_every_framing() {
    let (node, _upstream) = node_and_shard().await;
    let mut client = node.client().await;
    client.send("HEAD /foo HTTP/1.1\r\nHost: meet\r\n\r\n").await;
    let head = client.head().await;
    assert!(head.status == 200 && head.header("content-length").len() == 1, "{head:?}");

    client.send("POST /http-bind?room=x HTTP/1.1\r\nHost: meet\r\nContent-Length: 5\r\n\r\nhello").await;
    assert!(client.answer().await.text().ends_with("\n\nhello"));

    let chunked =
        "HTTP/1.1\r\nHost: meet\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n2\r\nde\r\n0\r\n\r\n";
    for method in ["POST", "GET"] {
        client.send(&format!("{method} /foo {chunked}")).await;
        let answer = client.answer().await;
        assert!(answer.text().ends_with("\n\nabcde"), "{}", answer.text());
        client.send(&format!("{method} /echo {chunked}")).await;
        let answer = client.answer().await;
        assert_eq!((answer.text(), answer.header("transfer-encoding")), ("abcde", vec!["chunked"]));
    }

    client
        .send(
            "POST /echo HTTP/1.1\r\nHost: meet\r\nTE: trailers\r\nTrailer: x-sum\r\nTransfer-Encoding: chunked\r\n\r\n\
             3\r\nabc\r\n0\r\nx-sum: 7\r\n\r\n",
        )
        .await;
    let answer = client.answer().await;
    assert_eq!((answer.text(), answer.header("x-sum")), ("abc", vec!["7"]));

    client
        .send("POST /echo HTTP/1.1\r\nHost: meet\r\nContent-Length: 4\r\nExpect: 100-continue\r\n\r\n")
        .await;
    assert_eq!(client.head().await.status, 100);
    client.send("body").await;
    assert_eq!(client.answer().await.text(), "body");
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn old_and_closing_clients() {
    let (node, upstream) = node_and_shard().await;
    let mut client = node.client().await;
    client.send("GET /foo HTTP/1.0\r\n\r\n").await;
    let answer = String::from_utf8(client.rest().await).unwrap();
    assert!(answer.starts_with("HTTP/1.0 200 OK\r\n"), "{answer}");
    let mut client = node.client().await;
    client.send("GET /foo HTTP/1.1\r\nHost: meet\r\nConnection: close\r\n\r\n").await;
    let answer = String::from_utf8(client.rest().await).unwrap();
    assert!(
        answer.starts_with("HTTP/1.1 200 OK\r\n") && answer.contains("connection: close\r\n"),
        "{answer}"
    );
    // Both clients' requests may have gone over one connection: theirs ended, the shard's did not.
    assert!(upstream.connections() <= 2);
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn pipelined_requests_are_answered_in_order() {
    let (node, _upstream) = node_and_shard().await;
    let mut client = node.client().await;
    let requests: String = (0..20).map(|n| format!("GET /r{n} HTTP/1.1\r\nHost: meet\r\n\r\n")).collect();
    client.send(&requests).await;
    for n in 0..20 {
        assert_eq!(client.answer().await.text().lines().nth(1), Some(format!("GET /r{n}").as_str()));
    }
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn ten_megabytes_there_and_back() {
    const SIZE: usize = 10 * 1024 * 1024;
    let (node, _upstream) = node_and_shard().await;
    let client = node.client().await;
    let (mut reader, mut writer) = client.stream.into_split();
    let sending = tokio::spawn(async move {
        writer
            .write_all(
                format!("POST /echo HTTP/1.1\r\nHost: meet\r\nContent-Length: {SIZE}\r\n\r\n").as_bytes(),
            )
            .await
            .unwrap();
        for n in 0..SIZE / 4096 {
            writer.write_all(&[(n % 251) as u8; 4096]).await.unwrap();
        }
        writer
    });
    let mut answer = Vec::new();
    while answer.len() < SIZE {
        let read = tokio::time::timeout(DEADLINE, reader.read_buf(&mut answer)).await.unwrap().unwrap();
        assert!(read > 0);
    }
    let body = answer.len() - SIZE;
    let at = answer.windows(4).position(|window| window == b"\r\n\r\n").unwrap() + 4;
    let mut rest = vec![0; at - body];
    reader.read_exact(&mut rest).await.unwrap();
    answer.extend(rest);
    assert!(
        answer[at..]
            .chunks(4096)
            .enumerate()
            .all(|(n, chunk)| chunk.iter().all(|byte| *byte == (n % 251) as u8))
    );
    drop(sending.await.unwrap());
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn who_does_not_read_is_not_buffered_for() {
    const MUCH: usize = 512 * 1024 * 1024;
    let (node, _upstream) = node_and_shard().await;
    let mut client = node.client().await;
    client.send(&format!("POST /echo HTTP/1.1\r\nHost: meet\r\nContent-Length: {MUCH}\r\n\r\n")).await;
    let block = vec![b'x'; 1024 * 1024];
    let mut accepted = 0;
    // Nobody reads the echo, so it all has to stop when the sockets' buffers are full.
    while accepted < MUCH {
        match tokio::time::timeout(Duration::from_millis(500), client.stream.write(&block)).await {
            Ok(written) => accepted += written.unwrap(),
            Err(_) => break,
        }
    }
    assert!(accepted < 128 * 1024 * 1024, "{accepted} bytes were taken");
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn bad_requests_and_what_they_get() {
    let (node, upstream) = node_and_shard().await;
    let long_name = "x".repeat(1025);
    let long_header = "x".repeat(20_000);
    let long_target = "x".repeat(70_000);
    let bad = [
        ("GARBAGE\r\n\r\n".to_owned(), 400),
        ("\x00\x01\x02\r\n\r\n".to_owned(), 400),
        ("GET /a b HTTP/1.1\r\n\r\n".to_owned(), 400),
        ("GET foo HTTP/1.1\r\n\r\n".to_owned(), 400),
        ("G(T / HTTP/1.1\r\n\r\n".to_owned(), 400),
        ("GET / HTTP/7.3\r\n\r\n".to_owned(), 505),
        ("GET / HTTP/1.1\r\nBad Header: x\r\n\r\n".to_owned(), 400),
        ("GET / HTTP/1.1\r\nHost: a\r\nX: a\x01b\r\n\r\n".to_owned(), 400),
        ("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: x\r\n\r\n".to_owned(), 400),
        ("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n".to_owned(), 400),
        ("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: gzip\r\n\r\n".to_owned(), 400),
        ("POST /echo HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n".to_owned(), 400),
        ("CONNECT example.com:443 HTTP/1.1\r\nHost: a\r\n\r\n".to_owned(), 400),
        ("GET /caf\u{e9} HTTP/1.1\r\nHost: a\r\n\r\n".to_owned(), 400),
        (format!("GET /{long_name} HTTP/1.1\r\nHost: a\r\n\r\n"), 400),
        (format!("GET / HTTP/1.1\r\nHost: a\r\nX: {long_header}\r\n\r\n"), 431),
        (format!("GET / HTTP/1.1\r\nHost: a\r\n{}\r\n", "X: y\r\n".repeat(101)), 431),
        (format!("GET /{long_target} HTTP/1.1\r\nHost: a\r\n\r\n"), 414),
    ];
    for (before, (request, status)) in (0..).zip(bad) {
        let shown = &request[..request.len().min(60)];
        let mut client = node.client().await;
        client.send(&request).await;
        let answer = client.answer().await;
        assert_eq!(answer.status, status, "{shown:?}");
        assert!(answer.text().contains("<h1>400 Bad Request</h1>"), "{shown:?}: {answer:?}");
        let totals = node.totals();
        assert_eq!((totals.requests, totals.rescues), (before + 1, before + 1), "{shown:?}");
    }
    // A refusal behind a good request leaves that one's answer alone.
    let mut client = node.client().await;
    client.send("GET /foo HTTP/1.1\r\nHost: meet\r\n\r\nGARBAGE\r\n\r\n").await;
    assert_eq!(client.answer().await.status, 200);
    assert_eq!(client.answer().await.status, 400);
    assert_eq!(client.rest().await, b"");
    assert!(upstream.connections() <= 2);
    let log = node.stop().await;
    assert!(log.contains(" 431 0 PR - 0 \"<BADREQ>\" -\n"), "{log}");
    assert!(log.contains("\"GET /caf"), "{log}");
}

#[tokio::test(flavor = "multi_thread")]
async fn topology_changes_apply_at_the_next_request() {
    let (mut node, _first) = node_and_shard().await;
    let second = Upstream::start("s2").await;
    assert_eq!(node.get("/xmpp-websocket?room=foo").await.text().lines().next(), Some("s1"));
    node.discovery.publish(crate::harness::snapshot(&[shard("s2", second.address)]));
    eventually("pages go to s2", async || node.get("/").await.text().starts_with("s2\n")).await;
    // The entry names a shard that is gone: the conference moves.
    assert_eq!(node.get("/xmpp-websocket?room=foo").await.text().lines().next(), Some("s2"));
    eventually("the table has s2", async || node.table.lookup("foo") == Some(name("s2"))).await;
    node.stop().await;
}
