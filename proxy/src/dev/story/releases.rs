//! Operators pin a tenant and change the live release, by editing the discovery file.

use super::{Cast, Story, undisturbed};

const EVERY_NODE: [&str; 4] = ["a1", "a2", "b1", "b2"];

impl Story {
    pub(super) async fn releases_change(&mut self, cast: &Cast) {
        let pinned = match self.mesh.pin("acme", "release-2") {
            Ok(()) => self.until_new_rooms_land("acme/pinned", &EVERY_NODE, "s3", self.patience()).await,
            Err(error) => Err(error.to_string()),
        };
        self.report.assert("pin: tenant acme is pinned to release-2, its new conferences go there", pinned);
        let others = self.until_new_rooms_land("unpinned", &["a1", "a2"], "s1", self.patience()).await;
        self.report.assert("pin: the conferences of others do not", others);

        let homes = (self.one_shard_of("alpha").await, self.one_shard_of("beta").await);
        let live = match self.mesh.set_live("release-2") {
            Ok(()) => self.until_new_rooms_land("live", &EVERY_NODE, "s3", self.patience()).await,
            Err(error) => Err(error.to_string()),
        };
        self.report.assert("live: release-2 becomes live, new conferences go there", live);
        let still = (self.one_shard_of("alpha").await, self.one_shard_of("beta").await);
        let stayed = match still {
            (Ok(alpha), Ok(beta)) if homes == (Ok(alpha.clone()), Ok(beta.clone())) => {
                Ok(format!("alpha on {alpha}, beta on {beta}"))
            }
            still => Err(format!("before {homes:?}, now {still:?}")),
        };
        self.report.assert("live: existing conferences stay where they are", stayed);
        self.report.assert("live: and nobody in them was disconnected", undisturbed(&cast.alpha));
    }
}
