//! The simulation's command line; `tests/run sim` starts it. `sim --help` says how.
#![expect(clippy::print_stderr, reason = "it is a program for a terminal")]

use std::io::{IsTerminal as _, Write as _};
use std::process::ExitCode;

use shardgate_tests::sim::options::{HELP, Options, Output, Task};
use shardgate_tests::sim::{replay, report};

fn main() -> ExitCode {
    let options = match Options::parse(std::env::args().skip(1)) {
        Ok(options) => options,
        Err(wrong) => {
            eprintln!("sim: {wrong}");
            return ExitCode::from(2);
        }
    };
    let terminal = std::io::stderr().is_terminal();
    let progress = move |line: &str| {
        if terminal {
            eprint!("\r\x1b[K{line}");
        } else {
            eprintln!("{line}");
        }
    };
    let (text, passed) = match &options.task {
        Task::Help => (HELP.to_owned(), true),
        Task::Sweep if options.output == Output::Json => report::sweep_json(&options, &progress),
        Task::Sweep => report::sweep_text(&options, &progress),
        Task::Replay { seed, trace } => replay::replay(*seed, *trace),
        Task::Mutate(name) => report::mutate(name, &options, &progress),
        Task::Mutants => report::mutants(&options, &progress),
        Task::ListMutants => report::list_mutants(),
        Task::Scenarios => report::scenarios(),
    };
    if terminal {
        eprint!("\r\x1b[K");
    }
    // Who reads it may have seen enough.
    let _written = writeln!(std::io::stdout(), "{}", text.trim_end());
    if passed { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
