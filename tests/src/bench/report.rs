//! The figures in words: tables for people, JSON for whoever compares runs.

use std::fmt::Display;
use std::io::{self, Write};
use std::process::ExitCode;

use serde_json::{Value, json};

use super::options::Output;
use super::rounds::Measured;
use super::subject::Kind;
use super::verdict::{Rules, Spread, ratios, void_reasons};

/// The ratio that is wanted where nothing better is: not worse than HAProxy.
pub const FLOOR: f64 = 1.0;
/// Exit code of a run whose figures may not be believed.
const VOID: u8 = 3;
/// Exit code of a run whose figures stand and in which shardgate is not as good as wanted.
const FLOOR_MISSED: u8 = 4;

/// Prints as the run goes on, and collects what decides its end.
pub struct Report {
    output: Output,
    rules: Rules,
    sections: Vec<Value>,
    void: Vec<String>,
    missed: Vec<String>,
}

impl Report {
    /// An empty report.
    #[must_use]
    pub fn new(output: Output, rules: Rules) -> Self {
        Self { output, rules, sections: vec![], void: vec![], missed: vec![] }
    }

    /// Prints a line for people.
    pub fn say(&self, line: impl Display) {
        // A reader that went away must not end the measurement.
        match self.output {
            Output::Text => writeln!(io::stdout(), "{line}"),
            Output::Json => writeln!(io::stderr(), "{line}"),
        }
        .ok();
    }

    /// Adds rounds of `unit`s under `title`: the table, the ratio and whether it is at most `wanted`, whether they stand. The ratio.
    pub fn add_rounds(
        &mut self,
        title: &str,
        unit: &str,
        wanted: f64,
        rounds: &[Vec<Measured>],
    ) -> Option<Spread> {
        self.say(format!("\n{title}: medians of {} rounds [min-max]", rounds.len()));
        let heads = [&format!("{unit}/s"), &format!("CPU us/{unit}"), "p50 ms", "p99 ms", "busy"];
        let [per_second, cpu, p50, p99, busy] = heads;
        self.say(format!("{:<10} {per_second:>24} {cpu:>21} {p50:>20} {p99:>20} {busy:>5}", "subject"));
        let mut rows = serde_json::Map::new();
        for kind in rounds.first().map_or(&[][..], Vec::as_slice).iter().map(|measured| measured.kind) {
            rows.insert(kind.name().to_owned(), self.row(kind, rounds));
        }
        let ratios = ratios(rounds);
        let ratio = Spread::of(ratios.iter().copied());
        if let Some(spread) = ratio {
            let each: Vec<String> = ratios.iter().map(|ratio| format!("{ratio:.3}")).collect();
            self.say(format!(
                "CPU shardgate / HAProxy: {}, at most {wanted:.2} wanted, spread {:.0} %; by round: {}",
                shown(spread, 3),
                spread.width() * 100.0,
                each.join(" ")
            ));
            self.judge(title, "CPU", spread.median, wanted);
        }
        let void = void_reasons(rounds, self.rules);
        self.sections
            .push(json!({ "title": title, "unit": unit, "subjects": rows, "ratios": ratios, "wanted": wanted, "void": void }));
        self.add_void(title, void);
        ratio
    }

    fn row(&self, kind: Kind, rounds: &[Vec<Measured>]) -> Value {
        let all: Vec<&Measured> = rounds.iter().flatten().filter(|measured| measured.kind == kind).collect();
        let spread =
            |figure: &dyn Fn(&Measured) -> f64| Spread::of(all.iter().map(|measured| figure(measured)));
        let figures = [
            spread(&Measured::per_second),
            spread(&Measured::cpu_us),
            spread(&|measured| measured.report.p50_us as f64 / 1000.0),
            spread(&|measured| measured.report.p99_us as f64 / 1000.0),
            spread(&Measured::busy),
        ];
        let [Some(per_second), Some(cpu), Some(p50), Some(p99), Some(busy)] = figures else {
            return Value::Null;
        };
        self.say(format!(
            "{:<10} {:>24} {:>21} {:>20} {:>20} {:>5.2}",
            kind.name(),
            shown(per_second, 0),
            shown(cpu, 1),
            shown(p50, 2),
            shown(p99, 2),
            busy.median
        ));
        let ended: usize = all.iter().map(|measured| measured.cpu.threads_ended).sum();
        if ended > 0 {
            self.say(format!("           {ended} threads of it ended while measured: its CPU is only as fine as 10 ms a turn"));
        }
        let list = |figure: &dyn Fn(&Measured) -> f64| {
            all.iter().map(|measured| figure(measured)).collect::<Vec<_>>()
        };
        json!({
            "per_second": list(&Measured::per_second),
            "cpu_us": list(&Measured::cpu_us),
            "p50_us": all.iter().map(|measured| measured.report.p50_us).collect::<Vec<_>>(),
            "p99_us": all.iter().map(|measured| measured.report.p99_us).collect::<Vec<_>>(),
            "busy": list(&Measured::busy),
            "done": all.iter().map(|measured| measured.report.done).collect::<Vec<_>>(),
        })
    }

    /// Notes whether `ratio` (shardgate to HAProxy, of `what`) is at most what is `wanted`.
    pub fn judge(&mut self, title: &str, what: &str, ratio: f64, wanted: f64) {
        if ratio > wanted {
            self.missed
                .push(format!("{title}: {what} is {ratio:.3} of HAProxy's, at most {wanted:.2} wanted"));
        }
    }

    /// Notes whether a figure of shardgate's stays within a limit that is not HAProxy's.
    pub fn judge_at_most(&mut self, title: &str, what: &str, figure: f64, limit: f64) {
        if figure > limit {
            self.missed.push(format!("{title}: {what} {figure:.1}, at most {limit:.1} wanted"));
        }
    }

    /// Adds a section that has no rounds.
    pub fn add_section(&mut self, section: Value) {
        self.sections.push(section);
    }

    /// Adds reasons why the run's figures may not be believed.
    pub fn add_void(&mut self, title: &str, reasons: Vec<String>) {
        self.void.extend(reasons.into_iter().map(|reason| format!("{title}: {reason}")));
    }

    /// Prints the verdict, and the JSON document when wanted.
    pub fn end(self, head: Value) -> ExitCode {
        let (code, verdict) = match (self.rules, &self.void[..], &self.missed[..]) {
            (_, [_, ..], _) => (VOID, format!("VOID: {}", self.void.join("; "))),
            (Rules::FaultsOnly, [], _) => {
                (0, "the bench works; a smoke run's figures mean nothing".to_owned())
            }
            (Rules::Full, [], [_, ..]) => (FLOOR_MISSED, format!("floor missed: {}", self.missed.join("; "))),
            (Rules::Full, [], []) => (0, "measured".to_owned()),
        };
        self.say(format!("\n{verdict}"));
        if self.output == Output::Json {
            let document =
                json!({ "run": head, "sections": self.sections, "verdict": verdict, "exit": code });
            writeln!(io::stdout(), "{document:#}").ok();
        }
        ExitCode::from(code)
    }
}

/// `median [min-max]`, thousands separated when there are no decimals.
#[must_use]
pub fn shown(spread: Spread, decimals: usize) -> String {
    let one = |figure: f64| {
        if decimals == 0 { grouped(figure.round() as u64) } else { format!("{figure:.decimals$}") }
    };
    format!("{} [{}-{}]", one(spread.median), one(spread.min), one(spread.max))
}

/// A number with its thousands separated.
#[must_use]
pub fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let groups: Vec<&[u8]> = digits.as_bytes().rchunks(3).rev().collect();
    String::from_utf8_lossy(&groups.join(&b","[..])).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn thousands_are_separated() {
        assert_eq!([7, 999, 1000, 1234567].map(grouped), ["7", "999", "1,000", "1,234,567"]);
    }
}
