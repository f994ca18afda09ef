//! The words of one command, taken one by one; whatever does not fit says what would have.

use std::collections::BTreeMap;

use shardgate_peering_core::{PeerId, ShardName};

use super::file::Fault;

/// What is left of a command's line.
#[derive(Debug)]
pub(super) struct Words<'l> {
    file: &'l str,
    line: usize,
    whole: &'l str,
    words: std::vec::IntoIter<&'l str>,
    /// `name=value`, in any place.
    options: BTreeMap<&'l str, &'l str>,
}

impl<'l> Words<'l> {
    /// Splits a line at its spaces.
    ///
    /// # Errors
    /// [`Fault`] for an option given twice.
    pub(super) fn new(file: &'l str, line: usize, whole: &'l str) -> Result<Self, Fault> {
        let mut options = BTreeMap::new();
        let mut words = Vec::new();
        for word in whole.split_whitespace() {
            match word.split_once('=') {
                Some((name, value)) => {
                    if options.insert(name, value).is_some() {
                        return Err(Fault {
                            file: file.to_owned(),
                            line,
                            value: word.to_owned(),
                            expected: format!("{name} once"),
                        });
                    }
                }
                None => words.push(word),
            }
        }
        Ok(Self { file, line, whole, words: words.into_iter(), options })
    }

    /// A fault of this line.
    #[must_use]
    pub(super) fn fault(&self, value: &str, expected: &str) -> Fault {
        Fault {
            file: self.file.to_owned(),
            line: self.line,
            value: value.to_owned(),
            expected: expected.to_owned(),
        }
    }

    /// The next word.
    ///
    /// # Errors
    /// [`Fault`] when there is none; it says what was `expected`.
    pub(super) fn word(&mut self, expected: &str) -> Result<&'l str, Fault> {
        self.words.next().ok_or_else(|| self.fault(self.whole, expected))
    }

    /// The next word if there is one.
    pub(super) fn optional(&mut self) -> Option<&'l str> {
        self.words.next()
    }

    /// All words that are left.
    pub(super) fn rest(&mut self) -> Vec<&'l str> {
        self.words.by_ref().collect()
    }

    /// The option of this name if it is given.
    pub(super) fn option(&mut self, name: &str) -> Option<&'l str> {
        self.options.remove(name)
    }

    /// All options that are left.
    pub(super) fn options(&mut self) -> BTreeMap<&'l str, &'l str> {
        std::mem::take(&mut self.options)
    }

    /// A node's name.
    ///
    /// # Errors
    /// [`Fault`] when it is missing or no name.
    pub(super) fn node(&mut self) -> Result<PeerId, Fault> {
        let word = self.word("a node's name")?;
        self.peer(word)
    }

    /// One or more nodes, to the end of the line.
    ///
    /// # Errors
    /// [`Fault`] when there is none, or one is no name.
    pub(super) fn nodes(&mut self) -> Result<Vec<PeerId>, Fault> {
        let mut nodes = vec![self.node()?];
        for word in self.rest() {
            nodes.push(self.peer(word)?);
        }
        Ok(nodes)
    }

    /// One or more nodes with commas between them.
    ///
    /// # Errors
    /// [`Fault`] when they are missing, or one is no name.
    pub(super) fn side(&mut self) -> Result<Vec<PeerId>, Fault> {
        let word = self.word("nodes, with commas between them")?;
        word.split(',').map(|name| self.peer(name)).collect()
    }

    /// A node's name from a word.
    ///
    /// # Errors
    /// [`Fault`] when it is no name.
    pub(super) fn peer(&self, word: &str) -> Result<PeerId, Fault> {
        PeerId::parse(word).map_err(|error| self.fault(word, error.expected))
    }

    /// A shard's name.
    ///
    /// # Errors
    /// [`Fault`] when it is missing or no name.
    pub(super) fn shard(&mut self) -> Result<ShardName, Fault> {
        let word = self.word("a shard's name")?;
        self.shard_of(word)
    }

    /// A shard's name from a word.
    ///
    /// # Errors
    /// [`Fault`] when it is no name.
    pub(super) fn shard_of(&self, word: &str) -> Result<ShardName, Fault> {
        ShardName::parse(word).map_err(|error| self.fault(word, error.expected))
    }

    /// A length of time.
    ///
    /// # Errors
    /// [`Fault`] when it is missing or no length of time.
    pub(super) fn ms(&mut self) -> Result<u64, Fault> {
        let word = self.word("a length of time as 20, 20ms, 3s, 5m, 6h")?;
        self.ms_of(word)
    }

    /// A length of time from a word: milliseconds, or with a unit.
    ///
    /// # Errors
    /// [`Fault`] when it is none.
    pub(super) fn ms_of(&self, word: &str) -> Result<u64, Fault> {
        let digits = word.trim_end_matches(|c: char| c.is_ascii_alphabetic());
        let unit = match &word[digits.len()..] {
            "" | "ms" => 1,
            "s" => 1_000,
            "m" => 60_000,
            "h" => 3_600_000,
            _ => 0,
        };
        let number: Option<u64> = digits.parse().ok().filter(|_| unit > 0);
        number
            .and_then(|number| number.checked_mul(unit))
            .ok_or_else(|| self.fault(word, "a length of time as 20, 20ms, 3s, 5m, 6h"))
    }

    /// A whole number from a word; `max` is the largest.
    ///
    /// # Errors
    /// [`Fault`] when it is none.
    pub(super) fn number_of(&self, word: &str) -> Result<u64, Fault> {
        if word == "max" {
            return Ok(u64::MAX);
        }
        word.parse().map_err(|_| self.fault(word, "a whole number, or max"))
    }

    /// That nothing is left.
    ///
    /// # Errors
    /// [`Fault`] naming the first word or option too many.
    pub(super) fn end(mut self) -> Result<(), Fault> {
        let option = self.options.pop_first().map(|(name, value)| format!("{name}={value}"));
        match self.words.next().map(str::to_owned).or(option) {
            Some(extra) => Err(self.fault(&extra, "the end of the line")),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(whole: &str) -> Words<'_> {
        Words::new("x.txt", 7, whole).unwrap()
    }

    #[test]
    fn lengths_of_time_have_units() {
        for (text, ms) in [("20", 20), ("20ms", 20), ("3s", 3_000), ("5m", 300_000), ("6h", 21_600_000)] {
            assert_eq!(words(text).ms(), Ok(ms), "{text}");
        }
        for text in ["", "s", "3d", "-3", "99999999999999999999", "9999999999999999h"] {
            assert!(words(text).ms().is_err(), "{text}");
        }
    }

    #[test]
    fn what_does_not_fit_is_named() {
        let mut line = words("join A-");
        line.word("a command").unwrap();
        assert_eq!(
            line.node().unwrap_err().to_string(),
            "x.txt:7: \"A-\", expected 1 to 63 of a-z 0-9 -, not at its ends"
        );
        assert_eq!(line.shard().unwrap_err().to_string(), "x.txt:7: \"join A-\", expected a shard's name");
        assert_eq!(
            words("a=1").end().unwrap_err().to_string(),
            "x.txt:7: \"a=1\", expected the end of the line"
        );
        assert_eq!(
            Words::new("x.txt", 7, "a=1 a=2").unwrap_err().to_string(),
            "x.txt:7: \"a=2\", expected a once"
        );
    }
}
