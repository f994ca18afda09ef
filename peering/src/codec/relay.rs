//! The one frame that each side of a relayed stream begins with.

use std::time::Duration;

use bytes::Bytes;
use prost::Message as _;
use shardgate_peering_core::ShardName;
use shardgate_proto::peer as wire;

use super::{FrameError, shard};

/// The longest body of such a frame: a shard's name, a number, and room for fields of the future.
pub const RELAY_FRAME_MAX: usize = 512;
/// Whoever waits longer for a shard has given up.
pub const CONNECT_WITHIN_MAX: Duration = Duration::from_secs(60);

/// What the opener of a relayed stream asks for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RelayOpen {
    /// The shard.
    pub shard: ShardName,
    /// How long the opener waits for it, at most [`CONNECT_WITHIN_MAX`].
    pub connect_within: Duration,
}

/// Why a peer does not relay.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RelayRefusal {
    /// Its discovery does not list the shard.
    UnknownShard,
    /// The shard refused its connection.
    Refused,
    /// The shard did not accept in time.
    TimedOut,
    /// Its network has no way there.
    Unreachable,
    /// It relays enough already, or has no descriptor or memory left.
    Overload,
    /// It stops.
    ShuttingDown,
}

impl RelayRefusal {
    /// All of them, in the order of their numbers.
    pub const ALL: [Self; 6] = [
        Self::UnknownShard,
        Self::Refused,
        Self::TimedOut,
        Self::Unreachable,
        Self::Overload,
        Self::ShuttingDown,
    ];

    /// The word for it, a label of metrics.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::UnknownShard => "unknown_shard",
            Self::Refused => "refused",
            Self::TimedOut => "timed_out",
            Self::Unreachable => "unreachable",
            Self::Overload => "overload",
            Self::ShuttingDown => "shutting_down",
        }
    }
}

/// A whole frame, its length before it.
#[must_use]
pub fn encode_relay_open(open: &RelayOpen) -> Bytes {
    let within = open.connect_within.min(CONNECT_WITHIN_MAX).as_millis();
    let frame = wire::RelayOpen {
        shard: open.shard.to_string(),
        connect_timeout_ms: u32::try_from(within).unwrap_or(u32::MAX),
    };
    frame.encode_length_delimited_to_vec().into()
}

/// The body of a frame; a longer wait than [`CONNECT_WITHIN_MAX`] is cut down to it.
///
/// # Errors
/// [`FrameError`] naming the field.
pub fn decode_relay_open(body: &[u8]) -> Result<RelayOpen, FrameError> {
    let frame = wire::RelayOpen::decode(body)?;
    Ok(RelayOpen {
        shard: shard("relay_open.shard", &frame.shard)?,
        connect_within: Duration::from_millis(frame.connect_timeout_ms.into()).min(CONNECT_WITHIN_MAX),
    })
}

/// A whole frame, its length before it.
#[must_use]
pub fn encode_relay_opened(answer: Result<(), RelayRefusal>) -> Bytes {
    use wire::RelayAnswer as W;
    let answer = match answer {
        Ok(()) => W::Opened,
        Err(RelayRefusal::UnknownShard) => W::UnknownShard,
        Err(RelayRefusal::Refused) => W::Refused,
        Err(RelayRefusal::TimedOut) => W::TimedOut,
        Err(RelayRefusal::Unreachable) => W::Unreachable,
        Err(RelayRefusal::Overload) => W::Overload,
        Err(RelayRefusal::ShuttingDown) => W::ShuttingDown,
    };
    wire::RelayOpened { answer: answer.into() }.encode_length_delimited_to_vec().into()
}

/// What the body of a frame answers.
///
/// # Errors
/// [`FrameError`] when that is none of the known answers: only a known one opens the stream.
pub fn decode_relay_opened(body: &[u8]) -> Result<Result<(), RelayRefusal>, FrameError> {
    use wire::RelayAnswer as W;
    let frame = wire::RelayOpened::decode(body)?;
    match W::try_from(frame.answer) {
        Ok(W::Opened) => Ok(Ok(())),
        Ok(W::UnknownShard) => Ok(Err(RelayRefusal::UnknownShard)),
        Ok(W::Refused) => Ok(Err(RelayRefusal::Refused)),
        Ok(W::TimedOut) => Ok(Err(RelayRefusal::TimedOut)),
        Ok(W::Unreachable) => Ok(Err(RelayRefusal::Unreachable)),
        Ok(W::Overload) => Ok(Err(RelayRefusal::Overload)),
        Ok(W::ShuttingDown) => Ok(Err(RelayRefusal::ShuttingDown)),
        Ok(W::Unspecified) | Err(_) => {
            Err(FrameError::Enum { field: "relay_opened.answer", value: frame.answer })
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The body of a frame whose length is one byte.
    fn body(frame: &Bytes) -> &[u8] {
        assert_eq!(usize::from(frame[0]), frame.len() - 1);
        &frame[1..]
    }

    #[test]
    fn frames_say_the_same_on_the_other_side() {
        let shard = ShardName::parse("prod-s1").unwrap();
        let open = RelayOpen { shard, connect_within: Duration::from_millis(1_500) };
        assert_eq!(decode_relay_open(body(&encode_relay_open(&open))), Ok(open));
        for answer in RelayRefusal::ALL.into_iter().map(Err).chain([Ok(())]) {
            assert_eq!(decode_relay_opened(body(&encode_relay_opened(answer))), Ok(answer));
        }
    }

    #[test]
    fn the_longest_name_fits_into_a_frame() {
        let shard = ShardName::parse(&"s".repeat(128)).unwrap();
        let frame = encode_relay_open(&RelayOpen { shard, connect_within: Duration::MAX });
        assert!(frame.len() < RELAY_FRAME_MAX / 2, "{}", frame.len());
    }

    #[test]
    fn what_is_no_answer_opens_nothing() {
        for answer in [0, 8, -1] {
            let frame = Bytes::from(wire::RelayOpened { answer }.encode_length_delimited_to_vec());
            let refused = decode_relay_opened(body(&frame)).unwrap_err();
            assert_eq!(refused, FrameError::Enum { field: "relay_opened.answer", value: answer });
        }
        assert!(decode_relay_opened(&[]).is_err(), "nothing said");
    }

    #[test]
    fn no_shard_and_no_name_are_refused_and_long_waits_cut_down() {
        let read = |shard: &str, connect_timeout_ms| {
            let open = wire::RelayOpen { shard: shard.to_owned(), connect_timeout_ms };
            decode_relay_open(&open.encode_to_vec())
        };
        for name in ["", "a b", "s\n", &"s".repeat(129)] {
            assert!(matches!(read(name, 1), Err(FrameError::Name { .. })), "{name:?}");
        }
        assert_eq!(read("s1", u32::MAX).unwrap().connect_within, CONNECT_WITHIN_MAX);
    }
}
