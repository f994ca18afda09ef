//! The wire vocabulary of the mesh, nothing else: generated from `proto/mesh/**.proto` and checked in, so that nobody needs
//! `protoc`. `tests/bootstrap.rs` regenerates it and fails on any difference; `SHARDGATE_REGENERATE=1` writes it anew.

/// Between nodes, over QUIC.
#[allow(missing_docs, clippy::all, reason = "generated; what it contains varies with the generator")]
#[rustfmt::skip]
#[path = "gen/mesh.peer.v1.rs"]
pub mod peer;

/// Between a node and its operators, over gRPC.
#[allow(
    missing_docs,
    unused_qualifications,
    clippy::all,
    reason = "generated; what it contains varies with the generator"
)]
#[rustfmt::skip]
#[path = "gen/mesh.admin.v1.rs"]
pub mod admin;
