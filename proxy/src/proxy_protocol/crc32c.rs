//! CRC-32C (Castagnoli; RFC 3720, appendix B.4), bit by bit: a header with a checksum is rare, and has a few hundred bytes.

/// The polynomial, its bits reversed.
const POLYNOMIAL: u32 = 0x82f6_3b78;

pub(super) fn crc32c(bytes: impl Iterator<Item = u8>) -> u32 {
    let step = |crc: u32| if crc & 1 == 1 { (crc >> 1) ^ POLYNOMIAL } else { crc >> 1 };
    !bytes.fold(u32::MAX, |crc, byte| (0..8).fold(crc ^ u32::from(byte), |crc, _| step(crc)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_gives_the_published_values() {
        for (bytes, sum) in [
            (&b"123456789"[..], 0xe306_9283),
            (&[0; 32], 0x8a91_36aa),
            (&[0xff; 32], 0x62a8_ab43),
            (&b""[..], 0),
        ] {
            assert_eq!(crc32c(bytes.iter().copied()), sum);
        }
    }
}
