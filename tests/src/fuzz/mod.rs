//! What is fuzzed: one function for each target. It takes any bytes and panics when something that must hold does not.
//!
//! `tests/run fuzz TARGET SECONDS` runs one under cargo-fuzz (`tests/fuzz`); `tests/tests/fuzz_corpus` replays what was kept.

mod agent;
mod bytes;
mod config;
mod consul;
mod cookie;
mod discovery_file;
mod frame;
mod hostile;
mod hostile_compare;
mod mesh;
mod node;
mod observed;
mod proxy_header;
mod relay;
mod request_head;
mod routing_key;
mod seeds;
mod stream;
mod world;

pub use agent::agent;
pub use config::config;
pub use consul::consul;
pub use cookie::cookie;
pub use discovery_file::discovery_file;
pub use frame::frame;
pub use mesh::mesh;
pub use node::node;
pub use proxy_header::proxy_header;
pub use relay::relay;
pub use request_head::request_head;
pub use routing_key::routing_key;
pub use seeds::seeds;
pub use stream::stream;

/// A fuzz target.
#[derive(Debug, Clone, Copy)]
pub struct Target {
    /// Its name: of the function, of the file in `tests/fuzz/fuzz_targets` and of the folder in `tests/fuzz/corpus`.
    pub name: &'static str,
    /// What runs.
    pub run: fn(&[u8]),
}

/// All of them.
pub const TARGETS: &[Target] = &[
    Target { name: "agent", run: agent },
    Target { name: "config", run: config },
    Target { name: "consul", run: consul },
    Target { name: "cookie", run: cookie },
    Target { name: "discovery_file", run: discovery_file },
    Target { name: "frame", run: frame },
    Target { name: "mesh", run: mesh },
    Target { name: "node", run: node },
    Target { name: "request_head", run: request_head },
    Target { name: "proxy_header", run: proxy_header },
    Target { name: "relay", run: relay },
    Target { name: "routing_key", run: routing_key },
    Target { name: "stream", run: stream },
];
