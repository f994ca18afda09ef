//! `shardgatectl shard` without `--node`: states in Consul, for all nodes.

use std::collections::BTreeMap;
use std::process::ExitCode;

use serde::Serialize;
use shardgate_discovery::consul::{Effect, KeyChange, PolicyEntry, PolicyKind, Survey};
use shardgate_discovery::{Shard, ShardName, ShardState};

use super::changing::{Doubtful, change, meant, shards_unknown, tell_if_none_ready};
use super::spread::told;
use super::{CommandError, show};
use crate::consul::{Consul, ConsulOptions};
use crate::render::{Output, json, table};

/// Writes a shard's state.
pub(super) async fn set(
    consul: &Consul,
    shard: &str,
    state: ShardState,
    effect: Effect,
    doubtful: Doubtful,
    output: Output,
) -> Result<ExitCode, CommandError> {
    let name = ShardName::parse(shard).map_err(|_| CommandError::Usage {
        what: format!("shard {shard:?} is not valid, expected 1 to 128 of A-Z a-z 0-9 . _ -"),
        hint: "shardgatectl shard list".to_owned(),
    })?;
    let survey = consul.survey(&[PolicyKind::ShardStates]).await?;
    match survey.catalog().shard(shard) {
        None if doubtful == Doubtful::Refused => {
            let known: Vec<&str> = survey.shards().iter().map(|shard| shard.name.as_str()).collect();
            return Err(CommandError::Refused {
                what: format!("no shard {name} is registered{}", shards_unknown(&survey)),
                hint: format!("{}; --force writes it all the same", meant(shard, &known, "shard")),
            });
        }
        Some(shard) if state != ShardState::Ready => {
            tell_if_none_ready(&survey, &shard.release, Some(shard.name.as_str()));
        }
        None | Some(_) => {}
    }
    let entry = PolicyEntry::State(name, state);
    change(consul, KeyChange::set(entry), effect, output).await
}

#[derive(Serialize)]
struct Listed<'a> {
    shard: &'a str,
    id: u32,
    release: &'a str,
    region: &'a str,
    address: String,
    /// What nodes of each datacenter are told.
    states: BTreeMap<&'a str, &'a str>,
}

/// All shards, and what keys say of them.
pub(super) async fn list(options: &ConsulOptions, output: Output) -> Result<ExitCode, CommandError> {
    let survey = options.open()?.survey(&[PolicyKind::ShardStates]).await?;
    let mut rows = Vec::new();
    for shard in survey.shards() {
        let states = states(&survey, shard);
        let Shard { name, id, release, region, address, .. } = &**shard;
        match output {
            Output::Json => show(&json(&Listed {
                shard: name.as_str(),
                id: *id,
                release: release.as_str(),
                region: region.as_str(),
                address: address.to_string(),
                states,
            })),
            Output::Table => rows.push(vec![
                name.to_string(),
                id.to_string(),
                release.to_string(),
                region.to_string(),
                address.to_string(),
                in_words(&states),
            ]),
        }
    }
    if output == Output::Table {
        show(&table(&["SHARD", "ID", "RELEASE", "REGION", "ADDRESS", "STATE"], &rows));
    }
    Ok(told(&survey, &["keys", "shards"]))
}

fn states<'a>(survey: &'a Survey, shard: &Shard) -> BTreeMap<&'a str, &'a str> {
    let said = survey.routed_by().iter().filter_map(|(datacenter, snapshot)| {
        Some((datacenter.as_str(), snapshot.shard(shard.name.as_str())?.state.as_str()))
    });
    said.collect()
}

fn in_words(states: &BTreeMap<&str, &str>) -> String {
    let mut words = states.values();
    let first = words.next().copied().unwrap_or("?");
    if words.all(|word| *word == first) {
        return first.to_owned();
    }
    let each: Vec<String> =
        states.iter().map(|(datacenter, state)| format!("{state} in {datacenter}")).collect();
    each.join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn datacenters_that_disagree_are_shown() {
        assert_eq!(in_words(&BTreeMap::from([("a", "ready"), ("b", "ready")])), "ready");
        assert_eq!(in_words(&BTreeMap::from([("a", "ready"), ("b", "drain")])), "ready in a, drain in b");
        assert_eq!(in_words(&BTreeMap::new()), "?");
    }
}
