//! Streams that lead to a shard by way of a peer.

use std::io::ErrorKind;
use std::time::Duration;

use shardgate_peering::codec::{self, Decoder, RELAY_FRAME_MAX};
use shardgate_peering::core::{Hello, Message, PeerId, ShardName};
use shardgate_peering::{ALPN, RelayError, RelayRefusal, RelayStream, Relayed};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::{Instant, timeout};

use crate::harness::{Ca, Raw, Running, free, join, pair, pair_and, peer, ready, start_relaying, until};

/// Longer than anything here takes.
const WITHIN: Duration = Duration::from_secs(15);

fn shard(name: &str) -> ShardName {
    ShardName::parse(name).unwrap()
}

async fn open(from: &Running, to: &PeerId) -> Result<RelayStream, RelayError> {
    from.mesh.relays().open(to, &shard("s1"), WITHIN).await
}

/// A stream from a to b, both ends.
async fn opened(a: &Running, taken: &mut mpsc::Receiver<Relayed>) -> (RelayStream, RelayStream) {
    let b = peer("b");
    let (ours, theirs) =
        tokio::join!(open(a, &b), timeout(WITHIN, async { taken.recv().await.unwrap().accept().await }));
    (ours.unwrap(), theirs.expect("asked in time").unwrap())
}

async fn stop(nodes: impl IntoIterator<Item = Running>) {
    for node in nodes {
        node.mesh.shutdown().await;
    }
}

fn count(list: &[(&'static str, u64)], label: &str) -> u64 {
    list.iter().find(|(found, _)| *found == label).unwrap().1
}

/// Two nodes, of which each takes so many streams.
async fn pair_taking(ca: &Ca, at_a: u32, at_b: u32) -> (Running, Running) {
    let (a, b) = (("a", free()), ("b", free()));
    let start = |node: (&'static str, _), max| {
        start_relaying(node, &[a, b], ca.identity(node.0), &ca.environment, max).unwrap()
    };
    let (a, b) = (start(a, at_a), start(b, at_b));
    ready(&a).await;
    ready(&b).await;
    (a, b)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn bytes_pass_both_ways_as_they_are_and_nothing_runs_over() {
    let ca = Ca::new("test", &["a", "b"]);
    let (a, mut b) = pair(&ca).await;
    let mut taken = b.mesh.take_relayed().unwrap();
    assert!(b.mesh.take_relayed().is_none(), "one taker");
    let echo = tokio::spawn(async move {
        let asked = taken.recv().await.unwrap();
        assert_eq!((asked.from.as_str(), asked.shard.as_str()), ("a", "s1"));
        assert!(asked.connect_within <= WITHIN && asked.connect_within > WITHIN / 2);
        let (mut read, mut write) = tokio::io::split(asked.accept().await.unwrap());
        let copied = tokio::io::copy(&mut read, &mut write).await.unwrap();
        write.shutdown().await.unwrap();
        copied
    });
    let stream = open(&a, &peer("b")).await.unwrap();
    assert_eq!(stream.peer().as_str(), "b");
    assert_eq!(
        (a.mesh.counters().read().relays.open, b.mesh.counters().read().relays.open),
        ([0, 1], [1, 0])
    );
    let sent: Vec<u8> = (0..10_000_000_u32).map(|n| (n % 251) as u8).collect();
    let (mut read, mut write) = tokio::io::split(stream);
    let writing = async {
        write.write_all(&sent).await.unwrap();
        write.shutdown().await.unwrap();
    };
    let mut back = Vec::new();
    let ((), read_back) = tokio::join!(writing, read.read_to_end(&mut back));
    assert_eq!(read_back.unwrap(), sent.len());
    assert!(back == sent, "as they were sent");
    assert_eq!(echo.await.unwrap(), sent.len() as u64);
    drop((read, write));
    for (node, side) in [(&a, 1), (&b, 0)] {
        let counts = node.mesh.counters().read().relays;
        assert_eq!(
            (counts.open, counts.opened[side], counts.bytes[side]),
            ([0, 0], 1, 2 * sent.len() as u64)
        );
    }
    stop([a, b]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_side_can_end_its_own_way_first() {
    let ca = Ca::new("test", &["a", "b"]);
    let (a, mut b) = pair(&ca).await;
    let mut taken = b.mesh.take_relayed().unwrap();
    for opener_first in [true, false] {
        let (ours, theirs) = opened(&a, &mut taken).await;
        let (mut first, mut second) = if opener_first { (ours, theirs) } else { (theirs, ours) };
        let mut heard = Vec::new();
        first.write_all(b"question").await.unwrap();
        first.shutdown().await.unwrap();
        second.read_to_end(&mut heard).await.unwrap();
        assert_eq!(heard, b"question");
        second.write_all(b"answer").await.unwrap();
        // Dropped after its end: what was sent arrives all the same.
        second.shutdown().await.unwrap();
        drop(second);
        heard.clear();
        first.read_to_end(&mut heard).await.unwrap();
        assert_eq!(heard, b"answer");
    }
    stop([a, b]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_dropped_or_reset_ends_with_an_error_at_the_other_side() {
    let ca = Ca::new("test", &["a", "b"]);
    let (a, mut b) = pair(&ca).await;
    let mut taken = b.mesh.take_relayed().unwrap();
    for (opener_leaves, by_drop) in [(true, true), (false, true), (true, false), (false, false)] {
        let (ours, theirs) = opened(&a, &mut taken).await;
        let (mut leaves, mut stays) = if opener_leaves { (ours, theirs) } else { (theirs, ours) };
        leaves.write_all(b"a part").await.unwrap();
        if by_drop {
            drop(leaves);
        } else {
            leaves.reset();
            assert_eq!(leaves.read_u8().await.unwrap_err().kind(), ErrorKind::ConnectionAborted);
            assert!(leaves.write_all(b"x").await.is_err());
        }
        let mut heard = Vec::new();
        let ended = stays.read_to_end(&mut heard).await.unwrap_err();
        assert_eq!(ended.kind(), ErrorKind::ConnectionReset, "no part is taken for the whole");
        until("nothing can be sent", async || stays.write_all(b"x").await.is_err()).await;
    }
    stop([a, b]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_refusal_is_told_and_counted_on_both_sides() {
    let ca = Ca::new("test", &["a", "b"]);
    let (a, mut b) = pair(&ca).await;
    // Nobody takes anything yet.
    let refused = |why| Some(RelayError::Refused { why });
    assert_eq!(open(&a, &peer("b")).await.err(), refused(RelayRefusal::Overload));
    assert_eq!(open(&a, &peer("c")).await.err(), Some(RelayError::NotConnected));
    let mut taken = b.mesh.take_relayed().unwrap();
    for why in RelayRefusal::ALL {
        let there = peer("b");
        let (ours, ()) =
            tokio::join!(open(&a, &there), async { taken.recv().await.unwrap().refuse(why).await });
        assert_eq!(ours.err(), refused(why));
    }
    // One that is given up by whoever took it.
    let there = peer("b");
    let (ours, ()) = tokio::join!(open(&a, &there), async { drop(taken.recv().await.unwrap()) });
    assert_eq!(ours.err(), Some(RelayError::Lost));
    drop(taken);
    assert_eq!(open(&a, &there).await.err(), refused(RelayRefusal::ShuttingDown));
    let (asked, given) = (a.mesh.counters().read().relays, b.mesh.counters().read().relays);
    for why in RelayRefusal::ALL {
        let times = if matches!(why, RelayRefusal::Overload | RelayRefusal::ShuttingDown) { 2 } else { 1 };
        assert_eq!((count(&asked.failed, why.as_str()), count(&given.refused, why.as_str())), (times, times));
    }
    assert_eq!((count(&asked.failed, "not_connected"), count(&asked.failed, "lost")), (1, 1));
    assert_eq!((asked.open, given.open, asked.opened, given.opened), ([0; 2], [0; 2], [0; 2], [0; 2]));
    stop([a, b]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_peer_that_takes_too_slowly_refuses_the_rest() {
    let ca = Ca::new("test", &["a", "b"]);
    let (a, mut b) = pair(&ca).await;
    let taken = b.mesh.take_relayed().unwrap();
    let waiting: JoinSet<_> = (0..256)
        .map(|_| {
            let relays = a.mesh.relays();
            async move { relays.open(&peer("b"), &shard("s1"), WITHIN).await.map(drop) }
        })
        .collect();
    until("all wait", async || taken.len() == 256).await;
    assert_eq!(open(&a, &peer("b")).await.err(), Some(RelayError::Refused { why: RelayRefusal::Overload }));
    drop(taken);
    assert!(waiting.join_all().await.into_iter().all(|opened| opened == Err(RelayError::Lost)));
    stop([a, b]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn streams_are_bounded_by_both_sides() {
    let ca = Ca::new("test", &["a", "b"]);
    let (a, mut b) = pair_taking(&ca, 3, 2).await;
    let mut taken = b.mesh.take_relayed().unwrap();
    let (first, second) = (opened(&a, &mut taken).await, opened(&a, &mut taken).await);
    // The peer's bound: a place may become free, so it is waited for.
    let began = Instant::now();
    let within = Duration::from_millis(200);
    let third = a.mesh.relays().open(&peer("b"), &shard("s1"), within).await;
    assert_eq!(third.err(), Some(RelayError::TooMany));
    assert!(began.elapsed() >= within);
    drop(first);
    let again = opened(&a, &mut taken).await;
    drop((second, again));
    stop([a, b]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn as_many_streams_as_the_bound_says_can_be_open() {
    let ca = Ca::new("test", &["a", "b"]);
    let (a, mut b) = pair_taking(&ca, 1_000, 1_000).await;
    let mut taken = b.mesh.take_relayed().unwrap();
    tokio::spawn(async move {
        let mut open = Vec::new();
        while let Some(asked) = taken.recv().await {
            let mut stream = asked.accept().await.unwrap();
            stream.write_all(b"!").await.unwrap();
            open.push(stream);
        }
    });
    let mut open_here = Vec::new();
    for _ in 0..1_000 {
        let mut stream = open(&a, &peer("b")).await.unwrap();
        assert_eq!(stream.read_u8().await.unwrap(), b'!');
        open_here.push(stream);
    }
    let began = Instant::now();
    assert_eq!(open(&a, &peer("b")).await.err(), Some(RelayError::TooMany));
    assert!(began.elapsed() < WITHIN, "the own bound is known without asking");
    assert_eq!(b.mesh.counters().read().relays.open, [1_000, 0]);
    stop([a, b]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn streams_end_with_their_connection() {
    let ca = Ca::new("test", &["a", "b"]);
    let (a, mut b) = pair(&ca).await;
    let mut taken = b.mesh.take_relayed().unwrap();
    let (ours, theirs) = opened(&a, &mut taken).await;
    let (mut read, mut write) = tokio::io::split(ours);
    let writing = tokio::spawn(async move {
        let block = [0; 4_096];
        while write.write_all(&block).await.is_ok() {}
    });
    until("under way", async || {
        b.mesh.counters().read().relays.bytes[0] > 0 || { a.mesh.counters().read().relays.bytes[1] > 0 }
    })
    .await;
    b.mesh.shutdown().await;
    let ended = timeout(WITHIN, read.read_u8()).await.unwrap().unwrap_err();
    assert_eq!(ended.kind(), ErrorKind::NotConnected);
    timeout(WITHIN, writing).await.unwrap().unwrap();
    drop(theirs);
    until("no way any more", async || open(&a, &peer("b")).await.err() == Some(RelayError::NotConnected))
        .await;
    stop([a]).await;
}

/// A hello, so that a node bears with whoever said it.
async fn greet(connection: &quinn::Connection) -> quinn::SendStream {
    let hello = Hello {
        contract: 1,
        contract_oldest: 1,
        incarnation: 7,
        ready: false,
        capacity: 1_000_000,
        resume: None,
    };
    let body = codec::encode(&Message::Hello(hello));
    assert!(Decoder::default().decode(&body).is_ok() && body.len() < 0x80);
    let mut stream = connection.open_uni().await.unwrap();
    stream.write_all(&[&[body.len() as u8], &body[..]].concat()).await.unwrap();
    stream
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stream_that_says_something_else_is_reset_and_the_connection_stays() {
    let ca = Ca::new("test", &["a", "b", "c"]);
    let (mut a, b) = pair_and(&ca, &[("c", free())]).await;
    let mut taken = a.mesh.take_relayed().unwrap();
    let raw = Raw::new(&ca.identity("c"), ALPN[0]);
    let connection = raw.dial(a.address(), "a.test.mesh.shardgate.internal").await.unwrap();
    let _greeting = greet(&connection).await;
    let long = [&[0x80, 0x08][..], &[0; 1_024]].concat();
    assert!(long.len() > RELAY_FRAME_MAX);
    let cases: [(&str, &[u8]); 6] = [
        ("garbage", &[4, 0xff, 0xff, 0xff, 0xff]),
        ("oversize", &long),
        ("an endless length", &[0xff; 64]),
        ("no shard", &[0]),
        ("no name", &[5, 0x0a, 3, b'a', b' ', b'b']),
        ("nothing", &[]),
    ];
    for (bad, (why, bytes)) in cases.iter().enumerate() {
        let (mut send, mut receive) = connection.open_bi().await.unwrap();
        // A stream begins to exist with its first bytes; half a length is nothing yet.
        send.write_all(if bytes.is_empty() { &[0x80] } else { bytes }).await.unwrap();
        let answer = receive.read_to_end(100).await;
        assert!(
            matches!(answer, Err(quinn::ReadToEndError::Read(quinn::ReadError::Reset(_)))),
            "{why}: {answer:?}"
        );
        assert_eq!(count(&a.mesh.counters().read().relays.refused, "bad_frame"), bad as u64 + 1, "{why}");
        assert!(connection.close_reason().is_none(), "{why}");
    }
    // One that is cut off, or left before it said anything, is nobody's fault.
    let (mut send, _receive) = connection.open_bi().await.unwrap();
    send.write_all(&[9, 1]).await.unwrap();
    send.reset(9_u32.into()).unwrap();
    // The connection serves on, and so does b's.
    let open = codec::RelayOpen { shard: shard("s9"), connect_within: WITHIN };
    let (mut send, mut receive) = connection.open_bi().await.unwrap();
    send.write_all(&codec::encode_relay_open(&open)).await.unwrap();
    let asked = taken.recv().await.unwrap();
    assert_eq!((asked.from.as_str(), asked.shard.as_str()), ("c", "s9"));
    asked.refuse(RelayRefusal::UnknownShard).await;
    let answer = receive.read_to_end(100).await.unwrap();
    assert_eq!(codec::decode_relay_opened(&answer[1..]), Ok(Err(RelayRefusal::UnknownShard)));
    join(&a, "still-here", "s1").await;
    until("b knows", async || b.mesh.handle().lookup("still-here").is_some()).await;
    stop([a, b]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_peer_that_answers_something_else_or_nothing_relays_nothing() {
    let ca = Ca::new("test", &["a", "b", "c"]);
    let (a, b) = pair_and(&ca, &[("c", free())]).await;
    let raw = Raw::new(&ca.identity("c"), ALPN[0]);
    let connection = raw.dial(a.address(), "a.test.mesh.shardgate.internal").await.unwrap();
    let _greeting = greet(&connection).await;
    let relays = a.mesh.relays();
    // A greeting is answered by the driver; whose connection is kept the supervisor says.
    until("there is a way to it", async || !relays.nearest(&[peer("c")]).is_empty()).await;
    for (answer, garbled) in
        [(&[2, 8, 0][..], true), (&[2, 8, 99], true), (&[0x80, 0x10], true), (&[], false)]
    {
        let within = Duration::from_millis(500);
        let there = peer("c");
        let asked = shard("s1");
        let both = async {
            tokio::join!(relays.open(&there, &asked, within), async {
                let (mut send, receive) = connection.accept_bi().await.unwrap();
                send.write_all(answer).await.unwrap();
                (send, receive)
            })
        };
        let (opened, _streams) = timeout(Duration::from_secs(10), both).await.unwrap();
        let error = opened.err().unwrap();
        assert_eq!(matches!(error, RelayError::Garbled(_)), garbled, "{error}");
        assert!(garbled || error == RelayError::NoAnswer, "{error}");
    }
    stop([a, b]).await;
}

/// Readers that stand still keep what QUIC holds for them, and no more: the lanes have a window of their own.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn stalled_streams_delay_neither_claims_nor_updates_nor_other_streams() {
    const STALLED: u64 = 200;
    let ca = Ca::new("test", &["a", "b"]);
    let (a, mut b) = pair(&ca).await;
    let mut taken = b.mesh.take_relayed().unwrap();
    let mut writers = JoinSet::new();
    let mut readers = Vec::new();
    for _ in 0..STALLED {
        let (ours, theirs) = opened(&a, &mut taken).await;
        for stream in [ours, theirs] {
            let (read, mut write) = tokio::io::split(stream);
            readers.push(read);
            writers.spawn(async move {
                let block = vec![0; 65_536];
                while write.write_all(&block).await.is_ok() {}
            });
        }
    }
    // All that one stream's window takes, less the frame before it.
    let each = (256 << 10) - 64;
    until("all stand still", async || {
        let bytes = [a.mesh.counters().read().relays.bytes[1], b.mesh.counters().read().relays.bytes[0]];
        bytes.into_iter().all(|bytes| bytes >= STALLED * each)
    })
    .await;
    for n in 0..50 {
        let room = format!("room-{n}");
        let (one, other) = tokio::join!(join(&a, &room, "s1"), join(&b, &room, "s2"));
        assert_eq!(one, other, "{room}");
    }
    for node in [&a, &b] {
        until("all is known", async || node.mesh.handle().conferences_total() == 50).await;
        assert_eq!(node.mesh.handle().status().await.stats.decided_alone, 0);
    }
    let (mut ours, mut theirs) = opened(&a, &mut taken).await;
    ours.write_all(b"hello").await.unwrap();
    let mut heard = [0; 5];
    theirs.read_exact(&mut heard).await.unwrap();
    assert_eq!(&heard, b"hello");
    drop(readers);
    stop([a, b]).await;
}
