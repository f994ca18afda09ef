//! The thread that asks servers: its loop, and the way to it.

use super::checks::{Checked, Checks, Kind, News, Question};
use super::probe;
use super::target::HealthSettings;
use super::{At, Health, ServerReport};
use crate::clock::to_millis;
use shardgate_discovery::{ShardState, Snapshot};
use shardgate_peering::{ProbeAsk, Reached};
use shardgate_peering_core::ShardName;
use std::collections::HashMap;
use std::io;
use std::sync::Arc;
use std::sync::mpsc::sync_channel;
use std::time::Duration;
use tokio::runtime::{Builder, LocalOptions};
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::{self, JoinSet};
use tokio::time::{Instant, sleep_until};
use tracing::{info, warn};

/// Questions under way at once; more wait for the first of these to end.
const QUESTIONS_MAX: usize = 1_024;
/// Agents' words that nobody has taken yet; more are dropped, for they say them again.
const READY_MAX: usize = 256;
/// What is asked of the thread and not taken yet; troubles beyond it are dropped (there will be more of them), who asks waits.
const ASKS_MAX: usize = 1_024;

/// How long a probe may take: below the 500 ms in which a home wants its answers.
const PROBE_TIMEOUT: Duration = Duration::from_millis(400);

/// What the thread is asked.
#[derive(Debug)]
enum Ask {
    Observed(ShardName),
    Cut(ShardName),
    Probe(ProbeAsk),
    Report(oneshot::Sender<Vec<ServerReport>>),
}

/// Whether the thread has been told of a way that is cut. If not, nobody would find out that it is back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum CutTold {
    Yes,
    No,
}

/// The way to the thread. Cheap to clone.
#[derive(Debug, Clone)]
pub struct HealthHandle {
    health: watch::Receiver<Arc<Health>>,
    asks: mpsc::Sender<Ask>,
}

impl HealthHandle {
    /// What to go by, from now on.
    #[must_use]
    pub fn subscribe(&self) -> watch::Receiver<Arc<Health>> {
        self.health.clone()
    }

    /// Enough of a worker's requests in a row failed at a server; never waits.
    pub(crate) fn observed(&self, server: ShardName) {
        // A thread that is busy with as many troubles has heard enough; one that has ended needs to hear nothing.
        drop(self.asks.try_send(Ask::Observed(server)));
    }

    /// This node does not reach a shard, and another one does: it is down here until it is reached again; never waits.
    pub(crate) fn cut(&self, shard: ShardName) -> CutTold {
        match self.asks.try_send(Ask::Cut(shard)) {
            Ok(()) => CutTold::Yes,
            Err(_) => CutTold::No,
        }
    }

    /// Asks a shard now, as its check does, and by a connection where there is none: for a home that wants to know who reaches it. It is
    /// answered within 400 ms; one question answers all who ask meanwhile. What is not listed here is not reached.
    pub async fn probe(&self, ask: ProbeAsk) {
        // A thread that has ended answers nobody, and is taken for a No.
        drop(self.asks.send(Ask::Probe(ask)).await);
    }

    /// Every server and its checks; empty when the thread has ended.
    pub async fn report(&self) -> Vec<ServerReport> {
        let (reply, answer) = oneshot::channel();
        drop(self.asks.send(Ask::Report(reply)).await);
        answer.await.unwrap_or_default()
    }
}

/// The running thread.
#[derive(Debug)]
#[must_use = "servers are asked until this is dropped"]
pub struct HealthThread {
    handle: HealthHandle,
    settings: watch::Sender<HealthSettings>,
    ready: Option<mpsc::Receiver<ShardName>>,
    thread: Option<std::thread::JoinHandle<()>>,
    stop: Option<oneshot::Sender<()>>,
}

impl HealthThread {
    /// Begins to ask the servers of `snapshots`. `seed` makes the first checks of two nodes differ.
    ///
    /// # Errors
    /// When the thread or its runtime cannot be made.
    pub fn start(
        settings: HealthSettings,
        snapshots: watch::Receiver<Arc<Snapshot>>,
        seed: u64,
    ) -> io::Result<Self> {
        let (settings, settings_seen) = watch::channel(settings);
        let (published, health) = watch::channel(Arc::default());
        let (asks, asked) = mpsc::channel(ASKS_MAX);
        let (stop, stopped) = oneshot::channel();
        let (say_ready, said_ready) = mpsc::channel(READY_MAX);
        let (ready, readiness) = sync_channel(1);
        let thread = std::thread::Builder::new().name("health".to_owned()).spawn(move || {
            let runtime = Builder::new_current_thread().enable_all().build_local(LocalOptions::default());
            let runtime = match runtime {
                Ok(runtime) => runtime,
                // Who started the thread waits for a word of it.
                Err(error) => return drop(ready.send(Err(error))),
            };
            drop(ready.send(Ok(())));
            let keeper = Keeper {
                checks: Checks::new(seed),
                start: Instant::now(),
                settings: settings_seen,
                snapshots,
                published,
                asked,
                ready: say_ready,
                running: JoinSet::new(),
                probes: JoinSet::new(),
                probing: HashMap::new(),
            };
            runtime.block_on(keeper.run(stopped));
        })?;
        readiness.recv().unwrap_or_else(|_| Err(io::Error::other("its thread ended at once")))?;
        let handle = HealthHandle { health, asks };
        Ok(Self { handle, settings, ready: Some(said_ready), thread: Some(thread), stop: Some(stop) })
    }

    /// The way to it.
    #[must_use]
    pub const fn handle(&self) -> &HealthHandle {
        &self.handle
    }

    /// The servers whose agents say `ready`, each time that they say so; once, then `None`.
    pub fn take_ready(&mut self) -> Option<mpsc::Receiver<ShardName>> {
        self.ready.take()
    }

    /// From now on servers are asked so; what is known of them stays.
    pub fn change(&self, settings: HealthSettings) {
        self.settings.send_replace(settings);
    }
}

impl Drop for HealthThread {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            tracing::error!("the health thread panicked");
        }
    }
}

/// An answer.
enum Answer {
    Checked(Checked),
    Heard(Result<super::agent::Said, String>),
}

struct Keeper {
    checks: Checks,
    start: Instant,
    settings: watch::Receiver<HealthSettings>,
    snapshots: watch::Receiver<Arc<Snapshot>>,
    published: watch::Sender<Arc<Health>>,
    asked: mpsc::Receiver<Ask>,
    ready: mpsc::Sender<ShardName>,
    running: JoinSet<(Question, Answer)>,
    probes: JoinSet<(ShardName, Checked)>,
    /// Who waits for them; of one server there is one at a time, and at most as many as servers are listed.
    probing: HashMap<ShardName, (task::Id, Vec<oneshot::Sender<Reached>>)>,
}

impl Keeper {
    fn now(&self) -> At {
        to_millis(self.start.elapsed())
    }

    async fn run(mut self, mut stopped: oneshot::Receiver<()>) {
        self.list();
        loop {
            self.ask();
            self.publish();
            let full = self.running.len() >= QUESTIONS_MAX;
            let next = self.checks.next().map(|at| self.start + Duration::from_millis(at));
            tokio::select! {
                _ = &mut stopped => break,
                Ok(()) = self.snapshots.changed() => self.list(),
                Ok(()) = self.settings.changed() => self.list(),
                Some(ended) = self.running.join_next() => self.ended(ended),
                Some(probed) = self.probes.join_next() => match probed {
                    Ok((server, checked)) => self.probed(&server, &checked),
                    Err(error) => {
                        tracing::error!(%error, "a probe panicked");
                        // Who waits hears of its end.
                        self.probing.retain(|_, (task, _)| *task != error.id());
                    }
                },
                Some(ask) = self.asked.recv() => self.answer(ask),
                () = sleep_until(next.unwrap_or_else(Instant::now)), if next.is_some() && !full => {}
            }
        }
    }

    fn list(&mut self) {
        let targets = self.settings.borrow_and_update().targets(&self.snapshots.borrow_and_update());
        self.checks.list(self.now(), targets);
    }

    /// Asks whoever is due.
    fn ask(&mut self) {
        while self.running.len() < QUESTIONS_MAX {
            let Some(question) = self.checks.poll(self.now()) else { return };
            self.running.spawn_local(async move {
                let within = question.target.config().timeout;
                let answer = match (question.kind, question.target.agent) {
                    (Kind::Agent, Some(agent)) => Answer::Heard(probe::hear(agent, within).await),
                    (Kind::Agent, None) | (Kind::Check | Kind::Way | Kind::Ramp, _) => {
                        Answer::Checked(probe::check(&question.target, within).await)
                    }
                };
                (question, answer)
            });
        }
    }

    fn ended(&mut self, ended: Result<(Question, Answer), task::JoinError>) {
        let now = self.now();
        match ended {
            Ok((question, Answer::Checked(checked))) if question.kind == Kind::Way => {
                self.checks.way(now, &question, &checked);
            }
            Ok((question, Answer::Checked(checked))) => self.checks.checked(now, &question, checked),
            Ok((question, Answer::Heard(heard))) => {
                if heard.as_ref().is_ok_and(|said| said.state == Some(ShardState::Ready)) {
                    // Where nobody listens, nobody wants to know.
                    drop(self.ready.try_send(question.name.clone()));
                }
                self.checks.heard(now, &question, heard);
            }
            Err(error) => tracing::error!(%error, "a check panicked, its server is not asked again"),
        }
    }

    fn answer(&mut self, ask: Ask) {
        match ask {
            Ask::Observed(server) => self.checks.observed(self.now(), &server),
            Ask::Cut(shard) => self.checks.cut(self.now(), &shard),
            Ask::Probe(ask) => self.probe(ask),
            // Who asked may have gone.
            Ask::Report(reply) => drop(reply.send(self.checks.report(self.now()))),
        }
    }

    fn probe(&mut self, ProbeAsk { shard: server, reply }: ProbeAsk) {
        let Some(target) = self.checks.target(&server).cloned() else {
            let _gone: Result<(), Reached> = reply.send(Reached::No);
            return;
        };
        if let Some((_, waiting)) = self.probing.get_mut(&server) {
            waiting.push(reply);
            return;
        }
        let name = server.clone();
        let probe = async move { (name, probe::check(&target, PROBE_TIMEOUT).await) };
        let task = self.probes.spawn_local(probe).id();
        self.probing.insert(server, (task, vec![reply]));
    }

    fn probed(&mut self, server: &ShardName, checked: &Checked) {
        let reached = if self.checks.is_reached(server, checked) { Reached::Yes } else { Reached::No };
        let (_, waiting) = self.probing.remove(server).unzip();
        for reply in waiting.unwrap_or_default() {
            // Who asked may have gone.
            let _gone: Result<(), Reached> = reply.send(reached);
        }
    }

    fn publish(&mut self) {
        for news in self.checks.take_news() {
            match news {
                News::Cut { name } => {
                    warn!(shard = %name, "not reached from here, but by others: requests go by a peer")
                }
                News::Reached { name } => info!(shard = %name, "reached from here again"),
                News::Down { name, why } => warn!(shard = %name, %why, "down"),
                News::Up { name, why } => info!(shard = %name, %why, "up"),
                News::Agent { name, says } => info!(shard = %name, %says, "its agent has news"),
                News::AgentSilent { name, why } => warn!(shard = %name, %why, "its agent says nothing"),
            }
        }
        if !self.checks.take_changed() {
            return;
        }
        let health = self.checks.health(self.now());
        self.published.send_if_modified(|published| {
            let changed = **published != health;
            if changed {
                *published = Arc::new(health);
            }
            changed
        });
    }
}
