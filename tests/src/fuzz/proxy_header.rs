//! The first bytes of a balancer's connection.

use shardgate_proxy::proxy_protocol::{Decoded, HEADER_BYTES_MAX, decode, encode};

/// Any bytes: read at once, in every part, and written again.
///
/// # Panics
/// When the answer depends on how the bytes are cut, a header is longer than it may be, or says something else when it is written anew.
pub fn proxy_header(data: &[u8]) {
    let whole = decode(data);
    let parts = data.len().min(HEADER_BYTES_MAX + 1);
    // Every cut of short ones, every 16th of long ones: they are looked at again from their beginning.
    for len in (0..parts).filter(|len| *len < 128 || len % 16 == 0) {
        let part = decode(&data[..len]);
        assert!(part == Ok(Decoded::More) || part == whole, "{part:?} after {len} bytes, then {whole:?}");
    }
    match whole {
        Ok(Decoded::More) => assert!(data.len() < HEADER_BYTES_MAX, "it waits for ever"),
        Ok(Decoded::Header(header)) => {
            assert!(header.len <= data.len().min(HEADER_BYTES_MAX));
            assert_eq!(decode(&data[..header.len]), whole, "what follows counts");
            let again = encode(header.addresses.as_ref());
            let Ok(Decoded::Header(read)) = decode(&again) else { panic!("{again:?} is no header") };
            assert_eq!((read.len, read.addresses), (again.len(), header.addresses));
        }
        Err(error) => assert!(!error.to_string().is_empty()),
    }
}
