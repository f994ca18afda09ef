//! Sees that the configuration file has changed. What is being written is waited for: a change is one when it was read twice alike.

use shardgate_discovery::FileStamp;
use std::path::{Path, PathBuf};

/// Looks at one file.
pub(super) struct ConfigWatch {
    path: PathBuf,
    stamp: Option<FileStamp>,
    /// The content that was judged last.
    judged: Option<Vec<u8>>,
    /// What was read once and has to be read once more.
    pending: Option<Vec<u8>>,
    /// Looks until a refused configuration is tried again: what it names, certificates or an address, may be there by then.
    again_in: Option<u32>,
}

/// After how many looks a refused configuration is tried again.
const AGAIN_AFTER: u32 = 5;

/// What a look has shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Look {
    Still,
    Changed,
    /// As it was when it was refused.
    Again,
}

impl ConfigWatch {
    /// The file as it is now counts as judged.
    pub(super) fn new(path: &Path) -> Self {
        let path = path.to_owned();
        Self {
            stamp: FileStamp::of(&path),
            judged: std::fs::read(&path).ok(),
            path,
            pending: None,
            again_in: None,
        }
    }

    /// What was judged last was refused.
    pub(super) const fn refused(&mut self) {
        self.again_in = Some(AGAIN_AFTER);
    }

    /// It is in use.
    pub(super) const fn used(&mut self) {
        self.again_in = None;
    }

    /// Nothing has changed; a refused configuration may have its turn again.
    fn still(&mut self) -> Look {
        let Some(left) = self.again_in else { return Look::Still };
        self.again_in = Some(left.saturating_sub(1));
        if left == 0 { Look::Again } else { Look::Still }
    }

    /// To be called about once a second. A file that cannot be read is no change: it may be between two renames.
    pub(super) fn look(&mut self) -> Look {
        let stamp = FileStamp::of(&self.path);
        let fresh = stamp.as_ref().is_some_and(FileStamp::is_fresh);
        if !fresh && self.pending.is_none() && stamp == self.stamp {
            return self.still();
        }
        let Ok(content) = std::fs::read(&self.path) else { return Look::Still };
        self.stamp = stamp;
        if self.judged.as_ref() == Some(&content) {
            self.pending = None;
            return self.still();
        }
        if self.pending.as_ref() != Some(&content) {
            self.pending = Some(content);
            return Look::Still;
        }
        self.judged = self.pending.take();
        Look::Changed
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_change_is_read_twice() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("c.toml");
        std::fs::write(&path, "a").unwrap();
        let mut watch = ConfigWatch::new(&path);
        assert_eq!(watch.look(), Look::Still);
        std::fs::write(&path, "ab").unwrap();
        assert_eq!(watch.look(), Look::Still);
        std::fs::write(&path, "abc").unwrap();
        assert_eq!([(); 3].map(|()| watch.look()), [Look::Still, Look::Changed, Look::Still]);
        std::fs::remove_file(&path).unwrap();
        assert_eq!(watch.look(), Look::Still);
        std::fs::write(&path, "abc").unwrap();
        assert_eq!([(); 2].map(|()| watch.look()), [Look::Still; 2]);
        watch.refused();
        assert_eq!([(); 5].map(|()| watch.look()), [Look::Still; 5]);
        assert_eq!(watch.look(), Look::Again);
        watch.used();
        assert_eq!([(); 9].map(|()| watch.look()), [Look::Still; 9]);
    }
}
