//! `shardgatectl status`.

use std::process::ExitCode;

use serde::Serialize;
use shardgate_proto::admin::{StatusRequest, StatusResponse};

use super::show;
use crate::node::{AskError, Node};
use crate::render::{Output, json, table};

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

#[derive(Debug, Serialize)]
struct Shard {
    name: String,
    release: String,
    region: String,
    address: String,
    state: String,
    conferences: u64,
    tunnels: u64,
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
        let shard = |shard: shardgate_proto::admin::Shard| Shard {
            name: shard.name,
            release: shard.release,
            region: shard.region,
            address: shard.address,
            state: shard.state,
            conferences: shard.conferences,
            tunnels: shard.tunnels,
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
            shards: answer.shards.into_iter().map(shard).collect(),
        }
    }
}

pub(super) async fn run(nodes: &[String], output: Output) -> Result<ExitCode, AskError> {
    let mut code = ExitCode::SUCCESS;
    for address in nodes {
        let mut node = Node::connect(address).await?;
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
    let shards: Vec<Vec<String>> = status
        .shards
        .iter()
        .map(|shard| {
            let Shard { name, release, region, address, state, conferences, tunnels } = shard;
            let numbers = [conferences.to_string(), tunnels.to_string()];
            [name, release, region, address, state].into_iter().cloned().chain(numbers).collect()
        })
        .collect();
    format!(
        "{node} in {region}, {version}: {ready}, {entries} entries, {tunnels} tunnels\n\n{}\n{}\n",
        table(&["PEER", "LINK", "TABLE", "READY", "BEHIND", "RTT"], &peers),
        table(&["SHARD", "RELEASE", "REGION", "ADDRESS", "STATE", "CONFERENCES", "TUNNELS HERE"], &shards),
    )
}
