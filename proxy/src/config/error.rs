//! What is wrong with a configuration, and where.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Where a value came from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Place {
    /// The file as a whole, for what is not in it.
    File(Arc<Path>),
    /// A line and a column (in characters) of the file, both from 1.
    Line {
        /// The file.
        path: Arc<Path>,
        /// Line.
        line: usize,
        /// Column.
        column: usize,
    },
    /// An environment variable, by name.
    Variable(Arc<str>),
    /// An argument of `--set`, as it was given.
    Set(Arc<str>),
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File(path) => write!(f, "{}", path.display()),
            Self::Line { path, line, column } => write!(f, "{}:{line}:{column}", path.display()),
            Self::Variable(name) => write!(f, "environment variable {name}"),
            Self::Set(argument) => write!(f, "--set {argument}"),
        }
    }
}

/// One fault of a configuration.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file could not be opened or read.
    #[error("{}: cannot be read ({source}), expected a TOML file with the configuration", path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The file is no text of a sane size.
    #[error("{}: {what}, expected a TOML file with the configuration", path.display())]
    NotText {
        /// The file.
        path: PathBuf,
        /// What it is instead.
        what: &'static str,
    },
    /// The text is no TOML.
    #[error("{place}: {message}")]
    Syntax {
        /// Where.
        place: Place,
        /// What the parser says.
        message: String,
    },
    /// There is no such field.
    #[error("{place}: unknown field {field}{}", hint(nearest))]
    Unknown {
        /// Where.
        place: Place,
        /// Path of the field.
        field: String,
        /// What is known there: the name that resembles it, or all of them.
        nearest: Nearest,
    },
    /// An argument of `--set` or the name of a variable has not the right form.
    #[error("{place}: expected {expected}")]
    Form {
        /// Which one.
        place: Place,
        /// What it should look like.
        expected: &'static str,
    },
    /// A field without a default is not there.
    #[error("{place}: {field} is missing, expected {expected}")]
    Missing {
        /// The section that lacks it, or the file.
        place: Place,
        /// Path of the field.
        field: String,
        /// What would be accepted.
        expected: String,
    },
    /// A value is not acceptable.
    #[error("{place}: {field} is {value}, expected {expected}")]
    Value {
        /// Where.
        place: Place,
        /// Path of the field.
        field: String,
        /// The value, cut to 80 characters.
        value: String,
        /// What would be accepted.
        expected: String,
    },
}

/// Help for an unknown name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Nearest {
    /// It resembles this one.
    Name(String),
    /// It resembles none; these are known.
    NoneOf(Vec<&'static str>),
}

fn hint(nearest: &Nearest) -> String {
    match nearest {
        Nearest::Name(name) => format!(", did you mean {name}?"),
        Nearest::NoneOf(known) => format!(", expected one of {}", known.join(", ")),
    }
}

/// Everything that is wrong with a configuration, a line each.
#[derive(Debug)]
pub struct ConfigErrors(pub Vec<ConfigError>);

impl fmt::Display for ConfigErrors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, error) in self.0.iter().enumerate() {
            if index > 0 {
                f.write_str("\n")?;
            }
            write!(f, "{error}")?;
        }
        Ok(())
    }
}

impl std::error::Error for ConfigErrors {}

impl From<ConfigError> for ConfigErrors {
    fn from(error: ConfigError) -> Self {
        Self(vec![error])
    }
}
