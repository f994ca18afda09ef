//! A load of any rooms at any rate, commanded line by line on its standard input.

use std::io::{self, BufRead, Write};
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use super::askers::{Askers, joining};
use super::latency::Latencies;
use super::load_report::LoadReport;
use super::room_names::unlike_room_name;

/// An answer that has not come after this time is an error, and ends the run.
const ANSWER_MAX: Duration = Duration::from_secs(5);
/// How exactly the rate is kept.
const GRAIN: Duration = Duration::from_millis(1);

/// Obeys `rooms FIRST COUNT TIMES RATE` until the input ends: asks for `COUNT` rooms from number `FIRST` on, all of them `TIMES` times, at
/// `RATE` a second (0: as fast as the connections are answered). Each is answered by one line of JSON.
pub fn obey(
    target: SocketAddr,
    connections: usize,
    input: impl BufRead,
    mut output: impl Write,
) -> io::Result<()> {
    let mut askers = Askers::new()?;
    for _ in 0..connections {
        askers.add(target)?;
    }
    writeln!(output, "ready")?;
    for line in input.lines() {
        let line = line?;
        let (mut report, latencies) = Order::parse(&line)?.run(&mut askers, connections)?;
        report.write_line(&latencies, &mut output)?;
    }
    Ok(())
}

struct Order {
    first: usize,
    count: usize,
    times: usize,
    rate: u32,
}

impl Order {
    fn parse(line: &str) -> io::Result<Self> {
        let numbers = line.strip_prefix("rooms ").map(|rest| rest.split(' ').map(str::parse::<u32>));
        let numbers: Option<Vec<u32>> = numbers.and_then(|numbers| numbers.collect::<Result<_, _>>().ok());
        match numbers.as_deref() {
            Some(&[first, count, times, rate]) if count > 0 => {
                Ok(Self { first: first as usize, count: count as usize, times: times as usize, rate })
            }
            _ => Err(io::Error::other(format!("expected rooms FIRST COUNT TIMES RATE, found {line:?}"))),
        }
    }

    fn run(&self, askers: &mut Askers, connections: usize) -> io::Result<(LoadReport, Latencies)> {
        let (mut report, mut latencies) = (LoadReport::default(), Latencies::default());
        let mut free: Vec<usize> = (0..connections).collect();
        let mut answers = Vec::new();
        let (total, start) = (self.count * self.times, Instant::now());
        let (mut asked, mut heard_at) = (0, start);
        while report.done + report.errors < total as u64 {
            while asked < self.due(start, total)
                && let Some(asker) = free.pop()
            {
                askers.ask(asker, asked, &joining(&unlike_room_name(self.first + asked % self.count)))?;
                asked += 1;
            }
            let resting = free.len() == connections;
            let paced = self.rate > 0 && asked < total && !free.is_empty();
            askers.receive(if paced { GRAIN } else { ANSWER_MAX }, &mut answers)?;
            let now = Instant::now();
            if resting || !answers.is_empty() {
                heard_at = now;
            } else if now > heard_at + ANSWER_MAX {
                report.errors += (connections - free.len()) as u64;
                break;
            }
            for answer in answers.drain(..) {
                free.push(answer.asker);
                latencies.record(answer.took);
                match answer.shard {
                    Some(_) => report.done += 1,
                    None => report.errors += 1,
                }
            }
        }
        report.busy_us = u64::try_from(start.elapsed().as_micros()).unwrap_or(u64::MAX);
        Ok((report, latencies))
    }

    /// How many questions should have been asked by now.
    fn due(&self, start: Instant, total: usize) -> usize {
        match self.rate {
            0 => total,
            rate => total.min(1 + (start.elapsed().as_secs_f64() * f64::from(rate)) as usize),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wrong_order_is_refused_with_what_was_expected() {
        assert!(Order::parse("rooms 0 10 1 500").is_ok());
        for wrong in ["rooms 0 0 1 1", "rooms 1 2 3", "room 1 2 3 4", "rooms a b c d"] {
            let error = Order::parse(wrong).err().unwrap().to_string();
            assert_eq!(error, format!("expected rooms FIRST COUNT TIMES RATE, found {wrong:?}"));
        }
    }

    #[test]
    fn the_rate_says_how_many_are_due() {
        let start = Instant::now().checked_sub(Duration::from_millis(100)).unwrap();
        let due = Order { first: 0, count: 500, times: 1, rate: 1_000 }.due(start, 500);
        assert!((101..400).contains(&due), "{due}");
        assert_eq!(Order { first: 0, count: 50, times: 1, rate: 0 }.due(start, 50), 50);
    }
}
