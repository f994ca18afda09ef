//! Plays requests whose decisions were recorded from a real HAProxy against a freshly started shardgate, over real sockets.
//!
//! A folder holds `environment.json` (shards, maps, regions) and `vectors.jsonl` (requests with what HAProxy made of each). The node gets
//! its configuration and discovery file from the environment; stand-ins for the shards say what they received.

mod ask;
mod expect;
mod ours;
mod record;
mod run;
mod site;
mod stand_in;

pub use record::Variant;
pub use run::{Mode, Options, Report, run};
