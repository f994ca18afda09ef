//! The rooms of one built-in shard: who is in them, and what reaches whom. In memory only; a shard that is started again
//! is empty, as a Prosody is.
//!
//! Bounds: [`ROOMS_MAX`], [`MEMBERS_MAX`] (beyond either, nobody is let in and told so), `QUEUE_MAX` frames waiting for
//! one member (beyond, that member alone is put out and comes back by itself).

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::mpsc;

use super::chat::{FromShard, Member, NAME_CHARS_MAX, TEXT_BYTES_MAX};

/// Most rooms of one shard.
pub const ROOMS_MAX: usize = 1_000;
/// Most people in one room.
pub const MEMBERS_MAX: usize = 100;
/// Most frames that wait for one member.
const QUEUE_MAX: usize = 256;

/// Why somebody was not let in, or not heard.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum RoomError {
    /// [`ROOMS_MAX`] reached.
    #[error("this shard has {ROOMS_MAX} rooms already and takes no more")]
    TooManyRooms,
    /// [`MEMBERS_MAX`] reached.
    #[error("the room has {MEMBERS_MAX} people already and takes no more")]
    RoomFull,
    /// [`TEXT_BYTES_MAX`] exceeded.
    #[error("a text of {bytes} bytes, expected at most {TEXT_BYTES_MAX}")]
    TextTooLong {
        /// Bytes seen.
        bytes: usize,
    },
}

/// All rooms of one running shard. Cheap to clone, one set of rooms.
#[derive(Clone)]
pub struct Rooms {
    place: Place,
    inner: Arc<Mutex<Inner>>,
}

/// Where the rooms are, as told in every hello.
#[derive(Clone, Debug)]
pub struct Place {
    /// Shard name.
    pub shard: &'static str,
    /// Its region.
    pub region: &'static str,
    /// Its release.
    pub release: &'static str,
}

/// How full a shard is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Rooms with somebody in them.
    pub rooms: usize,
    /// People in all rooms.
    pub people: usize,
}

#[derive(Default)]
struct Inner {
    last_id: u64,
    rooms: BTreeMap<String, BTreeMap<u64, Occupant>>,
}

struct Occupant {
    member: Member,
    queue: mpsc::Sender<Arc<str>>,
}

/// One person's place in a room; dropping it is leaving.
pub struct Seat {
    rooms: Rooms,
    room: String,
    id: u64,
    frames: mpsc::Receiver<Arc<str>>,
}

impl Rooms {
    /// No rooms yet.
    pub fn new(place: Place) -> Self {
        Self { place, inner: Arc::default() }
    }

    /// Lets somebody into a room, which exists from then on; the first frame of the seat is the hello.
    pub fn enter(&self, room: &str, name: &str, via: &str) -> Result<Seat, RoomError> {
        let mut inner = self.lock();
        if !inner.rooms.contains_key(room) && inner.rooms.len() >= ROOMS_MAX {
            return Err(RoomError::TooManyRooms);
        }
        inner.last_id += 1;
        let id = inner.last_id;
        let occupants = inner.rooms.entry(room.to_owned()).or_default();
        if occupants.len() >= MEMBERS_MAX {
            return Err(RoomError::RoomFull);
        }
        let name = match name.trim() {
            "" => format!("guest {id}"),
            name => name.chars().take(NAME_CHARS_MAX).collect(),
        };
        let member = Member { id, name, via: via.to_owned() };
        announce(occupants, &FromShard::Join { member: member.clone() });
        let (queue, frames) = mpsc::channel(QUEUE_MAX);
        occupants.insert(id, Occupant { member, queue });
        let hello = FromShard::Hello {
            shard: self.place.shard.to_owned(),
            region: self.place.region.to_owned(),
            release: self.place.release.to_owned(),
            you: id,
            members: occupants.values().map(|occupant| occupant.member.clone()).collect(),
        };
        if let Some(occupant) = occupants.get(&id) {
            tell(occupant, &hello.to_json().into());
        }
        drop(inner);
        Ok(Seat { rooms: self.clone(), room: room.to_owned(), id, frames })
    }

    /// Rooms and people right now.
    pub fn counts(&self) -> Counts {
        let inner = self.lock();
        Counts { rooms: inner.rooms.len(), people: inner.rooms.values().map(BTreeMap::len).sum() }
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        // Every section leaves the maps whole, so a panic elsewhere does not make them wrong.
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Seat {
    /// The next frame for this person; `None` when they were put out.
    pub async fn next(&mut self) -> Option<Arc<str>> {
        self.frames.recv().await
    }

    /// Says something to everybody in the room, the speaker included.
    pub fn say(&self, text: &str) -> Result<(), RoomError> {
        if text.len() > TEXT_BYTES_MAX {
            return Err(RoomError::TextTooLong { bytes: text.len() });
        }
        let mut inner = self.rooms.lock();
        let Some(occupants) = inner.rooms.get_mut(&self.room) else { return Ok(()) };
        let Some(speaker) = occupants.get(&self.id) else { return Ok(()) };
        let name = speaker.member.name.clone();
        announce(occupants, &FromShard::Say { id: self.id, name, text: text.to_owned() });
        Ok(())
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        let mut inner = self.rooms.lock();
        let Some(occupants) = inner.rooms.get_mut(&self.room) else { return };
        if occupants.remove(&self.id).is_some() {
            announce(occupants, &FromShard::Leave { id: self.id });
        }
        if occupants.is_empty() {
            inner.rooms.remove(&self.room);
        }
    }
}

/// Tells everybody; who cannot keep up is put out, and the others are told of that as well.
fn announce(occupants: &mut BTreeMap<u64, Occupant>, what: &FromShard) {
    let mut news = vec![what.clone()];
    while let Some(frame) = news.pop() {
        let json: Arc<str> = frame.to_json().into();
        let slow: Vec<u64> =
            occupants.iter().filter(|(_, occupant)| !tell(occupant, &json)).map(|(id, _)| *id).collect();
        for id in slow {
            occupants.remove(&id);
            news.push(FromShard::Leave { id });
        }
    }
}

fn tell(occupant: &Occupant, json: &Arc<str>) -> bool {
    occupant.queue.try_send(json.clone()).is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rooms() -> Rooms {
        Rooms::new(Place { shard: "s1", region: "region-a", release: "release-1" })
    }

    async fn frame(seat: &mut Seat) -> FromShard {
        serde_json::from_str(&seat.next().await.expect("a frame")).expect("known frame")
    }

    #[tokio::test]
    async fn two_people_see_and_hear_each_other_and_one_leaves() {
        let rooms = rooms();
        let mut ann = rooms.enter("hello", "Ann", "region-a").unwrap();
        let mut bob = rooms.enter("hello", "", "region-b").unwrap();
        assert_eq!(rooms.counts(), Counts { rooms: 1, people: 2 });
        assert!(matches!(frame(&mut ann).await, FromShard::Hello { members, .. } if members.len() == 1));
        assert!(
            matches!(frame(&mut ann).await, FromShard::Join { member } if member.via == "region-b" && member.name == "guest 2")
        );
        assert!(matches!(frame(&mut bob).await, FromShard::Hello { members, .. } if members.len() == 2));
        bob.say("hi").unwrap();
        assert!(matches!(frame(&mut ann).await, FromShard::Say { id: 2, text, .. } if text == "hi"));
        assert!(matches!(frame(&mut bob).await, FromShard::Say { .. }));
        drop(bob);
        assert_eq!(frame(&mut ann).await, FromShard::Leave { id: 2 });
        drop(ann);
        assert_eq!(rooms.counts(), Counts::default());
    }

    #[tokio::test]
    async fn bounds_hold() {
        let rooms = rooms();
        let seats: Vec<_> = (0..MEMBERS_MAX).map(|_| rooms.enter("full", "x", "").unwrap()).collect();
        assert_eq!(rooms.enter("full", "x", "").err(), Some(RoomError::RoomFull));
        let text = "x".repeat(TEXT_BYTES_MAX + 1);
        assert_eq!(seats[0].say(&text), Err(RoomError::TextTooLong { bytes: TEXT_BYTES_MAX + 1 }));
        let _more: Vec<_> = (1..ROOMS_MAX).map(|n| rooms.enter(&format!("r{n}"), "x", "").unwrap()).collect();
        assert_eq!(rooms.enter("one-too-many", "x", "").err(), Some(RoomError::TooManyRooms));
    }

    #[tokio::test]
    async fn who_cannot_keep_up_is_put_out_alone() {
        let rooms = rooms();
        let mut slow = rooms.enter("hello", "Slow", "").unwrap();
        let mut quick = rooms.enter("hello", "Quick", "").unwrap();
        for n in 0..QUEUE_MAX {
            quick.say(&format!("{n}")).unwrap();
            while quick.frames.try_recv().is_ok() {}
        }
        assert_eq!(rooms.counts().people, 1);
        let mut seen = 0;
        while slow.next().await.is_some() {
            seen += 1;
        }
        assert_eq!(seen, QUEUE_MAX);
    }
}
