//! A UDP relay in front of one address: a wire that can be cut, healed and made long.
//!
//! Every client of the relay gets a socket of its own towards the target, as NAT does, so the target sees one address for
//! each client and its answers find back. Cutting works both ways and at once: what is under way is lost too. A delay is
//! one-way and keeps the order of packets.
//!
//! Bounds: [`CLIENTS_MAX`] clients (a further one takes the place of the one silent for longest), [`QUEUE_MAX`] packets
//! under way for each client and direction (further ones are lost, as in a full router).

use std::collections::{BTreeSet, HashMap};
use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::net::UdpSocket;
use tokio::sync::mpsc;
use tokio::task::{AbortHandle, JoinHandle, JoinSet};
use tokio::time::{Instant, sleep_until};

/// Most clients of one relay.
pub const CLIENTS_MAX: usize = 64;
/// Most packets under way for one client and direction.
pub const QUEUE_MAX: usize = 4_096;

const PACKET_BYTES_MAX: usize = 65_536;

/// A running relay; dropping it stops it.
pub struct Relay {
    address: SocketAddr,
    wire: Arc<Wire>,
    task: JoinHandle<()>,
}

/// What a relay did with the packets of both directions.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RelayCounts {
    /// Handed on.
    pub forwarded: u64,
    /// Lost because the wire was cut.
    pub lost_cut: u64,
    /// Lost because [`QUEUE_MAX`] was reached.
    pub lost_full: u64,
}

#[derive(Default)]
struct Wire {
    settings: Mutex<Settings>,
    forwarded: AtomicU64,
    lost_cut: AtomicU64,
    lost_full: AtomicU64,
}

#[derive(Default)]
struct Settings {
    cut_all: bool,
    cut_sources: BTreeSet<SocketAddr>,
    delay: Duration,
}

struct Packet {
    due: Instant,
    bytes: Vec<u8>,
}

impl Relay {
    /// Starts a relay to `target` on a free loopback port.
    pub async fn start(target: SocketAddr) -> io::Result<Self> {
        let listen: SocketAddr = match target {
            SocketAddr::V4(_) => (Ipv4Addr::LOCALHOST, 0).into(),
            SocketAddr::V6(_) => (Ipv6Addr::LOCALHOST, 0).into(),
        };
        let socket = UdpSocket::bind(listen).await?;
        let address = socket.local_addr()?;
        let wire = Arc::<Wire>::default();
        let task = tokio::spawn(relay(Arc::new(socket), target, wire.clone()));
        Ok(Self { address, wire, task })
    }

    /// Where clients send to.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Loses every packet of everybody from now on.
    pub fn cut(&self) {
        self.wire.settings().cut_all = true;
    }

    /// Loses every packet from and to one client, known by its own address.
    pub fn cut_from(&self, source: SocketAddr) {
        self.wire.settings().cut_sources.insert(source);
    }

    /// Takes back [`Self::cut`] and every [`Self::cut_from`].
    pub fn heal(&self) {
        let mut settings = self.wire.settings();
        settings.cut_all = false;
        settings.cut_sources.clear();
    }

    /// Lets every packet take `one_way` from now on.
    pub fn delay(&self, one_way: Duration) {
        self.wire.settings().delay = one_way;
    }

    /// What happened to the packets so far.
    pub fn counts(&self) -> RelayCounts {
        RelayCounts {
            forwarded: self.wire.forwarded.load(Ordering::Relaxed),
            lost_cut: self.wire.lost_cut.load(Ordering::Relaxed),
            lost_full: self.wire.lost_full.load(Ordering::Relaxed),
        }
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Wire {
    fn settings(&self) -> MutexGuard<'_, Settings> {
        self.settings.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn is_cut(&self, client: SocketAddr) -> bool {
        let settings = self.settings();
        settings.cut_all || settings.cut_sources.contains(&client)
    }

    /// Puts a packet on its way, or loses it.
    fn send_off(&self, client: SocketAddr, bytes: &[u8], queue: &mpsc::Sender<Packet>) {
        if self.is_cut(client) {
            self.lost_cut.fetch_add(1, Ordering::Relaxed);
            return;
        }
        let due = Instant::now() + self.settings().delay;
        if queue.try_send(Packet { due, bytes: bytes.to_vec() }).is_err() {
            self.lost_full.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Waits until the packet is due; false when the wire has been cut meanwhile.
    async fn arrives(&self, client: SocketAddr, packet: &Packet) -> bool {
        sleep_until(packet.due).await;
        let cut = self.is_cut(client);
        let counter = if cut { &self.lost_cut } else { &self.forwarded };
        counter.fetch_add(1, Ordering::Relaxed);
        !cut
    }
}

struct Client {
    queue: mpsc::Sender<Packet>,
    last: Instant,
    task: AbortHandle,
}

async fn relay(front: Arc<UdpSocket>, target: SocketAddr, wire: Arc<Wire>) {
    let mut clients: HashMap<SocketAddr, Client> = HashMap::new();
    let mut tasks = JoinSet::new();
    let mut buffer = vec![0; PACKET_BYTES_MAX];
    loop {
        let received = tokio::select! {
            received = front.recv_from(&mut buffer) => received,
            Some(_ended) = tasks.join_next() => continue,
        };
        // An error here is the echo of a packet that a client did not take (ICMP); the socket goes on.
        let Ok((length, source)) = received else { continue };
        clients.retain(|_, client| !client.task.is_finished());
        if !clients.contains_key(&source) {
            if clients.len() >= CLIENTS_MAX
                && let Some(silent) = clients.iter().min_by_key(|(_, client)| client.last).map(|(a, _)| *a)
                && let Some(client) = clients.remove(&silent)
            {
                client.task.abort();
            }
            let Ok(back) = towards(target).await else { continue };
            let (queue, packets) = mpsc::channel(QUEUE_MAX);
            let task = tasks.spawn(carry(source, front.clone(), back, packets, wire.clone()));
            clients.insert(source, Client { queue, last: Instant::now(), task });
        }
        if let Some(client) = clients.get_mut(&source) {
            client.last = Instant::now();
            wire.send_off(source, &buffer[..length], &client.queue);
        }
    }
}

async fn towards(target: SocketAddr) -> io::Result<UdpSocket> {
    let any: SocketAddr = match target {
        SocketAddr::V4(_) => (Ipv4Addr::UNSPECIFIED, 0).into(),
        SocketAddr::V6(_) => (Ipv6Addr::UNSPECIFIED, 0).into(),
    };
    let socket = UdpSocket::bind(any).await?;
    socket.connect(target).await?;
    Ok(socket)
}

/// Carries one client's packets both ways for as long as the client is known.
async fn carry(
    client: SocketAddr,
    front: Arc<UdpSocket>,
    back: UdpSocket,
    mut outbound: mpsc::Receiver<Packet>,
    wire: Arc<Wire>,
) {
    let (queue, mut inbound) = mpsc::channel::<Packet>(QUEUE_MAX);
    let read = async {
        let mut buffer = vec![0; PACKET_BYTES_MAX];
        loop {
            // An error is the echo of a packet that the target did not take (nobody listens there now).
            if let Ok(length) = back.recv(&mut buffer).await {
                wire.send_off(client, &buffer[..length], &queue);
            }
        }
    };
    let out = async {
        while let Some(packet) = outbound.recv().await {
            if wire.arrives(client, &packet).await {
                back.send(&packet.bytes).await.ok();
            }
        }
    };
    let home = async {
        while let Some(packet) = inbound.recv().await {
            if wire.arrives(client, &packet).await {
                front.send_to(&packet.bytes, client).await.ok();
            }
        }
    };
    // `out` ends when the relay forgets the client.
    tokio::select! {
        () = read => {}
        () = out => {}
        () = home => {}
    }
}

#[cfg(test)]
mod tests;
