//! `shardgatectl table dump`: the live entries of a node in a file.

use std::fs::{File, OpenOptions};
use std::io::{self, BufWriter, Stdout, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{SystemTime, UNIX_EPOCH};

use serde::Serialize;
use shardgate_proto::admin::{SessionsRequest, TableRequest};

use super::{CommandError, show, tell};
use crate::dump_file::{DumpFileError, header, record, trailer};
use crate::node::Nodes;
use crate::render::{Output, json};

/// What a file is called that means standard input or output.
pub(super) const STANDARD: &str = "-";

#[derive(Debug, Serialize)]
struct Dumped<'a> {
    node: &'a str,
    entries: u64,
    file: &'a str,
}

pub(super) async fn run(
    nodes: &Nodes,
    address: &str,
    file: &str,
    output: Output,
) -> Result<ExitCode, CommandError> {
    let mut node = nodes.connect(address).await?;
    let refused = node.refused();
    let about = node.client.sessions(SessionsRequest {}).await.map_err(&refused)?.into_inner();
    if !about.knows_table {
        return Err(CommandError::Refused {
            what: format!("node {address} does not know the table yet: {}", about.reason),
            hint: "dump that of another node: --node ADDRESS".to_owned(),
        });
    }
    let mut sheet = Sheet::open(file)?;
    let at_ms = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |now| now.as_millis() as u64);
    let request = TableRequest { key: String::new(), with_sessions: false };
    let mut rows = node.client.table(request).await.map_err(&refused)?.into_inner();
    let mut entries = 0;
    let mut written = sheet.write(&header(&about.node, at_ms));
    while written.is_ok() {
        let Some(entry) = rows.message().await.map_err(&refused)? else { break };
        if let Some(line) = record(entry) {
            entries += 1;
            written = sheet.write(&line);
        }
    }
    let written = written.and_then(|()| sheet.write(&trailer(entries))).and_then(|()| sheet.end());
    match written {
        Ok(()) => {}
        // Whoever reads it has enough.
        Err(error) if file == STANDARD && error.kind() == io::ErrorKind::BrokenPipe => {
            return Ok(ExitCode::SUCCESS);
        }
        Err(source) => {
            let name = if file == STANDARD { "standard output" } else { file };
            return Err(DumpFileError::Io { name: name.to_owned(), deed: "written", source }.into());
        }
    }
    let said = format!("{entries} entries of {}", about.node);
    match (file, output) {
        (STANDARD, _) => tell(&said),
        (_, Output::Json) => show(&json(&Dumped { node: &about.node, entries, file })),
        (_, Output::Table) => show(&format!("{said} in {file}\n")),
    }
    Ok(ExitCode::SUCCESS)
}

/// What is written on. A file has its name once it is whole; before, it is gone with this.
enum Sheet {
    Standard(BufWriter<Stdout>),
    File { path: PathBuf, unready: Unready, out: BufWriter<File> },
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

impl Sheet {
    fn open(file: &str) -> Result<Self, DumpFileError> {
        if file == STANDARD {
            return Ok(Self::Standard(BufWriter::new(io::stdout())));
        }
        let unready = PathBuf::from(format!("{file}.tmp"));
        // Names of conferences are personal: its owner's alone.
        let opened = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&unready);
        let out = opened.map_err(|source| {
            if source.kind() == io::ErrorKind::AlreadyExists {
                return DumpFileError::Exists { path: unready.clone() };
            }
            DumpFileError::Io { name: unready.display().to_string(), deed: "written", source }
        })?;
        let path = Path::new(file).to_owned();
        Ok(Self::File { path, unready: Unready(Some(unready)), out: BufWriter::new(out) })
    }

    fn write(&mut self, line: &str) -> io::Result<()> {
        match self {
            Self::Standard(out) => out.write_all(line.as_bytes()),
            Self::File { out, .. } => out.write_all(line.as_bytes()),
        }
    }

    /// It is whole, and on the disk.
    fn end(self) -> io::Result<()> {
        match self {
            Self::Standard(mut out) => out.flush(),
            Self::File { path, mut unready, mut out } => {
                out.flush()?;
                out.get_ref().sync_all()?;
                if let Some(written) = &unready.0 {
                    std::fs::rename(written, path)?;
                }
                unready.0 = None;
                Ok(())
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    /// A folder that goes with the test.
    struct Folder(PathBuf);

    impl Drop for Folder {
        fn drop(&mut self) {
            drop(fs::remove_dir_all(&self.0));
        }
    }

    #[test]
    fn a_file_has_its_name_once_it_is_whole() {
        let folder = Folder(std::env::temp_dir().join(format!("shardgatectl-dump-{}", std::process::id())));
        fs::create_dir_all(&folder.0).unwrap();
        let path = folder.0.join("table").to_string_lossy().into_owned();
        fs::write(&path, "old").unwrap();
        let mut sheet = Sheet::open(&path).unwrap();
        sheet.write("new").unwrap();
        assert!(matches!(Sheet::open(&path), Err(DumpFileError::Exists { .. })), "another dump");
        drop(sheet);
        assert_eq!(fs::read_to_string(&path).unwrap(), "old", "it was given up");
        let mut sheet = Sheet::open(&path).unwrap();
        sheet.write("new").unwrap();
        sheet.end().unwrap();
        assert_eq!(fs::read_to_string(&path).unwrap(), "new");
        assert_eq!(fs::read_dir(&folder.0).unwrap().count(), 1);
    }
}
