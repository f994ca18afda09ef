//! The wires of the mesh: a relay in front of every node, through which all others reach it, so that the regions can be
//! cut apart while each keeps its own wires.

use std::io;
use std::net::SocketAddr;

use super::relay::Relay;

/// The state of the wires between the regions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Link {
    /// Everybody reaches everybody.
    Whole,
    /// Nobody reaches the other region.
    Cut,
}

/// One end of the wires: a node's region and its own peer address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct End {
    /// Its region.
    pub region: &'static str,
    /// Its QUIC endpoint, which is also where its own packets come from.
    pub address: SocketAddr,
}

/// All wires of one mesh.
pub struct Wires {
    wires: Vec<(End, Relay)>,
    link: Link,
}

impl Wires {
    /// A relay for each end.
    pub async fn start(ends: &[End]) -> io::Result<Self> {
        let mut wires = Vec::with_capacity(ends.len());
        for end in ends {
            wires.push((*end, Relay::start(end.address).await?));
        }
        Ok(Self { wires, link: Link::Whole })
    }

    /// Where the others reach each end, in the order given to [`Self::start`].
    pub fn addresses(&self) -> Vec<SocketAddr> {
        self.wires.iter().map(|(_, relay)| relay.address()).collect()
    }

    /// Whether the regions reach each other.
    pub fn link(&self) -> Link {
        self.link
    }

    /// Cuts the regions apart, or heals them; whatever is under way between them when they are cut is lost.
    pub fn set(&mut self, link: Link) {
        self.link = link;
        for (near, relay) in &self.wires {
            match link {
                Link::Whole => relay.heal(),
                Link::Cut => {
                    for (far, _) in self.wires.iter().filter(|(far, _)| far.region != near.region) {
                        relay.cut_from(far.address);
                    }
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio::net::UdpSocket;
    use tokio::time::timeout;

    use super::*;

    async fn arrives(from: &UdpSocket, wire: SocketAddr, to: &UdpSocket) -> bool {
        from.send_to(b"x", wire).await.unwrap();
        let mut buffer = [0; 8];
        timeout(Duration::from_millis(300), to.recv(&mut buffer)).await.is_ok()
    }

    #[tokio::test]
    async fn a_cut_parts_the_regions_and_nothing_else() {
        let mut sockets = Vec::new();
        for _ in 0..3 {
            sockets.push(UdpSocket::bind("127.0.0.1:0").await.unwrap());
        }
        let ends: Vec<End> = sockets
            .iter()
            .zip(["region-a", "region-a", "region-b"])
            .map(|(socket, region)| End { region, address: socket.local_addr().unwrap() })
            .collect();
        let mut wires = Wires::start(&ends).await.unwrap();
        let at = wires.addresses();
        assert!(arrives(&sockets[0], at[2], &sockets[2]).await);
        wires.set(Link::Cut);
        assert!(!arrives(&sockets[0], at[2], &sockets[2]).await);
        assert!(!arrives(&sockets[2], at[1], &sockets[1]).await);
        assert!(arrives(&sockets[0], at[1], &sockets[1]).await);
        wires.set(Link::Whole);
        assert!(arrives(&sockets[2], at[0], &sockets[0]).await);
    }
}
