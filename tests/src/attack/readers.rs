//! Clients that ask for much and read nothing: the answer must not wait in the node's memory, nor for ever.

use std::io;
use std::rc::Rc;
use std::time::Duration;

use tokio::io::AsyncWriteExt;
use tokio::task::spawn_local;
use tokio::time::sleep;

use super::dial::{Buffer, Door, SERVER_NAME};
use super::http2::{self, END_HEADERS, END_STREAM, HEADERS, INITIAL_WINDOW_SIZE, WINDOW_UPDATE};
use super::origin::LARGE;
use super::tally::{Attack, Attacker, Pace};

/// Requests, one a connection.
pub(super) const READERS: u64 = 500;
const NEW_PER_SECOND: u32 = 500;
const ROOMS: u64 = 20;
const DRIP_EVERY: Duration = Duration::from_millis(50);

/// Two fifths over HTTP/1, two over TLS, the rest over HTTP/2 with a window of nothing or one that opens byte by byte.
pub(super) fn never_reading(attacker: Rc<Attacker>) -> Attack {
    Box::pin(async move {
        let pace = Pace::per_second(NEW_PER_SECOND);
        for number in 0..READERS {
            pace.take(1).await;
            let attacker = Rc::clone(&attacker);
            drop(spawn_local(async move {
                if ask(&attacker, number).await.is_err() {
                    attacker.seen("reset", 1);
                }
            }));
        }
        attacker.end().await;
    })
}

async fn ask(attacker: &Attacker, number: u64) -> io::Result<()> {
    let path = format!("/http-bind?room=reader-{}&{LARGE}", number % ROOMS);
    let (what, door) = match number % 5 {
        0 | 1 => ("HTTP/1", Door::Plain),
        2 | 3 => ("HTTP/1 over TLS", Door::Tls),
        _ => ("HTTP/2", Door::Http2),
    };
    let mut stream = attacker.dialer.open(door, Buffer::Least).await?;
    if door != Door::Http2 {
        let request = format!("GET {path} HTTP/1.1\r\nHost: {SERVER_NAME}\r\n\r\n");
        stream.write_all(request.as_bytes()).await?;
        stream.flush().await?;
        attacker.sent(what, 1);
        attacker.end().await;
        return Ok(());
    }
    let drips = number % 10 == 9;
    let mut asking = http2::hello(&[(INITIAL_WINDOW_SIZE, u32::from(drips))]);
    http2::push(&mut asking, HEADERS, END_HEADERS | END_STREAM, 1, &http2::get(&path));
    stream.write_all(&asking).await?;
    stream.flush().await?;
    attacker.sent(if drips { "HTTP/2, byte by byte" } else { "HTTP/2 without a window" }, 1);
    while drips && !attacker.is_over() {
        let mut window = Vec::new();
        http2::push(&mut window, WINDOW_UPDATE, 0, 1, &1_u32.to_be_bytes());
        stream.write_all(&window).await?;
        stream.flush().await?;
        sleep(DRIP_EVERY).await;
    }
    attacker.end().await;
    Ok(())
}
