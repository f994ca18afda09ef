//! `shardgatectl table`.

use std::process::ExitCode;

use serde::Serialize;
use shardgate_proto::admin::{TableEntry, TableRequest};

use super::show;
use crate::node::{AskError, Node};
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

pub(super) async fn run(nodes: &[String], key: Option<&str>, output: Output) -> Result<ExitCode, AskError> {
    let mut code = ExitCode::SUCCESS;
    for address in nodes {
        let mut node = Node::connect(address).await?;
        let request = TableRequest { key: key.unwrap_or_default().to_owned() };
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
    let TableEntry { key, shard, generation, rank, origin, reason, created_ms, remaining_ms } = entry;
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
