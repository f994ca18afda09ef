//! `[[admin]]`: listeners for those who run the node, each with the parts that it serves.

use super::section::Section;
use super::value;
use super::write;
use std::collections::BTreeSet;
use std::fmt;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};

const ROLES: &str = "\"health\", \"balancer\", \"metrics\", \"status\"";

/// A part of the admin's router.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum AdminRole {
    /// `/haproxy_health`: whether this node serves, for load balancers that know HAProxy's.
    Health,
    /// `/balancer`: health for the cloud's balancer, and the switch that takes the node out of it.
    Balancer,
    /// `/metrics`.
    Metrics,
    /// `/livez`, `/readyz` and everything else.
    Status,
}

impl AdminRole {
    /// All parts.
    pub const ALL: [Self; 4] = [Self::Health, Self::Balancer, Self::Metrics, Self::Status];

    /// The word that stands for the part.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Health => "health",
            Self::Balancer => "balancer",
            Self::Metrics => "metrics",
            Self::Status => "status",
        }
    }
}

impl fmt::Display for AdminRole {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// One listener. Without any `[[admin]]` there is one on loopback that serves everything: nothing is open to the world unless
/// somebody says so.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AdminListener {
    /// Address for HTTP. It has no default.
    pub listen: SocketAddr,
    /// What it serves, at least one part. It has no default.
    pub serve: BTreeSet<AdminRole>,
}

impl AdminListener {
    pub(super) fn defaults() -> Vec<Self> {
        let listen = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 8405);
        vec![Self { listen, serve: AdminRole::ALL.into_iter().collect() }]
    }

    pub(super) fn read(mut section: Section<'_>) -> Option<Self> {
        let listen = section.require("listen", value::LISTEN_ADDRESS, value::listen_address);
        if let Some(address) = listen {
            section.bind("listen", None, address);
        }
        let roles = AdminRole::ALL.map(|role| (role.as_str(), role));
        let serve = section.require_list("serve", ROLES, value::word(&roles));
        if serve.as_ref().is_some_and(Vec::is_empty) {
            section.refuse("serve", &"[]", format!("at least one of {ROLES}"));
        }
        section.finish();
        Some(Self { listen: listen?, serve: serve?.into_iter().collect() })
    }
}

impl fmt::Display for AdminListener {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "[[admin]]")?;
        writeln!(f, "listen = \"{}\"", self.listen)?;
        writeln!(f, "serve = {}", write::list(&self.serve))
    }
}
