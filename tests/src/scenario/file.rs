//! A scenario's file: blocks of prose and commands, each with the trace it must give.

use std::fmt;

/// Ends the commands of a block; its expected trace follows, up to the next empty line.
const RULE: &str = "----";

/// Why a scenario cannot be played.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Fault {
    /// The file.
    pub(super) file: String,
    /// The line, counted from 1.
    pub(super) line: usize,
    /// What stands there.
    pub(super) value: String,
    /// What would have been accepted.
    pub(super) expected: String,
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}: {:?}, expected {}", self.file, self.line, self.value, self.expected)
    }
}

impl std::error::Error for Fault {}

/// One line that is to be carried out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct CommandLine {
    /// The line, counted from 1.
    pub(super) line: usize,
    /// The command, without the spaces around it.
    pub(super) text: String,
}

/// Commands and what they must give.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Block {
    /// Everything before the rule as it stands: empty lines, prose, commands.
    head: Vec<String>,
    /// The commands of the head.
    pub(super) commands: Vec<CommandLine>,
    /// The line of the first line of the trace, counted from 1.
    pub(super) expected_line: usize,
    /// The trace.
    pub(super) expected: Vec<String>,
}

/// A parsed scenario.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct ScenarioFile {
    /// Its name in messages.
    pub(super) name: String,
    /// In their order.
    pub(super) blocks: Vec<Block>,
    /// What follows the last block: prose without commands.
    tail: Vec<String>,
}

impl ScenarioFile {
    /// Splits `text` into blocks.
    ///
    /// # Errors
    /// [`Fault`] for a rule without commands, for commands without a rule, and for a file that begins without prose.
    pub(super) fn parse(name: &str, text: &str) -> Result<Self, Fault> {
        let fault = |line: usize, value: &str, expected: &str| Fault {
            file: name.to_owned(),
            line,
            value: value.to_owned(),
            expected: expected.to_owned(),
        };
        if !text.starts_with('#') {
            let first = text.lines().next().unwrap_or_default();
            return Err(fault(1, first, "prose (#) that says what the scenario teaches"));
        }
        let mut blocks = Vec::new();
        let mut head = Vec::new();
        let mut commands: Vec<CommandLine> = Vec::new();
        let mut lines = text.lines().enumerate();
        while let Some((index, line)) = lines.next() {
            let trimmed = line.trim();
            if trimmed != RULE {
                head.push(line.to_owned());
                if !trimmed.is_empty() && !trimmed.starts_with('#') {
                    commands.push(CommandLine { line: index + 1, text: trimmed.to_owned() });
                }
                continue;
            }
            if commands.is_empty() {
                return Err(fault(index + 1, line, "a command before the rule"));
            }
            let trace = lines.by_ref().map(|(_, line)| line.trim_end().to_owned());
            blocks.push(Block {
                head: std::mem::take(&mut head),
                commands: std::mem::take(&mut commands),
                expected_line: index + 2,
                expected: trace.take_while(|line| !line.is_empty()).collect(),
            });
        }
        match commands.first() {
            Some(first) => {
                Err(fault(first.line, &first.text, "a rule (----) after the last command of a block"))
            }
            None => Ok(Self { name: name.to_owned(), blocks, tail: head }),
        }
    }

    /// The file's text with these traces instead of the expected ones.
    #[must_use]
    pub(super) fn with_traces(&self, traces: &[Vec<String>]) -> String {
        let mut text = String::new();
        let mut push = |line: &str| {
            text.push_str(line.trim_end());
            text.push('\n');
        };
        for (index, (block, trace)) in self.blocks.iter().zip(traces).enumerate() {
            block.head.iter().for_each(|line| push(line));
            push(RULE);
            trace.iter().for_each(|line| push(line));
            if index + 1 < self.blocks.len() || !self.tail.is_empty() {
                push("");
            }
        }
        self.tail.iter().for_each(|line| push(line));
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "# One room.\n#\nmesh a b\n\n# It is joined.\njoin a room s1\nrun 10\n----\nfirst\n\ntable room\n----\nsecond\nthird\n";

    #[test]
    fn blocks_hold_commands_and_traces_and_are_written_back_as_they_stood() {
        let file = ScenarioFile::parse("x.txt", TEXT).unwrap();
        let commands: Vec<Vec<&str>> =
            file.blocks.iter().map(|b| b.commands.iter().map(|c| c.text.as_str()).collect()).collect();
        assert_eq!(commands, [vec!["mesh a b", "join a room s1", "run 10"], vec!["table room"]]);
        assert_eq!((file.blocks[0].expected_line, file.blocks[1].expected_line), (9, 13));
        let traces: Vec<Vec<String>> = file.blocks.iter().map(|b| b.expected.clone()).collect();
        assert_eq!(file.with_traces(&traces), TEXT);
        assert_eq!(
            file.with_traces(&[vec!["new".to_owned()], vec![]]),
            TEXT.replace("first", "new").replace("second\nthird\n", "")
        );
    }

    #[test]
    fn faults_name_file_line_value_and_expectation() {
        let say = |text: &str| ScenarioFile::parse("x.txt", text).unwrap_err().to_string();
        assert_eq!(
            say("mesh a\n"),
            "x.txt:1: \"mesh a\", expected prose (#) that says what the scenario teaches"
        );
        assert_eq!(say("# x\n----\n"), "x.txt:2: \"----\", expected a command before the rule");
        assert_eq!(
            say("# x\nmesh a\n"),
            "x.txt:2: \"mesh a\", expected a rule (----) after the last command of a block"
        );
    }
}
