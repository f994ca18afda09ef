//! What an attacker does and what comes of it, counted; and how fast it may.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::future::Future;
use std::pin::Pin;
use std::rc::Rc;
use std::time::Duration;

use tokio::time::{Instant, sleep_until};

use super::dial::Dialer;

/// Numbers by what they count.
pub(super) type Counts = BTreeMap<&'static str, u64>;

/// What was done and what came of it.
#[derive(Debug, Default, Clone)]
pub(super) struct Tally {
    pub(super) sent: Counts,
    pub(super) seen: Counts,
}

/// An attack under way: what all its connections share.
pub(super) struct Attacker {
    pub(super) dialer: Dialer,
    tally: RefCell<Tally>,
    until: Instant,
}

/// What an attack is: it runs until its time is over, and holds its connections as long as it is not dropped.
pub(super) type Attack = Pin<Box<dyn Future<Output = ()>>>;

impl Attacker {
    pub(super) fn new(dialer: Dialer, length: Duration) -> Rc<Self> {
        Rc::new(Self { dialer, tally: RefCell::default(), until: Instant::now() + length })
    }

    pub(super) fn sent(&self, what: &'static str, many: u64) {
        *self.tally.borrow_mut().sent.entry(what).or_default() += many;
    }

    pub(super) fn seen(&self, what: &'static str, many: u64) {
        *self.tally.borrow_mut().seen.entry(what).or_default() += many;
    }

    pub(super) fn tally(&self) -> Tally {
        self.tally.borrow().clone()
    }

    pub(super) fn is_over(&self) -> bool {
        Instant::now() >= self.until
    }

    /// Waits until the attack is over.
    pub(super) async fn end(&self) {
        sleep_until(self.until).await;
    }
}

/// Lets through so many a second: an attacker that takes a whole core measures the machine, not the node.
pub(super) struct Pace {
    began: Instant,
    per_second: f64,
    taken: Cell<f64>,
}

impl Pace {
    pub(super) fn per_second(per_second: u32) -> Rc<Self> {
        Rc::new(Self { began: Instant::now(), per_second: f64::from(per_second), taken: Cell::new(0.0) })
    }

    /// Waits for the turn of `many`.
    pub(super) async fn take(&self, many: u32) {
        let due = self.began + Duration::from_secs_f64(self.taken.get() / self.per_second);
        self.taken.set(self.taken.get() + f64::from(many));
        sleep_until(due).await;
    }
}
