//! `shardgatectl table load`: what a dump says is claimed again, and whatever was decided since stays.

use std::collections::BTreeMap;
use std::fs::{File, OpenOptions};
use std::io::{self, BufRead as _, BufReader, IsTerminal as _, Read as _, Seek as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use clap::Args;
use serde::Serialize;
use shardgate_proto::admin::{
    RestoreEntryRequest, RestoreEntryResponse, SessionsRequest, StatusRequest, TableEntry, TableRequest,
};
use tokio::task::JoinSet;

use super::cookie::is_cookie;
use super::table_dump::STANDARD;
use super::{CommandError, show, tell};
use crate::dump_file::{DumpFileError, Fault, LINE_BYTES_MAX, Reading, Record};
use crate::node::{AskError, Node, Nodes};
use crate::render::{Output, json};

/// Entries that are asked for at once: a home takes 4,096 claims, and others want some, too.
const IN_FLIGHT_MAX: usize = 64;
/// How often progress is told.
const PROGRESS_EVERY: Duration = Duration::from_secs(1);
/// Reasons of refusals that are told apart.
const REASONS_MAX: usize = 32;

/// What is loaded.
#[derive(Debug, Args)]
pub(crate) struct Load {
    /// A file that `table dump` wrote; - is standard input.
    file: String,
    /// Say what would be, and change nothing.
    #[arg(long)]
    dry_run: bool,
}

/// What becomes of entries.
#[derive(Debug, Clone)]
enum Manner {
    /// They are restored.
    Restored,
    /// It is looked at what would become of them; shards by their states.
    LookedAt(Arc<BTreeMap<String, String>>),
}

/// What became of how many.
#[derive(Debug, Default, Clone, PartialEq, Eq, Serialize)]
struct Tally {
    restored: u64,
    /// Open, where they are.
    kept: u64,
    /// Ended after they were dumped.
    ended: u64,
    /// Another decision came first.
    overtaken: u64,
    refused: u64,
    unanswered: u64,
    /// The table took no more.
    full: u64,
}

impl Tally {
    fn count(&mut self, outcome: &str) {
        let counted = match outcome {
            "restored" => &mut self.restored,
            "kept" => &mut self.kept,
            "ended" => &mut self.ended,
            "overtaken" => &mut self.overtaken,
            "refused" => &mut self.refused,
            "full" => &mut self.full,
            _ => &mut self.unanswered,
        };
        *counted += 1;
    }

    /// Whether each is where it belongs.
    const fn is_well(&self) -> bool {
        self.refused == 0 && self.unanswered == 0 && self.full == 0
    }
}

impl std::fmt::Display for Tally {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { restored, kept, ended, overtaken, refused, unanswered, full } = self;
        write!(
            f,
            "{restored} restored, {kept} kept, {ended} ended, {overtaken} overtaken, {refused} refused, {unanswered} unanswered"
        )?;
        if *full > 0 { write!(f, ", {full} for which the table was full") } else { Ok(()) }
    }
}

#[derive(Debug, Serialize)]
struct Loaded<'a> {
    node: &'a str,
    entries: u64,
    dry_run: bool,
    #[serde(flatten)]
    tally: &'a Tally,
}

pub(super) async fn run(
    nodes: &Nodes,
    address: &str,
    load: &Load,
    output: Output,
) -> Result<ExitCode, CommandError> {
    let mut source = Source::open(&load.file)?;
    let total = source.check()?;
    let mut node = nodes.connect(address).await?;
    let manner = if load.dry_run { look(&mut node, address).await? } else { Manner::Restored };
    let mut loading = Loading::new(total);
    let ended = send(&mut source, &node, &manner, &mut loading).await;
    let Loading { tally, reasons, .. } = &loading;
    for (why, number) in reasons {
        tell(&format!("refused: {why} ({number} entries)"));
    }
    let would = if load.dry_run { "would be: " } else { "" };
    match output {
        Output::Json => show(&json(&Loaded { node: address, entries: total, dry_run: load.dry_run, tally })),
        Output::Table => show(&format!("{would}{tally}, of {total} entries\n")),
    }
    ended?;
    Ok(if tally.is_well() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// What a node has to be, and which shards it knows, for saying what would be.
async fn look(node: &mut Node, address: &str) -> Result<Manner, CommandError> {
    let refused = node.refused();
    let about = node.client.sessions(SessionsRequest {}).await.map_err(&refused)?.into_inner();
    if !about.knows_table {
        return Err(CommandError::Refused {
            what: format!("node {address} does not know the table yet: {}", about.reason),
            hint: "wait until it is ready, or ask another one".to_owned(),
        });
    }
    let status = node.client.status(StatusRequest {}).await.map_err(&refused)?.into_inner();
    let shards = status.shards.into_iter().map(|shard| (shard.name, shard.state));
    Ok(Manner::LookedAt(Arc::new(shards.collect())))
}

/// What is under way.
struct Loading {
    total: u64,
    tally: Tally,
    /// Why entries were refused, and how many.
    reasons: BTreeMap<String, u64>,
    /// `None`: nobody looks on.
    told: Option<Instant>,
}

impl Loading {
    fn new(total: u64) -> Self {
        let told = io::stderr().is_terminal().then(Instant::now);
        Self { total, tally: Tally::default(), reasons: BTreeMap::new(), told }
    }

    fn note(&mut self, answer: RestoreEntryResponse) {
        self.tally.count(&answer.outcome);
        let known = self.reasons.contains_key(&answer.why);
        if !answer.why.is_empty() && (known || self.reasons.len() < REASONS_MAX) {
            *self.reasons.entry(answer.why).or_default() += 1;
        }
        if let Some(told) = self.told.as_mut().filter(|told| told.elapsed() >= PROGRESS_EVERY) {
            *told = Instant::now();
            tell(&format!("{} so far, of {}", self.tally, self.total));
        }
    }
}

async fn send(
    source: &mut Source,
    node: &Node,
    manner: &Manner,
    loading: &mut Loading,
) -> Result<(), CommandError> {
    let mut under_way: JoinSet<Result<RestoreEntryResponse, AskError>> = JoinSet::new();
    let mut lines = source.lines()?;
    loop {
        let record = lines.next().map_err(|wrong| wrong.of(&source.name, Look::Second))?;
        if record.is_none() && under_way.is_empty() {
            return Ok(());
        }
        if record.is_none() || under_way.len() >= IN_FLIGHT_MAX {
            // Such a task is not aborted before this ends; one that panicked has no answer.
            if let Some(Ok(answer)) = under_way.join_next().await {
                loading.note(answer?);
            } else {
                loading.note(unanswered());
            }
        }
        if let Some(record) = record {
            let (node, manner) = (node.clone(), manner.clone());
            drop(under_way.spawn(async move { ask(node, record, manner).await }));
        }
    }
}

fn unanswered() -> RestoreEntryResponse {
    RestoreEntryResponse { outcome: "unanswered".to_owned(), ..RestoreEntryResponse::default() }
}

async fn ask(mut node: Node, record: Record, manner: Manner) -> Result<RestoreEntryResponse, AskError> {
    let refused = node.refused();
    let answer = match manner {
        Manner::Restored => {
            let Record { key, shard, created_ms, .. } = record;
            let request = RestoreEntryRequest { key, shard, created_ms };
            node.client.restore_entry(request).await.map(tonic::Response::into_inner)
        }
        Manner::LookedAt(shards) => {
            let request = TableRequest { key: record.key.clone(), with_sessions: false };
            match node.client.table(request).await {
                Ok(rows) => {
                    rows.into_inner().message().await.map(|entry| would_be(entry.as_ref(), &record, &shards))
                }
                Err(status) => Err(status),
            }
        }
    };
    match answer {
        // It took too long; the others need not.
        Err(status) if matches!(status.code(), tonic::Code::Cancelled | tonic::Code::DeadlineExceeded) => {
            Ok(unanswered())
        }
        answer => answer.map_err(refused),
    }
}

/// What would become of an entry, as a node decides it before it asks the key's home.
fn would_be(
    entry: Option<&TableEntry>,
    record: &Record,
    shards: &BTreeMap<String, String>,
) -> RestoreEntryResponse {
    let answer = |outcome: &str, why: String| RestoreEntryResponse {
        outcome: outcome.to_owned(),
        shard: String::new(),
        why,
    };
    // Cookies of pools are on servers, which are no shards.
    let of_a_pool = is_cookie(&record.key);
    match (entry, shards.get(&record.shard).map(String::as_str)) {
        (Some(entry), _) if !entry.shard.is_empty() => answer("kept", String::new()),
        (Some(ended), _) if ended.created_ms > record.created_ms => answer("ended", String::new()),
        (_, _) if of_a_pool => answer("restored", String::new()),
        (_, None) => answer("refused", format!("shard {} is not listed", record.shard)),
        (_, Some("maint")) => answer("refused", format!("shard {} is in maint", record.shard)),
        (_, Some(_)) => answer("restored", String::new()),
    }
}

/// A file that can be read twice.
struct Source {
    name: String,
    file: File,
}

/// Which look at the file it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Look {
    /// Nothing has been sent.
    First,
    Second,
}

/// What is wrong with a line, or with reading it.
enum Wrong {
    Fault(Fault),
    Io(io::Error),
}

impl Wrong {
    fn of(self, name: &str, look: Look) -> DumpFileError {
        let name = name.to_owned();
        match (self, look) {
            (Self::Fault(fault), Look::First) => DumpFileError::Fault { name, fault },
            (Self::Fault(fault), Look::Second) => DumpFileError::Changed { name, fault },
            (Self::Io(source), _) => DumpFileError::Io { name, deed: "read", source },
        }
    }
}

impl Source {
    fn open(file: &str) -> Result<Self, DumpFileError> {
        let name = if file == STANDARD { "standard input" } else { file }.to_owned();
        let opened = || -> io::Result<File> {
            if file == STANDARD {
                return spooled(&mut io::stdin().lock());
            }
            let mut opened = File::open(file)?;
            // A pipe, such as a shell's <(zcat FILE), gives everything once.
            if opened.metadata()?.is_file() { Ok(opened) } else { spooled(&mut opened) }
        };
        let opened = opened();
        match opened {
            Ok(file) => Ok(Self { name, file }),
            Err(source) => Err(DumpFileError::Io { name, deed: "read", source }),
        }
    }

    /// Reads the whole; answers how many entries it has.
    fn check(&mut self) -> Result<u64, DumpFileError> {
        let name = self.name.clone();
        let mut lines = self.lines()?;
        loop {
            if lines.next().map_err(|wrong| wrong.of(&name, Look::First))?.is_none() {
                return Ok(lines.reading.entries());
            }
        }
    }

    /// Its lines from the first one on.
    fn lines(&mut self) -> Result<Lines, DumpFileError> {
        let again = self.file.rewind().and_then(|()| self.file.try_clone());
        let file =
            again.map_err(|source| DumpFileError::Io { name: self.name.clone(), deed: "read", source })?;
        Ok(Lines { file: BufReader::new(file), line: Vec::new(), reading: Reading::default() })
    }
}

/// What comes once, in a file that has no name and is gone with this process.
fn spooled(from: &mut impl io::Read) -> io::Result<File> {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |now| now.as_nanos());
    let path = std::env::temp_dir().join(format!("shardgatectl-{}-{now}", std::process::id()));
    let mut file = OpenOptions::new().read(true).write(true).create_new(true).mode(0o600).open(&path)?;
    std::fs::remove_file(&path)?;
    io::copy(from, &mut file)?;
    Ok(file)
}

struct Lines {
    file: BufReader<File>,
    line: Vec<u8>,
    reading: Reading,
}

impl Lines {
    /// The next entry; `None` at the end of a whole file.
    fn next(&mut self) -> Result<Option<Record>, Wrong> {
        loop {
            self.line.clear();
            // One byte more than fits says that it does not.
            let mut start = (&mut self.file).take(LINE_BYTES_MAX as u64 + 1);
            let read = start.read_until(b'\n', &mut self.line).map_err(Wrong::Io)?;
            if read == 0 {
                return self.reading.end().map(|()| None).map_err(Wrong::Fault);
            }
            if let Some(record) = self.reading.line(&self.line).map_err(Wrong::Fault)? {
                return Ok(Some(record));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_would_be() {
        let record = |key: &str, shard: &str| Record {
            key: key.to_owned(),
            shard: shard.to_owned(),
            generation: 1,
            created_ms: 1_000,
            remaining_ms: 0,
            reason: "claim".to_owned(),
            origin: "a".to_owned(),
        };
        let entry = |shard: &str, created_ms| TableEntry {
            shard: shard.to_owned(),
            created_ms,
            ..TableEntry::default()
        };
        let shards = [("s1", "ready"), ("s2", "drain"), ("s3", "maint")];
        let shards = shards.map(|(name, state)| (name.to_owned(), state.to_owned())).into();
        for (key, shard, entry, outcome) in [
            ("r", "s1", None, "restored"),
            ("r", "s2", None, "restored"),
            ("r", "s3", None, "refused"),
            ("r", "s4", None, "refused"),
            ("r", "s4", Some(entry("s1", 0)), "kept"),
            ("r", "s1", Some(entry("", 1_001)), "ended"),
            ("r", "s1", Some(entry("", 1_000)), "restored"),
            ("cookie\u{203a}chat\u{203a}0", "chat-10.0.0.1-80", None, "restored"),
        ] {
            let answer = would_be(entry.as_ref(), &record(key, shard), &shards);
            assert_eq!(answer.outcome, outcome, "{key} on {shard} by {entry:?}");
            assert_eq!(answer.why.is_empty(), outcome != "refused");
        }
    }

    #[test]
    fn what_is_not_where_it_belongs_is_told() {
        let mut tally = Tally::default();
        for outcome in ["restored", "restored", "kept", "ended", "overtaken"] {
            tally.count(outcome);
        }
        assert!(tally.is_well());
        let shown = "2 restored, 1 kept, 1 ended, 1 overtaken, 0 refused, 0 unanswered";
        assert_eq!(tally.to_string(), shown);
        for outcome in ["refused", "unanswered", "full", "what a newer node says"] {
            let mut tally = tally.clone();
            tally.count(outcome);
            assert!(!tally.is_well(), "{outcome}");
        }
    }

    #[test]
    fn what_comes_once_is_read_twice() {
        let text = "{\"shardgate_table\":1}\n{\"entries\":0}\n";
        let mut source = Source { name: "-".to_owned(), file: spooled(&mut text.as_bytes()).unwrap() };
        assert_eq!([source.check().unwrap(), source.check().unwrap()], [0, 0]);
        let long = "x".repeat(10 * LINE_BYTES_MAX);
        let mut source = Source { name: "-".to_owned(), file: spooled(&mut long.as_bytes()).unwrap() };
        let error = source.check().unwrap_err();
        assert!(error.is_fault() && error.to_string().starts_with("-: line 1: it is longer than"), "{error}");
    }
}
