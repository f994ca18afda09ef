use super::super::finding::InTable;
use super::super::rows::OnShard;
use super::*;

fn report(findings: Vec<Finding>) -> Report {
    let mut counts: BTreeMap<Kind, u64> = Kind::ALL.into_iter().map(|kind| (kind, 0)).collect();
    for finding in &findings {
        *counts.entry(finding.kind).or_default() += 1;
    }
    Report {
        environment: "prod".to_owned(),
        at_ms: 1_700_000_000_000,
        took_ms: 2_345,
        tables: ["a", "b", "c"].map(ToOwned::to_owned).to_vec(),
        unasked: Vec::new(),
        conferences: 12,
        counts,
        findings,
        beyond: 0,
        fix: None,
        compared: None,
    }
}

fn split() -> Finding {
    let in_table = |table: &str, shard: &str| InTable {
        table: table.to_owned(),
        shard: Some(shard.to_owned()),
        generation: Some(1),
    };
    Finding {
        tables: vec![in_table("a", "s1"), in_table("b", "s1"), in_table("c", "s2")],
        sessions: vec![OnShard { shard: "s1".to_owned(), sessions: 3 }],
        ..Finding::of_node(
            Kind::TableSplitBrain,
            "acme/room".to_owned(),
            "tables have it on s1 and s2".to_owned(),
        )
    }
}

#[test]
fn a_clean_mesh_is_one_line() {
    let clean = report(Vec::new());
    assert!(!clean.is_wrong());
    assert_eq!(
        clean.text(),
        "2023-11-14T22:13:20Z prod: clean (3 tables, 12 conferences, looked at in 2s)\n"
    );
}

#[test]
fn who_was_not_asked_is_never_clean() {
    let unasked = vec![Unasked { name: "d".to_owned(), why: "down".to_owned() }];
    let mut partly = Report { unasked, ..report(Vec::new()) };
    assert!(partly.text().contains("COULD NOT LOOK everywhere"), "{}", partly.text());
    assert!(partly.json().contains(r#""unasked":[{"name":"d","why":"down"}]"#));
    assert!(partly.metrics(0).contains("shardgate_monitor_unreachable{environment=\"prod\"} 1\n"));
}

#[test]
fn findings_are_counted_and_shown() {
    let mut found = report(vec![split()]);
    assert!(found.is_wrong());
    let text = found.text();
    let row =
        "table-split-brain  acme/room           tables have it on s1 and s2  s1: a, b; s2: c          s1: 3";
    assert!(text.contains("1 FINDINGS") && text.contains(row), "{text}");
    let json: serde_json::Value = serde_json::from_str(&found.json()).unwrap();
    assert_eq!(json["counts"]["table-split-brain"], 1);
    assert_eq!(json["counts"]["stale-discovery"], 0);
    assert_eq!(json["findings"][0]["tables"][2]["shard"], "s2");
    let metrics = found.metrics(7);
    for line in [
        "shardgate_monitor_findings{environment=\"prod\",kind=\"table-split-brain\"} 1",
        "shardgate_monitor_findings{environment=\"prod\",kind=\"missing-entry\"} 0",
        "shardgate_monitor_last_run_timestamp_seconds{environment=\"prod\"} 1700000000.000",
        "shardgate_monitor_changes_total{environment=\"prod\"} 7",
    ] {
        assert!(metrics.lines().any(|found| found == line), "{line}: {metrics}");
    }
}

#[test]
fn many_findings_are_cut() {
    let mut found = report(vec![split(); 30]);
    let text = found.text();
    assert!(text.contains("... and 5 more"), "{text}");
    found.findings = vec![split(); 10_003];
    let json: serde_json::Value = serde_json::from_str(&found.json()).unwrap();
    assert_eq!((json["findings"].as_array().unwrap().len(), json["beyond"].as_u64()), (10_000, Some(3)));
}
