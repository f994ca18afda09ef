//! What every datacenter says at one moment: the keys that routing reads, and the shards. For operators; nodes watch instead.

use super::agent::{Agent, Answer, Datacenter, Reading, Target};
use super::error::AgentError;
use super::keys::{PolicyKey, each};
use super::policy::{Pair, PolicyKind};
use super::record::{AddressKind, Instance, InvalidRecord};
use super::world::{Place, Records, ServiceKind, ServiceNames, Source, World};
use crate::name::EnvironmentName;
use crate::shard::Shard;
use crate::snapshot::Snapshot;
use serde::de::DeserializeOwned;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// The keys of all families.
pub(crate) type Families = Vec<(PolicyKind, Vec<Pair>)>;

/// What one datacenter answered.
#[derive(Debug)]
pub(crate) struct Answers {
    /// `None`: not asked for.
    pub(crate) keys: Option<Result<Families, AgentError>>,
    pub(crate) shards: Result<Vec<Instance>, AgentError>,
    /// Shards with their bridge in one; `None`: not asked for.
    pub(crate) standalones: Option<Result<Vec<Instance>, AgentError>>,
}

/// A list that a datacenter did not give.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unanswered {
    /// The datacenter.
    pub datacenter: Datacenter,
    /// `keys`, `shards`, or `standalone shards`, which a token need not read.
    pub what: &'static str,
    /// Why.
    pub error: AgentError,
}

/// What all datacenters said.
#[derive(Debug)]
pub struct Survey {
    environment: EnvironmentName,
    asked: usize,
    shards: Snapshot,
    routed_by: BTreeMap<Datacenter, Snapshot>,
    entries: BTreeMap<PolicyKey, BTreeMap<Datacenter, String>>,
    paths: BTreeSet<String>,
    unread: BTreeMap<InvalidRecord, Vec<Datacenter>>,
    unread_services: Vec<InvalidRecord>,
    unanswered: Vec<Unanswered>,
}

/// Asks datacenters for their shards, and some of them for their keys of these families, all at once; their leaders answer. None keeps
/// another from it. What [`Survey::findings`] looks at is all families.
pub async fn survey(
    agent: &Agent,
    environment: &EnvironmentName,
    services: &ServiceNames,
    shards_of: &[Datacenter],
    keys_of: &[Datacenter],
    families: &[PolicyKind],
) -> Survey {
    let answers = each(shards_of, |datacenter| {
        let (agent, place) = (agent.clone(), place(environment, services, &datacenter));
        let families = families.to_vec();
        let keys_too = keys_of.contains(&datacenter);
        async move {
            let keys = async { if keys_too { Some(keys(&agent, &place, &families).await) } else { None } };
            let shards = shards(&agent, &place, ServiceKind::Shards);
            let standalones = async {
                let asked = place.services.kinds().any(|kind| kind == ServiceKind::Standalones);
                if asked { Some(self::shards(&agent, &place, ServiceKind::Standalones).await) } else { None }
            };
            let (keys, shards, standalones) = tokio::join!(keys, shards, standalones);
            Answers { keys, shards, standalones }
        }
    })
    .await;
    Survey::new(environment, services, answers)
}

pub(super) fn place(
    environment: &EnvironmentName,
    services: &ServiceNames,
    datacenter: &Datacenter,
) -> Place {
    Place {
        environment: environment.clone(),
        datacenter: datacenter.clone(),
        services: services.clone(),
        remote_address: AddressKind::Lan,
    }
}

async fn shards(agent: &Agent, place: &Place, kind: ServiceKind) -> Result<Vec<Instance>, AgentError> {
    list(agent, place.target(&Source::Services(place.datacenter.clone(), kind))).await
}

/// The families that are wanted, all at once.
async fn keys(agent: &Agent, place: &Place, wanted: &[PolicyKind]) -> Result<Families, AgentError> {
    let family = async |kind| {
        if !wanted.contains(&kind) {
            return Ok(None);
        }
        let target = place.target(&Source::Policy(kind));
        let target = Target { datacenter: Some(place.datacenter.clone()), ..target };
        list(agent, target).await.map(|pairs| Some((kind, pairs)))
    };
    let [a, b, c, d] = PolicyKind::ALL.map(family);
    let (a, b, c, d) = tokio::try_join!(a, b, c, d)?;
    Ok([a, b, c, d].into_iter().flatten().collect())
}

/// A list, of which Consul leaves out what may not be read, without a word: it counts when all of it may be.
async fn list<T: DeserializeOwned + Send + 'static>(
    agent: &Agent,
    target: Target,
) -> Result<Vec<T>, AgentError> {
    let Answer { records, .. } = agent.list(&target, Reading::Confirmed).await?;
    agent.check_right(&target).await?;
    Ok(records)
}

impl Survey {
    /// What these answers say.
    pub(crate) fn new(
        environment: &EnvironmentName,
        services: &ServiceNames,
        answers: BTreeMap<Datacenter, Answers>,
    ) -> Self {
        let mut unanswered = Vec::new();
        let mut world = World::default();
        let mut families = BTreeMap::new();
        let any = answers.keys().next().cloned();
        let asked = answers.values().filter(|answers| answers.keys.is_some()).count();
        for (datacenter, Answers { keys, shards, standalones }) in answers {
            let mut missing = |what, error| {
                unanswered.push(Unanswered { datacenter: datacenter.clone(), what, error });
            };
            let lists = [
                (ServiceKind::Shards, "shards", Some(shards)),
                (ServiceKind::Standalones, "standalone shards", standalones),
            ];
            for (kind, what, list) in lists {
                match list {
                    Some(Ok(instances)) => {
                        world.take(Source::Services(datacenter.clone(), kind), Records::Instances(instances));
                    }
                    Some(Err(error)) => missing(what, error),
                    None => {}
                }
            }
            match keys {
                Some(Ok(keys)) => {
                    families.insert(datacenter, keys);
                }
                Some(Err(error)) => missing("keys", error),
                None => {}
            }
        }
        // Without keys it is the same from wherever it is seen.
        let assembled = any.map(|any| world.assemble(&place(environment, services, &any)));
        let (shards, unread_services) = assembled.map_or_else(Default::default, |assembled| {
            (assembled.snapshot.unwrap_or_default(), assembled.invalid)
        });
        let mut survey = Self {
            environment: environment.clone(),
            asked,
            shards,
            routed_by: BTreeMap::new(),
            entries: BTreeMap::new(),
            paths: BTreeSet::new(),
            unread: BTreeMap::new(),
            unread_services,
            unanswered,
        };
        for (datacenter, keys) in families {
            let mut world = world.clone();
            for (kind, pairs) in keys {
                survey.note(&datacenter, kind, &pairs);
                world.take(Source::Policy(kind), Records::Pairs(pairs));
            }
            let assembled = world.assemble(&place(environment, services, &datacenter));
            for record in assembled.invalid {
                if !survey.unread_services.contains(&record) {
                    survey.unread.entry(record).or_default().push(datacenter.clone());
                }
            }
            survey.routed_by.insert(datacenter, assembled.snapshot.unwrap_or_default());
        }
        survey
    }

    fn note(&mut self, datacenter: &Datacenter, kind: PolicyKind, pairs: &[Pair]) {
        let prefix = kind.prefix(self.environment.as_str());
        for pair in pairs {
            let Some(rest) = pair.below(&prefix) else { continue };
            self.paths.insert(pair.key.clone());
            let value = pair.text();
            let entry = value.and_then(|value| PolicyKey::parse(kind, rest)?.saying(value.trim()));
            // What cannot be read is told with what is left out of the snapshot.
            if let Ok(entry) = entry {
                let (key, word) = entry.into_parts();
                self.entries.entry(key).or_default().insert(datacenter.clone(), word);
            }
        }
    }

    /// The environment that was asked about.
    #[must_use]
    pub const fn environment(&self) -> &EnvironmentName {
        &self.environment
    }

    /// How many datacenters were asked for keys.
    #[must_use]
    pub const fn asked(&self) -> usize {
        self.asked
    }

    /// Shards of all datacenters, and nothing that keys say.
    #[must_use]
    pub fn shards(&self) -> &[Arc<Shard>] {
        self.shards.shards()
    }

    /// The releases that have shards, with their shards; nothing that keys say.
    #[must_use]
    pub const fn catalog(&self) -> &Snapshot {
        &self.shards
    }

    /// What nodes route by in each datacenter whose keys are known: its own keys, and the shards of all.
    #[must_use]
    pub const fn routed_by(&self) -> &BTreeMap<Datacenter, Snapshot> {
        &self.routed_by
    }

    /// What keys say, by datacenter, in the words that are written; those that cannot be read are not among them.
    #[must_use]
    pub const fn entries(&self) -> &BTreeMap<PolicyKey, BTreeMap<Datacenter, String>> {
        &self.entries
    }

    /// How many keys there are, each counted once.
    #[must_use]
    pub fn keys(&self) -> usize {
        self.paths.len()
    }

    /// Keys that nobody reads, and where they stand.
    #[must_use]
    pub const fn unread(&self) -> &BTreeMap<InvalidRecord, Vec<Datacenter>> {
        &self.unread
    }

    /// Services that are no shards.
    #[must_use]
    pub fn unread_services(&self) -> &[InvalidRecord] {
        &self.unread_services
    }

    /// What was not answered.
    #[must_use]
    pub fn unanswered(&self) -> &[Unanswered] {
        &self.unanswered
    }
}
