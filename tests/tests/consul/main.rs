//! Discovery by real Consul servers: as snapshots, and as what nodes route by.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]
#![expect(clippy::print_stdout, reason = "what changes take is what the part is asked for")]

mod cluster;
mod discovery;
mod election;
mod faults;
mod fleet;
mod nodes;
mod relay;
mod transport;
