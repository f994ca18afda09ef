//! The replicated stick table of a shardgate mesh as a pure state machine.
//!
//! A node of the mesh is one [`Node`]. The world feeds it [`Input`]s together with the moment they happened and carries out
//! its [`Output`]s; nothing else goes in or out:
//!
//! ```text
//! node.handle(now, input);                       // one input …
//! while let Some(output) = node.poll_output() {} // … then everything it caused, in order
//! node.poll_timeout()                            // when to call handle(now, Input::Timeout) next, and why
//! ```
//!
//! This crate knows no clock, socket, thread, runtime, global randomness or wire format. It is `no_std`; the guard crate
//! beside it links it without std, so the compiler refuses what would break that. Only ordered maps are iterated, so one
//! sequence of inputs gives one trace.
#![no_std]

extern crate alloc;
#[cfg(test)]
extern crate std;

mod arbitration;
mod claim;
mod config;
mod digest;
mod entry;
mod full;
mod give;
mod hash;
mod hello;
mod home;
mod id;
mod input;
mod lease;
mod listed;
mod message;
#[cfg(feature = "test-hooks")]
mod mutation;
mod node;
mod output;
mod recent;
mod reconcile;
mod restart;
mod session;
mod slots;
mod stats;
mod table;
mod time;
mod timers;
mod update_log;
mod updates;
mod verdict;

pub use arbitration::SIDES_MAX;
pub use config::{Config, ConfigError};
pub use digest::{AsOf, FAN_OUT, RangeId, key_hash};
pub use entry::{Entry, EntryError, GENERATION_MAX, Join, Rank, Reason, STAMP_AHEAD_MAX_MS, join};
pub use hash::hash64;
pub use home::first_by_rendezvous;
pub use id::{IdError, KEY_LEN_MAX, KeyError, PeerId, ShardName, StickKey};
pub use input::{ClaimReason, ClaimToken, Input, ProbeId, Reached};
pub use message::{
    Change, Claim, ClaimAnswer, ClaimRefusal, ClaimResult, Compare, CompareContent, ComparePart, Compared,
    ComparedContent, ComparedPart, Digest, Disputed, Give, Heartbeat, Hello, Item, Lane, Lease, LeaseReport,
    Message, Resume, Update, Welcome,
};
#[cfg(feature = "test-hooks")]
pub use mutation::Mutation;
pub use node::Node;
pub use output::{Claimed, Output, Readiness, Side, Unstored, Verdict, Violation, Why};
pub use session::{Agreement, LinkState, PeerView};
pub use stats::Stats;
pub use time::{Instant, Now, Stamp, StampClock, TimeoutReason, Wall};
pub use verdict::VIA_MAX;
