use super::*;
use proptest::prelude::*;

fn address(text: &str) -> SocketAddr {
    text.parse().unwrap()
}

fn said(bytes: &[u8]) -> Result<Option<(String, String)>, HeaderError> {
    match decode(bytes)? {
        Decoded::Header(header) => {
            assert_eq!(header.len, bytes.len());
            let words = |all: Addresses| (all.source.to_string(), all.destination.to_string());
            Ok(header.addresses.map(words))
        }
        Decoded::More => panic!("{bytes:?} is not complete"),
    }
}

/// A header of version 2 by its last four fixed bytes' contents.
fn binary(command: u8, family: u8, rest: &[u8]) -> Vec<u8> {
    let len = u16::try_from(rest.len()).unwrap().to_be_bytes();
    [&v2::SIGNATURE[..], &[command, family], &len, rest].concat()
}

/// Addresses of TCP over IPv4, then these TLVs.
fn with_tlvs(tlvs: &[u8]) -> Vec<u8> {
    binary(0x21, 0x11, &[&[192, 0, 2, 1, 192, 0, 2, 2, 0, 80, 1, 187][..], tlvs].concat())
}

#[test]
fn good_lines_of_version_1() {
    for (line, expected) in [
        ("PROXY TCP4 192.0.2.1 192.0.2.2 40000 443\r\n", Some(("192.0.2.1:40000", "192.0.2.2:443"))),
        ("PROXY TCP4 255.255.255.255 255.255.255.255 65535 65535\r\n", {
            Some(("255.255.255.255:65535", "255.255.255.255:65535"))
        }),
        ("PROXY TCP6 2001:db8::1 ::1 0 65535\r\n", Some(("[2001:db8::1]:0", "[::1]:65535"))),
        ("PROXY TCP6 ::ffff:192.0.2.1 ::ffff:192.0.2.2 1 2\r\n", Some(("192.0.2.1:1", "192.0.2.2:2"))),
        ("PROXY UNKNOWN\r\n", None),
        ("PROXY UNKNOWN ffff:f...f:ffff ffff:f...f:ffff 65535 65535\r\n", None),
        ("PROXY UNKNOWN \x00\u{e9}  x\r\n", None),
    ] {
        let expected = expected.map(|(source, destination)| (source.to_owned(), destination.to_owned()));
        assert_eq!(said(line.as_bytes()), Ok(expected), "{line:?}");
    }
    let longest = format!("PROXY UNKNOWN {}\r\n", "x".repeat(v1::BYTES_MAX - 16));
    assert_eq!((longest.len(), said(longest.as_bytes())), (107, Ok(None)));
}

#[test]
fn bad_lines_of_version_1() {
    use HeaderError as E;
    for (line, expected) in [
        ("GET / HTTP/1.1\r\n", E::NoHeader),
        ("PROXX", E::NoHeader),
        (" PROXY TCP4", E::NoHeader),
        ("PROXY\r\n", E::NoHeader),
        ("proxy TCP4 192.0.2.1 192.0.2.2 1 2\r\n", E::NoHeader),
        ("PROXY \r\n", E::Protocol),
        ("PROXY TCP5 192.0.2.1 192.0.2.2 1 2\r\n", E::Protocol),
        ("PROXY tcp4 192.0.2.1 192.0.2.2 1 2\r\n", E::Protocol),
        ("PROXY UNKNOWNX\r\n", E::Protocol),
        ("PROXY  TCP4 192.0.2.1 192.0.2.2 1 2\r\n", E::Protocol),
        ("PROXY TCP4 192.0.2.1 192.0.2.2 1 2\n", E::LineEnd),
        ("PROXY TCP4 192.0.2.1 192.0.2.2 1 2\r\r\n", E::LineEnd),
        ("PROXY TCP4 192.0.2.1\r192.0.2.2 1 2\r\n", E::LineEnd),
        ("PROXY TCP4\r\n", E::Form),
        ("PROXY TCP4 192.0.2.1 192.0.2.2 1\r\n", E::Form),
        ("PROXY TCP4 192.0.2.1 192.0.2.2 1 2 \r\n", E::Form),
        ("PROXY TCP4 192.0.2.1 192.0.2.2 1 2 3\r\n", E::Form),
        ("PROXY TCP4  192.0.2.1 192.0.2.2 1\r\n", E::Address),
        ("PROXY TCP4 192.0.2.256 192.0.2.2 1 2\r\n", E::Address),
        ("PROXY TCP4 192.0.2.01 192.0.2.2 1 2\r\n", E::Address),
        ("PROXY TCP4 ::1 ::1 1 2\r\n", E::Address),
        ("PROXY TCP6 192.0.2.1 192.0.2.2 1 2\r\n", E::Address),
        ("PROXY TCP6 fe80::1%eth0 ::1 1 2\r\n", E::Address),
        ("PROXY TCP4 192.0.2.1 192.0.2.2 65536 2\r\n", E::Port),
        ("PROXY TCP4 192.0.2.1 192.0.2.2 01 2\r\n", E::Port),
        ("PROXY TCP4 192.0.2.1 192.0.2.2 +1 2\r\n", E::Port),
        ("PROXY TCP4 192.0.2.1 192.0.2.2 1 \r\n", E::Port),
    ] {
        assert_eq!(decode(line.as_bytes()), Err(expected), "{line:?}");
    }
    let long = format!("PROXY UNKNOWN {}", "x".repeat(v1::BYTES_MAX - 14));
    assert_eq!(decode(long.as_bytes()), Err(E::LineTooLong));
    assert_eq!(decode(&long.as_bytes()[..106]), Ok(Decoded::More));
}

#[test]
fn good_headers_of_version_2() {
    let tcp6 = [[0x20, 1, 0xd, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1]; 2].concat();
    let tcp6 = [&tcp6[..], &[0, 80, 1, 187]].concat();
    let v6 = Some(("[2001:db8::1]:80".to_owned(), "[2001:db8::1]:443".to_owned()));
    let v4 = Some(("192.0.2.1:80".to_owned(), "192.0.2.2:443".to_owned()));
    for (bytes, expected) in [
        (with_tlvs(&[]), v4.clone()),
        // ALPN, an empty NOOP, and one that nobody knows.
        (with_tlvs(&[1, 0, 2, b'h', b'2', 4, 0, 0, 0xe0, 0, 1, 9]), v4.clone()),
        (binary(0x21, 0x21, &tcp6), v6),
        (binary(0x20, 0x00, &[]), None),
        // LOCAL says nothing, whatever stands there.
        (binary(0x20, 0x11, &[]), None),
        (binary(0x20, 0xff, &[1, 2, 3]), None),
        (binary(0x21, 0x00, &[3, 0, 4, 1, 2, 3, 4]), None),
        // UDP, and unix sockets.
        (binary(0x21, 0x12, &[0; 12]), None),
        (binary(0x21, 0x31, &[0; 216]), None),
        (binary(0x20, 0x00, &[0; v2::REST_MAX]), None),
    ] {
        assert_eq!(said(&bytes), Ok(expected), "{bytes:?}");
    }
}

#[test]
fn bad_headers_of_version_2() {
    use HeaderError as E;
    for (bytes, expected) in [
        (b"\r\n\r\n\0\r\nQUIX".to_vec(), E::NoHeader),
        (b"\r\n\r\nGET".to_vec(), E::NoHeader),
        (binary(0x11, 0x11, &[0; 12]), E::Version(1)),
        (binary(0x22, 0x11, &[0; 12]), E::Command(2)),
        (binary(0x21, 0x41, &[0; 12]), E::Family(0x41)),
        (binary(0x21, 0x13, &[0; 12]), E::Family(0x13)),
        (binary(0x21, 0x11, &[0; 11]), E::TooShort(11)),
        (binary(0x21, 0x21, &[0; 35]), E::TooShort(35)),
        (binary(0x20, 0x00, &[0; v2::REST_MAX + 1]), E::TooLong(4097)),
        (with_tlvs(&[1]), E::Tlv),
        (with_tlvs(&[1, 0]), E::Tlv),
        (with_tlvs(&[1, 0, 2, 0]), E::Tlv),
        (with_tlvs(&[4, 0, 0, 1, 0xff, 0xff]), E::Tlv),
        (with_tlvs(&[3, 0, 4, 0, 0, 0, 0]), E::Checksum),
        (with_tlvs(&[3, 0, 3, 0, 0, 0]), E::Checksum),
    ] {
        assert_eq!(decode(&bytes), Err(expected), "{bytes:?}");
    }
}

#[test]
fn a_checksum_is_looked_at() {
    let mut bytes = with_tlvs(&[4, 0, 1, 7, 3, 0, 4, 0, 0, 0, 0]);
    let sum = crc32c::crc32c(bytes.iter().copied()).to_be_bytes();
    let at = bytes.len() - 4;
    bytes[at..].copy_from_slice(&sum);
    assert!(said(&bytes).is_ok());
    // But for the byte that says that it is one.
    for index in (16..bytes.len()).filter(|index| *index != 32) {
        let mut other = bytes.clone();
        other[index] ^= 1;
        assert!(decode(&other).is_err(), "{index}");
    }
}

#[test]
fn what_is_sent_is_read_back() {
    assert_eq!(said(&encode(None)), Ok(None));
    let mixed = Addresses { source: address("192.0.2.1:1"), destination: address("[::1]:2") };
    let bytes = encode(Some(&mixed));
    assert_eq!((bytes.len(), bytes[13]), (52, 0x21));
    assert_eq!(said(&bytes), Ok(Some(("192.0.2.1:1".to_owned(), "[::1]:2".to_owned()))));
}

fn any_address() -> impl Strategy<Value = SocketAddr> {
    let ip = prop_oneof![any::<[u8; 4]>().prop_map(v4), any::<[u8; 16]>().prop_map(v6)];
    (ip, any::<u16>()).prop_map(|(ip, port)| canonical(ip, port))
}

fn text_of(Addresses { source, destination }: &Addresses) -> Option<String> {
    let protocol = match (source, destination) {
        (SocketAddr::V4(_), SocketAddr::V4(_)) => "TCP4",
        (SocketAddr::V6(_), SocketAddr::V6(_)) => "TCP6",
        _ => return None,
    };
    let (from, to) = (source.ip(), destination.ip());
    Some(format!("PROXY {protocol} {from} {to} {} {}\r\n", source.port(), destination.port()))
}

proptest! {
    #[test]
    fn any_addresses_are_read_back_however_they_are_cut(
        source in any_address(),
        destination in any_address(),
        behind in proptest::collection::vec(any::<u8>(), 0..40),
    ) {
        let addresses = Addresses { source, destination };
        let text = text_of(&addresses).map(String::into_bytes);
        for header in [Some(encode(Some(&addresses))), text].into_iter().flatten() {
            for len in 0..header.len() {
                prop_assert_eq!(decode(&header[..len]), Ok(Decoded::More));
            }
            let expected = Decoded::Header(Header { len: header.len(), addresses: Some(addresses) });
            let all = [&header[..], &behind[..]].concat();
            prop_assert_eq!(decode(&all), Ok(expected));
        }
    }

    #[test]
    fn any_bytes_are_judged_alike_however_they_are_cut(
        begin in prop_oneof![Just(&b"PROXY "[..]), Just(&b"PROXY TCP4 "[..]), Just(&v2::SIGNATURE[..])],
        rest in proptest::collection::vec(prop_oneof![any::<u8>(), Just(b' '), Just(0x21), Just(0)], 0..60),
    ) {
        let bytes = [begin, &rest].concat();
        let whole = decode(&bytes);
        for len in 0..bytes.len() {
            let part = decode(&bytes[..len]);
            prop_assert!(part == Ok(Decoded::More) || part == whole, "{:?} after {len}, then {:?}", part, whole);
        }
    }
}
