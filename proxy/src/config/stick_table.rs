//! `[stick_table]`: conference to shard.

use super::section::Section;
use super::value;
use super::write;
use std::fmt;
use std::time::Duration;

/// The table's bounds. Every node of a mesh should have the same.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StickTableConfig {
    /// How long an entry lives after its conference's last request, when nothing is open. Default 5 min, as HAProxy at Jitsi.
    pub expire: Duration,
    /// How long a BOSH session lasts behind its last request, and holds its entry. Default 2 s: a client polls again at once. One that sends on a
    /// second connection while a poll is held on the first, as Strophe does, counts twice for so long when a split brain is decided;
    /// who is suspended for longer finds the entry by `expire`.
    pub bosh_pause: Duration,
    /// The most entries. Default 1000000: ten times the largest site, a few hundred bytes each.
    pub size: usize,
}

impl Default for StickTableConfig {
    fn default() -> Self {
        Self { expire: Duration::from_secs(300), bosh_pause: Duration::from_secs(2), size: 1_000_000 }
    }
}

impl StickTableConfig {
    pub(super) fn read(mut section: Section<'_>) -> Self {
        let default = Self::default();
        let expire = value::duration(Duration::from_millis(500)..=Duration::from_secs(86_400));
        let pause = value::duration(Duration::from_millis(10)..=Duration::from_secs(3_600));
        let config = Self {
            expire: section.get("expire", expire).unwrap_or(default.expire),
            bosh_pause: section.get("bosh_pause", pause).unwrap_or(default.bosh_pause),
            size: section.get("size", value::integer(1..=10_000_000)).unwrap_or(default.size),
        };
        section.finish();
        config
    }
}

impl fmt::Display for StickTableConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "[stick_table]")?;
        writeln!(f, "expire = {}", write::duration(self.expire))?;
        writeln!(f, "bosh_pause = {}", write::duration(self.bosh_pause))?;
        writeln!(f, "size = {}", self.size)
    }
}
