use super::*;
use serde_json::json;

fn place() -> Place {
    Place {
        environment: EnvironmentName::parse("prod").unwrap(),
        datacenter: Datacenter::parse("prod-east").unwrap(),
        services: ServiceNames::default(),
        remote_address: AddressKind::Wan,
    }
}

#[test]
fn servers_of_pools_and_standalone_shards() {
    let instance = |id: &str, address: &str, port: u16, tags: &[&str], meta: serde_json::Value| -> Instance {
        serde_json::from_value(json!({
            "Address": address, "Datacenter": "prod-east", "ServiceID": id, "ServicePort": port, "ServiceTags": tags, "ServiceMeta": meta,
        }))
        .unwrap()
    };
    let jigasi = ServiceName::parse("jigasi").unwrap();
    let mut world = World::default();
    let servers = vec![
        instance("j2", "10.0.0.2", 80, &["prod"], json!({})),
        instance("j1", "10.0.0.1", 80, &["prod"], json!({})),
        instance("j3", "10.0.0.1", 80, &["prod"], json!({})),
        instance("j4", "10.0.0.4", 0, &["prod"], json!({})),
    ];
    world.take(Source::Pool(jigasi), Records::Instances(servers));
    let here = Datacenter::parse("prod-east").unwrap();
    let standalones = vec![
        instance(
            "a1",
            "10.0.0.8",
            443,
            &["prod", "standalone-x"],
            json!({"shard": "one", "http_backend_port": "444"}),
        ),
        instance(
            "a2",
            "10.0.0.9",
            443,
            &["prod", "standalone-y"],
            json!({"shard": "two", "shard_id": "7", "release_number": "3"}),
        ),
        instance("a3", "10.0.0.9", 443, &["prod"], json!({})),
    ];
    world.take(Source::Services(here, ServiceKind::Standalones), Records::Instances(standalones));
    let Assembled { snapshot, invalid } = world.assemble(&place());
    let snapshot = snapshot.unwrap();
    let servers: Vec<_> = snapshot.servers_of("jigasi").iter().map(|server| server.name.as_str()).collect();
    assert_eq!(servers, ["jigasi-10.0.0.1-80", "jigasi-10.0.0.2-80"]);
    let (one, two) = (snapshot.shard("one").unwrap(), snapshot.shard("two").unwrap());
    assert_eq!((one.release.as_str(), one.address.port()), ("standalone-x", 444));
    assert!(one.id >= 1_000_000 && one.id <= crate::shard::SHARD_ID_MAX);
    assert_eq!((two.release.as_str(), two.id), ("release-3", 7));
    let said: Vec<_> = invalid.iter().map(ToString::to_string).collect();
    assert_eq!(said.len(), 3, "{said:?}");
    assert!(said.iter().any(|text| {
        text.contains("service j3 in prod-east: address 10.0.0.1:80 is taken by service j1")
    }));
    assert!(said.iter().any(|text| text.contains("service j4 in prod-east: ServicePort is \"0\"")));
    assert!(said.iter().any(|text| text.contains("service a3 in prod-east: shard is missing")));
    // A disk gives it back.
    let folder = tempfile::tempdir().unwrap();
    let (file, now) = (folder.path().join("state"), std::time::SystemTime::now());
    super::super::disk::save(&file, "prod", &world, now).unwrap();
    assert_eq!(super::super::disk::load(&file, "prod", now).unwrap().unwrap().world, world);
}

fn signal(datacenter: &str, id: &str, meta: serde_json::Value) -> Instance {
    serde_json::from_value(json!({
        "Address": "10.0.0.1", "Datacenter": datacenter, "ServiceID": id, "ServiceTags": ["prod"], "ServiceMeta": meta,
        "ServiceTaggedAddresses": {"lan": {"Address": "10.0.0.1", "Port": 1}, "wan": {"Address": "192.0.2.1", "Port": 1}},
    }))
    .unwrap()
}

fn pair(key: &str, value: &str) -> Pair {
    use base64::Engine as _;
    let value = base64::engine::general_purpose::STANDARD.encode(value);
    Pair { key: key.to_owned(), value: Some(value) }
}

fn services(datacenter: &str, kind: ServiceKind) -> Source {
    Source::Services(Datacenter::parse(datacenter).unwrap(), kind)
}

#[test]
fn a_whole_of_two_datacenters() {
    let mut world = World::default();
    let releases =
        vec![pair("releases/prod/live", "release-1"), pair("releases/prod/tenant/acme", "release-2")];
    world.take(Source::Policy(PolicyKind::Releases), Records::Pairs(releases));
    let states = vec![pair("shard-states/prod/s1", "drain")];
    world.take(Source::Policy(PolicyKind::ShardStates), Records::Pairs(states));
    let shard =
        |name: &str, id: u32| json!({"shard": name, "shard_id": id.to_string(), "release_number": "1"});
    let west = vec![
        signal("prod-west", "b", shard("s3", 3)),
        signal("prod-west", "a", shard("s1", 9)),
        signal("prod-west", "c", shard("s4", 1)),
    ];
    world.take(services("prod-west", ServiceKind::Shards), Records::Instances(west));
    let east = vec![signal("prod-east", "x", shard("s1", 1))];
    assert_eq!(
        world.take(services("prod-east", ServiceKind::Shards), Records::Instances(east.clone())),
        Taken::Changed
    );
    assert_eq!(
        world.take(services("prod-east", ServiceKind::Shards), Records::Instances(east)),
        Taken::AsBefore
    );
    let node = json!({"shardgate_node": "n1", "shardgate_peer_port": "7", "shardgate_region": "west"});
    let both = vec![signal("prod-west", "n1", node)];
    world.take(services("prod-west", ServiceKind::Nodes), Records::Instances(both.clone()));
    world.take(services("prod-west", ServiceKind::Proxies), Records::Instances(both));

    let Assembled { snapshot, invalid } = world.assemble(&place());
    let snapshot = snapshot.unwrap();
    let shards: Vec<_> = snapshot.listed().iter().map(|shard| shard.to_string()).collect();
    assert_eq!(
        shards,
        [
            "s1: id 1, region east, release release-1, 10.0.0.1:443, drain, weight 256",
            "s3: id 3, region west, release release-1, 192.0.2.1:443, ready, weight 256"
        ]
    );
    let peers: Vec<_> = snapshot.peers().iter().map(ToString::to_string).collect();
    assert_eq!(peers, ["n1: region west, 192.0.2.1:7"]);
    assert_eq!(snapshot.tenant_pin("acme").unwrap().as_str(), "release-2");
    let invalid: Vec<_> = invalid.iter().map(ToString::to_string).collect();
    assert_eq!(
        invalid,
        [
            "service a in prod-west: shard s1 is taken by service x in prod-east",
            "service c in prod-west: shard_id 1 is taken by service x in prod-east"
        ]
    );
}

#[test]
fn how_sources_are_asked_for() {
    let policy = place().target(&Source::Policy(PolicyKind::BanLists));
    assert_eq!((policy.path.as_str(), policy.datacenter), ("/v1/kv/banlists/prod/", None));
    let shards = place().target(&services("prod-west", ServiceKind::Shards));
    assert_eq!(shards.path, "/v1/catalog/service/signal");
    assert_eq!(shards.datacenter.unwrap().as_str(), "prod-west");
}

#[test]
fn proxies_of_before_are_kept_and_not_dialled() {
    let instance = |id: &str, port: i64, meta: serde_json::Value| -> Instance {
        serde_json::from_value(json!({
            "Address": "10.0.0.1", "Datacenter": "prod-east", "ServiceID": id, "ServicePort": port, "ServiceTags": ["prod"], "ServiceMeta": meta,
            "ServiceTaggedAddresses": {"wan": {"Address": "192.0.2.1", "Port": 80}},
        }))
        .unwrap()
    };
    let ours = json!({"shardgate_node": "n1", "shardgate_peer_port": "7", "shardgate_region": "east"});
    let proxies = vec![
        instance("prod-haproxy-0-1", 1024, json!({"environment": "prod"})),
        instance("prod-haproxy-0-2", 1024, ours),
        instance("prod-haproxy-0-3", 0, json!({})),
    ];
    let mut world = World::default();
    let west = Place { datacenter: Datacenter::parse("prod-west").unwrap(), ..place() };
    world.take(
        Source::Services(Datacenter::parse("prod-east").unwrap(), ServiceKind::Proxies),
        Records::Instances(proxies),
    );
    let Assembled { snapshot, invalid } = world.assemble(&west);
    let snapshot = snapshot.unwrap();
    let [other] = snapshot.other_proxies() else { panic!("{:?}", snapshot.other_proxies()) };
    assert_eq!((other.id.as_str(), other.region.as_str()), ("prod-haproxy-0-1", "east"));
    assert_eq!(other.address, "192.0.2.1:1024".parse().unwrap());
    assert_eq!(snapshot.peers().len(), 1);
    assert_eq!(invalid.len(), 1, "{invalid:?}");
    assert_eq!(snapshot.diff(&Snapshot::default()).changes.len(), 2);
}
