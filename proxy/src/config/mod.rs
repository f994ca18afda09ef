//! The configuration of the daemon: one TOML file, overridden by the environment, overridden by `--set`.
//!
//! Two stages. Raw: `tree` keeps every value with its place, whatever its type. Checked: each section of [`Config`] reads its
//! fields from there into types that cannot be wrong; `section` words the complaints. All faults are reported at once.
//! Each section's file holds its fields, their defaults and why; `Display` writes the whole of what will run as TOML again.

mod admin;
mod backend;
mod changes;
mod consul;
mod decisive;
mod discovery;
mod error;
mod frontend;
mod health;
mod limits;
mod listeners;
mod log;
mod mesh;
mod nearest;
mod node;
mod overrides;
mod pages;
mod pools;
mod routing;
mod section;
mod shutdown;
mod stick_table;
mod tls;
mod tree;
mod units;
mod upstream;
mod value;
mod write;

pub use admin::{AdminAddress, AdminListener, AdminRole, AdminTls};
pub use backend::{BackendConfig, Redispatch};
pub use consul::{ConsulSection, Register, RegistrationSection};
pub use decisive::{Decisive, load_decisive};
pub use discovery::{DiscoveryConfig, FileSection};
pub use error::{ConfigError, ConfigErrors, Place};
pub use frontend::{FrontendConfig, Workers};
pub use health::{
    AgentCheck, Check, CheckMethod, HealthConfig, HttpCheck, Observe, OnError, OnMarkedDown, Statuses,
};
pub use limits::LimitsConfig;
pub use listeners::{AcceptProxy, ListenerConfig, ListenerName, OfferHttp2, Protocol, Redirect};
pub use log::LogConfig;
pub use mesh::MeshConfig;
pub use node::NodeConfig;
pub use overrides::process_environment;
pub use pages::{Page, PagesConfig};
pub use shutdown::ShutdownConfig;
pub use stick_table::StickTableConfig;
pub use tls::{TlsCertificate, TlsConfig, TlsVersion};
pub use upstream::{SendProxy, UpstreamConfig, UpstreamProtocol, Verify};

use crate::routing_key::Routing;
use listeners::Certificates;
use section::Section;
use std::fmt;
use std::path::Path;

/// Everything that `serve` runs by.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Config {
    /// `[node]`: who this node is.
    pub node: NodeConfig,
    /// `[frontend]`: the side of the clients.
    pub frontend: FrontendConfig,
    /// `[tls]`: certificates. Without it no listener speaks https.
    pub tls: Option<TlsConfig>,
    /// `[[listeners]]`: addresses with more to say of them than `[frontend] listen` does.
    pub listeners: Vec<ListenerConfig>,
    /// `[backend]`: the side of the shards.
    pub backend: BackendConfig,
    /// `[limits]`: what is let in at all.
    pub limits: LimitsConfig,
    /// `[stick_table]`: conference to shard.
    pub stick_table: StickTableConfig,
    /// `[mesh]`: the other nodes. Without it the node works alone.
    pub mesh: Option<MeshConfig>,
    /// `[discovery]` or `[consul]`: where shards, peers, releases and pins come from.
    pub discovery: DiscoveryConfig,
    /// `[routing]`: which paths are rooms, tenants and signaling.
    pub routing: Routing,
    /// `[pages]`: what errors look like.
    pub pages: PagesConfig,
    /// `[log]`: access log and events.
    pub log: LogConfig,
    /// `[[admin]]`: health, metrics and status.
    pub admin: Vec<AdminListener>,
    /// `[shutdown]`: how the node ends.
    pub shutdown: ShutdownConfig,
}

impl Config {
    /// A node that works alone, with every default.
    #[must_use]
    pub fn new(node: NodeConfig, discovery: DiscoveryConfig) -> Self {
        Self {
            node,
            frontend: FrontendConfig::default(),
            tls: None,
            listeners: Vec::new(),
            backend: BackendConfig::default(),
            limits: LimitsConfig::default(),
            stick_table: StickTableConfig::default(),
            mesh: None,
            discovery,
            routing: Routing::default(),
            pages: PagesConfig::default(),
            log: LogConfig::default(),
            admin: AdminListener::defaults(),
            shutdown: ShutdownConfig::default(),
        }
    }
}

/// Reads the file at `path`, then the variables `SHARDGATE_A__B=value` of `env` (others are passed over), then `sets`
/// (`a.b=value`): the later one wins. [`process_environment`] gives the process's own `env`.
///
/// # Errors
/// [`ConfigErrors`] with every fault that was found; none of the configuration is used then.
pub fn load(
    path: &Path,
    env: impl Iterator<Item = (String, String)>,
    sets: &[String],
) -> Result<Config, ConfigErrors> {
    let mut root = tree::read(path)?;
    let mut errors = Vec::new();
    overrides::apply_environment(&mut root, env, &mut errors);
    overrides::apply_sets(&mut root, sets, &mut errors);
    let mut reading = section::Reading::new(path, errors);
    let config = read(Section::root(root, &mut reading));
    let errors = reading.into_errors();
    match config {
        Some(config) if errors.is_empty() => Ok(config),
        Some(_) | None => Err(ConfigErrors(errors)),
    }
}

/// `None` only when a field without a default is missing or wrong, which has been noted then.
fn read(mut root: Section<'_>) -> Option<Config> {
    let node = NodeConfig::read(root.section("node"));
    let tls = root.optional_section("tls").map(TlsConfig::read);
    let mut listeners = Vec::new();
    for table in root.sections("listeners").unwrap_or_default() {
        let certificates = if tls.is_some() { Certificates::Given } else { Certificates::None };
        listeners.extend(ListenerConfig::read(root.entry(table), &listeners, certificates));
    }
    let frontend = FrontendConfig::read(root.section("frontend"), &listeners);
    let backend = BackendConfig::read(root.section("backend"));
    let limits = LimitsConfig::read(root.section("limits"));
    let stick_table = StickTableConfig::read(root.section("stick_table"));
    let mesh = root.optional_section("mesh").map(MeshConfig::read);
    let discovery = DiscoveryConfig::read(&mut root);
    let mut routing = routing::read(root.section("routing"));
    let region = node.as_ref().map(|node| node.region.clone());
    let catalog = match discovery {
        Some(DiscoveryConfig::File(_)) => pools::Catalog::None,
        // Without any the configuration is refused for that.
        Some(DiscoveryConfig::Consul(_)) | None => pools::Catalog::There,
    };
    for table in root.sections("pools").unwrap_or_default() {
        routing.pools.extend(pools::read(root.entry(table), region.as_ref(), catalog, &routing.pools));
    }
    let pages = PagesConfig::read(root.section("pages"));
    let log = LogConfig::read(root.section("log"));
    let admin = match root.sections("admin") {
        Some(tables) => {
            tables.into_iter().filter_map(|table| AdminListener::read(root.entry(table))).collect()
        }
        None => {
            let defaults = AdminListener::defaults();
            for (index, listener) in defaults.iter().enumerate() {
                if let AdminAddress::Tcp(address) = listener.listen {
                    root.bind("admin", Some(index), address);
                }
            }
            defaults
        }
    };
    let shutdown = ShutdownConfig::read(root.section("shutdown"));
    root.finish();
    Some(Config {
        node: node?,
        frontend,
        tls: match tls {
            Some(tls) => Some(tls?),
            None => None,
        },
        listeners,
        backend,
        limits,
        stick_table,
        mesh: match mesh {
            Some(mesh) => Some(mesh?),
            None => None,
        },
        discovery: discovery?,
        routing,
        pages,
        log,
        admin,
        shutdown,
    })
}

impl fmt::Display for Config {
    /// What will run, every default spelled out, as a file that [`load`] reads into an equal value.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.admin.is_empty() {
            // Before the first table, or it would be a field of the last one.
            writeln!(f, "# no admin listeners\nadmin = []\n")?;
        }
        write!(f, "{}\n{}\n", self.node, self.frontend)?;
        match &self.tls {
            Some(tls) => writeln!(f, "{tls}")?,
            None => writeln!(f, "# no [tls]: no listener speaks https\n")?,
        }
        for listener in &self.listeners {
            writeln!(f, "{listener}")?;
        }
        write!(f, "{}\n{}\n{}\n", self.backend, self.limits, self.stick_table)?;
        match &self.mesh {
            Some(mesh) => writeln!(f, "{mesh}")?,
            None => writeln!(f, "# no [mesh]: this node works alone\n")?,
        }
        writeln!(f, "{}", self.discovery)?;
        routing::write(f, &self.routing)?;
        for pool in &self.routing.pools {
            writeln!(f)?;
            pools::write(f, pool)?;
        }
        write!(f, "\n{}\n{}\n", self.pages, self.log)?;
        for listener in &self.admin {
            writeln!(f, "{listener}")?;
        }
        write!(f, "{}", self.shutdown)
    }
}

#[cfg(test)]
mod tests;
