//! Keys that operators write: what they are called, what they say, and one of them changed in many datacenters.

use super::agent::{Agent, Cas, Datacenter, Reading, Target, key_path};
use super::error::AgentError;
use super::policy::{Pair, PolicyKind};
use super::record::RecordFault;
use super::rights::Right;
use crate::bans::{BanList, Verdict};
use crate::name::{BanPattern, EnvironmentName, ReleaseName, TenantName};
use crate::shard::ShardState;
use serde::Deserialize;
use shardgate_peering_core::ShardName;
use std::collections::BTreeMap;
use tokio::task::JoinSet;

const RELEASES: &str = "releases/{env}/live or releases/{env}/tenant/{tenant}";
const BAN_LISTS: &str = "banlists/{env}/{domain, exact, prefix, substr or unban_prefix}/{pattern}";
const BANS: &str = "bans/{env}/{room or tenant}/{name}";
const STATE: &str = "ready, drain, maint or unhealthy";
const SHARD: &str = "1 to 128 of A-Z a-z 0-9 . _ -";

/// A key that routing reads.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum PolicyKey {
    /// The live release.
    Live,
    /// A tenant's release.
    Pin(TenantName),
    /// A shard's state.
    State(ShardName),
    /// A pattern in a ban list.
    Ban(BanList, BanPattern),
}

/// A key and what it says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PolicyEntry {
    /// This release is live.
    Live(ReleaseName),
    /// This tenant is pinned to this release.
    Pin(TenantName, ReleaseName),
    /// This shard is in this state.
    State(ShardName, ShardState),
    /// What matches this pattern is banned, or is not.
    Ban(BanList, BanPattern, Verdict),
}

impl PolicyKey {
    /// The family that it is of.
    #[must_use]
    pub const fn kind(&self) -> PolicyKind {
        match self {
            Self::Live | Self::Pin(_) => PolicyKind::Releases,
            Self::State(_) => PolicyKind::ShardStates,
            Self::Ban(BanList::Room | BanList::Tenant, _) => PolicyKind::Bans,
            Self::Ban(..) => PolicyKind::BanLists,
        }
    }

    /// Where it stands: `releases/prod/live`.
    #[must_use]
    pub fn path(&self, environment: &EnvironmentName) -> String {
        let prefix = self.kind().prefix(environment.as_str());
        match self {
            Self::Live => format!("{prefix}live"),
            Self::Pin(tenant) => format!("{prefix}tenant/{tenant}"),
            Self::State(shard) => format!("{prefix}{shard}"),
            Self::Ban(list, pattern) => format!("{prefix}{list}/{pattern}"),
        }
    }

    /// The key of a family with this behind its prefix.
    pub(crate) fn parse(kind: PolicyKind, rest: &str) -> Result<Self, RecordFault> {
        match kind {
            PolicyKind::Releases => match rest.split_once('/') {
                None if rest == "live" => Ok(Self::Live),
                Some(("tenant", tenant)) => TenantName::parse(tenant)
                    .map(Self::Pin)
                    .map_err(|_| RecordFault::value("tenant", tenant, TenantName::EXPECTED)),
                None | Some(_) => Err(RecordFault::Key { expected: RELEASES }),
            },
            PolicyKind::ShardStates => {
                ShardName::parse(rest).map(Self::State).map_err(|_| RecordFault::value("shard", rest, SHARD))
            }
            PolicyKind::BanLists => Self::parse_ban(kind, rest, BAN_LISTS),
            PolicyKind::Bans => Self::parse_ban(kind, rest, BANS),
        }
    }

    fn parse_ban(kind: PolicyKind, rest: &str, expected: &'static str) -> Result<Self, RecordFault> {
        let unread = RecordFault::Key { expected };
        let Some((list, pattern)) = rest.split_once('/') else { return Err(unread) };
        let Some(list) = BanList::ALL.into_iter().find(|known| known.as_str() == list) else {
            return Err(unread);
        };
        let pattern = BanPattern::parse(pattern)
            .map_err(|_| RecordFault::value("pattern", pattern, BanPattern::EXPECTED))?;
        let key = Self::Ban(list, pattern);
        if key.kind() == kind { Ok(key) } else { Err(unread) }
    }

    /// What it says with this value.
    pub(crate) fn saying(self, value: &str) -> Result<PolicyEntry, RecordFault> {
        let release = || {
            ReleaseName::parse(value)
                .map_err(|_| RecordFault::value("value", value, "a release such as release-3630"))
        };
        match self {
            Self::Live => Ok(PolicyEntry::Live(release()?)),
            Self::Pin(tenant) => Ok(PolicyEntry::Pin(tenant, release()?)),
            Self::State(shard) => {
                let state = match value {
                    // Its agent found it so: no traffic.
                    "unhealthy" => Some(ShardState::Maint),
                    word => ShardState::from_word(word),
                };
                let state = state.ok_or_else(|| RecordFault::value("value", value, STATE))?;
                Ok(PolicyEntry::State(shard, state))
            }
            Self::Ban(list, pattern) => {
                let verdict = Verdict::from_word(value)
                    .ok_or_else(|| RecordFault::value("value", value, "ban, or allow to except something"))?;
                Ok(PolicyEntry::Ban(list, pattern, verdict))
            }
        }
    }
}

impl PolicyEntry {
    /// The key without what it says, and the word for that.
    #[must_use]
    pub fn into_parts(self) -> (PolicyKey, String) {
        match self {
            Self::Live(release) => (PolicyKey::Live, release.to_string()),
            Self::Pin(tenant, release) => (PolicyKey::Pin(tenant), release.to_string()),
            Self::State(shard, state) => (PolicyKey::State(shard), state.to_string()),
            Self::Ban(list, pattern, verdict) => (PolicyKey::Ban(list, pattern), verdict.as_str().to_owned()),
        }
    }
}

/// What a key shall say, or that it shall go.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeyChange {
    key: PolicyKey,
    wanted: Option<String>,
}

/// Why a key cannot be written.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum KeyError {
    /// A path of HTTP loses such a part on its way: another key would be written.
    #[error("{name:?} cannot be a key: it has a part that is empty, \".\" or \"..\" between slashes")]
    Segment {
        /// What was to be written.
        name: String,
    },
}

impl KeyChange {
    /// To say this.
    ///
    /// # Errors
    /// [`KeyError`].
    pub fn set(entry: PolicyEntry) -> Result<Self, KeyError> {
        let (key, value) = entry.into_parts();
        Self::new(key, Some(value))
    }

    /// To go.
    ///
    /// # Errors
    /// [`KeyError`].
    pub fn delete(key: PolicyKey) -> Result<Self, KeyError> {
        Self::new(key, None)
    }

    fn new(key: PolicyKey, wanted: Option<String>) -> Result<Self, KeyError> {
        let name = match &key {
            PolicyKey::Live => "live",
            PolicyKey::Pin(tenant) => tenant.as_str(),
            PolicyKey::State(shard) => shard.as_str(),
            PolicyKey::Ban(_, pattern) => pattern.as_str(),
        };
        // A slash at the end stays, as in a ban of a group: what has a value is no folder.
        if name.strip_suffix('/').unwrap_or(name).split('/').any(|part| matches!(part, "" | "." | "..")) {
            return Err(KeyError::Segment { name: name.to_owned() });
        }
        Ok(Self { key, wanted })
    }

    /// The key.
    #[must_use]
    pub const fn key(&self) -> &PolicyKey {
        &self.key
    }

    /// What it shall say; `None`: it shall go.
    #[must_use]
    pub fn wanted(&self) -> Option<&str> {
        self.wanted.as_deref()
    }
}

/// Whether a change is made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Effect {
    /// It is.
    Write,
    /// It is only told what would be.
    DryRun,
}

/// What a key says in a datacenter, as far as it is known.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Seen {
    /// It could not be read.
    Unknown,
    /// There is no such key.
    Absent,
    /// This, without white space at its ends.
    Value(String),
}

/// What became of a change in one datacenter.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// It was made, and read back.
    Written,
    /// It was so already.
    AsBefore,
    /// It would be made.
    WouldBeWritten,
    /// Somebody else changed the key meanwhile, to something else.
    Overtaken,
    /// It was not, as far as is known.
    Failed(AgentError),
}

/// A change in one datacenter.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Applied {
    /// What the key said.
    pub before: Seen,
    /// What it says.
    pub now: Seen,
    /// What became of it.
    pub outcome: Outcome,
}

impl Applied {
    /// Whether the datacenter holds what was wanted.
    #[must_use]
    pub const fn holds(&self) -> bool {
        matches!(self.outcome, Outcome::Written | Outcome::AsBefore)
    }
}

/// A key as it was read: for [`Cas::Index`], 0 where there is none.
struct AtIndex {
    seen: Seen,
    index: u64,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Indexed {
    #[serde(flatten)]
    pair: Pair,
    modify_index: u64,
}

/// Changes a key in these datacenters, all at once: each is read, and written by compare-and-set on what was read, and read back. None
/// keeps another from it.
pub async fn apply(
    agent: &Agent,
    environment: &EnvironmentName,
    change: &KeyChange,
    datacenters: &[Datacenter],
    effect: Effect,
) -> BTreeMap<Datacenter, Applied> {
    let path = change.key.path(environment);
    let read = each(datacenters, |datacenter| {
        let (agent, path) = (agent.clone(), path.clone());
        async move { read(&agent, &datacenter, &path).await }
    })
    .await;
    // No datacenter is written before all were read.
    let mut tasks = JoinSet::new();
    for (datacenter, read) in read {
        let (agent, path, wanted) = (agent.clone(), path.clone(), change.wanted.clone());
        tasks.spawn(async move {
            let applied = match read {
                Ok(before) => change_one(&agent, &datacenter, &path, wanted.as_deref(), before, effect).await,
                Err(error) => {
                    Applied { before: Seen::Unknown, now: Seen::Unknown, outcome: Outcome::Failed(error) }
                }
            };
            (datacenter, applied)
        });
    }
    tasks.join_all().await.into_iter().collect()
}

/// Asks the same of every datacenter, all at once.
pub(super) async fn each<T, F>(
    datacenters: &[Datacenter],
    mut ask: impl FnMut(Datacenter) -> F,
) -> BTreeMap<Datacenter, T>
where
    T: Send + 'static,
    F: Future<Output = T> + Send + 'static,
{
    let mut tasks = JoinSet::new();
    for datacenter in datacenters {
        let asked = ask(datacenter.clone());
        let datacenter = datacenter.clone();
        tasks.spawn(async move { (datacenter, asked.await) });
    }
    tasks.join_all().await.into_iter().collect()
}

async fn read(agent: &Agent, datacenter: &Datacenter, path: &str) -> Result<AtIndex, AgentError> {
    let target = Target {
        path: key_path(path),
        query: Vec::new(),
        right: Right::Keys(path.to_owned()),
        datacenter: Some(datacenter.clone()),
    };
    let found = agent.list::<Indexed>(&target, Reading::Confirmed).await?.records.into_iter().next();
    let Some(Indexed { pair, modify_index }) = found else {
        // What may not be read may look as if it were not there.
        agent.check_right(&target).await?;
        return Ok(AtIndex { seen: Seen::Absent, index: 0 });
    };
    // What is no text is shown all the same; it is never what was wanted.
    let value = pair.text().map_or_else(|fault| format!("({fault})"), |text| text.trim().to_owned());
    Ok(AtIndex { seen: Seen::Value(value), index: modify_index })
}

async fn change_one(
    agent: &Agent,
    datacenter: &Datacenter,
    path: &str,
    wanted: Option<&str>,
    AtIndex { seen: before, index }: AtIndex,
    effect: Effect,
) -> Applied {
    if before.is(wanted) {
        return Applied { now: before.clone(), before, outcome: Outcome::AsBefore };
    }
    if effect == Effect::DryRun {
        let may = agent.authorize(&Right::Writing(path.to_owned()), Some(datacenter)).await;
        let outcome = may.map_or_else(Outcome::Failed, |()| Outcome::WouldBeWritten);
        return Applied { now: before.clone(), before, outcome };
    }
    let written = match wanted {
        Some(value) => agent.write_key(datacenter, path, value, Cas::Index(index)).await,
        None => agent.delete_key(datacenter, path, Cas::Index(index)).await,
    };
    let now = read(agent, datacenter, path).await;
    let outcome = match (written, &now) {
        // Whoever answered last is right: a write whose answer was lost may have been made, by us or by somebody who wanted the same.
        (_, Ok(now)) if now.seen.is(wanted) => Outcome::Written,
        (Ok(_), Ok(_)) => Outcome::Overtaken,
        (Err(error), _) => Outcome::Failed(error),
        (Ok(_), Err(error)) => Outcome::Failed(error.clone()),
    };
    Applied { before, now: now.map_or(Seen::Unknown, |now| now.seen), outcome }
}

impl Seen {
    fn is(&self, wanted: Option<&str>) -> bool {
        match (self, wanted) {
            (Self::Value(value), Some(wanted)) => value == wanted,
            (Self::Absent, None) => true,
            (Self::Unknown | Self::Absent | Self::Value(_), _) => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_read_as_they_are_written() {
        let environment = EnvironmentName::parse("prod").unwrap();
        let pattern = BanPattern::parse("x/y").unwrap();
        for (key, path) in [
            (PolicyKey::Live, "releases/prod/live"),
            (PolicyKey::Pin(TenantName::parse("acme").unwrap()), "releases/prod/tenant/acme"),
            (PolicyKey::State(ShardName::parse("s1").unwrap()), "shard-states/prod/s1"),
            (PolicyKey::Ban(BanList::UnbanPrefix, pattern.clone()), "banlists/prod/unban_prefix/x/y"),
            (PolicyKey::Ban(BanList::Room, pattern), "bans/prod/room/x/y"),
        ] {
            assert_eq!(key.path(&environment), path);
            let rest = path.strip_prefix(&key.kind().prefix("prod")).unwrap();
            assert_eq!(PolicyKey::parse(key.kind(), rest).unwrap(), key);
        }
    }

    #[test]
    fn what_would_be_another_key_is_refused() {
        let ban = |pattern: &str| {
            let entry = PolicyEntry::Ban(BanList::Exact, BanPattern::parse(pattern).unwrap(), Verdict::Ban);
            KeyChange::set(entry).map(drop).map_err(|error| error.to_string())
        };
        assert_eq!((ban("a.b/..c"), ban("acme/")), (Ok(()), Ok(())));
        for pattern in ["..", ".", "../live", "a/../../x", "a//b", "/a", "/", "a//", "../"] {
            assert!(ban(pattern).unwrap_err().contains("has a part that is empty"), "{pattern}");
        }
        let shard = PolicyKey::State(ShardName::parse("..").unwrap());
        assert!(KeyChange::delete(shard).is_err());
    }

    #[test]
    fn what_holds() {
        let value = Seen::Value("a".to_owned());
        for (seen, wanted, is) in [
            (&value, Some("a"), true),
            (&value, Some("b"), false),
            (&value, None, false),
            (&Seen::Absent, None, true),
            (&Seen::Absent, Some("a"), false),
            (&Seen::Unknown, None, false),
        ] {
            assert_eq!(seen.is(wanted), is, "{seen:?} {wanted:?}");
        }
    }
}
