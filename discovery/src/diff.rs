//! What changed between two snapshots, for the log: one line per change.

use crate::bans::BanList;
use crate::name::{ReleaseName, ServiceName, TenantName};
use crate::shard::{PeerNode, Shard};
use crate::snapshot::Snapshot;
use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::fmt;
use std::sync::Arc;

/// One difference. `old` and `new` are the whole items, so that a reader can act on them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Change {
    /// A shard that was not there before.
    ShardAdded(Arc<Shard>),
    /// A shard that is gone.
    ShardRemoved(Arc<Shard>),
    /// A shard of the same name that differs.
    ShardChanged {
        /// As it was.
        old: Arc<Shard>,
        /// As it is.
        new: Arc<Shard>,
    },
    /// A node that was not there before.
    PeerAdded(PeerNode),
    /// A node that is gone.
    PeerRemoved(PeerNode),
    /// A node of the same id that differs.
    PeerChanged {
        /// As it was.
        old: PeerNode,
        /// As it is.
        new: PeerNode,
    },
    /// Another live release.
    LiveRelease {
        /// Before.
        old: Option<ReleaseName>,
        /// Now.
        new: Option<ReleaseName>,
    },
    /// A tenant's pin was set, changed or taken away.
    Pin {
        /// The tenant.
        tenant: TenantName,
        /// Before.
        old: Option<ReleaseName>,
        /// Now.
        new: Option<ReleaseName>,
    },
    /// Other proxies that are none of ours.
    OtherProxies {
        /// How many there are.
        now: usize,
        /// How many of these were not there before, or elsewhere.
        added: usize,
        /// How many are there no longer.
        removed: usize,
    },
    /// A service that pools name has other servers.
    Servers {
        /// The service.
        service: ServiceName,
        /// How many it has.
        now: usize,
        /// How many of these it did not have before, or with another address or weight.
        added: usize,
        /// How many it has no longer.
        removed: usize,
    },
    /// A ban list has other patterns, verdicts or another order.
    Bans {
        /// The list.
        list: BanList,
        /// How many patterns it did not have before, or with another verdict.
        added: usize,
        /// How many patterns it has no longer, or with another verdict.
        removed: usize,
    },
}

impl fmt::Display for Change {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::ShardAdded(shard) => write!(f, "+ shard {shard}"),
            Self::ShardRemoved(shard) => write!(f, "- shard {}", shard.name),
            Self::ShardChanged { old, new } => {
                write!(f, "~ shard {}", new.name)?;
                let mut fields = Fields { f, count: 0 };
                fields.compare("id", &old.id, &new.id)?;
                fields.compare("region", &old.region, &new.region)?;
                fields.compare("release", &old.release, &new.release)?;
                fields.compare("address", &old.address, &new.address)?;
                fields.compare("state", &old.state, &new.state)?;
                fields.compare("weight", &old.weight, &new.weight)?;
                fields.compare("state_in", &states_in(old), &states_in(new))?;
                fields.compare("agent_port", &agent_port(old), &agent_port(new))
            }
            Self::PeerAdded(peer) => write!(f, "+ peer {peer}"),
            Self::PeerRemoved(peer) => write!(f, "- peer {}", peer.id),
            Self::PeerChanged { old, new } => {
                write!(f, "~ peer {}", new.id)?;
                let mut fields = Fields { f, count: 0 };
                fields.compare("region", &old.region, &new.region)?;
                fields.compare("address", &old.address, &new.address)
            }
            Self::LiveRelease { old, new } => {
                write!(f, "~ live_release: {} -> {}", or_none(old), or_none(new))
            }
            Self::Pin { tenant, old: None, new } => write!(f, "+ pin {tenant}: {}", or_none(new)),
            Self::Pin { tenant, new: None, .. } => write!(f, "- pin {tenant}"),
            Self::Pin { tenant, old, new } => {
                write!(f, "~ pin {tenant}: {} -> {}", or_none(old), or_none(new))
            }
            Self::OtherProxies { now, added, removed } => {
                write!(f, "~ proxies of before: {now}, {added} added, {removed} removed")
            }
            Self::Servers { service, now, added, removed } => {
                write!(f, "~ servers of {service}: {now}, {added} added, {removed} removed")
            }
            Self::Bans { list, added: 0, removed: 0 } => write!(f, "~ bans.{list}: another order"),
            Self::Bans { list, added, removed } => {
                write!(f, "~ bans.{list}: {added} added, {removed} removed")
            }
        }
    }
}

fn agent_port(shard: &Shard) -> String {
    shard.agent_port.map_or_else(|| "the configuration's".to_owned(), |port| port.to_string())
}

fn states_in(shard: &Shard) -> String {
    let states = shard.states_in.iter().map(|(release, state)| format!("{release} {state}"));
    match states.collect::<Vec<_>>().join(", ") {
        none if none.is_empty() => "none".to_owned(),
        states => states,
    }
}

fn or_none(release: &Option<ReleaseName>) -> &str {
    release.as_ref().map_or("none", ReleaseName::as_str)
}

struct Fields<'a, 'b> {
    f: &'a mut fmt::Formatter<'b>,
    count: usize,
}

impl Fields<'_, '_> {
    fn compare<T: PartialEq + fmt::Display>(&mut self, field: &str, old: &T, new: &T) -> fmt::Result {
        if old == new {
            return Ok(());
        }
        let separator = if self.count == 0 { ": " } else { ", " };
        self.count += 1;
        write!(self.f, "{separator}{field} {old} -> {new}")
    }
}

/// All differences between two snapshots: shards, then peers, live release, pins and ban lists, each sorted.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct SnapshotDiff {
    /// The differences; empty when both say the same.
    pub changes: Vec<Change>,
}

impl fmt::Display for SnapshotDiff {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, change) in self.changes.iter().enumerate() {
            if index > 0 {
                f.write_str("\n")?;
            }
            write!(f, "{change}")?;
        }
        Ok(())
    }
}

/// How many of these are not among those.
fn beyond<T: PartialEq>(these: &[T], those: &[T]) -> usize {
    these.iter().filter(|item| !those.contains(item)).count()
}

impl Snapshot {
    /// What `self` says otherwise than `older`.
    #[must_use]
    pub fn diff(&self, older: &Self) -> SnapshotDiff {
        let mut changes = Vec::new();
        let old_shards = older.shards().iter().map(|shard| (&shard.name, shard)).collect();
        let new_shards = self.shards().iter().map(|shard| (&shard.name, shard)).collect();
        for (old, new) in pairs(&old_shards, &new_shards) {
            match (old, new) {
                (Some(old), Some(new)) if old != new => {
                    changes.push(Change::ShardChanged { old: Arc::clone(old), new: Arc::clone(new) });
                }
                (None, Some(new)) => changes.push(Change::ShardAdded(Arc::clone(new))),
                (Some(old), None) => changes.push(Change::ShardRemoved(Arc::clone(old))),
                (Some(_), Some(_)) | (None, None) => {}
            }
        }
        let old_peers = older.peers().iter().map(|peer| (&peer.id, peer)).collect();
        let new_peers = self.peers().iter().map(|peer| (&peer.id, peer)).collect();
        for (old, new) in pairs(&old_peers, &new_peers) {
            match (old, new) {
                (Some(old), Some(new)) if old != new => {
                    changes.push(Change::PeerChanged { old: old.clone(), new: new.clone() });
                }
                (None, Some(new)) => changes.push(Change::PeerAdded(new.clone())),
                (Some(old), None) => changes.push(Change::PeerRemoved(old.clone())),
                (Some(_), Some(_)) | (None, None) => {}
            }
        }
        if self.live_release() != older.live_release() {
            let (old, new) = (older.live_release().cloned(), self.live_release().cloned());
            changes.push(Change::LiveRelease { old, new });
        }
        let tenants: BTreeSet<_> = older.pins().chain(self.pins()).map(|(tenant, _)| tenant).collect();
        for tenant in tenants {
            let (old, new) = (older.tenant_pin(tenant.as_str()), self.tenant_pin(tenant.as_str()));
            if old != new {
                changes.push(Change::Pin { tenant: tenant.clone(), old: old.cloned(), new: new.cloned() });
            }
        }
        let (old, new) = (older.other_proxies(), self.other_proxies());
        if old != new {
            let (added, removed) = (beyond(new, old), beyond(old, new));
            changes.push(Change::OtherProxies { now: new.len(), added, removed });
        }
        let services: BTreeSet<_> = older.services().chain(self.services()).map(|(name, _)| name).collect();
        for service in services {
            let (old, new) = (older.servers_of(service.as_str()), self.servers_of(service.as_str()));
            if old != new {
                let (service, now) = (service.clone(), new.len());
                let (added, removed) = (beyond(new, old), beyond(old, new));
                changes.push(Change::Servers { service, now, added, removed });
            }
        }
        for list in BanList::ALL {
            let (old, new) = (older.bans().list(list), self.bans().list(list));
            if old != new {
                let (old, new): (HashSet<_>, HashSet<_>) = (old.iter().collect(), new.iter().collect());
                let (added, removed) = (new.difference(&old).count(), old.difference(&new).count());
                changes.push(Change::Bans { list, added, removed });
            }
        }
        SnapshotDiff { changes }
    }
}

/// The items of both maps side by side, by key.
fn pairs<'a, K: Ord, V: Copy>(
    old: &'a BTreeMap<&'a K, V>,
    new: &'a BTreeMap<&'a K, V>,
) -> impl Iterator<Item = (Option<V>, Option<V>)> {
    let keys: BTreeSet<_> = old.keys().chain(new.keys()).copied().collect();
    keys.into_iter().map(|key| (old.get(key).copied(), new.get(key).copied()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::file::parse_text;

    const OLD: &str = r#"
live_release = "release-1"
shards = [
  { name = "s1", id = 1, region = "r1", release = "release-1", address = "10.0.0.1:80" },
  { name = "s2", id = 2, region = "r1", release = "release-1", address = "10.0.0.2:80" },
  { name = "s3", id = 3, region = "r1", release = "release-1", address = "10.0.0.3:80" },
]
peers = [
  { id = "a", region = "r1", address = "10.0.1.1:7000" },
  { id = "b", region = "r1", address = "10.0.1.2:7000" },
]
[pins]
acme = "release-1"
beta = "release-1"
zeta = "release-1"
[bans]
exact = ["a", "b"]
substr = ["c", "d"]
"#;

    const NEW: &str = r#"
shards = [
  { name = "s4", id = 4, region = "r2", release = "release-2", address = "10.0.0.4:80", state = "drain", weight = 1 },
  { name = "s2", id = 2, region = "r1", release = "release-1", address = "10.0.0.9:80", state = "maint", weight = 10 },
  { name = "s1", id = 1, region = "r1", release = "release-1", address = "10.0.0.1:80" },
]
peers = [
  { id = "c", region = "r2", address = "10.0.1.3:7000" },
  { id = "b", region = "r1", address = "10.0.1.9:7000" },
]
[pins]
beta = "release-1"
new = "release-2"
zeta = "release-2"
[bans]
exact = ["b", "e", { pattern = "a", verdict = "allow" }]
substr = ["d", "c"]
"#;

    #[test]
    fn one_line_per_change() {
        let (old, new) = (parse_text(OLD).unwrap(), parse_text(NEW).unwrap());
        assert_eq!(
            new.diff(&old).to_string(),
            "~ shard s2: address 10.0.0.2:80 -> 10.0.0.9:80, state ready -> maint, weight 256 -> 10\n\
             - shard s3\n\
             + shard s4: id 4, region r2, release release-2, 10.0.0.4:80, drain, weight 1\n\
             - peer a\n\
             ~ peer b: address 10.0.1.2:7000 -> 10.0.1.9:7000\n\
             + peer c: region r2, 10.0.1.3:7000\n\
             ~ live_release: release-1 -> none\n\
             - pin acme\n\
             + pin new: release-2\n\
             ~ pin zeta: release-1 -> release-2\n\
             ~ bans.exact: 2 added, 1 removed\n\
             ~ bans.substr: another order"
        );
        assert!(!new.content_equals(&old));
    }

    #[test]
    fn equal_content_has_no_difference() {
        let snapshot = parse_text(OLD).unwrap();
        assert_eq!(snapshot.diff(&snapshot.clone()), SnapshotDiff::default());
        assert!(snapshot.content_equals(&snapshot.clone().with_version(7)));
    }
}
