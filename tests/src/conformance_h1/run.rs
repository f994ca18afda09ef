//! All cases, at each of the two servers.

use std::io::{self, Write};
use std::path::PathBuf;

use super::case::Case;
use super::cases::cases;
use super::play::play;
use super::site::Site;
use super::upstream::Kind;

/// What is run.
#[derive(Debug, Clone)]
pub struct Options {
    /// The shardgate to test.
    pub shardgate: PathBuf,
    /// Only cases whose names contain this.
    pub only: Option<String>,
}

/// How it went.
#[derive(Debug, Clone, Copy, Default)]
pub struct Report {
    /// Cases, counted at each server.
    pub passed: usize,
    /// The same.
    pub failed: usize,
}

/// Each case's word: as long as [`super::case::TAG`], so that lengths that are sent hold.
fn tag(number: usize) -> String {
    let digit = |value: usize| char::from_digit((value % 36) as u32, 36).unwrap_or('0');
    format!("q{}{}", digit(number / 36), digit(number))
}

/// Plays all cases, one line for each.
///
/// # Errors
/// When a server does not start, or the output cannot be written.
pub fn run(options: &Options, out: &mut impl Write) -> io::Result<Report> {
    let cases = cases();
    let wanted = |case: &&Case| options.only.as_ref().is_none_or(|part| case.name.contains(part.as_str()));
    let mut report = Report::default();
    for kind in Kind::ALL {
        let mut site = Site::start(kind, &options.shardgate)?;
        for (number, case) in cases.iter().enumerate().filter(|(_, case)| wanted(case)) {
            if case.only.is_some_and(|only| only != kind) {
                continue;
            }
            match play(case, &site, &tag(number)) {
                Ok(()) => {
                    report.passed += 1;
                    writeln!(out, "ok: {} {}", kind.name(), case.name)?;
                }
                Err(why) => {
                    report.failed += 1;
                    writeln!(out, "FAILED: {} {}: {why}", kind.name(), case.name)?;
                }
            }
        }
        if !site.runs() {
            report.failed += 1;
            writeln!(out, "FAILED: {}: shardgate has ended", kind.name())?;
        }
    }
    let desync = cases.iter().filter(|case| case.is_desync()).count();
    writeln!(
        out,
        "{} cases, {desync} of them of request smuggling, each at every server that can play it",
        cases.len()
    )?;
    Ok(report)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn there_are_as_many_cases_as_promised_and_each_has_its_name() {
        let cases = cases();
        let names: BTreeSet<&str> = cases.iter().map(|case| case.name).collect();
        assert_eq!(names.len(), cases.len(), "two cases of one name");
        assert!(cases.len() >= 80 && cases.len() < 1000, "{}", cases.len());
        for name in names {
            assert!(
                ["9110-", "9112-", "6585-", "desync "].iter().any(|begin| name.starts_with(begin)),
                "{name}"
            );
        }
    }
}
