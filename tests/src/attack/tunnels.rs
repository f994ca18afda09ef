//! Tunnels whose client is half gone: it has said that it sends nothing more, or is silent for good, or sends and never reads.

use std::io;
use std::rc::Rc;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::task::spawn_local;
use tokio::time::timeout;

use super::dial::{Buffer, Door};
use super::load_clients::upgrade;
use super::origin::DEAF;
use super::tally::{Attack, Attacker, Pace};
use crate::bench::frames::client_frame;

/// Tunnels opened.
pub(super) const TUNNELS: u64 = 2_000;
const NEW_PER_SECOND: u32 = 1_000;
const ROOMS: u64 = 20;
const MESSAGE: [u8; 8_000] = [b'm'; 8_000];
/// Of one tunnel: half a megabyte of echoes that nobody reads. More fills what this machine's kernel has for the sockets of all four
/// parties together, and stalls them all.
const MESSAGES_MAX: usize = 60;
const STUCK: Duration = Duration::from_secs(1);

/// A third each; every fourth over TLS.
pub(super) fn half_open(attacker: Rc<Attacker>) -> Attack {
    Box::pin(async move {
        let pace = Pace::per_second(NEW_PER_SECOND);
        for number in 0..TUNNELS {
            pace.take(1).await;
            let attacker = Rc::clone(&attacker);
            drop(spawn_local(async move {
                match open(&attacker, number).await {
                    Ok(ended) => attacker.seen(ended, 1),
                    Err(_) => attacker.seen("failed or reset", 1),
                }
                // Whatever came of it, the socket was dropped only when the node ended it or the attack is over.
            }));
        }
        attacker.end().await;
    })
}

async fn open(attacker: &Attacker, number: u64) -> io::Result<&'static str> {
    let door = if number.is_multiple_of(4) { Door::Tls } else { Door::Plain };
    let path = format!("/xmpp-websocket?room=half-open-{}&{DEAF}", number % ROOMS);
    let mut stream = attacker.dialer.open(door, Buffer::Least).await?;
    upgrade(&mut stream, &path).await?;
    match number % 3 {
        0 => {
            stream.shutdown().await?;
            attacker.sent("tunnels with a FIN", 1);
            stream.read_u8().await.ok();
            Ok("FIN: closed")
        }
        1 => {
            attacker.sent("silent tunnels", 1);
            stream.read_u8().await.ok();
            Ok("silent: closed")
        }
        _ => {
            attacker.sent("tunnels that never read", 1);
            let message = client_frame(&MESSAGE, [9, 8, 7, 6]);
            // Until nobody takes any more.
            for _ in 0..MESSAGES_MAX {
                let Ok(written) = timeout(STUCK, stream.write_all(&message)).await else { break };
                written?;
                attacker.sent("messages", 1);
            }
            attacker.end().await;
            Ok("never read: to the end")
        }
    }
}
