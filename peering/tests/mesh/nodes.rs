//! Who is let in, who is refused, and what a refusal costs the others.

use std::time::Duration;

use shardgate_peering::core::{Config, ShardName, StickKey};
use shardgate_peering::{
    ALPN, ClaimReason, Claimed, IdentityFiles, Mesh, MeshConfig, MeshError, RELAYED_STREAMS_MAX, Reached,
    Readiness,
};
use tokio::sync::watch;
use tokio::task::JoinHandle;

use crate::harness::{
    Ca, Raw, Running, environment, free, join, pair, pair_and, peer, rand_incarnation, ready, start,
    start_at, until,
};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_nodes_share_their_table_and_first_joins_at_once_get_one_shard() {
    let ca = Ca::new("test", &["a", "b"]);
    let (a, b) = pair(&ca).await;
    for n in 0..100 {
        let room = format!("room-{n}");
        let (one, other) = tokio::join!(join(&a, &room, "s1"), join(&b, &room, "s2"));
        assert_eq!(one, other, "{room}");
    }
    until("b knows all", async || b.mesh.handle().conferences_total() == 100).await;
    until("a knows all", async || a.mesh.handle().conferences_total() == 100).await;
    assert_eq!(a.mesh.handle().status().await.stats.decided_alone, 0);
    // One connection per pair, whoever dialled.
    let counts = a.mesh.counters().read();
    assert!(counts.connected <= 2, "{counts:?}");
    a.mesh.shutdown().await;
    b.mesh.shutdown().await;
}

/// Somebody who answers all probes of a node alike.
fn probes(running: &mut Running, reached: watch::Receiver<Reached>) -> JoinHandle<u32> {
    let mut asks = running.mesh.take_probes().unwrap();
    assert!(running.mesh.take_probes().is_none(), "there is one who probes");
    tokio::spawn(async move {
        let mut asked = 0;
        while let Some(ask) = asks.recv().await {
            asked += 1;
            ask.reply.send(*reached.borrow()).unwrap();
        }
        asked
    })
}

async fn down(running: &Running, room: &str, failed: &str, proposal: &str) -> Claimed {
    let (key, shard) = (StickKey::parse(room).unwrap(), ShardName::parse(proposal).unwrap());
    let failed = ShardName::parse(failed).unwrap();
    running.mesh.handle().claim(key, shard, ClaimReason::Down { failed }).await
}

/// One node of three reaches the shard: the conferences stay, by that node. Then nobody does, and they move; on c nobody probes at all.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_shard_is_left_when_no_node_reaches_it() {
    let ca = Ca::new("test", &["a", "b", "c"]);
    let at_c = free();
    let (mut a, mut b) = pair_and(&ca, &[("c", at_c)]).await;
    let list = [("a", a.address()), ("b", b.address()), ("c", at_c)];
    let c = start_at(at_c, &list, "c", ca.identity("c"), &ca.environment).unwrap();
    ready(&c).await;
    let (_a_finds, a_reaches) = watch::channel(Reached::No);
    let (b_finds, b_reaches) = watch::channel(Reached::Yes);
    let (a_probes, b_probes) = (probes(&mut a, a_reaches), probes(&mut b, b_reaches));
    let rooms: Vec<String> = (0..30).map(|n| format!("room-{n}")).collect();
    for room in &rooms {
        assert_eq!(join(&a, room, "s1").await, "s1");
    }
    for each in [&b, &c] {
        until("all are known", async || each.mesh.handle().conferences_total() == 30).await;
    }
    let by_b = Claimed::Keep { shard: ShardName::parse("s1").unwrap(), via: vec![peer("b")] };
    for room in &rooms {
        assert_eq!(down(&a, room, "s1", "s2").await, by_b, "{room}");
    }
    b_finds.send_replace(Reached::No);
    // What b said holds for a second.
    until("it is asked again", async || down(&a, &rooms[0], "s1", "s2").await != by_b).await;
    for room in &rooms {
        until("it is asked again", async || down(&c, room, "s1", "s3").await != by_b).await;
    }
    let moved = |running: &Running| {
        let handle = running.mesh.handle();
        rooms.iter().map(|room| handle.lookup(room).unwrap().to_string()).collect::<Vec<_>>()
    };
    for each in [&a, &b, &c] {
        until("nobody is on it", async || moved(each).iter().all(|shard| shard != "s1")).await;
        assert_eq!(moved(each)[0], "s2");
    }
    assert_eq!(moved(&a), moved(&b));
    assert_eq!(moved(&a), moved(&c));
    let mut rounds = 0;
    for each in [&a, &b, &c] {
        let stats = each.mesh.handle().status().await.stats;
        assert_eq!(stats.decided_alone, 0);
        rounds += stats.rounds;
    }
    for running in [a, b, c] {
        running.mesh.shutdown().await;
    }
    for probes in [a_probes, b_probes] {
        let asked = u64::from(probes.await.unwrap());
        assert!(asked <= rounds, "{asked} probes in {rounds} rounds");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_restarted_node_learns_everything_again() {
    let ca = Ca::new("test", &["a", "b"]);
    let (a, b) = pair(&ca).await;
    for n in 0..3_000 {
        join(&a, &format!("room-{n}"), "s1").await;
    }
    let address = b.address();
    let list = [("a", a.address()), ("b", address)];
    b.mesh.shutdown().await;
    let mut again = None;
    until("the address is free", async || {
        again = start_at(address, &list, "b", ca.identity("b"), &ca.environment).ok();
        again.is_some()
    })
    .await;
    let b = again.unwrap();
    ready(&b).await;
    assert_eq!(b.mesh.handle().conferences_total(), 3_000, "ready means taught");
    a.mesh.shutdown().await;
    b.mesh.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_peer_that_discovery_drops_is_disconnected_and_comes_back_when_listed() {
    let ca = Ca::new("test", &["a", "b"]);
    let (a, b) = pair(&ca).await;
    let (at_a, at_b) = (a.address(), b.address());
    a.knows(&[("a", at_a)]);
    until("disconnected", async || a.mesh.handle().status().await.peers.is_empty()).await;
    join(&a, "alone", "s1").await;
    a.knows(&[("a", at_a), ("b", at_b)]);
    until("b learns", async || b.mesh.handle().lookup("alone").is_some()).await;
    a.mesh.shutdown().await;
    b.mesh.shutdown().await;
}

/// A node that has just been started is listed by its peers a moment later, when their discovery has seen it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_that_its_peer_does_not_list_yet_waits_for_it() {
    let ca = Ca::new("test", &["a", "b"]);
    let (at_a, at_b) = (free(), free());
    let a = start_at(at_a, &[("a", at_a)], "a", ca.identity("a"), &ca.environment).unwrap();
    ready(&a).await;
    assert_eq!(join(&a, "foo", "s1").await, "s1");
    let both = [("a", at_a), ("b", at_b)];
    let b = start_at(at_b, &both, "b", ca.identity("b"), &ca.environment).unwrap();
    until("a refused b three times", async || a.ends("not-listed") >= 3).await;
    assert!(matches!(b.mesh.handle().readiness(), Readiness::NotReady { .. }), "it would decide beside a");
    a.knows(&both);
    ready(&b).await;
    assert_eq!(join(&b, "foo", "s2").await, "s1", "the table was learnt before");
}

/// As long as discovery has said nothing, nobody listed does not mean nobody there.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_whose_discovery_is_silent_does_not_decide_alone() {
    let ca = Ca::new("test", &["a", "b"]);
    let (at_a, at_b) = (free(), free());
    let both = [("a", at_a), ("b", at_b)];
    let a = start_at(at_a, &both[..1], "a", ca.identity("a"), &ca.environment).unwrap();
    ready(&a).await;
    assert_eq!(join(&a, "foo", "s1").await, "s1");
    a.knows(&both);
    let (peers, listed) = watch::channel(None);
    let config = MeshConfig {
        listen: at_b,
        identity: ca.identity("b"),
        environment: ca.environment.clone(),
        idle_timeout: Duration::from_secs(4),
        relayed_streams_max: RELAYED_STREAMS_MAX,
    };
    let mesh = Mesh::start(Config::new(peer("b"), rand_incarnation()), config, listed).unwrap();
    let b = Running { mesh, peers };
    // It reaches b, which takes nobody in that it does not know.
    until("b refused a three times", async || b.ends("not-listed") >= 3).await;
    assert!(matches!(b.mesh.handle().readiness(), Readiness::NotReady { .. }), "it would decide beside a");
    b.knows(&both);
    ready(&b).await;
    assert_eq!(join(&b, "foo", "s2").await, "s1", "the table was learnt before");
    b.mesh.shutdown().await;
    a.mesh.shutdown().await;
}

/// Starts an intruder that believes to be `name`, and waits until `a` has refused it for `reason`.
async fn refused(a: &Running, b: &Running, intruder: Result<Running, MeshError>, reason: &str) {
    let intruder = intruder.unwrap();
    let before = a.ends(reason);
    intruder.knows(&[("a", a.address())]);
    until(reason, async || a.ends(reason) > before).await;
    assert_eq!(intruder.mesh.handle().conferences_total(), 0, "it learned nothing");
    // The others are not disturbed: a new conference is known at once, and no connection was made anew.
    let connected = a.mesh.counters().read().connected;
    let room = format!("after-{reason}");
    join(a, &room, "s1").await;
    until("b knows", async || b.mesh.handle().lookup(&room).is_some()).await;
    assert_eq!(a.mesh.counters().read().connected, connected);
    intruder.mesh.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn strangers_are_refused_and_counted_and_nobody_else_notices() {
    let ca = Ca::new("test", &["a", "b", "c"]);
    let (a, b) = pair(&ca).await;
    let other_ca = Ca::new("test", &["b"]);
    refused(&a, &b, start("b", other_ca.identity("b"), &other_ca.environment), "wrong-ca").await;
    refused(&a, &b, start("c", ca.identity("c"), &ca.environment), "not-listed").await;
    // The same CA signs for another environment: the intruder dials with the name its own environment gives to a.
    let staging = environment("staging");
    ca.files().issue(&staging, &peer("d")).unwrap();
    let raw = Raw::new(&ca.identity("d"), ALPN[0]);
    let connection = raw.dial(a.address(), "a.test.mesh.shardgate.internal").await.unwrap();
    let before = a.ends("wrong-environment");
    connection.closed().await;
    until("wrong environment", async || a.ends("wrong-environment") > before || before > 0).await;
    a.mesh.shutdown().await;
    b.mesh.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_that_finds_somebody_else_at_an_address_says_so() {
    let ca = Ca::new("test", &["a", "b", "c"]);
    let (a, b) = pair(&ca).await;
    let c = start("c", ca.identity("c"), &ca.environment).unwrap();
    // c is told that b is where a is: a's certificate is not b's.
    c.knows(&[("b", a.address())]);
    until("wrong name", async || c.ends("wrong-name") > 0).await;
    ready(&c).await;
    for running in [a, b, c] {
        running.mesh.shutdown().await;
    }
}

#[tokio::test]
async fn a_node_does_not_start_with_another_ones_certificate() {
    let ca = Ca::new("test", &["a", "b"]);
    let wrong = start("a", ca.identity("b"), &ca.environment).err().unwrap().to_string();
    assert!(
        wrong.contains("is for b.test.mesh.shardgate.internal, expected a.test.mesh.shardgate.internal"),
        "{wrong}"
    );
    let missing = start("a", ca.identity("nobody"), &ca.environment).err().unwrap().to_string();
    assert!(missing.starts_with("mesh.cert ") && missing.contains("nobody.pem"), "{missing}");
    let files = IdentityFiles { key: ca.dir.path().join("b.key"), ..ca.identity("a") };
    let mixed = start("a", files, &ca.environment).err().unwrap().to_string();
    assert!(mixed.starts_with("mesh.identity"), "{mixed}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn another_protocol_version_is_refused() {
    let ca = Ca::new("test", &["a", "b"]);
    let (a, b) = pair(&ca).await;
    let raw = Raw::new(&ca.identity("b"), b"shardgate-mesh/99");
    let error = raw.dial(a.address(), "a.test.mesh.shardgate.internal").await.unwrap_err();
    assert!(error.to_string().contains("any known protocol"), "{error}");
    until("counted", async || a.ends("wrong-alpn") > 0).await;
    a.mesh.shutdown().await;
    b.mesh.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn hostile_frames_end_that_connection_only() {
    let ca = Ca::new("test", &["a", "b", "c"]);
    let (a, b) = pair_and(&ca, &[("c", free())]).await;
    let before = b.mesh.counters().read();
    let garbage: Vec<u8> = std::iter::repeat_n(0xff, 60).collect();
    let frame = |body: &[u8]| {
        let mut frame = u32::try_from(body.len()).unwrap().to_be_bytes().to_vec();
        frame.extend_from_slice(body);
        frame
    };
    let cases: [(&str, Vec<u8>, &str); 4] = [
        ("4 GiB announced", vec![0xff; 4], "bad-frame"),
        ("no protobuf", frame(&garbage), "bad-frame"),
        ("cut off", vec![0, 0, 0, 9, 1], "bad-frame"),
        // An acknowledgement (field 4, empty) and no hello.
        ("not greeted", frame(&[0x22, 0x00]), "timed-out"),
    ];
    for (index, (why, bytes, reason)) in cases.iter().enumerate() {
        let raw = Raw::new(&ca.identity("c"), ALPN[0]);
        let connection = raw.dial(a.address(), "a.test.mesh.shardgate.internal").await.unwrap();
        let mut stream = connection.open_uni().await.unwrap();
        stream.write_all(bytes).await.unwrap();
        stream.finish().unwrap();
        let error = connection.closed().await;
        assert!(error.to_string().contains(reason), "{why}: {error}");
        until(why, async || a.ends(reason) >= if *reason == "timed-out" { 1 } else { index as u64 + 1 })
            .await;
    }
    join(&a, "still-here", "s1").await;
    until("b knows", async || b.mesh.handle().lookup("still-here").is_some()).await;
    let after = b.mesh.counters().read();
    assert_eq!(after.connected, before.connected, "b's connection stood: {before:?} {after:?}");
    a.mesh.shutdown().await;
    b.mesh.shutdown().await;
}
