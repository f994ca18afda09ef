//! Addresses: 127.84.0.0/16 is the oracle's own, and each slot of what runs at once has four /24 of it.

use std::net::{Ipv4Addr, SocketAddr};

/// The most slots.
const SLOTS: u8 = 60;

/// One slot's addresses.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Ground(u8);

impl Ground {
    /// Slot `number`, counted from 0; `None` beyond the last one.
    pub(super) fn new(number: u8) -> Option<Self> {
        (number < SLOTS).then_some(Self(number))
    }

    fn address(self, part: u8, host: u8, port: u16) -> SocketAddr {
        SocketAddr::from((Ipv4Addr::new(127, 84, self.0 * 4 + part, host), port))
    }

    /// Where node `number` takes requests.
    pub(super) fn frontend(self, node: u8) -> SocketAddr {
        self.address(0, node, 18000)
    }

    /// Where it says whether it is ready.
    pub(super) fn admin(self, node: u8) -> SocketAddr {
        self.address(0, node, 18405)
    }

    /// Where it answers its peers (UDP).
    pub(super) fn mesh(self, node: u8) -> SocketAddr {
        self.address(0, node, 18700)
    }

    /// Where shard `number` of the environment answers.
    pub(super) fn shard(self, number: u8) -> SocketAddr {
        self.address(1, number, 18443)
    }

    /// Where that shard's agent does.
    pub(super) fn agent(self, number: u8) -> SocketAddr {
        self.address(1, number, 16060)
    }

    /// Where HAProxy `node` answers its peers.
    pub(super) fn haproxy_peer(self, node: u8) -> SocketAddr {
        self.address(0, node, 18024)
    }

    /// Where HAProxies send their access logs.
    pub(super) fn log_sink(self) -> SocketAddr {
        self.address(2, 1, 18514)
    }

    /// Where the pool's server answers.
    pub(super) fn pool(self) -> SocketAddr {
        self.address(2, 1, 18088)
    }
}
