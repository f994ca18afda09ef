//! Finds out for the mesh whether shards can be reached from here: whoever holds conferences on one that somebody could not reach asks.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use shardgate_discovery::Snapshot;
use shardgate_peering::{ProbeAsk, Reached};
use shardgate_peering_core::ShardName;
use tokio::net::TcpStream;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::{JoinHandle, JoinSet};
use tokio::time::timeout;

/// Less than the half second that a home waits: the answer has to travel.
const PROBE_TIMEOUT: Duration = Duration::from_millis(400);
/// Shards probed at once. Others wait, and what has waited for too long is answered by who asked.
const PROBES_AT_ONCE: usize = 64;

/// Probes shards as long as the mesh asks.
pub(super) fn spawn(
    asks: mpsc::Receiver<ProbeAsk>,
    snapshots: watch::Receiver<Arc<Snapshot>>,
) -> JoinHandle<()> {
    tokio::spawn(Prober { asks, snapshots, probes: JoinSet::new(), waiting: HashMap::new() }.run())
}

struct Prober {
    asks: mpsc::Receiver<ProbeAsk>,
    snapshots: watch::Receiver<Arc<Snapshot>>,
    probes: JoinSet<(ShardName, Reached)>,
    /// Who waits for the probe of a shard.
    waiting: HashMap<ShardName, Vec<oneshot::Sender<Reached>>>,
}

impl Prober {
    async fn run(mut self) {
        loop {
            tokio::select! {
                Some(Ok((shard, reached))) = self.probes.join_next() => {
                    for reply in self.waiting.remove(&shard).into_iter().flatten() {
                        // Who asked may have given up.
                        let _gone = reply.send(reached);
                    }
                }
                ask = self.asks.recv(), if self.probes.len() < PROBES_AT_ONCE => match ask {
                    Some(ask) => self.ask(ask),
                    None => return,
                },
            }
        }
    }

    /// One connection tells all who ask while it is being made.
    fn ask(&mut self, ProbeAsk { shard, reply }: ProbeAsk) {
        if let Some(waiting) = self.waiting.get_mut(&shard) {
            waiting.push(reply);
            return;
        }
        let address = self.snapshots.borrow().shard(shard.as_str()).map(|shard| shard.address);
        let Some(address) = address else {
            // Not known here: not reachable from here.
            let _gone = reply.send(Reached::No);
            return;
        };
        self.waiting.insert(shard.clone(), vec![reply]);
        self.probes.spawn(async move {
            let connected = timeout(PROBE_TIMEOUT, TcpStream::connect(address)).await;
            (shard, if matches!(connected, Ok(Ok(_))) { Reached::Yes } else { Reached::No })
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::route::tests::shard;
    use shardgate_discovery::{Shard, SnapshotBuilder};
    use tokio::net::TcpListener;

    async fn probe(asks: &mpsc::Sender<ProbeAsk>, name: &str) -> Reached {
        let (reply, answer) = oneshot::channel();
        asks.send(ProbeAsk { shard: ShardName::parse(name).unwrap(), reply }).await.unwrap();
        answer.await.unwrap()
    }

    #[tokio::test]
    async fn a_shard_that_listens_is_reached_and_no_other_one() {
        let listens = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let refuses = {
            let gone = TcpListener::bind("127.0.0.1:0").await.unwrap();
            gone.local_addr().unwrap()
        };
        let at = |name, address| Shard { address, ..shard(name, "here", "live") };
        let snapshot = SnapshotBuilder::new()
            .shard(at("up", listens.local_addr().unwrap()))
            .shard(at("down", refuses))
            .build()
            .unwrap();
        let (_told, snapshots) = watch::channel(Arc::new(snapshot));
        let (asks, taken) = mpsc::channel(8);
        let prober = spawn(taken, snapshots);
        assert_eq!(probe(&asks, "up").await, Reached::Yes);
        assert_eq!(probe(&asks, "down").await, Reached::No);
        assert_eq!(probe(&asks, "unknown").await, Reached::No);
        let both = tokio::join!(probe(&asks, "up"), probe(&asks, "up"));
        assert_eq!(both, (Reached::Yes, Reached::Yes));
        drop(asks);
        prober.await.unwrap();
    }
}
