//! `shardgatectl node`: a node out of traffic, and back.

use std::process::ExitCode;

use clap::Subcommand;
use serde::Serialize;
use shardgate_proto::admin::OrderNodeRequest;

use super::waiting::{Drained, WaitHere, until_empty};
use super::{CommandError, show};
use crate::node::Nodes;
use crate::render::{Output, json};

/// What to do with the nodes that --node names.
#[derive(Debug, Subcommand)]
pub(crate) enum Verb {
    /// Take them out of traffic: /readyz, /haproxy_health and /balancer say so, and so does Consul. They serve on whoever comes all the
    /// same. With --wait until no session is left on them, for 2 s at least. A balancer sends more until it has asked again: give it its
    /// interval as well, before they are stopped.
    Drain {
        #[command(flatten)]
        wait: WaitHere,
    },
    /// Take that back.
    Ready,
}

#[derive(Serialize)]
struct Now<'a> {
    node: &'a str,
    state: &'a str,
}

pub(super) async fn run(nodes: &Nodes, verb: Verb, output: Output) -> Result<ExitCode, CommandError> {
    let Some(named) = nodes.named() else {
        return Err(CommandError::Usage {
            what: "node drain and node ready need --node: which one is meant?".to_owned(),
            hint: "--node unix:/run/shardgate/admin.sock; repeat it for several".to_owned(),
        });
    };
    let (state, waiting) = match verb {
        Verb::Drain { wait } => ("drain", wait.wanted()),
        Verb::Ready => ("ready", None),
    };
    for address in named {
        let mut node = nodes.connect(address).await?;
        let request = OrderNodeRequest { state: state.to_owned() };
        let now = node.client.order_node(request).await.map_err(node.refused())?.into_inner();
        match output {
            Output::Json => show(&json(&Now { node: address, state: &now.state })),
            Output::Table => show(&format!("{address}: in {}\n", now.state)),
        }
    }
    match waiting {
        Some(waiting) => until_empty(nodes, None, &Drained::Nodes, waiting, output).await,
        None => Ok(ExitCode::SUCCESS),
    }
}
