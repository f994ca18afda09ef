//! Plays what was recorded from a real HAProxy against a freshly started shardgate. Started by `tests/run oracle`.

use std::io::{self, Write};
use std::path::PathBuf;
use std::process::ExitCode;

use shardgate_tests::oracle::{Mode, Options, Report, run};

const USAGE: &str = "oracle DIR [--compat] [--only ID] [--bin SHARDGATE] [--ctl SHARDGATECTL]
  DIR       environment.json, vectors.jsonl and sequences.jsonl
  --compat  with compat = \"haproxy\": everything is as recorded; otherwise only what the listed rules name may differ
  --only    vectors and sequences whose id begins so
  --bin     the shardgate to start; default: the one beside this program";

fn main() -> io::Result<ExitCode> {
    let Some(options) = options() else {
        io::stderr().write_all(USAGE.as_bytes())?;
        return Ok(ExitCode::from(2));
    };
    let mut out = io::stdout().lock();
    let Report { passed, failed, skipped } = run(&options, &mut out)?;
    for (reason, count) in &skipped {
        writeln!(out, "skipped: {count}: {reason}")?;
    }
    writeln!(out, "{passed} passed, {failed} failed, {} skipped", skipped.values().sum::<usize>())?;
    Ok(if failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn options() -> Option<Options> {
    let beside = |name: &str| std::env::current_exe().ok().map(|path| path.with_file_name(name));
    let (mut folder, mut only, mut mode) = (None, None, Mode::Ours);
    let (mut shardgate, mut shardgatectl) = (beside("shardgate")?, beside("shardgatectl")?);
    let mut words = std::env::args().skip(1);
    while let Some(word) = words.next() {
        match word.as_str() {
            "--compat" => mode = Mode::Compat,
            "--only" => only = Some(words.next()?),
            "--bin" => shardgate = PathBuf::from(words.next()?),
            "--ctl" => shardgatectl = PathBuf::from(words.next()?),
            _ if folder.is_none() && !word.starts_with('-') => folder = Some(PathBuf::from(word)),
            _ => return None,
        }
    }
    Some(Options { folder: folder?, shardgate, shardgatectl, only, mode })
}
