//! What stands around the nodes that are asked: the environment of a recording, with what its steps have changed since.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::io;

use super::ground::Ground;
use super::record::{Environment, Maps, Shard, Variant};

/// What answers carry in `X-Proxy-Host`, as in the recordings.
pub(super) const HOST_NAME: &str = "oracle-haproxy";
/// The one pool that recordings know.
pub(super) const COLIBRI: &str = "jvb-colibri-proxy";

/// All that one variant needs: `main` with what the variant says otherwise.
#[derive(Debug, Clone)]
pub(super) struct Plan {
    pub(super) region: String,
    pub(super) regions: Vec<String>,
    pub(super) live: Option<String>,
    pub(super) maps: Maps,
    pub(super) shards: Vec<Shard>,
    /// Pools without conferences: R22's for bridges, where the environment has it.
    pub(super) pools: Vec<String>,
    /// `set server BACKEND/SHARD state`.
    pub(super) states: BTreeMap<(String, String), String>,
    /// `set server BACKEND/SHARD weight`, 0 to 256, by shard.
    pub(super) weights: BTreeMap<String, u16>,
}

impl Plan {
    pub(super) fn of(environments: &BTreeMap<Variant, Environment>, variant: &str) -> io::Result<Self> {
        let missing =
            |what: &str| io::Error::other(format!("environment.json: variant {variant}: no {what}"));
        let main = environments.get("main").ok_or_else(|| missing("main"))?;
        let own = environments.get(variant).ok_or_else(|| missing("such variant"))?;
        let region = own.local_region.as_ref().or(main.local_region.as_ref());
        let mut shards =
            own.shards.as_ref().or(main.shards.as_ref()).ok_or_else(|| missing("shards"))?.clone();
        shards.extend(own.standalones.iter().cloned());
        Ok(Self {
            region: region.ok_or_else(|| missing("local_region"))?.clone(),
            regions: own
                .regions_in_order
                .as_ref()
                .or(main.regions_in_order.as_ref())
                .cloned()
                .unwrap_or_default(),
            live: own.live.clone().or_else(|| main.live.clone()).flatten(),
            maps: own.maps.as_ref().or(main.maps.as_ref()).ok_or_else(|| missing("maps"))?.clone(),
            shards,
            pools: own.backends.keys().filter(|name| *name == COLIBRI).cloned().collect(),
            states: BTreeMap::new(),
            weights: BTreeMap::new(),
        })
    }

    /// The shard that a recording calls `s5`, or by its whole name.
    pub(super) fn shard(&self, short: &str) -> io::Result<String> {
        let ending = format!("-{short}");
        let found = self.shards.iter().find(|shard| shard.name == short || shard.name.ends_with(&ending));
        found.map(|shard| shard.name.clone()).ok_or_else(|| io::Error::other(format!("no shard {short}")))
    }

    /// Who serves a backend: the shards of its release in this region, all of them where there is none; or the shard of that name.
    pub(super) fn primaries(&self, backend: &str) -> Vec<String> {
        let of = |local: bool| {
            let of_release = self.shards.iter().filter(move |shard| {
                format!("release-{}", shard.release) == backend
                    && shard.status != "critical"
                    && (!local || shard.region == self.region)
            });
            of_release.map(|shard| shard.name.clone()).collect::<Vec<_>>()
        };
        let named = self.shards.iter().filter(|shard| shard.name == backend).map(|shard| shard.name.clone());
        let found = [of(true), of(false), named.collect()].into_iter().find(|shards| !shards.is_empty());
        found.unwrap_or_default()
    }

    /// What a runtime command does to a map.
    pub(super) fn change_map(
        &mut self,
        op: &str,
        map: &str,
        key: Option<&str>,
        value: Option<&str>,
    ) -> io::Result<()> {
        if map == "live" {
            self.live = value.map(str::to_owned);
            return Ok(());
        }
        let entries = match map {
            "tenant" => &mut self.maps.tenant,
            // `banned_exact` is the map's name, `exact` that of Consul's key and ours.
            list => self.maps.bans.entry(list.trim_start_matches("banned_").to_owned()).or_default(),
        };
        let not_known = || io::Error::other(format!("map {map}: {op} {key:?} {value:?} is not known"));
        match (op, key, value) {
            ("clear", _, _) => entries.clear(),
            ("del", Some(key), _) => entries.retain(|(other, _)| other != key),
            ("add", Some(key), Some(value)) => entries.push((key.to_owned(), value.to_owned())),
            ("set", Some(key), Some(value)) => {
                let entry = entries.iter_mut().find(|(other, _)| other == key).ok_or_else(not_known)?;
                value.clone_into(&mut entry.1);
            }
            _ => return Err(not_known()),
        }
        Ok(())
    }

    /// The discovery file, with `peers` in it.
    pub(super) fn discovery(&self, ground: Ground, peers: &str) -> String {
        let mut text = String::new();
        if let Some(live) = &self.live {
            text.push_str(&format!("live_release = {live:?}\n"));
        }
        for shard in &self.shards {
            // A shard that Consul calls critical has a backend of its own, and is in no release's.
            let state = if shard.status == "critical" { "maint" } else { "ready" };
            let Shard { name, n, region, release, .. } = shard;
            let address = ground.shard(*n);
            let weight = self.weights.get(name).copied().unwrap_or(256);
            let states = self.states.iter().filter(|((_, shard), _)| shard == name);
            let states: Vec<String> =
                states.map(|((backend, _), state)| format!("{backend:?} = {state:?}")).collect();
            writeln!(
                text,
                "[[shards]]\nname = {name:?}\nid = {n}\nregion = {region:?}\nrelease = \"release-{release}\"\n\
                 address = \"{address}\"\nstate = \"{state}\"\nweight = {weight}\nstate_in = {{ {} }}",
                states.join(", ")
            )
            .expect("a String takes everything");
        }
        text.push_str(peers);
        text.push_str("[pins]\n");
        // A pin of a tenant with an upper-case letter never applies, and shardgate refuses it (R19).
        let pins = self
            .maps
            .tenant
            .iter()
            .filter(|(tenant, _)| !tenant.bytes().any(|byte| byte.is_ascii_uppercase()));
        for (tenant, release) in pins {
            text.push_str(&format!("{tenant:?} = {release:?}\n"));
        }
        text.push_str("[bans]\n");
        for (list, entries) in &self.maps.bans {
            text.push_str(&format!("{list} = ["));
            for (pattern, verdict) in entries {
                text.push_str(&format!("{{ pattern = {pattern:?}, verdict = {verdict:?} }}, "));
            }
            text.push_str("]\n");
        }
        text
    }
}
