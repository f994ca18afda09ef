//! The file as it is written: names and nesting are checked here, values are not. Every leaf keeps its place in the text and
//! may be of any type, so that one pass in [`super::check`] words all complaints about values.

use super::fault::{Faults, Problem};
use crate::bans::BanList;
use serde::Deserialize;
use std::collections::BTreeMap;
use toml::{Spanned, Value};

/// A value of any type, with its place.
pub(super) type Leaf = Option<Spanned<Value>>;

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawFile {
    pub(super) live_release: Leaf,
    #[serde(default)]
    pub(super) shards: Vec<Spanned<RawShard>>,
    #[serde(default)]
    pub(super) peers: Vec<Spanned<RawPeer>>,
    #[serde(default)]
    pub(super) pins: BTreeMap<Spanned<String>, Spanned<Value>>,
    #[serde(default)]
    pub(super) bans: RawBans,
}

/// Each entry is a pattern that bans, or a table with a pattern and its verdict.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default, expecting = "a table of ban lists")]
pub(super) struct RawBans {
    pub(super) domain: Vec<Spanned<Value>>,
    pub(super) exact: Vec<Spanned<Value>>,
    pub(super) prefix: Vec<Spanned<Value>>,
    pub(super) substr: Vec<Spanned<Value>>,
    pub(super) unban_prefix: Vec<Spanned<Value>>,
    pub(super) room: Vec<Spanned<Value>>,
    pub(super) tenant: Vec<Spanned<Value>>,
}

impl RawBans {
    pub(super) fn into_lists(self) -> [(BanList, Vec<Spanned<Value>>); 7] {
        let Self { domain, exact, prefix, substr, unban_prefix, room, tenant } = self;
        [
            (BanList::Domain, domain),
            (BanList::Exact, exact),
            (BanList::Prefix, prefix),
            (BanList::Substr, substr),
            (BanList::UnbanPrefix, unban_prefix),
            (BanList::Room, room),
            (BanList::Tenant, tenant),
        ]
    }
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, expecting = "a table with the fields of a shard")]
pub(super) struct RawShard {
    pub(super) name: Leaf,
    pub(super) id: Leaf,
    pub(super) region: Leaf,
    pub(super) release: Leaf,
    pub(super) address: Leaf,
    pub(super) state: Leaf,
    pub(super) weight: Leaf,
    pub(super) agent_port: Leaf,
    #[serde(default)]
    pub(super) state_in: BTreeMap<Spanned<String>, Spanned<Value>>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, expecting = "a table with the fields of a peer")]
pub(super) struct RawPeer {
    pub(super) id: Leaf,
    pub(super) region: Leaf,
    pub(super) address: Leaf,
}

pub(super) fn parse(text: &str) -> Result<RawFile, Faults> {
    toml::from_str(text).map_err(|mut error| {
        let span = error.span().unwrap_or(0..0);
        // Without its input the error says in which field it happened, and draws no picture of the line.
        error.set_input(None);
        let text_of_error = error.to_string();
        let mut lines = text_of_error.trim_end().lines();
        // serde's words for what people know as a list of tables and as a table.
        let what = lines.next().unwrap_or("is no TOML");
        let what =
            what.replace("expected a sequence", "expected a list of tables (each begins with [[...]])");
        let message = what.replace("expected a map", "expected a table");
        let field = lines.next().and_then(|line| line.strip_prefix("in `")?.strip_suffix('`')).unwrap_or("");
        let mut faults = Faults::default();
        faults.push(text, &span, field.to_owned(), Problem::Structure { message });
        faults
    })
}
