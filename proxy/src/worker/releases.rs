//! What tunnels have released, on its way to the table: a tunnel's end cannot wait, the table may have to be waited for.

use shardgate_peering::TableHandle;
use shardgate_peering_core::{ShardName, StickKey};
use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::rc::Rc;
use tokio::sync::Notify;

/// An entry that is held by one tunnel less.
pub(super) type Released = (StickKey, ShardName);

/// The queue. Its bound is the number of tunnels that a worker can have: none is ever lost, or the entry would be held for ever.
#[derive(Debug, Default)]
pub(super) struct Releases {
    queue: RefCell<VecDeque<Released>>,
    more: Notify,
    closed: Cell<bool>,
}

impl Releases {
    pub(super) fn push(&self, released: Released) {
        self.queue.borrow_mut().push_back(released);
        self.more.notify_one();
    }

    /// Nothing more will come.
    pub(super) fn close(&self) {
        self.closed.set(true);
        self.more.notify_one();
    }

    async fn next(&self) -> Option<Released> {
        loop {
            let released = self.queue.borrow_mut().pop_front();
            if released.is_some() || self.closed.get() {
                return released;
            }
            self.more.notified().await;
        }
    }
}

/// Tells the table in the order in which tunnels ended, until the queue is closed and empty.
pub(super) async fn tell(worker: Rc<super::Worker>, table: TableHandle) {
    while let Some((key, shard)) = worker.releases.next().await {
        table.session_closed(key, shard).await;
    }
}
