//! One field line of a head or a trailer section: which ones the guard knows, and what their values mean.

use super::Violation;
use super::octets::is_host;

/// Fields whose values frame or address a message, or ask for something.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Field {
    ContentLength,
    TransferEncoding,
    Host,
    Expect,
    Upgrade,
    Other,
}

/// The longest name of a known field: Transfer-Encoding.
const NAME_LEN_MAX: usize = 17;
/// The longest value of a known field that is looked at as a whole; more than any valid one has.
const VALUE_LEN_MAX: usize = 24;
/// So that a length fits everywhere: 9 exabytes.
const LENGTH_MAX: u64 = i64::MAX as u64;
/// Transfer codings that exist (RFC 9112, 7; `identity` until RFC 7230), but are not decoded here.
const CODINGS: [&[u8]; 6] = [b"gzip", b"deflate", b"compress", b"x-gzip", b"x-compress", b"identity"];

impl Field {
    pub(super) fn of(name: &[u8]) -> Self {
        // The length decides for nearly all names.
        match name.len() {
            4 if name.eq_ignore_ascii_case(b"host") => Self::Host,
            6 if name.eq_ignore_ascii_case(b"expect") => Self::Expect,
            7 if name.eq_ignore_ascii_case(b"upgrade") => Self::Upgrade,
            14 if name.eq_ignore_ascii_case(b"content-length") => Self::ContentLength,
            17 if name.eq_ignore_ascii_case(b"transfer-encoding") => Self::TransferEncoding,
            _ => Self::Other,
        }
    }
}

/// Bytes of a name or value that may come in pieces; what is longer than `MAX` is only known to be so.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Piecewise<const MAX: usize> {
    bytes: [u8; MAX],
    len: u8,
    overlong: bool,
}

/// The name of a field that came in pieces.
pub(super) type Name = Piecewise<NAME_LEN_MAX>;
/// The value of a known field.
pub(super) type Value = Piecewise<VALUE_LEN_MAX>;

impl<const MAX: usize> Piecewise<MAX> {
    pub(super) const EMPTY: Self = Self { bytes: [0; MAX], len: 0, overlong: false };

    pub(super) fn clear(&mut self) {
        self.len = 0;
        self.overlong = false;
    }

    pub(super) fn push(&mut self, piece: &[u8]) {
        let len = usize::from(self.len);
        match self.bytes.get_mut(len..len + piece.len()) {
            Some(free) => {
                free.copy_from_slice(piece);
                // MAX is far below 256.
                self.len += piece.len() as u8;
            }
            None => self.overlong = true,
        }
    }

    /// `None` when it is longer than `MAX`.
    pub(super) fn get(&self) -> Option<&[u8]> {
        if self.overlong { None } else { self.bytes.get(..usize::from(self.len)) }
    }
}

/// What the value of Host looks like so far.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum HostText {
    Valid,
    /// With white space behind it: nothing more may come.
    Ended,
    Invalid,
}

impl HostText {
    /// With the next piece of the value.
    pub(super) fn and_then(self, piece: &[u8]) -> Self {
        let text = piece.trim_ascii_end();
        match self {
            Self::Valid if !is_host(text) => Self::Invalid,
            Self::Valid if text.len() < piece.len() => Self::Ended,
            Self::Ended if !text.is_empty() => Self::Invalid,
            Self::Valid | Self::Ended | Self::Invalid => self,
        }
    }
}

/// `1*DIGIT` (RFC 9110, 8.6): neither a sign nor a list.
pub(super) fn length_of(value: &Value) -> Result<u64, Violation> {
    let digits = value.get().map(<[u8]>::trim_ascii_end).filter(|digits| !digits.is_empty());
    let length = digits.and_then(|digits| {
        digits.iter().try_fold(0u64, |length, byte| {
            let digit = byte.is_ascii_digit().then(|| u64::from(byte - b'0'))?;
            length.checked_mul(10)?.checked_add(digit).filter(|length| *length <= LENGTH_MAX)
        })
    });
    length.ok_or(Violation::Length)
}

/// Nothing but `chunked` (RFC 9112, 6.1).
pub(super) fn check_coding(value: &Value) -> Result<(), Violation> {
    let value = value.get().ok_or(Violation::Coding)?.trim_ascii_end();
    if value.eq_ignore_ascii_case(b"chunked") {
        return Ok(());
    }
    let mut codings = value.split(|byte| *byte == b',').map(<[u8]>::trim_ascii);
    let last = codings.next_back();
    let is_known = |coding: &[u8]| CODINGS.iter().any(|known| coding.eq_ignore_ascii_case(known));
    let ends_well = last.is_some_and(|last| last.eq_ignore_ascii_case(b"chunked"));
    Err(if ends_well && codings.all(is_known) { Violation::CodingUnsupported } else { Violation::Coding })
}

/// The only expectation there is (RFC 9110, 10.1.1).
pub(super) fn check_expectation(value: &Value) -> Result<(), Violation> {
    let met = value.get().is_some_and(|value| value.trim_ascii_end().eq_ignore_ascii_case(b"100-continue"));
    if met { Ok(()) } else { Err(Violation::Expectation) }
}
