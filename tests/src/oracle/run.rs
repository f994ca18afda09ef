//! Plays a folder's vectors and judges what came of each.

use std::collections::BTreeMap;
use std::fs;
use std::io::{self, Write};
use std::path::PathBuf;
use std::sync::mpsc::{Receiver, channel};

use super::ask::{Answer, ask};
use super::expect::{Expected, Stored, as_recorded, skipped};
use super::ours;
use super::record::{Vector, environments, lines};
use super::site::{Plan, Programs, Site, received, stand_ins};
use super::stand_in::Received;

/// Variants whose vectors are played.
const VARIANTS: [&str; 2] = ["main", "colibri"];

/// What to play, and with which programs.
#[derive(Debug, Clone)]
pub struct Options {
    /// The folder with the recordings.
    pub folder: PathBuf,
    /// The shardgate to start.
    pub shardgate: PathBuf,
    /// Its shardgatectl.
    pub shardgatectl: PathBuf,
    /// Only vectors whose id begins so.
    pub only: Option<String>,
    /// Whose rules count.
    pub mode: Mode,
}

/// Whose rules count.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// HAProxy's, bugs and all: everything is as recorded.
    Compat,
    /// Ours: only what the listed rules name may differ.
    Ours,
}

/// What came of a run.
#[derive(Debug, Default, Clone)]
pub struct Report {
    /// As recorded.
    pub passed: usize,
    /// Otherwise.
    pub failed: usize,
    /// Not asked, by reason.
    pub skipped: BTreeMap<String, usize>,
}

/// Plays everything, and tells each failure to `out`.
///
/// # Errors
/// When a file cannot be read, or the node cannot be started or asked.
pub fn run(options: &Options, out: &mut impl Write) -> io::Result<Report> {
    let environments = environments(&options.folder)?;
    let vectors: Vec<Vector> = lines(&options.folder.join("vectors.jsonl"))?;
    let (told, heard) = channel();
    let plans: io::Result<Vec<Plan>> =
        VARIANTS.iter().map(|variant| Plan::of(&environments, variant)).collect();
    let plans = plans?;
    stand_ins(&plans, &told)?;
    let programs =
        Programs { shardgate: options.shardgate.clone(), shardgatectl: options.shardgatectl.clone() };
    let mut report = Report::default();
    for (variant, plan) in VARIANTS.iter().zip(&plans) {
        let compat = match options.mode {
            Mode::Compat => "haproxy",
            Mode::Ours => "none",
        };
        let site = Site::start(&programs, plan, compat)?;
        for vector in vectors.iter().filter(|vector| vector.variant == *variant) {
            if options.only.as_ref().is_some_and(|only| !vector.id.starts_with(only.as_str())) {
                continue;
            }
            if let Some(reason) = skipped(vector) {
                *report.skipped.entry(reason.to_owned()).or_default() += 1;
                continue;
            }
            let faults = play(&site, &heard, vector, options.mode, &vectors)?;
            if faults.is_empty() {
                report.passed += 1;
                continue;
            }
            report.failed += 1;
            let request = &vector.request;
            let target: String = request.target.chars().take(100).collect();
            writeln!(out, "FAILED: {} {} {target} {:?}", vector.id, request.method, vector.rules)?;
            for fault in faults {
                writeln!(out, "    {fault}")?;
            }
        }
    }
    let others = vectors.iter().filter(|vector| !VARIANTS.contains(&vector.variant.as_str()));
    for vector in others {
        *report.skipped.entry(format!("variant {}: not built yet", vector.variant)).or_default() += 1;
    }
    let sequences = options.folder.join("sequences.jsonl");
    if options.only.is_none() && sequences.exists() {
        let count = fs::read_to_string(&sequences)?.lines().count();
        report.skipped.insert("sequences.jsonl: sequences are not played yet".to_owned(), count);
    }
    Ok(report)
}

/// What differs from what is expected, one line each.
fn play(
    site: &Site,
    heard: &Receiver<Received>,
    vector: &Vector,
    mode: Mode,
    all: &[Vector],
) -> io::Result<Vec<String>> {
    let live = site.plan.live.as_deref().unwrap_or_default();
    let primaries = site.plan.shards.iter().filter(|shard| {
        format!("release-{}", shard.release) == live
            && shard.region == site.plan.region
            && shard.status != "critical"
    });
    let primaries: Vec<String> = primaries.map(|shard| shard.name.clone()).collect();
    let mut expected = as_recorded(vector, &primaries, &site.plan.region);
    if mode == Mode::Ours && ours::may_differ(vector) {
        expected = ours::corrected(vector, expected, &site.plan, &primaries, all);
    }
    drop(received(heard));
    let answer = ask(site.frontend(), &vector.request)?;
    let got = received(heard);
    let mut faults = judge(&expected, &vector.request.target, &answer, &got);
    let rows = site.table()?;
    let stored = match rows.as_slice() {
        [] => Stored::Nothing,
        [row] => Stored::Key(row.key.clone()),
        several => {
            faults.push(format!("{} entries in the table", several.len()));
            expected.stored.clone()
        }
    };
    if stored != expected.stored {
        faults.push(format!("stored: {stored:?}, expected {:?}", expected.stored));
    }
    site.clear(&rows)?;
    Ok(faults)
}

fn judge(expected: &Expected, asked: &str, answer: &Answer, got: &[Received]) -> Vec<String> {
    let mut faults = Vec::new();
    let mut compare = |what: &str, found: &dyn std::fmt::Debug, wanted: &dyn std::fmt::Debug| {
        let (found, wanted) = (format!("{found:?}"), format!("{wanted:?}"));
        if found != wanted {
            let cut = |text: String| text.chars().take(160).collect::<String>();
            faults.push(format!("{what}: {}, expected {}", cut(found), cut(wanted)));
        }
    };
    compare("status", &answer.status, &expected.status);
    compare("location", &answer.all("location").first().copied(), &expected.location.as_deref());
    for (name, lines) in &expected.to_client {
        compare(&format!("{name} to the client"), &answer.all(name), lines);
    }
    match (got, expected.servers.as_slice()) {
        ([], []) => {}
        ([received], servers) => {
            let shard = received.shard.as_str();
            let right = servers.iter().any(|server| server == shard);
            compare(
                "shard",
                &(if right { "one of the candidates" } else { shard }),
                &"one of the candidates",
            );
            compare("target to the shard", &received.target, &expected.target.as_deref().unwrap_or(asked));
            for (name, lines) in &expected.told {
                compare(&format!("{name} to the shard"), &received.all(name), lines);
            }
        }
        (several, servers) => {
            let several: Vec<&str> = several.iter().map(|received| received.shard.as_str()).collect();
            compare("shards that were asked", &several, &servers);
        }
    }
    faults
}
