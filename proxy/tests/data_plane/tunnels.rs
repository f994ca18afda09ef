//! WebSockets.

use crate::harness::{Node, Upstream, Wire, eventually, key, limits, name, shard};
use shardgate_peering::{ClaimReason, Claimed};
use shardgate_proxy::Limits;
use shardgate_proxy::counters::TunnelEnd;
use shardgate_proxy::sessions::Which;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

const UPGRADE: &str = "Host: meet\r\nConnection: keep-alive, Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n\
                       Sec-WebSocket-Key: x3JJHMbDL1EzLkh9GBhXDw==\r\nSec-WebSocket-Protocol: xmpp\r\n\r\n";

async fn two_shards(limits: Limits) -> (Node, Upstream, Upstream) {
    let (first, second) = (Upstream::start("s1").await, Upstream::start("s2").await);
    let node = Node::start(&[shard("s1", first.address), shard("s2", second.address)], limits);
    (node, first, second)
}

/// A tunnel, past its greeting.
async fn tunnel(node: &Node, room: &str) -> (Wire, String) {
    let mut client = node.client().await;
    client.send(&format!("GET /xmpp-websocket?room={room} HTTP/1.1\r\n{UPGRADE}")).await;
    let answer = client.head().await;
    assert_eq!((answer.status, answer.header("upgrade")), (101, vec!["websocket"]), "{answer:?}");
    let greeting = String::from_utf8(client.exactly("hello from s1\n".len()).await).unwrap();
    let shard = greeting.trim_end().rsplit(' ').next().unwrap().to_owned();
    (client, shard)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_websocket_echoes_and_ends() {
    let (node, _first, _second) = two_shards(limits()).await;
    let mut client = node.client().await;
    // What comes with the request is not lost, nor what comes with the answer.
    client.send(&format!("GET /xmpp-websocket?room=foo HTTP/1.1\r\n{UPGRADE}early ")).await;
    let answer = client.head().await;
    assert_eq!(answer.status, 101);
    assert_eq!(answer.header("connection"), ["Upgrade"]);
    assert_eq!(answer.header("x-proxy-region"), ["here"]);
    let greeting = client.exactly("hello from s1\nearly ".len()).await;
    assert!(greeting.starts_with(b"hello from s") && greeting.ends_with(b"early "));
    for n in 0..100 {
        let message = format!("message {n}\n");
        client.send(&message).await;
        assert_eq!(client.exactly(message.len()).await, message.as_bytes());
    }
    assert_eq!(node.totals().tunnels(), 1);
    // The client's half closes; the shard still gets all and answers it.
    client.send("last words").await;
    client.stream.shutdown().await.unwrap();
    assert_eq!(client.rest().await, b"last words");
    eventually("it is counted", async || node.totals().tunnel_ends[TunnelEnd::Client as usize] == 1).await;
    eventually("it is gone", async || (node.totals().tunnels(), node.totals().connections()) == (0, 0)).await;
    let log = node.stop().await;
    let lines: Vec<_> = log.lines().collect();
    assert!(lines[0].contains(" 101 0 -- live 0 \"GET /xmpp-websocket?room=foo\""), "{log}");
    assert!(lines[1].contains("-- client 0 \"TUNNEL /xmpp-websocket?room=foo\""), "{log}");
}

#[tokio::test(flavor = "multi_thread")]
async fn much_through_a_tunnel() {
    // More than the buffers of four hops hold (36 MB each at most on common kernels), or the way might never be full.
    const SIZE: usize = 160 * 1024 * 1024;
    let (node, _first, _second) = two_shards(limits()).await;
    let (client, _) = tunnel(&node, "foo").await;
    let (mut reader, mut writer) = client.stream.into_split();
    let (full, fills) = tokio::sync::oneshot::channel();
    let sending = tokio::spawn(async move {
        let mut full = Some(full);
        for n in 0..SIZE / 4096 {
            let chunk = [(n % 251) as u8; 4096];
            let mut sent = 0;
            while sent < chunk.len() {
                match writer.try_write(&chunk[sent..]) {
                    Ok(bytes) => sent += bytes,
                    Err(error) => {
                        assert_eq!(error.kind(), std::io::ErrorKind::WouldBlock);
                        if let Some(full) = full.take() {
                            full.send(()).unwrap();
                        }
                        writer.writable().await.unwrap();
                    }
                }
            }
        }
        writer.shutdown().await.unwrap();
    });
    // The echo is read only once the way was full, so that pieces waited in the tunnel.
    tokio::time::timeout(crate::harness::DEADLINE, fills).await.unwrap().unwrap();
    let mut echo = client.read;
    tokio::time::timeout(crate::harness::DEADLINE, reader.read_to_end(&mut echo)).await.unwrap().unwrap();
    sending.await.unwrap();
    assert_eq!(echo.len(), SIZE);
    assert!(
        echo.chunks(4096).enumerate().all(|(n, chunk)| chunk.iter().all(|byte| *byte == (n % 251) as u8))
    );
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_upgrade_that_is_refused_is_an_answer() {
    let (node, _first, _second) = two_shards(limits()).await;
    let mut client = node.client().await;
    client.send(&format!("GET /no-websocket?room=foo HTTP/1.1\r\n{UPGRADE}")).await;
    let answer = client.answer().await;
    assert_eq!(answer.status, 200);
    assert!(
        answer.text().contains("upgrade: websocket\n") && answer.text().contains("connection: Upgrade\n")
    );
    client.send("GET /foo HTTP/1.1\r\nHost: meet\r\nConnection: Upgrade\r\nUpgrade: h2c\r\n\r\n").await;
    let answer = client.answer().await;
    assert!(answer.status == 200 && !answer.text().contains("h2c"), "{}", answer.text());
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn tunnels_are_closed_by_key_and_by_shard() {
    let (node, _first, _second) = two_shards(limits()).await;
    let (mut first, shard) = tunnel(&node, "one").await;
    let (mut second, _) = tunnel(&node, "one").await;
    let (mut other, other_shard) = tunnel(&node, "two").await;
    let sessions = node.running.sessions();
    assert_eq!((sessions.open(), sessions.count(Which::Key(key("one"))).await.tunnels), (3, 2));
    assert_eq!(sessions.close(Which::KeyElsewhere { key: key("one"), shard: name(&shard) }).await, 0);
    assert_eq!(sessions.close(Which::Key(key("one"))).await, 2);
    assert_eq!((first.rest().await, second.rest().await), (vec![], vec![]));
    other.send("x").await;
    assert_eq!(other.exactly(1).await, b"x");
    assert_eq!(sessions.close(Which::Shard(name(&other_shard))).await, 1);
    assert_eq!(other.rest().await, b"");
    eventually("all are gone", async || node.totals().connections() == 0).await;
    assert_eq!(node.totals().tunnel_ends[TunnelEnd::Closed as usize], 3);
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn tunnels_follow_their_conference() {
    let (node, _first, _second) = two_shards(limits()).await;
    let (mut client, shard) = tunnel(&node, "foo").await;
    let (mut stays, _) = tunnel(&node, "bar").await;
    let to = if shard == "s1" { "s2" } else { "s1" };
    let moved = node.table.claim(key("foo"), name(to), ClaimReason::Operator).await;
    assert_eq!(moved, Claimed::Stick { shard: name(to) });
    assert_eq!(client.rest().await, b"");
    let (_client, shard) = tunnel(&node, "foo").await;
    assert_eq!(shard, to);
    stays.send("x").await;
    assert_eq!(stays.exactly(1).await, b"x");
    assert_eq!(node.totals().tunnel_ends[TunnelEnd::Moved as usize], 1);
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn silent_tunnels_end() {
    let short = Duration::from_millis(400);
    let (node, _first, _second) = two_shards(Limits { tunnel_timeout: short, ..limits() }).await;
    let (mut silent, _) = tunnel(&node, "one").await;
    let (mut busy, _) = tunnel(&node, "two").await;
    for _ in 0..10 {
        tokio::time::sleep(short / 8).await;
        busy.send("x").await;
        assert_eq!(busy.exactly(1).await, b"x");
    }
    assert_eq!(silent.rest().await, b"");
    assert_eq!(busy.rest().await, b"");
    eventually("both are counted", async || node.totals().tunnel_ends[TunnelEnd::Idle as usize] == 2).await;
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_half_closed_tunnel_ends_sooner() {
    // The shard keeps its half open for ever.
    let upstream = Upstream::serve(|mut stream| async move {
        let mut read = Vec::new();
        while !read.ends_with(b"\r\n\r\n") {
            assert!(stream.read_buf(&mut read).await.unwrap() > 0);
        }
        let answer = b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\nhello from s1\n";
        stream.write_all(answer).await.unwrap();
        assert_eq!(stream.read_to_end(&mut read).await.unwrap(), 0);
        std::future::pending::<()>().await;
    })
    .await;
    let limits = Limits { client_fin_timeout: Duration::from_millis(100), ..limits() };
    let node = Node::start(&[shard("s1", upstream.address)], limits);
    let (mut client, _) = tunnel(&node, "foo").await;
    client.stream.shutdown().await.unwrap();
    assert_eq!(client.rest().await, b"");
    eventually("it is counted", async || node.totals().tunnel_ends[TunnelEnd::Idle as usize] == 1).await;
    node.stop().await;
}
