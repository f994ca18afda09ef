//! One server: what is known of it, and what follows.

use super::{Checked, Kind};
use crate::clock::to_millis;
use crate::config::{Check, HealthConfig, OnMarkedDown};
use crate::health::agent::{Operating, Said};
use crate::health::counter::Counter;
use crate::health::slow_start::Ramp;
use crate::health::target::Target;
use crate::health::{At, Phase, Reach, Sessions, Share, Standing};
use shardgate_discovery::ShardState;
use std::collections::{BTreeMap, BTreeSet};

/// How long it counts that a home said that others reach a server. While requests go by a peer a home is asked every 10 s.
const CONFIRMED_MS: At = 12_000;

#[derive(Debug)]
pub(super) struct Server {
    pub(super) serial: u64,
    pub(super) target: Target,
    /// `None` without a check.
    pub(super) counter: Option<Counter>,
    pub(super) last: Option<Checked>,
    pub(super) passed: u64,
    pub(super) failed: u64,
    pub(super) agent: Agent,
    pub(super) cut: Option<Cut>,
    /// When it began to take new requests, while its weight grows.
    pub(super) ramping_since: Option<At>,
    /// When it went up or down last.
    pub(super) since: At,
    pub(super) downs: u64,
    /// When it is to be asked what, as it stands in `due`; nothing while the question is under way.
    pub(super) planned: BTreeMap<Kind, At>,
    pub(super) asked: BTreeSet<Kind>,
}

/// How a server stood before something came to light.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Before {
    pub(super) standing: Standing,
    /// Whether it took new conferences.
    pub(super) took_new: bool,
}

/// A way that is cut.
#[derive(Debug, Clone, Copy)]
pub(super) struct Cut {
    pub(super) since: At,
    /// When a home said last that others reach the server.
    pub(super) confirmed: At,
}

impl Cut {
    pub(super) const fn is_confirmed(&self, now: At) -> bool {
        now.saturating_sub(self.confirmed) < CONFIRMED_MS
    }
}

#[derive(Debug, Default)]
pub(super) struct Agent {
    pub(super) operating: Option<Operating>,
    pub(super) state: Option<ShardState>,
    pub(super) percent: Option<u32>,
    pub(super) connections_max: Option<usize>,
    pub(super) says: String,
    pub(super) heard: Option<At>,
    pub(super) error: Option<String>,
}

impl Server {
    pub(super) fn config(&self) -> &HealthConfig {
        self.target.config()
    }

    pub(super) fn reach(&self, now: At) -> Reach {
        match (&self.cut, &self.counter) {
            (Some(cut), _) if cut.is_confirmed(now) => Reach::Cut,
            (Some(_), _) => Reach::Down,
            (None, Some(counter)) if !counter.is_up() => Reach::Down,
            (None, Some(_) | None) => Reach::Up,
        }
    }

    pub(super) fn is_reached(&self) -> bool {
        self.cut.is_none() && self.counter.as_ref().is_none_or(Counter::is_up)
    }

    pub(super) fn agent_state(&self) -> Option<ShardState> {
        match self.agent.operating {
            Some(Operating::Down) => Some(ShardState::Maint),
            Some(Operating::Up) | None => self.agent.state,
        }
    }

    pub(super) fn takes_new(&self) -> bool {
        let wanted = self.agent_state().unwrap_or(ShardState::Ready).max(self.target.wanted);
        self.is_reached() && wanted == ShardState::Ready
    }

    pub(super) fn ramp(&self) -> Ramp {
        Ramp { whole_ms: to_millis(self.config().slowstart), steps: self.config().slowstart_steps }
    }

    pub(super) fn share(&self, now: At) -> Share {
        let agent = self.agent.percent.map_or(Share::WHOLE, |percent| Share::of(u64::from(percent), 100));
        let ramp =
            self.ramping_since.map_or(Share::WHOLE, |since| self.ramp().at(now.saturating_sub(since)).0);
        agent.times(ramp)
    }

    pub(super) fn standing(&self, now: At) -> Standing {
        // That a way is cut ends nothing; that checks on it fail ends what goes by it. What goes by a peer is no worker's to end for this.
        let unwell = self.counter.as_ref().is_some_and(|counter| !counter.is_up());
        let down = unwell || self.agent.operating == Some(Operating::Down);
        let ends = self.config().on_marked_down == OnMarkedDown::ShutdownSessions;
        Standing {
            reach: self.reach(now),
            state: self.agent_state(),
            share: self.share(now),
            sessions: if down && ends { Sessions::Ended } else { Sessions::Kept },
            connections_max: self.agent.connections_max,
        }
    }

    pub(super) fn before(&self, now: At) -> Before {
        Before { standing: self.standing(now), took_new: self.takes_new() }
    }

    /// The pause until its next check begins.
    pub(super) fn pause_ms(&self) -> At {
        let config = self.config();
        let phase = self.counter.as_ref().map(Counter::phase);
        let pause = match phase {
            Some(Phase::Down) => config.downinter,
            Some(Phase::GoingUp { .. } | Phase::GoingDown { .. }) => config.fastinter,
            Some(Phase::Up) | None => config.inter,
        };
        to_millis(pause).max(1)
    }
}

impl Server {
    /// It is listed with other words, or is to be asked otherwise.
    pub(super) fn change(&mut self, target: Target) {
        let config = target.config();
        self.counter = match (config.check, self.counter) {
            (Check::Off, _) => None,
            (Check::Tcp | Check::Http, None) => Some(Counter::new(config.rise, config.fall)),
            (Check::Tcp | Check::Http, Some(mut counter)) => {
                counter.set_bounds(config.rise, config.fall);
                Some(counter)
            }
        };
        if target.agent.is_none() {
            self.agent = Agent::default();
        }
        self.target = target;
    }

    pub(super) fn hear(&mut self, now: At, said: &Said) {
        let Self { agent, counter, .. } = self;
        let was_down = agent.operating == Some(Operating::Down);
        agent.operating = said.operating.or(agent.operating);
        agent.state = said.state.or(agent.state);
        agent.percent = said.percent.or(agent.percent);
        agent.connections_max = said.connections_max.or(agent.connections_max);
        agent.heard = Some(now);
        agent.error = None;
        // Who says that it is up again need not prove it by checks as well. (In HAProxy every `up` says so, and checks that fail beside an
        // agent that goes on saying it count for nothing; here the strictest holds.)
        if was_down && let (Some(Operating::Up), Some(counter)) = (said.operating, counter) {
            counter.set_up();
        }
    }

    /// What an agent says, and stands by what it said before, in its own words.
    pub(super) fn says(&self, said: &Said) -> String {
        let operating = self.agent.operating.map(|operating| match operating {
            Operating::Up => "up".to_owned(),
            Operating::Down => "down".to_owned(),
        });
        let state = self.agent.state.map(|state| state.to_string());
        let percent = self.agent.percent.map(|percent| format!("{percent}%"));
        let most = self.agent.connections_max.map(|most| format!("maxconn:{most}"));
        let description = Some(&said.description).filter(|text| !text.is_empty());
        let unknown = said.unknown.as_ref().map(|word| format!("(unknown word {word:?})"));
        let words = [operating, state, percent, most, description.map(|text| format!("# {text}")), unknown];
        words.into_iter().flatten().collect::<Vec<_>>().join(" ")
    }
}
