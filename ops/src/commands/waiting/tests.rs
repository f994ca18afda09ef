use super::*;

fn row(shard: &str, release: &str, state: &str, counts: [u64; 3]) -> ShardSessions {
    let [conferences, tunnels_here, bosh_here] = counts;
    ShardSessions {
        shard: shard.to_owned(),
        release: release.to_owned(),
        state: state.to_owned(),
        conferences,
        tunnels_here,
        bosh_here,
    }
}

fn node(name: &str, shards: Vec<ShardSessions>) -> SessionsResponse {
    SessionsResponse {
        node: name.to_owned(),
        ready: false,
        knows_table: true,
        tunnels: shards.iter().map(|row| row.tunnels_here).sum(),
        bosh_sessions: shards.iter().map(|row| row.bosh_here).sum(),
        shards,
        ..SessionsResponse::default()
    }
}

fn unasked() -> Vec<Unasked> {
    vec![Unasked { name: "n3".to_owned(), why: "connection refused".to_owned() }]
}

fn round() -> Round {
    let one = vec![row("s1", "release-1", "drain", [7, 3, 1]), row("s2", "release-1", "drain", [1, 1, 0])];
    let two = vec![row("s1", "release-1", "drain", [6, 2, 0]), row("s3", "release-2", "ready", [5, 5, 5])];
    Round { answers: vec![node("n1", one), node("n2", two)], unasked: Vec::new() }
}

#[test]
fn conferences_are_the_meshs_and_sessions_are_summed() {
    let counts = |drained: Drained| {
        let left = left(&round(), &drained, &BTreeSet::new());
        (left.conferences, left.tunnels, left.bosh, left.open)
    };
    let none = Vec::<String>::new();
    assert_eq!(counts(Drained::Shard("s1".to_owned())), (7, 5, 1, none.clone()));
    assert_eq!(counts(Drained::Release("release-1".to_owned())), (8, 6, 1, none.clone()));
    assert_eq!(counts(Drained::Release("release-2".to_owned())), (5, 5, 5, vec!["s3 at n2".to_owned()]));
    assert_eq!(counts(Drained::Nodes), (0, 11, 6, none));
}

#[test]
fn only_who_was_asked_says_that_nothing_is_left() {
    let drained = Drained::Shard("s1".to_owned());
    let empty = |state, counts| node("n1", vec![row("s1", "release-1", state, counts)]);
    let over = |answers: Vec<SessionsResponse>, unasked| {
        left(&Round { answers, unasked }, &drained, &BTreeSet::new()).is_over()
    };
    assert!(over(vec![empty("drain", [0, 0, 0])], Vec::new()));
    assert!(over(vec![empty("maint", [0, 0, 0])], Vec::new()));
    assert!(!over(vec![empty("drain", [0, 0, 0])], unasked()), "one was not asked");
    assert!(!over(vec![empty("ready", [0, 0, 0])], Vec::new()), "new ones may come");
    assert!(!over(vec![empty("drain", [1, 0, 0])], Vec::new()));
    assert!(!over(vec![empty("drain", [0, 1, 0])], Vec::new()));
    assert!(!over(vec![empty("drain", [0, 0, 1])], Vec::new()));
    assert!(!over(Vec::new(), Vec::new()), "nobody was asked");
}

#[test]
fn a_node_is_empty_when_it_stays_so() {
    let empty = Left { nodes: 1, ..Left::default() };
    let some = Left { bosh: 1, ..empty.clone() };
    let ends = |drained: &Drained, rounds: &[(u64, &Left)]| {
        let mut quiet = Quiet::default();
        let ends = |(ms, now): &(u64, &Left)| quiet.ends(drained, Duration::from_millis(*ms), now);
        rounds.iter().map(ends).collect::<Vec<_>>()
    };
    let rounds = [(5, &empty), (1_010, &empty), (2_015, &empty)];
    assert_eq!(ends(&Drained::Nodes, &rounds), [false, false, true]);
    let again = [(5, &empty), (1_010, &some), (2_015, &empty), (3_020, &empty), (4_025, &empty)];
    assert_eq!(ends(&Drained::Nodes, &again), [false, false, false, false, true]);
    assert_eq!(ends(&Drained::Nodes, &[(5, &empty), (4_000, &empty)]), [false, false], "two rounds");
    let fast = [(5, &empty), (6, &empty), (7, &empty)];
    assert_eq!(ends(&Drained::Nodes, &fast), [false, false, false]);
    assert_eq!(ends(&Drained::Shard("s1".to_owned()), &fast[..1]), [true]);
}

#[test]
fn what_is_shown() {
    let drained = Drained::Shard("s1".to_owned());
    let now = left(&round(), &drained, &BTreeSet::new());
    let first = Left { conferences: 12, ..now.clone() };
    let estimate = Estimate { per_minute: Some(2.5), ends_in: Some(Duration::from_secs(168)) };
    let names = Some((0..22).map(|n| format!("room{n}")).collect());
    let moment = Moment {
        drained: &drained,
        elapsed: Duration::from_secs(120),
        first: &first,
        now: &now,
        estimate,
        names,
        outcome: Outcome::Waiting,
    };
    let text = moment.text();
    assert!(
        text.starts_with(
            "shard s1: 7 of 12 conferences, 5 tunnels and 1 BOSH sessions left after 2m00s; pace 2.5 fewer a minute, end in about 2m48s \
             (2 nodes asked)\n  room0\n"
        ),
        "{text}"
    );
    assert!(text.ends_with("  room19\n  and 2 more\n"), "{text}");
    let json: serde_json::Value = serde_json::from_str(&moment.json()).unwrap();
    assert_eq!(
        (&json["conferences"], &json["ends_in_s"], &json["outcome"]),
        (&7.into(), &168.into(), &"waiting".into())
    );
    // Whoever is not asked has perhaps most of them.
    let doubtful = Left { unasked: unasked(), open: vec!["s1 at n2".to_owned()], ..now.clone() };
    let text = Moment { now: &doubtful, names: None, ..moment }.text();
    assert!(
        text.contains("end unknown (2 nodes asked)\n  n3 cannot be asked: connection refused\n"),
        "{text}"
    );
    assert!(text.ends_with("  still takes new conferences: s1 at n2\n"), "{text}");
}

#[test]
fn lengths() {
    let seconds = |text| length(text).map(|length| length.as_secs()).ok();
    assert_eq!([seconds("90s"), seconds("45m"), seconds("6h")], [Some(90), Some(2_700), Some(21_600)]);
    assert_eq!(
        ["", "s", "5", "-1s", "1d", "5ü", "99999999999999999999s", "9999999999999999999h"].map(seconds),
        [None; 8]
    );
}
