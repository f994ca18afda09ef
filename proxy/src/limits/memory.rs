//! The memory ceiling: how much this process may take, and whether it has. Above the ceiling nothing new is let in, before the
//! kernel ends the process with everything that is going on in it.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

/// What the process may take.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MemoryMax {
    /// 85 % of what the control group or the machine has.
    Auto,
    /// So many bytes.
    Bytes(u64),
    /// No ceiling.
    Off,
}

/// The rest is for what the resident set does not show: the kernel's buffers of sockets, the page tables, other processes.
const AUTO_PERCENT: u64 = 85;
/// Where the node takes part again, so that it does not change its mind with every connection.
const RECOVERED_PERCENT: u64 = 95;
/// Control groups without a limit say a number near 2^63.
const NO_LIMIT: u64 = 1 << 60;

impl MemoryMax {
    /// The ceiling in bytes; `None` where there is none, or nothing says how much there is.
    pub(super) fn bytes(self, read: impl Fn(&str) -> Option<String>) -> Option<u64> {
        match self {
            Self::Off => None,
            Self::Bytes(bytes) => Some(bytes),
            Self::Auto => {
                let machine = read("/proc/meminfo").and_then(|text| machine(&text));
                let least = [machine, control_group(&read)].into_iter().flatten().min()?;
                Some(least / 100 * AUTO_PERCENT)
            }
        }
    }
}

/// The machine's memory, from `/proc/meminfo`.
fn machine(text: &str) -> Option<u64> {
    let line = text.lines().find_map(|line| line.strip_prefix("MemTotal:"))?;
    line.trim().strip_suffix("kB")?.trim_end().parse::<u64>().ok()?.checked_mul(1024)
}

/// The least limit of the control group that this process is in and of those around it, of version 2 or 1. A container may see its
/// own group as the root, whatever its name is outside: so the way goes up to the root either way.
fn control_group(read: &impl Fn(&str) -> Option<String>) -> Option<u64> {
    let groups = read("/proc/self/cgroup")?;
    let limits = groups.lines().filter_map(|line| {
        let (_, rest) = line.split_once(':')?;
        let (controllers, path) = rest.split_once(':')?;
        let (root, file) = match controllers {
            "" => ("/sys/fs/cgroup", "memory.max"),
            _ if controllers.split(',').any(|name| name == "memory") => {
                ("/sys/fs/cgroup/memory", "memory.limit_in_bytes")
            }
            _ => return None,
        };
        let path = path.trim_end_matches('/');
        let ends = path.match_indices('/').map(|(at, _)| at).chain([path.len()]);
        ends.filter_map(|end| read(&format!("{root}{}/{file}", &path[..end]))?.trim().parse().ok()).min()
    });
    limits.filter(|limit| *limit < NO_LIMIT).min()
}

/// The resident pages, from `/proc/self/statm`.
fn resident_pages(text: &str) -> Option<u64> {
    text.split(' ').nth(1)?.parse().ok()
}

/// Whether the ceiling was passed, and when that changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Change {
    None,
    Full,
    Recovered,
}

/// What the process takes, against its ceiling.
#[derive(Debug)]
pub(super) struct Memory {
    /// [`u64::MAX`] without one.
    bytes_max: AtomicU64,
    resident: AtomicU64,
    full: AtomicBool,
    /// Kept open: there may be no descriptor left when it counts.
    statm: Option<File>,
}

impl Memory {
    pub(super) fn new(max: MemoryMax) -> Self {
        let statm = File::open("/proc/self/statm")
            .inspect_err(|error| tracing::warn!(%error, "cannot see how much memory is used"))
            .ok();
        let memory = Self {
            bytes_max: AtomicU64::new(u64::MAX),
            resident: AtomicU64::new(0),
            full: AtomicBool::new(false),
            statm,
        };
        memory.change(max);
        memory
    }

    /// The ceiling is another one from the next look on.
    pub(super) fn change(&self, max: MemoryMax) {
        let bytes_max = max.bytes(|path| std::fs::read_to_string(path).ok());
        if max == MemoryMax::Auto && bytes_max.is_none() {
            tracing::warn!("nothing says how much memory there is, so limits.memory_max has no effect");
        }
        self.bytes_max.store(bytes_max.unwrap_or(u64::MAX), Ordering::Relaxed);
    }

    /// Whether nothing new should be let in.
    pub(super) fn is_full(&self) -> bool {
        self.full.load(Ordering::Relaxed)
    }

    pub(super) fn bytes_max(&self) -> Option<u64> {
        Some(self.bytes_max.load(Ordering::Relaxed)).filter(|bytes| *bytes < u64::MAX)
    }

    pub(super) fn resident(&self) -> u64 {
        self.resident.load(Ordering::Relaxed)
    }

    /// Takes a reading. What cannot be read is as it was.
    pub(super) fn sample(&self) {
        let Some(statm) = &self.statm else { return };
        match read_resident(statm) {
            Ok(resident) => match self.note(resident) {
                Change::None => {}
                Change::Full => tracing::warn!(
                    resident,
                    ceiling = self.bytes_max(),
                    "memory ceiling reached, refusing new connections"
                ),
                Change::Recovered => {
                    tracing::info!(resident, ceiling = self.bytes_max(), "below the memory ceiling again");
                }
            },
            Err(error) => tracing::debug!(%error, "cannot see how much memory is used"),
        }
    }

    fn note(&self, resident: u64) -> Change {
        self.resident.store(resident, Ordering::Relaxed);
        let was_full = self.is_full();
        let is_full = self.bytes_max().is_some_and(|bytes_max| match was_full {
            false => resident >= bytes_max,
            true => resident >= bytes_max / 100 * RECOVERED_PERCENT,
        });
        self.full.store(is_full, Ordering::Relaxed);
        match (was_full, is_full) {
            (false, true) => Change::Full,
            (true, false) => Change::Recovered,
            (false, false) | (true, true) => Change::None,
        }
    }
}

fn read_resident(statm: &File) -> io::Result<u64> {
    let mut text = [0; 128];
    let bytes = statm.read_at(&mut text, 0)?;
    let pages = std::str::from_utf8(&text[..bytes]).ok().and_then(resident_pages);
    let pages = pages.ok_or_else(|| io::Error::from(io::ErrorKind::InvalidData))?;
    Ok(pages.saturating_mul(rustix::param::page_size() as u64))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn auto(files: &[(&str, &str)]) -> Option<u64> {
        let read =
            |path: &str| files.iter().find(|(name, _)| *name == path).map(|(_, text)| (*text).to_owned());
        MemoryMax::Auto.bytes(read)
    }

    const MACHINE: (&str, &str) = ("/proc/meminfo", "MemTotal:        8192000 kB\nMemFree:  1 kB\n");

    #[test]
    fn the_ceiling_comes_from_the_least_that_is_said() {
        assert_eq!(auto(&[]), None);
        assert_eq!(auto(&[MACHINE]), Some(8_192_000 * 1024 / 100 * 85));
        // Version 2, the limit in the group around one's own.
        let group = ("/proc/self/cgroup", "0::/system.slice/shardgate.service\n");
        let files = [
            MACHINE,
            group,
            ("/sys/fs/cgroup/system.slice/shardgate.service/memory.max", "max\n"),
            ("/sys/fs/cgroup/system.slice/memory.max", "1000000\n"),
        ];
        assert_eq!(auto(&files), Some(850_000));
        // In a container, as its own root.
        let files = [MACHINE, ("/proc/self/cgroup", "0::/\n"), ("/sys/fs/cgroup/memory.max", "2000000\n")];
        assert_eq!(auto(&files), Some(1_700_000));
        // Version 1: beside other hierarchies, with a name that is only known outside.
        let files = [
            MACHINE,
            ("/proc/self/cgroup", "5:cpu,cpuacct:/x\n4:memory:/docker/abc\n0::/docker/abc\n"),
            ("/sys/fs/cgroup/memory/memory.limit_in_bytes", "4000000\n"),
        ];
        assert_eq!(auto(&files), Some(3_400_000));
        let files = [
            MACHINE,
            ("/proc/self/cgroup", "4:memory:/\n"),
            ("/sys/fs/cgroup/memory/memory.limit_in_bytes", "9223372036854771712\n"),
        ];
        assert_eq!(auto(&files), auto(&[MACHINE]));
        assert_eq!(MemoryMax::Bytes(7).bytes(|_| None), Some(7));
        assert_eq!(MemoryMax::Off.bytes(|_| Some(MACHINE.1.to_owned())), None);
    }

    #[test]
    fn full_at_the_ceiling_and_recovered_well_below() {
        let memory = Memory::new(MemoryMax::Bytes(1_000));
        let changes = [999, 1_000, 2_000, 951, 950, 949, 999, 1_000].map(|resident| memory.note(resident));
        let expected = [
            Change::None,
            Change::Full,
            Change::None,
            Change::None,
            Change::None,
            Change::Recovered,
            Change::None,
            Change::Full,
        ];
        assert_eq!(changes, expected);
        assert_eq!(memory.resident(), 1_000);
        let off = Memory::new(MemoryMax::Off);
        assert_eq!((off.note(u64::MAX), off.is_full()), (Change::None, false));
    }

    #[test]
    fn this_process_is_seen() {
        let memory = Memory::new(MemoryMax::Auto);
        memory.sample();
        let resident = memory.resident();
        assert!((1 << 20..1 << 40).contains(&resident), "{resident}");
        assert!(memory.bytes_max().is_some_and(|max| max > resident), "{:?}", memory.bytes_max());
    }
}
