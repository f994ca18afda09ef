//! What an attack meets: a node of its own, with defaults but for the shorter timeouts and the memory ceiling, and its shards.

use std::collections::BTreeMap;
use std::fs;
use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use tempfile::TempDir;
use tokio_rustls::rustls::pki_types::CertificateDer;

use super::dial::{Doors, SERVER_NAME};
use super::origin;
use crate::bench::net::AddressPlan;
use crate::bench::process::without_overrides;
use crate::bench::site::Routing;
use crate::certificates::Authority;

/// 127.88.0.0/16.
const SECOND_OCTET: u8 = 88;
/// What the node may take: 256 MiB more than it takes idle, about.
pub const CEILING_MIB: u64 = 288;
const CONFIGURATION: &str = include_str!("shardgate.toml");
const START_MAX: Duration = Duration::from_secs(20);

/// A running node with its shards. Dropping it ends the node.
pub struct Ground {
    child: Child,
    admin: SocketAddr,
    pub(super) doors: Doors,
    folder: TempDir,
}

/// The numbers of `/metrics` at one moment, by name and labels as they are written.
#[derive(Debug, Default, Clone)]
pub(super) struct Metrics(BTreeMap<String, u64>);

impl Metrics {
    /// A number; 0 when the node does not say it.
    pub(super) fn get(&self, name: &str) -> u64 {
        self.0.get(name).copied().unwrap_or(0)
    }

    /// How much a counter grew since `before`.
    pub(super) fn since(&self, before: &Self, name: &str) -> u64 {
        self.get(name).saturating_sub(before.get(name))
    }
}

impl Ground {
    /// Starts shards and the node `program`, and waits until the node is ready.
    ///
    /// # Errors
    /// Something did not start; the node's log is in the message.
    pub fn start(program: &Path) -> io::Result<Self> {
        let plan = AddressPlan::at(SECOND_OCTET);
        let folder = tempfile::Builder::new().prefix("shardgate-attack-").tempdir()?;
        origin::start(&plan.shards())?;
        let authority = Authority::new()?;
        let bundle = authority.issue(SERVER_NAME, 1)?.bundle();
        let certificate = CertificateDer::from(authority.der().to_vec());
        let (plain, https, admin) =
            (plan.subject(0, 1, 8080), plan.subject(0, 1, 8443), plan.subject(0, 1, 8405));
        let configuration = CONFIGURATION
            .replace("@PLAIN@", &plain.to_string())
            .replace("@HTTPS@", &https.to_string())
            .replace("@ADMIN@", &admin.to_string())
            .replace("@CEILING@", &format!("{CEILING_MIB}MiB"));
        for (name, text) in [
            ("node.toml", configuration),
            ("node.pem", bundle),
            ("discovery.toml", Routing::ByRoom.site(plan).discovery()),
        ] {
            fs::write(folder.path().join(name), text)?;
        }
        // The wrapper replaces itself, so the child's id is the node's; the kernel ends the node with the attack.
        let mut command = Command::new("setpriv");
        command.args(["--pdeathsig", "KILL"]).arg(program).args(["serve", "--config"]);
        command.arg(folder.path().join("node.toml")).stdin(Stdio::null());
        let log = fs::File::create(folder.path().join("node.log"))?;
        command.stdout(log.try_clone()?).stderr(log);
        without_overrides(&mut command);
        let doors = Doors { plain, https, certificate };
        let mut ground = Self { child: command.spawn()?, admin, doors, folder };
        ground.wait_until_ready()?;
        Ok(ground)
    }

    fn wait_until_ready(&mut self) -> io::Result<()> {
        let deadline = Instant::now() + START_MAX;
        while !self.says_ok("/readyz") {
            let ended = self.child.try_wait()?;
            if ended.is_some() || Instant::now() > deadline {
                let why = ended.map_or_else(|| "not ready in time".to_owned(), |status| status.to_string());
                return Err(io::Error::other(format!("the node: {why}\n{}", self.log())));
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        Ok(())
    }

    /// What the node has logged.
    #[must_use]
    pub fn log(&self) -> String {
        fs::read_to_string(self.folder.path().join("node.log")).unwrap_or_default()
    }

    pub(super) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Whether an admin path is answered with 200.
    pub(super) fn says_ok(&self, path: &str) -> bool {
        self.ask(path).is_ok_and(|answer| answer.starts_with("HTTP/1.1 200 "))
    }

    pub(super) fn metrics(&self) -> io::Result<Metrics> {
        let text = self.ask("/metrics")?;
        let lines = text.lines().filter(|line| line.starts_with("shardgate_"));
        let numbers = lines.filter_map(|line| {
            let (name, value) = line.rsplit_once(' ')?;
            Some((name.trim_start_matches("shardgate_").to_owned(), value.parse::<f64>().ok()? as u64))
        });
        Ok(Metrics(numbers.collect()))
    }

    fn ask(&self, path: &str) -> io::Result<String> {
        let mut stream = TcpStream::connect_timeout(&self.admin, Duration::from_secs(2))?;
        stream.set_read_timeout(Some(Duration::from_secs(5)))?;
        write!(stream, "GET {path} HTTP/1.1\r\nHost: {}\r\nConnection: close\r\n\r\n", self.admin)?;
        let mut text = String::new();
        stream.read_to_string(&mut text)?;
        Ok(text)
    }
}

impl Drop for Ground {
    fn drop(&mut self) {
        // An error here means that it has ended already.
        self.child.kill().ok();
        self.child.wait().ok();
    }
}
