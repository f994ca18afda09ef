//! shardgate as a subject: two nodes that are joined over QUIC with certificates of `shardgate pki`.

use std::fmt::Write as _;
use std::io::{self, BufRead, BufReader, Read, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;
use std::{env, fs};

use super::process::{Process, without_overrides};
use super::site::{REGION, Site};
use super::subject::{Count, Duties, Ground, Kind, Subject};

const CONFIGURATION: &str = include_str!("../../bench/shardgate.toml");
const TLS: &str = include_str!("../../bench/shardgate-tls.toml");
const ENVIRONMENT: &str = "bench";
const NODES: [&str; 2] = ["bench-a", "bench-b"];
/// The metric with the number of rooms in a node's table.
pub(super) const ENTRIES_METRIC: &str = "shardgate_table_entries";

/// The first line of `shardgate --version`.
pub fn version() -> io::Result<String> {
    Ok(run(&["--version"])?.trim().to_owned())
}

/// Starts a node and the second one that it replicates to, and waits until both are ready.
pub fn start(ground: Ground<'_>, site: &Site) -> io::Result<Subject> {
    let pki = ground.folder.join("pki");
    let directory = pki.display().to_string();
    run(&["pki", "init", "--dir", &directory, "--environment", ENVIRONMENT])?;
    for node in NODES {
        run(&["pki", "issue", "--dir", &directory, "--environment", ENVIRONMENT, "--peer", node])?;
    }
    let discovery = ground.folder.join("discovery.toml");
    fs::write(&discovery, discovery_file(ground, site))?;
    let mut peer = start_node(ground, 1, &pki, &discovery)?;
    let mut process = start_node(ground, 0, &pki, &discovery)?;
    for (index, node) in [&mut process, &mut peer].into_iter().enumerate() {
        let admin = admin(ground, index);
        node.wait_until("is ready", || get(admin, "/readyz").is_ok_and(|answer| is_ok(&answer)))?;
    }
    let peer_admin = admin(ground, 1);
    let replicated_rooms: Count = Box::new(move || metric(&get(peer_admin, "/metrics")?, ENTRIES_METRIC));
    let log = access_log(ground, 0);
    let logged_lines: Count = Box::new(move || count_lines(&log));
    let duties = Duties { peer, replicated_rooms, logged_lines };
    Ok(Subject::new(Kind::Shardgate, frontend(ground, 0), process, Some(duties)))
}

fn start_node(ground: Ground<'_>, index: usize, pki: &Path, discovery: &Path) -> io::Result<Process> {
    let name = NODES[index];
    let file = ground.folder.join(format!("{name}.toml"));
    let tls = ground.tls_address(frontend(ground, index));
    let configuration = match tls {
        None => CONFIGURATION.to_owned(),
        Some(address) => {
            let certificates = ground.certificate();
            let folder = certificates.parent().unwrap_or(ground.folder).display().to_string();
            let tls = TLS.replace("@FRONTEND_TLS@", &address.to_string()).replace("@CERTIFICATES@", &folder);
            format!("{CONFIGURATION}{tls}")
        }
    };
    let configuration = configuration
        .replace("@NODE@", name)
        .replace("@ENVIRONMENT@", ENVIRONMENT)
        .replace("@FRONTEND@", &frontend(ground, index).to_string())
        .replace("@MESH@", &mesh(ground, index).to_string())
        .replace("@ADMIN@", &admin(ground, index).to_string())
        .replace("@PKI@", &pki.display().to_string())
        .replace("@DISCOVERY@", &discovery.display().to_string())
        .replace("@ACCESS_LOG@", &access_log(ground, index).display().to_string());
    fs::write(&file, configuration)?;
    let cpu = if index == 0 { ground.cpus.subject } else { ground.cpus.rest };
    let arguments = ["serve".as_ref(), "--config".as_ref(), file.as_os_str()];
    let mut process = Process::start(name, cpu, ground.folder, &program()?, arguments)?;
    process.wait_until_listening(frontend(ground, index))?;
    Ok(process)
}

fn frontend(ground: Ground<'_>, index: usize) -> SocketAddr {
    ground.plan.subject(2, 1 + index as u8, 8000)
}

fn mesh(ground: Ground<'_>, index: usize) -> SocketAddr {
    ground.plan.subject(2, 1 + index as u8, 7000)
}

fn admin(ground: Ground<'_>, index: usize) -> SocketAddr {
    ground.plan.subject(2, 1 + index as u8, 8405)
}

fn access_log(ground: Ground<'_>, index: usize) -> PathBuf {
    ground.folder.join(format!("{}.access.log", NODES[index]))
}

fn count_lines(file: &Path) -> io::Result<u64> {
    let mut lines = 0;
    let mut reader = BufReader::with_capacity(1 << 20, fs::File::open(file)?);
    loop {
        let chunk = reader.fill_buf()?;
        if chunk.is_empty() {
            return Ok(lines);
        }
        lines += chunk.iter().filter(|byte| **byte == b'\n').count() as u64;
        let length = chunk.len();
        reader.consume(length);
    }
}

fn discovery_file(ground: Ground<'_>, site: &Site) -> String {
    let mut text = site.discovery();
    for (index, node) in NODES.iter().enumerate() {
        let address = mesh(ground, index);
        write!(text, "[[peers]]\nid = \"{node}\"\nregion = \"{REGION}\"\naddress = \"{address}\"\n")
            .expect("a String takes everything");
    }
    text
}

pub(super) fn program() -> io::Result<PathBuf> {
    env::var_os("SHARDGATE_BIN").map(PathBuf::from).ok_or_else(|| {
        io::Error::other(
            "SHARDGATE_BIN must name the shardgate to measure: start the bench by tests/bench/run",
        )
    })
}

pub(super) fn run(arguments: &[&str]) -> io::Result<String> {
    let program = program()?;
    let mut command = Command::new(&program);
    without_overrides(&mut command);
    let output = command.args(arguments).output();
    let output = output.map_err(|error| io::Error::other(format!("{}: {error}", program.display())))?;
    if output.status.success() {
        return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
    }
    let error = String::from_utf8_lossy(&output.stderr);
    Err(io::Error::other(format!("shardgate {}: {}: {error}", arguments.join(" "), output.status)))
}

pub(super) fn get(address: SocketAddr, path: &str) -> io::Result<String> {
    let mut stream = TcpStream::connect(address)?;
    stream.set_read_timeout(Some(Duration::from_secs(5)))?;
    write!(stream, "GET {path} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n")?;
    let mut text = String::new();
    stream.read_to_string(&mut text)?;
    Ok(text)
}

pub(super) fn is_ok(answer: &str) -> bool {
    answer.starts_with("HTTP/1.1 200 ")
}

/// The value of a metric without labels.
pub(super) fn metric(text: &str, name: &str) -> io::Result<u64> {
    let values = text.lines().filter_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
    let value = values.filter_map(|value| value.trim().parse::<f64>().ok()).next();
    value.map(|value| value as u64).ok_or_else(|| io::Error::other(format!("no metric {name} in /metrics")))
}
