//! `shardgatectl sessions`: tunnels and BOSH sessions of conferences, by node and shard.

use std::process::ExitCode;

use clap::{Args, Subcommand};
use serde::Serialize;
use shardgate_proto::admin::close_tunnels_request::Which as Wanted;
use shardgate_proto::admin::{CloseTunnelsRequest, ConferencesRequest, OnShard, TableRequest};

use super::show;
use crate::node::{AskError, Node, Nodes};
use crate::render::{Output, duration, json, table};

/// Rows that are shown together; the sessions of a node are never held as a whole.
const PAGE: usize = 1_000;

/// What to do with sessions.
#[derive(Debug, Subcommand)]
pub(crate) enum Verb {
    /// Those of conferences on these nodes: a row for each node, conference and shard. ELSEWHERE marks sessions on another shard than their
    /// conference's entry names: a split brain that is not decided yet, or people who are being moved.
    List(Filter),
    /// Close tunnels on these nodes; their clients come back and are routed anew. BOSH sessions stay.
    Close(Which),
}

/// Which are shown; all that is said has to fit.
#[derive(Debug, Args)]
pub(crate) struct Filter {
    /// Only those of this conference (`tenant/room` or `room`).
    #[arg(long)]
    key: Option<String>,
    /// Only those on this shard, wherever the conference's entry is.
    #[arg(long, value_name = "NAME")]
    shard: Option<String>,
}

/// Which are closed.
#[derive(Debug, Args)]
#[group(required = true, multiple = false)]
pub(crate) struct Which {
    /// Those of this conference.
    #[arg(long)]
    key: Option<String>,
    /// Those to this shard.
    #[arg(long, value_name = "NAME")]
    shard: Option<String>,
}

#[derive(Debug, Serialize)]
struct Closed<'n> {
    node: &'n str,
    closed: u64,
}

/// A conference's sessions on one shard, on one node.
#[derive(Debug, Serialize)]
struct Row<'n> {
    node: &'n str,
    key: String,
    /// Where they are.
    shard: String,
    tunnels: u64,
    bosh_sessions: u64,
    /// How long the one that has been open longest has been, in milliseconds, to the second.
    #[serde(skip_serializing_if = "Option::is_none")]
    longest_ms: Option<u64>,
    /// Where the conference is; empty when it has ended.
    entry: String,
    /// Whether these are not the same.
    elsewhere: bool,
}

impl Row<'_> {
    const HEAD: [&'static str; 8] =
        ["NODE", "CONFERENCE", "SHARD", "TUNNELS", "BOSH", "LONGEST", "ENTRY", ""];

    fn cells(&self) -> Vec<String> {
        let entry = if self.entry.is_empty() { "(ended)" } else { &self.entry };
        vec![
            self.node.to_owned(),
            self.key.clone(),
            self.shard.clone(),
            self.tunnels.to_string(),
            self.bosh_sessions.to_string(),
            self.longest_ms.map_or_else(|| "-".to_owned(), duration),
            entry.to_owned(),
            if self.elsewhere { "ELSEWHERE" } else { "" }.to_owned(),
        ]
    }
}

/// The rows of one conference that are wanted.
fn rows<'n>(
    node: &'n str,
    key: &str,
    entry: &str,
    sessions: Vec<OnShard>,
    filter: &Filter,
) -> impl Iterator<Item = Row<'n>> {
    let wanted = sessions
        .into_iter()
        .filter(|session| filter.shard.as_ref().is_none_or(|wanted| *wanted == session.shard));
    wanted.map(move |OnShard { shard, tunnels, bosh_sessions, longest_ms }| Row {
        node,
        key: key.to_owned(),
        elsewhere: shard != entry,
        shard,
        tunnels,
        bosh_sessions,
        longest_ms,
        entry: entry.to_owned(),
    })
}

pub(super) async fn run(nodes: &Nodes, verb: Verb, output: Output) -> Result<ExitCode, AskError> {
    match verb {
        Verb::List(filter) => list(nodes, &filter, output).await,
        Verb::Close(which) => close(nodes, &which, output).await,
    }
}

async fn list(nodes: &Nodes, filter: &Filter, output: Output) -> Result<ExitCode, AskError> {
    let mut page = Page { rows: Vec::new(), shown: 0, output };
    let addresses = nodes.addresses();
    for address in addresses {
        let mut node = nodes.connect(address).await?;
        match &filter.key {
            Some(key) => of_key(&mut node, address, key, filter, &mut page).await?,
            None => of_all(&mut node, address, filter, &mut page).await?,
        }
    }
    page.end();
    Ok(ExitCode::SUCCESS)
}

/// Those of one conference, which need not be open any more.
async fn of_key<'n>(
    node: &mut Node,
    address: &'n str,
    key: &str,
    filter: &Filter,
    page: &mut Page<'n>,
) -> Result<(), AskError> {
    let request = TableRequest { key: key.to_owned(), with_sessions: true };
    let refused = node.refused();
    let mut entries = node.client.table(request).await.map_err(&refused)?.into_inner();
    while let Some(entry) = entries.message().await.map_err(&refused)? {
        rows(address, &entry.key, &entry.shard, entry.sessions, filter).for_each(|row| page.add(row));
    }
    Ok(())
}

async fn of_all<'n>(
    node: &mut Node,
    address: &'n str,
    filter: &Filter,
    page: &mut Page<'n>,
) -> Result<(), AskError> {
    // By shard the node would leave out conferences whose entries are elsewhere, whose sessions matter most.
    let request = ConferencesRequest { with_sessions: true, ..ConferencesRequest::default() };
    let refused = node.refused();
    let mut found = node.client.conferences(request).await.map_err(&refused)?.into_inner();
    while let Some(conference) = found.message().await.map_err(&refused)? {
        let (key, entry) = (&conference.key, &conference.shard);
        rows(address, key, entry, conference.sessions, filter).for_each(|row| page.add(row));
    }
    Ok(())
}

/// Rows that wait to be shown.
struct Page<'n> {
    rows: Vec<Row<'n>>,
    shown: usize,
    output: Output,
}

impl<'n> Page<'n> {
    fn add(&mut self, row: Row<'n>) {
        self.rows.push(row);
        if self.rows.len() == PAGE {
            self.write();
        }
    }

    fn write(&mut self) {
        match self.output {
            Output::Json => self.rows.iter().for_each(|row| show(&json(row))),
            Output::Table => {
                show(&table(&Row::HEAD, &self.rows.iter().map(Row::cells).collect::<Vec<_>>()));
            }
        }
        self.shown += self.rows.len();
        self.rows.clear();
    }

    fn end(&mut self) {
        if !self.rows.is_empty() {
            self.write();
        }
        if self.shown == 0 && self.output == Output::Table {
            show("no sessions\n");
        }
    }
}

async fn close(nodes: &Nodes, which: &Which, output: Output) -> Result<ExitCode, AskError> {
    let key = which.key.clone().map(Wanted::Key);
    let wanted = key.or_else(|| which.shard.clone().map(Wanted::Shard));
    for address in nodes.addresses() {
        let mut node = nodes.connect(address).await?;
        let request = CloseTunnelsRequest { which: wanted.clone() };
        let closed = node.client.close_tunnels(request).await.map_err(node.refused())?.into_inner().closed;
        match output {
            Output::Json => show(&json(&Closed { node: address, closed })),
            Output::Table => show(&format!("{address}: {closed} tunnels closed\n")),
        }
    }
    Ok(ExitCode::SUCCESS)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sessions_on_another_shard_than_their_conference_are_marked() {
        let on = |shard: &str| OnShard {
            shard: shard.to_owned(),
            tunnels: 2,
            bosh_sessions: 1,
            longest_ms: Some(61_000),
        };
        let shown = |entry: &str, wanted: Option<&str>| -> Vec<String> {
            let filter = Filter { key: None, shard: wanted.map(ToOwned::to_owned) };
            let rows = rows("n", "t/r", entry, vec![on("s1"), on("s2")], &filter);
            rows.map(|row| row.cells().join(" ")).collect()
        };
        assert_eq!(shown("s1", None), ["n t/r s1 2 1 1m01s s1 ", "n t/r s2 2 1 1m01s s1 ELSEWHERE"]);
        assert_eq!(shown("s1", Some("s2")), ["n t/r s2 2 1 1m01s s1 ELSEWHERE"]);
        assert_eq!(shown("s3", Some("s1")), ["n t/r s1 2 1 1m01s s3 ELSEWHERE"]);
        assert_eq!(shown("", Some("s1")), ["n t/r s1 2 1 1m01s (ended) ELSEWHERE"]);
        assert!(shown("s1", Some("s3")).is_empty());
    }
}
