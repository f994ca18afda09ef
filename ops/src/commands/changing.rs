//! A key changed in every datacenter, and how that is told.

use std::collections::BTreeMap;
use std::process::ExitCode;

use clap::Args;
use serde::Serialize;
use shardgate_discovery::consul::{
    AgentError, Applied, Datacenter, Effect, KeyChange, KeyError, Outcome, Seen, Survey, apply,
};
use shardgate_discovery::{ReleaseName, ShardState};

use super::spread::list;
use super::{COULD_NOT_LOOK, CommandError, WRONG, show, tell};
use crate::consul::Consul;
use crate::render::{Output, json, table};

/// How something is written.
#[derive(Debug, Clone, Copy, Args)]
pub(super) struct Writing {
    /// Show what would be written, and write nothing.
    #[arg(long)]
    dry_run: bool,
}

/// Whether what looks like a mistake is written.
#[derive(Debug, Clone, Copy, Args)]
pub(super) struct Forcing {
    /// Write it even if it looks like a mistake.
    #[arg(long)]
    force: bool,
}

/// What becomes of what looks like a mistake.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Doubtful {
    Refused,
    Written,
}

impl Writing {
    pub(super) const fn effect(self) -> Effect {
        if self.dry_run { Effect::DryRun } else { Effect::Write }
    }
}

impl Forcing {
    pub(super) const fn doubtful(self) -> Doubtful {
        if self.force { Doubtful::Written } else { Doubtful::Refused }
    }
}

/// A key that no key can be.
pub(super) fn unfit(error: &KeyError) -> CommandError {
    CommandError::Usage { what: error.to_string(), hint: "such a name never stands in a request".to_owned() }
}

#[derive(Serialize)]
struct Told<'a> {
    datacenter: &'a str,
    key: &'a str,
    before: Option<&'a str>,
    now: Option<&'a str>,
    result: &'static str,
    error: Option<String>,
}

/// Changes a key and tells what became of it: 0 when every datacenter holds it (or would), 1 when one does not, 2 when none could be read.
pub(super) async fn change(
    consul: &Consul,
    change: Result<KeyChange, KeyError>,
    effect: Effect,
    output: Output,
) -> Result<ExitCode, CommandError> {
    let change = change.map_err(|error| unfit(&error))?;
    let datacenters = consul.datacenters().await?;
    let applied = apply(&consul.agent, &consul.environment, &change, &datacenters, effect).await;
    let path = change.key().path(&consul.environment);
    match output {
        Output::Table => show(&page(&path, change.wanted(), &applied)),
        Output::Json => applied.iter().for_each(|(datacenter, applied)| {
            show(&json(&Told {
                datacenter: datacenter.as_str(),
                key: &path,
                before: value(&applied.before),
                now: value(&applied.now),
                result: result(&applied.outcome),
                error: error(&applied.outcome).map(ToString::to_string),
            }));
        }),
    }
    if change.wanted().is_none() && applied.values().all(|applied| applied.before == Seen::Absent) {
        tell("note: there was no such key, look at the name again");
    }
    let Some(missed) = missed(change.wanted(), &applied, effect) else { return Ok(ExitCode::SUCCESS) };
    tell(&missed);
    let read = applied.values().any(|applied| applied.before != Seen::Unknown);
    Ok(ExitCode::from(if read { WRONG } else { COULD_NOT_LOOK }))
}

fn value(seen: &Seen) -> Option<&str> {
    match seen {
        Seen::Value(value) => Some(value),
        Seen::Unknown | Seen::Absent => None,
    }
}

const fn result(outcome: &Outcome) -> &'static str {
    match outcome {
        Outcome::Written => "written",
        Outcome::AsBefore => "as_before",
        Outcome::WouldBeWritten => "would_be_written",
        Outcome::Overtaken => "overtaken",
        Outcome::Failed(_) => "failed",
    }
}

const fn error(outcome: &Outcome) -> Option<&AgentError> {
    match outcome {
        Outcome::Failed(error) => Some(error),
        Outcome::Written | Outcome::AsBefore | Outcome::WouldBeWritten | Outcome::Overtaken => None,
    }
}

const OVERTAKEN: &str = "changed by somebody else meanwhile";

fn page(path: &str, wanted: Option<&str>, applied: &BTreeMap<Datacenter, Applied>) -> String {
    let cell = |seen: &Seen| match seen {
        Seen::Unknown => "?".to_owned(),
        Seen::Absent => "-".to_owned(),
        Seen::Value(value) => value.clone(),
    };
    let rows: Vec<Vec<String>> = applied
        .iter()
        .map(|(datacenter, Applied { before, now, outcome })| {
            let result = match (outcome, wanted) {
                (Outcome::Written, Some(_)) => "written".to_owned(),
                (Outcome::Written, None) => "deleted".to_owned(),
                (Outcome::AsBefore, _) => "as before".to_owned(),
                (Outcome::WouldBeWritten, Some(value)) => format!("{value} would be written"),
                (Outcome::WouldBeWritten, None) => "would be deleted".to_owned(),
                (Outcome::Overtaken, _) => OVERTAKEN.to_owned(),
                (Outcome::Failed(error), _) => error.to_string(),
            };
            vec![datacenter.to_string(), cell(before), cell(now), result]
        })
        .collect();
    format!("{path}\n{}", table(&["DATACENTER", "BEFORE", "NOW", "RESULT"], &rows))
}

/// The last word when not every datacenter holds what was wanted: where, and why.
fn missed(wanted: Option<&str>, applied: &BTreeMap<Datacenter, Applied>, effect: Effect) -> Option<String> {
    let fine = |applied: &Applied| applied.holds() || applied.outcome == Outcome::WouldBeWritten;
    let not: Vec<_> = applied.iter().filter(|(_, applied)| !fine(applied)).collect();
    if not.is_empty() {
        return None;
    }
    let reasons: Vec<String> = not
        .iter()
        .map(|(datacenter, applied)| match error(&applied.outcome) {
            Some(error) => format!("{datacenter}: {error}"),
            None => format!("{datacenter}: {OVERTAKEN}"),
        })
        .collect();
    let (all, reasons) = (applied.len(), reasons.join("; "));
    let done = all - not.len();
    Some(match (effect, wanted) {
        (Effect::DryRun, Some(_)) => {
            format!("would be written in {done} of {all} datacenters, not in {reasons}")
        }
        (Effect::DryRun, None) => {
            format!("would be deleted in {done} of {all} datacenters, not in {reasons}")
        }
        (Effect::Write, Some(_)) => {
            format!("written in {done} of {all} datacenters, not in {reasons}; run it again")
        }
        (Effect::Write, None) => {
            format!("deleted in {done} of {all} datacenters, not in {reasons}; run it again")
        }
    })
}

/// Refuses a release that no shard runs, unless it is wanted all the same. Tells when none of its shards takes new conferences, or when
/// nothing says whether one does.
pub(super) fn check_release(
    survey: &Survey,
    release: &ReleaseName,
    doubtful: Doubtful,
) -> Result<(), CommandError> {
    let shards = survey.catalog().shards_of(release.as_str());
    if shards.is_empty() && doubtful == Doubtful::Refused {
        let known: Vec<&str> = survey.catalog().releases().map(ReleaseName::as_str).collect();
        let unknown = shards_unknown(survey);
        return Err(CommandError::Refused {
            what: format!("no shard runs {release}{unknown}"),
            hint: format!("{}; --force writes it all the same", meant(release.as_str(), &known, "release")),
        });
    }
    if shards.is_empty() {
        return Ok(());
    }
    let unknown = survey.unanswered().iter().find(|missing| missing.what == "keys");
    if let (true, Some(missing)) = (survey.routed_by().is_empty(), unknown) {
        tell(&format!(
            "note: whether a shard of {release} is ready is not known, states cannot be read in {}: {}",
            missing.datacenter, missing.error
        ));
    }
    tell_if_none_ready(survey, release, None);
    Ok(())
}

/// Tells where no shard of a release will take new conferences, `without` this one.
pub(super) fn tell_if_none_ready(survey: &Survey, release: &ReleaseName, without: Option<&str>) {
    let none = survey.routed_by().iter().filter(|(_, snapshot)| {
        let mut shards = snapshot.shards_of(release.as_str()).iter();
        !shards.any(|shard| shard.state == ShardState::Ready && Some(shard.name.as_str()) != without)
    });
    let none: Vec<&str> = none.map(|(datacenter, _)| datacenter.as_str()).collect();
    if !none.is_empty() {
        let then = if without.is_some() { " then" } else { "" };
        tell(&format!("note: no shard of {release} is ready{then}, says Consul in {}", none.join(", ")));
    }
}

/// Where shards are not known, in words behind what is missing.
pub(super) fn shards_unknown(survey: &Survey) -> String {
    let unknown = survey.unanswered().iter().filter(|missing| missing.what == "shards");
    let unknown: Vec<String> =
        unknown.map(|missing| format!("{}: {}", missing.datacenter, missing.error)).collect();
    if unknown.is_empty() {
        String::new()
    } else {
        format!(" as far as is known (shards cannot be listed in {})", unknown.join("; "))
    }
}

/// What may have been meant by a name that is none of the known ones.
pub(super) fn meant(name: &str, known: &[&str], what: &str) -> String {
    let close = known.iter().map(|known| (strsim::levenshtein(name, known), *known)).min();
    match close {
        None => format!("no {what} is known at all"),
        Some((0..=2, close)) => format!("did you mean {close}? There is {}", list(known)),
        Some(_) => format!("there is {}", list(known)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn applied(rows: &[(&str, Seen, Seen, Outcome)]) -> BTreeMap<Datacenter, Applied> {
        let row = |(datacenter, before, now, outcome): &(&str, Seen, Seen, Outcome)| {
            let (before, now, outcome) = (before.clone(), now.clone(), outcome.clone());
            (Datacenter::parse(datacenter).unwrap(), Applied { before, now, outcome })
        };
        rows.iter().map(row).collect()
    }

    fn says(word: &str) -> Seen {
        Seen::Value(word.to_owned())
    }

    #[test]
    fn what_became_of_it() {
        let error =
            AgentError::Status { path: "/v1/kv/k".to_owned(), status: 500, said: "No path".to_owned() };
        let rows = applied(&[
            ("east", Seen::Absent, says("release-2"), Outcome::Written),
            ("north", says("release-1"), says("release-3"), Outcome::Overtaken),
            ("west", Seen::Unknown, Seen::Unknown, Outcome::Failed(error)),
        ]);
        assert_eq!(
            page("releases/prod/live", Some("release-2"), &rows),
            "releases/prod/live\n\
             DATACENTER  BEFORE     NOW        RESULT\n\
             east        -          release-2  written\n\
             north       release-1  release-3  changed by somebody else meanwhile\n\
             west        ?          ?          Consul answers /v1/kv/k with 500 No path\n"
        );
        assert_eq!(
            missed(Some("release-2"), &rows, Effect::Write).unwrap(),
            "written in 1 of 3 datacenters, not in north: changed by somebody else meanwhile; west: Consul answers /v1/kv/k with 500 No path; run it again"
        );
        let well = applied(&[
            ("east", says("a"), says("a"), Outcome::AsBefore),
            ("west", says("b"), says("b"), Outcome::WouldBeWritten),
        ]);
        assert_eq!(missed(Some("a"), &well, Effect::DryRun), None);
    }

    #[test]
    fn typing_errors_are_understood() {
        assert_eq!(
            meant("relese-1", &["release-1", "release-20"], "release"),
            "did you mean release-1? There is release-1, release-20"
        );
        assert_eq!(meant("x", &["release-1", "release-2"], "release"), "there is release-1, release-2");
        assert_eq!(meant("x", &[], "release"), "no release is known at all");
    }
}
