use super::*;
use crate::consul::Unlisted;
use clap::Parser;
use shardgate_proto::admin::admin_client::AdminClient;
use std::collections::BTreeMap;
use tonic::transport::Endpoint;

#[derive(Parser)]
struct Given {
    #[command(flatten)]
    nodes: Nodes,
}

fn fleet() -> Fleet {
    Fleet::new(&Given::parse_from(["shardgatectl"]).nodes)
}

fn datacenter(name: &str) -> Datacenter {
    Datacenter::parse(name).unwrap()
}

/// Nodes of a datacenter, all at the same address.
fn nodes(names: &[&str]) -> Result<AskedNodes, Unlisted> {
    let plain = Some("192.0.2.1:8405".parse().unwrap());
    let node = |name: &&str| AskedNode { name: (*name).to_owned(), plain, tls: None };
    Ok(AskedNodes { nodes: names.iter().map(node).collect(), invalid: Vec::new() })
}

fn listed<const N: usize>(datacenters: [(&str, Result<AskedNodes, Unlisted>); N]) -> Listed {
    BTreeMap::from(datacenters.map(|(name, answer)| (datacenter(name), answer)))
}

/// Everybody is asked, and says who it is, or nothing.
fn ask_all(fleet: &mut Fleet, said: impl Fn(&str) -> Option<&'static str>) -> Round {
    let heard: Vec<_> = std::mem::take(&mut fleet.members)
        .into_iter()
        .map(|member| {
            let said = said(&member.name).map(answer).ok_or_else(|| "connection refused".to_owned());
            (member, said)
        })
        .collect();
    fleet.note(heard)
}

fn answer(name: &str) -> (Node, SessionsResponse) {
    let client = AdminClient::new(Endpoint::from_static("http://192.0.2.1:8405").connect_lazy());
    let node = Node { address: "192.0.2.1:8405".to_owned(), client };
    (node, SessionsResponse { node: name.to_owned(), knows_table: true, ..SessionsResponse::default() })
}

/// Names of those who answered, and of those who could not be asked.
fn names(round: &Round) -> (Vec<&str>, Vec<&str>) {
    let answered = round.answers.iter().map(|answer| answer.node.as_str()).collect();
    (answered, round.unasked.iter().map(|unasked| unasked.name.as_str()).collect())
}

fn itself(name: &str) -> Option<&'static str> {
    ["a", "b"].into_iter().find(|known| *known == name)
}

#[tokio::test]
async fn a_datacenter_that_is_no_longer_listed_is_missed() {
    let mut fleet = fleet();
    fleet.follow(&listed([("east", nodes(&["a"])), ("west", nodes(&["b"]))]));
    assert_eq!(names(&ask_all(&mut fleet, itself)), (vec!["a", "b"], vec![]));
    for _ in 0..3 {
        fleet.follow(&listed([("east", nodes(&["a"]))]));
        let round = ask_all(&mut fleet, itself);
        assert_eq!(names(&round), (vec!["a", "b"], vec!["the nodes of west"]), "b is asked all the same");
        assert_eq!(round.unasked[0].why, "the datacenter is no longer listed by Consul");
    }
    for _ in 0..3 {
        let dead = ask_all(&mut fleet, |name| itself(name).filter(|name| *name != "b"));
        assert_eq!(names(&dead), (vec!["a"], vec!["the nodes of west", "b"]), "nobody says that it has left");
    }
    fleet.follow(&listed([("east", nodes(&["a"])), ("west", nodes(&["b"]))]));
    assert_eq!(names(&ask_all(&mut fleet, itself)), (vec!["a", "b"], vec![]));
}

#[tokio::test]
async fn a_datacenter_that_cannot_be_listed_is_told() {
    let mut fleet = fleet();
    fleet.follow(&listed([("east", nodes(&["a"])), ("north", Err(Unlisted::Unknown))]));
    let round = ask_all(&mut fleet, itself);
    assert_eq!(names(&round), (vec!["a"], vec!["the nodes of north"]));
    assert!(round.unasked[0].why.contains("--datacenter or SHARDGATE_DATACENTERS"), "{round:?}");
    assert!(!fleet.is_empty());
    let mut nobody = self::fleet();
    nobody.follow(&listed([("east", nodes(&[]))]));
    assert!(nobody.is_empty());
}

#[tokio::test]
async fn one_that_has_left_is_asked_until_it_stops() {
    let mut fleet = fleet();
    let (both, one) = (listed([("east", nodes(&["a", "b"]))]), listed([("east", nodes(&["a"]))]));
    let dead = |name: &str| itself(name).filter(|name| *name != "b");
    fleet.follow(&both);
    assert_eq!(names(&ask_all(&mut fleet, itself)), (vec!["a", "b"], vec![]));
    // It has deregistered, and serves on.
    fleet.follow(&one);
    assert_eq!(names(&ask_all(&mut fleet, itself)), (vec!["a", "b"], vec![]));
    // Once is nothing.
    assert_eq!(names(&ask_all(&mut fleet, dead)), (vec!["a"], vec!["b"]));
    assert_eq!(names(&ask_all(&mut fleet, itself)), (vec!["a", "b"], vec![]));
    assert_eq!(names(&ask_all(&mut fleet, dead)), (vec!["a"], vec!["b"]));
    fleet.follow(&one);
    assert_eq!(names(&ask_all(&mut fleet, dead)), (vec!["a"], vec![]), "it has stopped");
    assert_eq!(names(&ask_all(&mut fleet, itself)), (vec!["a"], vec![]));
    // One that is registered is missed for as long as it takes.
    fleet.follow(&both);
    for _ in 0..4 {
        assert_eq!(names(&ask_all(&mut fleet, dead)), (vec!["a"], vec!["b"]));
    }
    // It comes back after it had left.
    fleet.follow(&one);
    assert_eq!(names(&ask_all(&mut fleet, dead)), (vec!["a"], vec!["b"]));
    fleet.follow(&both);
    for _ in 0..4 {
        assert_eq!(names(&ask_all(&mut fleet, dead)), (vec!["a"], vec!["b"]));
    }
}

#[tokio::test]
async fn who_answers_is_the_one_that_was_meant() {
    let mut fleet = fleet();
    fleet.follow(&listed([("east", nodes(&["a"])), ("west", nodes(&["b"]))]));
    let round = ask_all(&mut fleet, |_| Some("a"));
    assert_eq!(names(&round), (vec!["a"], vec!["b"]), "a is counted once");
    assert_eq!(round.unasked[0].why, "a answers there, at 192.0.2.1:8405");
    assert_eq!(fleet.answering().count(), 1);
    // An address that somebody names is whoever is there.
    let mut named = Fleet::named(&Given::parse_from(["shardgatectl", "--node", "192.0.2.1:8405"]).nodes);
    assert_eq!(names(&ask_all(&mut named, |_| Some("a"))), (vec!["a"], vec![]));
}
