//! Payload of the peer port from A to B, counted by a relay between them: idle, with new rooms, with known ones.

use std::io;
use std::thread::sleep;
use std::time::{Duration, Instant};

use serde_json::json;

use super::super::cpu::CpuReading;
use super::super::process::Obedient;
use super::super::report::{FLOOR, Report, grouped};
use super::super::subject::Kind;
use super::fleet::{Fleet, Path, Spec};
use super::run::{Rooms, Run, ask_rooms, ratio};

const TITLE: &str = "traffic between two nodes";
const CONNECTIONS: usize = 32;
/// What is still on its way when the last answer has come.
const SETTLE: Duration = Duration::from_secs(1);
/// The wanted limit for a new entry with a key of 30 bytes; HAProxy's figure.
const NEW_BYTES_MAX: f64 = 41.0;
/// Frames that a shardgate wrote: what the relay counts beyond them is QUIC's.
const FRAMES_METRIC: &str = "shardgate_peer_sent_bytes_total";
const LEASES_METRIC: &str = "shardgate_table_leases_reported_total";

/// Counts at one moment, later between two.
#[derive(Clone, Copy)]
struct Sent {
    at: Instant,
    there: u64,
    back: u64,
    packets: u64,
}

impl Sent {
    fn now(fleet: &Fleet) -> Self {
        let count = |of: &dyn Fn(&super::wires::Wires) -> u64| fleet.wires().map_or(0, of);
        Self {
            at: Instant::now(),
            there: count(&|wires| wires.bytes(0, 1)),
            back: count(&|wires| wires.bytes(1, 0)),
            packets: count(&|wires| wires.packets(0, 1)),
        }
    }

    /// Seconds and counts since then.
    fn until_now(self, fleet: &Fleet) -> (f64, u64, u64, u64) {
        let now = Self::now(fleet);
        let seconds = (now.at - self.at).as_secs_f64();
        (seconds, now.there - self.there, now.back - self.back, now.packets - self.packets)
    }
}

/// One mesh of each kind after the other: they would take each other's CPU, and coalesce more than they do alone.
pub fn measure(run: &Run<'_>, report: &mut Report) -> io::Result<()> {
    let seconds = run.sized(60, 2);
    let rate = run.sized(2_000, 500);
    let known = run.sized(2_000, 100);
    report.say(format!("\n{TITLE}: payload of the peer port from A to B over {seconds} s, keys of 30 bytes that have nothing in common"));
    let (mut per_new, mut per_known) = (vec![], vec![]);
    for kind in run.kinds() {
        per_new.push((kind, new_rooms(run, kind, seconds, rate, report)?));
        per_known.push((kind, known_rooms(run, kind, seconds, known, report)?));
    }
    if let Some(ratio) = ratio(&per_new) {
        report.say(format!("bytes per new entry shardgate / HAProxy: {ratio:.3}"));
    }
    if let Some(ratio) = ratio(&per_known) {
        report.say(format!("bytes per request for a known room shardgate / HAProxy: {ratio:.3}"));
        report.judge(TITLE, "bytes per request for a known room", ratio, FLOOR);
    }
    if let Some((_, bytes)) = per_new.iter().find(|(kind, _)| *kind == Kind::Shardgate) {
        report.judge_at_most(TITLE, "bytes per new entry", *bytes, NEW_BYTES_MAX);
    }
    Ok(())
}

fn start(run: &Run<'_>, kind: Kind, expire_s: u32) -> io::Result<(Fleet, Obedient)> {
    let spec = Spec { path: Path::Counted, expire_s, ..Spec::of(2, 2) };
    let fleet = Fleet::start(kind, run.ground, spec)?;
    let load = run.load("rooms", fleet.frontend(0), CONNECTIONS)?;
    Ok((fleet, load))
}

fn new_rooms(run: &Run<'_>, kind: Kind, seconds: usize, rate: u32, report: &mut Report) -> io::Result<f64> {
    let (fleet, mut load) = start(run, kind, 3_600)?;
    let name = kind.name();
    ask_rooms(&mut load, Rooms { first: 0, count: 200, times: 1, rate: 200 }, name, report)?;
    sleep(SETTLE);
    let idle = Sent::now(&fleet);
    sleep(run.sized(Duration::from_secs(10), Duration::from_secs(1)));
    let (idle_s, idle_there, idle_back, _) = idle.until_now(&fleet);
    let frames_before = fleet.counter(0, FRAMES_METRIC)?;
    let (before, cpus) = (Sent::now(&fleet), cpus(&fleet)?);
    let count = seconds * rate as usize;
    let done = ask_rooms(&mut load, Rooms { first: 1_000, count, times: 1, rate }, name, report)?;
    fleet.wait_replicated(200 + count as u64)?;
    sleep(SETTLE);
    let (_, there, back, packets) = before.until_now(&fleet);
    let [sender, receiver] = cpu_us_each(&fleet, &cpus, count)?;
    let each = |number: u64| number as f64 / count as f64;
    let frames = frames_before.zip(fleet.counter(0, FRAMES_METRIC)?).map(|(before, now)| each(now - before));
    let per_second = done.done as f64 * 1e6 / done.busy_us as f64;
    report.say(format!(
        "{name:<10} new rooms, {}/s: {:.1} bytes per entry A to B ({:.2} packets{}), {:.1} back; CPU {sender:.1} us A, {receiver:.1} us B; \
         idle {:.0} and {:.0} bytes/s",
        grouped(per_second as u64),
        each(there),
        each(packets),
        frames.map_or(String::new(), |frames| format!(", {frames:.1} of it frames")),
        each(back),
        idle_there as f64 / idle_s,
        idle_back as f64 / idle_s
    ));
    report.add_section(json!({
        "title": TITLE, "subject": name, "work": "new rooms", "entries": count, "per_second": per_second,
        "bytes_there": there, "bytes_back": back, "packets_there": packets, "bytes_per_entry": each(there), "frame_bytes_per_entry": frames,
        "cpu_us_sender": sender, "cpu_us_receiver": receiver, "idle_bytes_per_second": idle_there as f64 / idle_s,
    }));
    Ok(each(there))
}

/// Entries live as long as this takes, so that leases have to be reported meanwhile: twice at most, half of it apart.
fn known_rooms(
    run: &Run<'_>,
    kind: Kind,
    seconds: usize,
    keys: usize,
    report: &mut Report,
) -> io::Result<f64> {
    let (fleet, mut load) = start(run, kind, seconds as u32)?;
    let name = kind.name();
    ask_rooms(&mut load, Rooms { first: 0, count: keys, times: 1, rate: 2_000 }, name, report)?;
    fleet.wait_replicated(keys as u64)?;
    sleep(SETTLE);
    let leases_before = leases(&fleet)?;
    let before = Sent::now(&fleet);
    let rate = u32::try_from(keys * 10 / seconds).unwrap_or(u32::MAX);
    let done = ask_rooms(&mut load, Rooms { first: 0, count: keys, times: 10, rate }, name, report)?;
    let entries = fleet.entries(0)?;
    if entries < keys as u64 {
        report.add_void(TITLE, vec![format!("{name}: {entries} of {keys} known rooms at the end")]);
    }
    let (took_s, there, back, packets) = before.until_now(&fleet);
    let each = there as f64 / done.done as f64;
    let reported = leases_before.zip(leases(&fleet)?).map(|(before, now)| now - before);
    report.say(format!(
        "{name:<10} {} known rooms, {} requests, expire {seconds} s: {each:.1} bytes per request A to B ({:.2} packets), {:.1} back{}",
        grouped(keys as u64),
        grouped(done.done),
        packets as f64 / done.done as f64,
        back as f64 / done.done as f64,
        reported.map_or(String::new(), |count| format!(", {} leases reported", grouped(count)))
    ));
    if let Some(reported) = reported {
        // One per key for each half of its life.
        let halves = (took_s / (seconds as f64 / 2.0)).round().max(1.0);
        report.judge_at_most(TITLE, "lease reports", reported as f64, keys as f64 * halves);
    }
    report.add_section(json!({
        "title": TITLE, "subject": name, "work": "known rooms", "keys": keys, "requests": done.done, "bytes_there": there,
        "bytes_back": back, "packets_there": packets, "bytes_per_request": each, "leases_reported": reported,
    }));
    Ok(each)
}

/// Leases that A told B of; none where nobody counts them.
fn leases(fleet: &Fleet) -> io::Result<Option<u64>> {
    fleet.counter(0, LEASES_METRIC)
}

/// CPU time so far of A and B.
pub(super) fn cpus(fleet: &Fleet) -> io::Result<[CpuReading; 2]> {
    Ok([fleet.cpu(0)?, fleet.cpu(1)?])
}

/// CPU time since then of A and B in microseconds for each of `count`.
pub(super) fn cpu_us_each(fleet: &Fleet, before: &[CpuReading; 2], count: usize) -> io::Result<[f64; 2]> {
    let now = cpus(fleet)?;
    let [a, b] = [0, 1].map(|node: usize| now[node].since(&before[node]).ns as f64 / 1000.0 / count as f64);
    Ok([a, b])
}
