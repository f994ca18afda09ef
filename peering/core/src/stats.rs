//! Counters as a plain snapshot; the shell exports them.

/// What a node has seen since its start. All values only grow.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[expect(missing_docs, reason = "the names say it; their help texts are in the metrics of the proxy")]
pub struct Stats {
    pub claims: u64,
    pub claims_asked: u64,
    pub claims_timed_out: u64,
    pub decided_home: u64,
    pub decided_alone: u64,
    pub moved: u64,
    pub ended: u64,
    pub unstored_full: u64,
    pub unstored_overload: u64,
    pub conflicts: u64,
    pub refused_entries: u64,
    pub updates_sent: u64,
    pub updates_received: u64,
    pub leases_reported: u64,
    pub renewals_sent: u64,
    pub resyncs_full: u64,
    pub resyncs_resumed: u64,
    pub stamps_far_ahead: u64,
    pub dropped_full: u64,
    pub claims_passed_on: u64,
    pub held_ends_answered: u64,
}
