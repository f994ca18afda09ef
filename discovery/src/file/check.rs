//! From the raw file to a snapshot: every value is parsed into its type here, once.

use super::fault::{Faults, Problem, position};
use super::raw::{Leaf, RawFile, RawPeer, RawShard};
use crate::bans::{BANS_MAX, BanList, Verdict};
use crate::name::{BanPattern, RegionName, ReleaseName, TenantName};
use crate::shard::{PeerNode, SHARD_ID_MAX, Shard, ShardState, WEIGHT_MAX};
use crate::snapshot::{BuildError, BuildErrors, PEERS_MAX, PINS_MAX, SHARDS_MAX, Snapshot, SnapshotBuilder};
use shardgate_peering_core::{PeerId, ShardName};
use std::fmt;
use std::net::SocketAddr;
use std::ops::Range;
use std::ops::RangeInclusive;
use toml::{Spanned, Value};

type Span = Range<usize>;

const SHARD_NAME: &str = "a text of 1 to 128 of A-Z a-z 0-9 . _ -";
const PEER_ID: &str = "a text of 1 to 63 of a-z 0-9 -, not at its ends";
const RELEASE: &str = "a text such as \"release-3630\", 1 to 128 of A-Z a-z 0-9 . _ -";
const REGION: &str = "a text such as \"us-phoenix-1\", 1 to 64 of A-Z a-z 0-9 . _ -";
const ADDRESS: &str = "an IP address and port to dial, such as \"10.0.0.1:5280\"";
const BAN: &str =
    "a pattern, 1 to 256 visible ASCII characters, or { pattern = \"...\", verdict = \"ban\" or \"allow\" }";
const STATE: &str = "\"ready\", \"drain\" or \"maint\"";

/// Where a field stands: `shards[3].address`.
#[derive(Clone, Copy)]
struct Field {
    list: &'static str,
    index: usize,
    name: &'static str,
}

impl fmt::Display for Field {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}[{}].{}", self.list, self.index, self.name)
    }
}

/// Which entry of the file an entry of the builder came from, and where the values are that must be unique.
struct Origin {
    index: usize,
    name: Span,
    id: Span,
}

struct Checker<'a> {
    text: &'a str,
    faults: Faults,
}

pub(super) fn check(text: &str, raw: RawFile) -> Result<Snapshot, Faults> {
    let mut checker = Checker { text, faults: Faults::default() };
    checker.bound("shards", raw.shards.first().map(Spanned::span), raw.shards.len(), SHARDS_MAX);
    checker.bound("peers", raw.peers.first().map(Spanned::span), raw.peers.len(), PEERS_MAX);
    checker.bound("pins", raw.pins.keys().next().map(Spanned::span), raw.pins.len(), PINS_MAX);
    let ban_lists = raw.bans.into_lists();
    let (bans, first) = (
        ban_lists.iter().map(|(_, list)| list.len()).sum(),
        ban_lists.iter().find_map(|(_, list)| list.first()),
    );
    checker.bound("bans", first.map(Spanned::span), bans, BANS_MAX);
    if !checker.faults.is_empty() {
        return Err(checker.faults);
    }

    let mut builder = SnapshotBuilder::new();
    if let Some(live) = raw.live_release {
        let release = checker.parse(&"live_release", &live, RELEASE, |text| ReleaseName::parse(text).ok());
        builder = release.into_iter().fold(builder, SnapshotBuilder::live_release);
    }
    let (mut shards, mut peers) = (Vec::new(), Vec::new());
    for (index, raw) in raw.shards.into_iter().enumerate() {
        if let Some((shard, origin)) = checker.shard(index, raw) {
            builder = builder.shard(shard);
            shards.push(origin);
        }
    }
    for (index, raw) in raw.peers.into_iter().enumerate() {
        if let Some((peer, origin)) = checker.peer(index, raw) {
            builder = builder.peer(peer);
            peers.push(origin);
        }
    }
    for (tenant, release) in raw.pins {
        if let Some((tenant, release)) = checker.pin(&tenant, &release) {
            builder = builder.pin(tenant, release);
        }
    }
    let mut bans = Vec::new();
    for (list, entries) in ban_lists {
        for (index, entry) in entries.into_iter().enumerate() {
            if let Some((pattern, verdict)) = checker.ban(list, index, &entry) {
                builder = builder.ban(list, pattern, verdict);
                bans.push((index, entry.span()));
            }
        }
    }
    match builder.build() {
        Ok(snapshot) if checker.faults.is_empty() => Ok(snapshot),
        Ok(_) => Err(checker.faults),
        Err(BuildErrors(errors)) => {
            for error in errors {
                checker.place(&error, &shards, &peers, &bans);
            }
            Err(checker.faults)
        }
    }
}

impl Checker<'_> {
    fn bound(&mut self, list: &'static str, first: Option<Span>, count: usize, max: usize) {
        if count > max {
            let span = first.unwrap_or(0..0);
            self.faults.push(self.text, &span, list.to_owned(), Problem::TooMany { count, max });
        }
    }

    fn shard(&mut self, index: usize, raw: Spanned<RawShard>) -> Option<(Shard, Origin)> {
        let whole = raw.span();
        let raw = raw.into_inner();
        let at = |name| Field { list: "shards", index, name };
        let name = self.text(at("name"), &whole, &raw.name, SHARD_NAME, |text| ShardName::parse(text).ok());
        let id = match &raw.id {
            Some(value) => self.number(at("id"), value, 0..=SHARD_ID_MAX),
            None => self.missing(at("id"), &whole, &number_expected(&(0..=SHARD_ID_MAX))),
        };
        let region =
            self.text(at("region"), &whole, &raw.region, REGION, |text| RegionName::parse(text).ok());
        let release =
            self.text(at("release"), &whole, &raw.release, RELEASE, |text| ReleaseName::parse(text).ok());
        let address = self.text(at("address"), &whole, &raw.address, ADDRESS, dialable);
        let state = match &raw.state {
            Some(value) => self.parse(&at("state"), value, STATE, ShardState::from_word),
            None => Some(ShardState::Ready),
        };
        let weight = match &raw.weight {
            Some(value) => self.number(at("weight"), value, 0..=u32::from(WEIGHT_MAX)),
            None => Some(u32::from(WEIGHT_MAX)),
        };
        let agent_port = match &raw.agent_port {
            Some(value) => self.number(at("agent_port"), value, 1..=u32::from(u16::MAX)).map(Some),
            None => Some(None),
        };
        let states_in = raw.state_in.iter().map(|(release, state)| self.state_in(index, release, state));
        // All of them, so that all faults are told.
        let states_in: Vec<_> = states_in.collect();
        let origin = Origin { index, name: place(&raw.name, &whole), id: place(&raw.id, &whole) };
        let shard = Shard {
            name: name?,
            id: id?,
            region: region?,
            release: release?,
            address: address?,
            state: state?,
            weight: u16::try_from(weight?).ok()?,
            states_in: states_in.into_iter().collect::<Option<_>>()?,
            agent_port: match agent_port? {
                Some(port) => Some(u16::try_from(port).ok()?),
                None => None,
            },
        };
        Some((shard, origin))
    }

    fn state_in(
        &mut self,
        index: usize,
        release: &Spanned<String>,
        state: &Spanned<Value>,
    ) -> Option<(ReleaseName, ShardState)> {
        let name = ReleaseName::parse(release.as_ref()).ok();
        if name.is_none() {
            let value = shown(&Value::String(release.as_ref().clone()));
            let field = format!("a key of shards[{index}].state_in");
            let problem = Problem::Value { value, expected: RELEASE.to_owned() };
            self.faults.push(self.text, &release.span(), field, problem);
        }
        let field = format_args!("shards[{index}].state_in.{}", release.as_ref());
        let state = self.parse(&field, state, STATE, ShardState::from_word);
        Some((name?, state?))
    }

    fn peer(&mut self, index: usize, raw: Spanned<RawPeer>) -> Option<(PeerNode, Origin)> {
        let whole = raw.span();
        let raw = raw.into_inner();
        let at = |name| Field { list: "peers", index, name };
        let id = self.text(at("id"), &whole, &raw.id, PEER_ID, |text| PeerId::parse(text).ok());
        let region =
            self.text(at("region"), &whole, &raw.region, REGION, |text| RegionName::parse(text).ok());
        let address = self.text(at("address"), &whole, &raw.address, ADDRESS, dialable);
        let origin = Origin { index, name: whole.clone(), id: place(&raw.id, &whole) };
        Some((PeerNode { id: id?, region: region?, address: address? }, origin))
    }

    fn pin(
        &mut self,
        tenant: &Spanned<String>,
        release: &Spanned<Value>,
    ) -> Option<(TenantName, ReleaseName)> {
        let name = TenantName::parse(tenant.as_ref()).ok();
        if name.is_none() {
            let value = shown(&Value::String(tenant.as_ref().clone()));
            let expected = format!("a tenant, {}", TenantName::EXPECTED);
            let field = "a key of pins".to_owned();
            self.faults.push(self.text, &tenant.span(), field, Problem::Value { value, expected });
        }
        let field = format_args!("pins.{}", tenant.as_ref());
        let release = self.parse(&field, release, RELEASE, |text| ReleaseName::parse(text).ok());
        Some((name?, release?))
    }

    fn ban(&mut self, list: BanList, index: usize, entry: &Spanned<Value>) -> Option<(BanPattern, Verdict)> {
        let pattern = |value: &Value| BanPattern::parse(value.as_str()?).ok();
        let ban = match entry.as_ref().as_table() {
            Some(table) => {
                let verdict = table.get("verdict").and_then(Value::as_str).and_then(Verdict::from_word);
                table.get("pattern").and_then(pattern).zip(verdict).filter(|_| table.len() == 2)
            }
            None => pattern(entry.as_ref()).map(|pattern| (pattern, Verdict::Ban)),
        };
        if ban.is_none() {
            let problem = Problem::Value { value: shown(entry.as_ref()), expected: BAN.to_owned() };
            self.faults.push(self.text, &entry.span(), format!("bans.{list}[{index}]"), problem);
        }
        ban
    }

    fn text<T>(
        &mut self,
        field: Field,
        whole: &Span,
        leaf: &Leaf,
        expected: &str,
        parse: impl FnOnce(&str) -> Option<T>,
    ) -> Option<T> {
        match leaf {
            Some(value) => self.parse(&field, value, expected, parse),
            None => self.missing(field, whole, expected),
        }
    }

    fn missing<T>(&mut self, field: Field, whole: &Span, expected: &str) -> Option<T> {
        let problem = Problem::Missing { expected: expected.to_owned() };
        self.faults.push(self.text, whole, field.to_string(), problem);
        None
    }

    fn parse<T>(
        &mut self,
        field: &dyn fmt::Display,
        value: &Spanned<Value>,
        expected: &str,
        parse: impl FnOnce(&str) -> Option<T>,
    ) -> Option<T> {
        let parsed = value.as_ref().as_str().and_then(parse);
        if parsed.is_none() {
            let problem = Problem::Value { value: shown(value.as_ref()), expected: expected.to_owned() };
            self.faults.push(self.text, &value.span(), field.to_string(), problem);
        }
        parsed
    }

    fn number(&mut self, field: Field, value: &Spanned<Value>, range: RangeInclusive<u32>) -> Option<u32> {
        let number = value.as_ref().as_integer().and_then(|number| u32::try_from(number).ok());
        let number = number.filter(|number| range.contains(number));
        if number.is_none() {
            let problem = Problem::Value { value: shown(value.as_ref()), expected: number_expected(&range) };
            self.faults.push(self.text, &value.span(), field.to_string(), problem);
        }
        number
    }

    /// Translates a complaint of the builder into one about the file.
    fn place(&mut self, error: &BuildError, shards: &[Origin], peers: &[Origin], bans: &[(usize, Span)]) {
        match error {
            BuildError::DuplicateShardName { name, first, second } => {
                let field = Field { list: "shards", index: shards[*second].index, name: "name" };
                self.duplicate(&field, format!("\"{name}\""), &shards[*first].name, &shards[*second].name);
            }
            BuildError::DuplicateShardId { id, first, second } => {
                let field = Field { list: "shards", index: shards[*second].index, name: "id" };
                self.duplicate(&field, id.to_string(), &shards[*first].id, &shards[*second].id);
            }
            BuildError::DuplicatePeer { id, first, second } => {
                let field = Field { list: "peers", index: peers[*second].index, name: "id" };
                self.duplicate(&field, format!("\"{id}\""), &peers[*first].id, &peers[*second].id);
            }
            BuildError::DuplicateBan { list, pattern, first, second } => {
                let field = format!("bans.{list}[{}]", bans[*second].0);
                self.duplicate(&field, format!("\"{pattern}\""), &bans[*first].1, &bans[*second].1);
            }
            // Bounds and ranges were checked above with their places, and TOML knows no key twice; if these rules ever
            // part, the builder's own words are still the truth.
            BuildError::TooMany { .. }
            | BuildError::ShardId { .. }
            | BuildError::Weight { .. }
            | BuildError::DuplicatePin { .. } => {
                let problem = Problem::Structure { message: error.to_string() };
                self.faults.push(self.text, &(0..0), String::new(), problem);
            }
        }
    }

    fn duplicate(&mut self, field: &dyn fmt::Display, value: String, first: &Span, second: &Span) {
        let (first_line, _) = position(self.text, first.start);
        self.faults.push(self.text, second, field.to_string(), Problem::Duplicate { value, first_line });
    }
}

fn number_expected(range: &RangeInclusive<u32>) -> String {
    format!("an integer from {} to {}", range.start(), range.end())
}

fn place(leaf: &Leaf, whole: &Span) -> Span {
    leaf.as_ref().map_or_else(|| whole.clone(), Spanned::span)
}

/// An address that something can be sent to.
fn dialable(text: &str) -> Option<SocketAddr> {
    let address: SocketAddr = text.parse().ok()?;
    (address.port() != 0 && !address.ip().is_unspecified() && !address.ip().is_multicast()).then_some(address)
}

/// The value for a message: on one line, without control characters, not longer than 80 characters.
fn shown(value: &Value) -> String {
    let text = match value {
        Value::String(text) => format!("{text:?}"),
        Value::Integer(_)
        | Value::Float(_)
        | Value::Boolean(_)
        | Value::Datetime(_)
        | Value::Array(_)
        | Value::Table(_) => value.to_string().replace(char::is_control, " "),
    };
    match text.char_indices().nth(80) {
        Some((cut, _)) => format!("{}...", &text[..cut]),
        None => text,
    }
}
