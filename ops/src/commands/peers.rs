//! `shardgatectl peers`: how nodes see each other.

use std::process::ExitCode;

use clap::Subcommand;
use serde::Serialize;
use shardgate_proto::admin::StatusRequest;

use super::{WRONG, show};
use crate::node::{AskError, Nodes};
use crate::render::{Output, duration, json, table};

/// What to do with peers.
#[derive(Debug, Subcommand)]
pub(crate) enum Verb {
    /// Each peer of these nodes: connected, ready, in agreement (exit code 1 when one is not).
    Show,
}

/// A peer as a node sees it.
#[derive(Debug, Serialize)]
pub(super) struct Peer {
    id: String,
    link: String,
    agreement: String,
    /// Since a comparison last said that both tables hold the same; `None`: none ever has.
    agreed_ms: Option<u64>,
    ready: bool,
    suspect: bool,
    behind: u64,
    rtt_ms: u64,
}

impl From<shardgate_proto::admin::Peer> for Peer {
    fn from(peer: shardgate_proto::admin::Peer) -> Self {
        let shardgate_proto::admin::Peer { id, link, agreement, agreed_ms, ready, suspect, behind, rtt_ms } =
            peer;
        Self { id, link, agreement, agreed_ms, ready, suspect, behind, rtt_ms }
    }
}

impl Peer {
    pub(super) const HEAD: [&'static str; 7] = ["PEER", "LINK", "TABLE", "AGREED", "READY", "BEHIND", "RTT"];

    pub(super) fn cells(&self) -> Vec<String> {
        let Self { id, link, agreement, agreed_ms, ready, suspect, behind, rtt_ms } = self;
        let agreed = agreed_ms.map_or_else(|| "never".to_owned(), |ms| format!("{} ago", duration(ms)));
        let ready = match (ready, suspect) {
            (true, false) => "yes",
            (true, true) => "silent",
            (false, _) => "no",
        };
        vec![
            id.clone(),
            link.clone(),
            agreement.clone(),
            agreed,
            ready.to_owned(),
            behind.to_string(),
            format!("{rtt_ms} ms"),
        ]
    }

    /// Whether it is connected, ready, and holds the same.
    fn is_well(&self) -> bool {
        self.link == "reconciled" && self.ready && !self.suspect && self.agreement == "agreed"
    }
}

#[derive(Debug, Serialize)]
struct OfNode<'a> {
    node: &'a str,
    peers: Vec<Peer>,
}

pub(super) async fn run(nodes: &Nodes, Verb::Show: Verb, output: Output) -> Result<ExitCode, AskError> {
    let mut code = ExitCode::SUCCESS;
    for address in nodes.addresses() {
        let mut node = nodes.connect(address).await?;
        let answer = node.client.status(StatusRequest {}).await.map_err(node.refused())?.into_inner();
        let peers: Vec<Peer> = answer.peers.into_iter().map(Peer::from).collect();
        if !peers.iter().all(Peer::is_well) {
            code = ExitCode::from(WRONG);
        }
        match output {
            Output::Json => show(&json(&OfNode { node: &answer.node, peers })),
            Output::Table => {
                let rows: Vec<_> = peers.iter().map(Peer::cells).collect();
                show(&format!("{}:\n{}\n", answer.node, table(&Peer::HEAD, &rows)));
            }
        }
    }
    Ok(code)
}
