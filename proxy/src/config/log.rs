//! `[log]`: the access log, and what the program says of itself.

use super::section::Section;
use super::value;
use super::write;
use crate::access_log::AccessLogTarget;
use std::fmt;
use tracing_subscriber::EnvFilter;
use tracing_subscriber::filter::LevelFilter;

const ACCESS: &str = "\"off\", \"stdout\" or the path of a file";
const LEVEL: &str = "a level (off, error, warn, info, debug, trace) or levels per module, such as \"info,shardgate_peering=debug\"";

/// What is logged.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogConfig {
    /// One line per request. Default off: it holds room names, which are personal.
    pub access: AccessLogTarget,
    /// Which events are told: a `tracing` filter. Default `info`.
    pub level: String,
}

impl Default for LogConfig {
    fn default() -> Self {
        Self { access: AccessLogTarget::Off, level: "info".to_owned() }
    }
}

impl LogConfig {
    pub(super) fn read(mut section: Section<'_>) -> Self {
        let default = Self::default();
        let given =
            section.get("access", value::text(ACCESS, |text| (!text.is_empty()).then(|| text.to_owned())));
        let access = given.map(|given| match given.as_str() {
            "off" => AccessLogTarget::Off,
            "stdout" => AccessLogTarget::Stdout,
            path => AccessLogTarget::File(section.resolve("access", path)),
        });
        let config = Self {
            access: access.unwrap_or(default.access),
            level: section.get("level", value::text(LEVEL, level)).unwrap_or(default.level),
        };
        section.finish();
        config
    }
}

/// A bare word has to be a level: the filter itself would take `inof` for a module and tell all of it.
fn level(text: &str) -> Option<String> {
    let is_level = |part: &str| !part.is_empty() && part.parse::<LevelFilter>().is_ok();
    let known = |part: &str| part.contains(['=', '[']) || is_level(part.trim());
    (text.split(',').all(known) && EnvFilter::try_new(text).is_ok()).then(|| text.to_owned())
}

impl fmt::Display for LogConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "[log]")?;
        match &self.access {
            AccessLogTarget::Off => writeln!(f, "access = \"off\"")?,
            AccessLogTarget::Stdout => writeln!(f, "access = \"stdout\"")?,
            AccessLogTarget::File(path) => writeln!(f, "access = {}", write::path(path))?,
        }
        writeln!(f, "level = {}", write::text(&self.level))
    }
}
