//! `shardgate serve`.

use std::process::ExitCode;
use std::time::Duration;

use tokio::signal::unix::{SignalKind, signal};
use tokio::time::{MissedTickBehavior, interval};
use tracing::{error, info, warn};
use tracing_subscriber::EnvFilter;

use super::config_watch::{ConfigWatch, Look};
use super::{ServeArgs, refuse, with_causes};
use crate::config::{Config, load, process_environment};
use crate::limits::raise;
use crate::node::{NodeError, Reloaded, RunningNode};

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
    // Before it is read: what is written from now on is a change.
    let watch = ConfigWatch::new(&args.config);
    let config = match load(&args.config, process_environment(), &args.overrides.sets) {
        Ok(config) => config,
        Err(errors) => return refuse(&errors, Some("`shardgate check FILE` checks without running")),
    };
    // An unparsable level was refused by `load`.
    let filter = EnvFilter::try_new(&config.log.level).unwrap_or_else(|_| EnvFilter::new("info"));
    let ansi = std::io::IsTerminal::is_terminal(&std::io::stderr());
    let subscriber =
        tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).with_ansi(ansi);
    let subscriber = subscriber.with_filter_reloading();
    let filters = subscriber.reload_handle();
    subscriber.init();
    let set_level = move |level: &str| {
        // An unparsable one was refused by `load`.
        if let Ok(filter) = EnvFilter::try_new(level)
            && let Err(error) = filters.reload(filter)
        {
            warn!(%error, "log.level stays as it was");
        }
    };
    check_open_files(raise(), config.frontend.max_connections);
    let served = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .thread_name("control")
        .enable_all()
        .build()
        .map_err(ServeError::Runtime)
        .and_then(|runtime| runtime.block_on(serve(args, config, watch, set_level)));
    match served {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => refuse(&error, None),
    }
}

/// A tunnel takes two: whatever the limit is, shortly before it clients are refused.
fn check_open_files(open_max: u64, max_connections: usize) {
    let needed = (max_connections as u64).saturating_mul(2);
    if needed > open_max {
        warn!(
            open_max,
            needed,
            "frontend.max_connections cannot be reached: a tunnel takes two of the open files that this process may have"
        );
    }
}

/// How often the configuration file is looked at.
const LOOK: Duration = Duration::from_secs(1);

/// Runs the node on the control runtime until SIGTERM or SIGINT; a second signal ends the drain. SIGHUP, or a changed file, changes what it
/// runs by.
async fn serve(
    args: &ServeArgs,
    config: Config,
    watch: ConfigWatch,
    set_level: impl Fn(&str),
) -> Result<(), ServeError> {
    let mut terminate = signal(SignalKind::terminate()).map_err(ServeError::Signals)?;
    let mut interrupt = signal(SignalKind::interrupt()).map_err(ServeError::Signals)?;
    let mut hangup = signal(SignalKind::hangup()).map_err(ServeError::Signals)?;
    let mut reloading = Reloading { args, set_level, watch, refused: None };
    info!(node = %config.node.id, region = %config.node.region, version = env!("CARGO_PKG_VERSION"), "starting");
    let mut node = RunningNode::start(config).await?;
    test_hooks(args, &node);
    let mut looks = interval(LOOK);
    looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            _ = terminate.recv() => break,
            _ = interrupt.recv() => break,
            _ = hangup.recv() => {
                info!("SIGHUP: reading the configuration again");
                reloading.refused = None;
                reloading.reload(&mut node).await;
            }
            _ = looks.tick() => match reloading.watch.look() {
                Look::Still => {}
                Look::Changed => {
                    info!(file = %args.config.display(), "configuration file has changed");
                    reloading.refused = None;
                    reloading.reload(&mut node).await;
                }
                Look::Again => reloading.reload(&mut node).await,
            },
        }
    }
    info!(drain = ?node.drain(), "stopping: not ready, draining");
    tokio::select! {
        () = node.shutdown() => info!("stopped"),
        _ = terminate.recv() => info!("second signal, not waiting any longer"),
        _ = interrupt.recv() => info!("second signal, not waiting any longer"),
    }
    Ok(())
}

/// Changes of the configuration.
struct Reloading<'a, F> {
    args: &'a ServeArgs,
    set_level: F,
    watch: ConfigWatch,
    /// What was wrong at the last try: the same is not told, nor counted, again.
    refused: Option<String>,
}

impl<F: Fn(&str)> Reloading<'_, F> {
    /// Reads the configuration again, with the same variables and `--set`s over it. Whatever is wrong refuses the whole.
    async fn reload(&mut self, node: &mut RunningNode) {
        match self.try_reload(node).await {
            Ok(Reloaded { applied, waiting }) => {
                self.watch.used();
                self.refused = None;
                info!(fields = applied.join(", "), "configuration in use");
                if !waiting.is_empty() {
                    warn!(fields = waiting.join(", "), "changed in the file, in use only after a restart");
                }
            }
            Err(why) => {
                self.watch.refused();
                if self.refused.as_ref() != Some(&why) {
                    node.refused();
                    error!("configuration refused, the running one stays, it is tried again: {why}");
                    self.refused = Some(why);
                }
            }
        }
    }

    async fn try_reload(&self, node: &mut RunningNode) -> Result<Reloaded, String> {
        let config = load(&self.args.config, process_environment(), &self.args.overrides.sets)
            .map_err(|errors| format!("\n{errors}"))?;
        let level = config.log.level.clone();
        let reloaded = node.reload(config).await.map_err(|error| with_causes(&error).to_string())?;
        (self.set_level)(&level);
        Ok(reloaded)
    }
}

/// A planted fault.
#[cfg(feature = "test-hooks")]
#[derive(Debug, Clone)]
pub(super) enum TestHook {
    /// Every request goes by the plain hash.
    StickinessOff,
    /// Entries are overwritten as this file says, again and again.
    Flips(std::path::PathBuf),
}

#[cfg(feature = "test-hooks")]
pub(super) fn test_hook(text: &str) -> Result<TestHook, String> {
    match text.split_once('=') {
        Some(("stickiness", "off")) => Ok(TestHook::StickinessOff),
        Some(("flips", file)) => Ok(TestHook::Flips(file.into())),
        Some(_) | None => Err("expected stickiness=off or flips=FILE".to_owned()),
    }
}

#[cfg(feature = "test-hooks")]
fn test_hooks(args: &ServeArgs, node: &RunningNode) {
    for hook in &args.test_hooks {
        match hook {
            TestHook::StickinessOff => node.set_stickiness(crate::node::Stickiness::Off),
            TestHook::Flips(file) => drop(tokio::spawn(flips(file.clone(), node.table().clone()))),
        }
    }
}

/// Overwrites entries as a file says. One that says nothing of use is left, and whoever wrote it sees that.
#[cfg(feature = "test-hooks")]
async fn flips(file: std::path::PathBuf, table: shardgate_peering::TableHandle) {
    use shardgate_peering::core::{ShardName, StickKey};
    loop {
        tokio::time::sleep(Duration::from_millis(20)).await;
        let Ok(text) = std::fs::read_to_string(&file) else { continue };
        let Some((key, shard)) = text.trim().split_once(' ') else { continue };
        if let (Ok(key), Ok(shard)) = (StickKey::parse(key), ShardName::parse(shard))
            && table.flip(key, shard).await
        {
            drop(std::fs::remove_file(&file));
        }
    }
}

#[cfg(not(feature = "test-hooks"))]
const fn test_hooks(_: &ServeArgs, _: &RunningNode) {}
