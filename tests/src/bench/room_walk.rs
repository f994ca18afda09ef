//! What every closed loop of requests has in common: the walk over the rooms, its counts, and how it is commanded.

use std::io::{self, BufRead, Write};
use std::time::{Duration, Instant};

use super::latency::Latencies;
use super::load_report::LoadReport;

/// Rooms asked for in one run.
pub const ROOMS: usize = 10_000;
/// A step that visits every room once before any twice (it shares no factor with the number of rooms).
const STRIDE: usize = 7_919;
/// An answer that has not come after this time is an error.
pub(super) const ANSWER_MAX: Duration = Duration::from_secs(5);

/// A load that walks over the rooms.
pub(super) trait Walking {
    /// Asks, and waits for the last answer.
    fn run(&mut self, until: Until) -> io::Result<()>;

    /// How many questions make it ready to be measured.
    fn warm_up(&self) -> usize;

    /// Its walk.
    fn walk(&mut self) -> &mut RoomWalk;
}

/// Obeys `run MILLISECONDS`, `warm` and `report` until the input ends; each is answered by one line of JSON.
pub(super) fn obey(load: &mut impl Walking, input: impl BufRead, mut output: impl Write) -> io::Result<()> {
    writeln!(output, "ready")?;
    for line in input.lines() {
        let line = line?;
        match line.split_once(' ').unwrap_or((&line, "")) {
            ("warm", "") => load.run(Until::Asked(load.warm_up()))?,
            ("run", milliseconds) => {
                let milliseconds = milliseconds.parse().map_err(io::Error::other)?;
                load.run(Until::Elapsed(Duration::from_millis(milliseconds)))?;
            }
            ("report", "") => {}
            _ => return Err(io::Error::other(format!("unknown command {line:?}"))),
        }
        let walk = load.walk();
        walk.report.write_line(&walk.latencies, &mut output)?;
        if line == "report" {
            walk.report = LoadReport::default();
            walk.latencies = Latencies::default();
        }
    }
    Ok(())
}

/// When a load stops asking.
#[derive(Clone, Copy)]
pub(super) enum Until {
    /// After a time.
    Elapsed(Duration),
    /// After so many questions.
    Asked(usize),
}

/// The same from a certain moment and question on.
#[derive(Clone, Copy)]
pub(super) struct Span {
    last: usize,
    end: Instant,
}

impl Span {
    /// Whether another question is to be asked.
    pub(super) fn goes_on(self, walk: &RoomWalk, now: Instant) -> bool {
        walk.asked < self.last && now < self.end
    }

    /// Whether even the last answer is overdue.
    pub(super) fn is_over(self, now: Instant) -> bool {
        now > self.end + ANSWER_MAX
    }
}

/// The walk over all rooms, and what came of it.
pub(super) struct RoomWalk {
    asked: usize,
    /// The digit of the shard that first answered for each room; 0 before that.
    shard_of_room: Vec<u8>,
    /// Since the last report.
    pub(super) report: LoadReport,
    latencies: Latencies,
}

impl RoomWalk {
    /// From the first room on.
    pub(super) fn new() -> Self {
        Self {
            asked: 0,
            shard_of_room: vec![0; ROOMS],
            report: LoadReport::default(),
            latencies: Latencies::default(),
        }
    }

    /// The stretch that begins here and now.
    pub(super) fn span(&self, until: Until, start: Instant) -> Span {
        match until {
            Until::Asked(count) => Span { last: self.asked + count, end: start + 12 * ANSWER_MAX },
            Until::Elapsed(time) => Span { last: usize::MAX, end: start + time },
        }
    }

    /// The room to ask for next.
    pub(super) fn next(&mut self) -> usize {
        let room = self.asked * STRIDE % ROOMS;
        self.asked += 1;
        room
    }

    /// Counts an answer of the shard with a digit.
    pub(super) fn answered(&mut self, room: usize, took: Duration, status_2xx: bool, shard: u8) {
        if !status_2xx {
            self.report.non_2xx += 1;
            return;
        }
        self.report.done += 1;
        self.latencies.record(took);
        let first = &mut self.shard_of_room[room];
        if *first == 0 {
            *first = shard;
        } else if *first != shard {
            self.report.moved += 1;
        }
    }

    /// Counts the time since `start` as spent asking.
    pub(super) fn was_busy_since(&mut self, start: Instant) {
        self.report.busy_us += u64::try_from(start.elapsed().as_micros()).unwrap_or(u64::MAX);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_walk_visits_every_room() {
        let mut walk = RoomWalk::new();
        let visited: std::collections::BTreeSet<_> = (0..ROOMS).map(|_| walk.next()).collect();
        assert_eq!(visited.len(), ROOMS);
    }
}
