//! `[discovery]`: where shards, peers, releases and pins come from.

use super::section::Section;
use super::value;
use super::write;
use shardgate_discovery::FileWatchConfig;
use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

const FILE: &str = "the path of a discovery file, such as \"discovery.toml\"";

/// The watched file. What is in it is discovery's to check, at the start and with every change.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DiscoveryConfig {
    /// The file. It has no default.
    pub file: PathBuf,
    /// How often it is looked at. Default 500 ms: below what a person notices, one `stat` for the system.
    pub every: Duration,
}

impl DiscoveryConfig {
    /// Watches `file` at the default period.
    #[must_use]
    pub fn new(file: PathBuf) -> Self {
        Self { file, every: FileWatchConfig::default().every }
    }

    /// What `shardgate_discovery::watch_file` takes.
    #[must_use]
    pub fn watch(&self) -> FileWatchConfig {
        FileWatchConfig { every: self.every, ..FileWatchConfig::default() }
    }

    pub(super) fn read(mut section: Section<'_>) -> Option<Self> {
        let parse = value::text(FILE, |text| (!text.is_empty()).then(|| text.to_owned()));
        let file = section.require("file", FILE, parse).map(|given| section.resolve("file", &given));
        let every =
            section.get("every", value::duration(Duration::from_millis(10)..=Duration::from_secs(600)));
        section.finish();
        let default = Self::new(file?);
        Some(Self { every: every.unwrap_or(default.every), ..default })
    }
}

impl fmt::Display for DiscoveryConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "[discovery]")?;
        writeln!(f, "file = {}", write::path(&self.file))?;
        writeln!(f, "every = {}", write::duration(self.every))
    }
}
