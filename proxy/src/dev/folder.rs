//! The temporary folder of one dev mesh: discovery file, certificates, keys, log. Readable by its owner only.

use std::fs::{self, DirBuilder};
use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::process;

/// How many names are tried before giving up.
const NAMES_MAX: u32 = 1_000;

/// Whether the folder outlives its owner.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fate {
    Removed,
    Kept,
}

/// A folder of our own, removed when dropped unless kept.
#[derive(Debug)]
pub struct Folder {
    path: PathBuf,
    fate: Fate,
}

impl Folder {
    /// A new folder below the system's temporary one.
    pub fn new() -> io::Result<Self> {
        let parent = std::env::temp_dir();
        let pid = process::id();
        for n in 0..NAMES_MAX {
            let path = parent.join(format!("shardgate-dev-{pid}-{n}"));
            match DirBuilder::new().mode(0o700).create(&path) {
                Ok(()) => return Ok(Self { path, fate: Fate::Removed }),
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
                Err(error) => return Err(error),
            }
        }
        Err(io::Error::other(format!(
            "{NAMES_MAX} folders shardgate-dev-{pid}-N exist in {}",
            parent.display()
        )))
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Leaves it there, for whoever wants to know what happened.
    pub fn keep(&mut self) {
        self.fate = Fate::Kept;
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        if self.fate == Fate::Removed {
            fs::remove_dir_all(&self.path).ok();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn it_is_private_and_goes_away_unless_kept() {
        let (one, mut two) = (Folder::new().unwrap(), Folder::new().unwrap());
        assert_ne!(one.path(), two.path());
        assert_eq!(fs::metadata(one.path()).unwrap().permissions().mode() & 0o777, 0o700);
        fs::write(one.path().join("x"), "x").unwrap();
        two.keep();
        let (gone, kept) = (one.path().to_owned(), two.path().to_owned());
        drop((one, two));
        assert!(!gone.exists() && kept.exists());
        fs::remove_dir(kept).unwrap();
    }
}
