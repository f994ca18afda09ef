//! `shardgatectl pin check`: what is wrong in Consul, and what to do about it.

use std::process::ExitCode;

use serde::Serialize;
use shardgate_discovery::BanList;
use shardgate_discovery::consul::{Finding, PolicyKey, RecordFault, Survey};

use super::{WRONG, show};
use crate::render::{Output, json, operand, printable, shell_word};

#[derive(Serialize)]
struct Found<'a> {
    finding: &'a str,
    text: String,
    remedy: String,
}

pub(super) fn run(survey: &Survey, output: Output) -> ExitCode {
    let findings = survey.findings();
    for finding in &findings {
        let (text, remedy) = (finding.to_string(), remedy(finding));
        match output {
            Output::Json => show(&json(&Found { finding: finding.as_str(), text, remedy })),
            Output::Table => show(&format!("{}\n    {remedy}\n", printable(&text))),
        }
    }
    if output == Output::Table {
        show(&summary(survey, findings.len()));
    }
    if findings.is_empty() { ExitCode::SUCCESS } else { ExitCode::from(WRONG) }
}

fn summary(survey: &Survey, found: usize) -> String {
    let answered = survey.routed_by().len();
    let of = if answered == survey.asked() { String::new() } else { format!(" of {}", survey.asked()) };
    let found = if found == 0 { "nothing found".to_owned() } else { format!("{found} found") };
    let (keys, shards) = (survey.keys(), survey.shards().len());
    format!("checked {keys} keys, {shards} shards in {answered}{of} datacenters: {found}\n")
}

/// What to do about it.
fn remedy(finding: &Finding) -> String {
    let ctl = "shardgatectl";
    match finding {
        Finding::Unanswered(_) => {
            "nodes there go on with what they last knew; check again when it answers".to_owned()
        }
        Finding::LiveMissing { .. } => format!("{ctl} release live set RELEASE"),
        Finding::LiveWithoutShards { .. } => {
            format!("start shards of it, or {ctl} release live set RELEASE")
        }
        Finding::LiveNotReady { .. } => {
            format!("{ctl} shard ready SHARD, or {ctl} release live set RELEASE")
        }
        Finding::PinWithoutShards { tenant, .. } => {
            let tenant = operand(tenant.as_str());
            format!("{ctl} pin unset {tenant}, or {ctl} pin set {tenant} RELEASE")
        }
        Finding::PinNotReady { tenant, .. } => {
            let tenant = operand(tenant.as_str());
            format!("{ctl} shard ready SHARD, or {ctl} pin unset {tenant}")
        }
        Finding::Disagreement { key, .. } => match key {
            PolicyKey::Live => format!("{ctl} release live set RELEASE"),
            PolicyKey::Pin(tenant) => {
                let tenant = operand(tenant.as_str());
                format!("{ctl} pin set {tenant} RELEASE, or {ctl} pin unset {tenant}")
            }
            PolicyKey::State(shard) => {
                format!("{ctl} shard ready {}, or drain, or maint", operand(shard.as_str()))
            }
            PolicyKey::Ban(list, pattern) => {
                let on = format!("{}{}", list_option(*list), shell_word(pattern.as_str()));
                format!("{ctl} ban add {on}, or {ctl} ban remove {on}")
            }
        },
        Finding::StateWithoutShard { path, .. } => format!("consul kv delete -datacenter=NAME {path}"),
        Finding::Unread { record, .. } => match (&record.fault, record.place.strip_prefix("key ")) {
            (RecordFault::TooMany { .. }, _) | (_, None) => "take out what is not needed".to_owned(),
            (_, Some(path)) => {
                format!(
                    "consul kv delete -datacenter=NAME {}, or write it anew",
                    shell_word(&printable(path))
                )
            }
        },
        Finding::UnreadService { .. } => {
            "register it anew as expected, or deregister it; it gets no traffic".to_owned()
        }
    }
}

/// The option that names a list, where it is needed; what follows may begin with a dash.
fn list_option(list: BanList) -> String {
    if list == super::ban::USUAL { "-- ".to_owned() } else { format!("--list {list} -- ") }
}

#[cfg(test)]
mod tests {
    use super::*;
    use shardgate_discovery::consul::ShardsUnknown;
    use shardgate_discovery::{BanPattern, ReleaseName, ShardName, TenantName};
    use std::collections::BTreeMap;

    #[test]
    fn names_that_look_like_options_are_none() {
        let remedy_of =
            |key| remedy(&Finding::Disagreement { key, path: String::new(), said: BTreeMap::new() });
        let shard = PolicyKey::State(ShardName::parse("-s1").unwrap());
        assert_eq!(remedy_of(shard), "shardgatectl shard ready -- -s1, or drain, or maint");
        let tenant = TenantName::parse("--force").unwrap();
        let pasted = "shardgatectl pin set -- --force RELEASE, or shardgatectl pin unset -- --force";
        assert_eq!(remedy_of(PolicyKey::Pin(tenant.clone())), pasted);
        let release = ReleaseName::parse("release-1").unwrap();
        let unknown = ShardsUnknown::default();
        let found = Finding::PinWithoutShards { tenant, release, datacenters: Vec::new(), unknown };
        assert!(remedy(&found).starts_with("shardgatectl pin unset -- --force, or "), "{}", remedy(&found));
    }

    #[test]
    fn a_remedy_can_be_pasted() {
        let remedy_of = |list, pattern: &str| {
            let key = PolicyKey::Ban(list, BanPattern::parse(pattern).unwrap());
            remedy(&Finding::Disagreement { key, path: String::new(), said: BTreeMap::new() })
        };
        assert_eq!(
            remedy_of(BanList::Exact, "-x"),
            "shardgatectl ban add -- -x, or shardgatectl ban remove -- -x"
        );
        assert_eq!(
            remedy_of(BanList::Tenant, "a;b"),
            "shardgatectl ban add --list tenant -- 'a;b', or shardgatectl ban remove --list tenant -- 'a;b'"
        );
    }
}
