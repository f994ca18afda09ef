//! `[consul]`: discovery by Consul, in the place of `[discovery] file`.

use super::section::Section;
use super::value;
use super::write;
use shardgate_discovery::ServiceName;
use shardgate_discovery::consul::{AddressKind, AgentAddress, Datacenter, ServiceNames};
use std::fmt;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

const TOKEN_FILE: &str = "the path of a file that holds an ACL token";
const CA: &str = "the path of a PEM file with CAs";
const CERT: &str = "the path of a PEM file with a certificate";
const KEY: &str = "the path of a PEM file with a private key";
const STATE_FILE: &str = "the path of a file that may be written, or \"off\"";
const NAME: &str = "a name, 1 to 128 of A-Z a-z 0-9 _ -";
const REGISTER: &[(&str, Register)] = &[("on", Register::On), ("off", Register::Off)];
const IP: &str = "an IP address that others can dial";
const DOMAIN: &str = "a host name, 1 to 253 of A-Z a-z 0-9 . -";
const REMOTE_ADDRESS: &[(&str, AddressKind)] = &[("lan", AddressKind::Lan), ("wan", AddressKind::Wan)];

/// What shards with their bridge in one are called when nothing else is said.
const STANDALONES: &str = "all";

/// Where the last good state is kept when nothing else is said.
const STATE_FILE_DEFAULT: &str = "/var/lib/shardgate/consul.json";

/// Whether a node registers itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Register {
    /// It does, and takes itself out when it ends in order.
    On,
    /// Somebody else does.
    Off,
}

/// How a node registers itself at its agent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RegistrationSection {
    /// Whether at all. Default on.
    pub register: Register,
    /// Where peers find it. Default: the IP of `mesh.listen`; when that is unspecified, the agent's own address.
    pub advertise: Option<IpAddr>,
    /// The same for other datacenters. Default: as `advertise`.
    pub advertise_wan: Option<IpAddr>,
    /// The domain that the environment serves, for the service's meta. Default: none is told.
    pub domain: Option<String>,
    /// How long the node may be silent until its check is critical. Default 15 s.
    pub check_ttl: Duration,
    /// How long the check may be critical until Consul forgets the node. Default 24 h.
    pub deregister_after: Duration,
}

impl Default for RegistrationSection {
    fn default() -> Self {
        Self {
            register: Register::On,
            advertise: None,
            advertise_wan: None,
            domain: None,
            check_ttl: Duration::from_secs(15),
            deregister_after: Duration::from_secs(24 * 3600),
        }
    }
}

impl RegistrationSection {
    fn read(section: &mut Section<'_>) -> Self {
        let default = Self::default();
        let ip =
            |text: &str| text.parse().ok().filter(|ip: &IpAddr| !ip.is_unspecified() && !ip.is_multicast());
        let domain = |text: &str| {
            let valid = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'-');
            ((1..=253).contains(&text.len()) && text.bytes().all(valid)).then(|| text.to_owned())
        };
        let hour = Duration::from_secs(3600);
        Self {
            register: section.get("register", value::word(REGISTER)).unwrap_or(default.register),
            advertise: section.get("advertise", value::text(IP, ip)),
            advertise_wan: section.get("advertise_wan", value::text(IP, ip)),
            domain: section.get("domain", value::text(DOMAIN, domain)),
            check_ttl: section
                .get("check_ttl", value::duration(Duration::from_secs(3)..=hour))
                .unwrap_or(default.check_ttl),
            // Consul's least is a minute.
            deregister_after: section
                .get("deregister_after", value::duration(Duration::from_secs(60)..=hour * 24 * 30))
                .unwrap_or(default.deregister_after),
        }
    }
}

impl fmt::Display for RegistrationSection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "register = \"{}\"", value::word_of(REGISTER, self.register))?;
        for (name, ip) in [("advertise", self.advertise), ("advertise_wan", self.advertise_wan)] {
            if let Some(ip) = ip {
                writeln!(f, "{name} = \"{ip}\"")?;
            }
        }
        if let Some(domain) = &self.domain {
            writeln!(f, "domain = {}", write::text(domain))?;
        }
        writeln!(f, "check_ttl = {}", write::duration(self.check_ttl))?;
        writeln!(f, "deregister_after = {}", write::duration(self.deregister_after))
    }
}

/// How Consul is asked, and for what.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConsulSection {
    /// The agent. Default the one of this machine, `http://127.0.0.1:8500`.
    pub address: AgentAddress,
    /// A file with the ACL token. Default: none is sent.
    pub token_file: Option<PathBuf>,
    /// Whose certificates are valid for an agent with `https`. Default: the system's.
    pub ca: Option<PathBuf>,
    /// What is shown to the agent, with its key. Default: nothing.
    pub client: Option<(PathBuf, PathBuf)>,
    /// Consul Enterprise's namespace. Default: none is named.
    pub namespace: Option<String>,
    /// Consul Enterprise's partition. Default: none is named.
    pub partition: Option<String>,
    /// The own datacenter, whose keys hold. Default: the environment and the region, `prod-us-phoenix-1`.
    pub datacenter: Option<Datacenter>,
    /// Datacenters whose services are used beside the own one. Default: all that Consul knows.
    pub datacenters: Option<Vec<Datacenter>>,
    /// What services are called. Default `signal`, `shardgate`, `haproxy` and `all`.
    pub services: ServiceNames,
    /// Which addresses of other datacenters are used. Default `lan`.
    pub remote_address: AddressKind,
    /// How far a server may be behind its leader and still be believed. Default 10 s.
    pub max_stale: Duration,
    /// Where the last good state is kept for a start without Consul. Default `/var/lib/shardgate/consul.json`.
    pub state_file: Option<PathBuf>,
    /// How long a start waits for Consul. Default 5 s.
    pub start_timeout: Duration,
    /// How the node registers itself.
    pub registration: RegistrationSection,
}

impl Default for ConsulSection {
    fn default() -> Self {
        Self {
            address: AgentAddress::default(),
            token_file: None,
            ca: None,
            client: None,
            namespace: None,
            partition: None,
            datacenter: None,
            datacenters: None,
            services: ServiceNames::default(),
            remote_address: AddressKind::Lan,
            max_stale: Duration::from_secs(10),
            state_file: Some(PathBuf::from(STATE_FILE_DEFAULT)),
            start_timeout: Duration::from_secs(5),
            registration: RegistrationSection::default(),
        }
    }
}

fn name(text: &str) -> Option<String> {
    Datacenter::parse(text).map(|name| name.as_str().to_owned())
}

fn path(section: &mut Section<'_>, field: &'static str, expected: &str) -> Option<PathBuf> {
    let text = value::text(expected, |text| (!text.is_empty()).then(|| text.to_owned()));
    let text = section.get(field, text)?;
    Some(section.resolve(field, &text))
}

impl ConsulSection {
    pub(super) fn read(mut section: Section<'_>) -> Self {
        let default = Self::default();
        let address = section.get("address", value::text(AgentAddress::EXPECTED, AgentAddress::parse));
        let token_file = path(&mut section, "token_file", TOKEN_FILE);
        let ca = path(&mut section, "ca", CA);
        let client_cert = path(&mut section, "client_cert", CERT);
        let client_key = path(&mut section, "client_key", KEY);
        let client = match (client_cert, client_key) {
            (Some(cert), Some(key)) => Some((cert, key)),
            (Some(cert), None) => Some((cert.clone(), cert)),
            (None, Some(_)) => {
                section.refuse("client_key", &"", "nothing without client_cert".to_owned());
                None
            }
            (None, None) => None,
        };
        let mut service = |field, default: &str| {
            let name = value::text(ServiceName::EXPECTED, |text| ServiceName::parse(text).ok());
            section.get(field, name).map_or_else(|| default.to_owned(), |name| name.to_string())
        };
        let services = ServiceNames {
            shards: service("shard_service", &default.services.shards),
            nodes: service("node_service", &default.services.nodes),
            proxies: service("proxy_service", &default.services.proxies),
            standalones: Some(service("standalone_service", STANDALONES)).filter(|name| name != "off"),
        };
        let second = Duration::from_secs(1);
        let given = value::text(STATE_FILE, |text| (!text.is_empty()).then(|| text.to_owned()));
        let state_file = match section.get("state_file", given) {
            Some(text) if text == "off" => None,
            Some(text) => Some(section.resolve("state_file", &text)),
            None => default.state_file,
        };
        let config = Self {
            address: address.unwrap_or(default.address),
            token_file,
            ca,
            client,
            namespace: section.get("namespace", value::text(NAME, name)),
            partition: section.get("partition", value::text(NAME, name)),
            datacenter: section.get("datacenter", value::text(Datacenter::EXPECTED, Datacenter::parse)),
            datacenters: section.list(
                "datacenters",
                "names of datacenters",
                value::text(Datacenter::EXPECTED, Datacenter::parse),
            ),
            services,
            remote_address: section
                .get("remote_address", value::word(REMOTE_ADDRESS))
                .unwrap_or(default.remote_address),
            max_stale: section
                .get("max_stale", value::duration(second..=Duration::from_secs(3600)))
                .unwrap_or(default.max_stale),
            state_file,
            start_timeout: section
                .get("start_timeout", value::duration(Duration::ZERO..=Duration::from_secs(600)))
                .unwrap_or(default.start_timeout),
            registration: RegistrationSection::read(&mut section),
        };
        section.finish();
        config
    }
}

impl fmt::Display for ConsulSection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let path = |f: &mut fmt::Formatter<'_>, name: &str, path: Option<&Path>| match path {
            Some(path) => writeln!(f, "{name} = {}", write::path(path)),
            None => Ok(()),
        };
        let text = |f: &mut fmt::Formatter<'_>, name: &str, text: Option<&str>| match text {
            Some(text) => writeln!(f, "{name} = {}", write::text(text)),
            None => Ok(()),
        };
        writeln!(f, "[consul]")?;
        text(f, "address", Some(&self.address.to_string()))?;
        path(f, "token_file", self.token_file.as_deref())?;
        path(f, "ca", self.ca.as_deref())?;
        if let Some((cert, key)) = &self.client {
            path(f, "client_cert", Some(cert))?;
            path(f, "client_key", Some(key))?;
        }
        text(f, "namespace", self.namespace.as_deref())?;
        text(f, "partition", self.partition.as_deref())?;
        text(f, "datacenter", self.datacenter.as_ref().map(Datacenter::as_str))?;
        if let Some(datacenters) = &self.datacenters {
            writeln!(f, "datacenters = {}", write::list(datacenters))?;
        }
        text(f, "shard_service", Some(&self.services.shards))?;
        text(f, "node_service", Some(&self.services.nodes))?;
        text(f, "proxy_service", Some(&self.services.proxies))?;
        text(f, "standalone_service", Some(self.services.standalones.as_deref().unwrap_or("off")))?;
        text(f, "remote_address", Some(value::word_of(REMOTE_ADDRESS, self.remote_address)))?;
        writeln!(f, "max_stale = {}", write::duration(self.max_stale))?;
        match &self.state_file {
            Some(file) => path(f, "state_file", Some(file))?,
            None => text(f, "state_file", Some("off"))?,
        }
        writeln!(f, "start_timeout = {}", write::duration(self.start_timeout))?;
        write!(f, "{}", self.registration)
    }
}
