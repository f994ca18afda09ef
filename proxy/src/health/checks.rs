//! All checks as one pure state machine: when to ask whom, and what follows from the answers. The thread around it asks.

use super::agent::Said;
use super::counter::Counter;
use super::target::Target;
use super::{AgentReport, At, CheckReport, Health, Reach, ServerReport};
use crate::clock::to_millis;
use crate::config::OnError;
use server::{Agent, Before, Cut, Server};
use shardgate_peering_core::{ShardName, hash64};
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

mod server;

/// What is asked of a server.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Kind {
    /// Its check.
    Check,
    /// Its agent.
    Agent,
    /// Whether it is reached again, while the way to it is cut.
    Way,
    /// Nothing: its weight grows by a step.
    Ramp,
}

/// A question that is due. Its answer is void when the server was taken from the list meanwhile.
#[derive(Debug, Clone)]
pub(super) struct Question {
    pub(super) name: ShardName,
    pub(super) kind: Kind,
    pub(super) target: Target,
    serial: u64,
}

/// What came of a check.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Checked {
    pub(super) passed: Passed,
    pub(super) came: Came,
    /// For people.
    pub(super) what: String,
    pub(super) took: Duration,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Passed {
    Yes,
    No,
}

/// How far a check came.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Came {
    /// To no connection.
    Nowhere,
    /// To a connection, and not to the end of an answer in its time.
    ToConnection,
    /// To an answer, good or bad.
    ToAnswer,
}

/// Something that is worth a line in the log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum News {
    Down { name: ShardName, why: String },
    Up { name: ShardName, why: String },
    Cut { name: ShardName },
    Reached { name: ShardName },
    Agent { name: ShardName, says: String },
    AgentSilent { name: ShardName, why: String },
}

/// What is to be done when; each server knows its own entries.
type Due = BTreeSet<(At, ShardName, Kind)>;

/// Plans a question, in the place of the one of its kind that was planned.
fn plan(due: &mut Due, name: &ShardName, server: &mut Server, kind: Kind, at: At) {
    unplan(due, name, server, kind);
    server.planned.insert(kind, at);
    due.insert((at, name.clone(), kind));
}

fn unplan(due: &mut Due, name: &ShardName, server: &mut Server, kind: Kind) {
    if let Some(at) = server.planned.remove(&kind) {
        due.remove(&(at, name.clone(), kind));
    }
}

/// All servers.
#[derive(Debug, Default)]
pub(super) struct Checks {
    servers: BTreeMap<ShardName, Server>,
    due: Due,
    serials: u64,
    /// Makes first checks differ from node to node.
    seed: u64,
    news: Vec<News>,
    begun: Begun,
    changed: bool,
}

/// From one question whether the way to a server is back to the next.
const WAY_PAUSE_MS: At = 1_000;

/// Whether servers have been listed before: those of the first list do not ramp up.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
enum Begun {
    #[default]
    No,
    Yes,
}

impl Checks {
    pub(super) fn new(seed: u64) -> Self {
        Self { seed, ..Self::default() }
    }

    /// The servers that are listed now: those that stay keep what is known of them.
    pub(super) fn list(&mut self, now: At, mut targets: BTreeMap<ShardName, Target>) {
        let gone: Vec<ShardName> =
            self.servers.keys().filter(|name| !targets.contains_key(*name)).cloned().collect();
        for name in gone {
            for (kind, at) in self.servers.remove(&name).into_iter().flat_map(|server| server.planned) {
                self.due.remove(&(at, name.clone(), kind));
            }
        }
        for (name, server) in &mut self.servers {
            let Some(target) = targets.remove(name) else { continue };
            let took_new = server.takes_new();
            server.change(target);
            Self::begin_ramp(&mut self.due, now, name, server, took_new);
        }
        for (name, target) in targets {
            self.serials += 1;
            let mut server = Server {
                serial: self.serials,
                counter: None,
                last: None,
                passed: 0,
                failed: 0,
                agent: Agent::default(),
                cut: None,
                ramping_since: None,
                since: now,
                downs: 0,
                planned: BTreeMap::new(),
                asked: BTreeSet::new(),
                target: target.clone(),
            };
            server.change(target);
            if self.begun == Begun::Yes {
                Self::begin_ramp(&mut self.due, now, &name, &mut server, false);
            }
            self.servers.insert(name, server);
        }
        self.begun = Begun::Yes;
        self.changed = true;
        self.plan_first(now);
    }

    /// Those that are to be asked and have no time for it get one: somewhere within their pause, so that checks do not come all at once.
    fn plan_first(&mut self, now: At) {
        for (name, server) in &mut self.servers {
            for kind in [Kind::Check, Kind::Agent] {
                let config = server.config();
                let pause = match kind {
                    Kind::Check if server.counter.is_some() => Some(config.inter),
                    Kind::Agent if server.target.agent.is_some() => Some(config.agent_inter),
                    Kind::Check | Kind::Agent | Kind::Way | Kind::Ramp => None,
                };
                match pause {
                    None => unplan(&mut self.due, name, server, kind),
                    Some(_) if server.planned.contains_key(&kind) || server.asked.contains(&kind) => {}
                    Some(pause) => {
                        let pause = to_millis(pause).max(1);
                        let first = hash64(name.as_str().as_bytes(), self.seed ^ kind as u64) % pause;
                        plan(&mut self.due, name, server, kind, now + first);
                    }
                }
            }
        }
    }

    /// When the next question is due.
    pub(super) fn next(&self) -> Option<At> {
        self.due.first().map(|(at, _, _)| *at)
    }

    /// A question that is due at `now`; `None` when there is no more.
    pub(super) fn poll(&mut self, now: At) -> Option<Question> {
        while self.due.first().is_some_and(|(at, _, _)| *at <= now) {
            let (_, name, kind) = self.due.pop_first()?;
            let Some(server) = self.servers.get_mut(&name) else { continue };
            server.planned.remove(&kind);
            if kind == Kind::Ramp {
                self.changed = true;
                Self::plan_ramp(&mut self.due, now, &name, server);
                continue;
            }
            server.asked.insert(kind);
            let (target, serial) = (server.target.clone(), server.serial);
            return Some(Question { name, kind, target, serial });
        }
        None
    }

    fn asked<'a>(
        servers: &'a mut BTreeMap<ShardName, Server>,
        question: &Question,
    ) -> Option<&'a mut Server> {
        let server = servers.get_mut(&question.name)?;
        (server.serial == question.serial && server.asked.remove(&question.kind)).then_some(server)
    }

    /// A check has ended. The next one begins one pause after this one did.
    pub(super) fn checked(&mut self, now: At, question: &Question, checked: Checked) {
        let Some(server) = Self::asked(&mut self.servers, question) else { return };
        let before = server.before(now);
        match (checked.passed, &mut server.counter) {
            (_, None) => return,
            (Passed::Yes, Some(counter)) => {
                counter.passed();
                server.passed += 1;
            }
            (Passed::No, Some(counter)) => {
                counter.failed();
                server.failed += 1;
            }
        }
        let pause = server.pause_ms();
        let next = (now + pause.saturating_sub(to_millis(checked.took))).max(now + 1);
        let why = checked.what.clone();
        server.last = Some(checked);
        plan(&mut self.due, &question.name, server, Kind::Check, next);
        self.turned(now, &question.name, before, why);
    }

    /// A home says that others reach a server which this node did not reach: it is down here, and asked each second whether it is reached.
    pub(super) fn cut(&mut self, now: At, name: &ShardName) {
        let Some(server) = self.servers.get_mut(name) else { return };
        let before = server.before(now);
        match &mut server.cut {
            Some(cut) => cut.confirmed = now,
            None => {
                server.cut = Some(Cut { since: now, confirmed: now });
                self.news.push(News::Cut { name: name.clone() });
                plan(&mut self.due, name, server, Kind::Way, now + WAY_PAUSE_MS);
            }
        }
        self.turned(now, name, before, "the way to it is cut".to_owned());
    }

    /// It was asked whether it is reached again. One that takes connections and no more is its checks' affair, unless homes go on saying that
    /// it is well for others: what is between lets connections through, and nothing else.
    pub(super) fn way(&mut self, now: At, question: &Question, checked: &Checked) {
        let Some(server) = Self::asked(&mut self.servers, question) else { return };
        let Some(cut) = server.cut else { return };
        // What was confirmed then may not be any more.
        let before = server.before(now.saturating_sub(WAY_PAUSE_MS));
        let is_back = match (checked.passed, checked.came) {
            (Passed::Yes, _) => true,
            (Passed::No, Came::Nowhere) => false,
            (Passed::No, Came::ToConnection | Came::ToAnswer) => !cut.is_confirmed(now),
        };
        if !is_back {
            plan(&mut self.due, &question.name, server, Kind::Way, now + WAY_PAUSE_MS);
            self.changed |= before != server.before(now);
            return;
        }
        server.cut = None;
        // What its checks held against it was the way.
        if let (Passed::Yes, Some(counter)) = (checked.passed, &mut server.counter) {
            counter.set_up();
        }
        self.news.push(News::Reached { name: question.name.clone() });
        self.turned(now, &question.name, before, "the way to it is back".to_owned());
    }

    /// An agent has answered, or has not.
    pub(super) fn heard(&mut self, now: At, question: &Question, answer: Result<Said, String>) {
        let Some(server) = Self::asked(&mut self.servers, question) else { return };
        let before = server.before(now);
        let pause = to_millis(server.config().agent_inter).max(1);
        plan(&mut self.due, &question.name, server, Kind::Agent, now + pause);
        match answer {
            Err(why) => {
                // As in HAProxy, it changes nothing that an agent says nothing.
                if server.agent.error.as_ref() != Some(&why) {
                    self.news.push(News::AgentSilent { name: question.name.clone(), why: why.clone() });
                }
                server.agent.error = Some(why);
            }
            Ok(said) => {
                let Agent { operating, state, percent, connections_max, .. } = server.agent;
                let stood = (operating, state, percent, connections_max);
                server.hear(now, &said);
                let says = server.says(&said);
                let Agent { operating, state, percent, connections_max, .. } = server.agent;
                // A comment that changes each time is no news.
                if stood != (operating, state, percent, connections_max) {
                    self.news.push(News::Agent { name: question.name.clone(), says: says.clone() });
                }
                server.agent.says = says;
                self.turned(now, &question.name, before, "its agent says so".to_owned());
            }
        }
    }

    /// Enough of a worker's requests in a row failed at a server.
    pub(super) fn observed(&mut self, now: At, name: &ShardName) {
        let Some(server) = self.servers.get_mut(name) else { return };
        let before = server.before(now);
        let on_error = server.config().on_error;
        let fast = now + to_millis(server.config().fastinter).max(1);
        let Some(counter) = &mut server.counter else { return };
        match on_error {
            OnError::Fastinter => {}
            OnError::FailCheck => counter.failed(),
            OnError::SuddenDeath => counter.weaken(),
            OnError::MarkDown => counter.set_down(),
        }
        if server.planned.get(&Kind::Check).is_some_and(|at| *at > fast) {
            plan(&mut self.due, name, server, Kind::Check, fast);
        }
        self.turned(now, name, before, "too many requests failed".to_owned());
    }

    /// What follows when a server may have gone up or down.
    fn turned(&mut self, now: At, name: &ShardName, before: Before, why: String) {
        let Some(server) = self.servers.get_mut(name) else { return };
        self.changed |= before != server.before(now);
        match (before.standing.reach, server.reach(now)) {
            (Reach::Up, Reach::Down | Reach::Cut) => {
                server.since = now;
                server.downs += 1;
                self.news.push(News::Down { name: name.clone(), why });
            }
            (Reach::Down | Reach::Cut, Reach::Up) => {
                server.since = now;
                self.news.push(News::Up { name: name.clone(), why });
            }
            (Reach::Up, Reach::Up) | (Reach::Down | Reach::Cut, Reach::Down | Reach::Cut) => {}
        }
        Self::begin_ramp(&mut self.due, now, name, server, before.took_new);
    }

    fn begin_ramp(due: &mut Due, now: At, name: &ShardName, server: &mut Server, took_new: bool) {
        match (took_new, server.takes_new()) {
            (false, true) => {
                server.ramping_since = Some(now);
                Self::plan_ramp(due, now, name, server);
            }
            (true, false) => {
                server.ramping_since = None;
                unplan(due, name, server, Kind::Ramp);
            }
            (true, true) | (false, false) => {}
        }
    }

    fn plan_ramp(due: &mut Due, now: At, name: &ShardName, server: &mut Server) {
        let Some(since) = server.ramping_since else { return };
        match server.ramp().at(now.saturating_sub(since)).1 {
            Some(next) => plan(due, name, server, Kind::Ramp, since + next),
            None => server.ramping_since = None,
        }
    }

    /// What is worth telling since the last call.
    pub(super) fn take_news(&mut self) -> Vec<News> {
        std::mem::take(&mut self.news)
    }

    /// Whether [`Self::health`] may say something else than at the last call of this.
    pub(super) fn take_changed(&mut self) -> bool {
        std::mem::take(&mut self.changed)
    }

    /// What to go by at `now`.
    pub(super) fn health(&self, now: At) -> Health {
        self.servers.iter().map(|(name, server)| (name.clone(), server.standing(now))).collect()
    }

    /// Whether a server is reached from here, after a probe in the short time that a home has. A bad answer is its checks' affair, which may want
    /// several before they call it down; so is one that takes its time, if it always does.
    pub(super) fn is_reached(&self, name: &ShardName, probe: &Checked) -> bool {
        let Some(server) = self.servers.get(name) else { return false };
        let up = server.counter.as_ref().is_none_or(Counter::is_up);
        let is_slow = |last: &Checked| last.passed == Passed::Yes && last.took >= probe.took / 2;
        match (probe.passed, probe.came) {
            (Passed::Yes, _) => true,
            (Passed::No, Came::Nowhere) => false,
            (Passed::No, Came::ToConnection) => up && server.last.as_ref().is_some_and(is_slow),
            (Passed::No, Came::ToAnswer) => up && server.counter.is_some(),
        }
    }

    /// How a server is asked.
    pub(super) fn target(&self, name: &ShardName) -> Option<&Target> {
        self.servers.get(name).map(|server| &server.target)
    }

    /// Everything, for people.
    pub(super) fn report(&self, now: At) -> Vec<ServerReport> {
        let since = |at: At| Duration::from_millis(now.saturating_sub(at));
        let report = |(name, server): (&ShardName, &Server)| ServerReport {
            name: name.clone(),
            standing: server.standing(now),
            check: server.counter.map(|counter| CheckReport {
                phase: counter.phase(),
                last: server.last.as_ref().map_or_else(String::new, |last| last.what.clone()),
                took: server.last.as_ref().map_or(Duration::ZERO, |last| last.took),
                passed: server.passed,
                failed: server.failed,
            }),
            agent: server.target.agent.map(|_| AgentReport {
                says: server.agent.says.clone(),
                heard: server.agent.heard.map(since),
                error: server.agent.error.clone(),
            }),
            since: since(server.since),
            downs: server.downs,
            cut: server.cut.map(|cut| since(cut.since)),
        };
        self.servers.iter().map(report).collect()
    }
}

#[cfg(test)]
mod tests;
