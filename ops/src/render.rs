//! Tables for people, JSON for scripts.

use std::borrow::Cow;
use std::io::{self, Write as _};
use std::sync::atomic::{AtomicBool, Ordering};

use serde::Serialize;

/// What the answer looks like.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Output {
    /// A table to look at.
    Table,
    /// One JSON document per line.
    Json,
}

/// Whether something of what was asked for could not be said.
static UNSAID: AtomicBool = AtomicBool::new(false);

/// Whether something of what was asked for could not be said, as on a disk that is full.
pub(crate) fn unsaid() -> bool {
    UNSAID.load(Ordering::Relaxed)
}

/// Says what was asked for. Whoever reads it may have enough, as `head` has: that is no fault.
pub(crate) fn show(text: &str) {
    let mut out = io::stdout().lock();
    let written = out.write_all(text.as_bytes()).and_then(|()| out.flush());
    if let Err(error) = written
        && error.kind() != io::ErrorKind::BrokenPipe
        && !UNSAID.swap(true, Ordering::Relaxed)
    {
        tell(&format!("error: the output cannot be written: {error}"));
    }
}

/// Says something beside what was asked for: a script reads only the other.
pub(crate) fn tell(text: &str) {
    // Where even this cannot be said, nobody is left to be told.
    let _said = writeln!(io::stderr(), "{}", printable(text));
}

/// What a terminal obeys, or what makes text look like another (directions of writing).
fn obeyed(letter: char) -> bool {
    letter.is_control()
        || matches!(letter, '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

/// Text that somebody else wrote, on one line and without what a terminal would obey.
pub(crate) fn printable(text: &str) -> Cow<'_, str> {
    if !text.contains(obeyed) {
        return Cow::Borrowed(text);
    }
    let mut shown = String::with_capacity(text.len() + 16);
    for letter in text.chars() {
        if obeyed(letter) { shown.extend(letter.escape_default()) } else { shown.push(letter) }
    }
    Cow::Owned(shown)
}

/// A word of a command line as a shell takes it: names of rooms are up to whoever made them.
pub(crate) fn shell_word(text: &str) -> Cow<'_, str> {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.' | b'/' | b':');
    if !text.is_empty() && text.bytes().all(plain) {
        return Cow::Borrowed(text);
    }
    Cow::Owned(format!("'{}'", text.replace('\'', r"'\''")))
}

/// A word of a command line that is none of its options, whatever it begins with; only such words may follow.
pub(crate) fn operand(text: &str) -> String {
    let word = shell_word(text);
    if text.starts_with('-') { format!("-- {word}") } else { word.into_owned() }
}

/// Columns as wide as their widest cell, two spaces apart.
pub(crate) fn table(head: &[&str], rows: &[Vec<String>]) -> String {
    let rows: Vec<Vec<Cow<'_, str>>> =
        rows.iter().map(|row| row.iter().map(|cell| printable(cell)).collect()).collect();
    let mut widths: Vec<usize> = head.iter().map(|cell| cell.chars().count()).collect();
    for row in &rows {
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = (*width).max(cell.chars().count());
        }
    }
    let line = |cells: &mut dyn Iterator<Item = &str>| {
        let mut line = String::new();
        for (cell, width) in cells.zip(&widths) {
            let padding = width - cell.chars().count();
            line.push_str(cell);
            line.extend(std::iter::repeat_n(' ', padding + 2));
        }
        line.truncate(line.trim_end().len());
        line.push('\n');
        line
    };
    let mut text = line(&mut head.iter().copied());
    for row in &rows {
        text.push_str(&line(&mut row.iter().map(|cell| &**cell)));
    }
    text
}

/// One line of JSON. What a terminal would obey is escaped: such letters stand only in its strings.
pub(crate) fn json(value: &impl Serialize) -> String {
    let text = serde_json::to_string(value).unwrap_or_default();
    let mut shown = String::with_capacity(text.len() + 1);
    for letter in text.chars() {
        if obeyed(letter) {
            shown.push_str(&format!("\\u{:04x}", u32::from(letter)));
        } else {
            shown.push(letter);
        }
    }
    shown.push('\n');
    shown
}

/// Milliseconds since 1970 as a moment in UTC.
pub(crate) fn moment_ms(ms: u64) -> String {
    let time = std::time::UNIX_EPOCH + std::time::Duration::from_millis(ms);
    humantime::format_rfc3339_millis(time).to_string()
}

/// Milliseconds as a person reads them.
pub(crate) fn duration(ms: u64) -> String {
    match ms / 1_000 {
        seconds @ 0..60 => format!("{seconds}s"),
        seconds @ 60..3_600 => format!("{}m{:02}s", seconds / 60, seconds % 60),
        seconds => format!("{}h{:02}m", seconds / 3_600, seconds % 3_600 / 60),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_as_wide_as_their_cells() {
        let rows = [vec!["a".to_owned(), "long cell".to_owned()], vec!["übung".to_owned(), String::new()]];
        assert_eq!(table(&["NAME", "X"], &rows), "NAME   X\na      long cell\nübung\n");
    }

    #[test]
    fn what_others_wrote_is_no_command() {
        assert_eq!(printable("plain ü"), "plain ü");
        assert_eq!(printable("a\u{1b}[2J\nb"), r"a\u{1b}[2J\nb");
        assert_eq!(table(&["X"], &[vec!["a\nb".to_owned()]]), "X\na\\nb\n");
        assert_eq!(shell_word("acme/room-1"), "acme/room-1");
        assert_eq!(shell_word("x';reboot"), r"'x'\'';reboot'");
        assert_eq!(shell_word(""), "''");
        assert_eq!([operand("a"), operand("-x;")], ["a", "-- '-x;'"]);
    }

    #[test]
    fn nobody_else_says_how_text_looks() {
        let text = "a\u{9b}2J\u{202e}b\u{7f}\u{2066}\u{200f}c";
        let shown = r"a\u{9b}2J\u{202e}b\u{7f}\u{2066}\u{200f}c";
        assert_eq!(printable(text), shown);
        let line = json(&text);
        assert_eq!(line, "\"a\\u009b2J\\u202eb\\u007f\\u2066\\u200fc\"\n");
        assert_eq!(serde_json::from_str::<String>(&line).unwrap(), text);
    }

    #[test]
    fn durations_are_short() {
        assert_eq!([999, 61_000, 3_660_000].map(duration), ["0s", "1m01s", "1h01m"]);
    }
}
