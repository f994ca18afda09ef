//! An explanation for people: a table of the steps, and what comes of them.

use super::{Explanation, Kind, Outcome, Table};
use std::fmt;

/// A terminal's usual hundred, so that nothing is broken there.
const COLUMNS: usize = 100;
/// The most that a cell of the middle column gets.
const LOOKED_AT_MAX: usize = 42;

impl Explanation {
    /// All in one line: where it goes and why, and the rules that matched.
    #[must_use]
    pub fn line(&self) -> String {
        let rules: Vec<&str> = self.steps.iter().map(|step| step.rule).collect();
        format!("{} [{}]", self.decision, rules.join(" "))
    }
}

impl fmt::Display for Explanation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{}", cut(&format!("{} {}", self.method, self.target), COLUMNS))?;
        if let Some(host) = &self.host {
            writeln!(f, "{}", cut(&format!("Host: {host}"), COLUMNS))?;
        }
        let width = |cells: &mut dyn Iterator<Item = &str>| cells.map(|cell| cell.chars().count()).max();
        let rules = width(&mut self.steps.iter().map(|step| step.rule)).unwrap_or(0);
        let looked = width(&mut self.steps.iter().map(|step| step.looked_at.as_str())).unwrap_or(0);
        let looked = looked.min(LOOKED_AT_MAX);
        let mut stage = "";
        for step in &self.steps {
            if step.stage != stage {
                stage = step.stage;
                writeln!(f, "\n{stage}")?;
            }
            let looked_at = cut(&step.looked_at, looked);
            let says = cut(&step.says, COLUMNS - rules - looked - 6);
            writeln!(f, "  {:rules$}  {looked_at:looked$}  {says}", step.rule)?;
        }
        writeln!(f)?;
        if let Some(key) = &self.key {
            writeln!(f, "{}", cut(&format!("key        {key}"), COLUMNS))?;
        }
        if let Some(ban) = &self.ban {
            writeln!(f, "bans       {}, by {}", ban.verdict, ban.rule)?;
        } else if self.key.is_some() {
            writeln!(f, "bans       none says anything")?;
        }
        self.candidates(f)?;
        writeln!(f, "{}", cut(&format!("decision   {}", self.decision), COLUMNS))
    }
}

impl Explanation {
    /// The shards in columns; `*` before the one that is taken.
    fn candidates(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.candidates.is_empty() {
            return Ok(());
        }
        let taken = match &self.decision {
            Outcome::Routed { shard, .. } => shard.as_str(),
            Outcome::Answered { .. } => "",
        };
        let rows = self.candidates.iter().map(|one| {
            let mark = if one.shard == taken { '*' } else { ' ' };
            let load = format!("{} {}", one.state, one.weight);
            [
                format!("{mark} {}", one.shard),
                one.release.clone(),
                one.region.clone(),
                one.level.to_owned(),
                load,
            ]
        });
        let head = ["  shard", "release", "region", "level", "state, weight"].map(str::to_owned);
        let rows: Vec<[String; 5]> = std::iter::once(head).chain(rows).collect();
        let widths: [usize; 5] =
            std::array::from_fn(|at| rows.iter().map(|row| row[at].chars().count()).max().unwrap_or(0));
        for (index, row) in rows.iter().enumerate() {
            let mut line = if index == 0 { "candidates".to_owned() } else { " ".repeat(10) };
            for (cell, width) in row.iter().zip(widths) {
                line.push_str(&format!("{cell:width$}  "));
            }
            writeln!(f, "{}", cut(line.trim_end(), COLUMNS))?;
        }
        Ok(())
    }
}

impl fmt::Display for super::Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let table = match self.table {
            Table::Unused => "the table has no part in it",
            Table::Reads => "an entry is followed, none is made",
            Table::ReadsAndStores => "an entry is followed, or made",
        };
        let kind = match self.kind {
            Kind::Page => "page",
            Kind::Asset => "asset",
            Kind::Signaling => "signaling",
            Kind::Health => "health check",
        };
        let token = if self.token.is_empty() { "-" } else { self.token.as_str() };
        write!(f, "{token} ({kind}; {table})")
    }
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Routed { shard, why, takes_turns, stored_under, moved_from, .. } => {
                write!(f, "{shard} ({why})")?;
                if *takes_turns {
                    f.write_str(", by turns")?;
                }
                match (stored_under, moved_from) {
                    (Some(key), Some(from)) => write!(f, ", moves {key} from {from}"),
                    (Some(key), None) => write!(f, ", stored as {key}"),
                    (None, _) => Ok(()),
                }
            }
            Self::Answered { status, location: Some(location), error } => {
                write!(f, "{status} to {location}: {error}")
            }
            Self::Answered { status, location: None, error } => write!(f, "{status}: {error}"),
        }
    }
}

/// At most so many characters, the last one `…` where some are missing.
fn cut(text: &str, max: usize) -> String {
    if text.chars().count() <= max {
        return text.to_owned();
    }
    let mut cut: String = text.chars().take(max.saturating_sub(1)).collect();
    cut.push('…');
    cut
}
