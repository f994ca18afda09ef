//! `[discovery]` or `[consul]`: where shards, peers, releases and pins come from.

use super::consul::ConsulSection;
use super::section::Section;
use super::value;
use super::write;
use shardgate_discovery::FileWatchConfig;
use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

const FILE: &str = "the path of a discovery file, such as \"discovery.toml\"";

/// Where shards, peers, releases and pins come from. What is said there is discovery's to check, at the start and with every change.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum DiscoveryConfig {
    /// A watched file.
    File(FileSection),
    /// Consul.
    Consul(Box<ConsulSection>),
}

/// The watched file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FileSection {
    /// The file. It has no default.
    pub file: PathBuf,
    /// How often it is looked at. Default 500 ms: below what a person notices, one `stat` for the system.
    pub every: Duration,
}

impl FileSection {
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
}

impl DiscoveryConfig {
    /// Watches `file` at the default period.
    #[must_use]
    pub fn file(file: PathBuf) -> Self {
        Self::File(FileSection::new(file))
    }

    /// Reads whichever of the two sections is there; one has to be.
    pub(super) fn read(root: &mut Section<'_>) -> Option<Self> {
        if let Some(consul) = root.optional_section("consul") {
            let consul = ConsulSection::read(consul);
            if root.has("discovery") {
                root.refuse(
                    "consul",
                    &"",
                    "no [consul] beside [discovery]: one of both says what there is".to_owned(),
                );
                // Taken, so that it is not refused once more.
                root.section("discovery").pass_over();
            }
            return Some(Self::Consul(Box::new(consul)));
        }
        let mut section = root.section("discovery");
        let parse = value::text(FILE, |text| (!text.is_empty()).then(|| text.to_owned()));
        let file = section.require("file", FILE, parse).map(|given| section.resolve("file", &given));
        let every =
            section.get("every", value::duration(Duration::from_millis(10)..=Duration::from_secs(600)));
        section.finish();
        let default = FileSection::new(file?);
        Some(Self::File(FileSection { every: every.unwrap_or(default.every), ..default }))
    }
}

impl fmt::Display for DiscoveryConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File(FileSection { file, every }) => {
                writeln!(f, "[discovery]")?;
                writeln!(f, "file = {}", write::path(file))?;
                writeln!(f, "every = {}", write::duration(*every))
            }
            Self::Consul(consul) => write!(f, "{consul}"),
        }
    }
}
