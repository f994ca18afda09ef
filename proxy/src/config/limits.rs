//! `[limits]`: what is let in at all. What the limits of a shard are stands in `[backend]`, of connections in `[frontend]`.

use super::section::Section;
use super::tree::Item;
use super::units::{SizeText, parse_size};
use super::value;
use super::write;
use crate::address_range::AddressRange;
use crate::limits::{MemoryMax, PerAddress, RATE_MAX, Rate};
use std::fmt;

/// Less than any node needs by itself: a mistake of units.
const MEMORY_MIN: u64 = 16 << 20;
const MEMORY_MAX: u64 = 1 << 44;

/// What is let in. Rates are per second and client address, in a process; 0 is no limit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LimitsConfig {
    /// Connections that one address may have open. Default 0: a company's or a university's clients share one address.
    pub connections_per_address: u32,
    /// New connections. Default 0, for the same reason.
    pub connection_rate: u32,
    /// How many of them at once. Default 200.
    pub connection_burst: u32,
    /// Requests. Default 0, for the same reason.
    pub request_rate: u32,
    /// How many of them at once. Default 1000.
    pub request_burst: u32,
    /// Requests that would make a new entry in the stick table. Default 20: people of one address do not begin as many meetings a
    /// second, and whoever invents rooms fills a table of a million entries in 14 hours, which end after 5 minutes.
    pub new_key_rate: u32,
    /// How many of them at once. Default 200: all meetings of a company begin at the full hour.
    pub new_key_burst: u32,
    /// Who is not limited. Default loopback: what ends TLS on this machine would be one address for all of its clients.
    pub exempt: Vec<AddressRange>,
    /// Resident memory beyond which nothing new is let in. Default auto: 85 % of what the control group or the machine has.
    pub memory_max: MemoryMax,
}

impl Default for LimitsConfig {
    fn default() -> Self {
        Self {
            connections_per_address: 0,
            connection_rate: 0,
            connection_burst: 200,
            request_rate: 0,
            request_burst: 1_000,
            new_key_rate: 20,
            new_key_burst: 200,
            exempt: AddressRange::LOOPBACK.to_vec(),
            memory_max: MemoryMax::Auto,
        }
    }
}

impl LimitsConfig {
    pub(super) fn read(mut section: Section<'_>) -> Self {
        let default = Self::default();
        let rate = || value::integer(0..=RATE_MAX);
        let burst = || value::integer(1..=RATE_MAX);
        let config = Self {
            connections_per_address: section
                .get("connections_per_address", value::integer(0..=2_000_000))
                .unwrap_or(default.connections_per_address),
            connection_rate: section.get("connection_rate", rate()).unwrap_or(default.connection_rate),
            connection_burst: section.get("connection_burst", burst()).unwrap_or(default.connection_burst),
            request_rate: section.get("request_rate", rate()).unwrap_or(default.request_rate),
            request_burst: section.get("request_burst", burst()).unwrap_or(default.request_burst),
            new_key_rate: section.get("new_key_rate", rate()).unwrap_or(default.new_key_rate),
            new_key_burst: section.get("new_key_burst", burst()).unwrap_or(default.new_key_burst),
            exempt: section
                .list("exempt", "ranges of addresses", value::address_range)
                .unwrap_or(default.exempt),
            memory_max: section.get("memory_max", memory_max).unwrap_or(default.memory_max),
        };
        section.finish();
        config
    }

    /// The part that is counted by address.
    #[must_use]
    pub fn per_address(&self) -> PerAddress {
        PerAddress {
            connections_max: self.connections_per_address,
            connection_rate: Rate::new(self.connection_rate, self.connection_burst),
            request_rate: Rate::new(self.request_rate, self.request_burst),
            new_key_rate: Rate::new(self.new_key_rate, self.new_key_burst),
            exempt: self.exempt.clone(),
        }
    }
}

fn memory_max(item: &Item) -> Result<MemoryMax, String> {
    let found = match item.text() {
        Some("auto") => Some(MemoryMax::Auto),
        Some("off") => Some(MemoryMax::Off),
        Some(text) => {
            let bytes = parse_size(text).filter(|bytes| (MEMORY_MIN..=MEMORY_MAX).contains(bytes));
            bytes.map(MemoryMax::Bytes)
        }
        None => None,
    };
    found.ok_or_else(|| {
        let (from, to) = (SizeText(MEMORY_MIN), SizeText(MEMORY_MAX));
        format!("\"auto\", \"off\" or a size such as \"4GiB\" (units B, KiB, MiB, GiB) from {from} to {to}")
    })
}

impl fmt::Display for LimitsConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "[limits]")?;
        writeln!(f, "connections_per_address = {}", self.connections_per_address)?;
        writeln!(f, "connection_rate = {}", self.connection_rate)?;
        writeln!(f, "connection_burst = {}", self.connection_burst)?;
        writeln!(f, "request_rate = {}", self.request_rate)?;
        writeln!(f, "request_burst = {}", self.request_burst)?;
        writeln!(f, "new_key_rate = {}", self.new_key_rate)?;
        writeln!(f, "new_key_burst = {}", self.new_key_burst)?;
        writeln!(f, "exempt = {}", write::list(&self.exempt))?;
        match self.memory_max {
            MemoryMax::Auto => writeln!(f, "memory_max = \"auto\""),
            MemoryMax::Off => writeln!(f, "memory_max = \"off\""),
            MemoryMax::Bytes(bytes) => writeln!(f, "memory_max = \"{}\"", SizeText(bytes)),
        }
    }
}
