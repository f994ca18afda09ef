//! How much goes to one shard at once, from this whole process: requests and tunnels beyond that wait in line, first come, first
//! served, whichever worker they are on (HAProxy manual 5.2: `maxconn`, `maxqueue`; 4.2: `timeout queue`).
//!
//! A place that becomes free is handed to the first in line under the lock that it is given back under, so none is lost and
//! nobody overtakes: while somebody waits, all places are taken.

use arc_swap::ArcSwap;
use shardgate_peering_core::ShardName;
use std::collections::{BTreeMap, HashMap};
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};
use std::task::{Context, Poll, Waker};
use std::time::Duration;
use tokio::time::timeout;

/// What one shard, or one server of a pool, gets at once.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PerShard {
    /// Requests and tunnels; 0 is no limit.
    pub connections_max: usize,
    /// Requests that may wait for a place.
    pub queue_max: usize,
    /// How long one waits.
    pub queue_timeout: Duration,
    /// Where there is no limit: whether one may come.
    pub counting: Counting,
}

/// When requests and tunnels of a shard are counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Counting {
    /// While it has a limit.
    WhereLimited,
    /// Always: its agent may set one at any time, and what is there counts.
    Always,
}

impl PerShard {
    /// No limit.
    pub const OFF: Self = Self {
        connections_max: 0,
        queue_max: 0,
        queue_timeout: Duration::ZERO,
        counting: Counting::WhereLimited,
    };

    const fn places(&self) -> usize {
        match self.connections_max {
            0 => usize::MAX,
            places => places,
        }
    }
}

/// Why there is no place at a shard.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum NoPlace {
    /// Too many wait already.
    #[error("too many requests wait for the shard")]
    QueueFull,
    /// It waited too long.
    #[error("no place at the shard became free in time")]
    QueueTimeout,
}

/// What goes to a shard, and what waits for it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ShardLoad {
    /// The shard.
    pub shard: ShardName,
    /// Requests and tunnels at it.
    pub active: usize,
    /// Requests that wait for a place.
    pub queued: usize,
}

/// All shards that something goes to: at most as many as discovery and the pools name, as those that are idle are forgotten.
#[derive(Debug, Default)]
pub(super) struct Shards {
    doors: RwLock<HashMap<ShardName, Arc<Door>>>,
    /// How much shards get at once that say so themselves, whatever is configured.
    said: ArcSwap<HashMap<ShardName, usize>>,
}

impl Shards {
    /// There are more or fewer places from now on; who has one keeps it, who waits for one that there is now gets it.
    pub(super) fn change(&self, limits: &PerShard) {
        for (shard, door) in self.doors.read().unwrap_or_else(PoisonError::into_inner).iter() {
            door.change(&self.limits_of(limits, shard));
        }
    }

    /// Shards say how much they get at once (HAProxy manual 5.2 `agent-check`: `maxconn:`), the others get what `limits` says.
    pub(super) fn say(&self, limits: &PerShard, said: HashMap<ShardName, usize>) {
        self.said.store(Arc::new(said));
        self.change(limits);
    }

    /// Whether anything is counted.
    pub(super) fn are_counted(&self, limits: &PerShard) -> bool {
        limits.connections_max > 0 || limits.counting == Counting::Always || !self.said.load().is_empty()
    }

    fn limits_of(&self, limits: &PerShard, shard: &ShardName) -> PerShard {
        let connections_max = self.said.load().get(shard).copied().unwrap_or(limits.connections_max);
        PerShard { connections_max, ..limits.clone() }
    }

    /// A place at `shard`, waited for if need be; `None` where nothing is counted.
    ///
    /// # Errors
    /// [`NoPlace`].
    pub(super) async fn enter(
        &self,
        limits: &PerShard,
        shard: &ShardName,
    ) -> Result<Option<ShardPlace>, NoPlace> {
        let limits = self.limits_of(limits, shard);
        if limits.connections_max == 0 && limits.counting == Counting::WhereLimited {
            return Ok(None);
        }
        match Door::enter(&self.door(&limits, shard))? {
            Entry::Placed(place) => Ok(Some(place)),
            Entry::Queued(waiting) => match timeout(limits.queue_timeout, waiting).await {
                Ok(place) => Ok(Some(place)),
                Err(_) => Err(NoPlace::QueueTimeout),
            },
        }
    }

    fn door(&self, limits: &PerShard, shard: &ShardName) -> Arc<Door> {
        let known = self.doors.read().unwrap_or_else(PoisonError::into_inner).get(shard).map(Arc::clone);
        known.unwrap_or_else(|| {
            let mut doors = self.doors.write().unwrap_or_else(PoisonError::into_inner);
            let fresh = || Arc::new(Door::new(limits));
            Arc::clone(doors.entry(shard.clone()).or_insert_with(fresh))
        })
    }

    /// Forgets the shards that nothing goes to. A door that was made while the limits changed has the new ones from here on.
    pub(super) fn sweep(&self, limits: &PerShard) {
        self.change(limits);
        // Who goes there or waits has the door as well.
        let mut doors = self.doors.write().unwrap_or_else(PoisonError::into_inner);
        doors.retain(|_, door| Arc::strong_count(door) > 1);
    }

    pub(super) fn loads(&self) -> Vec<ShardLoad> {
        let doors = self.doors.read().unwrap_or_else(PoisonError::into_inner);
        let load = |(shard, door): (&ShardName, &Arc<Door>)| {
            let state = door.lock();
            ShardLoad { shard: shard.clone(), active: state.active, queued: state.queue.len() }
        };
        let mut loads: Vec<ShardLoad> = doors.iter().map(load).collect();
        loads.sort_by(|a, b| a.shard.cmp(&b.shard));
        loads
    }
}

/// The way in to one shard.
#[derive(Debug)]
struct Door {
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    places: usize,
    queue_max: usize,
    active: usize,
    /// Who waits, by their tickets. Whose ticket is gone, has a place.
    queue: BTreeMap<u64, Waker>,
    tickets: u64,
}

enum Entry {
    Placed(ShardPlace),
    Queued(Waiting),
}

impl Door {
    fn new(limits: &PerShard) -> Self {
        let (places, queue_max) = (limits.places(), limits.queue_max);
        let state = State { places, queue_max, active: 0, queue: BTreeMap::new(), tickets: 0 };
        Self { state: Mutex::new(state) }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn enter(door: &Arc<Self>) -> Result<Entry, NoPlace> {
        let mut state = door.lock();
        if state.active < state.places {
            state.active += 1;
            return Ok(Entry::Placed(ShardPlace(Arc::clone(door))));
        }
        if state.queue.len() >= state.queue_max {
            return Err(NoPlace::QueueFull);
        }
        let ticket = state.tickets;
        state.tickets += 1;
        state.queue.insert(ticket, Waker::noop().clone());
        Ok(Entry::Queued(Waiting { door: Arc::clone(door), ticket: Some(ticket) }))
    }

    fn change(&self, limits: &PerShard) {
        let woken = {
            let mut state = self.lock();
            state.places = limits.places();
            state.queue_max = limits.queue_max;
            state.fill()
        };
        woken.into_iter().for_each(Waker::wake);
    }

    /// A place is given back: the first in line gets it.
    fn leave(&self) {
        let woken = {
            let mut state = self.lock();
            state.active -= 1;
            state.fill()
        };
        woken.into_iter().for_each(Waker::wake);
    }
}

impl State {
    /// Gives free places to those who wait, and answers whom to wake.
    fn fill(&mut self) -> Vec<Waker> {
        let mut woken = Vec::new();
        while self.active < self.places
            && let Some((_, waker)) = self.queue.pop_first()
        {
            self.active += 1;
            woken.push(waker);
        }
        woken
    }
}

/// A place at a shard, given back when it is dropped.
#[derive(Debug)]
pub(crate) struct ShardPlace(Arc<Door>);

impl Drop for ShardPlace {
    fn drop(&mut self) {
        self.0.leave();
    }
}

/// Somebody in line. Dropped, it leaves the line, or passes on the place that it was just given.
struct Waiting {
    door: Arc<Door>,
    /// `None` once it has its place.
    ticket: Option<u64>,
}

impl Future for Waiting {
    type Output = ShardPlace;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<ShardPlace> {
        if let Some(ticket) = self.ticket
            && let Some(waker) = self.door.lock().queue.get_mut(&ticket)
        {
            waker.clone_from(cx.waker());
            return Poll::Pending;
        }
        self.ticket = None;
        Poll::Ready(ShardPlace(Arc::clone(&self.door)))
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        let Some(ticket) = self.ticket.take() else { return };
        let waited = self.door.lock().queue.remove(&ticket).is_some();
        if !waited {
            self.door.leave();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::sync::atomic::{AtomicUsize, Ordering};

    fn name(text: &str) -> ShardName {
        ShardName::parse(text).unwrap()
    }

    fn poll(waiting: &mut Waiting) -> Option<ShardPlace> {
        match Pin::new(waiting).poll(&mut Context::from_waker(Waker::noop())) {
            Poll::Ready(place) => Some(place),
            Poll::Pending => None,
        }
    }

    #[derive(Debug, Clone)]
    enum Step {
        Enter,
        Leave(usize),
        GiveUp(usize),
        Poll(usize),
    }

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![
            3 => Just(Step::Enter),
            2 => (0usize..8).prop_map(Step::Leave),
            1 => (0usize..8).prop_map(Step::GiveUp),
            2 => (0usize..8).prop_map(Step::Poll),
        ]
    }

    proptest! {
        /// Whatever comes, goes and gives up in whatever order: places are taken before anybody waits, never more than there are,
        /// the first in line is the first to get one, and in the end all are free.
        #[test]
        fn places_go_around_in_order(places in 1usize..4, queue_max in 0usize..6, steps in prop::collection::vec(step(), 0..200)) {
            let door = Arc::new(Door::new(&PerShard { connections_max: places, queue_max, ..PerShard::OFF }));
            let (mut inside, mut line): (Vec<ShardPlace>, Vec<Waiting>) = (Vec::new(), Vec::new());
            for step in steps {
                match step {
                    Step::Enter => match Door::enter(&door) {
                        Ok(Entry::Placed(place)) => inside.push(place),
                        Ok(Entry::Queued(waiting)) => line.push(waiting),
                        Err(refused) => {
                            prop_assert_eq!(refused, NoPlace::QueueFull);
                            prop_assert_eq!(door.lock().queue.len(), queue_max);
                        }
                    },
                    Step::Leave(at) if at < inside.len() => drop(inside.remove(at)),
                    Step::GiveUp(at) if at < line.len() => drop(line.remove(at)),
                    Step::Poll(at) if at < line.len() => {
                        if let Some(place) = poll(&mut line[at]) {
                            line.remove(at);
                            inside.push(place);
                        }
                    }
                    Step::Leave(_) | Step::GiveUp(_) | Step::Poll(_) => {}
                }
                let state = door.lock();
                prop_assert!(state.active <= places && state.queue.len() <= queue_max);
                prop_assert!(state.queue.is_empty() || state.active == places);
                // Those who have been given a place but not looked yet came before all who still wait.
                let given: Vec<bool> =
                    line.iter().map(|waiting| !state.queue.contains_key(&waiting.ticket.unwrap())).collect();
                prop_assert!(given.is_sorted_by(|a, b| a >= b), "{:?}", given);
                prop_assert_eq!(inside.len() + given.iter().filter(|given| **given).count(), state.active);
            }
            drop((inside, line));
            let state = door.lock();
            prop_assert_eq!((state.active, state.queue.len()), (0, 0));
        }
    }

    /// Threads with runtimes of their own, as workers are, hurry through few places and often give up: nobody is forgotten.
    #[test]
    fn nobody_is_forgotten_across_threads() {
        const PLACES: usize = 3;
        let limits = PerShard {
            connections_max: PLACES,
            queue_max: 1_000,
            queue_timeout: Duration::from_secs(60),
            ..PerShard::OFF
        };
        let shards = Arc::new(Shards::default());
        let (inside, served) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
        let workers: Vec<_> = (0..4)
            .map(|worker: u64| {
                let (shards, inside, served) =
                    (Arc::clone(&shards), Arc::clone(&inside), Arc::clone(&served));
                let limits = limits.clone();
                std::thread::spawn(move || {
                    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
                    let tasks = tokio::task::LocalSet::new();
                    for task in 0..50_u64 {
                        let (shards, inside, served) =
                            (Arc::clone(&shards), Arc::clone(&inside), Arc::clone(&served));
                        let limits = limits.clone();
                        tasks.spawn_local(async move {
                            let mut luck = worker * 1_000 + task;
                            for _ in 0..200 {
                                luck = luck.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695);
                                let shard = name("s1");
                                let place = shards.enter(&limits, &shard);
                                let place = if luck >> 60 < 5 {
                                    timeout(Duration::from_micros(luck >> 54 & 0x1FF), place).await
                                } else {
                                    Ok(place.await)
                                };
                                if let Ok(entered) = place {
                                    let _place = entered.unwrap().unwrap();
                                    assert!(inside.fetch_add(1, Ordering::SeqCst) < PLACES);
                                    for _ in 0..luck >> 62 {
                                        tokio::task::yield_now().await;
                                    }
                                    inside.fetch_sub(1, Ordering::SeqCst);
                                    served.fetch_add(1, Ordering::SeqCst);
                                }
                            }
                        });
                    }
                    runtime.block_on(tasks);
                })
            })
            .collect();
        for worker in workers {
            worker.join().unwrap();
        }
        assert!(served.load(Ordering::SeqCst) > 4 * 50 * 100);
        let idle = ShardLoad { shard: name("s1"), active: 0, queued: 0 };
        assert_eq!(shards.loads(), [idle]);
        shards.sweep(&limits);
        assert_eq!(shards.loads(), []);
    }

    #[tokio::test]
    async fn a_line_has_an_end_in_length_and_in_time() {
        let limits = PerShard {
            connections_max: 1,
            queue_max: 1,
            queue_timeout: Duration::from_millis(50),
            ..PerShard::OFF
        };
        let shards = Arc::new(Shards::default());
        let first = shards.enter(&limits, &name("s1")).await.unwrap();
        let second = {
            let (shards, limits) = (Arc::clone(&shards), limits.clone());
            tokio::spawn(async move { shards.enter(&limits, &name("s1")).await.map(drop) })
        };
        tokio::task::yield_now().await;
        assert_eq!(shards.enter(&limits, &name("s1")).await.unwrap_err(), NoPlace::QueueFull);
        assert!(shards.enter(&limits, &name("s2")).await.is_ok(), "another shard is another line");
        assert_eq!(second.await.unwrap(), Err(NoPlace::QueueTimeout));
        drop(first);
        assert!(shards.enter(&limits, &name("s1")).await.is_ok());
        assert!(shards.enter(&PerShard::OFF, &name("s1")).await.unwrap().is_none());
    }

    #[tokio::test]
    async fn a_shard_says_how_much_it_gets() {
        let limits = PerShard { connections_max: 1, ..PerShard::OFF };
        let shards = Shards::default();
        assert!(shards.are_counted(&limits) && !shards.are_counted(&PerShard::OFF));
        let says = |most| HashMap::from([(name("s1"), most)]);
        let enter =
            async |limits: &PerShard| shards.enter(limits, &name("s1")).await.map(|place| place.is_some());
        // A door that was open before has as many places as one that is made from now on.
        let before = shards.enter(&limits, &name("s1")).await.unwrap();
        shards.say(&limits, says(2));
        let second = shards.enter(&limits, &name("s1")).await.unwrap();
        assert!(before.is_some() && second.is_some());
        assert_eq!(enter(&limits).await, Err(NoPlace::QueueFull));
        let others = shards.enter(&limits, &name("s2")).await.unwrap();
        assert!(others.is_some() && shards.enter(&limits, &name("s2")).await.is_err(), "as configured");
        shards.sweep(&limits);
        assert_eq!(enter(&limits).await, Err(NoPlace::QueueFull), "it said so once");
        shards.say(&limits, says(0));
        assert_eq!(enter(&limits).await, Ok(false), "no limit");
        shards.say(&PerShard::OFF, says(2));
        assert!(shards.are_counted(&PerShard::OFF));
        assert_eq!(enter(&PerShard::OFF).await, Err(NoPlace::QueueFull), "two are there");
        // What began when there was no limit counts when one comes.
        let counted = PerShard { counting: Counting::Always, ..PerShard::OFF };
        let unlimited = shards.enter(&counted, &name("s3")).await.unwrap();
        assert!(unlimited.is_some() && shards.are_counted(&counted));
        shards.say(&counted, HashMap::from([(name("s1"), 2), (name("s3"), 1)]));
        assert!(shards.enter(&counted, &name("s3")).await.is_err());
        shards.say(&limits, HashMap::new());
        drop(second);
        assert_eq!(enter(&limits).await, Err(NoPlace::QueueFull), "one is");
        drop(before);
        assert_eq!(enter(&limits).await, Ok(true));
    }

    #[test]
    fn a_change_gives_places_to_those_who_wait() {
        let limits = |connections_max| PerShard { connections_max, queue_max: 10, ..PerShard::OFF };
        let door = Arc::new(Door::new(&limits(1)));
        let enter = || Door::enter(&door).unwrap();
        let Entry::Placed(first) = enter() else { panic!("a place is free") };
        let mut line: Vec<Waiting> = (0..4)
            .map(|_| match enter() {
                Entry::Queued(waiting) => waiting,
                Entry::Placed(_) => panic!("no place is free"),
            })
            .collect();
        door.change(&limits(3));
        let places: Vec<ShardPlace> = line.iter_mut().filter_map(poll).collect();
        assert_eq!((places.len(), door.lock().active), (2, 3));
        line.drain(..2);
        // With fewer places nobody is thrown out, and nobody follows.
        door.change(&limits(1));
        drop((first, places));
        let next: Vec<ShardPlace> = line.iter_mut().filter_map(poll).collect();
        assert_eq!(next.len(), 1);
        door.change(&limits(0));
        line.remove(0);
        assert!(poll(&mut line[0]).is_some());
        drop((line, next));
        assert_eq!(door.lock().active, 0);
    }
}
