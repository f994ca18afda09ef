//! Meshes of 2, 4 and 16 nodes: how long a new room takes to the last node, and what one costs everybody.

use std::io;
use std::thread::sleep;
use std::time::{Duration, Instant};

use serde_json::json;

use super::super::cpu::CpuReading;
use super::super::report::{Report, grouped};
use super::fleet::{Fleet, Spec};
use super::propagation::{Seen, Watch};
use super::run::{Rooms, Run, ask_rooms, ms, quantiles};

const TITLE: &str = "meshes of several nodes";
const CONNECTIONS: usize = 16;
/// Low: all nodes share two CPUs with the load and the shards.
const RATE: u32 = 200;

/// Each size, both kinds one after the other.
pub fn measure(run: &Run<'_>, report: &mut Report) -> io::Result<()> {
    let sizes: &[usize] = run.sized(&[2, 4, 16], &[3]);
    report.say(format!("\n{TITLE}: new rooms at A, {RATE}/s; CPU per new room, idle CPU taken off"));
    report.say(format!(
        "{:<10} {:>5} {:>10} {:>10} {:>9} {:>9} {:>14} {:>14}",
        "subject", "nodes", "p50 ms", "p99 ms", "us A", "us all", "us each other", "idle us/s each"
    ));
    for nodes in sizes {
        for kind in run.kinds() {
            let fleet = Fleet::start(kind, run.ground, Spec::of(6, *nodes))?;
            one(run, &fleet, report)?;
        }
    }
    Ok(())
}

fn one(run: &Run<'_>, fleet: &Fleet, report: &mut Report) -> io::Result<()> {
    let (name, nodes) = (fleet.kind.name(), fleet.len());
    let mut load = run.load("rooms", fleet.frontend(0), CONNECTIONS)?;
    ask_rooms(&mut load, Rooms { first: 0, count: 200, times: 1, rate: RATE }, name, report)?;
    let mut seen = Seen::default();
    let mut watch = Watch::on(fleet)?;
    for room in 0..run.sized(300, 20) {
        watch.follow(fleet, 1_000 + room, &mut seen)?;
    }
    seen.judge_lost(&format!("{name}, {nodes} nodes"), TITLE, report);
    let (before, began) = (readings(fleet)?, Instant::now());
    sleep(run.sized(Duration::from_secs(5), Duration::from_secs(1)));
    let idle = spent_us(fleet, &before)?;
    let idle_s = began.elapsed().as_secs_f64();
    let count = run.sized(10, 1) * RATE as usize;
    let (before, began) = (readings(fleet)?, Instant::now());
    ask_rooms(&mut load, Rooms { first: 10_000, count, times: 1, rate: RATE }, name, report)?;
    let entries = 200 + run.sized(300, 20) + count as u64;
    fleet.wait_replicated(entries)?;
    let busy = spent_us(fleet, &before)?;
    let busy_s = began.elapsed().as_secs_f64();
    let each: Vec<f64> =
        idle.iter().zip(&busy).map(|(idle, busy)| (busy - idle / idle_s * busy_s) / count as f64).collect();
    let all: f64 = each.iter().sum();
    let other = (all - each[0]) / (nodes - 1) as f64;
    let idle_each = idle.iter().sum::<f64>() / idle_s / nodes as f64;
    let [p50, p99] = [0.5, 0.99].map(|share| ms(&seen.visible, share));
    report.say(format!(
        "{name:<10} {nodes:>5} {p50:>10.2} {p99:>10.2} {:>9.1} {all:>9.1} {other:>14.1} {:>14}",
        each[0],
        grouped(idle_each as u64)
    ));
    report.add_section(json!({
        "title": TITLE, "subject": name, "nodes": nodes, "visible": quantiles(&seen.visible), "cpu_us_a": each[0],
        "cpu_us_all": all, "cpu_us_each_other": other, "idle_us_per_second_each": idle_each,
    }));
    Ok(())
}

fn readings(fleet: &Fleet) -> io::Result<Vec<CpuReading>> {
    (0..fleet.len()).map(|node| fleet.cpu(node)).collect()
}

fn spent_us(fleet: &Fleet, before: &[CpuReading]) -> io::Result<Vec<f64>> {
    let now = readings(fleet)?;
    Ok(now.iter().zip(before).map(|(now, before)| now.since(before).ns as f64 / 1000.0).collect())
}
