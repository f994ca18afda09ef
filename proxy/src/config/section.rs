//! Reads the fields of one table into checked values, and words every complaint.

use super::error::{ConfigError, Nearest, Place};
use super::nearest::nearest;
use super::tree::{Item, Table, Value};
use std::collections::BTreeMap;
use std::fmt;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// The most entries of a list of plain values.
const LIST_MAX: usize = 1_000;

/// What is common to the reading of all sections.
#[derive(Debug)]
pub(super) struct Reading {
    file: Arc<Path>,
    errors: Vec<ConfigError>,
    /// TCP addresses seen so far, with their fields: each can be bound once.
    bound: Vec<(String, SocketAddr)>,
    /// Unix sockets as well.
    sockets: Vec<(String, PathBuf)>,
}

impl Reading {
    pub(super) fn new(file: &Path, errors: Vec<ConfigError>) -> Self {
        Self { file: Arc::from(file), errors, bound: Vec::new(), sockets: Vec::new() }
    }

    pub(super) fn into_errors(self) -> Vec<ConfigError> {
        self.errors
    }
}

/// One table, of which fields are taken one by one. What nobody took is unknown.
#[derive(Debug)]
pub(super) struct Section<'a> {
    /// Path of the table with a dot at its end; empty for the root.
    path: String,
    place: Place,
    table: Table,
    known: Vec<&'static str>,
    /// Place and text of what was taken, for complaints about values that do not go together.
    taken: BTreeMap<&'static str, (Place, String)>,
    reading: &'a mut Reading,
}

/// One table of a list of tables.
#[derive(Debug)]
pub(super) struct ListedTable {
    path: String,
    place: Place,
    table: Table,
}

impl<'a> Section<'a> {
    pub(super) fn root(table: Table, reading: &'a mut Reading) -> Self {
        let place = Place::File(Arc::clone(&reading.file));
        Self { path: String::new(), place, table, known: Vec::new(), taken: BTreeMap::new(), reading }
    }

    /// The table `name`; an empty one when it is not there.
    pub(super) fn section(&mut self, name: &'static str) -> Section<'_> {
        let (place, table) = match self.take_table(name) {
            Some(found) => found,
            None => (Place::File(Arc::clone(&self.reading.file)), Table::new()),
        };
        self.entry(ListedTable { path: format!("{}{name}.", self.path), place, table })
    }

    /// The table `name`, if it is there.
    pub(super) fn optional_section(&mut self, name: &'static str) -> Option<Section<'_>> {
        let (place, table) = self.take_table(name)?;
        Some(self.entry(ListedTable { path: format!("{}{name}.", self.path), place, table }))
    }

    /// The list of tables `name`, if it is there.
    pub(super) fn sections(&mut self, name: &'static str) -> Option<Vec<ListedTable>> {
        let item = self.take(name)?;
        let Value::List(items) = item.value else {
            let expected = format!("a list of tables, each written as [[{}{name}]]", self.path);
            self.complain(name, &item, &expected);
            return None;
        };
        let mut tables = Vec::new();
        for (index, item) in items.into_iter().enumerate() {
            if let Value::Table(table) = item.value {
                let path = format!("{}{name}[{index}].", self.path);
                tables.push(ListedTable { path, place: item.place, table });
            } else {
                let expected = format!("a table, written as [[{}{name}]]", self.path);
                self.complain(&format!("{name}[{index}]"), &item, &expected);
            }
        }
        Some(tables)
    }

    /// Goes into a table of a list.
    pub(super) fn entry(&mut self, ListedTable { path, place, table }: ListedTable) -> Section<'_> {
        Section { path, place, table, known: Vec::new(), taken: BTreeMap::new(), reading: self.reading }
    }

    fn take_table(&mut self, name: &'static str) -> Option<(Place, Table)> {
        let item = self.take(name)?;
        if let Value::Table(table) = item.value {
            return Some((item.place, table));
        }
        self.complain(name, &item, &format!("a table, written as [{name}]"));
        None
    }

    fn take(&mut self, name: &'static str) -> Option<Item> {
        self.known.push(name);
        let (_, item) = self.table.remove(name)?;
        self.taken.insert(name, (item.place.clone(), item.to_string()));
        Some(item)
    }

    /// Whether the field `name` is given and was not taken yet.
    pub(super) fn has(&self, name: &str) -> bool {
        self.table.contains_key(name)
    }

    /// The field `name`, if it is there and `parse` takes it; `parse` fails with what it expected.
    pub(super) fn get<T>(
        &mut self,
        name: &'static str,
        parse: impl FnOnce(&Item) -> Result<T, String>,
    ) -> Option<T> {
        let item = self.take(name)?;
        parse(&item).map_err(|expected| self.complain(name, &item, &expected)).ok()
    }

    /// The same for a field without a default.
    pub(super) fn require<T>(
        &mut self,
        name: &'static str,
        expected: &str,
        parse: impl FnOnce(&Item) -> Result<T, String>,
    ) -> Option<T> {
        self.miss(name, expected);
        self.get(name, parse)
    }

    /// Notes that the field `name` is missing, if it is.
    pub(super) fn miss(&mut self, name: &'static str, expected: &str) {
        if !self.table.contains_key(name) {
            self.reading.errors.push(ConfigError::Missing {
                place: self.place.clone(),
                field: format!("{}{name}", self.path),
                expected: expected.to_owned(),
            });
        }
    }

    /// The list `name`, if it is there and `parse` takes each of its values.
    pub(super) fn list<T>(
        &mut self,
        name: &'static str,
        expected: &str,
        mut parse: impl FnMut(&Item) -> Result<T, String>,
    ) -> Option<Vec<T>> {
        let item = self.take(name)?;
        let Some(items) = item.list() else {
            self.complain(name, &item, &format!("a list of {expected}, in [ ]"));
            return None;
        };
        if items.len() > LIST_MAX {
            self.complain(name, &item, &format!("a list of at most {LIST_MAX} entries"));
            return None;
        }
        let mut values = Vec::with_capacity(items.len());
        for (index, item) in items.iter().enumerate() {
            match parse(item) {
                Ok(value) => values.push(value),
                Err(expected) => self.complain(&format!("{name}[{index}]"), item, &expected),
            }
        }
        (values.len() == items.len()).then_some(values)
    }

    /// The same for a list without a default.
    pub(super) fn require_list<T>(
        &mut self,
        name: &'static str,
        expected: &str,
        parse: impl FnMut(&Item) -> Result<T, String>,
    ) -> Option<Vec<T>> {
        self.miss(name, &format!("a list of {expected}"));
        self.list(name, expected, parse)
    }

    /// Notes that `address` of the field `name` is to be bound (TCP), and refuses it when another field has it.
    pub(super) fn bind(&mut self, name: &'static str, index: Option<usize>, address: SocketAddr) {
        let index = index.map_or_else(String::new, |index| format!("[{index}]"));
        let field = format!("{}{name}{index}", self.path);
        let taken = self.reading.bound.iter().find(|(_, other)| overlap(*other, address));
        if let Some((other_field, other)) = taken {
            let expected = format!("an address that {other_field} ({other}) leaves free");
            let (place, origin) = match self.taken.get(name) {
                Some((place, _)) => (place.clone(), ""),
                None => (self.place.clone(), " (the default)"),
            };
            let value = format!("\"{address}\"{origin}");
            self.reading.errors.push(ConfigError::Value { place, field: field.clone(), value, expected });
        }
        self.reading.bound.push((field, address));
    }

    /// Notes that the unix socket of `name` is bound, and refuses the second one at a path.
    pub(super) fn bind_unix(&mut self, name: &'static str, path: &Path) {
        let field = format!("{}{name}", self.path);
        let taken =
            self.reading.sockets.iter().find(|(_, other)| other == path).map(|(field, _)| field.clone());
        if let Some(other) = taken {
            self.refuse(name, &"", format!("a path that {other} leaves free"));
        }
        self.reading.sockets.push((field, path.to_owned()));
    }

    /// Refuses the value of `name`, which by itself was fine. `value` is shown when it is a default.
    pub(super) fn refuse(&mut self, name: &'static str, value: &dyn fmt::Display, expected: String) {
        let field = format!("{}{name}", self.path);
        let (place, value) = match self.taken.get(name) {
            Some((place, value)) => (place.clone(), value.clone()),
            None => (self.place.clone(), format!("{value} (the default)")),
        };
        self.reading.errors.push(ConfigError::Value { place, field, value, expected });
    }

    /// The path that `text` means: relative to the configuration's folder in the file, to the working folder elsewhere.
    pub(super) fn resolve(&self, name: &'static str, text: &str) -> PathBuf {
        let in_file = self.taken.get(name).is_some_and(|(place, _)| matches!(place, Place::Line { .. }));
        match self.reading.file.parent() {
            Some(folder) if in_file => folder.join(text),
            Some(_) | None => PathBuf::from(text),
        }
    }

    fn complain(&mut self, name: &str, item: &Item, expected: &str) {
        self.reading.errors.push(ConfigError::Value {
            place: item.place.clone(),
            field: format!("{}{name}", self.path),
            value: item.to_string(),
            expected: expected.to_owned(),
        });
    }

    /// Takes it whole, unread.
    pub(super) fn pass_over(self) {}

    /// Refuses what nobody took.
    pub(super) fn finish(self) {
        for (name, (place, _)) in self.table {
            let nearest = match nearest(&name, &self.known) {
                Some(known) => Nearest::Name(format!("{}{known}", self.path)),
                None => Nearest::NoneOf(self.known.clone()),
            };
            let field = format!("{}{name}", self.path);
            self.reading.errors.push(ConfigError::Unknown { place, field, nearest });
        }
    }
}

/// Whether binding one address forbids binding the other. `[::]` takes IPv4 as well.
fn overlap(a: SocketAddr, b: SocketAddr) -> bool {
    let covers = |a: SocketAddr, b: SocketAddr| a.ip().is_unspecified() && (a.is_ipv6() || b.is_ipv4());
    a.port() == b.port() && (a.ip() == b.ip() || covers(a, b) || covers(b, a))
}
