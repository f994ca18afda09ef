//! What replication takes and costs: shardgate and HAProxy at the same work. Started by `tests/bench/run mesh`.

use std::io;
use std::process::ExitCode;
use std::time::Instant;

use serde_json::json;
use shardgate_tests::bench::cpu::load_average;
use shardgate_tests::bench::mesh::{
    Run, endurance, propagation, reconcile, replication, resync, scale, traffic,
};
use shardgate_tests::bench::net::AddressPlan;
use shardgate_tests::bench::options::{Options, Size};
use shardgate_tests::bench::process::{Cpus, Obedient, sibling};
use shardgate_tests::bench::report::Report;
use shardgate_tests::bench::stage::run_or_usage;
use shardgate_tests::bench::subject::{Entrances, Ground, Kind};
use shardgate_tests::bench::{haproxy, shardgate};

const USAGE: &str = "[--parts propagation,traffic,resync,reconcile,replication,scale,endurance] [--rounds N] [--seconds S] [--smoke] [--output text|json] \
     [--subjects haproxy,shardgate]";
const ROUNDS: u32 = 5;
const SECONDS: u32 = 3;
/// 127.78.0.0/16.
const SECOND_OCTET: u8 = 78;

type Measure = fn(&Run<'_>, &mut Report) -> io::Result<()>;

const PARTS: [(&str, Measure); 7] = [
    ("propagation", propagation::measure),
    ("traffic", traffic::measure),
    ("resync", resync::measure),
    ("reconcile", reconcile::measure),
    ("replication", replication::measure),
    ("scale", scale::measure),
    ("endurance", endurance::measure),
];

/// The parts that were asked for, and how.
struct Wanted {
    parts: Vec<(&'static str, Measure)>,
    options: Options,
}

fn main() -> ExitCode {
    run_or_usage("bench_mesh", USAGE, wanted(std::env::args().skip(1).collect()), run)
}

fn wanted(mut arguments: Vec<String>) -> Result<Wanted, String> {
    let mut parts = PARTS.to_vec();
    if let Some(at) = arguments.iter().position(|argument| argument == "--parts") {
        let names = arguments.drain(at..(at + 2).min(arguments.len())).nth(1).unwrap_or_default();
        let part = |name: &str| PARTS.into_iter().find(|(known, _)| *known == name);
        let found =
            names.split(',').map(|name| part(name).ok_or_else(|| format!("--parts: unknown part {name:?}")));
        parts = found.collect::<Result<_, _>>()?;
    }
    let mut options = Options::parse(arguments, ROUNDS, SECONDS)?;
    options.subjects.retain(|kind| *kind != Kind::Relay);
    Ok(Wanted { parts, options })
}

fn run(Wanted { parts, options }: &Wanted) -> io::Result<ExitCode> {
    let mut report = Report::new(options.output, options.size.rules());
    let folder = tempfile::Builder::new().prefix("shardgate-bench-").tempdir()?;
    let (plan, cpus) = (AddressPlan::at(SECOND_OCTET), Cpus::pick()?);
    let ground = Ground { plan, cpus, folder: folder.path(), entrances: Entrances::Plain };
    let shards = plan.shards().into_iter().map(|address| address.to_string());
    let _origin = Obedient::start("origin", cpus.rest, &sibling("bench_origin")?, shards)?;
    let mut versions = Vec::new();
    for kind in &options.subjects {
        let version = if *kind == Kind::HaProxy { haproxy::version()? } else { shardgate::version()? };
        report.say(&version);
        versions.push(version);
    }
    let mut took = Vec::new();
    for (name, measure) in parts {
        report.say(format!("\n--- {name}, load average {}", load_average()?));
        let began = Instant::now();
        measure(&Run { ground, options }, &mut report)?;
        took.push(json!({ "part": name, "seconds": began.elapsed().as_secs() }));
    }
    let names: Vec<&str> = options.subjects.iter().map(|kind| kind.name()).collect();
    let head = json!({
        "bench": "mesh", "rounds": options.rounds, "seconds": options.seconds, "smoke": options.size == Size::Smoke,
        "subjects": names, "versions": versions, "parts": took,
    });
    Ok(report.end(head))
}
