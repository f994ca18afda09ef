//! What is wrong with what operators wrote, or looks like it. Pure.

use super::agent::Datacenter;
use super::keys::PolicyKey;
use super::record::InvalidRecord;
use super::survey::{Survey, Unanswered};
use crate::name::{ReleaseName, TenantName};
use crate::shard::{Shard, ShardState};
use crate::snapshot::Snapshot;
use shardgate_peering_core::ShardName;
use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

/// Datacenters whose shards are not known: what a finding misses may be there.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ShardsUnknown(pub Vec<Datacenter>);

/// One thing to look at.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Finding {
    /// A datacenter did not say what it has.
    Unanswered(Unanswered),
    /// Nobody said which release is live.
    LiveMissing {
        /// Where.
        datacenters: Vec<Datacenter>,
    },
    /// The live release has no shard.
    LiveWithoutShards {
        /// The release.
        release: ReleaseName,
        /// Where it is live.
        datacenters: Vec<Datacenter>,
        /// Where it may have some.
        unknown: ShardsUnknown,
    },
    /// The live release has shards, but none is ready.
    LiveNotReady {
        /// The release.
        release: ReleaseName,
        /// How many.
        shards: usize,
        /// Where it is so.
        datacenters: Vec<Datacenter>,
        /// Where it may have more.
        unknown: ShardsUnknown,
    },
    /// A pin's release has no shard.
    PinWithoutShards {
        /// The tenant.
        tenant: TenantName,
        /// The release.
        release: ReleaseName,
        /// Where it is pinned.
        datacenters: Vec<Datacenter>,
        /// Where it may have some.
        unknown: ShardsUnknown,
    },
    /// A pin's release has shards, but none is ready.
    PinNotReady {
        /// The tenant.
        tenant: TenantName,
        /// The release.
        release: ReleaseName,
        /// How many shards.
        shards: usize,
        /// Where it is so.
        datacenters: Vec<Datacenter>,
        /// Where it may have more.
        unknown: ShardsUnknown,
    },
    /// A key says something else elsewhere, or is missing there.
    Disagreement {
        /// The key.
        key: PolicyKey,
        /// Where it stands.
        path: String,
        /// What it says, `None` where it is missing.
        said: BTreeMap<Datacenter, Option<String>>,
    },
    /// A state of a shard that is not registered.
    StateWithoutShard {
        /// The shard.
        shard: ShardName,
        /// Where its state stands.
        path: String,
        /// In which datacenters.
        datacenters: Vec<Datacenter>,
        /// Where it may be registered.
        unknown: ShardsUnknown,
    },
    /// A key that nobody reads.
    Unread {
        /// Which, and why.
        record: InvalidRecord,
        /// Where it stands.
        datacenters: Vec<Datacenter>,
    },
    /// A service that is no shard.
    UnreadService {
        /// Which, and why.
        record: InvalidRecord,
    },
}

impl Finding {
    /// A word for its kind that stays.
    #[must_use]
    pub const fn as_str(&self) -> &'static str {
        match self {
            Self::Unanswered(_) => "unanswered",
            Self::LiveMissing { .. } => "live_missing",
            Self::LiveWithoutShards { .. } => "live_without_shards",
            Self::LiveNotReady { .. } => "live_not_ready",
            Self::PinWithoutShards { .. } => "pin_without_shards",
            Self::PinNotReady { .. } => "pin_not_ready",
            Self::Disagreement { .. } => "disagreement",
            Self::StateWithoutShard { .. } => "state_without_shard",
            Self::Unread { .. } => "unread_key",
            Self::UnreadService { .. } => "unread_service",
        }
    }
}

impl Survey {
    /// What there is to look at, the worst kinds first.
    #[must_use]
    pub fn findings(&self) -> Vec<Finding> {
        let mut findings: Vec<Finding> = self.unanswered().iter().cloned().map(Finding::Unanswered).collect();
        findings.extend(self.live_findings());
        findings.extend(self.pin_findings());
        findings.extend(self.disagreements());
        findings.extend(self.states_without_shards());
        findings.extend(self.unread().iter().map(|(record, datacenters)| Finding::Unread {
            record: record.clone(),
            datacenters: datacenters.clone(),
        }));
        findings.extend(
            self.unread_services().iter().map(|record| Finding::UnreadService { record: record.clone() }),
        );
        findings
    }

    fn shards_unknown(&self) -> ShardsUnknown {
        let unlisted = self.unanswered().iter().filter(|missing| missing.what == "shards");
        ShardsUnknown(unlisted.map(|missing| missing.datacenter.clone()).collect())
    }

    fn live_findings(&self) -> Vec<Finding> {
        let missing: Vec<_> =
            self.datacenters_where(|snapshot| snapshot.live_release().is_none()).into_iter().collect();
        let mut findings = Vec::new();
        if !missing.is_empty() {
            findings.push(Finding::LiveMissing { datacenters: missing });
        }
        let releases: std::collections::BTreeSet<_> =
            self.routed_by().values().filter_map(Snapshot::live_release).cloned().collect();
        for release in releases {
            let says = |snapshot: &Snapshot| snapshot.live_release() == Some(&release);
            let unknown = self.shards_unknown();
            match self.readiness(&release, says) {
                Readiness::Ready => {}
                Readiness::NoShards { datacenters } => {
                    findings.push(Finding::LiveWithoutShards { release, datacenters, unknown });
                }
                Readiness::NoneReady { shards, datacenters } => {
                    findings.push(Finding::LiveNotReady { release, shards, datacenters, unknown });
                }
            }
        }
        findings
    }

    fn pin_findings(&self) -> Vec<Finding> {
        let mut pins: BTreeMap<(TenantName, ReleaseName), ()> = BTreeMap::new();
        for snapshot in self.routed_by().values() {
            pins.extend(snapshot.pins().map(|(tenant, release)| ((tenant.clone(), release.clone()), ())));
        }
        let mut findings = Vec::new();
        for (tenant, release) in pins.into_keys() {
            let says = |snapshot: &Snapshot| snapshot.tenant_pin(tenant.as_str()) == Some(&release);
            let unknown = self.shards_unknown();
            match self.readiness(&release, says) {
                Readiness::Ready => {}
                Readiness::NoShards { datacenters } => {
                    findings.push(Finding::PinWithoutShards { tenant, release, datacenters, unknown });
                }
                Readiness::NoneReady { shards, datacenters } => {
                    findings.push(Finding::PinNotReady { tenant, release, shards, datacenters, unknown });
                }
            }
        }
        findings
    }

    /// Whether a release has shards that take new conferences, wherever nodes are told to use it.
    fn readiness(&self, release: &ReleaseName, says: impl Fn(&Snapshot) -> bool) -> Readiness {
        let shards = self.catalog().shards_of(release.as_str()).len();
        if shards == 0 {
            return Readiness::NoShards { datacenters: self.datacenters_where(says) };
        }
        let ready = |shard: &Arc<Shard>| shard.state == ShardState::Ready;
        let none =
            |snapshot: &Snapshot| says(snapshot) && !snapshot.shards_of(release.as_str()).iter().any(ready);
        match self.datacenters_where(none) {
            datacenters if datacenters.is_empty() => Readiness::Ready,
            datacenters => Readiness::NoneReady { shards, datacenters },
        }
    }

    fn datacenters_where(&self, holds: impl Fn(&Snapshot) -> bool) -> Vec<Datacenter> {
        let found = self.routed_by().iter().filter(|(_, snapshot)| holds(snapshot));
        found.map(|(datacenter, _)| datacenter.clone()).collect()
    }

    fn disagreements(&self) -> impl Iterator<Item = Finding> {
        self.entries().iter().filter_map(|(key, said)| {
            let all = self.routed_by().keys();
            let said: BTreeMap<_, _> =
                all.map(|datacenter| (datacenter.clone(), said.get(datacenter).cloned())).collect();
            let mut words = said.values().filter(|word| word.is_some() || *key != PolicyKey::Live);
            let first = words.next();
            // A missing live release is a finding of its own.
            let differ = words.any(|word| Some(word) != first);
            let path = key.path(self.environment());
            differ.then(|| Finding::Disagreement { key: key.clone(), path, said })
        })
    }

    fn states_without_shards(&self) -> impl Iterator<Item = Finding> {
        self.entries().iter().filter_map(|(key, said)| {
            let PolicyKey::State(shard) = key else { return None };
            if self.catalog().shard(shard.as_str()).is_some() {
                return None;
            }
            Some(Finding::StateWithoutShard {
                shard: shard.clone(),
                path: key.path(self.environment()),
                datacenters: said.keys().cloned().collect(),
                unknown: self.shards_unknown(),
            })
        })
    }
}

enum Readiness {
    Ready,
    NoShards { datacenters: Vec<Datacenter> },
    NoneReady { shards: usize, datacenters: Vec<Datacenter> },
}

/// Names, with commas between them.
struct Names<'a>(&'a [Datacenter]);

impl fmt::Display for Names<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().enumerate().try_for_each(|(index, name)| {
            f.write_str(if index == 0 { "" } else { ", " })?;
            write!(f, "{name}")
        })
    }
}

impl fmt::Display for ShardsUnknown {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0.as_slice() {
            [] => Ok(()),
            unknown => write!(f, " (shards of {} are not known)", Names(unknown)),
        }
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unanswered(Unanswered { datacenter, what, error }) => {
                write!(f, "{what} of {datacenter} are not known: {error}")
            }
            Self::LiveMissing { datacenters } => {
                write!(
                    f,
                    "no live release in {}: new conferences get 503 there, but those of pinned tenants",
                    Names(datacenters)
                )
            }
            Self::LiveWithoutShards { release, datacenters, unknown } => {
                write!(f, "live release {release} in {} has no shards{unknown}", Names(datacenters))
            }
            Self::LiveNotReady { release, shards, datacenters, unknown } => {
                write!(
                    f,
                    "live release {release} in {}: none of its {shards} shards is ready{unknown}",
                    Names(datacenters)
                )
            }
            Self::PinWithoutShards { tenant, release, datacenters, unknown } => {
                write!(f, "pin of {tenant} in {}: {release} has no shards{unknown}", Names(datacenters))
            }
            Self::PinNotReady { tenant, release, shards, datacenters, unknown } => {
                write!(
                    f,
                    "pin of {tenant} in {}: none of the {shards} shards of {release} is ready{unknown}",
                    Names(datacenters)
                )
            }
            Self::Disagreement { path, said, .. } => {
                write!(f, "datacenters disagree about {path}: ")?;
                said.iter().enumerate().try_for_each(|(index, (datacenter, word))| {
                    f.write_str(if index == 0 { "" } else { ", " })?;
                    write!(f, "{} in {datacenter}", word.as_deref().unwrap_or("missing"))
                })
            }
            Self::StateWithoutShard { shard, path, datacenters, unknown } => {
                write!(f, "{path} in {}: no shard {shard} is registered{unknown}", Names(datacenters))
            }
            Self::Unread { record, datacenters } => write!(f, "{record}, in {}", Names(datacenters)),
            Self::UnreadService { record } => write!(f, "{record}"),
        }
    }
}

#[cfg(test)]
mod tests;
