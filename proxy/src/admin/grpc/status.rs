//! What a node is, how it is, and what is on its shards.

use std::collections::BTreeMap;
use std::time::{Duration, Instant, UNIX_EPOCH};

use shardgate_discovery::{Origin, PartStatus, Shard, SourceStatus};
use shardgate_peering::Readiness;
use shardgate_peering::core::{Agreement, LinkState};
use shardgate_proto::admin as wire;

use super::super::AdminParts;
use crate::health::{Reach, ServerReport};

/// The whole.
pub(super) async fn status(parts: &AdminParts) -> wire::StatusResponse {
    let mesh = parts.table.status().await;
    let snapshot = parts.discovery.current();
    let sessions = parts.sessions.of_shards().await;
    let watched = parts.health.report().await;
    let watched: BTreeMap<&str, &ServerReport> =
        watched.iter().map(|report| (report.name.as_str(), report)).collect();
    let shards = snapshot.shards().iter().map(|shard| {
        let here = sessions.get(&shard.name).copied().unwrap_or_default();
        wire::Shard {
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
            tunnels: here.tunnels,
            bosh_sessions: here.bosh,
            health: watched.get(shard.name.as_str()).map(|report| health(report, shard)),
        }
    });
    let reason = parts.not_ready();
    wire::StatusResponse {
        node: parts.node.id.to_string(),
        region: parts.node.region.to_string(),
        version: env!("CARGO_PKG_VERSION").to_owned(),
        ready: reason.is_none(),
        reason: reason.unwrap_or_default(),
        entries: mesh.entries as u64,
        tunnels: parts.sessions.open(),
        bosh_sessions: parts.sessions.bosh(),
        snapshot_version: snapshot.version(),
        peers: mesh.peers.into_iter().map(peer).collect(),
        shards: shards.collect(),
        discovery: Some(discovery(&parts.discovery.status())),
    }
}

/// What is on each shard.
pub(super) async fn sessions(parts: &AdminParts) -> wire::SessionsResponse {
    // Counted before the conferences: a session that ends in between leaves its conference to be counted, and nothing looks empty too early.
    let sessions = parts.sessions.of_shards().await;
    let snapshot = parts.discovery.current();
    let mut shards: BTreeMap<&str, wire::ShardSessions> = BTreeMap::new();
    for shard in snapshot.shards() {
        let row = wire::ShardSessions {
            shard: shard.name.to_string(),
            release: shard.release.to_string(),
            state: shard.state.to_string(),
            conferences: parts.table.conferences(&shard.name),
            ..wire::ShardSessions::default()
        };
        shards.insert(shard.name.as_str(), row);
    }
    // Those that discovery does not list any more are not empty for that.
    let on_all = parts.table.conferences_of_all();
    for (name, conferences) in &on_all {
        shards.entry(name.as_str()).or_insert_with(|| wire::ShardSessions {
            shard: name.to_string(),
            conferences: *conferences,
            ..wire::ShardSessions::default()
        });
    }
    for (name, here) in &sessions {
        let row = shards.entry(name.as_str()).or_insert_with(|| wire::ShardSessions {
            shard: name.to_string(),
            conferences: parts.table.conferences(name),
            ..wire::ShardSessions::default()
        });
        (row.tunnels_here, row.bosh_here) = (here.tunnels, here.bosh);
    }
    let reason = parts.not_ready();
    wire::SessionsResponse {
        node: parts.node.id.to_string(),
        ready: reason.is_none(),
        reason: reason.unwrap_or_default(),
        tunnels: sessions.values().map(|here| here.tunnels).sum(),
        bosh_sessions: sessions.values().map(|here| here.bosh).sum(),
        shards: shards.into_values().collect(),
        knows_table: matches!(parts.table.readiness(), Readiness::Ready { .. }),
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
        cut_ms: report.cut.map(millis),
    }
}

fn peer(peer: shardgate_peering::PeerStatus) -> wire::Peer {
    wire::Peer {
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
        agreed_ms: peer.view.agreed_ms_ago,
        suspect: peer.view.suspect,
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
        not_kept: status.not_kept.clone().unwrap_or_default(),
    }
}
