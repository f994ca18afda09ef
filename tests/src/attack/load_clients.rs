//! The normal load's clients: one request at a time, or a tunnel, over HTTP/1 or HTTP/2.

use std::io;

use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::dial::{Buffer, Dialer, Door, SERVER_NAME, Stream};
use super::http2::{self, ACK, DATA, END_HEADERS, END_STREAM, GOAWAY, HEADERS, PING, RST_STREAM, SETTINGS};
use crate::bench::frames::{SERVER_HEAD, client_frame};
use crate::bench::origin::find;

const PAYLOAD: [u8; 150] = [b'e'; 150];
/// Larger than what one run sends; nobody opens a window again.
const WINDOW: u32 = 1 << 30;

/// One client with its connection.
pub(super) enum Client {
    One(Stream),
    Two { stream: Stream, last: u32 },
}

impl Client {
    pub(super) async fn connect(dialer: &Dialer, door: Door) -> io::Result<Self> {
        let mut stream = dialer.open(door, Buffer::Usual).await?;
        if door != Door::Http2 {
            return Ok(Self::One(stream));
        }
        stream.write_all(&greeting()).await?;
        Ok(Self::Two { stream, last: u32::MAX })
    }

    /// Asks, and reads the answer, which must be 200 and complete.
    pub(super) async fn get(&mut self, path: &str) -> io::Result<()> {
        match self {
            Self::One(stream) => {
                let request = format!("GET {path} HTTP/1.1\r\nHost: {SERVER_NAME}\r\n\r\n");
                stream.write_all(request.as_bytes()).await?;
                let mut received = Vec::new();
                let (head, end) = head(stream, &mut received).await?;
                expect(head.starts_with("HTTP/1.1 200 "), || first_line(&head))?;
                let length =
                    head.lines().filter_map(|line| line.split_once(": ")).find_map(|(name, value)| {
                        name.eq_ignore_ascii_case("content-length").then(|| value.parse::<usize>().ok())?
                    });
                let length = length.ok_or_else(|| io::Error::other("no length"))?;
                while received.len() < end + length {
                    expect(stream.read_buf(&mut received).await? > 0, || "answer cut off".to_owned())?;
                }
                Ok(())
            }
            Self::Two { stream, last } => {
                *last = last.wrapping_add(2);
                let mut request = Vec::new();
                http2::push(&mut request, HEADERS, END_HEADERS | END_STREAM, *last, &http2::get(path));
                stream.write_all(&request).await?;
                loop {
                    let frame = next(stream).await?;
                    if frame.kind == HEADERS {
                        let status = http2::status(&frame.payload);
                        expect(status == Some(200), || format!("status {status:?}"))?;
                    }
                    if frame.stream == *last && frame.flags & END_STREAM != 0 {
                        return Ok(());
                    }
                }
            }
        }
    }
}

fn greeting() -> Vec<u8> {
    let mut greeting = http2::hello(&[(http2::INITIAL_WINDOW_SIZE, WINDOW)]);
    http2::push(&mut greeting, http2::WINDOW_UPDATE, 0, 0, &WINDOW.to_be_bytes());
    greeting
}

/// The next frame of a stream; what concerns the connection is seen to.
async fn next(stream: &mut Stream) -> io::Result<http2::Frame> {
    loop {
        let frame = http2::read(stream).await?;
        let mut answer = Vec::new();
        match frame.kind {
            GOAWAY | RST_STREAM => {
                return Err(io::Error::other(format!("frame {} with error {:?}", frame.kind, frame.error())));
            }
            SETTINGS if frame.flags & ACK == 0 => http2::push(&mut answer, SETTINGS, ACK, 0, &[]),
            PING if frame.flags & ACK == 0 => http2::push(&mut answer, PING, ACK, 0, &frame.payload),
            HEADERS | DATA => return Ok(frame),
            _ => {}
        }
        if !answer.is_empty() {
            stream.write_all(&answer).await?;
        }
    }
}

/// Reads up to the end of an answer's head: the head, and where the body begins.
async fn head(stream: &mut Stream, received: &mut Vec<u8>) -> io::Result<(String, usize)> {
    loop {
        if let Some(end) = find(received, b"\r\n\r\n") {
            return Ok((String::from_utf8_lossy(&received[..end]).into_owned(), end + 4));
        }
        expect(stream.read_buf(received).await? > 0, || "closed without an answer".to_owned())?;
    }
}

fn expect(holds: bool, otherwise: impl FnOnce() -> String) -> io::Result<()> {
    if holds { Ok(()) } else { Err(io::Error::other(otherwise())) }
}

fn first_line(head: &str) -> String {
    head.lines().next().unwrap_or("").to_owned()
}

/// Asks for a WebSocket over HTTP/1, and reads the consent; what came after it is in the answer.
pub(super) async fn upgrade(stream: &mut Stream, path: &str) -> io::Result<Vec<u8>> {
    let request = format!(
        "GET {path} HTTP/1.1\r\nHost: {SERVER_NAME}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
         Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Protocol: xmpp\r\n\r\n"
    );
    stream.write_all(request.as_bytes()).await?;
    let mut received = Vec::new();
    let (head, end) = head(stream, &mut received).await?;
    expect(head.starts_with("HTTP/1.1 101 "), || first_line(&head))?;
    Ok(received.split_off(end))
}

/// An open WebSocket.
pub(super) enum Tunnel {
    One(Stream),
    Two(Stream),
}

impl Tunnel {
    pub(super) async fn open(dialer: &Dialer, door: Door, path: &str) -> io::Result<Self> {
        let mut stream = dialer.open(door, Buffer::Usual).await?;
        if door != Door::Http2 {
            upgrade(&mut stream, path).await?;
            return Ok(Self::One(stream));
        }
        let mut asking = greeting();
        http2::push(&mut asking, HEADERS, END_HEADERS, 1, &http2::websocket(path));
        stream.write_all(&asking).await?;
        let consent = next(&mut stream).await?;
        let status = http2::status(&consent.payload);
        expect(consent.kind == HEADERS && status == Some(200), || format!("status {status:?}"))?;
        Ok(Self::Two(stream))
    }

    /// Sends a message and reads the shard's echo.
    pub(super) async fn echo(&mut self) -> io::Result<()> {
        let message = client_frame(&PAYLOAD, [1, 2, 3, 4]);
        let wanted = SERVER_HEAD + PAYLOAD.len();
        match self {
            Self::One(stream) => {
                stream.write_all(&message).await?;
                stream.read_exact(&mut vec![0; wanted]).await?;
            }
            Self::Two(stream) => {
                let mut data = Vec::new();
                http2::push(&mut data, DATA, 0, 1, &message);
                stream.write_all(&data).await?;
                let mut come = 0;
                while come < wanted {
                    let frame = next(stream).await?;
                    expect(frame.flags & END_STREAM == 0, || "tunnel ended".to_owned())?;
                    come += frame.payload.len();
                }
            }
        }
        Ok(())
    }
}
