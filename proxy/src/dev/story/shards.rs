//! A shard is killed and brought back.

use std::time::{Duration, Instant};

use super::{Cast, Story, ms, together, undisturbed};
use crate::dev::client::Person;

/// A shard that is back gets new conferences again after this at the latest.
const TRUSTED: Duration = Duration::from_secs(10);
const EVERY_NODE: [&str; 4] = ["a1", "a2", "b1", "b2"];
/// The nodes whose region s2 is in.
const ITS_REGION: [&str; 2] = ["b1", "b2"];

impl Story {
    pub(super) async fn a_shard_is_killed_and_comes_back(&mut self, cast: &Cast) {
        let killed = Instant::now();
        self.mesh.kill_shard("s2").await;
        let people: Vec<&Person> = cast.beta.iter().collect();
        for person in &people {
            person.until(self.patience(), |seen| seen.hellos > 1).await.ok();
        }
        let met = match together(&people, self.patience()).await {
            Ok(shard) if shard != "s2" => Ok(format!("on {shard}, after {}", ms(killed.elapsed()))),
            Ok(shard) => Err(format!("on {shard}, which was killed")),
            Err(seen) => Err(seen),
        };
        self.report.assert("kill s2: the people of beta meet again on another shard", met);
        self.report.assert("kill s2: the people of alpha noticed nothing", undisturbed(&cast.alpha));
        let landed = self.until_new_rooms_land("while-down", &EVERY_NODE, "s1", self.patience()).await;
        self.report.assert("kill s2: new conferences go to the shard that is left", landed);

        let before: Vec<u32> = people.iter().map(|person| person.seen().hellos).collect();
        let back = self.mesh.start_shard("s2").await.map_err(|error| error.to_string());
        let landed = match back {
            Ok(()) => self.until_new_rooms_land("while-back", &ITS_REGION, "s2", TRUSTED).await,
            Err(error) => Err(error),
        };
        self.report.assert("back: new conferences of its region land on s2 again", landed);
        let after: Vec<u32> = people.iter().map(|person| person.seen().hellos).collect();
        let stayed = match self.one_shard_of("beta").await {
            Ok(shard) if shard != "s2" && before == after => Ok(format!("beta on {shard}")),
            Ok(shard) => Err(format!("beta on {shard}, connected {before:?} then {after:?} times")),
            Err(seen) => Err(seen),
        };
        self.report.assert("back: the conferences that had moved stay where they are", stayed);
    }
}
