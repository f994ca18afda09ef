use super::*;
use shardgate_peering_core::{
    ClaimReason, ClaimToken, Claimed, Config, Input, Output, PeerId, ShardName, StickKey,
};

fn three() -> World {
    let mut world = World::new(7, Delay::Range(5, 40));
    for name in ["a", "b", "c"] {
        world.add(Config { ttl_ms: 10_000, ..Config::new(PeerId::parse(name).unwrap(), 1) });
    }
    for seat in 0..3 {
        world.start(seat, &mut Silent);
        world.list(seat, &[0, 1, 2], &mut Silent);
    }
    assert!(world.run_until(2_000, &mut Silent, |world| (0..3).all(|seat| world.is_ready(seat))));
    // Until all know that all are ready.
    world.run_ms(100, &mut Silent);
    world
}

#[derive(Default)]
struct Seen {
    answers: Vec<(Seat, Claimed)>,
    links: Vec<String>,
}

impl Watch for Seen {
    fn output(&mut self, scene: &Scene<'_>, output: &Output) {
        if let Output::Answered { claimed, .. } = output {
            self.answers.push((scene.seat, claimed.clone()));
        }
    }
    fn network(&mut self, now_ms: u64, what: &Network<'_>) {
        if let Network::Connected(a, b) = what {
            self.links.push(format!("{now_ms} {a}+{b}"));
        }
        if let Network::Disconnected(a, b) = what {
            self.links.push(format!("{now_ms} {a}-{b}"));
        }
    }
}

fn join(world: &mut World, seat: Seat, room: &str, seen: &mut Seen) {
    let proposal = ShardName::parse(&format!("s{seat}")).unwrap();
    let key = StickKey::parse(room).unwrap();
    let token = ClaimToken(seat as u64);
    world.inject(seat, Input::Claim { token, key, proposal, reason: ClaimReason::Join }, seen);
}

#[test]
fn racing_joins_meet_and_the_trace_repeats() {
    let story = || {
        let mut world = three();
        let mut seen = Seen::default();
        for n in 0..50 {
            for seat in 0..3 {
                join(&mut world, seat, &format!("room-{n}"), &mut seen);
            }
            world.run_ms(1_000, &mut seen);
            assert_eq!(seen.answers.len(), 3);
            assert!(
                seen.answers.iter().all(|(_, answer)| *answer == seen.answers[0].1),
                "{:?}",
                seen.answers
            );
            seen.answers.clear();
        }
        world.trace_hash()
    };
    assert_eq!(story(), story());
}

#[test]
fn a_one_way_block_ends_the_connection_for_both_and_it_comes_back() {
    let mut world = three();
    let mut seen = Seen::default();
    let began = world.now_ms();
    world.block(0, 1);
    world.run_ms(IDLE_MS - 1, &mut seen);
    assert!(seen.links.is_empty() && world.sees_connection(0, 1));
    world.run_ms(200, &mut seen);
    assert_eq!(seen.links.len(), 2, "the one who heard nothing closed it: {:?}", seen.links);
    assert_eq!(seen.links[0], format!("{} 1-0", began + IDLE_MS));
    world.run_ms(10_000, &mut seen);
    assert_eq!(seen.links.len(), 2);
    world.heal();
    world.run_ms(1_000, &mut seen);
    assert!(world.is_connected(0, 1));
}

#[test]
fn what_a_short_block_or_a_clog_holds_arrives_late() {
    let mut world = three();
    let mut seen = Seen::default();
    for other in 1..3 {
        world.clog(0, other);
        world.clog(other, 0);
    }
    join(&mut world, 0, "room", &mut seen);
    world.run_ms(5_000, &mut seen);
    assert_eq!(seen.answers.len(), 1, "alone");
    assert!(seen.links.is_empty(), "a clog is not noticed");
    world.heal();
    world.run_ms(1_500, &mut seen);
    let key = StickKey::parse("room").unwrap();
    assert!((0..3).all(|seat| world.node(seat).unwrap().lookup(&key).is_some()));
}

#[test]
fn a_crash_is_noticed_by_silence_or_by_the_next_connection() {
    let mut world = three();
    let mut seen = Seen::default();
    world.crash(2, &mut seen);
    world.run_ms(500, &mut seen);
    assert!(world.sees_connection(0, 2), "nobody knows yet");
    world.start(2, &mut seen);
    world.list(2, &[0, 1, 2], &mut seen);
    world.run_ms(1_000, &mut seen);
    assert!(world.is_connected(0, 2) && world.is_ready(2));
    assert!(seen.links.iter().all(|link| link.contains('+')), "replaced: {:?}", seen.links);
    world.crash(2, &mut seen);
    world.run_ms(IDLE_MS + 1, &mut seen);
    assert!(!world.sees_connection(0, 2));
}

#[test]
fn a_paused_node_gets_everything_late() {
    let mut world = three();
    let mut seen = Seen::default();
    world.pause(1, Sleep::Machine);
    let mono = world.clocks(1).mono;
    join(&mut world, 1, "room", &mut seen);
    world.run_ms(2_000, &mut seen);
    assert!(seen.answers.is_empty());
    world.resume(1, &mut seen);
    assert_eq!(world.clocks(1).mono, mono, "the machine slept");
    world.run_ms(1_000, &mut seen);
    assert_eq!(seen.answers.len(), 1);
    assert_eq!(seen.links.len(), 0, "shorter than the idle timeout");
    world.pause(1, Sleep::Process);
    world.run_ms(60_000, &mut seen);
    assert!(!world.sees_connection(0, 1) && world.sees_connection(1, 0));
    world.resume(1, &mut seen);
    world.run_ms(5_000, &mut seen);
    assert!(world.is_connected(0, 1));
}
