//! The admin API for `shardgatectl`, on the listeners that serve `status`.

use std::pin::Pin;

use axum::Router;
use shardgate_discovery::ShardState;
use shardgate_peering::core::{Agreement, LinkState, Rank, Reason, ShardName, StickKey};
use shardgate_peering::{Claimed, TableRow};
use shardgate_proto::admin as wire;
use shardgate_proto::admin::admin_server::{Admin, AdminServer};
use tokio::sync::mpsc;
use tonic::codegen::tokio_stream::{Stream, wrappers::ReceiverStream};
use tonic::{Request, Response, Status};

use super::AdminParts;
use crate::sessions::Which;

/// Rows asked of the driver at once: it answers other questions in between.
const PAGE: usize = 512;

pub(super) fn router(parts: AdminParts) -> Router {
    tonic::service::Routes::new(AdminServer::new(Service { parts })).into_axum_router()
}

struct Service {
    parts: AdminParts,
}

#[tonic::async_trait]
impl Admin for Service {
    type TableStream = Pin<Box<dyn Stream<Item = Result<wire::TableEntry, Status>> + Send>>;

    async fn status(
        &self,
        _: Request<wire::StatusRequest>,
    ) -> Result<Response<wire::StatusResponse>, Status> {
        let parts = &self.parts;
        let mesh = parts.table.status().await;
        let snapshot = parts.discovery.current();
        let mut shards = Vec::new();
        for shard in snapshot.shards() {
            shards.push(wire::Shard {
                name: shard.name.to_string(),
                release: shard.release.to_string(),
                region: shard.region.to_string(),
                address: shard.address.to_string(),
                state: match shard.state {
                    ShardState::Ready => "ready",
                    ShardState::Drain => "drain",
                    ShardState::Maint => "maint",
                }
                .to_owned(),
                conferences: parts.table.conferences(&shard.name),
                tunnels: parts.sessions.count(Which::Shard(shard.name.clone())).await as u64,
            });
        }
        let peer = |peer: shardgate_peering::PeerStatus| wire::Peer {
            id: peer.id.to_string(),
            link: match peer.view.link {
                LinkState::Dialing => "dialing",
                LinkState::Down => "down",
                LinkState::Greeting => "greeting",
                LinkState::Learning => "learning",
                LinkState::Reconciled => "reconciled",
            }
            .to_owned(),
            ready: peer.view.ready,
            behind: peer.view.behind,
            rtt_ms: peer.view.rtt_ms,
            agreement: agreement(peer.view.agreement).to_owned(),
        };
        let reason = parts.not_ready();
        Ok(Response::new(wire::StatusResponse {
            node: parts.node.id.to_string(),
            region: parts.node.region.to_string(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            ready: reason.is_none(),
            reason: reason.unwrap_or_default(),
            entries: mesh.entries as u64,
            tunnels: parts.sessions.open(),
            snapshot_version: snapshot.version(),
            peers: mesh.peers.into_iter().map(peer).collect(),
            shards,
        }))
    }

    async fn table(
        &self,
        request: Request<wire::TableRequest>,
    ) -> Result<Response<Self::TableStream>, Status> {
        let wanted = request.into_inner().key;
        let wanted = match wanted.as_str() {
            "" => None,
            text => Some(
                StickKey::parse(text).map_err(|error| Status::invalid_argument(format!("key: {error}")))?,
            ),
        };
        let table = self.parts.table.clone();
        let (rows, stream) = mpsc::channel(PAGE);
        if let Some(key) = wanted {
            if let Some(row) = table.row(key).await {
                // The channel has room, and its receiver is below.
                drop(rows.send(Ok(entry(row))).await);
            }
            return Ok(Response::new(Box::pin(ReceiverStream::new(stream))));
        }
        tokio::spawn(async move {
            let mut after = None;
            loop {
                let page = table.page(after.clone(), PAGE).await;
                let Some(last) = page.last() else { break };
                after = Some(last.key.clone());
                for row in page {
                    // Whoever asked has gone.
                    if rows.send(Ok(entry(row))).await.is_err() {
                        return;
                    }
                }
            }
        });
        Ok(Response::new(Box::pin(ReceiverStream::new(stream))))
    }

    async fn close_tunnels(
        &self,
        request: Request<wire::CloseTunnelsRequest>,
    ) -> Result<Response<wire::CloseTunnelsResponse>, Status> {
        use wire::close_tunnels_request::Which as Wanted;
        let which = match request.into_inner().which {
            Some(Wanted::Key(key)) => Which::Key(
                StickKey::parse(&key).map_err(|error| Status::invalid_argument(format!("key: {error}")))?,
            ),
            Some(Wanted::Shard(shard)) => Which::Shard(
                ShardName::parse(&shard)
                    .map_err(|error| Status::invalid_argument(format!("shard: {error}")))?,
            ),
            None => return Err(Status::invalid_argument("which: missing, expected key or shard")),
        };
        let closed = self.parts.sessions.close(which).await as u64;
        Ok(Response::new(wire::CloseTunnelsResponse { closed }))
    }

    async fn clear(
        &self,
        request: Request<wire::ClearRequest>,
    ) -> Result<Response<wire::ClearResponse>, Status> {
        let key = StickKey::parse(&request.into_inner().key)
            .map_err(|error| Status::invalid_argument(format!("key: {error}")))?;
        let outcome = match self.parts.table.clear(key).await {
            Claimed::Cleared => "cleared",
            Claimed::Held => "held",
            Claimed::Stick { .. } | Claimed::Unstored { .. } => "unanswered",
        };
        Ok(Response::new(wire::ClearResponse { outcome: outcome.to_owned() }))
    }

    async fn override_readiness(
        &self,
        _request: Request<wire::OverrideReadinessRequest>,
    ) -> Result<Response<wire::OverrideReadinessResponse>, Status> {
        self.parts.table.override_readiness().await;
        Ok(Response::new(wire::OverrideReadinessResponse {}))
    }
}

/// A peer's agreement in words.
const fn agreement(agreement: Agreement) -> &'static str {
    match agreement {
        Agreement::Unknown => "unknown",
        Agreement::Agreed => "agreed",
        Agreement::Disagreed => "disagreed",
    }
}

fn entry(row: TableRow) -> wire::TableEntry {
    let TableRow { key, entry, remaining_ms } = row;
    wire::TableEntry {
        key: key.to_string(),
        shard: entry.shard.map(|shard| shard.to_string()).unwrap_or_default(),
        generation: entry.generation,
        rank: match entry.rank {
            Rank::Home => "home",
            Rank::Alone => "alone",
        }
        .to_owned(),
        origin: entry.origin.to_string(),
        reason: match entry.reason {
            Reason::Claim => "claim",
            Reason::Down => "down",
            Reason::Operator => "operator",
            Reason::Arbitration => "arbitration",
            Reason::End => "end",
            Reason::Full => "full",
        }
        .to_owned(),
        created_ms: entry.created.wall_ms(),
        remaining_ms,
    }
}
