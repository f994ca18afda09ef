//! What a node does with the streams of peers that do not reach a shard: connects to it, or refuses.

use crate::harness::{
    DEADLINE, Node, Pair, Upstream, config, eventually, limits, name, peer, refusing, shard, snapshot,
};
use shardgate_peering::{RelayError, RelayRefusal, RelayStream};
use shardgate_proxy::Limits;
use std::io::ErrorKind;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::sync::mpsc;
use tokio::time::timeout;

/// `a` knows no shard; `b` has a shard s1.
async fn pair(upstream: &Upstream, limits: Limits) -> Pair {
    Pair::start(|at, mesh| {
        let shards = [shard("s1", upstream.address)];
        Node::start_on(mesh, if at == 0 { &[] } else { &shards }, config(limits.clone()))
    })
    .await
}

async fn open(pair: &Pair, to: &str) -> Result<RelayStream, RelayError> {
    pair.nodes[0].relays().open(&peer("b"), &name(to), DEADLINE).await
}

fn refused(why: RelayRefusal) -> Option<RelayError> {
    Some(RelayError::Refused { why })
}

/// A shard that sends back what it gets, and tells how its connections ended.
async fn echo() -> (Upstream, mpsc::Receiver<Result<usize, ErrorKind>>) {
    let (tell, ends) = mpsc::channel(8);
    let upstream = Upstream::serve(move |stream| {
        let tell = tell.clone();
        async move {
            let (mut read, mut write) = stream.into_split();
            let mut buffer = [0; 4096];
            let mut bytes = 0;
            let end = loop {
                match read.read(&mut buffer).await {
                    Ok(0) => break Ok(bytes),
                    Ok(more) => {
                        bytes += more;
                        if write.write_all(&buffer[..more]).await.is_err() {
                            break Err(ErrorKind::BrokenPipe);
                        }
                    }
                    Err(error) => break Err(error.kind()),
                }
            };
            drop(write.shutdown().await);
            tell.send(end).await.unwrap();
        }
    })
    .await;
    (upstream, ends)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_is_carried_to_the_shard_of_its_name_and_back() {
    let (upstream, mut ends) = echo().await;
    let pair = pair(&upstream, limits()).await;
    let stream = open(&pair, "s1").await.unwrap();
    let sent: Vec<u8> = (0..3_000_000_u32).map(|n| (n % 253) as u8).collect();
    let (mut read, mut write) = tokio::io::split(stream);
    let mut back = Vec::new();
    let writing = async {
        write.write_all(&sent).await.unwrap();
        write.shutdown().await.unwrap();
    };
    let ((), heard) = tokio::join!(writing, read.read_to_end(&mut back));
    assert_eq!(heard.unwrap(), sent.len());
    assert!(back == sent);
    assert_eq!(ends.recv().await.unwrap(), Ok(sent.len()), "the shard was told the end");
    drop((read, write));
    eventually("both have let go", async || pair.nodes.iter().all(|node| node.relay_counts().open == [0, 0]))
        .await;
    let counts = pair.nodes[1].relay_counts();
    assert_eq!((counts.opened, counts.bytes), ([1, 0], [2 * sent.len() as u64, 0]));
    pair.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_break_on_one_side_is_a_break_on_the_other() {
    let (upstream, mut ends) = echo().await;
    let pair = pair(&upstream, limits()).await;
    let mut stream = open(&pair, "s1").await.unwrap();
    stream.write_all(b"a part").await.unwrap();
    stream.read_exact(&mut [0; 6]).await.unwrap();
    drop(stream);
    assert_eq!(ends.recv().await.unwrap(), Err(ErrorKind::ConnectionReset));
    pair.stop().await;
    let resetting = Upstream::serve(|mut stream| async move {
        stream.read_u8().await.unwrap();
        stream.set_zero_linger().unwrap();
    })
    .await;
    let pair = self::pair(&resetting, limits()).await;
    let mut stream = open(&pair, "s1").await.unwrap();
    stream.write_all(b"x").await.unwrap();
    assert_eq!(stream.read_u8().await.unwrap_err().kind(), ErrorKind::ConnectionReset);
    pair.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_reached_is_refused_with_why() {
    let (upstream, _ends) = echo().await;
    let mut pair = pair(&upstream, limits()).await;
    assert_eq!(open(&pair, "s2").await.err(), refused(RelayRefusal::UnknownShard));
    // What discovery says now counts, not what it said when the node began.
    let now = [shard("s2", upstream.address), shard("s1", refusing().await)];
    pair.nodes[1].discovery.publish(snapshot(&now));
    eventually("s2 is known", async || open(&pair, "s2").await.is_ok()).await;
    assert_eq!(open(&pair, "s1").await.err(), refused(RelayRefusal::Refused));
    // A node that stops takes no more; what is open goes on.
    let mut stream = open(&pair, "s2").await.unwrap();
    let b = &pair.nodes[1];
    b.relaying.refuse();
    assert_eq!(open(&pair, "s2").await.err(), refused(RelayRefusal::ShuttingDown));
    stream.write_all(b"still").await.unwrap();
    let mut heard = [0; 5];
    stream.read_exact(&mut heard).await.unwrap();
    assert_eq!(&heard, b"still");
    let refusals = b.relay_counts().refused;
    for why in ["unknown_shard", "refused", "shutting_down"] {
        assert!(refusals.iter().any(|(label, times)| *label == why && *times > 0), "{why}: {refusals:?}");
    }
    pair.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_that_pauses_for_longer_than_a_tunnel_may_ends() {
    let (upstream, mut ends) = echo().await;
    let idle = Duration::from_millis(400);
    let pair = pair(&upstream, Limits { tunnel_timeout: idle, ..limits() }).await;
    let mut stream = open(&pair, "s1").await.unwrap();
    let began = std::time::Instant::now();
    stream.write_all(b"x").await.unwrap();
    assert_eq!(stream.read_u8().await.unwrap(), b'x');
    let mut rest = Vec::new();
    timeout(DEADLINE, stream.read_to_end(&mut rest)).await.unwrap().unwrap();
    assert!(rest.is_empty() && began.elapsed() >= idle * 3 / 4, "{:?}", began.elapsed());
    assert_eq!(ends.recv().await.unwrap(), Ok(1));
    pair.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_open_ends_with_the_mesh() {
    let (upstream, mut ends) = echo().await;
    let pair = pair(&upstream, limits()).await;
    let mut stream = open(&pair, "s1").await.unwrap();
    stream.write_all(b"x").await.unwrap();
    assert_eq!(stream.read_u8().await.unwrap(), b'x');
    let Pair { nodes: [a, b], listed } = pair;
    b.stop().await;
    assert_eq!(stream.read_u8().await.unwrap_err().kind(), ErrorKind::NotConnected);
    assert_eq!(ends.recv().await.unwrap(), Err(ErrorKind::ConnectionReset));
    drop(listed);
    a.stop().await;
}
