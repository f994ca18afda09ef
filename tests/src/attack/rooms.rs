//! A million rooms that nobody is in, from one address: each would be an entry in the table of every node.

use std::io;
use std::rc::Rc;

use tokio::io::{AsyncReadExt, AsyncWriteExt, split};
use tokio::task::spawn_local;

use super::dial::{Buffer, Door, SERVER_NAME};
use super::tally::{Attack, Attacker, Pace};
use crate::bench::room_names::unlike_room_name;

/// Rooms invented.
pub(super) const ROOMS: u64 = 1_000_000;
const CONNECTIONS: usize = 4;
/// Requests sent before an answer is read.
const PIPELINED: usize = 50;
/// What leaves some of two cores to the normal load.
const PER_SECOND: u32 = 60_000;

/// As many as the node takes, pipelined, none twice.
pub(super) fn invented(attacker: Rc<Attacker>) -> Attack {
    Box::pin(async move {
        let pace = Pace::per_second(PER_SECOND);
        let asking: Vec<_> = (0..CONNECTIONS)
            .map(|connection| {
                let (attacker, pace) = (Rc::clone(&attacker), Rc::clone(&pace));
                spawn_local(async move {
                    let mut next = connection;
                    while next < ROOMS as usize && !attacker.is_over() {
                        if ask(&attacker, &pace, &mut next).await.is_err() {
                            attacker.seen("connections lost", 1);
                        }
                    }
                })
            })
            .collect();
        for asking in asking {
            // A panic shows by what is missing.
            asking.await.ok();
        }
    })
}

/// Asks over one connection until it is closed or all is asked.
async fn ask(attacker: &Attacker, pace: &Pace, next: &mut usize) -> io::Result<()> {
    let (mut reader, mut writer) = split(attacker.dialer.open(Door::Plain, Buffer::Usual).await?);
    let mut answers = Statuses::default();
    let mut buffer = vec![0; 64 * 1024];
    while *next < ROOMS as usize && !attacker.is_over() {
        pace.take(PIPELINED as u32).await;
        let mut requests = String::new();
        for _ in 0..PIPELINED {
            let room = unlike_room_name(*next);
            *next += CONNECTIONS;
            requests.push_str("GET /http-bind?room=");
            requests.push_str(&room);
            requests.push_str(" HTTP/1.1\r\nHost: ");
            requests.push_str(SERVER_NAME);
            requests.push_str("\r\n\r\n");
        }
        writer.write_all(requests.as_bytes()).await?;
        attacker.sent("rooms", PIPELINED as u64);
        let mut missing = PIPELINED;
        while missing > 0 {
            let read = reader.read(&mut buffer).await?;
            if read == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            missing = missing.saturating_sub(answers.scan(&buffer[..read], attacker));
        }
    }
    Ok(())
}

/// Finds the statuses in pipelined answers, in pieces of any size.
#[derive(Default)]
struct Statuses {
    tail: Vec<u8>,
}

const STATUS_LINE: &[u8] = b"HTTP/1.1 ";

impl Statuses {
    fn scan(&mut self, piece: &[u8], attacker: &Attacker) -> usize {
        self.tail.extend_from_slice(piece);
        let (mut found, mut at) = (0, 0);
        // No page of a node holds a status line.
        while let Some(line) =
            self.tail[at..].windows(STATUS_LINE.len() + 3).position(|w| w.starts_with(STATUS_LINE))
        {
            let digits = at + line + STATUS_LINE.len();
            attacker.seen(
                match &self.tail[digits..digits + 3] {
                    b"200" => "200",
                    b"429" => "429",
                    b"503" => "503",
                    _ => "another answer",
                },
                1,
            );
            found += 1;
            at = digits + 3;
        }
        let kept = self.tail.len().min(STATUS_LINE.len() + 2).min(self.tail.len() - at);
        self.tail.drain(..self.tail.len() - kept);
        found
    }
}
