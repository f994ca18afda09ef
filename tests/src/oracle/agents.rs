//! Stand-ins for shards' agents: each says one line to whoever connects.

use std::collections::BTreeMap;
use std::io::{self, Write};
use std::net::{Shutdown, TcpListener};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};

use socket2::SockRef;

use super::ground::Ground;
use super::plan::Plan;

/// What the agents say at first.
const WELL: &str = "up ready 100%";

type Line = Arc<Mutex<String>>;

/// The agents of a plan's shards, until they are dropped.
pub(super) struct Agents {
    lines: BTreeMap<String, Line>,
    listeners: Vec<(TcpListener, JoinHandle<()>)>,
}

impl Agents {
    pub(super) fn start(ground: Ground, plan: &Plan) -> io::Result<Self> {
        let mut agents = Self { lines: BTreeMap::new(), listeners: Vec::new() };
        for shard in &plan.shards {
            let listener = TcpListener::bind(ground.agent(shard.n))?;
            let line = Line::new(Mutex::new(WELL.to_owned()));
            let (accepts, says) = (listener.try_clone()?, Arc::clone(&line));
            let answering = thread::spawn(move || {
                for mut stream in accepts.incoming().map_while(Result::ok) {
                    let line = format!("{}\n", lock(&says));
                    // Who asked may have left.
                    drop(stream.write_all(line.as_bytes()));
                }
            });
            agents.lines.insert(shard.name.clone(), line);
            agents.listeners.push((listener, answering));
        }
        Ok(agents)
    }

    /// From now on the agent of `shard` says this.
    pub(super) fn say(&self, shard: &str, says: &str) -> io::Result<()> {
        let line = self.lines.get(shard).ok_or_else(|| io::Error::other(format!("no agent of {shard}")))?;
        says.clone_into(&mut lock(line));
        Ok(())
    }
}

fn lock(line: &Line) -> MutexGuard<'_, String> {
    line.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Drop for Agents {
    fn drop(&mut self) {
        for (listener, answering) in self.listeners.drain(..) {
            // The accepting thread wakes up with an error.
            drop(SockRef::from(&listener).shutdown(Shutdown::Both));
            drop(answering.join());
        }
    }
}
