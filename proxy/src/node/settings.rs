//! From the checked configuration to what each part is told.

use std::collections::BTreeSet;
use std::num::NonZeroUsize;
use std::time::{SystemTime, UNIX_EPOCH};

use shardgate_discovery::ServiceName;
use shardgate_discovery::consul::{
    AgentConfig, AgentError, AgentTls, ConsulConfig, Datacenter, Place, Token,
};
use shardgate_peering::{Environment, IdentityFiles, MeshConfig, RELAYED_STREAMS_MAX, core};

use super::NodeError;
use crate::answer_headers::AnswerHeaders;
use crate::backend::MannerError;
use crate::config::{AcceptProxy, AgentCheck, HealthConfig, OfferHttp2, Protocol, Redirect};
use crate::config::{Config, ConsulSection, NodeConfig};
use crate::health::HealthSettings;
use crate::limits::{Ceilings, Counting, PerShard};
use crate::redirect::ToHttps;
use crate::tls::{Alpn, ServerTls};
use crate::worker::{ForwardedProto, FrontendConfig, Security, WorkersConfig};
use crate::{ConnectLimits, Limits, Manners, Pages, PoolLimits};

pub(super) fn table(config: &Config) -> core::Config {
    let table = core::Config {
        ttl_ms: millis(config.stick_table.expire),
        entries_max: config.stick_table.size,
        ..core::Config::new(config.node.id.clone(), incarnation())
    };
    match &config.mesh {
        Some(mesh) => core::Config {
            heartbeat_ms: millis(mesh.heartbeat),
            claim_budget_min_ms: millis(mesh.claim_budget_min),
            claim_budget_max_ms: millis(mesh.claim_budget_max),
            ..table
        },
        None => table,
    }
}

pub(super) fn mesh(config: &Config) -> Result<Option<MeshConfig>, NodeError> {
    let Some(mesh) = &config.mesh else { return Ok(None) };
    Ok(Some(MeshConfig {
        listen: mesh.listen,
        identity: IdentityFiles { ca: mesh.ca.clone(), cert: mesh.cert.clone(), key: mesh.key.clone() },
        environment: Environment::parse(config.node.environment.as_str()).map_err(NodeError::Environment)?,
        idle_timeout: mesh.idle_timeout,
        relayed_streams_max: RELAYED_STREAMS_MAX,
    }))
}

/// The services whose instances are the servers of pools.
pub(super) fn pool_services(config: &Config) -> BTreeSet<ServiceName> {
    config.routing.pools.iter().filter_map(|pool| pool.service().cloned()).collect()
}

pub(super) fn consul(node: &NodeConfig, section: &ConsulSection) -> Result<ConsulConfig, NodeError> {
    let token = match &section.token_file {
        None => None,
        Some(path) => {
            let refused = |what: &str| NodeError::Token { path: path.clone(), what: what.to_owned() };
            let text = std::fs::read_to_string(path).map_err(|error| refused(&error.to_string()))?;
            Some(
                Token::parse(&text)
                    .ok_or_else(|| refused("holds no token, expected one of visible ASCII"))?,
            )
        }
    };
    let environment = node.environment.clone();
    // A region's and an environment's letters are those of datacenters, but for the dot.
    let usual = format!("{environment}-{}", node.region).replace('.', "-");
    let datacenter = section.datacenter.clone().or_else(|| Datacenter::parse(&usual));
    let datacenter = datacenter.ok_or_else(|| AgentError::Client {
        what: format!("{usual:?} is no name of a datacenter, expected consul.datacenter"),
    })?;
    Ok(ConsulConfig {
        agent: AgentConfig {
            address: section.address.clone(),
            token,
            tls: AgentTls { ca: section.ca.clone(), client: section.client.clone() },
            namespace: section.namespace.clone(),
            partition: section.partition.clone(),
            source: None,
        },
        place: Place {
            environment,
            datacenter,
            services: section.services.clone(),
            remote_address: section.remote_address,
        },
        datacenters: section.datacenters.clone(),
        pools: BTreeSet::new(),
        behind_max: section.max_stale,
        state_file: section.state_file.clone(),
        start_within: section.start_timeout,
    })
}

/// Each address of each listener; first those of the short form.
fn frontends(config: &Config, tls: Option<&ServerTls>) -> Vec<FrontendConfig> {
    let short = config.frontend.listen.iter().enumerate().map(|(index, address)| FrontendConfig {
        name: format!("http-{}", index + 1),
        address: *address,
        forwarded_proto: config.frontend.forwarded_proto,
        security: Security::Plain,
        connections_max: None,
        to_https: None,
        accept_proxy: AcceptProxy::Off,
    });
    let https = config.listeners.iter().filter(|listener| listener.protocol == Protocol::Https);
    let https = https.flat_map(|listener| &listener.listen).next();
    let elsewhere = ToHttps { port: https.map_or(443, std::net::SocketAddr::port) };
    let listed = config.listeners.iter().flat_map(|listener| {
        let security = match (listener.protocol, tls) {
            (Protocol::Https, Some(tls)) => Security::Tls(
                tls.clone(),
                match listener.http2 {
                    OfferHttp2::On => Alpn::Http2AndHttp1,
                    OfferHttp2::Off => Alpn::Http1,
                },
            ),
            // A listener with TLS and no [tls] was refused when the configuration was read.
            (Protocol::Http, _) | (Protocol::Https, None) => Security::Plain,
        };
        let to_https = match listener.redirect {
            Redirect::Off => None,
            Redirect::Https => Some(elsewhere),
        };
        let usual = match listener.protocol {
            // Before a listener that sends its clients to TLS stands nothing that has ended it.
            Protocol::Http if to_https.is_some() => ForwardedProto::Http,
            Protocol::Http => config.frontend.forwarded_proto,
            Protocol::Https => ForwardedProto::Https,
        };
        listener.listen.iter().map(move |address| FrontendConfig {
            name: listener.name.to_string(),
            address: *address,
            forwarded_proto: listener.forwarded_proto.unwrap_or(usual),
            security: security.clone(),
            connections_max: listener.max_connections.and_then(NonZeroUsize::new),
            to_https,
            accept_proxy: listener.accept_proxy,
        })
    });
    short.chain(listed).collect()
}

pub(super) fn workers(config: &Config, tls: Option<&ServerTls>) -> Result<WorkersConfig, NodeError> {
    let mut pages = Pages::default();
    for (status, page) in config.pages.iter() {
        pages.replace(status, page.body.clone())?;
    }
    let manners = manners(config)?;
    let maintenance = config.pages.maintenance().map(|page| page.body.clone());
    pages.set_maintenance(maintenance, config.pages.maintenance_retry_after().as_secs());
    Ok(WorkersConfig {
        threads: config.frontend.workers.count(),
        frontends: frontends(config, tls),
        backlog: config.frontend.backlog,
        region: config.node.region.clone(),
        host: config.node.host_name.clone(),
        limits: limits(config),
        ceilings: ceilings(config),
        routing: config.routing.clone(),
        health: HealthSettings::new(&config.backend.health, &config.routing.pools, &manners),
        manners,
        pages,
        trust: config.frontend.trust.clone(),
        request_ids: config.frontend.request_ids,
        answer_headers: AnswerHeaders::new(&config.frontend.response_headers, config.frontend.hsts.as_ref()),
        access_log: config.log.access.clone(),
    })
}

fn manners(config: &Config) -> Result<Manners, MannerError> {
    Manners::load(&config.backend.upstream, config.routing.pools.iter().map(|pool| &pool.upstream))
}

fn limits(config: &Config) -> Limits {
    let (frontend, backend) = (&config.frontend, &config.backend);
    Limits {
        connect: ConnectLimits {
            timeout: backend.connect_timeout,
            retries: backend.retries,
            ..ConnectLimits::default()
        },
        pool: PoolLimits { idle_per_shard: backend.max_idle_per_shard, idle_timeout: backend.idle_timeout },
        head_timeout: frontend.header_timeout,
        keep_alive_timeout: frontend.keepalive_timeout,
        client_timeout: frontend.client_timeout,
        server_timeout: backend.server_timeout,
        tunnel_timeout: backend.tunnel_timeout,
        client_fin_timeout: frontend.client_fin,
        bosh_pause: config.stick_table.bosh_pause,
        head_bytes_max: frontend.max_header_size,
        headers_max: frontend.max_headers,
        balance_percent: backend.balance_factor,
        redispatch: backend.redispatch,
        connections_max: frontend.max_connections,
        ..Limits::default()
    }
}

fn ceilings(config: &Config) -> Ceilings {
    let backend = &config.backend;
    let asks = |health: &HealthConfig| health.agent_check == AgentCheck::On;
    let pools = config.routing.pools.iter().map(|pool| &pool.health);
    let agents = pools.chain([&backend.health]).any(asks);
    Ceilings {
        per_address: config.limits.per_address(),
        per_shard: PerShard {
            connections_max: backend.max_connections_per_shard,
            queue_max: backend.queue_max,
            queue_timeout: backend.queue_timeout,
            counting: if agents { Counting::Always } else { Counting::WhereLimited },
        },
        memory_max: config.limits.memory_max,
    }
}

/// Different for every start: the nanoseconds of the wall clock, never 0.
fn incarnation() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_nanos()).unwrap_or(u64::MAX).max(1)
}

fn millis(duration: std::time::Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}
