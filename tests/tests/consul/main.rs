//! Discovery by real Consul servers: as snapshots, as what nodes route by, and as what operators write.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]
#![expect(clippy::print_stdout, reason = "what changes take is what the part is asked for")]

mod cluster;
mod ctl;
mod discovery;
mod drains;
mod election;
mod faults;
mod fleet;
mod nodes;
mod registration;
mod relay;
mod transport;
