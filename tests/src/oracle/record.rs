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
