//! Names of rooms that have nothing in common, as those that people think of: what a node saves by noticing that names
//! begin alike shall not make its figures better than they are.

const LENGTH: usize = 30;
const DIGITS: usize = 8;

/// The name of the room with this number: 30 bytes, 22 letters that depend on the number, then the number.
#[must_use]
pub fn unlike_room_name(index: usize) -> String {
    let mut state = index as u64;
    let letters = (0..LENGTH - DIGITS).map(|_| {
        // splitmix64 (Steele, Lea and Flood 2014).
        state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (state ^ (state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        char::from(b'a' + ((mixed >> 32) % 26) as u8)
    });
    letters.chain(format!("{index:08}").chars()).collect()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn names_are_long_enough_different_and_share_no_beginning() {
        let names: Vec<String> = (0..1_000).map(unlike_room_name).collect();
        assert!(names.iter().all(|name| name.len() == LENGTH));
        let beginnings: BTreeSet<&str> = names.iter().map(|name| &name[..6]).collect();
        assert!(beginnings.len() > 990, "{}", beginnings.len());
    }
}
