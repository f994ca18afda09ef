//! What a node tells Consul of itself.

use crate::config::{AdminAddress, AdminListener, AdminRole, ConsulSection, NodeConfig, Register};
use shardgate_discovery::consul::{
    Check, META_ADMIN_PORT, META_ADMIN_TLS_PORT, META_NODE, META_PEER_PORT, META_REGION, META_VERSION,
    Registration,
};
use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};

/// What is known of a node that has begun to listen.
#[derive(Debug, Clone, Copy)]
pub(super) struct From<'a> {
    pub(super) node: &'a NodeConfig,
    pub(super) section: &'a ConsulSection,
    /// Where peers come in (UDP), if there is a mesh.
    pub(super) mesh: Option<SocketAddr>,
    /// Where clients come in first.
    pub(super) frontend: Option<SocketAddr>,
    /// Where operators ask.
    pub(super) admin: &'a [AdminListener],
}

/// The port at `ip` of the first listener that answers operators' questions, by `field`: without TLS, or with it.
fn admin_port(admin: &[AdminListener], ip: IpAddr, field: &str) -> Option<u16> {
    let answers =
        |it: &&AdminListener| it.serve.contains(&AdminRole::Status) || it.serve.contains(&AdminRole::Admin);
    let fits = |it: &&AdminListener| it.tls.is_some() == (field == META_ADMIN_TLS_PORT);
    let mut ports = admin.iter().filter(answers).filter(fits).filter_map(|listener| match &listener.listen {
        AdminAddress::Tcp(at) if at.ip().is_unspecified() || at.ip() == ip => Some(at.port()),
        AdminAddress::Tcp(_) | AdminAddress::Unix(_) => None,
    });
    ports.next()
}

impl From<'_> {
    /// The service, with the meta that HAProxy's had and our own; `None` when somebody else registers the node.
    pub(super) fn registration(&self) -> Option<Registration> {
        let Self { node, section, mesh, frontend, admin } = self;
        let given = &section.registration;
        if given.register == Register::Off {
            return None;
        }
        let environment = node.environment.to_string();
        let public_port = frontend.map_or(0, |address| address.port());
        let agents_own = IpAddr::V4(Ipv4Addr::UNSPECIFIED);
        let ip = given.advertise.or_else(|| mesh.map(|mesh| mesh.ip())).unwrap_or(agents_own);
        let mut meta = BTreeMap::from([
            ("environment".to_owned(), environment.clone()),
            ("hostname".to_owned(), node.host_name.clone()),
            (META_NODE.to_owned(), node.id.to_string()),
            (META_REGION.to_owned(), node.region.to_string()),
            (META_VERSION.to_owned(), env!("CARGO_PKG_VERSION").to_owned()),
        ]);
        meta.extend(given.domain.iter().map(|domain| ("domain".to_owned(), domain.clone())));
        // Without a mesh nobody is to dial it.
        meta.extend(mesh.map(|mesh| (META_PEER_PORT.to_owned(), mesh.port().to_string())));
        // What listens on loopback alone, as by default, is for nobody else.
        for field in [META_ADMIN_PORT, META_ADMIN_TLS_PORT] {
            meta.extend(admin_port(admin, ip, field).map(|port| (field.to_owned(), port.to_string())));
        }
        let name = section.services.nodes.clone();
        Some(Registration {
            id: format!("{environment}-{name}-{}", node.id),
            name,
            tags: vec![environment],
            address: SocketAddr::new(ip, mesh.map_or(public_port, |mesh| mesh.port())),
            wan: given.advertise_wan,
            public_port,
            meta,
            check: Check::Ttl { ttl: given.check_ttl, deregister_after: given.deregister_after },
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{AdminTls, RegistrationSection};
    use shardgate_discovery::{PeerId, RegionName};
    use std::path::PathBuf;

    fn section(registration: RegistrationSection) -> ConsulSection {
        ConsulSection { registration, ..ConsulSection::default() }
    }

    #[test]
    fn what_peers_are_told() {
        let node = NodeConfig::new(PeerId::parse("n1").unwrap(), RegionName::parse("us-phoenix-1").unwrap());
        let listening: SocketAddr = "10.0.0.1:1024".parse().unwrap();
        let mesh = Some(listening);
        let frontend = Some("0.0.0.0:80".parse().unwrap());
        let of = |section: &ConsulSection, mesh| {
            From { node: &node, section, mesh, frontend, admin: &[] }.registration()
        };
        let told = of(&section(RegistrationSection::default()), mesh).unwrap();
        assert_eq!((told.name.as_str(), told.id.as_str()), ("shardgate", "dev-shardgate-n1"));
        assert_eq!((told.tags, told.address, told.public_port), (vec!["dev".to_owned()], listening, 80));
        let meta: Vec<_> = told.meta.iter().map(|(name, value)| format!("{name}={value}")).collect();
        assert_eq!(
            meta.join(" "),
            format!(
                "environment=dev hostname=n1 shardgate_node=n1 shardgate_peer_port=1024 shardgate_region=us-phoenix-1 shardgate_version={}",
                env!("CARGO_PKG_VERSION")
            )
        );
        // Without a mesh it is listed, and nobody dials it; its address is the agent's.
        let alone = of(&section(RegistrationSection::default()), None).unwrap();
        assert_eq!(alone.address, "0.0.0.0:80".parse().unwrap());
        assert!(!alone.meta.contains_key(META_PEER_PORT));
        let given = RegistrationSection {
            advertise: Some("192.0.2.1".parse().unwrap()),
            advertise_wan: Some("192.0.2.2".parse().unwrap()),
            domain: Some("meet.example.com".to_owned()),
            ..RegistrationSection::default()
        };
        let told = of(&section(given.clone()), mesh).unwrap();
        assert_eq!((told.address, told.wan), ("192.0.2.1:1024".parse().unwrap(), given.advertise_wan));
        assert_eq!(told.meta["domain"], "meet.example.com");
        assert_eq!(of(&section(RegistrationSection { register: Register::Off, ..given }), mesh), None);
    }

    #[test]
    fn operators_are_told_where_to_ask_if_they_can() {
        let listener = |listen: &str, serve: &[AdminRole], tls: Option<AdminTls>| AdminListener {
            listen: AdminAddress::Tcp(listen.parse().unwrap()),
            serve: serve.iter().copied().collect(),
            tls,
        };
        let file = || PathBuf::from("pem");
        let tls = || Some(AdminTls { ca: file(), cert: file(), key: file() });
        let ports = |admin: &[AdminListener]| {
            [META_ADMIN_PORT, META_ADMIN_TLS_PORT]
                .map(|field| admin_port(admin, "10.0.0.1".parse().unwrap(), field))
        };
        let status = [AdminRole::Status];
        assert_eq!(ports(&AdminListener::defaults()), [None, None], "loopback");
        assert_eq!(ports(&[listener("10.0.0.2:1", &status, None)]), [None, None], "another address");
        assert_eq!(ports(&[listener("0.0.0.0:1", &[AdminRole::Metrics], None)]), [None, None]);
        let listeners = [
            listener("10.0.0.1:2", &status, None),
            listener("0.0.0.0:3", &status, None),
            listener("0.0.0.0:4", &[AdminRole::Admin], tls()),
        ];
        assert_eq!(ports(&listeners), [Some(2), Some(4)]);
    }
}
