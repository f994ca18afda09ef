//! How long a new room takes from a request at the first node until a request at the last one goes where it lives.
//!
//! The last node is asked again and again by requests that follow an entry and make none. It prefers the shards of its own region, so
//! an answer from the first node's region says that the entry is there. Both kinds are looked at in this one way. A look takes as
//! long as a request does, which differs between the kinds, so the entry counts as there in the middle of the look that saw it; how
//! long one look takes, and so how fine the figure is, is printed.

use std::io;
use std::time::{Duration, Instant};

use serde_json::json;

use super::super::askers::{Answer, Askers, joining, looking};
use super::super::latency::Latencies;
use super::super::report::{FLOOR, Report};
use super::super::room_names::unlike_room_name;
use super::super::subject::Kind;
use super::fleet::{Fleet, Spec};
use super::run::{Run, ms, quantiles, ratio};
use super::shardgates::home_of_room;

const ARRIVES_MAX: Duration = Duration::from_secs(3);
/// So that one room's afterwork does not meet the next one.
const PAUSE: Duration = Duration::from_millis(3);
const TITLE: &str = "propagation of a new room";

/// What was seen of some rooms.
#[derive(Default)]
pub struct Seen {
    /// From the request at the first node until the middle of the look at the last one that saw the room's shard.
    pub visible: Latencies,
    /// Until that look's answer.
    pub answered_right: Latencies,
    /// The same of shardgate's rooms whose home is the first node, and of the others.
    pub by_home: [Latencies; 2],
    /// The first node's answer.
    pub answered: Latencies,
    /// One look at the last node: how fine `visible` is.
    pub look: Latencies,
    /// Rooms that never became visible, or were not answered.
    pub lost: usize,
}

impl Seen {
    /// A few may take too long on a busy machine; more make the figures worthless.
    pub fn judge_lost(&self, name: &str, title: &str, report: &mut Report) {
        let reason = format!("{name}: {} rooms not visible within 3 s, or without a good answer", self.lost);
        let all = self.visible.count() + self.lost as u64;
        if self.lost as u64 * 100 > all {
            report.add_void(title, vec![reason]);
        } else if self.lost > 0 {
            report.say(reason);
        }
    }
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
        let at_first = fleet.kind != Kind::Shardgate || home_of_room(fleet.len(), room)? == 0;
        let (join, look) = (joining(&unlike_room_name(room)), looking(&unlike_room_name(room)));
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
                    good &= answer.shard.is_some();
                    if visible {
                        seen.answered_right.record(asked.elapsed());
                        let took = asked.elapsed().saturating_sub(answer.took / 2);
                        seen.visible.record(took);
                        seen.by_home[usize::from(!at_first)].record(took);
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
        "\n{TITLE}: {} rooms each, from the request at A until B knows it ({} s)",
        rooms * rounds,
        began.elapsed().as_secs()
    ));
    report.say(format!(
        "{:<10} {:>10} {:>10} {:>18} {:>16} {:>15}",
        "subject", "p50 ms", "p99 ms", "right answer at B", "answer at A", "one look (p50)"
    ));
    let mut p50s = Vec::new();
    for (fleet, _, seen) in &lanes {
        let name = fleet.kind.name();
        let [p50, p99] = [0.5, 0.99].map(|share| ms(&seen.visible, share));
        let [right, answered, look] =
            [&seen.answered_right, &seen.answered, &seen.look].map(|latencies| ms(latencies, 0.5));
        report.say(format!("{name:<10} {p50:>10.2} {p99:>10.2} {right:>18.2} {answered:>16.2} {look:>15.2}"));
        if fleet.kind == Kind::Shardgate {
            let [at_a, at_b] = [0, 1].map(|home: usize| ms(&seen.by_home[home], 0.5));
            report.say(format!(
                "{:<10} {at_a:>10.2} ms p50 where A is the room's home, {at_b:.2} where B is",
                ""
            ));
        }
        p50s.push((fleet.kind, p50));
        seen.judge_lost(name, TITLE, report);
        report.add_section(json!({
            "title": TITLE, "subject": name, "rooms": rooms * rounds, "visible": quantiles(&seen.visible),
            "visible_home_first": quantiles(&seen.by_home[0]), "visible_home_other": quantiles(&seen.by_home[1]), "answered_right": quantiles(&seen.answered_right), "answered": quantiles(&seen.answered), "look": quantiles(&seen.look), "lost": seen.lost,
        }));
    }
    if let Some(ratio) = ratio(&p50s) {
        report.say(format!("p50 shardgate / HAProxy: {ratio:.3}"));
        report.judge(TITLE, "p50", ratio, FLOOR);
    }
    Ok(())
}
