//! HAProxy as a subject: stick table with store, access log, replication to a second HAProxy.

use std::cell::RefCell;
use std::ffi::OsStr;
use std::fmt::Write as _;
use std::io::{self, Read, Write as _};
use std::net::SocketAddr;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;
use std::{env, fs};

use super::haproxy_rules::{self, Place};
use super::process::{Obedient, Process, sibling};
use super::site::{Routing, Site};
use super::subject::{Count, Duties, Entrances, Ground, Kind, Subject};

const CONFIGURATION: &str = include_str!("../../bench/haproxy.cfg");
const TLS: &str = include_str!("../../bench/haproxy-tls.cfg");
const NODES: [&str; 2] = ["a", "b"];
const HOST_NAME: &str = "haproxy-bench";

/// The first line of `haproxy -v`.
pub fn version() -> io::Result<String> {
    version_of(&program()?)
}

pub(crate) fn version_of(program: &Path) -> io::Result<String> {
    let output = Command::new(program).arg("-v").output();
    let output = output.map_err(|error| io::Error::other(format!("{}: {error}", program.display())))?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    text.lines().next().map(str::to_owned).ok_or_else(|| io::Error::other("haproxy -v printed nothing"))
}

/// Starts a HAProxy, the peer that it replicates to and the sink of its access log.
pub fn start(ground: Ground<'_>, site: &Site, routing: Routing) -> io::Result<Subject> {
    let sinks = [start_sink(ground, 0)?, start_sink(ground, 1)?];
    let (peer, peer_socket) = start_node(ground, 1, site, routing)?;
    let (mut process, _) = start_node(ground, 0, site, routing)?;
    process.wait_until("has connected its peer", || {
        ask(&peer_socket, "show peers").is_ok_and(|text| text.contains("last_status=ESTA"))
    })?;
    let table = match routing {
        Routing::ByRoom => "shards",
        Routing::ByAllRules => haproxy_rules::TABLE,
    };
    let replicated_rooms: Count =
        Box::new(move || used_entries(&ask(&peer_socket, &format!("show table {table}"))?));
    let sinks = RefCell::new(sinks);
    let logged_lines: Count = Box::new(move || {
        let count = sinks.borrow_mut()[0].ask("count", Duration::from_secs(5))?;
        count.parse().map_err(io::Error::other)
    });
    let duties = Duties { peer, replicated_rooms, logged_lines };
    Ok(Subject::new(Kind::HaProxy, frontend(ground, 0), process, Some(duties)))
}

fn start_sink(ground: Ground<'_>, index: usize) -> io::Result<Obedient> {
    let arguments = [log_sink(ground, index).to_string()];
    Obedient::start("log sink", ground.cpus.rest, &sibling("bench_log_sink")?, arguments)
}

fn start_node(
    ground: Ground<'_>,
    index: usize,
    site: &Site,
    routing: Routing,
) -> io::Result<(Process, PathBuf)> {
    let name = NODES[index];
    let socket = ground.folder.join(format!("haproxy-{name}.sock"));
    let file = ground.folder.join(format!("haproxy-{name}.cfg"));
    match routing {
        Routing::ByRoom => fs::write(&file, configuration(ground, index, site, &socket))?,
        Routing::ByAllRules => {
            let place = Place {
                file: &file,
                maps: ground.folder,
                socket: &socket,
                binds: &binds(ground, index),
                log: log_sink(ground, index),
                peers: &[(NODES[0], peer(ground, 0)), (NODES[1], peer(ground, 1))],
                host_name: HOST_NAME,
            };
            haproxy_rules::write(site, place)?;
        }
    }
    let cpu = if index == 0 { ground.cpus.subject } else { ground.cpus.rest };
    // How TLS is done must be known before the lines that use it.
    let tls = ground.folder.join("haproxy-tls.cfg");
    let mut arguments: Vec<&OsStr> = vec![];
    if ground.entrances == Entrances::PlainAndTls {
        fs::write(&tls, TLS)?;
        arguments.extend(["-f".as_ref(), tls.as_os_str()]);
    }
    arguments.extend(["-f".as_ref(), file.as_os_str(), "-L".as_ref(), name.as_ref()]);
    let mut process = Process::start(&format!("haproxy-{name}"), cpu, ground.folder, &program()?, arguments)?;
    process.wait_until_listening(frontend(ground, index))?;
    Ok((process, socket))
}

fn configuration(ground: Ground<'_>, index: usize, site: &Site, socket: &Path) -> String {
    let mut shards = String::new();
    for shard in &site.shards {
        // The purge delay: idle connections to a shard outlive the other subjects' turns, as shardgate's do.
        writeln!(shards, "    server s{} {} pool-purge-delay 60s", shard.number, shard.address)
            .expect("a String takes everything");
    }
    CONFIGURATION
        .replace("@SOCKET@", &socket.display().to_string())
        .replace("@BINDS@", &binds(ground, index))
        .replace("@LOG@", &log_sink(ground, index).to_string())
        .replace("@PEER_A@", &peer(ground, 0).to_string())
        .replace("@PEER_B@", &peer(ground, 1).to_string())
        .replace("@SHARDS@", shards.trim_end())
}

fn binds(ground: Ground<'_>, index: usize) -> String {
    let plain = frontend(ground, index);
    let tls = ground.tls_address(plain).map(|address| {
        let certificate = ground.certificate();
        format!("\n    bind {address} ssl crt {} alpn h2,http/1.1", certificate.display())
    });
    format!("bind {plain}{}", tls.unwrap_or_default())
}

fn frontend(ground: Ground<'_>, index: usize) -> SocketAddr {
    ground.plan.subject(1, 1 + index as u8, 8000)
}

fn peer(ground: Ground<'_>, index: usize) -> SocketAddr {
    ground.plan.subject(1, 1 + index as u8, 1024)
}

fn log_sink(ground: Ground<'_>, index: usize) -> SocketAddr {
    ground.plan.subject(1, 1 + index as u8, 5140)
}

/// The launcher beside the unpacked tree; the script that starts the bench names both.
pub(super) fn program() -> io::Result<PathBuf> {
    env::var_os("BENCH_HAPROXY").map(PathBuf::from).ok_or_else(|| {
        io::Error::other(
            "BENCH_HAPROXY must name a program that runs HAProxy: start the bench by tests/bench/run",
        )
    })
}

pub(crate) fn ask(socket: &Path, command: &str) -> io::Result<String> {
    let mut stream = UnixStream::connect(socket)?;
    stream.set_read_timeout(Some(Duration::from_secs(5)))?;
    writeln!(stream, "{command}")?;
    let mut text = String::new();
    stream.read_to_string(&mut text)?;
    Ok(text)
}

/// From the table's heading: `# table: shards, type: string, size:204800, used:10000`.
pub(super) fn used_entries(text: &str) -> io::Result<u64> {
    let heading = text.lines().next().unwrap_or("");
    let used = heading.split_once("used:").and_then(|(_, used)| used.trim().parse().ok());
    used.ok_or_else(|| io::Error::other(format!("no count of used entries in {heading:?}")))
}
