//! Attacks on a running node beside a normal load. Every attack is run for some seconds, from addresses of its own; what the normal
//! load sees before and meanwhile is measured, and so is the node's memory.
//!
//! Four parties share the machine: the node (a process), its shard, the normal load and the attacker (a thread with a runtime each).
//! 127.88.0.0/16 is theirs, so one run at a time.

pub mod ground;
pub mod run;

mod dial;
mod floods;
mod heads;
mod http2;
mod load;
mod load_clients;
mod origin;
mod readers;
mod rooms;
mod slow;
mod tally;
mod tunnels;
