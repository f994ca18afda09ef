//! Stories of a few nodes in virtual time over links that delay and can be cut.
#![expect(clippy::unwrap_used, reason = "what fails here fails the test")]

mod world;

use shardgate_peering_core::{
    ClaimReason, Claimed, Config, Input, LinkState, Message, Output, Rank, Unstored, Update, Violation,
};
use world::{World, key, peer, shard};

const TTL_MS: u64 = 10_000;

fn down(failed: &str) -> ClaimReason {
    ClaimReason::Down { failed: shard(failed) }
}

#[test]
fn first_joins_at_two_nodes_at_once_get_one_shard() {
    let mut world = World::ready(&["a", "b", "c"]);
    for n in 0..200 {
        let room = format!("room-{n}");
        let first = world.claim("a", &room, "s1", ClaimReason::Join);
        let second = world.claim("b", &room, "s2", ClaimReason::Join);
        world.run_ms(500);
        assert_eq!(world.answer(first), world.answer(second), "{room}");
    }
    assert_eq!(world.stat("a", |s| s.decided_alone) + world.stat("b", |s| s.decided_alone), 0);
    world.assert_equal_tables();
}

#[test]
fn a_known_key_asks_nobody() {
    let mut world = World::ready(&["a", "b"]);
    world.join("a", "room", "s1");
    world.run_ms(100);
    let asked = world.stat("b", |s| s.claims_asked);
    assert_eq!(world.join("b", "room", "s2"), "s1");
    assert_eq!(world.stat("b", |s| s.claims_asked), asked);
}

#[test]
fn a_hung_home_costs_one_budget_and_the_next_home_decides() {
    let mut world = World::ready(&["a", "b", "c"]);
    let room = world.room_with_home("c");
    world.hang("c");
    let started = world.now_ms();
    let first = world.claim("a", &room, "s1", ClaimReason::Join);
    let second = world.claim("b", &room, "s2", ClaimReason::Join);
    world.run_until(|world| world.answered(first) && world.answered(second), 2_000);
    assert_eq!(world.answer(first), world.answer(second));
    assert!(world.now_ms() - started <= 450, "one budget and a round trip, not two");
    assert_eq!(world.stat("a", |s| s.decided_alone) + world.stat("b", |s| s.decided_alone), 0);
}

#[test]
fn a_cut_off_node_decides_alone_and_claims_it_later() {
    let mut world = World::ready(&["a", "b"]);
    let room = world.room_with_home("b");
    world.cut_silently("a", "b");
    let token = world.claim("a", &room, "s1", ClaimReason::Join);
    world.run_until(|world| world.answered(token), 3_000);
    // The next home after the silent one is the node itself: its word counts as a home's.
    assert_eq!(world.entry("a", &room).map(|entry| entry.rank), Some(Rank::Home));
    world.heal_silently("a", "b");
    world.run_ms(3_000);
    assert_eq!(world.lookup("b", &room).as_deref(), Some("s1"));
}

#[test]
fn both_sides_of_a_cut_serve_and_agree_after_it() {
    let mut world = World::ready(&["a", "b", "c", "d"]);
    for one in ["a", "b"] {
        for other in ["c", "d"] {
            world.cut(one, other);
        }
    }
    for n in 0..50 {
        world.join("a", &format!("room-{n}"), "s1");
        world.join("d", &format!("room-{n}"), "s2");
    }
    world.heal_all();
    world.run_ms(3_000);
    world.assert_equal_tables();
    assert_eq!(world.lookup("d", "room-7").as_deref(), Some("s1"), "the earlier decision wins");
}

#[test]
fn an_entry_lives_as_long_as_its_tunnel_on_every_node_and_one_ttl_more() {
    let mut world = World::ready(&["a", "b", "c"]);
    for n in 0..20 {
        let room = format!("room-{n}");
        world.join("a", &room, "s1");
        world.open("a", &room, "s1");
    }
    for _ in 0..30 {
        world.run_ms(TTL_MS / 4);
        for n in 0..20 {
            for node in ["a", "b", "c"] {
                assert_eq!(world.lookup(node, &format!("room-{n}")).as_deref(), Some("s1"), "at {node}");
            }
        }
    }
    for n in 0..20 {
        world.close("a", &format!("room-{n}"), "s1");
    }
    world.run_ms(TTL_MS - 1_000);
    assert_eq!(world.lookup("c", "room-0").as_deref(), Some("s1"), "one ttl after the last use");
    world.run_ms(TTL_MS / 2);
    for node in ["a", "b", "c"] {
        assert_eq!(world.len(node), 0, "ended at {node}");
    }
    // Tombstones go too.
    world.run_ms(TTL_MS * 4);
    assert!(world.entry("b", "room-0").is_none());
}

#[test]
fn touches_at_a_node_that_is_not_the_home_keep_the_entry() {
    let mut world = World::ready(&["a", "b"]);
    let room = world.room_with_home("b");
    world.join("a", &room, "s1");
    for _ in 0..40 {
        world.run_ms(TTL_MS / 8);
        world.touch("a", &room);
    }
    assert_eq!(world.lookup("b", &room).as_deref(), Some("s1"));
    world.run_ms(TTL_MS * 2);
    assert_eq!(world.lookup("a", &room), None);
    assert_eq!(world.join("b", &room, "s2"), "s2", "a new conference of the same name");
    world.run_ms(200);
    assert_eq!(world.lookup("a", &room).as_deref(), Some("s2"));
}

#[test]
fn a_first_use_elsewhere_late_in_the_lease_keeps_the_entry() {
    let mut world = World::ready(&["a", "b", "c"]);
    let room = world.room_with_home("c");
    world.join("a", &room, "s1");
    world.run_ms(TTL_MS / 10 * 9);
    world.touch("b", &room);
    for _ in 0..4 {
        world.run_ms(TTL_MS / 10 * 8);
        assert_eq!(world.lookup("c", &room).as_deref(), Some("s1"));
        world.touch("b", &room);
    }
    world.run_ms(TTL_MS * 2);
    assert_eq!(world.lookup("b", &room), None);
}

#[test]
fn who_stands_in_for_a_lost_home_ends_nothing() {
    let mut world = World::ready(&["a", "b", "c"]);
    let room = world.room_with_home("c");
    world.join("a", &room, "s1");
    world.run_ms(TTL_MS / 6);
    world.open("b", &room, "s1");
    world.run_ms(TTL_MS / 2);
    world.crash("c");
    for _ in 0..30 {
        world.run_ms(TTL_MS / 10);
        for node in ["a", "b"] {
            assert_eq!(world.lookup(node, &room).as_deref(), Some("s1"), "at {node}");
        }
    }
    assert_eq!(world.stat("a", |s| s.ended) + world.stat("b", |s| s.ended), 0);
    world.close("b", &room, "s1");
    world.run_ms(TTL_MS * 3);
    assert_eq!((world.len("a"), world.len("b")), (0, 0), "the backstop of each node");
}

#[test]
fn a_reconciliation_that_broke_off_begins_anew() {
    let mut world =
        World::with(&["a", "b"], |config| Config { log_max: 8, batch_items: 4, gives_window: 1, ..config });
    world.settle();
    world.cut("a", "b");
    for n in 0..60 {
        world.claim("a", &format!("room-{n}"), "s1", ClaimReason::Join);
    }
    world.heal_all();
    // A few gifts have come, and an update that overtook the rest.
    world.run_ms(250);
    world.claim("a", "overtakes", "s1", ClaimReason::Join);
    world.run_ms(60);
    assert!(world.len("b") < 40, "in the middle of it: {}", world.len("b"));
    world.cut("a", "b");
    world.heal_all();
    world.run_ms(3_000);
    world.assert_equal_tables();
}

#[test]
fn ended_rooms_take_no_place_from_living_ones() {
    let mut world = World::with(&["a", "b"], |config| Config { entries_max: 100, ..config });
    world.settle();
    for round in 0..3 {
        for n in 0..60 {
            world.claim("a", &format!("room-{round}-{n}"), "s1", ClaimReason::Join);
        }
        world.run_ms(TTL_MS / 4 * 5);
    }
    world.join("a", "one-more", "s1");
    world.run_ms(500);
    assert_eq!(world.lookup("b", "one-more").as_deref(), Some("s1"));
    assert_eq!(world.stat("b", |s| s.dropped_full), 0);
}

#[test]
fn a_conference_created_anew_ends_in_its_time() {
    let mut world = World::ready(&["a", "b"]);
    world.join("a", "room", "s1");
    world.run_ms(TTL_MS / 2 * 3);
    assert_eq!(world.lookup("a", "room"), None);
    world.join("a", "room", "s2");
    world.run_ms(TTL_MS / 2 * 3);
    assert_eq!((world.lookup("a", "room"), world.lookup("b", "room")), (None, None));
}

#[test]
fn nothing_meant_for_an_old_connection_goes_out_before_the_hello_of_the_next() {
    let mut world = World::ready(&["a", "b"]);
    let update = Message::Update(Update { through: 50, items: Vec::new() });
    let outputs = world.inject_together(
        "a",
        vec![
            Input::Received { peer: peer("b"), message: update },
            Input::PeerLost { peer: peer("b") },
            Input::PeerConnected { peer: peer("b") },
        ],
    );
    let sent: Vec<&str> = outputs
        .iter()
        .filter_map(
            |output| if let Output::Send { message, .. } = output { Some(message.kind()) } else { None },
        )
        .collect();
    assert_eq!(sent, ["hello"]);
}

#[test]
fn a_held_key_whose_claim_was_refused_is_claimed_again() {
    let mut world = World::with(&["a"], |config| Config { entries_max: 1, ..config });
    world.settle();
    world.join("a", "first", "s1");
    world.open("a", "held", "s2");
    world.run_ms(100);
    assert_eq!(world.lookup("a", "held"), None, "the table is full");
    world.run_ms(TTL_MS * 2);
    assert_eq!(world.lookup("a", "held").as_deref(), Some("s2"), "the first room ended and left its place");
}

#[test]
fn an_end_that_meets_an_open_tunnel_is_answered_with_a_claim() {
    let mut world = World::ready(&["a", "b"]);
    let room = world.room_with_home("b");
    world.join("b", &room, "s1");
    world.run_ms(500);
    world.cut("a", "b");
    world.open("a", &room, "s1");
    world.run_ms(TTL_MS * 3);
    assert_eq!(world.lookup("b", &room), None, "b heard nothing of a's tunnel and dropped it");
    assert_eq!(world.lookup("a", &room).as_deref(), Some("s1"));
    world.heal_all();
    world.run_ms(3_000);
    assert_eq!(world.lookup("b", &room).as_deref(), Some("s1"), "a holds it and said so");
    assert_eq!(world.lookup("a", &room).as_deref(), Some("s1"));
}

#[test]
fn a_dead_shard_moves_each_conference_once_for_everyone() {
    let mut world = World::ready(&["a", "b", "c"]);
    world.join("a", "room", "s1");
    world.run_ms(200);
    let tokens: Vec<_> = ["a", "b", "c"]
        .into_iter()
        .zip(["s2", "s3", "s4"])
        .map(|(node, proposal)| world.claim(node, "room", proposal, down("s1")))
        .collect();
    world.run_ms(1_000);
    let answers: Vec<_> = tokens.iter().map(|token| world.answer(*token)).collect();
    assert!(answers.iter().all(|answer| *answer == answers[0]), "{answers:?}");
    assert_eq!(world.entry("b", "room").map(|entry| entry.generation), Some(2));
    // The new one fails at once: within the pause the conference stays.
    let Claimed::Stick { shard: new } = answers[0].clone() else { panic!("{answers:?}") };
    let again = world.claim("b", "room", "s9", down(new.as_str()));
    world.run_ms(1_000);
    assert_eq!(world.answer(again), Claimed::Stick { shard: new.clone() });
    world.open("a", "room", new.as_str());
    world.run_ms(30_000);
    let later = world.claim("b", "room", "s9", down(new.as_str()));
    world.run_ms(1_000);
    assert_eq!(
        world.answer(later),
        Claimed::Stick { shard: shard("s9") },
        "after the pause it may move again"
    );
}

#[test]
fn sessions_on_the_wrong_shard_are_told() {
    let mut world = World::ready(&["a", "b"]);
    world.join("a", "room", "s1");
    world.open("a", "room", "s1");
    world.run_ms(200);
    world.claim("b", "room", "s2", down("s1"));
    world.run_ms(500);
    assert_eq!(world.moves("a"), [("room".to_owned(), "s2".to_owned())]);
    assert!(world.moves("b").is_empty(), "b has no sessions");
    world.open("b", "room", "s1");
    assert_eq!(world.moves("b").len(), 1, "a tunnel that opened too late is told at once");
}

#[test]
fn a_restarted_node_learns_the_whole_table_and_is_ready_only_then() {
    let mut world = World::ready(&["a", "b"]);
    for n in 0..2_000 {
        world.claim("a", &format!("room-{n}"), "s1", ClaimReason::Join);
    }
    world.run_ms(500);
    world.restart("b");
    assert_eq!(world.len("b"), 0);
    assert!(!world.is_ready("b"));
    world.run_until(|world| world.is_ready("b"), 2_000);
    assert_eq!(world.len("b"), 2_000, "ready means taught");
    world.assert_equal_tables();
}

#[test]
fn a_short_break_continues_from_the_log() {
    let mut world = World::ready(&["a", "b"]);
    world.join("a", "before", "s1");
    world.run_ms(500);
    let before = world.stat("a", |s| s.reconciliations) + world.stat("b", |s| s.reconciliations);
    world.cut("a", "b");
    for n in 0..100 {
        world.join("a", &format!("room-{n}"), "s1");
    }
    world.heal_all();
    world.run_ms(2_000);
    world.assert_equal_tables();
    let after = world.stat("a", |s| s.reconciliations) + world.stat("b", |s| s.reconciliations);
    assert_eq!(after, before, "nothing was reconciled");
    assert!(world.stat("a", |s| s.hellos_resumed) >= 1);
}

#[test]
fn a_log_that_does_not_reach_is_reconciled() {
    let mut world = World::with(&["a", "b"], |config| Config { log_max: 10, ..config });
    world.settle();
    world.cut("a", "b");
    for n in 0..100 {
        world.join("a", &format!("room-{n}"), "s1");
    }
    world.heal_all();
    world.run_ms(2_000);
    world.assert_equal_tables();
}

#[test]
fn a_home_lost_after_answering_is_announced_by_the_asker() {
    let mut world = World::ready(&["a", "b", "c"]);
    let room = world.room_with_home("c");
    world.cut("b", "c");
    world.join("a", &room, "s1");
    world.crash("c");
    world.run_ms(500);
    assert_eq!(world.lookup("b", &room).as_deref(), Some("s1"));
}

#[test]
fn a_full_table_of_held_keys_refuses_new_ones() {
    let mut world = World::with(&["a"], |config| Config { entries_max: 3, ..config });
    world.settle();
    for n in 0..3 {
        world.join("a", &format!("room-{n}"), "s1");
        world.open("a", &format!("room-{n}"), "s1");
    }
    let token = world.claim("a", "one-more", "s1", ClaimReason::Join);
    world.run_ms(10);
    assert_eq!(world.answer(token), Claimed::Unstored { why: Unstored::TableFull });
    assert_eq!(world.join("a", "room-1", "s2"), "s1");
}

#[test]
fn a_full_table_ends_early_what_nobody_holds() {
    let mut world = World::with(&["a", "b"], |config| Config { entries_max: 20, ..config });
    world.settle();
    world.run_ms(TTL_MS);
    for n in 0..20 {
        world.join("a", &format!("room-{n}"), "s1");
        if n % 2 == 0 {
            world.open("b", &format!("room-{n}"), "s1");
        }
    }
    world.run_ms(500);
    for n in 0..6 {
        world.join(["a", "b"][n % 2], &format!("new-{n}"), "s1");
        world.run_ms(200);
    }
    world.run_ms(500);
    for n in (0..20).step_by(2) {
        assert_eq!(world.lookup("b", &format!("room-{n}")).as_deref(), Some("s1"), "held: room-{n}");
    }
    assert_eq!((world.len("a"), world.len("b")), (20, 20));
    let ended = world.stat("a", |s| s.ended_early) + world.stat("b", |s| s.ended_early);
    assert_eq!(ended, 6);
}

#[test]
fn a_paused_node_starts_anew_and_claims_for_its_tunnels() {
    let mut world = World::ready(&["a", "b", "c"]);
    world.join("a", "room", "s1");
    world.open("c", "room", "s1");
    world.join("a", "other", "s1");
    world.run_ms(500);
    world.pause("c", 60_000);
    assert_eq!(world.lookup("a", "other"), None, "it ended meanwhile");
    world.run_until(|world| world.is_ready("c"), 5_000);
    world.run_ms(2_000);
    assert_eq!(world.lookup("c", "other"), None, "nothing comes back from the past");
    for node in ["a", "b", "c"] {
        assert_eq!(world.lookup(node, "room").as_deref(), Some("s1"), "claimed for the tunnel, at {node}");
    }
    assert_eq!(world.stat("c", |s| s.restarts_in_place), 1);
    world.assert_equal_tables();
}

#[test]
fn what_only_one_node_was_told_reaches_all_by_digests() {
    let mut world = World::ready(&["a", "b", "c"]);
    // A decision of a node that nobody will hear of again, told to a alone.
    for n in 0..40 {
        let item = world::item(&format!("room-{n}"), "s1", 1, world.stamp());
        let message = Message::Correction { items: vec![item] };
        world.inject("a", Input::Received { peer: peer("b"), message });
    }
    world.run_ms(500);
    assert_eq!((world.len("a"), world.len("b"), world.len("c")), (40, 0, 0));
    world.run_ms(6_500);
    world.assert_equal_tables();
    assert_eq!(world.len("c"), 40);
}

#[test]
fn hostile_peers_are_disconnected_and_change_nothing() {
    let stranger = || Message::Ack { through: u64::MAX };
    let cases: Vec<(&str, Message, Violation)> = vec![
        ("acknowledges what was never sent", stranger(), Violation::AckBeyondSent),
        ("a second hello", world::hello(7), Violation::GreetedTwice),
        (
            "the largest generation",
            Message::Correction { items: vec![world::item("room", "evil", u32::MAX, 1)] },
            Violation::AbsurdEntry,
        ),
        (
            "the year 2100",
            Message::Correction { items: vec![world::item("room", "evil", 1, 4_102_444_800_000 << 16)] },
            Violation::AbsurdEntry,
        ),
    ];
    for (why, message, expected) in cases {
        let mut world = World::ready(&["a", "b"]);
        world.join("a", "room", "s1");
        let outputs = world.inject("a", Input::Received { peer: peer("b"), message });
        assert!(
            outputs.contains(&Output::Disconnect { peer: peer("b"), violation: expected }),
            "{why}: {outputs:?}"
        );
        assert_eq!(world.lookup("a", "room").as_deref(), Some("s1"), "{why}");
    }
    let mut world = World::ready(&["a", "b"]);
    let update = |through| Message::Update(Update { through, items: Vec::new() });
    world.inject("a", Input::Received { peer: peer("b"), message: update(50) });
    let outputs = world.inject("a", Input::Received { peer: peer("b"), message: update(49) });
    assert!(outputs.contains(&Output::Disconnect { peer: peer("b"), violation: Violation::NumberWentBack }));
}

#[test]
fn messages_before_the_hello_and_unlisted_peers_are_refused() {
    let mut world = World::with(&["a", "b"], |config| config);
    world.inject("a", Input::PeersChanged { listed: vec![peer("b")] });
    world.inject("a", Input::PeerConnected { peer: peer("b") });
    let outputs =
        world.inject("a", Input::Received { peer: peer("b"), message: Message::Ack { through: 0 } });
    assert!(outputs.contains(&Output::Disconnect { peer: peer("b"), violation: Violation::NotGreeted }));
    let outputs = world.inject("a", Input::PeerConnected { peer: peer("stranger") });
    assert!(
        outputs.contains(&Output::Disconnect { peer: peer("stranger"), violation: Violation::NotListed })
    );
}

#[test]
fn a_lifetime_from_outside_is_clamped() {
    let mut world = World::ready(&["a", "b"]);
    let mut item = world::item("room", "s1", 1, 1);
    item.remaining_ms = u64::MAX;
    world
        .inject("a", Input::Received { peer: peer("b"), message: Message::Correction { items: vec![item] } });
    assert!(world.remaining_ms("a", "room") <= TTL_MS);
}

#[test]
fn the_same_story_gives_the_same_trace() {
    let story = || {
        let mut world = World::ready(&["a", "b", "c"]);
        for n in 0..100 {
            world.join(["a", "b", "c"][n % 3], &format!("room-{n}"), ["s1", "s2"][n % 2]);
        }
        world.cut("a", "b");
        world.run_ms(TTL_MS);
        world.heal_all();
        world.run_ms(TTL_MS);
        world.trace_hash()
    };
    assert_eq!(story(), story());
}

#[test]
fn peers_that_cannot_be_reached_do_not_keep_a_node_from_being_ready() {
    let mut world = World::with(&["a", "b"], |config| config);
    world.inject("a", Input::PeersChanged { listed: vec![peer("a"), peer("b"), peer("gone")] });
    assert!(!world.is_ready("a"));
    world.inject("a", Input::DialFailed { peer: peer("b") });
    assert!(!world.is_ready("a"));
    world.inject("a", Input::DialFailed { peer: peer("gone") });
    assert!(world.is_ready("a"));
    assert_eq!(world.link("a", "gone"), LinkState::Down);
    world.inject("b", Input::PeersChanged { listed: vec![peer("a")] });
    world.inject("b", Input::PeerConnected { peer: peer("a") });
    world.inject("b", Input::PeerLost { peer: peer("a") });
    assert!(!world.is_ready("b"), "a connection that ended early may come back");
    world.inject("b", Input::DialFailed { peer: peer("a") });
    assert!(world.is_ready("b"), "it will not");
    assert_eq!(world.entry("a", &key("nothing").to_string()), None);
}
