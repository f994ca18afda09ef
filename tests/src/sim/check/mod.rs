//! What must hold, each in a file of its own. The checks know inputs, outputs and public queries, nothing of the code under test.

mod arbitration;
mod bounds;
mod claims;
mod contacts;
mod convergence;
mod cursors;
mod decisions;
mod holding;
mod rounds;
mod split;

pub(super) use bounds::Bounds;
pub(super) use claims::{Claims, Probes};
pub(super) use contacts::Contacts;
pub(super) use convergence::{Converged, bound_ms, converged, final_checks};
pub(super) use cursors::Cursors;
pub(super) use holding::Gone;
pub(super) use rounds::Rounds;
pub(super) use split::Splits;

use super::model::Room;

/// Something that must never be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Violation {
    /// What should have held.
    pub check: &'static str,
    /// When it did not.
    pub at_ms: u64,
    /// For which room.
    pub room: Option<Room>,
    /// What was seen.
    pub text: String,
}
