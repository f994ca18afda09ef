//! Frames on their way to one peer, in three lanes that do not wait for each other.

use std::sync::Arc;

use bytes::Bytes;
use shardgate_peering_core::{Lane, Message};
use tokio::sync::{mpsc, watch};

use crate::codec;
use crate::counters::LinkEnd;

/// Frames that may wait on the ordered lane: some seconds of a busy mesh. At the bound the connection ends and reconciliation follows.
const CONTROL_MAX: usize = 8_192;
/// Questions, answers and gifts; the core's windows keep far below it.
const BULK_MAX: usize = 1_024;
/// Claims and answers.
const CLAIMS_MAX: usize = 8_192;

/// The driver's side.
#[derive(Debug, Clone)]
pub(crate) struct Outbox {
    control: mpsc::Sender<Bytes>,
    bulk: mpsc::Sender<Bytes>,
    claims: mpsc::Sender<Bytes>,
    close: Arc<watch::Sender<Option<LinkEnd>>>,
}

/// The connection's side.
#[derive(Debug)]
pub(crate) struct Lanes {
    pub(crate) control: mpsc::Receiver<Bytes>,
    pub(crate) bulk: mpsc::Receiver<Bytes>,
    pub(crate) claims: mpsc::Receiver<Bytes>,
    pub(crate) close: watch::Receiver<Option<LinkEnd>>,
}

/// A lane is full, or the connection is gone.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Full;

impl Outbox {
    pub(crate) fn new() -> (Self, Lanes) {
        let (control, control_out) = mpsc::channel(CONTROL_MAX);
        let (bulk, bulk_out) = mpsc::channel(BULK_MAX);
        let (claims, claims_out) = mpsc::channel(CLAIMS_MAX);
        let (close, close_out) = watch::channel(None);
        let outbox = Self { control, bulk, claims, close: Arc::new(close) };
        (outbox, Lanes { control: control_out, bulk: bulk_out, claims: claims_out, close: close_out })
    }

    /// Encodes and queues a message; never waits.
    pub(crate) fn send(&self, message: &Message) -> Result<(), Full> {
        let lane = match message.lane() {
            Lane::Control => &self.control,
            Lane::Bulk => &self.bulk,
            Lane::Claims => &self.claims,
        };
        match lane.try_send(codec::encode(message)) {
            // A closed lane is a connection that has just ended; its end is on its way to the driver.
            Ok(()) | Err(mpsc::error::TrySendError::Closed(_)) => Ok(()),
            Err(mpsc::error::TrySendError::Full(_)) => Err(Full),
        }
    }

    pub(crate) fn close(&self, end: LinkEnd) {
        self.close.send_replace(Some(end));
    }
}
