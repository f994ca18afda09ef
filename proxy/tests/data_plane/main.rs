//! The data plane over real sockets: workers, a table of its own, and small real shards.

mod failures;
mod harness;
mod http;
mod stop;
mod timeouts;
mod tunnels;
