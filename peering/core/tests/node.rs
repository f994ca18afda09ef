//! One node by itself, input by input: what no story over a network can show. Everything else is in `tests/scenarios`.
#![expect(clippy::unwrap_used, reason = "what fails here fails the test")]

use shardgate_peering_core::{
    ClaimReason, ClaimToken, Config, Heartbeat, Hello, Input, Instant, Message, Node, Now, Output, PeerId,
    ShardName, StickKey, Update, Violation, Wall, Welcome,
};

const TTL_MS: u64 = 10_000;

fn peer(name: &str) -> PeerId {
    PeerId::parse(name).unwrap()
}

fn key(text: &str) -> StickKey {
    StickKey::parse(text).unwrap()
}

fn shard(name: &str) -> ShardName {
    ShardName::parse(name).unwrap()
}

/// A node and its clock.
struct Alone {
    node: Node,
    now_ms: u64,
}

impl Alone {
    fn new(entries_max: usize) -> Self {
        let config = Config { ttl_ms: TTL_MS, entries_max, ..Config::new(peer("a"), 1) };
        Self { node: Node::new(config, now(0)).unwrap(), now_ms: 0 }
    }

    fn give(&mut self, input: Input) {
        self.node.handle(now(self.now_ms), input);
    }

    fn outputs(&mut self) -> Vec<Output> {
        std::iter::from_fn(|| self.node.poll_output()).collect()
    }

    /// What one input causes.
    fn causes(&mut self, input: Input) -> Vec<Output> {
        self.give(input);
        self.outputs()
    }

    /// Its timers, as they come.
    fn run_ms(&mut self, ms: u64) {
        let end = self.now_ms + ms;
        loop {
            let (at, _) = self.node.poll_timeout();
            if at.0 > end {
                break;
            }
            self.now_ms = self.now_ms.max(at.0);
            self.causes(Input::Timeout);
        }
        self.now_ms = end;
    }

    fn lists(&mut self, names: &[&str]) {
        self.causes(Input::PeersChanged { listed: names.iter().map(|name| peer(name)).collect() });
    }

    fn hears(&mut self, from: &str, message: Message) -> Vec<Output> {
        self.causes(Input::Received { peer: peer(from), message })
    }

    /// A connection to b, greeted.
    fn meets_b(&mut self) {
        self.lists(&["a", "b"]);
        self.causes(Input::PeerConnected { peer: peer("b") });
        self.hears("b", hello());
        self.hears("b", Message::Welcome(Welcome { resumed: false, ready: false, continues_after: 0 }));
    }
}

fn now(ms: u64) -> Now {
    Now { mono: Instant(ms), boot: Instant(ms), wall: Wall(1_795_219_200_000 + ms) }
}

fn hello() -> Message {
    Message::Hello(Hello {
        contract: 1,
        contract_oldest: 1,
        incarnation: 7,
        ready: false,
        capacity: 1_000,
        resume: None,
    })
}

fn ended_by(outputs: &[Output], name: &str) -> Option<Violation> {
    outputs.iter().find_map(|output| {
        if let Output::Disconnect { peer: of, violation } = output {
            (*of == peer(name)).then_some(*violation)
        } else {
            None
        }
    })
}

#[test]
fn nothing_meant_for_an_old_connection_goes_out_before_the_hello_of_the_next() {
    let mut a = Alone::new(100);
    a.meets_b();
    // Together: an update whose acknowledgement waits, the end of the connection, the next one.
    let update = Message::Update(Update { through: 50, items: Vec::new() });
    a.give(Input::Received { peer: peer("b"), message: update });
    a.give(Input::PeerLost { peer: peer("b") });
    a.give(Input::PeerConnected { peer: peer("b") });
    let outputs = a.outputs();
    let sent = outputs.iter().filter_map(|output| {
        if let Output::Send { message, .. } = output { Some(message.kind()) } else { None }
    });
    assert_eq!(sent.collect::<Vec<_>>(), ["hello"]);
}

#[test]
fn messages_before_the_hello_and_strangers_are_refused() {
    let mut a = Alone::new(100);
    a.lists(&["a", "b"]);
    a.causes(Input::PeerConnected { peer: peer("b") });
    let outputs = a.hears("b", Message::Ack { through: 0 });
    assert_eq!(ended_by(&outputs, "b"), Some(Violation::NotGreeted));
    let outputs = a.causes(Input::PeerConnected { peer: peer("stranger") });
    assert_eq!(ended_by(&outputs, "stranger"), Some(Violation::NotListed));
    // Who was just taken from the list may have sent something before it heard of it.
    a.meets_b();
    a.lists(&["a"]);
    let outputs = a.hears("b", Message::Ack { through: 0 });
    assert_eq!(ended_by(&outputs, "b"), Some(Violation::NotListed));
}

#[test]
fn a_held_key_whose_claim_was_refused_is_claimed_again() {
    let mut a = Alone::new(1);
    a.lists(&["a"]);
    a.run_ms(2 * TTL_MS);
    let (reason, proposal) = (ClaimReason::Join, shard("s1"));
    a.causes(Input::Claim { token: ClaimToken(1), key: key("first"), proposal, reason });
    a.causes(Input::SessionOpened { key: key("first"), shard: shard("s1") });
    a.causes(Input::SessionOpened { key: key("held"), shard: shard("s2") });
    a.run_ms(100);
    assert_eq!(a.node.lookup(&key("held")), None, "the table is full of what is held");
    a.causes(Input::SessionClosed { key: key("first"), shard: shard("s1") });
    a.run_ms(TTL_MS * 2);
    assert_eq!(a.node.lookup(&key("held")), Some(&shard("s2")), "the first room ended and left its place");
}

#[test]
fn heartbeats_tell_digests_of_a_moment_that_has_passed() {
    let mut a = Alone::new(100);
    a.meets_b();
    a.now_ms = 5_000;
    let outputs = a.causes(Input::Timeout);
    let beats: Vec<&Heartbeat> = outputs
        .iter()
        .filter_map(|output| {
            if let Output::Send { message: Message::Heartbeat(heartbeat), .. } = output {
                Some(heartbeat)
            } else {
                None
            }
        })
        .collect();
    assert_eq!(beats.len(), 1);
    let ago_ms = now(5_000).wall.0 - beats[0].digest.as_of.0.wall_ms();
    assert!((2_000..3_000).contains(&ago_ms), "{ago_ms}");
}
