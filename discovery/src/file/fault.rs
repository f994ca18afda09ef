//! What is wrong with a file, and where.

use std::fmt;
use std::ops::Range;
use std::path::Path;

/// How many faults are kept and shown; the rest is only counted, so that a hopeless file makes no endless log line.
const KEPT_MAX: usize = 20;

/// One fault.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fault {
    /// Line, from 1.
    pub line: usize,
    /// Column in characters, from 1.
    pub column: usize,
    /// Path of the field, `shards[3].address`; empty when the text is not even TOML.
    pub field: String,
    /// What is wrong with it.
    pub problem: Problem,
}

/// What is wrong with a field.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Problem {
    /// The text is no TOML, a field is unknown, or a table is none.
    #[error("{message}")]
    Structure {
        /// What the TOML parser says.
        message: String,
    },
    /// A required field is not there.
    #[error("is missing, expected {expected}")]
    Missing {
        /// What would be accepted.
        expected: String,
    },
    /// The value is not acceptable.
    #[error("is {value}, expected {expected}")]
    Value {
        /// The value as the file has it, cut to 80 characters.
        value: String,
        /// What would be accepted.
        expected: String,
    },
    /// Another entry has this value.
    #[error("is {value}, which line {first_line} has already, expected it once")]
    Duplicate {
        /// The value.
        value: String,
        /// Where it was first.
        first_line: usize,
    },
    /// A list is longer than its bound.
    #[error("has {count} entries, expected at most {max}")]
    TooMany {
        /// How many there are.
        count: usize,
        /// How many there may be.
        max: usize,
    },
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}: ", self.line, self.column)?;
        let separator = match &self.problem {
            _ if self.field.is_empty() => "",
            Problem::Structure { .. } => ": ",
            Problem::Missing { .. }
            | Problem::Value { .. }
            | Problem::Duplicate { .. }
            | Problem::TooMany { .. } => " ",
        };
        write!(f, "{}{separator}{}", self.field, self.problem)
    }
}

/// All faults of a file, in the order of the file's sections.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Faults {
    kept: Vec<Fault>,
    more: usize,
}

impl Faults {
    /// The faults that were kept.
    #[must_use]
    pub fn kept(&self) -> &[Fault] {
        &self.kept
    }

    /// Whether nothing is wrong.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.kept.is_empty()
    }

    pub(super) fn push(&mut self, text: &str, span: &Range<usize>, field: String, problem: Problem) {
        if self.kept.len() == KEPT_MAX {
            self.more += 1;
            return;
        }
        let (line, column) = position(text, span.start);
        self.kept.push(Fault { line, column, field, problem });
    }

    /// Writes every fault on a line of its own, each beginning with the path.
    pub(super) fn at<'a>(&'a self, path: &'a Path) -> impl fmt::Display + 'a {
        fmt::from_fn(move |f| {
            for (index, fault) in self.kept.iter().enumerate() {
                if index > 0 {
                    f.write_str("\n")?;
                }
                write!(f, "{}:{fault}", path.display())?;
            }
            if self.more > 0 {
                write!(f, "\n{}: and {} more faults", path.display(), self.more)?;
            }
            Ok(())
        })
    }
}

/// Line and column (in characters), both from 1, of a byte offset.
pub(super) fn position(text: &str, offset: usize) -> (usize, usize) {
    let before = &text[..text.floor_char_boundary(offset)];
    let line = 1 + before.bytes().filter(|byte| *byte == b'\n').count();
    let line_start = before.rfind('\n').map_or(0, |newline| newline + 1);
    (line, 1 + before[line_start..].chars().count())
}
