//! A request's target and Host: the routing key, and where it goes among a few shards.

use std::sync::{Arc, LazyLock};

use shardgate_discovery::file::parse_text;
use shardgate_discovery::{RegionName, ShardName, ShardState};
use shardgate_peering::core::StickKey;
use shardgate_proxy::route::{NeedsClaim, Outlook, Topology, Why, by_hash, decide};
use shardgate_proxy::routing_key::{Compat, Routing, RoutingKey, Said, Store, TOKEN_LEN_MAX};
use shardgate_proxy::rule::{Fired, Stage};

const SHARDS: &str = r#"
live_release = "release-2"
[[shards]]
name = "r1-s1"
id = 1
region = "r1"
release = "release-1"
address = "127.0.0.1:1"
[[shards]]
name = "r1-s2"
id = 2
region = "r1"
release = "release-2"
address = "127.0.0.1:2"
[[shards]]
name = "r2-s3"
id = 3
region = "r2"
release = "release-2"
address = "127.0.0.1:3"
state = "drain"
[[shards]]
name = "r2-s4"
id = 4
region = "r2"
release = "release-2"
address = "127.0.0.1:4"
state = "maint"
[pins]
acme = "release-1"
"#;

static TOPOLOGY: LazyLock<Topology> = LazyLock::new(|| {
    let snapshot = parse_text(SHARDS).expect("a discovery file");
    Topology::new(Arc::new(snapshot), Arc::default(), &RegionName::parse("r1").expect("a region"), &[])
});

static ROUTINGS: LazyLock<[Routing; 2]> =
    LazyLock::new(|| [Compat::None, Compat::Haproxy].map(|compat| Routing { compat, ..Routing::default() }));

/// Which shard the table has, and which one failed: none, one of the snapshot's, one that is not there.
fn shard(choice: u8) -> Option<ShardName> {
    let name = ["r1-s1", "r1-s2", "r2-s3", "r2-s4", "gone"].get(usize::from(choice))?;
    ShardName::parse(name).ok()
}

/// One byte of circumstances, then the target, a line break and the Host.
pub fn routing_key(data: &[u8]) {
    let Some((&circumstances, rest)) = data.split_first() else { return };
    let (target, host) = match rest.iter().position(|byte| *byte == b'\n') {
        Some(end) => (&rest[..end], Some(&rest[end + 1..])),
        None => (rest, None),
    };
    let Ok(target) = std::str::from_utf8(target) else { return };
    // The lines behind the Host are what the client says in X-Room, X-Group and X-StickTokenFlag.
    let mut lines = host.into_iter().flat_map(|host| host.split(|byte| *byte == b'\n'));
    let said = Said { host: lines.next(), room: lines.next(), group: lines.next(), flag: lines.next() };
    for routing in ROUTINGS.iter() {
        read(target, &said, routing, circumstances);
    }
}

fn read(target: &str, said: &Said<'_>, routing: &Routing, circumstances: u8) {
    let key = match RoutingKey::parse(target, said, routing) {
        Ok(key) => key,
        Err(refused) => {
            assert!(!refused.to_string().is_empty());
            return;
        }
    };
    assert!(target.is_ascii(), "a target with other bytes was taken");
    let token = key.token();
    assert!(token.chars().all(|letter| u32::from(letter) < 256), "it could be the key of a cookie: {token}");
    let ours = routing.compat == Compat::None;
    // A tenant alone chooses a shard by its hash and is no key.
    assert!(token.len() <= TOKEN_LEN_MAX || !ours || key.store() == Store::Nothing);
    assert!(
        !ours || !token.bytes().any(|byte| byte.is_ascii_uppercase()),
        "tokens are in lower case: {token}"
    );
    assert!(key.store() == Store::Nothing || StickKey::parse(token).is_ok(), "what is stored has a key");
    if ours {
        assert_eq!(
            RoutingKey::parse(target, &Said { host: said.host, ..Said::default() }, routing).as_ref(),
            Ok(&key)
        );
    }
    if let Some(tenant) = key.tenant() {
        assert!(!tenant.is_empty() && !tenant.contains('/'), "tenant {tenant}");
    }
    for suffix in key.room_suffixes() {
        assert!(suffix.len() <= 128 && !suffix.bytes().any(|byte| byte.is_ascii_uppercase()));
    }
    assert_eq!(RoutingKey::parse(target, said, routing).as_ref(), Ok(&key), "parsed twice, two keys");
    go(&key, routing, circumstances);
}

fn go(key: &RoutingKey<'_>, routing: &Routing, circumstances: u8) {
    let entry = shard(circumstances & 7);
    let excluded = shard(circumstances >> 3 & 7);
    let suspected = circumstances & 64 != 0;
    let outlook = Outlook {
        excluded: excluded.as_ref(),
        suspect: &|_| suspected,
        detour: &|_| suspected,
        conferences: &|shard| u64::from(shard.as_str() == "r1-s1") * 100,
        health: TOPOLOGY.health(),
        balance_percent: 125,
        nonce: u64::from(circumstances),
    };
    let usable = |shard: &ShardName| {
        let state = TOPOLOGY.snapshot().shard(shard.as_str()).map(|shard| shard.state);
        state.is_some_and(|state| state != ShardState::Maint) && excluded.as_ref() != Some(shard)
    };
    let mut fired = key.fired();
    if let Ok(decision) = decide(key, &TOPOLOGY, entry.as_ref(), routing, &outlook, &mut fired) {
        let named = decision.why == Why::Named && excluded.as_ref() != Some(&decision.shard.name);
        assert!(named || usable(&decision.shard.name), "{} takes no traffic", decision.shard.name);
        match decision.claim {
            NeedsClaim::No => {}
            NeedsClaim::Join | NeedsClaim::Down { .. } | NeedsClaim::Maint { .. } => {
                assert_eq!(key.store(), Store::MatchOrStore, "only signaling makes entries");
                assert!(!matches!(decision.why, Why::Named | Why::Entry));
            }
        }
        if decision.why == Why::Entry {
            assert_eq!(Some(&decision.shard.name), entry.as_ref());
            assert_ne!(key.store(), Store::Nothing, "without a key no entry counts");
        }
    }
    assert!(fired.iter().any(|rule| rule.stage() == Stage::Choice), "nothing says why: {fired}");
    if let Ok(decision) = by_hash(key, &TOPOLOGY, &outlook, &mut Fired::default()) {
        let named = decision.why == Why::Named && excluded.as_ref() != Some(&decision.shard.name);
        assert!(named || usable(&decision.shard.name), "{} takes no traffic", decision.shard.name);
        assert_eq!(decision.claim, NeedsClaim::No, "the plain hash asks nobody");
    }
}
