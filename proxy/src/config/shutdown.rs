//! `[shutdown]`: how the node ends.

use super::section::Section;
use super::value;
use super::write;
use std::fmt;
use std::time::Duration;

/// What happens on SIGTERM.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ShutdownConfig {
    /// How long open requests and tunnels get, from the moment the node says it is not ready. Default 30 s: below systemd's
    /// patience of 90 s, above a BOSH answer.
    pub drain: Duration,
}

impl Default for ShutdownConfig {
    fn default() -> Self {
        Self { drain: Duration::from_secs(30) }
    }
}

impl ShutdownConfig {
    pub(super) fn read(mut section: Section<'_>) -> Self {
        let default = Self::default();
        let drain = value::duration(Duration::ZERO..=Duration::from_secs(86_400));
        let config = Self { drain: section.get("drain", drain).unwrap_or(default.drain) };
        section.finish();
        config
    }
}

impl fmt::Display for ShutdownConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "[shutdown]")?;
        writeln!(f, "drain = {}", write::duration(self.drain))
    }
}
