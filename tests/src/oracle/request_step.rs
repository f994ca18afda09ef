//! A request among the steps of a sequence: what is expected of it, seen from what other steps reached and what the table had before.

use std::collections::{BTreeMap, BTreeSet};
use std::io;

use super::ask::ask;
use super::expect::{Expected, Stored, as_recorded, skipped};
use super::ours;
use super::record::{DecidedBy, Lines, Outcome, Relation, Request, Vector};
use super::run::{Mode, judge};
use super::sequence::{Player, Token, Verdict};
use super::site::NodeAt;

impl Player<'_> {
    /// Asks, and judges whom it reached and what it wrote.
    pub(super) fn request(
        &mut self,
        n: u32,
        node: NodeAt,
        request: &Request,
        result: &Outcome,
        relation: Option<&Relation>,
    ) -> io::Result<Verdict> {
        let vector = Vector {
            id: format!("{} step {n}", self.sequence.id),
            variant: self.sequence.variant.clone(),
            request: request.clone(),
            result: result.clone(),
            rules: self.sequence.rules.clone(),
        };
        if let Some(reason) = skipped(&vector) {
            return Ok(Verdict::Skipped(reason));
        }
        let before = self.rows(node)?;
        let plan = self.site.plan_of(node);
        let live = plan.primaries(plan.live.as_deref().unwrap_or_default());
        let mut expected = as_recorded(&vector, &live, &plan.region);
        expected.servers = self.candidates(node, result)?;
        let recorded = one_line(result.x_stick_token.as_ref());
        if self.mode == Mode::Ours && result.status != 503 && reads_otherwise(&vector) {
            expected = ours::corrected(&vector, expected, &plan, &live, self.vectors);
        }
        let ours = token_of(&expected);
        self.tokens.insert(n, Token { recorded: recorded.clone(), ours: ours.clone() });
        match self.related(relation, &recorded, &ours) {
            Related::No => {}
            Related::Holds => self.restrict(&mut expected, relation)?,
            // Whoever serves such a request otherwise.
            Related::OtherToken if expected.servers.len() == plan.shards.len() => {
                let backend = result.backend.as_deref().unwrap_or_default();
                expected.servers = plan.primaries(backend);
            }
            Related::OtherToken => {}
            Related::CutKey => return Ok(Verdict::Skipped("mechanics: R29's 200 characters")),
            Related::ById => return Ok(Verdict::Skipped("mechanics: R40's ids")),
        }
        if self.mode == Mode::Ours {
            self.stays(&mut expected, &before, result, &ours, request);
        }
        if let Stored::Key(key) = &expected.stored {
            self.stored.insert(key.clone());
        }
        drop(self.shards.received());
        let answer = ask(self.site.frontend(node), request)?;
        let got = self.shards.received();
        let mut faults = judge(&expected, &request.target, &answer, &got);
        if let [received] = got.as_slice() {
            self.reached.insert(n, received.shard.clone());
        }
        let after = self.rows(node)?;
        let changed: BTreeSet<&String> =
            after.iter().filter(|(key, shard)| before.get(*key) != Some(shard)).map(|(key, _)| key).collect();
        let written = result.table_changed.as_deref();
        let wanted = match (self.mode, written) {
            (Mode::Compat, Some(written)) => written.iter().filter_map(|key| self.key(key)).collect(),
            (Mode::Compat, None) | (Mode::Ours, _) => match &expected.stored {
                Stored::Key(key)
                    if !before.contains_key(key) || written.is_some_and(|written| !written.is_empty()) =>
                {
                    BTreeSet::from([key.clone()])
                }
                Stored::Key(_) | Stored::Nothing => BTreeSet::new(),
            },
        };
        // R40: what a join adds to an entry that names an id is HAProxy's affair.
        let wanted: BTreeSet<&String> = wanted.iter().filter(|key| !self.set_by_id.contains(key)).collect();
        let changed: BTreeSet<&String> =
            changed.into_iter().filter(|key| !self.set_by_id.contains(key)).collect();
        if changed != wanted {
            faults.push(format!("the table changed at {changed:?}, expected {wanted:?}"));
        }
        Ok(Verdict::Judged(faults))
    }

    /// Who may serve, before relations are looked at.
    fn candidates(&self, node: NodeAt, result: &Outcome) -> io::Result<Vec<String>> {
        if result.decided_by != DecidedBy::Server {
            return Ok(Vec::new());
        }
        if let Some(server) = &result.server {
            return Ok(vec![server.clone()]);
        }
        let excepted: io::Result<Vec<&String>> =
            result.candidates_except_server_of_step.iter().map(|step| self.reached(*step)).collect();
        let excepted = excepted?;
        Ok(match &result.candidates {
            Some(candidates) => candidates.iter().filter(|name| !excepted.contains(name)).cloned().collect(),
            // By the entry: the relation says whose.
            None => self.site.plan_of(node).shards.into_iter().map(|shard| shard.name).collect(),
        })
    }

    fn restrict(&self, expected: &mut Expected, relation: Option<&Relation>) -> io::Result<()> {
        match relation {
            None => {}
            Some(Relation::SameAs(step)) => expected.servers = vec![self.reached(*step)?.clone()],
            Some(Relation::DiffersFrom(step)) => {
                let other = self.reached(*step)?;
                expected.servers.retain(|name| name != other);
            }
            Some(Relation::Is(short)) => expected.servers = vec![self.site.plan.shard(short)?],
            Some(Relation::In(shorts)) => {
                let names: io::Result<Vec<String>> =
                    shorts.iter().map(|short| self.site.plan.shard(short)).collect();
                expected.servers = names?;
            }
        }
        Ok(())
    }

    /// Whether what is said of another step, or of an entry, is said of us as well.
    fn related(&self, relation: Option<&Relation>, recorded: &str, ours: &str) -> Related {
        let by_id = self.set_by_id.iter().any(|key| key == ours) && self.reached_by_join(ours);
        match relation {
            Some(Relation::SameAs(_)) if by_id => Related::ById,
            // R14: HAProxy's empty key is one, ours is none.
            Some(Relation::SameAs(_) | Relation::DiffersFrom(_)) if recorded.is_empty() => {
                Related::OtherToken
            }
            Some(Relation::SameAs(step) | Relation::DiffersFrom(step)) => match self.tokens.get(step) {
                Some(other) if other.ours == ours => Related::Holds,
                Some(other) if other.recorded == recorded => Related::OtherToken,
                Some(other) if cut_alike(&other.recorded, recorded) => Related::CutKey,
                Some(_) | None => Related::Holds,
            },
            Some(Relation::Is(_) | Relation::In(_)) => Related::Holds,
            None => Related::No,
        }
    }

    /// Whether a request for this token came before its entry was set by an id.
    fn reached_by_join(&self, ours: &str) -> bool {
        self.tokens.iter().any(|(step, token)| token.ours == ours && self.reached.contains_key(step))
    }

    /// An existing conference stays where it is, whatever pin, `release=` or live release say: HAProxy leaves it for a shard that `release=`
    /// names (R18), and without a live release (R25).
    fn stays(
        &self,
        expected: &mut Expected,
        before: &BTreeMap<String, String>,
        result: &Outcome,
        ours: &str,
        request: &Request,
    ) {
        let Some(shard) = before.get(ours) else { return };
        let without_live = result.status == 503 && matches!(result.backend.as_deref(), None | Some("nodes"));
        let by_release = request.target.contains("release=") && result.backend.as_deref() != Some(shard);
        if without_live {
            let told: Vec<(&'static str, Vec<String>)> = Vec::new();
            *expected = Expected {
                status: 200,
                servers: vec![shard.clone()],
                told,
                to_client: Vec::new(),
                ..expected.clone()
            };
        } else if by_release && expected.status == 200 {
            expected.servers = vec![shard.clone()];
        }
    }
}

/// Whether a relation of the recording can be expected here.
enum Related {
    /// There is none.
    No,
    Holds,
    /// The recording's one conference is two here.
    OtherToken,
    /// It is about keys that HAProxy cuts.
    CutKey,
    /// It is about an entry with an address and an id.
    ById,
}

/// Whether we may read a request otherwise than HAProxy: by a rule of its sequence, or by what stands in its target (R10, R13).
fn reads_otherwise(vector: &Vector) -> bool {
    let path = vector.request.target.split('?').next().unwrap_or_default();
    ours::may_differ(vector) || vector.request.target.contains(',') || path.len() > 1 && path.ends_with('/')
}

/// Whether HAProxy has one key for both.
fn cut_alike(a: &str, b: &str) -> bool {
    a.chars().take(200).eq(b.chars().take(200))
}

fn token_of(expected: &Expected) -> String {
    let told = expected.told.iter().find(|(name, _)| *name == "x-sticktoken");
    told.and_then(|(_, lines)| lines.first().cloned()).unwrap_or_default()
}

fn one_line(lines: Option<&Lines>) -> String {
    match lines {
        None => String::new(),
        Some(Lines::One(line)) => line.clone(),
        Some(Lines::Many(lines)) => lines.last().cloned().unwrap_or_default(),
    }
}
