//! What is ordered, carried out.

use std::time::Instant;

use shardgate_discovery::{Order, OrderError, ShardState, WEIGHT_MAX};
use shardgate_peering::core::{ClaimReason, Entry, Rank, ShardName, Unstored};
use shardgate_peering::{Claimed, Readiness};
use shardgate_proto::admin as wire;
use tonic::Status;

use super::super::Traffic;
use super::{Service, key, shard};
use crate::cookie;
use crate::sessions::Which;

impl Service {
    pub(super) async fn take_close_tunnels(
        &self,
        request: wire::CloseTunnelsRequest,
    ) -> Result<wire::CloseTunnelsResponse, Status> {
        use wire::close_tunnels_request::Which as Wanted;
        let which = match request.which {
            Some(Wanted::Key(text)) => Which::Key(key(&text)?),
            Some(Wanted::Shard(text)) => Which::Shard(shard(&text)?),
            None => return Err(Status::invalid_argument("which: missing, expected key or shard")),
        };
        let closed = self.parts.sessions.close(which).await as u64;
        Ok(wire::CloseTunnelsResponse { closed })
    }

    pub(super) async fn take_clear(
        &self,
        request: wire::ClearRequest,
    ) -> Result<wire::ClearResponse, Status> {
        let outcome = match self.parts.table.clear(key(&request.key)?).await {
            Claimed::Cleared => "cleared",
            Claimed::Held => "held",
            Claimed::Stick { .. } | Claimed::Keep { .. } | Claimed::Unstored { .. } => "unanswered",
        };
        Ok(wire::ClearResponse { outcome: outcome.to_owned() })
    }

    pub(super) async fn take_set_entry(
        &self,
        request: wire::SetEntryRequest,
    ) -> Result<wire::SetEntryResponse, Status> {
        let (key, shard) = (key(&request.key)?, shard(&request.shard)?);
        let (table, snapshot) = (&self.parts.table, self.parts.discovery.current());
        match snapshot.shard(shard.as_str()).map(|shard| shard.state) {
            None => return Err(Status::not_found(OrderError::Unknown { shard }.to_string())),
            // Its people would find no shard until the next move is allowed.
            Some(ShardState::Maint) if table.lookup(key.as_str()).is_some() => {
                return Err(Status::failed_precondition(in_maint(&shard)));
            }
            Some(ShardState::Ready | ShardState::Drain | ShardState::Maint) => {}
        }
        self.knows_the_mesh()?;
        let claimed = table.claim(key.clone(), shard.clone(), ClaimReason::Operator).await;
        let stands_alone = async || {
            let row = table.row(key).await;
            row.is_some_and(|row| row.entry.rank == Rank::Alone)
        };
        let (outcome, shard) = match claimed {
            Claimed::Stick { shard: there } if there != shard => ("overtaken", there.to_string()),
            // It waited with a request that could not reach the shard.
            Claimed::Keep { shard: there, .. } => ("overtaken", there.to_string()),
            Claimed::Stick { .. } if stands_alone().await => ("alone", shard.to_string()),
            Claimed::Stick { .. } => ("set", shard.to_string()),
            Claimed::Unstored { why: Unstored::TableFull } => ("full", String::new()),
            Claimed::Unstored { .. } | Claimed::Held | Claimed::Cleared => ("unanswered", String::new()),
        };
        Ok(wire::SetEntryResponse { outcome: outcome.to_owned(), shard })
    }

    pub(super) fn take_order_shard(
        &self,
        request: wire::OrderShardRequest,
    ) -> Result<wire::OrderShardResponse, Status> {
        use wire::order_shard_request::Order as Wanted;
        let name = shard(&request.shard)?;
        let order = match request.order {
            Some(Wanted::State(word)) => Order::State(ShardState::from_word(&word).ok_or_else(|| {
                let problem =
                    format!("state: {word:?} is not valid, expected \"ready\", \"drain\" or \"maint\"");
                Status::invalid_argument(problem)
            })?),
            Some(Wanted::Weight(weight)) => Order::Weight(u16::try_from(weight).map_err(|_| {
                Status::invalid_argument(format!("weight: {weight} is not valid, expected 0 to {WEIGHT_MAX}"))
            })?),
            Some(Wanted::SourceWeight(true)) => Order::SourceWeight,
            Some(Wanted::SourceWeight(false)) | None => {
                return Err(Status::invalid_argument("order: missing, expected a state or a weight"));
            }
        };
        self.parts.discovery.order(&name, order).map_err(|error| match error {
            OrderError::Unknown { .. } => Status::not_found(error.to_string()),
            OrderError::Weight { .. } => Status::invalid_argument(error.to_string()),
            OrderError::Stopped => Status::unavailable(error.to_string()),
        })?;
        let snapshot = self.parts.discovery.current();
        let now = snapshot.shard(name.as_str());
        let now = now.ok_or_else(|| Status::aborted(format!("shard {name} has just been taken away")))?;
        let (state, weight) = (now.state.to_string(), u32::from(now.weight));
        Ok(wire::OrderShardResponse { state, weight })
    }

    pub(super) async fn take_override_readiness(
        &self,
        _: wire::OverrideReadinessRequest,
    ) -> Result<wire::OverrideReadinessResponse, Status> {
        self.parts.table.override_readiness().await;
        Ok(wire::OverrideReadinessResponse {})
    }

    pub(super) fn take_order_node(
        &self,
        request: wire::OrderNodeRequest,
    ) -> Result<wire::OrderNodeResponse, Status> {
        let wanted = match request.state.as_str() {
            "ready" => Traffic::Wanted,
            "drain" => Traffic::Unwanted { since: Instant::now() },
            other => {
                let problem = format!("state: {other:?} is not valid, expected \"ready\" or \"drain\"");
                return Err(Status::invalid_argument(problem));
            }
        };
        // Said twice, it holds since the first time.
        self.parts.traffic.send_if_modified(|now| {
            let changed = std::mem::discriminant(now) != std::mem::discriminant(&wanted);
            if changed {
                *now = wanted;
            }
            changed
        });
        Ok(wire::OrderNodeResponse { state: request.state })
    }

    /// Puts back an entry of a dump, as a first join would make it: whatever was decided since then stays.
    pub(super) async fn take_restore_entry(
        &self,
        request: wire::RestoreEntryRequest,
    ) -> Result<wire::RestoreEntryResponse, Status> {
        let wire::RestoreEntryRequest { key: text, shard: name, created_ms } = request;
        let (key, shard) = (key(&text)?, shard(&name)?);
        self.knows_the_mesh()?;
        let table = &self.parts.table;
        let standing = table.row(key.clone()).await.map(|row| row.entry);
        let state = self.parts.discovery.current().shard(shard.as_str()).map(|shard| shard.state);
        let refusal = if cookie::is_cookie(&key) { None } else { refusal(&shard, state) };
        if let Some(known) = known_already(standing.as_ref(), created_ms, refusal) {
            return Ok(known);
        }
        let claimed = table.claim(key, shard.clone(), ClaimReason::Join).await;
        let (outcome, shard) = match claimed {
            Claimed::Stick { shard: there } if there == shard => ("restored", there.to_string()),
            Claimed::Stick { shard: there } | Claimed::Keep { shard: there, .. } => {
                ("overtaken", there.to_string())
            }
            Claimed::Unstored { why: Unstored::TableFull } => ("full", String::new()),
            Claimed::Unstored { .. } | Claimed::Held | Claimed::Cleared => ("unanswered", String::new()),
        };
        Ok(wire::RestoreEntryResponse { outcome: outcome.to_owned(), shard, why: String::new() })
    }

    /// Alone it would decide for a mesh that it does not hear.
    fn knows_the_mesh(&self) -> Result<(), Status> {
        match self.parts.table.readiness() {
            Readiness::Ready { .. } => Ok(()),
            Readiness::NotReady { .. } | Readiness::NoPlace { .. } => {
                Err(Status::unavailable("this node is not ready: it does not know what its peers have"))
            }
        }
    }
}

/// Why nothing is put on a shard.
fn refusal(shard: &ShardName, state: Option<ShardState>) -> Option<String> {
    match state {
        None => Some(OrderError::Unknown { shard: shard.clone() }.to_string()),
        Some(ShardState::Maint) => Some(in_maint(shard)),
        Some(ShardState::Ready | ShardState::Drain) => None,
    }
}

fn in_maint(shard: &ShardName) -> String {
    format!("shard {shard} is in maint, expected one that takes traffic")
}

/// What is answered without a claim: what is open stays, what ended after the decision that is to be restored stays ended.
fn known_already(
    standing: Option<&Entry>,
    created_ms: u64,
    refusal: Option<String>,
) -> Option<wire::RestoreEntryResponse> {
    let answer = |outcome: &str, shard: String, why: String| {
        Some(wire::RestoreEntryResponse { outcome: outcome.to_owned(), shard, why })
    };
    match (standing.map(|entry| (&entry.shard, entry.created.wall_ms())), refusal) {
        (Some((Some(there), _)), _) => answer("kept", there.to_string(), String::new()),
        (Some((None, ended_ms)), _) if ended_ms > created_ms => answer("ended", String::new(), String::new()),
        (Some((None, _)) | None, Some(why)) => answer("refused", String::new(), why),
        (Some((None, _)) | None, None) => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use shardgate_peering::core::{PeerId, Reason, Stamp, Wall};

    #[test]
    fn what_is_newer_than_a_dump_stays() {
        let shard = ShardName::parse("s1").unwrap();
        let entry = |shard: Option<&ShardName>| Entry {
            shard: shard.cloned(),
            generation: 1,
            rank: Rank::Home,
            created: Stamp::at(Wall(1_000)),
            origin: PeerId::parse("a").unwrap(),
            reason: Reason::Claim,
        };
        let outcome = |standing: Option<Entry>, created_ms, refusal: Option<String>| {
            known_already(standing.as_ref(), created_ms, refusal).map(|answer| answer.outcome)
        };
        let says = |word: &str| Some(word.to_owned());
        let unknown = || refusal(&shard, None);
        assert_eq!(outcome(Some(entry(Some(&shard))), 0, None), says("kept"));
        assert_eq!(
            outcome(Some(entry(Some(&shard))), 2_000, unknown()),
            says("kept"),
            "whatever it asks for"
        );
        assert_eq!(outcome(Some(entry(None)), 999, None), says("ended"));
        assert_eq!(outcome(Some(entry(None)), 1_000, None), None, "it ended before");
        assert_eq!(outcome(Some(entry(None)), 1_000, unknown()), says("refused"));
        assert_eq!(outcome(None, 1_000, refusal(&shard, Some(ShardState::Maint))), says("refused"));
        for state in [ShardState::Ready, ShardState::Drain] {
            assert_eq!(outcome(None, 1_000, refusal(&shard, Some(state))), None, "{state}");
        }
    }
}
