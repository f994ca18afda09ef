//! One node by itself, input by input: what no story over a network can show. Everything else is in `tests/scenarios`.
#![expect(clippy::unwrap_used, reason = "what fails here fails the test")]

use shardgate_peering_core::{
    AsOf, Change, Claim, ClaimAnswer, ClaimReason, ClaimRefusal, ClaimResult, ClaimToken, Claimed, Config,
    Digest, Entry, Heartbeat, Hello, Input, Instant, Item, Message, Node, Now, Output, PeerId, Rank,
    Readiness, Reason, ShardName, Stamp, StickKey, Update, Violation, Wall, Welcome, first_by_rendezvous,
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

/// Eight nodes are listed in a mesh of three: the same five are left out by all, and one that is left out serves nobody.
#[test]
fn beyond_the_bound_of_peers_all_leave_out_the_same() {
    let names = ["a", "b", "c", "d", "e", "f", "g", "h"];
    let listed: Vec<PeerId> = names.iter().map(|name| peer(name)).collect();
    for me in names {
        let config = Config { ttl_ms: TTL_MS, peers_max: 2, ..Config::new(peer(me), 1) };
        let mut node = Alone { node: Node::new(config, now(0)).unwrap(), now_ms: 0 };
        let outputs = node.causes(Input::PeersChanged { listed: listed.clone() });
        let peers: Vec<String> = node.node.peers().map(|(peer, _)| peer.to_string()).collect();
        let others: Vec<&str> = ["a", "b", "c"].into_iter().filter(|name| *name != me).collect();
        assert_eq!(node.node.stats().peers_beyond_max, 5);
        if me > "c" {
            assert!(peers.is_empty(), "{me}: {peers:?}");
            assert!(
                outputs.contains(&Output::Readiness(Readiness::NoPlace { peers_max: 2 })),
                "{me}: {outputs:?}"
            );
        } else {
            assert_eq!(peers, others);
        }
    }
}

/// A node that has served leaves the mesh for one with a lower name, and learns anew when that one is gone.
#[test]
fn a_node_that_loses_its_place_serves_nobody_until_it_has_learned_anew() {
    let config = Config { ttl_ms: TTL_MS, peers_max: 1, ..Config::new(peer("c"), 1) };
    let mut node = Alone { node: Node::new(config, now(0)).unwrap(), now_ms: 0 };
    let ready = |outputs: &[Output]| {
        outputs.iter().any(|output| matches!(output, Output::Readiness(Readiness::Ready { .. })))
    };
    assert!(ready(&node.causes(Input::PeersChanged { listed: vec![peer("c")] })));
    let left = node.causes(Input::PeersChanged { listed: ["a", "b", "c"].map(peer).to_vec() });
    assert!(left.contains(&Output::Readiness(Readiness::NoPlace { peers_max: 1 })), "{left:?}");
    node.run_ms(5_000);
    let back = node.causes(Input::PeersChanged { listed: ["b", "c"].map(peer).to_vec() });
    assert!(
        back.contains(&Output::Readiness(Readiness::NotReady { waiting_for: vec![peer("b")] })),
        "{back:?}"
    );
    assert!(ready(&node.causes(Input::DialFailed { peer: peer("b") })));
}

/// It stood still for so long that its table is empty; those of its people who are still there show where the conference is.
#[test]
fn who_starts_anew_goes_by_its_own_people() {
    let mut node = Alone::new(100);
    node.lists(&["a", "b"]);
    node.causes(Input::ReadyOverride);
    let join = |node: &mut Alone, proposal: &str| {
        let (token, key, proposal) = (ClaimToken(1), key("room"), shard(proposal));
        node.causes(Input::Claim { token, key, proposal, reason: ClaimReason::Join })
    };
    join(&mut node, "s1");
    for _ in 0..3 {
        node.causes(Input::SessionOpened { key: key("room"), shard: shard("s1") });
    }
    node.now_ms += 3_600_000;
    let emptied = node.causes(Input::Timeout);
    assert!(emptied.contains(&Output::Emptied), "{emptied:?}");
    let joined = join(&mut node, "s2");
    let there = Claimed::Stick { shard: shard("s1") };
    assert!(
        joined.iter().any(|output| matches!(output, Output::Answered { claimed, .. } if *claimed == there)),
        "{joined:?}"
    );
    assert!(!joined.iter().any(|output| matches!(output, Output::Moved { .. })), "{joined:?}");
}

/// Nearly everything is held: what may end is looked for a part at a time, and found.
#[test]
fn a_full_table_looks_a_part_at_a_time_for_what_may_end() {
    const ROOMS: u64 = 2_000;
    const FREE: u64 = 10;
    let mut node = Alone::new(2_000);
    node.lists(&["a"]);
    node.run_ms(TTL_MS);
    let join = |node: &mut Alone, number: u64| {
        let room = key(&format!("room-{number}"));
        let claim = Input::Claim {
            token: ClaimToken(number),
            key: room,
            proposal: shard("s"),
            reason: ClaimReason::Join,
        };
        node.causes(claim)
            .iter()
            .any(|output| matches!(output, Output::Answered { claimed: Claimed::Stick { .. }, .. }))
    };
    for number in 1..=ROOMS {
        assert!(join(&mut node, number), "{number} has a place");
        if number <= ROOMS - FREE {
            node.causes(Input::SessionOpened { key: key(&format!("room-{number}")), shard: shard("s") });
        }
    }
    assert!(!join(&mut node, ROOMS + 1), "those that nobody holds were used just now");
    node.run_ms(TTL_MS / 2);
    let (mut stored, mut refused) = (0, 0);
    for number in 0..20 {
        if join(&mut node, 2 * ROOMS + number) { stored += 1 } else { refused += 1 }
    }
    assert_eq!((stored, node.node.stats().ended_early), (FREE, FREE), "{refused} refused");
    assert_eq!(node.node.len() as u64, ROOMS);
    for number in 1..=ROOMS - FREE {
        assert!(node.node.lookup(&key(&format!("room-{number}"))).is_some(), "{number} is held");
    }
}

/// The mesh has an entry that its home has no place for, and of which it holds an older end: another decision would stand against it.
#[test]
fn a_home_beyond_its_bound_decides_nothing_against_an_entry_it_is_told_of() {
    let rooms: Vec<StickKey> =
        (0..).map(|number| key(&format!("room-{number}"))).filter(of_a).take(11).collect();
    let mut a = Alone::new(8);
    a.meets_b();
    a.causes(Input::ReadyOverride);
    for _ in 0..2 * TTL_MS / 1_000 {
        a.run_ms(1_000);
        let digest = Digest { as_of: AsOf::NOW, ranges: [0; 16] };
        a.hears("b", Message::Heartbeat(Heartbeat { ready: true, digest }));
    }
    let entry = |generation, shard| Entry {
        shard,
        generation,
        rank: Rank::Home,
        created: Stamp::at(now(15_000).wall),
        origin: peer("b"),
        reason: Reason::Claim,
    };
    let items = rooms.iter().enumerate().map(|(number, room)| Item {
        key: room.clone(),
        change: Change::Entry(if number == 0 { entry(2, None) } else { entry(1, Some(shard("s"))) }),
        remaining_ms: 3 * TTL_MS,
        held: false,
    });
    a.hears("b", Message::Update(Update { through: 11, items: items.collect() }));
    assert_eq!(a.node.len(), 10);
    // Nobody has reported that he holds them: they may end early from now on, and no heartbeat has come to do it.
    a.now_ms += TTL_MS * 4 / 5;
    let claim = Claim {
        id: 1,
        key: rooms[0].clone(),
        known: Some((entry(3, Some(shard("s1"))), TTL_MS)),
        proposal: Some(shard("s2")),
        reason: Reason::Claim,
        held: false,
        failed: None,
        tried: None,
        hops: 0,
    };
    let outputs = a.hears("b", Message::Claim(claim));
    let result = ClaimResult::Refused(ClaimRefusal::TableFull);
    let answer = Message::ClaimAnswer(ClaimAnswer { id: 1, key: rooms[0].clone(), result });
    assert!(outputs.contains(&Output::Send { peer: peer("b"), message: answer }), "{outputs:?}");
}

/// Whether a is the home of a key, of two.
fn of_a(key: &StickKey) -> bool {
    first_by_rendezvous(key, [peer("a"), peer("b")].iter()) == Some(&peer("a"))
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
        self.hears(
            "b",
            Message::Welcome(Welcome { resumed: false, ready: false, continues_after: 0, head: 0 }),
        );
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
