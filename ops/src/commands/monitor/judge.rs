//! What the tables, the sessions and the shards' own counts of one conference say together. Pure.

use std::collections::{BTreeMap, BTreeSet};

use super::super::census::{Census, Room};
use super::super::cookie::is_cookie;
use super::finding::{Finding, InTable, Kind, OnCensus};
use super::rows::{OnShard, Row};

/// What has less left than this may end before anybody could do anything about it.
const LEFT_MIN_MS: u64 = 60_000;
/// A room that is younger than this may be waiting for its first person.
const ROOM_AGE_MIN_MS: u64 = 60_000;

/// What is known beside the rows.
#[derive(Debug, Default)]
pub(super) struct Sight {
    /// Whose tables were read, in the order of the rows.
    pub(super) tables: Vec<String>,
    /// How many of them, the last ones, are HAProxies'.
    pub(super) haproxies: usize,
    /// Every shard that some node knows; none when no node was asked.
    pub(super) shards: BTreeSet<String>,
    /// Keys of HAProxies that are as long as this may have been cut.
    pub(super) haproxy_key_len: usize,
    /// What has been decided less long ago than this may not be in a census.
    pub(super) census_lag_ms: u64,
    /// Milliseconds since 1970.
    pub(super) now_ms: u64,
}

/// What is known of one conference.
struct Case<'a> {
    sight: &'a Sight,
    rows: &'a [Option<Row>],
    key: &'a str,
    /// The shards that tables have it on.
    on: BTreeSet<&'a str>,
    census: Vec<&'a Room>,
    sessions: BTreeMap<&'a str, u64>,
}

/// Judges one key's rows.
pub(super) fn judge(sight: &Sight, rows: &[Option<Row>], census: &mut Census) -> Vec<Finding> {
    let Some(key) = rows.iter().flatten().map(|row| row.key.as_str()).next() else { return Vec::new() };
    // What is longer than a HAProxy's keys it can only have as something else.
    let (of_nodes, of_haproxies) = rows.split_at(rows.len().saturating_sub(sight.haproxies));
    let rows = if key.len() > sight.haproxy_key_len { of_nodes } else { rows };
    let may_be_cut = key.len() == sight.haproxy_key_len && of_haproxies.iter().any(Option::is_some);
    let live = || rows.iter().flatten().filter(|row| row.shard.is_some());
    let mut sessions = BTreeMap::new();
    for on in rows.iter().flatten().flat_map(|row| &row.sessions) {
        *sessions.entry(on.shard.as_str()).or_default() += on.sessions;
    }
    if live().next().is_none() && sessions.is_empty() {
        return Vec::new();
    }
    let reports = |shard: &str| census.is_reporting(shard);
    let on: BTreeSet<&str> = live().filter_map(|row| row.shard.as_deref()).collect();
    let reporting = on.iter().all(|shard| reports(shard));
    // No census has them.
    let of_census = if is_cookie(key) { Vec::new() } else { census.rooms_of(key) };
    let case = Case { sight, rows, key, on, census: of_census, sessions };
    if may_be_cut {
        let what = format!("a HAProxy has it with {} bytes, as many as its table takes", key.len());
        // What it stands for nobody knows: there is nothing to compare.
        return vec![case.finding(Kind::AmbiguousKey, what)];
    }
    let mut found = Vec::new();
    case.tables(&mut found);
    if !is_cookie(key) {
        case.people(reporting, &mut found);
    }
    found
}

impl Case<'_> {
    /// What the tables alone say.
    fn tables(&self, found: &mut Vec<Finding>) {
        let shards: Vec<&str> = self.on.iter().copied().collect();
        let live: Vec<_> = self.rows.iter().flatten().filter(|row| row.shard.is_some()).collect();
        let left = live.iter().map(|row| row.remaining_ms).max().unwrap_or_default();
        if shards.len() > 1 {
            found.push(self.finding(Kind::TableSplitBrain, format!("tables have it on {}", listed(&shards))));
        } else if !live.is_empty() && live.len() < self.rows.len() && left >= LEFT_MIN_MS {
            let missing = self.rows.len() - live.len();
            let what = format!(
                "{missing} of {} tables do not have it, others on {}",
                self.rows.len(),
                listed(&shards)
            );
            found.push(self.finding(Kind::MissingEntry, what));
        }
        for shard in shards
            .iter()
            .filter(|shard| !self.sight.shards.is_empty() && !self.sight.shards.contains(**shard))
        {
            found.push(
                self.finding(Kind::OrphanEntry, format!("its entry names {shard}, which no node knows")),
            );
        }
    }

    /// What people's sessions and the shards' own counts say, where the tables agree.
    fn people(&self, reporting: bool, found: &mut Vec<Finding>) {
        let here: Vec<&str> = self.sessions.keys().copied().collect();
        if here.len() > 1 {
            let what = format!("people are connected on {}", listed(&here));
            found.push(self.finding(Kind::ConferenceOnTwoShards, what));
            return;
        }
        let [entry] = self.on.iter().copied().collect::<Vec<_>>()[..] else { return };
        let decided_ms = self.rows.iter().flatten().filter_map(|row| row.created_ms).max();
        // What has been decided a moment ago is not in any census yet.
        if decided_ms.is_some_and(|at| self.sight.now_ms.saturating_sub(at) < self.sight.census_lag_ms) {
            return;
        }
        let peopled = self.census.iter().filter(|room| room.participants > 0).map(|room| room.shard.as_str());
        let peopled: BTreeSet<&str> = peopled.collect();
        let unseen = self.sight.haproxies > 0 || here.is_empty();
        let alive: Vec<&str> = if unseen {
            peopled.iter().chain(&here).copied().collect::<BTreeSet<_>>().into_iter().collect()
        } else {
            here
        };
        match alive[..] {
            [lives] if lives != entry => {
                let what = format!("its entry names {entry}, it lives on {lives}");
                found.push(self.finding(Kind::EntryShardMismatch, what));
            }
            [] | [_] => {}
            _ => {
                let what = format!("people are counted on {}, its entry names {entry}", listed(&alive));
                found.push(self.finding(Kind::ConferenceOnTwoShards, what));
            }
        }
        let is_old = |room: &Room| room.age_ms.is_none_or(|age| age >= ROOM_AGE_MIN_MS);
        for room in self.census.iter().filter(|room| is_old(room) && !alive.contains(&room.shard.as_str())) {
            let who =
                if room.participants == 0 { "nobody in it" } else { "people that no node has a session of" };
            let what = format!("{} has a room with {who}", room.shard);
            found.push(self.finding(Kind::LeakedConference, what));
        }
        // Its room may have begun anew since the census, with an entry of before.
        let longest_ms = self.rows.iter().flatten().map(|row| row.longest_ms).max().unwrap_or_default();
        let is_old = longest_ms >= self.sight.census_lag_ms;
        if self.sessions.contains_key(entry) && is_old && reporting && self.census.is_empty() {
            let what = format!("people are connected for it on {entry}, whose census does not have it");
            found.push(self.finding(Kind::OrphanEntry, what));
        }
    }

    fn finding(&self, kind: Kind, what: String) -> Finding {
        let tables = self.rows.iter().zip(&self.sight.tables).map(|(row, table)| InTable {
            table: table.clone(),
            shard: row.as_ref().and_then(|row| row.shard.clone()),
            generation: row.as_ref().and_then(|row| row.generation),
        });
        let sessions = self.sessions.iter();
        Finding {
            kind,
            subject: self.key.to_owned(),
            what,
            tables: tables.collect(),
            census: self.census.iter().map(|room| counted(room)).collect(),
            sessions: sessions
                .map(|(shard, sessions)| OnShard { shard: (*shard).to_owned(), sessions: *sessions })
                .collect(),
        }
    }
}

/// Judges rooms that no table has a word of.
pub(super) fn judge_rest(sight: &Sight, census: &Census) -> Vec<Finding> {
    let old = census.unmatched().filter(|room| room.age_ms.is_none_or(|age| age >= sight.census_lag_ms));
    let finding = |room: &Room| {
        let (kind, what) = match room.participants {
            0 => (Kind::LeakedConference, format!("{} has a room with nobody in it", room.shard)),
            people => (Kind::MissingEntry, format!("no table has it, {people} people are on {}", room.shard)),
        };
        let census = vec![counted(room)];
        Finding { census, ..Finding::of_node(kind, room.name.clone(), what) }
    };
    old.map(finding).collect()
}

fn counted(room: &Room) -> OnCensus {
    OnCensus { shard: room.shard.clone(), participants: room.participants }
}

fn listed(shards: &[&str]) -> String {
    shards.join(" and ")
}

#[cfg(test)]
mod tests;
