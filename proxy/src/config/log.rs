//! `[log]`: the access log, the audit log, and what the program says of itself.

use super::section::Section;
use super::value;
use super::write;
use crate::log_writer::LogTarget;
use std::fmt;
use tracing_subscriber::EnvFilter;
use tracing_subscriber::filter::LevelFilter;

const TARGET: &str = "\"off\", \"stdout\" or the path of a file";
const LEVEL: &str = "a level (off, error, warn, info, debug, trace) or levels per module, such as \"info,shardgate_peering=debug\"";

/// What is logged.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogConfig {
    /// One line per request. Default off: it holds room names, which are personal.
    pub access: LogTarget,
    /// One line per order that the admin takes. Default off: it holds room names, too; the program's own log tells of orders without them.
    pub audit: LogTarget,
    /// Which events are told: a `tracing` filter. Default `info`.
    pub level: String,
}

impl Default for LogConfig {
    fn default() -> Self {
        Self { access: LogTarget::Off, audit: LogTarget::Off, level: "info".to_owned() }
    }
}

impl LogConfig {
    pub(super) fn read(mut section: Section<'_>) -> Self {
        let default = Self::default();
        let (access, audit) = (target(&mut section, "access"), target(&mut section, "audit"));
        let config = Self {
            access: access.unwrap_or(default.access),
            audit: audit.unwrap_or(default.audit),
            level: section.get("level", value::text(LEVEL, level)).unwrap_or(default.level),
        };
        section.finish();
        config
    }
}

/// Where a log goes.
fn target(section: &mut Section<'_>, name: &'static str) -> Option<LogTarget> {
    let given = section.get(name, value::text(TARGET, |text| (!text.is_empty()).then(|| text.to_owned())));
    given.map(|given| match given.as_str() {
        "off" => LogTarget::Off,
        "stdout" => LogTarget::Stdout,
        path => LogTarget::File(section.resolve(name, path)),
    })
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
        for (name, target) in [("access", &self.access), ("audit", &self.audit)] {
            match target {
                LogTarget::Off => writeln!(f, "{name} = \"off\"")?,
                LogTarget::Stdout => writeln!(f, "{name} = \"stdout\"")?,
                LogTarget::File(path) => writeln!(f, "{name} = {}", write::path(path))?,
            }
        }
        writeln!(f, "level = {}", write::text(&self.level))
    }
}
