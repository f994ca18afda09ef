//! Memory per idle WebSocket tunnel.

use std::io;
use std::thread::sleep;
use std::time::{Duration, Instant};

use serde_json::json;

use super::cpu::{load_average, open_files_max};
use super::process::Obedient;
use super::report::{Report, grouped};
use super::rounds::ask_report;
use super::subject::{Kind, Subject};

/// What a proxy opens besides its tunnels, generously.
const DESCRIPTORS_ELSE: usize = 1_000;
/// Opening takes a millisecond or two each when all is well.
const OPEN_MAX: Duration = Duration::from_secs(300);

/// Tunnels that do nothing.
#[derive(Clone, Copy)]
pub struct IdleTunnels {
    /// How many.
    pub count: usize,
    /// Time after the last tunnel was opened; a subject gives back what it can in it.
    pub settle: Duration,
}

/// What was measured.
pub struct BytesEach {
    /// Whose tunnels.
    pub kind: Kind,
    /// Growth of resident memory for each.
    pub bytes: f64,
}

/// One subject's tunnels, from the first to the end of the settling time.
pub struct Held {
    /// Its load.
    pub load: Obedient,
    before_bytes: u64,
    opened_at: Instant,
    open_cpu_us: f64,
}

impl IdleTunnels {
    /// As many, but no more than descriptors allow: each takes two of a proxy's.
    pub fn as_allowed(self, report: &Report) -> io::Result<Self> {
        let possible = open_files_max()?.saturating_sub(DESCRIPTORS_ELSE) / 2;
        if self.count > possible {
            report.say(format!(
                "{possible} idle tunnels instead of {}: more descriptors are not allowed",
                self.count
            ));
        }
        Ok(Self { count: self.count.min(possible), ..self })
    }

    /// Opens them at every subject that has memory worth a comparison, with a load that `start` starts, and measures under `title`.
    pub fn measure(
        self,
        title: &str,
        subjects: &[Subject],
        start: impl Fn(&Subject, usize) -> io::Result<Obedient>,
        report: &mut Report,
    ) -> io::Result<Vec<BytesEach>> {
        let tunnels = self.count;
        report.say(format!("\n{} {title}, load average {}", grouped(tunnels as u64), load_average()?));
        let mut all_held = Vec::new();
        for subject in subjects.iter().filter(|subject| subject.kind != Kind::Relay) {
            let held = open(subject, start(subject, tunnels)?, tunnels, report)?;
            report.say(format!("{:<10} opened, {:.0} us of CPU each", subject.kind.name(), held.open_cpu_us));
            all_held.push((subject, held));
        }
        report.say(format!("waiting until {} s after each subject's last tunnel", self.settle.as_secs()));
        let mut each = Vec::new();
        for (subject, mut held) in all_held {
            sleep(self.settle.saturating_sub(held.opened_at.elapsed()));
            let after_bytes = subject.resident_bytes()?;
            let name = subject.kind.name();
            let alive = ask_report(&mut held.load, "alive", Duration::from_secs(30))?;
            if alive.done != tunnels as u64 {
                report.add_void(title, vec![format!("{name}: {} of {tunnels} still open", alive.done)]);
            }
            let bytes = (after_bytes as f64 - held.before_bytes as f64) / tunnels as f64;
            report.say(format!(
                "{name:<10} {} bytes per tunnel (RSS {} kB before the first, {} kB now)",
                grouped(bytes.max(0.0) as u64),
                grouped(held.before_bytes / 1024),
                grouped(after_bytes / 1024)
            ));
            report.add_section(json!({
                "title": title, "subject": name, "tunnels": tunnels, "bytes_per_tunnel": bytes,
                "rss_before": held.before_bytes, "rss_after": after_bytes, "open_cpu_us": held.open_cpu_us,
            }));
            each.push(BytesEach { kind: subject.kind, bytes });
        }
        Ok(each)
    }
}

/// Has a load open its tunnels at a subject; the tunnels live as long as the load.
pub fn open(subject: &Subject, mut load: Obedient, tunnels: usize, report: &mut Report) -> io::Result<Held> {
    let before_bytes = subject.resident_bytes()?;
    let before = subject.cpu()?;
    let opened = ask_report(&mut load, "open", OPEN_MAX)?;
    let opened_at = Instant::now();
    let open_cpu_us = subject.cpu()?.since(&before).ns as f64 / 1000.0 / tunnels as f64;
    let faults = opened.faults().into_iter().map(|fault| format!("{}: {fault}", subject.kind.name()));
    report.add_void("opening tunnels", faults.collect());
    Ok(Held { load, before_bytes, opened_at, open_cpu_us })
}

/// Bytes of a subject.
#[must_use]
pub fn of(each: &[BytesEach], kind: Kind) -> Option<f64> {
    each.iter().find(|measured| measured.kind == kind).map(|measured| measured.bytes)
}
