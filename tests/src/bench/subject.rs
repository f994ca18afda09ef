//! What is measured: a proxy (or the relay) in front of the origin, with whatever must run beside it.

use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use super::cpu::{CpuReading, resident_bytes};
use super::net::AddressPlan;
use super::process::{Cpus, Process, sibling};
use super::site::Site;

const TLS_PORT: u16 = 8443;

/// A started subject.
pub struct Subject {
    /// As the tables name it.
    pub kind: Kind,
    /// Where clients connect.
    pub address: SocketAddr,
    process: Process,
    duties: Option<Duties>,
}

/// What a proxy does beside proxying, so that it can be seen to happen.
pub struct Duties {
    /// The second node that it replicates to.
    pub peer: Process,
    /// Asks the second node how many rooms its table holds.
    pub replicated_rooms: Count,
    /// How many lines its access log has.
    pub logged_lines: Count,
}

/// Asks for a number.
pub type Count = Box<dyn Fn() -> io::Result<u64>>;

/// Which subject.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Kind {
    /// What has to be beaten.
    HaProxy,
    /// Ours.
    Shardgate,
    /// The limit.
    Relay,
}

impl Kind {
    /// Short name, also in JSON.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::HaProxy => "haproxy",
            Self::Shardgate => "shardgate",
            Self::Relay => "relay",
        }
    }

    /// Whether a room's requests all go to one shard: the relay knows no rooms.
    #[must_use]
    pub fn sticks(self) -> bool {
        self != Self::Relay
    }
}

/// How clients can come in.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Entrances {
    /// By TCP alone.
    Plain,
    /// By TLS as well, HTTP/2 or HTTP/1.1, with the certificate in [`Ground::certificate`].
    PlainAndTls,
}

/// Everything a subject needs to be started.
#[derive(Clone, Copy)]
pub struct Ground<'a> {
    /// Where things listen.
    pub plan: AddressPlan,
    /// Which CPUs they run on.
    pub cpus: Cpus,
    /// For configurations, logs and sockets; removed at the end.
    pub folder: &'a Path,
    /// Whether clients can come by TLS as well.
    pub entrances: Entrances,
}

impl Ground<'_> {
    /// The file with the certificate and its key; alone in its folder.
    #[must_use]
    pub fn certificate(&self) -> PathBuf {
        self.folder.join("certificates").join("site.pem")
    }

    /// Where a subject that listens on `plain` takes TLS, if it does.
    #[must_use]
    pub fn tls_address(&self, plain: SocketAddr) -> Option<SocketAddr> {
        (self.entrances == Entrances::PlainAndTls).then(|| tls_address(plain))
    }
}

/// The plain entrance has another port, and nothing else.
fn tls_address(plain: SocketAddr) -> SocketAddr {
    SocketAddr::new(plain.ip(), TLS_PORT)
}

impl Subject {
    /// Puts a started process and its duties together.
    #[must_use]
    pub fn new(kind: Kind, address: SocketAddr, process: Process, duties: Option<Duties>) -> Self {
        Self { kind, address, process, duties }
    }

    /// Starts the bare relay.
    pub fn relay(ground: Ground<'_>, site: &Site) -> io::Result<Self> {
        let address = ground.plan.subject(3, 1, 8000);
        let arguments = std::iter::once(address).chain(site.addresses()).map(|address| address.to_string());
        let program = sibling("bench_relay")?;
        let mut process = Process::start("relay", ground.cpus.subject, ground.folder, &program, arguments)?;
        process.wait_until_listening(address)?;
        Ok(Self::new(Kind::Relay, address, process, None))
    }

    /// Where clients connect with TLS, when it was started with that entrance.
    #[must_use]
    pub fn tls_address(&self) -> SocketAddr {
        tls_address(self.address)
    }

    /// CPU time of all its threads so far.
    pub fn cpu(&self) -> io::Result<CpuReading> {
        CpuReading::of(self.process.pid())
    }

    /// Its resident memory.
    pub fn resident_bytes(&self) -> io::Result<u64> {
        resident_bytes(self.process.pid())
    }

    /// Waits until the second node holds at least `rooms` entries; how many it then holds, none for a subject without one.
    pub fn wait_until_replicated(&mut self, rooms: u64) -> io::Result<Option<u64>> {
        let Some(Duties { peer, replicated_rooms, .. }) = &mut self.duties else { return Ok(None) };
        let mut seen = Ok(0);
        peer.wait_until(&format!("holds {rooms} replicated rooms"), || {
            seen = replicated_rooms();
            seen.as_ref().is_ok_and(|count| *count >= rooms)
        })?;
        seen.map(Some)
    }

    /// Lines of its access log so far; none for a subject without one.
    pub fn logged_lines(&self) -> io::Result<Option<u64>> {
        self.duties.as_ref().map(|duties| (duties.logged_lines)()).transpose()
    }
}
