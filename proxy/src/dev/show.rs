//! `shardgate dev` without `--check`: keeps the mesh up, does what keys and flags say, and shows what the mesh did about it.

use std::collections::{BTreeMap, VecDeque};
use std::io::{self, IsTerminal, Write};
use std::time::{Duration, Instant};

use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::broadcast::error::RecvError;
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::{MissedTickBehavior, interval, sleep, sleep_until};

use super::link::Link;
use super::mesh::{DevMesh, SHARDS};
use super::node::Moves;
use super::status::{DevView, changes, render, render_line};
use super::terminal::{Key, Terminal};
use super::timeline::{Action, Timeline};

const REDRAW: Duration = Duration::from_millis(500);
/// The mesh may take so long before it is shown as it is.
const FIRST_VIEW: Duration = Duration::from_secs(5);
/// Redraws between two status lines where there is no screen.
const LINE_EVERY: u32 = 10;
const EVENTS_KEPT: usize = 100;
/// Moved conferences told one by one in one redraw; the rest is a number.
const MOVES_TOLD: usize = 4;
const MOVES_QUEUED: usize = 1_024;

/// Where the picture goes.
enum Out {
    Screen(Terminal),
    Lines,
}

struct Show {
    mesh: DevMesh,
    out: Out,
    events: VecDeque<String>,
    before: DevView,
    redraws: u32,
}

/// A conference that moved, as one node saw it.
struct MoveSeen {
    node: &'static str,
    key: String,
    to: String,
}

/// Shows the mesh until somebody quits; gives it back to be shut down.
pub async fn show(mesh: DevMesh, mut timeline: Timeline) -> io::Result<DevMesh> {
    let started = tokio::time::Instant::now();
    let mut quit = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
    let is_screen = io::stdout().is_terminal() && io::stdin().is_terminal();
    let (out, mut keys) = if is_screen {
        let (terminal, keys) = Terminal::open()?;
        (Out::Screen(terminal), Some(keys))
    } else {
        (Out::Lines, None)
    };
    let (_watching, mut moves) = watch_moves(&mesh);
    let before = first_view(&mesh).await;
    let mut show = Show { mesh, out, events: VecDeque::new(), before, redraws: 0 };
    show.introduce()?;
    let mut ticks = interval(REDRAW);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        let due = timeline.next_at().map(|after| started + after);
        let action = tokio::select! {
            _ = ticks.tick() => {
                show.redraw(&mut moves).await?;
                continue;
            }
            Some(key) = async { match &mut keys { Some(keys) => keys.recv().await, None => None } } => show.action_for(key),
            () = sleep_until(due.unwrap_or(started)), if due.is_some() => timeline.take(),
            _ = quit.0.recv() => Some(Action::Quit),
            _ = quit.1.recv() => Some(Action::Quit),
        };
        match action {
            Some(Action::Quit) => return Ok(show.mesh),
            Some(action) => show.act(action).await?,
            None => {}
        }
        show.redraw(&mut moves).await?;
    }
}

/// The first picture is of a mesh that is ready, unless that takes long.
async fn first_view(mesh: &DevMesh) -> DevView {
    let deadline = Instant::now() + FIRST_VIEW;
    loop {
        let view = mesh.view(Vec::new()).await;
        if Instant::now() >= deadline || view.nodes.iter().all(|node| node.readiness.is_ok()) {
            return view;
        }
        sleep(FIRST_VIEW / 50).await;
    }
}

/// Collects what the tables of all nodes report.
fn watch_moves(mesh: &DevMesh) -> (JoinSet<()>, mpsc::Receiver<MoveSeen>) {
    let (seen, moves) = mpsc::channel(MOVES_QUEUED);
    let mut watching = JoinSet::new();
    for (node, mut receiver) in mesh.moves() {
        let seen = seen.clone();
        watching.spawn(async move {
            while let Some((key, to)) = next_move(&mut receiver).await {
                // More than the screen could ever show is not shown.
                seen.try_send(MoveSeen { node, key, to }).ok();
            }
        });
    }
    (watching, moves)
}

async fn next_move(moves: &mut Moves) -> Option<(String, String)> {
    loop {
        match moves.recv().await {
            Ok(moved) => {
                return Some((moved.key.as_str().to_owned(), moved.to.as_str().to_owned()));
            }
            Err(RecvError::Lagged(_)) => {}
            Err(RecvError::Closed) => return None,
        }
    }
}

impl Show {
    fn action_for(&self, key: Key) -> Option<Action> {
        match key {
            Key::Link => Some(Action::Link(match self.mesh.link() {
                Link::Whole => Link::Cut,
                Link::Cut => Link::Whole,
            })),
            Key::Shard(number) => {
                let index = number.checked_sub(1)?;
                let shard = SHARDS.get(index)?;
                Some(if self.mesh.is_running(shard.name) {
                    Action::Kill(index)
                } else {
                    Action::Start(index)
                })
            }
            Key::Quit => Some(Action::Quit),
        }
    }

    async fn act(&mut self, action: Action) -> io::Result<()> {
        let name = |index: usize| SHARDS.get(index).map_or("?", |shard| shard.name);
        match action {
            Action::Link(link) => {
                self.mesh.set_link(link);
                let what = match link {
                    Link::Cut => "you cut the regions apart",
                    Link::Whole => "you healed the regions",
                };
                self.event(what.to_owned())
            }
            Action::Kill(index) => {
                self.mesh.kill_shard(name(index)).await;
                self.event(format!("you killed {}", name(index)))
            }
            Action::Start(index) => match self.mesh.start_shard(name(index)).await {
                Ok(()) => self.event(format!("you started {} again, empty", name(index))),
                Err(error) => self.event(error.to_string()),
            },
            Action::Quit => Ok(()),
        }
    }

    fn event(&mut self, what: String) -> io::Result<()> {
        let at = self.before.uptime;
        let line = format!("{:>4} s  {what}", at.as_secs());
        if matches!(self.out, Out::Lines) {
            say(&line)?;
        }
        while self.events.len() >= EVENTS_KEPT {
            self.events.pop_front();
        }
        self.events.push_back(line);
        Ok(())
    }

    fn introduce(&mut self) -> io::Result<()> {
        match self.out {
            Out::Screen(_) => Ok(()),
            Out::Lines => say(&render(&self.before)),
        }
    }

    async fn redraw(&mut self, moves: &mut mpsc::Receiver<MoveSeen>) -> io::Result<()> {
        let after = self.mesh.view(Vec::new()).await;
        let news = changes(&self.before, &after);
        self.before = after;
        for what in news.into_iter().chain(tell_moves(moves)) {
            self.event(what)?;
        }
        self.redraws = self.redraws.wrapping_add(1);
        let view = DevView { events: self.events.iter().cloned().collect(), ..self.before.clone() };
        match &mut self.out {
            Out::Screen(terminal) => terminal.draw(&render(&view)),
            Out::Lines if self.redraws.is_multiple_of(LINE_EVERY) => say(&render_line(&view)),
            Out::Lines => Ok(()),
        }
    }
}

/// One line for each conference, whichever nodes saw it move.
fn tell_moves(moves: &mut mpsc::Receiver<MoveSeen>) -> Vec<String> {
    let mut by_move: BTreeMap<(String, String), Vec<&'static str>> = BTreeMap::new();
    while let Ok(MoveSeen { node, key, to }) = moves.try_recv() {
        let nodes = by_move.entry((key, to)).or_default();
        if !nodes.contains(&node) {
            nodes.push(node);
        }
    }
    let more = by_move.len().saturating_sub(MOVES_TOLD);
    let mut told: Vec<String> = by_move
        .into_iter()
        .take(MOVES_TOLD)
        .map(|((key, to), nodes)| format!("conference {key} moved to {to} (table of {})", nodes.join(" ")))
        .collect();
    if more > 0 {
        told.push(format!("and {more} conferences more"));
    }
    told
}

fn say(text: &str) -> io::Result<()> {
    let mut out = io::stdout().lock();
    writeln!(out, "{}", text.trim_end())?;
    out.flush()
}
