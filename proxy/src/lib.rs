//! shardgate's daemon as a library: the data plane, and what stands around it.
//!
//! One request: `frontend` accepts its connection, hyper reads the head, `routing_key` parses it, `route` decides (pure), the
//! stick table is asked where the decision needs it, `forward` sends it over a connection of `backend`'s pool, and the answer
//! streams back. A WebSocket goes on as a `tunnel`. All of it happens in one task on one `worker`'s thread.

pub mod access_log;
pub mod address_range;
pub mod admin;
pub mod admission;
pub mod answer_headers;
mod backend;
mod body;
pub mod cli;
mod client;
mod clock;
pub mod config;
pub mod cookie;
pub mod counters;
pub mod dev;
pub mod explain;
mod forward;
mod frontend;
pub mod head_guard;
mod headers;
pub mod health;
pub mod limits;
pub mod log_writer;
pub mod node;
pub mod placement;
pub mod proxy_protocol;
mod record;
pub mod redirect;
pub mod relay;
pub mod request_id;
mod rescue;
pub mod route;
pub mod routing_key;
pub mod rule;
pub mod sessions;
mod socket;
pub mod tls;
pub mod trust;
mod tunnel;
pub mod worker;

pub use backend::{ConnectLimits, MannerError, Manners, PoolLimits};
pub use forward::Limits;
pub use rescue::{PageError, Pages};
