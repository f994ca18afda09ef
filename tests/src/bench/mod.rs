//! The benches' parts: what is measured (subjects), what surrounds it (origin, load), and how it is counted.
//!
//! A subject is pinned on one CPU, everything else on another. Nothing here knows hyper, quinn or the mesh: the subjects are processes.

pub mod askers;
pub mod cpu;
pub mod frames;
pub mod haproxy;
pub mod haproxy_rules;
pub mod http_load;
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
pub mod rounds;
pub mod shardgate;
pub mod site;
pub mod stage;
pub mod subject;
pub mod tunnel_load;
pub mod verdict;
