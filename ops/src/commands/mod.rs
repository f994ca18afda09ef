//! The verbs, one file each.

use std::process::ExitCode;

use clap::{Parser, Subcommand};

use crate::node::AskError;
use crate::render::Output;

mod clear;
mod ready;
mod status;
mod table;
mod tunnels;

/// Looks at shardgate nodes and gives them orders.
///
/// Exit codes: 0 done, 1 found what was asked about to be wrong (a node not ready, no such entry), 2 could not look.
#[derive(Debug, Parser)]
#[command(name = "shardgatectl", version, max_term_width = 110)]
pub(crate) struct Cli {
    /// A node's admin listener that serves "status"; repeat it to ask several.
    #[arg(long = "node", value_name = "HOST:PORT", default_value = "127.0.0.1:8405", global = true)]
    nodes: Vec<String>,
    /// A table to look at, or JSON for scripts.
    #[arg(long, value_enum, default_value = "table", global = true)]
    output: Output,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Is each node ready, does it talk to its peers, what is on its shards.
    Status,
    /// The stick table: conference to shard.
    Table {
        /// Only this conference (`tenant/room` or `room`).
        key: Option<String>,
    },
    /// End a conference for the whole mesh, unless somebody holds it (exit code 1 when it is held or no home answers).
    Clear {
        /// The conference (`tenant/room` or `room`).
        key: String,
    },
    /// Declare these nodes ready, whatever peers they wait for.
    #[command(name = "override-readiness")]
    OverrideReadiness,
    /// Close tunnels on these nodes; their clients come back and are routed anew.
    #[command(name = "close-tunnels")]
    CloseTunnels(tunnels::Which),
}

pub(crate) async fn run(cli: Cli) -> Result<ExitCode, AskError> {
    let Cli { nodes, output, command } = cli;
    match command {
        Command::Status => status::run(&nodes, output).await,
        Command::Table { key } => table::run(&nodes, key.as_deref(), output).await,
        Command::Clear { key } => clear::run(&nodes, &key, output).await,
        Command::OverrideReadiness => ready::run(&nodes, output).await,
        Command::CloseTunnels(which) => tunnels::run(&nodes, &which, output).await,
    }
}

#[expect(clippy::print_stdout, reason = "what was asked for")]
fn show(text: &str) {
    print!("{text}");
}
