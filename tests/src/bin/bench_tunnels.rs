//! Memory per idle WebSocket tunnel and CPU per echoed message: shardgate, HAProxy and a bare relay. Started by `tests/bench/run tunnels`.

use std::io;
use std::process::ExitCode;
use std::thread::sleep;
use std::time::{Duration, Instant};

use serde_json::json;
use shardgate_tests::bench::cpu::{load_average, open_files_max};
use shardgate_tests::bench::options::{Options, Size};
use shardgate_tests::bench::process::Obedient;
use shardgate_tests::bench::report::{Report, grouped};
use shardgate_tests::bench::rounds::{Lane, ask_report, measure, say_round};
use shardgate_tests::bench::site::Routing;
use shardgate_tests::bench::stage::{Stage, start_or_usage};
use shardgate_tests::bench::subject::{Kind, Subject};

const TURN: Duration = Duration::from_secs(1);
const ROUNDS: u32 = 5;
const SECONDS: u32 = 5;
/// Opening takes below a millisecond each when all is well.
const OPEN_MAX: Duration = Duration::from_secs(300);

/// How much is asked of the subjects.
struct Measure {
    idle_tunnels: usize,
    /// Time after the last tunnel was opened; a subject gives back what it can in it.
    settle: Duration,
    active_tunnels: usize,
    messages_per_second: u32,
}

/// 9,000 tunnels are 18,000 descriptors in the proxy, of the 20,000 that the machines we know allow.
const FULL: Measure = Measure {
    idle_tunnels: 9_000,
    settle: Duration::from_secs(60),
    active_tunnels: 1_000,
    messages_per_second: 4_000,
};
/// What a proxy opens besides its tunnels, generously.
const DESCRIPTORS_ELSE: usize = 1_000;
const SMOKE: Measure = Measure {
    idle_tunnels: 300,
    settle: Duration::from_secs(2),
    active_tunnels: 100,
    messages_per_second: 1_000,
};

fn main() -> ExitCode {
    start_or_usage("bench_tunnels", ROUNDS, SECONDS, run)
}

fn run(options: &Options) -> io::Result<ExitCode> {
    let mut report = Report::new(options.output, options.size.rules());
    let mut size = match options.size {
        Size::Full => FULL,
        Size::Smoke => SMOKE,
    };
    let possible = open_files_max()?.saturating_sub(DESCRIPTORS_ELSE) / 2;
    if size.idle_tunnels > possible {
        report.say(format!(
            "{possible} idle tunnels instead of {}: more descriptors are not allowed",
            size.idle_tunnels
        ));
        size.idle_tunnels = possible;
    }
    let stage = Stage::set(options, Routing::ByRoom, &report)?;
    measure_memory(&stage, &size, &mut report)?;
    measure_echo(&stage, &size, options, &mut report)?;
    Ok(report.end(stage.head("tunnels", options)))
}

/// One subject's tunnels, from the first to the end of the settling time.
struct Held<'a> {
    subject: &'a Subject,
    load: Obedient,
    before_bytes: u64,
    opened_at: Instant,
    open_cpu_us: f64,
}

fn measure_memory(stage: &Stage, size: &Measure, report: &mut Report) -> io::Result<()> {
    let tunnels = size.idle_tunnels;
    report.say(format!("\n{} idle tunnels, load average {}", grouped(tunnels as u64), load_average()?));
    let mut all_held = Vec::new();
    // The relay has no memory worth a comparison.
    for subject in stage.subjects().iter().filter(|subject| subject.kind != Kind::Relay) {
        let held = open(stage, subject, tunnels, report)?;
        report.say(format!("{:<10} opened, {:.0} us of CPU each", subject.kind.name(), held.open_cpu_us));
        all_held.push(held);
    }
    report.say(format!("waiting until {} s after each subject's last tunnel", size.settle.as_secs()));
    let mut bytes_each = Vec::new();
    for held in &mut all_held {
        sleep(size.settle.saturating_sub(held.opened_at.elapsed()));
        let after_bytes = held.subject.resident_bytes()?;
        let name = held.subject.kind.name();
        let alive = ask_report(&mut held.load, "alive", Duration::from_secs(30))?;
        if alive.done != tunnels as u64 {
            report.add_void("idle tunnels", vec![format!("{name}: {} of {tunnels} still open", alive.done)]);
        }
        let each = (after_bytes as f64 - held.before_bytes as f64) / tunnels as f64;
        report.say(format!(
            "{name:<10} {} bytes per tunnel (RSS {} kB before the first, {} kB now)",
            grouped(each.max(0.0) as u64),
            grouped(held.before_bytes / 1024),
            grouped(after_bytes / 1024)
        ));
        report.add_section(json!({
            "title": "idle tunnels", "subject": name, "tunnels": tunnels, "bytes_per_tunnel": each,
            "rss_before": held.before_bytes, "rss_after": after_bytes, "open_cpu_us": held.open_cpu_us,
        }));
        bytes_each.push((held.subject.kind, each));
    }
    let of = |wanted| bytes_each.iter().find(|(kind, _)| *kind == wanted).map(|(_, bytes)| *bytes);
    if let Some((ours, theirs)) = of(Kind::Shardgate).zip(of(Kind::HaProxy)) {
        let ratio = ours / theirs;
        report.say(format!("memory per tunnel shardgate / HAProxy: {ratio:.3}"));
        report.judge("idle tunnels", "memory per tunnel", ratio);
    }
    Ok(())
}

fn open<'a>(
    stage: &Stage,
    subject: &'a Subject,
    tunnels: usize,
    report: &mut Report,
) -> io::Result<Held<'a>> {
    let mut load = stage.tunnels(subject, tunnels)?;
    let before_bytes = subject.resident_bytes()?;
    let before = subject.cpu()?;
    let opened = ask_report(&mut load, "open", OPEN_MAX)?;
    let opened_at = Instant::now();
    let open_cpu_us = subject.cpu()?.since(&before).ns as f64 / 1000.0 / tunnels as f64;
    let faults = opened.faults().into_iter().map(|fault| format!("{}: {fault}", subject.kind.name()));
    report.add_void("opening tunnels", faults.collect());
    Ok(Held { subject, load, before_bytes, opened_at, open_cpu_us })
}

fn measure_echo(stage: &Stage, size: &Measure, options: &Options, report: &mut Report) -> io::Result<()> {
    let (tunnels, rate) = (size.active_tunnels, size.messages_per_second);
    report.say(format!("\n{tunnels} active tunnels, {} messages/s of 200 bytes", grouped(rate.into())));
    let mut lanes = Vec::new();
    for subject in stage.subjects() {
        let Held { load, .. } = open(stage, subject, tunnels, report)?;
        lanes.push(Lane { subject, load });
    }
    let mut rounds = Vec::new();
    for round in 1..=options.rounds {
        report.say(format!("round {round} of {}, load average {}", options.rounds, load_average()?));
        let command = format!("run {rate} {}", TURN.as_millis());
        let measured = measure(&mut lanes, options.seconds, &command, TURN)?;
        say_round(report, "echoes", &measured);
        rounds.push(measured);
    }
    report.add_rounds("Echoes over tunnels at a fixed rate", "echo", &rounds);
    Ok(())
}
