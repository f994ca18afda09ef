use super::super::super::census::tests::{Said, reports};
use super::*;
use shardgate_proto::admin::{OnShard as WireOnShard, TableEntry};

const NOW_MS: u64 = 1_700_000_600_000;
const LAG_MS: u64 = 150_000;
const OLD_MS: u64 = NOW_MS - LAG_MS;

/// What a node's table has of the key: shard, when it was decided, its sessions by shard, which are old.
fn row(shard: &str, created_ms: u64, sessions: &[(&str, u64)]) -> Option<Row> {
    keyed("room", shard, created_ms, sessions, LEFT_MIN_MS)
}

/// The same, with sessions that are not.
fn young(shard: &str, created_ms: u64, sessions: &[(&str, u64)]) -> Option<Row> {
    row(shard, created_ms, sessions).map(|mut row| {
        row.longest_ms = LAG_MS - 1;
        row
    })
}

fn keyed(
    key: &str,
    shard: &str,
    created_ms: u64,
    sessions: &[(&str, u64)],
    remaining_ms: u64,
) -> Option<Row> {
    let on = sessions.iter().map(|(shard, tunnels)| WireOnShard {
        shard: (*shard).to_owned(),
        tunnels: *tunnels,
        bosh_sessions: 0,
        longest_ms: Some(LAG_MS),
    });
    let entry = TableEntry {
        key: key.to_owned(),
        shard: shard.to_owned(),
        generation: 1,
        created_ms,
        remaining_ms,
        sessions: on.collect(),
        ..TableEntry::default()
    };
    Some(Row::of_node(entry).unwrap())
}

fn of_haproxy(key: &str, shard: &str) -> Option<Row> {
    Some(Row::of_haproxy(key.to_owned(), shard.to_owned(), LEFT_MIN_MS).unwrap())
}

fn sight(nodes: usize, haproxies: usize) -> Sight {
    Sight {
        tables: (0..nodes + haproxies).map(|at| format!("t{at}")).collect(),
        haproxies,
        shards: ["s1", "s2", "s3"].map(ToOwned::to_owned).into(),
        haproxy_key_len: 20,
        census_lag_ms: LAG_MS,
        now_ms: NOW_MS,
    }
}

fn of_shards(shards: &[(&str, Said<'_>)]) -> Census {
    Census::new([&reports(shards)], NOW_MS)
}

fn kinds(sight: &Sight, rows: &[Option<Row>], shards: &[(&str, Said<'_>)]) -> String {
    let found = judge(sight, rows, &mut of_shards(shards));
    found.iter().map(|finding| finding.kind.name()).collect::<Vec<_>>().join(" ")
}

const ROOM: &str = "room@conference.meet.example.com";
/// The host stands without a tenant elsewhere.
const OTHER: (&str, u64, u64) = ("other@conference.acme.meet.example.com", 1, 0);

#[test]
fn tables() {
    let two = sight(2, 0);
    for (rows, expected) in [
        (vec![row("s1", OLD_MS, &[]), row("s1", OLD_MS, &[])], ""),
        (vec![row("s1", OLD_MS, &[]), row("s2", OLD_MS, &[])], "table-split-brain"),
        (vec![row("s1", OLD_MS, &[]), None], "missing-entry"),
        (vec![row("s1", OLD_MS, &[]), row("", OLD_MS, &[])], "missing-entry"),
        (vec![keyed("room", "s1", OLD_MS, &[], LEFT_MIN_MS - 1), None], ""),
        (vec![row("", OLD_MS, &[]), None], ""),
        (vec![row("s9", OLD_MS, &[]), row("s9", OLD_MS, &[])], "orphan-entry"),
        (vec![row("s1", OLD_MS, &[]), row("s9", OLD_MS, &[])], "table-split-brain orphan-entry"),
    ] {
        assert_eq!(kinds(&two, &rows, &[]), expected, "{rows:?}");
    }
    // Where no node was asked, nobody says which shards there are.
    let haproxies = Sight { shards: BTreeSet::new(), ..sight(0, 2) };
    assert_eq!(kinds(&haproxies, &[of_haproxy("room", "s9"), of_haproxy("room", "s9")], &[]), "");
    assert_eq!(
        kinds(&haproxies, &[of_haproxy("room", "s9"), of_haproxy("room", "s1")], &[]),
        "table-split-brain"
    );
    let long = "a".repeat(20);
    assert_eq!(kinds(&haproxies, &[of_haproxy(&long, "s1"), None], &[]), "ambiguous-key");
    // The whole key is a node's alone.
    let longer = keyed(&"a".repeat(21), "s1", OLD_MS, &[], LEFT_MIN_MS);
    assert_eq!(kinds(&sight(1, 1), &[longer, None], &[]), "");
}

#[test]
fn people_and_rooms() {
    let one = |created_ms, sessions: &[(&str, u64)]| {
        vec![row("s1", created_ms, sessions), row("s1", created_ms, &[])]
    };
    let none: Said<'_> = &[OTHER];
    let two: Said<'_> = &[(ROOM, 2, 0), OTHER];
    let empty: Said<'_> = &[(ROOM, 0, 0), OTHER];
    let begun: Said<'_> = &[(ROOM, 0, NOW_MS / 1_000 - 30), OTHER];
    for (what, rows, census, expected) in [
        ("it lives where it is", one(OLD_MS, &[("s1", 2)]), vec![("s1", two), ("s2", none)], ""),
        ("nobody reports", one(OLD_MS, &[("s1", 2)]), vec![], ""),
        ("people are on two", one(NOW_MS, &[("s1", 2), ("s2", 1)]), vec![], "conference-on-two-shards"),
        ("it lives elsewhere", one(OLD_MS, &[]), vec![("s1", none), ("s2", two)], "entry-shard-mismatch"),
        ("it has just moved", one(OLD_MS + 1, &[]), vec![("s1", none), ("s2", two)], ""),
        (
            "people are elsewhere",
            one(OLD_MS, &[("s2", 1)]),
            vec![("s1", none), ("s2", two)],
            "entry-shard-mismatch",
        ),
        (
            "two shards count people",
            one(OLD_MS, &[]),
            vec![("s1", two), ("s2", two)],
            "conference-on-two-shards",
        ),
        ("ghosts", one(OLD_MS, &[("s1", 2)]), vec![("s1", two), ("s2", two)], "leaked-conference"),
        (
            "an empty room elsewhere",
            one(OLD_MS, &[("s1", 2)]),
            vec![("s1", two), ("s2", empty)],
            "leaked-conference",
        ),
        ("an empty room", one(OLD_MS, &[]), vec![("s1", empty)], "leaked-conference"),
        ("a room that begins", one(OLD_MS, &[]), vec![("s1", begun)], ""),
        ("it has ended a while ago", one(OLD_MS, &[]), vec![("s1", none)], ""),
        ("its shard has lost it", one(OLD_MS, &[("s1", 2)]), vec![("s1", none)], "orphan-entry"),
        ("it has begun anew", vec![young("s1", OLD_MS, &[("s1", 2)])], vec![("s1", none)], ""),
        ("its shard is silent", one(OLD_MS, &[("s1", 2)]), vec![("s2", none)], ""),
    ] {
        assert_eq!(kinds(&sight(2, 0), &rows, &census), expected, "{what}");
    }
    // People may come by a HAProxy, whose sessions nobody knows.
    let mixed = [row("s1", OLD_MS, &[("s1", 2)]), of_haproxy("room", "s1")];
    assert_eq!(kinds(&sight(1, 1), &mixed, &[("s1", two), ("s2", two)]), "conference-on-two-shards");
    let cookie = "cookie\u{203a}pool\u{203a}x";
    let held = keyed(cookie, "s1", OLD_MS, &[("s1", 1)], LEFT_MIN_MS);
    assert_eq!(kinds(&sight(1, 0), &[held], &[("s1", none)]), "", "a cookie is no conference");
}

#[test]
fn rooms_that_no_table_knows() {
    let rooms: Said<'_> = &[
        (ROOM, 2, OLD_MS / 1_000),
        ("left@conference.meet.example.com", 0, 0),
        ("new@conference.meet.example.com", 3, NOW_MS / 1_000 - 10),
        OTHER,
    ];
    let census = of_shards(&[("s1", rooms)]);
    let found = judge_rest(&sight(1, 0), &census);
    let said: Vec<_> =
        found.iter().map(|finding| format!("{} {}", finding.kind.name(), finding.subject)).collect();
    assert_eq!(said, ["missing-entry room", "leaked-conference left", "missing-entry acme/other"]);
}
