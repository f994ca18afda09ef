//! What a node's own checks say of a shard.

use serde::Serialize;
use shardgate_proto::admin as wire;

use super::status::short;
use crate::render::duration;

#[derive(Debug, Serialize)]
pub(super) struct Health {
    up: bool,
    check: String,
    last: String,
    took_ms: u64,
    passed: u64,
    failed: u64,
    since_ms: u64,
    downs: u64,
    /// How long requests have gone by a peer, because the node does not reach the shard.
    cut_ms: Option<u64>,
    agent: Option<Agent>,
    state: String,
    weight: u32,
}

#[derive(Debug, Serialize)]
struct Agent {
    says: String,
    heard_ms: Option<u64>,
    error: String,
}

impl From<wire::Health> for Health {
    fn from(health: wire::Health) -> Self {
        let wire::Health { up, check, last, took_ms, passed, failed, since_ms, downs, cut_ms, .. } = health;
        let agent = health.agent.map(|wire::Agent { says, heard_ms, error }| Agent { says, heard_ms, error });
        let (state, weight) = (health.state, health.weight);
        Self { up, check, last, took_ms, passed, failed, since_ms, downs, cut_ms, agent, state, weight }
    }
}

impl Health {
    /// The state that holds, with what the agent says.
    pub(super) fn state(&self) -> &String {
        &self.state
    }

    /// The weight that holds.
    pub(super) fn weight(&self) -> u32 {
        self.weight
    }

    /// What fits into a cell: how the check stands, and what is wrong; what the agent says.
    pub(super) fn cell(&self) -> String {
        let check = match (self.check.as_str(), self.last.as_str()) {
            ("", _) => None,
            ("UP", _) | (_, "") => Some(self.check.clone()),
            (check, last) => Some(format!("{check} ({})", short(last))),
        };
        let agent = self.agent.as_ref().map(|agent| match (agent.says.as_str(), agent.error.as_str()) {
            ("", "") => "agent not heard yet".to_owned(),
            (says, "") => format!("agent: {says}"),
            ("", error) => format!("agent: {}", short(error)),
            (says, error) => format!("agent: {says} ({})", short(error)),
        });
        let cut = self.cut_ms.map(|cut| format!("not reached from here for {}, by a peer", duration(cut)));
        let words: Vec<String> = cut.into_iter().chain(check).chain(agent).collect();
        if words.is_empty() { "-".to_owned() } else { words.join(", ") }
    }
}
