//! `shardgatectl table dump`: the live entries of a node in a file.

use std::io::{self, BufWriter, Stdout, Write as _};
use std::path::Path;
use std::process::ExitCode;
use std::time::{SystemTime, UNIX_EPOCH};

use serde::Serialize;
use shardgate_proto::admin::{SessionsRequest, TableRequest};

use super::{CommandError, show, tell};
use crate::dump_file::{DumpFileError, header, record, trailer};
use crate::node::Nodes;
use crate::render::{Output, json};
use crate::whole_file::WholeFile;

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

/// What is written on.
enum Sheet {
    Standard(BufWriter<Stdout>),
    File(WholeFile),
}

impl Sheet {
    fn open(file: &str) -> Result<Self, DumpFileError> {
        if file == STANDARD {
            return Ok(Self::Standard(BufWriter::new(io::stdout())));
        }
        let path = Path::new(file);
        let opened = WholeFile::create(path).map_err(|source| {
            let unready = WholeFile::unready(path);
            if source.kind() == io::ErrorKind::AlreadyExists {
                return DumpFileError::Exists { path: unready };
            }
            DumpFileError::Io { name: unready.display().to_string(), deed: "written", source }
        });
        opened.map(Self::File)
    }

    fn write(&mut self, line: &str) -> io::Result<()> {
        match self {
            Self::Standard(out) => out.write_all(line.as_bytes()),
            Self::File(out) => out.write_all(line.as_bytes()),
        }
    }

    /// It is whole.
    fn end(self) -> io::Result<()> {
        match self {
            Self::Standard(mut out) => out.flush(),
            Self::File(out) => out.end(),
        }
    }
}
