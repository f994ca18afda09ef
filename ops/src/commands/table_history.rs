//! `shardgatectl table history`: what was decided about a conference before.

use std::process::ExitCode;

use serde::Serialize;
use shardgate_proto::admin::{HistoryRequest, HistoryResponse, Replacement, TableEntry};

use super::{WRONG, show};
use crate::node::{AskError, Nodes};
use crate::render::{Output, json, moment_ms, printable, table};

/// A decision that newer ones replaced, or what stands.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
struct Row {
    node: String,
    /// When the node saw it; of what stands, when it was decided.
    at_ms: u64,
    /// replaced, now
    what: &'static str,
    /// Where it was before; missing for what stands.
    #[serde(skip_serializing_if = "Option::is_none")]
    from: Option<String>,
    /// Empty: the conference has ended.
    shard: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    from_generation: Option<u32>,
    generation: u32,
    rank: String,
    origin: String,
    reason: String,
}

impl Row {
    const HEAD: [&'static str; 8] = ["AT", "NODE", "FROM", "TO", "GEN", "RANK", "ORIGIN", "REASON"];

    fn replaced(node: &str, replacement: Replacement) -> Self {
        let Replacement { at_ms, before, after } = replacement;
        let (before, after) = (before.unwrap_or_default(), after.unwrap_or_default());
        let from = (Some(before.shard), Some(before.generation));
        Self::of(node, at_ms, "replaced", from, after)
    }

    fn now(node: &str, entry: TableEntry) -> Self {
        Self::of(node, entry.created_ms, "now", (None, None), entry)
    }

    fn of(
        node: &str,
        at_ms: u64,
        what: &'static str,
        (from, from_generation): (Option<String>, Option<u32>),
        entry: TableEntry,
    ) -> Self {
        let TableEntry { shard, generation, rank, origin, reason, .. } = entry;
        let node = node.to_owned();
        Self { node, at_ms, what, from, shard, from_generation, generation, rank, origin, reason }
    }

    fn cells(&self) -> Vec<String> {
        let from = self.from.clone().unwrap_or_else(|| "(now)".to_owned());
        let to = if self.shard.is_empty() { "(ended)" } else { &self.shard };
        let generation = match self.from_generation {
            Some(before) => format!("{before} > {}", self.generation),
            None => self.generation.to_string(),
        };
        let Self { node, rank, origin, reason, .. } = self;
        let texts = [rank, origin, reason].map(Clone::clone);
        let start = [moment_ms(self.at_ms), node.clone(), from, to.to_owned(), generation];
        start.into_iter().chain(texts).collect()
    }
}

/// What nodes say, by time; what stands comes last.
fn in_order(answers: Vec<HistoryResponse>) -> Vec<Row> {
    let (mut replaced, mut now) = (Vec::new(), Vec::new());
    for HistoryResponse { node, replacements, entry } in answers {
        replaced.extend(replacements.into_iter().map(|replacement| Row::replaced(&node, replacement)));
        now.extend(entry.map(|entry| Row::now(&node, entry)));
    }
    // Of one node they come in their order, which its clock need not know.
    replaced.sort_by_key(|row| row.at_ms);
    replaced.extend(now);
    replaced
}

pub(super) async fn run(nodes: &Nodes, key: &str, output: Output) -> Result<ExitCode, AskError> {
    let mut answers = Vec::new();
    for address in nodes.addresses() {
        let mut node = nodes.connect(address).await?;
        let request = HistoryRequest { key: key.to_owned() };
        answers.push(node.client.history(request).await.map_err(node.refused())?.into_inner());
    }
    let rows = in_order(answers);
    match output {
        Output::Json => rows.iter().for_each(|row| show(&json(row))),
        Output::Table if rows.is_empty() => {
            show(&format!("{}: no entry, and nothing is known of one that was replaced\n", printable(key)));
        }
        Output::Table => show(&table(&Row::HEAD, &rows.iter().map(Row::cells).collect::<Vec<_>>())),
    }
    Ok(if rows.is_empty() { ExitCode::from(WRONG) } else { ExitCode::SUCCESS })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(shard: &str, generation: u32, reason: &str) -> TableEntry {
        TableEntry {
            shard: shard.to_owned(),
            generation,
            rank: "home".to_owned(),
            origin: "a".to_owned(),
            reason: reason.to_owned(),
            created_ms: 5_000,
            ..TableEntry::default()
        }
    }

    fn replaced(at_ms: u64, from: &str, to: &str, generation: u32) -> Replacement {
        let (before, after) = (entry(from, generation - 1, "claim"), entry(to, generation, "operator"));
        Replacement { at_ms, before: Some(before), after: Some(after) }
    }

    #[test]
    fn what_nodes_saw_comes_by_time_and_what_stands_last() {
        let one = HistoryResponse {
            node: "a".to_owned(),
            replacements: vec![replaced(1_000, "s1", "s2", 2), replaced(3_000, "s2", "s3", 3)],
            entry: Some(entry("s3", 3, "operator")),
        };
        let other = HistoryResponse {
            node: "b".to_owned(),
            replacements: vec![replaced(1_020, "s1", "s2", 2)],
            entry: Some(entry("", 4, "end")),
        };
        let rows = in_order(vec![one, other]);
        let cells: Vec<String> = rows.iter().map(|row| row.cells().join(" ")).collect();
        assert_eq!(
            cells,
            [
                "1970-01-01T00:00:01.000Z a s1 s2 1 > 2 home a operator",
                "1970-01-01T00:00:01.020Z b s1 s2 1 > 2 home a operator",
                "1970-01-01T00:00:03.000Z a s2 s3 2 > 3 home a operator",
                "1970-01-01T00:00:05.000Z a (now) s3 3 home a operator",
                "1970-01-01T00:00:05.000Z b (now) (ended) 4 home a end",
            ]
        );
        assert!(in_order(vec![HistoryResponse::default()]).is_empty());
    }
}
