//! Relays between the nodes of a mesh, one for each ordered pair: they count the payload and can make the way long.
//!
//! The relay of (A, B) is what A is told for B's address. Either node may have dialled the connection that is kept, so what goes
//! from A to B is the sum over both relays of the pair.

use std::collections::BTreeMap;
use std::io::{self, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread::{JoinHandle, sleep, spawn};
use std::time::{Duration, Instant};

use mio::net::UdpSocket;
use mio::{Events, Interest, Poll, Token};
use socket2::{Domain, Protocol, Socket, Type};

/// How often a thread looks whether it should stop.
const STOP_EVERY: Duration = Duration::from_millis(50);
const DATAGRAM_MAX: usize = 65_536;
/// Asked of the kernel for every socket, which grants what its limit allows: a burst shall not be lost in a relay.
const SOCKET_BUFFER: usize = 4 << 20;
/// Packets under way in all relays of one mesh; further ones are lost, as in a full router.
const UNDER_WAY_MAX: usize = 100_000;

/// One relay: what `from` sends to `listen` arrives at `target`, which is `to`.
#[derive(Clone, Copy, Debug)]
pub struct Route {
    /// Who is told `listen`.
    pub from: usize,
    /// Whose address `target` is.
    pub to: usize,
    /// Where the relay listens.
    pub listen: SocketAddr,
    /// Where it sends on.
    pub target: SocketAddr,
    /// How long that takes, one way.
    pub delay: Duration,
}

/// The running relays of one mesh. Dropping it stops them.
pub struct Wires {
    addresses: BTreeMap<(usize, usize), SocketAddr>,
    tally: Arc<Tally>,
    stop: Arc<AtomicBool>,
    threads: Vec<JoinHandle<()>>,
}

/// Payload bytes and packets (TCP: reads) by sender and receiver.
#[derive(Default)]
struct Tally(BTreeMap<(usize, usize), Counted>);

#[derive(Default)]
struct Counted {
    bytes: AtomicU64,
    packets: AtomicU64,
}

impl Tally {
    fn of(routes: &[Route]) -> Arc<Self> {
        let both = routes.iter().flat_map(|route| [(route.from, route.to), (route.to, route.from)]);
        Arc::new(Self(both.map(|pair| (pair, Counted::default())).collect()))
    }

    fn add(&self, from: usize, to: usize, bytes: usize) {
        if let Some(counted) = self.0.get(&(from, to)) {
            counted.bytes.fetch_add(bytes as u64, Ordering::Relaxed);
            counted.packets.fetch_add(1, Ordering::Relaxed);
        }
    }
}

impl Wires {
    /// Relays for datagrams.
    pub fn udp(routes: &[Route]) -> io::Result<Self> {
        let mut wires = Self::new(routes);
        let relays = UdpRelays::bind(routes, Arc::clone(&wires.tally), Arc::clone(&wires.stop))?;
        wires.threads.push(spawn(move || relays.run()));
        Ok(wires)
    }

    /// Relays for connections.
    pub fn tcp(routes: &[Route]) -> io::Result<Self> {
        let mut wires = Self::new(routes);
        for route in routes {
            let listener = TcpListener::bind(route.listen)?;
            listener.set_nonblocking(true)?;
            let (route, tally, stop) = (*route, Arc::clone(&wires.tally), Arc::clone(&wires.stop));
            wires.threads.push(spawn(move || relay_connections(&listener, route, &tally, &stop)));
        }
        Ok(wires)
    }

    fn new(routes: &[Route]) -> Self {
        let addresses = routes.iter().map(|route| ((route.from, route.to), route.listen)).collect();
        Self { addresses, tally: Tally::of(routes), stop: Arc::default(), threads: vec![] }
    }

    /// What `from` is to be told for the address of `to`.
    #[must_use]
    pub fn address(&self, from: usize, to: usize) -> Option<SocketAddr> {
        self.addresses.get(&(from, to)).copied()
    }

    /// Payload bytes so far from one node to another, whoever dialled.
    #[must_use]
    pub fn bytes(&self, from: usize, to: usize) -> u64 {
        self.tally.0.get(&(from, to)).map_or(0, |counted| counted.bytes.load(Ordering::Relaxed))
    }

    /// Packets so far from one node to another.
    #[must_use]
    pub fn packets(&self, from: usize, to: usize) -> u64 {
        self.tally.0.get(&(from, to)).map_or(0, |counted| counted.packets.load(Ordering::Relaxed))
    }
}

impl Drop for Wires {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        for thread in self.threads.drain(..) {
            thread.join().ok();
        }
    }
}

/// All datagram relays of a mesh on one thread.
struct UdpRelays {
    poll: Poll,
    relays: Vec<UdpRelay>,
    under_way: BTreeMap<(Instant, u64), Packet>,
    sent: u64,
    tally: Arc<Tally>,
    stop: Arc<AtomicBool>,
}

struct UdpRelay {
    route: Route,
    front: UdpSocket,
    back: UdpSocket,
    /// Who dialled: known from its first packet.
    client: Option<SocketAddr>,
}

#[derive(Clone, Copy)]
enum Side {
    /// Towards the target.
    There,
    /// To the client.
    Back,
}

struct Packet {
    relay: usize,
    side: Side,
    bytes: Vec<u8>,
}

impl UdpRelays {
    fn bind(routes: &[Route], tally: Arc<Tally>, stop: Arc<AtomicBool>) -> io::Result<Self> {
        let poll = Poll::new()?;
        let mut relays = Vec::new();
        for (index, route) in routes.iter().enumerate() {
            let mut front = udp(route.listen)?;
            let mut back = udp(SocketAddr::new(route.listen.ip(), 0))?;
            poll.registry().register(&mut front, Token(2 * index), Interest::READABLE)?;
            poll.registry().register(&mut back, Token(2 * index + 1), Interest::READABLE)?;
            relays.push(UdpRelay { route: *route, front, back, client: None });
        }
        Ok(Self { poll, relays, under_way: BTreeMap::new(), sent: 0, tally, stop })
    }

    fn run(mut self) {
        let mut events = Events::with_capacity(256);
        let mut buffer = vec![0; DATAGRAM_MAX];
        while !self.stop.load(Ordering::Relaxed) {
            let now = Instant::now();
            let next = self.under_way.first_key_value().map(|((due, _), _)| *due);
            let wait = next.map_or(STOP_EVERY, |due| due.saturating_duration_since(now).min(STOP_EVERY));
            // An error here is a signal; the loop goes on.
            self.poll.poll(&mut events, Some(wait)).ok();
            for event in &events {
                let Token(token) = event.token();
                let side = if token % 2 == 0 { Side::There } else { Side::Back };
                while self.take(token / 2, side, &mut buffer) {}
            }
            self.deliver_due();
        }
    }

    /// Takes one packet that has come for `side`; false when there is none.
    fn take(&mut self, index: usize, side: Side, buffer: &mut [u8]) -> bool {
        let relay = &mut self.relays[index];
        let socket = if matches!(side, Side::There) { &relay.front } else { &relay.back };
        let (length, source) = match socket.recv_from(buffer) {
            Ok(received) => received,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return false,
            // The echo of a packet that nobody took (ICMP).
            Err(_) => return true,
        };
        let Route { from, to, delay, .. } = relay.route;
        match side {
            Side::There => {
                relay.client = Some(source);
                self.tally.add(from, to, length);
            }
            Side::Back => self.tally.add(to, from, length),
        }
        let bytes = &buffer[..length];
        if delay.is_zero() {
            relay.send(side, bytes);
        } else if self.under_way.len() < UNDER_WAY_MAX {
            self.sent += 1;
            let packet = Packet { relay: index, side, bytes: bytes.to_vec() };
            self.under_way.insert((Instant::now() + delay, self.sent), packet);
        }
        true
    }

    fn deliver_due(&mut self) {
        let now = Instant::now();
        while let Some(first) = self.under_way.first_entry().filter(|first| first.key().0 <= now) {
            let Packet { relay, side, bytes } = first.remove();
            self.relays[relay].send(side, &bytes);
        }
    }
}

impl UdpRelay {
    /// A packet that the kernel does not take is lost, as on any way.
    fn send(&self, side: Side, bytes: &[u8]) {
        match (side, self.client) {
            (Side::There, _) => self.back.send_to(bytes, self.route.target).ok(),
            (Side::Back, Some(client)) => self.front.send_to(bytes, client).ok(),
            (Side::Back, None) => None,
        };
    }
}

fn udp(address: SocketAddr) -> io::Result<UdpSocket> {
    let socket = Socket::new(Domain::IPV4, Type::DGRAM, Some(Protocol::UDP))?;
    socket.set_recv_buffer_size(SOCKET_BUFFER)?;
    socket.set_send_buffer_size(SOCKET_BUFFER)?;
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    Ok(UdpSocket::from_std(socket.into()))
}

fn relay_connections(listener: &TcpListener, route: Route, tally: &Arc<Tally>, stop: &Arc<AtomicBool>) {
    while !stop.load(Ordering::Relaxed) {
        let Ok((client, _)) = listener.accept() else {
            sleep(Duration::from_millis(5));
            continue;
        };
        // A target that refuses: the client sees its connection end.
        let Ok(target) = TcpStream::connect(route.target) else { continue };
        carry_connection(client, target, route, tally).ok();
    }
}

/// Carries both directions until either side ends, on threads that end with their connections.
fn carry_connection(
    client: TcpStream,
    target: TcpStream,
    route: Route,
    tally: &Arc<Tally>,
) -> io::Result<()> {
    client.set_nonblocking(false)?;
    client.set_nodelay(true)?;
    target.set_nodelay(true)?;
    let Route { from, to, delay, .. } = route;
    let there = (client.try_clone()?, target.try_clone()?, from, to);
    for (source, sink, from, to) in [there, (target, client, to, from)] {
        let (queue, queued) = sync_channel::<(Instant, Vec<u8>)>(4_096);
        let tally = Arc::clone(tally);
        spawn(move || {
            read_all(source, &queue, delay, |bytes| tally.add(from, to, bytes));
        });
        spawn(move || write_all(sink, &queued));
    }
    Ok(())
}

fn read_all(
    mut source: TcpStream,
    queue: &SyncSender<(Instant, Vec<u8>)>,
    delay: Duration,
    count: impl Fn(usize),
) {
    let mut buffer = vec![0; DATAGRAM_MAX];
    while let Ok(length @ 1..) = source.read(&mut buffer) {
        count(length);
        if queue.send((Instant::now() + delay, buffer[..length].to_vec())).is_err() {
            break;
        }
    }
    source.shutdown(Shutdown::Read).ok();
}

fn write_all(mut sink: TcpStream, queued: &Receiver<(Instant, Vec<u8>)>) {
    while let Ok((due, bytes)) = queued.recv() {
        sleep(due.saturating_duration_since(Instant::now()));
        if sink.write_all(&bytes).is_err() {
            return;
        }
    }
    sink.shutdown(Shutdown::Both).ok();
}

#[cfg(test)]
mod tests {
    use super::*;

    fn free_udp() -> SocketAddr {
        std::net::UdpSocket::bind("127.0.0.1:0").and_then(|socket| socket.local_addr()).unwrap()
    }

    fn route(listen: SocketAddr, target: SocketAddr) -> Route {
        Route { from: 0, to: 1, listen, target, delay: Duration::from_millis(40) }
    }

    #[test]
    fn datagrams_take_their_time_both_ways_and_are_counted() {
        let target = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
        let client = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
        let wires = Wires::udp(&[route(free_udp(), target.local_addr().unwrap())]).unwrap();
        let began = Instant::now();
        client.send_to(b"there", wires.address(0, 1).unwrap()).unwrap();
        let mut buffer = [0; 16];
        let (length, relay) = target.recv_from(&mut buffer).unwrap();
        assert_eq!((&buffer[..length], wires.bytes(0, 1)), (&b"there"[..], 5));
        assert!(began.elapsed() >= Duration::from_millis(40));
        target.send_to(b"back", relay).unwrap();
        let (length, _) = client.recv_from(&mut buffer).unwrap();
        assert_eq!((&buffer[..length], wires.bytes(1, 0), wires.packets(1, 0)), (&b"back"[..], 4, 1));
        assert!(began.elapsed() >= Duration::from_millis(80));
    }

    #[test]
    fn connections_take_their_time_and_are_counted() {
        let target = TcpListener::bind("127.0.0.1:0").unwrap();
        let listen = TcpListener::bind("127.0.0.1:0").and_then(|socket| socket.local_addr()).unwrap();
        let wires = Wires::tcp(&[route(listen, target.local_addr().unwrap())]).unwrap();
        let mut client = TcpStream::connect(listen).unwrap();
        let (mut server, _) = target.accept().unwrap();
        let began = Instant::now();
        client.write_all(b"there").unwrap();
        let mut buffer = [0; 5];
        server.read_exact(&mut buffer).unwrap();
        assert_eq!((&buffer, wires.bytes(0, 1), wires.bytes(1, 0)), (b"there", 5, 0));
        assert!(began.elapsed() >= Duration::from_millis(40));
    }
}
