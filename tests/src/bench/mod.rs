//! The benches' parts: what is measured (subjects), what surrounds it (origin, load), and how it is counted.
//!
//! A subject is pinned on one CPU, everything else on another. Nothing here knows hyper, quinn or the mesh: the subjects are processes.

pub mod askers;
pub mod cpu;
pub mod frames;
mod h2_frames;
pub mod h2_load;
pub mod handshake_load;
pub mod haproxy;
pub mod haproxy_rules;
pub mod http_load;
pub mod idle_tunnels;
pub mod latency;
pub mod load_report;
pub mod log_sink;
pub mod mesh;
pub mod net;
pub mod options;
pub mod origin;
pub mod process;
pub mod relay;
pub mod report;
pub mod room_load;
pub mod room_names;
pub mod room_walk;
pub mod rounds;
pub mod shardgate;
pub mod site;
pub mod stage;
pub mod subject;
pub mod tls_tunnel_load;
pub mod tunnel_load;
pub mod verdict;
pub mod wire;
