//! Whoever is too slow.

use crate::harness::{Node, Upstream, eventually, limits, shard};
use shardgate_proxy::Limits;
use shardgate_proxy::counters::TimeoutKind;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

const SHORT: Duration = Duration::from_millis(100);

async fn node(limits: Limits) -> (Node, Upstream) {
    let upstream = Upstream::start("s1").await;
    (Node::start(&[shard("s1", upstream.address)], limits), upstream)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_slow_shard() {
    let (node, _upstream) = node(Limits { server_timeout: SHORT, ..limits() }).await;
    let mut client = node.client().await;
    client.send("GET /never HTTP/1.1\r\nHost: meet\r\n\r\n").await;
    let answer = client.answer().await;
    assert!(answer.status == 504 && answer.text().contains("<h1>504 Gateway Timeout</h1>"), "{answer:?}");
    assert_eq!(node.totals().timeouts[TimeoutKind::Server as usize], 1);
    // The client is not to blame: its connection goes on.
    client.send("GET /foo HTTP/1.1\r\nHost: meet\r\n\r\n").await;
    assert_eq!(client.answer().await.status, 200);
    let log = node.stop().await;
    assert!(log.contains(" 504 ") && log.contains(" sH "), "{log}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_shard_that_stalls_in_its_answer() {
    let upstream = Upstream::serve(|mut stream| async move {
        let mut read = [0; 1024];
        assert!(stream.read(&mut read).await.unwrap() > 0);
        stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nonly this").await.unwrap();
        // Until the proxy has had enough.
        assert_eq!(stream.read(&mut read).await.unwrap_or(0), 0);
    })
    .await;
    let node = Node::start(&[shard("s1", upstream.address)], Limits { server_timeout: SHORT, ..limits() });
    let mut client = node.client().await;
    client.send("GET /foo HTTP/1.1\r\nHost: meet\r\n\r\n").await;
    assert_eq!(client.head().await.status, 200);
    assert_eq!(client.rest().await, b"only this");
    let log = node.stop().await;
    assert!(log.contains(" 200 9 sD "), "{log}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_slow_body() {
    let (node, _upstream) = node(Limits { client_timeout: SHORT, ..limits() }).await;
    let mut client = node.client().await;
    client.send("POST /http-bind?room=x HTTP/1.1\r\nHost: meet\r\nContent-Length: 10\r\n\r\nhal").await;
    let answer = client.answer().await;
    assert!(answer.status == 408 && answer.header("connection") == ["close"], "{answer:?}");
    assert_eq!(client.rest().await, b"");
    assert_eq!(node.totals().timeouts[TimeoutKind::Body as usize], 1);
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_body_that_trickles_is_no_timeout() {
    let (node, _upstream) =
        node(Limits { client_timeout: SHORT * 6, server_timeout: SHORT * 6, ..limits() }).await;
    let mut client = node.client().await;
    client.send("POST /foo HTTP/1.1\r\nHost: meet\r\nContent-Length: 10\r\n\r\n").await;
    for _ in 0..10 {
        tokio::time::sleep(SHORT).await;
        client.send("x").await;
    }
    assert_eq!(client.answer().await.status, 200);
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_slow_head() {
    let (node, _upstream) = node(Limits { head_timeout: SHORT, ..limits() }).await;
    let mut client = node.client().await;
    client.send("GET /foo HT").await;
    let answer = client.answer().await;
    assert!(answer.status == 408 && answer.text().contains("<h1>408 Request Timeout</h1>"), "{answer:?}");
    assert_eq!(client.rest().await, b"");
    // Also behind an answered request.
    let mut client = node.client().await;
    client.send("GET /foo HTTP/1.1\r\nHost: meet\r\n\r\n").await;
    assert_eq!(client.answer().await.status, 200);
    client.send("GET").await;
    assert_eq!(client.answer().await.status, 408);
    let log = node.stop().await;
    assert!(log.contains(" 408 0 cR - 0 \"<BADREQ>\""), "{log}");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_idle_connection_is_closed_without_a_word() {
    let (node, _upstream) = node(Limits { keep_alive_timeout: SHORT, ..limits() }).await;
    let mut silent = node.client().await;
    assert_eq!(silent.rest().await, b"");
    let mut client = node.client().await;
    client.send("GET /foo HTTP/1.1\r\nHost: meet\r\n\r\n").await;
    assert_eq!(client.answer().await.status, 200);
    assert_eq!(client.rest().await, b"");
    assert_eq!(node.totals().timeouts[TimeoutKind::KeepAlive as usize], 2);
    eventually("both are gone", async || node.totals().connections() == 0).await;
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_does_not_read() {
    let (node, _upstream) = node(Limits { client_timeout: SHORT, ..limits() }).await;
    let client = node.client().await;
    let (_reader, mut writer) = client.stream.into_split();
    let size = 512 * 1024 * 1024;
    writer
        .write_all(format!("POST /echo HTTP/1.1\r\nHost: meet\r\nContent-Length: {size}\r\n\r\n").as_bytes())
        .await
        .unwrap();
    let block = vec![b'x'; 64 * 1024];
    // Ends with a reset.
    while writer.write_all(&block).await.is_ok() {}
    assert_eq!(node.totals().timeouts[TimeoutKind::Client as usize], 1);
    node.stop().await;
}

/// Answers whatever comes by 40 kB.
async fn answer_much(mut stream: TcpStream) {
    let answer = [&b"HTTP/1.1 200 OK\r\nContent-Length: 40000\r\n\r\n"[..], &[b'x'; 40_000]].concat();
    let mut read = Vec::new();
    while stream.read_buf(&mut read).await.is_ok_and(|bytes| bytes > 0) {
        if read.ends_with(b"\r\n\r\n") {
            read.clear();
            stream.write_all(&answer).await.unwrap();
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_asks_on_and_does_not_read() {
    let upstream = Upstream::serve(answer_much).await;
    let limits = Limits { head_timeout: SHORT, client_timeout: SHORT * 5, ..limits() };
    let node = Node::start(&[shard("s1", upstream.address)], limits);
    let mut client = node.client().await;
    // Each in a packet of its own: the next head is in hyper's hands while the answer before cannot be written.
    eventually("it is let go", async || {
        let request = b"GET /foo HTTP/1.1\r\nHost: meet\r\n\r\n";
        client.stream.write_all(request).await.is_err()
            || node.totals().timeouts[TimeoutKind::Client as usize] > 0
    })
    .await;
    eventually("it is gone", async || node.totals().connections() == 0).await;
    let timeouts = node.totals().timeouts;
    assert_eq!(
        (timeouts[TimeoutKind::Client as usize], timeouts[TimeoutKind::Head as usize]),
        (1, 0),
        "it is slow to read, not to write"
    );
    node.stop().await;
}
