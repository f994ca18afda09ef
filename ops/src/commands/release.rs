//! `shardgatectl release`.

use std::process::ExitCode;

use clap::Subcommand;
use serde::Serialize;
use shardgate_discovery::consul::{Effect, KeyChange, PolicyEntry, PolicyKind, Survey};
use shardgate_discovery::{ReleaseName, ShardState};
use shardgate_proto::admin::SessionsRequest;
use shardgate_proto::admin::order_shard_request::Order;

use super::changing::{Doubtful, Forcing, Writing, change, check_release};
use super::pin::readiness;
use super::shard::command;
use super::spread::told;
use super::waiting::{Drained, Wait, Waiting, until_empty};
use super::{CommandError, WRONG, show, tell};
use crate::consul::ConsulOptions;
use crate::node::Nodes;
use crate::render::{Output, json, table};

/// What to do with releases.
#[derive(Debug, Subcommand)]
pub(crate) enum Verb {
    /// The release that new conferences go to.
    #[command(subcommand)]
    Live(LiveVerb),
    /// No new conferences on any shard of a release; those that they have stay. With --wait until the last one of the whole mesh has ended.
    /// With --node an order to these nodes, as `shard drain` is.
    Drain {
        /// The release, such as release-3630; one that no shard runs is refused.
        #[arg(value_parser = ReleaseName::parse)]
        release: ReleaseName,
        #[command(flatten)]
        writing: Writing,
        #[command(flatten)]
        wait: Wait,
    },
}

/// What to do with the live release.
#[derive(Debug, Subcommand)]
pub(crate) enum LiveVerb {
    /// Which it is in each datacenter (exit code 1 when they disagree, or one has none).
    Get,
    /// New conferences go to this release; those that are open stay.
    Set {
        /// The release, such as release-3630; one that no shard runs is refused.
        #[arg(value_parser = ReleaseName::parse)]
        release: ReleaseName,
        #[command(flatten)]
        writing: Writing,
        #[command(flatten)]
        forcing: Forcing,
    },
}

impl Verb {
    /// Whether nodes can be told, and not Consul alone.
    pub(super) const fn is_for_nodes(&self) -> bool {
        matches!(self, Self::Drain { .. })
    }
}

pub(super) async fn run(
    nodes: &Nodes,
    options: &ConsulOptions,
    verb: Verb,
    output: Output,
) -> Result<ExitCode, CommandError> {
    let verb = match verb {
        Verb::Live(verb) => verb,
        Verb::Drain { release, writing, wait } => {
            return drain(nodes, options, &release, writing.effect(), wait.wanted(), output).await;
        }
    };
    let consul = options.open()?;
    match verb {
        LiveVerb::Get => {
            let families = [PolicyKind::Releases, PolicyKind::ShardStates];
            Ok(get(&consul.survey(&families).await?, output))
        }
        LiveVerb::Set { release, writing, forcing } => {
            check_release(&consul.shards().await?, &release, forcing.doubtful())?;
            let entry = PolicyEntry::Live(release);
            change(&consul, KeyChange::set(entry), writing.effect(), output).await
        }
    }
}

/// Drains each shard of a release. What one could not be told keeps no other from it; only when all were told is the end waited for. Where
/// shards cannot be listed, some of the release may not have been.
async fn drain(
    nodes: &Nodes,
    options: &ConsulOptions,
    release: &ReleaseName,
    effect: Effect,
    waiting: Option<Waiting>,
    output: Output,
) -> Result<ExitCode, CommandError> {
    let drained = Drained::Release(release.to_string());
    if let Some(named) = nodes.named() {
        if effect == Effect::DryRun || options.names_datacenters() {
            return Err(CommandError::Usage {
                what: "--dry-run and --datacenter are about Consul, --node is not".to_owned(),
                hint: "leave out the one or the other".to_owned(),
            });
        }
        drain_at(nodes, &named, release, output).await?;
        return match waiting {
            Some(waiting) => until_empty(nodes, None, &drained, waiting, output).await,
            None => Ok(ExitCode::SUCCESS),
        };
    }
    let consul = options.open()?;
    let survey = consul.survey(&[PolicyKind::ShardStates]).await?;
    // A release without shards cannot be drained, whoever insists.
    check_release(&survey, release, Doubtful::Refused)?;
    let mut done = told(&survey, &["shards"]);
    for shard in survey.catalog().shards_of(release.as_str()) {
        let entry = PolicyEntry::State(shard.name.clone(), ShardState::Drain);
        let written = change(&consul, KeyChange::set(entry), effect, output).await?;
        if written != ExitCode::SUCCESS {
            done = written;
        }
    }
    match waiting.filter(|_| done == ExitCode::SUCCESS) {
        Some(waiting) => until_empty(nodes, Some(&consul), &drained, waiting, output).await,
        None => Ok(done),
    }
}

/// The same as orders to nodes: each for the shards of the release that it knows.
async fn drain_at(
    nodes: &Nodes,
    named: &[&str],
    release: &ReleaseName,
    output: Output,
) -> Result<(), CommandError> {
    let mut found = 0_usize;
    for address in named {
        let mut node = nodes.connect(address).await?;
        let answer = node.client.sessions(SessionsRequest {}).await.map_err(node.refused())?.into_inner();
        for row in answer.shards.iter().filter(|row| row.release == release.as_str()) {
            found += 1;
            let order = Order::State(ShardState::Drain.as_str().to_owned());
            command(nodes, &[*address], &row.shard, &order, output).await?;
        }
    }
    if found == 0 {
        return Err(CommandError::Refused {
            what: format!("none of these nodes knows a shard of {release}"),
            hint: "shardgatectl shard list --node ADDRESS".to_owned(),
        });
    }
    Ok(())
}

#[derive(Serialize)]
struct Live<'a> {
    datacenter: &'a str,
    release: Option<&'a str>,
    /// Why it is not known.
    error: Option<String>,
}

fn get(survey: &Survey, output: Output) -> ExitCode {
    let known = survey.routed_by().iter().map(|(datacenter, snapshot)| {
        let release = snapshot.live_release().map(ReleaseName::as_str);
        Live { datacenter: datacenter.as_str(), release, error: None }
    });
    let live: Vec<Live<'_>> = known.collect();
    match output {
        Output::Json => {
            let unknown =
                survey.unanswered().iter().filter(|missing| missing.what == "keys").map(|missing| {
                    let error = Some(missing.error.to_string());
                    Live { datacenter: missing.datacenter.as_str(), release: None, error }
                });
            live.iter().for_each(|live| show(&json(live)));
            unknown.for_each(|unknown| show(&json(&unknown)));
        }
        Output::Table => {
            let row = |live: &Live<'_>| {
                let shards = live.release.map_or_else(String::new, |release| readiness(survey, release));
                vec![live.datacenter.to_owned(), live.release.unwrap_or("-").to_owned(), shards]
            };
            let rows: Vec<Vec<String>> = live.iter().map(row).collect();
            show(&table(&["DATACENTER", "RELEASE", "SHARDS"], &rows));
        }
    }
    let code = told(survey, &["keys", "shards"]);
    match verdict(&live.iter().map(|live| live.release).collect::<Vec<_>>()) {
        None => code,
        Some(wrong) => {
            tell(wrong);
            ExitCode::from(WRONG)
        }
    }
}

/// What is wrong with the live releases of the datacenters.
fn verdict(live: &[Option<&str>]) -> Option<&'static str> {
    let mut named = live.iter().flatten();
    let first = named.next();
    if named.any(|release| Some(release) != first) {
        Some("datacenters disagree: shardgatectl release live set RELEASE makes them agree")
    } else if live.contains(&None) {
        Some("the live release is missing: shardgatectl release live set RELEASE writes it")
    } else {
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn agreement() {
        assert_eq!(verdict(&[Some("a"), Some("a")]), None);
        assert!(verdict(&[Some("a"), None]).unwrap().contains("missing"));
        assert!(verdict(&[None, None]).unwrap().contains("missing"));
        assert!(verdict(&[Some("a"), Some("b"), None]).unwrap().contains("disagree"));
    }
}
