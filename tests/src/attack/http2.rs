//! HTTP/2 frames by hand (RFC 9113, 4.1), and as much of HPACK (RFC 7541) as writes literals and reads a status.

use std::io;

use tokio::io::{AsyncRead, AsyncReadExt};

pub(super) const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

pub(super) const DATA: u8 = 0;
pub(super) const HEADERS: u8 = 1;
pub(super) const PRIORITY: u8 = 2;
pub(super) const RST_STREAM: u8 = 3;
pub(super) const SETTINGS: u8 = 4;
pub(super) const PING: u8 = 6;
pub(super) const GOAWAY: u8 = 7;
pub(super) const WINDOW_UPDATE: u8 = 8;
pub(super) const CONTINUATION: u8 = 9;

/// Of SETTINGS and PING.
pub(super) const ACK: u8 = 1;
pub(super) const END_STREAM: u8 = 1;
pub(super) const END_HEADERS: u8 = 4;

pub(super) const CANCEL: u32 = 8;
pub(super) const ENHANCE_YOUR_CALM: u32 = 11;
pub(super) const INITIAL_WINDOW_SIZE: u16 = 4;
/// Streams of clients are odd and 31 bits wide.
pub(super) const LAST_STREAM: u32 = 0x7fff_fff0;

/// Appends a frame; the payload must be shorter than 16 KiB.
pub(super) fn push(out: &mut Vec<u8>, kind: u8, flags: u8, stream: u32, payload: &[u8]) {
    let [_, high, middle, low] = (payload.len() as u32).to_be_bytes();
    out.extend_from_slice(&[high, middle, low, kind, flags]);
    out.extend_from_slice(&stream.to_be_bytes());
    out.extend_from_slice(payload);
}

/// What a client says first: the preface and these settings.
pub(super) fn hello(settings: &[(u16, u32)]) -> Vec<u8> {
    let mut out = PREFACE.to_vec();
    push(&mut out, SETTINGS, 0, 0, &settings_payload(settings));
    out
}

pub(super) fn settings_payload(settings: &[(u16, u32)]) -> Vec<u8> {
    settings.iter().flat_map(|(id, value)| id.to_be_bytes().into_iter().chain(value.to_be_bytes())).collect()
}

/// The header block of a GET.
pub(super) fn get(path: &str) -> Vec<u8> {
    request(0x82, path)
}

/// The header block of a POST.
pub(super) fn post(path: &str) -> Vec<u8> {
    request(0x83, path)
}

/// The header block of RFC 8441's CONNECT for a WebSocket.
pub(super) fn websocket(path: &str) -> Vec<u8> {
    let mut block = Vec::new();
    // :method, without indexing.
    block.push(0x02);
    text(&mut block, "CONNECT");
    new_name(&mut block, ":protocol", "websocket");
    block.push(0x87);
    target(&mut block, path);
    new_name(&mut block, "sec-websocket-version", "13");
    new_name(&mut block, "sec-websocket-protocol", "xmpp");
    block
}

fn request(method: u8, path: &str) -> Vec<u8> {
    // The static table's method, and `:scheme: https`.
    let mut block = vec![method, 0x87];
    target(&mut block, path);
    block
}

fn target(block: &mut Vec<u8>, path: &str) {
    block.push(0x04);
    text(block, path);
    block.push(0x01);
    text(block, super::dial::SERVER_NAME);
}

/// A field that is not indexed, neither its name.
pub(super) fn new_name(block: &mut Vec<u8>, name: &str, value: &str) {
    block.push(0x00);
    text(block, name);
    text(block, value);
}

/// A field that enters the dynamic table, where it is the newest: 0xbe.
pub(super) fn remembered(block: &mut Vec<u8>, name: &str, value: &str) {
    block.push(0x40);
    text(block, name);
    text(block, value);
}

/// A string without Huffman's code (RFC 7541, 5.2).
fn text(block: &mut Vec<u8>, text: &str) {
    match text.len() {
        short @ 0..127 => block.push(short as u8),
        long => {
            block.push(0x7f);
            let mut rest = long - 127;
            while rest >= 128 {
                block.push(0x80 | (rest % 128) as u8);
                rest /= 128;
            }
            block.push(rest as u8);
        }
    }
    block.extend_from_slice(text.as_bytes());
}

/// The status that a header block of an answer begins with. A node that writes it in another way than all known ones do has none.
pub(super) fn status(block: &[u8]) -> Option<u16> {
    // Changes of the dynamic table's size come first (RFC 7541, 6.3).
    let updates = block.iter().position(|byte| byte & 0xe0 != 0x20)?;
    match block.get(updates..)? {
        [0x88, ..] => Some(200),
        [0x8c, ..] => Some(400),
        [0x8d, ..] => Some(404),
        [0x8e, ..] => Some(500),
        // `:status` with a literal value: three digits, or Huffman's code for them.
        [0x08 | 0x18 | 0x48, 3, digits @ ..] => std::str::from_utf8(digits.get(..3)?).ok()?.parse().ok(),
        [0x08 | 0x18 | 0x48, length @ 0x82..=0x83, code @ ..] => {
            digits_of(code.get(..usize::from(length & 0x7f))?)
        }
        _ => None,
    }
}

/// Three digits in Huffman's code: 0, 1, 2 have five bits (their value), the others six (22 more).
fn digits_of(code: &[u8]) -> Option<u16> {
    let mut bits = code.iter().flat_map(|byte| (0..8).rev().map(move |bit| u16::from(byte >> bit & 1)));
    let mut number = 0;
    for _ in 0..3 {
        let mut value = 0;
        for _ in 0..5 {
            value = value * 2 + bits.next()?;
        }
        let digit = if value < 3 { value } else { (value * 2 + bits.next()?).checked_sub(22)? };
        number = number * 10 + digit;
    }
    Some(number)
}

/// A frame that came.
#[derive(Debug)]
pub(super) struct Frame {
    pub(super) kind: u8,
    pub(super) flags: u8,
    pub(super) stream: u32,
    pub(super) payload: Vec<u8>,
}

impl Frame {
    /// The error that a GOAWAY or RST_STREAM tells.
    pub(super) fn error(&self) -> Option<u32> {
        let at = match self.kind {
            GOAWAY => 4,
            RST_STREAM => 0,
            _ => return None,
        };
        let code = self.payload.get(at..at + 4)?;
        Some(code.iter().fold(0, |code, byte| code << 8 | u32::from(*byte)))
    }
}

/// Reads one frame.
///
/// # Errors
/// The connection ended or broke.
pub(super) async fn read(stream: &mut (impl AsyncRead + Unpin)) -> io::Result<Frame> {
    let mut header = [0; 9];
    stream.read_exact(&mut header).await?;
    let [high, middle, low, kind, flags, s0, s1, s2, s3] = header;
    let mut payload = vec![0; u32::from_be_bytes([0, high, middle, low]) as usize];
    stream.read_exact(&mut payload).await?;
    Ok(Frame { kind, flags, stream: u32::from_be_bytes([s0, s1, s2, s3]) & 0x7fff_ffff, payload })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn statuses_are_read_however_they_are_written() {
        assert_eq!(status(&[0x20, 0x88, 0x00]), Some(200));
        assert_eq!(status(b"\x48\x03431"), Some(431));
        // RFC 7541, C.6.1: 302 in Huffman's code; 429 by the table of its appendix B.
        assert_eq!(status(&[0x48, 0x82, 0x64, 0x02]), Some(302));
        assert_eq!(status(&[0x48, 0x83, 0b0110_1000, 0b0100_1111, 0b1111_1111]), Some(429));
        assert_eq!(status(&[]), None);
    }

    #[test]
    fn a_frame_and_a_long_string_have_their_lengths() {
        let mut out = Vec::new();
        push(&mut out, PING, ACK, 0, &[1; 8]);
        assert_eq!(out[..9], [0, 0, 8, 6, 1, 0, 0, 0, 0]);
        let mut block = Vec::new();
        // RFC 7541, C.1.2, with a prefix of seven bits: 127 + 1210.
        text(&mut block, &"a".repeat(1337));
        assert_eq!(block[..3], [0x7f, 0xba, 0x09]);
        assert_eq!(block.len(), 1340);
    }
}
