//! The verbs, one file each.

use std::process::ExitCode;

use clap::{Parser, Subcommand};

use crate::consul::{ConsulError, ConsulOptions};
use crate::dump_file::DumpFileError;
use crate::node::{AskError, Nodes};
use crate::render::{Output, show, tell};

mod ban;
mod census;
mod changing;
mod conferences;
mod cookie;
mod divergences;
mod health;
mod monitor;
mod node_state;
mod peers;
mod pin;
mod pin_check;
mod ready;
mod release;
mod sessions;
mod shard;
mod shard_states;
mod spread;
mod status;
mod table;
mod table_dump;
mod table_history;
mod table_load;
mod waiting;

/// Looks at shardgate nodes and gives them orders; looks at what is written in Consul for all of them, and writes it.
///
/// Exit codes: 0 done (written in every datacenter); 1 found what was asked about to be wrong (a node not ready, no such entry, datacenters
/// that disagree or do not hold what was written), or refused; 2 could not look.
#[derive(Debug, Parser)]
#[command(name = "shardgatectl", version, max_term_width = 110)]
pub(crate) struct Cli {
    /// A table to look at, or JSON for scripts.
    #[arg(long, value_enum, default_value = "table", global = true)]
    output: Output,
    #[command(flatten)]
    nodes: Nodes,
    #[command(flatten)]
    consul: ConsulOptions,
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
    /// Conferences that are open now.
    #[command(subcommand)]
    Conferences(conferences::Verb),
    /// Split brains: conferences whose people were on several shards, and what was decided.
    #[command(subcommand)]
    Divergences(divergences::Verb),
    /// How nodes see each other: connected, ready, in agreement.
    #[command(subcommand)]
    Peers(peers::Verb),
    /// What is wrong in the tables of all nodes: split brains, missing entries, rooms that leaked, and more.
    #[command(long_about = monitor::ABOUT)]
    Monitor(monitor::Options),
    /// Nodes out of traffic, and back.
    #[command(subcommand)]
    Node(node_state::Verb),
    /// Shards and their states: in Consul for all nodes, or with --node on these nodes alone.
    #[command(subcommand)]
    Shard(shard::Verb),
    /// Declare these nodes ready, whatever peers they wait for.
    #[command(name = "override-readiness")]
    OverrideReadiness,
    /// Tunnels and BOSH sessions of conferences on these nodes.
    #[command(subcommand)]
    Sessions(sessions::Verb),
    /// Tenants that stay on a release, in Consul.
    #[command(subcommand)]
    Pin(pin::Verb),
    /// The live release, and the end of one, in Consul.
    #[command(subcommand)]
    Release(release::Verb),
    /// Rooms, tenants and referers that are refused, in Consul.
    #[command(subcommand)]
    Ban(ban::Verb),
}

/// Why a command was not done.
#[derive(Debug, thiserror::Error)]
pub(crate) enum CommandError {
    /// A node could not be asked.
    #[error(transparent)]
    Ask(#[from] AskError),
    /// Consul could not.
    #[error(transparent)]
    Consul(#[from] ConsulError),
    /// A file of a table cannot be read or written, or is none.
    #[error(transparent)]
    DumpFile(#[from] DumpFileError),
    /// The options do not fit together.
    #[error("{what}")]
    Usage {
        /// What does not.
        what: String,
        /// What would.
        hint: String,
    },
    /// It was understood, and is probably not what was meant. Nothing was written.
    #[error("{what}; nothing was written")]
    Refused {
        /// Why.
        what: String,
        /// What may have been meant.
        hint: String,
    },
}

impl CommandError {
    /// There is no node that could say anything.
    fn no_node() -> Self {
        Self::Usage {
            what: "no node is registered at Consul: nobody could be asked what is there".to_owned(),
            hint: "--node ADDRESS, repeated, names them".to_owned(),
        }
    }

    pub(crate) fn hint(&self) -> Option<String> {
        match self {
            Self::Ask(error) => error.hint().map(ToOwned::to_owned),
            Self::Consul(error) => error.hint(),
            Self::DumpFile(error) => error.hint().map(ToOwned::to_owned),
            Self::Usage { hint, .. } | Self::Refused { hint, .. } => Some(hint.clone()),
        }
    }

    /// The exit code.
    pub(crate) const fn code(&self) -> u8 {
        match self {
            Self::Refused { .. } => WRONG,
            Self::DumpFile(error) if error.is_fault() => WRONG,
            Self::Ask(_) | Self::Consul(_) | Self::DumpFile(_) | Self::Usage { .. } => COULD_NOT_LOOK,
        }
    }
}

/// Exit code when what was asked about is wrong.
const WRONG: u8 = 1;
/// Exit code when nobody could be asked.
pub(crate) const COULD_NOT_LOOK: u8 = 2;

pub(crate) async fn run(cli: Cli) -> Result<ExitCode, CommandError> {
    let Cli { nodes, output, consul, command } = cli;
    match command {
        Command::Status => Ok(status::run(&nodes, output).await?),
        Command::Table(verb) => table::run(&nodes, verb, output).await,
        Command::Shard(verb) => shard::run(&nodes, &consul, verb, output).await,
        Command::OverrideReadiness => Ok(ready::run(&nodes, output).await?),
        Command::Sessions(verb) => Ok(sessions::run(&nodes, verb, output).await?),
        Command::Conferences(verb) => conferences::run(&nodes, &consul, verb, output).await,
        Command::Divergences(verb) => Ok(divergences::run(&nodes, verb, output).await?),
        Command::Peers(verb) => Ok(peers::run(&nodes, verb, output).await?),
        Command::Monitor(options) => monitor::run(&nodes, &consul, &options, output).await,
        Command::Node(verb) => node_state::run(&nodes, verb, output).await,
        Command::Release(verb) if verb.is_for_nodes() => release::run(&nodes, &consul, verb, output).await,
        Command::Pin(_) | Command::Release(_) | Command::Ban(_) if nodes.named().is_some() => {
            Err(CommandError::Usage {
                what: "pin, release live and ban are about Consul, --node is not".to_owned(),
                hint: "leave --node out: all nodes of the environment read it".to_owned(),
            })
        }
        Command::Pin(verb) => pin::run(&consul, verb, output).await,
        Command::Release(verb) => release::run(&nodes, &consul, verb, output).await,
        Command::Ban(verb) => ban::run(&consul, verb, output).await,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory as _;

    /// clap keeps both under one name and fails only when the command runs.
    #[test]
    fn no_command_calls_something_what_all_of_them_do() {
        let cli = Cli::command();
        let globals: Vec<_> = cli.get_arguments().map(clap::Arg::get_id).collect();
        let mut commands: Vec<_> = cli.get_subcommands().collect();
        while let Some(command) = commands.pop() {
            commands.extend(command.get_subcommands());
            for own in command.get_arguments() {
                assert!(!globals.contains(&own.get_id()), "{}: {}", command.get_name(), own.get_id());
            }
        }
    }

    #[test]
    fn where_nobody_was_asked_nothing_is_said_to_be_well() {
        assert_eq!(CommandError::no_node().code(), COULD_NOT_LOOK);
    }

    #[test]
    fn the_command_line() {
        Cli::command().debug_assert();
        for (line, valid) in [
            ("pin set acme release-1 --dry-run --force", true),
            ("pin set Acme release-1", false),
            ("pin set acme release/1", false),
            ("pin set acme", false),
            ("release live get --datacenter a --datacenter b", true),
            ("release live", false),
            ("ban add room", true),
            ("ban add --list tenant --allow acme", true),
            ("ban remove --list unban_prefix acme", true),
            ("ban add --list rooms acme", false),
            ("shard drain s1 --node a:1 --node b:1", true),
            ("shard drain s1 --mesh", true),
            ("shard weight s1 256", true),
            ("shard weight s1 257", false),
            ("table get room --consul-key k", true),
            ("shard drain s1 --wait --timeout 6h --names", true),
            ("shard drain s1 --names", false),
            ("shard drain s1 --wait --dry-run", false),
            ("shard drain s1 --wait --timeout soon", false),
            ("shard ready s1 --wait", false),
            ("release drain release-1 --wait --node a:1", true),
            ("node drain --wait --timeout 90s --node a:1", true),
            ("monitor --every 60s --settle 5s --metrics-file m.prom", true),
            ("monitor --fix --yes --max-changes 5 --audit a.log", true),
            ("monitor --yes", false),
            ("monitor --fix --audit a.log", false),
            ("monitor --every 60s --snapshot s", false),
            ("monitor --haproxy unix:/run/h.sock --haproxy files:a,b --compare s", true),
            ("monitor --haproxy nonsense", false),
            ("conferences list --release release-1 --tenant acme --names", true),
            ("sessions list", true),
            ("sessions list --key acme/room --shard s1", true),
            ("sessions close", false),
            ("sessions close --key acme/room --shard s1", false),
            ("sessions close --shard s1 --node a:1", true),
            ("table history acme/room --node a:1 --node b:1", true),
            ("table dump -", true),
            ("table dump", false),
            ("table load file --dry-run", true),
        ] {
            let words = std::iter::once("shardgatectl").chain(line.split(' '));
            assert_eq!(Cli::try_parse_from(words).is_ok(), valid, "{line}");
        }
    }
}
