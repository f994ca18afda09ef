//! Logs of lines, the access log and the audit log: whole buffers go to one writer thread each, so a slow disk delays nobody. What the writer
//! has no room for is lost, and whoever handed it on is told.

use std::fs::{File, Metadata, OpenOptions};
use std::io::{self, Stdout, Write as _};
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};
use tokio::sync::oneshot;

/// Buffers on their way to the writer: 8 MiB of a worker's.
const BUFFERS_MAX: usize = 256;
/// How often it is looked whether the file was moved away; together with a buffer's way it takes two seconds at most.
const LOOK_EVERY: Duration = Duration::from_millis(900);
/// How long the end of the process waits for what is still to be written.
const FINISH_MAX: Duration = Duration::from_secs(2);

/// Where a log goes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LogTarget {
    /// Nowhere.
    Off,
    /// Standard output.
    Stdout,
    /// Appended to a file.
    File(PathBuf),
}

/// Which log it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LogKind {
    /// A line for each request.
    Access,
    /// A line for each order.
    Audit,
}

impl LogKind {
    /// What it is called.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Access => "access log",
            Self::Audit => "audit log",
        }
    }

    const fn thread(self) -> &'static str {
        match self {
            Self::Access => "access-log",
            Self::Audit => "audit-log",
        }
    }

    /// Who may read a file that is made: names of orders' authors are for those who run the node.
    const fn mode(self) -> u32 {
        match self {
            Self::Access => 0o666,
            Self::Audit => 0o600,
        }
    }
}

/// Why a log cannot be written.
#[derive(Debug, thiserror::Error)]
pub enum LogError {
    /// The file cannot be opened.
    #[error("{} {} cannot be opened for appending", log.as_str(), path.display())]
    Open {
        /// Which log.
        log: LogKind,
        /// The file.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
    /// The writer's thread cannot be started.
    #[error("the {}'s thread cannot be started", log.as_str())]
    Thread {
        /// Which log.
        log: LogKind,
        /// What the system says.
        source: io::Error,
    },
}

/// The writer thread; it ends when the last sender is gone.
#[derive(Debug)]
pub(crate) struct LogWriter {
    log: LogKind,
    sender: Option<SyncSender<Vec<u8>>>,
    unwritten: Arc<AtomicU64>,
    thread: Option<(JoinHandle<()>, oneshot::Receiver<()>)>,
}

impl LogWriter {
    pub(crate) fn start(log: LogKind, target: &LogTarget) -> Result<Self, LogError> {
        let unwritten = Arc::new(AtomicU64::new(0));
        let sink = match target {
            LogTarget::Off => return Ok(Self { log, sender: None, unwritten, thread: None }),
            LogTarget::Stdout => Sink::Stdout(io::stdout()),
            LogTarget::File(path) => {
                let opened = LogFile::open(log, path);
                let failed = |source| LogError::Open { log, path: path.clone(), source };
                Sink::File(opened.map_err(failed)?)
            }
        };
        let (sender, receiver) = sync_channel(BUFFERS_MAX);
        let (end, ended) = oneshot::channel();
        let count = Arc::clone(&unwritten);
        let thread = std::thread::Builder::new()
            .name(log.thread().to_owned())
            .spawn(move || {
                write_all(log, &receiver, sink, &count);
                // Whoever stops the node may have given up.
                let _told: Result<(), ()> = end.send(());
            })
            .map_err(|source| LogError::Thread { log, source })?;
        Ok(Self { log, sender: Some(sender), unwritten, thread: Some((thread, ended)) })
    }

    /// Takes buffers of whole lines; `None` when the log is off.
    pub(crate) fn sender(&self) -> Option<SyncSender<Vec<u8>>> {
        self.sender.clone()
    }

    /// Lines that were handed on, and could not be written where they belong.
    pub(crate) fn unwritten(&self) -> Arc<AtomicU64> {
        Arc::clone(&self.unwritten)
    }

    /// Waits until everything that was handed on is written; the others' senders must be gone.
    ///
    /// A sink that takes nothing, such as a pipe whose reader has stopped, is not waited for longer than [`FINISH_MAX`].
    pub(crate) async fn finish(mut self) {
        self.sender = None;
        let log = self.log.as_str();
        let Some((thread, ended)) = self.thread.take() else { return };
        if tokio::time::timeout(FINISH_MAX, ended).await.is_err() {
            tracing::error!("the {log} takes nothing any more, its last lines are lost");
        } else if thread.join().is_err() {
            tracing::error!("the {log}'s thread panicked");
        }
    }
}

/// What is written to.
enum Sink {
    Stdout(Stdout),
    File(LogFile),
}

impl Sink {
    fn append(&mut self, lines: &[u8]) -> io::Result<()> {
        match self {
            Self::Stdout(out) => out.write_all(lines).and_then(|()| out.flush()),
            Self::File(file) => file.append(lines),
        }
    }
}

/// A file that may be moved away: where its path names another one, or none, that is gone on with. So logrotate has to tell nobody.
struct LogFile {
    log: LogKind,
    path: PathBuf,
    file: File,
    looked: Instant,
}

impl LogFile {
    fn open(log: LogKind, path: &Path) -> io::Result<Self> {
        Ok(Self { log, path: path.to_owned(), file: open(log, path)?, looked: Instant::now() })
    }

    /// Appends whole lines. Where the path cannot be opened any more they go where the last ones went, which is an error too.
    fn append(&mut self, lines: &[u8]) -> io::Result<()> {
        let followed = self.follow();
        self.file.write_all(lines)?;
        followed
    }

    /// Looks before it is written: after a long silence nothing goes into a file that was moved away.
    fn follow(&mut self) -> io::Result<()> {
        if self.looked.elapsed() >= LOOK_EVERY {
            self.looked = Instant::now();
            if self.is_moved() {
                self.file = open(self.log, &self.path)?;
            }
        }
        Ok(())
    }

    fn is_moved(&self) -> bool {
        let identity = |metadata: &Metadata| (metadata.dev(), metadata.ino());
        let ours = self.file.metadata().ok();
        ours.as_ref().map(identity) != std::fs::metadata(&self.path).ok().as_ref().map(identity)
    }
}

fn open(log: LogKind, path: &Path) -> io::Result<File> {
    OpenOptions::new().create(true).append(true).mode(log.mode()).open(path)
}

fn write_all(log: LogKind, buffers: &Receiver<Vec<u8>>, mut sink: Sink, unwritten: &AtomicU64) {
    let mut failing = false;
    for mut buffer in buffers {
        let lines = buffer.iter().filter(|byte| **byte == b'\n').count();
        if failing {
            // What failed may stand there in part: the next line begins for itself.
            buffer.insert(0, b'\n');
        }
        match sink.append(&buffer) {
            Ok(()) => failing = false,
            Err(error) => {
                unwritten.fetch_add(lines as u64, Ordering::Relaxed);
                // Once per trouble, not once per buffer.
                if !failing {
                    tracing::error!(%error, "the {} cannot be written", log.as_str());
                }
                failing = true;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_that_was_moved_is_gone_on_with_under_its_path() {
        let folder = tempfile::tempdir().unwrap();
        let (path, moved) = (folder.path().join("log"), folder.path().join("log.1"));
        let mut log = LogFile::open(LogKind::Access, &path).unwrap();
        let mut say = |line: &[u8]| {
            log.looked -= LOOK_EVERY;
            log.append(line).unwrap();
        };
        say(b"one\n");
        std::fs::rename(&path, &moved).unwrap();
        say(b"two\n");
        say(b"three\n");
        assert_eq!(std::fs::read(&moved).unwrap(), b"one\n");
        assert_eq!(std::fs::read(&path).unwrap(), b"two\nthree\n");
        // Its name is another file's by now.
        std::fs::rename(&moved, &path).unwrap();
        say(b"four\n");
        assert_eq!(std::fs::read(&path).unwrap(), b"one\nfour\n");
    }

    #[tokio::test]
    async fn lines_that_a_full_disk_does_not_take_are_counted() {
        let writer = LogWriter::start(LogKind::Audit, &LogTarget::File("/dev/full".into())).unwrap();
        let unwritten = writer.unwritten();
        writer.sender().unwrap().send(b"one\ntwo\n".to_vec()).unwrap();
        writer.sender().unwrap().send(b"three\n".to_vec()).unwrap();
        writer.finish().await;
        assert_eq!(unwritten.load(Ordering::Relaxed), 3);
    }

    #[test]
    fn a_file_that_is_made_is_for_whom_it_is() {
        use std::os::unix::fs::PermissionsExt as _;
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("audit.log");
        drop(LogFile::open(LogKind::Audit, &path).unwrap());
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
    }
}
