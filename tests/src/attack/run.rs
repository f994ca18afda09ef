//! One attack after the other, each judged: the normal load saw no error, memory stayed below the ceiling, the node lives, and the
//! defence that was expected was seen. Latencies are told, never judged: two cores bear node, shards, load and attacker.

use std::io;
use std::rc::Rc;
use std::sync::mpsc::{Receiver, channel};
use std::thread;
use std::time::{Duration, Instant};

use tokio::sync::oneshot;
use tokio::task::LocalSet;

use super::dial::{Dialer, Doors};
use super::ground::{CEILING_MIB, Ground, Metrics};
use super::load::{Load, Seen, TUNNELS_ALL};
use super::tally::{Attack, Attacker, Counts, Tally};
use super::{floods, heads, readers, rooms, slow, tunnels};
use crate::bench::cpu::{CpuReading, resident_bytes};

/// How long the normal load is measured before each attack.
const BEFORE: Duration = Duration::from_secs(4);
const SAMPLE_EVERY: Duration = Duration::from_millis(50);
/// Until the normal load runs, and until an attack's connections are gone.
const SETTLED_MAX: Duration = Duration::from_secs(20);
/// An attack that does not end by itself so long after its time is stuck.
const STUCK: Duration = Duration::from_secs(20);
const MIB: u64 = 1024 * 1024;

/// An attack and what should come of it.
pub struct Plan {
    /// What it is called.
    pub name: &'static str,
    /// The third octet of its source addresses, of which it has `sources`.
    third_octet: u8,
    sources: u8,
    length: Duration,
    attack: fn(Rc<Attacker>) -> Attack,
    /// What is missing of the defence, if anything.
    judge: fn(&Evidence<'_>) -> Result<(), String>,
}

/// What an attack did and what the node counted, when it ended.
struct Evidence<'e> {
    tally: &'e Tally,
    before: &'e Metrics,
    end: &'e Metrics,
    orphans: u64,
}

impl Evidence<'_> {
    fn counted(&self, metric: &str) -> u64 {
        self.end.since(self.before, metric)
    }

    fn seen(&self, what: &str) -> u64 {
        self.tally.seen.get(what).copied().unwrap_or(0)
    }
}

fn at_least(what: &str, found: u64, wanted: u64) -> Result<(), String> {
    if found >= wanted { Ok(()) } else { Err(format!("{what}: {found}, expected at least {wanted}")) }
}

fn at_most(what: &str, found: u64, wanted: u64) -> Result<(), String> {
    if found <= wanted { Ok(()) } else { Err(format!("{what}: {found}, expected at most {wanted}")) }
}

const HEAD_TIMEOUTS: &str = "timeouts_total{kind=\"head\"}";
const CLIENT_TIMEOUTS: &str = "timeouts_total{kind=\"client\"}";
const NEW_KEYS_REFUSED: &str = "refused_total{reason=\"new_key_rate\"}";
const CALMED: &str = "http2_calmed_total";
const HANDSHAKES_FAILED: &str = "tls_handshakes_failed_total";
/// What the table may hold: the normal load's rooms, those that an attack needs, and what one address may make: 200 at once and 20 a
/// second.
const ENTRIES_MAX: u64 = 2_000;

/// All attacks in their order.
pub const PLANS: &[Plan] = &[
    Plan {
        name: "slowloris",
        third_octet: 61,
        sources: 4,
        length: Duration::from_secs(7),
        attack: slow::slowloris,
        judge: |e| {
            at_least("heads timed out", e.counted(HEAD_TIMEOUTS), slow::SLOW * 9 / 10)?;
            at_least("408 seen", e.seen("408"), slow::SLOW * 9 / 10)
        },
    },
    Plan {
        name: "rapid-reset",
        third_octet: 62,
        sources: 2,
        length: Duration::from_secs(6),
        attack: floods::rapid_reset,
        judge: |e| at_least("GOAWAY ENHANCE_YOUR_CALM seen", e.seen("calmed"), 10),
    },
    Plan {
        name: "header-floods",
        third_octet: 63,
        sources: 2,
        length: Duration::from_secs(6),
        attack: heads::too_large,
        judge: |e| {
            heads::ENDED.into_iter().try_for_each(|ended| at_least(ended, e.seen(ended), 3))?;
            at_most("heads taken to the end", e.seen("taken to the end"), 0)?;
            at_least("431 seen", e.seen("431"), 10)
        },
    },
    Plan {
        name: "invented-rooms",
        third_octet: 64,
        sources: 1,
        length: Duration::from_secs(40),
        attack: rooms::invented,
        judge: |e| {
            at_least("rooms asked for", e.tally.sent.values().sum(), rooms::ROOMS)?;
            at_least("429 seen", e.seen("429"), rooms::ROOMS / 100 * 99)?;
            at_least("new keys refused", e.counted(NEW_KEYS_REFUSED), rooms::ROOMS / 100 * 99)?;
            at_most("entries in the table", e.end.get("table_entries"), ENTRIES_MAX)
        },
    },
    Plan {
        name: "half-open-tunnels",
        third_octet: 65,
        sources: 4,
        length: Duration::from_secs(9),
        attack: tunnels::half_open,
        judge: |e| {
            let opened = e.tally.sent.iter().filter(|(what, _)| **what != "messages").map(|(_, many)| many);
            at_least("tunnels opened", opened.sum(), tunnels::TUNNELS)?;
            at_most("tunnels still open", e.end.get("tunnels_open"), TUNNELS_ALL)
        },
    },
    Plan {
        name: "never-reading",
        third_octet: 66,
        sources: 4,
        length: Duration::from_secs(7),
        attack: readers::never_reading,
        judge: |e| {
            at_least("requests", e.tally.sent.values().sum(), readers::READERS)?;
            at_least("clients timed out", e.counted(CLIENT_TIMEOUTS), readers::READERS * 9 / 10)?;
            at_most("sockets that the kernel keeps for them", e.orphans, readers::READERS / 10)
        },
    },
    Plan {
        name: "idle-frames",
        third_octet: 67,
        sources: 4,
        length: Duration::from_secs(6),
        attack: floods::idle_frames,
        judge: |e| {
            floods::CALMED.into_iter().try_for_each(|calmed| at_least(calmed, e.seen(calmed), 1))?;
            at_least("connections calmed", e.counted(CALMED), 10)
        },
    },
    Plan {
        name: "half-handshakes",
        third_octet: 68,
        sources: 4,
        length: Duration::from_secs(6),
        attack: slow::handshakes,
        judge: |e| at_least("handshakes failed", e.counted(HANDSHAKES_FAILED), slow::HANDSHAKES * 9 / 10),
    },
];

/// What came of one attack: a line for the table, and what was wrong.
pub struct Outcome {
    /// The line.
    pub row: String,
    /// Nothing, when it passed.
    pub faults: Vec<String>,
}

/// The head of the table that [`Outcome::row`] is a line of.
#[must_use]
pub fn heading() -> String {
    format!(
        "{:<18} {:>15} {:>15} {:>15} {:>6} {:>17} {:>8}  sent | seen | counted by the node",
        "attack",
        "p50/p99 before",
        "p50/p99 during",
        "echo p99 b/d",
        "errors",
        "MiB idle/peak/TCP",
        "node CPU"
    )
}

/// A node with its normal load.
pub struct Field {
    ground: Ground,
    load: Load,
    connections: u64,
}

impl Field {
    /// Starts the normal load and waits until it runs without errors.
    ///
    /// # Errors
    /// It does not.
    pub fn new(ground: Ground) -> io::Result<Self> {
        let load = Load::start(&ground.doors)?;
        let deadline = Instant::now() + SETTLED_MAX;
        loop {
            thread::sleep(Duration::from_secs(2));
            let seen = load.take();
            if seen.errors.is_empty() && seen.requests.count() > 400 && seen.echoes.count() >= TUNNELS_ALL {
                break;
            }
            if Instant::now() > deadline {
                let numbers = (seen.requests.count(), seen.echoes.count());
                let log = ground.log();
                let why = format!("the normal load does not run: {numbers:?}, {:?}\n{log}", seen.errors);
                return Err(io::Error::other(why));
            }
        }
        // Its few new connections come and go.
        let connections = ground.metrics()?.get("connections_open") + 10;
        Ok(Self { ground, load, connections })
    }

    /// Runs one attack.
    ///
    /// # Errors
    /// The node has ended, or the attack could not be run at all.
    pub fn attack(&self, plan: &Plan) -> io::Result<Outcome> {
        let Self { ground, load, .. } = self;
        let mut errors = load.take().errors;
        thread::sleep(BEFORE);
        let before = load.take();
        let (counts_before, idle, cpu) =
            (ground.metrics()?, resident_bytes(ground.pid())?, CpuReading::of(ground.pid())?);
        let began = Instant::now();
        let running = Running::start(plan, &ground.doors)?;
        let (mut peak, mut sockets) = (idle, 0);
        let tally = loop {
            peak = peak.max(resident_bytes(ground.pid())?);
            sockets = sockets.max(tcp_memory()?);
            match running.tally.recv_timeout(SAMPLE_EVERY) {
                Ok(tally) => break tally?,
                Err(_) if began.elapsed() > plan.length + STUCK => {
                    return Err(io::Error::other(format!("{}: stuck", plan.name)));
                }
                Err(_) => {}
            }
        };
        // The attack still holds what the node has left it.
        let end = ground.metrics()?;
        let orphans = orphans()?;
        let lives = ground.says_ok("/livez");
        let cores = CpuReading::of(ground.pid())?.since(&cpu).ns as f64 / began.elapsed().as_nanos() as f64;
        let during = load.take();
        running.release();
        let settled = self.settle(&mut peak)?;
        let after = load.take();

        let mut faults = Vec::new();
        if !lives {
            faults.push("/livez is not answered".to_owned());
        }
        if peak >= CEILING_MIB * MIB {
            faults.push(format!("{} MiB resident, the ceiling is {CEILING_MIB}", peak / MIB));
        }
        if !settled {
            faults.push("its connections are still open after it ended".to_owned());
        }
        let evidence = Evidence { tally: &tally, before: &counts_before, end: &end, orphans };
        faults.extend((plan.judge)(&evidence).err());
        for (error, many) in before.errors.iter().chain(&during.errors).chain(&after.errors) {
            *errors.entry(error.clone()).or_default() += many;
        }
        faults.extend(errors.iter().map(|(error, many)| format!("normal load: {many} x {error}")));
        let row = row(plan, &before, &during, errors.values().sum(), [idle, peak, sockets], cores, &evidence);
        Ok(Outcome { row, faults })
    }

    /// Waits until the node has only the normal load's connections.
    fn settle(&self, peak: &mut u64) -> io::Result<bool> {
        let deadline = Instant::now() + SETTLED_MAX;
        while Instant::now() < deadline {
            *peak = (*peak).max(resident_bytes(self.ground.pid())?);
            if self.ground.metrics()?.get("connections_open") <= self.connections {
                return Ok(true);
            }
            thread::sleep(SAMPLE_EVERY);
        }
        Ok(false)
    }
}

fn row(
    plan: &Plan,
    before: &Seen,
    during: &Seen,
    errors: u64,
    bytes: [u64; 3],
    cores: f64,
    evidence: &Evidence<'_>,
) -> String {
    let ms = |us: u64| us as f64 / 1000.0;
    let requests = |seen: &Seen| {
        format!("{:.1}/{:.1} ms", ms(seen.requests.quantile_us(0.5)), ms(seen.requests.quantile_us(0.99)))
    };
    let echo = |seen: &Seen| ms(seen.echoes.quantile_us(0.99));
    let list = |counts: &Counts| {
        let words: Vec<_> = counts.iter().map(|(what, many)| format!("{what} {many}")).collect();
        words.join(", ")
    };
    let interesting = [
        HEAD_TIMEOUTS,
        CLIENT_TIMEOUTS,
        "timeouts_total{kind=\"body\"}",
        "timeouts_total{kind=\"server\"}",
        "tunnel_ends_total{why=\"idle\"}",
        NEW_KEYS_REFUSED,
        CALMED,
        HANDSHAKES_FAILED,
        "parse_refusals_total",
        "refused_total{reason=\"memory\"}",
        "refused_total{reason=\"descriptors\"}",
    ];
    let counted: Vec<_> = interesting
        .into_iter()
        .map(|name| (name, evidence.counted(name)))
        .filter(|(_, many)| *many > 0)
        .map(|(name, many)| format!("{} {many}", name.replace("_total", "")))
        .chain([format!("table_entries {}", evidence.end.get("table_entries"))])
        .collect();
    format!(
        "{:<18} {:>15} {:>15} {:>15} {:>6} {:>17} {:>8}  {} | {} | {}",
        plan.name,
        requests(before),
        requests(during),
        format!("{:.1}/{:.1} ms", echo(before), echo(during)),
        errors,
        bytes.map(|bytes| (bytes / MIB).to_string()).join("/"),
        format!("{cores:.2}"),
        list(&evidence.tally.sent),
        list(&evidence.tally.seen),
        counted.join(", "),
    )
}

/// What the kernel keeps for TCP sockets of this machine, in bytes.
fn tcp_memory() -> io::Result<u64> {
    const PAGE: u64 = 4096;
    Ok(sockstat("mem")? * PAGE)
}

/// Sockets that were closed with something that their other side does not read.
fn orphans() -> io::Result<u64> {
    sockstat("orphan")
}

/// A number of the TCP sockets of this machine.
fn sockstat(name: &str) -> io::Result<u64> {
    let text = std::fs::read_to_string("/proc/net/sockstat")?;
    let mut words = text.lines().find_map(|line| line.strip_prefix("TCP:")).unwrap_or("").split(' ');
    let number = words.find(|word| *word == name).and_then(|_| words.next()?.parse().ok());
    number.ok_or_else(|| io::Error::other(format!("/proc/net/sockstat has no {name} of TCP")))
}

/// An attack on its own thread, so that it does not stand in the way of what is measured.
struct Running {
    tally: Receiver<io::Result<Tally>>,
    release: oneshot::Sender<()>,
    thread: thread::JoinHandle<()>,
}

impl Running {
    fn start(plan: &Plan, doors: &Doors) -> io::Result<Self> {
        let (told, tally) = channel();
        let (release, released) = oneshot::channel();
        let doors = doors.clone();
        let &Plan { third_octet, sources, length, attack, .. } = plan;
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let attacking = move || {
            let run = async {
                let attacker = Attacker::new(Dialer::new(&doors, third_octet, sources)?, length);
                attack(Rc::clone(&attacker)).await;
                Ok(attacker.tally())
            };
            LocalSet::new().block_on(&runtime, async {
                // Whoever asked may have given up; then nothing is to be held either.
                if told.send(run.await).is_ok() {
                    released.await.ok();
                }
            });
        };
        let thread = thread::Builder::new().name("attacker".to_owned()).spawn(attacking)?;
        Ok(Self { tally, release, thread })
    }

    /// Lets the attack close everything.
    fn release(self) {
        drop(self.release);
        // A panic there shows by a tally that never came.
        self.thread.join().ok();
    }
}
