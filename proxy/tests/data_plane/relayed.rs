//! Requests by way of a peer, because a conference's home found that this node alone does not reach its shard.

use crate::harness::{
    Answer, DEADLINE, Node, Pair, Upstream, Wire, config, eventually, limits, refusing, shard, told,
};
use crate::upstream_tls::{BEHIND_PROXY, Site, TLS, TLS_BEHIND_PROXY, said};
use shardgate_proxy::config::{Check, HealthConfig, HttpCheck, SendProxy, UpstreamConfig};
use shardgate_proxy::counters::{ConnectReason, TunnelEnd};
use shardgate_proxy::health::HealthSettings;
use shardgate_proxy::worker::WorkersConfig;
use shardgate_proxy::{ConnectLimits, Limits, Manners};
use std::net::SocketAddr;
use std::time::Duration;
use tokio::io::AsyncWriteExt;

const UPGRADE: &str = "Host: meet.example\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n\
                       Sec-WebSocket-Key: x3JJHMbDL1EzLkh9GBhXDw==\r\n\r\n";

/// `a` knows the shard s1 by an address that refuses, `b` by its true one: what comes to `a` goes by `b`. Both check it as `check` says.
async fn pair_speaking(address: SocketAddr, upstream: &UpstreamConfig, check: Check) -> Pair {
    let wrong = refusing().await;
    Pair::start(|at, mesh| {
        let manners = Manners::load(upstream, []).unwrap();
        let usual = Limits {
            connect: ConnectLimits { retries: 0, timeout: DEADLINE, backoff: Duration::from_millis(5) },
            ..limits()
        };
        let http = HttpCheck { host: Some("meet.example".to_owned()), ..HttpCheck::default() };
        let checks =
            HealthConfig { check, http, inter: Duration::from_millis(50), ..HealthConfig::default() };
        let health = HealthSettings::new(&checks, &[], &manners);
        let config = WorkersConfig { manners, health, threads: 1.try_into().unwrap(), ..config(usual) };
        Node::start_on(mesh, &[shard("s1", if at == 0 { wrong } else { address })], config)
    })
    .await
}

async fn pair(upstream: &Upstream) -> Pair {
    pair_speaking(upstream.address, &UpstreamConfig::default(), Check::Off).await
}

async fn get(client: &mut Wire, target: &str) -> Answer {
    client.send(&format!("GET {target} HTTP/1.1\r\nHost: meet.example\r\n\r\n")).await;
    client.answer().await
}

/// A tunnel, past its greeting.
async fn tunnel(node: &Node) -> Wire {
    let mut client = node.client().await;
    client.send(&format!("GET /xmpp-websocket?room=foo HTTP/1.1\r\n{UPGRADE}")).await;
    assert_eq!(client.head().await.status, 101);
    assert_eq!(client.exactly("hello from s1\n".len()).await, b"hello from s1\n");
    client
}

#[tokio::test(flavor = "multi_thread")]
async fn requests_go_by_a_peer_on_connections_of_their_own() {
    let upstream = Upstream::start("s1").await;
    let pair = pair(&upstream).await;
    let [a, b] = &pair.nodes;
    let mut client = a.client().await;
    for _ in 0..3 {
        let answer = get(&mut client, "/http-bind?room=foo").await;
        assert_eq!((answer.status, answer.text().starts_with("s1\n")), (200, true), "{answer:?}");
        assert_eq!(told(answer.text(), "x-proxy-region"), ["here"]);
    }
    assert_eq!(
        (upstream.connections(), a.totals().shard_reuses),
        (2, 2),
        "b's question, and one that is kept open"
    );
    let body = "x".repeat(1_000_000);
    client
        .send(&format!(
            "POST /echo?room=foo HTTP/1.1\r\nHost: meet\r\nContent-Length: {}\r\n\r\n{body}",
            body.len()
        ))
        .await;
    assert!(client.answer().await.text() == body);
    assert_eq!(
        (a.totals().requests_relayed, a.relay_counts().opened, b.relay_counts().opened),
        (4, [0, 1], [1, 0])
    );
    assert_eq!(b.totals().requests, 0, "it is no request of b's");
    // The way is back, here by an address that is right: found out within a second or so, and no connection by way of a peer is taken for one.
    let right = crate::harness::snapshot(&[shard("s1", upstream.address)]);
    let Pair { nodes: [mut a, b], listed } = pair;
    a.discovery.publish(right);
    eventually("requests go directly again", async || {
        let before = a.totals().requests_relayed;
        let mut client = a.client().await;
        get(&mut client, "/http-bind?room=foo").await.status == 200 && a.totals().requests_relayed == before
    })
    .await;
    assert!(upstream.connections() > 2, "a's own");
    let log = a.stop().await;
    let lines: Vec<_> = log.lines().collect();
    assert!(lines[0].contains(" live/s1@b ") && lines[3].contains(" live/s1@b "), "{log}");
    assert!(lines.last().unwrap().contains(" live/s1 "), "{log}");
    drop(listed);
    b.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn tunnels_go_by_a_peer() {
    let upstream = Upstream::start("s1").await;
    let pair = pair(&upstream).await;
    let [a, b] = &pair.nodes;
    let mut client = tunnel(a).await;
    for n in 0..100 {
        let message = format!("message {n}\n");
        client.send(&message).await;
        assert_eq!(client.exactly(message.len()).await, message.as_bytes());
    }
    assert_eq!((a.totals().tunnels(), b.totals().tunnels()), (1, 0), "it counts where its client is");
    // The client's half closes; the shard still gets all and answers it.
    client.send("last words").await;
    client.stream.shutdown().await.unwrap();
    assert_eq!(client.rest().await, b"last words");
    eventually("it is counted", async || a.totals().tunnel_ends[TunnelEnd::Client as usize] == 1).await;
    eventually("b has let go", async || b.relay_counts().open == [0, 0]).await;
    let Pair { nodes: [a, b], listed } = pair;
    let log = a.stop().await;
    assert!(log.lines().all(|line| line.contains(" live/s1@b ")) && log.lines().count() == 2, "{log}");
    drop(listed);
    b.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tunnel_ends_with_the_peer_that_it_goes_by() {
    let upstream = Upstream::start("s1").await;
    let Pair { nodes: [a, b], listed } = pair(&upstream).await;
    let mut client = tunnel(&a).await;
    b.stop().await;
    assert_eq!(client.rest().await, b"", "the client comes back at once");
    eventually("it is counted", async || a.totals().tunnel_ends[TunnelEnd::Broken as usize] == 1).await;
    eventually("no peer, no way", async || a.get("/http-bind?room=foo").await.status == 503).await;
    assert!(a.totals().connect_failures[ConnectReason::Relay as usize] > 0);
    assert_eq!(a.totals().requests_relayed, 1, "the tunnel's: what a peer does not take is not relayed");
    drop(listed);
    a.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_goes_by_a_peer_that_does_not_reach_it_either() {
    let pair = pair_speaking(refusing().await, &UpstreamConfig::default(), Check::Off).await;
    let [a, b] = &pair.nodes;
    assert_eq!(a.get("/http-bind?room=foo").await.status, 503);
    assert_eq!((a.relay_counts().opened, b.relay_counts().opened), ([0, 0], [0, 0]));
    pair.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn tls_goes_from_end_to_end_and_a_proxy_header_before_it() {
    let echo = Upstream::start("s1").await;
    let site = Site::start(40, echo.address).await;
    for (server, tls, send_proxy, check) in [
        (TLS, true, SendProxy::Off, Check::Off),
        (TLS, true, SendProxy::Off, Check::Http),
        (TLS_BEHIND_PROXY, true, SendProxy::V2, Check::Http),
        (BEHIND_PROXY, false, SendProxy::V2, Check::Http),
    ] {
        let plain = UpstreamConfig { send_proxy, ..UpstreamConfig::default() };
        let upstream = if tls { UpstreamConfig { send_proxy, ..site.https() } } else { plain };
        let pair = pair_speaking(site.address[server], &upstream, check).await;
        let [a, b] = &pair.nodes;
        if check == Check::Http {
            // A probe asks as a check does, as requests do: by TLS, and behind a PROXY header.
            let seen = async |node: &Node| node.running.health().report().await.remove(0).check.unwrap();
            eventually("b reaches it", async || seen(b).await.last == "status 200").await;
            eventually("a does not", async || seen(a).await.last == "connection refused").await;
        }
        // Somebody is there by b. That a does not reach it a finds out by the first who wants to go there, too; the others go by b as well.
        let there = get(&mut b.client().await, "/http-bind?room=foo").await;
        assert_eq!(there.status, 200, "{server}: {there:?}");
        let mut client = a.client().await;
        let first = get(&mut client, "/http-bind?room=foo").await;
        assert_eq!(first.status, 200, "{server}: {first:?}");
        eventually("a new conference goes by b", async || {
            get(&mut a.client().await, "/http-bind?room=new").await.status == 200
        })
        .await;
        if tls {
            assert_eq!(said(first.text(), "sni"), "meet.example");
        }
        if send_proxy == SendProxy::V2 {
            let own = client.stream.local_addr().unwrap().to_string();
            assert_eq!(said(first.text(), "proxy"), own, "whose connection it is");
        }
        let second = get(&mut client, "/http-bind?room=foo").await;
        assert_eq!(said(second.text(), "connection"), said(first.text(), "connection"), "kept open");
        if server == TLS {
            let mut client = tunnel(a).await;
            client.send("hello").await;
            assert_eq!(client.exactly(5).await, b"hello");
            client.stream.shutdown().await.unwrap();
            assert_eq!(client.rest().await, b"");
        }
        assert_eq!(a.totals().connect_failures[ConnectReason::Relay as usize], 0);
        pair.stop().await;
    }
}
