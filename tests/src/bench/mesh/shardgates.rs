//! shardgates as nodes of a mesh: joined over QUIC with certificates of `shardgate pki`.

use std::ffi::OsString;
use std::fmt::Write as _;
use std::fs;
use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use shardgate_peering::core::{PeerId, StickKey, first_by_rendezvous};

use super::super::room_names::unlike_room_name;
use super::super::shardgate::{ENTRIES_METRIC, get, is_ok, metric, program, run};
use super::fleet::{Kit, Places, Spec, shards};

const CONFIGURATION: &str = include_str!("../../../bench/shardgate-mesh.toml");
const ENVIRONMENT: &str = "bench";

pub(super) struct Shardgates {
    nodes: Vec<Node>,
    peers: usize,
}

struct Node {
    file: PathBuf,
    admin: SocketAddr,
}

pub(super) fn prepare(
    folder: &Path,
    places: Places,
    spec: &Spec,
    address: impl Fn(usize, usize) -> SocketAddr,
) -> io::Result<Shardgates> {
    let pki = folder.join("pki").display().to_string();
    run(&["pki", "init", "--dir", &pki, "--environment", ENVIRONMENT])?;
    let alone = spec.path == super::fleet::Path::Alone;
    let mut nodes = Vec::new();
    for index in 0..spec.regions.len() {
        let name = node_name(index);
        run(&["pki", "issue", "--dir", &pki, "--environment", ENVIRONMENT, "--peer", &name])?;
        let (file, discovery) =
            (folder.join(format!("{name}.toml")), folder.join(format!("{name}.peers.toml")));
        fs::write(&discovery, discovery_file(places, spec, |peer| (!alone).then(|| address(index, peer))))?;
        let admin = places.admin(index);
        let configuration = CONFIGURATION
            .replace("@NODE@", &name)
            .replace("@REGION@", &region_name(spec.regions[index]))
            .replace("@ENVIRONMENT@", ENVIRONMENT)
            .replace("@FRONTEND@", &places.frontend(index).to_string())
            .replace("@EXPIRE@", &spec.expire_s.to_string())
            .replace("@SIZE@", &spec.table_size.to_string())
            .replace("@MESH@", &places.peer(index).to_string())
            .replace("@ADMIN@", &admin.to_string())
            .replace("@PKI@", &pki)
            .replace("@DISCOVERY@", &discovery.display().to_string());
        fs::write(&file, configuration)?;
        nodes.push(Node { file, admin });
    }
    let peers = if alone { 0 } else { nodes.len() - 1 };
    Ok(Shardgates { nodes, peers })
}

/// What the node numbered `index` is called in the mesh.
#[must_use]
pub fn node_name(index: usize) -> String {
    format!("node{index}")
}

/// The home of the room with this number in a mesh of so many nodes that are all ready.
pub(super) fn home_of_room(nodes: usize, room: usize) -> io::Result<usize> {
    let ids: Result<Vec<PeerId>, _> = (0..nodes).map(|node| PeerId::parse(&node_name(node))).collect();
    let ids = ids.map_err(io::Error::other)?;
    let key = StickKey::parse(&unlike_room_name(room)).map_err(io::Error::other)?;
    let home = first_by_rendezvous(&key, ids.iter());
    Ok(ids.iter().position(|id| Some(id) == home).unwrap_or(0))
}

fn region_name(region: usize) -> String {
    format!("region-{region}")
}

/// A node lists itself too: it skips its own name.
fn discovery_file(places: Places, spec: &Spec, address: impl Fn(usize) -> Option<SocketAddr>) -> String {
    let mut text = "live_release = \"release-1\"\n".to_owned();
    for (number, shard) in shards(places) {
        let region = region_name(spec.region_of_shard(number));
        write!(
            text,
            "[[shards]]\nname = \"bench-s{number}\"\nid = {number}\nregion = \"{region}\"\nrelease = \"release-1\"\naddress = \"{shard}\"\n"
        )
        .expect("a String takes everything");
    }
    for (index, region) in spec.regions.iter().enumerate() {
        let Some(peer) = address(index) else { continue };
        let (id, region) = (node_name(index), region_name(*region));
        write!(text, "[[peers]]\nid = \"{id}\"\nregion = \"{region}\"\naddress = \"{peer}\"\n")
            .expect("a String takes everything");
    }
    text
}

impl Kit for Shardgates {
    fn command(&self, index: usize) -> io::Result<(PathBuf, Vec<OsString>)> {
        Ok((program()?, vec!["serve".into(), "--config".into(), self.nodes[index].file.clone().into()]))
    }

    fn is_serving(&self, index: usize) -> bool {
        get(self.nodes[index].admin, "/readyz").is_ok_and(|answer| is_ok(&answer))
    }

    fn is_joined(&self, index: usize) -> bool {
        let admin = self.nodes[index].admin;
        self.is_serving(index)
            && get(admin, "/metrics").is_ok_and(|text| {
                // A peer's readiness is heard of with its next heartbeat; until then nodes differ about the homes.
                ["shardgate_peer_reconciled{", "shardgate_peer_ready{"].iter().all(|name| {
                    let peers = text.lines().filter(|line| line.starts_with(name));
                    peers.filter(|line| line.ends_with(" 1")).count() >= self.peers
                })
            })
    }

    fn entries(&self, index: usize) -> io::Result<u64> {
        metric(&get(self.nodes[index].admin, "/metrics")?, ENTRIES_METRIC)
    }

    fn counter(&self, index: usize, name: &str) -> io::Result<Option<u64>> {
        Ok(metric(&get(self.nodes[index].admin, "/metrics")?, name).ok())
    }
}
