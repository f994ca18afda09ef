//! The regions are cut apart and healed.

use std::time::{Duration, Instant};

use super::{Cast, Story, ms, talk, together, undisturbed};
use crate::dev::client::Person;
use crate::dev::link::Link;

/// How long nodes may take to notice that peers are gone; a QUIC connection has to be given up for it.
const NOTICED: Duration = Duration::from_secs(15);
/// What the client's clock allows: a conflict that lasts longer is seen by users.
const REPAIRED: Duration = Duration::from_secs(5);

impl Story {
    pub(super) async fn regions_are_cut_and_healed(&mut self, cast: &mut Cast) {
        self.mesh.set_link(Link::Cut);
        let everybody: Vec<&Person> = cast.alpha.iter().collect();
        let heard = talk(&everybody, "still here", self.patience()).await;
        self.report.assert("cut: the people of alpha go on talking", heard);

        let split = [self.join("a1", "split", "Gus"), self.join("b1", "split", "Hana")];
        self.both_sides_go_on(cast, &split).await;
        let noticed = self.until_connected(1, NOTICED).await;
        let noticed = noticed.map(|()| "each has 1 of 3 peers and is ready".to_owned());
        self.report.assert("cut: every node noticed, and serves on", noticed);

        // Somebody of each side talks to themselves only: that is what healing has to repair.
        let healed = Instant::now();
        self.mesh.set_link(Link::Whole);
        let met = together(&[&split[0], &split[1]], REPAIRED).await;
        let met = met.map(|shard| format!("on {shard}, after {}", ms(healed.elapsed())));
        self.report.assert("heal: Gus and Hana are together within 5 s", met);
        let left = REPAIRED.saturating_sub(healed.elapsed());
        let agreed = self.tables_agree_about("split", left).await;
        self.report.assert("heal: all 4 stick tables agree about their room within 5 s", agreed);
        let heard = talk(&[&split[0], &split[1]], "found you", self.patience()).await;
        self.report.assert("heal: Gus and Hana hear each other", heard);
        let connected = self.until_connected(3, NOTICED).await;
        let connected = connected.map(|()| format!("after {}", ms(healed.elapsed())));
        self.report.assert("heal: all 4 nodes are connected again", connected);
        self.report.assert("heal: nobody else was disconnected by it", undisturbed(cast.everybody()));
    }

    async fn both_sides_go_on(&mut self, cast: &mut Cast, split: &[Person; 2]) {
        let eve = self.join("a2", "alpha", "Eve");
        let finn = self.join("b2", "alpha", "Finn");
        cast.alpha.extend([eve, finn]);
        let everybody: Vec<&Person> = cast.alpha.iter().collect();
        let met = together(&everybody, self.patience()).await;
        self.report.assert("cut: Eve (a2) and Finn (b2) join alpha, from both sides, and see everybody", met);

        for person in split {
            person.until(self.patience(), |seen| seen.connected).await.ok();
        }
        let (gus, hana) = (split[0].seen(), split[1].seen());
        let opened = if gus.connected && hana.connected && gus.shard != hana.shard {
            Ok(format!("on {} and on {}: each side decided alone", gus.shard, hana.shard))
        } else {
            Err(format!("Gus {:?}, Hana {:?}", gus, hana))
        };
        self.report.assert("cut: a room opened on both sides works on both, as two", opened);
    }

    async fn tables_agree_about(&self, room: &str, within: Duration) -> Result<String, String> {
        self.until(within, async || {
            let tables = self.mesh.lookup_everywhere(room);
            match tables.first() {
                Some((_, Some(first))) if tables.iter().all(|(_, shard)| shard.as_ref() == Some(first)) => {
                    Ok(format!("{first} everywhere"))
                }
                Some(_) | None => Err(format!("{tables:?}")),
            }
        })
        .await
    }
}
