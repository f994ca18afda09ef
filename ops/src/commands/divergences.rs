//! `shardgatectl divergences`: split brains, and what was decided about them.

use std::process::ExitCode;

use clap::Subcommand;
use serde::Serialize;
use shardgate_proto::admin::{Divergence, DivergencesRequest, Side};

use super::{WRONG, show};
use crate::node::{AskError, Nodes};
use crate::render::{Output, duration, json, printable, table};

/// What to do with split brains.
#[derive(Debug, Subcommand)]
pub(crate) enum Verb {
    /// The last ones that each of these nodes has decided about as the conference's home.
    List,
    /// One of them, whole (exit code 1 when none of these nodes knows it).
    Show {
        /// Its id, or the conference.
        id: String,
    },
}

#[derive(Debug, Serialize)]
struct Row {
    /// The node that decided.
    node: String,
    id: String,
    key: String,
    stood: String,
    stood_generation: u32,
    winner: String,
    generation: u32,
    sides: Vec<OnSide>,
    why: String,
    detected_ms: u64,
    decided_ms: u64,
    /// `None`: nobody has said that it has moved its people; nobody may have had any.
    moved_ms: Option<u64>,
    moved: Vec<String>,
}

#[derive(Debug, Serialize)]
struct OnSide {
    shard: String,
    sessions: u64,
}

impl Row {
    fn new(node: &str, divergence: Divergence) -> Self {
        let Divergence {
            id,
            key,
            stood,
            stood_generation,
            winner,
            generation,
            sides,
            why,
            detected_ms,
            decided_ms,
            moved_ms,
            moved,
        } = divergence;
        let sides = sides.into_iter().map(|Side { shard, sessions }| OnSide { shard, sessions }).collect();
        let node = node.to_owned();
        Self {
            node,
            id,
            key,
            stood,
            stood_generation,
            winner,
            generation,
            sides,
            why,
            detected_ms,
            decided_ms,
            moved_ms,
            moved,
        }
    }

    const HEAD: [&'static str; 8] =
        ["ID", "DECIDED BY", "AT", "CONFERENCE", "WINNER", "SESSIONS", "HEARD FOR", "MOVED AFTER"];

    fn cells(&self) -> Vec<String> {
        vec![
            self.id.clone(),
            self.node.clone(),
            moment(self.decided_ms),
            self.key.clone(),
            self.winner.clone(),
            self.sides(),
            took(self.decided_ms.saturating_sub(self.detected_ms)),
            self.moved_after(),
        ]
    }

    fn sides(&self) -> String {
        let sides: Vec<String> =
            self.sides.iter().map(|side| format!("{} on {}", side.sessions, side.shard)).collect();
        sides.join(", ")
    }

    fn moved_after(&self) -> String {
        self.moved_ms.map_or_else(|| "-".to_owned(), |ms| took(ms.saturating_sub(self.decided_ms)))
    }

    fn page(&self) -> String {
        let why = match self.why.as_str() {
            "join" => "as many were elsewhere, and its entry wins over the others",
            "reached" => "nobody reaches the shard where more were",
            _ => "most sessions were there",
        };
        let told = match self.moved.as_slice() {
            [] => "nobody has said that people have moved".to_owned(),
            nodes => format!("people moved at {}, the last {} later", nodes.join(", "), self.moved_after()),
        };
        format!(
            "{id}: {key}\n  people: {sides}\n  entry before: {stood} (generation {before})\n  decided: {winner} (generation {after}), because {why}\n  \
             by {node} at {at}, after {heard}\n  {told}\n",
            id = self.id,
            key = printable(&self.key),
            sides = self.sides(),
            stood = self.stood,
            before = self.stood_generation,
            winner = self.winner,
            after = self.generation,
            node = self.node,
            at = moment(self.decided_ms),
            heard = took(self.decided_ms.saturating_sub(self.detected_ms)),
        )
    }
}

/// Milliseconds since 1970 as a time of day in UTC.
fn moment(ms: u64) -> String {
    let time = std::time::UNIX_EPOCH + std::time::Duration::from_millis(ms);
    humantime::format_rfc3339_seconds(time).to_string()
}

/// How long something took: mostly less than a second.
fn took(ms: u64) -> String {
    if ms < 10_000 { format!("{ms} ms") } else { duration(ms) }
}

pub(super) async fn run(nodes: &Nodes, verb: Verb, output: Output) -> Result<ExitCode, AskError> {
    let mut rows = Vec::new();
    for address in nodes.addresses() {
        let mut node = nodes.connect(address).await?;
        let answer =
            node.client.divergences(DivergencesRequest {}).await.map_err(node.refused())?.into_inner();
        rows.extend(answer.divergences.into_iter().map(|divergence| Row::new(&answer.node, divergence)));
    }
    rows.sort_by(|one, other| other.decided_ms.cmp(&one.decided_ms).then_with(|| one.id.cmp(&other.id)));
    if let Verb::Show { id } = &verb {
        rows.retain(|row| row.id == *id || row.key == *id);
    }
    match (output, &verb) {
        (Output::Json, _) => rows.iter().for_each(|row| show(&json(row))),
        (Output::Table, Verb::List) => {
            let cells: Vec<_> = rows.iter().map(Row::cells).collect();
            show(&table(&Row::HEAD, &cells));
        }
        (Output::Table, Verb::Show { id }) if rows.is_empty() => {
            let id = printable(id);
            show(&format!("{id}: none of these nodes has decided about it (they keep the last 1,024)\n"));
        }
        (Output::Table, Verb::Show { .. }) => rows.iter().for_each(|row| show(&row.page())),
    }
    let found = matches!(verb, Verb::List) || !rows.is_empty();
    Ok(if found { ExitCode::SUCCESS } else { ExitCode::from(WRONG) })
}
