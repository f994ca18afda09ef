//! The nodes of every datacenter as they registered themselves, at one moment. For operators; nodes watch each other instead.

use super::agent::{Agent, Datacenter, Reading};
use super::error::AgentError;
use super::keys::each;
use super::record::{AddressKind, AskedNode, Instance, InvalidRecord};
use super::survey::place;
use super::world::{ServiceKind, ServiceNames, Source};
use crate::name::EnvironmentName;
use std::collections::BTreeMap;

/// The nodes of a datacenter.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct AskedNodes {
    /// By name.
    pub nodes: Vec<AskedNode>,
    /// Registrations that cannot be read.
    pub invalid: Vec<InvalidRecord>,
}

/// Asks each datacenter for its nodes, all at once; leaders answer, and an empty list counts when all of it may be read. Nodes of a datacenter
/// have the addresses that `kind` says.
pub async fn asked_nodes(
    agent: &Agent,
    environment: &EnvironmentName,
    services: &ServiceNames,
    datacenters: &[Datacenter],
    kind: impl Fn(&Datacenter) -> AddressKind,
) -> BTreeMap<Datacenter, Result<AskedNodes, AgentError>> {
    each(datacenters, |datacenter| {
        let (agent, place, kind) =
            (agent.clone(), place(environment, services, &datacenter), kind(&datacenter));
        async move {
            let target = place.target(&Source::Services(datacenter, ServiceKind::Nodes));
            let instances = agent.list::<Instance>(&target, Reading::Confirmed).await?.records;
            agent.check_right(&target).await?;
            Ok(read(&instances, kind))
        }
    })
    .await
}

fn read(instances: &[Instance], kind: AddressKind) -> AskedNodes {
    let mut found = AskedNodes::default();
    for instance in instances {
        match instance.asked(kind) {
            Ok(node) => found.nodes.push(node),
            Err(fault) => found.invalid.push(InvalidRecord { place: instance.place(), fault }),
        }
    }
    found.nodes.sort_unstable_by(|one, other| one.name.cmp(&other.name));
    found
}
