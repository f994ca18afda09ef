use super::*;
use crate::{RegionName, ShardState, Warning};

pub(crate) fn shard(name: &str, id: u32, release: &str) -> Shard {
    Shard {
        name: ShardName::parse(name).unwrap(),
        id,
        region: RegionName::parse("r1").unwrap(),
        release: ReleaseName::parse(release).unwrap(),
        address: format!("127.0.1.{id}:5280").parse().unwrap(),
        state: ShardState::Ready,
        weight: WEIGHT_MAX,
        states_in: Vec::new(),
        agent_port: None,
    }
}

fn peer(id: &str) -> PeerNode {
    PeerNode {
        id: PeerId::parse(id).unwrap(),
        region: RegionName::parse("r1").unwrap(),
        address: "127.0.0.1:7001".parse().unwrap(),
    }
}

#[test]
fn empty_snapshot_answers_everything() {
    let empty = Snapshot::default();
    assert!(empty.shard("s1").is_none());
    assert!(empty.shards().is_empty() && empty.peers().is_empty() && empty.shards_of("release-1").is_empty());
    assert!(empty.live_release().is_none() && empty.tenant_pin("acme").is_none());
    assert_eq!(empty.version(), 0);
}

#[test]
fn lookups_are_by_name_and_lists_are_sorted() {
    let release = |name| ReleaseName::parse(name).unwrap();
    let snapshot = SnapshotBuilder::new()
        .shard(shard("s3", 3, "release-2"))
        .shard(shard("s1", 1, "release-1"))
        .shard(shard("s2", 2, "release-2"))
        .peer(peer("b"))
        .peer(peer("a"))
        .live_release(release("release-2"))
        .pin(TenantName::parse("acme").unwrap(), release("release-1"))
        .build()
        .unwrap();
    assert_eq!(snapshot.shard("s2").unwrap().id, 2);
    let names = |shards: &[Arc<Shard>]| shards.iter().map(|shard| shard.name.to_string()).collect::<Vec<_>>();
    assert_eq!(names(snapshot.shards()), ["s1", "s2", "s3"]);
    assert_eq!(names(snapshot.shards_of("release-2")), ["s2", "s3"]);
    assert_eq!(snapshot.releases().map(ReleaseName::as_str).collect::<Vec<_>>(), ["release-1", "release-2"]);
    assert_eq!(snapshot.peers()[0].id.as_str(), "a");
    assert_eq!(snapshot.tenant_pin("acme").unwrap().as_str(), "release-1");
    assert!(snapshot.warnings().is_empty());
}

#[test]
fn every_fault_is_reported() {
    let mut heavy = shard("s1", 1, "release-1");
    heavy.weight = 257;
    let errors = SnapshotBuilder::new()
        .shard(shard("s1", 1, "release-1"))
        .shard(heavy)
        .shard(shard("s2", 1, "release-1"))
        .peer(peer("a"))
        .peer(peer("a"))
        .build()
        .unwrap_err();
    assert_eq!(
        errors.to_string(),
        "shard name s1 is used by shards[0] and shards[1], expected it once; \
         shard id 1 is used by shards[0] and shards[1], expected it once; \
         shard s1 has the weight 257, expected 0 to 256; \
         shard id 1 is used by shards[0] and shards[2], expected it once; \
         peer id a is used by peers[0] and peers[1], expected it once"
    );
}

#[test]
fn lists_are_bounded() {
    let mut builder = SnapshotBuilder::new();
    for index in 0..=PEERS_MAX {
        builder = builder.peer(peer(&format!("p{index}")));
    }
    let errors = builder.build().unwrap_err();
    assert_eq!(errors.to_string(), "peers has 1025 entries, expected at most 1024");
}

#[test]
fn odd_but_valid_content_is_warned_about() {
    let release = |name| ReleaseName::parse(name).unwrap();
    let warnings =
        |snapshot: Snapshot| snapshot.warnings().iter().map(Warning::to_string).collect::<Vec<_>>();
    assert_eq!(
        warnings(Snapshot::default()),
        ["no shards are listed: every request will be answered with 503"]
    );
    let mut twin = shard("s2", 2, "release-1");
    twin.address = "127.0.1.1:5280".parse().unwrap();
    twin.states_in =
        vec![(release("release-4"), ShardState::Maint), (release("release-1"), ShardState::Drain)];
    let built = SnapshotBuilder::new()
        .shard(shard("s1", 1, "release-1"))
        .shard(twin)
        .live_release(release("release-2"))
        .pin(TenantName::parse("acme").unwrap(), release("release-3"))
        .pin(TenantName::parse("zeta").unwrap(), release("release-1"))
        .pin(TenantName::parse("one").unwrap(), release("s1"))
        .build()
        .unwrap();
    assert_eq!(
        warnings(built),
        [
            "live_release is release-2, but no shard has that release: new conferences are answered with 503, but those of pinned tenants",
            "tenant acme is pinned to release-3, but no shard has that release: the pin has no effect",
            "shard s2 has a state in release-4, but no shard has that release: the state has no effect",
            "shards s1 and s2 have one address 127.0.1.1:5280",
        ]
    );
    assert_eq!(
        warnings(SnapshotBuilder::new().shard(shard("s1", 1, "release-1")).build().unwrap()),
        ["live_release is not set: new conferences are answered with 503, but those of pinned tenants"]
    );
}
