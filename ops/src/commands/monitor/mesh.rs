//! What the nodes say of each other, and of where they know shards from. Pure.

use std::collections::{BTreeMap, BTreeSet};

use shardgate_proto::admin::{Peer, Shard, StatusResponse};

use super::finding::{Finding, Kind};

/// Digests are compared in every heartbeat: who has agreed a moment ago is only behind.
const AGREED_WITHIN_MS: u64 = 5_000;

/// Judges what nodes say of themselves at about one moment.
pub(super) fn judge(nodes: &[StatusResponse]) -> Vec<Finding> {
    let mut found = Vec::new();
    for node in nodes {
        found.extend(node.peers.iter().filter_map(|peer| of_peer(&node.node, peer)));
        let strangers = nodes
            .iter()
            .filter(|other| other.node != node.node && !node.peers.iter().any(|peer| peer.id == other.node));
        found.extend(strangers.map(|other| {
            let subject = between(&node.node, &other.node);
            Finding::of_node(Kind::PeerNotConnected, subject, "it does not know of it".to_owned())
        }));
        let stale = node.discovery.as_ref().map(|discovery| discovery.stale.clone());
        found.extend(
            stale
                .filter(|stale| !stale.is_empty())
                .map(|stale| Finding::of_node(Kind::StaleDiscovery, node.node.clone(), stale)),
        );
    }
    found.extend(differences(nodes));
    found
}

fn between(node: &str, peer: &str) -> String {
    format!("{node} -> {peer}")
}

fn of_peer(node: &str, peer: &Peer) -> Option<Finding> {
    let subject = between(node, &peer.id);
    if peer.link != "reconciled" {
        return Some(Finding::of_node(Kind::PeerNotConnected, subject, format!("the link is {}", peer.link)));
    }
    if peer.suspect {
        return Some(Finding::of_node(Kind::PeerNotConnected, subject, "it is silent".to_owned()));
    }
    let lately = peer.agreed_ms.is_some_and(|ms| ms < AGREED_WITHIN_MS);
    let differ = peer.agreement != "agreed" && !lately;
    differ.then(|| {
        let what = match peer.agreement.as_str() {
            "disagreed" => "their tables differ",
            _ => "their tables have not been compared",
        };
        Finding::of_node(Kind::PeerNotInAgreement, subject, what.to_owned())
    })
}

/// Shards that some nodes know, and others do not, or otherwise.
fn differences(nodes: &[StatusResponse]) -> Vec<Finding> {
    type Known<'s> = (&'s str, &'s str);
    let known = |shard: &'_ Shard| -> (String, String) { (shard.address.clone(), shard.release.clone()) };
    let mut shards: BTreeMap<&str, BTreeMap<(String, String), usize>> = BTreeMap::new();
    for shard in nodes.iter().flat_map(|node| &node.shards) {
        *shards.entry(&shard.name).or_default().entry(known(shard)).or_default() += 1;
    }
    let mut found = Vec::new();
    for node in nodes {
        let own: BTreeMap<&str, Known<'_>> = node
            .shards
            .iter()
            .map(|shard| (shard.name.as_str(), (&*shard.address, &*shard.release)))
            .collect();
        let mut unknown = BTreeSet::new();
        let mut other = BTreeSet::new();
        for (name, as_what) in &shards {
            // Where as many know it in one way as in another, the first by name is taken for right.
            let most = as_what.iter().max_by_key(|(what, count)| (**count, std::cmp::Reverse(*what)));
            let Some(((address, release), _)) = most else { continue };
            match own.get(name) {
                None => drop(unknown.insert(*name)),
                Some(own) if *own != (address, release) => drop(other.insert(*name)),
                Some(_) => {}
            }
        }
        for (names, what) in [(unknown, "it does not know"), (other, "it has another address or release for")]
        {
            if !names.is_empty() {
                let names: Vec<&str> = names.into_iter().collect();
                let what = format!("{what} {}, as others do", names.join(", "));
                found.push(Finding::of_node(Kind::StaleDiscovery, node.node.clone(), what));
            }
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;
    use shardgate_proto::admin::Discovery;

    fn peer(id: &str, link: &str, agreement: &str, agreed_ms: Option<u64>) -> Peer {
        let (id, link, agreement) = (id.to_owned(), link.to_owned(), agreement.to_owned());
        Peer { id, link, agreement, agreed_ms, ready: true, ..Peer::default() }
    }

    fn well(id: &str) -> Peer {
        peer(id, "reconciled", "agreed", Some(300))
    }

    fn node(name: &str, peers: &[Peer], shards: &[(&str, &str)]) -> StatusResponse {
        let shard = |(name, address): &(&str, &str)| Shard {
            name: (*name).to_owned(),
            address: (*address).to_owned(),
            ..Shard::default()
        };
        StatusResponse {
            node: name.to_owned(),
            peers: peers.to_vec(),
            shards: shards.iter().map(shard).collect(),
            discovery: Some(Discovery::default()),
            ..StatusResponse::default()
        }
    }

    fn said(nodes: &[StatusResponse]) -> Vec<String> {
        let said = judge(nodes).into_iter();
        said.map(|Finding { kind, subject, what, .. }| format!("{} {subject}: {what}", kind.name())).collect()
    }

    #[test]
    fn a_healthy_mesh_says_nothing() {
        let shards: &[_] = &[("s1", "a:1"), ("s2", "a:2")];
        let nodes = [node("a", &[well("b")], shards), node("b", &[well("a")], shards)];
        assert_eq!(said(&nodes), [""; 0]);
        // One whose table was compared in the middle of a change.
        let behind = peer("b", "reconciled", "disagreed", Some(400));
        assert_eq!(said(&[node("a", &[behind], shards), nodes[1].clone()]), [""; 0]);
    }

    #[test]
    fn peers() {
        let silent = Peer { suspect: true, ..well("b") };
        for (peer, expected) in [
            (peer("b", "down", "unknown", None), "peer-not-connected a -> b: the link is down"),
            (silent, "peer-not-connected a -> b: it is silent"),
            (
                peer("b", "reconciled", "disagreed", Some(60_000)),
                "peer-not-in-agreement a -> b: their tables differ",
            ),
            (
                peer("b", "reconciled", "unknown", None),
                "peer-not-in-agreement a -> b: their tables have not been compared",
            ),
            (well("c"), "peer-not-connected a -> b: it does not know of it"),
        ] {
            let nodes = [node("a", &[peer], &[]), node("b", &[well("a")], &[])];
            assert_eq!(said(&nodes), [expected]);
        }
    }

    #[test]
    fn discovery() {
        let mut stale = node("a", &[], &[]);
        stale.discovery = Some(Discovery { stale: "the agent is silent".to_owned(), ..Discovery::default() });
        assert_eq!(said(&[stale]), ["stale-discovery a: the agent is silent"]);
        let peers =
            |own: &str| ["a", "b", "c"].into_iter().filter(|id| *id != own).map(well).collect::<Vec<_>>();
        let nodes = [
            node("a", &peers("a"), &[("s1", "x:1"), ("s2", "x:2")]),
            node("b", &peers("b"), &[("s1", "x:1")]),
            node("c", &peers("c"), &[("s1", "x:9"), ("s2", "x:2")]),
        ];
        assert_eq!(
            said(&nodes),
            [
                "stale-discovery b: it does not know s2, as others do",
                "stale-discovery c: it has another address or release for s1, as others do"
            ]
        );
    }
}
