//! The file of a table: lines of JSON, a header, then an entry each, then a trailer that says how many they are, so that a file that was cut
//! short is noticed. Pure. It is the operator's own file, read by their own tool: property tests damage it, and cut it off.
//!
//! ```text
//! {"shardgate_table":1,"node":"proxy-a1","at_ms":1795512600000}
//! {"key":"acme/standup","shard":"prod-us-s2","generation":1,"created_ms":1795512000000,"remaining_ms":280000,"reason":"claim","origin":"proxy-a1"}
//! {"entries":1}
//! ```

use std::fmt;
use std::io;
use std::path::PathBuf;

use serde::Serialize;
use serde_json::{Map, Value};
use shardgate_discovery::{PeerId, ShardName};
use shardgate_proto::admin::TableEntry;

use crate::render::json;

/// What the header says; another number is another kind of file.
const VERSION: u64 = 1;
/// As the nodes have it.
const KEY_BYTES_MAX: usize = 1_024;
/// The longest line that is read, in bytes: a key is at most 6 KiB long when all of it is escaped.
pub(crate) const LINE_BYTES_MAX: usize = 16 * 1024;
/// How much of a value an error shows.
const SHOWN_MAX: usize = 80;

/// One entry of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(crate) struct Record {
    pub(crate) key: String,
    pub(crate) shard: String,
    pub(crate) generation: u32,
    /// When the decision was taken, in milliseconds since 1970.
    pub(crate) created_ms: u64,
    /// What was left of its lease.
    pub(crate) remaining_ms: u64,
    pub(crate) reason: String,
    pub(crate) origin: String,
}

/// What is wrong with a line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Fault {
    line: u64,
    what: String,
    expected: &'static str,
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { line, what, expected } = self;
        write!(f, "line {line}: {what}, expected {expected}")
    }
}

/// Why a file of a table was not written, or not read.
#[derive(Debug, thiserror::Error)]
pub(crate) enum DumpFileError {
    /// It is none, or not whole.
    #[error("{name}: {fault}; nothing was sent")]
    Fault {
        /// What it is called.
        name: String,
        /// Where, and what.
        fault: Fault,
    },
    /// It changed between two looks.
    #[error("{name} has changed while it was read: {fault}; the rest was not sent")]
    Changed {
        /// What it is called.
        name: String,
        /// Where, and what.
        fault: Fault,
    },
    /// The system does not let it be read or written.
    #[error("{name} cannot be {deed}: {source}")]
    Io {
        /// What it is called.
        name: String,
        /// read, written
        deed: &'static str,
        /// Why.
        source: io::Error,
    },
    /// Somebody else writes there, or did.
    #[error("{} exists already: another dump is under way, or was interrupted", path.display())]
    Exists {
        /// What is in the way.
        path: PathBuf,
    },
}

impl DumpFileError {
    pub(crate) const fn hint(&self) -> Option<&'static str> {
        match self {
            Self::Fault { .. } => {
                Some("shardgatectl table dump FILE writes such a file; one that is cut short is not loaded")
            }
            Self::Changed { .. } => Some("run it again: what has been restored is kept"),
            Self::Exists { .. } => Some("remove it when no dump is under way"),
            Self::Io { .. } => None,
        }
    }

    /// Whether it is the file that is wrong.
    pub(crate) const fn is_fault(&self) -> bool {
        match self {
            Self::Fault { .. } | Self::Changed { .. } => true,
            Self::Io { .. } | Self::Exists { .. } => false,
        }
    }
}

/// The first line.
pub(crate) fn header(node: &str, at_ms: u64) -> String {
    #[derive(Serialize)]
    struct Header<'a> {
        shardgate_table: u64,
        node: &'a str,
        at_ms: u64,
    }
    json(&Header { shardgate_table: VERSION, node, at_ms })
}

/// The line of an entry; a tombstone has none.
pub(crate) fn record(entry: TableEntry) -> Option<String> {
    let TableEntry { key, shard, generation, created_ms, remaining_ms, reason, origin, .. } = entry;
    let record = Record { key, shard, generation, created_ms, remaining_ms, reason, origin };
    (!record.shard.is_empty()).then(|| json(&record))
}

/// The last line.
pub(crate) fn trailer(entries: u64) -> String {
    #[derive(Serialize)]
    struct Trailer {
        entries: u64,
    }
    json(&Trailer { entries })
}

/// How far a file has been read.
#[derive(Debug, Default)]
pub(crate) struct Reading {
    lines: u64,
    entries: u64,
    stage: Stage,
}

#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
enum Stage {
    #[default]
    Header,
    Entries,
    Ended,
}

impl Reading {
    /// Entries so far.
    pub(crate) const fn entries(&self) -> u64 {
        self.entries
    }

    /// Takes the next line; header and trailer are no entries.
    pub(crate) fn line(&mut self, line: &[u8]) -> Result<Option<Record>, Fault> {
        self.lines += 1;
        if line.len() > LINE_BYTES_MAX {
            return Err(self.fault("it is longer than 16,384 bytes".to_owned(), "an entry, a line each"));
        }
        match self.stage {
            Stage::Header => {
                let first = self.fields(line, "the header of a table's dump")?;
                if self.number(&first, "shardgate_table", "1")? != VERSION {
                    return Err(self.unfit(&first, "shardgate_table", "1"));
                }
                self.stage = Stage::Entries;
                Ok(None)
            }
            Stage::Entries => {
                let fields = self.fields(line, "an entry, or the trailer")?;
                if !fields.contains_key("entries") {
                    let record = self.record(&fields)?;
                    self.entries += 1;
                    return Ok(Some(record));
                }
                if self.number(&fields, "entries", "how many entries there are")? != self.entries {
                    let what = format!("entries is {}, and {} are there", fields["entries"], self.entries);
                    return Err(self.fault(what, "as many: the file is not whole"));
                }
                self.stage = Stage::Ended;
                Ok(None)
            }
            Stage::Ended => Err(self.fault("it follows the trailer".to_owned(), "the end of the file")),
        }
    }

    /// Nothing follows.
    pub(crate) fn end(&self) -> Result<(), Fault> {
        let after = Self { lines: self.lines + 1, ..*self };
        match self.stage {
            Stage::Header => Err(after.fault("the file is empty".to_owned(), "the header of a table's dump")),
            Stage::Entries => {
                Err(after.fault("the file ends".to_owned(), "the trailer {\"entries\":N}: it was cut short"))
            }
            Stage::Ended => Ok(()),
        }
    }

    fn record(&self, fields: &Map<String, Value>) -> Result<Record, Fault> {
        let key = self.text(fields, "key", "a text of 1 to 1,024 bytes")?;
        if key.is_empty() || key.len() > KEY_BYTES_MAX {
            return Err(self.unfit(fields, "key", "a text of 1 to 1,024 bytes"));
        }
        let (of_shard, of_origin) =
            ("1 to 128 of A-Z a-z 0-9 . _ -", "1 to 63 of a-z 0-9 -, not at its ends");
        let shard = self.text(fields, "shard", of_shard)?;
        ShardName::parse(shard).map_err(|_| self.unfit(fields, "shard", of_shard))?;
        let origin = self.text(fields, "origin", of_origin)?;
        PeerId::parse(origin).map_err(|_| self.unfit(fields, "origin", of_origin))?;
        let number = "a number from 1 to 4294967295";
        let generation = u32::try_from(self.number(fields, "generation", number)?).unwrap_or(0);
        if generation == 0 {
            return Err(self.unfit(fields, "generation", number));
        }
        Ok(Record {
            key: key.to_owned(),
            shard: shard.to_owned(),
            generation,
            created_ms: self.number(fields, "created_ms", "milliseconds since 1970")?,
            remaining_ms: self.number(fields, "remaining_ms", "a number of milliseconds")?,
            reason: self.text(fields, "reason", "a text")?.to_owned(),
            origin: origin.to_owned(),
        })
    }

    fn fields(&self, line: &[u8], expected: &'static str) -> Result<Map<String, Value>, Fault> {
        match serde_json::from_slice(line) {
            Ok(Value::Object(fields)) => Ok(fields),
            Ok(_) | Err(_) => {
                let text = String::from_utf8_lossy(line);
                Err(self.fault(format!("{} is no object of JSON", shown(text.trim_end())), expected))
            }
        }
    }

    fn text<'v>(
        &self,
        fields: &'v Map<String, Value>,
        name: &str,
        expected: &'static str,
    ) -> Result<&'v str, Fault> {
        fields.get(name).and_then(Value::as_str).ok_or_else(|| self.unfit(fields, name, expected))
    }

    fn number(&self, fields: &Map<String, Value>, name: &str, expected: &'static str) -> Result<u64, Fault> {
        fields.get(name).and_then(Value::as_u64).ok_or_else(|| self.unfit(fields, name, expected))
    }

    fn unfit(&self, fields: &Map<String, Value>, name: &str, expected: &'static str) -> Fault {
        let what = match fields.get(name) {
            Some(value) => format!("{name} is {}", shown(&value.to_string())),
            None => format!("{name} is missing"),
        };
        self.fault(what, expected)
    }

    const fn fault(&self, what: String, expected: &'static str) -> Fault {
        Fault { line: self.lines, what, expected }
    }
}

/// As much of it as a person needs.
fn shown(text: &str) -> String {
    let mut letters = text.chars();
    let start: String = letters.by_ref().take(SHOWN_MAX).collect();
    if letters.next().is_some() { format!("{start}…") } else { start }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const ENTRY: &str = r#"{"key":"t/r","shard":"s1","generation":1,"created_ms":5,"remaining_ms":6,"reason":"claim","origin":"a"}"#;

    /// The entries of a file, or what is wrong.
    fn read(file: &str) -> Result<Vec<Record>, String> {
        let mut reading = Reading::default();
        let mut records = Vec::new();
        for line in file.split_inclusive('\n') {
            records.extend(reading.line(line.as_bytes()).map_err(|fault| fault.to_string())?);
        }
        reading.end().map_err(|fault| fault.to_string())?;
        assert_eq!(reading.entries(), records.len() as u64);
        Ok(records)
    }

    #[test]
    fn what_is_written_is_read() {
        let entry = |key: &str, shard: &str| TableEntry {
            key: key.to_owned(),
            shard: shard.to_owned(),
            generation: 3,
            rank: "home".to_owned(),
            origin: "a".to_owned(),
            reason: "operator".to_owned(),
            created_ms: 7,
            remaining_ms: 8,
            sessions: Vec::new(),
        };
        assert_eq!(record(entry("ended", "")), None);
        let key = "t/\u{9b}r\n\"ü";
        let lines = [
            header("a", 9),
            record(entry(key, "s1")).unwrap(),
            record(entry("b", "s2")).unwrap(),
            trailer(2),
        ];
        assert!(lines.iter().all(|line| line.matches('\n').count() == 1));
        let records = read(&lines.concat()).unwrap();
        assert_eq!((records.len(), records[0].key.as_str(), records[0].generation), (2, key, 3));
        assert_eq!((records[1].shard.as_str(), records[1].created_ms, records[1].remaining_ms), ("s2", 7, 8));
        assert_eq!(read(&(header("a", 9) + &trailer(0))), Ok(Vec::new()));
    }

    proptest! {
        #[test]
        fn any_key_comes_back(key in "\\PC{1,200}", shard in "[a-z][a-z0-9-]{0,30}", generation in 1..=u32::MAX, created_ms: u64) {
            let reason = "claim".to_owned();
            let origin = "a".to_owned();
            let entry = TableEntry { key, shard, generation, created_ms, reason, origin, ..TableEntry::default() };
            let (key, shard) = (entry.key.clone(), entry.shard.clone());
            let text = header("a", 1) + &record(entry).unwrap() + &trailer(1);
            let records = read(&text);
            let read = records.map(|all| all.into_iter().map(|one| (one.key, one.shard, one.generation)).collect());
            prop_assert_eq!(read, Ok(Vec::from([(key, shard, generation)])));
        }

        #[test]
        fn a_damaged_file_is_told(at: prop::sample::Index, cut in 0..50_usize, put: Vec<u8>) {
            let mut file = of_two().into_bytes();
            let at = at.index(file.len() + 1);
            let until = (at + cut).min(file.len());
            file.splice(at..until, put);
            let mut reading = Reading::default();
            for line in file.split_inclusive(|byte| *byte == b'\n') {
                if let Err(fault) = reading.line(line) {
                    prop_assert!(fault.to_string().len() < 1_000, "{}", fault);
                    return Ok(());
                }
            }
            prop_assert!(reading.end().is_err() || reading.entries() == 2);
        }

        #[test]
        fn a_file_that_lacks_something_is_none(at: prop::sample::Index) {
            let file = of_two();
            let lines: Vec<&str> = file.split_inclusive('\n').collect();
            let left_out = at.index(lines.len());
            let rest: String = lines.iter().enumerate().filter(|(line, _)| *line != left_out).map(|(_, text)| *text).collect();
            prop_assert!(read(&rest).is_err(), "{}", rest);
            let prefix = &file[..at.index(file.len() - 1)];
            prop_assert!(read(prefix).is_err(), "{}", prefix);
        }
    }

    /// A file with two entries.
    fn of_two() -> String {
        let second = ENTRY.replace("t/r", "t/second");
        format!("{}{ENTRY}\n{second}\n{}", header("a", 1), trailer(2))
    }

    #[test]
    fn a_file_that_is_none_says_where_and_why() {
        let head = header("a", 1);
        let with = |text: &str, other: &str| format!("{head}{}\n{}", ENTRY.replace(text, other), trailer(1));
        assert!(read(&with("t/r", "t/r")).is_ok());
        let long = "x".repeat(KEY_BYTES_MAX + 1);
        let cases = [
            (String::new(), "line 1: the file is empty, expected the header"),
            ("{}\n".to_owned(), "line 1: shardgate_table is missing, expected 1"),
            ("{\"shardgate_table\":2}\n".to_owned(), "line 1: shardgate_table is 2, expected 1"),
            ("PK\u{3}\n".to_owned(), "line 1: PK\u{3} is no object of JSON, expected the header"),
            (head.clone(), "line 2: the file ends, expected the trailer"),
            (format!("{head}{ENTRY}\n"), "line 3: the file ends, expected the trailer"),
            (
                format!("{head}{ENTRY}\n{}", trailer(2)),
                "line 3: entries is 2, and 1 are there, expected as many",
            ),
            (format!("{head}{}{ENTRY}\n", trailer(0)), "line 3: it follows the trailer, expected the end"),
            (format!("{head}{}\n", &ENTRY[..40]), "is no object of JSON, expected an entry, or the trailer"),
            (format!("{head}[1]\n"), "line 2: [1] is no object of JSON"),
            (with("\"t/r\"", "\"\""), "line 2: key is \"\", expected a text of 1 to 1,024 bytes"),
            (with("\"t/r\"", "7"), "line 2: key is 7, expected a text"),
            (with("t/r", &long), "line 2: key is \"xxx"),
            (with("s1", "s 1"), "line 2: shard is \"s 1\", expected 1 to 128 of A-Z a-z 0-9 . _ -"),
            (with("\"shard\"", "\"Shard\""), "line 2: shard is missing"),
            (with("\"origin\":\"a\"", "\"origin\":\"A\""), "line 2: origin is \"A\", expected 1 to 63"),
            (
                with("\"generation\":1", "\"generation\":0"),
                "line 2: generation is 0, expected a number from 1",
            ),
            (with("\"generation\":1", "\"generation\":4294967296"), "line 2: generation is 4294967296"),
            (
                with("\"created_ms\":5", "\"created_ms\":-5"),
                "line 2: created_ms is -5, expected milliseconds",
            ),
            (with("\"remaining_ms\":6", "\"remaining_ms\":1.5"), "line 2: remaining_ms is 1.5"),
            (with("\"reason\":\"claim\"", "\"reason\":null"), "line 2: reason is null, expected a text"),
            (with("t/r", &"x".repeat(LINE_BYTES_MAX)), "line 2: it is longer than 16,384 bytes"),
        ];
        for (file, error) in cases {
            let said = read(&file).unwrap_err();
            assert!(said.contains(error) && said.len() < 300, "{said}\nexpected {error}");
        }
    }
}
