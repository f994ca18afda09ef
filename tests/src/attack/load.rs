//! The normal load: requests at a fixed rate over HTTP/1, TLS, HTTP/2 and new connections, and open tunnels. A latency counts from
//! when its request was due, so that a node that stalls cannot hide it by getting fewer requests.

use std::collections::BTreeMap;
use std::io;
use std::rc::Rc;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::Duration;

use tokio::task::{LocalSet, spawn_local};
use tokio::time::{Instant, sleep, sleep_until, timeout};

use super::dial::{Dialer, Door, Doors};
use super::load_clients::{Client, Tunnel};
use crate::bench::latency::Latencies;

const ROOMS: usize = 40;
/// Whoever has no answer by then has an error.
const PATIENCE: Duration = Duration::from_secs(5);
const RETRY: Duration = Duration::from_millis(200);

/// How requests are spread: what carries them, how many clients, and how often each asks.
const ASKERS: [(Carrier, usize, Duration); 4] = [
    (Carrier::Kept(Door::Plain), 5, Duration::from_millis(50)),
    (Carrier::Kept(Door::Tls), 4, Duration::from_millis(50)),
    (Carrier::Kept(Door::Http2), 5, Duration::from_millis(50)),
    (Carrier::New(Door::Tls), 5, Duration::from_millis(250)),
];
/// Tunnels by what carries them; each echoes once a second.
const TUNNELS: [(Door, usize); 3] = [(Door::Plain, 20), (Door::Tls, 20), (Door::Http2, 10)];
/// All of [`TUNNELS`].
pub(super) const TUNNELS_ALL: u64 = 50;
const ECHO_EVERY: Duration = Duration::from_secs(1);

#[derive(Debug, Clone, Copy)]
enum Carrier {
    /// A connection that is kept.
    Kept(Door),
    /// A new connection for each request.
    New(Door),
}

/// What was seen since somebody last looked.
#[derive(Default)]
pub(super) struct Seen {
    pub(super) requests: Latencies,
    pub(super) echoes: Latencies,
    /// What went wrong and how often.
    pub(super) errors: BTreeMap<String, u64>,
}

/// The load, on a thread of its own until the process ends.
pub(super) struct Load(Arc<Mutex<Seen>>);

impl Load {
    pub(super) fn start(doors: &Doors) -> io::Result<Self> {
        let load = Self(Arc::default());
        let seen = Book(Arc::clone(&load.0));
        let dialer = Dialer::new(doors, 9, 8)?;
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        thread::Builder::new().name("load".to_owned()).spawn(move || {
            LocalSet::new().block_on(&runtime, run(Rc::new(dialer), Rc::new(seen)));
        })?;
        Ok(load)
    }

    /// What was seen since this was last asked.
    pub(super) fn take(&self) -> Seen {
        std::mem::take(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// Where the clients write down what they see.
struct Book(Arc<Mutex<Seen>>);

impl Book {
    fn note(&self, write: impl FnOnce(&mut Seen)) {
        write(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner));
    }

    fn error(&self, who: &str, error: &io::Error) {
        self.note(|seen| *seen.errors.entry(format!("{who}: {error}")).or_default() += 1);
    }
}

async fn run(dialer: Rc<Dialer>, book: Rc<Book>) {
    let mut all = Vec::new();
    for (carrier, clients, period) in ASKERS {
        for index in 0..clients {
            let begin = period * index as u32 / clients as u32;
            all.push(spawn_local(ask(carrier, begin, period, Rc::clone(&dialer), Rc::clone(&book))));
        }
    }
    let tunnels = TUNNELS.into_iter().flat_map(|(door, many)| std::iter::repeat_n(door, many));
    for (index, door) in tunnels.enumerate() {
        let begin = ECHO_EVERY * index as u32 / TUNNELS_ALL as u32;
        all.push(spawn_local(keep_tunnel(door, index, begin, Rc::clone(&dialer), Rc::clone(&book))));
    }
    for task in all {
        // They end with the process alone.
        task.await.ok();
    }
}

async fn ask(carrier: Carrier, begin: Duration, period: Duration, dialer: Rc<Dialer>, book: Rc<Book>) {
    let mut due = Instant::now() + begin;
    let mut kept = None;
    let mut room = 0;
    loop {
        // Who is late has asked when it was due; who is not is woken to the millisecond, which is not the node's.
        let asked_at = if due > Instant::now() {
            sleep_until(due).await;
            Instant::now()
        } else {
            due
        };
        room = (room + 1) % ROOMS;
        let path = format!("/http-bind?room=normal-{room}");
        let asked = timeout(PATIENCE, ask_once(carrier, &mut kept, &dialer, &path)).await;
        match asked.unwrap_or_else(|_| Err(io::Error::other("no answer in time"))) {
            Ok(()) => book.note(|seen| seen.requests.record(asked_at.elapsed())),
            Err(error) => {
                kept = None;
                book.error(&format!("{carrier:?}"), &error);
                sleep(RETRY).await;
            }
        }
        due += period;
    }
}

async fn ask_once(
    carrier: Carrier,
    kept: &mut Option<Client>,
    dialer: &Dialer,
    path: &str,
) -> io::Result<()> {
    let door = match carrier {
        Carrier::New(door) => return Client::connect(dialer, door).await?.get(path).await,
        Carrier::Kept(door) => door,
    };
    let client = match kept {
        Some(client) => client,
        None => kept.insert(Client::connect(dialer, door).await?),
    };
    client.get(path).await
}

async fn keep_tunnel(door: Door, index: usize, begin: Duration, dialer: Rc<Dialer>, book: Rc<Book>) {
    let path = format!("/xmpp-websocket?room=normal-{}", index % ROOMS);
    sleep(begin).await;
    loop {
        let error = match timeout(PATIENCE, Tunnel::open(&dialer, door, &path)).await {
            Ok(Ok(tunnel)) => echo(tunnel, &book).await,
            Ok(Err(error)) => error,
            Err(_) => io::Error::other("not opened in time"),
        };
        book.error(&format!("tunnel {door:?}"), &error);
        sleep(RETRY).await;
    }
}

/// Answers what ended the tunnel.
async fn echo(mut tunnel: Tunnel, book: &Book) -> io::Error {
    let mut due = Instant::now();
    loop {
        let asked_at = due.max(Instant::now());
        match timeout(PATIENCE, tunnel.echo()).await {
            Ok(Ok(())) => book.note(|seen| seen.echoes.record(asked_at.elapsed())),
            Ok(Err(error)) => return error,
            Err(_) => return io::Error::other("no echo in time"),
        }
        due += ECHO_EVERY;
        sleep_until(due).await;
    }
}
