//! `shardgatectl table`.

use std::process::ExitCode;

use clap::Subcommand;
use serde::Serialize;
use shardgate_proto::admin::{ClearRequest, SetEntryRequest, SetEntryResponse, TableEntry, TableRequest};

use super::table_load::Load;
use super::{CommandError, show, table_dump, table_history, table_load};
use crate::node::{AskError, Nodes};
use crate::render::{Output, duration, json, table};

/// Rows that are shown together; a table of a million entries is never held as a whole.
const PAGE: usize = 1_000;

#[derive(Debug, Serialize)]
struct Row<'n> {
    node: &'n str,
    key: String,
    shard: String,
    generation: u32,
    rank: String,
    origin: String,
    reason: String,
    created_ms: u64,
    remaining_ms: u64,
}

impl Row<'_> {
    fn cells(&self) -> Vec<String> {
        let shard = if self.shard.is_empty() { "(ended)".to_owned() } else { self.shard.clone() };
        let Row { key, rank, origin, reason, .. } = self;
        let (generation, left) = (self.generation.to_string(), duration(self.remaining_ms));
        vec![
            self.node.to_owned(),
            key.clone(),
            shard,
            generation,
            rank.clone(),
            origin.clone(),
            reason.clone(),
            left,
        ]
    }
}

/// What to do with the table.
#[derive(Debug, Subcommand)]
pub(crate) enum Verb {
    /// All entries of these nodes, streamed.
    Show,
    /// One conference's entry on these nodes (exit code 1 when one has none).
    Get {
        /// The conference (`tenant/room` or `room`).
        key: String,
    },
    /// Put a conference on a shard, for the whole mesh: its home decides, tunnels elsewhere are closed (exit code 1 when no home answers).
    Set {
        /// The conference (`tenant/room` or `room`).
        key: String,
        /// The shard's name.
        shard: String,
    },
    /// Decisions about a conference that newer ones replaced, and what stands (exit code 1 when there is neither). Each of these nodes tells when
    /// it saw them. It keeps the last 16,384 of all conferences in memory, since its start. First decisions and ends are not among them.
    History {
        /// The conference (`tenant/room` or `room`).
        key: String,
    },
    /// Write the live entries of the first of these nodes into a file, JSON a line. It has its name once it is whole, and its owner's alone.
    Dump {
        /// The file; - is standard output.
        file: String,
    },
    /// Restore what a dump says, by claims through the first of these nodes: entries that are open stay where they are, conferences that ended
    /// after they were dumped stay ended. Nothing is sent before the whole file is found well (exit code 1 when it is not, or when
    /// something was refused or not answered: its shard is not listed or in maint, no home answered, the table is full).
    Load(Load),
    /// End a conference for the whole mesh, unless somebody holds it (exit code 1 when it is held or no home answers).
    Clear {
        /// The conference (`tenant/room` or `room`).
        key: String,
    },
}

pub(super) async fn run(nodes: &Nodes, verb: Verb, output: Output) -> Result<ExitCode, CommandError> {
    // One answer of the conference's home holds for the whole mesh, so orders go to the first node alone.
    match (verb, nodes.addresses().first()) {
        (Verb::Show, _) => Ok(entries(nodes, None, output).await?),
        (Verb::Get { key }, _) => Ok(entries(nodes, Some(&key), output).await?),
        (Verb::History { key }, _) => Ok(table_history::run(nodes, &key, output).await?),
        (Verb::Set { key, shard }, Some(first)) => Ok(set(nodes, first, key, shard, output).await?),
        (Verb::Clear { key }, Some(first)) => Ok(clear(nodes, first, key, output).await?),
        (Verb::Dump { file }, Some(first)) => table_dump::run(nodes, first, &file, output).await,
        (Verb::Load(load), Some(first)) => table_load::run(nodes, first, &load, output).await,
        (Verb::Set { .. } | Verb::Clear { .. } | Verb::Dump { .. } | Verb::Load(_), None) => {
            Ok(ExitCode::SUCCESS)
        }
    }
}

#[derive(Debug, Serialize)]
struct Ordered<'a> {
    node: &'a str,
    key: &'a str,
    outcome: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    shard: String,
}

async fn set(
    nodes: &Nodes,
    address: &str,
    key: String,
    shard: String,
    output: Output,
) -> Result<ExitCode, AskError> {
    let mut node = nodes.connect(address).await?;
    let request = SetEntryRequest { key: key.clone(), shard };
    let answer = node.client.set_entry(request).await.map_err(node.refused())?.into_inner();
    let SetEntryResponse { outcome, shard } = answer;
    let code = if outcome == "set" { ExitCode::SUCCESS } else { ExitCode::FAILURE };
    match output {
        Output::Json => show(&json(&Ordered { node: address, key: &key, outcome, shard })),
        Output::Table => show(&match outcome.as_str() {
            "set" => format!("{key}: on {shard} now\n"),
            "overtaken" => {
                format!("{key}: not set: another decision came first, it is on {shard}; try again\n")
            }
            "alone" => format!(
                "{key}: on {shard} for this node alone: it hears no peer; the mesh decides when it does\n"
            ),
            "full" => format!("{key}: not set: the table is full\n"),
            _ => format!(
                "{key}: unanswered: its home did not answer, or another claim for it is under way; try again\n"
            ),
        }),
    }
    Ok(code)
}

async fn clear(nodes: &Nodes, address: &str, key: String, output: Output) -> Result<ExitCode, AskError> {
    let mut node = nodes.connect(address).await?;
    let request = ClearRequest { key: key.clone() };
    let outcome = node.client.clear(request).await.map_err(node.refused())?.into_inner().outcome;
    let code = if outcome == "cleared" { ExitCode::SUCCESS } else { ExitCode::FAILURE };
    match output {
        Output::Json => show(&json(&Ordered { node: address, key: &key, outcome, shard: String::new() })),
        Output::Table => {
            let said = match outcome.as_str() {
                "cleared" => "cleared: it has no entry any more",
                "held" => "held: sessions of it are open somewhere, so it stays (sessions close ends them)",
                _ => {
                    "unanswered: its home did not answer, or another claim for it is under way, or nodes came or went a moment ago and have not all said what they hold; try again"
                }
            };
            show(&format!("{key}: {said}\n"));
        }
    }
    Ok(code)
}

async fn entries(nodes: &Nodes, key: Option<&str>, output: Output) -> Result<ExitCode, AskError> {
    let mut code = ExitCode::SUCCESS;
    for address in nodes.addresses() {
        let mut node = nodes.connect(address).await?;
        let request = TableRequest { key: key.unwrap_or_default().to_owned(), with_sessions: false };
        let mut entries = node.client.table(request).await.map_err(node.refused())?.into_inner();
        let mut rows = Vec::new();
        let mut found = 0_usize;
        while let Some(entry) = entries.message().await.map_err(node.refused())? {
            found += 1;
            rows.push(row(address, entry));
            if rows.len() == PAGE {
                write(&mut rows, output);
            }
        }
        write(&mut rows, output);
        if key.is_some() && found == 0 {
            code = ExitCode::FAILURE;
        }
    }
    Ok(code)
}

fn row(node: &str, entry: TableEntry) -> Row<'_> {
    let TableEntry { key, shard, generation, rank, origin, reason, created_ms, remaining_ms, .. } = entry;
    Row { node, key, shard, generation, rank, origin, reason, created_ms, remaining_ms }
}

fn write(rows: &mut Vec<Row<'_>>, output: Output) {
    match output {
        Output::Json => rows.iter().for_each(|row| show(&json(row))),
        Output::Table if rows.is_empty() => {}
        Output::Table => {
            let head = ["NODE", "KEY", "SHARD", "GEN", "RANK", "ORIGIN", "REASON", "LEFT"];
            show(&table(&head, &rows.iter().map(Row::cells).collect::<Vec<_>>()));
        }
    }
    rows.clear();
}
