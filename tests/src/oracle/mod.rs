//! Plays requests whose decisions were recorded from a real HAProxy against a freshly started shardgate, over real sockets.
//!
//! A folder holds `environment.json` (shards, maps, regions), `vectors.jsonl` (requests with what HAProxy made of each) and `sequences.jsonl`
//! (requests with changes of states, maps and the table between them). The node gets its configuration and discovery file from the environment;
//! stand-ins for the shards say what they received; the table is read and written through the admin API.

mod agents;
mod ask;
mod expect;
mod ground;
mod haproxy;
mod ours;
mod plan;
mod record;
mod request_step;
mod run;
mod sequence;
mod site;
mod stand_in;
mod steps;

pub use haproxy::check_haproxy;
pub use record::Variant;
pub use run::{Mode, Options, Report, run};
