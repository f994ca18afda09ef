//! What can be put right, and putting it right: one decision of the mesh for each conference, by which its people end up together.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::OpenOptions;
use std::io::Write as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;

use serde::Serialize;
use shardgate_proto::admin::{ClearRequest, SetEntryRequest};

use super::finding::{Finding, Kind};
use super::haproxy::HaProxy;
use super::look::Look;

/// What would be done about a conference.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(super) struct Change {
    pub(super) key: String,
    pub(super) because: Kind,
    /// Where it shall be; `None`: its entry is cleared.
    pub(super) shard: Option<String>,
    /// Where tables have it.
    pub(super) from: Vec<String>,
    /// What stands for that shard, and for others.
    pub(super) votes: Vec<Votes>,
}

/// What stands for a shard, the most important first.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub(super) struct Votes {
    /// By its own census.
    pub(super) participants: u64,
    /// By the nodes.
    pub(super) sessions: u64,
    pub(super) tables: u64,
    pub(super) shard: String,
}

/// A change, and what became of it.
#[derive(Debug, Clone, Serialize)]
pub(super) struct Changed {
    #[serde(flatten)]
    pub(super) change: Change,
    /// set, cleared, or why not.
    pub(super) outcome: String,
}

/// Kinds that a decision mends, the one that says most first.
const MENDED: [Kind; 5] = [
    Kind::ConferenceOnTwoShards,
    Kind::EntryShardMismatch,
    Kind::TableSplitBrain,
    Kind::MissingEntry,
    Kind::OrphanEntry,
];

/// What would be done, one change for each conference; `shards` says which take conferences.
pub(super) fn plan(findings: &[Finding], shards: &BTreeMap<String, bool>) -> Vec<Change> {
    let mut by_key: BTreeMap<&str, Vec<&Finding>> = BTreeMap::new();
    for finding in findings.iter().filter(|finding| MENDED.contains(&finding.kind)) {
        by_key.entry(&finding.subject).or_default().push(finding);
    }
    let first = |found: Vec<&Finding>| {
        let worst =
            found.into_iter().min_by_key(|finding| MENDED.iter().position(|kind| *kind == finding.kind));
        worst.and_then(|finding| change(finding, shards))
    };
    by_key.into_values().filter_map(first).collect()
}

fn change(finding: &Finding, shards: &BTreeMap<String, bool>) -> Option<Change> {
    let takes = |shard: &str| shards.is_empty() || shards.get(shard) == Some(&true);
    let mut votes: BTreeMap<&str, Votes> = BTreeMap::new();
    let mut of = |shard: &str, add: &dyn Fn(&mut Votes)| {
        // A text that lives as long as the finding is the map's key.
        let known = finding.shards().find(|known| *known == shard);
        if let Some(known) = known.filter(|known| takes(known)) {
            let empty = || Votes { participants: 0, sessions: 0, tables: 0, shard: known.to_owned() };
            add(votes.entry(known).or_insert_with(empty));
        }
    };
    finding.census.iter().for_each(|on| of(&on.shard, &|votes| votes.participants += on.participants));
    finding.sessions.iter().for_each(|on| of(&on.shard, &|votes| votes.sessions += on.sessions));
    for shard in finding.tables.iter().filter_map(|table| table.shard.as_deref()) {
        of(shard, &|votes| votes.tables += 1);
    }
    let mut votes: Vec<Votes> = votes.into_values().collect();
    // Where nothing else tells, the first by name.
    votes.sort_by(|one, other| {
        let counts = |votes: &Votes| (votes.participants, votes.sessions, votes.tables);
        counts(other).cmp(&counts(one)).then_with(|| one.shard.cmp(&other.shard))
    });
    let from: BTreeSet<String> = finding.tables.iter().filter_map(|table| table.shard.clone()).collect();
    // An entry that names nothing which is there ends; where people are connected for it they decide.
    let shard = votes.first().map(|votes| votes.shard.clone());
    let (key, because) = (finding.subject.clone(), finding.kind);
    match (finding.kind, shard) {
        (Kind::OrphanEntry, _) if !finding.sessions.is_empty() => None,
        (Kind::OrphanEntry, None) => {
            Some(Change { key, because, shard: None, from: from.into_iter().collect(), votes })
        }
        (_, None) => None,
        (_, shard) => Some(Change { key, because, shard, from: from.into_iter().collect(), votes }),
    }
}

impl Finding {
    fn shards(&self) -> impl Iterator<Item = &str> {
        let tables = self.tables.iter().filter_map(|table| table.shard.as_deref());
        let census = self.census.iter().map(|on| on.shard.as_str());
        tables.chain(census).chain(self.sessions.iter().map(|on| on.shard.as_str()))
    }
}

/// Carries changes out: on the mesh by one decision of the conference's home, and on each HAProxy by itself.
pub(super) async fn carry_out(
    look: &mut Look,
    table: &str,
    changes: Vec<Change>,
    audit: Option<&Path>,
) -> Vec<Changed> {
    let mut done = Vec::new();
    for change in changes {
        let mut outcomes = Vec::new();
        if let Some(node) = look.nodes.first_mut() {
            outcomes.push(order(node, &change).await);
        }
        for (haproxy, servers) in &look.servers {
            if let Some(shard) = &change.shard {
                outcomes.push(order_haproxy(haproxy, table, &change.key, shard, servers.id_of(shard)).await);
            }
        }
        let mut wrong = outcomes.iter().filter_map(|outcome| outcome.as_ref().err().cloned());
        let well = if change.shard.is_some() { "set" } else { "cleared" };
        let outcome = wrong.next().unwrap_or_else(|| well.to_owned());
        let changed = Changed { change, outcome };
        if let Some(path) = audit
            && let Err(error) = note(path, &changed)
        {
            crate::render::tell(&format!("error: --audit {}: {error}", path.display()));
        }
        done.push(changed);
    }
    done
}

async fn order(node: &mut crate::node::Node, change: &Change) -> Result<(), String> {
    let key = change.key.clone();
    let refused = node.refused();
    let outcome = match change.shard.clone() {
        Some(shard) => {
            let answer = node.client.set_entry(SetEntryRequest { key, shard }).await;
            answer.map_err(refused).map_err(|error| error.to_string())?.into_inner().outcome
        }
        None => {
            let answer = node.client.clear(ClearRequest { key }).await;
            answer.map_err(refused).map_err(|error| error.to_string())?.into_inner().outcome
        }
    };
    if matches!(outcome.as_str(), "set" | "cleared") { Ok(()) } else { Err(outcome) }
}

async fn order_haproxy(
    haproxy: &HaProxy,
    table: &str,
    key: &str,
    shard: &str,
    server: Option<u32>,
) -> Result<(), String> {
    if !haproxy.takes_orders() {
        return Err(format!("{} is a file", haproxy.name()));
    }
    let server = server.ok_or_else(|| format!("{} has no server for {shard}", haproxy.name()))?;
    haproxy.set(table, key, server).await.map_err(|why| format!("{}: {why}", haproxy.name()))
}

/// One line for each change: when, who, on which machine, what, why, and what became of it.
fn note(path: &Path, changed: &Changed) -> std::io::Result<()> {
    #[derive(Serialize)]
    struct Audit<'a> {
        at: String,
        who: String,
        host: String,
        #[serde(flatten)]
        changed: &'a Changed,
    }
    let said = |name: &str| std::env::var(name).ok().filter(|value| !value.is_empty());
    let line = Audit {
        at: humantime::format_rfc3339_millis(std::time::SystemTime::now()).to_string(),
        who: said("SUDO_USER").or_else(|| said("USER")).unwrap_or_else(|| "-".to_owned()),
        host: std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default().trim().to_owned(),
        changed,
    };
    // Names of conferences are personal.
    let mut file = OpenOptions::new().append(true).create(true).mode(0o600).open(path)?;
    file.write_all(crate::render::json(&line).as_bytes())
}

#[cfg(test)]
mod tests {
    use super::super::finding::{InTable, OnCensus};
    use super::super::rows::OnShard;
    use super::*;

    fn finding(kind: Kind, tables: &[&str], census: &[(&str, u64)], sessions: &[(&str, u64)]) -> Finding {
        let in_table = |shard: &&str| InTable {
            table: "n".to_owned(),
            shard: Some((*shard).to_owned()).filter(|shard| !shard.is_empty()),
            generation: None,
        };
        let counted = census.iter().map(|(shard, participants)| OnCensus {
            shard: (*shard).to_owned(),
            participants: *participants,
        });
        let on = sessions
            .iter()
            .map(|(shard, sessions)| OnShard { shard: (*shard).to_owned(), sessions: *sessions });
        Finding {
            tables: tables.iter().map(in_table).collect(),
            census: counted.collect(),
            sessions: on.collect(),
            ..Finding::of_node(kind, "room".to_owned(), String::new())
        }
    }

    #[test]
    fn the_shard_with_most_people_wins() {
        let shards = [("s1", true), ("s2", true), ("s3", false)]
            .map(|(shard, takes)| (shard.to_owned(), takes))
            .into();
        for (case, expected) in [
            (finding(Kind::TableSplitBrain, &["s1", "s1", "s2"], &[], &[]), "s1"),
            (finding(Kind::TableSplitBrain, &["s1", "s2"], &[], &[]), "s1"),
            (finding(Kind::TableSplitBrain, &["s1", "s1", "s2"], &[], &[("s2", 1)]), "s2"),
            (finding(Kind::TableSplitBrain, &["s1", "s2"], &[("s1", 2), ("s2", 3)], &[("s1", 9)]), "s2"),
            (finding(Kind::EntryShardMismatch, &["s1", "s1"], &[("s2", 3)], &[]), "s2"),
            (finding(Kind::MissingEntry, &["s2", ""], &[], &[]), "s2"),
            (finding(Kind::MissingEntry, &[], &[("s1", 4)], &[]), "s1"),
            // Nobody is moved to a shard that takes no traffic, or that nobody knows.
            (finding(Kind::TableSplitBrain, &["s2", "s3"], &[("s3", 9)], &[]), "s2"),
            (finding(Kind::TableSplitBrain, &["s2", "s9"], &[("s9", 9)], &[]), "s2"),
            (finding(Kind::OrphanEntry, &["s9"], &[], &[]), "cleared"),
        ] {
            let plan = plan(std::slice::from_ref(&case), &shards);
            let [change] = &plan[..] else { panic!("{case:?}: {plan:?}") };
            assert_eq!(change.shard.as_deref().unwrap_or("cleared"), expected, "{case:?}");
        }
        for nothing in [
            finding(Kind::LeakedConference, &["s1"], &[("s2", 0)], &[]),
            finding(Kind::PeerNotConnected, &[], &[], &[]),
            finding(Kind::TableSplitBrain, &["s3", "s9"], &[], &[]),
            finding(Kind::OrphanEntry, &["s1"], &[], &[("s1", 2)]),
        ] {
            assert_eq!(plan(std::slice::from_ref(&nothing), &shards), [], "{nothing:?}");
        }
    }

    #[test]
    fn a_conference_is_decided_once() {
        let found = [
            finding(Kind::TableSplitBrain, &["s1", "s2"], &[], &[]),
            finding(Kind::ConferenceOnTwoShards, &["s1", "s2"], &[], &[("s1", 1), ("s2", 2)]),
        ];
        let plan = plan(&found, &BTreeMap::new());
        assert_eq!(
            plan.iter().map(|change| (change.because, change.shard.as_deref())).collect::<Vec<_>>(),
            [(Kind::ConferenceOnTwoShards, Some("s2"))]
        );
    }
}
