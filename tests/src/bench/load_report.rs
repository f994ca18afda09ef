//! What a load generator tells the bench, as one line of JSON.

use std::io::{self, Write};

use serde::{Deserialize, Serialize};

use super::latency::Latencies;

/// Counts since the last report.
#[derive(Default, Clone, Serialize, Deserialize)]
pub struct LoadReport {
    /// Whole answers with a 2xx status, or whole echoes.
    pub done: u64,
    /// Answers with another status.
    pub non_2xx: u64,
    /// Connections that broke, answers that could not be read or did not come.
    pub errors: u64,
    /// Answers from another shard than the room's first one.
    pub moved: u64,
    /// TLS handshakes that were full where a session should have been resumed, or the other way round.
    pub other_handshakes: u64,
    /// Time in which requests were being sent.
    pub busy_us: u64,
    /// Median latency.
    pub p50_us: u64,
    /// The latency that 99 of 100 stay below.
    pub p99_us: u64,
}

impl LoadReport {
    /// Writes the report with the quantiles of `latencies`.
    pub fn write_line(&mut self, latencies: &Latencies, output: &mut impl Write) -> io::Result<()> {
        self.p50_us = latencies.quantile_us(0.5);
        self.p99_us = latencies.quantile_us(0.99);
        serde_json::to_writer(&mut *output, self)?;
        writeln!(output)?;
        output.flush()
    }

    /// What makes the figures worthless, in words.
    #[must_use]
    pub fn faults(&self) -> Vec<String> {
        let counts = [
            (self.errors, "errors"),
            (self.non_2xx, "non-2xx"),
            (self.moved, "rooms on two shards"),
            (self.other_handshakes, "handshakes of the other kind"),
        ];
        let mut faults: Vec<String> = counts
            .iter()
            .filter(|(count, _)| *count > 0)
            .map(|(count, what)| format!("{count} {what}"))
            .collect();
        if self.done == 0 {
            faults.push("nothing answered".to_owned());
        }
        faults
    }
}
