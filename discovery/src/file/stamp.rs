//! What `stat` says of a file.

use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::time::{Duration, SystemTime};

/// What `stat` says of a file; equal stamps mean an unchanged file, unless it was written just now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FileStamp {
    device: u64,
    inode: u64,
    len: u64,
    modified: SystemTime,
    changed: (i64, i64),
}

impl FileStamp {
    /// The stamp of the file at `path` (where links lead to); `None` when there is none to be seen.
    #[must_use]
    pub fn of(path: &Path) -> Option<Self> {
        let metadata = std::fs::metadata(path).ok()?;
        Some(Self {
            device: metadata.dev(),
            inode: metadata.ino(),
            len: metadata.len(),
            modified: metadata.modified().ok()?,
            changed: (metadata.ctime(), metadata.ctime_nsec()),
        })
    }

    /// Whether a second write could have left the same stamp: time stamps of file systems tick slowly (up to 2 s on some).
    /// One from the future says nothing, so it counts as fresh.
    #[must_use]
    pub fn is_fresh(&self) -> bool {
        !SystemTime::now().duration_since(self.modified).is_ok_and(|age| age >= Duration::from_secs(4))
    }
}
