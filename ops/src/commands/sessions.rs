//! `shardgatectl close-tunnels`.

use std::process::ExitCode;

use clap::Args;
use serde::Serialize;
use shardgate_proto::admin::CloseTunnelsRequest;
use shardgate_proto::admin::close_tunnels_request::Which as Wanted;

use super::show;
use crate::node::{AskError, Nodes};
use crate::render::{Output, json};

#[derive(Debug, Args)]
#[group(required = true, multiple = false)]
pub(crate) struct Which {
    /// Those of this conference.
    #[arg(long)]
    key: Option<String>,
    /// Those to this shard.
    #[arg(long)]
    shard: Option<String>,
}

#[derive(Debug, Serialize)]
struct Closed<'n> {
    node: &'n str,
    closed: u64,
}

pub(super) async fn run(nodes: &Nodes, which: &Which, output: Output) -> Result<ExitCode, AskError> {
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
