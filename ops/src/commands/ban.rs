//! `shardgatectl ban`.

use std::collections::{BTreeMap, BTreeSet};
use std::process::ExitCode;

use clap::builder::{PossibleValuesParser, TypedValueParser};
use clap::{Args, Subcommand};
use serde::Serialize;
use shardgate_discovery::consul::{KeyChange, PolicyEntry, PolicyKey, PolicyKind, Survey};
use shardgate_discovery::{BanList, BanPattern, Verdict};

use super::changing::{Doubtful, Forcing, Writing, change, unfit};
use super::spread::{spread, told};
use super::{CommandError, show};
use crate::consul::{Consul, ConsulError, ConsulOptions};
use crate::render::{Output, json, table};

/// Bans a room in every tenant, on HAProxies of before as well: they do not read `room`.
pub(super) const USUAL: BanList = BanList::Exact;

/// What to do with bans.
#[derive(Debug, Subcommand)]
pub(crate) enum Verb {
    /// Refuse what a pattern names.
    Add {
        #[command(flatten)]
        on: On,
        /// Except it from less exact bans instead.
        #[arg(long)]
        allow: bool,
        #[command(flatten)]
        writing: Writing,
        #[command(flatten)]
        forcing: Forcing,
    },
    /// Take a pattern out of its list.
    Remove {
        #[command(flatten)]
        on: On,
        #[command(flatten)]
        writing: Writing,
    },
    /// All patterns of all lists.
    List,
}

/// A pattern and its list.
#[derive(Debug, Args)]
pub(crate) struct On {
    /// exact: a room, whatever its tenant, or TENANT/. prefix: beginnings of rooms and of TENANT/. substr: parts of TENANT___ROOM. domain: referers.
    /// unban_prefix: beginnings of TENANT/ that nothing else bans. tenant: a tenant. room: as exact, but HAProxy does not read it.
    #[arg(long, default_value = USUAL.as_str(), value_parser = lists())]
    list: BanList,
    /// The room, or what its list holds; in lower case.
    #[arg(value_parser = BanPattern::parse)]
    pattern: BanPattern,
}

fn lists() -> impl TypedValueParser<Value = BanList> {
    PossibleValuesParser::new(BanList::ALL.map(BanList::as_str)).try_map(|word| {
        BanList::ALL.into_iter().find(|list| list.as_str() == word).ok_or("expected a list of bans")
    })
}

pub(super) async fn run(
    options: &ConsulOptions,
    verb: Verb,
    output: Output,
) -> Result<ExitCode, CommandError> {
    let consul = options.open()?;
    match verb {
        Verb::Add { on: On { list, pattern }, allow, writing, forcing } => {
            let verdict = if allow { Verdict::Allow } else { Verdict::Ban };
            let entry = KeyChange::set(PolicyEntry::Ban(list, pattern.clone(), verdict));
            let entry = entry.map_err(|error| unfit(&error))?;
            if forcing.doubtful() == Doubtful::Refused {
                if let Some((what, hint)) = ineffective(list, pattern.as_str()) {
                    return Err(CommandError::Refused { what, hint });
                }
                check_environment(&consul).await?;
            }
            change(&consul, Ok(entry), writing.effect(), output).await
        }
        Verb::Remove { on: On { list, pattern }, writing } => {
            let key = PolicyKey::Ban(list, pattern);
            change(&consul, KeyChange::delete(key), writing.effect(), output).await
        }
        Verb::List => Ok(bans(&consul.survey(&BANS).await?, output)),
    }
}

/// The families that bans are in.
const BANS: [PolicyKind; 2] = [PolicyKind::BanLists, PolicyKind::Bans];

/// Refuses an environment that nobody has heard of: its name is more likely mistyped than new.
async fn check_environment(consul: &Consul) -> Result<(), CommandError> {
    // The others are asked only where these say nothing: a token for bans need not read them.
    let (mut unknown, mut answered) = (BTreeSet::new(), false);
    for families in [&BANS[..], &[PolicyKind::Releases], &[PolicyKind::ShardStates]] {
        let survey = consul.everywhere(families).await?;
        if survey.keys() > 0 || !survey.shards().is_empty() {
            return Ok(());
        }
        // Each datacenter is asked for keys and for shards.
        let unanswered =
            survey.unanswered().iter().filter(|missing| matches!(missing.what, "keys" | "shards"));
        answered |= unanswered.count() < 2 * survey.asked();
        let unanswered = survey.unanswered().iter();
        unknown.extend(
            unanswered
                .map(|missing| format!("{} of {}: {}", missing.what, missing.datacenter, missing.error)),
        );
    }
    let what = unknown.into_iter().collect::<Vec<_>>().join("; ");
    if !answered {
        return Err(ConsulError::Nothing { what }.into());
    }
    let unknown = if what.is_empty() { what } else { format!(" as far as is known ({what})") };
    let environment = &consul.environment;
    Err(CommandError::Refused {
        what: format!("no shard and no key of the environment {environment} is known{unknown}"),
        hint: "look at --environment or SHARDGATE_ENVIRONMENT; --force writes it all the same".to_owned(),
    })
}

/// Why a pattern would match nothing, and what would.
fn ineffective(list: BanList, pattern: &str) -> Option<(String, String)> {
    let lower = pattern.to_ascii_lowercase();
    if lower != pattern {
        let what = format!(
            "pattern {pattern:?} has upper-case letters, which HAProxy compares with none in lower case"
        );
        return Some((what, format!("{lower} is the same for shardgate; --force writes it as it is")));
    }
    match (list, pattern.split_once('/')) {
        // The tenant with its slash, which is how the list names it.
        (BanList::Exact, Some((_, ""))) => None,
        (BanList::Room | BanList::Tenant, Some((tenant, ""))) => Some((
            format!(
                "pattern {pattern:?} of the list {list} would match nothing: it has no names with a slash"
            ),
            format!(
                "--list exact {pattern} or --list tenant {tenant} bans the tenant; --force writes it as it is"
            ),
        )),
        (BanList::Exact | BanList::Room | BanList::Tenant, Some((tenant, room))) => Some((
            format!(
                "pattern {pattern:?} of the list {list} would match nothing: neither rooms nor tenants have a slash"
            ),
            format!(
                "{room} alone bans the room in every tenant; --list substr {tenant}___{room} bans what holds that of the tenant; --force writes it as it is"
            ),
        )),
        (BanList::Substr, Some((tenant, room))) if !tenant.contains("___") => Some((
            format!(
                "pattern {pattern:?} of the list substr would match nothing: the first slash is written ___ there"
            ),
            format!("{tenant}___{room} is what stands for it; --force writes it as it is"),
        )),
        _ => None,
    }
}

#[derive(Serialize)]
struct Ban<'a> {
    list: &'a str,
    pattern: &'a str,
    /// By datacenter; one that has no such pattern is not there.
    verdicts: BTreeMap<&'a str, &'a str>,
}

fn bans(survey: &Survey, output: Output) -> ExitCode {
    let mut rows = Vec::new();
    for (key, said) in survey.entries() {
        let PolicyKey::Ban(list, pattern) = key else { continue };
        match output {
            Output::Json => {
                let verdicts =
                    said.iter().map(|(datacenter, verdict)| (datacenter.as_str(), verdict.as_str()));
                show(&json(&Ban {
                    list: list.as_str(),
                    pattern: pattern.as_str(),
                    verdicts: verdicts.collect(),
                }));
            }
            Output::Table => rows.extend(spread(survey, said).into_iter().map(|(verdict, datacenters)| {
                vec![list.to_string(), pattern.to_string(), verdict, datacenters]
            })),
        }
    }
    if output == Output::Table {
        show(&table(&["LIST", "PATTERN", "VERDICT", "DATACENTERS"], &rows));
    }
    told(survey, &["keys"])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_would_match_nothing() {
        for (list, pattern, hint) in [
            (BanList::Exact, "standup", None),
            (BanList::Exact, "Standup", Some("standup is the same")),
            (BanList::Exact, "acme/standup", Some("--list substr acme___standup")),
            (BanList::Exact, "acme/", None),
            (BanList::Prefix, "acme/", None),
            (BanList::Tenant, "acme/", Some("--list exact acme/ or --list tenant acme")),
            (BanList::Room, "acme/", Some("--list tenant acme")),
            (BanList::Tenant, "acme", None),
            (BanList::Substr, "acme/standup", Some("acme___standup")),
            (BanList::Substr, "acme___stand/up", None),
            (BanList::Prefix, "acme/x", None),
            (BanList::Domain, "https://evil.example/x", None),
        ] {
            let found = ineffective(list, pattern).map(|(_, hint)| hint);
            assert_eq!(found.is_some(), hint.is_some(), "{list} {pattern}");
            assert!(found.unwrap_or_default().contains(hint.unwrap_or("")), "{list} {pattern}");
        }
    }
}
