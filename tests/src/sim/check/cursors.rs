//! Numbers of updates never fall: not on a connection, and what a node says it has applied of a peer's never at all.

use std::collections::HashMap;

use shardgate_peering_core::Message;

use crate::sim::observer::{Observer, name};
use crate::world::{Scene, Seat};

/// The last numbers, by sender and receiver.
#[derive(Debug)]
pub(in crate::sim) struct Cursors {
    updates: Vec<Vec<u64>>,
    acks: Vec<Vec<u64>>,
    /// The newest update that arrived, by receiver and sender.
    arrived: Vec<Vec<u64>>,
    /// What a start of a node said it has of a start of another: by (its incarnation, the other's).
    resumes: HashMap<(u64, u64), u64>,
    /// Which start of a peer a node talks with, by its hello.
    incarnations: Vec<Vec<u64>>,
    /// The highest number that a node was told of by a start of a peer.
    told: HashMap<(Seat, u64), u64>,
}

impl Cursors {
    pub(in crate::sim) fn new(nodes: usize) -> Self {
        let zero = || vec![vec![0; nodes]; nodes];
        Self {
            updates: zero(),
            acks: zero(),
            arrived: zero(),
            resumes: HashMap::new(),
            incarnations: zero(),
            told: HashMap::new(),
        }
    }

    pub(in crate::sim) fn connected(&mut self, from: Seat, to: Seat) {
        self.updates[from][to] = 0;
        self.acks[from][to] = 0;
        self.arrived[from][to] = 0;
    }

    pub(in crate::sim) fn restarted(&mut self, seat: Seat) {
        for other in 0..self.updates.len() {
            self.connected(seat, other);
        }
    }

    pub(in crate::sim) fn received(&mut self, scene: &Scene<'_>, from: Seat, message: &Message) {
        if let Message::Hello(hello) = message {
            self.incarnations[scene.seat][from] = hello.incarnation;
        }
        let number = if let Message::Update(update) = message {
            let arrived = &mut self.arrived[scene.seat][from];
            *arrived = (*arrived).max(update.through);
            update.through
        } else if let Message::Welcome(welcome) = message {
            welcome.continues_after
        } else {
            return;
        };
        let told = self.told.entry((scene.seat, self.incarnations[scene.seat][from])).or_insert(0);
        *told = (*told).max(number);
    }

    fn sends(&mut self, scene: &Scene<'_>, to: Seat, message: &Message) -> Option<String> {
        let fell = |before: &mut u64, number: u64, what: &str| {
            let text = (number < *before).then(|| format!("{what} fell from {before} to {number}"));
            *before = number;
            text
        };
        let seat = scene.seat;
        if let Message::Update(update) = message {
            return fell(&mut self.updates[seat][to], update.through, "updates");
        }
        if let Message::Ack { through } = message {
            if *through > self.arrived[seat][to] {
                return Some(format!("acknowledges {through}, {} arrived", self.arrived[seat][to]));
            }
            return fell(&mut self.acks[seat][to], *through, "acknowledgements");
        }
        if let Message::Hello(hello) = message
            && let Some(resume) = hello.resume
        {
            let told = self.told.get(&(seat, resume.incarnation)).copied().unwrap_or(0);
            if resume.through > told {
                return Some(format!("has {} of a start that told of {told}", resume.through));
            }
            let pair = (hello.incarnation, resume.incarnation);
            return fell(self.resumes.entry(pair).or_insert(0), resume.through, "the cursor");
        }
        None
    }
}

impl Observer {
    /// A node sends a message.
    pub(in crate::sim) fn check_message(&mut self, scene: &Scene<'_>, to: Seat, message: &Message) {
        if let Some(text) = self.cursors.sends(scene, to, message) {
            let text = format!("{} to {}: {text}", name(scene.seat), name(to));
            self.accuse("cursors never fall", scene.now_ms, None, text);
        }
        self.check_size(scene, to, message);
    }
}
