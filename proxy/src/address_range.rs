//! Ranges of IP addresses as configurations name them: `10.0.0.0/8`, `2001:db8::/32`, or one address by itself.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::str::FromStr;

/// All addresses that begin with the same bits (CIDR, RFC 4632 and RFC 4291, 2.3). An IPv4 address is the same whether it comes as
/// such or mapped into IPv6 (`::ffff:a.b.c.d`), as a socket at `[::]` shows it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct AddressRange {
    first: IpAddr,
    prefix: u8,
}

/// Why a text is no range of addresses.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AddressRangeError {
    /// What stands before the slash is no address.
    #[error("{0:?} is no IP address")]
    Address(String),
    /// What stands behind it is no number of bits.
    #[error("{given:?} is no number of bits from 0 to {most}")]
    Prefix {
        /// What was given.
        given: String,
        /// The bits of such an address.
        most: u8,
    },
    /// The address has bits beyond the prefix: either of the two is not what was meant.
    #[error("{given} has bits beyond its prefix, the range begins at {first}")]
    BitsBeyond {
        /// What was given.
        given: String,
        /// The range that contains it.
        first: AddressRange,
    },
}

impl AddressRange {
    /// This machine: 127.0.0.0/8 and ::1.
    pub const LOOPBACK: [Self; 2] = [
        Self { first: IpAddr::V4(Ipv4Addr::new(127, 0, 0, 0)), prefix: 8 },
        Self { first: IpAddr::V6(Ipv6Addr::LOCALHOST), prefix: 128 },
    ];

    /// Whether `address` is in the range.
    #[must_use]
    pub fn contains(&self, address: IpAddr) -> bool {
        let address = address.to_canonical();
        address.is_ipv4() == self.first.is_ipv4() && masked(address, self.prefix) == self.first
    }
}

/// Whether any of `ranges` has `address`.
#[must_use]
pub fn contained(ranges: &[AddressRange], address: IpAddr) -> bool {
    ranges.iter().any(|range| range.contains(address))
}

/// The first address of the range that `address` is in, for ranges of `prefix` bits.
pub(crate) fn masked(address: IpAddr, prefix: u8) -> IpAddr {
    match address {
        IpAddr::V4(v4) => {
            let mask = u32::MAX.checked_shl(32 - u32::from(prefix.min(32))).unwrap_or(0);
            IpAddr::V4(Ipv4Addr::from_bits(v4.to_bits() & mask))
        }
        IpAddr::V6(v6) => {
            let mask = u128::MAX.checked_shl(128 - u32::from(prefix.min(128))).unwrap_or(0);
            IpAddr::V6(Ipv6Addr::from_bits(v6.to_bits() & mask))
        }
    }
}

impl FromStr for AddressRange {
    type Err = AddressRangeError;

    fn from_str(text: &str) -> Result<Self, AddressRangeError> {
        let (address, bits) = match text.split_once('/') {
            Some((address, bits)) => (address, Some(bits)),
            None => (text, None),
        };
        let address: IpAddr = address.parse().map_err(|_| AddressRangeError::Address(address.to_owned()))?;
        let most = if address.is_ipv4() { 32 } else { 128 };
        let prefix = match bits {
            None => most,
            Some(given) => given
                .parse()
                .ok()
                // "+8" and "08" would be numbers, too.
                .filter(|prefix: &u8| *prefix <= most && prefix.to_string() == given)
                .ok_or_else(|| AddressRangeError::Prefix { given: given.to_owned(), most })?,
        };
        // A mapped range is compared with canonical addresses, so it has to be one of IPv4 as well.
        let (address, prefix) = match (address, address.to_canonical()) {
            (IpAddr::V6(_), mapped @ IpAddr::V4(_)) if prefix >= 96 => (mapped, prefix - 96),
            (address, _) => (address, prefix),
        };
        let range = Self { first: masked(address, prefix), prefix };
        if range.first != address {
            return Err(AddressRangeError::BitsBeyond { given: text.to_owned(), first: range });
        }
        Ok(range)
    }
}

impl fmt::Display for AddressRange {
    /// As [`FromStr`] reads it; a single address without its prefix.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let whole = if self.first.is_ipv4() { 32 } else { 128 };
        match self.prefix {
            prefix if prefix == whole => write!(f, "{}", self.first),
            prefix => write!(f, "{}/{prefix}", self.first),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn range(text: &str) -> AddressRange {
        text.parse().unwrap()
    }

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[test]
    fn ranges_contain_what_begins_alike() {
        for (text, inside, outside) in [
            ("10.0.0.0/8", "10.255.1.2", "11.0.0.0"),
            ("192.0.2.7", "192.0.2.7", "192.0.2.6"),
            ("192.0.2.0/31", "192.0.2.1", "192.0.2.2"),
            ("0.0.0.0/0", "255.255.255.255", "::1"),
            ("2001:db8::/32", "2001:db8:ffff::1", "2001:db9::"),
            ("::1", "::1", "::2"),
            ("::/0", "2001:db8::1", "127.0.0.1"),
            ("127.0.0.0/8", "::ffff:127.0.0.1", "::ffff:128.0.0.1"),
            ("::ffff:10.0.0.0/104", "10.1.1.1", "11.1.1.1"),
        ] {
            assert!(range(text).contains(ip(inside)), "{text} {inside}");
            assert!(!range(text).contains(ip(outside)), "{text} {outside}");
        }
        let ranges = [range("10.0.0.0/8"), range("::1")];
        assert!(contained(&ranges, ip("::1")) && !contained(&ranges, ip("192.0.2.1")));
        assert!(!contained(&[], ip("::1")));
    }

    #[test]
    fn loopback_is_what_it_says() {
        assert_eq!(AddressRange::LOOPBACK, [range("127.0.0.0/8"), range("::1")]);
    }

    #[test]
    fn what_is_no_range_is_told() {
        for (text, error) in [
            ("", r#""" is no IP address"#),
            ("meet.example", r#""meet.example" is no IP address"#),
            ("10.0.0.0/33", r#""33" is no number of bits from 0 to 32"#),
            ("10.0.0.0/", r#""" is no number of bits from 0 to 32"#),
            ("10.0.0.0/+8", r#""+8" is no number of bits from 0 to 32"#),
            ("10.0.0.0/8/8", r#""8/8" is no number of bits from 0 to 32"#),
            ("10.0.0.0/255.0.0.0", r#""255.0.0.0" is no number of bits from 0 to 32"#),
            ("2001:db8::/129", r#""129" is no number of bits from 0 to 128"#),
            ("10.0.0.1/8", "10.0.0.1/8 has bits beyond its prefix, the range begins at 10.0.0.0/8"),
            (
                "2001:db8::1/64",
                "2001:db8::1/64 has bits beyond its prefix, the range begins at 2001:db8::/64",
            ),
            ("10.0.0.0:80", r#""10.0.0.0:80" is no IP address"#),
        ] {
            let refused = text.parse::<AddressRange>().unwrap_err();
            assert_eq!(refused.to_string(), error);
        }
    }

    proptest! {
        #[test]
        fn a_range_is_read_as_it_is_written(bits: u128, prefix in 0u8..=128, v4: bool) {
            let (address, prefix) = match v4 {
                true => (IpAddr::V4(Ipv4Addr::from_bits(bits as u32)), prefix.min(32)),
                false => (IpAddr::V6(Ipv6Addr::from_bits(bits)), prefix),
            };
            let first = masked(address, prefix);
            let range: AddressRange = format!("{first}/{prefix}").parse().unwrap();
            prop_assert!(range.contains(first) && range.contains(address));
            prop_assert_eq!(range.to_string().parse(), Ok(range));
        }
    }
}
