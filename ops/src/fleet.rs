//! The nodes of a mesh, all asked at once: those that are named, else those that have registered themselves at Consul.

use std::collections::BTreeMap;
use std::net::SocketAddr;

use shardgate_discovery::consul::{AgentError, AskedNode, AskedNodes, Datacenter};
use shardgate_proto::admin::{SessionsRequest, SessionsResponse};
use tokio::task::JoinSet;

use crate::consul::{Consul, ConsulError};
use crate::node::{AskError, Node, Nodes};

/// One of them.
struct Member {
    /// Its address as it was given, or its name in the mesh.
    name: String,
    /// Where to ask it, or why it cannot be asked.
    address: Result<String, String>,
    /// The connection, once it has answered and while it knows the table.
    node: Option<Node>,
}

/// Who could not be asked, and why.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Unasked {
    pub(crate) name: String,
    pub(crate) why: String,
}

/// What all of them said at about one moment.
#[derive(Debug, Clone, Default)]
pub(crate) struct Round {
    pub(crate) answers: Vec<SessionsResponse>,
    pub(crate) unasked: Vec<Unasked>,
}

/// All nodes that are to be asked.
pub(crate) struct Fleet {
    nodes: Nodes,
    members: Vec<Member>,
    /// Lists of nodes that could not be had: somebody may be missing.
    unlisted: Vec<Unasked>,
}

impl Fleet {
    /// Those that are named, or the one at its usual place.
    pub(crate) fn named(nodes: &Nodes) -> Self {
        let member =
            |address: &str| Member { name: address.to_owned(), address: Ok(address.to_owned()), node: None };
        let members = nodes.addresses().into_iter().map(member).collect();
        Self { nodes: nodes.clone(), members, unlisted: Vec::new() }
    }

    /// Those that have registered themselves.
    pub(crate) async fn registered(nodes: &Nodes, consul: &Consul) -> Result<Self, ConsulError> {
        let mut fleet = Self { nodes: nodes.clone(), members: Vec::new(), unlisted: Vec::new() };
        fleet.follow(&consul.nodes().await?);
        Ok(fleet)
    }

    /// Looks again who is there. What cannot be listed may hide somebody, and who was there stays.
    pub(crate) async fn refresh(&mut self, consul: &Consul) {
        match consul.nodes().await {
            Ok(listed) => self.follow(&listed),
            Err(error) => {
                self.unlisted = vec![Unasked { name: "Consul".to_owned(), why: error.to_string() }];
            }
        }
    }

    fn follow(&mut self, listed: &BTreeMap<Datacenter, Result<AskedNodes, AgentError>>) {
        let mut members = Vec::new();
        self.unlisted.clear();
        for (datacenter, answer) in listed {
            match answer {
                Ok(AskedNodes { nodes, invalid }) => {
                    members.extend(nodes.iter().map(|node| member(node, &self.nodes)));
                    self.unlisted.extend(invalid.iter().map(|record| Unasked {
                        name: format!("a node of {datacenter}"),
                        why: record.to_string(),
                    }));
                }
                Err(error) => self
                    .unlisted
                    .push(Unasked { name: format!("the nodes of {datacenter}"), why: error.to_string() }),
            }
        }
        let whole = listed.values().all(Result::is_ok);
        for known in self.members.drain(..) {
            match members.iter_mut().find(|member| member.name == known.name) {
                Some(member) if member.address == known.address => member.node = known.node,
                Some(_) => {}
                None if whole => {}
                None => members.push(known),
            }
        }
        self.members = members;
    }

    /// Asks all of them what is on each shard.
    pub(crate) async fn sessions(&mut self) -> Round {
        let mut round = Round { answers: Vec::new(), unasked: self.unlisted.clone() };
        let mut asking = JoinSet::new();
        for (place, member) in self.members.iter().enumerate() {
            match &member.address {
                Err(why) => round.unasked.push(Unasked { name: member.name.clone(), why: why.clone() }),
                Ok(address) => {
                    let (nodes, node, address) = (self.nodes.clone(), member.node.clone(), address.clone());
                    asking.spawn(async move { (place, ask(&nodes, node, &address).await) });
                }
            }
        }
        let mut answers = asking.join_all().await;
        answers.sort_unstable_by_key(|(place, _)| *place);
        for (place, answer) in answers {
            let member = &mut self.members[place];
            match answer {
                Ok((node, answer)) => {
                    member.node = answer.knows_table.then_some(node);
                    if !answer.knows_table {
                        let why = format!("it does not know the table yet: {}", answer.reason);
                        round.unasked.push(Unasked { name: member.name.clone(), why });
                    }
                    round.answers.push(answer);
                }
                Err(error) => {
                    member.node = None;
                    round.unasked.push(Unasked { name: member.name.clone(), why: error.to_string() });
                }
            }
        }
        round
    }

    /// Those that answered the last time and know the table.
    pub(crate) fn answering(&self) -> impl Iterator<Item = Node> {
        self.members.iter().filter_map(|member| member.node.clone())
    }

    /// Whether nobody is there at all.
    pub(crate) const fn is_empty(&self) -> bool {
        self.members.is_empty() && self.unlisted.is_empty()
    }
}

fn member(node: &AskedNode, nodes: &Nodes) -> Member {
    let AskedNode { name, plain, tls } = node;
    let wanted: Option<SocketAddr> = if nodes.with_tls() { *tls } else { *plain };
    let address = wanted.map(|address| address.to_string()).ok_or_else(|| {
        let with = if nodes.with_tls() { "with TLS" } else { "without TLS" };
        format!(
            "it has registered no listener {with} that answers (an [[admin]] that listens at its address, not on loopback)"
        )
    });
    Member { name: name.clone(), address, node: None }
}

async fn ask(nodes: &Nodes, node: Option<Node>, address: &str) -> Result<(Node, SessionsResponse), AskError> {
    let mut node = match node {
        Some(node) => node,
        None => nodes.connect(address).await?,
    };
    let answer = node.client.sessions(SessionsRequest {}).await.map_err(node.refused())?.into_inner();
    Ok((node, answer))
}
