//! The admin API for `shardgatectl`: questions on the listeners that serve `status`, orders too on those that serve `admin`.

use std::pin::Pin;
use std::time::{Duration, Instant, UNIX_EPOCH};

use shardgate_discovery::{
    Order, OrderError, Origin, PartStatus, Shard, ShardState, SourceStatus, WEIGHT_MAX,
};
use shardgate_peering::core::{
    Agreement, ClaimReason, LinkState, Rank, Reason, ShardName, StickKey, Unstored,
};
use shardgate_peering::{Claimed, Readiness, TableRow};
use shardgate_proto::admin as wire;
use shardgate_proto::admin::admin_server::{Admin, AdminServer};
use tokio::sync::mpsc;
use tonic::codegen::tokio_stream::{Stream, wrappers::ReceiverStream};
use tonic::service::Routes;
use tonic::{Request, Response, Status};

use super::{Access, AdminParts};
use crate::health::{Reach, ServerReport};
use crate::sessions::Which;

/// Rows asked of the driver at once: it answers other questions in between.
const PAGE: usize = 512;

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

fn discovery(status: &SourceStatus) -> wire::Discovery {
    let age_ms = |at: Instant| at.elapsed().as_millis() as u64;
    let part = |part: &PartStatus| wire::DiscoveryPart {
        name: part.name.clone(),
        age_ms: part.last_good.map(age_ms),
        error: part.error.clone().unwrap_or_default(),
    };
    wire::Discovery {
        source: status.source.clone(),
        origin: match status.origin {
            Origin::Source => "source",
            Origin::Disk { .. } => "disk",
            Origin::Nothing => "nothing",
        }
        .to_owned(),
        stale: status.stale(Instant::now()).unwrap_or_default(),
        error: status.last_error.clone().unwrap_or_default(),
        invalid: status.invalid as u64,
        parts: status.parts.iter().map(part).collect(),
        age_ms: age_ms(status.last_good),
    }
}

fn health(report: &ServerReport, listed: &Shard) -> wire::Health {
    let millis = |duration: Duration| duration.as_millis() as u64;
    let check = report.check.as_ref();
    let holds = report.standing.over(listed);
    let holds = holds.as_ref().unwrap_or(listed);
    wire::Health {
        up: report.standing.reach == Reach::Up,
        check: check.map_or_else(String::new, |check| check.phase.to_string()),
        last: check.map_or_else(String::new, |check| check.last.clone()),
        took_ms: check.map_or(0, |check| millis(check.took)),
        passed: check.map_or(0, |check| check.passed),
        failed: check.map_or(0, |check| check.failed),
        since_ms: millis(report.since),
        downs: report.downs,
        agent: report.agent.as_ref().map(|agent| wire::Agent {
            says: agent.says.clone(),
            heard_ms: agent.heard.map(millis),
            error: agent.error.clone().unwrap_or_default(),
        }),
        state: holds.state.to_string(),
        weight: u32::from(holds.weight),
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
    type TableStream = Pin<Box<dyn Stream<Item = Result<wire::TableEntry, Status>> + Send>>;

    async fn status(
        &self,
        _: Request<wire::StatusRequest>,
    ) -> Result<Response<wire::StatusResponse>, Status> {
        let parts = &self.parts;
        let mesh = parts.table.status().await;
        let snapshot = parts.discovery.current();
        let watched = parts.health.report().await;
        let mut shards = Vec::new();
        for shard in snapshot.shards() {
            shards.push(wire::Shard {
                name: shard.name.to_string(),
                release: shard.release.to_string(),
                region: shard.region.to_string(),
                address: shard.address.to_string(),
                state: shard.state.to_string(),
                weight: u32::from(shard.weight),
                command: parts.discovery.command(&shard.name).map(|command| wire::Command {
                    state: command.state.to_string(),
                    weight: command.weight.map(u32::from),
                    at_ms: command.at.duration_since(UNIX_EPOCH).map_or(0, |at| at.as_millis() as u64),
                }),
                conferences: parts.table.conferences(&shard.name),
                tunnels: parts.sessions.count(Which::Shard(shard.name.clone())).await as u64,
                health: watched
                    .iter()
                    .find(|report| report.name == shard.name)
                    .map(|report| health(report, shard)),
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
        let discovery = discovery(&parts.discovery.status());
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
            discovery: Some(discovery),
        }))
    }

    async fn table(
        &self,
        request: Request<wire::TableRequest>,
    ) -> Result<Response<Self::TableStream>, Status> {
        let wanted = request.into_inner().key;
        let wanted = match wanted.as_str() {
            "" => None,
            text => Some(key(text)?),
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
