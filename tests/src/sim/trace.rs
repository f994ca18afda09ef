//! A readable trace of a run: one short line per event. Nothing is formatted unless somebody asked for it.
#![expect(
    clippy::wildcard_enum_match_arm,
    reason = "a few kinds are told in their own way, all others by Debug"
)]

use std::collections::VecDeque;
use std::fmt::Write as _;

use shardgate_peering_core::{Input, Message, Output};

use super::fact::{each_in_input, each_in_message, is_dull};
use super::model::{Room, room_of};

/// What is to be traced.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wanted {
    /// Nothing.
    Nothing,
    /// Everything but heartbeats and acknowledgements.
    Full,
    /// What concerns one room, and what happens to nodes and connections.
    Room(Room),
}

/// Lines.
#[derive(Debug)]
pub struct Trace {
    wanted: Wanted,
    lines: VecDeque<String>,
    most: usize,
}

impl Trace {
    /// Keeps the last `most` lines of what is wanted.
    #[must_use]
    pub const fn new(wanted: Wanted, most: usize) -> Self {
        Self { wanted, lines: VecDeque::new(), most }
    }

    /// Whether anything is to be traced.
    #[must_use]
    pub const fn is_on(&self) -> bool {
        !matches!(self.wanted, Wanted::Nothing)
    }

    /// The lines.
    #[must_use]
    pub fn into_lines(self) -> Vec<String> {
        self.lines.into()
    }

    /// Something that concerns no single room.
    pub fn note(&mut self, now_ms: u64, text: impl FnOnce() -> String) {
        if self.is_on() {
            self.push(now_ms, &text());
        }
    }

    /// Something that concerns a room.
    pub fn note_room(&mut self, now_ms: u64, room: Room, text: impl FnOnce() -> String) {
        if self.wanted == Wanted::Full || self.wanted == Wanted::Room(room) {
            self.push(now_ms, &text());
        }
    }

    fn push(&mut self, now_ms: u64, text: &str) {
        if self.lines.len() >= self.most {
            self.lines.pop_front();
        }
        self.lines.push_back(format!("{:>9} {text}", Seconds(now_ms)));
    }

    fn wants_input(&self, input: &Input) -> bool {
        match self.wanted {
            Wanted::Nothing => false,
            Wanted::Full => !matches!(input, Input::Timeout | Input::RoundTrip { .. }),
            Wanted::Room(room) => {
                let mut found = matches!(
                    input,
                    Input::PeersChanged { .. }
                        | Input::PeerConnected { .. }
                        | Input::PeerLost { .. }
                        | Input::DialFailed { .. }
                );
                each_in_input(input, &mut |key, _| found |= room_of(key) == room);
                found
            }
        }
    }

    /// An input of a node.
    pub fn input(&mut self, now_ms: u64, node: &str, input: &Input) {
        if !self.wants_input(input) {
            return;
        }
        let text = match input {
            Input::Received { peer, message } => {
                let Some(told) = self.message(message) else { return };
                format!("{node} ← {peer} {told}")
            }
            other => format!("{node} in {other:?}"),
        };
        self.push(now_ms, &text);
    }

    /// An output of a node.
    pub fn output(&mut self, now_ms: u64, node: &str, output: &Output) {
        if !self.is_on() {
            return;
        }
        let text = match output {
            Output::Send { peer, message } => {
                let Some(told) = self.message(message) else { return };
                format!("{node} → {peer} {told}")
            }
            Output::Changed { key, .. } | Output::Replaced { key, .. } | Output::Moved { key, .. }
                if self.wanted != Wanted::Full && self.wanted != Wanted::Room(room_of(key)) =>
            {
                return;
            }
            Output::Answered { .. } if self.wanted != Wanted::Full => return,
            other => format!("{node} out {other:?}"),
        };
        self.push(now_ms, &text);
    }

    /// What of a message is wanted.
    fn message(&self, message: &Message) -> Option<String> {
        let dull = is_dull(message);
        let mut text = message.kind().to_owned();
        let mut found = !dull && self.wanted == Wanted::Full || matches!(message, Message::Hello(_));
        let wanted = self.wanted;
        let mut more = 0;
        each_in_message(message, &mut |key, entry| {
            let concerns = wanted == Wanted::Full || wanted == Wanted::Room(room_of(key));
            if !concerns {
                return;
            }
            found = true;
            more += 1;
            if more <= 8 {
                let _written = match entry {
                    Some(entry) => write!(text, " [{key} {entry:?}]"),
                    None => write!(text, " [{key}]"),
                };
            }
        });
        match message {
            Message::Claim(claim) if found => {
                let asks = (&claim.proposal, claim.reason, &claim.failed, &claim.tried, claim.hops);
                let _written = write!(text, " #{} {asks:?}", claim.id);
            }
            Message::ClaimAnswer(answer) if found => {
                let _written = write!(text, " #{} {:?}", answer.id, answer.result);
            }
            Message::Hello(hello) => {
                let _written = write!(text, " {hello:?}");
            }
            _ => {}
        }
        if more > 8 {
            let _written = write!(text, " and {} more", more - 8);
        }
        found.then_some(text)
    }
}

struct Seconds(u64);

impl std::fmt::Display for Seconds {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.pad(&format!("{}.{:03}", self.0 / 1_000, self.0 % 1_000))
    }
}
