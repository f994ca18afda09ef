//! What a worker does beside serving: its one loop that looks for timeouts, follows topology and table, obeys orders, and ends.

use super::change::Order;
use super::listeners::Listening;
use super::releases::tell;
use super::{SECOND_MS, Worker, tick_of};
use crate::clock::Millis;
use crate::health::Health;
use crate::sessions::{Bosh, Command, Which, obey};
use shardgate_discovery::Snapshot;
use shardgate_peering::Moved;
use shardgate_peering_core::StickKey;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::broadcast::error::{RecvError, TryRecvError};
use tokio::sync::{broadcast, mpsc, watch};
use tokio::task::{JoinHandle, spawn_local};
use tokio::time::{Instant, Interval, MissedTickBehavior, interval, sleep_until, timeout, timeout_at};

/// When the drain ends; `None` while there is none.
pub(super) type Stop = Option<Instant>;

/// What a worker listens to.
pub(super) struct Inbox {
    pub(super) stop: watch::Receiver<Stop>,
    pub(super) snapshots: watch::Receiver<Arc<Snapshot>>,
    pub(super) health: watch::Receiver<Arc<Health>>,
    pub(super) moves: broadcast::Receiver<Moved>,
    pub(super) commands: mpsc::Receiver<Command>,
    pub(super) changes: mpsc::Receiver<Order>,
}

/// Whether moves can still be heard of.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Table {
    Running,
    Stopped,
}

/// Conferences that are moved in one go.
const MOVES_AT_ONCE: usize = 256;

/// How long what was closed at the end of the drain has to go, and the table to hear of it.
const LAST_WORDS: Duration = Duration::from_secs(2);

/// Runs a worker to its end.
pub(super) async fn run(worker: Rc<Worker>, mut listening: Listening, mut inbox: Inbox) {
    let releasing = spawn_local(tell(Rc::clone(&worker), worker.table.clone()));
    let mut ticks = every(tick_of(&worker.settings().limits));
    let mut deadline: Stop = None;
    let mut last_second = 0;
    let mut table = Table::Running;
    while deadline.is_none() || worker.connected.get() > 0 {
        tokio::select! {
            _ = ticks.tick() => tick(&worker, &mut last_second),
            changed = inbox.stop.changed(), if deadline.is_none() => {
                // Without a sender nobody is left who could stop us in order.
                deadline = if changed.is_ok() { *inbox.stop.borrow_and_update() } else { Some(Instant::now()) };
                drain(&worker, &mut listening);
            }
            () = sleep_until(deadline.unwrap_or_else(Instant::now)), if deadline.is_some() => break,
            () = worker.freed.notified(), if deadline.is_some() => {}
            Ok(()) = inbox.snapshots.changed() => {
                let snapshot = Arc::clone(&inbox.snapshots.borrow_and_update());
                worker.set_snapshot(snapshot);
            }
            Ok(()) = inbox.health.changed() => {
                let health = Arc::clone(&inbox.health.borrow_and_update());
                worker.set_health(health);
            }
            moved = inbox.moves.recv(), if table == Table::Running => match moved {
                Ok(moved) => follow(&worker, moved, &mut inbox.moves),
                Err(RecvError::Lagged(missed)) => compare(&worker, missed),
                Err(RecvError::Closed) => table = Table::Stopped,
            },
            Some(order) = inbox.changes.recv(), if deadline.is_none() => {
                order.obey(&worker, &mut listening).await;
                ticks = every(tick_of(&worker.settings().limits));
            }
            Some(command) = inbox.commands.recv() => {
                let now = worker.clock.coarse();
                obey(&mut worker.sessions.borrow_mut(), &worker.bosh.borrow(), now, command);
            }
        }
    }
    end(&worker, releasing).await;
}

fn every(period: Duration) -> Interval {
    let mut ticks = interval(period);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Skip);
    ticks
}

fn tick(worker: &Worker, last_second: &mut Millis) {
    worker.clock.tick();
    let now = worker.clock.coarse();
    let limits = &worker.settings().limits;
    for (_, watched) in worker.watched.borrow().iter() {
        if let Some(kind) = watched.expire(now, limits) {
            worker.counters.timeouts[kind as usize].up();
        }
    }
    worker.sessions.borrow_mut().sweep(now, limits);
    if now - *last_second >= SECOND_MS {
        *last_second = now;
        worker.pool.sweep(now);
        worker.suspects.borrow_mut().sweep(now);
        worker.sweep_detours();
        worker.sweep_bosh(now);
        let lost = worker.log.borrow_mut().flush();
        worker.counters.log_lines_lost.add(lost);
    }
}

/// Nothing new is accepted; idle connections close, and the others after their answer.
fn drain(worker: &Worker, listening: &mut Listening) {
    worker.draining.set(true);
    listening.close();
    for (_, watched) in worker.watched.borrow().iter() {
        watched.wake();
    }
}

/// Follows a move, and others that wait behind it.
fn follow(worker: &Worker, moved: Moved, more: &mut broadcast::Receiver<Moved>) {
    let mut moves = vec![moved];
    let mut missed = None;
    while missed.is_none() && moves.len() < MOVES_AT_ONCE {
        match more.try_recv() {
            Ok(next) => moves.push(next),
            Err(TryRecvError::Lagged(number)) => missed = Some(number),
            // The next look of the loop says which.
            Err(TryRecvError::Empty | TryRecvError::Closed) => break,
        }
    }
    worker.moved(&moves);
    if let Some(missed) = missed {
        compare(worker, missed);
    }
}

/// Moves were missed: every conference that has sessions here is looked up.
fn compare(worker: &Worker, missed: u64) {
    tracing::warn!(missed, "fell behind the table's moves, comparing all sessions");
    let mut keys = worker.sessions.borrow().keys();
    keys.extend(worker.bosh.borrow().keys());
    let there = |key: StickKey| {
        let to =
            worker.table.lookup(key.as_str()).filter(|_| worker.table.disputed_on(key.as_str()).is_none())?;
        Some(Moved { key, to })
    };
    worker.moved(&keys.into_iter().filter_map(there).collect::<Vec<_>>());
}

/// The drain is over: what is still open is closed, and the table hears of it.
async fn end(worker: &Rc<Worker>, releasing: JoinHandle<()>) {
    let until = Instant::now() + LAST_WORDS;
    let tunnels = worker.sessions.borrow_mut().close(&Which::All);
    for (_, watched) in worker.watched.borrow().iter() {
        watched.let_go();
    }
    let left = worker.connected.get();
    if left > 0 {
        tracing::info!(connections = left, tunnels, "drain is over, closing what is open");
    }
    let gone = async {
        while worker.connected.get() > 0 {
            // A connection that ends between the look and the wait is seen at the next round.
            let _ended = timeout(Duration::from_millis(20), worker.freed.notified()).await;
        }
    };
    if timeout_at(until, gone).await.is_err() {
        tracing::warn!(connections = worker.connected.get(), "connections did not end in time");
    }
    worker.change_bosh(Bosh::clear);
    worker.releases.close();
    if timeout_at(until, releasing).await.is_err() {
        tracing::warn!("the table did not take all that sessions released");
    }
    let lost = worker.log.borrow_mut().flush();
    worker.counters.log_lines_lost.add(lost);
}
