//! What is let in at all, before it can do harm: ceilings for each client address, each shard, the process' memory and its
//! descriptors. Timeouts and sizes are [`crate::Limits`].
//!
//! One [`Gate`] for the whole process, as a client's connections are spread over the workers. What is off costs a comparison; what is
//! on, a lock that is held for a look into a map.

use crate::clock::{Millis, to_millis};
use crate::counters::Refused;
use crate::health::Health;
use crate::rescue::Failure;
use crate::worker::Worker;
use arc_swap::ArcSwap;
use shardgate_peering_core::ShardName;
use std::collections::HashMap;
use std::io;
use std::net::IpAddr;
use std::num::NonZeroUsize;
use std::os::fd::AsRawFd;
use std::sync::mpsc::{RecvTimeoutError, SyncSender, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};
use tokio::sync::watch;

mod address;
mod bucket;
mod descriptors;
mod listener;
mod memory;
mod shard;

pub use address::PerAddress;
use address::{Addresses, Beyond, Counted};
pub use bucket::{RATE_MAX, Rate};
use descriptors::Descriptors;
pub(crate) use descriptors::{Spare, raise};
pub(crate) use listener::{Seat, Seats};
use memory::Memory;
pub use memory::MemoryMax;
use shard::Shards;
pub use shard::{Counting, PerShard, ShardLoad};
pub(crate) use shard::{NoPlace, ShardPlace};

/// Everything that has a ceiling.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ceilings {
    /// Of one client address.
    pub per_address: PerAddress,
    /// Of one shard.
    pub per_shard: PerShard,
    /// Of this process' memory.
    pub memory_max: MemoryMax,
}

impl Ceilings {
    /// None at all, but for the descriptors that the system gives.
    pub const OFF: Self =
        Self { per_address: PerAddress::OFF, per_shard: PerShard::OFF, memory_max: MemoryMax::Off };
}

/// How long a refused client should wait, in whole seconds, at least one: what `Retry-After` says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct RetryAfter(pub(crate) u64);

impl RetryAfter {
    fn millis(wait: Millis) -> Self {
        Self(wait.div_ceil(1_000).max(1))
    }
}

/// The state of all ceilings.
#[derive(Debug)]
pub struct Gate {
    began: Instant,
    /// May change while requests pass.
    ceilings: ArcSwap<Ceilings>,
    addresses: Addresses,
    shards: Shards,
    /// By the names of listeners.
    seats: Mutex<HashMap<String, Arc<Seats>>>,
    memory: Memory,
    descriptors: Descriptors,
}

/// A client connection's place in the count of its address; given back when it is dropped.
#[derive(Debug)]
pub(crate) struct Admitted(Option<(Arc<Gate>, Counted)>);

impl Admitted {
    /// Of a trusted proxy, whose connections are others': whose, its PROXY header says, or each request.
    pub(crate) const fn uncounted() -> Self {
        Self(None)
    }
}

impl Drop for Admitted {
    fn drop(&mut self) {
        if let Some((gate, counted)) = self.0.take() {
            gate.addresses.ended(counted);
        }
    }
}

impl Gate {
    pub(crate) fn new(ceilings: Ceilings) -> Self {
        Self {
            began: Instant::now(),
            addresses: Addresses::new(),
            shards: Shards::default(),
            seats: Mutex::default(),
            memory: Memory::new(ceilings.memory_max),
            descriptors: Descriptors::new(),
            ceilings: ArcSwap::from_pointee(ceilings),
        }
    }

    /// The configuration has changed. What is counted already stays counted; who waits for a place that there is now, gets it.
    pub(crate) fn change(&self, ceilings: Ceilings) {
        self.memory.change(ceilings.memory_max);
        self.shards.change(&ceilings.per_shard);
        self.ceilings.store(Arc::new(ceilings));
    }

    /// The seats of a listener that may have `max` connections; `None` without a bound. The same for all workers, also after a change.
    pub(crate) fn seats(&self, listener: &str, max: Option<NonZeroUsize>) -> Option<Arc<Seats>> {
        let mut known = self.seats.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(seats) = known.get(listener) {
            seats.change(max.map_or(usize::MAX, NonZeroUsize::get));
        }
        let max = max?;
        let seats = known.entry(listener.to_owned()).or_insert_with(|| Seats::new(max.get()));
        Some(Arc::clone(seats))
    }

    fn now(&self) -> Millis {
        to_millis(self.began.elapsed())
    }

    /// Whether a connection that was just accepted may stay, whoever it is from.
    ///
    /// # Errors
    /// What is short; it is to be closed at once.
    pub(crate) fn accepted(&self, socket: &impl AsRawFd) -> Result<(), Refused> {
        if self.memory.is_full() {
            return Err(Refused::Memory);
        }
        if self.descriptors.is_spare(socket) { Ok(()) } else { Err(Refused::Descriptors) }
    }

    /// There was no descriptor to accept a connection with.
    pub(crate) fn out_of_descriptors(&self) {
        self.descriptors.note_short(true);
    }

    fn connection(self: &Arc<Self>, client: IpAddr) -> Result<Admitted, Refused> {
        let counted = self
            .addresses
            .connection(&self.ceilings.load().per_address, client, self.now())
            .map_err(|beyond| match beyond {
                Beyond::Open => Refused::AddressConnections,
                Beyond::Rate => Refused::ConnectionRate,
            })?;
        Ok(Admitted(counted.map(|counted| (Arc::clone(self), counted))))
    }

    pub(crate) fn memory_is_full(&self) -> bool {
        self.memory.is_full()
    }

    /// How many client addresses have something open or used.
    pub(crate) fn addresses_known(&self) -> usize {
        self.addresses.known()
    }

    /// The ceiling in bytes, if there is one.
    pub(crate) fn memory_max(&self) -> Option<u64> {
        self.memory.bytes_max()
    }

    /// The resident bytes at the last look.
    pub(crate) fn memory_resident(&self) -> u64 {
        self.memory.resident()
    }

    pub(crate) fn open_files_max(&self) -> u64 {
        self.descriptors.open_max()
    }

    /// Whether it is counted what goes to shards.
    pub(crate) fn counts_shards(&self) -> bool {
        self.shards.are_counted(&self.ceilings.load().per_shard)
    }

    /// The ceiling of a shard that says none itself, 0 without one.
    pub(crate) fn shard_connections_max(&self) -> usize {
        self.ceilings.load().per_shard.connections_max
    }

    /// What goes to shards where that is counted, and what waits for them.
    #[must_use]
    pub fn shard_loads(&self) -> Vec<ShardLoad> {
        self.shards.loads()
    }
}

/// Counts another connection of a client, to be asked before anything is done for it, TLS above all. `None` when it has reached a
/// ceiling: then the connection is to be closed at once.
pub(crate) fn admit_connection(worker: &Worker, client: IpAddr) -> Option<Admitted> {
    match worker.gate.connection(client) {
        Ok(admitted) => Some(admitted),
        Err(refused) => {
            worker.counters.refused[refused as usize].up();
            tracing::debug!(%client, reason = refused.as_str(), "connection refused");
            None
        }
    }
}

/// Counts a request of a client, and refuses it when there were too many.
///
/// # Errors
/// [`Failure::TooManyRequests`].
pub(crate) fn admit_request(worker: &Worker, client: IpAddr) -> Result<(), Failure> {
    let gate = &worker.gate;
    let ceilings = gate.ceilings.load();
    if ceilings.per_address.request_rate.is_none() {
        return Ok(());
    }
    gate.addresses.request(&ceilings.per_address, client, gate.now()).map_err(|wait| {
        worker.counters.refused[Refused::RequestRate as usize].up();
        Failure::TooManyRequests { retry_after: RetryAfter::millis(wait) }
    })
}

/// Counts a key that a client is about to claim, and refuses it when there were too many.
///
/// # Errors
/// [`Failure::TooManyNewKeys`].
pub(crate) fn admit_new_key(worker: &Worker, client: IpAddr) -> Result<(), Failure> {
    let gate = &worker.gate;
    let ceilings = gate.ceilings.load();
    gate.addresses.new_key(&ceilings.per_address, client, gate.now()).map_err(|wait| {
        worker.counters.refused[Refused::NewKeyRate as usize].up();
        Failure::TooManyNewKeys { retry_after: RetryAfter::millis(wait) }
    })
}

/// A place at a shard, waited for if need be; `None` where shards have no ceiling.
///
/// # Errors
/// [`Failure::Queue`].
pub(crate) async fn enter(worker: &Worker, shard: &ShardName) -> Result<Option<ShardPlace>, Failure> {
    let gate = &worker.gate;
    let per_shard = gate.ceilings.load().per_shard.clone();
    gate.shards.enter(&per_shard, shard).await.map_err(|no_place| {
        let refused = match no_place {
            NoPlace::QueueFull => Refused::QueueFull,
            NoPlace::QueueTimeout => Refused::QueueTimeout,
        };
        worker.counters.refused[refused as usize].up();
        Failure::Queue(no_place)
    })
}

/// Between two looks at the memory.
const LOOK_EVERY: Duration = Duration::from_millis(100);
/// Looks at the memory for one at the rest.
const SWEEP_EVERY: u32 = 10;

/// The thread that looks at what changes by itself: memory and the limit of open files, what agents say of their shards' ceilings, and clients
/// and shards that are to be forgotten. A thread of its own, as it counts most when everybody else is busy.
#[derive(Debug)]
pub(crate) struct Lookout {
    stop: SyncSender<()>,
    thread: JoinHandle<()>,
}

impl Lookout {
    pub(crate) fn start(gate: Arc<Gate>, mut health: watch::Receiver<Arc<Health>>) -> io::Result<Self> {
        let (stop, stopped) = sync_channel::<()>(0);
        gate.memory.sample();
        let thread = std::thread::Builder::new().name("limits".to_owned()).spawn(move || {
            let mut looks = 0;
            // Ends as well when whoever started it is gone without a word.
            while stopped.recv_timeout(LOOK_EVERY) == Err(RecvTimeoutError::Timeout) {
                gate.memory.sample();
                // Once the health thread has ended, what agents said last holds.
                if health.has_changed().unwrap_or(false) {
                    let said = health.borrow_and_update().connections_max();
                    gate.shards.say(&gate.ceilings.load().per_shard, said);
                }
                looks += 1;
                if looks == SWEEP_EVERY {
                    looks = 0;
                    gate.descriptors.look();
                    let ceilings = gate.ceilings.load();
                    gate.addresses.sweep(&ceilings.per_address, gate.now());
                    gate.shards.sweep(&ceilings.per_shard);
                }
            }
        })?;
        Ok(Self { stop, thread })
    }

    /// Ends it; it answers at once.
    pub(crate) fn stop(self) {
        drop(self.stop);
        if self.thread.join().is_err() {
            tracing::error!("the thread that looks at the limits panicked");
        }
    }
}
