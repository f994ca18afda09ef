//! What the kernel counts: CPU time and memory of a whole process, the machine's load, the limit on descriptors.

use std::collections::BTreeMap;
use std::{fs, io};

/// A clock tick of `/proc/PID/stat`: 100 a second on every Linux that Debian ships.
const TICK_NS: u64 = 10_000_000;

/// CPU time of every thread of a process at one moment.
pub struct CpuReading {
    threads_ns: BTreeMap<u32, u64>,
    /// Of the whole process, ended threads included, but in ticks only.
    process_ns: u64,
}

/// CPU time between two readings.
#[derive(Clone, Copy, Default)]
pub struct CpuSpent {
    /// User and kernel time of all threads.
    pub ns: u64,
    /// Threads that ended in between; with any, `ns` is only as fine as a clock tick.
    pub threads_ended: usize,
}

impl CpuReading {
    /// Reads all threads of `pid`.
    pub fn of(pid: u32) -> io::Result<Self> {
        let mut threads_ns = BTreeMap::new();
        for entry in fs::read_dir(format!("/proc/{pid}/task"))? {
            let entry = entry?;
            let Some(tid) = entry.file_name().to_str().and_then(|name| name.parse().ok()) else { continue };
            // A thread may end between the listing and the reading.
            let Ok(text) = fs::read_to_string(entry.path().join("schedstat")) else { continue };
            threads_ns.insert(tid, first_number(&text)?);
        }
        Ok(Self { threads_ns, process_ns: process_ns(pid)? })
    }

    /// What the process used since `earlier`.
    #[must_use]
    pub fn since(&self, earlier: &Self) -> CpuSpent {
        let alive = self.threads_ns.iter();
        let ns = alive.map(|(tid, now)| now - earlier.threads_ns.get(tid).copied().unwrap_or(0)).sum();
        let threads_ended =
            earlier.threads_ns.keys().filter(|tid| !self.threads_ns.contains_key(tid)).count();
        match threads_ended {
            0 => CpuSpent { ns, threads_ended },
            _ => CpuSpent { ns: (self.process_ns - earlier.process_ns).max(ns), threads_ended },
        }
    }
}

impl std::ops::AddAssign for CpuSpent {
    fn add_assign(&mut self, other: Self) {
        self.ns += other.ns;
        self.threads_ended += other.threads_ended;
    }
}

/// Resident memory of a process. From `smaps_rollup`, which walks the pages: `VmRSS` lags by some pages per CPU.
pub fn resident_bytes(pid: u32) -> io::Result<u64> {
    let path = format!("/proc/{pid}/smaps_rollup");
    let text = fs::read_to_string(&path)?;
    let line = text.lines().find_map(|line| line.strip_prefix("Rss:"));
    let line = line.ok_or_else(|| io::Error::other(format!("{path}: no line Rss:")))?;
    Ok(first_number(line)? * 1024)
}

/// The load averages of 1, 5 and 15 minutes, as the kernel prints them.
pub fn load_average() -> io::Result<String> {
    let text = fs::read_to_string("/proc/loadavg")?;
    Ok(text.split(' ').take(3).collect::<Vec<_>>().join(" "))
}

/// How many files this process, and so its children, may have open.
pub fn open_files_max() -> io::Result<usize> {
    let limits = fs::read_to_string("/proc/self/limits")?;
    let line = limits.lines().find_map(|line| line.strip_prefix("Max open files"));
    match line.unwrap_or("").trim_start().starts_with("unlimited") {
        true => Ok(usize::MAX),
        false => usize::try_from(first_number(line.unwrap_or(""))?).map_err(io::Error::other),
    }
}

fn process_ns(pid: u32) -> io::Result<u64> {
    let path = format!("/proc/{pid}/stat");
    let text = fs::read_to_string(&path)?;
    // The command's name, in brackets, may hold anything; utime and stime are the 12th and 13th fields after it.
    let fields = text.rsplit_once(") ").map(|(_, rest)| rest.split(' ')).into_iter().flatten();
    let ticks: Vec<u64> = fields.skip(11).take(2).filter_map(|field| field.parse().ok()).collect();
    match ticks[..] {
        [user, kernel] => Ok((user + kernel) * TICK_NS),
        _ => Err(io::Error::other(format!("{path}: no CPU times in {text:?}"))),
    }
}

fn first_number(text: &str) -> io::Result<u64> {
    let word = text.split_whitespace().next().unwrap_or("");
    word.parse().map_err(|_| io::Error::other(format!("expected a number, found {word:?}")))
}
