//! Turns what happens in the world into the lines of a trace.

use std::collections::{BTreeMap, BTreeSet};

use shardgate_peering_core::{Entry, Input, Message, Output, PeerId, StickKey, TimeoutReason};

use super::command::Detail;
use super::render::{Render, seconds};

/// Changed entries shown of one input; of more only their number.
const CHANGES_SHOWN: usize = 4;

/// What a node does because of one input.
#[derive(Debug)]
struct Happening {
    at_ms: u64,
    node: PeerId,
    /// `None` for a measured round trip.
    cause: Option<String>,
    /// Nothing from outside: no line if nothing comes of it.
    timer: bool,
    /// A heartbeat or an ack, counted if nothing comes of it.
    folds: Option<Folded>,
    effects: Vec<Effect>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Folded {
    Heartbeat,
    Ack,
}

#[derive(Debug)]
enum Effect {
    Send { peer: PeerId, text: String },
    Changed(String),
    Other(String),
}

/// The lines of a block under way.
#[derive(Debug)]
pub(super) struct Trace {
    /// How things are called.
    pub(super) render: Render,
    detail: Detail,
    /// Only these nodes are shown; all when there is none.
    only: Vec<PeerId>,
    lines: Vec<String>,
    now: Option<Happening>,
    heartbeats: u64,
    acks: u64,
    /// What each node last said of its readiness to each other: a heartbeat that repeats it is no news.
    said_ready: BTreeMap<(PeerId, PeerId), bool>,
    /// The second cannot be reached by the first, and the trace said so.
    unreachable: BTreeSet<(PeerId, PeerId)>,
    /// Messages by kind and other things that happened in the second that began then.
    second: (u64, BTreeMap<&'static str, u64>),
}

impl Trace {
    /// An empty one.
    #[must_use]
    pub(super) fn new(render: Render) -> Self {
        Self {
            render,
            detail: Detail::Events,
            only: Vec::new(),
            lines: Vec::new(),
            now: None,
            heartbeats: 0,
            acks: 0,
            said_ready: BTreeMap::new(),
            unreachable: BTreeSet::new(),
            second: (0, BTreeMap::new()),
        }
    }

    /// Shows more or less from now on.
    pub(super) fn show(&mut self, at_ms: u64, detail: Detail, at: Vec<PeerId>) {
        self.finish();
        self.only = at;
        self.detail = detail;
        self.second = (at_ms, BTreeMap::new());
    }

    /// A line of its own.
    pub(super) fn line(&mut self, line: String) {
        self.finish();
        self.lines.push(line);
    }

    /// A line of its own, if single events are shown.
    pub(super) fn event(&mut self, line: String) {
        if self.detail != Detail::Nothing {
            self.line(line);
        }
    }

    /// Ends a block: its lines.
    pub(super) fn take(&mut self) -> Vec<String> {
        self.finish();
        let mut quiet = Vec::new();
        for (number, name) in [(self.heartbeats, "heartbeat"), (self.acks, "ack")] {
            if number > 0 {
                quiet.push(format!("{number} {name}{}", if number == 1 { "" } else { "s" }));
            }
        }
        if !quiet.is_empty() {
            self.lines.push(format!("({})", quiet.join(", ")));
        }
        (self.heartbeats, self.acks) = (0, 0);
        std::mem::take(&mut self.lines)
    }

    /// A node gets an input.
    pub(super) fn input(&mut self, at_ms: u64, node: &PeerId, input: &Input, due: TimeoutReason) {
        self.finish();
        match self.detail {
            Detail::Nothing => return,
            Detail::Seconds => {
                self.count_input(at_ms, input);
                return;
            }
            Detail::Events | Detail::Acks => {}
        }
        if !self.only.is_empty() && !self.only.contains(node) {
            return;
        }
        let timer =
            matches!(input, Input::Timeout | Input::RoundTrip { .. }) || self.dialled_again(node, input);
        let folds = if let Input::Received { message, .. } = input { self.folds(message) } else { None };
        let cause = self.render.input(input, due);
        self.now = Some(Happening { at_ms, node: node.clone(), cause, timer, folds, effects: Vec::new() });
    }

    /// Whether another dial was in vain after one of which the trace told.
    fn dialled_again(&mut self, node: &PeerId, input: &Input) -> bool {
        if let Input::PeerConnected { peer } = input {
            self.unreachable.remove(&(node.clone(), peer.clone()));
        }
        if let Input::DialFailed { peer } = input {
            return !self.unreachable.insert((node.clone(), peer.clone()));
        }
        false
    }

    fn folds(&self, message: &Message) -> Option<Folded> {
        if matches!(message, Message::Heartbeat(_)) {
            Some(Folded::Heartbeat)
        } else if matches!(message, Message::Ack { .. }) && self.detail == Detail::Events {
            Some(Folded::Ack)
        } else {
            None
        }
    }

    /// It does something; `entry` is what its table holds now of the key concerned.
    pub(super) fn output(&mut self, at_ms: u64, node: &PeerId, output: &Output, entry: Option<&Entry>) {
        if let Output::Send { peer, message } = output
            && !self.is_news(node, peer, message)
            && self.detail != Detail::Seconds
        {
            return;
        }
        match self.detail {
            Detail::Nothing => return,
            Detail::Seconds => {
                self.count_output(at_ms, output);
                return;
            }
            Detail::Events | Detail::Acks => {}
        }
        let Some(effect) = self.effect(output, entry) else { return };
        if let Some(now) = &mut self.now {
            now.effects.push(effect);
        }
    }

    /// An entry was replaced by one on the same shard: nothing for the read view, but news here.
    pub(super) fn replaced(&mut self, key: &StickKey, entry: Option<&Entry>) {
        let text = self.changed(key, entry);
        if let Some(now) = &mut self.now {
            now.effects.insert(0, Effect::Changed(text));
        }
    }

    /// Whether single events are shown.
    pub(super) const fn shows_events(&self) -> bool {
        matches!(self.detail, Detail::Events | Detail::Acks)
    }

    fn effect(&self, output: &Output, entry: Option<&Entry>) -> Option<Effect> {
        Some(Effect::Other(match output {
            Output::Send { peer, message } => {
                return Some(Effect::Send { peer: peer.clone(), text: self.render.message(message) });
            }
            Output::Disconnect { peer, violation } => format!("disconnects {peer}: {violation:?}"),
            Output::Changed { key, shard: None } if entry.is_some_and(|entry| !entry.is_tombstone()) => {
                format!("{} has lapsed: asked about before it is used again", self.render.key(key))
            }
            Output::Changed { key, .. } => return Some(Effect::Changed(self.changed(key, entry))),
            // Told by what the view is told of.
            Output::Replaced { .. } => return None,
            Output::Emptied => "its table is emptied, it starts anew".to_owned(),
            Output::Moved { key, to } => {
                format!("tunnels of {} here are not on {to}: told to move", self.render.key(key))
            }
            Output::Verdict(verdict) => self.render.verdict(verdict),
            Output::PeopleMoved { key, peer } => {
                format!("hears that {peer}'s people of {} have moved", self.render.key(key))
            }
            Output::Disputed { key, .. } => {
                format!("tunnels of {} here wait for a verdict", self.render.key(key))
            }
            Output::Settled { key } => format!("{} is disputed no longer", self.render.key(key)),
            Output::Answered { token, claimed } => self.render.answer(*token, claimed),
            Output::Probe { shard, .. } => format!("probes {shard}"),
            Output::Readiness(readiness) => self.render.readiness(readiness),
        }))
    }

    /// Whether a message says more than the last one of its kind.
    fn is_news(&mut self, from: &PeerId, to: &PeerId, message: &Message) -> bool {
        let mut said = |ready| self.said_ready.insert((from.clone(), to.clone()), ready) != Some(ready);
        if let Message::Heartbeat(heartbeat) = message {
            said(heartbeat.ready)
        } else if let Message::Hello(hello) = message {
            said(hello.ready);
            true
        } else {
            self.detail == Detail::Acks || !matches!(message, Message::Ack { .. })
        }
    }

    fn changed(&self, key: &StickKey, entry: Option<&Entry>) -> String {
        let key = self.render.key(key);
        entry.map_or_else(
            || format!("{key} is forgotten"),
            |entry| {
                let verb = if entry.is_tombstone() { "has" } else { "is on" };
                format!("{key} {verb} {}", self.render.entry(entry))
            },
        )
    }

    /// The input under way has had all its effects.
    fn finish(&mut self) {
        let Some(Happening { at_ms, node, cause, timer, folds, effects }) = self.now.take() else { return };
        if effects.is_empty() {
            match folds {
                Some(Folded::Heartbeat) => return self.heartbeats += 1,
                Some(Folded::Ack) => return self.acks += 1,
                None if timer => return,
                None => {}
            }
        }
        let start = format!("{:>8} {node:<2} ", seconds(at_ms));
        self.lines.push(format!("{start}{}", cause.as_deref().unwrap_or_default()));
        let indent = " ".repeat(start.len() + 2);
        let changed = effects.iter().filter(|effect| matches!(effect, Effect::Changed(_))).count();
        if changed > CHANGES_SHOWN {
            self.lines.push(format!("{indent}{changed} rooms change"));
        }
        let mut effects = effects.into_iter().peekable();
        while let Some(effect) = effects.next() {
            let text = match effect {
                Effect::Changed(_) if changed > CHANGES_SHOWN => continue,
                Effect::Changed(text) | Effect::Other(text) => text,
                Effect::Send { peer, text } => {
                    let mut peers = vec![peer];
                    while let Some(Effect::Send { peer, .. }) = effects
                        .next_if(|next| matches!(next, Effect::Send { text: other, .. } if *other == text))
                    {
                        peers.push(peer);
                    }
                    format!("-> {}  {text}", super::render::names(&peers))
                }
            };
            self.lines.push(format!("{indent}{text}"));
        }
    }

    fn count_input(&mut self, at_ms: u64, input: &Input) {
        if matches!(input, Input::Claim { .. } | Input::Clear { .. }) {
            self.count(at_ms, "claims of clients");
        } else if matches!(input, Input::PeerLost { .. }) {
            self.count(at_ms, "connections lost");
        }
    }

    fn count_output(&mut self, at_ms: u64, output: &Output) {
        match output {
            Output::Send { message, .. } => self.count(at_ms, message.kind()),
            Output::Changed { shard: None, .. } => self.count(at_ms, "rooms out of view"),
            Output::Changed { .. } => self.count(at_ms, "rooms in view"),
            Output::Disconnect { .. } => self.count(at_ms, "disconnects"),
            Output::Replaced { .. } => {}
            Output::Emptied => self.count(at_ms, "tables emptied"),
            Output::Moved { .. } => self.count(at_ms, "keys told to move"),
            Output::Verdict(_) => self.count(at_ms, "verdicts"),
            Output::PeopleMoved { .. } => self.count(at_ms, "keys whose people have moved"),
            Output::Disputed { .. } => self.count(at_ms, "disputes"),
            Output::Settled { .. } => self.count(at_ms, "disputes over"),
            Output::Answered { .. } => self.count(at_ms, "answers"),
            Output::Probe { .. } => self.count(at_ms, "probes"),
            Output::Readiness(_) => self.count(at_ms, "changes of readiness"),
        }
    }

    fn count(&mut self, at_ms: u64, what: &'static str) {
        self.pass_to(at_ms);
        *self.second.1.entry(what).or_default() += 1;
    }

    /// Time has come this far.
    pub(super) fn pass_to(&mut self, at_ms: u64) {
        if self.detail != Detail::Seconds {
            return;
        }
        while at_ms >= self.second.0 + 1_000 {
            let (from, counts) = &mut self.second;
            let counts: Vec<String> =
                std::mem::take(counts).into_iter().map(|(what, number)| format!("{what} {number}")).collect();
            self.lines.push(format!("{:>8} {}", seconds(*from), counts.join(", ")));
            *from += 1_000;
        }
    }
}
