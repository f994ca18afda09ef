//! Plays a folder's recordings and judges what came of each.

use std::collections::BTreeMap;
use std::io::{self, Write};
use std::path::PathBuf;
use std::thread;

use super::ask::{Answer, ask};
use super::expect::{Expected, Stored, as_recorded, skipped};
use super::ground::Ground;
use super::ours;
use super::plan::Plan;
use super::record::{Sequence, Vector, environments, lines};
use super::sequence;
use super::site::{AsksAgents, Programs, Settings, Shards, Site};
use super::stand_in::Received;

/// Variants whose vectors are played.
pub(super) const VARIANTS: [&str; 2] = ["main", "colibri"];
/// A node that has just started clears nothing until it has heard of every holder, which takes some more than half of this.
pub(super) const EXPIRE: &str = "10s";

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

impl Report {
    pub(super) fn skip(&mut self, reason: &str) {
        *self.skipped.entry(reason.to_owned()).or_default() += 1;
    }

    pub(super) fn add(&mut self, other: Self) {
        self.passed += other.passed;
        self.failed += other.failed;
        for (reason, count) in other.skipped {
            *self.skipped.entry(reason).or_default() += count;
        }
    }
}

impl Mode {
    /// The word of `routing.compat`.
    pub(super) const fn compat(self) -> &'static str {
        match self {
            Self::Compat => "haproxy",
            Self::Ours => "none",
        }
    }
}

/// Plays everything, and tells each failure to `out`.
///
/// # Errors
/// When a file cannot be read, or a node cannot be started or asked.
pub fn run(options: &Options, out: &mut impl Write) -> io::Result<Report> {
    let environments = environments(&options.folder)?;
    let vectors: Vec<Vector> = lines(&options.folder.join("vectors.jsonl"))?;
    let sequences: Vec<Sequence> = lines(&options.folder.join("sequences.jsonl"))?;
    let wanted = |id: &str| options.only.as_ref().is_none_or(|only| id.starts_with(only.as_str()));
    let programs =
        Programs { shardgate: options.shardgate.clone(), shardgatectl: options.shardgatectl.clone() };
    let sequences: Vec<&Sequence> = sequences.iter().filter(|sequence| wanted(&sequence.id)).collect();
    let play = sequence::Play {
        environments: &environments,
        vectors: &vectors,
        programs: &programs,
        mode: options.mode,
    };
    // What sequences do is mostly to wait, so they are played while the vectors are.
    thread::scope(|scope| {
        let playing = scope.spawn(|| play.all(&sequences));
        let mut report = Report::default();
        for variant in VARIANTS {
            let own = vectors.iter().filter(|vector| vector.variant == variant && wanted(&vector.id));
            let own: Vec<&Vector> = own.collect();
            if !own.is_empty() {
                let plan = Plan::of(&environments, variant)?;
                report.add(play_vectors(&own, &plan, &programs, options.mode, &vectors, out)?);
            }
        }
        let others = vectors.iter().filter(|vector| !VARIANTS.contains(&vector.variant.as_str()));
        for vector in others.filter(|vector| wanted(&vector.id)) {
            report.skip(&format!("variant {}: vectors of {VARIANTS:?} are played", vector.variant));
        }
        let (of_sequences, told) = playing.join().map_err(|_| io::Error::other("a sequence panicked"))??;
        write!(out, "{told}")?;
        report.add(of_sequences);
        Ok(report)
    })
}

fn play_vectors(
    vectors: &[&Vector],
    plan: &Plan,
    programs: &Programs,
    mode: Mode,
    all: &[Vector],
    out: &mut impl Write,
) -> io::Result<Report> {
    let ground = Ground::new(0).ok_or_else(|| io::Error::other("no slot"))?;
    let shards = Shards::start(ground, std::iter::once(plan))?;
    let mut site = Site::new(programs, ground, std::slice::from_ref(plan))?;
    site.start(Settings { compat: mode.compat(), expire: EXPIRE, asks: AsksAgents::No })?;
    let mut report = Report::default();
    for vector in vectors {
        if let Some(reason) = skipped(vector) {
            report.skip(reason);
            continue;
        }
        let faults = play(&site, &shards, vector, mode, all)?;
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
    Ok(report)
}

/// What differs from what is expected, one line each.
fn play(
    site: &Site,
    shards: &Shards,
    vector: &Vector,
    mode: Mode,
    all: &[Vector],
) -> io::Result<Vec<String>> {
    let node = site.node(None)?;
    let primaries = site.plan.primaries(site.plan.live.as_deref().unwrap_or_default());
    let mut expected = as_recorded(vector, &primaries, &site.plan.region);
    if mode == Mode::Ours && ours::may_differ(vector) {
        expected = ours::corrected(vector, expected, &site.plan, &primaries, all);
    }
    drop(shards.received());
    let answer = ask(site.frontend(node), &vector.request)?;
    let got = shards.received();
    let mut faults = judge(&expected, &vector.request.target, &answer, &got);
    let rows = site.table(node)?;
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
    site.clear(node, &rows)?;
    Ok(faults)
}

/// What differs in who was asked, and in what was said to whom.
pub(super) fn judge(expected: &Expected, asked: &str, answer: &Answer, got: &[Received]) -> Vec<String> {
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
