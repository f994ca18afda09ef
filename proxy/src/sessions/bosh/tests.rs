use super::*;

const PAUSE: Millis = 65_000;

fn shard(text: &str) -> ShardName {
    ShardName::parse(text).unwrap()
}

fn key(text: &str) -> StickKey {
    StickKey::parse(text).unwrap()
}

/// A request that a shard answers, from its beginning to its end.
fn poll(bosh: &mut Bosh, connection: &BoshOfConnection, token: &str, to: &str, at: Millis) {
    let id = bosh.asks(connection, token, &shard(to), HoldsEntry::Yes, Table::Listens).unwrap();
    bosh.over(id, at);
}

/// What the table was told, in short.
fn told(bosh: &mut Bosh) -> String {
    let words = bosh.changes().map(|change| match change {
        HoldChange::Taken(key, shard) => format!("+{key}@{shard}"),
        HoldChange::Released(key, shard) => format!("-{key}@{shard}"),
    });
    words.collect::<Vec<_>>().join(" ")
}

/// Counts what is new, and ends nothing.
fn count(bosh: &mut Bosh) {
    bosh.sweep(0, Millis::MAX, Table::Listens);
}

fn ask(bosh: &mut Bosh, connection: &BoshOfConnection) -> BoshId {
    bosh.asks(connection, "a", &shard("s1"), HoldsEntry::Yes, Table::Listens).unwrap()
}

#[test]
fn a_session_is_told_when_it_is_counted_and_when_it_ends() {
    let (mut bosh, connection) = (Bosh::default(), BoshOfConnection::default());
    poll(&mut bosh, &connection, "a", "s1", 0);
    assert_eq!((told(&mut bosh).as_str(), bosh.len()), ("", 0));
    count(&mut bosh);
    assert_eq!((told(&mut bosh).as_str(), bosh.len()), ("+a@s1", 1));
    for at in 1..100 {
        poll(&mut bosh, &connection, "a", "s1", at * 1_000);
        bosh.sweep(at * 1_000, PAUSE, Table::Listens);
    }
    assert_eq!((told(&mut bosh).as_str(), bosh.len()), ("", 1));
    bosh.sweep(99_000 + PAUSE - 1, PAUSE, Table::Listens);
    assert_eq!(bosh.len(), 1);
    bosh.sweep(99_000 + PAUSE, PAUSE, Table::Listens);
    assert_eq!((told(&mut bosh).as_str(), bosh.len()), ("-a@s1", 0));
    // The connection's word for it is stale by now, and its place somebody else's.
    let other = BoshOfConnection::default();
    poll(&mut bosh, &other, "b", "s1", 200_000);
    poll(&mut bosh, &connection, "a", "s1", 200_000);
    count(&mut bosh);
    assert_eq!((told(&mut bosh).as_str(), bosh.len()), ("+b@s1 +a@s1", 2));
}

#[test]
fn while_a_request_is_held_no_pause_ends_it() {
    let (mut bosh, connection) = (Bosh::default(), BoshOfConnection::default());
    let (held, other) = (ask(&mut bosh, &connection), ask(&mut bosh, &connection));
    assert_eq!(held, other);
    bosh.over(held, 0);
    bosh.sweep(10 * PAUSE, PAUSE, Table::Listens);
    assert_eq!(bosh.len(), 1);
    bosh.over(other, 10 * PAUSE);
    bosh.sweep(11 * PAUSE - 1, PAUSE, Table::Listens);
    assert_eq!(bosh.len(), 1);
    bosh.sweep(11 * PAUSE, PAUSE, Table::Listens);
    assert_eq!((told(&mut bosh).as_str(), bosh.len()), ("+a@s1 -a@s1", 0));
    // A request that outlives its session is nobody's.
    bosh.over(held, 0);
    bosh.failed(held);
    bosh.goes_to(held, &shard("s2"), HoldsEntry::Yes, Table::Listens);
    assert_eq!(told(&mut bosh), "");
}

#[test]
fn a_session_goes_where_its_requests_go() {
    let (mut bosh, connection) = (Bosh::default(), BoshOfConnection::default());
    // Redispatched before it is counted.
    let id = bosh.asks(&connection, "a", &shard("s0"), HoldsEntry::Yes, Table::Listens).unwrap();
    bosh.goes_to(id, &shard("s1"), HoldsEntry::Yes, Table::Listens);
    bosh.over(id, 0);
    count(&mut bosh);
    poll(&mut bosh, &connection, "a", "s2", 1);
    assert_eq!(told(&mut bosh), "+a@s1 +a@s2 -a@s1");
    let of = |bosh: &Bosh, name| bosh.count(&Which::Shard(shard(name)));
    assert_eq!((of(&bosh, "s1"), of(&bosh, "s2")), (0, 1));
    assert_eq!(bosh.count(&Which::KeyElsewhere { key: key("a"), shard: shard("s1") }), 1);
    let id = bosh.asks(&connection, "a", &shard("s2"), HoldsEntry::Yes, Table::Listens).unwrap();
    bosh.goes_to(id, &shard("s3"), HoldsEntry::No, Table::Listens);
    assert_eq!(told(&mut bosh), "-a@s2");
    bosh.over(id, 2);
    bosh.sweep(2 + PAUSE, PAUSE, Table::Listens);
    assert_eq!((told(&mut bosh).as_str(), bosh.count(&Which::Key(key("a")))), ("", 0));
}

#[test]
fn each_connection_has_its_own_session_and_no_more_than_four() {
    let (mut bosh, first, second) =
        (Bosh::default(), BoshOfConnection::default(), BoshOfConnection::default());
    poll(&mut bosh, &first, "a", "s1", 0);
    poll(&mut bosh, &second, "a", "s1", 0);
    count(&mut bosh);
    assert_eq!((bosh.count(&Which::Key(key("a"))), told(&mut bosh).as_str()), (2, "+a@s1 +a@s1"));
    for token in ["b", "c", "d", "a"] {
        poll(&mut bosh, &first, token, "s1", 1);
    }
    count(&mut bosh);
    assert_eq!(told(&mut bosh), "+b@s1 +c@s1 +d@s1");
    // The one that was used last stays.
    poll(&mut bosh, &first, "e", "s1", 1);
    count(&mut bosh);
    assert_eq!(told(&mut bosh), "-b@s1 +e@s1");
    assert_eq!((bosh.len(), bosh.count(&Which::Key(key("a")))), (5, 2));
    bosh.clear();
    assert_eq!((bosh.len(), told(&mut bosh).split(' ').count(), bosh.count(&Which::All)), (0, 5, 0));
}

#[test]
fn a_connection_that_many_share_tells_the_table_little() {
    let (mut bosh, shared) = (Bosh::default(), BoshOfConnection::default());
    for n in 0..1_000 {
        poll(&mut bosh, &shared, &format!("r{n}"), "s1", 0);
    }
    assert_eq!((told(&mut bosh).as_str(), bosh.len(), bosh.sessions.len()), ("", 0, KEYS_MAX));
    count(&mut bosh);
    let told = told(&mut bosh);
    let mut told: Vec<&str> = told.split(' ').collect();
    told.sort_unstable();
    assert_eq!(told, ["+r996@s1", "+r997@s1", "+r998@s1", "+r999@s1"]);
}

#[test]
fn a_request_that_no_shard_answered_begins_none() {
    let (mut bosh, connection) = (Bosh::default(), BoshOfConnection::default());
    let id = ask(&mut bosh, &connection);
    count(&mut bosh);
    bosh.failed(id);
    assert_eq!((told(&mut bosh).as_str(), bosh.len()), ("+a@s1 -a@s1", 0));
    poll(&mut bosh, &connection, "a", "s1", 0);
    let id = ask(&mut bosh, &connection);
    bosh.failed(id);
    count(&mut bosh);
    assert_eq!(bosh.len(), 1);
}

#[test]
fn beyond_its_bounds_nothing_is_counted() {
    let (mut bosh, connection) = (Bosh::default(), BoshOfConnection::default());
    for n in 0..SESSIONS_MAX {
        let other = BoshOfConnection::default();
        assert!(bosh.asks(&other, &format!("r{n}"), &shard("s1"), HoldsEntry::No, Table::Listens).is_some());
    }
    assert_eq!(bosh.asks(&connection, "a", &shard("s1"), HoldsEntry::No, Table::Listens), None);
    count(&mut bosh);
    assert_eq!((bosh.len(), told(&mut bosh).as_str()), (SESSIONS_MAX, ""));
}

#[test]
fn what_the_table_cannot_be_told_of_waits() {
    let (mut bosh, connection) = (Bosh::default(), BoshOfConnection::default());
    poll(&mut bosh, &connection, "a", "s1", 0);
    bosh.sweep(0, PAUSE, Table::Behind);
    assert_eq!((told(&mut bosh).as_str(), bosh.len()), ("", 0));
    count(&mut bosh);
    let id = bosh.asks(&connection, "a", &shard("s2"), HoldsEntry::Yes, Table::Behind).unwrap();
    bosh.over(id, 1);
    assert_eq!((told(&mut bosh).as_str(), bosh.count(&Which::Shard(shard("s1")))), ("+a@s1", 1));
    bosh.sweep(1 + PAUSE, PAUSE, Table::Behind);
    assert_eq!((told(&mut bosh).as_str(), bosh.len()), ("-a@s1", 0));
}

#[test]
fn a_conference_that_moves_takes_its_sessions_along() {
    let mut bosh = Bosh::default();
    let [held, idle, there, new] = std::array::from_fn(|_| BoshOfConnection::default());
    let id = ask(&mut bosh, &held);
    poll(&mut bosh, &idle, "a", "s1", 0);
    poll(&mut bosh, &there, "a", "s2", 0);
    poll(&mut bosh, &there, "b", "s1", 0);
    count(&mut bosh);
    poll(&mut bosh, &new, "a", "s1", 0);
    assert_eq!(told(&mut bosh), "+a@s1 +a@s1 +a@s2 +b@s1");
    assert_eq!(bosh.moved(&key("a"), &shard("s2"), Table::Listens), [id], "one is to be sent once more");
    assert_eq!(told(&mut bosh), "+a@s2 -a@s1 +a@s2 -a@s1");
    let here = |bosh: &Bosh, token| bosh.count(&Which::KeyElsewhere { key: key(token), shard: shard("s2") });
    assert_eq!((here(&bosh, "a"), here(&bosh, "b")), (0, 1));
    assert!(bosh.moved(&key("a"), &shard("s2"), Table::Listens).is_empty());
    assert!(bosh.moved(&key("unknown"), &shard("s2"), Table::Listens).is_empty());
    let keys: std::collections::BTreeSet<_> = bosh.keys().map(|key| key.to_string()).collect();
    assert_eq!(keys, ["a", "b"].map(str::to_owned).into());
}

#[test]
fn whoever_polls_stays_where_its_session_is_or_another_one() {
    let mut bosh = Bosh::default();
    let [own, other, stranger] = std::array::from_fn(|_| BoshOfConnection::default());
    assert_eq!(bosh.shard_of(&own, "a"), None);
    poll(&mut bosh, &other, "a", "s2", 0);
    poll(&mut bosh, &own, "a", "s1", 0);
    assert_eq!(bosh.shard_of(&own, "a"), Some(&shard("s1")));
    assert_eq!(bosh.shard_of(&other, "a"), Some(&shard("s2")));
    assert!(bosh.shard_of(&stranger, "a").is_some());
    assert_eq!(bosh.shard_of(&stranger, "b"), None);
}
