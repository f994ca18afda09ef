//! Version 1: a line of text.

use super::{Addresses, Decoded, Header, HeaderError, canonical};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// What a header of version 1 begins with.
pub(super) const SIGNATURE: &[u8] = b"PROXY ";
/// The document's worst case, CR LF included.
pub(super) const BYTES_MAX: usize = 107;

/// Reads bytes that begin as [`SIGNATURE`], as far as they go.
pub(super) fn decode(bytes: &[u8]) -> Result<Decoded, HeaderError> {
    let head = &bytes[..bytes.len().min(BYTES_MAX)];
    let Some(end) = head.iter().position(|byte| *byte == b'\n') else {
        return if head.len() < BYTES_MAX { Ok(Decoded::More) } else { Err(HeaderError::LineTooLong) };
    };
    let line = head[..end].strip_suffix(b"\r").filter(|line| !line.contains(&b'\r'));
    let line = line.ok_or(HeaderError::LineEnd)?.strip_prefix(SIGNATURE).ok_or(HeaderError::NoHeader)?;
    let mut words = line.split(|byte| *byte == b' ');
    let addresses = match words.next() {
        // Whatever follows is to be passed over.
        Some(b"UNKNOWN") => None,
        Some(b"TCP4") => Some(addresses(words, |text| text.parse().ok().map(|ip: Ipv4Addr| ip.into()))?),
        Some(b"TCP6") => Some(addresses(words, |text| text.parse().ok().map(|ip: Ipv6Addr| ip.into()))?),
        Some(_) | None => return Err(HeaderError::Protocol),
    };
    Ok(Decoded::Header(Header { len: end + 1, addresses }))
}

fn addresses<'a>(
    mut words: impl Iterator<Item = &'a [u8]>,
    ip: impl Fn(&str) -> Option<IpAddr>,
) -> Result<Addresses, HeaderError> {
    let mut word = || words.next().ok_or(HeaderError::Form);
    let (source, destination, source_port, destination_port) = (word()?, word()?, word()?, word()?);
    if words.next().is_some() {
        return Err(HeaderError::Form);
    }
    let ip = |word: &[u8]| str::from_utf8(word).ok().and_then(&ip).ok_or(HeaderError::Address);
    Ok(Addresses {
        source: canonical(ip(source)?, port(source_port)?),
        destination: canonical(ip(destination)?, port(destination_port)?),
    })
}

fn port(word: &[u8]) -> Result<u16, HeaderError> {
    let digits = word.iter().all(u8::is_ascii_digit) && (word.len() == 1 || !word.starts_with(b"0"));
    let text = str::from_utf8(word).ok().filter(|_| digits);
    text.and_then(|text| text.parse().ok()).ok_or(HeaderError::Port)
}
