//! Turns what happens in the world into the lines of a trace.

use std::collections::BTreeMap;

use shardgate_peering_core::{Entry, Input, Message, Output, PeerId, StickKey};

use super::command::Detail;
use super::render::{Render, seconds};

/// What a node does because of one input.
#[derive(Debug)]
struct Happening {
    at_ms: u64,
    node: PeerId,
    /// `None` for a timer or a measured round trip.
    cause: Option<String>,
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
    Other(String),
}

/// The lines of a block under way.
#[derive(Debug)]
pub struct Trace {
    /// How things are called.
    pub render: Render,
    detail: Detail,
    lines: Vec<String>,
    now: Option<Happening>,
    heartbeats: u64,
    acks: u64,
    /// What each node last said of its readiness to each other: a heartbeat that repeats it is no news.
    said_ready: BTreeMap<(PeerId, PeerId), bool>,
    /// Messages by kind and other things that happened in the second that began then.
    second: (u64, BTreeMap<&'static str, u64>),
}

impl Trace {
    /// An empty one.
    #[must_use]
    pub fn new(render: Render) -> Self {
        Self {
            render,
            detail: Detail::Events,
            lines: Vec::new(),
            now: None,
            heartbeats: 0,
            acks: 0,
            said_ready: BTreeMap::new(),
            second: (0, BTreeMap::new()),
        }
    }

    /// Shows more or less from now on.
    pub fn show(&mut self, at_ms: u64, detail: Detail) {
        self.finish();
        self.detail = detail;
        self.second = (at_ms, BTreeMap::new());
    }

    /// A line of its own.
    pub fn line(&mut self, line: String) {
        self.finish();
        self.lines.push(line);
    }

    /// Ends a block: its lines.
    pub fn take(&mut self) -> Vec<String> {
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
    pub fn input(&mut self, at_ms: u64, node: &PeerId, input: &Input) {
        self.finish();
        match self.detail {
            Detail::Nothing => return,
            Detail::Seconds => {
                self.count_input(at_ms, input);
                return;
            }
            Detail::Events | Detail::Acks => {}
        }
        let folds = match input {
            Input::Received { message: Message::Heartbeat { .. }, .. } => Some(Folded::Heartbeat),
            Input::Received { message: Message::Ack { .. }, .. } if self.detail == Detail::Events => {
                Some(Folded::Ack)
            }
            _ => None,
        };
        let cause = self.render.input(input);
        self.now = Some(Happening { at_ms, node: node.clone(), cause, folds, effects: Vec::new() });
    }

    /// It does something; `entry` is what its table holds now of the key concerned.
    pub fn output(&mut self, at_ms: u64, node: &PeerId, output: &Output, entry: Option<&Entry>) {
        match self.detail {
            Detail::Nothing => return,
            Detail::Seconds => {
                self.count_output(at_ms, output, entry);
                return;
            }
            Detail::Events | Detail::Acks => {}
        }
        let Some(effect) = self.effect(node, output, entry) else { return };
        if let Some(now) = &mut self.now {
            now.effects.push(effect);
        }
    }

    fn effect(&mut self, node: &PeerId, output: &Output, entry: Option<&Entry>) -> Option<Effect> {
        Some(Effect::Other(match output {
            Output::Send { peer, message } => {
                let news = match message {
                    Message::Heartbeat { ready } => {
                        let pair = (node.clone(), peer.clone());
                        self.said_ready.insert(pair, *ready) != Some(*ready)
                    }
                    Message::Hello(hello) => {
                        self.said_ready.insert((node.clone(), peer.clone()), hello.ready);
                        true
                    }
                    Message::Ack { .. } => self.detail == Detail::Acks,
                    _ => true,
                };
                if !news {
                    return None;
                }
                return Some(Effect::Send { peer: peer.clone(), text: self.render.message(message) });
            }
            Output::Disconnect { peer, violation } => format!("disconnects {peer}: {violation:?}"),
            Output::Changed { key, .. } => self.changed(key, entry),
            Output::Moved { key, to } => {
                format!("tunnels of {} here are not on {to}: told to move", self.render.key(key))
            }
            Output::Answered { token, claimed } => self.render.answer(*token, claimed),
            Output::Readiness(readiness) => self.render.readiness(readiness),
        }))
    }

    fn changed(&self, key: &StickKey, entry: Option<&Entry>) -> String {
        let key = self.render.key(key);
        entry.map_or_else(|| format!("{key} is dropped"), |entry| format!("{key} is {}", self.render.entry(entry)))
    }

    /// The input under way has had all its effects.
    fn finish(&mut self) {
        let Some(Happening { at_ms, node, cause, folds, effects }) = self.now.take() else { return };
        if effects.is_empty() {
            match (folds, &cause) {
                (Some(Folded::Heartbeat), _) => return self.heartbeats += 1,
                (Some(Folded::Ack), _) => return self.acks += 1,
                (None, None) => return,
                (None, Some(_)) => {}
            }
        }
        let start = format!("{:>8} {node:<2} ", seconds(at_ms));
        self.lines.push(format!("{start}{}", cause.as_deref().unwrap_or("(timer)")));
        let indent = " ".repeat(start.len() + 2);
        let mut effects = effects.into_iter().peekable();
        while let Some(effect) = effects.next() {
            let text = match effect {
                Effect::Other(text) => text,
                Effect::Send { peer, text } => {
                    let mut peers = vec![peer];
                    while let Some(Effect::Send { peer, .. }) =
                        effects.next_if(|next| matches!(next, Effect::Send { text: other, .. } if *other == text))
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
        match input {
            Input::Claim { .. } => self.count(at_ms, "claims of clients"),
            Input::PeerLost { .. } => self.count(at_ms, "connections lost"),
            _ => {}
        }
    }

    fn count_output(&mut self, at_ms: u64, output: &Output, entry: Option<&Entry>) {
        match output {
            Output::Send { message, .. } => self.count(at_ms, message.kind()),
            Output::Changed { .. } if entry.is_none_or(Entry::is_tombstone) => {
                self.count(at_ms, "entries that went");
            }
            Output::Changed { .. } => self.count(at_ms, "entries that came"),
            Output::Disconnect { .. } => self.count(at_ms, "disconnects"),
            Output::Moved { .. } => self.count(at_ms, "keys told to move"),
            Output::Answered { .. } => self.count(at_ms, "answers"),
            Output::Readiness(_) => self.count(at_ms, "changes of readiness"),
        }
    }

    fn count(&mut self, at_ms: u64, what: &'static str) {
        self.pass_to(at_ms);
        *self.second.1.entry(what).or_default() += 1;
    }

    /// Time has come this far.
    pub fn pass_to(&mut self, at_ms: u64) {
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
