//! What `dev --check` prints: one line for each assertion as it is made, and the counts at the end.

use std::io::{self, Write};
use std::time::Instant;

/// Collects and prints assertions.
pub struct Report {
    out: Box<dyn Write + Send>,
    started: Instant,
    tally: Tally,
}

/// How many assertions held.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    /// Held.
    pub passed: u32,
    /// Did not.
    pub failed: u32,
}

impl Tally {
    /// Whether everything was asserted and held.
    pub fn is_green(self) -> bool {
        self.failed == 0 && self.passed > 0
    }
}

impl Report {
    /// Prints to `out`, with the time since now.
    pub fn to(out: Box<dyn Write + Send>) -> Self {
        Self { out, started: Instant::now(), tally: Tally::default() }
    }

    /// One assertion: what should be so, and what was seen, which the error says when it is not so.
    pub fn assert(&mut self, what: &str, seen: Result<String, String>) {
        let at = self.started.elapsed().as_secs_f64();
        let line = match seen {
            Ok(seen) => {
                self.tally.passed += 1;
                let seen = if seen.is_empty() { String::new() } else { format!(" ({seen})") };
                format!("ok      {at:5.1} s  {what}{seen}")
            }
            Err(seen) => {
                self.tally.failed += 1;
                format!("FAILED  {at:5.1} s  {what}: {seen}")
            }
        };
        // Nobody reads any more: the exit code still tells.
        writeln!(self.out, "{line}").and_then(|()| self.out.flush()).ok();
    }

    /// How many assertions held and did not so far.
    pub fn tally(&self) -> Tally {
        self.tally
    }

    /// Prints the last line.
    pub fn finish(mut self) -> io::Result<Tally> {
        let Tally { passed, failed } = self.tally;
        writeln!(self.out, "{passed} passed, {failed} failed, 0 skipped")?;
        self.out.flush()?;
        Ok(self.tally)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use super::*;

    #[derive(Clone, Default)]
    struct Paper(Arc<Mutex<Vec<u8>>>);

    impl Write for Paper {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().write(bytes)
        }
        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn one_line_each_and_the_counts_last() {
        let paper = Paper::default();
        let mut report = Report::to(Box::new(paper.clone()));
        report.assert("the sky is blue", Ok("very".into()));
        report.assert("the sky is green", Err("it is blue".into()));
        let tally = report.finish().unwrap();
        assert!(!tally.is_green());
        assert!(!Tally::default().is_green());
        let text = String::from_utf8(paper.0.lock().unwrap().clone()).unwrap();
        let lines: Vec<&str> = text.lines().collect();
        assert!(lines[0].starts_with("ok ") && lines[0].ends_with("the sky is blue (very)"), "{text}");
        assert!(
            lines[1].starts_with("FAILED ") && lines[1].ends_with("the sky is green: it is blue"),
            "{text}"
        );
        assert_eq!(lines[2], "1 passed, 1 failed, 0 skipped");
    }
}
