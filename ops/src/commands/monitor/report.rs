//! What a run found, for people, for scripts and for Prometheus.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::Path;

use serde::Serialize;

use super::finding::{Finding, Kind};
use super::fix::Changed;
use super::snapshot::{Changed as Became, Differences, Sort};
use crate::fleet::Unasked;
use crate::render::{duration, printable, table};

/// Findings of a kind on a screen, and in JSON.
const SHOWN_MAX: usize = 25;
const NAMED_MAX: usize = 10_000;

/// What a run found.
#[derive(Debug, Serialize)]
pub(super) struct Report {
    /// Empty when none was named.
    pub(super) environment: String,
    /// When it ended, in milliseconds since 1970.
    pub(super) at_ms: u64,
    pub(super) took_ms: u64,
    /// Whose tables were read.
    pub(super) tables: Vec<String>,
    #[serde(serialize_with = "told")]
    pub(super) unasked: Vec<Unasked>,
    pub(super) conferences: u64,
    pub(super) counts: BTreeMap<Kind, u64>,
    /// The first 10,000.
    pub(super) findings: Vec<Finding>,
    /// How many more there are.
    pub(super) beyond: u64,
    /// What was done about them, or would be.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) fix: Option<Fix>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) compared: Option<Differences>,
}

/// What was done, or would be.
#[derive(Debug, Serialize)]
pub(super) struct Fix {
    /// Whether it was done.
    pub(super) done: bool,
    pub(super) changes: Vec<Changed>,
    /// Changes that were too many for one run.
    pub(super) left: usize,
}

fn told<S: serde::Serializer>(unasked: &[Unasked], to: S) -> Result<S::Ok, S::Error> {
    #[derive(Serialize)]
    struct Told<'a> {
        name: &'a str,
        why: &'a str,
    }
    to.collect_seq(unasked.iter().map(|Unasked { name, why }| Told { name, why }))
}

impl Report {
    /// Something is wrong.
    pub(super) fn is_wrong(&self) -> bool {
        let lost = self.compared.as_ref().is_some_and(|found| found.gone.count + found.moved.count > 0);
        lost || self.beyond > 0 || !self.findings.is_empty()
    }

    /// One line where all is well, else all of it.
    pub(super) fn text(&self) -> String {
        let environment = if self.environment.is_empty() { "monitor" } else { &self.environment };
        let at = std::time::UNIX_EPOCH + std::time::Duration::from_millis(self.at_ms);
        let at = humantime::format_rfc3339_seconds(at);
        let (tables, conferences, took) = (self.tables.len(), self.conferences, duration(self.took_ms));
        let mut text = format!("{at} {}: ", printable(environment));
        let seen = format!("{tables} tables, {conferences} conferences, looked at in {took}");
        let said = match (self.is_wrong(), self.unasked.is_empty()) {
            (false, true) => format!("clean ({seen})"),
            (false, false) => format!("COULD NOT LOOK everywhere; nothing wrong elsewhere ({seen})"),
            (true, _) => format!("{} FINDINGS ({seen})", self.findings.len() as u64 + self.beyond),
        };
        text.push_str(&said);
        text.push('\n');
        if !self.findings.is_empty() {
            let rows = self.counts.iter().filter(|(_, count)| **count > 0);
            let rows: Vec<_> =
                rows.map(|(kind, count)| vec![kind.name().to_owned(), count.to_string()]).collect();
            let _infallible = write!(text, "\n{}", table(&["KIND", "FOUND"], &rows));
            text.push('\n');
            text.push_str(&self.findings_table());
        }
        if let Some(fix) = &self.fix {
            text.push_str(&fix.text());
        }
        if let Some(compared) = &self.compared {
            text.push_str(&compared_text(compared));
        }
        text
    }

    fn findings_table(&self) -> String {
        let (mut rows, mut shown) = (Vec::new(), BTreeMap::<Kind, usize>::new());
        for finding in &self.findings {
            let shown = shown.entry(finding.kind).or_default();
            *shown += 1;
            if *shown <= SHOWN_MAX {
                rows.push(cells(finding));
            }
        }
        let mut text = table(&["KIND", "CONFERENCE OR NODE", "WHAT", "TABLES", "CENSUS", "SESSIONS"], &rows);
        let hidden = self.findings.len() - rows.len();
        if hidden > 0 || self.beyond > 0 {
            let more = hidden as u64 + self.beyond;
            let _infallible = writeln!(text, "... and {more} more (--output json names up to {NAMED_MAX})");
        }
        text
    }

    /// For scripts.
    pub(super) fn json(&mut self) -> String {
        if self.findings.len() > NAMED_MAX {
            self.beyond += (self.findings.len() - NAMED_MAX) as u64;
            self.findings.truncate(NAMED_MAX);
        }
        crate::render::json(self)
    }

    /// For Prometheus, in its text format (<https://prometheus.io/docs/instrumenting/exposition_formats/>).
    pub(super) fn metrics(&self, changes_total: u64) -> String {
        let environment = format!("environment=\"{}\"", self.environment);
        let mut text = String::new();
        let mut family = |name: &str, kind: &str, help: &str, rows: &[(String, String)]| {
            let _infallible = write!(
                text,
                "# HELP shardgate_monitor_{name} {help}\n# TYPE shardgate_monitor_{name} {kind}\n"
            );
            for (labels, value) in rows {
                let _infallible = writeln!(text, "shardgate_monitor_{name}{{{labels}}} {value}");
            }
        };
        let one = |value: String| [(environment.clone(), value)];
        let counts = self.counts.iter();
        let counts: Vec<_> = counts
            .map(|(kind, count)| (format!("{environment},kind=\"{}\"", kind.name()), count.to_string()))
            .collect();
        family("findings", "gauge", "What two looks at all tables found, by kind.", &counts);
        family(
            "unreachable",
            "gauge",
            "Nodes, HAProxies and lists that could not be asked.",
            &one(self.unasked.len().to_string()),
        );
        family("tables", "gauge", "Tables that were read.", &one(self.tables.len().to_string()));
        family("entries", "gauge", "Conferences over all tables.", &one(self.conferences.to_string()));
        family(
            "run_seconds",
            "gauge",
            "How long the run took.",
            &one(format!("{:.3}", self.took_ms as f64 / 1e3)),
        );
        family(
            "last_run_timestamp_seconds",
            "gauge",
            "When it ended.",
            &one(format!("{:.3}", self.at_ms as f64 / 1e3)),
        );
        family(
            "changes_total",
            "counter",
            "Conferences that this process has put right.",
            &one(changes_total.to_string()),
        );
        text
    }
}

/// Writes a file that a collector reads at any moment: it is always whole.
pub(super) fn write_metrics(path: &Path, text: &str) -> std::io::Result<()> {
    let mut unready = path.as_os_str().to_owned();
    // node_exporter reads files that end with .prom.
    unready.push(".unready");
    std::fs::write(&unready, text)?;
    std::fs::rename(&unready, path)
}

fn cells(finding: &Finding) -> Vec<String> {
    let Finding { kind, subject, what, tables, census, sessions } = finding;
    let mut by_shard: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    for in_table in tables {
        by_shard.entry(in_table.shard.as_deref().unwrap_or("nowhere")).or_default().push(&in_table.table);
    }
    // Many tables agree on one shard: who does is only said of few.
    let of_tables = by_shard.iter().map(|(shard, tables)| match &tables[..] {
        few @ ([_] | [_, _]) => format!("{shard}: {}", few.join(", ")),
        many => format!("{shard}: {} tables", many.len()),
    });
    let of_census = census.iter().map(|on| format!("{}: {}", on.shard, on.participants));
    let of_sessions = sessions.iter().map(|on| format!("{}: {}", on.shard, on.sessions));
    vec![
        kind.name().to_owned(),
        subject.clone(),
        what.clone(),
        of_tables.collect::<Vec<_>>().join("; "),
        of_census.collect::<Vec<_>>().join("; "),
        of_sessions.collect::<Vec<_>>().join("; "),
    ]
}

impl Fix {
    fn text(&self) -> String {
        let cells = |changed: &Changed| {
            let Changed { change, outcome } = changed;
            let votes = change.votes.iter().map(|votes| {
                format!(
                    "{}: {} people, {} sessions, {} tables",
                    votes.shard, votes.participants, votes.sessions, votes.tables
                )
            });
            vec![
                change.key.clone(),
                change.from.join(", "),
                change.shard.clone().unwrap_or_else(|| "(cleared)".to_owned()),
                change.because.name().to_owned(),
                votes.collect::<Vec<_>>().join("; "),
                outcome.clone(),
            ]
        };
        let rows: Vec<_> = self.changes.iter().map(cells).collect();
        let mut text = match (self.done, rows.is_empty()) {
            (_, true) => "\nnothing of this can be put right by a decision\n".to_owned(),
            (true, false) => "\nput right:\n".to_owned(),
            (false, false) => "\nwould be put right (--yes does it):\n".to_owned(),
        };
        if !rows.is_empty() {
            text.push_str(&table(&["CONFERENCE", "FROM", "TO", "BECAUSE", "VOTES", "OUTCOME"], &rows));
        }
        if self.left > 0 {
            let _infallible = writeln!(text, "... and {} more in later runs (--max-changes)", self.left);
        }
        text
    }
}

fn compared_text(differences: &Differences) -> String {
    let Differences { since_ms, gone, moved, added } = differences;
    let since = std::time::UNIX_EPOCH + std::time::Duration::from_millis(*since_ms);
    let mut text = format!(
        "\nsince {}: {} gone, {} moved, {} added\n",
        humantime::format_rfc3339_seconds(since),
        gone.count,
        moved.count,
        added.count
    );
    let row = |word: &'static str| {
        move |became: &Became| {
            let or_dash = |shard: &Option<String>| shard.clone().unwrap_or_else(|| "-".to_owned());
            let Became { key, before, now, sessions } = became;
            vec![word.to_owned(), key.clone(), or_dash(before), or_dash(now), sessions.to_string()]
        }
    };
    let some = |sort: &Sort, word| sort.first.iter().take(SHOWN_MAX).map(row(word)).collect::<Vec<_>>();
    let rows: Vec<_> = some(gone, "gone").into_iter().chain(some(moved, "moved")).collect();
    if !rows.is_empty() {
        text.push_str(&table(&["", "CONFERENCE", "BEFORE", "NOW", "SESSIONS"], &rows));
    }
    text
}

#[cfg(test)]
mod tests;
