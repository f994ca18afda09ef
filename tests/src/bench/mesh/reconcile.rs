//! What it takes to find and repair differences between two large tables: two cores in virtual time, every message encoded as it
//! would be on the wire.
//!
//! Both learn the same table, lose each other, decide some rooms each, and meet again with a log that no longer reaches back: so
//! the differences have to be found. Counted are frames; QUIC's own bytes come on top of them.

use std::collections::{BTreeMap, VecDeque};
use std::io;
use std::time::Instant as Clock;

use serde_json::json;
use shardgate_peering::codec;
use shardgate_peering::core::{
    ClaimReason, ClaimToken, Config, Input, Instant, LinkState, Message, Node, Now, Output, PeerId,
    ShardName, StickKey, Wall,
};

use super::super::report::{Report, grouped};
use super::super::room_names::unlike_room_name;
use super::run::Run;

const TITLE: &str = "reconciled differences";
/// One way, in virtual time.
const HOP_MS: u64 = 10;
const DAY_MS: u64 = 86_400_000;
/// Decisions that a node keeps for a peer that is away: too few for any break here.
const LOG_MAX: usize = 4;
/// Virtual time by which equal tables are demanded.
const EQUAL_MAX_MS: u64 = 600_000;
/// After the tables are equal, so much virtual time without anything but heartbeats ends the count.
const QUIET_MS: u64 = 3_000;
const START_MS: u64 = 1_000_000;
/// The wanted limit for 100 differences in 1,000,000 entries.
const BYTES_MAX: f64 = 50_000.0;

/// Fills two cores, and repairs more differences each time.
pub fn measure(run: &Run<'_>, report: &mut Report) -> io::Result<()> {
    let entries: usize = run.sized(1_000_000, 20_000);
    let differences: &[usize] = run.sized(&[10, 100, 10_000], &[10, 100]);
    report.say(format!(
        "\n{TITLE} of {} entries: two cores in virtual time, frames as on the wire, half of the differences on each side",
        grouped(entries as u64)
    ));
    let began = Clock::now();
    let mut pair = Pair::new()?;
    pair.decide(0, 0, entries)?;
    pair.meet();
    let learned = pair.until_equal(entries)?;
    report.say(format!(
        "{:<12} the whole table: {} bytes, {} messages, equal after {} ms at {HOP_MS} ms one way ({} s to compute)",
        "",
        grouped(learned.bytes()),
        grouped(learned.messages()),
        learned.equal_ms,
        began.elapsed().as_secs()
    ));
    let mut known = entries;
    for count in differences {
        pair.part();
        pair.decide(0, known, count / 2)?;
        pair.decide(1, known + count / 2, count / 2)?;
        known += count;
        pair.meet();
        let seen = pair.until_equal(known)?;
        let kinds: Vec<String> = seen
            .by_kind
            .iter()
            .map(|(kind, (messages, bytes))| format!("{kind} {messages} ({} bytes)", grouped(*bytes)))
            .collect();
        report.say(format!(
            "{:>6} differ: {} bytes in {} messages, {:.1} bytes a difference; equal after {} ms = {} round trips; {}; heartbeats meanwhile {} bytes",
            grouped(*count as u64),
            grouped(seen.bytes()),
            grouped(seen.messages()),
            seen.bytes() as f64 / *count as f64,
            seen.equal_ms,
            seen.equal_ms / (2 * HOP_MS),
            kinds.join(", "),
            grouped(seen.heartbeat_bytes)
        ));
        report.add_section(json!({
            "title": TITLE, "entries": known, "differences": count, "bytes": seen.bytes(), "messages": seen.messages(),
            "equal_ms": seen.equal_ms, "one_way_ms": HOP_MS, "by_kind": seen.by_kind, "heartbeat_bytes": seen.heartbeat_bytes,
        }));
        if *count == 100 {
            report.judge_at_most(TITLE, "bytes for 100 differences", seen.bytes() as f64, BYTES_MAX);
        }
    }
    Ok(())
}

/// Messages of one meeting, both directions together, heartbeats apart.
#[derive(Default)]
struct Counted {
    /// Number and bytes.
    by_kind: BTreeMap<&'static str, (u64, u64)>,
    heartbeat_bytes: u64,
    /// From the connection until the tables were equal.
    equal_ms: u64,
}

impl Counted {
    fn add(&mut self, message: &Message) {
        let bytes = codec::encode(message).len() as u64;
        if matches!(message, Message::Heartbeat(_)) {
            self.heartbeat_bytes += bytes;
            return;
        }
        let kind = self.by_kind.entry(message.kind()).or_default();
        kind.0 += 1;
        kind.1 += bytes;
    }

    fn bytes(&self) -> u64 {
        self.by_kind.values().map(|(_, bytes)| bytes).sum()
    }

    fn messages(&self) -> u64 {
        self.by_kind.values().map(|(messages, _)| messages).sum()
    }
}

struct Pair {
    ids: [PeerId; 2],
    nodes: [Node; 2],
    /// What is under way: when it arrives, at whom.
    under_way: VecDeque<(u64, usize, Message)>,
    now_ms: u64,
    tokens: u64,
    counted: Counted,
    met_ms: u64,
    /// When something other than a heartbeat was last sent.
    busy_ms: u64,
    shard: ShardName,
}

impl Pair {
    /// Both have tried each other in vain, so they are ready.
    fn new() -> io::Result<Self> {
        let ids = [peer("node0")?, peer("node1")?];
        let nodes = [0, 1].map(|index: usize| {
            let mut config = Config::new(ids[index].clone(), 1 + index as u64);
            config.ttl_ms = DAY_MS;
            config.entries_max = 4_000_000;
            config.log_max = LOG_MAX;
            Node::new(config, now(START_MS)).map_err(io::Error::other)
        });
        let [a, b] = nodes;
        let shard = ShardName::parse("bench-s1").map_err(io::Error::other)?;
        let mut pair = Self {
            ids,
            nodes: [a?, b?],
            under_way: VecDeque::new(),
            now_ms: START_MS,
            tokens: 0,
            counted: Counted::default(),
            met_ms: START_MS,
            busy_ms: START_MS,
            shard,
        };
        for node in 0..2 {
            let listed = pair.ids.to_vec();
            pair.put(node, Input::PeersChanged { listed });
            let peer = pair.ids[1 - node].clone();
            pair.put(node, Input::DialFailed { peer });
        }
        Ok(pair)
    }

    /// New rooms, decided by this node while it is alone.
    fn decide(&mut self, node: usize, first: usize, count: usize) -> io::Result<()> {
        let before = self.nodes[node].len();
        for room in first..first + count {
            self.tokens += 1;
            // Some decisions in each millisecond, as in a busy mesh; neither node may think that it slept.
            self.now_ms += u64::from(self.tokens.is_multiple_of(20));
            if self.tokens.is_multiple_of(1_000) {
                (0..2).for_each(|node| self.put(node, Input::Timeout));
            }
            let key = StickKey::parse(&unlike_room_name(room)).map_err(io::Error::other)?;
            let (token, proposal) = (ClaimToken(self.tokens), self.shard.clone());
            self.put(node, Input::Claim { token, key, proposal, reason: ClaimReason::Join });
        }
        let made = self.nodes[node].len() - before;
        if made == count { Ok(()) } else { Err(io::Error::other(format!("{made} of {count} rooms decided"))) }
    }

    fn meet(&mut self) {
        (self.met_ms, self.busy_ms) = (self.now_ms, self.now_ms);
        self.counted = Counted::default();
        for node in 0..2 {
            let peer = self.ids[1 - node].clone();
            self.put(node, Input::PeerConnected { peer: peer.clone() });
            self.put(node, Input::RoundTrip { peer, rtt_ms: 2 * HOP_MS });
        }
    }

    fn part(&mut self) {
        self.under_way.clear();
        for node in 0..2 {
            let peer = self.ids[1 - node].clone();
            self.put(node, Input::PeerLost { peer });
        }
        self.under_way.clear();
    }

    /// Runs until both hold so many entries and nothing but heartbeats is said any more.
    fn until_equal(&mut self, entries: usize) -> io::Result<Counted> {
        let mut equal = None;
        while equal.is_none() || self.now_ms < self.busy_ms + QUIET_MS {
            self.step();
            if equal.is_none() && self.nodes.iter().all(|node| node.len() == entries && reconciled(node)) {
                equal = Some(self.now_ms);
            }
            if self.now_ms > self.met_ms + EQUAL_MAX_MS {
                let [a, b] = [0, 1].map(|node: usize| self.nodes[node].len());
                return Err(io::Error::other(format!(
                    "two cores are not equal after {EQUAL_MAX_MS} virtual ms: {a} and {b} of {entries} entries"
                )));
            }
        }
        let equal_ms = equal.map_or(0, |equal| equal - self.met_ms);
        Ok(Counted { equal_ms, ..std::mem::take(&mut self.counted) })
    }

    /// The next thing that is due: a message, or a node's own time.
    fn step(&mut self) {
        let timers = [0, 1].map(|node: usize| self.nodes[node].poll_timeout().0.0);
        let arrives = self.under_way.front().map(|(due, _, _)| *due);
        let timer = timers[0].min(timers[1]);
        match arrives.filter(|due| *due <= timer) {
            Some(due) => {
                self.now_ms = self.now_ms.max(due);
                if let Some((_, node, message)) = self.under_way.pop_front() {
                    let peer = self.ids[1 - node].clone();
                    self.put(node, Input::Received { peer, message });
                }
            }
            None => {
                self.now_ms = self.now_ms.max(timer);
                let node = usize::from(timers[1] < timers[0]);
                self.put(node, Input::Timeout);
            }
        }
    }

    fn put(&mut self, node: usize, input: Input) {
        self.nodes[node].handle(now(self.now_ms), input);
        while let Some(output) = self.nodes[node].poll_output() {
            if let Output::Send { message, .. } = output {
                self.counted.add(&message);
                if !matches!(message, Message::Heartbeat(_)) {
                    self.busy_ms = self.now_ms;
                }
                self.under_way.push_back((self.now_ms + HOP_MS, 1 - node, message));
            }
        }
    }
}

fn reconciled(node: &Node) -> bool {
    node.peers().all(|(_, view)| view.link == LinkState::Reconciled)
}

fn peer(name: &str) -> io::Result<PeerId> {
    PeerId::parse(name).map_err(io::Error::other)
}

fn now(ms: u64) -> Now {
    Now { mono: Instant(ms), boot: Instant(ms), wall: Wall(1_700_000_000_000 + ms) }
}
