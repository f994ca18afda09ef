//! Plays sequences: each on freshly started nodes, some at once, since most of their time is waiting.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::io;
use std::sync::{Mutex, PoisonError};
use std::thread;

use super::agents::Agents;
use super::ground::Ground;
use super::plan::Plan;
use super::record::{Environment, Sequence, Step, Variant, Vector, What};
use super::run::{EXPIRE, Mode, Report};
use super::site::{AsksAgents, NodeAt, Programs, Row, Settings, Shards, Site};

/// How many are played at once, each in a slot of its own; slot 0 is the vectors'.
const AT_ONCE: u8 = 6;
/// HAProxy's, as recorded.
const EXPIRE_RECORDED: &str = "5m";

/// What all sequences need.
#[derive(Clone, Copy)]
pub(super) struct Play<'a> {
    pub(super) environments: &'a BTreeMap<Variant, Environment>,
    pub(super) vectors: &'a [Vector],
    pub(super) programs: &'a Programs,
    pub(super) mode: Mode,
}

/// What came of a step.
pub(super) enum Verdict {
    /// Nothing is asserted by it.
    Done,
    /// What differs, one line each; nothing when all is as expected.
    Judged(Vec<String>),
    /// Not asserted, by rule.
    Skipped(&'static str),
}

impl Play<'_> {
    /// Plays them all; the text tells the failures.
    pub(super) fn all(&self, sequences: &[&Sequence]) -> io::Result<(Report, String)> {
        let waiting: Mutex<VecDeque<&Sequence>> = Mutex::new(sequences.iter().copied().collect());
        let next = || waiting.lock().unwrap_or_else(PoisonError::into_inner).pop_front();
        let slot = |number: u8| -> io::Result<(Report, String)> {
            let ground = Ground::new(number).ok_or_else(|| io::Error::other("no slot"))?;
            let main = Plan::of(self.environments, "main")?;
            let mut shards = Shards::start(ground, std::iter::once(&main))?;
            let (mut report, mut told) = (Report::default(), String::new());
            while let Some(sequence) = next() {
                shards.reset()?;
                let (one, text) = self
                    .one(sequence, ground, &mut shards)
                    .map_err(|error| io::Error::other(format!("{}: {error}", sequence.id)))?;
                report.add(one);
                told.push_str(&text);
            }
            Ok((report, told))
        };
        thread::scope(|scope| {
            let slots: Vec<_> = (1..=AT_ONCE).map(|number| scope.spawn(move || slot(number))).collect();
            let (mut report, mut told) = (Report::default(), String::new());
            for slot in slots {
                let (of_slot, text) = slot.join().map_err(|_| io::Error::other("a slot panicked"))??;
                report.add(of_slot);
                told.push_str(&text);
            }
            Ok((report, told))
        })
    }

    fn one(&self, sequence: &Sequence, ground: Ground, shards: &mut Shards) -> io::Result<(Report, String)> {
        let (mut report, mut told) = (Report::default(), String::new());
        let Some(plans) = self.plans(&sequence.variant)? else {
            let reason = format!("variant {}: not Jitsi's setting", sequence.variant);
            sequence.steps.iter().filter(|step| step.asserts()).for_each(|_| report.skip(&reason));
            return Ok((report, told));
        };
        let starts_late = sequence.steps.iter().any(|step| matches!(step.what, What::Start));
        let clears = sequence
            .steps
            .iter()
            .any(|step| matches!(step.what, What::ClearTable | What::StickElsewhere { .. }));
        // Two seconds are too short for a busy machine: five times that, and five times the sleeps.
        let (expire, pace) = match sequence.variant.as_str() {
            "expire2s" => ("10s", 5.0),
            _ if clears => (EXPIRE, 1.0),
            _ => (EXPIRE_RECORDED, 1.0),
        };
        let agents = match sequence.variant.as_str() {
            "agent" => plans.first().map(|plan| Agents::start(ground, plan)).transpose()?,
            _ => None,
        };
        let asks = if agents.is_some() { AsksAgents::Yes } else { AsksAgents::No };
        let settings = Settings { compat: self.mode.compat(), expire, asks };
        let mut site = Site::new(self.programs, ground, &plans)?;
        for _ in 0..if starts_late { 1 } else { plans.len() } {
            site.start(settings)?;
        }
        let mut player = Player {
            site,
            shards,
            agents,
            commanded: BTreeSet::new(),
            settings,
            pace,
            mode: self.mode,
            vectors: self.vectors,
            sequence,
            reached: BTreeMap::new(),
            tokens: BTreeMap::new(),
            set_by_id: Vec::new(),
            stored: BTreeSet::new(),
        };
        for step in &sequence.steps {
            match player.step(step)? {
                Verdict::Done => {}
                Verdict::Skipped(reason) => report.skip(reason),
                Verdict::Judged(faults) if faults.is_empty() => report.passed += 1,
                Verdict::Judged(faults) => {
                    report.failed += 1;
                    told.push_str(&format!("FAILED: {} step {} {:?}\n", sequence.id, step.n, sequence.rules));
                    for fault in faults {
                        told.push_str(&format!("    {fault}\n"));
                    }
                }
            }
        }
        Ok((report, told))
    }

    /// One for each node; `None` for a variant that is not played.
    fn plans(&self, variant: &str) -> io::Result<Option<Vec<Plan>>> {
        let of = |name: &str| Plan::of(self.environments, name);
        let parts = self.environments.keys().filter(|name| name.starts_with(&format!("{variant}/")));
        let parts: io::Result<Vec<Plan>> = parts.map(|name| of(name)).collect();
        Ok(match (variant, parts?) {
            ("allbackups", _) => None,
            ("peers-same-region", _) => Some(vec![of(variant)?, of(variant)?]),
            // The recordings speak of the first region when they name none.
            (_, mut several) if !several.is_empty() => {
                let first = of("main")?.region;
                several.sort_by_key(|plan| plan.region != first);
                Some(several)
            }
            (_, _) => Some(vec![of(variant)?]),
        })
    }
}

impl Step {
    /// Whether anything normative is in it.
    pub(super) const fn asserts(&self) -> bool {
        !matches!(
            self.what,
            What::Agent { .. }
                | What::Sleep { .. }
                | What::ServerState { .. }
                | What::Weight { .. }
                | What::Map { .. }
                | What::Close { .. }
                | What::Open { .. }
                | What::Start
        )
    }
}

/// What a token is called: in the recording, and here.
#[derive(Debug, Clone)]
pub(super) struct Token {
    pub(super) recorded: String,
    pub(super) ours: String,
}

/// A sequence that is played.
pub(super) struct Player<'a> {
    pub(super) site: Site,
    pub(super) shards: &'a mut Shards,
    /// The shards' agents, where they are asked.
    pub(super) agents: Option<Agents>,
    /// Shards that operators put into maint on the node, as HAProxy's operators do on its socket.
    pub(super) commanded: BTreeSet<String>,
    pub(super) settings: Settings<'a>,
    /// How much slower time goes than in the recording.
    pub(super) pace: f64,
    pub(super) mode: Mode,
    pub(super) vectors: &'a [Vector],
    pub(super) sequence: &'a Sequence,
    /// Who was reached, by step.
    pub(super) reached: BTreeMap<u32, String>,
    /// The token of a step's request.
    pub(super) tokens: BTreeMap<u32, Token>,
    /// Keys that `set table .. data.server_id` named.
    pub(super) set_by_id: Vec<String>,
    /// Keys that steps are expected to have stored, when requests are read our way.
    pub(super) stored: BTreeSet<String>,
}

impl Player<'_> {
    /// Who a step reached.
    pub(super) fn reached(&self, step: u32) -> io::Result<&String> {
        self.reached.get(&step).ok_or_else(|| io::Error::other(format!("step {step} reached nobody")))
    }

    /// What a key of the recording is called here: the token of the step that it came from. `None` for the empty key, which is none (R14).
    pub(super) fn key(&self, recorded: &str) -> Option<String> {
        let cut = |token: &str| token.chars().take(200).collect::<String>();
        let from = self.tokens.values().find(|token| cut(&token.recorded) == recorded);
        let key = from.map_or(recorded, |token| &token.ours);
        (!key.is_empty()).then(|| key.to_owned())
    }

    /// The table as recordings tell it.
    pub(super) fn rows(&self, node: NodeAt) -> io::Result<BTreeMap<String, String>> {
        let rows = self.site.table(node)?;
        Ok(rows.into_iter().filter_map(|Row { key, shard, .. }| Some((key, shard?))).collect())
    }
}
