//! Links the core with an allocator and a panic handler of its own, so that std coming in through any dependency of the
//! core fails to build: std brings a second `panic_impl`, and rustc names the crate that asked for it.
//!
//! The proof is `cargo build --profile guard -p shardgate-core-guard`, where panics abort. Under a profile that unwinds
//! rustc asks for std's unwinder, so there this crate links std and proves nothing; it only keeps out of the way of
//! `cargo clippy --workspace` and `cargo doc --workspace`. The test `house` builds the proof, and its opposite.
#![no_std]

#[cfg(not(panic = "abort"))]
extern crate std;

#[cfg(panic = "abort")]
mod bare;

use shardgate_peering_core::{Node, StickKey, hash64};

/// Names enough of the core that it is really linked, machine code and all.
#[must_use]
pub fn link_the_core(text: &str) -> Option<u64> {
    let key = StickKey::parse(text).ok()?;
    Some(hash64(key.as_str().as_bytes(), size_of::<Node>() as u64))
}
