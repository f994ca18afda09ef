//! Rounds of probes at one home, input by input: bounds, answers out of turn, and every order in which answers may come.
#![expect(clippy::unwrap_used, reason = "what fails here fails the test")]

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;
use shardgate_peering_core::{
    AsOf, Claim, ClaimAnswer, ClaimReason, ClaimRefusal, ClaimResult, ClaimToken, Claimed, Config, Digest,
    Entry, Heartbeat, Hello, Input, Instant, Message, Node, Now, Output, PeerId, ProbeId, Rank, Reached,
    Reason, ShardName, Stamp, StickKey, Unstored, VIA_MAX, Wall, Welcome, first_by_rendezvous,
};

fn peer(number: usize) -> PeerId {
    PeerId::parse(&format!("p{number:03}")).unwrap()
}

fn me() -> PeerId {
    PeerId::parse("home").unwrap()
}

fn key(text: &str) -> StickKey {
    StickKey::parse(text).unwrap()
}

fn shard(name: &str) -> ShardName {
    ShardName::parse(name).unwrap()
}

fn now(ms: u64) -> Now {
    Now { mono: Instant(ms), boot: Instant(ms), wall: Wall(1_795_219_200_000 + ms) }
}

/// A node that is the home of every key: its peers are connected, and not ready.
struct Home {
    node: Node,
    now_ms: u64,
    claims: u64,
}

impl Home {
    fn new(peers: usize, tune: fn(Config) -> Config) -> Self {
        let node = Node::new(tune(Config::new(me(), 1)), now(0)).unwrap();
        let mut home = Self { node, now_ms: 0, claims: 0 };
        home.give(Input::PeersChanged { listed: (0..peers).map(peer).chain([me()]).collect() });
        for number in 0..peers {
            home.meets(number);
        }
        home.give(Input::ReadyOverride);
        home.run_ms(1_100);
        home
    }

    fn meets(&mut self, number: usize) {
        self.give(Input::PeerConnected { peer: peer(number) });
        self.greets(number);
    }

    fn greets(&mut self, number: usize) -> Vec<Output> {
        let mut outputs = self.hears(
            number,
            Message::Hello(Hello {
                contract: 1,
                contract_oldest: 1,
                incarnation: 7,
                ready: false,
                capacity: 1_000_000,
                resume: None,
            }),
        );
        let welcome = Welcome { resumed: false, ready: false, continues_after: 0, head: 0 };
        outputs.extend(self.hears(number, Message::Welcome(welcome)));
        outputs
    }

    fn give(&mut self, input: Input) -> Vec<Output> {
        self.node.handle(now(self.now_ms), input);
        std::iter::from_fn(|| self.node.poll_output()).collect()
    }

    fn hears(&mut self, from: usize, message: Message) -> Vec<Output> {
        self.give(Input::Received { peer: peer(from), message })
    }

    /// Its timers, as they come.
    fn run_ms(&mut self, ms: u64) -> Vec<Output> {
        let end = self.now_ms + ms;
        let mut outputs = Vec::new();
        while self.node.poll_timeout().0.0 <= end {
            self.now_ms = self.now_ms.max(self.node.poll_timeout().0.0);
            outputs.extend(self.give(Input::Timeout));
        }
        self.now_ms = end;
        outputs
    }

    fn asks(&mut self, room: &str, reason: ClaimReason, proposal: &str) -> Vec<Output> {
        self.claims += 1;
        let (key, proposal) = (key(room), shard(proposal));
        self.give(Input::Claim { token: ClaimToken(self.claims), key, proposal, reason })
    }

    fn joins(&mut self, room: &str, on: &str) {
        let outputs = self.asks(room, ClaimReason::Join, on);
        assert_eq!(answers(&outputs), [Claimed::Stick { shard: shard(on) }]);
    }

    fn down(&mut self, room: &str, failed: &str, proposal: &str) -> Vec<Output> {
        self.asks(room, ClaimReason::Down { failed: shard(failed) }, proposal)
    }

    /// A peer's claim that its shard cannot be reached, about a key that this node knows.
    fn down_from(&mut self, from: usize, id: u64, room: &str, failed: &str) -> Vec<Output> {
        let claim = Claim {
            id,
            key: key(room),
            known: None,
            proposal: Some(shard("elsewhere")),
            reason: Reason::Down,
            held: false,
            failed: Some(shard(failed)),
            tried: None,
            hops: 0,
        };
        self.hears(from, Message::Claim(claim))
    }

    fn answers_probe(&mut self, from: usize, round: u64, of: &str, reached: Reached) -> Vec<Output> {
        self.hears(from, Message::ProbeAnswer { round, shard: shard(of), reached })
    }
}

fn answers(outputs: &[Output]) -> Vec<Claimed> {
    let answer = |output: &Output| {
        if let Output::Answered { claimed, .. } = output { Some(claimed.clone()) } else { None }
    };
    outputs.iter().filter_map(answer).collect()
}

fn probes(outputs: &[Output]) -> Vec<(ProbeId, PeerId)> {
    let probe = |output: &Output| {
        if let Output::Probe { probe, asker, .. } = output { Some((*probe, asker.clone())) } else { None }
    };
    outputs.iter().filter_map(probe).collect()
}

/// Which peers are asked, and in which round.
fn asked(outputs: &[Output]) -> Vec<(PeerId, u64)> {
    let ask = |output: &Output| {
        if let Output::Send { peer, message: Message::ProbeAsk { round, .. } } = output {
            Some((peer.clone(), *round))
        } else {
            None
        }
    };
    outputs.iter().filter_map(ask).collect()
}

/// What peers are told about their claims.
fn told(outputs: &[Output]) -> Vec<(PeerId, u64, ClaimResult)> {
    let answer = |output: &Output| {
        if let Output::Send { peer, message: Message::ClaimAnswer(ClaimAnswer { id, result, .. }) } = output {
            Some((peer.clone(), *id, result.clone()))
        } else {
            None
        }
    };
    outputs.iter().filter_map(answer).collect()
}

const fn as_it_is(config: Config) -> Config {
    config
}

#[test]
fn everybody_is_asked_once_and_the_result_holds_for_a_second() {
    let mut home = Home::new(3, as_it_is);
    for room in ["one", "two", "three"] {
        home.joins(room, "s1");
    }
    let began = home.down("one", "s1", "s2");
    let probe = probes(&began)[0].0;
    assert_eq!(probes(&began).len(), 1);
    assert_eq!(asked(&began), [(peer(0), 1), (peer(1), 1), (peer(2), 1)]);
    let second = home.down("two", "s1", "s3");
    assert_eq!((probes(&second), asked(&second), answers(&second)), (vec![], vec![], vec![]));
    home.give(Input::Probed { probe, reached: Reached::No });
    home.answers_probe(0, 1, "s1", Reached::No);
    home.answers_probe(1, 1, "s1", Reached::No);
    let ended = home.answers_probe(2, 1, "s1", Reached::No);
    let moved = |to: &str| Claimed::Stick { shard: shard(to) };
    assert_eq!(answers(&ended), [moved("s2"), moved("s3")]);
    home.run_ms(1_000);
    assert_eq!(answers(&home.down("three", "s1", "s4")), [moved("s4")], "it is fresh");
    home.joins("four", "s1");
    home.run_ms(1);
    assert_eq!(asked(&home.down("four", "s1", "s2")).len(), 3, "it is stale: a second round");
    let stats = home.node.stats();
    assert_eq!((stats.rounds, stats.verdicts_dead, stats.moved), (2, 1, 3));
}

#[test]
fn a_round_ends_in_its_time_and_soon_after_the_first_who_reaches_the_shard() {
    let mut home = Home::new(2, as_it_is);
    home.joins("room", "s1");
    let began = home.down("room", "s1", "s2");
    assert_eq!(answers(&home.run_ms(499)), []);
    assert_eq!(answers(&home.run_ms(1)), [Claimed::Stick { shard: shard("s2") }], "nobody said anything");
    let late = home.give(Input::Probed { probe: probes(&began)[0].0, reached: Reached::Yes });
    assert_eq!(late, []);
    home.run_ms(2_000);
    home.joins("other", "s1");
    home.down("other", "s1", "s2");
    home.run_ms(200);
    home.answers_probe(1, 2, "s1", Reached::Yes);
    assert_eq!(answers(&home.run_ms(99)), []);
    let kept = Claimed::Keep { shard: shard("s1"), via: vec![peer(1)] };
    assert_eq!(answers(&home.run_ms(1)), [kept]);
    assert_eq!(home.node.stats().probe_answers_late, 1);
}

#[test]
fn answers_to_another_round_or_from_nobody_who_was_asked_do_not_count() {
    let mut home = Home::new(2, as_it_is);
    home.joins("room", "s1");
    home.down("room", "s1", "s2");
    home.answers_probe(0, 0, "s1", Reached::Yes);
    home.answers_probe(0, 2, "s1", Reached::Yes);
    home.answers_probe(0, 1, "s2", Reached::Yes);
    home.answers_probe(0, 1, "s1", Reached::No);
    home.answers_probe(0, 1, "s1", Reached::Yes);
    home.give(Input::Probed { probe: ProbeId(99), reached: Reached::Yes });
    assert_eq!(answers(&home.run_ms(500)), [Claimed::Stick { shard: shard("s2") }]);
    assert_eq!(home.node.stats().probe_answers_late, 5);
}

#[test]
fn who_is_lost_counts_as_a_no_and_is_told_nothing() {
    let mut home = Home::new(2, as_it_is);
    home.joins("room", "s1");
    let began = home.down_from(0, 5, "room", "s1");
    home.give(Input::Probed { probe: probes(&began)[0].0, reached: Reached::No });
    home.answers_probe(1, 1, "s1", Reached::No);
    let ended = home.give(Input::PeerLost { peer: peer(0) });
    assert_eq!(told(&ended), []);
    assert_eq!(home.node.lookup(&key("room")), Some(&shard("s1")), "nobody asks any more");
    assert_eq!(home.node.stats().verdicts_dead, 1);
    home.meets(0);
    let again = home.down_from(0, 5, "room", "s1");
    assert_eq!((told(&again).len(), asked(&again).len()), (0, 2), "who was away has not been asked");
}

/// It follows moves from a shard that is dead, also when it alone reaches it.
#[test]
fn who_comes_in_the_middle_is_asked_too() {
    let mut home = Home::new(2, as_it_is);
    home.joins("room", "s1");
    home.give(Input::PeerLost { peer: peer(0) });
    let began = home.down("room", "s1", "s2");
    assert_eq!(asked(&began), [(peer(1), 1)]);
    home.give(Input::Probed { probe: probes(&began)[0].0, reached: Reached::No });
    home.give(Input::PeerConnected { peer: peer(0) });
    assert_eq!(asked(&home.greets(0)), [(peer(0), 1)]);
    assert_eq!(answers(&home.answers_probe(1, 1, "s1", Reached::No)), [], "it is waited for");
    let ended = home.answers_probe(0, 1, "s1", Reached::Yes);
    assert_eq!(answers(&ended), [Claimed::Keep { shard: shard("s1"), via: vec![peer(0)] }]);
}

/// Its answer may have been on the old connection, and a shard that it alone reaches is not dead.
#[test]
fn who_comes_by_another_connection_is_asked_again() {
    let mut home = Home::new(2, as_it_is);
    home.joins("room", "s1");
    let began = home.down("room", "s1", "s2");
    home.give(Input::Probed { probe: probes(&began)[0].0, reached: Reached::No });
    home.answers_probe(1, 1, "s1", Reached::No);
    assert_eq!(answers(&home.give(Input::PeerConnected { peer: peer(0) })), []);
    let greeted = home.greets(0);
    assert_eq!(asked(&greeted), [(peer(0), 1)]);
    let ended = home.answers_probe(0, 1, "s1", Reached::Yes);
    let kept = Claimed::Keep { shard: shard("s1"), via: vec![peer(0)] };
    assert_eq!(answers(&ended), [kept], "nobody else is waited for");
    home.give(Input::PeerConnected { peer: peer(1) });
    assert_eq!(asked(&home.greets(1)), [], "the round is over");
}

/// Whoever asks hears of itself first of all, and of seven others.
#[test]
fn few_of_many_are_named() {
    let mut home = Home::new(20, as_it_is);
    home.joins("room", "s1");
    home.down_from(15, 1, "room", "s1");
    for number in 0..20 {
        home.answers_probe(number, 1, "s1", Reached::Yes);
    }
    let ended = told(&home.run_ms(100));
    let [(to, 1, ClaimResult::Kept { entry, via, .. })] = &ended[..] else { panic!("{ended:?}") };
    assert_eq!((to, entry.generation, via.len()), (&peer(15), 1, VIA_MAX));
    assert!(via.contains(&peer(15)) && via.is_sorted(), "{via:?}");
    let third = told(&home.down_from(3, 1, "room", "s1"));
    let [(_, 1, ClaimResult::Kept { via, .. })] = &third[..] else { panic!("{third:?}") };
    assert_eq!(via, &(0..VIA_MAX).map(peer).collect::<Vec<_>>());
}

#[test]
fn a_key_that_stays_lives_on_and_has_not_moved() {
    let mut home = Home::new(1, as_it_is);
    home.joins("room", "s1");
    home.run_ms(10_000);
    home.down("room", "s1", "s2");
    home.answers_probe(0, 1, "s1", Reached::Yes);
    assert_eq!(answers(&home.run_ms(100)).len(), 1);
    assert_eq!(home.node.entry(&key("room")).unwrap().1, 300_000);
    home.run_ms(2_000);
    home.down("room", "s1", "s2");
    home.answers_probe(0, 2, "s1", Reached::No);
    assert_eq!(answers(&home.run_ms(500)), [Claimed::Stick { shard: shard("s2") }], "no pause holds it");
    assert_eq!((home.node.stats().moved, home.node.stats().claims_kept), (1, 1));
}

#[test]
fn what_waits_is_bounded_and_asked_once() {
    let mut home = Home::new(2, |config| Config { claims_max: 3, ..config });
    for room in ["one", "two", "three", "four"] {
        home.joins(room, "s1");
    }
    assert_eq!(told(&home.down_from(0, 1, "one", "s1")), []);
    assert_eq!(told(&home.down_from(0, 1, "one", "s1")), [], "the same claim again");
    assert_eq!(told(&home.down_from(1, 1, "two", "s1")), []);
    assert_eq!(answers(&home.down("three", "s1", "s2")), []);
    let overload = ClaimResult::Refused(ClaimRefusal::Overload);
    assert_eq!(told(&home.down_from(0, 2, "four", "s1")), [(peer(0), 2, overload)]);
    let unstored = Claimed::Unstored { why: Unstored::Overload };
    assert_eq!(answers(&home.down("four", "s1", "s2")), [unstored]);
    let ended = home.run_ms(500);
    assert_eq!(told(&ended).len(), 2);
    assert_eq!(answers(&ended).len(), 1);
    assert_eq!(home.node.stats().claims_parked_full, 2);
    home.run_ms(2_000);
    home.joins("five", "s1");
    assert_eq!(asked(&home.down("five", "s1", "s2")).len(), 2, "there is room again");
}

/// A peer that invents entries on shards that nobody knows cannot have more than some asked about, and others are asked about soon after.
#[test]
fn invented_shards_are_asked_about_up_to_a_bound() {
    let mut home = Home::new(1, as_it_is);
    let mut refused = 0;
    for id in 0..2_000 {
        let entry = Entry {
            shard: Some(shard(&format!("s{id}"))),
            generation: 1,
            rank: Rank::Home,
            created: Stamp::at(now(home.now_ms).wall),
            origin: peer(0),
            reason: Reason::Claim,
        };
        let claim = Claim {
            id,
            key: key(&format!("room-{id}")),
            known: Some((entry.clone(), 60_000)),
            proposal: Some(shard("elsewhere")),
            reason: Reason::Down,
            held: false,
            failed: entry.shard,
            tried: None,
            hops: 0,
        };
        refused += told(&home.hears(0, Message::Claim(claim))).len();
    }
    assert_eq!((home.node.stats().rounds, refused), (1_024, 976));
    home.run_ms(2_000);
    home.joins("room", "real");
    assert_eq!(asked(&home.down("room", "real", "s2")).len(), 1);
}

/// A peer may ask about so many shards at once; what is beyond is not reached from here, without a probe.
#[test]
fn a_peer_is_probed_for_up_to_a_bound() {
    let mut home = Home::new(2, as_it_is);
    let ask = |round: u64| Message::ProbeAsk { round, shard: shard(&format!("s{round}")) };
    let mut probed = Vec::new();
    for round in 0..1_100 {
        probed.extend(probes(&home.hears(0, ask(round))));
    }
    assert_eq!((probed.len(), home.node.stats().probes_refused), (1_024, 76));
    assert_eq!(probes(&home.hears(0, ask(7))), [], "it is under way");
    assert_eq!(probes(&home.hears(1, ask(7))).len(), 1, "another peer has its own");
    let said = home.give(Input::Probed { probe: probed[7].0, reached: Reached::Yes });
    let answer = Message::ProbeAnswer { round: 7, shard: shard("s7"), reached: Reached::Yes };
    assert!(said.contains(&Output::Send { peer: peer(0), message: answer }), "{said:?}");
    assert_eq!(probes(&home.hears(0, ask(7))).len(), 1);
    home.give(Input::PeerLost { peer: peer(0) });
    assert_eq!(home.give(Input::Probed { probe: probed[9].0, reached: Reached::Yes }), []);
    home.meets(0);
    assert_eq!(probes(&home.hears(0, ask(9))).len(), 1, "for its new start, under a number of its own");
    home.run_ms(3_000);
    assert_eq!(probes(&home.hears(1, ask(7))).len(), 1, "what nobody waits for is forgotten");
}

/// The node stands still for half a minute in the middle of a round.
#[test]
fn a_node_that_starts_anew_has_no_rounds() {
    let mut home = Home::new(1, as_it_is);
    home.joins("room", "s1");
    let began = home.down("room", "s1", "s2");
    home.now_ms += 40_000;
    let resumed = home.give(Input::Probed { probe: probes(&began)[0].0, reached: Reached::No });
    assert_eq!(answers(&resumed), [Claimed::Unstored { why: Unstored::Restarted }]);
    assert_eq!(home.node.stats().verdicts_dead, 0);
    assert_eq!(home.node.stats().probe_answers_late, 1);
}

#[test]
fn the_word_of_operators_needs_no_probe() {
    let mut home = Home::new(1, as_it_is);
    home.joins("room", "s1");
    let moved = home.asks("room", ClaimReason::Maint { failed: shard("s1") }, "s2");
    assert_eq!((answers(&moved), probes(&moved)), (vec![Claimed::Stick { shard: shard("s2") }], vec![]));
    assert_eq!(home.node.entry(&key("room")).unwrap().0.reason, Reason::Operator);
    let again = home.asks("room", ClaimReason::Maint { failed: shard("s2") }, "s3");
    assert_eq!(answers(&again), [Claimed::Stick { shard: shard("s2") }], "one move in 30 s");
}

/// A node asks a far home: it waits for what a round there takes, and then, as the other home, decides at once: nobody has an entry.
#[test]
fn a_claim_that_needs_a_round_has_a_longer_budget() {
    let homes = [me(), peer(0)];
    let of_peer = |room: &String| first_by_rendezvous(&key(room), homes.iter()) == Some(&homes[1]);
    let room = (0..).map(|number| format!("room-{number}")).find(of_peer).unwrap();
    for (rtt_ms, join_ms, down_ms) in [(10, 300, 920), (200, 500, 1_500), (2_000, 1_000, 2_600)] {
        let down = ClaimReason::Down { failed: shard("s1") };
        for (reason, most_ms) in [(ClaimReason::Join, join_ms), (down, down_ms)] {
            let mut asker = Home::new(1, as_it_is);
            let digest = Digest { as_of: AsOf::NOW, ranges: [0; 16] };
            asker.hears(0, Message::Heartbeat(Heartbeat { ready: true, digest }));
            asker.give(Input::RoundTrip { peer: peer(0), rtt_ms });
            assert_eq!(answers(&asker.asks(&room, reason, "s2")), []);
            assert_eq!(answers(&asker.run_ms(most_ms - 1)), [], "{rtt_ms} ms away");
            assert_eq!(answers(&asker.run_ms(1)).len(), 1, "{rtt_ms} ms away");
        }
    }
}

/// What comes while a round runs.
#[derive(Debug, Clone, Copy)]
enum Event {
    Own(Reached),
    Answer { from: usize, round: u64, reached: Reached },
    Lost(usize),
    Replaced(usize),
    Wait(u64),
    Claim { from: usize, id: u64 },
}

fn event() -> impl Strategy<Value = Event> {
    let reached = || prop_oneof![4 => Just(Reached::No), 1 => Just(Reached::Yes)];
    prop_oneof![
        1 => reached().prop_map(Event::Own),
        6 => (0..4_usize, prop_oneof![5 => Just(1_u64), 1 => Just(0), 1 => Just(2)], reached())
            .prop_map(|(from, round, reached)| Event::Answer { from, round, reached }),
        1 => (0..4_usize).prop_map(Event::Lost),
        1 => (0..4_usize).prop_map(Event::Replaced),
        3 => (0..200_u64).prop_map(Event::Wait),
        2 => (0..4_usize, 0..3_u64).prop_map(|(from, id)| Event::Claim { from, id }),
    ]
}

proptest! {
    /// In whatever order answers come: the shard is dead exactly when nobody who was asked said in time that it is reached, the round ends in
    /// its time, and every claim is answered once, all in the same way.
    #[test]
    fn a_verdict_is_what_was_said_in_its_round(events in proptest::collection::vec(event(), 0..24)) {
        let mut home = Home::new(4, as_it_is);
        for room in 0..12 {
            home.joins(&format!("room-{room}"), "s1");
        }
        home.joins("own", "s1");
        let began_ms = home.now_ms;
        let began = home.down("own", "s1", "s2");
        let own = probes(&began)[0].0;
        let mut waits_for: BTreeSet<usize> = (0..=4).collect();
        let mut heard: BTreeSet<usize> = BTreeSet::new();
        let mut yes: BTreeSet<usize> = BTreeSet::new();
        let mut ends = began_ms + 500;
        let mut claims: BTreeMap<(usize, u64), usize> = BTreeMap::new();
        let mut lost: BTreeSet<usize> = BTreeSet::new();
        let mut outputs = began;
        for event in events {
            if answers(&outputs).len() == 1 {
                break;
            }
            let counted = match event {
                Event::Own(reached) => {
                    outputs.extend(home.give(Input::Probed { probe: own, reached }));
                    Some((4, reached))
                }
                Event::Answer { from, round, reached } => {
                    outputs.extend(home.answers_probe(from, round, "s1", reached));
                    (round == 1).then_some((from, reached))
                }
                Event::Lost(from) => {
                    outputs.extend(home.give(Input::PeerLost { peer: peer(from) }));
                    claims.retain(|(of, _), _| *of != from);
                    lost.insert(from);
                    // Nobody waits for it any more; it has said nothing.
                    waits_for.remove(&from);
                    None
                }
                Event::Replaced(from) => {
                    outputs.extend(home.give(Input::PeerConnected { peer: peer(from) }));
                    claims.retain(|(of, _), _| *of != from);
                    lost.remove(&from);
                    let greeted = home.greets(from);
                    prop_assert_eq!(asked(&greeted).len(), usize::from(!heard.contains(&from)));
                    if !heard.contains(&from) {
                        waits_for.insert(from);
                    }
                    outputs.extend(greeted);
                    None
                }
                Event::Wait(ms) => {
                    let ms = ms.min(ends - home.now_ms);
                    outputs.extend(home.run_ms(ms));
                    None
                }
                Event::Claim { from, id } => {
                    let room = format!("room-{}", from * 3 + usize::try_from(id).unwrap());
                    outputs.extend(home.down_from(from, id, &room, "s1"));
                    if !lost.contains(&from) {
                        claims.entry((from, id)).or_insert(0);
                    }
                    None
                }
            };
            if let Some((from, reached)) = counted.filter(|(from, _)| waits_for.contains(from)) {
                waits_for.remove(&from);
                heard.insert(from);
                if reached == Reached::Yes {
                    if yes.is_empty() {
                        ends = ends.min(home.now_ms + 100);
                    }
                    yes.insert(from);
                }
            }
            let over = waits_for.is_empty() || home.now_ms >= ends;
            prop_assert_eq!(answers(&outputs).len(), usize::from(over));
        }
        outputs.extend(home.run_ms(600));
        let answer = answers(&outputs);
        prop_assert_eq!(answer.len(), 1);
        let name = |number: &usize| if *number == 4 { me() } else { peer(*number) };
        if yes.is_empty() {
            prop_assert_eq!(&answer[0], &Claimed::Stick { shard: shard("s2") });
        } else {
            let mut via: Vec<PeerId> = yes.iter().map(name).collect();
            via.sort();
            prop_assert_eq!(&answer[0], &Claimed::Keep { shard: shard("s1"), via });
        }
        for (to, id, result) in told(&outputs) {
            let from = (0..4).find(|number| peer(*number) == to).unwrap();
            if let Some(count) = claims.get_mut(&(from, id)) {
                *count += 1;
            }
            let kept = matches!(result, ClaimResult::Kept { .. });
            prop_assert_eq!(kept, !yes.is_empty(), "{:?}", result);
        }
        prop_assert!(claims.values().all(|count| *count == 1), "{:?}", claims);
        prop_assert_eq!(home.node.stats().rounds, 1);
    }
}
