//! CPU per HTTP/1.1 keep-alive request: shardgate, HAProxy and a bare relay by turns. Started by `tests/bench/run http`.

use std::io;
use std::process::ExitCode;
use std::time::Duration;

use shardgate_tests::bench::cpu::load_average;
use shardgate_tests::bench::options::Options;
use shardgate_tests::bench::report::{FLOOR, Report};
use shardgate_tests::bench::room_walk::ROOMS;
use shardgate_tests::bench::rounds::{Lane, Measured, measure, say_round};
use shardgate_tests::bench::site::Routing;
use shardgate_tests::bench::stage::{Stage, start_or_usage, warm};
use shardgate_tests::bench::subject::Entrances;

const CONNECTIONS: [usize; 2] = [64, 256];
/// Long against the scheduler's slices, short against the machine's moods.
const TURN: Duration = Duration::from_secs(1);
const ROUNDS: u32 = 7;
const SECONDS: u32 = 4;

struct Case<'a> {
    connections: usize,
    lanes: Vec<Lane<'a>>,
    rounds: Vec<Vec<Measured>>,
}

fn main() -> ExitCode {
    start_or_usage("bench_http", ROUNDS, SECONDS, run)
}

fn run(options: &Options) -> io::Result<ExitCode> {
    let mut report = Report::new(options.output, options.size.rules());
    let mut stage = Stage::set(options, Routing::ByAllRules, Entrances::Plain, &report)?;
    stage.warm_and_replicate(ROOMS as u64, &report)?;
    let mut cases = Vec::new();
    for connections in CONNECTIONS {
        let mut lanes = Vec::new();
        for subject in stage.subjects() {
            let mut load = stage.load(subject, connections)?;
            warm(&mut load)?;
            lanes.push(Lane { subject, load });
        }
        cases.push(Case { connections, lanes, rounds: vec![] });
    }
    let logged_before = stage.logged_lines()?;
    for round in 1..=options.rounds {
        report.say(format!("round {round} of {}, load average {}", options.rounds, load_average()?));
        for Case { connections, lanes, rounds } in &mut cases {
            let measured = measure(lanes, options.seconds, &format!("run {}", TURN.as_millis()), TURN)?;
            say_round(&report, &format!("{connections} connections"), &measured);
            rounds.push(measured);
        }
    }
    for Case { connections, rounds, .. } in &cases {
        report.add_rounds(&format!("HTTP keep-alive, {connections} connections"), "req", FLOOR, rounds);
    }
    let rounds = cases.iter().flat_map(|case| &case.rounds);
    stage.check_access_logs(&logged_before, rounds.flatten(), &mut report)?;
    drop(cases);
    Ok(report.end(stage.head("http", options)))
}
