//! Waiting for a drain to end, and telling how it goes.

use std::collections::BTreeSet;
use std::io::{IsTerminal as _, Write as _};
use std::process::ExitCode;
use std::time::Duration;

use clap::Args;
use serde::Serialize;
use shardgate_proto::admin::{ConferencesRequest, SessionsResponse, ShardSessions};
use tokio::time::{Instant, sleep, timeout};

use super::{COULD_NOT_LOOK, CommandError, WRONG, show, tell};
use crate::consul::Consul;
use crate::fleet::{Fleet, Round, Unasked};
use crate::node::Nodes;
use crate::pace::{Estimate, Pace};
use crate::render::{Output, duration, json, printable};

/// How often all nodes are asked.
const EVERY: Duration = Duration::from_secs(1);
/// How often it is looked who is there.
const REFRESH_EVERY: Duration = Duration::from_secs(30);
/// The least pause between two lines of a log.
const LINE_EVERY: Duration = Duration::from_secs(10);
/// Conferences that are named: on a screen, and in JSON.
const SHOWN_MAX: usize = 20;
const NAMED_MAX: usize = 1_000;
/// What naming them may take; a table of a million entries is a second.
const NAMING_WITHIN: Duration = Duration::from_secs(5);

/// How long, and in how many rounds, a node has to have been empty: a BOSH session is counted by a sweep that comes every second.
const QUIET_FOR: Duration = Duration::from_secs(2);
const QUIET_ROUNDS: u32 = 3;

/// Whether the end is waited for.
#[derive(Debug, Clone, Args)]
pub(super) struct Wait {
    /// Wait until nothing is left, and tell how it goes; exit code 1 when that takes longer than --timeout, 2 when a node cannot be asked then.
    #[arg(long, conflicts_with = "dry_run")]
    wait: bool,
    /// How long to wait, such as 90s, 45m or 6h (default: for as long as it takes).
    #[arg(long, value_name = "DURATION", requires = "wait", value_parser = length)]
    timeout: Option<Duration>,
    /// Name the conferences that are left.
    #[arg(long, requires = "wait")]
    names: bool,
}

/// Whether the end is waited for, of commands that write nothing to Consul.
#[derive(Debug, Clone, Args)]
pub(super) struct WaitHere {
    /// Wait until nothing is left, and tell how it goes; exit code 1 when that takes longer than --timeout, 2 when a node cannot be asked then.
    #[arg(long)]
    wait: bool,
    /// How long to wait, such as 90s, 45m or 6h (default: for as long as it takes).
    #[arg(long, value_name = "DURATION", requires = "wait", value_parser = length)]
    timeout: Option<Duration>,
}

/// How it is waited.
#[derive(Debug, Clone, Copy)]
pub(super) struct Waiting {
    timeout: Option<Duration>,
    names: Names,
}

/// Whether conferences are named.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Names {
    Told,
    Untold,
}

impl Wait {
    /// `None`: it is not.
    pub(super) fn wanted(&self) -> Option<Waiting> {
        let names = if self.names { Names::Told } else { Names::Untold };
        self.wait.then_some(Waiting { timeout: self.timeout, names })
    }
}

impl WaitHere {
    /// `None`: it is not.
    pub(super) fn wanted(&self) -> Option<Waiting> {
        self.wait.then_some(Waiting { timeout: self.timeout, names: Names::Untold })
    }
}

pub(super) fn length(text: &str) -> Result<Duration, String> {
    let expected = || "expected a number and s, m or h, such as 90s, 45m or 6h".to_owned();
    let unit = text.chars().next_back().ok_or_else(expected)?;
    let number: u64 = text[..text.len() - unit.len_utf8()].parse().map_err(|_| expected())?;
    let seconds = match unit {
        's' => Some(1),
        'm' => Some(60),
        'h' => Some(3_600),
        _ => None,
    };
    let seconds = seconds.and_then(|seconds| number.checked_mul(seconds)).ok_or_else(expected)?;
    Ok(Duration::from_secs(seconds))
}

/// What is to become empty.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Drained {
    Shard(String),
    Release(String),
    /// The nodes that are asked: their sessions alone, for conferences are the whole mesh's.
    Nodes,
}

impl Drained {
    fn takes(&self, row: &ShardSessions) -> bool {
        match self {
            Self::Shard(shard) => row.shard == *shard,
            Self::Release(release) => row.release == *release,
            Self::Nodes => true,
        }
    }

    fn in_words(&self) -> String {
        match self {
            Self::Shard(shard) => format!("shard {shard}"),
            Self::Release(release) => release.clone(),
            Self::Nodes => "these nodes".to_owned(),
        }
    }
}

/// What was left at one moment, as far as could be asked.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
struct Left {
    conferences: u64,
    tunnels: u64,
    bosh: u64,
    nodes: usize,
    /// Where new ones may still come from: `SHARD at NODE`.
    open: Vec<String>,
    unasked: Vec<Unasked>,
}

/// What a round says: of conferences, which all nodes know, the most that one says; of sessions, which each has of its own, the sum.
/// `shards_of` are those that a release was ever seen to have: one that is no longer listed still counts.
fn left(round: &Round, drained: &Drained, shards_of: &BTreeSet<String>) -> Left {
    let mut left = Left { nodes: round.answers.len(), unasked: round.unasked.clone(), ..Left::default() };
    let mut most = std::collections::BTreeMap::<&str, u64>::new();
    for SessionsResponse { node, ready, tunnels, bosh_sessions, shards, .. } in &round.answers {
        if *drained == Drained::Nodes {
            left.tunnels += tunnels;
            left.bosh += bosh_sessions;
            if *ready {
                left.open.push(node.clone());
            }
            continue;
        }
        for row in shards.iter().filter(|row| drained.takes(row) || shards_of.contains(&row.shard)) {
            let conferences = most.entry(&row.shard).or_default();
            *conferences = row.conferences.max(*conferences);
            left.tunnels += row.tunnels_here;
            left.bosh += row.bosh_here;
            if row.state == "ready" {
                left.open.push(format!("{} at {node}", row.shard));
            }
        }
    }
    left.conferences = most.values().sum();
    left
}

/// What a pace is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Counted {
    Conferences,
    Sessions,
}

impl Left {
    const fn sessions(&self) -> u64 {
        self.tunnels + self.bosh
    }

    /// Whether nothing is left anywhere, which only those can say who all were asked.
    const fn is_over(&self) -> bool {
        self.looks_over() && self.unasked.is_empty() && self.open.is_empty() && self.nodes > 0
    }

    const fn looks_over(&self) -> bool {
        self.conferences == 0 && self.sessions() == 0
    }

    /// What the end is estimated by: the last conference, and where there is none the last session.
    const fn counted(&self) -> (Counted, u64) {
        if self.conferences > 0 {
            (Counted::Conferences, self.conferences)
        } else {
            (Counted::Sessions, self.sessions())
        }
    }
}

/// Rounds in a row that found nothing left.
#[derive(Debug, Default)]
struct Quiet {
    rounds: u32,
    /// When the first of them ended.
    since: Duration,
}

impl Quiet {
    /// Notes a round; whether it is the end.
    fn ends(&mut self, drained: &Drained, elapsed: Duration, now: &Left) -> bool {
        if !now.is_over() {
            *self = Self::default();
            return false;
        }
        if self.rounds == 0 {
            self.since = elapsed;
        }
        self.rounds += 1;
        match drained {
            // A conference is in the table from its first request on.
            Drained::Shard(_) | Drained::Release(_) => true,
            Drained::Nodes => self.rounds >= QUIET_ROUNDS && elapsed.saturating_sub(self.since) >= QUIET_FOR,
        }
    }
}

/// One line of JSON.
#[derive(Serialize)]
struct Progress<'a> {
    drained: &'a str,
    elapsed_s: u64,
    conferences: u64,
    tunnels: u64,
    bosh_sessions: u64,
    nodes: usize,
    conferences_at_first: u64,
    sessions_at_first: u64,
    per_minute: Option<f64>,
    ends_in_s: Option<u64>,
    open: &'a [String],
    unasked: Vec<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    names: Option<&'a [String]>,
    outcome: &'static str,
}

/// How it is told.
enum Screen {
    /// Drawn anew in the same place; so many lines of it stand there.
    Terminal {
        lines: usize,
    },
    /// A line when something has changed, now and then.
    Log {
        told: Option<(Instant, Left)>,
    },
    Json {
        told: Option<(Instant, Left)>,
    },
}

/// Waits until nothing is left. With `consul` it is asked again who is there.
pub(super) async fn until_empty(
    nodes: &Nodes,
    consul: Option<&Consul>,
    drained: &Drained,
    waiting: Waiting,
    output: Output,
) -> Result<ExitCode, CommandError> {
    let mut fleet = match consul {
        Some(consul) => Fleet::registered(nodes, consul).await?,
        None => Fleet::named(nodes),
    };
    if fleet.is_empty() {
        return Err(CommandError::no_node());
    }
    let mut screen = match output {
        Output::Json => Screen::Json { told: None },
        Output::Table if std::io::stdout().is_terminal() => Screen::Terminal { lines: 0 },
        Output::Table => Screen::Log { told: None },
    };
    let (began, mut refreshed) = (Instant::now(), Instant::now());
    let (mut pace, mut first, mut shards_of) = (Pace::default(), None, BTreeSet::new());
    let (mut counted, mut quiet) = (Counted::Conferences, Quiet::default());
    loop {
        let round = fleet.sessions().await;
        if let Drained::Release(release) = drained {
            let rows = round.answers.iter().flat_map(|answer| &answer.shards);
            shards_of.extend(rows.filter(|row| row.release == *release).map(|row| row.shard.clone()));
        }
        let mut now = left(&round, drained, &shards_of);
        // Nobody who came meanwhile is overlooked.
        if let Some(consul) = consul
            && (now.is_over() || refreshed.elapsed() >= REFRESH_EVERY)
        {
            fleet.refresh(consul).await;
            refreshed = Instant::now();
            if now.is_over() {
                now = left(&fleet.sessions().await, drained, &shards_of);
            }
        }
        let elapsed = began.elapsed();
        // What some did not say is no less.
        if now.unasked.is_empty() {
            let (what, number) = now.counted();
            if std::mem::replace(&mut counted, what) != what {
                pace = Pace::default();
            }
            pace.note(elapsed, number);
        }
        let first: &Left = first.get_or_insert_with(|| now.clone());
        let names = match waiting.names {
            Names::Told if now.conferences > 0 => Some(named(&fleet, drained).await),
            Names::Told => Some(Vec::new()),
            Names::Untold => None,
        };
        let over = waiting.timeout.is_some_and(|timeout| elapsed >= timeout);
        let outcome = match (quiet.ends(drained, elapsed, &now), over) {
            (true, _) => Outcome::Empty,
            (false, false) => Outcome::Waiting,
            (false, true) if now.unasked.is_empty() => Outcome::Timeout,
            (false, true) => Outcome::Unasked,
        };
        let moment = Moment { drained, elapsed, first, now: &now, estimate: pace.estimate(), names, outcome };
        screen.tell(&moment);
        match outcome {
            Outcome::Waiting => {
                let left = waiting.timeout.map_or(EVERY, |timeout| timeout.saturating_sub(elapsed));
                sleep(left.min(EVERY)).await;
            }
            Outcome::Empty => return Ok(ExitCode::SUCCESS),
            Outcome::Timeout => {
                tell(&format!("not empty after {}", duration(elapsed.as_millis() as u64)));
                return Ok(ExitCode::from(WRONG));
            }
            Outcome::Unasked => {
                for Unasked { name, why } in &now.unasked {
                    tell(&format!("error: {name} cannot be asked: {why}"));
                }
                return Ok(ExitCode::from(COULD_NOT_LOOK));
            }
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Outcome {
    Waiting,
    Empty,
    Timeout,
    Unasked,
}

/// All that is told of a moment.
struct Moment<'a> {
    drained: &'a Drained,
    elapsed: Duration,
    first: &'a Left,
    now: &'a Left,
    estimate: Estimate,
    names: Option<Vec<String>>,
    outcome: Outcome,
}

/// Names of conferences that are left, of the first node that knows them; those that it says in time.
async fn named(fleet: &Fleet, drained: &Drained) -> Vec<String> {
    let request = match drained {
        Drained::Shard(shard) => ConferencesRequest { shard: shard.clone(), ..ConferencesRequest::default() },
        Drained::Release(release) => {
            ConferencesRequest { release: release.clone(), ..ConferencesRequest::default() }
        }
        Drained::Nodes => return Vec::new(),
    };
    let mut names = Vec::new();
    let Some(mut node) = fleet.answering().next() else { return names };
    let asking = async {
        // Whoever does not answer now is told of in the next round.
        let Ok(answer) = node.client.conferences(request).await else { return };
        let mut rows = answer.into_inner();
        while let Ok(Some(row)) = rows.message().await {
            names.push(row.key);
            if names.len() == NAMED_MAX {
                return;
            }
        }
    };
    drop(timeout(NAMING_WITHIN, asking).await);
    names
}

impl Screen {
    fn tell(&mut self, moment: &Moment<'_>) {
        let due = |told: &mut Option<(Instant, Left)>| {
            let due = match told {
                None => true,
                Some((at, before)) => before != moment.now && at.elapsed() >= LINE_EVERY,
            };
            let due = due || moment.outcome != Outcome::Waiting;
            if due {
                *told = Some((Instant::now(), moment.now.clone()));
            }
            due
        };
        match self {
            Self::Terminal { lines } => {
                let text = moment.text().replacen("; ", "\n  ", 1);
                // Up to where it began, and everything below goes. What is wider than the terminal is cut, or it would be two lines.
                let up = if *lines > 0 { format!("\x1b[{lines}A") } else { String::new() };
                show(&format!("{up}\r\x1b[J\x1b[?7l{text}\x1b[?7h"));
                *lines = text.matches('\n').count();
            }
            Self::Log { told } => {
                if due(told) {
                    show(&moment.text());
                }
            }
            Self::Json { told } => {
                if due(told) {
                    show(&moment.json());
                }
            }
        }
        drop(std::io::stdout().flush());
    }
}

impl Moment<'_> {
    fn text(&self) -> String {
        let Self { drained, elapsed, first, now, estimate, names, outcome } = self;
        let since = duration(elapsed.as_millis() as u64);
        let what = drained.in_words();
        let mut text = match outcome {
            Outcome::Empty => format!("{what}: empty after {since}"),
            Outcome::Waiting | Outcome::Timeout | Outcome::Unasked => {
                let conferences = match drained {
                    Drained::Nodes => String::new(),
                    Drained::Shard(_) | Drained::Release(_) => {
                        format!(
                            "{} of {} conferences, ",
                            now.conferences,
                            first.conferences.max(now.conferences)
                        )
                    }
                };
                let pace = match estimate.per_minute {
                    None => "unknown".to_owned(),
                    Some(0.0) => "none ends".to_owned(),
                    Some(rate) if rate < 0.0 => format!("{:.1} more a minute", -rate),
                    Some(rate) => format!("{rate:.1} fewer a minute"),
                };
                let end = match (estimate.ends_in, now.unasked.is_empty()) {
                    (Some(end), true) => format!("in about {}", duration(end.as_millis() as u64)),
                    (None, _) | (_, false) => "unknown".to_owned(),
                };
                format!(
                    "{what}: {conferences}{} tunnels and {} BOSH sessions left after {since}; pace {pace}, end {end}",
                    now.tunnels, now.bosh
                )
            }
        };
        let nodes = if now.nodes == 1 { "node" } else { "nodes" };
        text.push_str(&format!(" ({} {nodes} asked)\n", now.nodes));
        for Unasked { name, why } in &now.unasked {
            text.push_str(&format!("  {} cannot be asked: {}\n", printable(name), printable(why)));
        }
        if !now.open.is_empty() {
            let open = now.open.join(", ");
            let what =
                if **drained == Drained::Nodes { "still ready" } else { "still takes new conferences" };
            text.push_str(&format!("  {what}: {}\n", printable(&open)));
        }
        if let Some(names) = names.as_ref().filter(|names| !names.is_empty()) {
            for name in names.iter().take(SHOWN_MAX) {
                text.push_str(&format!("  {}\n", printable(name)));
            }
            // The count is of another moment than the names.
            if names.len() > SHOWN_MAX {
                text.push_str(&format!(
                    "  and {} more\n",
                    now.conferences.max(names.len() as u64) - SHOWN_MAX as u64
                ));
            }
        }
        text
    }

    fn json(&self) -> String {
        let Self { drained, elapsed, first, now, estimate, names, outcome } = self;
        let unasked = now.unasked.iter().map(|Unasked { name, why }| format!("{name}: {why}"));
        json(&Progress {
            drained: &drained.in_words(),
            elapsed_s: elapsed.as_secs(),
            conferences: now.conferences,
            tunnels: now.tunnels,
            bosh_sessions: now.bosh,
            nodes: now.nodes,
            conferences_at_first: first.conferences,
            sessions_at_first: first.sessions(),
            per_minute: estimate.per_minute,
            ends_in_s: estimate.ends_in.map(|end| end.as_secs()),
            open: &now.open,
            unasked: unasked.collect(),
            names: names.as_deref(),
            outcome: match outcome {
                Outcome::Waiting => "waiting",
                Outcome::Empty => "empty",
                Outcome::Timeout => "timeout",
                Outcome::Unasked => "unasked",
            },
        })
    }
}

#[cfg(test)]
mod tests;
