//! Shards that refuse, break off or leave.

use crate::harness::{Node, Upstream, eventually, key, limits, name, refusing, shard};
use shardgate_peering::{ClaimReason, Claimed};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// Reads one head.
async fn request(stream: &mut TcpStream) -> bool {
    let mut read = Vec::new();
    while !read.ends_with(b"\r\n\r\n") {
        match stream.read_buf(&mut read).await {
            Ok(0) | Err(_) => return false,
            Ok(_) => {}
        }
    }
    true
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refusing_shard_loses_its_conferences() {
    let upstream = Upstream::start("s2").await;
    let node = Node::start(&[shard("s1", refusing().await), shard("s2", upstream.address)], limits());
    for room in 0..8 {
        let answer = node.get(&format!("/http-bind?room=r{room}")).await;
        assert_eq!((answer.status, answer.text().lines().next()), (200, Some("s2")));
        assert_eq!(node.table.lookup(&format!("r{room}")), Some(name("s2")));
    }
    let totals = node.totals();
    assert!((1..8).contains(&totals.redispatches), "suspected after its first failure: {totals:?}");
    assert!(totals.retries >= 2 && totals.connect_failures[0] >= 3, "{totals:?}");
    let log = node.stop().await;
    assert!(log.contains(" redispatch 2 "), "{log}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_page_goes_elsewhere_and_leaves_the_entry() {
    let upstream = Upstream::start("s2").await;
    let node = Node::start(&[shard("s1", refusing().await), shard("s2", upstream.address)], limits());
    let claimed = node.table.claim(key("foo"), name("s1"), ClaimReason::Join).await;
    assert_eq!(claimed, Claimed::Stick { shard: name("s1") });
    assert_eq!(node.get("/foo").await.text().lines().next(), Some("s2"));
    assert_eq!(node.table.lookup("foo"), Some(name("s1")));
    // A join moves it.
    assert_eq!(node.get("/http-bind?room=foo").await.text().lines().next(), Some("s2"));
    assert_eq!(node.table.lookup("foo"), Some(name("s2")));
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_to_go_to() {
    let node = Node::start(&[shard("s1", refusing().await), shard("s2", refusing().await)], limits());
    for target in ["/foo", "/http-bind?room=foo", "/s1/about", "/"] {
        let answer = node.get(target).await;
        assert_eq!(answer.status, 503, "{target}");
        assert!(answer.text().contains("<h1>503 Service Unavailable</h1>"));
    }
    node.stop().await;
    let node = Node::start(&[], limits());
    assert_eq!(node.get("/foo").await.status, 503);
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn broken_answers() {
    for broken in [
        &b""[..],
        b"nonsense\r\n\r\n",
        b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\n\r\n",
        b"HTTP/1.1 2",
    ] {
        let asked = Arc::new(AtomicUsize::new(0));
        let count = Arc::clone(&asked);
        let upstream = Upstream::serve(move |mut stream| {
            let count = Arc::clone(&count);
            async move {
                if request(&mut stream).await {
                    count.fetch_add(1, Ordering::Relaxed);
                    stream.write_all(broken).await.unwrap();
                }
            }
        })
        .await;
        let node = Node::start(&[shard("s1", upstream.address)], limits());
        let answer = node.get("/foo").await;
        assert_eq!(answer.status, 502, "{broken:?}");
        // It may look whether the shard is still there.
        assert_eq!(asked.load(Ordering::Relaxed), 1, "what was sent is not sent again");
        node.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_that_breaks_off() {
    let upstream = Upstream::serve(|mut stream| async move {
        if request(&mut stream).await {
            stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nonly this").await.unwrap();
        }
    })
    .await;
    let node = Node::start(&[shard("s1", upstream.address)], limits());
    let mut client = node.client().await;
    client.send("GET /foo HTTP/1.1\r\nHost: meet\r\n\r\n").await;
    assert_eq!(client.head().await.status, 200);
    assert_eq!(client.rest().await, b"only this");
    assert_eq!(node.totals().shard_aborts, 1);
    let log = node.stop().await;
    assert!(log.contains(" 200 9 SD "), "{log}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_kept_connection_that_closes_under_a_request() {
    let served = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&served);
    let upstream = Upstream::serve(move |mut stream| {
        let served = Arc::clone(&count);
        async move {
            if request(&mut stream).await {
                served.fetch_add(1, Ordering::Relaxed);
                stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n").await.unwrap();
                // The second request is read and not answered.
                request(&mut stream).await;
            }
        }
    })
    .await;
    let node = Node::start(&[shard("s1", upstream.address)], limits());
    let mut client = node.client().await;
    for _ in 0..4 {
        client.send("GET /foo HTTP/1.1\r\nHost: meet\r\n\r\n").await;
        assert_eq!(client.answer().await.status, 200);
    }
    assert_eq!(served.load(Ordering::Relaxed), 4);
    client.send("POST /foo HTTP/1.1\r\nHost: meet\r\nContent-Length: 0\r\n\r\n").await;
    assert_eq!(client.answer().await.status, 502, "a POST is not sent twice");
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_leaves_takes_its_request_along() {
    let (gone, mut left) = tokio::sync::mpsc::channel(1);
    let upstream = Upstream::serve(move |mut stream| {
        let gone = gone.clone();
        async move {
            request(&mut stream).await;
            // Ends when the proxy closes.
            request(&mut stream).await;
            gone.send(()).await.unwrap();
        }
    })
    .await;
    let node = Node::start(&[shard("s1", upstream.address)], limits());
    let mut client = node.client().await;
    client.send("GET /foo HTTP/1.1\r\nHost: meet\r\n\r\n").await;
    eventually("the request is there", async || upstream.connections() == 1).await;
    drop(client);
    tokio::time::timeout(crate::harness::DEADLINE, left.recv()).await.unwrap();
    eventually("it is counted", async || node.totals().client_aborts == 1).await;
    assert_eq!(node.totals().responses[0], 1);
    let log = node.stop().await;
    assert!(log.contains(" -1 0 CH "), "{log}");
}

#[tokio::test(flavor = "multi_thread")]
async fn simultaneous_first_joins_meet() {
    let (first, second) = (Upstream::start("s1").await, Upstream::start("s2").await);
    let node = Node::start(&[shard("s1", first.address), shard("s2", second.address)], limits());
    for room in 0..10 {
        let mut clients = Vec::new();
        for _ in 0..8 {
            clients.push(node.client().await);
        }
        for client in &mut clients {
            client.send(&format!("GET /xmpp-websocket?room=r{room} HTTP/1.1\r\nHost: meet\r\n\r\n")).await;
        }
        let mut shards = std::collections::BTreeSet::new();
        for client in &mut clients {
            shards.insert(client.answer().await.header("x-jitsi-shard")[0].to_owned());
        }
        assert_eq!(shards.len(), 1, "room {room}");
    }
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_shard_that_discovery_does_not_list_and_nobody_reaches_loses_its_conferences() {
    let upstream = Upstream::start("s1").await;
    let node = Node::start(&[shard("s1", upstream.address)], limits());
    // It was listed once. With peers their discovery may be ahead, and their probes say so; this node is alone.
    node.table.claim(key("room"), name("s9"), ClaimReason::Join).await;
    eventually("the entry is seen", async || node.table.lookup("room").is_some()).await;
    assert_eq!(node.get("/about?room=room").await.status, 200, "a page goes elsewhere");
    assert_eq!(node.table.lookup("room"), Some(name("s9")), "and leaves the entry");
    assert_eq!(node.get("/http-bind?room=room").await.status, 200);
    assert_eq!(node.table.lookup("room"), Some(name("s1")));
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_upgrade_with_a_body_opens_no_tunnel() {
    let upstream = Upstream::start("s1").await;
    let node = Node::start(&[shard("s1", upstream.address)], limits());
    let mut client = node.client().await;
    client
        .send("GET /xmpp-websocket?room=foo HTTP/1.1\r\nHost: meet\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nContent-Length: 2\r\n\r\nab")
        .await;
    assert_ne!(client.answer().await.status, 101);
    assert_eq!(node.totals().tunnels_opened, 0);
    node.stop().await;
}
