//! Watches the file: one owned task looks at it at every period. A poll, no inotify: it also sees what network file systems
//! and bind mounts never announce, and an atomic rename is nothing special to it.

use super::{FileError, FileStamp, parse_bytes, read_bytes};
use crate::publish::{DiscoveryHandle, Published, Publisher, Refused};
use crate::snapshot::Snapshot;
use std::path::{Path, PathBuf};
use std::time::Duration;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;
use tracing::{info, warn};

/// How a file is watched.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FileWatchConfig {
    /// How often the file is looked at. A look is one `stat` as long as nothing changed.
    pub every: Duration,
    /// How long new content has to stay the same before it is believed. An empty file is valid (no shards at all), and every
    /// writer that does not rename makes one for a moment.
    pub settle: Duration,
}

impl Default for FileWatchConfig {
    /// Every 500 ms, below what a person notices and nothing for the system; settled after 100 ms, far above the time
    /// between a writer's truncation and its write.
    fn default() -> Self {
        Self { every: Duration::from_millis(500), settle: Duration::from_millis(100) }
    }
}

/// The watching task. It ends with [`Self::stop`] or when this is dropped; consumers then keep the last snapshot.
#[derive(Debug)]
pub struct FileWatch {
    stop: Option<oneshot::Sender<()>>,
    task: Option<JoinHandle<()>>,
}

impl FileWatch {
    /// Ends the task and waits until it has ended.
    pub async fn stop(mut self) {
        drop(self.stop.take());
        if let Some(task) = self.task.take()
            && let Err(error) = task.await
        {
            warn!(%error, "the watch of the discovery file did not end well");
        }
    }
}

impl Drop for FileWatch {
    fn drop(&mut self) {
        if let Some(task) = &self.task {
            task.abort();
        }
    }
}

/// Reads `path` and watches it from then on. Needs a tokio runtime; reading and parsing happen on its blocking threads.
///
/// # Errors
/// [`FileError`] when the file is not valid now: there is no last good state to go on with.
pub fn watch_file(
    path: impl Into<PathBuf>,
    config: FileWatchConfig,
) -> Result<(DiscoveryHandle, FileWatch), FileError> {
    let path = path.into();
    let stamp = FileStamp::of(&path);
    let bytes = read_bytes(&path)?;
    let first = parse_bytes(&path, &bytes)?;
    let (peers, shards) = (first.peers().len(), first.shards().len());
    info!(file = %path.display(), shards, peers, live_release = ?first.live_release(), "discovery file read");
    for warning in first.warnings() {
        warn!(file = %path.display(), %warning, "discovery file");
    }
    let (publisher, handle) = Publisher::new(path.display().to_string(), first);
    let eye = Eye { path, stamp, settled: Ok(bytes), pending: None, valid: true };
    let (stop, stopped) = oneshot::channel();
    let task = tokio::spawn(run(eye, publisher, config, stopped));
    Ok((handle, FileWatch { stop: Some(stop), task: Some(task) }))
}

async fn run(
    mut eye: Eye,
    mut publisher: Publisher,
    config: FileWatchConfig,
    mut stopped: oneshot::Receiver<()>,
) {
    let mut wait = config.every;
    loop {
        tokio::select! {
            // A dropped sender is the signal as well.
            _ = &mut stopped => return,
            () = tokio::time::sleep(wait) => {}
        }
        let looked = tokio::task::spawn_blocking(move || {
            let sight = eye.look();
            (eye, sight)
        });
        let sight;
        (eye, sight) = match looked.await {
            Ok(looked) => looked,
            Err(error) => {
                // Only when the runtime ends, or when reading panicked; both end the watch, the snapshot stays.
                warn!(%error, "the watch of the discovery file has ended");
                return;
            }
        };
        wait = if matches!(sight, Sight::Moving) { config.settle } else { config.every };
        report(&eye.path, &mut publisher, sight);
    }
}

fn report(path: &Path, publisher: &mut Publisher, sight: Sight) {
    let file = path.display();
    match sight {
        Sight::StillGood => publisher.confirm(),
        Sight::StillBad | Sight::Moving => {}
        Sight::Good(snapshot) => {
            let warnings = snapshot.warnings();
            match publisher.publish(snapshot) {
                Published::Unchanged => info!(%file, "discovery file is good and says what it said"),
                Published::Changed(diff) => {
                    for change in &diff.changes {
                        info!(%file, %change, "discovery changed");
                    }
                    for warning in warnings {
                        warn!(%file, %warning, "discovery file");
                    }
                }
            }
        }
        Sight::Bad(error) => {
            if publisher.refuse(&error) == Refused::New {
                warn!(%file, %error, "discovery file refused, the last good state stays in use");
            }
        }
    }
}

/// What a look at the file showed.
enum Sight {
    /// Nothing happened since the last look, and what is there is valid.
    StillGood,
    /// Nothing happened since the last look, and what is there is not valid.
    StillBad,
    /// It is being written; the next look decides.
    Moving,
    /// New content, valid.
    Good(Snapshot),
    /// New content that is not valid, or no content.
    Bad(String),
}

/// What the last look left behind.
struct Eye {
    path: PathBuf,
    stamp: Option<FileStamp>,
    /// What was last judged. Compared whole: it is small, and exact.
    settled: Result<Vec<u8>, FileError>,
    /// What was read once and has to be read once more to be believed.
    pending: Option<Result<Vec<u8>, FileError>>,
    /// The judgement on `settled`.
    valid: bool,
}

impl Eye {
    fn look(&mut self) -> Sight {
        // The stamp is taken before the content: a write between the two is seen at the next look.
        let stamp = FileStamp::of(&self.path);
        let untouched = stamp.as_ref().is_some_and(|stamp| !stamp.is_fresh()) && stamp == self.stamp;
        if untouched && self.pending.is_none() {
            return self.still();
        }
        let read = read_bytes(&self.path);
        self.stamp = stamp;
        if equal(&read, &self.settled) {
            self.pending = None;
            return self.still();
        }
        if !self.pending.as_ref().is_some_and(|pending| equal(pending, &read)) {
            self.pending = Some(read);
            return Sight::Moving;
        }
        self.pending = None;
        self.settled = read;
        let judged = match &self.settled {
            Ok(bytes) => parse_bytes(&self.path, bytes).map_err(|error| error.to_string()),
            Err(error) => Err(error.to_string()),
        };
        self.valid = judged.is_ok();
        judged.map_or_else(Sight::Bad, Sight::Good)
    }

    const fn still(&self) -> Sight {
        if self.valid { Sight::StillGood } else { Sight::StillBad }
    }
}

fn equal(a: &Result<Vec<u8>, FileError>, b: &Result<Vec<u8>, FileError>) -> bool {
    match (a, b) {
        (Ok(a), Ok(b)) => a == b,
        (Err(a), Err(b)) => a.to_string() == b.to_string(),
        (Ok(_), Err(_)) | (Err(_), Ok(_)) => false,
    }
}

#[cfg(test)]
mod tests;
