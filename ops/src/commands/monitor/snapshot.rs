//! All conferences of a moment in a file, and what has become of them since: whoever recycles a pool looks before and after.

use std::fs::File;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use shardgate_peering_core::{StickKey, key_hash};

use super::look::most;
use super::rows::Row;
use crate::render::tell;
use crate::whole_file::WholeFile;

/// Conferences of each sort that are named.
const NAMED_MAX: usize = 1_000;
/// No line is longer: a key of 1,024 bytes, escaped, and a shard's name.
const LINE_MAX: u64 = 16 * 1024;

/// The first line.
#[derive(Debug, Serialize, Deserialize)]
struct Head {
    shardgate_snapshot: u32,
    at_ms: u64,
}

/// A line: one conference.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Record {
    key: String,
    shard: String,
    sessions: u64,
}

/// The last line: a file that was cut off does not have it.
#[derive(Debug, Serialize, Deserialize)]
struct Tail {
    conferences: u64,
}

#[derive(Debug, Deserialize)]
#[serde(untagged)]
enum Line {
    Record(Record),
    Tail(Tail),
}

/// A conference that is on another shard than it was, or gone, or new.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(super) struct Changed {
    pub(super) key: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) before: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) now: Option<String>,
    /// Then, for one that is gone; else now.
    pub(super) sessions: u64,
}

/// Conferences of a sort.
#[derive(Debug, Default, Serialize)]
pub(super) struct Sort {
    pub(super) count: u64,
    /// The first ones, 1,000 at most.
    pub(super) first: Vec<Changed>,
}

impl Sort {
    fn add(&mut self, changed: Changed) {
        self.count += 1;
        if self.first.len() < NAMED_MAX {
            self.first.push(changed);
        }
    }
}

/// What has become of a snapshot's conferences.
#[derive(Debug, Default, Serialize)]
pub(super) struct Differences {
    /// When the snapshot was made, in milliseconds since 1970.
    pub(super) since_ms: u64,
    pub(super) gone: Sort,
    pub(super) moved: Sort,
    pub(super) added: Sort,
}

/// A snapshot that is read, in the order in which tables are listed.
struct Old {
    path: PathBuf,
    lines: BufReader<File>,
    number: u64,
    records: u64,
    head: Option<(u64, Record)>,
    last: Option<(u64, String)>,
}

impl Old {
    fn open(path: &Path) -> Result<(Self, u64), String> {
        let told = |error: std::io::Error| format!("--compare {}: {error}", path.display());
        let lines = BufReader::new(File::open(path).map_err(told)?);
        let mut old = Self { path: path.to_owned(), lines, number: 0, records: 0, head: None, last: None };
        let first = old.line()?;
        let Head { shardgate_snapshot, at_ms } = serde_json::from_str(&first)
            .map_err(|_| old.wrong("is not the head of a snapshot, expected a file that --snapshot wrote"))?;
        if shardgate_snapshot != 1 {
            return Err(old.wrong(&format!("says version {shardgate_snapshot}, expected 1")));
        }
        old.advance()?;
        Ok((old, at_ms))
    }

    fn wrong(&self, what: &str) -> String {
        format!("--compare {}: line {} {what}", self.path.display(), self.number)
    }

    fn line(&mut self) -> Result<String, String> {
        self.number += 1;
        let mut line = String::new();
        let read = (&mut self.lines).take(LINE_MAX).read_line(&mut line);
        read.map_err(|error| self.wrong(&format!("cannot be read: {error}")))?;
        Ok(line)
    }

    /// Takes the head, and puts the next one there.
    fn advance(&mut self) -> Result<Option<(u64, Record)>, String> {
        let head = self.head.take();
        let line = self.line()?;
        let expected = "is not valid, expected {\"key\", \"shard\", \"sessions\"}, and {\"conferences\"} at the end: was the file cut off?";
        match serde_json::from_str(&line) {
            Ok(Line::Record(record)) => {
                let key =
                    StickKey::parse(&record.key).map_err(|error| self.wrong(&format!("key: {error}")))?;
                let place = (key_hash(&key), record.key.clone());
                if self.last.as_ref().is_some_and(|last| *last >= place) {
                    return Err(self.wrong("is out of order: was the file changed?"));
                }
                self.head = Some((place.0, record));
                self.last = Some(place);
                self.records += 1;
            }
            Ok(Line::Tail(Tail { conferences })) if conferences == self.records => {}
            Ok(Line::Tail(_)) => return Err(self.wrong("counts other conferences than there are")),
            Err(_) => return Err(self.wrong(expected)),
        }
        Ok(head)
    }
}

/// A snapshot that is written.
struct New {
    path: PathBuf,
    file: WholeFile,
    records: u64,
}

impl New {
    fn create(path: &Path, at_ms: u64) -> Result<Self, String> {
        let file = WholeFile::create(path).map_err(|error| {
            let exists = error.kind() == std::io::ErrorKind::AlreadyExists;
            let hint = if exists { ": another one is being written, or was killed: remove it" } else { "" };
            format!("--snapshot {}: {error}{hint}", WholeFile::unready(path).display())
        })?;
        let mut new = Self { path: path.to_owned(), file, records: 0 };
        new.write(&Head { shardgate_snapshot: 1, at_ms })?;
        Ok(new)
    }

    fn write(&mut self, line: &impl Serialize) -> Result<(), String> {
        let written = serde_json::to_writer(&mut self.file, line).map_err(std::io::Error::from);
        let written = written.and_then(|()| self.file.write_all(b"\n"));
        written.map_err(|error| format!("--snapshot {}: {error}", self.path.display()))
    }

    fn end(mut self) -> Result<(), String> {
        self.write(&Tail { conferences: self.records })?;
        let Self { path, file, .. } = self;
        file.end().map_err(|error| format!("--snapshot {}: {error}", path.display()))
    }
}

/// What is written down of a look, and compared with what was.
pub(super) struct Records {
    new: Option<New>,
    old: Option<Old>,
    differences: Differences,
}

impl Records {
    /// `None` when neither is wanted.
    pub(super) fn open(
        snapshot: Option<&Path>,
        compare: Option<&Path>,
        now_ms: u64,
    ) -> Result<Option<Self>, String> {
        // Read before it is written: it may be the same file.
        let old = compare.map(Old::open).transpose()?;
        let new = snapshot.map(|path| New::create(path, now_ms)).transpose()?;
        if old.is_none() && new.is_none() {
            return Ok(None);
        }
        let since_ms = old.as_ref().map_or(0, |(_, at_ms)| *at_ms);
        let differences = Differences { since_ms, ..Differences::default() };
        Ok(Some(Self { new, old: old.map(|(old, _)| old), differences }))
    }

    /// A key's rows, in the order of listings.
    pub(super) fn note(&mut self, rows: &[Option<Row>]) -> Result<(), String> {
        let Some((shard, sessions)) = most(rows) else { return Ok(()) };
        let Some(key) = rows.iter().flatten().map(|row| row.key.clone()).next() else { return Ok(()) };
        let record = Record { key, shard, sessions };
        if let Some(new) = &mut self.new {
            new.write(&record)?;
            new.records += 1;
        }
        self.compare(record)
    }

    fn compare(&mut self, record: Record) -> Result<(), String> {
        let Some(old) = &mut self.old else { return Ok(()) };
        let key = StickKey::parse(&record.key).map_err(|error| error.to_string())?;
        let place = (key_hash(&key), record.key.as_str());
        while old.head.as_ref().is_some_and(|(hash, before)| (*hash, before.key.as_str()) < place) {
            if let Some((_, before)) = old.advance()? {
                self.differences.gone.add(gone(before));
            }
        }
        let is_there = old.head.as_ref().is_some_and(|(_, before)| before.key == record.key);
        let before = if is_there { old.advance()?.map(|(_, before)| before.shard) } else { None };
        let Record { key, shard, sessions } = record;
        match before {
            Some(before) if before == shard => {}
            None => self.differences.added.add(Changed { key, before, now: Some(shard), sessions }),
            Some(_) => self.differences.moved.add(Changed { key, before, now: Some(shard), sessions }),
        }
        Ok(())
    }

    /// Not everything was seen: nothing of it is kept.
    pub(super) fn give_up(self) {
        if let Some(New { path, .. }) = self.new {
            tell(&format!(
                "error: --snapshot {}: not written, since somebody could not be asked",
                path.display()
            ));
        }
    }

    /// Everything was seen: the file gets its name, and what is left of the old one is gone.
    pub(super) fn end(mut self) -> Result<Option<Differences>, String> {
        if let Some(new) = self.new {
            new.end()?;
        }
        let Some(mut old) = self.old else { return Ok(None) };
        while let Some((_, before)) = old.advance_if_any()? {
            self.differences.gone.add(gone(before));
        }
        Ok(Some(self.differences))
    }
}

impl Old {
    fn advance_if_any(&mut self) -> Result<Option<(u64, Record)>, String> {
        if self.head.is_some() { self.advance() } else { Ok(None) }
    }
}

fn gone(Record { key, shard, sessions }: Record) -> Changed {
    Changed { key, before: Some(shard), now: None, sessions }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Rows in the order of listings.
    fn noted(records: &mut Records, conferences: &[(&str, &str)]) -> Result<(), String> {
        let place = |key: &str| (key_hash(&StickKey::parse(key).unwrap()), key.to_owned());
        let mut conferences = conferences.to_vec();
        conferences.sort_unstable_by_key(|(key, _)| place(key));
        for (key, shard) in conferences {
            let row = Row::of_haproxy(key.to_owned(), shard.to_owned(), 1).unwrap();
            records.note(&[Some(row), None])?;
        }
        Ok(())
    }

    #[test]
    fn what_became_of_conferences() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("before");
        let mut records = Records::open(Some(&path), None, 7).unwrap().unwrap();
        noted(&mut records, &[("a", "s1"), ("b", "s1"), ("c", "s1"), ("d", "s2")]).unwrap();
        assert!(!path.exists(), "it is not whole yet");
        assert!(records.end().unwrap().is_none());
        // Compared with what it takes the place of.
        let mut records = Records::open(Some(&path), Some(&path), 8).unwrap().unwrap();
        noted(&mut records, &[("a", "s1"), ("c", "s2"), ("e", "s1")]).unwrap();
        let differences = records.end().unwrap().unwrap();
        let named = |sort: &Sort| {
            let mut keys: Vec<_> = sort.first.iter().map(|changed| changed.key.clone()).collect();
            keys.sort_unstable();
            (sort.count, keys.join(" "))
        };
        assert_eq!(differences.since_ms, 7);
        assert_eq!(named(&differences.gone), (2, "b d".to_owned()));
        assert_eq!(named(&differences.moved), (1, "c".to_owned()));
        assert_eq!(named(&differences.added), (1, "e".to_owned()));
        let mut records = Records::open(None, Some(&path), 9).unwrap().unwrap();
        noted(&mut records, &[("a", "s1"), ("c", "s2"), ("e", "s1")]).unwrap();
        let differences = records.end().unwrap().unwrap();
        let counts = [&differences.gone, &differences.moved, &differences.added].map(|sort| sort.count);
        assert_eq!(counts, [0, 0, 0]);
    }

    #[test]
    fn a_file_that_is_none_is_told() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("snapshot");
        let head = "{\"shardgate_snapshot\":1,\"at_ms\":1}\n";
        let row = |key: &str| format!("{{\"key\":\"{key}\",\"shard\":\"s\",\"sessions\":0}}\n");
        for (text, why) in [
            (String::new(), "line 1 is not the head"),
            ("{\"shardgate_snapshot\":2,\"at_ms\":1}\n".to_owned(), "line 1 says version 2, expected 1"),
            (head.to_owned(), "line 2 is not valid"),
            (format!("{head}nonsense\n"), "line 2 is not valid"),
            (format!("{head}{}", row("")), "line 2 key:"),
            (format!("{head}{}{}", row("a"), row("a")), "line 3 is out of order"),
            (format!("{head}{}{{\"conferences\":2}}\n", row("a")), "line 3 counts other conferences"),
            (format!("{head}{}", row("a")), "line 3 is not valid"),
        ] {
            std::fs::write(&path, &text).unwrap();
            let read = Records::open(None, Some(&path), 0).and_then(|records| records.unwrap().end());
            let said = read.unwrap_err();
            assert!(said.contains(why), "{text}: {said}");
        }
        let missing = Records::open(None, Some(&folder.path().join("none")), 0).err().unwrap();
        assert!(missing.contains("No such file"), "{missing}");
    }
}
