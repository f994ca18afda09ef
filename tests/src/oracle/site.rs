//! The nodes that are asked: real processes with a plan's configuration, and the shards around them.

use std::collections::BTreeMap;
use std::fs;
use std::io::{self, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};

use serde::Deserialize;

use super::ground::Ground;
use super::plan::{COLIBRI, HOST_NAME, Plan};
use super::stand_in::{Received, StandIn};

const STARTS_WITHIN: Duration = Duration::from_secs(15);
/// Between two looks at something that is waited for.
const LOOK_EVERY: Duration = Duration::from_millis(10);

/// The programs that are tested.
#[derive(Debug, Clone)]
pub(super) struct Programs {
    pub(super) shardgate: PathBuf,
    pub(super) shardgatectl: PathBuf,
}

/// How the nodes are configured beside the plan.
#[derive(Debug, Clone, Copy)]
pub(super) struct Settings<'a> {
    /// `none` or `haproxy`.
    pub(super) compat: &'a str,
    /// The table's.
    pub(super) expire: &'a str,
    /// Whether shards' agents are asked, every 200 ms as in the recordings.
    pub(super) asks: AsksAgents,
}

/// Whether shards have agents.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum AsksAgents {
    Yes,
    No,
}

/// Stand-ins for the shards of some plans in one slot, and what they receive.
pub(super) struct Shards {
    by_name: BTreeMap<String, StandIn>,
    heard: Receiver<Received>,
}

impl Shards {
    pub(super) fn start<'p>(ground: Ground, plans: impl Iterator<Item = &'p Plan>) -> io::Result<Self> {
        let (told, heard) = channel();
        let mut by_name = BTreeMap::new();
        for shard in plans.flat_map(|plan| &plan.shards) {
            if !by_name.contains_key(&shard.name) {
                let stand_in = StandIn::start(&shard.name, ground.shard(shard.n), &told)?;
                by_name.insert(shard.name.clone(), stand_in);
            }
        }
        by_name.insert(COLIBRI.to_owned(), StandIn::start(COLIBRI, ground.pool(), &told)?);
        Ok(Self { by_name, heard })
    }

    /// What they have received since the last look.
    pub(super) fn received(&self) -> Vec<Received> {
        self.heard.try_iter().collect()
    }

    /// The one called so.
    pub(super) fn get(&mut self, name: &str) -> io::Result<&mut StandIn> {
        self.by_name.get_mut(name).ok_or_else(|| io::Error::other(format!("no stand-in for {name}")))
    }

    /// All take connections, and nothing that was received is kept.
    pub(super) fn reset(&mut self) -> io::Result<()> {
        self.by_name.values_mut().try_for_each(StandIn::open)?;
        drop(self.received());
        Ok(())
    }
}

/// One key of the table, as `shardgatectl table` tells it.
#[derive(Debug, Clone, Deserialize)]
pub(super) struct Row {
    pub(super) key: String,
    pub(super) shard: Option<String>,
    pub(super) remaining_ms: u64,
}

/// A node's status, as far as it is looked at.
#[derive(Debug, Deserialize)]
struct Status {
    snapshot_version: u64,
    shards: Vec<ShardStatus>,
}

#[derive(Debug, Deserialize)]
struct ShardStatus {
    name: String,
    state: String,
    health: Option<Health>,
}

#[derive(Debug, Deserialize)]
struct Health {
    agent: Option<Agent>,
}

#[derive(Debug, Deserialize)]
struct Agent {
    says: String,
}

/// A running node. Dropping it kills it and waits for its end.
struct Node {
    number: u8,
    region: String,
    child: Child,
    log: PathBuf,
    orders: String,
}

impl Drop for Node {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

/// Nodes of one mesh, or one alone.
pub(super) struct Site {
    programs: Programs,
    folder: tempfile::TempDir,
    ground: Ground,
    pub(super) plan: Plan,
    /// What each node's plan says: of which region it is, and in which order it sees the others.
    plans: Vec<Plan>,
    nodes: Vec<Node>,
}

/// A node of a site, by its place in the list of those that run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct NodeAt(usize);

impl Site {
    /// A site that nodes of these plans can be started on, the first one's shards around them.
    pub(super) fn new(programs: &Programs, ground: Ground, plans: &[Plan]) -> io::Result<Self> {
        let plan = plans.first().ok_or_else(|| io::Error::other("a site needs a plan"))?.clone();
        let folder = tempfile::tempdir()?;
        let site = Self {
            programs: programs.clone(),
            folder,
            ground,
            plan,
            plans: plans.to_vec(),
            nodes: Vec::new(),
        };
        if site.plans.len() > 1 {
            site.pki(&["init"])?;
        }
        Ok(site)
    }

    fn file(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn pki(&self, arguments: &[&str]) -> io::Result<()> {
        let output = Command::new(&self.programs.shardgate)
            .arg("pki")
            .args(arguments)
            .args(["--environment", "oracle", "--dir"])
            .arg(self.file("pki"))
            .output()?;
        match output.status.success() {
            true => Ok(()),
            false => Err(io::Error::other(String::from_utf8_lossy(&output.stderr).into_owned())),
        }
    }

    /// Starts the next node, and waits until all are ready.
    pub(super) fn start(&mut self, settings: Settings<'_>) -> io::Result<()> {
        let index = self.nodes.len();
        let plan = self.plans.get(index).ok_or_else(|| io::Error::other("no plan for another node"))?.clone();
        let number = u8::try_from(index + 1).map_err(io::Error::other)?;
        if self.plans.len() > 1 {
            self.pki(&["issue", "--peer", &format!("oracle-{number}")])?;
        }
        let orders = self.file(&format!("admin-{number}.sock")).display().to_string();
        let configuration = self.file(&format!("shardgate-{number}.toml"));
        fs::write(&configuration, self.configuration(&plan, number, &orders, settings))?;
        let peers = index + 1;
        self.write_discovery(peers)?;
        let log = self.file(&format!("log-{number}"));
        let file = fs::File::create(&log)?;
        let child = Command::new(&self.programs.shardgate)
            .args(["serve", "--config"])
            .arg(&configuration)
            .stdin(Stdio::null())
            .stdout(file.try_clone()?)
            .stderr(file)
            .spawn()?;
        let orders = format!("unix:{orders}");
        self.nodes.push(Node { number, region: plan.region, child, log, orders });
        self.wait_until_ready()
    }

    fn configuration(&self, plan: &Plan, number: u8, orders: &str, settings: Settings<'_>) -> String {
        let ground = self.ground;
        let pool = |name: &String| {
            format!(
                "[[pools]]\nname = {name:?}\npaths = [\"/colibri-ws/\", \"/colibri-relay-ws/\"]\nservers = [\"{}\"]\n",
                ground.pool()
            )
        };
        let pools: String = plan.pools.iter().map(pool).collect();
        let backend = match settings.asks {
            AsksAgents::No => String::new(),
            AsksAgents::Yes => format!(
                "[backend]\nagent_check = \"on\"\nagent_port = {}\nagent_inter = \"200ms\"\n",
                ground.agent(1).port()
            ),
        };
        let mesh = match self.plans.len() {
            1 => String::new(),
            _ => format!(
                "[mesh]\nlisten = \"{}\"\nca = \"pki/ca.pem\"\ncert = \"pki/oracle-{number}.pem\"\nkey = \"pki/oracle-{number}.key\"\n\
                 heartbeat = \"200ms\"\n",
                ground.mesh(number)
            ),
        };
        format!(
            "[node]\nid = \"oracle-{number}\"\nregion = \"{}\"\nenvironment = \"oracle\"\nhost_name = \"{HOST_NAME}\"\n\
             [frontend]\nlisten = [\"{}\"]\nworkers = 1\n\
             {backend}[stick_table]\nexpire = \"{}\"\nbosh_pause = \"10ms\"\n{mesh}\
             [discovery]\nfile = {:?}\nevery = \"50ms\"\n\
             [routing]\ncompat = \"{}\"\nregion_order = {:?}\n\
             [[admin]]\nlisten = \"{}\"\nserve = [\"health\"]\n\
             [[admin]]\nlisten = \"unix:{orders}\"\nserve = [\"status\", \"admin\"]\n{pools}",
            plan.region,
            ground.frontend(number),
            settings.expire,
            self.file("discovery.toml").display().to_string(),
            settings.compat,
            plan.regions,
            ground.admin(number),
        )
    }

    fn write_discovery(&self, peers: usize) -> io::Result<Written> {
        let peer = |(index, plan): (usize, &Plan)| {
            let number = u8::try_from(index + 1).unwrap_or(u8::MAX);
            let address = self.ground.mesh(number);
            format!(
                "[[peers]]\nid = \"oracle-{number}\"\nregion = {:?}\naddress = \"{address}\"\n",
                plan.region
            )
        };
        let peers: String = match self.plans.len() {
            1 => String::new(),
            _ => self.plans.iter().enumerate().take(peers).map(peer).collect(),
        };
        let (file, text) = (self.file("discovery.toml"), self.plan.discovery(self.ground, &peers));
        if fs::read_to_string(&file).is_ok_and(|old| old == text) {
            return Ok(Written::Unchanged);
        }
        let fresh = self.file("discovery.next");
        fs::write(&fresh, text)?;
        fs::rename(fresh, file)?;
        Ok(Written::Changed)
    }

    /// Lets the nodes know what the plan says now, and waits until they do.
    pub(super) fn plan_has_changed(&self) -> io::Result<()> {
        let versions: io::Result<Vec<u64>> = self.all().map(|node| self.version(node)).collect();
        if self.write_discovery(self.nodes.len())? == Written::Unchanged {
            return Ok(());
        }
        for (node, before) in self.all().zip(versions?) {
            self.until("the discovery file is read", || Ok(self.version(node)? > before))?;
        }
        Ok(())
    }

    fn version(&self, node: NodeAt) -> io::Result<u64> {
        Ok(self.status(node)?.snapshot_version)
    }

    /// What a shard's agent says, as a node has heard it.
    pub(super) fn agent(&self, node: NodeAt, shard: &str) -> io::Result<String> {
        let known = self.status(node)?.shards.into_iter().find(|known| known.name == shard);
        Ok(known.and_then(|known| known.health?.agent).map_or_else(String::new, |agent| agent.says))
    }

    /// The state of a shard, with what is commanded of it on the node.
    pub(super) fn state(&self, node: NodeAt, shard: &str) -> io::Result<String> {
        let known = self.status(node)?.shards.into_iter().find(|known| known.name == shard);
        Ok(known.map_or_else(String::new, |known| known.state))
    }

    /// Commands a state of a shard on a node.
    pub(super) fn command(&self, node: NodeAt, shard: &str, state: &str) -> io::Result<()> {
        match self.ctl(node, &["shard", state, shard])? {
            (true, _) => Ok(()),
            (false, said) => Err(io::Error::other(format!("shard {state} {shard}: {said}"))),
        }
    }

    fn status(&self, node: NodeAt) -> io::Result<Status> {
        let (done, text) = self.ctl(node, &["status"])?;
        if !done {
            return Err(io::Error::other(format!("status: {text}")));
        }
        serde_json::from_str(&text).map_err(io::Error::other)
    }

    /// All nodes that run.
    pub(super) fn all(&self) -> impl Iterator<Item = NodeAt> + use<> {
        (0..self.nodes.len()).map(NodeAt)
    }

    /// The node of a region, or the first one.
    pub(super) fn node(&self, region: Option<&str>) -> io::Result<NodeAt> {
        let Some(region) = region else { return Ok(NodeAt(0)) };
        let found = self.nodes.iter().position(|node| node.region == region);
        found.map(NodeAt).ok_or_else(|| io::Error::other(format!("no node in {region}")))
    }

    /// The plan as the node's region sees it.
    pub(super) fn plan_of(&self, NodeAt(index): NodeAt) -> Plan {
        let own = self.plans.get(index).unwrap_or(&self.plan);
        Plan { region: own.region.clone(), regions: own.regions.clone(), ..self.plan.clone() }
    }

    fn wait_until_ready(&mut self) -> io::Result<()> {
        let deadline = Instant::now() + STARTS_WITHIN;
        for node in &mut self.nodes {
            while !is_ready(self.ground.admin(node.number)) {
                let ended = node.child.try_wait()?;
                if ended.is_some() || Instant::now() > deadline {
                    let log = fs::read_to_string(&node.log).unwrap_or_default();
                    let why =
                        ended.map_or_else(|| "is not ready".to_owned(), |status| format!("ended ({status})"));
                    return Err(io::Error::other(format!("shardgate {why}:\n{log}")));
                }
                std::thread::sleep(LOOK_EVERY);
            }
        }
        Ok(())
    }

    /// Waits until `holds`.
    pub(super) fn until(&self, what: &str, mut holds: impl FnMut() -> io::Result<bool>) -> io::Result<()> {
        let deadline = Instant::now() + STARTS_WITHIN;
        while !holds()? {
            if Instant::now() > deadline {
                return Err(io::Error::other(format!("not within {} s: {what}", STARTS_WITHIN.as_secs())));
            }
            std::thread::sleep(LOOK_EVERY);
        }
        Ok(())
    }

    /// Where a node takes requests.
    pub(super) fn frontend(&self, NodeAt(index): NodeAt) -> SocketAddr {
        self.ground.frontend(u8::try_from(index + 1).unwrap_or(u8::MAX))
    }

    /// Whether shardgatectl succeeded, and what it said.
    fn ctl(&self, NodeAt(index): NodeAt, arguments: &[&str]) -> io::Result<(bool, String)> {
        let node = self.nodes.get(index).ok_or_else(|| io::Error::other("no such node"))?;
        let output = Command::new(&self.programs.shardgatectl)
            .args(["--node", &node.orders, "--output", "json"])
            .args(arguments)
            .output()?;
        let said = if output.stdout.is_empty() { output.stderr } else { output.stdout };
        Ok((output.status.success(), String::from_utf8_lossy(&said).into_owned()))
    }

    /// The live entries.
    pub(super) fn table(&self, node: NodeAt) -> io::Result<Vec<Row>> {
        let (_, text) = self.ctl(node, &["table", "show"])?;
        let rows = text.lines().map(|line| serde_json::from_str::<Row>(line).map_err(io::Error::other));
        let rows: io::Result<Vec<Row>> = rows.collect();
        Ok(rows?
            .into_iter()
            .filter(|row| row.shard.as_ref().is_some_and(|shard| !shard.is_empty()))
            .collect())
    }

    /// Puts an entry into the table; says what stands against it.
    pub(super) fn set(&self, node: NodeAt, key: &str, shard: &str) -> io::Result<Result<(), String>> {
        let (set, said) = self.ctl(node, &["table", "set", "--", key, shard])?;
        Ok(if set { Ok(()) } else { Err(said) })
    }

    /// Clears the table, waiting for what still holds an entry.
    pub(super) fn clear(&self, node: NodeAt, rows: &[Row]) -> io::Result<()> {
        for row in rows {
            self.until(&format!("{:?} is cleared", row.key), || {
                Ok(self.ctl(node, &["table", "clear", "--", &row.key])?.0)
            })?;
        }
        Ok(())
    }
}

/// Whether the discovery file says something else now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Written {
    Changed,
    Unchanged,
}

fn is_ready(admin: SocketAddr) -> bool {
    let Ok(mut stream) = TcpStream::connect(admin) else { return false };
    if write!(stream, "GET /haproxy_health HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").is_err() {
        return false;
    }
    io::read_to_string(stream).is_ok_and(|answer| answer.starts_with("HTTP/1.1 200 "))
}
