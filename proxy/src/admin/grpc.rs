//! The admin API for `shardgatectl`: questions on the listeners that serve `status`, orders too on those that serve `admin`.

use std::time::Instant;

use shardgate_discovery::{Order, OrderError, ShardState, WEIGHT_MAX};
use shardgate_peering::core::{ClaimReason, Rank, ShardName, StickKey, Unstored};
use shardgate_peering::{Claimed, Readiness};
use shardgate_proto::admin as wire;
use shardgate_proto::admin::admin_server::{Admin, AdminServer};
use tonic::service::Routes;
use tonic::{Request, Response, Status};

use super::{Access, AdminParts, Traffic};
use crate::sessions::Which;

mod divergences;
mod rows;
mod status;

use rows::Streamed;

/// The API as far as `access` goes.
pub(super) fn service(parts: AdminParts, access: Access) -> Option<Routes> {
    (access != Access::None).then(|| Routes::new(AdminServer::new(Service { parts, access })))
}

struct Service {
    parts: AdminParts,
    access: Access,
}

impl Service {
    /// Orders are taken where they may be given. Names of rooms are told at debug level alone.
    fn order(&self, kind: &'static str, order: &dyn std::fmt::Debug) -> Result<(), Status> {
        match self.access {
            Access::Orders => {
                tracing::info!(kind, "an operator orders");
                tracing::debug!(kind, ?order, "an operator's order");
                Ok(())
            }
            Access::Questions | Access::None => Err(Status::permission_denied(
                "this listener answers questions only, expected one that serves \"admin\" for an order",
            )),
        }
    }
}

fn key(text: &str) -> Result<StickKey, Status> {
    StickKey::parse(text).map_err(|error| Status::invalid_argument(format!("key: {error}")))
}

fn shard(text: &str) -> Result<ShardName, Status> {
    ShardName::parse(text).map_err(|error| Status::invalid_argument(format!("shard: {error}")))
}

#[tonic::async_trait]
impl Admin for Service {
    type TableStream = Streamed<wire::TableEntry>;
    type ConferencesStream = Streamed<wire::Conference>;

    async fn status(
        &self,
        _: Request<wire::StatusRequest>,
    ) -> Result<Response<wire::StatusResponse>, Status> {
        Ok(Response::new(status::status(&self.parts).await))
    }

    async fn table(
        &self,
        request: Request<wire::TableRequest>,
    ) -> Result<Response<Self::TableStream>, Status> {
        let wire::TableRequest { key: wanted, with_sessions } = request.into_inner();
        let sessions = with_sessions.then(|| self.parts.sessions.clone());
        let source = rows::Source { table: self.parts.table.clone(), sessions };
        let rows = match wanted.as_str() {
            "" => rows::table(source),
            text => rows::of_key(source, key(text)?).await,
        };
        Ok(Response::new(rows))
    }

    async fn conferences(
        &self,
        request: Request<wire::ConferencesRequest>,
    ) -> Result<Response<Self::ConferencesStream>, Status> {
        let wire::ConferencesRequest { shard, release, tenant, after, with_sessions } = request.into_inner();
        let given = |text: String| (!text.is_empty()).then_some(text);
        let after = given(after).map(|text| key(&text)).transpose()?;
        let wanted = rows::Wanted {
            shard: given(shard),
            release: given(release),
            tenant: given(tenant),
            sessions: if with_sessions { rows::Having::Some } else { rows::Having::Any },
        };
        Ok(Response::new(rows::conferences(self.parts.clone(), wanted, after)))
    }

    async fn sessions(
        &self,
        _: Request<wire::SessionsRequest>,
    ) -> Result<Response<wire::SessionsResponse>, Status> {
        Ok(Response::new(status::sessions(&self.parts).await))
    }

    async fn divergences(
        &self,
        _: Request<wire::DivergencesRequest>,
    ) -> Result<Response<wire::DivergencesResponse>, Status> {
        let known = self.parts.table.divergences().await;
        let known =
            known.ok_or_else(|| Status::unavailable("this node stops, nobody can be asked any more"))?;
        let divergences = known.iter().rev().map(divergences::row).collect();
        let node = self.parts.table.me().to_string();
        Ok(Response::new(wire::DivergencesResponse { node, divergences }))
    }

    async fn close_tunnels(
        &self,
        request: Request<wire::CloseTunnelsRequest>,
    ) -> Result<Response<wire::CloseTunnelsResponse>, Status> {
        use wire::close_tunnels_request::Which as Wanted;
        let request = request.into_inner();
        self.order("close tunnels", &request)?;
        let which = match request.which {
            Some(Wanted::Key(text)) => Which::Key(key(&text)?),
            Some(Wanted::Shard(text)) => Which::Shard(shard(&text)?),
            None => return Err(Status::invalid_argument("which: missing, expected key or shard")),
        };
        let closed = self.parts.sessions.close(which).await as u64;
        Ok(Response::new(wire::CloseTunnelsResponse { closed }))
    }

    async fn clear(
        &self,
        request: Request<wire::ClearRequest>,
    ) -> Result<Response<wire::ClearResponse>, Status> {
        let request = request.into_inner();
        self.order("clear an entry", &request)?;
        let outcome = match self.parts.table.clear(key(&request.key)?).await {
            Claimed::Cleared => "cleared",
            Claimed::Held => "held",
            Claimed::Stick { .. } | Claimed::Keep { .. } | Claimed::Unstored { .. } => "unanswered",
        };
        Ok(Response::new(wire::ClearResponse { outcome: outcome.to_owned() }))
    }

    async fn set_entry(
        &self,
        request: Request<wire::SetEntryRequest>,
    ) -> Result<Response<wire::SetEntryResponse>, Status> {
        let request = request.into_inner();
        self.order("set an entry", &request)?;
        let (key, shard) = (key(&request.key)?, shard(&request.shard)?);
        let (table, snapshot) = (&self.parts.table, self.parts.discovery.current());
        match snapshot.shard(shard.as_str()).map(|shard| shard.state) {
            None => return Err(Status::not_found(OrderError::Unknown { shard }.to_string())),
            // Its people would find no shard until the next move is allowed.
            Some(ShardState::Maint) if table.lookup(key.as_str()).is_some() => {
                let problem = format!("shard {shard} is in maint, expected one that takes traffic");
                return Err(Status::failed_precondition(problem));
            }
            Some(ShardState::Ready | ShardState::Drain | ShardState::Maint) => {}
        }
        // Alone it would decide for a mesh that it does not hear.
        if !matches!(table.readiness(), Readiness::Ready { .. }) {
            return Err(Status::unavailable("this node is not ready: it does not know what its peers have"));
        }
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
        Ok(Response::new(wire::SetEntryResponse { outcome: outcome.to_owned(), shard }))
    }

    async fn order_shard(
        &self,
        request: Request<wire::OrderShardRequest>,
    ) -> Result<Response<wire::OrderShardResponse>, Status> {
        use wire::order_shard_request::Order as Wanted;
        let request = request.into_inner();
        self.order("command a shard", &request)?;
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
        Ok(Response::new(wire::OrderShardResponse { state, weight }))
    }

    async fn override_readiness(
        &self,
        request: Request<wire::OverrideReadinessRequest>,
    ) -> Result<Response<wire::OverrideReadinessResponse>, Status> {
        self.order("override readiness", request.get_ref())?;
        self.parts.table.override_readiness().await;
        Ok(Response::new(wire::OverrideReadinessResponse {}))
    }

    async fn order_node(
        &self,
        request: Request<wire::OrderNodeRequest>,
    ) -> Result<Response<wire::OrderNodeResponse>, Status> {
        let request = request.into_inner();
        self.order("command this node", &request)?;
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
        Ok(Response::new(wire::OrderNodeResponse { state: request.state }))
    }
}
