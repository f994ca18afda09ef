//! `shardgatectl release`.

use std::process::ExitCode;

use clap::Subcommand;
use serde::Serialize;
use shardgate_discovery::ReleaseName;
use shardgate_discovery::consul::{KeyChange, PolicyEntry, PolicyKind, Survey};

use super::changing::{Forcing, Writing, change, check_release};
use super::pin::readiness;
use super::spread::told;
use super::{CommandError, WRONG, show, tell};
use crate::consul::ConsulOptions;
use crate::render::{Output, json, table};

/// What to do with releases.
#[derive(Debug, Subcommand)]
pub(crate) enum Verb {
    /// The release that new conferences go to.
    #[command(subcommand)]
    Live(LiveVerb),
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

pub(super) async fn run(
    options: &ConsulOptions,
    Verb::Live(verb): Verb,
    output: Output,
) -> Result<ExitCode, CommandError> {
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
