//! The PROXY protocol: a balancer's first bytes, which say whose connection it passes on (HAProxy's `doc/proxy-protocol.txt`, versions 1
//! and 2). Pure: bytes to addresses and back; who is believed is the frontend's to decide.
//!
//! Where the document leaves a choice HAProxy's is taken (`conn_recv_proxy`): whatever is not TCP, UDP and unix sockets too, says
//! nothing of an address that could be used here, and the socket's own address stays.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

mod crc32c;
mod v1;
mod v2;

/// The longest header that is read: 16 bytes and what may follow them in version 2. The document's own advice is 536 bytes; a client's
/// certificate among the TLVs takes more.
pub const HEADER_BYTES_MAX: usize = v2::FIXED + v2::REST_MAX;

/// Whose connection it is, and where it was accepted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Addresses {
    /// The client.
    pub source: SocketAddr,
    /// What the client connected to.
    pub destination: SocketAddr,
}

/// A complete header.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Header {
    /// Its bytes; what follows is the client's.
    pub len: usize,
    /// What it says; `None` where the socket's own addresses count (`LOCAL`, `UNKNOWN`, and what is not TCP). Addresses of IPv4 are
    /// IPv4, even where they are written as IPv6.
    pub addresses: Option<Addresses>,
}

/// What some first bytes are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Decoded {
    /// A header that is not complete.
    More,
    /// A complete one.
    Header(Header),
}

/// Why bytes are no header.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum HeaderError {
    /// They begin otherwise.
    #[error("no PROXY header, expected one that begins with \"PROXY \" or with the signature of version 2")]
    NoHeader,
    /// Version 1 has no end in sight.
    #[error("PROXY header of version 1 is longer than {} bytes", v1::BYTES_MAX)]
    LineTooLong,
    /// Version 1 is no line that ends in CR LF.
    #[error("PROXY header of version 1 does not end in CR LF")]
    LineEnd,
    /// Version 1 names another protocol.
    #[error("protocol of PROXY header of version 1 is unknown, expected TCP4, TCP6 or UNKNOWN")]
    Protocol,
    /// Version 1 has not two addresses and two ports, each behind one space.
    #[error("PROXY header of version 1 has not the form \"PROXY TCP4 SOURCE DESTINATION PORT PORT\"")]
    Form,
    /// An address of version 1 is none of its protocol.
    #[error("address in PROXY header of version 1 is none of its protocol")]
    Address,
    /// A port of version 1 is none.
    #[error("port in PROXY header of version 1 is no number from 0 to 65535 without leading zeros")]
    Port,
    /// The version is neither 1 nor 2.
    #[error("version of PROXY header is {0}, expected 2")]
    Version(u8),
    /// A command of version 2 that does not exist.
    #[error("command of PROXY header is {0}, expected 0 (LOCAL) or 1 (PROXY)")]
    Command(u8),
    /// A family or transport of version 2 that does not exist.
    #[error("family and transport of PROXY header are {0:#04x}, expected one of the document's")]
    Family(u8),
    /// Version 2 announces more than is read.
    #[error("PROXY header of version 2 announces {0} bytes, expected at most {max}", max = v2::REST_MAX)]
    TooLong(u16),
    /// Version 2 announces less than its addresses.
    #[error("PROXY header of version 2 announces {0} bytes, which cannot hold its addresses")]
    TooShort(u16),
    /// A TLV of version 2 is longer than what is left.
    #[error("TLV in PROXY header of version 2 is longer than the header")]
    Tlv,
    /// The checksum of version 2 is another one.
    #[error("checksum of PROXY header of version 2 is wrong")]
    Checksum,
}

/// Reads the first bytes of a connection. However they are cut, the answer to all of them is the same; they may go on behind the header.
///
/// # Errors
/// [`HeaderError`], as early as it is certain. Whoever sent them is no balancer, and is not to be answered.
pub fn decode(bytes: &[u8]) -> Result<Decoded, HeaderError> {
    let begins_as = |signature: &[u8]| bytes.iter().zip(signature).all(|(byte, wanted)| byte == wanted);
    if begins_as(&v2::SIGNATURE) {
        v2::decode(bytes)
    } else if begins_as(v1::SIGNATURE) {
        v1::decode(bytes)
    } else {
        Err(HeaderError::NoHeader)
    }
}

/// Writes a header of version 2: `PROXY`, or `LOCAL` for a connection of this node's own. When only one address is IPv6 both are
/// written as such, as HAProxy does.
#[must_use]
pub fn encode(addresses: Option<&Addresses>) -> Vec<u8> {
    v2::encode(addresses)
}

/// An address as its family has it: `::ffff:192.0.2.1` is one of IPv4.
fn canonical(ip: IpAddr, port: u16) -> SocketAddr {
    SocketAddr::new(ip.to_canonical(), port)
}

fn v4(bytes: [u8; 4]) -> IpAddr {
    IpAddr::V4(Ipv4Addr::from(bytes))
}

fn v6(bytes: [u8; 16]) -> IpAddr {
    IpAddr::V6(Ipv6Addr::from(bytes))
}

#[cfg(test)]
mod tests;
