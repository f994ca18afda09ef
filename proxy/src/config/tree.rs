//! The raw configuration: every value with its place, before anything is known about fields.

use super::error::{ConfigError, ConfigErrors, Place};
use std::collections::BTreeMap;
use std::fmt;
use std::fs::File;
use std::io::Read;
use std::path::Path;
use std::sync::Arc;
use toml::Spanned;
use toml::de::{DeTable, DeValue};

/// The largest configuration that is read. The shipped example with all its comments is a fiftieth of it.
const FILE_BYTES_MAX: u64 = 1 << 20;

/// A table: names to values, with the place of the name.
pub(super) type Table = BTreeMap<String, (Place, Item)>;

/// A value with its place.
#[derive(Debug, Clone)]
pub(super) struct Item {
    pub(super) place: Place,
    pub(super) value: Value,
    /// The text as it was given, for values from a variable or from `--set`: there `1` may be meant as a text.
    pub(super) given: Option<String>,
}

#[derive(Debug, Clone)]
pub(super) enum Value {
    Text(String),
    Integer(i64),
    Boolean(bool),
    /// A float, a date or an integer beyond 64 bits; no field wants one.
    Other(String),
    List(Vec<Item>),
    Table(Table),
}

impl Item {
    /// The value as a text, if it is one.
    pub(super) fn text(&self) -> Option<&str> {
        match &self.value {
            Value::Text(text) => Some(text),
            Value::Integer(_) | Value::Boolean(_) | Value::Other(_) | Value::List(_) | Value::Table(_) => {
                self.given.as_deref()
            }
        }
    }

    /// The value as an integer, if it is one.
    pub(super) const fn integer(&self) -> Option<i64> {
        if let Value::Integer(number) = self.value { Some(number) } else { None }
    }

    /// The value as a list. In a variable or in `--set`, `a,b` is one as well.
    pub(super) fn list(&self) -> Option<Vec<Self>> {
        match (&self.value, &self.given) {
            (Value::List(items), _) => Some(items.clone()),
            (Value::Text(text), Some(_)) => Some(
                text.split(',')
                    .map(|part| Self { value: Value::Text(part.trim().to_owned()), ..self.clone() })
                    .collect(),
            ),
            _ => None,
        }
    }

    /// Takes the text of a variable or of `--set`: as TOML if it is that, else as the text it is.
    pub(super) fn given(text: &str, place: &Place) -> Self {
        let mut item = match DeValue::parse(text) {
            Ok(value) => convert(&value, &|_| place.clone()),
            Err(_) => Self { place: place.clone(), value: Value::Text(text.to_owned()), given: None },
        };
        item.given = Some(text.to_owned());
        item
    }
}

impl fmt::Display for Item {
    /// For messages: on one line, at most 80 characters.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = self.value.to_string();
        match text.char_indices().nth(80) {
            Some((cut, _)) => write!(f, "{}...", &text[..cut]),
            None => f.write_str(&text),
        }
    }
}

impl fmt::Display for Value {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Text(text) => write!(f, "{text:?}"),
            Self::Integer(number) => write!(f, "{number}"),
            Self::Boolean(value) => write!(f, "{value}"),
            Self::Other(text) => f.write_str(text),
            Self::List(items) => {
                f.write_str("[")?;
                for (index, item) in items.iter().enumerate() {
                    let comma = if index > 0 { ", " } else { "" };
                    write!(f, "{comma}{}", item.value)?;
                }
                f.write_str("]")
            }
            Self::Table(_) => f.write_str("a table"),
        }
    }
}

/// Reads the file. The first fault of its syntax ends the reading: what follows one is guesswork.
pub(super) fn read(path: &Path) -> Result<Table, ConfigErrors> {
    let unreadable = |source| ConfigError::Unreadable { path: path.to_owned(), source };
    let not_text = |what| ConfigError::NotText { path: path.to_owned(), what };
    if !std::fs::metadata(path).map_err(unreadable)?.is_file() {
        return Err(not_text("is no regular file").into());
    }
    let mut bytes = Vec::new();
    File::open(path)
        .and_then(|file| file.take(FILE_BYTES_MAX + 1).read_to_end(&mut bytes))
        .map_err(unreadable)?;
    if bytes.len() as u64 > FILE_BYTES_MAX {
        return Err(not_text("is larger than 1 MiB").into());
    }
    let text = String::from_utf8(bytes).map_err(|_| not_text("is not UTF-8"))?;
    let path: Arc<Path> = Arc::from(path);
    let place = |offset: usize| place(&path, &text, offset);
    let table = DeTable::parse(&text).map_err(|error| ConfigError::Syntax {
        place: place(error.span().map_or(0, |span| span.start)),
        message: error.message().to_owned(),
    })?;
    Ok(convert_table(table.as_ref(), &place))
}

fn convert_table(table: &DeTable<'_>, place: &dyn Fn(usize) -> Place) -> Table {
    table
        .iter()
        .map(|(key, value)| (key.as_ref().to_string(), (place(key.span().start), convert(value, place))))
        .collect()
}

fn convert(spanned: &Spanned<DeValue<'_>>, place: &dyn Fn(usize) -> Place) -> Item {
    let value = match spanned.as_ref() {
        DeValue::String(text) => Value::Text(text.to_string()),
        DeValue::Integer(number) => match i64::from_str_radix(number.as_str(), number.radix()) {
            Ok(number) => Value::Integer(number),
            Err(_) => Value::Other(number.to_string()),
        },
        DeValue::Float(number) => Value::Other(number.to_string()),
        DeValue::Boolean(value) => Value::Boolean(*value),
        DeValue::Datetime(moment) => Value::Other(moment.to_string()),
        DeValue::Array(items) => Value::List(items.iter().map(|item| convert(item, place)).collect()),
        DeValue::Table(table) => Value::Table(convert_table(table, place)),
    };
    Item { place: place(spanned.span().start), value, given: None }
}

fn place(path: &Arc<Path>, text: &str, offset: usize) -> Place {
    let before = &text[..text.floor_char_boundary(offset)];
    let line = 1 + before.bytes().filter(|byte| *byte == b'\n').count();
    let line_start = before.rfind('\n').map_or(0, |newline| newline + 1);
    Place::Line { path: Arc::clone(path), line, column: 1 + before[line_start..].chars().count() }
}
