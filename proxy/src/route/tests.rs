use super::*;
use crate::health::{Reach, Standing};
use crate::routing_key::{Routing, Said};
use shardgate_discovery::{SnapshotBuilder, TenantName};
use std::net::{Ipv4Addr, SocketAddr};

/// A shard that is ready, at an address that nobody listens on.
pub(crate) fn shard(name: &str, region: &str, release: &str) -> Shard {
    let id = u32::try_from(hash64(name.as_bytes(), 0) % 1_000_000_000).unwrap();
    Shard {
        name: ShardName::parse(name).unwrap(),
        id,
        region: RegionName::parse(region).unwrap(),
        release: ReleaseName::parse(release).unwrap(),
        address: SocketAddr::from((Ipv4Addr::LOCALHOST, 9)),
        state: ShardState::Ready,
        weight: 256,
        states_in: Vec::new(),
        agent_port: None,
    }
}

fn topology(states: &[(&str, ShardState)]) -> Topology {
    let mut builder = SnapshotBuilder::new()
        .live_release(ReleaseName::parse("live").unwrap())
        .pin(TenantName::parse("acme").unwrap(), ReleaseName::parse("old").unwrap());
    for (name, region, release) in [
        ("l1", "here", "live"),
        ("l2", "here", "live"),
        ("l3", "there", "live"),
        ("o1", "here", "old"),
        ("o2", "there", "old"),
        ("n1", "there", "new"),
    ] {
        let mut shard = shard(name, region, release);
        if let Some((_, state)) = states.iter().find(|(other, _)| *other == name) {
            shard.state = *state;
        }
        builder = builder.shard(shard);
    }
    Topology::new(
        Arc::new(builder.build().unwrap()),
        Arc::default(),
        &RegionName::parse("here").unwrap(),
        &[],
    )
}

fn ask(
    topology: &Topology,
    target: &str,
    entry: Option<&str>,
    excluded: Option<&str>,
) -> Result<Decision, NoRoute> {
    ask_in(topology, target, entry, excluded, &[], &[])
}

fn ask_in(
    topology: &Topology,
    target: &str,
    entry: Option<&str>,
    excluded: Option<&str>,
    suspects: &[&str],
    detours: &[&str],
) -> Result<Decision, NoRoute> {
    let key = RoutingKey::parse(target, &Said::default(), &Routing::default()).unwrap();
    let name = |name: &str| ShardName::parse(name).unwrap();
    let excluded = excluded.map(name);
    let outlook = Outlook {
        excluded: excluded.as_ref(),
        suspect: &|name| suspects.contains(&name.as_str()),
        detour: &|name| detours.contains(&name.as_str()),
        conferences: &|_| 0,
        health: topology.health(),
        balance_percent: 150,
        nonce: 7,
    };
    decide(&key, topology, entry.map(name).as_ref(), &Routing::default(), &outlook, &mut Fired::default())
}

fn said(result: Result<Decision, NoRoute>) -> String {
    match result {
        Ok(Decision { shard, why, claim }) => {
            let claim = match claim {
                NeedsClaim::No => String::new(),
                NeedsClaim::Join => " join".to_owned(),
                NeedsClaim::Down { failed } => format!(" down {failed}"),
                NeedsClaim::Maint { failed } => format!(" maint {failed}"),
            };
            format!("{} {}{claim}", shard.name, why.as_str())
        }
        Err(error) => error.to_string(),
    }
}

#[test]
fn levels_in_order() {
    use ShardState::{Drain, Maint};
    let service = "/xmpp-websocket?room=foo";
    for (states, allowed, why) in [
        (&[][..], &["l1", "l2"][..], "live join"),
        (&[("l1", Drain)], &["l2"], "live join"),
        (&[("l1", Drain), ("l2", Maint)], &["l3"], "live join"),
        (&[("l1", Drain), ("l2", Drain), ("l3", Drain)], &["o1"], "fallback join"),
        (&[("l1", Drain), ("l2", Drain), ("l3", Drain), ("o1", Maint)], &["o2"], "fallback join"),
    ] {
        let said = said(ask(&topology(states), service, None, None));
        assert!(allowed.iter().any(|name| said == format!("{name} {why}")), "{states:?}: {said}");
    }
    let all: Vec<_> = ["l1", "l2", "l3", "o1", "o2", "n1"].map(|name| (name, Drain)).into();
    assert_eq!(said(ask(&topology(&all), service, None, None)), "no shard takes new conferences");
    assert_eq!(said(ask(&topology(&all), service, Some("n1"), None)), "n1 entry");
}

#[test]
fn pins_and_overrides() {
    use ShardState::{Drain, Maint};
    let all = topology(&[]);
    assert_eq!(said(ask(&all, "/acme/foo", None, None)), "o1 pin");
    assert_eq!(said(ask(&all, "/acme/foo?release=new", None, None)), "n1 override join");
    assert_eq!(said(ask(&topology(&[("o1", Drain)]), "/acme/foo", None, None)), "o2 pin");
    let none_of_its_own = topology(&[("o1", Drain), ("o2", Maint)]);
    let stands_in = said(ask(&none_of_its_own, "/acme/foo", None, None));
    assert_eq!(stands_in, "l1 fallback", "one shard stands in, the first of the live release (R38)");
    for target in ["/acme/foo?release=nothing", "/foo?release=nothing", "/acme/foo?release=&release=x"] {
        let said = said(ask(&all, target, None, None));
        assert!(said == "l1 live join" || said == "l2 live join", "{target}: {said}");
    }
}

#[test]
fn entries_win_while_their_shard_can_be_used() {
    use ShardState::{Drain, Maint};
    let service = "/http-bind?room=foo";
    assert_eq!(said(ask(&topology(&[]), service, Some("n1"), None)), "n1 entry");
    assert_eq!(said(ask(&topology(&[("n1", Drain)]), "/foo", Some("n1"), None)), "n1 entry");
    for (states, entry, excluded, why) in [
        (&[("n1", Maint)][..], "n1", None, "maint"),
        (&[("n1", Maint)][..], "n1", Some("n1"), "maint"),
        (&[][..], "gone", None, "down"),
        (&[][..], "n1", Some("n1"), "down"),
    ] {
        let join = said(ask(&topology(states), service, Some(entry), excluded));
        assert!(join.starts_with('l') && join.ends_with(&format!(" live {why} {entry}")), "{join}");
        let page = said(ask(&topology(states), "/foo", Some(entry), excluded));
        assert!(page.starts_with('l') && page.ends_with(" live"), "{page}");
    }
    // No room: whatever the table says, it does not count.
    assert!(said(ask(&topology(&[]), "/http-bind?room=", Some("n1"), None)).starts_with('l'));
}

#[test]
fn states_count_where_they_are_set() {
    let release = |name: &str| ReleaseName::parse(name).unwrap();
    let with = |states: &[(&str, &str, ShardState)]| {
        let all = topology(&[]);
        let snapshot = all.snapshot().listed().iter().fold(
            SnapshotBuilder::new()
                .live_release(release("live"))
                .pin(TenantName::parse("acme").unwrap(), release("old")),
            |builder, shard| {
                let of = states.iter().filter(|(name, _, _)| *name == shard.name.as_str());
                let states_in = of.map(|(_, pool, state)| (release(pool), *state)).collect();
                builder.shard(Shard { states_in, ..Shard::clone(shard) })
            },
        );
        Topology::new(
            Arc::new(snapshot.build().unwrap()),
            Arc::default(),
            &RegionName::parse("here").unwrap(),
            &[],
        )
    };
    use ShardState::{Drain, Maint};
    let service = "/acme/http-bind?room=foo";
    // For its own release only; elsewhere it stands in as before.
    let own = with(&[("o1", "old", Maint), ("l1", "live", Drain), ("l2", "live", Drain)]);
    assert_eq!(said(ask(&own, service, None, None)), "o2 pin join");
    assert_eq!(said(ask(&own, service, Some("o1"), None)), "o2 pin maint o1");
    assert_eq!(said(ask(&own, "/foo", Some("o1"), None)), "o1 entry");
    assert_eq!(said(ask(&own, "/foo", None, None)), "l3 live");
    assert_eq!(said(ask(&own, "/o1/foo", None, None)), "o1 named");
    // A pin's release that no shard serves any more, though they serve others.
    let all: Vec<_> = ["l1", "l2", "l3", "o1", "o2", "n1"].map(|name| (name, "old", Maint)).to_vec();
    assert!(said(ask(&with(&all), service, None, None)).ends_with(" live join"));
    assert_eq!(said(ask(&with(&all), service, Some("o1"), None)), "o1 entry");
}

#[test]
fn the_live_release_may_be_a_shard() {
    let all = topology(&[]);
    let of = |live: &str| {
        let builder = SnapshotBuilder::new().live_release(ReleaseName::parse(live).unwrap());
        let shards = all.snapshot().listed().iter().map(|shard| Shard::clone(shard));
        let snapshot = shards.fold(builder, SnapshotBuilder::shard).build().unwrap();
        Topology::new(Arc::new(snapshot), Arc::default(), &RegionName::parse("here").unwrap(), &[])
    };
    assert_eq!(said(ask(&of("n1"), "/http-bind?room=foo", None, None)), "n1 named");
    assert_eq!(said(ask(&of("n2"), "/foo", None, None)), "no live release that has shards");
}

#[test]
fn named_shards() {
    // What operators want of a shard does not count for whoever asks for it by name (R36, R41).
    let all = topology(&[("o1", ShardState::Maint), ("o2", ShardState::Drain)]);
    assert_eq!(said(ask(&all, "/n1/about", None, None)), "n1 named");
    assert_eq!(said(ask(&all, "/http-bind?room=foo_N1", Some("l1"), None)), "n1 named");
    assert_eq!(said(ask(&all, "/o2/foo_n1", None, None)), "n1 named");
    assert_eq!(said(ask(&all, "/foo?release=o2", None, None)), "o2 named");
    assert_eq!(said(ask(&all, "/o1/about", None, None)), "o1 named");
    assert_eq!(
        said(ask(&all, "/n1/about", None, Some("n1"))),
        "shard n1 is named by the request, but cannot be reached"
    );
}

#[test]
fn suspects_come_last() {
    let all = topology(&[]);
    for room in 0..20 {
        let target = format!("/http-bind?room=r{room}");
        assert_eq!(said(ask_in(&all, &target, None, None, &["l1"], &[])), "l2 live join");
        assert_eq!(said(ask_in(&all, &target, None, None, &["l1", "l2"], &[])), "l3 live join");
        let everything = ["l1", "l2", "l3", "o1", "o2", "n1"];
        assert!(said(ask_in(&all, &target, None, None, &everything, &[])).starts_with('l'));
        assert_eq!(said(ask_in(&all, &target, Some("l1"), None, &["l1"], &[])), "l1 entry");
    }
}

fn reaching(reaches: &[(&str, Reach)]) -> Topology {
    let standing = |(name, reach): &(&str, Reach)| {
        (ShardName::parse(name).unwrap(), Standing { reach: *reach, ..Standing::default() })
    };
    let health = Arc::new(reaches.iter().map(standing).collect());
    let here = RegionName::parse("here").unwrap();
    Topology::new(Arc::clone(&topology(&[("n1", ShardState::Drain)]).snapshot), health, &here, &[])
}

/// A conference begins where the others of its release are, also when none of them is reached from here but by peers.
#[test]
fn a_release_that_peers_reach_is_not_gone() {
    let (room, page) = ("/http-bind?room=foo", "/foo");
    let all_but = |name: &'static str, reach| -> Vec<(&str, Reach)> {
        let others = ["l1", "l2", "l3", "o1", "o2"].into_iter().filter(|other| *other != name);
        others.map(|other| (other, Reach::Down)).chain([(name, reach)]).collect()
    };
    let nothing = "no shard takes new conferences";
    let release = |release: char, reach| -> Vec<(&str, Reach)> {
        let of = ["l1", "l2", "l3", "o1", "o2"].into_iter().filter(|name| name.starts_with(release));
        of.map(|name| (name, reach)).collect()
    };
    let every: Vec<_> = [release('l', Reach::Cut), release('o', Reach::Cut)].concat();
    for (reaches, new, other) in [
        (all_but("l2", Reach::Up), "l2 live join", "l2 live"),
        (all_but("l2", Reach::Down), nothing, nothing),
        // Only a key has a home that knows by whom.
        (all_but("l2", Reach::Cut), "l2 live join", nothing),
        (all_but("l3", Reach::Cut), "l3 live join", nothing),
        (all_but("o1", Reach::Cut), "o1 fallback join", nothing),
        (vec![("l1", Reach::Cut), ("l2", Reach::Cut)], "l3 live join", "l3 live"),
        (vec![("l1", Reach::Down), ("l2", Reach::Cut), ("l3", Reach::Down)], "l2 live join", "o1 fallback"),
    ] {
        let of = reaching(&reaches);
        assert_eq!(said(ask(&of, room, None, None)), new, "{reaches:?}");
        assert_eq!(said(ask(&of, page, None, None)), other, "{reaches:?}");
    }
    let pinned = "/acme/http-bind?room=foo";
    for reaches in [release('o', Reach::Cut), every] {
        assert_eq!(said(ask(&reaching(&reaches), pinned, None, None)), "o1 pin join", "{reaches:?}");
        let asked = said(ask(&reaching(&reaches), "/http-bind?room=foo&release=old", None, None));
        assert_eq!(asked, "o1 override join", "{reaches:?}");
    }
    let cut = reaching(&all_but("l2", Reach::Cut));
    assert_eq!(said(ask(&cut, room, None, Some("l2"))), nothing, "it was tried in vain");
    assert_eq!(said(ask(&cut, room, Some("l1"), None)), "l2 live down l1", "if l1 is dead");
}

#[test]
fn entries_are_kept_where_a_peer_is_known() {
    let cut = reaching(&[("l1", Reach::Cut)]);
    for target in ["/http-bind?room=foo", "/foo"] {
        let by = |entry, excluded, detours: &[&str]| {
            said(ask_in(&cut, target, Some(entry), excluded, &[], detours))
        };
        assert_eq!(by("l1", None, &["l1"]), "l1 entry");
        assert_eq!(by("gone", None, &["gone"]), "gone entry", "one that is not listed here");
        for unknown in
            [by("l1", None, &[]), by("l1", Some("l1"), &["l1"]), by("gone", Some("gone"), &["gone"])]
        {
            assert!(!unknown.contains("entry"), "{target}: {unknown}");
        }
        let named = format!("/l2{target}");
        let named = said(ask_in(&cut, &named, Some("l1"), None, &[], &["l1"]));
        assert_eq!(named, "l2 named", "what a request names counts");
    }
}

#[test]
fn no_token_spreads() {
    let all = topology(&[]);
    let key = RoutingKey::parse("/", &Said::default(), &Routing::default()).unwrap();
    let mut seen = std::collections::BTreeSet::new();
    for nonce in 0..50 {
        let outlook = Outlook {
            excluded: None,
            suspect: &|_| false,
            detour: &|_| false,
            conferences: &|_| 0,
            health: all.health(),
            balance_percent: 150,
            nonce,
        };
        let decision = decide(&key, &all, None, &Routing::default(), &outlook, &mut Fired::default());
        seen.insert(decision.unwrap().shard.name.to_string());
    }
    assert_eq!(seen.into_iter().collect::<Vec<_>>(), ["l1", "l2"]);
}
