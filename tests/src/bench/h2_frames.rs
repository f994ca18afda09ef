//! The least of RFC 9113 and RFC 7541 that a client of GET requests needs.

/// Length of a frame's head (RFC 9113, 4.1).
const HEAD: usize = 9;
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
const DATA: u8 = 0;
const HEADERS: u8 = 1;
const RST_STREAM: u8 = 3;
const SETTINGS: u8 = 4;
const PING: u8 = 6;
const GOAWAY: u8 = 7;
const WINDOW_UPDATE: u8 = 8;
const END_STREAM: u8 = 1;
const ACK: u8 = 1;
const END_HEADERS: u8 = 4;
const PADDED: u8 = 8;
const PRIORITY: u8 = 0x20;
const ENABLE_PUSH: u16 = 2;
const MAX_CONCURRENT_STREAMS: u16 = 3;
const INITIAL_WINDOW_SIZE: u16 = 4;
/// More than the body of any answer here.
const STREAM_WINDOW: u32 = 1 << 20;
/// What the connection's window is opened by, again and again.
pub(super) const CONNECTION_WINDOW: u32 = 1 << 30;

/// What begins a connection: preface, settings, a wide window.
pub(super) fn hello() -> Vec<u8> {
    let mut bytes = PREFACE.to_vec();
    head(&mut bytes, 12, SETTINGS, 0, 0);
    for (setting, value) in [(ENABLE_PUSH, 0), (INITIAL_WINDOW_SIZE, STREAM_WINDOW)] {
        bytes.extend(setting.to_be_bytes());
        bytes.extend(value.to_be_bytes());
    }
    open_window(&mut bytes);
    bytes
}

/// Lets the server send [`CONNECTION_WINDOW`] bytes more.
pub(super) fn open_window(bytes: &mut Vec<u8>) {
    head(bytes, 4, WINDOW_UPDATE, 0, 0);
    bytes.extend(CONNECTION_WINDOW.to_be_bytes());
}

/// Acknowledges settings.
pub(super) fn settings_ack(bytes: &mut Vec<u8>) {
    head(bytes, 0, SETTINGS, ACK, 0);
}

/// Answers a ping.
pub(super) fn pong(bytes: &mut Vec<u8>, opaque: [u8; 8]) {
    head(bytes, 8, PING, ACK, 0);
    bytes.extend(opaque);
}

/// Where a request stands on its connection.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Request {
    /// Its authority enters the server's dynamic table (RFC 7541, 6.2.1).
    First,
    /// Its authority is that entry.
    Later,
}

/// A GET request without a body. Paths and authorities must be shorter than 127 bytes.
pub(super) fn get(bytes: &mut Vec<u8>, stream: u32, authority: &str, path: &str, request: Request) {
    let mut block = vec![0x82, 0x87];
    match request {
        Request::First => literal(&mut block, 0x41, authority),
        Request::Later => block.push(0x80 | 62),
    }
    literal(&mut block, 0x04, path);
    head(bytes, block.len(), HEADERS, END_STREAM | END_HEADERS, stream);
    bytes.extend(block);
}

fn literal(block: &mut Vec<u8>, name: u8, value: &str) {
    let length = u8::try_from(value.len()).ok().filter(|length| *length < 127);
    block.extend([name, length.expect("a bench's paths and names are short")]);
    block.extend(value.as_bytes());
}

fn head(bytes: &mut Vec<u8>, length: usize, kind: u8, flags: u8, stream: u32) {
    let length = u32::try_from(length).expect("a bench's frames are short").to_be_bytes();
    bytes.extend(&length[1..]);
    bytes.extend([kind, flags]);
    bytes.extend(stream.to_be_bytes());
}

/// What a frame of the server means to the client.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Frame {
    /// An answer's head.
    Head { stream: u32, status_2xx: bool, ends: bool },
    /// A part of an answer's body; `flow` counts against the connection's window.
    Body { stream: u32, first: Option<u8>, flow: usize, ends: bool },
    /// The server gave a stream up.
    Reset { stream: u32 },
    /// It wants its settings acknowledged; how many streams it allows, if it says so.
    Settings { streams_max: Option<u32> },
    /// It wants this back.
    Ping([u8; 8]),
    /// It takes no more streams.
    GoAway,
    /// Nothing that asks for anything.
    Else,
}

/// Not a frame that this client can read.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Unreadable;

/// Takes the frame at the front of `bytes`, and tells how many bytes it took; none when it is not whole.
pub(super) fn take(bytes: &[u8]) -> Result<Option<(Frame, usize)>, Unreadable> {
    let Some(&[l0, l1, l2, kind, flags, s0, s1, s2, s3]) = bytes.first_chunk::<HEAD>() else {
        return Ok(None);
    };
    let length = u32::from_be_bytes([0, l0, l1, l2]) as usize;
    let stream = u32::from_be_bytes([s0 & 0x7f, s1, s2, s3]);
    let Some(payload) = bytes.get(HEAD..HEAD + length) else { return Ok(None) };
    let ends = flags & END_STREAM != 0;
    let frame = match kind {
        HEADERS if flags & (PADDED | PRIORITY) != 0 || flags & END_HEADERS == 0 => return Err(Unreadable),
        HEADERS => Frame::Head { stream, status_2xx: says_200(payload), ends },
        DATA if flags & PADDED != 0 => return Err(Unreadable),
        DATA => Frame::Body { stream, first: payload.first().copied(), flow: length, ends },
        RST_STREAM => Frame::Reset { stream },
        SETTINGS if flags & ACK == 0 => Frame::Settings { streams_max: streams_max(payload) },
        PING if flags & ACK == 0 => Frame::Ping(payload.try_into().map_err(|_| Unreadable)?),
        GOAWAY => Frame::GoAway,
        _ => Frame::Else,
    };
    Ok(Some((frame, HEAD + length)))
}

/// Status 200 is the static table's entry 8, and comes first but for changes of the table's size (RFC 7541, 6.3).
fn says_200(block: &[u8]) -> bool {
    block.iter().find(|byte| **byte & 0xe0 != 0x20) == Some(&0x88)
}

fn streams_max(payload: &[u8]) -> Option<u32> {
    let (settings, _) = payload.as_chunks::<6>();
    let of_streams = settings.iter().find(|setting| setting[..2] == MAX_CONCURRENT_STREAMS.to_be_bytes());
    of_streams.map(|&[_, _, v0, v1, v2, v3]| u32::from_be_bytes([v0, v1, v2, v3]))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_are_taken_whole() {
        let head = [0, 0, 1, HEADERS, END_HEADERS, 0, 0, 0, 3, 0x88];
        assert_eq!(take(&head[..9]), Ok(None));
        let wanted = Frame::Head { stream: 3, status_2xx: true, ends: false };
        assert_eq!(take(&head), Ok(Some((wanted, 10))));
        let body = [0, 0, 2, DATA, END_STREAM, 0, 0, 0, 3, b'7', b'7', 0];
        let wanted = Frame::Body { stream: 3, first: Some(b'7'), flow: 2, ends: true };
        assert_eq!(take(&body), Ok(Some((wanted, 11))));
        let settings = [0, 0, 6, SETTINGS, 0, 0, 0, 0, 0, 0, 3, 0, 0, 0, 100];
        assert_eq!(take(&settings), Ok(Some((Frame::Settings { streams_max: Some(100) }, 15))));
        assert_eq!(take(&[0, 0, 0, HEADERS, 0, 0, 0, 0, 1]), Err(Unreadable));
        assert!(!says_200(&[0x8d]));
        assert!(says_200(&[0x20, 0x88, 0x40]));
    }

    #[test]
    fn a_later_request_names_the_authority_by_its_index() {
        let (mut first, mut later) = (vec![], vec![]);
        get(&mut first, 1, "a.example", "/x", Request::First);
        get(&mut later, 3, "a.example", "/x", Request::Later);
        assert_eq!(&first[..12], [0, 0, 17, HEADERS, 5, 0, 0, 0, 1, 0x82, 0x87, 0x41]);
        assert_eq!(later, [0, 0, 7, HEADERS, 5, 0, 0, 0, 3, 0x82, 0x87, 0xbe, 0x04, 2, b'/', b'x']);
    }
}
