//! How many frames a client may send on an HTTP/2 connection that ask for nothing (RFC 9113, 10.5): pings, settings, windows,
//! priorities, resets, empty data. hyper bounds what they make it keep; this bounds what they make it do. And two rules that hyper leaves
//! out: a client begins with SETTINGS (3.4), and a frame of a wrong length is called that (4.2).

use crate::clock::Millis;

/// The client's connection preface (RFC 9113, 3.4).
pub(super) const PREFACE_LEN: u32 = 24;
const HEADER_LEN: usize = 9;

const DATA: u8 = 0;
const HEADERS: u8 = 1;
const PRIORITY: u8 = 2;
const RST_STREAM: u8 = 3;
const SETTINGS: u8 = 4;
const PING: u8 = 6;
const GOAWAY: u8 = 7;
const WINDOW_UPDATE: u8 = 8;
const END_STREAM: u8 = 1;
const ACK: u8 = 1;

/// One frame's header.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Frame {
    kind: u8,
    flags: u8,
    len: u32,
}

impl Frame {
    /// Whether it moves a request or an answer on.
    const fn is_work(self) -> bool {
        match self.kind {
            HEADERS => true,
            DATA => self.len > 0 || self.flags & END_STREAM != 0,
            _ => false,
        }
    }

    /// Whether it is a part of a request's or an answer's body.
    pub(super) const fn is_data(self) -> bool {
        self.kind == DATA
    }

    /// Whether it is as long as frames of its kind are (RFC 9113, 6).
    const fn is_of_its_length(self) -> bool {
        match self.kind {
            PRIORITY => self.len == 5,
            RST_STREAM | WINDOW_UPDATE => self.len == 4,
            SETTINGS if self.flags & ACK != 0 => self.len == 0,
            SETTINGS => self.len.is_multiple_of(6),
            PING => self.len == 8,
            GOAWAY => self.len >= 8,
            _ => true,
        }
    }
}

/// Finds the frames in one direction of a connection, in pieces of any size (RFC 9113, 4.1).
#[derive(Debug)]
pub(super) struct Frames {
    header: [u8; HEADER_LEN],
    filled: usize,
    /// Bytes of the present frame's payload, or of the preface, that are still to come.
    left: u32,
}

impl Frames {
    /// `skip` bytes come before the first frame.
    pub(super) const fn after(skip: u32) -> Self {
        Self { header: [0; HEADER_LEN], filled: 0, left: skip }
    }

    /// Whether the last frame is complete.
    pub(super) const fn is_between(&self) -> bool {
        self.filled == 0 && self.left == 0
    }

    /// Tells `each` of the frames whose header ends in `bytes`.
    pub(super) fn scan(&mut self, mut bytes: &[u8], mut each: impl FnMut(Frame)) {
        while !bytes.is_empty() {
            let payload = bytes.len().min(self.left as usize);
            bytes = &bytes[payload..];
            self.left -= payload as u32;
            if self.left > 0 {
                return;
            }
            let piece = bytes.len().min(HEADER_LEN - self.filled);
            self.header[self.filled..self.filled + piece].copy_from_slice(&bytes[..piece]);
            self.filled += piece;
            bytes = &bytes[piece..];
            if self.filled < HEADER_LEN {
                return;
            }
            self.filled = 0;
            let [high, middle, low, kind, flags, ..] = self.header;
            self.left = u32::from_be_bytes([0, high, middle, low]);
            each(Frame { kind, flags, len: self.left });
        }
    }
}

/// Frames without work that a client may send at once.
const BURST: u32 = 5_000;
/// How many more it may send with every second.
const PER_SECOND: u64 = 500;
/// An honest client opens its windows again for what it was sent: the stream's and the connection's.
const PER_DATA_SENT: u32 = 2;
/// Data of fewer bytes is what a client asks for that opens its window byte by byte.
const DATA_WORTH_MIN: u32 = 16;

/// What a client may still send.
#[derive(Debug)]
pub(super) struct FrameBudget {
    left: u32,
    refilled: Millis,
    /// Whether the client's first frame has come.
    begun: Begun,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Begun {
    No,
    Yes,
}

/// Why a connection cannot go on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Fault {
    /// The first frame is no SETTINGS.
    Preface,
    /// A frame has a length that its kind cannot have.
    Length,
    /// The client has asked for too much that it did not want, or sent too many frames that ask for nothing.
    Flood,
}

impl Fault {
    /// What GOAWAY calls it (RFC 9113, 7).
    pub(super) const fn code(self) -> u8 {
        match self {
            Self::Preface => 0x1,
            Self::Length => 0x6,
            Self::Flood => 0xb,
        }
    }
}

impl FrameBudget {
    pub(super) const fn new(now: Millis) -> Self {
        Self { left: BURST, refilled: now, begun: Begun::No }
    }

    /// A frame has come.
    pub(super) fn received(&mut self, frame: Frame, now: Millis) -> Result<(), Fault> {
        if self.begun == Begun::No && frame.kind != SETTINGS {
            return Err(Fault::Preface);
        }
        self.begun = Begun::Yes;
        if !frame.is_of_its_length() {
            return Err(Fault::Length);
        }
        if frame.is_work() {
            return Ok(());
        }
        let earned = now.saturating_sub(self.refilled) * PER_SECOND / 1_000;
        if earned > 0 {
            self.refilled = now;
            self.earn(u32::try_from(earned).unwrap_or(BURST));
        }
        self.left = self.left.checked_sub(1).ok_or(Fault::Flood)?;
        Ok(())
    }

    /// A frame went out.
    pub(super) fn sent(&mut self, frame: Frame) {
        if frame.kind == DATA && frame.len >= DATA_WORTH_MIN {
            self.earn(PER_DATA_SENT);
        }
    }

    fn earn(&mut self, more: u32) {
        self.left = self.left.saturating_add(more).min(BURST);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn bytes(frames: &[(u8, u8, usize)]) -> Vec<u8> {
        let mut bytes = Vec::new();
        for (kind, flags, len) in frames {
            bytes.extend_from_slice(&u32::try_from(*len).unwrap().to_be_bytes()[1..]);
            bytes.extend_from_slice(&[*kind, *flags, 0, 0, 0, 1]);
            bytes.resize(bytes.len() + len, 0xaa);
        }
        bytes
    }

    proptest! {
        #[test]
        fn frames_are_found_however_they_are_cut(
            frames in prop::collection::vec((0..12_u8, any::<u8>(), 0..300_usize), 0..20),
            cuts in prop::collection::vec(1..40_usize, 1..20),
        ) {
            let mut stream = vec![b'p'; PREFACE_LEN as usize];
            stream.extend(bytes(&frames));
            let mut scanner = Frames::after(PREFACE_LEN);
            let mut found = Vec::new();
            let mut rest = &stream[..];
            for cut in cuts.iter().cycle() {
                let (piece, after) = rest.split_at(rest.len().min(*cut));
                scanner.scan(piece, |frame| found.push((frame.kind, frame.flags, frame.len as usize)));
                rest = after;
                if rest.is_empty() { break; }
            }
            prop_assert_eq!(found, frames);
            prop_assert!(scanner.is_between());
        }
    }

    #[test]
    fn a_flood_ends_and_work_does_not() {
        let mut budget = FrameBudget::new(0);
        let settings = Frame { kind: SETTINGS, flags: 0, len: 12 };
        let ping = Frame { kind: PING, flags: 0, len: 8 };
        let data = Frame { kind: DATA, flags: 0, len: 100 };
        budget.received(settings, 0).unwrap();
        for _ in 1..BURST {
            budget.received(ping, 0).unwrap();
        }
        assert_eq!(budget.received(ping, 0), Err(Fault::Flood));
        for _ in 0..100_000 {
            budget.received(data, 0).unwrap();
            budget.received(Frame { kind: HEADERS, flags: 0, len: 20 }, 0).unwrap();
        }
        assert_eq!(budget.received(Frame { len: 0, ..data }, 0), Err(Fault::Flood));
        budget.received(Frame { len: 0, flags: END_STREAM, ..data }, 0).unwrap();
        // Half a second later there are 250 more; windows for what was sent come on top.
        for _ in 0..250 {
            budget.received(ping, 500).unwrap();
        }
        budget.sent(data);
        budget.sent(Frame { len: 1, ..data });
        let window = Frame { kind: WINDOW_UPDATE, flags: 0, len: 4 };
        assert_eq!([(); 3].map(|()| budget.received(window, 500)), [Ok(()), Ok(()), Err(Fault::Flood)]);
    }

    #[test]
    fn a_client_begins_with_settings() {
        let headers = Frame { kind: HEADERS, flags: 0, len: 20 };
        assert_eq!(FrameBudget::new(0).received(headers, 0), Err(Fault::Preface));
        let mut budget = FrameBudget::new(0);
        budget.received(Frame { kind: SETTINGS, flags: 0, len: 0 }, 0).unwrap();
        budget.received(headers, 0).unwrap();
    }

    #[test]
    fn frames_have_the_length_of_their_kind() {
        let valid = |kind, flags, len| Frame { kind, flags, len }.is_of_its_length();
        for (kind, flags, right, wrong) in [
            (PRIORITY, 0, 5, 4),
            (RST_STREAM, 0, 4, 3),
            (SETTINGS, 0, 12, 5),
            (SETTINGS, ACK, 0, 6),
            (PING, ACK, 8, 7),
            (GOAWAY, 0, 100, 7),
            (WINDOW_UPDATE, 0, 4, 5),
        ] {
            assert!(valid(kind, flags, right) && !valid(kind, flags, wrong), "{kind}");
        }
        assert!(valid(DATA, 0, 0) && valid(0xee, 0, 1));
    }
}
