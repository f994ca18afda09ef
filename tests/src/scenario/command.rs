//! What a scenario can say, one command a line. `tests/scenarios/README.md` explains them to whoever writes one.

use std::collections::BTreeMap;

use shardgate_peering_core::{PeerId, ShardName};

use super::file::{CommandLine, Fault};
use super::hostile::{self, Hostile};
use super::words::Words;

/// Which events a trace shows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Detail {
    /// All but heartbeats and acks without news, which are counted.
    Events,
    /// Also every ack.
    Acks,
    /// One line a second: how many messages of each kind, and what was decided.
    Seconds,
    /// Nothing.
    Nothing,
}

/// What `wait` waits for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Awaited {
    /// Every claim is answered.
    Answers,
    /// Every running node is ready.
    Ready,
    /// Every running node sees every connected peer in agreement.
    Agreement,
    /// Some running node knows that this conference has ended.
    End(String),
}

/// What a client or an operator does at a node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Act {
    /// A request for a conference that may be new.
    Join(ShardName),
    /// The shard the conference is on could not be reached.
    Down {
        /// That shard.
        failed: ShardName,
        /// Where it would go.
        proposal: ShardName,
    },
    /// The shard the conference is on may not be used.
    Maint {
        /// That shard.
        failed: ShardName,
        /// Where it would go.
        proposal: ShardName,
    },
    /// An operator moves it.
    Set(ShardName),
    /// An operator clears it.
    Clear,
    /// A request that used the entry.
    Touch,
    /// So many tunnels were opened to that shard.
    Open {
        /// It.
        shard: ShardName,
        /// How many.
        people: u64,
    },
    /// So many were closed.
    Close {
        /// It.
        shard: ShardName,
        /// How many.
        people: u64,
    },
}

/// What becomes of the path between two sides.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum PathChange {
    /// Both ends notice at once.
    Cut,
    /// Works again; nodes dial each other anew where they had noticed.
    Heal,
    /// Nothing comes through, and nobody is told.
    Silent,
    /// Only what the first side sends comes through.
    OneWay,
    /// What the first side sends is kept back until `unclog`.
    Clog,
    /// The same, only for reconciliation and other bulk.
    ClogBulk,
    /// What was kept back comes at once.
    Unclog,
}

/// What becomes of a node.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum NodeChange {
    /// It begins to run (and to dial).
    Start,
    /// It is gone, and with it its table.
    Crash,
    /// The same, and it begins anew at once, empty.
    Restart,
    /// Its process does not run; what comes meanwhile it finds at `resume`.
    Pause,
    /// Its machine sleeps: not even the monotonic clock goes on.
    Suspend,
    /// It runs on.
    Resume,
    /// It takes every message and does nothing.
    Hang,
    /// An operator declares it ready.
    Override,
}

/// What becomes of a shard, or of a node's path to it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum ShardChange {
    /// It refuses connections.
    Refuses,
    /// Nothing comes back.
    Silent,
    /// It works.
    Works,
}

/// Whether what is left of a lease is shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Lease {
    /// To the tenth of a second.
    Shown,
    /// No.
    Hidden,
}

/// A question to the reader's eye.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Query {
    /// The entry of a conference at every node.
    Table {
        /// The conference.
        key: String,
        /// Whether to show how much of its lease is left too.
        lease: Lease,
    },
    /// The shard that a request would find at every node.
    Lookup(String),
    /// Whether the tables are equal, and how long they are.
    Tables,
    /// How a node sees its peers.
    Peers(PeerId),
    /// Counters at every node.
    Stats(Vec<String>),
    /// Which peers each node does not agree with.
    Agreement,
    /// Which nodes are ready.
    Ready,
}

/// One command.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Command {
    /// Nodes that list each other. `mesh` also starts them and waits until all are ready.
    Nodes {
        /// Their names.
        names: Vec<PeerId>,
        /// Settings of the nodes and the links between them.
        options: BTreeMap<String, u64>,
        /// Whether they are started.
        start: Start,
    },
    /// Starts the nodes that do not run, waits until all are ready, and begins the time at 0.
    Settle,
    /// Other settings for one node, from its next start on.
    Config {
        /// The node.
        node: PeerId,
        /// Its settings.
        options: BTreeMap<String, u64>,
    },
    /// A short name for a conference whose homes are these, in this order.
    Key {
        /// The short name.
        name: String,
        /// Its first homes.
        homes: Vec<PeerId>,
    },
    /// How long a message travels from the first side to the second.
    Delay {
        /// From these.
        from: Vec<PeerId>,
        /// To these.
        to: Vec<PeerId>,
        /// At least.
        least_ms: u64,
        /// At most.
        most_ms: u64,
    },
    /// Something a client or an operator does.
    Act {
        /// At this node.
        node: PeerId,
        /// The conference.
        key: String,
        /// What.
        act: Act,
    },
    /// Many first joins of rooms `PREFIX-0`, `PREFIX-1` …, one after the other without a pause between them.
    Fill {
        /// At this node.
        node: PeerId,
        /// What the rooms' names begin with.
        prefix: String,
        /// How many.
        count: u64,
        /// To this shard.
        shard: ShardName,
    },
    /// So many first joins a second from now on, each at the next node. 0 ends it.
    Load {
        /// Joins a second.
        per_second: u64,
    },
    /// A path changes.
    Path {
        /// How.
        change: PathChange,
        /// Between these
        from: Vec<PeerId>,
        /// and these. Both empty: everywhere.
        to: Vec<PeerId>,
    },
    /// A shard changes, or the paths to it.
    Shard {
        /// Which.
        shard: ShardName,
        /// How.
        change: ShardChange,
        /// The nodes from which it is seen so; from all when there is none.
        from: Vec<PeerId>,
    },
    /// How long a node's probes of shards take from now on.
    Probes {
        /// The node.
        node: PeerId,
        /// So long.
        takes_ms: u64,
    },
    /// Nodes change.
    Change {
        /// How.
        change: NodeChange,
        /// These.
        nodes: Vec<PeerId>,
    },
    /// A node's wall clock is this far from the true time from now on.
    Clock {
        /// The node.
        node: PeerId,
        /// Milliseconds, negative when it is behind.
        offset_ms: i64,
    },
    /// A node's protocol versions from its next hello on.
    Speaks {
        /// The node.
        node: PeerId,
        /// The oldest.
        oldest: u32,
        /// The newest.
        newest: u32,
    },
    /// Discovery lists these nodes.
    Listed {
        /// At this node; at all when there is none.
        at: Option<PeerId>,
        /// The list.
        listed: Vec<PeerId>,
    },
    /// A node gets a message that the sender's code would never have sent.
    Inject {
        /// Who gets it.
        at: PeerId,
        /// Whose connection it comes on.
        from: PeerId,
        /// The message.
        message: Hostile,
    },
    /// Time passes.
    Run(u64),
    /// Time passes until something is so.
    Wait(Awaited),
    /// How much of the trace is shown.
    Show {
        /// How much.
        detail: Detail,
        /// At these nodes; at all when there is none.
        at: Vec<PeerId>,
    },
    /// Prints what is so now.
    Query(Query),
}

/// Whether nodes are started when they are named.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Start {
    /// And waited for until all are ready.
    Now,
    /// By a later command.
    Later,
}

const COMMANDS: &str = "a command: mesh nodes settle config key delay, join down maint set clear touch open close fill load, cut heal silent \
     oneway clog unclog, shard probes, start crash restart pause suspend resume hang override clock speaks listed inject, run wait show, table \
     lookup tables peers stats agreement ready";

impl Command {
    /// Parses a command's line.
    ///
    /// # Errors
    /// [`Fault`] for the first word that does not fit.
    pub(super) fn parse(file: &str, line: &CommandLine) -> Result<Self, Fault> {
        let mut words = Words::new(file, line.line, &line.text)?;
        let name = words.word(COMMANDS)?;
        let command = match name {
            "mesh" | "nodes" => {
                let start = if name == "mesh" { Start::Now } else { Start::Later };
                Self::Nodes { names: words.nodes()?, options: settings(&mut words)?, start }
            }
            "settle" => Self::Settle,
            "config" => Self::Config { node: words.node()?, options: settings(&mut words)? },
            "key" => {
                let name = words.word("a short name")?.to_owned();
                let homes = words.option("home").unwrap_or_default();
                let homes: Result<_, _> = homes.split(',').map(|name| words.peer(name)).collect();
                Self::Key { name, homes: homes? }
            }
            "delay" => delay(&mut words)?,
            "join" | "down" | "maint" | "set" | "clear" | "touch" | "open" | "close" => {
                act(name, &mut words)?
            }
            "fill" => {
                let node = words.node()?;
                let prefix = words.word("what the rooms' names begin with")?.to_owned();
                let count = words.word("how many")?;
                Self::Fill { node, prefix, count: words.number_of(count)?, shard: words.shard()? }
            }
            "load" => {
                let per_second = words.word("joins a second, 0 to 1000")?;
                match words.number_of(per_second)? {
                    per_second @ 0..=1_000 => Self::Load { per_second },
                    _ => return Err(words.fault(per_second, "joins a second, 0 to 1000")),
                }
            }
            "cut" | "heal" | "silent" | "oneway" | "clog" | "unclog" => path(name, &mut words)?,
            "shard" => shard(&mut words)?,
            "probes" => Self::Probes { node: words.node()?, takes_ms: words.ms()? },
            "start" | "crash" | "restart" | "pause" | "suspend" | "resume" | "hang" | "override" => {
                let change = match name {
                    "start" => NodeChange::Start,
                    "crash" => NodeChange::Crash,
                    "restart" => NodeChange::Restart,
                    "pause" => NodeChange::Pause,
                    "suspend" => NodeChange::Suspend,
                    "resume" => NodeChange::Resume,
                    "hang" => NodeChange::Hang,
                    _ => NodeChange::Override,
                };
                Self::Change { change, nodes: words.nodes()? }
            }
            "clock" => clock(&mut words)?,
            "speaks" => speaks(&mut words)?,
            "listed" => {
                let at = words.word("a node's name, or all")?;
                let at = if at == "all" { None } else { Some(words.peer(at)?) };
                Self::Listed { at, listed: words.nodes()? }
            }
            "inject" => {
                let (at, from) = (words.node()?, words.node()?);
                Self::Inject { at, from, message: hostile::parse(&mut words)? }
            }
            "run" => Self::Run(words.ms()?),
            "wait" => Self::Wait(match words.word("answers, ready, agreement or end")? {
                "answers" => Awaited::Answers,
                "ready" => Awaited::Ready,
                "agreement" => Awaited::Agreement,
                "end" => Awaited::End(words.word("a conference")?.to_owned()),
                other => return Err(words.fault(other, "answers, ready, agreement or end")),
            }),
            "show" => {
                let detail = match words.word("events, acks, seconds or nothing")? {
                    "events" => Detail::Events,
                    "acks" => Detail::Acks,
                    "seconds" => Detail::Seconds,
                    "nothing" => Detail::Nothing,
                    other => return Err(words.fault(other, "events, acks, seconds or nothing")),
                };
                let at: Result<_, _> = words.rest().into_iter().map(|name| words.peer(name)).collect();
                Self::Show { detail, at: at? }
            }
            "table" => {
                let key = words.word("a conference")?.to_owned();
                let lease = match words.optional() {
                    None => Lease::Hidden,
                    Some("lease") => Lease::Shown,
                    Some(other) => return Err(words.fault(other, "lease, or the end of the line")),
                };
                Self::Query(Query::Table { key, lease })
            }
            "lookup" => Self::Query(Query::Lookup(words.word("a conference")?.to_owned())),
            "tables" => Self::Query(Query::Tables),
            "peers" => Self::Query(Query::Peers(words.node()?)),
            "stats" => {
                let mut fields = vec![words.word("a counter")?.to_owned()];
                fields.extend(words.rest().into_iter().map(str::to_owned));
                Self::Query(Query::Stats(fields))
            }
            "agreement" => Self::Query(Query::Agreement),
            "ready" => Self::Query(Query::Ready),
            other => return Err(words.fault(other, COMMANDS)),
        };
        words.end()?;
        Ok(command)
    }
}

/// Settings of a mesh: (name, whether it is a length of time).
const SETTINGS: [(&str, bool); 8] = [
    ("delay", true),
    ("ttl", true),
    ("heartbeat", true),
    ("entries", false),
    ("log", false),
    ("batch", false),
    ("window", false),
    ("claims", false),
];

fn settings(words: &mut Words<'_>) -> Result<BTreeMap<String, u64>, Fault> {
    let mut options = BTreeMap::new();
    for (name, value) in words.options() {
        let Some((_, time)) = SETTINGS.iter().find(|(known, _)| *known == name) else {
            let known: Vec<&str> = SETTINGS.iter().map(|(known, _)| *known).collect();
            return Err(words.fault(name, &format!("a setting: {}", known.join(" "))));
        };
        let value = if *time { words.ms_of(value)? } else { words.number_of(value)? };
        options.insert(name.to_owned(), value);
    }
    Ok(options)
}

fn delay(words: &mut Words<'_>) -> Result<Command, Fault> {
    let (from, to) = (words.side()?, words.side()?);
    let range = words.word("a length of time, or two with .. between them")?;
    let (least, most) = range.split_once("..").unwrap_or((range, range));
    let (least_ms, most_ms) = (words.ms_of(least)?, words.ms_of(most)?);
    if least_ms > most_ms {
        return Err(words.fault(range, "the shorter one first"));
    }
    Ok(Command::Delay { from, to, least_ms, most_ms })
}

fn act(name: &str, words: &mut Words<'_>) -> Result<Command, Fault> {
    let node = words.node()?;
    let key = words.word("a conference")?.to_owned();
    let act = match name {
        "join" => Act::Join(words.shard()?),
        "down" => Act::Down { failed: words.shard()?, proposal: words.shard()? },
        "maint" => Act::Maint { failed: words.shard()?, proposal: words.shard()? },
        "set" => Act::Set(words.shard()?),
        "clear" => Act::Clear,
        "touch" => Act::Touch,
        "open" => Act::Open { shard: words.shard()?, people: people(words)? },
        _ => Act::Close { shard: words.shard()?, people: people(words)? },
    };
    Ok(Command::Act { node, key, act })
}

fn people(words: &mut Words<'_>) -> Result<u64, Fault> {
    words.optional().map_or(Ok(1), |word| words.number_of(word))
}

fn path(name: &str, words: &mut Words<'_>) -> Result<Command, Fault> {
    let everywhere = words.optional();
    let (from, to) = match (everywhere, name) {
        (None, "heal" | "unclog") => (Vec::new(), Vec::new()),
        (None, _) => return Err(words.fault(name, "two sides")),
        (Some(first), _) => {
            let from: Result<Vec<PeerId>, Fault> = first.split(',').map(|name| words.peer(name)).collect();
            (from?, words.side()?)
        }
    };
    let change = match (name, words.optional()) {
        ("clog", Some("bulk")) => PathChange::ClogBulk,
        (_, Some(other)) => return Err(words.fault(other, "the end of the line")),
        ("cut", None) => PathChange::Cut,
        ("heal", None) => PathChange::Heal,
        ("silent", None) => PathChange::Silent,
        ("oneway", None) => PathChange::OneWay,
        ("clog", None) => PathChange::Clog,
        (_, None) => PathChange::Unclog,
    };
    Ok(Command::Path { change, from, to })
}

fn shard(words: &mut Words<'_>) -> Result<Command, Fault> {
    let shard = words.shard()?;
    let expected = "refuses, silent or works";
    let change = match words.word(expected)? {
        "refuses" => ShardChange::Refuses,
        "silent" => ShardChange::Silent,
        "works" => ShardChange::Works,
        other => return Err(words.fault(other, expected)),
    };
    let from = match words.optional() {
        None => Vec::new(),
        Some("from") => words.side()?,
        Some(other) => return Err(words.fault(other, "from and nodes, or the end of the line")),
    };
    Ok(Command::Shard { shard, change, from })
}

fn clock(words: &mut Words<'_>) -> Result<Command, Fault> {
    let node = words.node()?;
    let expected = "+ or - and a length of time";
    let word = words.word(expected)?;
    let (sign, ms) = match word.split_at_checked(1) {
        Some(("+", ms)) => (1, ms),
        Some(("-", ms)) => (-1, ms),
        _ => return Err(words.fault(word, expected)),
    };
    let ms = i64::try_from(words.ms_of(ms)?).map_err(|_| words.fault(word, expected))?;
    Ok(Command::Clock { node, offset_ms: sign * ms })
}

fn speaks(words: &mut Words<'_>) -> Result<Command, Fault> {
    let node = words.node()?;
    let expected = "protocol versions, oldest..newest";
    let word = words.word(expected)?;
    let versions = word.split_once("..").unwrap_or((word, word));
    match (versions.0.parse(), versions.1.parse()) {
        (Ok(oldest), Ok(newest)) if oldest <= newest => Ok(Command::Speaks { node, oldest, newest }),
        _ => Err(words.fault(word, expected)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<Command, String> {
        Command::parse("x.txt", &CommandLine { line: 3, text: text.to_owned() }).map_err(|f| f.to_string())
    }

    #[test]
    fn commands_say_what_they_want() {
        for text in [
            "mesh a b c ttl=10s delay=75",
            "nodes a entries=3",
            "key room home=c,a",
            "delay a,b c 10..20",
            "down a room s1 s2",
            "cut a,b c",
            "shard s1 refuses",
            "shard s1 silent from a,b",
            "probes a 600ms",
            "heal",
            "clog a b bulk",
            "show events a b",
            "clock a -6h",
            "speaks b 1..2",
            "listed all a b",
            "inject a b correction room shard=evil generation=max",
            "wait agreement",
            "stats claims decided_home",
        ] {
            assert!(parse(text).is_ok(), "{text}: {:?}", parse(text));
        }
        for (text, value, expected) in [
            ("joim a room s1", "joim", "a command: mesh"),
            ("join a room", "join a room", "a shard's name"),
            ("mesh a b speed=9", "speed", "a setting: delay ttl"),
            ("cut a b c", "c", "the end of the line"),
            ("shard s1 sleeps", "sleeps", "refuses, silent or works"),
            ("shard s1 works a", "a", "from and nodes"),
            ("cut", "cut", "two sides"),
            ("run soon", "soon", "a length of time"),
            ("delay a b 20..10", "20..10", "the shorter one first"),
            ("clock a 6h", "6h", "+ or - and a length of time"),
            ("wait luck", "luck", "answers, ready, agreement or end"),
        ] {
            let said = parse(text).unwrap_err();
            assert!(said.starts_with(&format!("x.txt:3: {value:?}, expected {expected}")), "{said}");
        }
    }
}
