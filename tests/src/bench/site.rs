//! What a proxy is told about the world: shards, releases, pins, bans. HAProxy and shardgate are told the same.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::net::SocketAddr;

use super::http_load::room_name;
use super::net::{AddressPlan, SHARDS};
use super::room_names::unlike_room_name;

/// The region of everything that a bench starts.
pub const REGION: &str = "bench";
const RELEASES: u8 = 3;
const SHARDS_OF_A_RELEASE: u8 = 4;
const TENANTS: usize = 400;
/// The first of them; the others' rooms go to the live release.
const PINNED_TENANTS: usize = 300;
const BANS_OF_A_LIST: usize = 300;
/// Letters of a banned word: enough that none of them is in a room's or tenant's name by chance.
const WORD: usize = 12;

/// By what the proxies of a bench choose a shard.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Routing {
    /// Eight shards of one release, nobody pinned or banned; HAProxy reads the parameter `room` and no more.
    ByRoom,
    /// Three releases, pins and bans; HAProxy follows all of R01-R42.
    ByAllRules,
}

impl Routing {
    /// The world that belongs to it.
    #[must_use]
    pub fn site(self, plan: AddressPlan) -> Site {
        match self {
            Self::ByRoom => Site::of_one_release(plan),
            Self::ByAllRules => Site::of_all_rules(plan),
        }
    }

    /// What `bench_load` calls the load that belongs to it.
    #[must_use]
    pub fn load(self) -> &'static str {
        match self {
            Self::ByRoom => "http",
            Self::ByAllRules => "tenants",
        }
    }
}

/// A target for every room, the same at each call: every other room is a tenant's.
#[must_use]
pub fn target(index: usize) -> String {
    let room = room_name(index);
    match index % 2 {
        0 => format!("/http-bind?room={room}"),
        _ => format!("/{}/http-bind?room={room}", tenant(index / 2 % TENANTS)),
    }
}

fn tenant(index: usize) -> String {
    format!("bench-tenant-{index:03}")
}

/// All that a proxy is told.
#[derive(Debug, Clone)]
pub struct Site {
    /// The proxy's own.
    pub region: String,
    /// In the order in which they stand in for each other.
    pub regions: Vec<String>,
    /// Where rooms of tenants without a pin go.
    pub live: Option<String>,
    /// In the order in which they are preferred.
    pub shards: Vec<Shard>,
    /// Tenants and their releases.
    pub pins: Vec<(String, String)>,
    /// By the name of a list: patterns and what they say, "ban" or "allow".
    pub bans: BTreeMap<String, Vec<(String, String)>>,
    /// Where bridges are reached (R22), if they are.
    pub bridges: Option<SocketAddr>,
}

/// A shard.
#[derive(Debug, Clone)]
pub struct Shard {
    /// Its name.
    pub name: String,
    /// Its number, unique.
    pub number: u8,
    /// Where it stands.
    pub region: String,
    /// What it runs, as pins name it.
    pub release: String,
    /// Where it answers HTTP.
    pub address: SocketAddr,
    /// Who may send requests there.
    pub standing: Standing,
}

/// Who may send requests to a shard.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Standing {
    /// Its release, and those who name it.
    InRelease,
    /// Only those who name it.
    Alone,
}

impl Site {
    fn of_one_release(plan: AddressPlan) -> Self {
        let shards = (1..=SHARDS).map(|number| shard(plan, number, 1)).collect();
        Self::with(shards, "release-1")
    }

    fn of_all_rules(plan: AddressPlan) -> Self {
        let shards = (1..=RELEASES * SHARDS_OF_A_RELEASE)
            .map(|number| shard(plan, number, 1 + (number - 1) / SHARDS_OF_A_RELEASE));
        let mut site = Self::with(shards.collect(), "release-1");
        let release = |index: usize| format!("release-{}", 1 + index % usize::from(RELEASES));
        site.pins = (0..PINNED_TENANTS).map(|index| (tenant(index), release(index))).collect();
        let lists = [
            ("exact", "", "ban"),
            ("prefix", "", "ban"),
            ("substr", "", "ban"),
            ("unban_prefix", "", "allow"),
            ("domain", ".example.com", "ban"),
        ];
        for (list, (name, end, verdict)) in lists.into_iter().enumerate() {
            let word =
                |index: usize| format!("{}{end}", &unlike_room_name(list * BANS_OF_A_LIST + index)[..WORD]);
            let entries = (0..BANS_OF_A_LIST).map(|index| (word(index), verdict.to_owned()));
            site.bans.insert(name.to_owned(), entries.collect());
        }
        site
    }

    fn with(shards: Vec<Shard>, live: &str) -> Self {
        Self {
            region: REGION.to_owned(),
            regions: vec![REGION.to_owned()],
            live: Some(live.to_owned()),
            shards,
            pins: vec![],
            bans: BTreeMap::new(),
            bridges: None,
        }
    }

    /// Where the shards answer.
    #[must_use]
    pub fn addresses(&self) -> Vec<SocketAddr> {
        self.shards.iter().map(|shard| shard.address).collect()
    }

    /// The same for shardgate: its discovery file, without peers.
    #[must_use]
    pub fn discovery(&self) -> String {
        let mut text = String::new();
        if let Some(live) = &self.live {
            text.push_str(&format!("live_release = {live:?}\n"));
        }
        for Shard { name, number, region, release, address, standing } in &self.shards {
            let state = match standing {
                Standing::InRelease => "ready",
                Standing::Alone => "maint",
            };
            writeln!(
                text,
                "[[shards]]\nname = {name:?}\nid = {number}\nregion = {region:?}\nrelease = {release:?}\n\
                 address = \"{address}\"\nstate = {state:?}"
            )
            .expect("a String takes everything");
        }
        text.push_str("[pins]\n");
        for (tenant, release) in &self.pins {
            text.push_str(&format!("{tenant:?} = {release:?}\n"));
        }
        text.push_str("[bans]\n");
        for (list, entries) in &self.bans {
            let entries = entries.iter().map(|(pattern, verdict)| {
                format!("    {{ pattern = {pattern:?}, verdict = {verdict:?} }},\n")
            });
            text.push_str(&format!("{list} = [\n{}]\n", entries.collect::<String>()));
        }
        text
    }
}

fn shard(plan: AddressPlan, number: u8, release: u8) -> Shard {
    Shard {
        name: format!("bench-s{number}"),
        number,
        region: REGION.to_owned(),
        release: format!("release-{release}"),
        address: plan.shard(number),
        standing: Standing::InRelease,
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use shardgate_discovery::file::parse_text;

    use super::super::room_walk::ROOMS;
    use super::*;

    #[test]
    fn both_discovery_files_are_valid() {
        for (routing, shards) in [(Routing::ByRoom, 8), (Routing::ByAllRules, 12)] {
            let snapshot = parse_text(&routing.site(AddressPlan::at(1)).discovery()).unwrap();
            assert_eq!(snapshot.shards().len(), shards);
        }
    }

    #[test]
    fn no_room_is_banned_and_some_tenants_are_pinned() {
        let site = Site::of_all_rules(AddressPlan::at(1));
        let words: BTreeSet<&str> =
            site.bans.values().flatten().map(|(pattern, _)| pattern.as_str()).collect();
        assert_eq!(words.len(), site.bans.len() * BANS_OF_A_LIST);
        let mut pinned = 0;
        for index in 0..ROOMS {
            let target = target(index);
            assert!(words.iter().all(|word| !target.contains(word)), "{target}");
            pinned +=
                usize::from(site.pins.iter().any(|(tenant, _)| target.starts_with(&format!("/{tenant}/"))));
        }
        assert!((ROOMS / 3..ROOMS / 2).contains(&pinned), "{pinned}");
    }
}
