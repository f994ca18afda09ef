//! First joins of the same new rooms through nodes of three regions at once, real processes, 75 ms apart. Started by
//! `tests/bench/run race`. Exit: 0 nobody was split, 1 somebody was, or the race failed; 2 wrong arguments.

use std::io::{self, Write};
use std::process::ExitCode;
use std::time::Duration;

use shardgate_tests::bench::latency::Latencies;
use shardgate_tests::bench::mesh::race::{Outcome, has_homes, race};
use shardgate_tests::bench::mesh::{Fleet, Path, Placement, Spec, node_name};
use shardgate_tests::bench::net::AddressPlan;
use shardgate_tests::bench::process::{Cpus, Obedient, sibling};
use shardgate_tests::bench::stage::run_or_usage;
use shardgate_tests::bench::subject::{Entrances, Ground, Kind};
use shardgate_tests::bench::{haproxy, shardgate};

const USAGE: &str = "[--rooms N] [--delay MILLISECONDS] [--seed N] [--haproxy] [--smoke]";
/// Two nodes in each of three regions.
const REGIONS: [usize; 6] = [0, 0, 1, 1, 2, 2];
/// 127.77.0.0/16.
const SECOND_OCTET: u8 = 77;

/// What is raced.
struct Wanted {
    rooms: usize,
    delay: Duration,
    seed: u64,
    kinds: Vec<Kind>,
}

fn main() -> ExitCode {
    run_or_usage("bench_race", USAGE, wanted(std::env::args().skip(1)), run)
}

fn wanted(mut arguments: impl Iterator<Item = String>) -> Result<Wanted, String> {
    let mut wanted = Wanted {
        rooms: 1_000,
        delay: Duration::from_millis(75),
        seed: 20_261_122,
        kinds: vec![Kind::Shardgate],
    };
    while let Some(name) = arguments.next() {
        let mut number = || {
            let value = arguments.next().unwrap_or_default();
            let parsed = value.parse::<u64>().ok().filter(|number| *number <= 100_000_000);
            parsed.ok_or_else(|| format!("{name}: expected a number, found {value:?}"))
        };
        match name.as_str() {
            "--rooms" => wanted.rooms = number()?.clamp(1, 100_000) as usize,
            "--delay" => wanted.delay = Duration::from_millis(number()?.min(2_000)),
            "--seed" => wanted.seed = number()?,
            "--haproxy" => wanted.kinds.push(Kind::HaProxy),
            "--smoke" => wanted.rooms = 100,
            _ => return Err(format!("unknown argument {name:?}")),
        }
    }
    Ok(wanted)
}

fn say(line: &str) {
    // A reader that went away must not end the race.
    writeln!(io::stdout(), "{line}").ok();
}

fn run(wanted: &Wanted) -> io::Result<ExitCode> {
    let folder = tempfile::Builder::new().prefix("shardgate-race-").tempdir()?;
    let (plan, cpus) = (AddressPlan::at(SECOND_OCTET), Cpus::pick()?);
    let ground = Ground { plan, cpus, folder: folder.path(), entrances: Entrances::Plain };
    let shards = plan.shards().into_iter().map(|address| address.to_string());
    let _origin = Obedient::start("origin", cpus.rest, &sibling("bench_origin")?, shards)?;
    say(&format!(
        "{} rooms, {} nodes in 3 regions, {} ms one way between regions, seed {}",
        wanted.rooms,
        REGIONS.len(),
        wanted.delay.as_millis(),
        wanted.seed
    ));
    let mut good = true;
    for kind in &wanted.kinds {
        let version = if *kind == Kind::HaProxy { haproxy::version()? } else { shardgate::version()? };
        say(&format!("\n{version}"));
        let spec = Spec {
            regions: REGIONS.to_vec(),
            path: Path::Delayed(wanted.delay),
            placement: Placement::InTurn,
            ..Spec::of(1, REGIONS.len())
        };
        let fleet = Fleet::start(*kind, ground, spec)?;
        let outcome = race(&fleet, wanted.rooms, wanted.seed)?;
        tell(&fleet, &outcome)?;
        // HAProxy stands beside it for comparison only.
        good &= *kind == Kind::HaProxy || (outcome.split_ever.is_empty() && outcome.unanswered == 0);
    }
    Ok(ExitCode::from(u8::from(!good)))
}

fn tell(fleet: &Fleet, outcome: &Outcome) -> io::Result<()> {
    let row = |what: &str, value: String| say(&format!("  {what:<64} {value:>14}"));
    row("rooms", outcome.rooms.to_string());
    row("rooms split between their two first participants", outcome.split_at_once.to_string());
    row(
        "rooms ever split (a third participant at once, all nodes later)",
        outcome.split_ever.len().to_string(),
    );
    row("questions without a good answer", outcome.unanswered.to_string());
    row("pairs sent more than 1 ms apart", outcome.late_pairs.to_string());
    row("a pair's questions apart, p99", ms(&outcome.apart, 0.99));
    if has_homes(fleet.kind) {
        row(
            "rooms of which neither first participant came through the home",
            outcome.through_strangers.to_string(),
        );
        for (name, what) in [
            ("shardgate_table_decided_alone_total", "lone decisions"),
            ("shardgate_table_claims_timed_out_total", "homes that missed their budget"),
            ("shardgate_table_claims_asked_total", "claims sent to another home"),
            ("shardgate_table_decided_home_total", "decisions at homes"),
            ("shardgate_table_conflicts_total", "conflicts"),
        ] {
            row(what, fleet.counter_of_all(name)?.map_or_else(|| "-".to_owned(), |count| count.to_string()));
        }
        let homes = outcome.homes.iter().enumerate();
        let homes = homes.map(|(node, rooms)| format!("{} {rooms}", node_name(node)));
        row("homes", homes.collect::<Vec<_>>().join(", "));
        quantiles("first joins through the home", &outcome.at_home);
        quantiles("first joins through another node", &outcome.elsewhere);
    } else {
        let mut all = Latencies::default();
        all.add(&outcome.at_home);
        all.add(&outcome.elsewhere);
        quantiles("first joins", &all);
    }
    for split in outcome.split_ever.iter().take(if has_homes(fleet.kind) { 20 } else { 0 }) {
        say(&format!("  SPLIT {split}"));
    }
    Ok(())
}

fn quantiles(what: &str, latencies: &Latencies) {
    let each = [0.5, 0.99, 1.0].map(|share| ms(latencies, share));
    say(&format!("  {what:<44} p50 {} p99 {} max {}", each[0], each[1], each[2]));
}

fn ms(latencies: &Latencies, share: f64) -> String {
    format!("{:.2} ms", latencies.quantile_us(share) as f64 / 1000.0)
}
