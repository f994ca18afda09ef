//! A file that has its name once it is whole.

use std::fs::{File, OpenOptions};
use std::io::{self, BufWriter, Write};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

/// A file that is written, beside the one whose name it gets; gone when this is dropped before.
pub(crate) struct WholeFile {
    path: PathBuf,
    unready: Unready,
    out: BufWriter<File>,
}

/// A file under its name of the meantime.
struct Unready(Option<PathBuf>);

impl Drop for Unready {
    fn drop(&mut self) {
        if let Some(path) = self.0.take() {
            drop(std::fs::remove_file(path));
        }
    }
}

impl WholeFile {
    /// What a file is called in the meantime.
    pub(crate) fn unready(path: &Path) -> PathBuf {
        let mut unready = path.as_os_str().to_owned();
        unready.push(".tmp");
        PathBuf::from(unready)
    }

    /// Begins one, for its owner's eyes alone: names of conferences are personal. `AlreadyExists` when another one is being written, or one was
    /// killed while it wrote.
    pub(crate) fn create(path: &Path) -> io::Result<Self> {
        let unready = Self::unready(path);
        let file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&unready)?;
        Ok(Self { path: path.to_owned(), unready: Unready(Some(unready)), out: BufWriter::new(file) })
    }

    /// It is whole, and on the disk.
    pub(crate) fn end(self) -> io::Result<()> {
        let Self { path, mut unready, mut out } = self;
        out.flush()?;
        out.get_ref().sync_all()?;
        if let Some(written) = &unready.0 {
            std::fs::rename(written, path)?;
        }
        unready.0 = None;
        Ok(())
    }
}

impl Write for WholeFile {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.out.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.out.flush()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::os::unix::fs::PermissionsExt as _;

    #[test]
    fn a_file_has_its_name_once_it_is_whole() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("table");
        fs::write(&path, "old").unwrap();
        let mut file = WholeFile::create(&path).unwrap();
        file.write_all(b"new").unwrap();
        let second = WholeFile::create(&path).map(drop).unwrap_err();
        assert_eq!(second.kind(), io::ErrorKind::AlreadyExists, "another one at the same time");
        drop(file);
        assert_eq!(fs::read_to_string(&path).unwrap(), "old", "it was given up");
        let mut file = WholeFile::create(&path).unwrap();
        file.write_all(b"new").unwrap();
        file.end().unwrap();
        assert_eq!(fs::read_to_string(&path).unwrap(), "new");
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
    }
}
