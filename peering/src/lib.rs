//! The QUIC shell around the stick table core: one driver task owns the core, connections carry frames, requests read a view.
//!
//! ```text
//! request ──► TableHandle::lookup ──► View (dashmap, read copy)
//!         ──► TableHandle::claim ───► Driver ──► core Node ──► Outbox ──► Link ──► QUIC
//! QUIC ──► Link ──► codec ──► Driver ──► core Node ──► View, moves, answers
//!
//! request ──► Relays ──► QUIC ──► Link ──► Relayed ──► shard
//! ```

mod clock;
pub mod codec;
mod connection;
mod counters;
mod dial;
mod divergence;
mod driver;
mod handle;
mod history;
mod mesh;
mod outbox;
pub mod pki;
mod relay;
mod shard_names;
mod tls;
mod view;

pub use codec::RelayRefusal;
pub use counters::{Counters, LinkCounts, LinkEnd};
pub use divergence::Divergence;
pub use handle::{Busy, MeshStatus, Moved, PeerStatus, ProbeAsk, TableHandle, TableRow};
pub use history::Replacement;
pub use mesh::{Mesh, MeshConfig, MeshError, PeerAddress};
pub use relay::{RELAYED_STREAMS_MAX, RelayCounts, RelayError, RelaySide, RelayStream, Relayed, Relays};
pub use shardgate_peering_core as core;
pub use shardgate_peering_core::{ClaimReason, Claimed, Reached, Readiness, Unstored};
pub use tls::{ALPN, Environment, IdentityError, IdentityFiles, dns_name};
