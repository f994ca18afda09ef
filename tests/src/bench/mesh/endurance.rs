//! A large mesh for a while: as many conferences begin as end, every node agrees with every other one throughout, and memory stays as it is.

use std::io;
use std::thread::{self, sleep};
use std::time::{Duration, Instant};

use serde_json::json;

use super::super::report::{Report, grouped};
use super::super::shardgate::get;
use super::super::subject::Kind;
use super::fleet::{Fleet, Placement, Spec};
use super::run::{Rooms, Run, ask_rooms};

const TITLE: &str = "endurance";
const CONNECTIONS: usize = 16;
const SAMPLE_EVERY: Duration = Duration::from_secs(2);
/// New conferences a second, over all nodes that are asked.
const RATE: u32 = 500;
/// Peers compare tables in every heartbeat, of one second.
const AGREED_MAX_S: f64 = 5.0;
/// Of the mean, over the last half.
const SLOPE_MAX: f64 = 0.01;

/// One look at all nodes.
struct Sample {
    at_s: f64,
    resident: u64,
    entries: u64,
    /// Since the two nodes that have not agreed for longest did; infinite when two never have.
    agreed_s: f64,
}

/// Fills the tables at the rate at which they will be emptied, and looks at them for a while.
pub fn measure(run: &Run<'_>, report: &mut Report) -> io::Result<()> {
    if !run.kinds().any(|kind| kind == Kind::Shardgate) {
        return Ok(());
    }
    // An entry lives so long that at the rate so many are there.
    let (nodes, expire_s, minutes) = run.sized((16, 400, 10.0), (3, 4, 0.1));
    let held = u64::from(RATE) * u64::from(expire_s);
    let spec = Spec {
        table_size: (held * 2) as usize,
        expire_s,
        placement: Placement::InTurn,
        ..Spec::of(9, nodes)
    };
    let fleet = Fleet::start(Kind::Shardgate, run.ground, spec)?;
    report.say(format!(
        "\n{TITLE}: {nodes} nodes, {} new conferences a second that live for {expire_s} s without use: {} in every table; looked at for {minutes} minutes, after {} s",
        grouped(u64::from(RATE)),
        grouped(held),
        7 * expire_s / 2
    ));
    // Ends are remembered for twice as long as entries live: then they are forgotten as fast as they come.
    let filled = 7 * held as usize / 2;
    let lasting = (f64::from(RATE) * minutes * 60.0) as usize;
    let mut load = run.load("rooms", fleet.frontend(0), CONNECTIONS)?;
    let filling = Rooms { first: 0, count: filled, times: 1, rate: RATE };
    ask_rooms(&mut load, filling, TITLE, report)?;
    let goes_on = Rooms { first: filled, count: lasting, times: 1, rate: RATE };
    let (samples, done) = thread::scope(|scope| -> io::Result<_> {
        let loading = scope.spawn(|| {
            let mut own = Report::new(run.options.output, run.options.size.rules());
            ask_rooms(&mut load, goes_on, TITLE, &mut own)
        });
        let (mut samples, began) = (Vec::new(), Instant::now());
        while !loading.is_finished() {
            samples.push(look(&fleet, began)?);
            sleep(SAMPLE_EVERY);
        }
        let done = loading.join().map_err(|_| io::Error::other("the load broke off"))??;
        Ok((samples, done))
    })?;
    report.add_void(TITLE, done.faults());
    let half = &samples[samples.len() / 2..];
    let slope = slope(half);
    let worst_s = samples.iter().map(|sample| sample.agreed_s).fold(0.0, f64::max);
    let least = samples.iter().map(|sample| sample.entries).min().unwrap_or(0);
    let (first, last) = (samples.first(), samples.last());
    let mib = |sample: Option<&Sample>| sample.map_or(0, |sample| sample.resident >> 20);
    for sample in samples.iter().step_by((samples.len() / 10).max(1)) {
        let Sample { at_s, resident, entries, agreed_s } = sample;
        report.say(format!(
            "{at_s:>6.0} s: {} MiB, {} entries, {agreed_s} s since all agreed",
            resident >> 20,
            grouped(*entries)
        ));
    }
    report.say(format!(
        "{} looks: at least {} entries in each table; longest without agreement {worst_s} s; all nodes {} MiB first, {} MiB last, slope over the last half {:.2} %",
        samples.len(),
        grouped(least),
        mib(first),
        mib(last),
        slope * 100.0
    ));
    report.add_section(json!({
        "title": TITLE, "nodes": nodes, "rate": RATE, "expire_s": expire_s, "minutes": minutes, "entries_least": least,
        "agreed_worst_s": worst_s, "resident_slope": slope,
        "samples": samples.iter().map(|sample| json!([sample.at_s, sample.resident, sample.entries, sample.agreed_s])).collect::<Vec<_>>(),
    }));
    report.judge_at_most(TITLE, "seconds without agreement of two nodes", worst_s, AGREED_MAX_S);
    report.judge_at_most(TITLE, "growth of memory over the last half", slope, SLOPE_MAX);
    Ok(())
}

fn look(fleet: &Fleet, began: Instant) -> io::Result<Sample> {
    let mut sample =
        Sample { at_s: began.elapsed().as_secs_f64(), resident: 0, entries: u64::MAX, agreed_s: 0.0 };
    for node in 0..fleet.len() {
        sample.resident += fleet.resident_bytes(node)?;
        sample.entries = sample.entries.min(fleet.entries(node)?);
        let text = get(fleet.admin(node), "/metrics")?;
        sample.agreed_s = sample.agreed_s.max(longest_without_agreement(&text, fleet.len() - 1));
    }
    Ok(sample)
}

/// By a node's metrics; infinite when one of its peers is missing.
fn longest_without_agreement(metrics: &str, peers: usize) -> f64 {
    let lines = metrics.lines().filter(|line| line.starts_with("shardgate_peer_agreed_seconds_ago{"));
    let seconds: Vec<f64> = lines.filter_map(|line| line.rsplit(' ').next()?.parse().ok()).collect();
    if seconds.len() < peers { f64::INFINITY } else { seconds.into_iter().fold(0.0, f64::max) }
}

/// By how much of its mean memory grows over these samples, by the straight line that fits them best.
fn slope(samples: &[Sample]) -> f64 {
    let count = samples.len() as f64;
    let mean = |of: fn(&Sample) -> f64| samples.iter().map(of).sum::<f64>() / count;
    let (at, resident) = (mean(|sample| sample.at_s), mean(|sample| sample.resident as f64));
    let covariance: f64 =
        samples.iter().map(|sample| (sample.at_s - at) * (sample.resident as f64 - resident)).sum();
    let variance: f64 = samples.iter().map(|sample| (sample.at_s - at).powi(2)).sum();
    let (Some(first), Some(last)) = (samples.first(), samples.last()) else { return 0.0 };
    if variance == 0.0 { 0.0 } else { covariance / variance * (last.at_s - first.at_s) / resident }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_has_not_agreed_for_longest_counts() {
        let line = |peer: &str, seconds: &str| {
            format!("shardgate_peer_agreed_seconds_ago{{peer=\"{peer}\"}} {seconds}\n")
        };
        let text = format!("{}{}shardgate_peer_ready{{peer=\"a\"}} 9\n", line("a", "0"), line("b", "4"));
        assert!((longest_without_agreement(&text, 2) - 4.0).abs() < f64::EPSILON);
        assert!(longest_without_agreement(&text, 3).is_infinite(), "one never has");
    }

    #[test]
    fn growth_is_a_share_of_the_mean() {
        let sample = |at_s: f64, resident| Sample { at_s, resident, entries: 0, agreed_s: 0.0 };
        let level: Vec<_> = (0..10).map(|at| sample(f64::from(at), 1_000)).collect();
        assert!(slope(&level).abs() < 1e-9);
        let rising: Vec<_> = (0..11_u32).map(|at| sample(f64::from(at), u64::from(995 + at))).collect();
        assert!((slope(&rising) - 0.01).abs() < 1e-9, "{}", slope(&rising));
    }
}
