//! The only source of chance in simulations: small, seeded, the same on every machine.

/// `SplitMix64` (Steele, Lea, Flood 2014): one word of state, passes `BigCrush`, no seed is a bad one.
#[derive(Debug, Clone)]
pub struct Random(u64);

/// Mixes a word thoroughly; also used to hash traces.
#[must_use]
pub const fn mix(word: u64) -> u64 {
    let word = (word ^ (word >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let word = (word ^ (word >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    word ^ (word >> 31)
}

impl Random {
    /// The sequence of this seed.
    #[must_use]
    pub const fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// An independent sequence, named by `what`, that leaves this one as it is.
    #[must_use]
    pub const fn fork(&self, what: u64) -> Self {
        Self(mix(self.0 ^ mix(what.wrapping_add(0x5851_f42d_4c95_7f2d))))
    }

    /// The next word.
    pub const fn word(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        mix(self.0)
    }

    /// A number below `bound` (0 when that is 0). The bias is below 2^-32 for every bound used here.
    pub const fn below(&mut self, bound: u64) -> u64 {
        let word = self.word();
        if bound == 0 { 0 } else { word % bound }
    }

    /// An index below `len`.
    pub fn index(&mut self, len: usize) -> usize {
        usize::try_from(self.below(len as u64)).unwrap_or(0)
    }

    /// A number from `least` to `most`, both possible.
    pub const fn between(&mut self, least: u64, most: u64) -> u64 {
        least + self.below(most - least + 1)
    }

    /// True in `permille` of 1,000 cases.
    pub const fn chance(&mut self, permille: u64) -> bool {
        self.below(1_000) < permille
    }

    /// One of these.
    ///
    /// # Panics
    /// When there is none.
    pub fn pick<'a, T>(&mut self, of: &'a [T]) -> &'a T {
        &of[self.index(of.len())]
    }

    /// Brings them into a random order (Fisher and Yates).
    pub fn shuffle<T>(&mut self, items: &mut [T]) {
        for last in (1..items.len()).rev() {
            let other = self.index(last + 1);
            items.swap(last, other);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_reference_sequence_of_seed_0() {
        let mut random = Random::new(0);
        assert_eq!(
            [random.word(), random.word(), random.word()],
            [0xe220_a839_7b1d_cdaf, 0x6e78_9e6a_a1b9_65f4, 0x06c4_5d18_8009_454f]
        );
    }

    #[test]
    fn a_fork_leaves_the_sequence_as_it_is() {
        let mut random = Random::new(5);
        let mut other = random.fork(1);
        assert_ne!(random.clone().word(), other.word());
        assert_eq!(random.word(), Random::new(5).word());
    }
}
