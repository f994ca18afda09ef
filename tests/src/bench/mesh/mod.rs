//! Meshes of real processes, and what replication costs them: shardgates and HAProxies at the same work.

mod fleet;
mod haproxies;
pub mod race;
mod shardgates;
mod wires;

pub use fleet::{Fleet, Path, Placement, Spec};
pub use shardgates::node_name;
pub use wires::{Route, Wires};
