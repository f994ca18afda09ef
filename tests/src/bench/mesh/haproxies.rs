//! HAProxies as nodes of a mesh.

use std::ffi::OsString;
use std::fmt::Write as _;
use std::fs;
use std::io;
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};

use super::super::haproxy::{ask, program, used_entries};
use super::fleet::{Kit, Places, Spec, shards};

const CONFIGURATION: &str = include_str!("../../../bench/haproxy-mesh.cfg");

pub(super) struct HaProxies {
    nodes: Vec<Node>,
    peers: usize,
}

struct Node {
    name: String,
    file: PathBuf,
    socket: PathBuf,
    frontend: SocketAddr,
}

pub(super) fn prepare(
    folder: &Path,
    places: Places,
    spec: &Spec,
    address: impl Fn(usize, usize) -> SocketAddr,
) -> io::Result<HaProxies> {
    let alone = spec.path == super::fleet::Path::Alone;
    let mut nodes = Vec::new();
    for index in 0..spec.regions.len() {
        let name = name(index);
        let (file, socket) = (folder.join(format!("{name}.cfg")), folder.join(format!("{name}.sock")));
        let peers = (0..spec.regions.len()).filter(|peer| !alone || *peer == index).map(|peer| {
            let address = if peer == index { places.peer(index) } else { address(index, peer) };
            format!("    peer {} {address}", self::name(peer))
        });
        let configuration = CONFIGURATION
            .replace("@SOCKET@", &socket.display().to_string())
            .replace("@FRONTEND@", &places.frontend(index).to_string())
            .replace("@PEERS@", &peers.collect::<Vec<_>>().join("\n"))
            .replace("@REPLICATED@", if alone { "" } else { " peers mesh" })
            .replace("@SIZE@", &spec.table_size.to_string())
            .replace("@EXPIRE@", &spec.expire_s.to_string())
            .replace("@SHARDS@", servers(places, spec, spec.regions[index]).trim_end());
        fs::write(&file, configuration)?;
        nodes.push(Node { name, file, socket, frontend: places.frontend(index) });
    }
    let peers = if alone { 0 } else { nodes.len() - 1 };
    Ok(HaProxies { nodes, peers })
}

fn name(index: usize) -> String {
    format!("node{index}")
}

fn servers(places: Places, spec: &Spec, region: usize) -> String {
    let mut lines = String::new();
    for (number, address) in shards(places) {
        let weight = if spec.region_of_shard(number) == region { 100 } else { 0 };
        writeln!(lines, "    server s{number} {address} weight {weight} pool-purge-delay 60s")
            .expect("a String takes everything");
    }
    lines
}

impl Kit for HaProxies {
    fn command(&self, index: usize) -> io::Result<(PathBuf, Vec<OsString>)> {
        let node = &self.nodes[index];
        Ok((program()?, vec!["-f".into(), node.file.clone().into(), "-L".into(), node.name.clone().into()]))
    }

    fn is_serving(&self, index: usize) -> bool {
        TcpStream::connect(self.nodes[index].frontend).is_ok()
    }

    fn is_joined(&self, index: usize) -> bool {
        let node = &self.nodes[index];
        let connected = ask(&node.socket, "show peers").map(|text| text.matches("last_status=ESTA").count());
        connected.is_ok_and(|count| count >= self.peers) && self.is_serving(index)
    }

    fn entries(&self, index: usize) -> io::Result<u64> {
        // Without the table's name: the headings alone, not a million entries.
        used_entries(&ask(&self.nodes[index].socket, "show table")?)
    }

    fn counter(&self, _: usize, _: &str) -> io::Result<Option<u64>> {
        Ok(None)
    }
}
