//! `shardgate serve`.

use std::process::ExitCode;

use tokio::signal::unix::{SignalKind, signal};
use tracing::info;
use tracing_subscriber::EnvFilter;

use super::{ServeArgs, refuse};
use crate::config::{Config, load, process_environment};
use crate::node::{NodeError, RunningNode};

#[derive(Debug, thiserror::Error)]
enum ServeError {
    #[error("cannot start the control runtime")]
    Runtime(#[source] std::io::Error),
    #[error("cannot listen for signals")]
    Signals(#[source] std::io::Error),
    #[error(transparent)]
    Node(#[from] NodeError),
}

pub(super) fn run(args: &ServeArgs) -> ExitCode {
    let config = match load(&args.config, process_environment(), &args.overrides.sets) {
        Ok(config) => config,
        Err(errors) => return refuse(&errors, Some("`shardgate check FILE` checks without running")),
    };
    // An unparsable level was refused by `load`.
    let filter = EnvFilter::try_new(&config.log.level).unwrap_or_else(|_| EnvFilter::new("info"));
    let ansi = std::io::IsTerminal::is_terminal(&std::io::stderr());
    tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).with_ansi(ansi).init();
    let served = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .thread_name("control")
        .enable_all()
        .build()
        .map_err(ServeError::Runtime)
        .and_then(|runtime| runtime.block_on(serve(args, config)));
    match served {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => refuse(&error, None),
    }
}

/// Runs the node on the control runtime until SIGTERM or SIGINT; a second signal ends the drain.
async fn serve(args: &ServeArgs, config: Config) -> Result<(), ServeError> {
    let mut terminate = signal(SignalKind::terminate()).map_err(ServeError::Signals)?;
    let mut interrupt = signal(SignalKind::interrupt()).map_err(ServeError::Signals)?;
    let drain = config.shutdown.drain;
    info!(node = %config.node.id, region = %config.node.region, version = env!("CARGO_PKG_VERSION"), "starting");
    let node = RunningNode::start(config).await?;
    test_hooks(args, &node);
    tokio::select! {
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
    }
    info!(?drain, "stopping: not ready, draining");
    tokio::select! {
        () = node.shutdown() => info!("stopped"),
        _ = terminate.recv() => info!("second signal, not waiting any longer"),
        _ = interrupt.recv() => info!("second signal, not waiting any longer"),
    }
    Ok(())
}

#[cfg(feature = "test-hooks")]
fn test_hooks(args: &ServeArgs, node: &RunningNode) {
    if args.test_hooks.iter().any(|hook| hook == "stickiness=off") {
        node.set_stickiness(crate::node::Stickiness::Off);
    }
}

#[cfg(not(feature = "test-hooks"))]
const fn test_hooks(_: &ServeArgs, _: &RunningNode) {}
