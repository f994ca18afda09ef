//! HTTP/1 conformance: raw bytes against a running shardgate with nginx and Node as its shards. Started by `tests/run conformance-h1`.

use std::io::{self, Write};
use std::path::PathBuf;
use std::process::ExitCode;

use shardgate_tests::conformance_h1::{Options, run};

const USAGE: &str = "conformance_h1 [--bin SHARDGATE] [--only PART]
  --bin   the shardgate to test; default: the one beside this program
  --only  cases whose names contain this
";

fn main() -> io::Result<ExitCode> {
    let Some(options) = wanted() else {
        io::stderr().write_all(USAGE.as_bytes())?;
        return Ok(ExitCode::from(2));
    };
    let mut out = io::stdout().lock();
    let report = run(&options, &mut out)?;
    writeln!(out, "{} passed, {} failed, 0 skipped", report.passed, report.failed)?;
    Ok(if report.failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn wanted() -> Option<Options> {
    let mut shardgate: PathBuf = std::env::current_exe().ok()?.with_file_name("shardgate");
    let mut only = None;
    let mut words = std::env::args().skip(1);
    while let Some(word) = words.next() {
        match word.as_str() {
            "--bin" => shardgate = PathBuf::from(words.next()?),
            "--only" => only = Some(words.next()?),
            _ => return None,
        }
    }
    Some(Options { shardgate, only })
}
