//! The two real servers that stand in for shards, and what they say has arrived.

use std::collections::BTreeMap;
use std::fs;
use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use serde::Deserialize;

const NGINX_CONFIGURATION: &str = include_str!("../../conformance/nginx.conf");
const NODE_PROGRAM: &str = include_str!("../../conformance/upstream.mjs");
const STARTS_WITHIN: Duration = Duration::from_secs(15);
const LOOK_EVERY: Duration = Duration::from_millis(5);

/// Which server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// Debian's nginx.
    Nginx,
    /// Node's `http`.
    Node,
}

impl Kind {
    pub(super) const ALL: [Self; 2] = [Self::Nginx, Self::Node];

    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::Nginx => "nginx",
            Self::Node => "node",
        }
    }

    const fn third_octet(self) -> u8 {
        match self {
            Self::Nginx => 1,
            Self::Node => 2,
        }
    }

    /// An address of this server's part of the run.
    pub(super) const fn address(self, host: u8, port: u16) -> SocketAddr {
        let ip = Ipv4Addr::new(127, 86, self.third_octet(), host);
        SocketAddr::V4(std::net::SocketAddrV4::new(ip, port))
    }
}

/// A request as it arrived.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Arrived {
    pub(super) method: String,
    pub(super) target: String,
    pub(super) body: Vec<u8>,
    /// Names in lower case; of nginx only those that its log has.
    pub(super) fields: Vec<(String, String)>,
    /// `None` where the server does not tell.
    pub(super) trailers: Option<Vec<(String, String)>>,
    /// All of its body came.
    pub(super) complete: bool,
    /// What the server makes of it; 400 says that it is no HTTP.
    pub(super) status: u16,
}

/// A running server. Dropping it kills it and waits for its end.
pub(super) struct Upstream {
    kind: Kind,
    child: Child,
    folder: PathBuf,
}

impl Drop for Upstream {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

impl Upstream {
    /// Starts it, and waits until it listens.
    pub(super) fn start(kind: Kind, folder: &Path) -> io::Result<Self> {
        let log = fs::File::create(folder.join(format!("{}.log", kind.name())))?;
        let shard = Self::shard(kind);
        let mut command = match kind {
            Kind::Nginx => {
                let configuration = NGINX_CONFIGURATION
                    .replace("@FOLDER@", &folder.display().to_string())
                    .replace("@SHARD@", &shard.to_string())
                    .replace("@INNER@", &kind.address(3, 18081).to_string());
                let file = folder.join("nginx.conf");
                fs::write(&file, configuration)?;
                let mut command = Command::new("nginx");
                command
                    .arg("-p")
                    .arg(folder)
                    .arg("-c")
                    .arg(&file)
                    .arg("-e")
                    .arg(folder.join("nginx.error.log"));
                command
            }
            Kind::Node => {
                let file = folder.join("upstream.mjs");
                fs::write(&file, NODE_PROGRAM)?;
                let mut command = Command::new("node");
                command.arg(&file).arg(shard.ip().to_string()).arg(shard.port().to_string());
                command.arg(CONTROL_PORT.to_string());
                command
            }
        };
        command.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log);
        let child = command.spawn().map_err(|error| {
            io::Error::other(format!("{} cannot be started: {error}; is it installed?", kind.name()))
        })?;
        let mut upstream = Self { kind, child, folder: folder.to_owned() };
        upstream.wait_until_listening(shard)?;
        if kind == Kind::Node {
            upstream.wait_until_listening(kind.address(2, CONTROL_PORT))?;
        }
        Ok(upstream)
    }

    /// Where it answers as a shard.
    pub(super) const fn shard(kind: Kind) -> SocketAddr {
        kind.address(2, 18080)
    }

    fn wait_until_listening(&mut self, address: SocketAddr) -> io::Result<()> {
        let deadline = Instant::now() + STARTS_WITHIN;
        while TcpStream::connect(address).is_err() {
            if self.child.try_wait()?.is_some() || Instant::now() > deadline {
                let log = self.folder.join(format!("{}.log", self.kind.name()));
                let (name, log) = (self.kind.name(), fs::read_to_string(log).unwrap_or_default());
                return Err(io::Error::other(format!("{name} does not listen on {address}:\n{log}")));
            }
            std::thread::sleep(LOOK_EVERY);
        }
        Ok(())
    }

    /// What has arrived so far with `tag` in its target, in order.
    pub(super) fn arrived(&self, tag: &str) -> io::Result<Vec<Arrived>> {
        match self.kind {
            Kind::Nginx => self.logged(tag),
            Kind::Node => self.told(tag),
        }
    }

    /// Waits until `holds` of what has arrived; then what that is, or what it is after two seconds.
    pub(super) fn wait(&self, tag: &str, holds: impl Fn(&[Arrived]) -> bool) -> io::Result<Vec<Arrived>> {
        let deadline = Instant::now() + Duration::from_secs(2);
        loop {
            let arrived = self.arrived(tag)?;
            if holds(&arrived) || Instant::now() > deadline {
                return Ok(arrived);
            }
            std::thread::sleep(LOOK_EVERY);
        }
    }

    fn logged(&self, tag: &str) -> io::Result<Vec<Arrived>> {
        let text = fs::read(self.folder.join("nginx.seen.log"))?;
        let text = String::from_utf8_lossy(&text);
        // A line that is being written has no end yet.
        let lines = text.split_inclusive('\n').filter(|line| line.ends_with('\n') && line.contains(tag));
        let read = |line: &str| -> io::Result<Arrived> {
            let mut fields: BTreeMap<String, serde_json::Value> =
                serde_json::from_str(line).map_err(|error| io::Error::other(format!("{error}: {line}")))?;
            let mut text = |name: &str| match fields.remove(name) {
                Some(serde_json::Value::String(text)) => text,
                Some(other) => other.to_string(),
                None => String::new(),
            };
            let (target, line) = (text("target"), text("line"));
            let (method, status) = (text("method"), text("status").parse().unwrap_or(0));
            let (body, connection) = (text("body").into_bytes(), text("connection-field"));
            drop(text("connection"));
            let mut rest: Vec<(String, String)> = fields
                .into_iter()
                .filter_map(|(name, value)| Some((name, value.as_str()?.to_owned())))
                .filter(|(_, value)| !value.is_empty())
                .collect();
            if !connection.is_empty() {
                rest.push(("connection".to_owned(), connection));
            }
            let target = if target.is_empty() { line } else { target };
            // 499 and 400 without a body's end: the client left.
            let complete = status != 400 && status != 499;
            Ok(Arrived { method, target, body, fields: rest, trailers: None, complete, status })
        };
        lines.map(read).collect()
    }

    fn told(&self, tag: &str) -> io::Result<Vec<Arrived>> {
        #[derive(Deserialize)]
        struct Entry {
            method: String,
            target: String,
            headers: Vec<String>,
            body: String,
            trailers: Vec<String>,
            complete: bool,
            status: u16,
        }
        let mut stream = TcpStream::connect(self.kind.address(2, CONTROL_PORT))?;
        write!(stream, "GET /{tag} HTTP/1.1\r\nHost: control\r\nConnection: close\r\n\r\n")?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer)?;
        let from = answer.find('[').ok_or_else(|| io::Error::other(format!("no list: {answer}")))?;
        let to = answer.rfind(']').unwrap_or(from);
        let entries: Vec<Entry> = serde_json::from_str(&answer[from..=to]).map_err(io::Error::other)?;
        let pairs = |list: &[String]| -> Vec<(String, String)> {
            list.chunks_exact(2).map(|pair| (pair[0].to_ascii_lowercase(), pair[1].clone())).collect()
        };
        let arrived = entries.into_iter().map(|entry| Arrived {
            fields: pairs(&entry.headers),
            trailers: Some(pairs(&entry.trailers)),
            method: entry.method,
            target: entry.target,
            // Told as Latin-1.
            body: entry.body.chars().filter_map(|letter| u8::try_from(u32::from(letter)).ok()).collect(),
            complete: entry.complete,
            status: entry.status,
        });
        Ok(arrived.collect())
    }
}

const CONTROL_PORT: u16 = 18082;
