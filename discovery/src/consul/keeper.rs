//! The one task that holds what Consul said: it starts watches, makes snapshots, and keeps them on disk.

use super::agent::{Agent, Datacenter};
use super::belief::{Belief, Grace};
use super::blocking::{Blocking, WAIT_OTHERS, WAIT_OWN};
use super::policy::PolicyKind;
use super::record::InvalidRecord;
use super::watching::{Heard, Said, Watch};
use super::world::{Assembled, Records, Source, Taken, World};
use super::{ConsulConfig, disk};
use crate::name::ServiceName;
use crate::publish::{PartRole, PartStatus, Published, Publisher, Refused};
use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant, SystemTime};
use tokio::sync::mpsc::{Receiver, Sender};
use tokio::sync::{oneshot, watch};
use tokio::task::JoinSet;
use tokio::time::{MissedTickBehavior, interval, sleep};
use tracing::{error, info, warn};

/// How long more news is waited for before a snapshot is made of the first: a change of several keys is one.
const TOGETHER: Duration = Duration::from_millis(10);
/// How often datacenters are asked for: Consul has no blocking query for these.
const DATACENTERS_EVERY: Duration = Duration::from_secs(30);
/// How often what is known is written down although nothing changes, so that its age says how long Consul is gone.
const SAVE_EVERY: Duration = Duration::from_secs(300);
/// A changed state is written down after that long: many changes are one write.
const SAVE_AFTER: Duration = Duration::from_secs(1);
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

pub(crate) struct Keeper {
    config: ConsulConfig,
    agent: Agent,
    world: World,
    parts: BTreeMap<Source, Part>,
    watches: JoinSet<()>,
    heard: Sender<Heard>,
    publisher: Publisher,
    invalid: BTreeSet<InvalidRecord>,
    completeness: watch::Sender<Completeness>,
    pools: watch::Receiver<BTreeSet<ServiceName>>,
    listed: bool,
    unsaved: bool,
}

impl Keeper {
    /// Begins with what was known before, if anything.
    pub(crate) fn new(
        config: ConsulConfig,
        agent: Agent,
        world: World,
        publisher: Publisher,
        heard: Sender<Heard>,
        completeness: watch::Sender<Completeness>,
        pools: watch::Receiver<BTreeSet<ServiceName>>,
    ) -> Self {
        let mut keeper = Self {
            config,
            agent,
            world,
            parts: BTreeMap::new(),
            watches: JoinSet::new(),
            heard,
            publisher,
            invalid: BTreeSet::new(),
            completeness,
            pools,
            listed: false,
            unsaved: false,
        };
        for kind in PolicyKind::ALL {
            keeper.watch(Source::Policy(kind));
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
                Source::Services(_, kind) => keeper.config.place.services.kinds().any(|asked| asked == *kind),
                Source::Pool(service) => pools.contains(service),
            };
            if asked_for {
                keeper.watch(source);
            } else {
                keeper.world.0.remove(&source);
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
        self.watches.spawn(watch.run());
        self.parts.insert(source, Part::default());
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
                    if changed == Taken::Changed && *self.completeness.borrow() != Completeness::Partial {
                        self.publish();
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
                    self.complete();
                },
                Some(_) = saving.join_next() => self.save().await,
                // The sender lives as long as what stops this.
                Ok(()) = self.pools.changed() => {
                    let services = self.pools.borrow_and_update().clone();
                    self.watch_pools(&services);
                }
                _ = saves.tick() => if self.parts.values().all(|part| part.error.is_none()) {
                    self.save().await;
                },
            }
        }
        if self.unsaved {
            self.save().await;
        }
        self.watches.shutdown().await;
    }

    /// Takes what a watch tells.
    fn hear(&mut self, Heard { source, said }: Heard) -> Taken {
        let part = self.parts.entry(source.clone()).or_default();
        match said {
            Said::Records(records) => {
                if part.error.take().is_some() {
                    info!(%source, "Consul answers again");
                }
                part.last_good = Some(Instant::now());
                let taken = self.world.take(source, records);
                if taken == Taken::Changed {
                    self.unsaved = true;
                }
                let before = *self.completeness.borrow();
                self.complete();
                // What was held back until it was whole.
                if before == Completeness::Partial && *self.completeness.borrow() != before {
                    return Taken::Changed;
                }
                taken
            }
            Said::Still => {
                part.error = None;
                part.last_good = Some(Instant::now());
                Taken::AsBefore
            }
            Said::Doubted { records } => {
                let before = self.world.0.get(&source).map_or(0, Records::len);
                warn!(%source, records, before, "Consul lists so few all of a sudden that it is asked again; what was known stays in use");
                Taken::AsBefore
            }
            Said::Failed(error) => {
                let error = error.to_string();
                if part.error.as_ref() != Some(&error) {
                    warn!(%source, %error, "Consul does not answer, what was known stays in use");
                    part.error = Some(error);
                }
                Taken::AsBefore
            }
        }
    }

    /// Sees how complete it is by now.
    fn complete(&self) {
        let own = &self.config.place.datacenter;
        let heard = |source: &Source| self.parts.get(source).is_some_and(|part| part.last_good.is_some());
        let own_heard = PolicyKind::ALL.into_iter().all(|kind| heard(&Source::Policy(kind)))
            && self.config.place.services.kinds().all(|kind| heard(&Source::Services(own.clone(), kind)));
        let all_heard = self.parts.values().all(|part| part.last_good.is_some());
        let listed = self.listed || self.config.datacenters.is_some();
        let next = match (own_heard, all_heard && listed) {
            (false, _) => Completeness::Partial,
            (true, false) => Completeness::Own,
            (true, true) => Completeness::All,
        };
        self.completeness.send_if_modified(|known| {
            let better = next > *known;
            *known = next.max(*known);
            better
        });
    }

    fn publish(&mut self) {
        let Assembled { snapshot, invalid } = self.world.assemble(&self.config.place);
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

    async fn save(&mut self) {
        // What is not whole stays unsaved until it is.
        if *self.completeness.borrow() == Completeness::Partial {
            return;
        }
        self.unsaved = false;
        let Some(path) = self.config.state_file.clone() else { return };
        let (world, environment) = (self.world.clone(), self.config.place.environment.clone());
        let saved =
            tokio::task::spawn_blocking(move || disk::save(&path, &environment, &world, SystemTime::now()));
        if let Ok(Err(error)) = saved.await {
            error!(%error, "what Consul said cannot be kept on disk");
        }
    }
}
