//! What one seed draws: the mesh, its paths, its limits, its clients, and what will go wrong when.

use shardgate_peering_core::{Config, PeerId};

use super::fault::{Fault, draw_faults, draw_shard_faults};
use crate::world::{Delay, Random, Seat};

/// One of so many seeds has 64 nodes.
const LARGE_EVERY: u64 = 50;
const LARGE_NODES: usize = 64;
/// Seeds from here on have 200 nodes: what a mesh of that size costs must be known, and takes too long for every sweep.
const HUGE_FROM: u64 = 1_000_000_000;
const HUGE_NODES: usize = 200;
/// Seeds from here on are of ordinary size, and their nodes are woken late, as on a machine that has other things to do. By themselves:
/// the seeds below were kept before there was such a thing.
const LATE_FROM: u64 = 2_000_000_000;
const LATE_MAX_MS: u64 = 40;

/// Whether anything goes wrong but delays and shards.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Weather {
    /// Nothing does between nodes.
    Healthy,
    /// Plenty does.
    Faulty,
}

/// The limits of every node's configuration.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Claims of one node under way.
    pub claims_max: usize,
    /// Requests that wait for one key.
    pub waiters_max: usize,
    /// Decisions kept for peers that come back.
    pub log_max: usize,
    /// Items in one message.
    pub batch_items: usize,
    /// Unacknowledged updates.
    pub window_items: u64,
    /// Unacknowledged bulk messages.
    pub bulk_window: u64,
    /// Messages under way to one peer, on each of the ordered lanes but that of bulk.
    pub outbox: usize,
}

/// Everything drawn from one seed.
#[derive(Debug, Clone)]
pub struct Setup {
    /// The seed.
    pub seed: u64,
    /// Whether anything goes wrong between nodes.
    pub weather: Weather,
    /// The region of each node.
    pub regions: Vec<usize>,
    /// How many live entries each node takes.
    pub capacities: Vec<usize>,
    /// From region to region.
    pub delays: Vec<Vec<Delay>>,
    /// The lease.
    pub ttl_ms: u64,
    /// The same for all nodes.
    pub limits: Limits,
    /// How many things clients begin.
    pub steps: u32,
    /// How long the faults last together.
    pub phase_ms: u64,
    /// Shards.
    pub shards: u16,
    /// Of 1,000 inputs so many share their outputs with the next.
    pub lazy_permille: u64,
    /// Nodes are woken up to so much later than they want to be.
    pub timers_late_ms: u64,
    /// Discovery tells changes up to so much later.
    pub discovery_lag_ms: u64,
    /// What goes wrong.
    pub faults: Vec<Fault>,
    /// The nodes that must agree at the end.
    pub core: Vec<Seat>,
}

impl Setup {
    /// Draws the setup of a seed.
    #[must_use]
    pub fn draw(seed: u64) -> Self {
        let mut random = Random::new(seed).fork(1);
        let late = seed >= LATE_FROM;
        let huge = seed >= HUGE_FROM && !late;
        let large = random.below(LARGE_EVERY) == 0 || huge;
        let weather = if random.chance(200) { Weather::Healthy } else { Weather::Faulty };
        let nodes = match (huge, large) {
            (true, _) => HUGE_NODES,
            (false, true) => LARGE_NODES,
            (false, false) => random.between(3, 16).min(random.between(3, 16)) as usize,
        };
        let region_count = random.between(1, 4) as usize;
        let regions: Vec<usize> = (0..nodes).map(|_| random.index(region_count)).collect();
        let delays = draw_delays(region_count, weather, &mut random);
        let ttl_ms = random.between(8, 20) * 1_000;
        let small_table = weather == Weather::Faulty && random.chance(200);
        let capacities = draw_capacities(nodes, small_table, &mut random);
        let limits = draw_limits(weather, &mut random, Random::new(seed).fork(9));
        let phase_ms = if large { 25_000 } else { random.between(60, 130) * 1_000 };
        let mut core: Vec<Seat> = (0..nodes).collect();
        random.shuffle(&mut core);
        if weather == Weather::Faulty {
            let most = if random.chance(300) { nodes } else { random.between(2, nodes as u64) as usize };
            core.truncate(most);
        }
        core.sort_unstable();
        // With many peers every round of outputs is dear.
        let lazy_permille = match random.below(10) {
            _ if large => 600,
            0..4 => random.below(400),
            _ => 0,
        };
        let shards = random.between(3, 8) as u16;
        let mut faults = match weather {
            Weather::Healthy => Vec::new(),
            Weather::Faulty => draw_faults(nodes, shards, phase_ms, &mut random),
        };
        // By themselves: the other draws of a seed are as old as the seeds that were kept.
        faults.extend(draw_shard_faults(nodes, shards, phase_ms, 4, &mut Random::new(seed).fork(10)));
        Self {
            seed,
            weather,
            regions,
            capacities,
            delays,
            ttl_ms,
            limits,
            steps: if large { 750 } else { 800 },
            phase_ms,
            shards,
            lazy_permille,
            timers_late_ms: if late { Random::new(seed).fork(11).between(1, LATE_MAX_MS) } else { 0 },
            discovery_lag_ms: if random.chance(500) { random.below(6_000) } else { 0 },
            faults,
            core,
        }
    }

    /// The number of nodes.
    #[must_use]
    pub const fn nodes(&self) -> usize {
        self.regions.len()
    }

    /// The delay from a node to another one.
    #[must_use]
    pub fn delay(&self, from: Seat, to: Seat) -> Delay {
        self.delays[self.regions[from]][self.regions[to]]
    }

    /// The longest delay of any path.
    #[must_use]
    pub fn delay_max_ms(&self) -> u64 {
        self.delays.iter().flatten().map(|delay| delay.longest_ms()).max().unwrap_or(0)
    }

    /// Whether tables are so small that they become full.
    #[must_use]
    pub fn small_tables(&self) -> bool {
        self.capacities.iter().any(|capacity| *capacity < 10_000)
    }

    /// The configuration of a node.
    ///
    /// # Panics
    /// Never: such names are valid.
    #[must_use]
    pub fn config(&self, seat: Seat) -> Config {
        let me = PeerId::parse(&format!("n{seat:02}")).expect("a valid name");
        Config {
            ttl_ms: self.ttl_ms,
            entries_max: self.capacities[seat],
            claims_max: self.limits.claims_max,
            waiters_max: self.limits.waiters_max,
            log_max: self.limits.log_max,
            batch_items: self.limits.batch_items,
            window_items: self.limits.window_items,
            gives_window: self.limits.bulk_window,
            ..Config::new(me, 1)
        }
    }
}

#[expect(clippy::needless_range_loop, reason = "both directions of a pair are written at once")]
/// Within a region 1 to 15 ms; between regions up to 400 ms, and the spread of one path is moderate.
fn draw_delays(regions: usize, weather: Weather, random: &mut Random) -> Vec<Vec<Delay>> {
    let mut delays = vec![vec![Delay::Fixed(1); regions]; regions];
    for a in 0..regions {
        for b in a..regions {
            let least = if a == b { random.between(1, 5) } else { random.between(5, 300) };
            let spread = if a == b { random.between(0, 10) } else { random.between(0, least / 3) };
            delays[a][b] = Delay::Range(least, least + spread);
            // Ways there and back differ sometimes.
            let back = if weather == Weather::Faulty && random.chance(200) { least / 2 + 1 } else { least };
            delays[b][a] = Delay::Range(back, back + spread);
        }
    }
    delays
}

fn draw_capacities(nodes: usize, small: bool, random: &mut Random) -> Vec<usize> {
    let base = random.between(30, 120) as usize;
    let unequal = random.chance(500);
    (0..nodes)
        .map(|_| match (small, unequal) {
            (false, _) => 1_000_000,
            (true, false) => base,
            (true, true) => base + random.index(base),
        })
        .collect()
}

fn draw_limits(weather: Weather, random: &mut Random, mut outbox: Random) -> Limits {
    let tight = weather == Weather::Faulty && random.chance(300);
    let mut limit = |usual: u64, least: u64, most: u64| {
        if tight && random.chance(500) { random.between(least, most) } else { usual }
    };
    let outbox_usual = 8_192;
    // Drawn by itself: the other draws of a seed are as old as the seeds that were kept.
    let outbox = if weather == Weather::Faulty && outbox.chance(100) {
        outbox.between(48, 96) as usize
    } else {
        outbox_usual
    };
    let mut limits = Limits {
        claims_max: limit(4_096, 2, 6) as usize,
        waiters_max: limit(1_024, 1, 3) as usize,
        log_max: limit(262_144, 8, 64) as usize,
        batch_items: limit(256, 1, 8) as usize,
        window_items: limit(8_192, 4, 16),
        bulk_window: limit(16, 1, 2),
        outbox,
    };
    if limits.outbox < outbox_usual {
        // An outbox takes what a peer that comes back is sent at once: log and reports in batches, claims that were under way, and as many of
        // what this node decided alone. With batches of a few items, or with thousands of claims, a small one never would.
        limits.batch_items = 256;
        limits.claims_max = limits.claims_max.min(limits.outbox / 4);
    }
    limits
}
