//! The data plane over real sockets: workers, a table of its own, and small real shards.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod balancers;
mod bosh;
mod ceilings;
mod cookies;
mod edge;
mod failures;
mod flips;
mod harness;
mod health;
mod http;
mod interims;
mod maintenance;
mod relayed;
mod relaying;
mod stop;
mod timeouts;
mod tunnels;
mod upstream_tls;
