//! What operators write below `releases`, `shard-states`, `banlists` and `bans` in Consul's KV store.

use super::keys::{PolicyEntry, PolicyKey};
use super::record::{InvalidRecord, RecordFault};
use crate::bans::{BanList, Verdict};
use crate::name::{BanPattern, ReleaseName, TenantName};
use crate::shard::ShardState;
use serde::{Deserialize, Serialize};
use shardgate_peering_core::ShardName;
use std::collections::BTreeMap;

/// The families of keys that routing reads, each a prefix with a watch of its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum PolicyKind {
    /// `releases/{env}/live` and `releases/{env}/tenant/{tenant}`.
    Releases,
    /// `shard-states/{env}/{shard}`.
    ShardStates,
    /// `banlists/{env}/{list}/{pattern}`.
    BanLists,
    /// `bans/{env}/{room or tenant}/{name}`.
    Bans,
}

impl PolicyKind {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Releases, Self::ShardStates, Self::BanLists, Self::Bans];

    /// The first part of its keys.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Releases => "releases",
            Self::ShardStates => "shard-states",
            Self::BanLists => "banlists",
            Self::Bans => "bans",
        }
    }

    /// What its keys begin with: `releases/prod/`.
    #[must_use]
    pub fn prefix(self, environment: &str) -> String {
        format!("{}/{environment}/", self.as_str())
    }
}

/// A key and its value, as `/v1/kv/:key` lists it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(crate) struct Pair {
    pub(crate) key: String,
    /// Base64; `null` when it is empty.
    pub(crate) value: Option<String>,
}

/// All that operators said in one datacenter.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Policy {
    pub(crate) live: Option<ReleaseName>,
    pub(crate) pins: BTreeMap<TenantName, ReleaseName>,
    pub(crate) states: BTreeMap<ShardName, ShardState>,
    pub(crate) bans: Vec<(BanList, BanPattern, Verdict)>,
}

impl Policy {
    /// Adds the keys of a kind; those that mean nothing go to `invalid`.
    pub(crate) fn add(
        &mut self,
        kind: PolicyKind,
        environment: &str,
        pairs: &[Pair],
        invalid: &mut Vec<InvalidRecord>,
    ) {
        let prefix = kind.prefix(environment);
        for pair in pairs {
            let Some(rest) = pair.below(&prefix) else { continue };
            if let Err(fault) = pair.text().and_then(|value| self.add_one(kind, rest, value.trim())) {
                invalid.push(InvalidRecord { place: format!("key {}", pair.key), fault });
            }
        }
    }

    fn add_one(&mut self, kind: PolicyKind, rest: &str, value: &str) -> Result<(), RecordFault> {
        match PolicyKey::parse(kind, rest)?.saying(value)? {
            PolicyEntry::Live(release) => self.live = Some(release),
            PolicyEntry::Pin(tenant, release) => {
                self.pins.insert(tenant, release);
            }
            PolicyEntry::State(shard, state) => {
                self.states.insert(shard, state);
            }
            PolicyEntry::Ban(list, pattern, verdict) => self.bans.push((list, pattern, verdict)),
        }
        Ok(())
    }
}

impl Pair {
    /// What its key says below a prefix; `None` for other keys, and for folders as Consul's UI makes them: those have no value. A ban of a
    /// group ends in a slash, too, and has one.
    pub(crate) fn below(&self, prefix: &str) -> Option<&str> {
        let valued = self.value.as_deref().is_some_and(|value| !value.is_empty());
        self.key.strip_prefix(prefix).filter(|rest| valued || !(rest.is_empty() || rest.ends_with('/')))
    }

    /// The value as text.
    pub(crate) fn text(&self) -> Result<String, RecordFault> {
        use base64::Engine as _;
        let encoded = self.value.as_deref().unwrap_or("");
        let bytes = base64::engine::general_purpose::STANDARD.decode(encoded).ok();
        bytes
            .and_then(|bytes| String::from_utf8(bytes).ok())
            .ok_or_else(|| RecordFault::value("value", encoded, "text (base64 as Consul sends it)"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use base64::Engine as _;

    fn pairs(pairs: &[(&str, &str)]) -> Vec<Pair> {
        let encode = |text: &str| base64::engine::general_purpose::STANDARD.encode(text);
        let pair = |(key, value): &(&str, &str)| Pair { key: (*key).to_owned(), value: Some(encode(value)) };
        pairs.iter().map(pair).collect()
    }

    fn read(kind: PolicyKind, of: &[(&str, &str)]) -> (Policy, Vec<String>) {
        let (mut policy, mut invalid) = (Policy::default(), Vec::new());
        policy.add(kind, "prod", &pairs(of), &mut invalid);
        (policy, invalid.iter().map(ToString::to_string).collect())
    }

    #[test]
    fn releases_and_pins() {
        let (policy, invalid) = read(
            PolicyKind::Releases,
            &[
                ("releases/prod/", ""),
                ("releases/prod/live", "release-1\n"),
                ("releases/prod/tenant/", ""),
                ("releases/prod/tenant/acme", "release-2"),
                ("releases/prod/tenant/Acme", "release-2"),
                ("releases/prod/tenant/void", ""),
                ("releases/prod/next", "release-3"),
            ],
        );
        assert_eq!(policy.live.unwrap().as_str(), "release-1");
        assert_eq!(policy.pins.len(), 1);
        assert_eq!(
            invalid,
            [
                "key releases/prod/tenant/Acme: tenant is \"Acme\", expected 1 to 256 visible ASCII characters in lower case without / ? # ,",
                "key releases/prod/tenant/void: value is \"\", expected a release such as release-3630",
                "key releases/prod/next: the key is not read by anybody, expected releases/{env}/live or releases/{env}/tenant/{tenant}",
            ]
        );
    }

    #[test]
    fn states() {
        let (policy, invalid) = read(
            PolicyKind::ShardStates,
            &[
                ("shard-states/prod/s1", "drain"),
                ("shard-states/prod/s2", "unhealthy"),
                ("shard-states/prod/s3", "off"),
            ],
        );
        let states: Vec<_> = policy.states.iter().map(|(name, state)| format!("{name} {state}")).collect();
        assert_eq!(states, ["s1 drain", "s2 maint"]);
        assert_eq!(
            invalid,
            ["key shard-states/prod/s3: value is \"off\", expected ready, drain, maint or unhealthy"]
        );
    }

    #[test]
    fn bans_of_both_families() {
        let (policy, invalid) = read(
            PolicyKind::BanLists,
            &[
                ("banlists/prod/exact/tenant/room", "ban"),
                ("banlists/prod/room/r", "ban"),
                ("banlists/prod/substr/x", "maybe"),
            ],
        );
        assert_eq!(policy.bans, [(BanList::Exact, BanPattern::parse("tenant/room").unwrap(), Verdict::Ban)]);
        assert_eq!(invalid.len(), 2, "{invalid:?}");
        let (policy, invalid) =
            read(PolicyKind::Bans, &[("bans/prod/tenant/acme", "ban"), ("bans/prod/exact/x", "ban")]);
        assert_eq!((policy.bans.len(), invalid.len()), (1, 1), "{invalid:?}");
    }

    #[test]
    fn what_ends_in_a_slash_is_a_folder_only_without_a_value() {
        let (policy, invalid) = read(
            PolicyKind::BanLists,
            &[("banlists/prod/exact/", ""), ("banlists/prod/exact/acme/", "ban"), ("banlists/prod/x/", "")],
        );
        assert_eq!(policy.bans, [(BanList::Exact, BanPattern::parse("acme/").unwrap(), Verdict::Ban)]);
        assert_eq!(invalid, [""; 0]);
        let (policy, invalid) = read(
            PolicyKind::Releases,
            &[("releases/prod/tenant/", "release-1"), ("releases/prod/", "release-1")],
        );
        assert_eq!((policy, invalid.len()), (Policy::default(), 2), "{invalid:?}");
        let folder = Pair { key: "bans/prod/room/".to_owned(), value: None };
        assert_eq!(folder.below("bans/prod/"), None);
    }

    #[test]
    fn a_value_that_is_no_text() {
        let pair = Pair { key: "releases/prod/live".to_owned(), value: Some("/w==".to_owned()) };
        assert!(pair.text().is_err());
        assert_eq!(Pair { value: None, ..pair }.text().unwrap(), "");
    }
}
