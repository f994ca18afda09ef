//! `shardgatectl status`.

use std::process::ExitCode;
use std::time::{SystemTime, UNIX_EPOCH};

use serde::Serialize;
use shardgate_proto::admin::{StatusRequest, StatusResponse};

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
    snapshot_version: u64,
    peers: Vec<Peer>,
    shards: Vec<Shard>,
}

#[derive(Debug, Serialize)]
struct Peer {
    id: String,
    link: String,
    agreement: String,
    ready: bool,
    behind: u64,
    rtt_ms: u64,
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
        }
    }
}

impl Shard {
    pub(super) const HEAD: [&'static str; 9] = [
        "SHARD",
        "RELEASE",
        "REGION",
        "ADDRESS",
        "STATE",
        "WEIGHT",
        "COMMANDED",
        "CONFERENCES",
        "TUNNELS HERE",
    ];

    pub(super) fn cells(&self) -> Vec<String> {
        let Self { name, release, region, address, state, weight, command, conferences, tunnels } = self;
        let commanded = command.as_ref().map(|Command { state, weight, age_s }| {
            let weight = weight.map(|weight| format!("weight {weight}"));
            let state = (state != "ready").then(|| state.clone());
            let what: Vec<String> = state.into_iter().chain(weight).collect();
            format!("{}, {} ago", what.join(", "), duration(age_s * 1_000))
        });
        let texts = [name, release, region, address, state].into_iter().cloned();
        let commanded = commanded.unwrap_or_else(|| "-".to_owned());
        texts.chain([weight.to_string(), commanded, conferences.to_string(), tunnels.to_string()]).collect()
    }
}

impl From<StatusResponse> for Status {
    fn from(answer: StatusResponse) -> Self {
        let peer = |peer: shardgate_proto::admin::Peer| Peer {
            id: peer.id,
            link: peer.link,
            agreement: peer.agreement,
            ready: peer.ready,
            behind: peer.behind,
            rtt_ms: peer.rtt_ms,
        };
        Self {
            node: answer.node,
            region: answer.region,
            version: answer.version,
            ready: answer.ready,
            reason: answer.reason,
            entries: answer.entries,
            tunnels: answer.tunnels,
            snapshot_version: answer.snapshot_version,
            peers: answer.peers.into_iter().map(peer).collect(),
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
    let Status { node, region, version, entries, tunnels, .. } = status;
    let peers: Vec<Vec<String>> = status
        .peers
        .iter()
        .map(|peer| {
            let ready = if peer.ready { "yes" } else { "no" };
            let rtt = format!("{} ms", peer.rtt_ms);
            let agreement = peer.agreement.clone();
            vec![
                peer.id.clone(),
                peer.link.clone(),
                agreement,
                ready.to_owned(),
                peer.behind.to_string(),
                rtt,
            ]
        })
        .collect();
    let shards: Vec<Vec<String>> = status.shards.iter().map(Shard::cells).collect();
    format!(
        "{node} in {region}, {version}: {ready}, {entries} entries, {tunnels} tunnels\n\n{}\n{}\n",
        table(&["PEER", "LINK", "TABLE", "READY", "BEHIND", "RTT"], &peers),
        table(&Shard::HEAD, &shards),
    )
}
