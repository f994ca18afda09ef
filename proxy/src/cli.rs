//! The command line of `shardgate`.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, Parser, Subcommand};

use crate::dev::DevArgs;

mod check;
mod config_watch;
mod pki;
mod route;
mod serve;

/// Exit code for a configuration or input that is refused; 2 is clap's, for wrong usage.
const REFUSED: u8 = 1;

/// Global mesh sharding ingress: people who join the same conference meet, wherever they come in.
#[derive(Debug, Parser)]
#[command(
    name = "shardgate",
    version,
    max_term_width = 110,
    after_help = "Start with `shardgate dev`: a mesh on this machine, \
with a room page to try."
)]
pub struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run a node: route clients to shards, replicate the stick table with its peers.
    Serve(ServeArgs),
    /// Check a configuration and its discovery file, print what will run, run nothing.
    Check(CheckArgs),
    /// Say where a request would go, and by which rules. Asks no node.
    #[command(subcommand)]
    Route(route::RouteCommand),
    /// Try it: a mesh of four nodes in two regions with three small shards and a room page, all on this machine.
    Dev(DevArgs),
    /// Make the mesh CA and the certificates of nodes.
    #[command(subcommand)]
    Pki(PkiCommand),
}

/// A configuration and what overrides it.
#[derive(Debug, Args)]
struct ConfigArgs {
    /// Override a field, such as --set frontend.workers=2; wins over SHARDGATE_FRONTEND__WORKERS and over the file. Repeatable.
    #[arg(long = "set", value_name = "FIELD=VALUE")]
    sets: Vec<String>,
}

#[derive(Debug, Args)]
struct ServeArgs {
    /// The configuration (TOML); ops/config/shardgate.example.toml documents every field.
    #[arg(long, short, value_name = "FILE")]
    config: PathBuf,
    #[command(flatten)]
    overrides: ConfigArgs,
    /// Planted faults for tests of the tests; only in builds with the feature test-hooks: stickiness=off, and flips=FILE: what is written there as
    /// "KEY SHARD" is written over this node's entry of KEY, and the file removed.
    #[cfg(feature = "test-hooks")]
    #[arg(long = "test-hook", value_name = "NAME=VALUE", value_parser = serve::test_hook)]
    test_hooks: Vec<serve::TestHook>,
}

#[derive(Debug, Args)]
struct CheckArgs {
    /// The configuration (TOML).
    #[arg(value_name = "FILE")]
    config: PathBuf,
    #[command(flatten)]
    overrides: ConfigArgs,
}

#[derive(Debug, Subcommand)]
enum PkiCommand {
    /// Make a new mesh CA: DIR/ca.pem and DIR/ca.key. Keep the key off the nodes.
    Init(PkiArgs),
    /// Make a node's certificate, signed by the CA in DIR: DIR/PEER.pem and DIR/PEER.key.
    Issue {
        #[command(flatten)]
        common: PkiArgs,
        /// The node's name, as `id` in its `node` section.
        #[arg(long)]
        peer: String,
    },
}

#[derive(Debug, Args)]
struct PkiArgs {
    /// Where the CA is.
    #[arg(long, value_name = "DIR")]
    dir: PathBuf,
    /// The environment, as in the `node` section; certificates of another one are refused.
    #[arg(long)]
    environment: String,
}

/// Runs the command line and answers the process' exit code: 0 done, 1 refused or failed, 2 wrong usage.
#[must_use]
pub fn run() -> ExitCode {
    match Cli::parse().command {
        Command::Serve(args) => serve::run(&args),
        Command::Check(args) => check::run(&args),
        Command::Route(command) => route::run(&command),
        Command::Dev(args) => match crate::dev::run(&args) {
            Ok(code) => code,
            Err(error) => refuse(&error, None),
        },
        Command::Pki(command) => pki::run(&command),
    }
}

/// Says what is wrong and how to go on, once, on stderr.
fn refuse(error: &dyn std::error::Error, hint: Option<&str>) -> ExitCode {
    complain(error, hint);
    ExitCode::from(REFUSED)
}

/// An error with its causes, each told once.
fn with_causes(error: &dyn std::error::Error) -> String {
    let told = error.to_string();
    let mut text = told.clone();
    let mut source = error.source();
    while let Some(cause) = source {
        let cause_text = cause.to_string();
        if !told.contains(&cause_text) {
            text.push_str(": ");
            text.push_str(&cause_text);
        }
        source = cause.source();
    }
    text
}

#[expect(clippy::print_stderr, reason = "the command line speaks here")]
fn complain(error: &dyn std::error::Error, hint: Option<&str>) {
    eprintln!("error: {}", with_causes(error));
    if let Some(hint) = hint {
        eprintln!("hint: {hint}");
    }
}
