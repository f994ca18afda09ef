//! Plays what was recorded from a real HAProxy against a freshly started shardgate, or against a HAProxy with our configuration of the same
//! rules. Started by `tests/run oracle` and `tests/bench/run rules`.

use std::io::{self, Write};
use std::path::PathBuf;
use std::process::ExitCode;

use shardgate_tests::oracle::{Mode, Options, Report, check_haproxy, run};

const USAGE: &str = "oracle DIR [--compat] [--only ID] [--bin SHARDGATE] [--ctl SHARDGATECTL] [--haproxy RUNNER]
  DIR       environment.json, vectors.jsonl and sequences.jsonl
  --compat  with compat = \"haproxy\": everything is as recorded; otherwise only what the listed rules name may differ
  --only    vectors and sequences whose id begins so
  --bin     the shardgate to start; default: the one beside this program
  --haproxy  a program that runs HAProxy, which is asked the vectors instead: with tests/bench/haproxy-rules.cfg, as 3.0.11 was recorded";

fn main() -> io::Result<ExitCode> {
    let Some(Wanted { options, haproxy }) = wanted() else {
        io::stderr().write_all(USAGE.as_bytes())?;
        return Ok(ExitCode::from(2));
    };
    let mut out = io::stdout().lock();
    let report = match haproxy {
        None => run(&options, &mut out)?,
        Some(runner) => check_haproxy(&options.folder, &runner, options.only.as_deref(), &mut out)?,
    };
    let Report { passed, failed, skipped } = report;
    for (reason, count) in &skipped {
        writeln!(out, "skipped: {count}: {reason}")?;
    }
    writeln!(out, "{passed} passed, {failed} failed, {} skipped", skipped.values().sum::<usize>())?;
    Ok(if failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

struct Wanted {
    options: Options,
    /// Who runs HAProxy, when that is asked.
    haproxy: Option<PathBuf>,
}

fn wanted() -> Option<Wanted> {
    let beside = |name: &str| std::env::current_exe().ok().map(|path| path.with_file_name(name));
    let (mut folder, mut only, mut mode) = (None, None, Mode::Ours);
    let mut haproxy = None;
    let (mut shardgate, mut shardgatectl) = (beside("shardgate")?, beside("shardgatectl")?);
    let mut words = std::env::args().skip(1);
    while let Some(word) = words.next() {
        match word.as_str() {
            "--compat" => mode = Mode::Compat,
            "--only" => only = Some(words.next()?),
            "--haproxy" => haproxy = Some(PathBuf::from(words.next()?)),
            "--bin" => shardgate = PathBuf::from(words.next()?),
            "--ctl" => shardgatectl = PathBuf::from(words.next()?),
            _ if folder.is_none() && !word.starts_with('-') => folder = Some(PathBuf::from(word)),
            _ => return None,
        }
    }
    let options = Options { folder: folder?, shardgate, shardgatectl, only, mode };
    Some(Wanted { options, haproxy })
}
