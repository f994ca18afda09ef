//! The table's conferences beside those that shards count themselves (`signal-report`). Pure.

use std::collections::{BTreeSet, HashMap};

use shardgate_discovery::consul::{CensusRoom, Reports};

/// Rooms in which a shard's Jicofo meets itself.
const HEALTH_CHECK: &str = "__jicofo-health-check";
/// Moments beyond this are milliseconds, and not seconds.
const SECONDS_MAX: u64 = 100_000_000_000;

/// A conference as its shard counts it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Room {
    pub(super) shard: String,
    /// Its key if that can be said for certain, else its address in Prosody.
    pub(super) name: String,
    pub(super) participants: u64,
    /// `None`: the shard does not say when it began.
    pub(super) age_ms: Option<u64>,
    tenant: Option<String>,
    matched: bool,
}

/// What the census says of a conference of the table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Counted<'a> {
    /// It is where the table says.
    Here(&'a Room),
    /// It is on another shard.
    Elsewhere(&'a Room),
    /// Its shard does not have it; a census is up to a minute old.
    Missing,
    /// Its shard has not reported.
    Unknown,
}

/// What all shards count.
#[derive(Debug, Default)]
pub(super) struct Census {
    rooms: Vec<Room>,
    by_key: HashMap<String, Vec<usize>>,
    reporting: BTreeSet<String>,
}

impl Census {
    /// Reads reports; `now_ms` is the time since 1970.
    pub(super) fn new<'a>(reports: impl IntoIterator<Item = &'a Reports>, now_ms: u64) -> Self {
        let mut census = Self::default();
        let reports: Vec<_> = reports.into_iter().flat_map(|reports| &reports.censuses).collect();
        let rooms = reports.iter().flat_map(|(_, census)| &census.rooms);
        let hosts: BTreeSet<&str> = rooms.filter_map(|room| Some(address(&room.name)?.1)).collect();
        for (shard, counted) in reports {
            census.reporting.insert(shard.to_string());
            for room in counted.rooms.iter().filter(|room| !room.name.starts_with(HEALTH_CHECK)) {
                census.add(shard.as_str(), room, &hosts, now_ms);
            }
        }
        census
    }

    fn add(&mut self, shard: &str, room: &CensusRoom, hosts: &BTreeSet<&str>, now_ms: u64) {
        let keys = keys(&room.name, hosts);
        let name = match keys.as_slice() {
            [key] => key.clone(),
            _ => room.name.clone(),
        };
        let created_ms = match room.created_time {
            0 => None,
            seconds @ 1..SECONDS_MAX => Some(seconds * 1_000),
            ms => Some(ms),
        };
        let tenant = keys.first().and_then(|key| Some(key.split_once('/')?.0.to_owned()));
        for key in keys {
            self.by_key.entry(key).or_default().push(self.rooms.len());
        }
        self.rooms.push(Room {
            shard: shard.to_owned(),
            name,
            participants: room.participants,
            age_ms: created_ms.map(|created| now_ms.saturating_sub(created)),
            tenant,
            matched: false,
        });
    }

    /// What is counted of a conference that the table has on `shard`.
    pub(super) fn find(&mut self, key: &str, shard: &str) -> Counted<'_> {
        let found = self.by_key.get(&plain(key)).map_or(&[][..], Vec::as_slice);
        let here = found.iter().find(|at| self.rooms[**at].shard == shard).copied();
        let at = here.or_else(|| found.first().copied());
        // Where a conference is on two shards, the other one stays without a word of the table.
        if let Some(at) = at {
            self.rooms[at].matched = true;
        }
        match at {
            Some(at) if here.is_some() => Counted::Here(&self.rooms[at]),
            Some(at) => Counted::Elsewhere(&self.rooms[at]),
            None if self.reporting.contains(shard) => Counted::Missing,
            None => Counted::Unknown,
        }
    }

    /// Every room that may be this conference's.
    pub(super) fn rooms_of(&mut self, key: &str) -> Vec<&Room> {
        let found = self.by_key.get(&plain(key)).map_or(&[][..], Vec::as_slice);
        for at in found {
            self.rooms[*at].matched = true;
        }
        found.iter().map(|at| &self.rooms[*at]).collect()
    }

    /// Whether this shard says what it has.
    pub(super) fn is_reporting(&self, shard: &str) -> bool {
        self.reporting.contains(shard)
    }

    /// Conferences that nothing was asked about: the table has no word of them.
    pub(super) fn unmatched(&self) -> impl Iterator<Item = &Room> {
        self.rooms.iter().filter(|room| !room.matched)
    }
}

impl Room {
    /// Whether it is this tenant's, as far as its address says.
    pub(super) fn is_of(&self, tenant: &str) -> bool {
        self.tenant.as_deref() == Some(tenant)
    }
}

/// Room and host of `room@conference.HOST`.
fn address(name: &str) -> Option<(&str, &str)> {
    let (room, host) = name.split_once('@')?;
    let (_, host) = host.split_once('.')?;
    Some((room, host))
}

/// The keys that a room may have in the table: `room@conference.meet.example.com` is `room`, and `room@conference.acme.meet.example.com`, which
/// is `[acme]room@conference.meet.example.com` as well, `acme/room`. Which host is a tenant's shows where another room has the host without it;
/// else it may be either.
fn keys(name: &str, hosts: &BTreeSet<&str>) -> Vec<String> {
    let Some((room, host)) = address(name) else { return vec![plain(name)] };
    if let Some((tenant, room)) = room.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
        return vec![plain(&format!("{tenant}/{room}"))];
    }
    let (label, rest) = host.split_once('.').unwrap_or((host, ""));
    let of_tenant = plain(&format!("{label}/{room}"));
    let is_base = |base: &str| {
        hosts.iter().any(|host| host.strip_suffix(base).is_some_and(|label| label.ends_with('.')))
    };
    if hosts.contains(rest) {
        vec![of_tenant]
    } else if is_base(host) {
        vec![plain(room)]
    } else {
        vec![of_tenant, plain(room)]
    }
}

/// A key as it is compared: in lower case, without percent signs that stand for bytes.
fn plain(key: &str) -> String {
    let mut bytes = Vec::with_capacity(key.len());
    let mut rest = key.as_bytes();
    while let [first, tail @ ..] = rest {
        let byte = match tail {
            [high, low, ..] if *first == b'%' => hex(*high).zip(hex(*low)).map(|(high, low)| high << 4 | low),
            _ => None,
        };
        bytes.push(byte.unwrap_or(*first));
        rest = if byte.is_some() { &tail[2..] } else { tail };
    }
    String::from_utf8_lossy(&bytes).to_lowercase()
}

fn hex(digit: u8) -> Option<u8> {
    char::from(digit).to_digit(16).map(|digit| digit as u8)
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use shardgate_discovery::consul::read_reports;

    const NOW_MS: u64 = 1_700_000_600_000;

    /// Name, participants, beginning.
    pub(in super::super) type Said<'a> = &'a [(&'a str, u64, u64)];

    /// What shards report of their rooms.
    pub(in super::super) fn reports(shards: &[(&str, Said<'_>)]) -> Reports {
        let pairs = shards.iter().map(|(shard, rooms)| {
            let rooms = rooms.iter().map(|(name, participants, created)| {
                serde_json::json!({"room_name": name, "participants": participants, "created_time": created})
            });
            let report = serde_json::json!({"room_census": rooms.collect::<Vec<_>>()}).to_string();
            serde_json::json!({"Key": format!("signal-report/prod/{shard}"), "Value": base64(&report)})
        });
        let list = serde_json::Value::from_iter(pairs).to_string();
        read_reports("prod", list.as_bytes()).unwrap()
    }

    /// Consul's values are; no crate of ours needs it but here.
    fn base64(text: &str) -> String {
        const LETTERS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
        let chunk = |bytes: &[u8]| {
            let bits = bytes.iter().fold(0_u32, |bits, byte| bits << 8 | u32::from(*byte));
            let bits = bits << (8 * (3 - bytes.len()));
            let letter = |at: usize| match at <= bytes.len() {
                true => char::from(LETTERS[(bits >> (18 - 6 * at) & 63) as usize]),
                false => '=',
            };
            (0..4).map(letter).collect::<String>()
        };
        text.as_bytes().chunks(3).map(chunk).collect()
    }

    #[test]
    fn conferences_are_found_by_their_keys() {
        let s1: &[_] = &[
            ("plain@conference.meet.example.com", 2, 1_700_000_000),
            ("big@conference.acme.meet.example.com", 40, 1_700_000_000_000),
            ("[other]team@conference.meet.example.com", 3, 0),
            ("ümlaut@conference.meet.example.com", 1, 0),
            ("__jicofo-health-check@conference.meet.example.com", 0, 0),
            ("leaked@conference.meet.example.com", 5, 0),
        ];
        let s2: &[_] =
            &[("split@conference.meet.example.com", 1, 0), ("moved@conference.meet.example.com", 6, 0)];
        let reports =
            reports(&[("s1", s1), ("s2", s2), ("s3", &[("split@conference.meet.example.com", 1, 0)])]);
        let mut census = Census::new([&reports], NOW_MS);
        let mut found = |key: &str, shard: &str| match census.find(key, shard) {
            Counted::Here(room) => format!("{} people, {:?}", room.participants, room.age_ms),
            Counted::Elsewhere(room) => format!("on {}", room.shard),
            Counted::Missing => "missing".to_owned(),
            Counted::Unknown => "unknown".to_owned(),
        };
        assert_eq!(found("plain", "s1"), "2 people, Some(600000)");
        assert_eq!(found("acme/big", "s1"), "40 people, Some(600000)");
        assert_eq!(found("other/team", "s1"), "3 people, None");
        assert_eq!(found("%c3%bcmlaut", "s1"), "1 people, None");
        assert_eq!(found("moved", "s1"), "on s2");
        assert_eq!(found("split", "s3"), "1 people, None");
        assert_eq!(found("big", "s1"), "missing", "a tenant's room is not another one's");
        assert_eq!(found("new", "s9"), "unknown");
        let left: Vec<_> = census.unmatched().map(|room| room.name.as_str()).collect();
        assert_eq!(left, ["leaked", "split"], "one is on two shards");
        assert!(!census.rooms[0].is_of("acme") && census.rooms[1].is_of("acme"));
    }

    #[test]
    fn where_no_host_tells_it_may_be_either() {
        let rooms: &[_] = &[("a@conference.meet.example.com", 1, 0), ("b@conference.meet.example.com", 1, 0)];
        let reports = reports(&[("s1", rooms)]);
        let mut census = Census::new([&reports], NOW_MS);
        assert!(matches!(census.find("a", "s1"), Counted::Here(_)));
        assert!(matches!(census.find("meet/b", "s1"), Counted::Here(_)));
        let strange = Census::new([&self::reports(&[("s1", &[("no address", 1, 0)])])], NOW_MS);
        assert_eq!(strange.unmatched().next().unwrap().name, "no address");
    }
}
