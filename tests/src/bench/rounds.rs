//! Rounds in which the subjects take short turns, so that the machine's moods hit all alike.

use std::io;
use std::time::Duration;

use super::cpu::CpuSpent;
use super::load_report::LoadReport;
use super::process::Obedient;
use super::report::{Report, grouped};
use super::subject::{Kind, Subject};

/// A subject with the load that is kept connected to it.
pub struct Lane<'a> {
    /// Which subject.
    pub subject: &'a Subject,
    /// Its load generator.
    pub load: Obedient,
}

/// What one subject did in one round.
pub struct Measured {
    /// Which subject.
    pub kind: Kind,
    /// Of its load.
    pub report: LoadReport,
    /// Of all its threads.
    pub cpu: CpuSpent,
}

impl Measured {
    /// CPU time per answer or echo.
    #[must_use]
    pub fn cpu_us(&self) -> f64 {
        self.cpu.ns as f64 / 1000.0 / self.report.done as f64
    }

    /// Answers or echoes per second.
    #[must_use]
    pub fn per_second(&self) -> f64 {
        self.report.done as f64 * 1e6 / self.report.busy_us as f64
    }

    /// The share of its CPU that it used.
    #[must_use]
    pub fn busy(&self) -> f64 {
        self.cpu.ns as f64 / 1000.0 / self.report.busy_us as f64
    }
}

/// Gives every lane `turns` turns, forwards and backwards by turns, and collects what each did.
pub fn measure(
    lanes: &mut [Lane<'_>],
    turns: u32,
    command: &str,
    turn: Duration,
) -> io::Result<Vec<Measured>> {
    let mut spent = vec![CpuSpent::default(); lanes.len()];
    for number in 0..turns {
        for place in 0..lanes.len() {
            let index = if number % 2 == 0 { place } else { lanes.len() - 1 - place };
            let Lane { subject, load } = &mut lanes[index];
            let before = subject.cpu()?;
            load.ask(command, turn + Duration::from_secs(30))?;
            spent[index] += subject.cpu()?.since(&before);
        }
    }
    let collected = lanes.iter_mut().zip(spent).map(|(lane, cpu)| {
        let mut report = ask_report(&mut lane.load, "report", Duration::from_secs(10))?;
        if !lane.subject.kind.sticks() {
            report.moved = 0;
        }
        Ok(Measured { kind: lane.subject.kind, report, cpu })
    });
    collected.collect()
}

/// Sends a command whose answer is a report.
pub fn ask_report(load: &mut Obedient, command: &str, within: Duration) -> io::Result<LoadReport> {
    Ok(serde_json::from_str(&load.ask(command, within)?)?)
}

/// Prints one round in one line.
pub fn say_round(report: &Report, what: &str, round: &[Measured]) {
    let each = round.iter().map(|measured| {
        let (name, cpu_us) = (measured.kind.name(), measured.cpu_us());
        format!("{name} {cpu_us:.1} us ({}/s)", grouped(measured.per_second() as u64))
    });
    report.say(format!("  {what}: {}", each.collect::<Vec<_>>().join(", ")));
}
