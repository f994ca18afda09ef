//! A deterministic network and clock for real [`Node`](shardgate_peering_core::Node)s, for the simulation and for scenarios as text.
//!
//! Nothing here is read from the machine: time is a number of virtual milliseconds, chance comes from one seed, and what happens at
//! the same millisecond happens in the order in which it was caused. So one seed and the same calls give one trace
//! ([`World::trace_hash`]). The world holds no opinion: whoever wants to check, trace or answer implements [`Watch`].
//!
//! ```
//! use shardgate_peering_core::{Config, PeerId};
//! use shardgate_tests::world::{Delay, Silent, World};
//!
//! let mut world = World::new(7, Delay::Fixed(20));
//! for name in ["a", "b", "c"] {
//!     world.add(Config::new(PeerId::parse(name).unwrap(), 1));
//! }
//! for seat in 0..3 {
//!     world.start(seat, &mut Silent);
//!     world.list(seat, &[0, 1, 2], &mut Silent);
//! }
//! assert!(world.run_until(2_000, &mut Silent, |world| (0..3).all(|seat| world.is_ready(seat))));
//! world.block(0, 1); // a's packets to b are lost, nobody is told; 3 s of silence end the connection
//! world.run_ms(5_000, &mut Silent);
//! world.heal();
//! world.run_ms(1_000, &mut Silent);
//! ```
//!
//! - A *seat* (0, 1, 2 …, in the order of [`World::add`]) is where a node runs. It is started, crashed, started again (another
//!   incarnation, empty), paused (nothing runs, packets wait) or hung (connections live, the node does nothing).
//! - [`World::inject`] gives a node any [`Input`](shardgate_peering_core::Input) now; [`World::step`] does the next thing that is due.
//! - Connections come by themselves: who lists a peer dials it every 500 ms while there is no connection, and is told of 3 s in vain.
//!   Each side has its own view of a connection, as with QUIC: one that crashed is noticed by its silence.
//! - [`World::set_shard`] and [`World::set_shard_path`] say what nodes' probes of shards find; without them every shard is reached.
//! - Messages of one lane stay in order on a connection, claims overtake each other ([`lane::lane_of`]); what was sent on a
//!   connection that is gone is lost.

mod clockwork;
mod connect;
mod deliver;
pub mod lane;
pub mod path;
pub mod random;
mod seat;
mod shards;
#[cfg(test)]
mod tests;
mod watch;
mod world_state;

pub use path::{Delay, Noise};
pub use random::Random;
pub use seat::{Seat, Sleep, State};
pub use shards::Trouble;
pub use watch::{Network, Scene, Silent, Watch};
pub use world_state::{IDLE_MS, World};
