//! The HAProxy configuration that follows R01-R42, made for a site.

use std::fmt::Write as _;
use std::net::SocketAddr;
use std::path::Path;
use std::{fs, io};

use super::site::{Shard, Site, Standing};

const CONFIGURATION: &str = include_str!("../../bench/haproxy-rules.cfg");
/// The backend with the stick table that all releases share.
pub const TABLE: &str = "nodes";
const BRIDGES: &str = "jvb-colibri-proxy";
/// What a pin's server id is more than the shard's number (R40).
const SERVER_ID_OFFSET: u16 = 10;

/// Where a HAProxy listens, and what it calls itself.
#[derive(Clone, Copy)]
pub struct Place<'a> {
    /// Its configuration.
    pub file: &'a Path,
    /// Its maps' folder, which HAProxies of one site may share.
    pub maps: &'a Path,
    /// Its stats socket.
    pub socket: &'a Path,
    /// Where clients connect: `bind` lines.
    pub binds: &'a str,
    /// Where its access log goes.
    pub log: SocketAddr,
    /// The names of all peers, itself among them.
    pub peers: &'a [(&'a str, SocketAddr)],
    /// What answers carry in `X-Proxy-Host`.
    pub host_name: &'a str,
}

/// Writes the configuration and the maps.
///
/// # Errors
/// When a file cannot be written.
pub fn write(site: &Site, place: Place<'_>) -> io::Result<()> {
    for (name, text) in maps(site) {
        fs::write(place.maps.join(format!("{name}.map")), text)?;
    }
    let peers = place.peers.iter().map(|(name, address)| format!("    peer {name} {address}\n"));
    let text = CONFIGURATION
        .replace("@SOCKET@", &place.socket.display().to_string())
        .replace("@BINDS@", place.binds)
        .replace("@LOG@", &place.log.to_string())
        .replace("@PEERS@", peers.collect::<String>().trim_end())
        .replace("@MAPS@", &place.maps.display().to_string())
        .replace("@REGION@", &site.region)
        .replace("@HOST_NAME@", place.host_name)
        .replace("@USE_BACKENDS@", use_backends(site).trim_end())
        .replace("@BACKENDS@", backends(site).trim_end());
    fs::write(place.file, text)
}

/// Every list has its file, also an empty one: the rules name them all.
fn maps(site: &Site) -> Vec<(&str, String)> {
    let text = |entries: &[(String, String)]| {
        entries.iter().map(|(key, value)| format!("{key} {value}\n")).collect::<String>()
    };
    let bans = ["domain", "exact", "prefix", "substr", "unban_prefix"].into_iter();
    let bans = bans.map(|list| (list, site.bans.get(list).map_or_else(String::new, |entries| text(entries))));
    let live = site.live.as_ref().map_or_else(String::new, |live| format!("live {live}\n"));
    bans.chain([("tenant", text(&site.pins)), ("live", live)]).collect()
}

/// R22, R23: bridges, then the shards in the order of their names, critical ones as well.
fn use_backends(site: &Site) -> String {
    let mut text = String::new();
    if site.bridges.is_some() {
        text.push_str(&format!(
            "    use_backend {BRIDGES} if {{ path_beg /colibri-ws/ /colibri-relay-ws/ }}\n"
        ));
    }
    let mut names: Vec<&str> = site.shards.iter().map(|shard| shard.name.as_str()).collect();
    names.sort_unstable();
    for name in names {
        text.push_str(&format!(
            "    use_backend {name} if {{ path_beg /{name}/ }} || {{ req.hdr(X-Room) -m end _{name} }}\n"
        ));
    }
    text
}

fn backends(site: &Site) -> String {
    let mut text = String::new();
    if let Some(address) = site.bridges {
        text.push_str(&format!("backend {BRIDGES}\n    server jvb {address}\n\n"));
    }
    for Shard { name, address, .. } in &site.shards {
        text.push_str(&format!("backend {name}\n    server {name} {address}\n\n"));
    }
    let mut releases: Vec<&str> = site.shards.iter().map(|shard| shard.release.as_str()).collect();
    releases.sort_unstable();
    releases.dedup();
    for release in releases {
        // R30, R31, R33, R35. The key is remembered with the request and written with the response.
        text.push_str(&format!(
            "backend {release}\n\
             \x20   balance hdr(X-StickToken)\n\
             \x20   hash-type consistent sdbm avalanche\n\
             \x20   hash-balance-factor 150\n\
             \x20   acl has_room req.hdr(X-Room),length gt 0\n\
             \x20   acl flagged req.fhdr(X-StickTokenFlag),length gt 0\n\
             \x20   stick match req.hdr(X-StickToken) table {TABLE} if has_room\n\
             \x20   stick store-request req.hdr(X-StickToken) table {TABLE} if has_room flagged\n"
        ));
        for (shard, duty) in servers(site, release) {
            let Shard { name, number, address, .. } = shard;
            let id = SERVER_ID_OFFSET + u16::from(*number);
            let duty = match duty {
                Duty::Primary => "",
                Duty::Backup => " backup",
            };
            writeln!(text, "    server {name} {address} id {id}{duty}").expect("a String takes everything");
        }
        text.push('\n');
    }
    text
}

/// What a server is for in a backend.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Duty {
    /// It takes requests.
    Primary,
    /// It takes them while no primary can.
    Backup,
}

/// The servers of a release in the order of R38: its own, the live release's, all others, each with the local region first.
#[must_use]
pub fn servers<'a>(site: &'a Site, release: &str) -> Vec<(&'a Shard, Duty)> {
    let distance = |region: &str| match region == site.region {
        true => 0,
        false => 1 + site.regions.iter().position(|other| other == region).unwrap_or(site.regions.len()),
    };
    let age = |other: &str| match other {
        _ if other == release => 0,
        _ if Some(other) == site.live.as_deref() => 1,
        _ => 2,
    };
    let mut shards: Vec<&Shard> =
        site.shards.iter().filter(|shard| shard.standing == Standing::InRelease).collect();
    shards.sort_by_key(|shard| (age(&shard.release), distance(&shard.region)));
    let duty = |shard: &Shard| match shard.release == release && shard.region == site.region {
        true => Duty::Primary,
        false => Duty::Backup,
    };
    shards.into_iter().map(|shard| (shard, duty(shard))).collect()
}
