//! Which of several shards a token belongs to: weighted rendezvous hashing with a bounded load. Pure, and the same on every
//! node of a mesh that sees the same shards.
//!
//! A shard's *cost* for a token is `-log2(u) / weight` with `u = mix(hash64(token, 1) ^ hash64(shard, 2)) / 2^64`; the cheapest
//! shard wins, a tie goes to the lower name. So each shard gets a share of the tokens that is its share of the weights, and
//! when one comes or goes only its own tokens move. The logarithm is computed in integers (32 fractional bits): no node may
//! differ by its floating point.

use shardgate_discovery::Shard;
use shardgate_peering_core::{ShardName, hash64};
use std::sync::Arc;

const TOKEN_SEED: u64 = 1;
const SHARD_SEED: u64 = 2;

/// The hash of a token, as [`place`] wants it.
#[must_use]
pub fn token_hash(token: &str) -> u64 {
    hash64(token.as_bytes(), TOKEN_SEED)
}

/// A shard with the hash of its name, computed once per snapshot.
#[derive(Debug, Clone)]
pub struct Candidate {
    /// The shard.
    pub shard: Arc<Shard>,
    hash: u64,
}

impl Candidate {
    /// Hashes the shard's name.
    #[must_use]
    pub fn new(shard: Arc<Shard>) -> Self {
        let hash = hash64(shard.name.as_str().as_bytes(), SHARD_SEED);
        Self { shard, hash }
    }
}

/// Whether the load of the shards has a say.
#[derive(Clone, Copy)]
pub enum Balance<'a> {
    /// The token alone decides: nothing is stored, so every node must compute the same.
    Hash,
    /// A shard whose conferences would pass so many percent of its share (HAProxy's `hash-balance-factor`) is passed over.
    Bounded {
        /// Percent of the average, by weight.
        percent: u32,
        /// How many conferences a shard has.
        conferences: &'a dyn Fn(&ShardName) -> u64,
    },
}

impl std::fmt::Debug for Balance<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Hash => "Hash",
            Self::Bounded { .. } => "Bounded",
        })
    }
}

/// The shard of `level` that the token belongs to, among those that are `usable` and have a weight; `None` when there is none.
#[must_use]
pub fn place<'a>(
    token_hash: u64,
    level: &'a [Candidate],
    usable: &dyn Fn(&Shard) -> bool,
    balance: Balance<'_>,
) -> Option<&'a Candidate> {
    let candidates =
        || level.iter().filter(|candidate| candidate.shard.weight > 0 && usable(&candidate.shard));
    match balance {
        Balance::Hash => cheapest(token_hash, candidates()),
        Balance::Bounded { percent, conferences } => {
            let (mut total, mut weights) = (0_u128, 0_u128);
            for candidate in candidates() {
                total += u128::from(conferences(&candidate.shard.name));
                weights += u128::from(candidate.shard.weight);
            }
            // Not all can be full: were each at its bound, they held more than they hold. The counts may change between
            // the two passes, so the plain hash stands behind it.
            let free = candidates().filter(|candidate| {
                let share = (total + 1) * u128::from(percent) * u128::from(candidate.shard.weight);
                u128::from(conferences(&candidate.shard.name)) < share.div_ceil(100 * weights)
            });
            cheapest(token_hash, free).or_else(|| cheapest(token_hash, candidates()))
        }
    }
}

fn cheapest<'a>(token_hash: u64, candidates: impl Iterator<Item = &'a Candidate>) -> Option<&'a Candidate> {
    candidates
        .map(|candidate| (cost(token_hash, candidate), candidate))
        .reduce(|best, next| {
            let (best_cost, next_cost) = (u128::from(best.0), u128::from(next.0));
            let by_cost = (next_cost * u128::from(best.1.shard.weight))
                .cmp(&(best_cost * u128::from(next.1.shard.weight)));
            if by_cost.then_with(|| next.1.shard.name.cmp(&best.1.shard.name)).is_lt() { next } else { best }
        })
        .map(|(_, candidate)| candidate)
}

/// `-log2(u)` in units of 2^-32, not yet divided by the weight.
fn cost(token_hash: u64, candidate: &Candidate) -> u64 {
    (64 << 32) - log2(mix(token_hash ^ candidate.hash) | 1)
}

/// The finaliser of MurmurHash3: every bit of the input moves every bit of the output.
const fn mix(mut value: u64) -> u64 {
    value ^= value >> 33;
    value = value.wrapping_mul(0xff51_afd7_ed55_8ccd);
    value ^= value >> 33;
    value = value.wrapping_mul(0xc4ce_b9fe_1a85_ec53);
    value ^ (value >> 33)
}

/// `log2(value)` in units of 2^-32, for a `value` of at least 1: squaring doubles the logarithm, so each squaring that
/// passes 2 yields the next bit.
const fn log2(value: u64) -> u64 {
    let exponent = value.ilog2();
    let mut mantissa = value << (63 - exponent);
    let mut bits = 0;
    let mut bit = 1_u64 << 31;
    while bit > 0 {
        let square = (mantissa as u128) * (mantissa as u128);
        if square >> 127 == 1 {
            bits |= bit;
            mantissa = (square >> 64) as u64;
        } else {
            mantissa = (square >> 63) as u64;
        }
        bit >>= 1;
    }
    ((exponent as u64) << 32) | bits
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::route::tests::shard;
    use std::collections::HashMap;

    fn level(weights: &[(&str, u16)]) -> Vec<Candidate> {
        weights
            .iter()
            .map(|(name, weight)| {
                let mut shard = shard(name, "r", "release-1");
                shard.weight = *weight;
                Candidate::new(Arc::new(shard))
            })
            .collect()
    }

    fn share(level: &[Candidate], tokens: u32) -> HashMap<String, u32> {
        let mut share = HashMap::new();
        for token in 0..tokens {
            let chosen = place(token_hash(&format!("room{token}")), level, &|_| true, Balance::Hash).unwrap();
            *share.entry(chosen.shard.name.to_string()).or_default() += 1;
        }
        share
    }

    #[test]
    fn logarithms_are_right() {
        assert_eq!(log2(1), 0);
        assert_eq!(log2(1 << 40), 40 << 32);
        for value in [3_u64, 1000, 123_456_789, u64::MAX] {
            let exact = (value as f64).log2();
            assert!((log2(value) as f64 / 4_294_967_296.0 - exact).abs() < 1e-8, "{value}");
        }
    }

    #[test]
    fn shares_follow_weights() {
        let share = share(&level(&[("s1", 256), ("s2", 256), ("s3", 128), ("s4", 0)]), 20_000);
        for (name, expected) in [("s1", 8000_i64), ("s2", 8000), ("s3", 4000)] {
            assert!((i64::from(share[name]) - expected).abs() < 300, "{name}: {}", share[name]);
        }
        assert!(!share.contains_key("s4"));
    }

    #[test]
    fn only_the_tokens_of_a_lost_shard_move() {
        let all = level(&[("s1", 256), ("s2", 256), ("s3", 100)]);
        for token in 0..2000 {
            let token = token_hash(&format!("room{token}"));
            let before = place(token, &all, &|_| true, Balance::Hash).unwrap().shard.name.clone();
            let after = place(token, &all, &|shard| shard.name.as_str() != "s2", Balance::Hash)
                .unwrap()
                .shard
                .name
                .clone();
            assert!(before == after || before.as_str() == "s2");
        }
    }

    #[test]
    fn the_formula_is_a_contract() {
        // Every node of a mesh computes these, whatever it was built with.
        let all = level(&[("s1", 256), ("s2", 256), ("s3", 128)]);
        let chosen: Vec<String> = (0..12)
            .map(|room| {
                place(token_hash(&format!("room{room}")), &all, &|_| true, Balance::Hash)
                    .unwrap()
                    .shard
                    .name
                    .to_string()
            })
            .collect();
        assert_eq!(chosen.join(" "), "s3 s2 s2 s1 s3 s1 s1 s2 s2 s1 s1 s2");
    }

    #[test]
    fn load_is_bounded() {
        let all = level(&[("s1", 256), ("s2", 256), ("s3", 256), ("s4", 128)]);
        let mut conferences: HashMap<String, u64> = HashMap::new();
        for token in 0..1000 {
            let load = |name: &ShardName| conferences.get(name.as_str()).copied().unwrap_or(0);
            let chosen = place(
                token_hash(&format!("room{token}")),
                &all,
                &|_| true,
                Balance::Bounded { percent: 150, conferences: &load },
            )
            .unwrap();
            *conferences.entry(chosen.shard.name.to_string()).or_default() += 1;
            let total: u64 = conferences.values().sum();
            for (name, weight) in [("s1", 256), ("s2", 256), ("s3", 256), ("s4", 128)] {
                let bound = (total * 3 * weight).div_ceil(2 * 896);
                assert!(
                    conferences.get(name).copied().unwrap_or(0) <= bound.max(1),
                    "{name} of {conferences:?}"
                );
            }
        }
    }

    #[test]
    fn nobody_usable() {
        assert!(place(1, &level(&[("s1", 0)]), &|_| true, Balance::Hash).is_none());
        assert!(
            place(
                1,
                &level(&[("s1", 1)]),
                &|_| false,
                Balance::Bounded { percent: 150, conferences: &|_| 0 }
            )
            .is_none()
        );
        assert!(place(1, &[], &|_| true, Balance::Hash).is_none());
    }
}
