//! One line for each request and each tunnel's end, in the order of HAProxy's `httplog`:
//!
//! ```text
//! 127.0.0.1:40001 [21/Nov/2026:20:43:01.123] http release-1/prod-s1 0/0/1/12/15 200 345 -- entry 0 "GET /http-bind?room=x"
//! client          accept date                frontend release/shard TR/Tw/Tc/Tr/Ta status bytes end why retries request
//! ```
//!
//! Milliseconds: reading the head, waiting for the key's home and for a place at the shard, connecting, waiting for the answer's
//! head, all; -1 where it did not come so far. Bytes are those of the answer's body (of a tunnel: both ways, `up+down`). A line is built in its worker's
//! buffer; whole buffers go to one writer thread, so a slow disk delays no request: what it cannot take is lost, and counted.

use crate::clock::Millis;
use crate::log_writer::LogWriter;
use crate::rescue::Termination;
use std::net::SocketAddr;
use std::sync::mpsc::{SyncSender, TrySendError};

mod line;
pub(crate) use line::{Line, Request, Size};

/// A buffer is handed on when it has so many bytes, and every second.
const BUFFER_BYTES: usize = 32 * 1024;

/// A worker's buffer.
#[derive(Debug)]
pub(crate) struct AccessLog {
    buffer: Vec<u8>,
    lines: u64,
    sender: Option<SyncSender<Vec<u8>>>,
}

impl AccessLog {
    /// A worker's end of the log.
    pub(crate) fn of(writer: &LogWriter) -> Self {
        Self { buffer: Vec::new(), lines: 0, sender: writer.sender() }
    }

    /// Adds a line. Answers how many lines were lost because the writer is behind.
    pub(crate) fn write(&mut self, line: &Line<'_>) -> u64 {
        if self.sender.is_none() {
            return 0;
        }
        if self.buffer.capacity() == 0 {
            self.buffer.reserve_exact(BUFFER_BYTES + 4096);
        }
        line.write(&mut self.buffer);
        self.lines += 1;
        if self.buffer.len() >= BUFFER_BYTES { self.flush() } else { 0 }
    }

    /// Hands the buffer on. Answers how many lines were lost.
    pub(crate) fn flush(&mut self) -> u64 {
        let Some(sender) = self.sender.as_ref().filter(|_| !self.buffer.is_empty()) else { return 0 };
        let lines = std::mem::take(&mut self.lines);
        match sender.try_send(std::mem::take(&mut self.buffer)) {
            Ok(()) => 0,
            Err(TrySendError::Full(mut buffer) | TrySendError::Disconnected(mut buffer)) => {
                buffer.clear();
                self.buffer = buffer;
                lines
            }
        }
    }
}

/// How long the parts of a request took; `None` where it did not come so far.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Timers {
    /// Reading the head.
    pub(crate) head: Millis,
    /// Waiting for the key's home.
    pub(crate) claim: Option<Millis>,
    /// Connecting to the shard.
    pub(crate) connect: Option<Millis>,
    /// Waiting for the answer's head.
    pub(crate) answer: Option<Millis>,
    /// All of it.
    pub(crate) all: Millis,
}

/// The client's side of a line.
#[derive(Debug, Clone, Copy)]
pub(crate) struct From<'a> {
    pub(crate) client: SocketAddr,
    pub(crate) frontend: &'a str,
    /// Unix time in milliseconds.
    pub(crate) at: u64,
}

/// How it ended.
#[derive(Debug, Clone, Copy)]
pub(crate) struct End {
    /// 0 when none was sent.
    pub(crate) status: u16,
    pub(crate) termination: Termination,
}
