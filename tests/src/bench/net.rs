//! Where everything of one run listens: a 127.x range of its own, so that runs side by side do not meet.

use std::io;
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4, TcpStream};
use std::time::Duration;

use socket2::{Domain, Protocol, Socket, Type};

/// How many shards the origin plays.
pub const SHARDS: u8 = 8;
/// Source addresses that the clients spread over, so that no pair of addresses runs out of ports.
const SOURCES: u8 = 8;
const CONNECT_MAX: Duration = Duration::from_secs(5);

/// The address plan of one run.
#[derive(Clone, Copy)]
pub struct AddressPlan {
    second_octet: u8,
}

impl AddressPlan {
    /// The plan of the process that asks.
    #[must_use]
    pub fn of_this_process() -> Self {
        Self { second_octet: 100 + (std::process::id() % 100) as u8 }
    }

    /// The plan in 127.`second_octet`.0.0/16: only one run at a time.
    #[must_use]
    pub fn at(second_octet: u8) -> Self {
        Self { second_octet }
    }

    /// Shard number 1 to [`SHARDS`].
    #[must_use]
    pub fn shard(self, number: u8) -> SocketAddr {
        self.address(1, number, 5280)
    }

    /// All shards in order.
    #[must_use]
    pub fn shards(self) -> Vec<SocketAddr> {
        (1..=SHARDS).map(|number| self.shard(number)).collect()
    }

    /// `port` at `host` of the subject numbered `subject`.
    #[must_use]
    pub fn subject(self, subject: u8, host: u8, port: u16) -> SocketAddr {
        self.address(10 + subject, host, port)
    }

    fn address(self, third: u8, fourth: u8, port: u16) -> SocketAddr {
        SocketAddr::V4(SocketAddrV4::new(Ipv4Addr::new(127, self.second_octet, third, fourth), port))
    }
}

/// Connects to `target`, from one of a few source addresses chosen by `index`.
pub fn dial(target: SocketAddr, index: usize) -> io::Result<TcpStream> {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, Some(Protocol::TCP))?;
    let source = Ipv4Addr::new(127, 0, 9, 1 + (index % usize::from(SOURCES)) as u8);
    socket.bind(&SocketAddr::from((source, 0)).into())?;
    socket.set_tcp_nodelay(true)?;
    socket.connect_timeout(&target.into(), CONNECT_MAX)?;
    Ok(socket.into())
}
