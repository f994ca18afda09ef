//! What a request says about where it belongs: target and a few headers parsed into a [`RoutingKey`]. Pure, and never panics.
//!
//! The rules are HAProxy's as Jitsi renders it (R05 to R23 of the oracle, told in `ops/doc/differences-from-haproxy.md` where they
//! differ); only the lists of names are data. `Reading` is what the two ways to read a request have in common.

use std::borrow::Cow;

mod haproxy;
mod lists;
mod ours;
mod pools;
mod query;
use crate::rule::{Fired, Rule};
pub use lists::{Compat, Routing};
pub use pools::{POOL_NAME_LEN_MAX, Pool, PoolServer, PoolServers, SERVER};
use query::{has_flag, has_parameter};

/// The longest stick token in bytes. A longer one is refused (400), never truncated.
pub const TOKEN_LEN_MAX: usize = shardgate_peering_core::KEY_LEN_MAX;

/// What the stick table has to do with a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Store {
    /// There is no room: the table is neither read nor written.
    Nothing,
    /// An entry is followed, none is made: pages and assets.
    MatchOnly,
    /// An entry is followed, and made when there is none: signaling.
    MatchOrStore,
}

/// Why a request has no routing key; it is answered with 400.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum KeyRefused {
    /// The target holds a byte that no URL holds.
    #[error("request target has the byte {byte:#04x} at {at}, expected visible ASCII characters")]
    Byte {
        /// The byte.
        byte: u8,
        /// Where it stands.
        at: usize,
    },
    /// The token is longer than [`TOKEN_LEN_MAX`].
    #[error("stick token has {len} bytes, expected at most {TOKEN_LEN_MAX}")]
    TokenTooLong {
        /// Its length.
        len: usize,
    },
}

impl KeyRefused {
    /// The rule that says so.
    #[must_use]
    pub const fn rule(self) -> Rule {
        match self {
            Self::Byte { .. } => Rule::TargetBytes,
            Self::TokenTooLong { .. } => Rule::TokenTooLong,
        }
    }
}

/// What routing looks at beside the target: values of headers, of several lines the last one.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Said<'a> {
    /// `Host`.
    pub host: Option<&'a [u8]>,
    /// The client's own `X-Room`: counts with [`Compat::Haproxy`] alone, as the next two (R26).
    pub room: Option<&'a [u8]>,
    /// Its own `X-Group`.
    pub group: Option<&'a [u8]>,
    /// Its own `X-StickTokenFlag`.
    pub flag: Option<&'a [u8]>,
}

/// What becomes of a header that tells the shard of a room or group.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Told<'a> {
    /// It is taken away.
    Nothing,
    /// The client's own lines stay.
    AsSent,
    /// It is this one line.
    Text(Cow<'a, str>),
}

/// How one of the two ways reads a request.
#[derive(Debug)]
struct Reading<'a> {
    /// The group with its slash, as it counts for the token; in any case.
    group: Cow<'a, str>,
    /// The room as it counts for the token; in any case.
    room: Cow<'a, str>,
    group_told: Told<'a>,
    room_told: Told<'a>,
    /// Whether there is a room at all, be its part of the token empty.
    has_room: bool,
    /// The group, with its slash, by which a tenant is pinned or banned: not always a part of the token.
    tenant_group: Cow<'a, str>,
    /// Whether the path has a group of its own.
    group_by_path: bool,
    /// A room that bans look at as well: the path's when the parameter hides it.
    hidden_room: &'a str,
    /// Whether the client says by itself that the entry is to be stored.
    flag_sent: Option<&'a [u8]>,
    /// Whether the path may be a room's page.
    room_page: bool,
}

/// Where a request belongs, as far as the request itself says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RoutingKey<'a> {
    /// Group and room, as they count for the token.
    joined: String,
    /// How much of `joined` is the group, its slash included.
    group_len: usize,
    /// The token, where folding `%25` made it differ from `joined`.
    folded: Option<String>,
    group_told: Told<'a>,
    room_told: Told<'a>,
    tenant_group: Cow<'a, str>,
    hidden_room: Cow<'a, str>,
    /// Whether the path has a group of its own, so that a pin may count.
    pinned_by_path: bool,
    compat: Compat,
    /// Which of the pools takes the path, by its place among them.
    pool: Option<usize>,
    /// What stands between the first two slashes of the path.
    first_segment: Option<&'a str>,
    /// The value of `release=`, in lower case; it may be empty, and even then it hides the tenant's pin (R17).
    release_override: Option<Cow<'a, str>>,
    /// Whether the room parameter stands anywhere in the target (R05, R21).
    has_room_parameter: bool,
    /// Whether the path is BOSH's.
    is_bosh: bool,
    flag: Flag,
    store: Store,
    fired: Fired,
}

/// `X-StickTokenFlag` as the shard hears it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Flag {
    /// No entry is to be stored.
    Unset,
    /// As the client sent it.
    AsSent,
    /// `true`.
    True,
}

impl<'a> RoutingKey<'a> {
    /// Parses `target` (path and query as on the wire; `*` and an authority have neither) and what the headers say.
    ///
    /// # Errors
    /// [`KeyRefused`] for a byte outside visible ASCII and for a token beyond its bound; with [`Compat::Haproxy`] such a token is routed,
    /// but never stored.
    pub fn parse(target: &'a str, said: &Said<'a>, routing: &Routing) -> Result<Self, KeyRefused> {
        if let Some(at) = target.bytes().position(|byte| !byte.is_ascii_graphic()) {
            return Err(KeyRefused::Byte { byte: target.as_bytes()[at], at });
        }
        let (path, query) = target.split_once('?').unwrap_or((target, ""));
        let mut fired = Fired::default();
        let reading = match routing.compat {
            Compat::None => ours::read(path, query, routing, &mut fired),
            Compat::Haproxy => haproxy::read(target, path, query, said, routing, &mut fired),
        };
        let Reading { group, room, group_told, room_told, has_room, .. } = reading;
        let mut joined = String::with_capacity(group.len() + room.len());
        joined.push_str(&group);
        joined.push_str(&room);
        let folded = joined.contains("%25").then(|| joined.replace("%25", "%"));
        if folded.is_some() {
            fired.note(Rule::PercentSign);
        }
        let len = folded.as_ref().map_or(joined.len(), String::len);
        let release_override = query::release_override(query);
        if release_override.is_some() {
            fired.note(Rule::ReleaseOverride);
        }
        let marked_by = marked_by(path, target, said.host, reading.room_page, routing);
        if let Some(rule) = marked_by {
            fired.note(rule);
        }
        let is_marked = release_override.is_some() || marked_by.is_some();
        let flag = match reading.flag_sent {
            _ if has_room && is_marked => Flag::True,
            Some(_) => Flag::AsSent,
            None => Flag::Unset,
        };
        let flagged = flag == Flag::True || reading.flag_sent.is_some_and(|sent| !sent.is_empty());
        let store = match len {
            // HAProxy keeps one entry, under the empty key, for every room that ends in a comma (R14); a key is never empty here.
            0 => Store::Nothing,
            _ if !has_room => Store::Nothing,
            1..=TOKEN_LEN_MAX if flagged => Store::MatchOrStore,
            1..=TOKEN_LEN_MAX => Store::MatchOnly,
            _ if routing.compat == Compat::Haproxy => {
                fired.note(Rule::TokenTooLong);
                Store::Nothing
            }
            len => return Err(KeyRefused::TokenTooLong { len }),
        };
        let first_segment =
            path.strip_prefix('/').and_then(|rest| rest.split_once('/')).map(|(first, _)| first);
        Ok(Self {
            group_len: group.len(),
            joined,
            folded,
            group_told,
            room_told,
            tenant_group: reading.tenant_group,
            hidden_room: query::lower(reading.hidden_room),
            pinned_by_path: reading.group_by_path,
            compat: routing.compat,
            pool: routing.pools.iter().position(|pool| pool.takes(path)),
            first_segment,
            release_override,
            has_room_parameter: has_parameter(target, &routing.room_parameter),
            is_bosh: is_bosh_path(path),
            flag,
            store,
            fired,
        })
    }

    /// The stick token: group and room, `%25` folded. Empty when there is neither.
    #[must_use]
    pub fn token(&self) -> &str {
        self.folded.as_deref().unwrap_or(&self.joined)
    }

    /// The room as bans look at it; empty when there is none.
    #[must_use]
    pub fn banned_room(&self) -> Cow<'_, str> {
        query::lower(&self.joined[self.group_len..])
    }

    /// A room that an empty parameter hides, and bans look at as well; mostly empty.
    #[must_use]
    pub fn hidden_room(&self) -> &str {
        &self.hidden_room
    }

    /// The group as bans look at it, with its slash; empty when there is none.
    #[must_use]
    pub fn banned_group(&self) -> &str {
        &self.tenant_group
    }

    /// The tenant whose pin counts: the path's group without its slash, not folded (R19).
    #[must_use]
    pub fn tenant(&self) -> Option<&str> {
        let tenant = self.tenant_group.strip_suffix('/').filter(|tenant| !tenant.is_empty());
        tenant.filter(|_| self.pinned_by_path)
    }

    /// The release that the request asks for by name; `Some("")` asks for none and still hides the pin.
    #[must_use]
    pub fn release_override(&self) -> Option<&str> {
        self.release_override.as_deref()
    }

    /// Whether the room parameter stands in the target: a banned request of that kind is denied, every other one redirected (R21).
    #[must_use]
    pub const fn has_room_parameter(&self) -> bool {
        self.has_room_parameter
    }

    /// Whether it is a conference's request over BOSH (XEP-0124): by its path, bodies are not looked at.
    #[must_use]
    pub fn is_bosh(&self) -> bool {
        self.is_bosh && self.store != Store::Nothing && self.pool.is_none()
    }

    /// The rules that made it what it is.
    #[must_use]
    pub const fn fired(&self) -> Fired {
        self.fired
    }

    /// What the stick table has to do with this request.
    #[must_use]
    pub const fn store(&self) -> Store {
        self.store
    }

    /// The pool that takes the path, by its place in [`Routing::pools`] (R22).
    #[must_use]
    pub const fn pool(&self) -> Option<usize> {
        self.pool
    }

    /// What the shard hears in `X-Group`.
    #[must_use]
    pub const fn group_told(&self) -> &Told<'a> {
        &self.group_told
    }

    /// What the shard hears in `X-Room`.
    #[must_use]
    pub const fn room_told(&self) -> &Told<'a> {
        &self.room_told
    }

    /// What the shard hears in `X-StickTokenFlag`.
    #[must_use]
    pub const fn flag(&self) -> Flag {
        self.flag
    }

    /// The first path segment: the name of a shard if there is one of that name (R23).
    #[must_use]
    pub const fn first_segment(&self) -> Option<&'a str> {
        self.first_segment
    }

    /// What stands after an underscore at the end of the room, longest first: each may name a shard (R23). In lower case, as the room is
    /// compared; no longer than a shard's name can be. With [`Compat::Haproxy`] at the end of each comma part.
    pub fn room_suffixes(&self) -> impl Iterator<Item = Cow<'_, str>> {
        let room = match &self.room_told {
            Told::Nothing => "",
            // What the client sent itself: its last part is all that counts here.
            Told::AsSent => &self.joined[self.group_len..],
            Told::Text(text) => text,
        };
        let separator = match self.compat {
            Compat::None => '\0',
            Compat::Haproxy => ',',
        };
        room.split(separator).flat_map(|part| {
            let mut start = part.len().saturating_sub(SHARD_NAME_LEN_MAX + 1);
            while !part.is_char_boundary(start) {
                start += 1;
            }
            part[start..].match_indices('_').map(move |(at, _)| query::lower(&part[start + at + 1..]))
        })
    }
}

/// `ShardName` accepts no longer one.
const SHARD_NAME_LEN_MAX: usize = 128;

/// The first rule by which a room's request makes an entry (R15, R16), beside `release=`.
fn marked_by(
    path: &str,
    target: &str,
    host: Option<&[u8]>,
    room_page: bool,
    routing: &Routing,
) -> Option<Rule> {
    if routing.is_health(path) {
        Some(Rule::HealthPath)
    } else if routing.is_service_path(path) {
        Some(Rule::SignalingPath)
    } else if host.is_some_and(|host| routing.is_service_host(host)) {
        Some(Rule::HostPrefix)
    } else if room_page && has_flag(target, &routing.stick_flag) {
        Some(Rule::StickFlag)
    } else {
        None
    }
}

/// Whether a path is where clients poll over BOSH, of a tenant or of none: by its last segment.
fn is_bosh_path(path: &str) -> bool {
    path.strip_suffix("http-bind").is_some_and(|before| before.ends_with('/'))
}

/// R08: `acme/` of `/acme/foo`.
fn group_of_path<'a>(path: &'a str, routing: &Routing, fired: &mut Fired) -> &'a str {
    let Some(rest) = path.strip_prefix('/') else { return "" };
    match rest.find('/') {
        Some(0) | None => "",
        Some(_) if routing.is_health(path) => "",
        Some(end) if routing.is_not_group(&rest[..end]) => {
            fired.note(Rule::NotATenant);
            ""
        }
        Some(end) => {
            fired.note(Rule::TenantFromPath);
            &rest[..=end]
        }
    }
}

#[cfg(test)]
mod tests;
