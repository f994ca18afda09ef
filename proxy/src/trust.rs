//! Who a client is, behind proxies that are believed, and what shards are told of it. Pure.
//!
//! `X-Forwarded-For` is a list that every proxy adds its peer to at the end. So its last addresses were written by proxies that are
//! known, and the first one from the end that is not such a proxy's is the client's; what stands before it anybody may have written.

use crate::address_range::{AddressRange, contained};
use crate::worker::ForwardedProto;
use http::{HeaderMap, HeaderName, HeaderValue};
use std::net::{IpAddr, Ipv6Addr, SocketAddr, SocketAddrV6};

pub(crate) const X_FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
pub(crate) const X_FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");

/// Proxies that are believed, and what shards are told of the others' words.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Trust {
    /// Their addresses.
    pub proxies: Vec<AddressRange>,
    /// What becomes of the words of those who are not among them.
    pub forwarded_for: ForwardedFor,
}

/// What becomes of what a client sent as `X-Forwarded-For`, `X-Forwarded-Proto` or `Forwarded` (RFC 7239).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum ForwardedFor {
    /// It stays, whoever sent it, and ours is added as lines of their own, as HAProxy does (R27).
    #[default]
    Append,
    /// It goes, but for the `X-Forwarded-For` of a trusted proxy; then ours is added.
    Replace,
}

/// Whether the peer of a connection is believed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Peer {
    /// One of the trusted proxies.
    Proxy,
    /// Anybody.
    Client,
}

impl Trust {
    /// What `peer` is.
    #[must_use]
    pub fn peer(&self, peer: IpAddr) -> Peer {
        if contained(&self.proxies, peer) { Peer::Proxy } else { Peer::Client }
    }

    /// Takes out of a request what nobody should believe.
    pub(crate) fn strip(&self, headers: &mut HeaderMap, peer: Peer) {
        if self.forwarded_for == ForwardedFor::Append {
            return;
        }
        headers.remove(X_FORWARDED_PROTO);
        headers.remove(http::header::FORWARDED);
        if peer == Peer::Client {
            headers.remove(X_FORWARDED_FOR);
        }
    }
}

/// The client of a request that came from `peer`: the last address in `X-Forwarded-For` that is no trusted proxy's, if `peer` is one;
/// else `peer`. Where the list holds something else than an address, whoever stands behind it is taken for the client; when all are
/// trusted, the first of them. An address may have a port, one of IPv6 brackets; one of IPv4 is given as such.
#[must_use]
pub fn client_address(peer: IpAddr, headers: &HeaderMap, trusted: &[AddressRange]) -> IpAddr {
    let mut client = peer.to_canonical();
    if !contained(trusted, client) {
        return client;
    }
    let lines = headers.get_all(X_FORWARDED_FOR).iter().rev().map(HeaderValue::as_bytes);
    let elements = lines.flat_map(|line| line.rsplit(|byte| *byte == b',')).map(<[u8]>::trim_ascii);
    // Empty elements mean nothing (RFC 9110, 5.6.1.2).
    for element in elements.filter(|element| !element.is_empty()) {
        let Some(address) = address_of(element) else { break };
        client = address;
        if !contained(trusted, client) {
            break;
        }
    }
    client
}

/// `192.0.2.1`, `192.0.2.1:80`, `2001:db8::1`, `[2001:db8::1]` or `[2001:db8::1]:80`.
fn address_of(element: &[u8]) -> Option<IpAddr> {
    let text = str::from_utf8(element).ok()?;
    let bracketed = || text.strip_prefix('[')?.strip_suffix(']')?.parse::<Ipv6Addr>().ok().map(IpAddr::V6);
    // `[fe80::1%1]:80` would be a socket's address; a scope means nothing to anybody else.
    let with_port = || text.parse().ok().filter(is_global).map(|address: SocketAddr| address.ip());
    let address = text.parse().ok().or_else(bracketed).or_else(with_port)?;
    Some(address.to_canonical())
}

fn is_global(address: &SocketAddr) -> bool {
    match address {
        SocketAddr::V4(_) => true,
        SocketAddr::V6(v6) => SocketAddrV6::scope_id(v6) == 0,
    }
}

/// The scheme that a trusted proxy's client used: what its only `X-Forwarded-Proto` says. `None` for anybody else's word, and for
/// any other word.
#[must_use]
pub fn forwarded_proto(peer: Peer, headers: &HeaderMap) -> Option<ForwardedProto> {
    if peer == Peer::Client {
        return None;
    }
    let mut lines = headers.get_all(X_FORWARDED_PROTO).iter();
    let (Some(line), None) = (lines.next(), lines.next()) else { return None };
    let is = |word: &str| line.as_bytes().eq_ignore_ascii_case(word.as_bytes());
    if is("https") {
        Some(ForwardedProto::Https)
    } else if is("http") {
        Some(ForwardedProto::Http)
    } else {
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn lines(lines: &[&str]) -> HeaderMap {
        let value = |line: &&str| (X_FORWARDED_FOR, HeaderValue::from_bytes(line.as_bytes()).unwrap());
        lines.iter().map(value).collect()
    }

    fn trusted() -> Vec<AddressRange> {
        ["10.0.0.0/8", "2001:db8::/32"].map(|range| range.parse().unwrap()).to_vec()
    }

    #[test]
    fn the_last_address_that_is_no_proxys_is_the_clients() {
        for (peer, list, client) in [
            // Anybody may write anything.
            ("192.0.2.1", &["198.51.100.1"][..], "192.0.2.1"),
            ("::ffff:192.0.2.1", &[], "192.0.2.1"),
            ("10.0.0.1", &[], "10.0.0.1"),
            ("10.0.0.1", &["198.51.100.1"], "198.51.100.1"),
            ("::ffff:10.0.0.1", &["198.51.100.1"], "198.51.100.1"),
            ("10.0.0.1", &["1.2.3.4, 198.51.100.1"], "198.51.100.1"),
            ("10.0.0.1", &["1.2.3.4,198.51.100.1 ,\t10.9.9.9,10.0.0.2"], "198.51.100.1"),
            // Lines are one list.
            ("10.0.0.1", &["1.2.3.4", "198.51.100.1", "10.0.0.2"], "198.51.100.1"),
            ("10.0.0.1", &["1.2.3.4", "198.51.100.1, 10.0.0.2"], "198.51.100.1"),
            // All of them are trusted.
            ("10.0.0.1", &["10.0.0.3, 10.0.0.2"], "10.0.0.3"),
            ("2001:db8::1", &["2001:db9::7"], "2001:db9::7"),
            // Every form of an address.
            ("10.0.0.1", &["198.51.100.1:4711"], "198.51.100.1"),
            ("10.0.0.1", &["[2001:db9::7]:4711"], "2001:db9::7"),
            ("10.0.0.1", &["[2001:db9::7]"], "2001:db9::7"),
            ("10.0.0.1", &["::ffff:198.51.100.1"], "198.51.100.1"),
            ("10.0.0.1", &["1.2.3.4, [::ffff:10.0.0.9]:1"], "1.2.3.4"),
            // Nothing means nothing.
            ("10.0.0.1", &["198.51.100.1,, ,"], "198.51.100.1"),
            ("10.0.0.1", &["198.51.100.1", ""], "198.51.100.1"),
            // Whatever else it is ends the list.
            ("10.0.0.1", &["198.51.100.1, unknown"], "10.0.0.1"),
            ("10.0.0.1", &["198.51.100.1, unknown, 10.0.0.2"], "10.0.0.2"),
            ("10.0.0.1", &["198.51.100.1, _hidden, 203.0.113.9"], "203.0.113.9"),
            ("10.0.0.1", &["198.51.100.1 10.0.0.2"], "10.0.0.1"),
            ("10.0.0.1", &["198.51.100.01"], "10.0.0.1"),
            ("10.0.0.1", &["198.51.100.1:99999"], "10.0.0.1"),
            ("10.0.0.1", &["[198.51.100.1]"], "10.0.0.1"),
            ("10.0.0.1", &["[fe80::1%1]:80"], "10.0.0.1"),
            ("10.0.0.1", &["\"198.51.100.1\""], "10.0.0.1"),
            ("10.0.0.1", &["\u{e9}"], "10.0.0.1"),
        ] {
            let found = client_address(peer.parse().unwrap(), &lines(list), &trusted());
            assert_eq!(found, client.parse::<IpAddr>().unwrap(), "{peer} {list:?}");
        }
        let all = ["0.0.0.0/0".parse().unwrap()];
        assert_eq!(
            client_address([10, 0, 0, 1].into(), &lines(&["1.1.1.1"]), &all),
            IpAddr::from([1, 1, 1, 1])
        );
        assert_eq!(
            client_address([10, 0, 0, 1].into(), &lines(&["1.1.1.1"]), &[]),
            IpAddr::from([10, 0, 0, 1])
        );
    }

    #[test]
    fn only_a_proxys_word_of_the_scheme_counts() {
        let proto = |lines: &[&str]| {
            let value = |line: &&str| (X_FORWARDED_PROTO, HeaderValue::from_str(line).unwrap());
            lines.iter().map(value).collect::<HeaderMap>()
        };
        for (lines, scheme) in [
            (&["https"][..], Some(ForwardedProto::Https)),
            (&["HTTP"], Some(ForwardedProto::Http)),
            (&["wss"], None),
            (&["https, http"], None),
            (&["https", "https"], None),
            (&[], None),
        ] {
            assert_eq!(forwarded_proto(Peer::Proxy, &proto(lines)), scheme, "{lines:?}");
            assert_eq!(forwarded_proto(Peer::Client, &proto(lines)), None);
        }
    }

    #[test]
    fn what_is_not_believed_goes_where_that_is_wanted() {
        let sent = || {
            let mut headers = lines(&["1.2.3.4", "5.6.7.8"]);
            headers.insert(X_FORWARDED_PROTO, HeaderValue::from_static("https"));
            headers.insert(http::header::FORWARDED, HeaderValue::from_static("for=1.2.3.4"));
            headers
        };
        for (forwarded_for, peer, left) in [
            (ForwardedFor::Append, Peer::Client, 4),
            (ForwardedFor::Append, Peer::Proxy, 4),
            (ForwardedFor::Replace, Peer::Client, 0),
            (ForwardedFor::Replace, Peer::Proxy, 2),
        ] {
            let mut headers = sent();
            Trust { proxies: trusted(), forwarded_for }.strip(&mut headers, peer);
            assert_eq!(headers.len(), left, "{forwarded_for:?} {peer:?}");
        }
    }

    proptest! {
        /// Whatever a client writes before them, it does not change what trusted proxies wrote.
        #[test]
        fn nobody_is_believed_who_is_not_trusted(
            lie in proptest::collection::vec(prop_oneof![Just(b','), Just(b'.'), 0x20..0x7f_u8], 0..40),
            client: [u8; 4],
            proxies in 0..3_usize,
        ) {
            let client = IpAddr::from(client);
            prop_assume!(!contained(&trusted(), client));
            let mut headers = HeaderMap::new();
            headers.append(X_FORWARDED_FOR, HeaderValue::from_bytes(&lie).unwrap());
            headers.append(X_FORWARDED_FOR, HeaderValue::from_str(&client.to_string()).unwrap());
            for proxy in 0..proxies {
                headers.append(X_FORWARDED_FOR, HeaderValue::from_str(&format!("10.0.0.{proxy}")).unwrap());
            }
            prop_assert_eq!(client_address([10, 1, 1, 1].into(), &headers, &trusted()), client);
        }
    }
}
