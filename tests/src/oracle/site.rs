//! The node that is asked, and everything around it, made from a recording's environment.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;
use std::io::{self, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, Sender};
use std::time::{Duration, Instant};

use serde::Deserialize;

use super::Variant;
use super::record::{Environment, Maps, Shard};
use super::stand_in::{Received, serve};

/// What answers carry in `X-Proxy-Host`, as in the recordings.
pub(super) const HOST_NAME: &str = "oracle-haproxy";
const STARTS_WITHIN: Duration = Duration::from_secs(10);

/// Addresses of this run: 127.84.0.0/16 is its own.
fn address(third: u8, fourth: u8, port: u16) -> SocketAddr {
    SocketAddr::from((Ipv4Addr::new(127, 84, third, fourth), port))
}

fn frontend() -> SocketAddr {
    address(0, 1, 18000)
}

fn admin() -> SocketAddr {
    address(0, 1, 18405)
}

/// The programs that are tested.
#[derive(Debug, Clone)]
pub(super) struct Programs {
    pub(super) shardgate: PathBuf,
    pub(super) shardgatectl: PathBuf,
}

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
}

/// The one pool that recordings know.
const COLIBRI: &str = "jvb-colibri-proxy";

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
        })
    }

    fn configuration(&self, discovery: &Path, compat: &str) -> String {
        let pool = |name: &String| {
            format!(
                "[[pools]]\nname = {name:?}\npaths = [\"/colibri-ws/\", \"/colibri-relay-ws/\"]\nservers = [\"{}\"]\n",
                pool_address()
            )
        };
        let pools: String = self.pools.iter().map(pool).collect();
        format!(
            "[node]\nid = \"oracle\"\nregion = \"{}\"\nhost_name = \"{HOST_NAME}\"\n\
             [frontend]\nlisten = [\"{}\"]\nworkers = 1\n\
             [stick_table]\nexpire = \"10s\"\n\
             [discovery]\nfile = {:?}\nevery = \"50ms\"\n\
             [routing]\ncompat = \"{compat}\"\nregion_order = {:?}\n\
             [[admin]]\nlisten = \"{}\"\nserve = [\"health\", \"status\"]\n{pools}",
            self.region,
            frontend(),
            discovery.display().to_string(),
            self.regions,
            admin(),
        )
    }

    fn discovery(&self) -> String {
        let mut text = String::new();
        if let Some(live) = &self.live {
            text.push_str(&format!("live_release = {live:?}\n"));
        }
        for shard in &self.shards {
            // A shard that Consul calls critical has a backend of its own, and is in no release's.
            let state = if shard.status == "critical" { "maint" } else { "ready" };
            let Shard { name, n, region, release, .. } = shard;
            let address = shard_address(*n);
            writeln!(
                text,
                "[[shards]]\nname = {name:?}\nid = {n}\nregion = {region:?}\nrelease = \"release-{release}\"\n\
                 address = \"{address}\"\nstate = \"{state}\""
            )
            .expect("a String takes everything");
        }
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

fn shard_address(number: u8) -> SocketAddr {
    address(1, number, 18443)
}

fn pool_address() -> SocketAddr {
    address(2, 1, 18088)
}

/// Stand-ins for all shards of all variants, for the whole run.
pub(super) fn stand_ins(plans: &[Plan], told: &Sender<Received>) -> io::Result<()> {
    let mut shards: BTreeMap<u8, &str> = BTreeMap::new();
    for shard in plans.iter().flat_map(|plan| &plan.shards) {
        shards.insert(shard.n, &shard.name);
    }
    for (number, name) in shards {
        serve(name, shard_address(number), told)?;
    }
    serve(COLIBRI, pool_address(), told)
}

/// A running node. Dropping it kills it and waits for its end.
pub(super) struct Site {
    child: Child,
    programs: Programs,
    folder: tempfile::TempDir,
    pub(super) plan: Plan,
}

/// One key of the table, as `shardgatectl table` tells it.
#[derive(Debug, Clone, Deserialize)]
pub(super) struct Row {
    pub(super) key: String,
    pub(super) shard: Option<String>,
}

impl Site {
    /// Starts a node and waits until it is ready.
    pub(super) fn start(programs: &Programs, plan: &Plan, compat: &str) -> io::Result<Self> {
        let folder = tempfile::tempdir()?;
        let (discovery, configuration) =
            (folder.path().join("discovery.toml"), folder.path().join("shardgate.toml"));
        fs::write(&discovery, plan.discovery())?;
        fs::write(&configuration, plan.configuration(&discovery, compat))?;
        let log = fs::File::create(folder.path().join("log"))?;
        let child = Command::new(&programs.shardgate)
            .args(["serve", "--config"])
            .arg(&configuration)
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            .spawn()?;
        let mut site = Self { child, programs: programs.clone(), folder, plan: plan.clone() };
        site.wait_until_ready()?;
        Ok(site)
    }

    fn wait_until_ready(&mut self) -> io::Result<()> {
        let deadline = Instant::now() + STARTS_WITHIN;
        while !is_ready() {
            let ended = self.child.try_wait()?;
            if ended.is_some() || Instant::now() > deadline {
                let log = fs::read_to_string(self.folder.path().join("log")).unwrap_or_default();
                let why =
                    ended.map_or_else(|| "is not ready".to_owned(), |status| format!("ended ({status})"));
                return Err(io::Error::other(format!("shardgate {why}:\n{log}")));
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        Ok(())
    }

    pub(super) fn frontend(&self) -> SocketAddr {
        frontend()
    }

    fn ctl(&self, arguments: &[&str]) -> io::Result<String> {
        let output = Command::new(&self.programs.shardgatectl)
            .args(["--node", &admin().to_string(), "--output", "json"])
            .args(arguments)
            .output()?;
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    }

    /// The live entries.
    pub(super) fn table(&self) -> io::Result<Vec<Row>> {
        let text = self.ctl(&["table"])?;
        let rows = text.lines().map(|line| serde_json::from_str::<Row>(line).map_err(io::Error::other));
        let rows: io::Result<Vec<Row>> = rows.collect();
        Ok(rows?
            .into_iter()
            .filter(|row| row.shard.as_ref().is_some_and(|shard| !shard.is_empty()))
            .collect())
    }

    /// Clears the table, waiting for what still holds an entry.
    pub(super) fn clear(&self, rows: &[Row]) -> io::Result<()> {
        let deadline = Instant::now() + STARTS_WITHIN;
        for row in rows {
            while !self.ctl(&["clear", &row.key])?.contains("\"cleared\"") {
                if Instant::now() > deadline {
                    return Err(io::Error::other(format!("{:?} cannot be cleared", row.key)));
                }
                std::thread::sleep(Duration::from_millis(10));
            }
        }
        Ok(())
    }
}

impl Drop for Site {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

fn is_ready() -> bool {
    let Ok(mut stream) = TcpStream::connect(admin()) else { return false };
    if write!(stream, "GET /readyz HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").is_err() {
        return false;
    }
    io::read_to_string(stream).is_ok_and(|answer| answer.starts_with("HTTP/1.1 200 "))
}

/// What the stand-ins have received since the last look: at most one request, or something was sent twice.
pub(super) fn received(told: &Receiver<Received>) -> Vec<Received> {
    told.try_iter().collect()
}
