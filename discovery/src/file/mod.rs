//! The file source: one TOML file that lists shards, peers, the live release and pins.
//!
//! The file is the operator's word: an empty list of shards is believed (with a warning). What is not valid is refused as a
//! whole, and every fault says where it is and what was expected.

mod check;
mod fault;
mod raw;
mod stamp;
mod watch;

pub use fault::{Fault, Faults, Problem};
pub use stamp::FileStamp;
pub use watch::{FileWatch, FileWatchConfig, watch_file};

use crate::snapshot::Snapshot;
use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

/// The largest file that is read; the largest valid one (all lists full) is about a quarter of it.
pub const FILE_BYTES_MAX: u64 = 16 << 20;

/// Why a file gave no snapshot.
#[derive(Debug, thiserror::Error)]
pub enum FileError {
    /// It could not be opened or read.
    #[error("{}: cannot be read ({source}), expected a TOML file with shards, peers, live_release and pins", path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// It is a directory, a pipe or a device.
    #[error("{}: is no regular file, expected a TOML file with shards, peers, live_release and pins", path.display())]
    NotAFile {
        /// The path.
        path: PathBuf,
    },
    /// It is larger than [`FILE_BYTES_MAX`].
    #[error("{}: is larger than {FILE_BYTES_MAX} bytes (16 MiB), expected a smaller file", path.display())]
    TooLarge {
        /// The file.
        path: PathBuf,
    },
    /// It is no text.
    #[error("{}:{line}: is not UTF-8, expected TOML text", path.display())]
    NotText {
        /// The file.
        path: PathBuf,
        /// The first line that is no text.
        line: usize,
    },
    /// Its content is not valid.
    #[error("{}", faults.at(path))]
    Invalid {
        /// The file.
        path: PathBuf,
        /// What is wrong, at least one.
        faults: Faults,
    },
}

/// Reads and checks `path` once, for `shardgate check` and for tests.
///
/// # Errors
/// [`FileError`] when the file cannot be read or is not valid.
pub fn read_file(path: &Path) -> Result<Snapshot, FileError> {
    parse_bytes(path, &read_bytes(path)?)
}

/// The content of the file, bounded. A pipe is refused before it is opened, because opening it would block.
fn read_bytes(path: &Path) -> Result<Vec<u8>, FileError> {
    let unreadable = |source| FileError::Unreadable { path: path.to_owned(), source };
    if !std::fs::metadata(path).map_err(unreadable)?.is_file() {
        return Err(FileError::NotAFile { path: path.to_owned() });
    }
    let mut bytes = Vec::new();
    File::open(path)
        .and_then(|file| file.take(FILE_BYTES_MAX + 1).read_to_end(&mut bytes))
        .map_err(unreadable)?;
    if bytes.len() as u64 > FILE_BYTES_MAX {
        return Err(FileError::TooLarge { path: path.to_owned() });
    }
    Ok(bytes)
}

fn parse_bytes(path: &Path, bytes: &[u8]) -> Result<Snapshot, FileError> {
    let text = std::str::from_utf8(bytes).map_err(|error| {
        let line = 1 + bytes[..error.valid_up_to()].iter().filter(|byte| **byte == b'\n').count();
        FileError::NotText { path: path.to_owned(), line }
    })?;
    parse_text(text).map_err(|faults| FileError::Invalid { path: path.to_owned(), faults })
}

/// Parses and checks the text of a discovery file.
///
/// # Errors
/// [`Faults`], each with its line, column and field.
pub fn parse_text(text: &str) -> Result<Snapshot, Faults> {
    check::check(text, raw::parse(text)?)
}

#[cfg(test)]
mod tests;
