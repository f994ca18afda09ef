//! One direction between two seats: what its packets meet, and how one seat sees its connection to the other.

use super::lane::Lane;
use super::random::Random;

/// How long a packet travels, in virtual milliseconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Delay {
    /// Always the same.
    Fixed(u64),
    /// From the first to the second number, evenly.
    Range(u64, u64),
}

impl Delay {
    pub(super) const fn draw(self, random: &mut Random) -> u64 {
        match self {
            Self::Fixed(ms) => ms,
            Self::Range(least, most) => random.between(least, most),
        }
    }

    /// The longest that a packet may take, in milliseconds.
    #[must_use]
    pub const fn longest_ms(self) -> u64 {
        match self {
            Self::Fixed(ms) | Self::Range(_, ms) => ms,
        }
    }
}

/// What befalls single claims and answers: of 1,000, so many.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Noise {
    /// Never arrive (their stream was reset).
    pub lost: u64,
    /// Arrive twice.
    pub doubled: u64,
    /// Arrive up to 1.5 s later than others.
    pub late: u64,
}

/// One direction from a seat to another, and the first one's view of their connection.
#[derive(Debug)]
pub(super) struct Path {
    pub(super) delay: Delay,
    pub(super) noise: Noise,
    /// Packets are lost; the connection dies of it after a while.
    pub(super) blocked: bool,
    /// Packets wait; the connection does not notice.
    pub(super) clogged: bool,
    /// Only those of the bulk lane wait.
    pub(super) bulk_clogged: bool,
    /// The connection as the first seat sees it: the number of it.
    pub(super) connection: Option<u64>,
    /// The connection that the first seat's node was told of; it lags behind while the node hangs.
    pub(super) told: Option<u64>,
    /// Since when the first seat hears nothing of the other on it.
    pub(super) silent_since: Option<u64>,
    /// Since when the first seat dials the other.
    pub(super) dialing_since: Option<u64>,
    /// A handshake of the first seat with the other: the connection it will be, and when it will have ended.
    pub(super) handshake: Option<(u64, u64)>,
    /// Nothing of the lane arrives before the last of it did.
    control_floor: u64,
    bulk_floor: u64,
    /// When the hello arrives: the shell lets everything else wait for it.
    hello_floor: u64,
    /// Messages on their way, by lane.
    pub(super) under_way: [usize; 3],
    /// What arrived while the path was blocked or clogged.
    pub(super) held: Vec<Held>,
    /// Smoothed round trip.
    rtt_ms: Option<u64>,
}

#[derive(Debug)]
pub(super) struct Held {
    pub(super) sequence: u64,
    pub(super) connection: u64,
    pub(super) message: Box<shardgate_peering_core::Message>,
}

impl Path {
    pub(super) const fn new(delay: Delay) -> Self {
        Self {
            delay,
            noise: Noise { lost: 0, doubled: 0, late: 0 },
            blocked: false,
            clogged: false,
            bulk_clogged: false,
            connection: None,
            told: None,
            silent_since: None,
            dialing_since: None,
            handshake: None,
            control_floor: 0,
            bulk_floor: 0,
            hello_floor: 0,
            under_way: [0; 3],
            held: Vec::new(),
            rtt_ms: None,
        }
    }

    /// A new connection begins; nothing sent on it arrives before `from`.
    pub(super) fn begin(&mut self, connection: u64, from: u64) {
        self.connection = Some(connection);
        self.silent_since = None;
        self.control_floor = from;
        self.bulk_floor = from;
        self.hello_floor = from;
        self.under_way = [0; 3];
        self.held.clear();
    }

    /// The first seat's process is gone.
    pub(super) fn forget(&mut self) {
        self.connection = None;
        self.told = None;
        self.silent_since = None;
        self.dialing_since = None;
        self.handshake = None;
        self.rtt_ms = None;
    }

    /// When a message sent now arrives.
    pub(super) fn arrival(&mut self, now: u64, lane: Lane, greets: bool, random: &mut Random) -> u64 {
        let at = now + self.delay.draw(random);
        match lane {
            Lane::Control => {
                self.control_floor = self.control_floor.max(at);
                if greets {
                    self.hello_floor = self.control_floor;
                }
                self.control_floor
            }
            Lane::Bulk => {
                self.bulk_floor = self.bulk_floor.max(at).max(self.hello_floor);
                self.bulk_floor
            }
            Lane::Claims => at.max(self.hello_floor),
        }
    }

    /// Takes a sample of the round trip; answers the smoothed one (RFC 6298's weights).
    pub(super) fn smooth(&mut self, sample_ms: u64) -> u64 {
        let smoothed = self.rtt_ms.map_or(sample_ms, |before| (7 * before + sample_ms) / 8);
        self.rtt_ms = Some(smoothed);
        smoothed
    }
}
