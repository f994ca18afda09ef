//! The one way from a source to its consumers: whole snapshots, in order, and the state of the source beside them.

use crate::diff::SnapshotDiff;
use crate::snapshot::Snapshot;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;
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
}

/// The consumers' end: the current snapshot, and a way to wait for the next.
#[derive(Debug, Clone)]
pub struct DiscoveryHandle {
    current: watch::Receiver<Arc<Snapshot>>,
    status: Arc<Mutex<SourceStatus>>,
}

impl DiscoveryHandle {
    /// A handle whose snapshot never changes, for a fixed topology.
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
        self.status.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// What became of a snapshot given to [`Publisher::publish`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Published {
    /// It says what the last one said; nobody was woken.
    Unchanged,
    /// It is the current one now.
    Changed(SnapshotDiff),
}

/// The source's end. One owner, so versions grow one by one.
#[derive(Debug)]
pub struct Publisher {
    current: watch::Sender<Arc<Snapshot>>,
    status: Arc<Mutex<SourceStatus>>,
}

impl Publisher {
    /// Publishes `first` as version 1; `source` is what the status calls the source.
    #[must_use]
    pub fn new(source: impl Into<String>, first: Snapshot) -> (Self, DiscoveryHandle) {
        let first = first.with_version(1);
        let status = Arc::new(Mutex::new(SourceStatus {
            source: source.into(),
            version: first.version(),
            last_good: Instant::now(),
            last_error: None,
            changes: 0,
            refused: 0,
        }));
        let (sender, receiver) = watch::channel(Arc::new(first));
        let handle = DiscoveryHandle { current: receiver, status: Arc::clone(&status) };
        (Self { current: sender, status }, handle)
    }

    /// Takes a valid answer of the source; publishes it when it differs from the current one.
    pub fn publish(&mut self, next: Snapshot) -> Published {
        let older = Arc::clone(&self.current.borrow());
        if next.content_equals(&older) {
            self.confirm();
            return Published::Unchanged;
        }
        let diff = next.diff(&older);
        let version = older.version() + 1;
        // The status first: whoever is woken by the snapshot finds it counted.
        self.change(|status| {
            status.version = version;
            status.last_good = Instant::now();
            status.last_error = None;
            status.changes += 1;
        });
        self.current.send_replace(Arc::new(next.with_version(version)));
        Published::Changed(diff)
    }

    /// Notes that the source is well and still says what it said.
    pub fn confirm(&mut self) {
        self.change(|status| {
            status.last_good = Instant::now();
            status.last_error = None;
        });
    }

    /// Notes that the source could not be read or was not believed, and says whether this error is news.
    pub fn refuse(&mut self, error: &str) -> Refused {
        let mut news = Refused::AsBefore;
        self.change(|status| {
            if status.last_error.as_deref() != Some(error) {
                status.last_error = Some(error.to_owned());
                status.refused += 1;
                news = Refused::New;
            }
        });
        news
    }

    fn change(&mut self, change: impl FnOnce(&mut SourceStatus)) {
        change(&mut self.status.lock().unwrap_or_else(PoisonError::into_inner));
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
