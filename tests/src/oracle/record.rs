//! The recordings as they stand in their files.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::Path;

use serde::Deserialize;
use serde::de::DeserializeOwned;

/// What a variant of the environment is called: `main`, or one that differs in a few things.
pub type Variant = String;

/// One variant, as far as it says anything.
#[derive(Debug, Clone, Deserialize)]
pub(super) struct Environment {
    pub(super) local_region: Option<String>,
    pub(super) regions_in_order: Option<Vec<String>>,
    /// The outer `None`: as in `main`; the inner one: there is none.
    #[serde(default, deserialize_with = "given")]
    pub(super) live: Option<Option<String>>,
    pub(super) maps: Option<Maps>,
    #[serde(default)]
    pub(super) backends: BTreeMap<String, serde_json::Value>,
    pub(super) shards: Option<Vec<Shard>>,
    #[serde(default)]
    pub(super) standalones: Vec<Shard>,
}

fn given<'d, D: serde::Deserializer<'d>>(deserializer: D) -> Result<Option<Option<String>>, D::Error> {
    Option::<String>::deserialize(deserializer).map(Some)
}

/// HAProxy's maps, each in the order of its file.
#[derive(Debug, Clone, Deserialize)]
pub(super) struct Maps {
    pub(super) tenant: Vec<(String, String)>,
    #[serde(flatten)]
    pub(super) bans: BTreeMap<String, Vec<(String, String)>>,
}

/// A shard as Consul has it.
#[derive(Debug, Clone, Deserialize)]
pub(super) struct Shard {
    pub(super) n: u8,
    pub(super) region: String,
    pub(super) release: String,
    pub(super) status: String,
    pub(super) name: String,
}

/// A request and what HAProxy made of it.
#[derive(Debug, Clone, Deserialize)]
pub(super) struct Vector {
    pub(super) id: String,
    pub(super) variant: Variant,
    pub(super) request: Request,
    pub(super) result: Outcome,
    pub(super) rules: Vec<String>,
}

/// A request; a character from U+0080 to U+00FF stands for that byte.
#[derive(Debug, Clone, Deserialize)]
pub(super) struct Request {
    pub(super) method: String,
    pub(super) target: String,
    pub(super) http_version: String,
    pub(super) headers: Vec<(String, String)>,
    pub(super) body: Option<String>,
}

/// Who gave the answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum DecidedBy {
    /// HAProxy, before any rule.
    Parser,
    /// A rule of the frontend, or there was no backend.
    Frontend,
    /// HAProxy, after the backend was chosen.
    Backend,
    /// The server.
    Server,
}

/// One line, several lines, or the header is absent.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(untagged)]
pub(super) enum Lines {
    /// One, perhaps empty.
    One(String),
    /// Several.
    Many(Vec<String>),
}

/// What HAProxy made of a request.
#[derive(Debug, Clone, Deserialize)]
pub(super) struct Outcome {
    pub(super) status: u16,
    pub(super) location: Option<String>,
    pub(super) decided_by: DecidedBy,
    pub(super) backend: Option<String>,
    pub(super) x_room: Option<Lines>,
    pub(super) x_group: Option<Lines>,
    pub(super) x_stick_token: Option<Lines>,
    pub(super) stick_token_flag: Option<Lines>,
    pub(super) stored_in_table: Option<String>,
    #[serde(default)]
    pub(super) response_headers: BTreeMap<String, Vec<String>>,
    pub(super) to_server: Option<BTreeMap<String, Vec<String>>>,
    #[serde(default)]
    pub(super) candidates: Option<Vec<String>>,
    pub(super) server: Option<String>,
    /// Steps only: candidates without who was reached there.
    #[serde(default)]
    pub(super) candidates_except_server_of_step: Vec<u32>,
    /// In sequences: the keys that were written, where that was looked at.
    pub(super) table_changed: Option<Vec<String>>,
}

/// Requests with what happens around them, on a freshly started HAProxy.
#[derive(Debug, Clone, Deserialize)]
pub(super) struct Sequence {
    pub(super) id: String,
    pub(super) variant: Variant,
    pub(super) rules: Vec<String>,
    pub(super) steps: Vec<Step>,
}

/// One step of a sequence.
#[derive(Debug, Clone, Deserialize)]
pub(super) struct Step {
    pub(super) n: u32,
    /// The region of the node that is asked, where there are two.
    pub(super) at: Option<String>,
    #[serde(flatten)]
    pub(super) what: What,
}

/// What a step does.
#[derive(Debug, Clone, Deserialize)]
#[serde(tag = "do", rename_all = "snake_case")]
pub(super) enum What {
    Request {
        request: Request,
        result: Box<Outcome>,
        relation: Option<Relation>,
    },
    Spread(Many),
    Repeat(Many),
    Table {
        keys: Vec<String>,
        #[serde(default)]
        entry_set_by_step: BTreeMap<String, Option<u32>>,
    },
    TableSet {
        key: String,
        shard: String,
    },
    TableSetId {
        key: String,
        id: u16,
    },
    ClearTable,
    StickElsewhere {
        token: String,
        join: String,
    },
    ServerState {
        backend: String,
        shards: Vec<ShardRef>,
        state: String,
    },
    Weight {
        shards: Vec<ShardRef>,
        weight: Weight,
    },
    Map {
        op: String,
        map: String,
        key: Option<String>,
        value: Option<String>,
    },
    Close {
        shards: Vec<ShardRef>,
    },
    Open {
        shards: Vec<ShardRef>,
    },
    Expiry {
        key: String,
        expiry_seconds_left: u64,
    },
    Sleep {
        seconds: f64,
    },
    Concurrent {
        target: String,
        count: u32,
        delay: f64,
        same_as: Option<u32>,
    },
    Keepalive {
        requests: Vec<String>,
        results: Vec<Kept>,
    },
    During {
        request: String,
        delay: f64,
        keys_after: Vec<String>,
    },
    CompareHash {
        target: String,
        count: u32,
        same: u32,
    },
    Start,
    Race {
        targets: Vec<(String, String)>,
    },
    RaceMany {
        count: u32,
    },
    Agent {
        shards: Vec<ShardRef>,
        says: String,
    },
    States {
        shards: Vec<ShardRef>,
        states: BTreeMap<String, String>,
    },
    #[serde(other)]
    Unknown,
}

/// Many requests, one after the other; `{n}` in the target counts them.
#[derive(Debug, Clone, Deserialize)]
pub(super) struct Many {
    pub(super) target: String,
    pub(super) count: u32,
    /// Exactly who is reached.
    pub(super) servers_seen: Option<Vec<String>>,
    /// Who is not.
    #[serde(default)]
    pub(super) never: Vec<ShardRef>,
    /// How many are reached.
    pub(super) distinct: Option<usize>,
    /// Whether how many each gets is what the step is about: the one with the lowest weight gets least by far.
    #[serde(default)]
    pub(super) share: bool,
    pub(super) statuses: BTreeMap<String, u32>,
}

/// Who is reached, seen from another step.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Relation {
    SameAs(u32),
    DiffersFrom(u32),
    Is(String),
    In(Vec<String>),
}

/// A shard by its short name, or the one that a step reached.
#[derive(Debug, Clone, Deserialize)]
#[serde(untagged)]
pub(super) enum ShardRef {
    Name(String),
    Reached { step: u32 },
}

/// `set server .. weight`: a number, or percent of the weight that the server began with.
#[derive(Debug, Clone, Deserialize)]
#[serde(untagged)]
pub(super) enum Weight {
    Number(u16),
    Text(String),
}

impl Weight {
    /// As shards have it, 0 to 256, which they begin with; `None` for what is no weight.
    pub(super) fn of_256(&self) -> Option<u16> {
        let weight = match self {
            Self::Number(weight) => *weight,
            Self::Text(text) => match text.strip_suffix('%') {
                Some(percent) => percent.parse::<u16>().ok()?.checked_mul(256)? / 100,
                None => text.parse().ok()?,
            },
        };
        (weight <= 256).then_some(weight)
    }
}

/// A request on a connection that is kept.
#[derive(Debug, Clone, Deserialize)]
pub(super) struct Kept {
    pub(super) target: String,
    pub(super) status: u16,
    pub(super) backend: Option<String>,
    pub(super) stick_token_flag: Option<String>,
    pub(super) x_stick_token: Option<String>,
}

/// Reads a folder's environment.
pub(super) fn environments(folder: &Path) -> io::Result<BTreeMap<Variant, Environment>> {
    let file = folder.join("environment.json");
    let text = fs::read_to_string(&file).map_err(|error| named(&file, &error))?;
    serde_json::from_str(&text).map_err(|error| named(&file, &error))
}

/// Reads a file with a record on each line.
pub(super) fn lines<T: DeserializeOwned>(file: &Path) -> io::Result<Vec<T>> {
    let text = fs::read_to_string(file).map_err(|error| named(file, &error))?;
    let records = text.lines().enumerate().map(|(index, line)| {
        serde_json::from_str(line)
            .map_err(|error| io::Error::other(format!("{}:{}: {error}", file.display(), index + 1)))
    });
    records.collect()
}

fn named(file: &Path, error: &dyn std::fmt::Display) -> io::Error {
    io::Error::other(format!("{}: {error}", file.display()))
}
