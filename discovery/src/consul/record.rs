//! What Consul's catalog lists, read into shards and nodes of the mesh. What cannot be read is left out, and said.

use crate::name::{RegionName, ReleaseName, ServiceName};
use crate::shard::{OtherProxy, PeerNode, SHARD_ID_MAX, Shard, ShardState, WEIGHT_MAX, server_name};
use serde::{Deserialize, Serialize};
use shardgate_peering_core::{PeerId, ShardName, hash64};
use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::fmt;
use std::net::{IpAddr, SocketAddr};

/// Where a shard answers HTTP unless its meta says another port.
const HTTP_PORT: &str = "443";

/// Numbers that are made of names begin here.
const STANDALONE_ID_MIN: u32 = 1_000_000;

/// Meta of a shard: the TCP port of its agent, as signal-sidecar registers it.
const META_AGENT_PORT: &str = "signal_sidecar_agent_port";

/// Meta of a node of ours: its name in the mesh.
pub const META_NODE: &str = "shardgate_node";
/// Meta of a node of ours: where it answers peers (UDP). Who has none is not dialled.
pub const META_PEER_PORT: &str = "shardgate_peer_port";
/// Meta of a node of ours: its region.
pub const META_REGION: &str = "shardgate_region";
/// Meta of a node of ours: its version, for people.
pub const META_VERSION: &str = "shardgate_version";

/// Meta of a node of ours: the port at its address where it answers what operators ask, without TLS.
pub const META_ADMIN_PORT: &str = "shardgate_admin_port";
/// Meta of a node of ours: the port at its address where it takes orders, with TLS.
pub const META_ADMIN_TLS_PORT: &str = "shardgate_admin_tls_port";

/// An instance of a service, as `/v1/catalog/service/:name` lists it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(crate) struct Instance {
    /// The node's name: its agent knows an id once.
    #[serde(default)]
    pub(crate) node: String,
    pub(crate) address: String,
    pub(crate) datacenter: String,
    #[serde(rename = "ServiceID")]
    pub(crate) id: String,
    #[serde(default)]
    pub(crate) service_address: String,
    #[serde(default)]
    pub(crate) service_port: i64,
    /// When it was registered, as Consul counts.
    #[serde(default)]
    pub(crate) create_index: u64,
    pub(crate) service_tags: Option<Vec<String>>,
    pub(crate) service_tagged_addresses: Option<BTreeMap<String, Tagged>>,
    pub(crate) service_meta: Option<BTreeMap<String, String>>,
}

/// One of a service's addresses.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(crate) struct Tagged {
    pub(crate) address: String,
}

/// Which address of an instance is used.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum AddressKind {
    /// `lan`, or else the service's own, or else its node's: what consul-template's `.Address` is.
    #[default]
    Lan,
    /// `wan`, or else as above.
    Wan,
}

/// A record that is left out: which, and why.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct InvalidRecord {
    /// Where it stands: a service instance with its datacenter, or a key.
    pub place: String,
    /// What is wrong with it.
    pub fault: RecordFault,
}

impl fmt::Display for InvalidRecord {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.place, self.fault)
    }
}

/// What is wrong with a record.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, thiserror::Error)]
pub enum RecordFault {
    /// A field is not there.
    #[error("{field} is missing, expected {expected}")]
    Missing {
        /// Its name.
        field: &'static str,
        /// What it should hold.
        expected: &'static str,
    },
    /// A field cannot be read.
    #[error("{field} is {value:?}, expected {expected}")]
    Value {
        /// Its name.
        field: &'static str,
        /// What it holds, cut to 80 characters.
        value: String,
        /// What it should hold.
        expected: &'static str,
    },
    /// Somebody else has the name or the number; the first by datacenter and instance stays.
    #[error("{field} {value} is taken by {owner}")]
    Taken {
        /// `shard` or `shard_id`, or a node's name.
        field: &'static str,
        /// What is taken.
        value: String,
        /// Who has it.
        owner: String,
    },
    /// There are more than are read.
    #[error("there are more than {max}, the rest is left out")]
    TooMany {
        /// The most.
        max: usize,
    },
    /// A key that means nothing here.
    #[error("the key is not read by anybody, expected {expected}")]
    Key {
        /// How keys below its prefix look.
        expected: &'static str,
    },
}

impl RecordFault {
    pub(crate) fn value(field: &'static str, value: &str, expected: &'static str) -> Self {
        Self::Value { field, value: value.chars().take(80).collect(), expected }
    }
}

impl Instance {
    /// The order in which instances are listed.
    pub(crate) fn order(&self) -> (&str, &str, &str) {
        (&self.datacenter, &self.id, &self.node)
    }

    /// In this order the first of two that are in each other's way stays, on every node of ours: of one instance on two nodes the newer, for the
    /// agent of a machine that is gone takes nothing back.
    pub(crate) fn precedence(&self) -> (&str, &str, Reverse<u64>, &str) {
        (&self.datacenter, &self.id, Reverse(self.create_index), &self.node)
    }

    /// How it is called in messages.
    pub(crate) fn place(&self) -> String {
        format!("service {} in {}", self.id, self.datacenter)
    }

    fn tags(&self) -> impl Iterator<Item = &str> {
        self.service_tags.iter().flatten().map(String::as_str)
    }

    fn meta(&self, name: &str) -> Option<&str> {
        let value = self.service_meta.as_ref()?.get(name)?.trim();
        (!value.is_empty()).then_some(value)
    }

    /// A meta value, read.
    fn read<T>(
        &self,
        field: &'static str,
        expected: &'static str,
        parse: impl FnOnce(&str) -> Option<T>,
    ) -> Result<T, RecordFault> {
        let value = self.meta(field).ok_or(RecordFault::Missing { field, expected })?;
        parse(value).ok_or_else(|| RecordFault::value(field, value, expected))
    }

    fn ip(&self, kind: AddressKind) -> Result<IpAddr, RecordFault> {
        let tagged = |name: &str| self.service_tagged_addresses.as_ref()?.get(name);
        let tagged = |name: &str| tagged(name).map(|tagged| tagged.address.as_str());
        let wan = (kind == AddressKind::Wan).then(|| tagged("wan")).flatten();
        let candidates = [wan, tagged("lan"), Some(&*self.service_address), Some(&*self.address)];
        let address = candidates.into_iter().flatten().find(|address| !address.is_empty()).unwrap_or("");
        let expected = "an IP address that can be dialled";
        let ip: Option<IpAddr> = address.parse().ok();
        ip.filter(|ip| !ip.is_unspecified() && !ip.is_multicast())
            .ok_or_else(|| RecordFault::value("Address", address, expected))
    }

    /// Where it is registered.
    fn address(&self, kind: AddressKind) -> Result<SocketAddr, RecordFault> {
        // Consul takes any number.
        let port = u16::try_from(self.service_port).ok().filter(|port| *port != 0);
        let said = || RecordFault::value("ServicePort", &self.service_port.to_string(), PORT);
        Ok(SocketAddr::new(self.ip(kind)?, port.ok_or_else(said)?))
    }

    /// The proxy that it is, when it is none of ours.
    pub(crate) fn other_proxy(
        &self,
        environment: &str,
        kind: AddressKind,
    ) -> Result<OtherProxy, RecordFault> {
        Ok(OtherProxy {
            id: self.id.clone(),
            region: self.region(environment)?,
            address: self.address(kind)?,
        })
    }

    /// The region that a datacenter stands for: `{env}-{region}`, or all of its name.
    fn region(&self, environment: &str) -> Result<RegionName, RecordFault> {
        let name = self.datacenter.strip_prefix(environment).and_then(|rest| rest.strip_prefix('-'));
        let name = name.unwrap_or(&self.datacenter);
        RegionName::parse(name).map_err(|_| RecordFault::value("Datacenter", name, RegionName::EXPECTED))
    }

    /// The shard that it is; its state is another matter.
    pub(crate) fn shard(&self, environment: &str, kind: AddressKind) -> Result<Shard, RecordFault> {
        let tag = |prefix: &str| self.tags().find_map(|tag| tag.strip_prefix(prefix));
        let name_expected = "1 to 128 of A-Z a-z 0-9 . _ -";
        let name = match (self.meta("shard"), tag("shard-")) {
            (Some(name), _) | (None, Some(name)) => {
                ShardName::parse(name).map_err(|_| RecordFault::value("shard", name, name_expected))?
            }
            (None, None) => return Err(RecordFault::Missing { field: "shard", expected: name_expected }),
        };
        let release = match (self.tags().find(|tag| tag.starts_with("release-")), self.meta("release_number"))
        {
            (Some(tag), _) => tag.to_owned(),
            (None, Some(number)) => format!("release-{number}"),
            (None, None) => {
                let expected = "the release that it runs, such as 3630, or a tag such as release-3630";
                return Err(RecordFault::Missing { field: "release_number", expected });
            }
        };
        let release = ReleaseName::parse(&release)
            .map_err(|_| RecordFault::value("release_number", &release, ReleaseName::EXPECTED))?;
        let id = self.read("shard_id", "a number, unique, at most 4294967285", |text| {
            text.parse().ok().filter(|id| *id <= SHARD_ID_MAX)
        })?;
        let port = self.meta("http_backend_port").unwrap_or(HTTP_PORT);
        let port = port_of(port).ok_or_else(|| RecordFault::value("http_backend_port", port, PORT))?;
        let agent_port = match self.meta(META_AGENT_PORT) {
            Some(_) => Some(self.read(META_AGENT_PORT, PORT, port_of)?),
            None => None,
        };
        Ok(Shard {
            name,
            id,
            region: self.region(environment)?,
            release,
            address: SocketAddr::new(self.ip(kind)?, port),
            state: ShardState::Ready,
            weight: WEIGHT_MAX,
            states_in: Vec::new(),
            agent_port,
        })
    }

    /// The shard that an instance of the service `all` is: a web server, Prosody, Jicofo and a bridge in one. What it lacks of a shard's
    /// meta comes of what it has: its release of its tag `standalone-ID`, its number of its name.
    pub(crate) fn standalone(&self, environment: &str, kind: AddressKind) -> Result<Shard, RecordFault> {
        let mut whole = self.clone();
        let meta = whole.service_meta.get_or_insert_default();
        if let (None, Some(name)) = (self.meta("shard_id"), self.meta("shard")) {
            // Beyond what operators count up to, and the same on every node.
            let beyond = hash64(name.as_bytes(), 0) % u64::from(SHARD_ID_MAX - STANDALONE_ID_MIN);
            let id = u64::from(STANDALONE_ID_MIN) + beyond;
            meta.insert("shard_id".to_owned(), id.to_string());
        }
        if self.tags().any(|tag| tag.starts_with("release-")) || self.meta("release_number").is_some() {
            return whole.shard(environment, kind);
        }
        let release = self.tags().find(|tag| tag.starts_with("standalone-")).unwrap_or("standalone");
        let release = ReleaseName::parse(release)
            .map_err(|_| RecordFault::value("tag", release, ReleaseName::EXPECTED))?;
        meta.insert("release_number".to_owned(), "0".to_owned());
        Ok(Shard { release, ..whole.shard(environment, kind)? })
    }

    /// The server of a pool that it is.
    pub(crate) fn server(
        &self,
        service: &ServiceName,
        environment: &str,
        kind: AddressKind,
    ) -> Result<Shard, RecordFault> {
        let address = self.address(kind)?;
        let named = |_| RecordFault::value("service", service.as_str(), ServiceName::EXPECTED);
        let name = server_name(service.as_str(), address).map_err(named)?;
        // The same as long as its address is.
        let id = u32::try_from(hash64(name.as_str().as_bytes(), 0) % u64::from(SHARD_ID_MAX)).unwrap_or(0);
        Ok(Shard {
            name,
            id,
            region: self.region(environment)?,
            release: ReleaseName::parse(service.as_str())
                .map_err(|_| RecordFault::value("service", service.as_str(), ServiceName::EXPECTED))?,
            address,
            state: ShardState::Ready,
            weight: WEIGHT_MAX,
            states_in: Vec::new(),
            agent_port: None,
        })
    }

    /// The node of the mesh that it is; `None` when it is none of ours: a real HAProxy is not dialled.
    pub(crate) fn peer(&self, environment: &str, kind: AddressKind) -> Option<Result<PeerNode, RecordFault>> {
        self.meta(META_PEER_PORT)?;
        Some(self.read_peer(environment, kind))
    }

    fn read_peer(&self, environment: &str, kind: AddressKind) -> Result<PeerNode, RecordFault> {
        let id =
            self.read(META_NODE, "1 to 63 of a-z 0-9 -, not at its ends", |text| PeerId::parse(text).ok())?;
        let port = self.read(META_PEER_PORT, PORT, port_of)?;
        let region = match self.meta(META_REGION) {
            Some(_) => self.read(META_REGION, RegionName::EXPECTED, |text| RegionName::parse(text).ok())?,
            None => self.region(environment)?,
        };
        Ok(PeerNode { id, region, address: SocketAddr::new(self.ip(kind)?, port) })
    }

    /// What operators need of a node of ours to ask it.
    pub(crate) fn asked(&self, kind: AddressKind) -> Result<AskedNode, RecordFault> {
        let ip = self.ip(kind)?;
        let address = |field| match self.meta(field) {
            Some(_) => Ok(Some(SocketAddr::new(ip, self.read(field, PORT, port_of)?))),
            None => Ok(None),
        };
        Ok(AskedNode {
            name: self.meta(META_NODE).unwrap_or(&self.id).to_owned(),
            plain: address(META_ADMIN_PORT)?,
            tls: address(META_ADMIN_TLS_PORT)?,
        })
    }
}

/// A node of ours as it registered itself, for operators who ask it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AskedNode {
    /// Its name in the mesh.
    pub name: String,
    /// Where it answers questions without TLS, if it says so.
    pub plain: Option<SocketAddr>,
    /// Where it answers them with TLS.
    pub tls: Option<SocketAddr>,
}

const PORT: &str = "a port, 1 to 65535";

fn port_of(text: &str) -> Option<u16> {
    text.parse().ok().filter(|port| *port != 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    const SIGNAL: &str = r#"{
        "ID": "5f", "Node": "n1", "Address": "10.0.0.1", "Datacenter": "prod-us-phoenix-1", "ServiceID": "prod-s1", "ServiceName": "signal",
        "ServiceTags": ["prod", "release-3630", "shard-s1"], "ServiceAddress": "", "ServicePort": 5280,
        "ServiceMeta": {"shard": "s1", "shard_id": "21", "release_number": "3630", "http_backend_port": "8443"},
        "ServiceTaggedAddresses": {"lan": {"Address": "10.0.0.2", "Port": 5280}, "wan": {"Address": "192.0.2.2", "Port": 5280}},
        "ServiceWeights": {"Passing": 1, "Warning": 1}, "CreateIndex": 5, "ModifyIndex": 9
    }"#;

    fn instance(edit: impl FnOnce(&mut serde_json::Value)) -> Instance {
        let mut value: serde_json::Value = serde_json::from_str(SIGNAL).unwrap();
        edit(&mut value);
        serde_json::from_value(value).unwrap()
    }

    #[test]
    fn a_shard_as_jitsi_registers_it() {
        let shard = instance(|_| {}).shard("prod", AddressKind::Lan).unwrap();
        assert_eq!(
            shard.to_string(),
            "s1: id 21, region us-phoenix-1, release release-3630, 10.0.0.2:8443, ready, weight 256"
        );
        let shard = instance(|_| {}).shard("prod", AddressKind::Wan).unwrap();
        assert_eq!(shard.address.to_string(), "192.0.2.2:8443");
        let bare = instance(|value| {
            value["ServiceTaggedAddresses"] = serde_json::Value::Null;
            value["ServiceTags"] = serde_json::Value::Null;
            value["ServiceMeta"].as_object_mut().unwrap().remove("http_backend_port");
        });
        let shard = bare.shard("other", AddressKind::Wan).unwrap();
        assert_eq!(shard.address.to_string(), "10.0.0.1:443");
        assert_eq!((shard.region.as_str(), shard.release.as_str()), ("prod-us-phoenix-1", "release-3630"));
    }

    #[test]
    fn what_cannot_be_read_names_its_field() {
        let table: [(&str, &str, &str); 6] = [
            ("shard", "", "shard is missing, expected 1 to 128 of A-Z a-z 0-9 . _ -"),
            ("shard", "a b", "shard is \"a b\", expected 1 to 128 of A-Z a-z 0-9 . _ -"),
            ("shard_id", "x", "shard_id is \"x\", expected a number, unique, at most 4294967285"),
            (
                "shard_id",
                "4294967295",
                "shard_id is \"4294967295\", expected a number, unique, at most 4294967285",
            ),
            ("http_backend_port", "0", "http_backend_port is \"0\", expected a port, 1 to 65535"),
            ("http_backend_port", "65536", "http_backend_port is \"65536\", expected a port, 1 to 65535"),
        ];
        for (field, value, error) in table {
            let instance = instance(|record| {
                record["ServiceMeta"][field] = value.into();
                record["ServiceTags"] = serde_json::json!(["prod", "release-1"]);
            });
            assert_eq!(instance.shard("prod", AddressKind::Lan).unwrap_err().to_string(), error);
        }
        let nowhere =
            instance(|record| record["ServiceTaggedAddresses"]["lan"]["Address"] = "0.0.0.0".into());
        let error = nowhere.shard("prod", AddressKind::Lan).unwrap_err().to_string();
        assert_eq!(error, "Address is \"0.0.0.0\", expected an IP address that can be dialled");
    }

    #[test]
    fn only_nodes_of_ours_are_dialled() {
        assert_eq!(instance(|_| {}).peer("prod", AddressKind::Lan), None);
        let ours = instance(|record| {
            record["ServiceMeta"] = serde_json::json!({"shardgate_node": "n1", "shardgate_peer_port": "10024", "shardgate_region": "east"});
        });
        let peer = ours.peer("prod", AddressKind::Lan).unwrap().unwrap();
        assert_eq!(peer.to_string(), "n1: region east, 10.0.0.2:10024");
        let nameless =
            instance(|record| record["ServiceMeta"] = serde_json::json!({"shardgate_peer_port": "1"}));
        let error = nameless.peer("prod", AddressKind::Lan).unwrap().unwrap_err().to_string();
        assert_eq!(error, "shardgate_node is missing, expected 1 to 63 of a-z 0-9 -, not at its ends");
    }
}
