//! `shardgatectl pin`.

use std::collections::BTreeMap;
use std::process::ExitCode;

use clap::Subcommand;
use serde::Serialize;
use shardgate_discovery::consul::{KeyChange, PolicyEntry, PolicyKey, PolicyKind, Survey};
use shardgate_discovery::{NameError, ReleaseName, ShardState, TenantName};

use super::changing::{Forcing, Writing, change, check_release};
use super::spread::{spread, told};
use super::{CommandError, pin_check, show};
use crate::consul::ConsulOptions;
use crate::render::{Output, json, table};

/// What to do with pins.
#[derive(Debug, Subcommand)]
pub(crate) enum Verb {
    /// New conferences of a tenant go to this release, while it has a usable shard.
    Set {
        /// The tenant, in lower case, as it stands in URLs.
        #[arg(value_parser = tenant)]
        tenant: TenantName,
        /// The release, such as release-3630; one that no shard runs is refused.
        #[arg(value_parser = ReleaseName::parse)]
        release: ReleaseName,
        #[command(flatten)]
        writing: Writing,
        #[command(flatten)]
        forcing: Forcing,
    },
    /// New conferences of a tenant go to the live release again.
    Unset {
        /// The tenant.
        #[arg(value_parser = tenant)]
        tenant: TenantName,
        #[command(flatten)]
        writing: Writing,
    },
    /// All pins, and how many shards of their releases are ready.
    List,
    /// Look for what is wrong: pins, live release, states and bans; keys that nobody reads; datacenters that disagree or do not answer
    /// (exit code 1 when something is found).
    Check,
}

/// A tenant, or what is wrong with it.
fn tenant(text: &str) -> Result<TenantName, String> {
    TenantName::parse(text).map_err(|error: NameError| {
        let lower = text.to_ascii_lowercase();
        let hint = if lower != text && TenantName::parse(&lower).is_ok() {
            format!(" (did you mean {lower}?)")
        } else {
            String::new()
        };
        format!("{error}{hint}")
    })
}

pub(super) async fn run(
    options: &ConsulOptions,
    verb: Verb,
    output: Output,
) -> Result<ExitCode, CommandError> {
    let consul = options.open()?;
    match verb {
        Verb::Set { tenant, release, writing, forcing } => {
            check_release(&consul.shards().await?, &release, forcing.doubtful())?;
            let entry = PolicyEntry::Pin(tenant, release);
            change(&consul, KeyChange::set(entry), writing.effect(), output).await
        }
        Verb::Unset { tenant, writing } => {
            let key = PolicyKey::Pin(tenant);
            change(&consul, KeyChange::delete(key), writing.effect(), output).await
        }
        Verb::List => {
            let families = [PolicyKind::Releases, PolicyKind::ShardStates];
            Ok(pins(&consul.survey(&families).await?, output))
        }
        Verb::Check => Ok(pin_check::run(&consul.survey(&PolicyKind::ALL).await?, output)),
    }
}

#[derive(Serialize)]
struct Pin<'a> {
    tenant: &'a str,
    /// By datacenter; one that has no such pin is not there.
    releases: BTreeMap<&'a str, &'a str>,
}

fn pins(survey: &Survey, output: Output) -> ExitCode {
    let mut rows = Vec::new();
    for (key, said) in survey.entries() {
        let PolicyKey::Pin(tenant) = key else { continue };
        match output {
            Output::Json => {
                let releases =
                    said.iter().map(|(datacenter, release)| (datacenter.as_str(), release.as_str()));
                show(&json(&Pin { tenant: tenant.as_str(), releases: releases.collect() }));
            }
            Output::Table => {
                for (release, datacenters) in spread(survey, said) {
                    let shards = readiness(survey, &release);
                    rows.push(vec![tenant.to_string(), release, shards, datacenters]);
                }
            }
        }
    }
    if output == Output::Table {
        show(&table(&["TENANT", "RELEASE", "SHARDS", "DATACENTERS"], &rows));
    }
    told(survey, &["keys", "shards"])
}

/// How many shards of a release are ready: the strictest state of all datacenters counts.
pub(super) fn readiness(survey: &Survey, release: &str) -> String {
    let shards = survey.catalog().shards_of(release);
    let mut states: BTreeMap<ShardState, usize> = BTreeMap::new();
    for shard in shards {
        let said = survey.routed_by().values().filter_map(|snapshot| snapshot.shard(shard.name.as_str()));
        let strictest = said.map(|shard| shard.state).max().unwrap_or(shard.state);
        *states.entry(strictest).or_default() += 1;
    }
    let ready = states.remove(&ShardState::Ready).unwrap_or(0);
    let others: Vec<String> = states.iter().map(|(state, count)| format!("{count} {state}")).collect();
    match (shards.len(), others.as_slice()) {
        (0, _) => "none".to_owned(),
        (all, []) => format!("{ready} of {all} ready"),
        (all, others) => format!("{ready} of {all} ready ({})", others.join(", ")),
    }
}
