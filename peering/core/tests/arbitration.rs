//! Split brains among nodes that talk at once: who moves, and when.
#![expect(clippy::unwrap_used, clippy::wildcard_enum_match_arm, reason = "what fails here fails the test")]

use std::collections::{BTreeSet, VecDeque};

use shardgate_peering_core::{
    ClaimReason, ClaimToken, Config, Entry, Input, Instant, Message, Node, Now, Output, PeerId, Reached,
    Reason, ShardName, StickKey, Verdict, Wall, Why,
};

fn peer(number: usize) -> PeerId {
    PeerId::parse(&format!("n{number}")).unwrap()
}

fn key(text: &str) -> StickKey {
    StickKey::parse(text).unwrap()
}

fn shard(name: &str) -> ShardName {
    ShardName::parse(name).unwrap()
}

/// Nodes whose messages arrive in the same millisecond, in order.
struct Mesh {
    nodes: Vec<Node>,
    links: BTreeSet<(usize, usize)>,
    wire: VecDeque<(usize, usize, Message)>,
    now_ms: u64,
    tokens: u64,
    /// What was told, with the moment: who has to go where, and verdicts.
    moved: Vec<(u64, usize, StickKey, ShardName)>,
    verdicts: Vec<(u64, usize, Verdict)>,
    /// Who does not reach which shard.
    unreached: BTreeSet<(usize, ShardName)>,
    /// Kinds of messages that get lost.
    loses: BTreeSet<&'static str>,
    /// How late timers come.
    late_ms: u64,
    /// Who asked last how many people are where.
    asked_by: Option<usize>,
}

impl Mesh {
    fn new(size: usize) -> Self {
        let now = Self::moment(0);
        let node = |number| Node::new(Config::new(peer(number), 1), now).unwrap();
        let mut mesh = Self {
            nodes: (0..size).map(node).collect(),
            links: BTreeSet::new(),
            wire: VecDeque::new(),
            now_ms: 0,
            tokens: 0,
            moved: Vec::new(),
            verdicts: Vec::new(),
            unreached: BTreeSet::new(),
            loses: BTreeSet::new(),
            late_ms: 0,
            asked_by: None,
        };
        for at in 0..size {
            mesh.give(at, Input::PeersChanged { listed: (0..size).map(peer).collect() });
        }
        let all: Vec<usize> = (0..size).collect();
        mesh.connect(&all, &all);
        mesh.run_ms(5_000);
        mesh
    }

    const fn moment(ms: u64) -> Now {
        Now { mono: Instant(ms), boot: Instant(ms), wall: Wall(1_795_219_200_000 + ms) }
    }

    fn give(&mut self, at: usize, input: Input) {
        self.nodes[at].handle(Self::moment(self.now_ms), input);
        while let Some(output) = self.nodes[at].poll_output() {
            match output {
                Output::Send { peer: to, message } => {
                    let to = (0..self.nodes.len()).find(|number| peer(*number) == to).unwrap();
                    if matches!(message, Message::SessionsAsk { .. }) {
                        self.asked_by = Some(at);
                    }
                    self.wire.push_back((at, to, message));
                }
                Output::Moved { key, to } => self.moved.push((self.now_ms, at, key, to)),
                Output::Verdict(verdict) => self.verdicts.push((self.now_ms, at, verdict)),
                Output::Probe { probe, shard, .. } => {
                    let reached =
                        if self.unreached.contains(&(at, shard)) { Reached::No } else { Reached::Yes };
                    self.give(at, Input::Probed { probe, reached });
                }
                _ => {}
            }
        }
    }

    fn deliver(&mut self) {
        while let Some((from, to, message)) = self.wire.pop_front() {
            if self.links.contains(&(from, to)) && !self.loses.contains(message.kind()) {
                self.give(to, Input::Received { peer: peer(from), message });
            }
        }
    }

    fn connect(&mut self, some: &[usize], others: &[usize]) {
        for &a in some {
            for &b in others {
                if a != b && self.links.insert((a, b)) {
                    self.links.insert((b, a));
                    self.give(a, Input::PeerConnected { peer: peer(b) });
                    self.give(b, Input::PeerConnected { peer: peer(a) });
                }
            }
        }
        self.deliver();
    }

    fn cut(&mut self, some: &[usize], others: &[usize]) {
        for &a in some {
            for &b in others {
                if self.links.remove(&(a, b)) {
                    self.links.remove(&(b, a));
                    self.give(a, Input::PeerLost { peer: peer(b) });
                    self.give(b, Input::PeerLost { peer: peer(a) });
                }
            }
        }
        self.deliver();
    }

    fn run_ms(&mut self, ms: u64) {
        let end = self.now_ms + ms;
        loop {
            let due = (0..self.nodes.len()).map(|at| (self.nodes[at].poll_timeout().0.0, at)).min().unwrap();
            if due.0 > end {
                break;
            }
            self.now_ms = self.now_ms.max(due.0 + self.late_ms);
            self.give(due.1, Input::Timeout);
            self.deliver();
        }
        self.now_ms = end;
    }

    fn joins(&mut self, at: usize, room: &str, on: &str, reason: ClaimReason) {
        self.tokens += 1;
        let (token, key, proposal) = (ClaimToken(self.tokens), key(room), shard(on));
        self.give(at, Input::Claim { token, key, proposal, reason });
        self.deliver();
        self.run_ms(1_000);
    }

    fn opens(&mut self, at: usize, room: &str, on: &str, people: usize) {
        for _ in 0..people {
            self.give(at, Input::SessionOpened { key: key(room), shard: shard(on) });
        }
        self.deliver();
    }

    fn closes(&mut self, at: usize, room: &str, on: &str, people: usize) {
        for _ in 0..people {
            self.give(at, Input::SessionClosed { key: key(room), shard: shard(on) });
        }
        self.deliver();
    }

    fn entries(&self, room: &str) -> Vec<Option<Entry>> {
        let entry = |node: &Node| node.entry(&key(room)).map(|(entry, _)| entry.clone());
        self.nodes.iter().map(entry).collect()
    }

    /// Who moved where, once each.
    fn movers(&self) -> BTreeSet<(usize, String)> {
        self.moved.iter().map(|(_, at, _, to)| (*at, to.to_string())).collect()
    }
}

/// Two nodes on each side of a cut, each side with so many people on a shard of its own; then it heals.
fn split(first: usize, second: usize) -> Mesh {
    split_losing(first, second, &[])
}

/// The same, and from the healing on these messages get lost.
fn split_losing(first: usize, second: usize, loses: &[&'static str]) -> Mesh {
    let mut mesh = Mesh::new(4);
    mesh.cut(&[0, 1], &[2, 3]);
    mesh.run_ms(2_000);
    mesh.joins(0, "room", "s1", ClaimReason::Join);
    mesh.joins(2, "room", "s2", ClaimReason::Join);
    mesh.opens(0, "room", "s1", first - 1);
    mesh.opens(1, "room", "s1", 1);
    mesh.opens(2, "room", "s2", second - 1);
    mesh.opens(3, "room", "s2", 1);
    mesh.run_ms(2_000);
    assert_eq!(mesh.movers(), BTreeSet::new());
    mesh.loses = loses.iter().copied().collect();
    mesh.connect(&[0, 1], &[2, 3]);
    mesh
}

#[test]
fn the_smaller_side_moves_once_and_after_the_verdict() {
    for (first, second, winner, losers, why) in [
        (3, 2, "s1", [2, 3], Why::MostSessions),
        (2, 3, "s2", [0, 1], Why::MostSessions),
        (2, 2, "s1", [2, 3], Why::Join),
    ] {
        let mut mesh = split(first, second);
        mesh.run_ms(2_000);
        let [(at, _, verdict)] = &mesh.verdicts[..] else { panic!("{:?}", mesh.verdicts) };
        let sides: Vec<_> = verdict.sides.iter().map(|side| (side.shard.as_str(), side.sessions)).collect();
        let mut expected = [("s1", first as u64), ("s2", second as u64)];
        expected.sort_by_key(|(_, people)| std::cmp::Reverse(*people));
        assert_eq!(sides, expected);
        assert_eq!((verdict.entry.shard.as_ref().unwrap().as_str(), verdict.why), (winner, why));
        let expected: BTreeSet<_> = losers.map(|at| (at, winner.to_owned())).into();
        assert_eq!(mesh.movers(), expected, "{first} against {second}");
        assert_eq!(mesh.moved.len(), 2);
        assert!(mesh.moved.iter().all(|(moved, ..)| moved >= at), "{:?}", mesh.moved);
        let entries = mesh.entries("room");
        assert!(entries.iter().all(|entry| *entry == entries[0]), "{entries:?}");
        assert_eq!(entries[0].as_ref().unwrap().reason, Reason::Arbitration);
    }
}

/// Its place is taken by the next home, which hears those that are left.
#[test]
fn when_the_arbiter_is_lost_the_next_one_decides() {
    let mut mesh = split_losing(2, 3, &["sessions-told"]);
    mesh.run_ms(100);
    assert_eq!((mesh.verdicts.len(), mesh.moved.len()), (0, 0));
    let arbiter = mesh.asked_by.unwrap();
    mesh.loses.clear();
    let others: Vec<usize> = (0..4).filter(|at| *at != arbiter).collect();
    mesh.cut(&[arbiter], &others);
    mesh.run_ms(1_500);
    let by: Vec<usize> = mesh.verdicts.iter().map(|(_, by, _)| *by).filter(|by| *by != arbiter).collect();
    assert_eq!(by.len(), 1, "{:?}", mesh.verdicts);
    let entries = mesh.entries("room");
    let of_others: BTreeSet<_> =
        others.iter().map(|at| entries[*at].as_ref().unwrap().shard.clone()).collect();
    assert_eq!(of_others.len(), 1, "{entries:?}");
}

/// The many stay where they are, though the others' checks still say that their shard is down.
#[test]
fn a_side_that_left_a_shard_comes_back_to_the_many_who_stayed() {
    let mut mesh = Mesh::new(4);
    mesh.joins(0, "room", "s1", ClaimReason::Join);
    mesh.opens(0, "room", "s1", 3);
    mesh.opens(3, "room", "s1", 100);
    mesh.run_ms(2_000);
    mesh.unreached = (0..3).map(|at| (at, shard("s1"))).collect();
    mesh.cut(&[0, 1, 2], &[3]);
    mesh.run_ms(1_000);
    mesh.closes(0, "room", "s1", 3);
    mesh.joins(0, "room", "s2", ClaimReason::Down { failed: shard("s1") });
    mesh.opens(0, "room", "s2", 3);
    assert_eq!(mesh.moved, []);
    mesh.connect(&[0, 1, 2], &[3]);
    mesh.run_ms(2_000);
    assert_eq!(mesh.movers(), BTreeSet::from([(0, "s1".to_owned())]), "three people move, not a hundred");
    assert_eq!(mesh.verdicts.len(), 1);
}

/// Their shard has died behind the cut, and nobody there has tried it since: they hang, and count for nothing.
#[test]
fn people_on_a_shard_that_nobody_reaches_hold_nobody_there() {
    people_hang(&[], 0);
}

/// Whoever probes a shard that swallows everything may answer after the round of probes, which ends when its timer comes.
#[test]
fn nor_do_they_when_probes_take_all_their_time_and_timers_are_late() {
    for late_ms in [0, 1, 3, 20] {
        people_hang(&["probe-answer"], late_ms);
    }
}

fn people_hang(lost: &[&'static str], late_ms: u64) {
    let mut mesh = Mesh::new(4);
    mesh.joins(0, "room", "s1", ClaimReason::Join);
    mesh.opens(0, "room", "s1", 3);
    mesh.opens(3, "room", "s1", 100);
    mesh.run_ms(2_000);
    mesh.unreached = (0..4).map(|at| (at, shard("s1"))).collect();
    mesh.cut(&[0, 1, 2], &[3]);
    mesh.run_ms(1_000);
    mesh.closes(0, "room", "s1", 3);
    mesh.joins(0, "room", "s2", ClaimReason::Down { failed: shard("s1") });
    mesh.opens(0, "room", "s2", 3);
    mesh.loses = lost.iter().copied().collect();
    mesh.late_ms = late_ms;
    mesh.connect(&[0, 1, 2], &[3]);
    mesh.run_ms(3_000);
    assert_eq!(mesh.movers(), BTreeSet::from([(3, "s2".to_owned())]), "timers {late_ms} ms late");
    let [(_, _, verdict)] = &mesh.verdicts[..] else { panic!("{:?}", mesh.verdicts) };
    assert_eq!((verdict.why, verdict.sides[0].sessions), (Why::Reached, 100));
}

#[test]
fn a_move_that_one_was_asked_about_is_obeyed_at_once() {
    let mut mesh = Mesh::new(4);
    mesh.joins(0, "room", "s1", ClaimReason::Join);
    for at in 0..4 {
        mesh.opens(at, "room", "s1", 2);
    }
    mesh.run_ms(2_000);
    mesh.unreached = (0..4).map(|at| (at, shard("s1"))).collect();
    mesh.joins(0, "room", "s2", ClaimReason::Down { failed: shard("s1") });
    assert_eq!((mesh.verdicts.len(), mesh.moved.len()), (0, 4));
}

/// Not before 30 s are over, whatever anybody's checks say.
#[test]
fn a_verdict_is_final() {
    let mut mesh = split(3, 2);
    mesh.run_ms(2_000);
    assert_eq!(mesh.verdicts.len(), 1);
    mesh.unreached = (0..4).map(|at| (at, shard("s1"))).collect();
    for at in 0..4 {
        mesh.joins(at, "room", "s2", ClaimReason::Down { failed: shard("s1") });
    }
    let there = |mesh: &Mesh| mesh.entries("room")[0].as_ref().unwrap().shard.clone().unwrap();
    assert_eq!(there(&mesh), shard("s1"));
    mesh.run_ms(30_000);
    mesh.joins(1, "room", "s2", ClaimReason::Down { failed: shard("s1") });
    assert_eq!(there(&mesh), shard("s2"));
    assert_eq!(mesh.verdicts.len(), 1);
}

#[test]
fn without_a_verdict_the_join_chooses_after_a_while() {
    let mut mesh = split_losing(2, 3, &["sessions-ask", "sessions-told", "dispute"]);
    let healed = mesh.now_ms;
    mesh.run_ms(10_000);
    // The home of the key hears itself, and knows of nobody else.
    assert!(mesh.moved.iter().all(|(at, ..)| *at >= healed + 250), "{:?}", mesh.moved);
}
