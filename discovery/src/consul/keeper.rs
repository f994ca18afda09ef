//! The one task that holds what Consul said: it starts watches, makes snapshots, and keeps them on disk.

use super::agent::{Agent, Datacenter};
use super::belief::{Belief, Grace};
use super::blocking::{Blocking, WAIT_OTHERS, WAIT_OWN};
use super::disk::DiskError;
use super::error::AgentError;
use super::policy::PolicyKind;
use super::record::InvalidRecord;
use super::watching::{Heard, Said, Watch};
use super::world::{Assembled, Records, ServiceKind, Source, Taken, World};
use super::{ConsulConfig, disk};
use crate::name::ServiceName;
use crate::publish::{PartRole, PartStatus, Published, Publisher, Refused};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};
use tokio::sync::mpsc::{Receiver, Sender};
use tokio::sync::{oneshot, watch};
use tokio::task::{AbortHandle, JoinError, JoinSet};
use tokio::time::{MissedTickBehavior, interval, sleep, timeout};
use tracing::{error, info, warn};

/// How long more news is waited for before a snapshot is made of the first: a change of several keys is one.
const TOGETHER: Duration = Duration::from_millis(10);
/// How often datacenters are asked for: Consul has no blocking query for these.
const DATACENTERS_EVERY: Duration = Duration::from_secs(30);
/// How often what is known is written down although nothing changes, so that its age says how long Consul is gone.
const SAVE_EVERY: Duration = Duration::from_secs(300);
/// A changed state is written down after that long: many changes are one write.
const SAVE_AFTER: Duration = Duration::from_secs(1);
/// A snapshot of so many records is made in a moment; one of more keeps other tasks from their thread.
const RECORDS_AT_ONCE: usize = 1_000;
/// What the last write may take when the process ends.
const SAVED_WITHIN: Duration = Duration::from_secs(2);
/// How long a start that remembers nothing waits for other datacenters once the own one is known: a snapshot without their shards and peers would be
/// used as if there were none.
const OTHERS_WITHIN: Duration = Duration::from_secs(3);
/// How long Consul must not list a datacenter until it is forgotten.
const FORGOTTEN_AFTER: Duration = Duration::from_secs(3600);
/// The most sources: each holds a connection to the agent, and some have to be left for the rest.
const SOURCES_MAX: usize = super::agent::CONNECTIONS_MAX - 10;

/// A smaller list of shards or nodes has to last that long.
const SERVICES_GRACE: Grace =
    Grace { counted_on: Duration::from_secs(10), counted_anew: Duration::from_secs(60) };
/// Operators delete on purpose, and the leader's word is enough; servers that lost all get it back from whoever has it.
const POLICY_GRACE: Grace =
    Grace { counted_on: Duration::from_millis(200), counted_anew: Duration::from_secs(60) };

/// What is known of a source's health.
#[derive(Debug, Default)]
struct Part {
    last_good: Option<Instant>,
    error: Option<String>,
    access: Access,
    /// Its watch.
    task: Option<AbortHandle>,
}

/// What the token may read of a source, as its last answer has it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
enum Access {
    #[default]
    Granted,
    Forbidden,
}

/// How complete what is known is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Completeness {
    /// Something of the own datacenter was never heard.
    Partial,
    /// The own datacenter's keys and services are known from Consul itself, other datacenters' not all.
    Own,
    /// All that was asked for.
    All,
}

/// What those outside wait for.
#[derive(Debug)]
pub(crate) struct Told {
    pub(crate) completeness: watch::Sender<Completeness>,
    /// Services of pools whose servers are known.
    pub(crate) pools: watch::Sender<BTreeSet<ServiceName>>,
}

pub(crate) struct Keeper {
    config: ConsulConfig,
    agent: Agent,
    /// Shared with who reads it elsewhere for a while.
    world: Arc<World>,
    parts: BTreeMap<Source, Part>,
    watches: JoinSet<()>,
    heard: Sender<Heard>,
    publisher: Publisher,
    invalid: BTreeSet<InvalidRecord>,
    told: Told,
    pools: watch::Receiver<BTreeSet<ServiceName>>,
    listed: bool,
    unsaved: bool,
    remembered: Remembered,
    /// Runs while other datacenters have their time.
    settling: JoinSet<()>,
    /// Writes to the disk, one at most.
    saves: JoinSet<Result<(), DiskError>>,
    disk: Disk,
    /// Datacenters that Consul does not list any more, since when.
    unlisted: BTreeMap<Datacenter, Instant>,
}

/// What was known at the start.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Remembered {
    Something,
    Nothing,
}

/// How the last write ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Disk {
    Works,
    Fails,
}

/// Lists that not every token may read, and that a site can do without: they are empty then, and the error is told.
const fn may_be_unreadable(source: &Source) -> bool {
    matches!(
        source,
        Source::Policy(PolicyKind::Bans)
            | Source::Services(_, ServiceKind::Proxies | ServiceKind::Standalones)
            | Source::Pool(_)
    )
}

impl Keeper {
    /// Begins with what was known before, if anything.
    pub(crate) fn new(
        config: ConsulConfig,
        agent: Agent,
        world: World,
        publisher: Publisher,
        heard: Sender<Heard>,
        told: Told,
        pools: watch::Receiver<BTreeSet<ServiceName>>,
    ) -> Self {
        let mut keeper = Self {
            config,
            agent,
            world: Arc::new(world),
            parts: BTreeMap::new(),
            watches: JoinSet::new(),
            heard,
            publisher,
            invalid: BTreeSet::new(),
            told,
            pools,
            listed: false,
            unsaved: false,
            remembered: Remembered::Nothing,
            settling: JoinSet::new(),
            saves: JoinSet::new(),
            disk: Disk::Works,
            unlisted: BTreeMap::new(),
        };
        for kind in PolicyKind::ALL {
            keeper.watch(Source::Policy(kind));
        }
        if !keeper.world.0.is_empty() {
            keeper.remembered = Remembered::Something;
        }
        let remembered: Vec<_> = keeper.world.0.keys().cloned().collect();
        let named = keeper.config.datacenters.clone().unwrap_or_default();
        keeper.watch_datacenter(&keeper.config.place.datacenter.clone());
        named.iter().for_each(|datacenter| keeper.watch_datacenter(datacenter));
        let pools = keeper.pools.borrow_and_update().clone();
        keeper.watch_pools(&pools);
        for source in remembered {
            let asked_for = match &source {
                Source::Policy(_) => true,
                Source::Services(datacenter, kind) => {
                    let ConsulConfig { place, datacenters, .. } = &keeper.config;
                    place.services.kinds().any(|asked| asked == *kind)
                        && datacenters
                            .as_ref()
                            .is_none_or(|named| *datacenter == place.datacenter || named.contains(datacenter))
                }
                Source::Pool(service) => pools.contains(service),
            };
            if asked_for {
                keeper.watch(source);
            } else {
                Arc::make_mut(&mut keeper.world).0.remove(&source);
            }
        }
        keeper
    }

    fn watch_datacenter(&mut self, datacenter: &Datacenter) {
        let kinds: Vec<_> = self.config.place.services.kinds().collect();
        for kind in kinds {
            self.watch(Source::Services(datacenter.clone(), kind));
        }
    }

    /// Takes out datacenters that Consul does not list for long: their servers have left, or have been gone for three days.
    async fn forget_unlisted(&mut self, listed: &[Datacenter]) {
        let watched: BTreeSet<_> = self.parts.keys().filter_map(Source::datacenter).cloned().collect();
        self.unlisted.retain(|datacenter, _| !listed.contains(datacenter));
        for datacenter in watched {
            if listed.contains(&datacenter) || datacenter == self.config.place.datacenter {
                continue;
            }
            let since = *self.unlisted.entry(datacenter.clone()).or_insert_with(Instant::now);
            if since.elapsed() < FORGOTTEN_AFTER {
                continue;
            }
            warn!(%datacenter, "Consul does not list this datacenter any more, it is forgotten");
            self.unlisted.remove(&datacenter);
            self.parts.retain(|source, part| {
                let stays = source.datacenter() != Some(&datacenter);
                if !stays && let Some(task) = &part.task {
                    task.abort();
                }
                stays
            });
            Arc::make_mut(&mut self.world).0.retain(|source, _| source.datacenter() != Some(&datacenter));
            self.unsaved = true;
            if self.may_publish() {
                self.publish().await;
            }
        }
    }

    /// Watches the services that pools name by now. Those that none names any more are watched on: what nobody reads costs little.
    fn watch_pools(&mut self, services: &BTreeSet<ServiceName>) {
        for service in services {
            self.watch(Source::Pool(service.clone()));
        }
    }

    fn watch(&mut self, source: Source) {
        if self.parts.contains_key(&source) {
            return;
        }
        if self.parts.len() >= SOURCES_MAX {
            warn!(%source, max = SOURCES_MAX, "not watched: there are more lists than connections to the agent");
            return;
        }
        let grace = match source {
            Source::Policy(_) => POLICY_GRACE,
            Source::Services(..) | Source::Pool(_) => SERVICES_GRACE,
        };
        let wait = match &source {
            Source::Services(datacenter, _) if *datacenter != self.config.place.datacenter => WAIT_OTHERS,
            Source::Services(..) | Source::Policy(_) | Source::Pool(_) => WAIT_OWN,
        };
        let watch = Watch {
            agent: self.agent.clone(),
            target: self.config.place.target(&source),
            belief: Belief::new(grace, self.world.0.get(&source).map(Records::len)),
            blocking: Blocking::new(wait, self.config.behind_max),
            keeper: self.heard.clone(),
            source: source.clone(),
        };
        let task = Some(self.watches.spawn(watch.run()));
        self.parts.insert(source, Part { task, ..Part::default() });
    }

    /// Works until `stopped`.
    pub(crate) async fn run(mut self, mut heard: Receiver<Heard>, mut stopped: oneshot::Receiver<()>) {
        let mut datacenters = interval(DATACENTERS_EVERY);
        datacenters.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut saves = interval(SAVE_EVERY);
        saves.set_missed_tick_behavior(MissedTickBehavior::Delay);
        saves.reset();
        let (mut listing, mut saving) = (JoinSet::new(), JoinSet::new());
        loop {
            tokio::select! {
                // A dropped sender is the signal as well.
                _ = &mut stopped => break,
                Some(first) = heard.recv() => {
                    let mut changed = self.hear(first);
                    if changed == Taken::Changed {
                        sleep(TOGETHER).await;
                    }
                    while let Ok(more) = heard.try_recv() {
                        if self.hear(more) == Taken::Changed {
                            changed = Taken::Changed;
                        }
                    }
                    if changed == Taken::Changed && self.may_publish() {
                        self.publish().await;
                    }
                    self.tell_parts();
                    if self.unsaved && saving.is_empty() {
                        saving.spawn(sleep(SAVE_AFTER));
                    }
                }
                _ = datacenters.tick(), if self.config.datacenters.is_none() && listing.is_empty() => {
                    let agent = self.agent.clone();
                    listing.spawn(async move { agent.datacenters().await });
                }
                Some(listed) = listing.join_next() => if let Ok(listed) = listed {
                    match listed {
                        Ok(found) => {
                            self.listed = true;
                            self.forget_unlisted(&found).await;
                            found.iter().for_each(|datacenter| self.watch_datacenter(datacenter));
                        }
                        Err(error) => {
                            // Soon again: it is how other datacenters are found at all.
                            if !self.listed {
                                datacenters.reset_after(Duration::from_secs(1));
                            }
                            tracing::debug!(%error, "datacenters cannot be listed");
                        }
                    }
                    if self.complete() == Taken::Changed && self.may_publish() {
                        self.publish().await;
                        self.tell_parts();
                    }
                },
                Some(_) = self.settling.join_next() => if self.may_publish() {
                    self.publish().await;
                    self.tell_parts();
                },
                Some(_) = saving.join_next() => self.save(),
                Some(saved) = self.saves.join_next() => self.saved(saved),
                // The sender lives as long as what stops this.
                Ok(()) = self.pools.changed() => {
                    let services = self.pools.borrow_and_update().clone();
                    self.watch_pools(&services);
                }
                _ = saves.tick() => if self.parts.values().all(|part| part.error.is_none()) {
                    self.save();
                },
            }
        }
        self.watches.shutdown().await;
        let last = async {
            while let Some(saved) = self.saves.join_next().await {
                self.saved(saved);
            }
            if self.unsaved {
                self.save();
                while let Some(saved) = self.saves.join_next().await {
                    self.saved(saved);
                }
            }
        };
        if timeout(SAVED_WITHIN, last).await.is_err() {
            warn!("the disk is too slow, what Consul said last is not kept");
        }
    }

    /// A write has ended. That it fails is told once, and that it goes well again.
    fn saved(&mut self, saved: Result<Result<(), DiskError>, JoinError>) {
        let saved = saved.map_err(|error| error.to_string());
        let saved = saved.and_then(|saved| saved.map_err(|error| error.to_string()));
        let now = if saved.is_ok() { Disk::Works } else { Disk::Fails };
        match (std::mem::replace(&mut self.disk, now), &saved) {
            (Disk::Works, Err(error)) => {
                error!(%error, "what Consul said cannot be kept on disk, it is tried again");
            }
            (Disk::Fails, Ok(())) => info!("what Consul said is kept on disk again"),
            (Disk::Works, Ok(())) | (Disk::Fails, Err(_)) => {}
        }
        self.unsaved |= saved.is_err();
        self.publisher.note_kept(saved);
    }

    /// Takes what a watch tells.
    fn hear(&mut self, Heard { source, said }: Heard) -> Taken {
        // The last word of a watch that has just been ended.
        let Some(part) = self.parts.get_mut(&source) else { return Taken::AsBefore };
        match said {
            Said::Records(records) => {
                if part.error.take().is_some() {
                    info!(%source, "Consul answers again");
                }
                part.last_good = Some(Instant::now());
                part.access = Access::Granted;
                let taken = Arc::make_mut(&mut self.world).take(source, records);
                if taken == Taken::Changed {
                    self.unsaved = true;
                }
                match self.complete() {
                    Taken::Changed => Taken::Changed,
                    Taken::AsBefore => taken,
                }
            }
            Said::Still => {
                part.error = None;
                part.last_good = Some(Instant::now());
                // What a disk remembered may be what there still is.
                self.complete()
            }
            Said::Doubted { records } => {
                let before = self.world.0.get(&source).map_or(0, Records::len);
                warn!(%source, records, before, "Consul lists so few all of a sudden that it is asked again; what was known stays in use");
                Taken::AsBefore
            }
            Said::Failed(error) => {
                if matches!(error, AgentError::Forbidden { .. }) {
                    part.access = Access::Forbidden;
                }
                let optional = may_be_unreadable(&source);
                let error = error.to_string();
                if part.error.as_ref() != Some(&error) {
                    warn!(%source, %error, "Consul does not answer, what was known stays in use");
                    part.error = Some(error);
                }
                if optional { self.complete() } else { Taken::AsBefore }
            }
        }
    }

    /// Sees how complete it is by now: changed when it is better, and what was held back may be published.
    fn complete(&mut self) -> Taken {
        let own = &self.config.place.datacenter;
        let known = |source: &Source, part: &Part| {
            part.last_good.is_some() || part.access == Access::Forbidden && may_be_unreadable(source)
        };
        let heard = |source: &Source| self.parts.get(source).is_some_and(|part| known(source, part));
        let own_heard = PolicyKind::ALL.into_iter().all(|kind| heard(&Source::Policy(kind)))
            && self.config.place.services.kinds().all(|kind| heard(&Source::Services(own.clone(), kind)));
        let all_heard = self.parts.iter().all(|(source, part)| known(source, part));
        let listed = self.listed || self.config.datacenters.is_some();
        let next = match (own_heard, all_heard && listed) {
            (false, _) => Completeness::Partial,
            (true, false) => Completeness::Own,
            (true, true) => Completeness::All,
        };
        let better = self.told.completeness.send_if_modified(|known| {
            let better = next > *known;
            *known = next.max(*known);
            better
        });
        if better && next == Completeness::Own {
            self.settling.spawn(sleep(OTHERS_WITHIN));
        }
        if better { Taken::Changed } else { Taken::AsBefore }
    }

    /// Whether what is known may be used: all of it, or the own datacenter's when the others had their time, or were known before.
    fn may_publish(&self) -> bool {
        match *self.told.completeness.borrow() {
            Completeness::Partial => false,
            Completeness::Own => self.remembered == Remembered::Something || self.settling.is_empty(),
            Completeness::All => true,
        }
    }

    async fn publish(&mut self) {
        let records: usize = self.world.0.values().map(Records::len).sum();
        // The mesh is driven by the same thread, and waits for nobody.
        let assembled = if records > RECORDS_AT_ONCE {
            let (world, place) = (Arc::clone(&self.world), self.config.place.clone());
            match tokio::task::spawn_blocking(move || world.assemble(&place)).await {
                Ok(assembled) => assembled,
                Err(error) => {
                    error!(%error, "what Consul says makes no snapshot, what was known stays in use");
                    return;
                }
            }
        } else {
            self.world.assemble(&self.config.place)
        };
        let Assembled { snapshot, invalid } = assembled;
        let snapshot = match snapshot {
            Ok(snapshot) => snapshot,
            Err(errors) => {
                error!(%errors, "what Consul says makes no snapshot, what was known stays in use");
                return;
            }
        };
        let invalid = BTreeSet::from_iter(invalid);
        for record in invalid.difference(&self.invalid) {
            warn!(%record, "left out");
        }
        self.invalid = invalid;
        let warnings = snapshot.warnings();
        if let Published::Changed(diff) = self.publisher.publish(snapshot) {
            for change in &diff.changes {
                info!(%change, "discovery changed");
            }
            for warning in warnings {
                warn!(%warning, "discovery");
            }
        }
    }

    /// Brings the status up to date.
    fn tell_parts(&mut self) {
        let part = |(source, part): (&Source, &Part)| PartStatus {
            name: source.to_string(),
            role: match source {
                Source::Policy(_) => PartRole::Policy,
                Source::Services(..) | Source::Pool(_) => PartRole::Services,
            },
            last_good: part.last_good,
            error: part.error.clone(),
        };
        // Heard, or remembered by the disk.
        let pools: BTreeSet<_> = self.world.0.keys().filter_map(Source::pool).cloned().collect();
        self.told.pools.send_if_modified(|known| {
            let changed = *known != pools;
            *known = pools;
            changed
        });
        self.publisher.note(self.parts.iter().map(part).collect(), self.invalid.len());
        let mut wrong = self.parts.iter().filter_map(|(source, part)| Some((source, part.error.as_ref()?)));
        match (wrong.next(), wrong.count()) {
            (None, _) => self.publisher.confirm(),
            (Some((source, error)), others) => {
                let others = if others > 0 { format!(", and {others} lists more") } else { String::new() };
                let _known: Refused = self.publisher.refuse(&format!("{source}: {error}{others}"));
            }
        }
    }

    /// Writes what is known down, beside all else: a disk may be slow, or hang.
    fn save(&mut self) {
        // What is not whole stays unsaved until it is, and one write is enough.
        if *self.told.completeness.borrow() == Completeness::Partial || !self.saves.is_empty() {
            return;
        }
        self.unsaved = false;
        let Some(path) = self.config.state_file.clone() else { return };
        let (world, environment) = (Arc::clone(&self.world), self.config.place.environment.clone());
        self.saves.spawn_blocking(move || disk::save(&path, environment.as_str(), &world, SystemTime::now()));
    }
}
