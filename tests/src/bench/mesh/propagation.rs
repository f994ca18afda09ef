//! How long a new room takes from a request at the first node until a request at the last one goes where it lives.
//!
//! The last node is asked again and again by requests that follow an entry and make none. It prefers the shards of its own region, so
//! an answer from the first node's region says that the entry is there. Both kinds are looked at in this one way; how long one look
//! takes is printed.

use std::io;
use std::time::{Duration, Instant};

use serde_json::json;

use super::super::askers::{Answer, Askers, joining, looking};
use super::super::http_load::room_name;
use super::super::latency::Latencies;
use super::super::report::Report;
use super::fleet::{Fleet, Spec};
use super::run::{Run, ms, quantiles, ratio};

const ARRIVES_MAX: Duration = Duration::from_secs(3);
/// So that one room's afterwork does not meet the next one.
const PAUSE: Duration = Duration::from_millis(3);
const TITLE: &str = "propagation of a new room";

/// What was seen of some rooms.
#[derive(Default)]
pub struct Seen {
    /// From the request at the first node until the last one's answer came from the room's shard.
    pub visible: Latencies,
    /// The first node's answer.
    pub answered: Latencies,
    /// One look at the last node: how fine `visible` is.
    pub look: Latencies,
    /// Rooms that never became visible, or were not answered.
    pub lost: usize,
}

/// Rooms that are new one at a time, looked for at the last node.
pub struct Watch {
    askers: Askers,
    answers: Vec<Answer>,
}

impl Watch {
    /// Connects to both.
    pub fn on(fleet: &Fleet) -> io::Result<Self> {
        let mut askers = Askers::new()?;
        askers.add(fleet.frontend(0))?;
        askers.add(fleet.frontend(fleet.len() - 1))?;
        Ok(Self { askers, answers: vec![] })
    }

    /// Follows the room with this number, which is new.
    pub fn follow(&mut self, fleet: &Fleet, room: usize, seen: &mut Seen) -> io::Result<()> {
        let (join, look) = (joining(&room_name(room)), looking(&room_name(room)));
        let asked = self.askers.ask(0, room, &join)?;
        self.askers.ask(1, room, &look)?;
        let (mut answered, mut visible, mut good) = (false, false, true);
        while !(answered && visible) {
            self.askers.receive(ARRIVES_MAX, &mut self.answers)?;
            let late = asked.elapsed() > ARRIVES_MAX;
            for answer in std::mem::take(&mut self.answers) {
                let home_region = answer.shard.is_some_and(|shard| fleet.spec.region_of_shard(shard) == 0);
                if answer.asker == 0 {
                    answered = true;
                    good &= home_region;
                    seen.answered.record(answer.took);
                } else {
                    seen.look.record(answer.took);
                    visible = home_region;
                    if visible {
                        seen.visible.record(asked.elapsed());
                    } else if !late {
                        self.askers.ask(1, room, &look)?;
                    }
                }
            }
            if late {
                good = false;
                break;
            }
        }
        seen.lost += usize::from(!good);
        std::thread::sleep(PAUSE);
        Ok(())
    }
}

/// Two nodes of each kind, in turns.
pub fn measure(run: &Run<'_>, report: &mut Report) -> io::Result<()> {
    let rooms = run.sized(200, 30);
    let rounds = run.options.rounds as usize;
    let fleets = run.fleets(&Spec::of(1, 2))?;
    let mut lanes = Vec::new();
    for fleet in &fleets {
        let mut watch = Watch::on(fleet)?;
        // The first rooms open connections to shards.
        let mut warming = Seen::default();
        for room in 0..50 {
            watch.follow(fleet, room, &mut warming)?;
        }
        lanes.push((fleet, watch, Seen::default()));
    }
    let began = Instant::now();
    for round in 0..rounds {
        for (fleet, watch, seen) in &mut lanes {
            for room in 0..rooms {
                watch.follow(fleet, 1_000 + round * rooms + room, seen)?;
            }
        }
    }
    report.say(format!(
        "\n{TITLE}: {} rooms each, from the request at A until a request at B goes to its shard ({} s)",
        rooms * rounds,
        began.elapsed().as_secs()
    ));
    report.say(format!(
        "{:<10} {:>10} {:>10} {:>14} {:>14}",
        "subject", "p50 ms", "p99 ms", "answer p50 ms", "one look, p50"
    ));
    let mut p50s = Vec::new();
    for (fleet, _, seen) in &lanes {
        let name = fleet.kind.name();
        let [p50, p99] = [0.5, 0.99].map(|share| ms(&seen.visible, share));
        let (answered, look) = (ms(&seen.answered, 0.5), ms(&seen.look, 0.5));
        report.say(format!("{name:<10} {p50:>10.2} {p99:>10.2} {answered:>14.2} {look:>14.2}"));
        p50s.push((fleet.kind, p50));
        if seen.lost > 0 {
            report.add_void(TITLE, vec![format!("{name}: {} rooms lost", seen.lost)]);
        }
        report.add_section(json!({
            "title": TITLE, "subject": name, "rooms": rooms * rounds, "visible": quantiles(&seen.visible),
            "answered": quantiles(&seen.answered), "look": quantiles(&seen.look), "lost": seen.lost,
        }));
    }
    if let Some(ratio) = ratio(&p50s) {
        report.say(format!("p50 shardgate / HAProxy: {ratio:.3}"));
        report.judge(TITLE, "p50", ratio);
    }
    Ok(())
}
