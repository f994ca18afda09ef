//! The admin API for `shardgatectl`: questions on the listeners that serve `status`, orders too on those that serve `admin`.

use shardgate_peering::core::{ShardName, StickKey};
use shardgate_proto::admin as wire;
use shardgate_proto::admin::admin_server::{Admin, AdminServer};
use tonic::service::Routes;
use tonic::{Request, Response, Status};

use super::{Access, AdminParts};
use crate::config::AdminAddress;

mod audited;
mod divergences;
mod orders;
mod rows;
mod status;

use rows::Streamed;

/// The API as far as `access` goes.
pub(super) fn service(parts: AdminParts, access: Access, listen: &AdminAddress) -> Option<Routes> {
    let listen = listen.clone();
    (access != Access::None).then(|| Routes::new(AdminServer::new(Service { parts, access, listen })))
}

struct Service {
    parts: AdminParts,
    access: Access,
    /// Where it is asked.
    listen: AdminAddress,
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
        self.audited(request, |order| self.take_close_tunnels(order)).await
    }

    async fn clear(
        &self,
        request: Request<wire::ClearRequest>,
    ) -> Result<Response<wire::ClearResponse>, Status> {
        self.audited(request, |order| self.take_clear(order)).await
    }

    async fn set_entry(
        &self,
        request: Request<wire::SetEntryRequest>,
    ) -> Result<Response<wire::SetEntryResponse>, Status> {
        self.audited(request, |order| self.take_set_entry(order)).await
    }

    async fn order_shard(
        &self,
        request: Request<wire::OrderShardRequest>,
    ) -> Result<Response<wire::OrderShardResponse>, Status> {
        self.audited(request, |order| std::future::ready(self.take_order_shard(order))).await
    }

    async fn override_readiness(
        &self,
        request: Request<wire::OverrideReadinessRequest>,
    ) -> Result<Response<wire::OverrideReadinessResponse>, Status> {
        self.audited(request, |order| self.take_override_readiness(order)).await
    }

    async fn order_node(
        &self,
        request: Request<wire::OrderNodeRequest>,
    ) -> Result<Response<wire::OrderNodeResponse>, Status> {
        self.audited(request, |order| std::future::ready(self.take_order_node(order))).await
    }

    async fn history(
        &self,
        request: Request<wire::HistoryRequest>,
    ) -> Result<Response<wire::HistoryResponse>, Status> {
        let key = key(&request.into_inner().key)?;
        let history = self.parts.table.history(key.clone()).await;
        let history =
            history.ok_or_else(|| Status::unavailable("this node stops, nobody can be asked any more"))?;
        let row = self.parts.table.row(key).await;
        Ok(Response::new(wire::HistoryResponse {
            node: self.parts.table.me().to_string(),
            replacements: history.iter().map(rows::replacement).collect(),
            entry: row.map(rows::entry),
        }))
    }

    async fn restore_entry(
        &self,
        request: Request<wire::RestoreEntryRequest>,
    ) -> Result<Response<wire::RestoreEntryResponse>, Status> {
        self.audited(request, |order| self.take_restore_entry(order)).await
    }
}
