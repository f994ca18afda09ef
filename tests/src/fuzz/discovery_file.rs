//! The discovery file: a snapshot whose lists agree with each other, or faults that say where they are.

use shardgate_discovery::file::parse_text;
use shardgate_discovery::{PEERS_MAX, PINS_MAX, SHARDS_MAX};

/// A discovery file's text.
pub fn discovery_file(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let snapshot = match parse_text(text) {
        Ok(snapshot) => snapshot,
        Err(faults) => {
            assert!(!faults.is_empty(), "refused without a fault");
            let lines = text.lines().count().max(1) + 1;
            for fault in faults.kept() {
                assert!((1..=lines).contains(&fault.line), "line {} of {lines}", fault.line);
                let said = fault.to_string();
                assert_eq!(said.lines().count(), 1, "a fault is one line: {said:?}");
                assert!(!said.chars().any(char::is_control), "a fault is shown on terminals: {said:?}");
            }
            return;
        }
    };
    assert!(snapshot.shards().len() <= SHARDS_MAX);
    assert!(snapshot.peers().len() <= PEERS_MAX);
    assert!(snapshot.pins().count() <= PINS_MAX);
    let mut of_releases = 0;
    for release in snapshot.releases() {
        of_releases += snapshot.shards_of(release.as_str()).len();
    }
    assert_eq!(of_releases, snapshot.shards().len(), "every shard has one release");
    for shard in snapshot.shards() {
        assert_eq!(snapshot.shard(shard.name.as_str()), Some(shard), "found by its name");
    }
    assert!(snapshot.shards().is_sorted_by(|one, next| one.name < next.name));
    assert!(snapshot.peers().is_sorted_by(|one, next| one.id < next.id));
    for (tenant, release) in snapshot.pins() {
        assert_eq!(snapshot.tenant_pin(tenant.as_str()), Some(release));
    }
    let again = parse_text(text);
    assert!(again.is_ok_and(|again| again.content_equals(&snapshot)), "read twice, two snapshots");
}
