//! Meshes of real processes, and what replication costs them: shardgates and HAProxies at the same work.

pub mod endurance;
mod fleet;
mod haproxies;
pub mod propagation;
pub mod race;
pub mod reconcile;
pub mod replication;
pub mod resync;
mod run;
pub mod scale;
mod shardgates;
pub mod traffic;
mod wires;

pub use fleet::{Fleet, Path, Placement, Spec};
pub use run::Run;
pub use shardgates::node_name;
pub use wires::{Route, Wires};
