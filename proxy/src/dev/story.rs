//! The story that `dev --check` tells: every promise of the mesh, shown by people over real sockets. Each step asserts what
//! somebody who watches would see, and goes on after a failure, so that one run tells everything.

use std::time::{Duration, Instant};

use tokio::time::{sleep, timeout};

use super::client::{Door, Person, Seen, Spelling};
use super::mesh::DevMesh;
use super::report::Report;

mod meet;
mod regions;
mod releases;
mod shards;

/// The whole story has to be over by then.
pub const STORY_MAX: Duration = Duration::from_secs(57);

/// How long people wait for what should take a blink.
const PATIENCE: Duration = Duration::from_secs(5);
/// And how long when so much has failed that the story would not end in time otherwise.
const PATIENCE_LOST: Duration = Duration::from_secs(1);
const FAILURES_MANY: u32 = 3;
/// For so long no node may lose a peer at the end: longer than a connection lives on which nothing is heard.
const QUIET: Duration = Duration::from_secs(4);
/// Everybody has asked for their shard once by then, which they do 5 s after they came.
const CHECKED: Duration = Duration::from_secs(6);
/// How often a condition without a signal is looked at.
const LOOK_EVERY: Duration = Duration::from_millis(25);

/// The mesh on its stage.
pub struct Story {
    mesh: DevMesh,
    spelling: Spelling,
    report: Report,
    fresh_rooms: u32,
}

/// The people that stay through the whole story.
struct Cast {
    /// In room `alpha`, which lives in region-a.
    alpha: Vec<Person>,
    /// In room `beta`, which lives in region-b.
    beta: Vec<Person>,
}

impl Story {
    /// A story about a mesh that has just been started. `spelling` is [`Spelling::PerNode`] to sabotage it.
    pub fn new(mesh: DevMesh, spelling: Spelling, report: Report) -> Self {
        Self { mesh, spelling, report, fresh_rooms: 0 }
    }

    /// Tells it to the end and gives mesh and report back.
    pub async fn tell(mut self) -> (DevMesh, Report) {
        if timeout(STORY_MAX, self.steps()).await.is_err() {
            let what = format!("the story is over within {STORY_MAX:?}");
            self.report
                .assert(&what, Err("it was not, the steps that are missing above did not run".to_owned()));
        }
        (self.mesh, self.report)
    }

    async fn steps(&mut self) {
        self.the_mesh_is_ready().await;
        let mut cast = self.people_meet().await;
        self.many_rooms_at_once().await;
        self.regions_are_cut_and_healed(&mut cast).await;
        self.a_shard_is_killed_and_comes_back(&cast).await;
        self.releases_change(&cast).await;
        self.nobody_was_sent_elsewhere(&cast).await;
        self.the_mesh_is_quiet().await;
    }

    async fn the_mesh_is_ready(&mut self) {
        let started = Instant::now();
        let ready = self.until_connected(3, Duration::from_secs(10)).await;
        let seen = ready.map(|()| format!("after {}", ms(started.elapsed())));
        self.report.assert("ready: all 4 nodes are ready, each with 3 peers connected", seen);
    }

    /// The check that lib-jitsi-meet does 5 s after connecting never named another shard than the one people were on.
    async fn nobody_was_sent_elsewhere(&mut self, cast: &Cast) {
        let mut checks = 0;
        let mut sent = Vec::new();
        for person in cast.everybody() {
            // Who came last has not asked yet.
            let seen = person.until(CHECKED, |seen| seen.checks > 0).await;
            let seen = seen.unwrap_or_else(|seen| seen);
            checks += seen.checks;
            if seen.reloads > 0 || seen.checks == 0 {
                sent.push(format!("{}, checked {}x", describe(person, &seen), seen.checks));
            }
        }
        let seen = if sent.is_empty() { Ok(format!("{checks} checks")) } else { Err(sent.join("; ")) };
        self.report.assert("end: every client has checked its shard, and none was told another", seen);
    }

    /// A mesh whose connections come and go does everything above as well; only this tells it from one that stands.
    async fn the_mesh_is_quiet(&mut self) {
        let mut since = Instant::now();
        let mut before = None;
        let quiet = self
            .until(QUIET * 3, async || {
                let now: Vec<(String, usize, u64)> = (self.mesh.node_views().await.into_iter())
                    .map(|node| (node.name, node.peers_connected, node.resyncs))
                    .collect();
                let stands = now.iter().all(|(_, peers, _)| *peers == 3);
                if !stands || before.as_ref() != Some(&now) {
                    since = Instant::now();
                    before = Some(now);
                }
                if since.elapsed() < QUIET { Err(format!("{before:?}")) } else { Ok(String::new()) }
            })
            .await;
        self.report.assert("end: no node loses a peer any more, for 4 s", quiet);
    }

    /// Waits until every node is ready and has exactly `peers` peers.
    async fn until_connected(&self, peers: usize, within: Duration) -> Result<(), String> {
        self.until(within, async || {
            let missing: Vec<String> = self
                .mesh
                .node_views()
                .await
                .into_iter()
                .filter(|node| node.readiness.is_err() || node.peers_connected != peers)
                .map(|node| format!("{}: {} peers, {:?}", node.name, node.peers_connected, node.readiness))
                .collect();
            if missing.is_empty() { Ok(()) } else { Err(missing.join("; ")) }
        })
        .await
    }

    /// Looks until the condition holds; the error is what it said last.
    async fn until<T>(
        &self,
        within: Duration,
        mut look: impl AsyncFnMut() -> Result<T, String>,
    ) -> Result<T, String> {
        let deadline = Instant::now() + within;
        loop {
            match look().await {
                Ok(found) => return Ok(found),
                Err(seen) if Instant::now() >= deadline => return Err(format!("{seen} after {within:?}")),
                Err(_) => sleep(LOOK_EVERY).await,
            }
        }
    }

    fn patience(&self) -> Duration {
        if self.report.tally().failed < FAILURES_MANY { PATIENCE } else { PATIENCE_LOST }
    }

    fn door(&self, node: &str) -> Door {
        Door { node: node.to_owned(), address: self.mesh.frontend(node), spelling: self.spelling }
    }

    fn join(&self, node: &str, room: &str, name: &str) -> Person {
        Person::join(self.door(node), room, name)
    }

    /// A room that nobody has asked for before.
    fn fresh_room(&mut self, prefix: &str) -> String {
        self.fresh_rooms += 1;
        format!("{prefix}-{}", self.fresh_rooms)
    }

    /// The shard that a node names for a room; asking places a new one.
    async fn shard_of(&self, node: &str, room: &str) -> Result<String, String> {
        let answer =
            self.door(node).unlock(room, PATIENCE).await.map_err(|error| format!("{node}: {error}"))?;
        let shard = answer.header("x-jitsi-shard");
        if answer.status.is_success() && !shard.is_empty() {
            Ok(shard.to_owned())
        } else {
            Err(format!("{node}: {} for {room}", answer.status))
        }
    }

    /// The one shard that all four nodes name for a room.
    async fn one_shard_of(&self, room: &str) -> Result<String, String> {
        let mut named = Vec::new();
        for node in self.mesh.node_names() {
            named.push((node, self.shard_of(node, room).await?));
        }
        match named.first() {
            Some((_, first)) if named.iter().all(|(_, shard)| shard == first) => Ok(first.clone()),
            Some(_) | None => Err(format!("{room}: {}", pairs(&named))),
        }
    }

    /// Opens fresh rooms through every node until all four land on `shard`.
    async fn until_new_rooms_land(
        &mut self,
        prefix: &str,
        nodes: &[&str],
        shard: &str,
        within: Duration,
    ) -> Result<String, String> {
        let started = Instant::now();
        loop {
            let mut named = Vec::new();
            for node in nodes {
                let room = self.fresh_room(prefix);
                let answer = self.shard_of(node, &room).await;
                named.push((*node, answer.unwrap_or_else(|error| error)));
            }
            if named.iter().all(|(_, on)| on == shard) {
                return Ok(format!("{shard} through {}, after {}", nodes.join(" "), ms(started.elapsed())));
            }
            if started.elapsed() >= within {
                return Err(format!("expected {shard}, seen {} after {within:?}", pairs(&named)));
            }
            sleep(LOOK_EVERY).await;
        }
    }
}

impl Cast {
    fn everybody(&self) -> impl Iterator<Item = &Person> {
        self.alpha.iter().chain(&self.beta)
    }
}

/// Waits until everybody is in one room on one shard and sees all the others; gives that shard.
async fn together(people: &[&Person], within: Duration) -> Result<String, String> {
    let deadline = Instant::now() + within;
    let names: Vec<&str> = people.iter().map(|person| person.name()).collect();
    // Somebody may be moved while others are looked at, so all of them are looked at again until one look is good.
    loop {
        let seen: Vec<Seen> = people.iter().map(|person| person.seen()).collect();
        let shard = seen.first().map(|seen| seen.shard.clone()).unwrap_or_default();
        if seen
            .iter()
            .all(|seen| seen.connected && seen.shard == shard && names.iter().all(|name| seen.sees(name)))
        {
            return Ok(shard);
        }
        if Instant::now() >= deadline {
            let each: Vec<String> =
                people.iter().zip(&seen).map(|(person, seen)| describe(person, seen)).collect();
            return Err(format!("{} after {within:?}", each.join("; ")));
        }
        sleep(LOOK_EVERY).await;
    }
}

/// Everybody says something that everybody else has to hear.
async fn talk(people: &[&Person], word: &str, patience: Duration) -> Result<String, String> {
    let started = Instant::now();
    for person in people {
        person.say(&format!("{word} from {}", person.name())).await;
    }
    for listener in people {
        for speaker in people {
            let text = format!("{0}: {word} from {0}", speaker.name());
            if listener.until(patience, |seen| seen.heard.contains(&text)).await.is_err() {
                let listener = listener.name();
                return Err(format!("{listener} did not hear {} within {patience:?}", speaker.name()));
            }
        }
    }
    Ok(format!("in {}", ms(started.elapsed())))
}

/// That nobody's connection was interrupted since they came, when they had been in `hellos` rooms.
fn undisturbed<'a>(people: impl IntoIterator<Item = &'a Person>) -> Result<String, String> {
    let mut names = Vec::new();
    let mut disturbed = Vec::new();
    for person in people {
        let seen = person.seen();
        names.push(person.name().to_owned());
        if seen.hellos != 1 || !seen.connected {
            disturbed.push(describe(person, &seen));
        }
    }
    if disturbed.is_empty() { Ok(names.join(" ")) } else { Err(disturbed.join("; ")) }
}

fn describe(person: &Person, seen: &Seen) -> String {
    let Seen { connected, shard, people, hellos, last_end, .. } = seen;
    let names: Vec<&str> = people.values().map(String::as_str).collect();
    let state =
        if *connected { format!("on {shard} with {}", names.join(" ")) } else { "not connected".to_owned() };
    let ended = if last_end.is_empty() { String::new() } else { format!(", last end: {last_end}") };
    format!("{} {state}, connected {hellos}x{ended}", person.name())
}

fn pairs(named: &[(&str, String)]) -> String {
    named.iter().map(|(node, shard)| format!("{node}={shard}")).collect::<Vec<_>>().join(" ")
}

fn ms(duration: Duration) -> String {
    format!("{} ms", duration.as_millis())
}
