//! Attacks on a running node beside a normal load: `attack SHARDGATE [NAME...]`. Ends with a count. Exit: 0 all passed, 1 not, 2 wrong
//! arguments.

use std::io::{self, Write};
use std::path::PathBuf;
use std::process::ExitCode;

use shardgate_tests::attack::ground::{CEILING_MIB, Ground};
use shardgate_tests::attack::run::{Field, PLANS, Plan, heading};
use shardgate_tests::bench::cpu::open_files_max;
use shardgate_tests::bench::stage::run_or_usage;

const USAGE: &str = "SHARDGATE [NAME...]";
/// The attacker's, the load's and the shards' sockets, of the attack with the most.
const OPEN_FILES: usize = 12_000;

struct Wanted {
    program: PathBuf,
    plans: Vec<&'static Plan>,
}

fn main() -> ExitCode {
    run_or_usage("attack", USAGE, wanted(std::env::args().skip(1)), run)
}

fn wanted(mut arguments: impl Iterator<Item = String>) -> Result<Wanted, String> {
    let program = PathBuf::from(arguments.next().ok_or("SHARDGATE: expected the path of the binary")?);
    let named = |name: String| {
        let names = || PLANS.iter().map(|plan| plan.name).collect::<Vec<_>>().join(", ");
        let plan = PLANS.iter().find(|plan| plan.name == name);
        plan.ok_or_else(|| format!("NAME: expected one of {}, found {name:?}", names()))
    };
    let plans: Vec<_> = arguments.map(named).collect::<Result<_, _>>()?;
    Ok(Wanted { program, plans: if plans.is_empty() { PLANS.iter().collect() } else { plans } })
}

fn say(line: &str) {
    // A reader that went away must not end the attacks.
    writeln!(io::stdout(), "{line}").ok();
}

fn run(Wanted { program, plans }: &Wanted) -> io::Result<ExitCode> {
    if open_files_max()? < OPEN_FILES {
        return Err(io::Error::other(format!("needs {OPEN_FILES} open files: ulimit -n {OPEN_FILES}")));
    }
    let field = Field::new(Ground::start(program)?)?;
    say(&format!(
        "normal load: 300 requests a second and 50 tunnels, from other addresses than the attacker's; the ceiling is {CEILING_MIB} MiB.\n\
         Node, shards, load and attacker share this machine's cores: latencies during an attack are theirs together.\n\n{}",
        heading()
    ));
    let (mut passed, mut failed) = (0, 0);
    for plan in plans {
        let outcome = field.attack(plan)?;
        say(&outcome.row);
        for fault in &outcome.faults {
            say(&format!("FAILED: {}: {fault}", plan.name));
        }
        if outcome.faults.is_empty() { passed += 1 } else { failed += 1 }
    }
    say(&format!("{passed} passed, {failed} failed, 0 skipped"));
    Ok(ExitCode::from(u8::from(failed > 0)))
}
