//! Messages on their way to one peer, in two lanes that do not wait for each other.

use std::sync::Arc;

use shardgate_peering_core::{Lane, Message};
use tokio::sync::{mpsc, watch};

use crate::counters::LinkEnd;

/// Messages that may wait on the ordered lane: some seconds of a busy mesh. At the bound the connection ends and reconciliation follows. It
/// takes what the core sends at once after a break, its window of updates even in messages of one item each, or the next connection would end as
/// the one before.
const CONTROL_MAX: usize = 16_384;
/// Questions, answers and gifts; the core's windows keep far below it.
const BULK_MAX: usize = 1_024;

/// The driver's side.
#[derive(Debug, Clone)]
pub(crate) struct Outbox {
    control: mpsc::Sender<Message>,
    bulk: mpsc::Sender<Message>,
    close: Arc<watch::Sender<Option<LinkEnd>>>,
}

/// The connection's side.
#[derive(Debug)]
pub(crate) struct Lanes {
    pub(crate) control: mpsc::Receiver<Message>,
    pub(crate) bulk: mpsc::Receiver<Message>,
    pub(crate) close: watch::Receiver<Option<LinkEnd>>,
}

/// A lane is full, or the connection is gone.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Full;

impl Outbox {
    pub(crate) fn new() -> (Self, Lanes) {
        let (control, control_out) = mpsc::channel(CONTROL_MAX);
        let (bulk, bulk_out) = mpsc::channel(BULK_MAX);
        let (close, close_out) = watch::channel(None);
        let outbox = Self { control, bulk, close: Arc::new(close) };
        (outbox, Lanes { control: control_out, bulk: bulk_out, close: close_out })
    }

    /// Queues a message; never waits. Claims travel with what is ordered: a packet that carries both costs less than two.
    pub(crate) fn send(&self, message: Message) -> Result<(), Full> {
        let lane = match message.lane() {
            Lane::Control | Lane::Claims => &self.control,
            Lane::Bulk => &self.bulk,
        };
        match lane.try_send(message) {
            // A closed lane is a connection that has just ended; its end is on its way to the driver.
            Ok(()) | Err(mpsc::error::TrySendError::Closed(_)) => Ok(()),
            Err(mpsc::error::TrySendError::Full(_)) => Err(Full),
        }
    }

    pub(crate) fn close(&self, end: LinkEnd) {
        self.close.send_replace(Some(end));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use shardgate_peering_core::{Config, PeerId};

    #[test]
    fn an_outbox_takes_what_the_core_sends_before_it_waits() {
        let config = Config::new(PeerId::parse("a").unwrap(), 1);
        // Claims that were under way when the connection ended, and lone decisions that are claimed late.
        let claims = 2 * config.claims_max as u64;
        assert!(CONTROL_MAX as u64 >= config.window_items + claims);
        // A question or an answer beside each gift.
        assert!(BULK_MAX as u64 >= 2 * config.gives_window);
    }
}
