//! `shardgatectl status`.

use std::process::ExitCode;
use std::time::{SystemTime, UNIX_EPOCH};

use serde::Serialize;
use shardgate_proto::admin::{StatusRequest, StatusResponse};

use super::health::Health;
use super::peers::Peer;
use super::show;
use crate::node::{AskError, Nodes};
use crate::render::{Output, duration, json, table};

#[derive(Debug, Serialize)]
struct Status {
    node: String,
    region: String,
    version: String,
    ready: bool,
    reason: String,
    entries: u64,
    tunnels: u64,
    bosh_sessions: u64,
    snapshot_version: u64,
    discovery: Discovery,
    peers: Vec<Peer>,
    shards: Vec<Shard>,
}

/// Where shards, releases and pins come from.
#[derive(Debug, Serialize)]
struct Discovery {
    source: String,
    origin: String,
    /// Why what operators want may be known as it was; empty when it is fresh.
    stale: String,
    error: String,
    invalid: u64,
    age_ms: u64,
    /// Why what it said last is not kept on disk; empty while it is.
    not_kept: String,
    parts: Vec<Part>,
}

/// A list that discovery consists of.
#[derive(Debug, Serialize)]
struct Part {
    name: String,
    /// `None`: it never answered.
    age_ms: Option<u64>,
    error: String,
}

impl From<shardgate_proto::admin::Discovery> for Discovery {
    fn from(discovery: shardgate_proto::admin::Discovery) -> Self {
        let shardgate_proto::admin::Discovery {
            source,
            origin,
            stale,
            error,
            invalid,
            parts,
            age_ms,
            not_kept,
        } = discovery;
        let part = |part: shardgate_proto::admin::DiscoveryPart| Part {
            name: part.name,
            age_ms: part.age_ms,
            error: part.error,
        };
        let parts = parts.into_iter().map(part).collect();
        Self { source, origin, stale, error, invalid, age_ms, not_kept, parts }
    }
}

impl Discovery {
    /// One line, more of it when something is wrong.
    fn page(&self) -> String {
        let Self { source, origin, stale, error, invalid, age_ms, not_kept, parts } = self;
        let mut text = match origin.as_str() {
            "source" => format!("discovery: {source}, last heard of {} ago", duration(*age_ms)),
            "disk" => format!("discovery: {source}, not heard of yet, what was kept on disk is in use"),
            _ => format!("discovery: {source}, not heard of yet, and nothing was kept"),
        };
        if *invalid > 0 {
            text.push_str(&format!(", {invalid} records left out (see the log, or shardgatectl pin check)"));
        }
        text.push('\n');
        if !stale.is_empty() {
            text.push_str(&format!("POLICY IS STALE: {stale}\n"));
        }
        if !not_kept.is_empty() {
            text.push_str(&format!(
                "not kept on disk, a start without it would go by what was: {not_kept}\n"
            ));
        }
        let wrong: Vec<_> = parts.iter().filter(|part| !part.error.is_empty()).collect();
        if wrong.is_empty() && !error.is_empty() {
            text.push_str(&format!("discovery is refused: {error}\n"));
        }
        if wrong.is_empty() {
            return text;
        }
        let row = |part: &&Part| {
            let age = part.age_ms.map_or_else(|| "never".to_owned(), |age| format!("{} ago", duration(age)));
            vec![part.name.clone(), age, short(&part.error)]
        };
        let rows: Vec<_> = wrong.iter().map(row).collect();
        text + &table(&["LIST", "LAST HEARD OF", "ERROR"], &rows)
    }
}

/// An error that fits into a table: its beginning and its end, where the cause stands. JSON has all of it.
pub(super) fn short(error: &str) -> String {
    const HALF: usize = 48;
    let letters: Vec<char> = error.chars().collect();
    if letters.len() <= 2 * HALF + 3 {
        return error.to_owned();
    }
    let (begin, end) = (&letters[..HALF], &letters[letters.len() - HALF..]);
    format!("{}...{}", begin.iter().collect::<String>(), end.iter().collect::<String>())
}

/// A shard as a node sees it.
#[derive(Debug, Serialize)]
pub(super) struct Shard {
    name: String,
    release: String,
    region: String,
    address: String,
    state: String,
    weight: u32,
    /// What operators command on the node.
    command: Option<Command>,
    conferences: u64,
    tunnels: u64,
    bosh_sessions: u64,
    /// What the node's own checks say.
    health: Option<Health>,
}

#[derive(Debug, Serialize)]
struct Command {
    state: String,
    weight: Option<u32>,
    age_s: u64,
}

impl From<shardgate_proto::admin::Shard> for Shard {
    fn from(shard: shardgate_proto::admin::Shard) -> Self {
        let now_ms = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |now| now.as_millis() as u64);
        let command = shard.command.map(|command| Command {
            state: command.state,
            weight: command.weight,
            age_s: now_ms.saturating_sub(command.at_ms) / 1_000,
        });
        Self {
            name: shard.name,
            release: shard.release,
            region: shard.region,
            address: shard.address,
            state: shard.state,
            weight: shard.weight,
            command,
            conferences: shard.conferences,
            tunnels: shard.tunnels,
            bosh_sessions: shard.bosh_sessions,
            health: shard.health.map(Health::from),
        }
    }
}

impl Shard {
    pub(super) const HEAD: [&'static str; 11] = [
        "SHARD",
        "RELEASE",
        "REGION",
        "ADDRESS",
        "STATE",
        "WEIGHT",
        "COMMANDED",
        "CONFERENCES",
        "TUNNELS HERE",
        "BOSH HERE",
        "HEALTH",
    ];

    pub(super) fn cells(&self) -> Vec<String> {
        let Self {
            name, release, region, address, command, conferences, tunnels, bosh_sessions, health, ..
        } = self;
        // With what checks and agents say: that is what holds.
        let (state, weight) =
            health.as_ref().map_or((&self.state, self.weight), |health| (health.state(), health.weight()));
        let health = health.as_ref().map_or_else(|| "-".to_owned(), Health::cell);
        let commanded = command.as_ref().map(|Command { state, weight, age_s }| {
            let weight = weight.map(|weight| format!("weight {weight}"));
            let state = (state != "ready").then(|| state.clone());
            let what: Vec<String> = state.into_iter().chain(weight).collect();
            format!("{}, {} ago", what.join(", "), duration(age_s * 1_000))
        });
        let texts = [name, release, region, address, state].into_iter().cloned();
        let commanded = commanded.unwrap_or_else(|| "-".to_owned());
        let counts = [conferences, tunnels, bosh_sessions].map(ToString::to_string);
        let counts = counts.into_iter().chain([health]);
        texts.chain([weight.to_string(), commanded]).chain(counts).collect()
    }
}

impl From<StatusResponse> for Status {
    fn from(answer: StatusResponse) -> Self {
        Self {
            node: answer.node,
            region: answer.region,
            version: answer.version,
            ready: answer.ready,
            reason: answer.reason,
            entries: answer.entries,
            tunnels: answer.tunnels,
            bosh_sessions: answer.bosh_sessions,
            snapshot_version: answer.snapshot_version,
            discovery: Discovery::from(answer.discovery.unwrap_or_default()),
            peers: answer.peers.into_iter().map(Peer::from).collect(),
            shards: answer.shards.into_iter().map(Shard::from).collect(),
        }
    }
}

pub(super) async fn run(nodes: &Nodes, output: Output) -> Result<ExitCode, AskError> {
    let mut code = ExitCode::SUCCESS;
    for address in nodes.addresses() {
        let mut node = nodes.connect(address).await?;
        let answer = node.client.status(StatusRequest {}).await.map_err(node.refused())?;
        let status = Status::from(answer.into_inner());
        if !status.ready {
            code = ExitCode::FAILURE;
        }
        match output {
            Output::Json => show(&json(&status)),
            Output::Table => show(&page(&status)),
        }
    }
    Ok(code)
}

fn page(status: &Status) -> String {
    let ready = if status.ready { "ready".to_owned() } else { format!("NOT READY ({})", status.reason) };
    let Status { node, region, version, entries, tunnels, bosh_sessions, .. } = status;
    let peers: Vec<Vec<String>> = status.peers.iter().map(Peer::cells).collect();
    let shards: Vec<Vec<String>> = status.shards.iter().map(Shard::cells).collect();
    format!(
        "{node} in {region}, {version}: {ready}, {entries} entries, {tunnels} tunnels, {bosh_sessions} BOSH sessions\n{}\n{}\n{}\n",
        status.discovery.page(),
        table(&Peer::HEAD, &peers),
        table(&Shard::HEAD, &shards),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_errors_keep_their_ends() {
        assert_eq!(short("no answer"), "no answer");
        let long = format!("no answer from {} (os error 111)", "x".repeat(200));
        let shown = short(&long);
        assert!(shown.starts_with("no answer from xxx") && shown.ends_with("(os error 111)"), "{shown}");
        assert_eq!(shown.chars().count(), 99);
    }
}
