//! What all parts of the mesh bench share: where they run, who takes part, loads.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use serde_json::{Value, json};

use super::super::latency::Latencies;
use super::super::load_report::LoadReport;
use super::super::options::{Options, Size};
use super::super::process::{Obedient, sibling};
use super::super::report::Report;
use super::super::rounds::ask_report;
use super::super::subject::{Ground, Kind};
use super::fleet::{Fleet, Spec};

/// A load of any rooms may take so long beyond what its rate says.
const LOAD_GRACE: Duration = Duration::from_secs(400);

/// One run of the bench.
pub struct Run<'a> {
    /// Where everything stands.
    pub ground: Ground<'a>,
    /// How much is measured, of whom.
    pub options: &'a Options,
}

/// Rooms to be asked for.
#[derive(Clone, Copy)]
pub(super) struct Rooms {
    /// Number of the first.
    pub(super) first: usize,
    /// How many.
    pub(super) count: usize,
    /// How often each.
    pub(super) times: usize,
    /// How many a second; 0 for as fast as they are answered.
    pub(super) rate: u32,
}

impl Run<'_> {
    /// Full or smoke: the first or the second.
    #[must_use]
    pub fn sized<T>(&self, full: T, smoke: T) -> T {
        match self.options.size {
            Size::Full => full,
            Size::Smoke => smoke,
        }
    }

    /// The kinds of nodes that take part.
    pub fn kinds(&self) -> impl Iterator<Item = Kind> {
        self.options.subjects.iter().copied().filter(|kind| *kind != Kind::Relay)
    }

    /// A mesh of every kind.
    pub fn fleets(&self, spec: &Spec) -> io::Result<Vec<Fleet>> {
        self.kinds().map(|kind| Fleet::start(kind, self.ground, spec.clone())).collect()
    }

    /// A load of `kind` on a node, with so many connections.
    pub fn load(&self, kind: &str, target: SocketAddr, connections: usize) -> io::Result<Obedient> {
        let arguments = [kind.to_owned(), target.to_string(), connections.to_string()];
        Obedient::start(&format!("{kind} load"), self.ground.cpus.rest, &sibling("bench_load")?, arguments)
    }
}

/// Has a load of kind `rooms` ask for rooms; faults are reasons for the run to be void.
pub(super) fn ask_rooms(
    load: &mut Obedient,
    rooms: Rooms,
    title: &str,
    report: &mut Report,
) -> io::Result<LoadReport> {
    let Rooms { first, count, times, rate } = rooms;
    // As fast as it goes is faster than this.
    let slowest = if rate == 0 { 1_000 } else { rate };
    let needed = Duration::from_secs((count * times) as u64 / u64::from(slowest));
    let done = ask_report(load, &format!("rooms {first} {count} {times} {rate}"), needed + LOAD_GRACE)?;
    report.add_void(title, done.faults());
    Ok(done)
}

/// The figure of each kind, and shardgate's share of HAProxy's.
#[must_use]
pub(super) fn ratio(figures: &[(Kind, f64)]) -> Option<f64> {
    let of = |wanted| figures.iter().find(|(kind, _)| *kind == wanted).map(|(_, figure)| *figure);
    of(Kind::Shardgate).zip(of(Kind::HaProxy)).map(|(ours, theirs)| ours / theirs)
}

/// Quantiles in milliseconds, for JSON.
#[must_use]
pub(super) fn quantiles(latencies: &Latencies) -> Value {
    let [p50, p99, max] = [0.5, 0.99, 1.0].map(|share| ms(latencies, share));
    json!({ "p50_ms": p50, "p99_ms": p99, "max_ms": max })
}

/// A quantile in milliseconds.
#[must_use]
pub(super) fn ms(latencies: &Latencies, share: f64) -> f64 {
    latencies.quantile_us(share) as f64 / 1000.0
}
