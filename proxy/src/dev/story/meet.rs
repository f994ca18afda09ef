//! People meet: two by two through different regions, and fifty rooms that are opened everywhere at once.

use std::collections::BTreeMap;
use std::sync::Arc;

use tokio::sync::Barrier;
use tokio::task::JoinSet;

use super::{Cast, PATIENCE, Story, talk, together};

/// Rooms opened at the same moment through all nodes.
const ROOMS: usize = 50;

impl Story {
    /// Room `alpha` is opened in region-a, `beta` in region-b; somebody of the other region follows into each.
    pub(super) async fn people_meet(&mut self) -> Cast {
        let ann = self.join("a1", "alpha", "Ann");
        let cleo = self.join("b2", "beta", "Cleo");
        for first in [&ann, &cleo] {
            // What goes wrong here is what the assertions below see and say.
            first.until(self.patience(), |seen| seen.connected).await.ok();
        }
        let bob = self.join("b1", "alpha", "Bob");
        let dirk = self.join("a2", "beta", "Dirk");
        let met = together(&[&ann, &bob], self.patience()).await;
        self.report.assert("meet: Ann (through a1) and Bob (through b1) are in one room, alpha", met);
        let met = together(&[&cleo, &dirk], self.patience()).await;
        self.report.assert("meet: Cleo (through b2) and Dirk (through a2) are in one room, beta", met);
        let heard = talk(&[&ann, &bob], "hello", self.patience()).await;
        self.report.assert("meet: Ann and Bob hear each other", heard);
        let shards = (ann.seen().shard, cleo.seen().shard);
        let placed = match (shards.0.as_str(), shards.1.as_str()) {
            ("s1", "s2") => Ok("alpha on s1, beta on s2".to_owned()),
            (alpha, beta) => Err(format!("alpha on {alpha}, beta on {beta}, expected s1 and s2")),
        };
        self.report.assert("meet: a conference lives in the region that it was opened from", placed);
        Cast { alpha: vec![ann, bob], beta: vec![cleo, dirk] }
    }

    /// The hard moment: the first join of a conference, everywhere at the same time.
    pub(super) async fn many_rooms_at_once(&mut self) {
        let answers = self.open_everywhere_at_once().await;
        let mut split = Vec::new();
        let mut by_shard = BTreeMap::<&str, usize>::new();
        for (room, named) in &answers {
            let first = named.values().next().map(String::as_str).unwrap_or_default();
            if named.values().all(|shard| shard == first) && first.starts_with('s') {
                *by_shard.entry(first).or_default() += 1;
            } else {
                split.push(format!("{room}: {named:?}"));
            }
        }
        let seen = match split.as_slice() {
            [] => {
                Ok(by_shard.iter().map(|(shard, n)| format!("{shard}: {n}")).collect::<Vec<_>>().join(", "))
            }
            [first, ..] => Err(format!("{} of {ROOMS} did not, first {first}", split.len())),
        };
        let what =
            format!("race: {ROOMS} rooms opened through all 4 nodes at the same moment have one shard each");
        self.report.assert(&what, seen);

        let agreed = self
            .until(self.patience(), async || {
                for (room, named) in &answers {
                    let tables = self.mesh.lookup_everywhere(room);
                    let answered = named.values().next().map(String::as_str);
                    if tables.iter().any(|(_, shard)| shard.as_deref() != answered) {
                        return Err(format!("{room}: {tables:?}, answered {answered:?}"));
                    }
                }
                Ok(String::new())
            })
            .await;
        self.report.assert(
            "race: all 4 stick tables hold these rooms, each with the shard that was answered",
            agreed,
        );
    }

    /// Each room's answer through each node; an error stands in the shard's place.
    async fn open_everywhere_at_once(&self) -> BTreeMap<String, BTreeMap<String, String>> {
        let nodes = self.mesh.node_names();
        let barrier = Arc::new(Barrier::new(ROOMS * nodes.len()));
        let mut asking = JoinSet::new();
        for n in 0..ROOMS {
            for node in &nodes {
                let (door, barrier) = (self.door(node), barrier.clone());
                asking.spawn(async move {
                    barrier.wait().await;
                    let room = format!("race-{n}");
                    let shard = match door.unlock(&room, PATIENCE).await {
                        Ok(answer) if answer.status.is_success() => answer.header("x-jitsi-shard").to_owned(),
                        Ok(answer) => format!("{}", answer.status),
                        Err(error) => error.to_string(),
                    };
                    (room, door.node, shard)
                });
            }
        }
        let mut answers = BTreeMap::<String, BTreeMap<String, String>>::new();
        for (room, node, shard) in asking.join_all().await {
            answers.entry(room).or_default().insert(node, shard);
        }
        answers
    }
}
