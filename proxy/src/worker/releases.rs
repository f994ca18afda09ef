//! What sessions hold and have released, on its way to the table: their ends cannot wait, and the table may have to be waited for.

use crate::sessions::{HoldChange, Table};
use shardgate_peering::TableHandle;
use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::rc::Rc;
use tokio::sync::Notify;

/// So many changes wait when the table is behind: BOSH sessions that are new are not counted, and known ones stay where they are, until it has caught up.
const BEHIND: usize = 16_384;

/// The queue. Its bound is [`BEHIND`] and the number of sessions that a worker can have: no release is ever lost, or its entry would be
/// held for ever.
#[derive(Debug, Default)]
pub(super) struct Releases {
    queue: RefCell<VecDeque<HoldChange>>,
    more: Notify,
    closed: Cell<bool>,
}

impl Releases {
    pub(super) fn push(&self, change: HoldChange) {
        self.queue.borrow_mut().push_back(change);
        self.more.notify_one();
    }

    /// Whether the table can be told of anything new.
    pub(super) fn state(&self) -> Table {
        if self.queue.borrow().len() < BEHIND { Table::Listens } else { Table::Behind }
    }

    /// Nothing more will come.
    pub(super) fn close(&self) {
        self.closed.set(true);
        self.more.notify_one();
    }

    async fn next(&self) -> Option<HoldChange> {
        loop {
            let change = self.queue.borrow_mut().pop_front();
            if change.is_some() || self.closed.get() {
                return change;
            }
            self.more.notified().await;
        }
    }
}

/// Tells the table in the order in which sessions began and ended, until the queue is closed and empty.
pub(super) async fn tell(worker: Rc<super::Worker>, table: TableHandle) {
    while let Some(change) = worker.releases.next().await {
        match change {
            HoldChange::Taken(key, shard) => table.session_opened(key, shard).await,
            HoldChange::Released(key, shard) => table.session_closed(key, shard).await,
        }
    }
}
