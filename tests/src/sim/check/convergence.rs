//! The end: the healed core holds one table, says so, and everybody in it is where the table says.

use shardgate_peering_core::Agreement;

use crate::sim::model::{Decision, Room, decision_of, seat_of};
use crate::sim::observer::{Observer, name};
use crate::sim::setup::Setup;
use crate::world::{Seat, World};

/// How long the core may take after the heal, independent of the ttl: 3 s until dead connections are noticed or dialled in vain, half
/// a second to the next dial, 12 ways for handshake, hello and the rounds of a reconciliation and of corrections, 2 s by which a digest
/// lies back, 4 heartbeats (two unequal digests in a row start a reconciliation, two equal ones show its success), and what a transfer of
/// all rooms takes where the drawn window lets only so many travel in one round trip. Small tables take longer: the sides of a cut hold more
/// together than the mesh takes. Who is to end the surplus waits half a ttl until it has heard who holds what; then held ones are in the way
/// until half a ttl after their last session. At last 3 s in which a verdict on people of one room on two shards may be waited for.
pub(in crate::sim) fn bound_ms(setup: &Setup, rooms: Room) -> u64 {
    let in_flight = setup.limits.bulk_window * setup.limits.batch_items as u64;
    let transfer_ms = u64::from(rooms) * 2 * setup.delay_max_ms() / in_flight;
    let surplus_ms = if setup.small_tables() { 2 * setup.ttl_ms } else { 0 };
    let verdict_ms = 3_000 + 3 * setup.delay_max_ms();
    3_000 + 500 + 12 * setup.delay_max_ms() + 2_000 + 4_000 + transfer_ms + surplus_ms + verdict_ms
}

/// A decision younger than this may still be on its way.
const UNDER_WAY_MS: u64 = 1_000;

/// A drop that one node obeys and another one refuses is found by digests: 2 s back, two heartbeats, and the rounds.
const DROP_REPAIRED_MS: u64 = 6_000;

/// Without a verdict for so long, and for the grain of the clocks, a dispute is over.
const DISPUTED_MS: u64 = 3_100;

/// What is missing until the core has converged.
#[derive(Debug, PartialEq, Eq)]
pub(in crate::sim) enum Converged {
    Yes,
    /// A pair without a connection.
    NotConnected(Seat, Seat),
    /// Their live entries of a room differ.
    Differ(Room, Seat, Option<Decision>, Seat, Option<Decision>),
    /// One that is not ready.
    NotReady(Seat),
    /// One that does not show agreement with another, and the rooms of which they hold different things now.
    NotAgreed(Seat, Seat, Agreement, Vec<Room>),
}

fn live(world: &World, observer: &mut Observer, seat: Seat, room: Room) -> Option<Decision> {
    let key = observer.names.key(room);
    let (entry, _) = world.node(seat)?.entry(&key)?;
    Some(decision_of(entry)).filter(|decision| !decision.is_tombstone())
}

/// Whether a node answers requests with what it has of a room: not when the lease is over as far as it knows.
fn answers(world: &World, observer: &mut Observer, seat: Seat, room: Room) -> bool {
    let key = observer.names.key(room);
    world.node(seat).is_some_and(|node| node.lookup(&key).is_some())
}

/// Whether the newest of what two nodes hold of a room is so young that the other one may not have heard of it.
fn under_way(world: &World, observer: &mut Observer, seats: [Seat; 2], room: Room) -> bool {
    let key = observer.names.key(room);
    let held = seats.into_iter().filter_map(|seat| world.node(seat)?.entry(&key));
    let newest =
        held.filter_map(|(entry, _)| observer.ledger.get(room, &decision_of(entry))).map(|known| known.at);
    let young = newest.max().is_some_and(|at| world.now_ms() < at + UNDER_WAY_MS);
    young || observer.dropped_at.get(&room).is_some_and(|at| world.now_ms() < at + DROP_REPAIRED_MS)
}

/// Whether the core has converged.
pub(in crate::sim) fn converged(
    world: &World,
    observer: &mut Observer,
    core: &[Seat],
    rooms: Room,
) -> Converged {
    let Some((first, others)) = core.split_first() else { return Converged::Yes };
    for (n, a) in core.iter().enumerate() {
        if !world.is_ready(*a) {
            return Converged::NotReady(*a);
        }
        if let Some(b) = core[n + 1..].iter().find(|b| !world.is_connected(*a, **b)) {
            return Converged::NotConnected(*a, *b);
        }
    }
    for room in 0..rooms {
        let one = live(world, observer, *first, room);
        for other in others {
            let two = live(world, observer, *other, room);
            if one == two || under_way(world, observer, [*first, *other], room) {
                continue;
            }
            // One that has none is where the others will be as soon as somebody ends it.
            let lapses = one.is_none() && !answers(world, observer, *other, room)
                || two.is_none() && !answers(world, observer, *first, room);
            if !lapses {
                return Converged::Differ(room, *first, one, *other, two);
            }
        }
    }
    for a in core {
        let Some(node) = world.node(*a) else { continue };
        for (peer, view) in node.peers() {
            let b = seat_of(peer);
            if core.contains(&b) && view.agreement != Agreement::Agreed {
                let differ = (0..rooms)
                    .filter(|room| live(world, observer, *a, *room) != live(world, observer, b, *room));
                return Converged::NotAgreed(*a, b, view.agreement, differ.collect());
            }
        }
    }
    Converged::Yes
}

/// After the core has converged: everything that the model knows of its nodes is true, and sessions are where the table says.
pub(in crate::sim) fn final_checks(world: &World, observer: &mut Observer, core: &[Seat], rooms: Room) {
    for seat in core {
        let Some(scene) = world.scene(*seat) else { continue };
        for room in 0..rooms {
            observer.look_at(&scene, room, &[]);
            // A node whose shell was busy has outputs that nobody has seen yet.
            if observer.places[*seat].inputs == 0 {
                observer.check_view(&scene, room);
            }
        }
        let held: Vec<_> = observer.places[*seat]
            .held
            .iter()
            .flat_map(|(room, (_, shards))| shards.keys().map(|shard| (*room, *shard)))
            .collect();
        for (room, shard) in held {
            // Where a full table has just taken a key in that people had without one, they may not have been heard yet.
            let asked = observer.disputed_since.get(&(*seat, room));
            if asked.is_some_and(|since| world.now_ms() < since + DISPUTED_MS) {
                continue;
            }
            let entry = live(world, observer, *seat, room);
            if entry.is_some_and(|entry| entry.shard != shard) || entry.is_none() && !observer.small_tables {
                let text =
                    format!("{}: r{room} has sessions on {shard}, the table says {entry:?}", name(*seat));
                observer.accuse("a conference is on one shard", world.now_ms(), Some(room), text);
            }
        }
    }
}
