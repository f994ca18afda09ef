//! A person of `dev --check`: a WebSocket client over a real socket that behaves as lib-jitsi-meet does. It comes back
//! when its connection is lost, and it compares the shard it is on with the one the mesh names: 5 s after connecting, at
//! once after a reconnect, then every minute; a difference makes it come back too.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::Duration;

use futures_util::{SinkExt, StreamExt};
use tokio::net::TcpStream;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;
use tokio::time::{sleep, timeout};
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::protocol::Message;

use super::chat::{FromShard, Member, ToShard};
use super::http_get::{Answer, GetError, get};

/// lib-jitsi-meet's first look at the shard after connecting.
const FIRST_CHECK: Duration = Duration::from_secs(5);
/// And its next ones.
const NEXT_CHECK: Duration = Duration::from_secs(60);
/// A check that got no answer is asked again after this.
const CHECK_AGAIN: Duration = Duration::from_secs(2);
const CONNECT_WAIT: Duration = Duration::from_secs(5);
const BACKOFF_FIRST: Duration = Duration::from_millis(100);
const BACKOFF_MAX: Duration = Duration::from_secs(1);
/// Things heard that are kept.
const HEARD_MAX: usize = 100;

/// The node that a client goes to, and how it spells the room there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Door {
    /// Name of the node.
    pub node: String,
    /// Its frontend.
    pub address: SocketAddr,
    /// How rooms are spelled at this door.
    pub spelling: Spelling,
}

/// How a client spells the rooms it asks for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Spelling {
    /// As everybody does.
    #[default]
    Same,
    /// With the node's name behind it, as if every node had a stick table of its own: the sabotage that must turn
    /// `dev --check` red.
    PerNode,
}

/// What a person has seen so far.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Seen {
    /// In the room right now.
    pub connected: bool,
    /// The shard of the last hello.
    pub shard: String,
    /// Who is in the room, as far as the shard told; empty while disconnected.
    pub people: BTreeMap<u64, String>,
    /// The last things heard, as `name: text`.
    pub heard: Vec<String>,
    /// How often a room was entered.
    pub hellos: u32,
    /// How often the mesh was asked for the shard and answered.
    pub checks: u32,
    /// How often the check named another shard than the one this person was on.
    pub reloads: u32,
    /// Why the last attempt or session ended.
    pub last_end: String,
}

/// Somebody in a room, or on the way back to it. Dropping it is leaving.
pub struct Person {
    name: String,
    seen: watch::Receiver<Seen>,
    words: mpsc::Sender<String>,
    task: JoinHandle<()>,
}

impl Door {
    fn target(&self, service: &str, room: &str, more: &str) -> String {
        let (tenant, room) = room.split_once('/').map_or(("", room), |(tenant, room)| (tenant, room));
        let tenant = if tenant.is_empty() { String::new() } else { format!("/{tenant}") };
        let suffix = match self.spelling {
            Spelling::Same => String::new(),
            Spelling::PerNode => format!("-{}", self.node),
        };
        format!("{tenant}/{service}?room={room}{suffix}{more}")
    }

    /// Asks the mesh for the shard of a room, as lib-jitsi-meet does. A new room is placed by it.
    pub async fn unlock(&self, room: &str, within: Duration) -> Result<Answer, GetError> {
        get(self.address, &self.target("_unlock", room, ""), within).await
    }
}

impl Person {
    /// Sets out for a room; see [`Self::until`] for when they are there.
    pub fn join(door: Door, room: &str, name: &str) -> Self {
        let (changed, seen) = watch::channel(Seen::default());
        let (words, said) = mpsc::channel(16);
        let visit = Visit { door, room: room.to_owned(), name: name.to_owned(), changed };
        Self { name: name.to_owned(), seen, words, task: tokio::spawn(visit.stay(said)) }
    }

    /// What they are called.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// What they have seen so far.
    pub fn seen(&self) -> Seen {
        self.seen.borrow().clone()
    }

    /// Waits until what they see fulfils a condition; the error is what they saw last.
    pub async fn until(&self, within: Duration, holds: impl Fn(&Seen) -> bool) -> Result<Seen, Seen> {
        let mut seen = self.seen.clone();
        let found = timeout(within, seen.wait_for(|seen| holds(seen))).await;
        match found {
            Ok(Ok(found)) => Ok(found.clone()),
            Ok(Err(_)) | Err(_) => Err(self.seen()),
        }
    }

    /// Says something in the room; lost when they are not in it.
    pub async fn say(&self, text: &str) {
        self.words.send(text.to_owned()).await.ok();
    }
}

impl Drop for Person {
    fn drop(&mut self) {
        self.task.abort();
    }
}

struct Visit {
    door: Door,
    room: String,
    name: String,
    changed: watch::Sender<Seen>,
}

impl Visit {
    async fn stay(self, mut said: mpsc::Receiver<String>) {
        let mut backoff = BACKOFF_FIRST;
        loop {
            let entered_before = self.changed.borrow().hellos;
            let end = match self.connect().await {
                Ok(socket) => tokio::select! {
                    end = self.talk(socket, &mut said) => end,
                    end = self.check(entered_before) => end,
                },
                Err(reason) => reason,
            };
            let entered = self.changed.borrow().hellos > entered_before;
            self.changed.send_modify(|seen| {
                seen.connected = false;
                seen.people.clear();
                seen.last_end = end;
            });
            backoff = if entered { BACKOFF_FIRST } else { (backoff * 2).min(BACKOFF_MAX) };
            sleep(backoff).await;
        }
    }

    async fn connect(&self) -> Result<WebSocketStream<TcpStream>, String> {
        let Door { address, .. } = self.door;
        let name = format!("&name={}", self.name);
        let url = format!("ws://{address}{}", self.door.target("xmpp-websocket", &self.room, &name));
        let dial = async {
            let stream = TcpStream::connect(address).await.map_err(|error| format!("connect: {error}"))?;
            let (socket, _) = tokio_tungstenite::client_async(url.as_str(), stream)
                .await
                .map_err(|error| format!("handshake: {error}"))?;
            Ok(socket)
        };
        timeout(CONNECT_WAIT, dial)
            .await
            .unwrap_or_else(|_| Err(format!("no connection within {CONNECT_WAIT:?}")))
    }

    async fn talk(
        &self,
        mut socket: WebSocketStream<TcpStream>,
        said: &mut mpsc::Receiver<String>,
    ) -> String {
        loop {
            tokio::select! {
                Some(text) = said.recv() => {
                    let frame = ToShard::Say { text }.to_json();
                    if let Err(error) = socket.send(Message::text(frame)).await {
                        return format!("say: {error}");
                    }
                }
                frame = socket.next() => match frame {
                    Some(Ok(Message::Text(text))) => match serde_json::from_str(&text) {
                        Ok(frame) => self.changed.send_modify(|seen| seen.learn(frame)),
                        Err(error) => return format!("unknown frame {text}: {error}"),
                    },
                    Some(Ok(Message::Ping(_) | Message::Pong(_))) => {}
                    Some(Ok(Message::Close(_))) => return "closed".to_owned(),
                    Some(Ok(Message::Binary(_) | Message::Frame(_))) => return "a frame that is no text".to_owned(),
                    Some(Err(error)) => return format!("lost: {error}"),
                    None => return "lost".to_owned(),
                },
            }
        }
    }

    /// Ends when the mesh names another shard than the one this session is on.
    async fn check(&self, entered_before: u32) -> String {
        let mut entered = self.changed.subscribe();
        // The sender is ours, so this cannot end early.
        let shard =
            entered.wait_for(|seen| seen.hellos > entered_before).await.map(|seen| seen.shard.clone());
        let shard = shard.unwrap_or_default();
        let mut wait = if entered_before == 0 { FIRST_CHECK } else { Duration::ZERO };
        loop {
            sleep(wait).await;
            wait = match self.door.unlock(&self.room, CONNECT_WAIT).await {
                Ok(answer) if !answer.status.is_success() => CHECK_AGAIN,
                Ok(answer) if answer.header("x-jitsi-shard") == shard => {
                    self.changed.send_modify(|seen| seen.checks += 1);
                    NEXT_CHECK
                }
                Ok(answer) => {
                    self.changed.send_modify(|seen| {
                        seen.checks += 1;
                        seen.reloads += 1;
                    });
                    return format!("on shard {shard}, told {:?}", answer.header("x-jitsi-shard"));
                }
                Err(_) => CHECK_AGAIN,
            };
        }
    }
}

impl Seen {
    fn learn(&mut self, frame: FromShard) {
        match frame {
            FromShard::Hello { shard, members, .. } => {
                self.connected = true;
                self.shard = shard;
                self.hellos += 1;
                self.people = members.into_iter().map(|Member { id, name, .. }| (id, name)).collect();
            }
            FromShard::Join { member } => {
                self.people.insert(member.id, member.name);
            }
            FromShard::Leave { id } => {
                self.people.remove(&id);
            }
            FromShard::Say { name, text, .. } => {
                if self.heard.len() >= HEARD_MAX {
                    self.heard.remove(0);
                }
                self.heard.push(format!("{name}: {text}"));
            }
            FromShard::Refused { reason } => self.last_end = format!("refused: {reason}"),
        }
    }

    /// Whether somebody of this name is in the room.
    pub fn sees(&self, name: &str) -> bool {
        self.people.values().any(|other| other == name)
    }
}

#[cfg(test)]
mod tests;
