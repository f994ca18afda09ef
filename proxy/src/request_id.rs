//! `X-Request-Id`: one name for a request in the client's, this node's and the shard's logs.

use http::{HeaderMap, HeaderName, HeaderValue};
use ring::rand::{SecureRandom, SystemRandom};
use std::cell::Cell;

pub(crate) const X_REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
/// The longest one that is taken over.
const LEN_MAX: usize = 128;
/// Of a UUID as text.
const UUID_LEN: usize = 36;

/// Where the names of requests come from.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum RequestIds {
    /// Nowhere; what a client sends passes as any other header.
    Off,
    /// From this node, whatever the client sends.
    Make,
    /// From the client, if its only line has 1 to 128 visible ASCII characters; else from this node.
    #[default]
    Accept,
}

/// Makes names: UUIDs of version 4 (RFC 9562, 5.4). One for each worker.
///
/// Two counters of 64 bits that the system's randomness began, mixed (SplitMix64): no two names of a worker are equal, none takes a
/// syscall, and nobody's secret depends on them.
#[derive(Debug)]
pub(crate) struct Maker {
    high: Cell<u64>,
    low: Cell<u64>,
}

impl Maker {
    /// # Errors
    /// The system has no randomness.
    pub(crate) fn new() -> std::io::Result<Self> {
        let mut seed = [0; 16];
        let filled = SystemRandom::new().fill(&mut seed);
        filled.map_err(|_| std::io::Error::other("the system gives no random bytes"))?;
        Ok(Self::seeded(u128::from_ne_bytes(seed)))
    }

    const fn seeded(seed: u128) -> Self {
        Self { high: Cell::new((seed >> 64) as u64), low: Cell::new(seed as u64) }
    }

    /// The name of a request, and the line that tells it; `None` where requests have none.
    pub(crate) fn name(&self, ids: RequestIds, headers: &HeaderMap) -> Option<HeaderValue> {
        match ids {
            RequestIds::Off => None,
            RequestIds::Make => Some(self.make()),
            RequestIds::Accept => Some(accepted(headers).unwrap_or_else(|| self.make())),
        }
    }

    fn make(&self) -> HeaderValue {
        // Two odd numbers without much in common: the golden ratio's, and that of SplitMix64's descendants.
        let high = step(&self.high, 0x9e37_79b9_7f4a_7c15);
        let low = step(&self.low, 0xd134_2543_de82_ef95);
        let random = (u128::from(high) << 64) | u128::from(low);
        let mut text = [0; UUID_LEN];
        write(&mut text, random);
        HeaderValue::from_bytes(&text).unwrap_or_else(|_| HeaderValue::from_static("-"))
    }
}

fn step(counter: &Cell<u64>, by: u64) -> u64 {
    let at = counter.get().wrapping_add(by);
    counter.set(at);
    let mixed = (at ^ (at >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    mixed ^ (mixed >> 31)
}

fn write(text: &mut [u8; UUID_LEN], random: u128) {
    const HEX: &[u8; 16] = b"0123456789abcdef";
    let versioned = (random & !(0xf << 76) & !(0x3 << 62)) | (0x4 << 76) | (0x2 << 62);
    let mut left = versioned;
    for (index, letter) in text.iter_mut().enumerate().rev() {
        if matches!(index, 8 | 13 | 18 | 23) {
            *letter = b'-';
        } else {
            *letter = HEX[(left & 15) as usize];
            left >>= 4;
        }
    }
}

/// What the client calls its request, if that is fit to be a name in logs and headers.
fn accepted(headers: &HeaderMap) -> Option<HeaderValue> {
    let mut lines = headers.get_all(X_REQUEST_ID).iter();
    let (line, None) = (lines.next()?, lines.next()) else { return None };
    let fit = (1..=LEN_MAX).contains(&line.len()) && line.as_bytes().iter().all(u8::is_ascii_graphic);
    fit.then(|| line.clone())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    fn sent(lines: &[&[u8]]) -> HeaderMap {
        lines.iter().map(|line| (X_REQUEST_ID, HeaderValue::from_bytes(line).unwrap())).collect()
    }

    #[test]
    fn names_are_uuids_and_differ() {
        let maker = Maker::new().unwrap();
        let mut seen = HashSet::new();
        for _ in 0..10_000 {
            let name = maker.make();
            let text = name.to_str().unwrap().to_owned();
            let parts: Vec<_> = text.split('-').map(str::len).collect();
            assert_eq!(parts, [8, 4, 4, 4, 12], "{text}");
            assert!(text.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f' | b'-')), "{text}");
            assert!(text.as_bytes()[14] == b'4' && b"89ab".contains(&text.as_bytes()[19]), "{text}");
            assert!(seen.insert(text));
        }
        let other = Maker::new().unwrap();
        assert_ne!(maker.make(), other.make());
        let mut text = [0; UUID_LEN];
        write(&mut text, u128::MAX);
        assert_eq!(&text, b"ffffffff-ffff-4fff-bfff-ffffffffffff");
        write(&mut text, 0x0123_4567_89ab_cdef_0123_4567_89ab_cdef);
        assert_eq!(&text, b"01234567-89ab-4def-8123-456789abcdef");
    }

    #[test]
    fn a_clients_name_is_taken_if_it_is_one() {
        let maker = Maker::seeded(7);
        let longest = [b'x'; LEN_MAX];
        for name in [&b"a"[..], b"0b6e-1\"#;,", &longest] {
            assert_eq!(maker.name(RequestIds::Accept, &sent(&[name])).unwrap(), name);
            assert_ne!(maker.name(RequestIds::Make, &sent(&[name])).unwrap(), name);
            assert_eq!(maker.name(RequestIds::Off, &sent(&[name])), None);
        }
        let long = [b'x'; LEN_MAX + 1];
        for lines in
            [&[&b""[..]][..], &[b"a b"], &[b"\t"], &[b"\xe9"], &[&long], &[b"a", b"b"], &[b"a", b"a"], &[]]
        {
            let name = maker.name(RequestIds::Accept, &sent(lines)).unwrap();
            assert_eq!(name.len(), UUID_LEN, "{lines:?}");
        }
    }
}
