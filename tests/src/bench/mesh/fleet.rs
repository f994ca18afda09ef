//! A mesh of one kind: every node a process, with the same shards and the same table, told its peers' addresses one by one.

use std::ffi::OsString;
use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use super::super::cpu::{CpuReading, resident_bytes};
use super::super::net::{AddressPlan, SHARDS};
use super::super::process::{Cpu, Process};
use super::super::subject::{Ground, Kind};
use super::wires::{Route, Wires};
use super::{haproxies, shardgates};

/// By then a mesh of any size that a bench starts is connected.
const JOINED_MAX: Duration = Duration::from_secs(60);
/// By then a table has arrived.
const REPLICATED_MAX: Duration = Duration::from_secs(60);
const LOOK_EVERY: Duration = Duration::from_millis(2);

/// What a mesh looks like.
#[derive(Clone)]
pub struct Spec {
    /// Distinguishes meshes of one kind that run at the same time; below 100.
    pub number: u8,
    /// The region of each node, from 0; the shards are dealt to the regions in turn.
    pub regions: Vec<usize>,
    /// Most entries of a table.
    pub table_size: usize,
    /// How long an entry lives after its last use.
    pub expire_s: u32,
    /// How the nodes reach each other.
    pub path: Path,
    /// On which CPUs they run.
    pub placement: Placement,
}

/// How nodes reach each other.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Path {
    /// Directly.
    Direct,
    /// Through relays that count.
    Counted,
    /// Through relays wherever the regions differ, which take so long one way.
    Delayed(Duration),
    /// Not at all: nobody is listed as a peer.
    Alone,
}

/// On which CPUs the nodes run.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Placement {
    /// The first has the subjects' CPU to itself.
    FirstAlone,
    /// All in turn.
    InTurn,
}

impl Spec {
    /// `nodes` of two regions, the first node alone in the first, which reach each other directly.
    #[must_use]
    pub fn of(number: u8, nodes: usize) -> Self {
        let regions = (0..nodes).map(|index| usize::from(index > 0)).collect();
        let (path, placement) = (Path::Direct, Placement::FirstAlone);
        Self { number, regions, table_size: 200_000, expire_s: 3_600, path, placement }
    }

    /// How many regions there are.
    #[must_use]
    pub fn region_count(&self) -> usize {
        self.regions.iter().max().map_or(1, |last| last + 1)
    }

    /// The region of the shard numbered 1 to [`SHARDS`].
    #[must_use]
    pub fn region_of_shard(&self, number: u8) -> usize {
        usize::from(number - 1) % self.region_count()
    }

    fn cpu(&self, ground: Ground<'_>, index: usize) -> Cpu {
        let subject = match self.placement {
            Placement::FirstAlone => index == 0,
            Placement::InTurn => index.is_multiple_of(2),
        };
        if subject { ground.cpus.subject } else { ground.cpus.rest }
    }
}

/// Where the parts of a mesh listen.
#[derive(Clone, Copy)]
pub(super) struct Places {
    pub(super) plan: AddressPlan,
    number: u8,
}

impl Places {
    pub(super) fn frontend(self, index: usize) -> SocketAddr {
        self.plan.subject(self.number, 1 + index as u8, 8000)
    }

    pub(super) fn peer(self, index: usize) -> SocketAddr {
        self.plan.subject(self.number, 1 + index as u8, 7000)
    }

    pub(super) fn admin(self, index: usize) -> SocketAddr {
        self.plan.subject(self.number, 1 + index as u8, 8405)
    }

    fn wire(self, from: usize, to: usize) -> SocketAddr {
        self.plan.subject(self.number, 101 + from as u8, 20_000 + to as u16)
    }
}

/// What a kind of node needs to be started and asked.
pub(super) trait Kit {
    /// The program and its arguments for a node.
    fn command(&self, index: usize) -> io::Result<(PathBuf, Vec<OsString>)>;
    /// Whether it serves.
    fn is_serving(&self, index: usize) -> bool;
    /// Whether it serves and is connected to all its peers.
    fn is_joined(&self, index: usize) -> bool;
    /// Entries in its table.
    fn entries(&self, index: usize) -> io::Result<u64>;
    /// A counter of its own; none where it has no such counter.
    fn counter(&self, index: usize, name: &str) -> io::Result<Option<u64>>;
}

/// A running mesh. Dropping it stops it.
pub struct Fleet {
    /// Of which kind its nodes are.
    pub kind: Kind,
    /// How it was asked for.
    pub spec: Spec,
    places: Places,
    processes: Vec<Option<Process>>,
    kit: Box<dyn Kit>,
    wires: Option<Wires>,
    cpus: Vec<Cpu>,
    folder: PathBuf,
}

impl Fleet {
    /// Starts the nodes and waits until all are connected to all.
    pub fn start(kind: Kind, ground: Ground<'_>, spec: Spec) -> io::Result<Self> {
        let of_kind = if kind == Kind::HaProxy { 0 } else { 100 };
        let places = Places { plan: ground.plan, number: spec.number + of_kind };
        let folder = ground.folder.join(format!("{}-{}", kind.name(), spec.number));
        // Of an earlier mesh with this number.
        if folder.exists() {
            std::fs::remove_dir_all(&folder)?;
        }
        std::fs::create_dir_all(&folder)?;
        let routes = routes(&spec, places);
        let wires = match (routes.is_empty(), kind) {
            (true, _) => None,
            (false, Kind::HaProxy) => Some(Wires::tcp(&routes)?),
            (false, Kind::Shardgate | Kind::Relay) => Some(Wires::udp(&routes)?),
        };
        let address = |from, to| {
            let wired = wires.as_ref().and_then(|wires| wires.address(from, to));
            wired.unwrap_or_else(|| places.peer(to))
        };
        let kit: Box<dyn Kit> = match kind {
            Kind::HaProxy => Box::new(haproxies::prepare(&folder, places, &spec, address)?),
            Kind::Shardgate | Kind::Relay => Box::new(shardgates::prepare(&folder, places, &spec, address)?),
        };
        let cpus: Vec<Cpu> = (0..spec.regions.len()).map(|index| spec.cpu(ground, index)).collect();
        let processes = cpus.iter().map(|_| None).collect();
        let mut fleet = Self { kind, spec, places, processes, kit, wires, cpus, folder };
        for index in 0..fleet.processes.len() {
            fleet.start_node(index)?;
        }
        for index in 0..fleet.processes.len() {
            fleet.wait_for("is connected to all others", JOINED_MAX, |fleet| fleet.kit.is_joined(index))?;
        }
        Ok(fleet)
    }

    /// Starts a node that does not run; when.
    pub fn start_node(&mut self, index: usize) -> io::Result<Instant> {
        let (program, arguments) = self.kit.command(index)?;
        let name = format!("{}-{index}", self.kind.name());
        let began = Instant::now();
        let process = Process::start(&name, self.cpus[index], &self.folder, &program, arguments)?;
        self.processes[index] = Some(process);
        Ok(began)
    }

    /// Kills a node and waits for its end.
    pub fn kill_node(&mut self, index: usize) {
        self.processes[index] = None;
    }

    /// How many nodes there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.processes.len()
    }

    /// Never: a mesh has a node.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.processes.is_empty()
    }

    /// Where clients of a node connect.
    #[must_use]
    pub fn frontend(&self, index: usize) -> SocketAddr {
        self.places.frontend(index)
    }

    /// Where a node of ours tells its metrics.
    #[must_use]
    pub fn admin(&self, index: usize) -> SocketAddr {
        self.places.admin(index)
    }

    /// Whether a node serves.
    #[must_use]
    pub fn is_serving(&self, index: usize) -> bool {
        self.kit.is_serving(index)
    }

    /// Whether a node serves and is connected to all its peers.
    #[must_use]
    pub fn is_joined(&self, index: usize) -> bool {
        self.kit.is_joined(index)
    }

    /// Entries in a node's table.
    pub fn entries(&self, index: usize) -> io::Result<u64> {
        self.kit.entries(index)
    }

    /// A counter of a node; none where this kind has no such counter.
    pub fn counter(&self, index: usize, name: &str) -> io::Result<Option<u64>> {
        self.kit.counter(index, name)
    }

    /// The same counter of all nodes together.
    pub fn counter_of_all(&self, name: &str) -> io::Result<Option<u64>> {
        let each: io::Result<Vec<_>> = (0..self.len()).map(|index| self.counter(index, name)).collect();
        Ok(each?.into_iter().sum())
    }

    /// CPU time of a node so far.
    pub fn cpu(&self, index: usize) -> io::Result<CpuReading> {
        CpuReading::of(self.pid(index)?)
    }

    /// Resident memory of a node.
    pub fn resident_bytes(&self, index: usize) -> io::Result<u64> {
        resident_bytes(self.pid(index)?)
    }

    /// The relays between the nodes, when there are any.
    #[must_use]
    pub fn wires(&self) -> Option<&Wires> {
        self.wires.as_ref()
    }

    /// Waits until every node's table has at least so many entries.
    pub fn wait_replicated(&self, entries: u64) -> io::Result<()> {
        for index in 0..self.len() {
            let what = format!("has {entries} entries in the table of node {index}");
            self.wait_for(&what, REPLICATED_MAX, |fleet| {
                fleet.entries(index).is_ok_and(|now| now >= entries)
            })?;
        }
        Ok(())
    }

    /// Waits until `holds`; an error with what was waited for after `within`.
    pub fn wait_for(
        &self,
        what: &str,
        within: Duration,
        mut holds: impl FnMut(&Self) -> bool,
    ) -> io::Result<()> {
        let deadline = Instant::now() + within;
        while !holds(self) {
            if Instant::now() > deadline {
                let entries: Vec<u64> =
                    (0..self.len()).map(|index| self.entries(index).unwrap_or(0)).collect();
                let (name, folder) = (self.kind.name(), self.folder.display());
                return Err(io::Error::other(format!(
                    "{name} mesh: waited {} s until it {what}; entries {entries:?}; logs in {folder}",
                    within.as_secs()
                )));
            }
            std::thread::sleep(LOOK_EVERY);
        }
        Ok(())
    }

    fn pid(&self, index: usize) -> io::Result<u32> {
        let process = self.processes[index].as_ref();
        process.map(Process::pid).ok_or_else(|| io::Error::other(format!("node {index} does not run")))
    }
}

fn routes(spec: &Spec, places: Places) -> Vec<Route> {
    let nodes = 0..spec.regions.len();
    let pairs = nodes.clone().flat_map(|from| nodes.clone().map(move |to| (from, to)));
    let routes = pairs.filter(|(from, to)| from != to).filter_map(|(from, to)| {
        let differ = spec.regions[from] != spec.regions[to];
        let delay = match spec.path {
            Path::Direct | Path::Alone => return None,
            Path::Counted => Duration::ZERO,
            Path::Delayed(delay) => differ.then_some(delay)?,
        };
        Some(Route { from, to, listen: places.wire(from, to), target: places.peer(to), delay })
    });
    routes.collect()
}

/// Numbers and addresses of all shards.
pub(super) fn shards(places: Places) -> impl Iterator<Item = (u8, SocketAddr)> {
    (1..=SHARDS).map(move |number| (number, places.plan.shard(number)))
}
