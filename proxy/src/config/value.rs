//! The kinds of values that fields have. Each fails with what it expected, in words.

use super::tree::Item;
use super::units::{DurationText, SizeText, parse_duration, parse_size};
use crate::address_range::AddressRange;
use std::fs::File;
use std::io::Read;
use std::net::SocketAddr;
use std::ops::RangeInclusive;
use std::path::Path;
use std::time::Duration;

/// A duration inside `range`.
pub(super) fn duration(range: RangeInclusive<Duration>) -> impl Fn(&Item) -> Result<Duration, String> {
    move |item| {
        let value = item.text().and_then(parse_duration).filter(|value| range.contains(value));
        value.ok_or_else(|| {
            let (from, to) = (DurationText(*range.start()), DurationText(*range.end()));
            format!("a duration such as \"10s\" (units ms, s, m, h, d) from {from} to {to}")
        })
    }
}

/// A size in bytes inside `range`.
pub(super) fn size(range: RangeInclusive<usize>) -> impl Fn(&Item) -> Result<usize, String> {
    move |item| {
        let value = item.text().and_then(parse_size).and_then(|value| usize::try_from(value).ok());
        value.filter(|value| range.contains(value)).ok_or_else(|| {
            let (from, to) = (SizeText(*range.start() as u64), SizeText(*range.end() as u64));
            format!("a size such as \"64KiB\" (units B, KiB, MiB, GiB) from {from} to {to}")
        })
    }
}

/// An integer inside `range`.
pub(super) fn integer<T: TryFrom<i64> + PartialOrd + std::fmt::Display>(
    range: RangeInclusive<T>,
) -> impl Fn(&Item) -> Result<T, String> {
    move |item| {
        let value =
            item.integer().and_then(|value| T::try_from(value).ok()).filter(|value| range.contains(value));
        value.ok_or_else(|| format!("an integer from {} to {}", range.start(), range.end()))
    }
}

/// One of some words.
pub(super) fn word<T: Copy>(words: &[(&str, T)]) -> impl Fn(&Item) -> Result<T, String> {
    move |item| {
        let found = words.iter().find(|(word, _)| item.text() == Some(word));
        found.map(|(_, value)| *value).ok_or_else(|| {
            let words: Vec<_> = words.iter().map(|(word, _)| format!("\"{word}\"")).collect();
            words.join(" or ")
        })
    }
}

/// The word that [`word`] takes for `value`.
pub(super) fn word_of<T: Copy + PartialEq>(words: &[(&'static str, T)], value: T) -> &'static str {
    words.iter().find(|(_, other)| *other == value).map_or("", |(word, _)| word)
}

/// A text that `parse` takes.
pub(super) fn text<T>(
    expected: &str,
    parse: impl Fn(&str) -> Option<T>,
) -> impl Fn(&Item) -> Result<T, String> {
    move |item| item.text().and_then(&parse).ok_or_else(|| expected.to_owned())
}

/// What [`listen_address`] takes.
pub(super) const LISTEN_ADDRESS: &str =
    "an IP address and a port other than 0, such as \"0.0.0.0:80\" or \"[::]:80\"";

/// An address to listen at. Port 0 would be another port for every worker.
pub(super) fn listen_address(item: &Item) -> Result<SocketAddr, String> {
    let address = item.text().and_then(|text| text.parse().ok());
    address.filter(|address: &SocketAddr| address.port() != 0).ok_or_else(|| LISTEN_ADDRESS.to_owned())
}

/// A range of addresses.
pub(super) fn address_range(item: &Item) -> Result<AddressRange, String> {
    let expected = "a range of addresses such as \"10.0.0.0/8\" or \"2001:db8::/32\", or one address";
    let text = item.text().ok_or_else(|| expected.to_owned())?;
    text.parse().map_err(|error| format!("{expected} ({error})"))
}

/// Reads a file of at most `bytes_max` bytes.
pub(super) fn read_file(path: &Path, bytes_max: usize) -> Result<Vec<u8>, String> {
    let most = SizeText(bytes_max as u64);
    // Shown on terminals: a tab or an escape in a path is told, not sent.
    let escape = |letter: char| match letter.is_control() {
        true => letter.escape_default().to_string(),
        false => letter.to_string(),
    };
    let shown: String = path.display().to_string().chars().map(escape).collect();
    let expected = |why: &str| format!("a readable file of at most {most} ({shown}: {why})");
    let found = std::fs::metadata(path).map_err(|error| expected(&error.to_string()))?;
    if !found.is_file() {
        return Err(expected("it is no regular file"));
    }
    let mut bytes = Vec::new();
    File::open(path)
        .and_then(|file| file.take(bytes_max as u64 + 1).read_to_end(&mut bytes))
        .map_err(|error| expected(&error.to_string()))?;
    if bytes.len() > bytes_max {
        return Err(expected("it is larger"));
    }
    Ok(bytes)
}
