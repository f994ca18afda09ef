//! One place where a node runs: its process, its clocks, and what waits for it while it does not run.

use std::collections::{BTreeSet, VecDeque};

use shardgate_peering_core::{Config, Input, Instant, Message, Node, Now, Wall};

use super::clockwork::Happening;
use super::path::Delay;

/// The number of a place in the world, in the order in which they were added.
pub type Seat = usize;

/// 2026-11-21, so that stamps look like real ones.
pub(super) const WALL_START_MS: i64 = 1_795_219_200_000;

/// A probe takes so long unless it is said otherwise.
const PROBE_TIME: Delay = Delay::Fixed(5);

/// What a process does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum State {
    /// It does not exist.
    Crashed,
    /// It runs.
    Running,
    /// It and its network stand still.
    Paused(Sleep),
    /// Its connections live, but the node does nothing.
    Hung,
}

/// Which clocks go on while a process is paused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sleep {
    /// All (SIGSTOP).
    Process,
    /// Boot time and wall clock, not the monotonic one (a suspended machine).
    Machine,
}

/// What a shell gives its node, in order: events of connections name theirs, as they may be old when the node gets to them.
#[derive(Debug)]
pub(super) enum Feed {
    Input(Input),
    Connected { peer: Seat, connection: u64 },
    Lost { peer: Seat, connection: u64 },
    Received { peer: Seat, connection: u64, rtt_ms: Option<u64>, message: Box<Message> },
}

/// A place where a node runs.
#[derive(Debug)]
pub(super) struct Place {
    pub(super) config: Config,
    pub(super) state: State,
    pub(super) node: Option<Node>,
    /// The start of the process, counted over all seats; 0 before the first.
    pub(super) life: u64,
    pub(super) ready: bool,
    pub(super) listed: BTreeSet<Seat>,
    /// The contracts its hellos name, if others than its code's.
    pub(super) contracts: Option<(u32, u32)>,
    /// The monotonic clock's reading minus the world's time.
    pub(super) mono_ahead: u64,
    /// How long the machine was suspended.
    pub(super) suspended_ms: u64,
    /// The wall clock's error.
    pub(super) wall_error_ms: i64,
    /// When a pause began.
    pub(super) stopped_at: u64,
    /// What the network had for it while it was paused.
    pub(super) waiting_packets: VecDeque<(u64, Happening)>,
    /// Inputs that wait for it while it is paused or hung.
    pub(super) waiting_inputs: VecDeque<Feed>,
    /// When it wants to be woken, in the world's time.
    pub(super) deadline: u64,
    /// How long its probes of shards take.
    pub(super) probe_time: Delay,
    /// Outputs are to be fetched at this time: several inputs share them.
    pub(super) fetch_at: Option<u64>,
}

impl Place {
    pub(super) fn new(config: Config, seat: Seat) -> Self {
        Self {
            config,
            state: State::Crashed,
            node: None,
            life: 0,
            ready: false,
            listed: BTreeSet::new(),
            contracts: None,
            // Any start will do; different ones show who mixes clocks of two nodes.
            mono_ahead: 1_000_000 + 77_777 * seat as u64,
            suspended_ms: 0,
            wall_error_ms: 0,
            stopped_at: 0,
            waiting_packets: VecDeque::new(),
            waiting_inputs: VecDeque::new(),
            deadline: u64::MAX,
            probe_time: PROBE_TIME,
            fetch_at: None,
        }
    }

    /// The node's clocks at the world's time.
    pub(super) fn moment(&self, now: u64) -> Now {
        let wall = WALL_START_MS.saturating_add_unsigned(now).saturating_add(self.wall_error_ms);
        Now {
            mono: Instant(now + self.mono_ahead - self.suspended_ms),
            boot: Instant(now + self.mono_ahead),
            wall: Wall(u64::try_from(wall).unwrap_or(0)),
        }
    }

    /// The world's time of a moment on the node's monotonic clock.
    pub(super) const fn world_time(&self, mono: Instant) -> u64 {
        mono.0.saturating_add(self.suspended_ms).saturating_sub(self.mono_ahead)
    }

    pub(super) const fn runs(&self) -> bool {
        matches!(self.state, State::Running)
    }

    /// Whether packets reach its host's stack and are answered there.
    pub(super) const fn answers_packets(&self) -> bool {
        matches!(self.state, State::Running | State::Hung)
    }
}
