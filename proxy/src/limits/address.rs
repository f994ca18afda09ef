//! What each client address has open and has asked for lately, over all workers: the kernel spreads one client's connections over
//! them. Touched only where one of these limits is on. Pure but for its locks, which are held for a look into a map; time is an
//! argument.

use super::bucket::{Rate, Used};
use crate::address_range::{AddressRange, contained, masked};
use crate::clock::Millis;
use std::collections::HashMap;
use std::hash::{BuildHasher, RandomState};
use std::net::{IpAddr, Ipv4Addr};
use std::sync::{Mutex, MutexGuard, PoisonError};

/// Parts of the table, each with a lock of its own.
const PARTS: usize = 64;
/// Addresses of a part; 131,072 of all.
const OF_PART_MAX: usize = 2_048;

/// What one client address may do. An IPv6 client is its /64: the rest of the address is its own to choose.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PerAddress {
    /// Connections open at once; 0 is no limit.
    pub connections_max: u32,
    /// New connections.
    pub connection_rate: Option<Rate>,
    /// Requests.
    pub request_rate: Option<Rate>,
    /// Keys that the stick table has no entry for: first joins, real or invented.
    pub new_key_rate: Option<Rate>,
    /// Who is not limited.
    pub exempt: Vec<AddressRange>,
}

impl PerAddress {
    /// No limit at all.
    pub const OFF: Self = Self {
        connections_max: 0,
        connection_rate: None,
        request_rate: None,
        new_key_rate: None,
        exempt: Vec::new(),
    };

    fn is_exempt(&self, address: IpAddr) -> bool {
        contained(&self.exempt, address)
    }
}

/// Why an address gets no more connections.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Beyond {
    /// It has as many open as it may.
    Open,
    /// It has opened too many lately.
    Rate,
}

/// Who counts as one client: an IPv4 address, or the first 64 bits of an IPv6 address. The former are told apart by a beginning that
/// no client's address has: ffff::/16 is multicast.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
struct Source(u64);

impl Source {
    fn of(address: IpAddr) -> Self {
        match masked(behind_nat64(address.to_canonical()), 64) {
            IpAddr::V4(v4) => Self(0xFFFF_FFFF << 32 | u64::from(v4.to_bits())),
            IpAddr::V6(v6) => Self((v6.to_bits() >> 64) as u64),
        }
    }
}

/// The IPv4 address that a NAT64 has written into one of 64:ff9b::/96 (RFC 6052, 2.1): behind it, all IPv4 clients share a /64.
fn behind_nat64(address: IpAddr) -> IpAddr {
    match address {
        IpAddr::V6(v6) if v6.to_bits() >> 32 == 0x0064_ff9b << 64 => {
            IpAddr::V4(Ipv4Addr::from_bits(v6.to_bits() as u32))
        }
        IpAddr::V4(_) | IpAddr::V6(_) => address,
    }
}

/// What a source has open and has used.
#[derive(Debug, Clone, Copy, Default)]
struct Usage {
    /// When `used` was right.
    at: Millis,
    connections: u32,
    connection: Used,
    request: Used,
    new_key: Used,
}

impl Usage {
    fn recover(&mut self, limits: &PerAddress, now: Millis) {
        // Readings of several threads may come in another order than they were taken in.
        let elapsed = now.saturating_sub(self.at);
        self.at = self.at.max(now);
        for (used, rate) in [
            (&mut self.connection, limits.connection_rate),
            (&mut self.request, limits.request_rate),
            (&mut self.new_key, limits.new_key_rate),
        ] {
            match rate {
                Some(rate) => used.recover(rate, elapsed),
                None => *used = Used::default(),
            }
        }
    }

    const fn is_idle(&self) -> bool {
        self.connections == 0
            && self.connection.is_nothing()
            && self.request.is_nothing()
            && self.new_key.is_nothing()
    }
}

/// A part of the table. Sources beyond its bound share one usage, in which open connections are not limited: strangers must not
/// shut each other out for as long as these last.
#[derive(Debug, Default)]
struct Part {
    known: HashMap<Source, Usage>,
    crowd: Usage,
}

/// Where a connection is counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Counted(Source);

/// The table of all addresses.
#[derive(Debug)]
pub(super) struct Addresses {
    parts: Box<[Mutex<Part>]>,
    /// Keyed by chance: which part an address is in is nobody's to choose.
    spread: RandomState,
}

impl Addresses {
    pub(super) fn new() -> Self {
        let parts = (0..PARTS).map(|_| Mutex::default()).collect();
        Self { parts, spread: RandomState::new() }
    }

    /// Another connection of `address`; `None` where it need not be counted.
    ///
    /// # Errors
    /// [`Beyond`]; it is not counted then.
    pub(super) fn connection(
        &self,
        limits: &PerAddress,
        address: IpAddr,
        now: Millis,
    ) -> Result<Option<Counted>, Beyond> {
        let PerAddress { connections_max, connection_rate, .. } = *limits;
        if (connections_max == 0 && connection_rate.is_none()) || limits.is_exempt(address) {
            return Ok(None);
        }
        let source = Source::of(address);
        let mut part = self.part(source);
        let (usage, place) = part.usage(source, limits, now);
        if place == Place::Known && connections_max > 0 && usage.connections >= connections_max {
            return Err(Beyond::Open);
        }
        if let Some(rate) = connection_rate {
            usage.connection.take(rate).map_err(|_| Beyond::Rate)?;
        }
        if connections_max == 0 || place == Place::Crowd {
            return Ok(None);
        }
        usage.connections += 1;
        Ok(Some(Counted(source)))
    }

    /// A connection has ended.
    pub(super) fn ended(&self, Counted(source): Counted) {
        // A source with connections is not forgotten.
        if let Some(usage) = self.part(source).known.get_mut(&source) {
            usage.connections = usage.connections.saturating_sub(1);
        }
    }

    /// Another request of `address`.
    ///
    /// # Errors
    /// The time until there may be one.
    pub(super) fn request(&self, limits: &PerAddress, address: IpAddr, now: Millis) -> Result<(), Millis> {
        let Some(rate) = limits.request_rate else { return Ok(()) };
        self.take(limits, address, now, rate, |usage| &mut usage.request)
    }

    /// Another new key of `address`.
    ///
    /// # Errors
    /// The time until there may be one.
    pub(super) fn new_key(&self, limits: &PerAddress, address: IpAddr, now: Millis) -> Result<(), Millis> {
        let Some(rate) = limits.new_key_rate else { return Ok(()) };
        self.take(limits, address, now, rate, |usage| &mut usage.new_key)
    }

    fn take(
        &self,
        limits: &PerAddress,
        address: IpAddr,
        now: Millis,
        rate: Rate,
        of: impl FnOnce(&mut Usage) -> &mut Used,
    ) -> Result<(), Millis> {
        if limits.is_exempt(address) {
            return Ok(());
        }
        let source = Source::of(address);
        let mut part = self.part(source);
        let (usage, _) = part.usage(source, limits, now);
        of(usage).take(rate)
    }

    /// Forgets who has nothing open and nothing used.
    pub(super) fn sweep(&self, limits: &PerAddress, now: Millis) {
        for part in &self.parts {
            let mut part = part.lock().unwrap_or_else(PoisonError::into_inner);
            part.known.retain(|_, usage| {
                usage.recover(limits, now);
                !usage.is_idle()
            });
        }
    }

    /// How many addresses are known now.
    pub(super) fn known(&self) -> usize {
        let of = |part: &Mutex<Part>| part.lock().unwrap_or_else(PoisonError::into_inner).known.len();
        self.parts.iter().map(of).sum()
    }

    fn part(&self, source: Source) -> MutexGuard<'_, Part> {
        let part = self.spread.hash_one(source) as usize % PARTS;
        self.parts[part].lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Whose usage it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Place {
    Known,
    Crowd,
}

impl Part {
    /// The usage of a source as of now, its own or, at the bound, that of all who came late.
    fn usage(&mut self, source: Source, limits: &PerAddress, now: Millis) -> (&mut Usage, Place) {
        let place = match self.known.len() < OF_PART_MAX || self.known.contains_key(&source) {
            true => Place::Known,
            false => Place::Crowd,
        };
        let usage = match place {
            Place::Known => self.known.entry(source).or_insert_with(|| Usage { at: now, ..Usage::default() }),
            Place::Crowd => &mut self.crowd,
        };
        usage.recover(limits, now);
        (usage, place)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::Ipv6Addr;

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    fn limits() -> PerAddress {
        PerAddress {
            connections_max: 2,
            connection_rate: Rate::new(10, 4),
            request_rate: Rate::new(10, 3),
            new_key_rate: Rate::new(2, 2),
            exempt: vec!["10.0.0.0/8".parse().unwrap()],
        }
    }

    #[test]
    fn one_address_does_not_touch_another() {
        let addresses = Addresses::new();
        let (one, other) = (ip("192.0.2.1"), ip("192.0.2.2"));
        for _ in 0..3 {
            assert_eq!(addresses.request(&limits(), one, 0), Ok(()));
        }
        assert_eq!(addresses.request(&limits(), one, 0), Err(100));
        assert_eq!(addresses.request(&limits(), other, 0), Ok(()));
        // Requests are not keys.
        assert_eq!(addresses.new_key(&limits(), one, 0), Ok(()));
        assert_eq!(addresses.new_key(&limits(), one, 0), Ok(()));
        assert_eq!(addresses.new_key(&limits(), one, 0), Err(500));
        assert_eq!(addresses.new_key(&limits(), one, 500), Ok(()));
        assert_eq!(addresses.request(&limits(), one, 500), Ok(()));
        assert_eq!(addresses.known(), 2);
        addresses.sweep(&limits(), 500);
        assert_eq!(addresses.known(), 1);
        addresses.sweep(&limits(), 2_000);
        assert_eq!(addresses.known(), 0);
    }

    #[test]
    fn connections_are_counted_until_they_end() {
        let addresses = Addresses::new();
        let client = ip("192.0.2.1");
        let first = addresses.connection(&limits(), client, 0).unwrap().unwrap();
        let second = addresses.connection(&limits(), client, 0).unwrap().unwrap();
        assert_eq!(addresses.connection(&limits(), client, 0), Err(Beyond::Open));
        addresses.sweep(&limits(), 10_000);
        assert_eq!(addresses.known(), 1, "who has connections is not forgotten");
        addresses.ended(first);
        let third = addresses.connection(&limits(), client, 10_000).unwrap().unwrap();
        addresses.ended(second);
        addresses.ended(third);
        // Four at once, whatever has ended.
        for _ in 0..3 {
            let counted = addresses.connection(&limits(), client, 10_000).unwrap().unwrap();
            addresses.ended(counted);
        }
        assert_eq!(addresses.connection(&limits(), client, 10_000), Err(Beyond::Rate));
        assert!(addresses.connection(&limits(), client, 10_100).is_ok());
    }

    #[test]
    fn who_is_exempt_or_not_limited_is_not_counted() {
        let addresses = Addresses::new();
        for _ in 0..100 {
            assert_eq!(addresses.connection(&limits(), ip("10.1.2.3"), 0), Ok(None));
            assert_eq!(addresses.connection(&limits(), ip("::ffff:10.1.2.3"), 0), Ok(None));
            assert_eq!(addresses.request(&limits(), ip("10.1.2.3"), 0), Ok(()));
        }
        assert_eq!(addresses.known(), 0);
        let off = Addresses::new();
        for _ in 0..100 {
            assert_eq!(off.connection(&PerAddress::OFF, ip("192.0.2.1"), 0), Ok(None));
            assert_eq!(
                (
                    off.request(&PerAddress::OFF, ip("192.0.2.1"), 0),
                    off.new_key(&PerAddress::OFF, ip("192.0.2.1"), 0)
                ),
                (Ok(()), Ok(()))
            );
        }
        assert_eq!(off.known(), 0);
    }

    #[test]
    fn an_ipv6_client_is_its_64_bits() {
        let addresses = Addresses::new();
        for host in ["2001:db8::1", "2001:db8::ffff:2"] {
            assert_eq!(addresses.new_key(&limits(), ip(host), 0), Ok(()));
        }
        assert!(addresses.new_key(&limits(), ip("2001:db8::3"), 0).is_err());
        assert_eq!(addresses.new_key(&limits(), ip("2001:db8:0:1::3"), 0), Ok(()));
        // Mapped is the same as plain.
        assert_eq!(Source::of(ip("::ffff:192.0.2.1")), Source::of(ip("192.0.2.1")));
        assert_ne!(Source::of(ip("::192.0.2.1")), Source::of(ip("192.0.2.1")));
    }

    #[test]
    fn beyond_the_bound_strangers_share_and_known_ones_do_not() {
        let addresses = Addresses::new();
        let known = ip("192.0.2.1");
        assert_eq!(addresses.new_key(&limits(), known, 0), Ok(()));
        let network = |number: u128| IpAddr::V6(Ipv6Addr::from_bits((0x2001_0db8 << 96) + (number << 64)));
        let (mut taken, mut last) = (0, 0);
        for number in 0..(2 * PARTS * OF_PART_MAX) as u128 {
            taken += usize::from(addresses.new_key(&limits(), network(number), 0).is_ok());
            last = number;
        }
        let most = PARTS * OF_PART_MAX;
        assert_eq!(addresses.known(), most);
        // Each part's crowd has a burst of its own.
        assert!((most - 1..=most + 2 * PARTS).contains(&taken), "{taken}");
        assert!(addresses.new_key(&limits(), network(last), 0).is_err());
        assert_eq!(addresses.new_key(&limits(), known, 0), Ok(()));
        assert!(
            addresses.connection(&limits(), network(last), 0).unwrap().is_none(),
            "not counted, so not limited"
        );
        addresses.sweep(&limits(), 10_000);
        assert_eq!((addresses.known(), addresses.new_key(&limits(), network(last), 10_000)), (0, Ok(())));
    }

    #[test]
    fn a_reading_from_before_gives_nothing() {
        let addresses = Addresses::new();
        let client = ip("192.0.2.1");
        assert_eq!(addresses.new_key(&limits(), client, 1_000), Ok(()));
        assert_eq!(addresses.new_key(&limits(), client, 900), Ok(()));
        assert_eq!(addresses.new_key(&limits(), client, 1_000), Err(500));
    }
}
