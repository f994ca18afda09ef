//! Writes checked values as TOML.

use super::units::{DurationText, SizeText};
use std::fmt::{self, Display};
use std::path::Path;
use std::time::Duration;

/// A text in quotes.
pub(super) fn text(text: &str) -> impl Display + use<> {
    toml::Value::String(text.to_owned())
}

/// A path in quotes.
pub(super) fn path(path: &Path) -> impl Display + use<> {
    text(&path.to_string_lossy())
}

/// A duration in quotes.
pub(super) fn duration(duration: Duration) -> impl Display {
    fmt::from_fn(move |f| write!(f, "\"{}\"", DurationText(duration)))
}

/// A size in quotes.
pub(super) fn size(bytes: usize) -> impl Display {
    fmt::from_fn(move |f| write!(f, "\"{}\"", SizeText(bytes as u64)))
}

/// A list of texts.
pub(super) fn list<T: Display>(items: impl IntoIterator<Item = T>) -> impl Display {
    toml::Value::Array(items.into_iter().map(|item| toml::Value::String(item.to_string())).collect())
}
