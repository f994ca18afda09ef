//! The nodes of a mesh, all asked at once: those that are named, else those that have registered themselves at Consul.

use std::collections::BTreeSet;
use std::net::SocketAddr;

use shardgate_discovery::consul::{AskedNode, AskedNodes, Datacenter};
use shardgate_proto::admin::{SessionsRequest, SessionsResponse};
use tokio::task::JoinSet;

use crate::consul::{Consul, ConsulError, Listed};
use crate::node::{AskError, Node, Nodes};

/// How often in a row one that has left does not answer until it is taken for stopped.
const GONE_AFTER: u32 = 2;

/// One of them.
#[derive(Debug)]
struct Member {
    /// Its address as it was given, or its name in the mesh.
    name: String,
    /// Where it has registered itself; `None`: it was named, and may be anybody.
    datacenter: Option<Datacenter>,
    /// Where to ask it, or why it cannot be asked.
    address: Result<String, String>,
    standing: Standing,
    /// The connection, once it has answered and while it knows the table.
    node: Option<Node>,
}

/// Whether somebody is still meant.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Standing {
    /// It was named, or it is registered as far as is known.
    Meant,
    /// Its registration is gone, and it is asked while it answers: one that stops in order deregisters, and then serves to the end whom it has.
    Left {
        /// How often it has not answered since it last did.
        failures: u32,
    },
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
    /// Datacenters that were listed at some time.
    seen: BTreeSet<Datacenter>,
    /// Lists of nodes that could not be had: somebody may be missing.
    unlisted: Vec<Unasked>,
}

impl Fleet {
    fn new(nodes: &Nodes) -> Self {
        Self { nodes: nodes.clone(), members: Vec::new(), seen: BTreeSet::new(), unlisted: Vec::new() }
    }

    /// Those that are named, or the one at its usual place.
    pub(crate) fn named(nodes: &Nodes) -> Self {
        let member = |address: &str| Member {
            name: address.to_owned(),
            datacenter: None,
            address: Ok(address.to_owned()),
            standing: Standing::Meant,
            node: None,
        };
        let members = nodes.addresses().into_iter().map(member).collect();
        Self { members, ..Self::new(nodes) }
    }

    /// None.
    pub(crate) fn nobody(nodes: &Nodes) -> Self {
        Self::new(nodes)
    }

    /// Those that have registered themselves.
    pub(crate) async fn registered(nodes: &Nodes, consul: &Consul) -> Result<Self, ConsulError> {
        let mut fleet = Self::new(nodes);
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

    fn follow(&mut self, listed: &Listed) {
        let mut members = Vec::new();
        self.unlisted.clear();
        let nodes_of = |datacenter: &Datacenter| format!("the nodes of {datacenter}");
        for (datacenter, answer) in listed {
            match answer {
                Ok(AskedNodes { nodes, invalid }) => {
                    members.extend(nodes.iter().map(|node| member(datacenter, node, &self.nodes)));
                    self.unlisted.extend(invalid.iter().map(|record| Unasked {
                        name: format!("a node of {datacenter}"),
                        why: record.to_string(),
                    }));
                }
                Err(error) => {
                    self.unlisted.push(Unasked { name: nodes_of(datacenter), why: error.to_string() });
                }
            }
        }
        // Consul forgets a datacenter that it has not heard of for days; its nodes may be well.
        let forgotten = self.seen.iter().filter(|datacenter| !listed.contains_key(datacenter));
        self.unlisted.extend(forgotten.map(|datacenter| Unasked {
            name: nodes_of(datacenter),
            why: "the datacenter is no longer listed by Consul".to_owned(),
        }));
        self.seen.extend(listed.keys().cloned());
        for mut known in std::mem::take(&mut self.members) {
            let same =
                |member: &&mut Member| (&member.datacenter, &member.name) == (&known.datacenter, &known.name);
            match members.iter_mut().find(same) {
                Some(member) if member.address == known.address => member.node = known.node,
                Some(_) => {}
                None => {
                    let list = known.datacenter.as_ref().and_then(|datacenter| listed.get(datacenter));
                    if known.standing == Standing::Meant && matches!(list, Some(Ok(_))) {
                        known.standing = Standing::Left { failures: 0 };
                    }
                    members.push(known);
                }
            }
        }
        self.members = members;
    }

    /// Asks all of them what is on each shard.
    pub(crate) async fn sessions(&mut self) -> Round {
        let members = std::mem::take(&mut self.members).into_iter().enumerate();
        let asking: JoinSet<_> = members
            .map(|(place, member)| {
                let nodes = self.nodes.clone();
                async move {
                    let said = member.ask(&nodes).await;
                    (place, member, said)
                }
            })
            .collect();
        let mut heard = asking.join_all().await;
        heard.sort_unstable_by_key(|(place, ..)| *place);
        self.note(heard.into_iter().map(|(_, member, said)| (member, said)))
    }

    /// Takes what members said, and them back. Who has left and is not heard of any more is forgotten.
    fn note(
        &mut self,
        heard: impl IntoIterator<Item = (Member, Result<(Node, SessionsResponse), String>)>,
    ) -> Round {
        let mut round = Round { answers: Vec::new(), unasked: self.unlisted.clone() };
        for (mut member, said) in heard {
            member.node = None;
            let unasked = |why| Unasked { name: member.name.clone(), why };
            match said.and_then(|(node, answer)| member.is_meant_by(&answer).map(|()| (node, answer))) {
                Ok((node, answer)) => {
                    if !answer.knows_table {
                        let why = format!("it does not know the table yet: {}", answer.reason);
                        round.unasked.push(unasked(why));
                    }
                    member.node = answer.knows_table.then_some(node);
                    if let Standing::Left { failures } = &mut member.standing {
                        *failures = 0;
                    }
                    round.answers.push(answer);
                }
                Err(why) => {
                    let unasked = unasked(why);
                    if let Standing::Left { failures } = &mut member.standing {
                        *failures += 1;
                        if *failures >= GONE_AFTER {
                            continue;
                        }
                    }
                    round.unasked.push(unasked);
                }
            }
            self.members.push(member);
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

fn member(datacenter: &Datacenter, node: &AskedNode, nodes: &Nodes) -> Member {
    let AskedNode { name, plain, tls } = node;
    let wanted: Option<SocketAddr> = if nodes.with_tls() { *tls } else { *plain };
    let address = wanted.map(|address| address.to_string()).ok_or_else(|| {
        let with = if nodes.with_tls() { "with TLS" } else { "without TLS" };
        format!(
            "it has registered no listener {with} that answers (an [[admin]] that listens at its address, not on loopback)"
        )
    });
    let datacenter = Some(datacenter.clone());
    Member { name: name.clone(), datacenter, address, standing: Standing::Meant, node: None }
}

impl Member {
    async fn ask(&self, nodes: &Nodes) -> Result<(Node, SessionsResponse), String> {
        let address = self.address.as_deref().map_err(ToOwned::to_owned)?;
        ask(nodes, self.node.clone(), address).await.map_err(|error| error.to_string())
    }

    /// Whether it is who answered: where addresses overlap, another node may be found at its own.
    fn is_meant_by(&self, answer: &SessionsResponse) -> Result<(), String> {
        if self.datacenter.is_none() || answer.node == self.name {
            return Ok(());
        }
        let at = self.address.as_deref().unwrap_or_default();
        Err(format!("{} answers there, at {at}", answer.node))
    }
}

async fn ask(nodes: &Nodes, node: Option<Node>, address: &str) -> Result<(Node, SessionsResponse), AskError> {
    let mut node = match node {
        Some(node) => node,
        None => nodes.connect(address).await?,
    };
    let answer = node.client.sessions(SessionsRequest {}).await.map_err(node.refused())?.into_inner();
    Ok((node, answer))
}

#[cfg(test)]
mod tests;
