//! Stopping in order.

use crate::harness::{Node, Upstream, Wire, config, limits, shard};
use shardgate_peering::Mesh;
use shardgate_peering::core::{Config, PeerId};
use shardgate_proxy::worker::{StartError, Workers};
use std::net::{Ipv4Addr, SocketAddr};
use std::time::{Duration, Instant};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

#[tokio::test(flavor = "multi_thread")]
async fn requests_under_way_are_answered_and_idle_connections_close() {
    let (release, released) = tokio::sync::watch::channel(false);
    let upstream = Upstream::serve(move |mut stream| {
        let mut released = released.clone();
        async move {
            let mut read = [0; 1024];
            assert!(stream.read(&mut read).await.unwrap() > 0);
            released.wait_for(|released| *released).await.unwrap();
            stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\ndone").await.unwrap();
        }
    })
    .await;
    let node = Node::start(&[shard("s1", upstream.address)], limits());
    let address = node.address();
    let mut idle = node.client().await;
    let mut busy = node.client().await;
    busy.send("GET /foo HTTP/1.1\r\nHost: meet\r\n\r\n").await;
    crate::harness::eventually("the request is there", async || upstream.connections() == 1).await;
    let Node { running, .. } = node;
    let stopping = tokio::spawn(running.shutdown(Duration::from_secs(30)));
    assert_eq!(idle.rest().await, b"");
    crate::harness::eventually("nothing is accepted", async || TcpStream::connect(address).await.is_err())
        .await;
    assert!(!stopping.is_finished());
    release.send(true).unwrap();
    let answer = busy.answer().await;
    assert_eq!((answer.status, answer.text(), answer.header("connection")), (200, "done", vec!["close"]));
    assert_eq!(busy.rest().await, b"");
    tokio::time::timeout(crate::harness::DEADLINE, stopping).await.unwrap().unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_that_is_still_being_read_is_not_cut() {
    const LENGTH: usize = 8 << 20;
    let upstream = Upstream::serve(|mut stream| async move {
        let mut read = [0; 1024];
        assert!(stream.read(&mut read).await.unwrap() > 0);
        stream
            .write_all(format!("HTTP/1.1 200 OK\r\nContent-Length: {LENGTH}\r\n\r\n").as_bytes())
            .await
            .unwrap();
        stream.write_all(&vec![b'x'; LENGTH]).await.unwrap();
    })
    .await;
    let node = Node::start(&[shard("s1", upstream.address)], limits());
    let mut client = node.client().await;
    client.send("GET /foo HTTP/1.1\r\nHost: meet\r\n\r\n").await;
    assert_eq!(client.head().await.status, 200);
    client.exactly(LENGTH - (100 << 10)).await;
    let Node { running, .. } = node;
    let stopping = tokio::spawn(running.shutdown(Duration::from_secs(30)));
    crate::harness::eventually("the shard has sent all", async || upstream.connections() == 1).await;
    assert_eq!(client.exactly(100 << 10).await.len(), 100 << 10);
    assert_eq!(client.rest().await, b"");
    tokio::time::timeout(crate::harness::DEADLINE, stopping).await.unwrap().unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn tunnels_have_until_the_deadline() {
    let upstream = Upstream::start("s1").await;
    let node = Node::start(&[shard("s1", upstream.address)], limits());
    let mut client = node.client().await;
    client
        .send("GET /xmpp-websocket?room=foo HTTP/1.1\r\nHost: meet\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n")
        .await;
    assert_eq!(client.head().await.status, 101);
    client.exactly("hello from s1\n".len()).await;
    let mut hanging = node.client().await;
    hanging.send("GET /never HTTP/1.1\r\nHost: meet\r\n\r\n").await;
    crate::harness::eventually("both are there", async || upstream.connections() == 2).await;
    let Node { running, log, .. } = node;
    let began = Instant::now();
    let stopping = tokio::spawn(running.shutdown(Duration::from_millis(300)));
    echo(&mut client).await;
    assert_eq!(client.rest().await, b"");
    assert!(began.elapsed() >= Duration::from_millis(300));
    assert_eq!(hanging.rest().await, b"");
    tokio::time::timeout(crate::harness::DEADLINE, stopping).await.unwrap().unwrap();
    let log = std::fs::read_to_string(log).unwrap();
    assert!(log.contains(" KD closed 0 \"TUNNEL /xmpp-websocket?room=foo\""), "{log}");
}

async fn echo(client: &mut Wire) {
    client.send("x").await;
    assert_eq!(client.exactly(1).await, b"x");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_address_is_not_shared_with_another_daemon() {
    let node = Node::start(&[], limits());
    let mut config = config(limits());
    config.frontends[0].address = node.address();
    let refused = Workers::start(config, &node.table, &node.relays(), &node.snapshots()).unwrap_err();
    assert!(matches!(refused, StartError::Listen { .. }), "{refused}");
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_listener_moves_to_an_address_that_holds_its_own() {
    let upstream = Upstream::start("s1").await;
    // No port that the system gives away: beside a wildcard, another test could get it for its own address.
    let port = 28_473;
    let mut first = config(limits());
    first.frontends[0].address.set_port(port);
    let mesh = Mesh::alone(Config::new(PeerId::parse("me").unwrap(), 1)).unwrap();
    let mut node = Node::start_on(mesh, &[shard("s1", upstream.address)], first);
    let mut kept = node.client().await;
    for address in ["0.0.0.0", "::", "127.0.0.1"] {
        let mut moved = config(limits());
        moved.frontends[0].address = SocketAddr::new(address.parse().unwrap(), port);
        let change = node.running.prepare(moved).unwrap();
        node.running.apply(change).await;
        assert_eq!(node.address(), SocketAddr::new(address.parse().unwrap(), port));
        let mut client = Wire::connect(SocketAddr::from(([127, 0, 0, 1], port))).await;
        for client in [&mut client, &mut kept] {
            client.send("GET /foo HTTP/1.1\r\nHost: meet\r\n\r\n").await;
            assert_eq!(client.answer().await.status, 200, "{address}");
        }
    }
    // What somebody else has is refused as ever.
    let taken = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let mut config = config(limits());
    config.frontends[0].address = taken.local_addr().unwrap();
    assert!(node.running.prepare(config).is_err());
    node.stop().await;
}
