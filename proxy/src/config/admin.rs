//! `[[admin]]`: listeners for those who run the node, each with the parts that it serves.

use super::mesh::pem;
use super::section::Section;
use super::tree::Item;
use super::value;
use super::write;
use std::collections::BTreeSet;
use std::fmt;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};

const ROLES: &str = "\"health\", \"balancer\", \"metrics\", \"status\", \"admin\"";
const LISTEN: &str = "an IP address and a port other than 0, such as \"127.0.0.1:8405\", or a unix socket, such as \"unix:/run/shardgate/admin.sock\"";
/// What the kernel takes (`sun_path`, unix(7)), less what the name of the socket in the making is longer.
const UNIX_PATH_BYTES_MAX: usize = 96;

/// A part of the admin's router.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum AdminRole {
    /// `/haproxy_health`: whether this node serves, for load balancers that know HAProxy's.
    Health,
    /// `/balancer`: health for the cloud's balancer, and the switch that takes the node out of it.
    Balancer,
    /// `/metrics`.
    Metrics,
    /// `/livez`, `/readyz`, and gRPC that answers questions.
    Status,
    /// gRPC that takes orders as well: on a unix socket, or with TLS and client certificates.
    Admin,
}

impl AdminRole {
    /// All parts.
    pub const ALL: [Self; 5] = [Self::Health, Self::Balancer, Self::Metrics, Self::Status, Self::Admin];
    /// Those that anybody on the host may look at.
    pub const OPEN: [Self; 4] = [Self::Health, Self::Balancer, Self::Metrics, Self::Status];

    /// The word that stands for the part.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Health => "health",
            Self::Balancer => "balancer",
            Self::Metrics => "metrics",
            Self::Status => "status",
            Self::Admin => "admin",
        }
    }
}

impl fmt::Display for AdminRole {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Where a listener listens.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum AdminAddress {
    /// TCP.
    Tcp(SocketAddr),
    /// A unix socket at this absolute path; only its owner may connect (mode 600).
    Unix(PathBuf),
}

impl fmt::Display for AdminAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(address) => write!(f, "{address}"),
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
        }
    }
}

/// Who may give orders over TCP: whoever has a certificate of this CA.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AdminTls {
    /// The CA of the clients' certificates.
    pub ca: PathBuf,
    /// The listener's own certificate.
    pub cert: PathBuf,
    /// Its key.
    pub key: PathBuf,
}

/// One listener. Without any `[[admin]]` there is one on loopback that serves everything but orders: nothing is open to the world unless
/// somebody says so.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AdminListener {
    /// Where it listens. It has no default.
    pub listen: AdminAddress,
    /// What it serves, at least one part. It has no default.
    pub serve: BTreeSet<AdminRole>,
    /// With TLS, for `admin` over TCP alone.
    pub tls: Option<AdminTls>,
}

impl AdminListener {
    pub(crate) fn defaults() -> Vec<Self> {
        let listen = AdminAddress::Tcp(SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 8405));
        vec![Self { listen, serve: AdminRole::OPEN.into_iter().collect(), tls: None }]
    }

    pub(super) fn read(mut section: Section<'_>) -> Option<Self> {
        let listen = section.require("listen", LISTEN, address);
        match &listen {
            Some(AdminAddress::Tcp(address)) => section.bind("listen", None, *address),
            Some(AdminAddress::Unix(path)) => section.bind_unix("listen", path),
            None => {}
        }
        let roles = AdminRole::ALL.map(|role| (role.as_str(), role));
        let serve = section.require_list("serve", ROLES, value::word(&roles));
        if serve.as_ref().is_some_and(Vec::is_empty) {
            section.refuse("serve", &"[]", format!("at least one of {ROLES}"));
        }
        let tls = ["ca", "cert", "key"].iter().any(|name| section.has(name)).then(|| {
            let (ca, cert) = (pem(&mut section, "ca"), pem(&mut section, "cert"));
            Some(AdminTls { ca: ca?, cert: cert?, key: pem(&mut section, "key")? })
        });
        let serve: Option<BTreeSet<AdminRole>> = serve.map(|serve| serve.into_iter().collect());
        if let (Some(listen), Some(serve)) = (&listen, &serve) {
            let orders = serve.contains(&AdminRole::Admin);
            match (listen, &tls) {
                (AdminAddress::Tcp(_), None) if orders => {
                    let expected = "no \"admin\" on TCP without ca, cert and key: it takes orders from whoever connects; or a unix socket";
                    section.refuse("serve", &"", expected.to_owned());
                }
                (AdminAddress::Tcp(_), Some(_)) if !orders || serve.len() > 1 => {
                    let expected = "\"admin\" alone where ca, cert and key are set; balancers and Prometheus ask without TLS";
                    section.refuse("serve", &"", expected.to_owned());
                }
                (AdminAddress::Unix(_), Some(_)) => {
                    let expected = "a TCP address where ca, cert and key are set; a unix socket has no TLS";
                    section.refuse("listen", &"", expected.to_owned());
                }
                (AdminAddress::Tcp(_) | AdminAddress::Unix(_), _) => {}
            }
        }
        section.finish();
        let tls = match tls {
            None => None,
            Some(tls) => Some(tls?),
        };
        Some(Self { listen: listen?, serve: serve?, tls })
    }
}

fn address(item: &Item) -> Result<AdminAddress, String> {
    let unix = item.text().and_then(|text| text.strip_prefix("unix:"));
    match unix {
        None => value::listen_address(item).map(AdminAddress::Tcp).map_err(|_| LISTEN.to_owned()),
        Some(path)
            if Path::new(path).is_absolute()
                && path.len() <= UNIX_PATH_BYTES_MAX
                && !path.contains(char::is_control) =>
        {
            Ok(AdminAddress::Unix(PathBuf::from(path)))
        }
        Some(_) => Err(format!(
            "an absolute path of at most {UNIX_PATH_BYTES_MAX} bytes, without control characters, after unix:"
        )),
    }
}

impl fmt::Display for AdminListener {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "[[admin]]")?;
        writeln!(f, "listen = {}", write::text(&self.listen.to_string()))?;
        writeln!(f, "serve = {}", write::list(&self.serve))?;
        if let Some(AdminTls { ca, cert, key }) = &self.tls {
            writeln!(f, "ca = {}", write::path(ca))?;
            writeln!(f, "cert = {}", write::path(cert))?;
            writeln!(f, "key = {}", write::path(key))?;
        }
        Ok(())
    }
}
