//! `shardgatectl`: the operator's side. A client of the admin API and of Consul like any other; it has no second way into a node.

use std::process::ExitCode;

use clap::Parser as _;

mod commands;
mod consul;
mod dump_file;
mod fleet;
mod node;
mod pace;
mod render;
mod whole_file;

use commands::Cli;
use render::tell;

fn main() -> ExitCode {
    let cli = Cli::parse();
    // Connections are kept alive by another thread than the one that writes: a reader of the output may take its time.
    let mut runtime = tokio::runtime::Builder::new_multi_thread();
    let runtime = match runtime.worker_threads(1).enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            tell(&format!("error: cannot start: {error}"));
            return ExitCode::FAILURE;
        }
    };
    match runtime.block_on(commands::run(cli)) {
        // Nobody was told, as if nobody had been asked.
        Ok(_) if render::unsaid() => ExitCode::from(commands::COULD_NOT_LOOK),
        Ok(code) => code,
        Err(error) => {
            tell(&format!("error: {error}"));
            if let Some(hint) = error.hint() {
                tell(&format!("hint: {hint}"));
            }
            ExitCode::from(error.code())
        }
    }
}
