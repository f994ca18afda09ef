//! How many connections one listener has open at once, over all workers.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use tokio::sync::Notify;

/// The places of one listener; its sockets in all workers share them.
#[derive(Debug)]
pub(crate) struct Seats {
    max: AtomicUsize,
    taken: AtomicUsize,
    freed: Notify,
}

impl Seats {
    pub(crate) fn new(max: usize) -> Arc<Self> {
        Arc::new(Self { max: AtomicUsize::new(max), taken: AtomicUsize::new(0), freed: Notify::new() })
    }

    /// There are more or fewer from now on; who has one keeps it.
    pub(crate) fn change(&self, max: usize) {
        if self.max.swap(max, Ordering::AcqRel) != max {
            self.freed.notify_waiters();
        }
    }

    /// Waits while all are taken. The next [`Self::take`] may have to wait all the same: another worker may be faster.
    pub(crate) async fn room(&self) {
        loop {
            // Made before the look: it hears of every seat that is freed from here on.
            let freed = self.freed.notified();
            if self.taken.load(Ordering::Acquire) < self.max.load(Ordering::Acquire) {
                return;
            }
            freed.await;
        }
    }

    /// Takes a seat, waited for if need be.
    pub(crate) async fn take(self: &Arc<Self>) -> Seat {
        loop {
            if let Some(seat) = self.try_take() {
                return seat;
            }
            self.room().await;
        }
    }

    /// Takes a seat, if there is one.
    pub(crate) fn try_take(self: &Arc<Self>) -> Option<Seat> {
        let below_max = |taken| (taken < self.max.load(Ordering::Acquire)).then_some(taken + 1);
        let taken = self.taken.fetch_update(Ordering::AcqRel, Ordering::Acquire, below_max);
        taken.is_ok().then(|| Seat(Arc::clone(self)))
    }
}

/// A connection's seat, given back when it is dropped.
#[derive(Debug)]
pub(crate) struct Seat(Arc<Seats>);

impl Drop for Seat {
    fn drop(&mut self) {
        if self.0.taken.fetch_sub(1, Ordering::AcqRel) >= self.0.max.load(Ordering::Acquire) {
            self.0.freed.notify_waiters();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::pin::pin;
    use std::task::{Context, Waker};
    use std::time::Duration;
    use tokio::time::timeout;

    fn is_ready(future: impl Future) -> bool {
        pin!(future).poll(&mut Context::from_waker(Waker::noop())).is_ready()
    }

    #[tokio::test]
    async fn seats_are_waited_for() {
        let seats = Seats::new(2);
        let (first, _second) = (seats.take().await, seats.take().await);
        assert!(!is_ready(seats.room()) && !is_ready(seats.take()));
        let waiting = {
            let seats = Arc::clone(&seats);
            tokio::spawn(async move { seats.take().await })
        };
        tokio::task::yield_now().await;
        drop(first);
        let third = timeout(Duration::from_secs(10), waiting).await.unwrap().unwrap();
        assert!(!is_ready(seats.room()));
        drop(third);
        assert!(is_ready(seats.room()));
    }

    #[test]
    fn no_seat_is_lost_across_threads() {
        let seats = Seats::new(2);
        let threads: Vec<_> = (0..4)
            .map(|_| {
                let seats = Arc::clone(&seats);
                std::thread::spawn(move || {
                    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
                    runtime.block_on(async {
                        for _ in 0..5_000 {
                            seats.room().await;
                            let _seat = seats.take().await;
                            tokio::task::yield_now().await;
                        }
                    });
                })
            })
            .collect();
        for thread in threads {
            thread.join().unwrap();
        }
        assert_eq!(seats.taken.load(Ordering::SeqCst), 0);
    }
}
