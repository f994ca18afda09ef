//! The one way from a source to its consumers: whole snapshots, in order, and the state of the source beside them.

use crate::command::{Commands, Order, OrderError, ShardCommand};
use crate::diff::SnapshotDiff;
use crate::snapshot::Snapshot;
use shardgate_peering_core::ShardName;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant, SystemTime};
use tokio::sync::watch;

/// How the source is doing. Taken by value: a picture of one moment.
#[derive(Debug, Clone)]
pub struct SourceStatus {
    /// What is read, for people: a path.
    pub source: String,
    /// Version of the snapshot in use.
    pub version: u64,
    /// When the source last said something valid, changed or not. Its age is how long we have been running on memory.
    pub last_good: Instant,
    /// What is wrong right now; `None` when the last look was good.
    pub last_error: Option<String>,
    /// How many changes were published since the start.
    pub changes: u64,
    /// How many distinct errors were refused since the start; one error seen at every look counts once.
    pub refused: u64,
    /// The lists that the source consists of; none for a file.
    pub parts: Vec<PartStatus>,
    /// Where the snapshot in use comes from.
    pub origin: Origin,
    /// Records that are left out of the snapshot in use because they cannot be read.
    pub invalid: usize,
    /// Why what the source said last is not kept on disk; `None` while it is, or need not be.
    pub not_kept: Option<String>,
}

/// Where a snapshot comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Origin {
    /// The source, in this process' life.
    Source,
    /// What was kept on disk; when this process started it was that old.
    Disk {
        /// How old.
        age: Duration,
    },
    /// Nowhere: the source never answered, and nothing was kept.
    Nothing,
}

/// What a part of a source is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PartRole {
    /// Releases, pins, states and bans: what operators want.
    Policy,
    /// Shards and nodes.
    Services,
}

/// How a part of a source is doing: a list of one datacenter.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PartStatus {
    /// What it lists, for people: `shards of prod-us-phoenix-1`.
    pub name: String,
    /// Whether it says what operators want, or what there is.
    pub role: PartRole,
    /// When it last answered; `None` when it never did.
    pub last_good: Option<Instant>,
    /// What is wrong right now.
    pub error: Option<String>,
}

/// How long a list may be silent until what it said is called stale: three times what a server may hold a query.
const STALE_AFTER: Duration = Duration::from_secs(30);

impl SourceStatus {
    /// Why what operators want may be known here as it was, and not as it is; `None` when it is fresh.
    #[must_use]
    pub fn stale(&self, now: Instant) -> Option<String> {
        match self.origin {
            Origin::Nothing => return Some("nothing was ever heard".to_owned()),
            Origin::Disk { age } => {
                return Some(format!("kept on disk, {} old at the start", whole_seconds(age)));
            }
            Origin::Source => {}
        }
        let ages = self.parts.iter().filter(|part| part.role == PartRole::Policy).map(|part| {
            let age = part.last_good.map(|at| now.saturating_duration_since(at));
            (age.unwrap_or(Duration::MAX), part)
        });
        let oldest = ages.max_by_key(|(age, _)| *age);
        let (what, age, error) = match oldest {
            Some((age, part)) => (part.name.as_str(), age, part.error.as_ref()),
            // A file: only its errors make it old.
            None => {
                let error = self.last_error.as_ref()?;
                (self.source.as_str(), now.saturating_duration_since(self.last_good), Some(error))
            }
        };
        if age <= STALE_AFTER {
            return None;
        }
        let because = error.map(|error| format!(": {error}")).unwrap_or_default();
        Some(match age {
            Duration::MAX => format!("{what} never answered{because}"),
            age => format!("{what} last heard of {} ago{because}", whole_seconds(age)),
        })
    }
}

fn whole_seconds(duration: Duration) -> String {
    format!("{}s", duration.as_secs())
}

/// The consumers' end: the current snapshot, a way to wait for the next, and to command shards on this node.
#[derive(Debug, Clone)]
pub struct DiscoveryHandle {
    current: watch::Receiver<Arc<Snapshot>>,
    state: Arc<Mutex<State>>,
}

impl DiscoveryHandle {
    /// A handle whose source never changes, for a fixed topology.
    #[must_use]
    pub fn fixed(snapshot: Snapshot) -> Self {
        Publisher::new("fixed", snapshot).1
    }

    /// The snapshot in use now. A request takes it once and keeps it to its end.
    #[must_use]
    pub fn current(&self) -> Arc<Snapshot> {
        Arc::clone(&self.current.borrow())
    }

    /// A receiver that wakes with every published change.
    #[must_use]
    pub fn subscribe(&self) -> watch::Receiver<Arc<Snapshot>> {
        self.current.clone()
    }

    /// How the source is doing.
    #[must_use]
    pub fn status(&self) -> SourceStatus {
        lock(&self.state).status.clone()
    }

    /// An operator commands a shard on this node. In the current snapshot when it returns; the source's next word does not undo it.
    ///
    /// # Errors
    /// [`OrderError`] when the shard is not listed, the weight is none, or nothing is published any more.
    pub fn order(&self, shard: &ShardName, order: Order) -> Result<Published, OrderError> {
        let (published, news) = {
            let state = &mut *lock(&self.state);
            if state.current.is_none() {
                return Err(OrderError::Stopped);
            }
            state.commands.order(&state.source, shard, order, SystemTime::now())?;
            state.publish(Wake::OnChange)
        };
        news.into_iter().for_each(News::tell);
        Ok(published)
    }

    /// What operators command of a shard here.
    #[must_use]
    pub fn command(&self, shard: &ShardName) -> Option<ShardCommand> {
        lock(&self.state).commands.of(shard)
    }
}

/// What became of a snapshot given to [`Publisher::publish`], or of a command.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Published {
    /// All is as it was; nobody was woken.
    Unchanged,
    /// There is another current snapshot now.
    Changed(SnapshotDiff),
}

/// What the source says, what operators command, and what comes of both.
#[derive(Debug)]
struct State {
    source: Arc<Snapshot>,
    commands: Commands,
    /// What came of both last.
    latest: Arc<Snapshot>,
    /// `None` when the publisher has gone: receivers are told that nothing comes any more.
    current: Option<Arc<watch::Sender<Arc<Snapshot>>>>,
    status: SourceStatus,
}

/// When consumers are woken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Wake {
    /// When there is another snapshot.
    OnChange,
    /// In any case.
    Always,
}

/// A snapshot for the consumers. They are told when the state's lock is given back: a consumer may hold the snapshot before it, and ask for the
/// status meanwhile.
#[must_use]
struct News {
    to: Arc<watch::Sender<Arc<Snapshot>>>,
    snapshot: Arc<Snapshot>,
}

impl News {
    fn tell(self) {
        let Self { to, snapshot } = self;
        to.send_if_modified(|current| {
            // Who was faster has all that this one has.
            let newest = snapshot.version() >= current.version();
            if newest {
                *current = snapshot;
            }
            newest
        });
    }
}

impl State {
    fn publish(&mut self, wake: Wake) -> (Published, Option<News>) {
        let Some(current) = &self.current else { return (Published::Unchanged, None) };
        let news =
            |snapshot: &Arc<Snapshot>| Some(News { to: Arc::clone(current), snapshot: Arc::clone(snapshot) });
        let next = self.commands.over(&self.source);
        if next.content_equals(&self.latest) {
            let news = if wake == Wake::Always { news(&self.latest) } else { None };
            return (Published::Unchanged, news);
        }
        let diff = next.diff(&self.latest);
        let version = self.latest.version() + 1;
        // The status first: whoever is woken by the snapshot finds it counted.
        self.status.version = version;
        self.status.changes += 1;
        self.latest = Arc::new(next.with_version(version));
        (Published::Changed(diff), news(&self.latest))
    }
}

/// The lock is held for moments, never across an await, and by nobody who waits for anything else; a panic within leaves whole values.
fn lock(state: &Mutex<State>) -> MutexGuard<'_, State> {
    state.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The source's end. Versions grow one by one, whether the source or an operator changes something.
#[derive(Debug)]
pub struct Publisher {
    state: Arc<Mutex<State>>,
}

impl Publisher {
    /// Publishes `first` as version 1; `source` is what the status calls the source.
    #[must_use]
    pub fn new(source: impl Into<String>, first: Snapshot) -> (Self, DiscoveryHandle) {
        Self::begin(source, first, Origin::Source)
    }

    /// The same with a first snapshot that the source has not said.
    #[must_use]
    pub fn begin(source: impl Into<String>, first: Snapshot, origin: Origin) -> (Self, DiscoveryHandle) {
        let first = Arc::new(first.with_version(1));
        let status = SourceStatus {
            source: source.into(),
            version: first.version(),
            last_good: Instant::now(),
            last_error: None,
            changes: 0,
            refused: 0,
            parts: Vec::new(),
            origin,
            invalid: 0,
            not_kept: None,
        };
        let (sender, receiver) = watch::channel(Arc::clone(&first));
        let (source, current) = (Arc::clone(&first), Some(Arc::new(sender)));
        let state = State { source, commands: Commands::default(), latest: first, current, status };
        let state = Arc::new(Mutex::new(state));
        (Self { state: Arc::clone(&state) }, DiscoveryHandle { current: receiver, state })
    }

    /// Takes a valid answer of the source; publishes it, under what operators command, when it differs from the current one.
    pub fn publish(&mut self, next: Snapshot) -> Published {
        let (published, news) = {
            let state = &mut *lock(&self.state);
            // A source of several lists says of each how it is.
            if state.status.parts.is_empty() {
                state.status.last_good = Instant::now();
                state.status.last_error = None;
            }
            let before = std::mem::replace(&mut state.status.origin, Origin::Source);
            state.source = Arc::new(next);
            // That nothing is there is news when nothing was known.
            state.publish(if before == Origin::Nothing { Wake::Always } else { Wake::OnChange })
        };
        news.into_iter().for_each(News::tell);
        published
    }

    /// Notes that the source is well and still says what it said.
    pub fn confirm(&mut self) {
        let status = &mut lock(&self.state).status;
        if status.parts.is_empty() {
            status.last_good = Instant::now();
        }
        status.last_error = None;
    }

    /// Notes how the parts of the source are doing, and how many records are left out. The source is as good as its best part.
    pub fn note(&mut self, parts: Vec<PartStatus>, invalid: usize) {
        let status = &mut lock(&self.state).status;
        if let Some(newest) = parts.iter().filter_map(|part| part.last_good).max() {
            status.last_good = newest;
        }
        status.parts = parts;
        status.invalid = invalid;
    }

    /// Notes whether what the source said could be kept on disk, and if not, why.
    pub fn note_kept(&mut self, kept: Result<(), String>) {
        lock(&self.state).status.not_kept = kept.err();
    }

    /// Notes that the source could not be read or was not believed, and says whether this error is news.
    pub fn refuse(&mut self, error: &str) -> Refused {
        let status = &mut lock(&self.state).status;
        if status.last_error.as_deref() == Some(error) {
            return Refused::AsBefore;
        }
        status.last_error = Some(error.to_owned());
        status.refused += 1;
        Refused::New
    }
}

impl Drop for Publisher {
    fn drop(&mut self) {
        lock(&self.state).current = None;
    }
}

/// Whether an error was seen at the last look already; only news is logged and counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refused {
    /// The first time.
    New,
    /// The same error again.
    AsBefore,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::file::parse_text;
    use crate::shard::ShardState;

    #[test]
    fn versions_grow_with_changes_only() {
        let (mut publisher, handle) = Publisher::new("test", Snapshot::default());
        let mut changes = handle.subscribe();
        assert_eq!(handle.current().version(), 1);
        assert_eq!(publisher.publish(Snapshot::default()), Published::Unchanged);
        assert!(!changes.has_changed().unwrap());
        let next = parse_text("live_release = \"release-1\"").unwrap();
        assert!(matches!(publisher.publish(next), Published::Changed(_)));
        assert!(changes.has_changed().unwrap());
        assert_eq!(changes.borrow_and_update().version(), 2);
        assert_eq!(handle.status().changes, 1);
    }

    #[test]
    fn commands_stand_over_the_source() {
        let shards = |state: &str| {
            parse_text(&format!(
                "[[shards]]\nname = \"s1\"\nid = 1\nregion = \"r\"\nrelease = \"release-1\"\naddress = \"10.0.0.1:80\"\nstate = \"{state}\"\nweight = 10\n"
            ))
            .unwrap()
        };
        let (mut publisher, handle) = Publisher::new("test", shards("ready"));
        let name = ShardName::parse("s1").unwrap();
        let now = |handle: &DiscoveryHandle| {
            let shard = Arc::clone(handle.current().shard("s1").unwrap());
            (shard.state, shard.weight)
        };
        assert!(matches!(handle.order(&name, Order::State(ShardState::Drain)), Ok(Published::Changed(_))));
        assert_eq!(handle.order(&name, Order::State(ShardState::Drain)), Ok(Published::Unchanged));
        handle.order(&name, Order::Weight(3)).unwrap();
        assert_eq!((now(&handle), handle.current().version()), ((ShardState::Drain, 3), 3));
        // The strictest wins, and the source does not undo what was commanded.
        publisher.publish(shards("maint"));
        assert_eq!(now(&handle), (ShardState::Maint, 3));
        publisher.publish(shards("drain"));
        assert_eq!(publisher.publish(shards("ready")), Published::Unchanged, "drain is commanded");
        handle.order(&name, Order::State(ShardState::Ready)).unwrap();
        assert_eq!(now(&handle), (ShardState::Ready, 3));
        handle.order(&name, Order::SourceWeight).unwrap();
        assert_eq!((now(&handle), handle.command(&name)), ((ShardState::Ready, 10), None));
        let other = ShardName::parse("s2").unwrap();
        assert_eq!(
            handle.order(&other, Order::State(ShardState::Maint)),
            Err(OrderError::Unknown { shard: other })
        );
        assert_eq!(handle.order(&name, Order::Weight(257)), Err(OrderError::Weight { weight: 257 }));
    }

    /// A consumer that holds a snapshot and asks for the status waits for nobody, although a newer one is being published.
    #[test]
    fn who_holds_a_snapshot_may_ask() {
        let (mut publisher, handle) = Publisher::new("test", Snapshot::default());
        let changes = handle.subscribe();
        let held = changes.borrow();
        let publishing = std::thread::spawn(move || {
            publisher.publish(parse_text("live_release = \"release-1\"").unwrap());
            publisher
        });
        let (asked, answered) = std::sync::mpsc::channel();
        let asking = handle.clone();
        std::thread::spawn(move || {
            while asking.status().changes == 0 {
                std::thread::yield_now();
            }
            asked.send(asking.command(&ShardName::parse("s1").unwrap()))
        });
        assert_eq!(
            answered.recv_timeout(Duration::from_secs(10)),
            Ok(None),
            "the status waits for the snapshot"
        );
        assert_eq!(held.version(), 1);
        drop(held);
        let publisher = publishing.join().unwrap();
        assert_eq!(handle.current().version(), 2);
        drop(publisher);
        assert!(handle.subscribe().has_changed().is_err(), "it has gone");
    }

    #[test]
    fn that_there_is_nothing_is_news_when_nothing_was_known() {
        let (mut publisher, handle) = Publisher::begin("Consul", Snapshot::default(), Origin::Nothing);
        let mut changes = handle.subscribe();
        changes.borrow_and_update();
        assert_eq!(publisher.publish(Snapshot::default()), Published::Unchanged);
        assert!(changes.has_changed().unwrap() && handle.status().origin == Origin::Source);
        changes.borrow_and_update();
        publisher.publish(Snapshot::default());
        assert!(!changes.has_changed().unwrap());
    }

    #[test]
    fn a_source_of_several_lists_is_as_good_as_its_best() {
        let (mut publisher, handle) = Publisher::new("Consul", Snapshot::default());
        let at = Instant::now() + Duration::from_secs(5);
        let part =
            |last_good| PartStatus { name: String::new(), role: PartRole::Policy, last_good, error: None };
        publisher.note(vec![part(None), part(Some(at))], 0);
        publisher.refuse("gone");
        publisher.publish(Snapshot::default());
        assert_eq!(handle.status().last_good, at);
        assert_eq!(publisher.refuse("gone"), Refused::AsBefore, "a snapshot of the others does not end it");
        publisher.confirm();
        assert_eq!((handle.status().last_good, handle.status().last_error), (at, None));
    }

    #[test]
    fn silence_makes_policy_stale() {
        let (mut publisher, handle) = Publisher::begin("Consul", Snapshot::default(), Origin::Nothing);
        let began = Instant::now();
        let later = |seconds| began + Duration::from_secs(seconds);
        assert!(handle.status().stale(began).is_some());
        publisher.publish(Snapshot::default());
        let part = |role, name: &str, last_good, error: Option<&str>| PartStatus {
            name: name.to_owned(),
            role,
            last_good,
            error: error.map(str::to_owned),
        };
        let parts = vec![
            part(PartRole::Policy, "keys releases", Some(began), None),
            part(PartRole::Policy, "keys bans", Some(later(20)), Some("gone")),
            part(PartRole::Services, "shards of east", None, None),
        ];
        publisher.note(parts, 0);
        assert_eq!(handle.status().stale(later(30)), None);
        let stale = handle.status().stale(later(31)).unwrap();
        assert_eq!(stale, "keys releases last heard of 31s ago");
        publisher.note(vec![part(PartRole::Policy, "keys bans", None, Some("gone"))], 0);
        assert_eq!(handle.status().stale(later(31)).unwrap(), "keys bans never answered: gone");
        // A file is stale while it cannot be read.
        let (mut publisher, handle) = Publisher::new("d.toml", Snapshot::default());
        let long_after = Instant::now() + Duration::from_secs(60);
        assert_eq!(handle.status().stale(long_after), None);
        publisher.refuse("broken");
        assert!(handle.status().stale(long_after).unwrap().ends_with("ago: broken"));
        let disk = Origin::Disk { age: Duration::from_secs(9) };
        let (_publisher, handle) = Publisher::begin("Consul", Snapshot::default(), disk);
        assert_eq!(handle.status().stale(began).unwrap(), "kept on disk, 9s old at the start");
    }

    #[test]
    fn an_error_is_news_once() {
        let (mut publisher, handle) = Publisher::new("test", Snapshot::default());
        assert_eq!(publisher.refuse("gone"), Refused::New);
        assert_eq!(publisher.refuse("gone"), Refused::AsBefore);
        assert_eq!(publisher.refuse("broken"), Refused::New);
        let status = handle.status();
        assert_eq!((status.refused, status.last_error.as_deref()), (2, Some("broken")));
        publisher.confirm();
        assert_eq!(handle.status().last_error, None);
        assert_eq!(publisher.refuse("broken"), Refused::New);
    }

    #[test]
    fn a_fixed_handle_outlives_its_publisher() {
        let handle = DiscoveryHandle::fixed(parse_text("live_release = \"release-1\"").unwrap());
        assert_eq!(handle.current().live_release().unwrap().as_str(), "release-1");
    }
}
