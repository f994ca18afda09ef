//! The shards behind the node: they answer 200 bytes or 10 MB, echo WebSocket messages, and keep half-closed tunnels open.

use std::io;
use std::net::SocketAddr;
use std::rc::Rc;
use std::thread;
use std::time::Duration;

use socket2::{Domain, Protocol, Socket, Type};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::{LocalSet, spawn_local};
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;

use crate::bench::frames::{Taken, server_frame, take_client_frame};
use crate::bench::origin::find;

/// In a request's target: answer [`LARGE_BYTES`].
pub(super) const LARGE: &str = "large=1";
/// In a tunnel's target: do not close when the client does.
pub(super) const DEAF: &str = "deaf=1";
const LARGE_BYTES: usize = 10_000_000;
const PIECE: [u8; 16_384] = [b'x'; 16_384];
const SMALL: &str = "HTTP/1.1 200 OK\r\nX-Jitsi-Shard: attack\r\nContent-Length: 200\r\n\r\n";
const HEAD_MAX: usize = 64 * 1024;
/// Longer than any attack.
const DEAF_FOR: Duration = Duration::from_secs(60);

/// Answers on `addresses` until the process ends.
///
/// # Errors
/// An address is taken.
pub(super) fn start(addresses: &[SocketAddr]) -> io::Result<()> {
    let listeners = addresses.iter().map(|address| listen(*address)).collect::<io::Result<Vec<_>>>()?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    // Ends with the process: nobody waits for a shard.
    thread::Builder::new().name("origin".to_owned()).spawn(move || {
        let serving = async move {
            let listeners =
                listeners.into_iter().map(TcpListener::from_std).collect::<Result<Vec<_>, _>>()?;
            let accepting: Vec<_> =
                listeners.into_iter().map(|listener| spawn_local(accept(listener))).collect();
            for accepting in accepting {
                accepting.await??;
            }
            Ok::<_, io::Error>(())
        };
        LocalSet::new().block_on(&runtime, serving)
    })?;
    Ok(())
}

/// Listens as a shard on another machine would: its segments are Ethernet's, and its kernel's memory is not the node's.
fn listen(address: SocketAddr) -> io::Result<std::net::TcpListener> {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, Some(Protocol::TCP))?;
    socket.set_reuse_address(true)?;
    socket.set_tcp_mss(1460)?;
    socket.set_send_buffer_size(64 * 1024)?;
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    socket.listen(4096)?;
    Ok(socket.into())
}

async fn accept(listener: TcpListener) -> io::Result<()> {
    let small: Rc<[u8]> = [SMALL.as_bytes(), &[b'a'; 200]].concat().into();
    loop {
        let (stream, _) = listener.accept().await?;
        stream.set_nodelay(true)?;
        let small = Rc::clone(&small);
        // A client or node that goes away is what attacks are about.
        drop(spawn_local(async move { serve(stream, &small).await.ok() }));
    }
}

async fn serve(mut stream: TcpStream, small: &[u8]) -> io::Result<()> {
    let mut received = Vec::new();
    loop {
        let end = loop {
            if let Some(end) = find(&received, b"\r\n\r\n") {
                break end;
            }
            if received.len() > HEAD_MAX || stream.read_buf(&mut received).await? == 0 {
                return Ok(());
            }
        };
        let head = String::from_utf8_lossy(&received[..end]).into_owned();
        received.drain(..end + 4);
        let target = head.split(' ').nth(1).unwrap_or("");
        if head.starts_with("POST ") {
            // Its body never ends.
            let mut rest = [0; 4096];
            while stream.read(&mut rest).await? > 0 {}
            return Ok(());
        } else if let Some(key) = key(&head) {
            let accept = derive_accept_key(key.as_bytes());
            let consent = format!(
                "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
                 Sec-WebSocket-Accept: {accept}\r\nSec-WebSocket-Protocol: xmpp\r\n\r\n"
            );
            stream.write_all(consent.as_bytes()).await?;
            let ended = echo(&mut stream, received).await;
            if target.contains(DEAF) && ended.is_ok() {
                tokio::time::sleep(DEAF_FOR).await;
            }
            return ended;
        } else if target.contains(LARGE) {
            let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {LARGE_BYTES}\r\n\r\n");
            stream.write_all(head.as_bytes()).await?;
            let mut left = LARGE_BYTES;
            while left > 0 {
                let piece = left.min(PIECE.len());
                stream.write_all(&PIECE[..piece]).await?;
                left -= piece;
            }
        } else {
            stream.write_all(small).await?;
        }
    }
}

fn key(head: &str) -> Option<&str> {
    let mut headers = head.lines().filter_map(|line| line.split_once(':'));
    headers.find(|(name, _)| name.eq_ignore_ascii_case("sec-websocket-key")).map(|(_, key)| key.trim())
}

async fn echo(stream: &mut TcpStream, mut received: Vec<u8>) -> io::Result<()> {
    loop {
        match take_client_frame(&received) {
            Taken::Frame { payload, length } => {
                received.drain(..length);
                stream.write_all(&server_frame(&payload)).await?;
            }
            Taken::Unexpected => return Ok(()),
            Taken::Incomplete => {
                if stream.read_buf(&mut received).await? == 0 {
                    return Ok(());
                }
            }
        }
    }
}
