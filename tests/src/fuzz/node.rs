//! A node with an honest and a hostile peer. The honest one is a real node too, reached without delay.

use shardgate_peering::core::Config;

use super::bytes::Bytes;
use super::hostile::peer;
use super::world::{Delivery, World};

/// Everything small, so that every bound is near.
fn small(config: Config) -> Config {
    Config {
        ttl_ms: 8_000,
        entries_max: 6,
        claims_max: 4,
        waiters_max: 2,
        log_max: 64,
        batch_items: 4,
        window_items: 16,
        gives_window: 2,
        move_pause_ms: 2_000,
        ..config
    }
}

/// The bytes choose what happens, step by step; every step is checked by `observed`.
pub fn node(data: &[u8]) {
    let mut bytes = Bytes::new(data);
    let mut world = World::new(Delivery::AtOnce, small);
    let (a, b) = (peer("a"), peer("b"));
    world.connect_hostile(&a);
    for _ in 0..400 {
        if bytes.is_empty() {
            break;
        }
        match bytes.below(16) {
            0..=2 => world.client_acts(&a, &mut bytes),
            3 => world.client_acts(&b, &mut bytes),
            4 | 5 => world.time_passes(&mut bytes),
            6 => world.link(),
            7 => world.unlink(),
            _ => world.hostile_acts(&a, &mut bytes),
        }
    }
    if !world.hostile_is_listed() {
        world.list_hostile(true);
    }
    // The hostile one is silent now; two homes may be asked in vain, at most 2.6 s each where a shard is probed, and a round may follow.
    world.advance(7_000);
    world.place(&a).assert_all_answered();
    world.place(&b).assert_all_answered();
}
