//! `shardgatectl clear`.

use std::process::ExitCode;

use serde::Serialize;
use shardgate_proto::admin::ClearRequest;

use super::show;
use crate::node::{AskError, Node};
use crate::render::{Output, json};

#[derive(Debug, Serialize)]
struct Cleared<'a> {
    node: &'a str,
    key: &'a str,
    outcome: String,
}

/// Asks the first node: one answer holds for the whole mesh.
pub(super) async fn run(nodes: &[String], key: &str, output: Output) -> Result<ExitCode, AskError> {
    let Some(address) = nodes.first() else { return Ok(ExitCode::SUCCESS) };
    let mut node = Node::connect(address).await?;
    let request = ClearRequest { key: key.to_owned() };
    let outcome = node.client.clear(request).await.map_err(node.refused())?.into_inner().outcome;
    let code = if outcome == "cleared" { ExitCode::SUCCESS } else { ExitCode::FAILURE };
    match output {
        Output::Json => show(&json(&Cleared { node: address, key, outcome })),
        Output::Table => {
            let said = match outcome.as_str() {
                "cleared" => "cleared: it has no entry any more",
                "held" => "held: sessions of it are open somewhere, so it stays (close-tunnels ends them)",
                _ => "unanswered: its home did not answer, or another claim for it is under way; try again",
            };
            show(&format!("{key}: {said}\n"));
        }
    }
    Ok(code)
}
