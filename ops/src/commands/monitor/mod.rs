//! `shardgatectl monitor`: what is wrong in the tables of all nodes, beside the shards' own counts; once, or again and again.

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use clap::Args;
use tokio::signal::unix::{SignalKind, signal};
use tokio::time::{Instant, MissedTickBehavior, interval, sleep};

use super::waiting::length;
use super::{COULD_NOT_LOOK, CommandError, WRONG, show, tell};
use crate::consul::{Consul, ConsulOptions};
use crate::fleet::{Fleet, Unasked};
use crate::node::Nodes;
use crate::render::Output;

mod finding;
mod fix;
mod haproxy;
mod judge;
mod look;
mod mesh;
mod report;
mod rows;
mod snapshot;
mod turn;

use fix::Changed;
use haproxy::HaProxy;
use look::{Look, Suspects, Whom, look};
use report::{Fix, Report, write_metrics};
use snapshot::Records;
use turn::Turn;

/// What `--help` begins with.
pub(super) const ABOUT: &str = "\
Reads every node's table side by side, and the shards' census when an environment is named, and tells apart:

  table-split-brain         tables have a conference on different shards
  missing-entry             a table lacks one that has a minute or more left, or is alive
  entry-shard-mismatch      it lives on another shard than its entry names
  conference-on-two-shards  people are on two
  leaked-conference         a shard has a room with nobody in it, or people whom no node knows
  orphan-entry              its shard is known to no node, or does not have the conference
  ambiguous-key             a HAProxy may have cut it
  peer-not-connected        a node does not hear a peer, or does not know of it
  peer-not-in-agreement     they hear each other, and hold different tables
  stale-discovery           a node may know shards as they were, or knows others than its peers

What one look finds is looked at again after --settle: tables change while they are read. Nodes are those that --node names, else \
those that are registered at Consul. Names of conferences are shown: they are personal.

Exit code 0: clean; 1: findings, or conferences that are gone or have moved since --compare; 2: somebody could not be asked, whatever else was found.";

/// What to look for, and what to do about it.
#[derive(Debug, Args)]
pub(crate) struct Options {
    /// Look again and again, from one beginning to the next, such as 60s; until SIGTERM. It takes the environment's lock.
    #[arg(long, value_name = "DURATION", value_parser = length)]
    every: Option<Duration>,
    /// How long after the first look it is looked again at what it found.
    #[arg(long, value_name = "DURATION", value_parser = length, default_value = "2s")]
    settle: Duration,
    /// What was decided less long ago than this may not be in a shard's census yet, which is written once a minute by a job that takes its time.
    #[arg(long, value_name = "DURATION", value_parser = length, default_value = "150s")]
    census_lag: Duration,
    /// A HAProxy of a mixed fleet: unix:PATH or HOST:PORT of its stats socket (level operator tells servers' addresses), or files:TABLE,STAT with what
    /// it said to "show table NAME" and "show stat". Servers are compared by address and name. Repeat it for several.
    #[arg(long = "haproxy", value_name = "ADDRESS")]
    haproxies: Vec<HaProxy>,
    /// The HAProxies' stick table.
    #[arg(long, value_name = "NAME", default_value = "nodes")]
    haproxy_table: String,
    /// How many bytes of a key the HAProxies' table takes (its "len").
    #[arg(long, value_name = "BYTES", default_value_t = 200)]
    haproxy_key_len: usize,
    /// Show which conferences would be put right, and where: to the shard with most people by its census, then most sessions, then most tables.
    #[arg(long)]
    fix: bool,
    /// Do it: one decision for each conference, by its home, for the whole mesh; and on each HAProxy. It takes the environment's lock.
    #[arg(long, requires = "fix")]
    yes: bool,
    /// At most so many in one run.
    #[arg(long, value_name = "NUMBER", default_value_t = 50, requires = "fix")]
    max_changes: usize,
    /// Add a line for each change to this file: when, who, what and why.
    #[arg(long, value_name = "FILE", requires = "yes")]
    audit: Option<PathBuf>,
    /// Write all conferences down, for --compare.
    #[arg(long, value_name = "FILE", conflicts_with = "every")]
    snapshot: Option<PathBuf>,
    /// Tell which conferences are gone, have moved or are new since this snapshot.
    #[arg(long, value_name = "FILE", conflicts_with = "every")]
    compare: Option<PathBuf>,
    /// Write metrics for node_exporter's textfile collector, after each run.
    #[arg(long, value_name = "FILE")]
    metrics_file: Option<PathBuf>,
    /// Wait for the environment's lock at Consul (shardgate/ENVIRONMENT/monitor) before looking: one runs at a time, on however many machines a timer
    /// starts it. Nothing is looked at while shardgate/ENVIRONMENT/monitor-pause exists there.
    #[arg(long)]
    lock: bool,
    /// How long to wait for it, when it is looked once.
    #[arg(long, value_name = "DURATION", value_parser = length, default_value = "60s")]
    lock_wait: Duration,
}

impl Options {
    /// Whether nobody else may look, or mend, at the same time.
    const fn alone(&self) -> bool {
        self.lock || self.yes || self.every.is_some()
    }
}

/// A monitor at work.
struct Monitor<'a> {
    options: &'a Options,
    consul: Option<Consul>,
    fleet: Fleet,
    output: Output,
    changes_total: u64,
}

pub(super) async fn run(
    nodes: &Nodes,
    consul: &ConsulOptions,
    options: &Options,
    output: Output,
) -> Result<ExitCode, CommandError> {
    let consul = if consul.is_given() { Some(consul.open()?) } else { None };
    let fleet = match (&consul, nodes.named()) {
        (_, Some(_)) => Fleet::named(nodes),
        (Some(consul), None) => Fleet::registered(nodes, consul).await?,
        // Where only HAProxies are named nobody else is meant.
        (None, None) if !options.haproxies.is_empty() => Fleet::nobody(nodes),
        (None, None) => Fleet::named(nodes),
    };
    if fleet.is_empty() && options.haproxies.is_empty() {
        return Err(CommandError::no_node());
    }
    // Without Consul there is nothing to hold, and an operator at a terminal is alone by himself.
    let mut turn = match (&consul, options.alone()) {
        (Some(consul), true) => Some(Turn::seek(consul).await?),
        (None, true) if options.lock => {
            return Err(CommandError::Usage {
                what: "--lock is given without --environment".to_owned(),
                hint: "the lock is at Consul: --environment prod".to_owned(),
            });
        }
        (Some(_) | None, _) => None,
    };
    let mut monitor = Monitor { options, consul, fleet, output, changes_total: 0 };
    let done = match options.every {
        Some(every) => monitor.again_and_again(every, turn.as_mut()).await,
        None => monitor.once(turn.as_mut()).await,
    };
    if let Some(turn) = turn {
        turn.give_up().await;
    }
    done
}

impl Monitor<'_> {
    async fn once(&mut self, turn: Option<&mut Turn>) -> Result<ExitCode, CommandError> {
        if let Some(turn) = turn
            && !turn.comes(Some(self.options.lock_wait)).await
        {
            tell(&format!(
                "error: the lock was somebody else's for {:?}: nothing was looked at",
                self.options.lock_wait
            ));
            return Ok(ExitCode::from(COULD_NOT_LOOK));
        }
        self.look_and_tell().await
    }

    async fn again_and_again(
        &mut self,
        every: Duration,
        mut turn: Option<&mut Turn>,
    ) -> Result<ExitCode, CommandError> {
        let told = |error: std::io::Error| CommandError::Usage {
            what: format!("signals cannot be heard: {error}"),
            hint: "without --every it is looked once".to_owned(),
        };
        let mut terminated = signal(SignalKind::terminate()).map_err(told)?;
        let mut interrupted = signal(SignalKind::interrupt()).map_err(told)?;
        let mut ticks = interval(every.max(Duration::from_secs(1)));
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut code = ExitCode::SUCCESS;
        loop {
            let round = async {
                ticks.tick().await;
                if let Some(turn) = turn.as_deref_mut() {
                    turn.comes(None).await;
                }
                if let Some(consul) = &self.consul {
                    self.fleet.refresh(consul).await;
                }
                match self.look_and_tell().await {
                    Ok(code) => code,
                    // Tomorrow it may be another one: who watches sees by the metrics that no run has ended.
                    Err(error) => {
                        tell(&format!("error: {error}"));
                        ExitCode::from(COULD_NOT_LOOK)
                    }
                }
            };
            tokio::select! {
                ended = round => code = ended,
                _ = terminated.recv() => return Ok(code),
                _ = interrupted.recv() => return Ok(code),
            }
            if let Some(turn) = turn.as_deref()
                && !turn.is_held()
            {
                tell("note: the lock is lost, waiting for it");
            }
        }
    }

    /// One run, unless there is a pause.
    async fn look_and_tell(&mut self) -> Result<ExitCode, CommandError> {
        if let Some(consul) = &self.consul
            && let Some(why) = turn::pause(consul).await?
        {
            let key = turn::pause_key(consul);
            tell(&format!("note: paused by the key {key} ({why:?}): nothing was looked at"));
            return Ok(ExitCode::SUCCESS);
        }
        let mut report = self.report().await?;
        if let Some(path) = &self.options.metrics_file {
            let written = write_metrics(path, &report.metrics(self.changes_total));
            written.map_err(|error| CommandError::Usage {
                what: format!("--metrics-file {}: {error}", path.display()),
                hint: "node_exporter's --collector.textfile.directory is where it belongs".to_owned(),
            })?;
        }
        for Unasked { name, why } in &report.unasked {
            tell(&format!("error: {name} cannot be asked: {why}"));
        }
        let code = match (report.unasked.is_empty(), report.is_wrong()) {
            (false, _) => ExitCode::from(COULD_NOT_LOOK),
            (true, true) => ExitCode::from(WRONG),
            (true, false) => ExitCode::SUCCESS,
        };
        match self.output {
            Output::Json => show(&report.json()),
            Output::Table => show(&report.text()),
        }
        Ok(code)
    }

    async fn report(&mut self) -> Result<Report, CommandError> {
        let began = Instant::now();
        let now_ms = || SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |now| now.as_millis() as u64);
        let options = self.options;
        let file = |what: String| CommandError::Usage {
            what,
            hint: "--snapshot names a file that can be written, --compare one that it wrote".to_owned(),
        };
        let (snapshot, compare) = (options.snapshot.as_deref(), options.compare.as_deref());
        let mut records = Records::open(snapshot, compare, now_ms()).map_err(file)?;
        let whom = Whom {
            consul: self.consul.as_ref(),
            haproxies: &options.haproxies,
            table: &options.haproxy_table,
            key_len: options.haproxy_key_len,
            census_lag: options.census_lag,
        };
        let first = look(&mut self.fleet, &whom, None, records.as_mut()).await.map_err(file)?;
        let compared = match records {
            // Without one table what is in no other one would look as if it were gone.
            Some(records) if !first.unasked.is_empty() => {
                records.give_up();
                None
            }
            Some(records) => records.end().map_err(file)?,
            None => None,
        };
        let mut seen = again(&mut self.fleet, first, &whom, options.settle).await.map_err(file)?;
        seen.findings.sort_by(|one, other| (one.kind, &one.subject).cmp(&(other.kind, &other.subject)));
        let changes = if options.fix { Some(self.mend(&mut seen).await) } else { None };
        let environment = self.consul.as_ref().map_or("", |consul| consul.environment.as_str()).to_owned();
        Ok(Report {
            environment,
            at_ms: now_ms(),
            took_ms: began.elapsed().as_millis() as u64,
            counts: seen.counts(),
            tables: seen.tables,
            unasked: seen.unasked,
            conferences: seen.conferences,
            findings: seen.findings,
            beyond: seen.beyond,
            fix: changes,
            compared,
        })
    }

    async fn mend(&mut self, seen: &mut Look) -> Fix {
        let mut changes = fix::plan(&seen.findings, &seen.shards);
        let left = changes.len().saturating_sub(self.options.max_changes);
        changes.truncate(self.options.max_changes);
        let not_done = |outcome: &str, changes: Vec<fix::Change>| {
            let changes = changes.into_iter().map(|change| Changed { change, outcome: outcome.to_owned() });
            Fix { done: false, changes: changes.collect(), left }
        };
        if !self.options.yes {
            return not_done("-", changes);
        }
        // The majority may be with those who were not asked.
        if !seen.unasked.is_empty() {
            return not_done("not done: somebody could not be asked", changes);
        }
        let audit = self.options.audit.as_deref();
        let changes = fix::carry_out(seen, &self.options.haproxy_table, changes, audit).await;
        let done = changes.iter().filter(|changed| matches!(changed.outcome.as_str(), "set" | "cleared"));
        self.changes_total += done.count() as u64;
        Fix { done: true, changes, left }
    }
}

/// Looks again at what was found: what is so no more was only changing.
async fn again(fleet: &mut Fleet, first: Look, whom: &Whom<'_>, settle: Duration) -> Result<Look, String> {
    if first.findings.is_empty() {
        return Ok(first);
    }
    sleep(settle).await;
    let Look { findings, mut unasked, beyond, .. } = first;
    let mut second = look(fleet, whom, Some(&Suspects::new(findings)), None).await?;
    // Whom the first look could not ask may have what the second one did not look for.
    second.unasked.retain(|again| unasked.iter().all(|first| first.name != again.name));
    unasked.append(&mut second.unasked);
    second.unasked = unasked;
    second.beyond += beyond;
    Ok(second)
}
