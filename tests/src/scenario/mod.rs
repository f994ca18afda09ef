//! Scenarios as text: commands to a mesh of real [`Node`](shardgate_peering_core::Node)s in virtual time, and the full trace they must give.
//!
//! Made after the testdata of etcd-io/raft (datadriven). `tests/scenarios/README.md` tells how to read and write one;
//! [`check`] plays one and compares; with `SHARDGATE_REWRITE=1` it writes the trace into the file instead.

mod command;
mod diff;
mod file;
mod hostile;
mod play;
mod query;
mod reconciliation;
mod render;
mod stage;
mod trace;
mod words;

use std::fs;
use std::path::{Path, PathBuf};

use file::ScenarioFile;
use play::play;

/// Set (to anything but nothing), expected traces are written instead of compared.
const REWRITE: &str = "SHARDGATE_REWRITE";

/// The folder of the scenarios.
fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("scenarios")
}

/// The scenario files in their order.
///
/// # Panics
/// When the folder cannot be read.
#[must_use]
pub fn files() -> Vec<PathBuf> {
    let entries = fs::read_dir(folder()).expect("the folder of the scenarios is readable");
    let mut files: Vec<PathBuf> = entries
        .map(|entry| entry.expect("an entry of the folder is readable").path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "txt"))
        .collect();
    files.sort();
    files
}

/// Plays a scenario and compares its traces with the expected ones, or writes them when `REWRITE` is set.
///
/// # Errors
/// What is wrong with the file, or how the traces differ, for a person to read.
pub fn check(path: &Path) -> Result<(), String> {
    let name = path.strip_prefix(folder()).unwrap_or(path);
    let name = format!("tests/scenarios/{}", name.display());
    let text = fs::read_to_string(path).map_err(|error| format!("{name}: {error}"))?;
    let file = ScenarioFile::parse(&name, &text).map_err(|fault| fault.to_string())?;
    let traces = play(&file).map_err(|fault| fault.to_string())?;
    if std::env::var_os(REWRITE).is_some_and(|value| !value.is_empty()) {
        let written = file.with_traces(&traces);
        if written != text {
            fs::write(path, written).map_err(|error| format!("{name}: {error}"))?;
        }
        return Ok(());
    }
    let differences: Vec<String> = file
        .blocks
        .iter()
        .zip(&traces)
        .map(|(block, trace)| diff::diff(&block.expected, trace, block.expected_line))
        .filter(|difference| !difference.is_empty())
        .collect();
    if differences.is_empty() {
        return Ok(());
    }
    Err(format!(
        "{name}: the trace is another one than expected (- expected, + seen):\n{}\
         If the new trace is right: {REWRITE}=1 cargo test --profile sim -p shardgate-tests --test scenarios, \
         then read what git diff shows.",
        differences.concat()
    ))
}
