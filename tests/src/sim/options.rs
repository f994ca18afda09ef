//! What the simulation can be told on its command line.

use super::model::Room;
use super::trace::Wanted;

/// The help text.
pub const HELP: &str = "\
Deterministic simulation of the stick table's mesh: one seed draws nodes, delays, clients and faults.

  sim [--seeds N] [--from S] [--jobs J] [--output text|json]
        replays the kept seeds (tests/sim/seeds.txt), then runs N seeds from S (default 1,000 from 1, 2 jobs);
        prints what they saw and fails if one is wrong or, from 1,000 seeds on, if something was never seen;
        seeds from 1,000,000,000 on have 200 nodes, those from 2,000,000,000 on nodes that are woken late
  sim --seed S [--trace full|key=R]
        replays one seed; R is a room's number. Without --trace: the setup and the verdict, and the last lines
        about the room that is wrong
  sim --mutants [--seeds N] [--jobs J]
        plants each fault that the core knows and runs 30 seeds, the scenarios, and more seeds up to N, until it
        is caught (feature test-hooks)
  sim --mutate NAME [--seeds N] [--from S]
        the same for one of them; status 0 when it is caught
  sim --list-mutants
        their names
  sim --scenarios
        plays tests/scenarios, with the fault that SHARDGATE_MUTATION names, and prints those that notice something
";

/// How results are told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Output {
    /// For people.
    Text,
    /// One JSON document on standard output.
    Json,
}

/// What is to be done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Task {
    /// Say how it is called.
    Help,
    /// Many seeds.
    Sweep,
    /// One seed.
    Replay {
        /// Which.
        seed: u64,
        /// What is traced.
        trace: Wanted,
    },
    /// One planted fault.
    Mutate(String),
    /// All of them.
    Mutants,
    /// Their names.
    ListMutants,
    /// All scenarios.
    Scenarios,
}

/// What was asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Options {
    /// What to do.
    pub task: Task,
    /// How many seeds.
    pub seeds: u64,
    /// The first one.
    pub from: u64,
    /// Threads.
    pub jobs: usize,
    /// How to tell it.
    pub output: Output,
}

impl Options {
    /// Reads the arguments after the program's name.
    ///
    /// # Errors
    /// A sentence about the argument that is wrong.
    pub fn parse(arguments: impl Iterator<Item = String>) -> Result<Self, String> {
        let mut options = Self { task: Task::Sweep, seeds: 1_000, from: 1, jobs: 2, output: Output::Text };
        let mut trace = None;
        let mut arguments = arguments;
        while let Some(argument) = arguments.next() {
            let mut value = || arguments.next().ok_or_else(|| format!("{argument} needs a value"));
            match argument.as_str() {
                "-h" | "--help" => options.task = Task::Help,
                "--seeds" => options.seeds = number(&argument, &value()?, 1)?,
                "--from" => options.from = number(&argument, &value()?, 0)?,
                "--jobs" => {
                    options.jobs = usize::try_from(number(&argument, &value()?, 1)?).unwrap_or(1).min(64)
                }
                "--seed" => {
                    let seed = number(&argument, &value()?, 0)?;
                    options.task = Task::Replay { seed, trace: Wanted::Nothing };
                }
                "--trace" => trace = Some(parse_trace(&value()?)?),
                "--output" => options.output = parse_output(&value()?)?,
                "--mutate" => options.task = Task::Mutate(value()?),
                "--mutants" => options.task = Task::Mutants,
                "--list-mutants" => options.task = Task::ListMutants,
                "--scenarios" => options.task = Task::Scenarios,
                other => return Err(format!("unknown argument {other:?}; see --help")),
            }
        }
        match (&mut options.task, trace) {
            (Task::Replay { trace, .. }, Some(wanted)) => *trace = wanted,
            (_, Some(_)) => return Err("--trace goes with --seed".to_owned()),
            (_, None) => {}
        }
        Ok(options)
    }
}

fn number(argument: &str, text: &str, least: u64) -> Result<u64, String> {
    let parsed = text.replace([',', '_'], "").parse().ok().filter(|number| *number >= least);
    parsed.ok_or_else(|| format!("{argument}: expected a number from {least}, found {text:?}"))
}

fn parse_trace(text: &str) -> Result<Wanted, String> {
    let room = |text: &str| text.trim_start_matches('r').parse::<Room>().ok();
    match text.strip_prefix("key=") {
        None if text == "full" => Ok(Wanted::Full),
        Some(key) if room(key).is_some() => Ok(Wanted::Room(room(key).unwrap_or(0))),
        _ => Err(format!("--trace: expected full or key=NUMBER, found {text:?}")),
    }
}

fn parse_output(text: &str) -> Result<Output, String> {
    match text {
        "text" => Ok(Output::Text),
        "json" => Ok(Output::Json),
        _ => Err(format!("--output: expected text or json, found {text:?}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(line: &str) -> Result<Options, String> {
        Options::parse(line.split_whitespace().map(str::to_owned))
    }

    #[test]
    fn sweeps_replays_and_wrong_arguments() {
        let options = parse("--seeds 20,000 --from 5 --jobs 1").unwrap();
        assert_eq!((options.seeds, options.from, options.jobs), (20_000, 5, 1));
        let replay = parse("--seed 7 --trace key=r12").unwrap();
        assert_eq!(replay.task, Task::Replay { seed: 7, trace: Wanted::Room(12) });
        assert_eq!(parse("--seeds").unwrap_err(), "--seeds needs a value");
        assert_eq!(parse("--seeds 0").unwrap_err(), "--seeds: expected a number from 1, found \"0\"");
        assert_eq!(parse("--trace full").unwrap_err(), "--trace goes with --seed");
        assert!(parse("--speed").unwrap_err().contains("unknown argument"));
    }
}
