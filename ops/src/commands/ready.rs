//! `shardgatectl override-readiness`.

use std::process::ExitCode;

use serde::Serialize;
use shardgate_proto::admin::OverrideReadinessRequest;

use super::show;
use crate::node::{AskError, Nodes};
use crate::render::{Output, json};

#[derive(Debug, Serialize)]
struct Overridden<'a> {
    node: &'a str,
    ready: bool,
}

pub(super) async fn run(nodes: &Nodes, output: Output) -> Result<ExitCode, AskError> {
    for address in nodes.addresses() {
        let mut node = nodes.connect(address).await?;
        node.client.override_readiness(OverrideReadinessRequest {}).await.map_err(node.refused())?;
        match output {
            Output::Json => show(&json(&Overridden { node: address, ready: true })),
            Output::Table => show(&format!("{address}: declared ready\n")),
        }
    }
    Ok(ExitCode::SUCCESS)
}
