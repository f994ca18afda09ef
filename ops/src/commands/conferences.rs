//! `shardgatectl conferences`: what runs now, as the table has it, with the sessions of all nodes and what shards count themselves.

use std::collections::{BTreeMap, HashMap};
use std::process::ExitCode;
use std::time::{SystemTime, UNIX_EPOCH};

use clap::{Args, Subcommand};
use serde::Serialize;
use shardgate_proto::admin::{Conference, ConferencesRequest};

use super::census::{Census, Counted, Room};
use super::{COULD_NOT_LOOK, CommandError, show, tell};
use crate::consul::{Consul, ConsulOptions};
use crate::fleet::{Fleet, Round, Unasked};
use crate::node::{AskError, Node, Nodes};
use crate::render::{Output, duration, json, table};

/// Rows that are shown together.
const PAGE: usize = 1_000;

/// What to do with conferences.
#[derive(Debug, Subcommand)]
pub(crate) enum Verb {
    /// How many run on which shard; with --names each of them. One node is asked for its table, all for their sessions (those that --node
    /// names, else those that are registered at Consul); beside it stands what shards report to Consul, when an environment is named. Exit
    /// code 2 when a node could not be asked, whose sessions are missing then.
    List(Filter),
}

/// Which are meant; all that is said has to fit.
#[derive(Debug, Args)]
pub(crate) struct Filter {
    /// Only those of this shard.
    #[arg(long, value_name = "NAME")]
    shard: Option<String>,
    /// Only those on shards of this release, such as release-3630.
    #[arg(long, value_name = "RELEASE")]
    release: Option<String>,
    /// Only those of this tenant.
    #[arg(long, value_name = "NAME")]
    tenant: Option<String>,
    /// Name them, one a line, with their sessions and how long their entries last without use.
    #[arg(long)]
    names: bool,
}

impl Filter {
    /// With a census the whole table is wanted: what a shard says that it has may stand there on another one.
    fn request(&self, with_sessions: bool, census: Asked) -> ConferencesRequest {
        let text = |given: &Option<String>| given.clone().unwrap_or_default();
        let of_shard = |given: &Option<String>| match census {
            Asked::Yes => String::new(),
            Asked::No => text(given),
        };
        ConferencesRequest {
            shard: of_shard(&self.shard),
            release: of_shard(&self.release),
            tenant: text(&self.tenant),
            after: String::new(),
            with_sessions,
        }
    }

    fn takes_shard(&self, shard: &str, release: &str) -> bool {
        let fits = |wanted: &Option<String>, is: &str| wanted.as_ref().is_none_or(|wanted| wanted == is);
        fits(&self.shard, shard) && fits(&self.release, release)
    }

    /// A conference counts where the table has it, and where the census does.
    fn takes(&self, row: &Row) -> bool {
        let counted = row.census_shard.as_deref();
        self.takes_shard(&row.shard, &row.release)
            || counted.is_some_and(|shard| self.takes_shard(shard, &row.census_release))
    }
}

/// Whether shards' own reports are looked at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Asked {
    Yes,
    No,
}

/// One conference.
#[derive(Debug, Serialize)]
struct Row {
    /// The key; of a conference that the table does not have, what the census calls it.
    key: String,
    shard: String,
    release: String,
    left_ms: Option<u64>,
    tunnels: u64,
    bosh_sessions: u64,
    participants: Option<u64>,
    age_ms: Option<u64>,
    /// agrees, elsewhere, missing (not in its shard's census), only (not in the table), unknown
    census: &'static str,
    /// Where the census has it, when that is not where the table has it.
    #[serde(skip_serializing_if = "Option::is_none")]
    census_shard: Option<String>,
    /// That shard's, as far as it is known.
    #[serde(skip)]
    census_release: String,
}

impl Row {
    fn of_table(conference: Conference, counted: Counted<'_>, round: &Round) -> Self {
        let Conference { key, shard, release, remaining_ms, tunnels_here, bosh_here, .. } = conference;
        let row = Self {
            key,
            shard,
            release,
            left_ms: Some(remaining_ms),
            tunnels: tunnels_here,
            bosh_sessions: bosh_here,
            participants: None,
            age_ms: None,
            census: "unknown",
            census_shard: None,
            census_release: String::new(),
        };
        let counted_by = |room: &Room| (Some(room.participants), room.age_ms);
        match counted {
            Counted::Here(room) => {
                let (participants, age_ms) = counted_by(room);
                Self { participants, age_ms, census: "agrees", ..row }
            }
            Counted::Elsewhere(room) => {
                let (participants, age_ms) = counted_by(room);
                let census_release = release_of(round, &room.shard).to_owned();
                let census_shard = Some(room.shard.clone());
                Self { participants, age_ms, census: "elsewhere", census_shard, census_release, ..row }
            }
            Counted::Missing => Self { census: "missing", ..row },
            Counted::Unknown => row,
        }
    }

    fn of_census(room: &Room, round: &Round) -> Self {
        let release = release_of(round, &room.shard);
        Self {
            key: room.name.clone(),
            shard: String::new(),
            release: release.to_owned(),
            left_ms: None,
            tunnels: 0,
            bosh_sessions: 0,
            participants: Some(room.participants),
            age_ms: room.age_ms,
            census: "only",
            census_shard: Some(room.shard.clone()),
            census_release: release.to_owned(),
        }
    }

    const HEAD: [&'static str; 9] =
        ["CONFERENCE", "SHARD", "RELEASE", "LEFT", "TUNNELS", "BOSH", "PEOPLE", "AGE", "NOTE"];

    fn cells(&self) -> Vec<String> {
        let or_dash = |text: &str| if text.is_empty() { "-".to_owned() } else { text.to_owned() };
        let time = |ms: Option<u64>| ms.map_or_else(|| "-".to_owned(), duration);
        let elsewhere = self.census_shard.as_deref().unwrap_or_default();
        let note = match self.census {
            "elsewhere" => format!("CENSUS HAS IT ON {elsewhere}"),
            "only" => format!("NOT IN THE TABLE, on {elsewhere} by its census"),
            "missing" => "not in its shard's census".to_owned(),
            _ => String::new(),
        };
        vec![
            self.key.clone(),
            or_dash(&self.shard),
            or_dash(&self.release),
            time(self.left_ms),
            self.tunnels.to_string(),
            self.bosh_sessions.to_string(),
            self.participants.map_or_else(|| "-".to_owned(), |participants| participants.to_string()),
            time(self.age_ms),
            note,
        ]
    }
}

/// What is on one shard.
#[derive(Debug, Default, Serialize)]
struct Sum {
    shard: String,
    release: String,
    conferences: u64,
    tunnels: u64,
    bosh_sessions: u64,
    /// `None`: the shard reports nothing.
    participants: Option<u64>,
    /// Conferences that the census has on it, and the table elsewhere or not at all.
    only_in_census: u64,
    /// Conferences that the table has on it, and the census elsewhere or not at all.
    only_in_table: u64,
}

impl Sum {
    const HEAD: [&'static str; 8] =
        ["SHARD", "RELEASE", "CONFERENCES", "TUNNELS", "BOSH", "PEOPLE", "ONLY IN CENSUS", "ONLY IN TABLE"];

    fn cells(&self) -> Vec<String> {
        let release = if self.release.is_empty() { "-" } else { &self.release };
        let people = self.participants.map_or_else(|| "-".to_owned(), |people| people.to_string());
        let numbers = [self.only_in_census, self.only_in_table].map(|number| number.to_string());
        let counts = [self.conferences, self.tunnels, self.bosh_sessions].map(|number| number.to_string());
        let names = [self.shard.clone(), release.to_owned()];
        names.into_iter().chain(counts).chain([people]).chain(numbers).collect()
    }
}

/// Where conferences go when they are found.
enum Sheet {
    /// Each is shown, some at once.
    Names { output: Output, rows: Vec<Row> },
    /// They are counted.
    Sums(BTreeMap<String, Sum>),
}

impl Sheet {
    fn add(&mut self, row: Row) {
        match self {
            Self::Names { output, rows } => {
                rows.push(row);
                if rows.len() == PAGE {
                    write(rows, *output);
                }
            }
            Self::Sums(sums) => {
                if let Some(shard) = &row.census_shard {
                    let sum = sum_of(sums, shard, &row.census_release);
                    sum.only_in_census += 1;
                    *sum.participants.get_or_insert_default() += row.participants.unwrap_or_default();
                }
                if row.left_ms.is_none() {
                    return;
                }
                let sum = sum_of(sums, &row.shard, &row.release);
                sum.conferences += 1;
                sum.tunnels += row.tunnels;
                sum.bosh_sessions += row.bosh_sessions;
                match row.census {
                    "agrees" => {
                        *sum.participants.get_or_insert_default() += row.participants.unwrap_or_default();
                    }
                    "unknown" => {}
                    _ => sum.only_in_table += 1,
                }
            }
        }
    }

    fn end(self, filter: &Filter, output: Output) {
        match self {
            Self::Names { output, mut rows } => write(&mut rows, output),
            Self::Sums(sums) => {
                let sums = wanted(&sums, filter);
                match output {
                    Output::Json => sums.for_each(|sum| show(&json(sum))),
                    Output::Table => show(&table(&Sum::HEAD, &sums.map(Sum::cells).collect::<Vec<_>>())),
                }
            }
        }
    }
}

/// Those of shards that were asked for: of another one only what it shares with them is there.
fn wanted<'a>(sums: &'a BTreeMap<String, Sum>, filter: &'a Filter) -> impl Iterator<Item = &'a Sum> {
    sums.values().filter(|sum| filter.takes_shard(&sum.shard, &sum.release))
}

/// A shard's release as some node knows it, or nothing.
fn release_of<'r>(round: &'r Round, shard: &str) -> &'r str {
    let mut rows = round.answers.iter().flat_map(|answer| &answer.shards);
    rows.find(|row| row.shard == shard).map_or("", |row| &row.release)
}

fn sum_of<'s>(sums: &'s mut BTreeMap<String, Sum>, shard: &str, release: &str) -> &'s mut Sum {
    let sum = sums.entry(shard.to_owned()).or_default();
    if sum.shard.is_empty() {
        shard.clone_into(&mut sum.shard);
    }
    if sum.release.is_empty() {
        release.clone_into(&mut sum.release);
    }
    sum
}

fn write(rows: &mut Vec<Row>, output: Output) {
    match output {
        Output::Json => rows.iter().for_each(|row| show(&json(row))),
        Output::Table if rows.is_empty() => {}
        Output::Table => show(&table(&Row::HEAD, &rows.iter().map(Row::cells).collect::<Vec<_>>())),
    }
    rows.clear();
}

/// What is found, and which of it is wanted.
struct Listing<'a> {
    filter: &'a Filter,
    round: &'a Round,
    census: Census,
    sheet: Sheet,
}

impl Listing<'_> {
    /// A conference of the table.
    fn add(&mut self, conference: Conference) {
        let counted = self.census.find(&conference.key, &conference.shard);
        let row = Row::of_table(conference, counted, self.round);
        if self.filter.takes(&row) {
            self.sheet.add(row);
        }
    }

    /// What the census has besides.
    fn end(mut self) -> Sheet {
        for room in self.census.unmatched() {
            let row = Row::of_census(room, self.round);
            let of_tenant = self.filter.tenant.as_ref().is_none_or(|tenant| room.is_of(tenant));
            if of_tenant && self.filter.takes(&row) {
                self.sheet.add(row);
            }
        }
        self.sheet
    }
}

pub(super) async fn run(
    nodes: &Nodes,
    options: &ConsulOptions,
    Verb::List(filter): Verb,
    output: Output,
) -> Result<ExitCode, CommandError> {
    let consul = if options.is_given() { Some(options.open()?) } else { None };
    let mut fleet = match (&consul, nodes.named()) {
        (Some(consul), None) => Fleet::registered(nodes, consul).await?,
        (None | Some(_), _) => Fleet::named(nodes),
    };
    if fleet.is_empty() {
        return Err(CommandError::no_node());
    }
    let round = fleet.sessions().await;
    let mut unasked = round.unasked.clone();
    let mut answering = fleet.answering();
    let Some(mut first) = answering.next() else {
        let _nobody = told(&unasked);
        return Ok(ExitCode::from(COULD_NOT_LOOK));
    };
    let asked = if consul.is_some() { Asked::Yes } else { Asked::No };
    let mut elsewhere = HashMap::new();
    for mut node in answering {
        if let Err(error) = sessions_of(&mut node, filter.request(true, asked), &mut elsewhere).await {
            unasked.push(Unasked { name: node.address.clone(), why: error.to_string() });
        }
    }
    let census = match &consul {
        Some(consul) => census(consul).await,
        None => Census::default(),
    };
    let sheet = sheet(&filter, &round, output);
    let mut listing = Listing { filter: &filter, round: &round, census, sheet };
    let refused = first.refused();
    let mut rows =
        first.client.conferences(filter.request(false, asked)).await.map_err(&refused)?.into_inner();
    while let Some(mut conference) = rows.message().await.map_err(&refused)? {
        if let Some(other) = elsewhere.remove(&conference.key) {
            conference.tunnels_here += other.tunnels_here;
            conference.bosh_here += other.bosh_here;
        }
        listing.add(conference);
    }
    // The first one has not heard of these yet, or not any more.
    elsewhere.into_values().for_each(|conference| listing.add(conference));
    listing.end().end(&filter, output);
    Ok(told(&unasked))
}

/// An empty sheet; of all that is known the shards that have nothing stand on it as well.
fn sheet(filter: &Filter, round: &Round, output: Output) -> Sheet {
    if filter.names {
        return Sheet::Names { output, rows: Vec::new() };
    }
    let mut sums = BTreeMap::new();
    let all = round.answers.iter().flat_map(|answer| &answer.shards);
    for row in all.filter(|row| filter.takes_shard(&row.shard, &row.release)) {
        let (shard, release) = (row.shard.clone(), row.release.clone());
        sums.insert(shard.clone(), Sum { shard, release, ..Sum::default() });
    }
    Sheet::Sums(sums)
}

/// Adds the sessions that a node has, by conference.
async fn sessions_of(
    node: &mut Node,
    request: ConferencesRequest,
    of_all: &mut HashMap<String, Conference>,
) -> Result<(), AskError> {
    let refused = node.refused();
    let mut rows = node.client.conferences(request).await.map_err(&refused)?.into_inner();
    while let Some(row) = rows.message().await.map_err(&refused)? {
        match of_all.get_mut(&row.key) {
            Some(known) => {
                known.tunnels_here += row.tunnels_here;
                known.bosh_here += row.bosh_here;
            }
            None => drop(of_all.insert(row.key.clone(), row)),
        }
    }
    Ok(())
}

/// What shards report; where they cannot be heard of, that is said, and the table is shown without it.
async fn census(consul: &Consul) -> Census {
    let now_ms = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |now| now.as_millis() as u64);
    let answers = match consul.reports().await {
        Ok(answers) => answers,
        Err(error) => {
            tell(&format!("note: without the shards' census: {error}"));
            return Census::default();
        }
    };
    let mut reports = Vec::new();
    for (datacenter, answer) in answers {
        match answer {
            Ok(read) => {
                for record in &read.invalid {
                    tell(&format!("note: {datacenter}: {record}"));
                }
                reports.push(read);
            }
            Err(error) => tell(&format!("note: without the census of {datacenter}: {error}")),
        }
    }
    Census::new(&reports, now_ms)
}

fn told(unasked: &[Unasked]) -> ExitCode {
    for Unasked { name, why } in unasked {
        tell(&format!("error: {name} cannot be asked, its sessions are missing: {why}"));
    }
    if unasked.is_empty() { ExitCode::SUCCESS } else { ExitCode::from(COULD_NOT_LOOK) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::commands::census::tests::reports;
    use shardgate_proto::admin::{SessionsResponse, ShardSessions};

    fn row(key: &str, shard: &str, census: &'static str, census_shard: Option<&str>) -> Row {
        Row {
            key: key.to_owned(),
            shard: shard.to_owned(),
            release: "release-1".to_owned(),
            left_ms: Some(60_000).filter(|_| census != "only"),
            tunnels: 2,
            bosh_sessions: 1,
            participants: Some(3).filter(|_| !matches!(census, "missing" | "unknown")),
            age_ms: None,
            census,
            census_shard: census_shard.map(ToOwned::to_owned),
            census_release: census_shard.map_or("", |_| "release-1").to_owned(),
        }
    }

    fn filter(shard: &str, release: &str) -> Filter {
        let given = |text: &str| Some(text.to_owned()).filter(|text| !text.is_empty());
        Filter { shard: given(shard), release: given(release), tenant: None, names: false }
    }

    /// What one node says of two shards, each of its own release.
    fn round() -> Round {
        let shard = |shard: &str, release: &str| ShardSessions {
            shard: shard.to_owned(),
            release: release.to_owned(),
            ..ShardSessions::default()
        };
        let shards = vec![shard("s1", "release-1"), shard("s2", "release-2")];
        Round {
            answers: vec![SessionsResponse { shards, ..SessionsResponse::default() }],
            unasked: Vec::new(),
        }
    }

    /// `room` is on s1 by the table and on s2 by the census; on the sheet that is wanted.
    fn listed(filter: &Filter, sheet: Sheet) -> Sheet {
        let round = round();
        let reports = reports(&[("s1", &[]), ("s2", &[("room@conference.meet.example.com", 4, 0)])]);
        let census = Census::new([&reports], 0);
        let mut listing = Listing { filter, round: &round, census, sheet };
        listing.add(Conference {
            key: "room".to_owned(),
            shard: "s1".to_owned(),
            release: "release-1".to_owned(),
            ..Conference::default()
        });
        listing.end()
    }

    #[test]
    fn a_conference_is_found_where_the_census_has_it() {
        for (shard, release, found) in [
            ("", "", true),
            ("s1", "", true),
            ("s2", "", true),
            ("s3", "", false),
            ("", "release-1", true),
            ("", "release-2", true),
            ("", "release-3", false),
            ("s1", "release-2", false),
        ] {
            let sheet = Sheet::Names { output: Output::Json, rows: Vec::new() };
            let Sheet::Names { rows, .. } = listed(&filter(shard, release), sheet) else {
                panic!("they are named")
            };
            let keys: Vec<_> = rows.iter().map(|row| (row.key.as_str(), row.census)).collect();
            let expected: &[_] = if found { &[("room", "elsewhere")] } else { &[] };
            assert_eq!(keys, expected, "{shard} {release}");
        }
    }

    #[test]
    fn only_shards_that_are_asked_for_are_summed() {
        for (shard, release, shown) in [
            ("", "", &["s1 release-1 1 0 0 - 0 1", "s2 release-2 0 0 0 4 1 0"][..]),
            ("s1", "", &["s1 release-1 1 0 0 - 0 1"]),
            ("s2", "", &["s2 release-2 0 0 0 4 1 0"]),
            ("", "release-2", &["s2 release-2 0 0 0 4 1 0"]),
        ] {
            let filter = filter(shard, release);
            let sheet = sheet(&filter, &round(), Output::Table);
            let Sheet::Sums(sums) = listed(&filter, sheet) else { panic!("they are summed") };
            let cells: Vec<_> = wanted(&sums, &filter).map(|sum| sum.cells().join(" ")).collect();
            assert_eq!(cells, shown, "{shard} {release}");
        }
    }

    #[test]
    fn conferences_are_summed_by_shard() {
        let mut sheet = Sheet::Sums(BTreeMap::new());
        sheet.add(row("a", "s1", "agrees", None));
        sheet.add(row("b", "s1", "missing", None));
        sheet.add(row("c", "s1", "elsewhere", Some("s2")));
        sheet.add(row("d", "", "only", Some("s2")));
        sheet.add(row("e", "s3", "unknown", None));
        let Sheet::Sums(sums) = sheet else { panic!("they are summed") };
        let shown = |shard: &str| sums[shard].cells().join(" ");
        assert_eq!(shown("s1"), "s1 release-1 3 6 3 3 0 2");
        assert_eq!(shown("s2"), "s2 release-1 0 0 0 6 2 0");
        assert_eq!(shown("s3"), "s3 release-1 1 2 1 - 0 0");
    }

    #[test]
    fn what_does_not_fit_is_marked() {
        let note = |census, shard| row("a", "s1", census, shard).cells().pop().unwrap();
        assert_eq!(note("agrees", None), "");
        assert_eq!(note("elsewhere", Some("s2")), "CENSUS HAS IT ON s2");
        assert_eq!(note("only", Some("s2")), "NOT IN THE TABLE, on s2 by its census");
        assert_eq!(row("a", "s1", "only", Some("s2")).cells()[3], "-");
    }
}
