//! `shardgate dev`: the embedded default. A mesh of two regions with two nodes each over real QUIC on loopback, three built-in
//! shards with a room page, and everything that can happen to them: regions cut apart and healed, shards killed and brought
//! back, releases changed. `dev --check` tells that story by itself and asserts every step.

use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use clap::{Args, ValueEnum};
use shardgate_discovery::NameError;
use shardgate_peering::core::IdError;
use shardgate_peering::pki::PkiError;

use crate::node::NodeError;

pub mod chat;
pub mod client;
pub mod discovery_file;
pub mod folder;
pub mod http_get;
pub mod link;
pub mod log;
pub mod mesh;
pub mod node;
pub mod query;
pub mod relay;
pub mod report;
pub mod room_page;
pub mod rooms;
pub mod shard;
pub mod show;
pub mod status;
pub mod story;
pub mod terminal;
pub mod timeline;

use client::Spelling;
use folder::Folder;
use link::Link;
use mesh::{DevMesh, Https, Ports};
use report::Report;
use story::Story;
use timeline::{Action, ShardAt, Timeline};

/// Where the first node's frontend listens when nothing else is asked for.
const BASE_PORT: u16 = 8101;

/// Run a mesh of 2 regions with 2 nodes each and 3 shards on this machine
#[derive(Args, Clone, Debug, Default)]
pub struct DevArgs {
    /// Tell the whole story without anybody, one line for each assertion; exit 0 when all hold, 1 otherwise
    #[arg(long)]
    pub check: bool,
    /// Break something on purpose, so that the check has to fail
    #[arg(long, value_enum, value_name = "WHAT", requires = "check")]
    pub sabotage: Option<Sabotage>,
    /// Port of the first node, the others take the next three [default: 8101, with --check any free ones]
    #[arg(long, value_name = "PORT")]
    pub base_port: Option<u16>,
    /// Take HTTPS and HTTP/2 as well, on ports 100 above those of HTTP, with a certificate made for this run
    #[arg(long, conflicts_with = "check")]
    pub https: bool,
    /// Cut the regions apart after this time
    #[arg(long, value_name = "DURATION", value_parser = humantime::parse_duration, conflicts_with = "check")]
    pub cut_after: Option<Duration>,
    /// Heal the regions after this time
    #[arg(long, value_name = "DURATION", value_parser = humantime::parse_duration, conflicts_with = "check")]
    pub heal_after: Option<Duration>,
    /// Kill shard 1, 2 or 3 after this time, as in 2@10s
    #[arg(long, value_name = "N@DURATION", value_parser = ShardAt::parse, conflicts_with = "check")]
    pub kill_shard: Vec<ShardAt>,
    /// Start a killed shard again after this time, as in 2@20s
    #[arg(long, value_name = "N@DURATION", value_parser = ShardAt::parse, conflicts_with = "check")]
    pub start_shard: Vec<ShardAt>,
    /// End after so many seconds
    #[arg(long, value_name = "N", conflicts_with = "check")]
    pub seconds: Option<u64>,
}

/// What can be broken on purpose.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Sabotage {
    /// Clients ask every node for a differently spelled room, so nothing that the mesh remembers is ever found again
    Sticky,
}

/// Why `dev` could not run.
#[derive(Debug, thiserror::Error)]
pub enum DevError {
    /// No temporary folder.
    #[error("creating a temporary folder: {0}")]
    Folder(io::Error),
    /// A file could not be written.
    #[error("{}: {source}", path.display())]
    File {
        /// Which one.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// A built-in shard could not be started.
    #[error("shard {name}: {source}")]
    Shard {
        /// Which one.
        name: &'static str,
        /// What the system said.
        source: io::Error,
    },
    /// The relays between the nodes could not be started.
    #[error("loopback sockets between the nodes: {0}")]
    Wires(io::Error),
    /// Not enough ports left above the base.
    #[error(
        "--base-port: {base}, expected at most 65532, with --https 65432: the mesh takes four ports from there, HTTPS four 100 above"
    )]
    BasePort {
        /// What was asked for.
        base: u16,
    },
    /// A frontend's port is taken.
    #[error("{address}: {source}; --base-port chooses others")]
    Port {
        /// Which one.
        address: std::net::SocketAddr,
        /// What the system said.
        source: io::Error,
    },
    /// A name of ours that the mesh does not take.
    #[error(transparent)]
    Id(#[from] IdError),
    /// A region of ours that discovery does not take.
    #[error(transparent)]
    Name(#[from] NameError),
    /// The certificates could not be made.
    #[error(transparent)]
    Pki(#[from] PkiError),
    /// A node did not start.
    #[error("node {name}: {source}")]
    Node {
        /// Which one.
        name: &'static str,
        /// Why.
        source: Box<NodeError>,
    },
    /// The runtime, the terminal or a signal handler.
    #[error("{0}")]
    System(#[from] io::Error),
}

impl DevError {
    fn file(path: &Path, source: io::Error) -> Self {
        Self::File { path: path.to_owned(), source }
    }
}

/// Runs `shardgate dev` to its end.
pub fn run(args: &DevArgs) -> Result<ExitCode, DevError> {
    let mut folder = Folder::new().map_err(DevError::Folder)?;
    let log = folder.path().join("dev.log");
    log::to_file(&log).map_err(|source| DevError::file(&log, source))?;
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    let ran = runtime.block_on(async {
        if args.check { check(args, &mut folder).await } else { play(args, &folder).await }
    });
    runtime.shutdown_timeout(Duration::from_secs(2));
    ran
}

async fn play(args: &DevArgs, folder: &Folder) -> Result<ExitCode, DevError> {
    let ports = Ports::From(args.base_port.unwrap_or(BASE_PORT));
    let https = if args.https { Https::On } else { Https::Off };
    let mesh = DevMesh::start(folder.path(), ports, https).await?;
    let mesh = show::show(mesh, timeline(args)).await?;
    mesh.shutdown().await;
    Ok(ExitCode::SUCCESS)
}

fn timeline(args: &DevArgs) -> Timeline {
    let mut timeline = Timeline::default()
        .at(args.cut_after, Action::Link(Link::Cut))
        .at(args.heal_after, Action::Link(Link::Whole))
        .at(args.seconds.map(Duration::from_secs), Action::Quit);
    for ShardAt { shard, after } in &args.kill_shard {
        timeline = timeline.at(Some(*after), Action::Kill(*shard));
    }
    for ShardAt { shard, after } in &args.start_shard {
        timeline = timeline.at(Some(*after), Action::Start(*shard));
    }
    timeline
}

async fn check(args: &DevArgs, folder: &mut Folder) -> Result<ExitCode, DevError> {
    let spelling = match args.sabotage {
        Some(Sabotage::Sticky) => Spelling::PerNode,
        None => Spelling::Same,
    };
    let report = Report::to(Box::new(io::stdout()));
    let ports = args.base_port.map_or(Ports::Free, Ports::From);
    let mesh = DevMesh::start(folder.path(), ports, Https::Off).await?;
    let (mesh, report) = Story::new(mesh, spelling, report).tell().await;
    mesh.shutdown().await;
    let tally = report.finish()?;
    if tally.is_green() {
        return Ok(ExitCode::SUCCESS);
    }
    folder.keep();
    writeln!(io::stderr(), "log and files of this run: {}", folder.path().display())?;
    Ok(ExitCode::FAILURE)
}
