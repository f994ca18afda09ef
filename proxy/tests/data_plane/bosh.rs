//! BOSH sessions: what is counted, and what holds a conference's entry.

use crate::harness::{Node, Upstream, Wire, config, eventually, key, limits, name, shard};
use shardgate_peering::core::{Config, PeerId};
use shardgate_peering::{ClaimReason, Claimed, Mesh};
use shardgate_proxy::Limits;
use shardgate_proxy::sessions::{Counted, Which};
use std::time::Duration;

/// Polls once and answers the shard.
async fn poll(client: &mut Wire, target: &str) -> String {
    client.send(&format!("POST {target} HTTP/1.1\r\nHost: meet\r\nContent-Length: 7\r\n\r\n<body/>")).await;
    let answer = client.answer().await;
    assert_eq!(answer.status, 200, "{answer:?}");
    answer.header("x-jitsi-shard")[0].to_owned()
}

/// So long that no session ends while it is looked at.
fn long() -> Limits {
    Limits { bosh_pause: Duration::from_secs(65), ..limits() }
}

fn short() -> Limits {
    Limits { bosh_pause: Duration::from_millis(2_500), ..limits() }
}

async fn bosh(node: &Node, which: Which) -> u64 {
    node.running.sessions().count(which).await.bosh
}

/// Whether a session holds the entry; a node that has just begun ends none for whoever asks.
async fn holds(node: &Node, room: &str) -> bool {
    node.table.clear(key(room)).await == Claimed::Held
}

#[tokio::test(flavor = "multi_thread")]
async fn a_session_is_a_connection_and_a_conference() {
    let (first, second) = (Upstream::start("s1").await, Upstream::start("s2").await);
    let node = Node::start(&[shard("s1", first.address), shard("s2", second.address)], long());
    let (mut one, mut other) = (node.client().await, node.client().await);
    let there = poll(&mut one, "/acme/http-bind?room=foo").await;
    for _ in 0..5 {
        assert_eq!(poll(&mut one, "/acme/http-bind?room=foo").await, there);
    }
    poll(&mut other, "/acme/http-bind?room=foo").await;
    poll(&mut one, "/http-bind?room=bar").await;
    // None of these is one: no conference, another path, and questions that no client polls with.
    poll(&mut one, "/http-bind").await;
    poll(&mut one, "/conference-request/v1?room=baz").await;
    for method in ["OPTIONS", "HEAD"] {
        one.send(&format!("{method} /http-bind?room=baz HTTP/1.1\r\nHost: meet\r\n\r\n")).await;
        assert_eq!(if method == "HEAD" { one.head().await } else { one.answer().await }.status, 200);
    }
    let sessions = node.running.sessions();
    eventually("they are counted", async || sessions.bosh() == 3).await;
    assert_eq!((bosh(&node, Which::All).await, sessions.open()), (3, 0));
    assert_eq!(bosh(&node, Which::Key(key("acme/foo"))).await, 2);
    let of_shards = sessions.of_shards().await;
    assert_eq!(of_shards.values().map(|here| here.bosh).sum::<u64>(), 3, "{of_shards:?}");
    assert!(of_shards[&name(&there)].bosh >= 2, "{of_shards:?}");
    let keys = ["bar", "baz", "acme/foo"].map(key);
    let of_keys = sessions.of_keys(keys.as_slice().into()).await;
    let counts = of_keys.iter().map(|shards| shards.values().map(|there| there.counted.bosh).sum::<u64>());
    assert_eq!(counts.collect::<Vec<_>>(), [1, 0, 2]);
    assert_eq!(bosh(&node, Which::KeyElsewhere { key: key("acme/foo"), shard: name(&there) }).await, 0);
    // It holds its conference's entry, also when its connection is gone.
    drop((one, other));
    eventually("the connections are gone", async || node.totals().connections() == 0).await;
    assert!(holds(&node, "acme/foo").await);
    assert!(!holds(&node, "baz").await);
    assert_eq!(bosh(&node, Which::All).await, 3);
    assert_eq!(node.totals().bosh_uncounted, 0);
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_session_ends_a_pause_after_its_last_request_and_not_while_one_is_held() {
    let silent = Upstream::serve(async |stream| {
        let _open = stream;
        std::future::pending::<()>().await;
    })
    .await;
    let answering = Upstream::start("s2").await;
    let mut table = Config::new(PeerId::parse("me").unwrap(), 1);
    // Shorter than the pause, and longer than it takes to find a new session, which is done every second.
    table.ttl_ms = 2_000;
    let shards = [shard("s1", silent.address), shard("s2", answering.address)];
    let node = Node::start_on(Mesh::alone(table).unwrap(), &shards, config(short()));
    let (mut held, mut polling) = (node.client().await, node.client().await);
    let of = |shard| Which::Shard(name(shard));
    assert!(matches!(
        node.table.claim(key("held"), name("s1"), ClaimReason::Join).await,
        Claimed::Stick { .. }
    ));
    held.send("POST /http-bind?room=held HTTP/1.1\r\nHost: meet\r\nContent-Length: 0\r\n\r\n").await;
    eventually("it is held", async || bosh(&node, of("s1")).await == 1).await;
    assert!(matches!(
        node.table.claim(key("short"), name("s2"), ClaimReason::Join).await,
        Claimed::Stick { .. }
    ));
    for _ in 0..2 {
        assert_eq!(poll(&mut polling, "/http-bind?room=short").await, "s2");
        eventually("it is counted", async || bosh(&node, of("s2")).await == 1).await;
        // It would have ended long before.
        eventually("the pause is over", async || {
            assert!(node.table.lookup("held").is_some(), "a request of it is held");
            let there = node.table.lookup("short").is_some();
            let counted = bosh(&node, of("s2")).await;
            assert!(there || counted == 0, "its session holds it");
            counted == 0
        })
        .await;
    }
    assert_eq!(bosh(&node, of("s1")).await, 1, "a request of it is held");
    eventually("its entry ends", async || node.table.lookup("short").is_none()).await;
    assert!(node.table.lookup("held").is_some());
    // Its client gives up.
    drop(held);
    eventually("the pause is over", async || node.running.sessions().bosh() == 0).await;
    eventually("its entry ends", async || node.table.lookup("held").is_none()).await;
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_session_follows_its_conference() {
    let (first, second) = (Upstream::start("s1").await, Upstream::start("s2").await);
    let node = Node::start(&[shard("s1", first.address), shard("s2", second.address)], long());
    let mut client = node.client().await;
    let there = poll(&mut client, "/http-bind?room=foo").await;
    let elsewhere = if there == "s1" { "s2" } else { "s1" };
    eventually("it is counted", async || node.running.sessions().bosh() == 1).await;
    let moved = node.table.claim(key("foo"), name(elsewhere), ClaimReason::Operator).await;
    assert_eq!(moved, Claimed::Stick { shard: name(elsewhere) });
    // Nothing is closed, and it counts where its conference is before its client asks again.
    eventually("it is counted there", async || bosh(&node, Which::Shard(name(elsewhere))).await == 1).await;
    assert_eq!(poll(&mut client, "/http-bind?room=foo").await, elsewhere);
    assert_eq!(bosh(&node, Which::Shard(name(&there))).await, 0);
    assert_eq!(bosh(&node, Which::Shard(name(elsewhere))).await, 1);
    assert_eq!(node.running.sessions().count(Which::All).await, Counted { tunnels: 0, bosh: 1 });
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_no_shard_answers_is_no_session() {
    let refusing = crate::harness::refusing().await;
    let mesh = Mesh::alone(Config::new(PeerId::parse("me").unwrap(), 1)).unwrap();
    let mut node = Node::start_on(mesh, &[shard("s1", refusing)], config(long()));
    let mut client = node.client().await;
    client.send("POST /http-bind?room=foo HTTP/1.1\r\nHost: meet\r\nContent-Length: 0\r\n\r\n").await;
    assert_eq!(client.answer().await.status, 503);
    assert_eq!(node.running.sessions().bosh(), 0);
    eventually("its entry is free", async || !holds(&node, "foo").await).await;
    // A shard that is there at the second try takes the session along.
    let second = Upstream::start("s2").await;
    node.discovery.publish(crate::harness::snapshot(&[shard("s1", refusing), shard("s2", second.address)]));
    eventually("the shard is known", async || node.get("/about").await.status == 200).await;
    assert_eq!(poll(&mut client, "/http-bind?room=foo").await, "s2");
    eventually("it is counted", async || bosh(&node, Which::Shard(name("s2"))).await == 1).await;
    assert_eq!(bosh(&node, Which::Shard(name("s1"))).await, 0);
    node.stop().await;
}
