//! Version 2: 16 bytes, addresses, and TLVs, of which only the checksum means something here.

use super::crc32c::crc32c;
use super::{Addresses, Decoded, Header, HeaderError, canonical, v4, v6};
use std::net::{IpAddr, Ipv6Addr};

/// What a header of version 2 begins with.
pub(super) const SIGNATURE: [u8; 12] = *b"\r\n\r\n\0\r\nQUIT\n";
/// Signature, version and command, family and transport, length.
pub(super) const FIXED: usize = 16;
/// The most that may follow.
pub(super) const REST_MAX: usize = 4096;

const LOCAL: u8 = 0x20;
const PROXY: u8 = 0x21;
const TCP4: u8 = 0x11;
const TCP6: u8 = 0x21;
const TCP4_BYTES: usize = 12;
const TCP6_BYTES: usize = 36;
/// `PP2_TYPE_CRC32C`.
const CHECKSUM: u8 = 0x03;

/// Reads bytes that begin as [`SIGNATURE`], as far as they go.
pub(super) fn decode(bytes: &[u8]) -> Result<Decoded, HeaderError> {
    let Some(command) = bytes.get(12) else { return Ok(Decoded::More) };
    if command >> 4 != 2 {
        return Err(HeaderError::Version(command >> 4));
    }
    if !matches!(*command, LOCAL | PROXY) {
        return Err(HeaderError::Command(command & 15));
    }
    let Some(&[family, high, low]) = bytes.get(13..FIXED) else { return Ok(Decoded::More) };
    let announced = u16::from_be_bytes([high, low]);
    let rest = usize::from(announced);
    if rest > REST_MAX {
        return Err(HeaderError::TooLong(announced));
    }
    // A health check's connection; the family is not looked at.
    let family = if *command == LOCAL { 0 } else { family };
    if family >> 4 > 3 || family & 15 > 2 {
        return Err(HeaderError::Family(family));
    }
    let address_bytes = match family {
        TCP4 => TCP4_BYTES,
        TCP6 => TCP6_BYTES,
        _ => 0,
    };
    if rest < address_bytes {
        return Err(HeaderError::TooShort(announced));
    }
    let len = FIXED + rest;
    let Some(header) = bytes.get(..len) else { return Ok(Decoded::More) };
    let (addresses, tlvs) = match (family, &header[FIXED..]) {
        (TCP4, rest) => (tcp4(rest), FIXED + TCP4_BYTES),
        (TCP6, rest) => (tcp6(rest), FIXED + TCP6_BYTES),
        // Their TLVs, if any, begin wherever their addresses end.
        _ => (None, len),
    };
    check(header, tlvs)?;
    Ok(Decoded::Header(Header { len, addresses }))
}

fn tcp4(rest: &[u8]) -> Option<Addresses> {
    let (source, rest) = rest.split_first_chunk()?;
    let (destination, rest) = rest.split_first_chunk()?;
    let (source_port, rest) = rest.split_first_chunk()?;
    let (destination_port, _) = rest.split_first_chunk()?;
    Some(Addresses {
        source: canonical(v4(*source), u16::from_be_bytes(*source_port)),
        destination: canonical(v4(*destination), u16::from_be_bytes(*destination_port)),
    })
}

fn tcp6(rest: &[u8]) -> Option<Addresses> {
    let (source, rest) = rest.split_first_chunk()?;
    let (destination, rest) = rest.split_first_chunk()?;
    let (source_port, rest) = rest.split_first_chunk()?;
    let (destination_port, _) = rest.split_first_chunk()?;
    Some(Addresses {
        source: canonical(v6(*source), u16::from_be_bytes(*source_port)),
        destination: canonical(v6(*destination), u16::from_be_bytes(*destination_port)),
    })
}

/// Passes over the TLVs of a header, which begin at `tlvs`; a checksum among them has to be right. It is that of the whole header with
/// zeros in its own place.
fn check(header: &[u8], tlvs: usize) -> Result<(), HeaderError> {
    let mut at = tlvs;
    while let Some(begin) = header.get(at..).filter(|rest| !rest.is_empty()) {
        let Some(&[kind, high, low]) = begin.first_chunk() else { return Err(HeaderError::Tlv) };
        let value = at + 3..at + 3 + usize::from(u16::from_be_bytes([high, low]));
        let text = header.get(value.clone()).ok_or(HeaderError::Tlv)?;
        if kind == CHECKSUM {
            let said = text.try_into().map(u32::from_be_bytes).map_err(|_| HeaderError::Checksum)?;
            let zeroed = header.iter().enumerate();
            let zeroed = zeroed.map(|(index, byte)| if value.contains(&index) { 0 } else { *byte });
            if crc32c(zeroed) != said {
                return Err(HeaderError::Checksum);
            }
        }
        at = value.end;
    }
    Ok(())
}

pub(super) fn encode(addresses: Option<&Addresses>) -> Vec<u8> {
    let mut out = Vec::with_capacity(FIXED + TCP6_BYTES);
    out.extend_from_slice(&SIGNATURE);
    let Some(Addresses { source, destination }) = addresses else {
        out.extend_from_slice(&[LOCAL, 0, 0, 0]);
        return out;
    };
    match (source.ip().to_canonical(), destination.ip().to_canonical()) {
        (IpAddr::V4(source), IpAddr::V4(destination)) => {
            out.extend_from_slice(&[PROXY, TCP4, 0, TCP4_BYTES as u8]);
            out.extend_from_slice(&source.octets());
            out.extend_from_slice(&destination.octets());
        }
        (source, destination) => {
            out.extend_from_slice(&[PROXY, TCP6, 0, TCP6_BYTES as u8]);
            out.extend_from_slice(&as_v6(source).octets());
            out.extend_from_slice(&as_v6(destination).octets());
        }
    }
    out.extend_from_slice(&source.port().to_be_bytes());
    out.extend_from_slice(&destination.port().to_be_bytes());
    out
}

const fn as_v6(ip: IpAddr) -> Ipv6Addr {
    match ip {
        IpAddr::V4(ip) => ip.to_ipv6_mapped(),
        IpAddr::V6(ip) => ip,
    }
}
