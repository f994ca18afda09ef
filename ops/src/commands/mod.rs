//! The verbs, one file each.

use std::process::ExitCode;

use clap::{Parser, Subcommand};

use crate::node::{AskError, Nodes};
use crate::render::Output;

mod ready;
mod shard;
mod status;
mod table;
mod tunnels;

/// Looks at shardgate nodes and gives them orders.
///
/// Exit codes: 0 done, 1 found what was asked about to be wrong (a node not ready, no such entry), 2 could not look.
#[derive(Debug, Parser)]
#[command(name = "shardgatectl", version, max_term_width = 110)]
pub(crate) struct Cli {
    #[command(flatten)]
    nodes: Nodes,
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
    #[command(subcommand)]
    Table(table::Verb),
    /// Shards as these nodes see them, and what is commanded of them there: state and weight.
    #[command(subcommand)]
    Shard(shard::Verb),
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
        Command::Table(verb) => table::run(&nodes, verb, output).await,
        Command::Shard(verb) => shard::run(&nodes, verb, output).await,
        Command::OverrideReadiness => ready::run(&nodes, output).await,
        Command::CloseTunnels(which) => tunnels::run(&nodes, &which, output).await,
    }
}

#[expect(clippy::print_stdout, reason = "what was asked for")]
fn show(text: &str) {
    print!("{text}");
}
