//! What is shown of the checks.

use super::{Phase, Standing};
use shardgate_peering_core::ShardName;
use std::time::Duration;

/// One server, as its checks see it.
#[derive(Debug, Clone)]
pub struct ServerReport {
    /// The server.
    pub name: ShardName,
    /// What follows from all of it.
    pub standing: Standing,
    /// Its check; `None` when there is none.
    pub check: Option<CheckReport>,
    /// Its agent; `None` when it is not asked.
    pub agent: Option<AgentReport>,
    /// How long it has been up, or down.
    pub since: Duration,
    /// How often it went down since the node started, or since it was listed.
    pub downs: u64,
    /// How long it has been gone to by peers, because this node does not reach it; `None` when it goes there itself.
    pub cut: Option<Duration>,
}

/// A server's check.
#[derive(Debug, Clone)]
pub struct CheckReport {
    /// What the last ones come to.
    pub phase: Phase,
    /// What the last one said; empty before the first.
    pub last: String,
    /// How long the last one took.
    pub took: Duration,
    /// Good ones.
    pub passed: u64,
    /// Failed ones.
    pub failed: u64,
}

/// A server's agent.
#[derive(Debug, Clone)]
pub struct AgentReport {
    /// What it says, in its own words; empty before the first answer.
    pub says: String,
    /// How long ago it said that; `None` before the first answer.
    pub heard: Option<Duration>,
    /// Why the last question brought nothing.
    pub error: Option<String>,
}
