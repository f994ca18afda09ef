use super::super::policy::{Pair, PolicyKind};
use super::super::record::Instance;
use super::super::survey::Answers;
use super::super::world::ServiceNames;
use super::*;
use crate::consul::AgentError;
use crate::name::EnvironmentName;
use serde_json::json;

/// What a datacenter says: its name, its keys, its shards as (name, id, release number); `None`: no answer.
type Said<'a> = (&'a str, Option<&'a [(&'a str, &'a str)]>, Option<&'a [(&'a str, u32, &'a str)]>);

fn pair(key: &str, value: &str) -> Pair {
    use base64::Engine as _;
    let value = base64::engine::general_purpose::STANDARD.encode(value);
    Pair { key: key.to_owned(), value: Some(value) }
}

fn instance(datacenter: &str, name: &str, id: u32, release: &str) -> Instance {
    serde_json::from_value(json!({
        "Address": "10.0.0.1", "Datacenter": datacenter, "ServiceID": name, "ServiceTags": ["prod"],
        "ServiceMeta": {"shard": name, "shard_id": id.to_string(), "release_number": release},
        "ServiceTaggedAddresses": null,
    }))
    .unwrap()
}

fn no_answer() -> AgentError {
    AgentError::Status { path: "/v1".to_owned(), status: 500, said: "No path to datacenter".to_owned() }
}

fn survey_of(said: &[Said<'_>]) -> Survey {
    let answers = said.iter().map(|(datacenter, keys, shards)| {
        let keys = keys.map(|keys| {
            PolicyKind::ALL
                .map(|kind| {
                    let of_kind = keys.iter().filter(|(key, _)| key.starts_with(&kind.prefix("prod")));
                    (kind, of_kind.map(|(key, value)| pair(key, value)).collect())
                })
                .to_vec()
        });
        let shards = shards.map(|shards| {
            let shards = shards.iter().map(|(name, id, release)| instance(datacenter, name, *id, release));
            shards.collect()
        });
        let answers = Answers {
            keys: Some(keys.ok_or_else(no_answer)),
            shards: shards.ok_or_else(no_answer),
            standalones: None,
        };
        (Datacenter::parse(datacenter).unwrap(), answers)
    });
    Survey::new(&EnvironmentName::parse("prod").unwrap(), &ServiceNames::default(), answers.collect())
}

fn findings(said: &[Said<'_>]) -> Vec<String> {
    survey_of(said).findings().iter().map(|finding| format!("{}: {finding}", finding.as_str())).collect()
}

const LIVE: (&str, &str) = ("releases/prod/live", "release-1");

#[test]
fn what_is_well_is_not_told() {
    let keys = [
        LIVE,
        ("releases/prod/tenant/acme", "release-2\n"),
        ("shard-states/prod/s1", "drain"),
        ("releases/prod/", ""),
    ];
    let east: Said<'_> = ("east", Some(&keys), Some(&[("s1", 1, "1"), ("s2", 2, "1")]));
    let west: Said<'_> = ("west", Some(&keys), Some(&[("s3", 3, "2")]));
    let survey = survey_of(&[east, west]);
    assert_eq!(survey.findings(), []);
    assert_eq!((survey.asked(), survey.keys(), survey.shards().len()), (2, 3, 3));
}

#[test]
fn the_live_release() {
    let shards: &[(&str, u32, &str)] = &[("s1", 1, "1")];
    let found = findings(&[("east", Some(&[LIVE]), Some(shards)), ("west", Some(&[]), Some(&[]))]);
    assert_eq!(
        found,
        ["live_missing: no live release in west: new conferences get 503 there, but those of pinned tenants"]
    );
    let next: &[(&str, &str)] = &[("releases/prod/live", "release-9")];
    let found = findings(&[("east", Some(&[LIVE]), Some(shards)), ("west", Some(next), Some(&[]))]);
    assert_eq!(
        found,
        [
            "live_without_shards: live release release-9 in west has no shards",
            "disagreement: datacenters disagree about releases/prod/live: release-1 in east, release-9 in west"
        ]
    );
    let drained: &[(&str, &str)] = &[LIVE, ("shard-states/prod/s1", "drain")];
    let found = findings(&[("east", Some(drained), Some(shards)), ("west", Some(&[LIVE]), Some(&[]))]);
    assert_eq!(
        found,
        [
            "live_not_ready: live release release-1 in east: none of its 1 shards is ready",
            "disagreement: datacenters disagree about shard-states/prod/s1: drain in east, missing in west"
        ]
    );
}

#[test]
fn pins() {
    let keys: &[(&str, &str)] = &[
        LIVE,
        ("releases/prod/tenant/acme", "release-9"),
        ("releases/prod/tenant/globex", "release-2"),
        ("shard-states/prod/s2", "maint"),
    ];
    let found = findings(&[("east", Some(keys), Some(&[("s1", 1, "1"), ("s2", 2, "2")]))]);
    assert_eq!(
        found,
        [
            "pin_without_shards: pin of acme in east: release-9 has no shards",
            "pin_not_ready: pin of globex in east: none of the 1 shards of release-2 is ready"
        ]
    );
}

#[test]
fn what_does_not_answer_is_told_and_kept_in_mind() {
    let keys: &[(&str, &str)] =
        &[LIVE, ("releases/prod/tenant/acme", "release-9"), ("shard-states/prod/s9", "drain")];
    let found = findings(&[("east", Some(keys), Some(&[("s1", 1, "1")])), ("west", None, None)]);
    assert_eq!(
        found,
        [
            "unanswered: shards of west are not known: Consul answers /v1 with 500 No path to datacenter",
            "unanswered: keys of west are not known: Consul answers /v1 with 500 No path to datacenter",
            "pin_without_shards: pin of acme in east: release-9 has no shards (shards of west are not known)",
            "state_without_shard: shard-states/prod/s9 in east: no shard s9 is registered (shards of west are not known)"
        ]
    );
}

#[test]
fn what_nobody_reads() {
    let keys: &[(&str, &str)] = &[
        LIVE,
        ("releases/prod/next", "release-1"),
        ("bans/prod/room/evil", "maybe"),
        ("bans/other/room/x", "ban"),
    ];
    let shards: &[(&str, u32, &str)] = &[("s1", 1, "1"), ("s2", 1, "1")];
    let found = findings(&[("east", Some(keys), Some(shards)), ("west", Some(keys), Some(&[]))]);
    assert_eq!(
        found,
        [
            "unread_key: key bans/prod/room/evil: value is \"maybe\", expected ban, or allow to except something, in east, west",
            "unread_key: key releases/prod/next: the key is not read by anybody, expected releases/{env}/live or releases/{env}/tenant/{tenant}, in east, west",
            "unread_service: service s2 in east: shard_id 1 is taken by service s1 in east"
        ]
    );
}

#[test]
fn bans_that_differ() {
    let east: &[(&str, &str)] = &[LIVE, ("banlists/prod/exact/evil", "ban")];
    let west: &[(&str, &str)] = &[LIVE, ("banlists/prod/exact/evil", "allow")];
    let shards: &[(&str, u32, &str)] = &[("s1", 1, "1")];
    let found = findings(&[("east", Some(east), Some(shards)), ("west", Some(west), Some(&[]))]);
    assert_eq!(
        found,
        ["disagreement: datacenters disagree about banlists/prod/exact/evil: ban in east, allow in west"]
    );
}
