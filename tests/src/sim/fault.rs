//! What goes wrong: drawn from the seed as a list of kinds, times and nodes.
#![expect(
    clippy::wildcard_enum_match_arm,
    reason = "most kinds of faults share a rule, a few have their own"
)]

use std::collections::BTreeSet;

use super::model::Shard;
use crate::world::{Random, Seat};

/// What can go wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    /// Packets of one node for another are lost, nobody is told.
    OneWayCut,
    /// Both directions between two nodes, and both notice.
    TwoWayCut,
    /// Both directions between two nodes, and nobody is told.
    SilentCut,
    /// Half of the mesh sees only itself.
    Halves,
    /// One node sees nobody.
    Isolated,
    /// A third of all paths, each direction for itself.
    Asymmetric,
    /// Connections live and carry nothing.
    Clogging,
    /// Claims and answers get lost, come twice, come late.
    ClaimNoise,
    /// A node crashes and comes back empty.
    Crash,
    /// Two nodes at once.
    CrashTwo,
    /// The home of a room that was just joined.
    CrashHome,
    /// A process stands still for long.
    Pause,
    /// A machine sleeps for long.
    Sleep,
    /// A node's connections live, but it does nothing.
    Hang,
    /// A wall clock is wrong by hours.
    ClockSkew,
    /// A wall clock jumps to and fro.
    ClockJump,
    /// Discovery forgets a node and finds it again.
    Unlisted,
    /// A node that is new to everybody is listed by the others late.
    ListedLate,
    /// A shard dies.
    ShardDeath,
    /// A shard dies and returns again and again.
    ShardFlap,
    /// A path becomes slower than any budget.
    SlowPath,
    /// A peer sends a lifetime that is damaged.
    DamagedLifetime,
    /// One node's path to a shard is cut.
    ShardPathCut,
    /// Those of several nodes.
    ShardPathsCut,
    /// One node's path to a shard comes and goes.
    ShardPathFlaps,
    /// Operators take a shard out of use.
    ShardMaint,
}

impl Kind {
    /// All of them.
    pub const ALL: [Self; 26] = [
        Self::OneWayCut,
        Self::TwoWayCut,
        Self::SilentCut,
        Self::Halves,
        Self::Isolated,
        Self::Asymmetric,
        Self::Clogging,
        Self::ClaimNoise,
        Self::Crash,
        Self::CrashTwo,
        Self::CrashHome,
        Self::Pause,
        Self::Sleep,
        Self::Hang,
        Self::ClockSkew,
        Self::ClockJump,
        Self::Unlisted,
        Self::ListedLate,
        Self::ShardDeath,
        Self::ShardFlap,
        Self::SlowPath,
        Self::DamagedLifetime,
        Self::ShardPathCut,
        Self::ShardPathsCut,
        Self::ShardPathFlaps,
        Self::ShardMaint,
    ];
    /// What any seed may draw as it likes: the first ones, so that seeds that were kept draw what they drew.
    const ANY: usize = 22;
    /// What goes wrong with shards, which is drawn for itself.
    const OF_SHARDS: [Self; 6] = [
        Self::ShardDeath,
        Self::ShardFlap,
        Self::ShardPathCut,
        Self::ShardPathsCut,
        Self::ShardPathFlaps,
        Self::ShardMaint,
    ];

    /// Its name in reports.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::OneWayCut => "one-way cut",
            Self::TwoWayCut => "two-way cut",
            Self::SilentCut => "silent cut",
            Self::Halves => "halves",
            Self::Isolated => "isolated node",
            Self::Asymmetric => "asymmetric reachability",
            Self::Clogging => "clogging",
            Self::ClaimNoise => "claims lost, doubled, late",
            Self::Crash => "crash",
            Self::CrashTwo => "crash of two",
            Self::CrashHome => "crash of a home",
            Self::Pause => "pause",
            Self::Sleep => "machine sleep",
            Self::Hang => "hang",
            Self::ClockSkew => "clock skew",
            Self::ClockJump => "clock jumps",
            Self::Unlisted => "unlisted node",
            Self::ListedLate => "listed late",
            Self::ShardDeath => "shard death",
            Self::ShardFlap => "shard flaps",
            Self::SlowPath => "slow path",
            Self::DamagedLifetime => "damaged lifetime",
            Self::ShardPathCut => "path to a shard cut",
            Self::ShardPathsCut => "paths to a shard cut",
            Self::ShardPathFlaps => "path to a shard flaps",
            Self::ShardMaint => "shard in maint",
        }
    }
}

/// One thing that goes wrong.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fault {
    /// What.
    pub kind: Kind,
    /// When, from the beginning of the phase.
    pub at_ms: u64,
    /// How long.
    pub lasts_ms: u64,
    /// Whom: one, two, or a side of the mesh.
    pub nodes: Vec<Seat>,
    /// Which shard.
    pub shard: Shard,
    /// A number for what else is to be drawn.
    pub salt: u64,
}

impl Fault {
    /// The directions that are blocked or clogged while it lasts.
    #[must_use]
    pub fn paths(&self, nodes: usize) -> Vec<(Seat, Seat)> {
        let all = || (0..nodes).flat_map(|a| (0..nodes).map(move |b| (a, b))).filter(|(a, b)| a != b);
        let inside = |seat: &Seat| self.nodes.contains(seat);
        match self.kind {
            Kind::OneWayCut => vec![(self.nodes[0], self.nodes[1])],
            Kind::TwoWayCut | Kind::SilentCut | Kind::Clogging | Kind::SlowPath => {
                vec![(self.nodes[0], self.nodes[1]), (self.nodes[1], self.nodes[0])]
            }
            Kind::Halves | Kind::Isolated => all().filter(|(a, b)| inside(a) != inside(b)).collect(),
            Kind::Asymmetric => {
                let mut random = Random::new(self.salt);
                all().filter(|_| random.chance(330)).collect()
            }
            Kind::ClaimNoise => all().collect(),
            _ => Vec::new(),
        }
    }
}

/// Three faults or more, on three nodes or more.
pub(super) fn draw_faults(nodes: usize, shards: u16, phase_ms: u64, random: &mut Random) -> Vec<Fault> {
    let wanted = random.between(3, 9) as usize;
    let mut faults: Vec<Fault> = Vec::new();
    let mut touched: BTreeSet<Seat> = BTreeSet::new();
    while faults.len() < wanted || touched.len() < 3 {
        let kind = *random.pick(&Kind::ALL[..Kind::ANY]);
        let fault = draw_fault(kind, nodes, shards, phase_ms, random);
        if fault.kind == Kind::ListedLate && faults.iter().any(|other| other.kind == Kind::ListedLate) {
            continue;
        }
        touched.extend(&fault.nodes);
        faults.push(fault);
    }
    faults.sort_by_key(|fault| fault.at_ms);
    faults
}

/// Some faults of shards and of paths to them.
pub(super) fn draw_shard_faults(
    nodes: usize,
    shards: u16,
    phase_ms: u64,
    most: u64,
    random: &mut Random,
) -> Vec<Fault> {
    let count = random.below(most + 1);
    let draw = |_| {
        let kind = *random.pick(&Kind::OF_SHARDS);
        draw_fault(kind, nodes, shards, phase_ms, random)
    };
    (0..count).map(draw).collect()
}

fn draw_fault(kind: Kind, nodes: usize, shards: u16, phase_ms: u64, random: &mut Random) -> Fault {
    let mut all: Vec<Seat> = (0..nodes).collect();
    random.shuffle(&mut all);
    let count = match kind {
        Kind::OneWayCut
        | Kind::TwoWayCut
        | Kind::SilentCut
        | Kind::Clogging
        | Kind::SlowPath
        | Kind::CrashTwo
        | Kind::DamagedLifetime => 2,
        Kind::Halves => random.between(1, nodes as u64 - 1) as usize,
        Kind::Asymmetric | Kind::ClaimNoise => nodes,
        Kind::ShardDeath | Kind::ShardFlap | Kind::CrashHome | Kind::ShardMaint => 0,
        Kind::ShardPathsCut => random.between(2, nodes as u64) as usize,
        Kind::Isolated
        | Kind::Crash
        | Kind::Pause
        | Kind::Sleep
        | Kind::Hang
        | Kind::ClockSkew
        | Kind::ClockJump
        | Kind::Unlisted
        | Kind::ListedLate
        | Kind::ShardPathCut
        | Kind::ShardPathFlaps => 1,
    };
    all.truncate(count);
    let lasts_ms = match kind {
        Kind::Pause | Kind::Sleep => random.between(5, 100) * 1_000,
        Kind::Crash | Kind::CrashTwo | Kind::CrashHome => random.between(10, 15_000),
        Kind::Hang => random.between(200, 40_000),
        Kind::ClockSkew => phase_ms,
        _ if random.chance(400) => random.between(50, 3_500),
        _ => random.between(1_000, 60_000),
    };
    let at_ms = match kind {
        Kind::ListedLate => 0,
        // From its start, or by a jump.
        Kind::ClockSkew if random.chance(500) => 0,
        Kind::ClockSkew => random.below(phase_ms / 4),
        _ => phase_ms / 20 + random.below(phase_ms * 8 / 10),
    };
    Fault {
        kind,
        at_ms,
        lasts_ms: lasts_ms.min(phase_ms - at_ms),
        nodes: all,
        shard: random.below(u64::from(shards)) as Shard,
        salt: random.word(),
    }
}
