//! OCSP responses to staple (RFC 6960): which certificate they are about, and until when. Whether they are signed well is for clients to say.

use super::error::TlsError;
use super::files::Content;
use x509_parser::asn1_rs::{Any, Class};
use x509_parser::prelude::FromDer as _;
use x509_parser::time::ASN1Time;

/// A response about one certificate.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Staple {
    pub(super) der: Vec<u8>,
    /// Serial numbers that it knows of, as big-endian bytes without leading zeros.
    serials: Vec<Vec<u8>>,
    /// When it ends (Unix time, seconds); `None` when newer information is available all the time.
    pub(super) next_update: Option<i64>,
}

impl Staple {
    /// Reads a file; an empty one is HAProxy's for "none yet".
    pub(super) fn read(file: &Content) -> Result<Option<Self>, TlsError> {
        match file.get()? {
            [] => Ok(None),
            der => match parse(der) {
                Some(staple) => Ok(Some(staple)),
                None => Err(TlsError::Ocsp { path: file.path.clone() }),
            },
        }
    }

    /// Whether it is about the certificate with this serial number.
    pub(super) fn is_about(&self, serial: &[u8]) -> bool {
        self.serials.iter().any(|known| known == without_zeros(serial))
    }
}

fn without_zeros(number: &[u8]) -> &[u8] {
    let zeros = number.iter().take_while(|byte| **byte == 0).count();
    &number[zeros..]
}

/// The elements of a sequence's content, one after the other.
struct Elements<'a>(&'a [u8]);

impl<'a> Elements<'a> {
    fn next(&mut self) -> Option<Element<'a>> {
        let (rest, any) = Any::from_der(self.0).ok()?;
        let whole = &self.0[..self.0.len() - rest.len()];
        self.0 = rest;
        Some(Element { class: any.class(), tag: any.tag().0, data: any.data, whole })
    }

    /// The next one, which has to be of that kind.
    fn expect(&mut self, tag: u32) -> Option<&'a [u8]> {
        self.next().filter(|element| element.is(tag)).map(|element| element.data)
    }
}

struct Element<'a> {
    class: Class,
    tag: u32,
    data: &'a [u8],
    whole: &'a [u8],
}

impl Element<'_> {
    fn is(&self, tag: u32) -> bool {
        self.class == Class::Universal && self.tag == tag
    }

    fn is_context(&self, tag: u32) -> bool {
        self.class == Class::ContextSpecific && self.tag == tag
    }
}

const INTEGER: u32 = 2;
const OCTET_STRING: u32 = 4;
const OID: u32 = 6;
const ENUMERATED: u32 = 10;
const SEQUENCE: u32 = 16;

/// One whole `OCSPResponse` with `responseStatus` successful, and a `BasicOCSPResponse` in it (RFC 6960 section 4.2.1).
fn parse(der: &[u8]) -> Option<Staple> {
    let mut outer = Elements(der);
    let mut response = Elements(outer.expect(SEQUENCE)?);
    if !outer.0.is_empty() || response.expect(ENUMERATED)? != [0] {
        return None;
    }
    let bytes = response.next().filter(|element| element.is_context(0))?;
    let mut bytes = Elements(Elements(bytes.data).expect(SEQUENCE)?);
    bytes.expect(OID)?;
    let mut basic = Elements(Elements(bytes.expect(OCTET_STRING)?).expect(SEQUENCE)?);
    let mut data = Elements(basic.expect(SEQUENCE)?);
    let mut responder = data.next()?;
    if responder.is_context(0) {
        // The version.
        responder = data.next()?;
    }
    if responder.class != Class::ContextSpecific {
        return None;
    }
    // producedAt
    data.next()?;
    let mut singles = Elements(data.expect(SEQUENCE)?);
    let (mut serials, mut next_update) = (Vec::new(), None);
    while !singles.0.is_empty() {
        let mut single = Elements(singles.expect(SEQUENCE)?);
        let mut about = Elements(single.expect(SEQUENCE)?);
        about.expect(SEQUENCE)?;
        about.expect(OCTET_STRING)?;
        about.expect(OCTET_STRING)?;
        serials.push(without_zeros(about.expect(INTEGER)?).to_vec());
        // certStatus, thisUpdate
        single.next()?;
        single.next()?;
        if let Some(next) = single.next().filter(|element| element.is_context(0)) {
            let end = time(Elements(next.data).next()?.whole)?;
            next_update = Some(next_update.map_or(end, |known: i64| known.min(end)));
        }
    }
    (!serials.is_empty()).then(|| Staple { der: der.to_vec(), serials, next_update })
}

fn time(der: &[u8]) -> Option<i64> {
    Some(ASN1Time::from_der(der).ok()?.1.timestamp())
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    fn tlv(tag: u8, parts: &[&[u8]]) -> Vec<u8> {
        let content = parts.concat();
        let length = u16::try_from(content.len()).unwrap().to_be_bytes();
        match content.len() {
            0..128 => [&[tag, length[1]], &content[..]].concat(),
            128..256 => [&[tag, 0x81, length[1]], &content[..]].concat(),
            _ => [&[tag, 0x82, length[0], length[1]], &content[..]].concat(),
        }
    }

    /// A response about that certificate which nobody has signed.
    pub(in crate::tls) fn response(serial: &[u8], next_update: Option<&str>) -> Vec<u8> {
        let now = tlv(0x18, &[b"20260101000000Z"]);
        let hash = tlv(0x30, &[&tlv(0x06, &[&[0x2b, 0x0e, 0x03, 0x02, 0x1a]])]);
        let about = tlv(0x30, &[&hash, &tlv(4, &[&[1; 20]]), &tlv(4, &[&[2; 20]]), &tlv(2, &[serial])]);
        let next = next_update.map(|end| tlv(0xa0, &[&tlv(0x18, &[end.as_bytes()])])).unwrap_or_default();
        let single = tlv(0x30, &[&about, &tlv(0x80, &[]), &now, &next]);
        let responder = tlv(0xa2, &[&tlv(4, &[&[2; 20]])]);
        let data = tlv(0x30, &[&responder, &now, &tlv(0x30, &[&single])]);
        let basic = tlv(0x30, &[&data, &tlv(0x30, &[]), &tlv(3, &[&[0; 72]])]);
        let oid = tlv(6, &[&[0x2b, 6, 1, 5, 5, 7, 0x30, 1, 1]]);
        let bytes = tlv(0xa0, &[&tlv(0x30, &[&oid, &tlv(4, &[&basic])])]);
        tlv(0x30, &[&tlv(0x0a, &[&[0]]), &bytes])
    }

    #[test]
    fn a_response_says_whose_it_is_and_until_when() {
        let staple = parse(&response(&[0, 0x81, 7], Some("20300101000000Z"))).unwrap();
        assert!(staple.is_about(&[0x81, 7]) && staple.is_about(&[0, 0x81, 7]) && !staple.is_about(&[7]));
        assert_eq!(staple.next_update, Some(1_893_456_000));
        assert_eq!(parse(&response(&[7], None)).unwrap().next_update, None);
    }

    #[test]
    fn only_a_whole_successful_response_is_one() {
        let good = response(&[7], Some("20300101000000Z"));
        for end in 0..good.len() {
            assert_eq!(parse(&good[..end]), None, "{end}");
        }
        assert_eq!(parse(&[&good[..], b"x"].concat()), None);
        let at = good.windows(3).position(|window| window == [0x0a, 1, 0]).unwrap();
        let mut trying_later = good.clone();
        trying_later[at + 2] = 3;
        assert_eq!(parse(&trying_later), None);
        for bad in [&b""[..], b"0", b"\x30\x03\x0a\x01\x06", b"\x30\x85", b"-----BEGIN OCSP RESPONSE-----"] {
            assert_eq!(parse(bad), None, "{bad:?}");
        }
        // Whatever is changed, nothing panics.
        for at in 0..good.len() {
            for byte in [0, 1, 0x7f, 0x80, 0x84, 0xff] {
                let mut changed = good.clone();
                changed[at] = byte;
                drop(parse(&changed));
            }
        }
    }
}
