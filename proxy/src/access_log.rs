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
use crate::rescue::Termination;
use std::fs::{File, Metadata, OpenOptions};
use std::io::{self, Write};
use std::net::SocketAddr;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};
use tokio::sync::oneshot;

mod line;
pub(crate) use line::{Line, Request, Size};

/// A buffer is handed on when it has so many bytes, and every second.
const BUFFER_BYTES: usize = 32 * 1024;
/// Buffers on their way to the writer, of all workers: 8 MiB.
const BUFFERS_MAX: usize = 256;
/// How often it is looked whether the file was moved away; together with a buffer's way it takes two seconds at most.
const LOOK_EVERY: Duration = Duration::from_millis(900);
/// How long the end of the process waits for what is still to be written.
const FINISH_MAX: Duration = Duration::from_secs(2);

/// Where the access log goes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum AccessLogTarget {
    /// Nowhere.
    Off,
    /// Standard output.
    Stdout,
    /// Appended to a file.
    File(PathBuf),
}

/// Why the access log cannot be written.
#[derive(Debug, thiserror::Error)]
pub enum AccessLogError {
    /// The file cannot be opened.
    #[error("access log {path} cannot be opened for appending")]
    Open {
        /// The file.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
    /// The writer's thread cannot be started.
    #[error("the access log's thread cannot be started")]
    Thread(#[source] io::Error),
}

/// The writer thread; it ends when the last [`AccessLog`] is gone.
#[derive(Debug)]
pub(crate) struct LogWriter {
    sender: Option<SyncSender<Vec<u8>>>,
    thread: Option<(JoinHandle<()>, oneshot::Receiver<()>)>,
}

impl LogWriter {
    pub(crate) fn start(target: &AccessLogTarget) -> Result<Self, AccessLogError> {
        let sink: Box<dyn Write + Send> = match target {
            AccessLogTarget::Off => return Ok(Self { sender: None, thread: None }),
            AccessLogTarget::Stdout => Box::new(io::stdout()),
            AccessLogTarget::File(path) => Box::new(LogFile::open(path)?),
        };
        let (sender, receiver) = sync_channel(BUFFERS_MAX);
        let (end, ended) = oneshot::channel();
        let thread = std::thread::Builder::new()
            .name("access-log".to_owned())
            .spawn(move || {
                write_all(&receiver, sink);
                // Whoever stops the node may have given up.
                let _told: Result<(), ()> = end.send(());
            })
            .map_err(AccessLogError::Thread)?;
        Ok(Self { sender: Some(sender), thread: Some((thread, ended)) })
    }

    /// A worker's end.
    pub(crate) fn log(&self) -> AccessLog {
        AccessLog { buffer: Vec::new(), lines: 0, sender: self.sender.clone() }
    }

    /// Waits until everything that was handed on is written; the workers' ends must be gone.
    ///
    /// A sink that takes nothing, such as a pipe whose reader has stopped, is not waited for longer than [`FINISH_MAX`].
    pub(crate) async fn finish(mut self) {
        self.sender = None;
        let Some((thread, ended)) = self.thread.take() else { return };
        if tokio::time::timeout(FINISH_MAX, ended).await.is_err() {
            tracing::error!("the access log takes nothing any more, its last lines are lost");
        } else if thread.join().is_err() {
            tracing::error!("the access log's thread panicked");
        }
    }
}

/// A file that may be moved away: where its path names another one, or none, that is gone on with. So logrotate has to tell nobody.
struct LogFile {
    path: PathBuf,
    file: File,
    looked: Instant,
}

impl LogFile {
    fn open(path: &Path) -> Result<Self, AccessLogError> {
        let file = append(path).map_err(|source| AccessLogError::Open { path: path.to_owned(), source })?;
        Ok(Self { path: path.to_owned(), file, looked: Instant::now() })
    }

    fn is_moved(&self) -> bool {
        let identity = |metadata: &Metadata| (metadata.dev(), metadata.ino());
        let ours = self.file.metadata().ok();
        ours.as_ref().map(identity) != std::fs::metadata(&self.path).ok().as_ref().map(identity)
    }
}

impl Write for LogFile {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.file.write(bytes)
    }

    /// The end of a buffer, which is whole lines.
    fn flush(&mut self) -> io::Result<()> {
        if self.looked.elapsed() >= LOOK_EVERY {
            self.looked = Instant::now();
            if self.is_moved() {
                self.file = append(&self.path)?;
            }
        }
        Ok(())
    }
}

fn append(path: &Path) -> io::Result<File> {
    OpenOptions::new().create(true).append(true).open(path)
}

fn write_all(buffers: &Receiver<Vec<u8>>, mut sink: Box<dyn Write + Send>) {
    let mut failing = false;
    for buffer in buffers {
        let failed = sink.write_all(&buffer).and_then(|()| sink.flush());
        match failed {
            Ok(()) => failing = false,
            // Once per trouble, not once per buffer.
            Err(error) if !failing => {
                failing = true;
                tracing::warn!(%error, "access log cannot be written");
            }
            Err(_) => {}
        }
    }
}

/// A worker's buffer.
#[derive(Debug)]
pub(crate) struct AccessLog {
    buffer: Vec<u8>,
    lines: u64,
    sender: Option<SyncSender<Vec<u8>>>,
}

impl AccessLog {
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_that_was_moved_is_gone_on_with_under_its_path() {
        let folder = tempfile::tempdir().unwrap();
        let (path, moved) = (folder.path().join("log"), folder.path().join("log.1"));
        let mut log = LogFile::open(&path).unwrap();
        let mut say = |line: &[u8]| {
            log.looked -= LOOK_EVERY;
            log.write_all(line).and_then(|()| log.flush()).unwrap();
        };
        say(b"one\n");
        std::fs::rename(&path, &moved).unwrap();
        say(b"two\n");
        say(b"three\n");
        assert_eq!(std::fs::read(&moved).unwrap(), b"one\ntwo\n");
        assert_eq!(std::fs::read(&path).unwrap(), b"three\n");
        // Its name is another file's by now.
        std::fs::rename(&moved, &path).unwrap();
        say(b"four\n");
        say(b"five\n");
        assert_eq!(std::fs::read(&path).unwrap(), b"one\ntwo\nfive\n");
    }
}
