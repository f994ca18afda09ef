//! The one hash of the numbered contract: rendezvous of homes and placement of conferences.

use twox_hash::XxHash3_64;

/// XXH3-64 of `bytes` with `seed` (<https://github.com/Cyan4973/xxHash/blob/dev/doc/xxhash_spec.md>).
///
/// Every node of a mesh must compute the same value, so the algorithm is part of the numbered contract in the hello.
#[must_use]
pub fn hash64(bytes: &[u8], seed: u64) -> u64 {
    XxHash3_64::oneshot_with_seed(seed, bytes)
}

#[cfg(test)]
mod tests {
    use super::hash64;

    #[test]
    fn the_hash_is_the_published_one() {
        // XXH3_64bits("", seed 0), from the reference implementation's sanity tests.
        assert_eq!(hash64(b"", 0), 0x2d06_8005_38d3_94c2);
        assert_ne!(hash64(b"a", 0), hash64(b"a", 1));
    }
}
