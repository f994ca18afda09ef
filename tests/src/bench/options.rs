//! What a bench can be told on its command line.

use super::subject::Kind;
use super::verdict::Rules;

/// How to call a bench; it follows the program's name.
pub const USAGE: &str =
    "[--rounds N] [--seconds S] [--smoke] [--output text|json] [--subjects haproxy,shardgate,relay]";

/// Options of one run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Options {
    /// How often everything is measured.
    pub rounds: u32,
    /// Time of each subject in each round.
    pub seconds: u32,
    /// Full measurement, or a short proof that the bench works.
    pub size: Size,
    /// How the figures are told.
    pub output: Output,
    /// Who takes part, in the order of their first turns.
    pub subjects: Vec<Kind>,
}

/// How much is measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Size {
    /// Everything, by all rules.
    Full,
    /// As little as shows that the bench works; its figures mean nothing.
    Smoke,
}

impl Size {
    /// The rules by which figures of this size are judged.
    #[must_use]
    pub fn rules(self) -> Rules {
        match self {
            Self::Full => Rules::Full,
            Self::Smoke => Rules::FaultsOnly,
        }
    }
}

/// How the figures are told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Output {
    /// Tables on standard output.
    Text,
    /// One JSON document on standard output, the tables on standard error.
    Json,
}

impl Options {
    /// Reads the arguments after the program's name; the error says which one is wrong.
    pub fn parse(
        arguments: impl IntoIterator<Item = String>,
        rounds: u32,
        seconds: u32,
    ) -> Result<Self, String> {
        let subjects = vec![Kind::HaProxy, Kind::Shardgate, Kind::Relay];
        let mut options = Self { rounds, seconds, size: Size::Full, output: Output::Text, subjects };
        let mut arguments = arguments.into_iter();
        while let Some(name) = arguments.next() {
            let mut value = || arguments.next().ok_or_else(|| format!("{name} needs a value"));
            match name.as_str() {
                "--smoke" => options = Self { size: Size::Smoke, rounds: 1, seconds: 1, ..options },
                "--rounds" => options.rounds = number(&name, &value()?)?,
                "--seconds" => options.seconds = number(&name, &value()?)?,
                "--output" => options.output = output(&value()?)?,
                "--subjects" => options.subjects = subjects_of(&value()?)?,
                _ => return Err(format!("unknown argument {name:?}; expected {USAGE}")),
            }
        }
        Ok(options)
    }
}

fn number(name: &str, value: &str) -> Result<u32, String> {
    let parsed = value.parse().ok().filter(|number| (1..=1000).contains(number));
    parsed.ok_or_else(|| format!("{name}: expected a number from 1 to 1000, found {value:?}"))
}

fn output(value: &str) -> Result<Output, String> {
    match value {
        "text" => Ok(Output::Text),
        "json" => Ok(Output::Json),
        _ => Err(format!("--output: expected text or json, found {value:?}")),
    }
}

fn subjects_of(value: &str) -> Result<Vec<Kind>, String> {
    let kinds = [Kind::HaProxy, Kind::Shardgate, Kind::Relay];
    let named = |name: &str| {
        let kind = kinds.into_iter().find(|kind| kind.name() == name);
        kind.ok_or_else(|| format!("--subjects: expected haproxy, shardgate or relay, found {name:?}"))
    };
    value.split(',').map(named).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(line: &str) -> Result<Options, String> {
        Options::parse(line.split_whitespace().map(str::to_owned), 7, 4)
    }

    #[test]
    fn defaults_smoke_and_single_values() {
        let defaults = parse("").unwrap();
        assert_eq!((defaults.rounds, defaults.seconds, defaults.size), (7, 4, Size::Full));
        let smoke = parse("--smoke --rounds 2 --output json --subjects haproxy").unwrap();
        assert_eq!((smoke.rounds, smoke.seconds, smoke.output), (2, 1, Output::Json));
        assert_eq!(smoke.subjects, [Kind::HaProxy]);
    }

    #[test]
    fn a_wrong_argument_is_named() {
        assert_eq!(parse("--rounds").unwrap_err(), "--rounds needs a value");
        assert_eq!(
            parse("--rounds 0").unwrap_err(),
            "--rounds: expected a number from 1 to 1000, found \"0\""
        );
        assert!(
            parse("--speed 3")
                .unwrap_err()
                .starts_with("unknown argument \"--speed\"; expected [--rounds N]")
        );
        assert!(parse("--output xml").unwrap_err().contains("text or json, found \"xml\""));
        assert!(parse("--subjects haproxy,nginx").unwrap_err().contains("found \"nginx\""));
    }
}
