//! `[node]`: who this node is.

use super::section::Section;
use super::value;
use super::write;
use shardgate_discovery::{EnvironmentName, RegionName};
use shardgate_peering_core::PeerId;
use std::fmt;

const ID: &str = "a text such as \"proxy-us-1\", 1 to 63 of a-z 0-9 -, not at its ends";
const REGION: &str = "a text such as \"us-phoenix-1\", 1 to 64 of A-Z a-z 0-9 . _ -";
const ENVIRONMENT: &str = "a text such as \"prod\", 1 to 63 of a-z 0-9 -";
const HOST_NAME: &str = "a text such as \"proxy-us-1.example.com\", 1 to 253 of A-Z a-z 0-9 . -";

/// Who this node is. The id and the region have no default: two nodes that share one would fight.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NodeConfig {
    /// This node's name in the mesh, as in its certificate and in discovery's list of peers.
    pub id: PeerId,
    /// Where it stands: shards of this region are preferred, and responses say so (`X-Proxy-Region`).
    pub region: RegionName,
    /// Which environment it belongs to. Default `dev`, so that nothing is taken for production by accident.
    pub environment: EnvironmentName,
    /// What responses call this node (`X-Proxy-Host`). Default: the id.
    pub host_name: String,
}

impl NodeConfig {
    /// The node `id` in `region`, environment `dev`.
    #[must_use]
    pub fn new(id: PeerId, region: RegionName) -> Self {
        let host_name = id.to_string();
        Self { id, region, environment: EnvironmentName::dev(), host_name }
    }

    pub(super) fn required_region(section: &mut Section<'_>) -> Option<RegionName> {
        section.require("region", REGION, value::text(REGION, |text| RegionName::parse(text).ok()))
    }

    /// The region where nothing says that there has to be one.
    pub(super) fn region(section: &mut Section<'_>) -> Option<RegionName> {
        section.get("region", value::text(REGION, |text| RegionName::parse(text).ok()))
    }

    pub(super) fn read(mut section: Section<'_>) -> Option<Self> {
        let id = section.require("id", ID, value::text(ID, |text| PeerId::parse(text).ok()));
        let region = Self::required_region(&mut section);
        let environment = value::text(ENVIRONMENT, |text| EnvironmentName::parse(text).ok());
        let environment = section.get("environment", environment);
        let host_name = section.get("host_name", value::text(HOST_NAME, parse_host_name));
        section.finish();
        let default = Self::new(id?, region?);
        Some(Self {
            environment: environment.unwrap_or(default.environment),
            host_name: host_name.unwrap_or(default.host_name),
            ..default
        })
    }
}

fn parse_host_name(text: &str) -> Option<String> {
    let valid = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'-');
    (!text.is_empty() && text.len() <= 253 && text.bytes().all(valid)).then(|| text.to_owned())
}

impl fmt::Display for NodeConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "[node]")?;
        writeln!(f, "id = {}", write::text(self.id.as_str()))?;
        writeln!(f, "region = {}", write::text(self.region.as_str()))?;
        writeln!(f, "environment = {}", write::text(self.environment.as_str()))?;
        writeln!(f, "host_name = {}", write::text(&self.host_name))
    }
}
