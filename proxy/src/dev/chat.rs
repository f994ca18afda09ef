//! The words of the room page: JSON text frames between a built-in shard and its people, one type for each direction.
//! `room.html` and the clients of `dev --check` speak it; nothing outside `dev` does.

use serde::{Deserialize, Serialize};

/// Longest text one person can say at once, in bytes; longer is refused with [`FromShard::Refused`].
pub const TEXT_BYTES_MAX: usize = 2_000;
/// Longest display name, in characters; longer is cut.
pub const NAME_CHARS_MAX: usize = 40;

/// One person in a room, as everybody in it sees them.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Member {
    /// Number given by the shard, never reused while it runs.
    pub id: u64,
    /// What the person called themselves.
    pub name: String,
    /// Region of the node they came through (`X-Proxy-Region` of their request), empty when they came directly.
    pub via: String,
}

/// What a shard tells one person.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum FromShard {
    /// First frame of every session: where you are and who was here already.
    Hello {
        /// Name of this shard.
        shard: String,
        /// Its region.
        region: String,
        /// Its release.
        release: String,
        /// Your own number.
        you: u64,
        /// Everybody in the room, you included.
        members: Vec<Member>,
    },
    /// Somebody else came.
    Join {
        /// Who.
        member: Member,
    },
    /// Somebody left.
    Leave {
        /// Number of the one who left.
        id: u64,
    },
    /// Somebody said something; the speaker hears it too.
    Say {
        /// Number of the speaker.
        id: u64,
        /// Name of the speaker.
        name: String,
        /// What was said.
        text: String,
    },
    /// The shard did not do what was asked.
    Refused {
        /// Why, for people.
        reason: String,
    },
}

/// What one person tells the shard.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case", deny_unknown_fields)]
pub enum ToShard {
    /// Say something to everybody in the room.
    Say {
        /// What.
        text: String,
    },
}

impl FromShard {
    /// The frame's text.
    pub fn to_json(&self) -> String {
        // Structs of strings and numbers: there is no value that serde_json could refuse.
        serde_json::to_string(self).unwrap_or_default()
    }
}

impl ToShard {
    /// The frame's text.
    pub fn to_json(&self) -> String {
        serde_json::to_string(self).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_are_what_the_page_expects() {
        let member = Member { id: 3, name: "Ann".into(), via: "region-a".into() };
        assert_eq!(
            FromShard::Join { member }.to_json(),
            r#"{"type":"join","member":{"id":3,"name":"Ann","via":"region-a"}}"#
        );
        assert_eq!(ToShard::Say { text: "hi".into() }.to_json(), r#"{"type":"say","text":"hi"}"#);
        assert!(serde_json::from_str::<ToShard>(r#"{"type":"shout","text":"hi"}"#).is_err());
        assert!(serde_json::from_str::<ToShard>(r#"{"type":"say","text":"hi","more":1}"#).is_err());
    }
}
