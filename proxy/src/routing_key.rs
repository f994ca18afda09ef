//! What a request says about where it belongs: target and Host parsed into a [`RoutingKey`]. Pure, and never panics.
//!
//! The rules are HAProxy's as Jitsi renders it (R05 to R23 of the oracle); only the lists of names are data.

use std::borrow::Cow;

mod lists;
pub use lists::Routing;

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

/// Where a request belongs, as far as the request itself says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RoutingKey<'a> {
    /// Group and room, each after its last comma, in lower case.
    joined: String,
    /// How much of `joined` is the group, its slash included.
    group_len: usize,
    /// The token, where folding `%25` made it differ from `joined`.
    folded: Option<String>,
    /// The room as it stands in the target, commas and all.
    room: &'a str,
    /// What stands between the first two slashes of the path.
    first_segment: Option<&'a str>,
    /// The value of `release=`, in lower case; it may be empty, and even then it hides the tenant's pin (R17).
    release_override: Option<Cow<'a, str>>,
    store: Store,
}

impl<'a> RoutingKey<'a> {
    /// Parses `target` (path and query as on the wire; `*` and an authority have neither) and the Host header.
    ///
    /// # Errors
    /// [`KeyRefused`] for a byte outside visible ASCII and for a token beyond its bound.
    pub fn parse(target: &'a str, host: Option<&[u8]>, routing: &Routing) -> Result<Self, KeyRefused> {
        if let Some(at) = target.bytes().position(|byte| !byte.is_ascii_graphic()) {
            return Err(KeyRefused::Byte { byte: target.as_bytes()[at], at });
        }
        let (path, query) = target.split_once('?').unwrap_or((target, ""));
        let health = routing.is_health(path);
        let group = if health { "" } else { group(path, routing) };
        let not_room = health || routing.is_not_room(path);
        let room_page = !not_room && path.starts_with('/') && path.len() > 1;
        let room = if has_parameter(target, "room=") {
            parameter(query, "room=").unwrap_or("")
        } else if room_page {
            room_of_path(path)
        } else {
            ""
        };
        let release_override = release_override(query);
        let (group_part, room_part) = (after_last_comma(group), after_last_comma(room));
        let mut joined = String::with_capacity(group_part.len() + room_part.len());
        joined.push_str(group_part);
        joined.push_str(room_part);
        joined.make_ascii_lowercase();
        let folded = joined.contains("%25").then(|| joined.replace("%25", "%"));
        let len = folded.as_ref().map_or(joined.len(), String::len);
        if len > TOKEN_LEN_MAX {
            return Err(KeyRefused::TokenTooLong { len });
        }
        let store = if room.is_empty() || len == 0 {
            // HAProxy keeps one entry, under the empty key, for every room that ends in a comma (R14); a key is never empty here.
            Store::Nothing
        } else if release_override.is_some()
            || health
            || routing.is_service(path, host)
            || (room_page && has_parameter(target, "stick=true"))
        {
            Store::MatchOrStore
        } else {
            Store::MatchOnly
        };
        let first_segment =
            path.strip_prefix('/').and_then(|rest| rest.split_once('/')).map(|(first, _)| first);
        Ok(Self { joined, group_len: group_part.len(), folded, room, first_segment, release_override, store })
    }

    /// The stick token: group and room, `%25` folded. Empty when there is neither.
    #[must_use]
    pub fn token(&self) -> &str {
        self.folded.as_deref().unwrap_or(&self.joined)
    }

    /// The tenant whose pin counts: the group without its slash, not folded (R19).
    #[must_use]
    pub fn tenant(&self) -> Option<&str> {
        self.joined[..self.group_len].strip_suffix('/').filter(|tenant| !tenant.is_empty())
    }

    /// The release that the request asks for by name; `Some("")` asks for none and still hides the pin.
    #[must_use]
    pub fn release_override(&self) -> Option<&str> {
        self.release_override.as_deref()
    }

    /// What the stick table has to do with this request.
    #[must_use]
    pub const fn store(&self) -> Store {
        self.store
    }

    /// The first path segment: the name of a shard if there is one of that name (R23).
    #[must_use]
    pub const fn first_segment(&self) -> Option<&'a str> {
        self.first_segment
    }

    /// What stands after an underscore at the end of a comma part of the room, longest first: each may name a shard (R23).
    /// In lower case, as the room is compared; no longer than a shard's name can be.
    pub fn room_suffixes(&self) -> impl Iterator<Item = Cow<'a, str>> {
        self.room.split(',').flat_map(|part| {
            let start = part.len().saturating_sub(SHARD_NAME_LEN_MAX + 1);
            // The target was checked to be ASCII, so every index is a boundary.
            part[start..].match_indices('_').map(move |(at, _)| lower(&part[start + at + 1..]))
        })
    }
}

/// `ShardName` accepts no longer one.
const SHARD_NAME_LEN_MAX: usize = 128;

/// R08: `acme/` of `/acme/foo`.
fn group<'a>(path: &'a str, routing: &Routing) -> &'a str {
    let Some(rest) = path.strip_prefix('/') else { return "" };
    match rest.find('/') {
        Some(0) | None => "",
        Some(end) if routing.is_not_group(&rest[..end]) => "",
        Some(end) => &rest[..=end],
    }
}

/// R09 and R10: the last segment, or the whole path when it ends with a slash.
fn room_of_path(path: &str) -> &str {
    match path.rsplit_once('/') {
        Some((_, "")) | None => path,
        Some((_, last)) => last,
    }
}

/// R05: `[?&]name` anywhere in the target, its path included; `name` ends in what follows the parameter's name.
fn has_parameter(target: &str, name: &str) -> bool {
    let bytes = target.as_bytes();
    target.match_indices(name).any(|(at, _)| at > 0 && matches!(bytes[at - 1], b'?' | b'&'))
}

/// R06: the value of the first parameter whose name is exactly `name` (its `=` included).
fn parameter<'a>(query: &'a str, name: &str) -> Option<&'a str> {
    parameters(query, name).next()
}

fn parameters<'a>(query: &'a str, name: &str) -> impl Iterator<Item = &'a str> {
    query.split(['&', '?']).filter_map(move |part| {
        part.strip_prefix(name).map(|value| value.split_once(';').map_or(value, |(value, _)| value))
    })
}

/// R17: the first `release=`, provided that any of them is not empty.
fn release_override(query: &str) -> Option<Cow<'_, str>> {
    let first = parameter(query, "release=")?;
    parameters(query, "release=").any(|value| !value.is_empty()).then(|| lower(first))
}

/// R13: headers are read back as lists, of which the last part counts.
fn after_last_comma(text: &str) -> &str {
    text.rsplit_once(',').map_or(text, |(_, last)| last)
}

fn lower(text: &str) -> Cow<'_, str> {
    if text.bytes().any(|byte| byte.is_ascii_uppercase()) {
        Cow::Owned(text.to_ascii_lowercase())
    } else {
        Cow::Borrowed(text)
    }
}

#[cfg(test)]
mod tests;
