//! Two honest nodes with messages under way, a hostile one beside them: when it is gone, both hold the same.

use std::collections::BTreeSet;

use shardgate_peering::core::{Config, PeerId, STAMP_AHEAD_MAX_MS};

use super::bytes::Bytes;
use super::hostile::peer;
use super::observed::Decisions;
use super::world::{CLOCK_JUMP_MS, Delivery, World};

/// How long two nodes may differ once nobody lies to them any more.
const AGREED_WITHIN_MS: u64 = 20_000;

/// A table that takes every key there is.
fn roomy(config: Config) -> Config {
    Config {
        ttl_ms: 60_000,
        entries_max: 64,
        log_max: 4_096,
        batch_items: 4,
        window_items: 16,
        gives_window: 2,
        move_pause_ms: 2_000,
        ..config
    }
}

/// The bytes choose who acts, and which message arrives next.
pub fn mesh(data: &[u8]) {
    let mut bytes = Bytes::new(data);
    let mut world = World::new(Delivery::Chosen, roomy);
    for name in world.names() {
        world.connect_hostile(&name);
    }
    for _ in 0..400 {
        if bytes.is_empty() {
            break;
        }
        let at = peer(if bytes.flag() { "a" } else { "b" });
        match bytes.below(16) {
            0..=2 => world.client_acts(&at, &mut bytes),
            3 => world.time_passes(&mut bytes),
            4 => world.link(),
            5 => world.unlink(),
            6..=9 => {
                world.deliver(usize::from(bytes.byte()));
            }
            10 => world.deliver_all(),
            _ => world.hostile_acts(&at, &mut bytes),
        }
    }
    world.list_hostile(false);
    world.link();
    settle(&mut world);
}

/// What a node holds of the rooms whose entries are believed by whatever clock a node may have: a stamp at the edge of what is believed,
/// give or take the clocks' difference, is believed by one node and refused by another, until its entry ends.
fn believed<'w>(world: &'w World, of: &PeerId) -> Decisions<'w> {
    let surely_ms = world.now().wall.0 + STAMP_AHEAD_MAX_MS - 2 * CLOCK_JUMP_MS;
    let both = world.names().into_iter().flat_map(|name| world.place(&name).decisions());
    let doubtful: BTreeSet<_> =
        both.filter(|(_, decision)| decision.3.wall_ms() > surely_ms).map(|(key, _)| key).collect();
    let mut decisions = world.place(of).decisions();
    decisions.retain(|key, _| !doubtful.contains(key));
    decisions
}

fn settle(world: &mut World) {
    let step_ms = 250;
    let (a, b) = (peer("a"), peer("b"));
    let mut agreed = false;
    for _ in 0..AGREED_WITHIN_MS / step_ms {
        world.advance(step_ms);
        world.deliver_all();
        agreed = believed(world, &a) == believed(world, &b);
        if agreed {
            break;
        }
    }
    let tables = (believed(world, &a), believed(world, &b));
    assert!(agreed, "after {AGREED_WITHIN_MS} ms without a liar two nodes differ: {tables:#?}");
    world.advance(7_000);
    world.deliver_all();
    for name in [a, b] {
        world.place(&name).assert_all_answered();
    }
}
