//! Real endpoints on loopback.
#![expect(clippy::unwrap_used, reason = "what fails here fails the test")]

mod harness;
mod nodes;
mod relays;
