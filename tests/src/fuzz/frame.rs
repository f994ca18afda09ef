//! A frame from a peer: it is refused, skipped, or a message that says the same after another way through the wire.

use shardgate_peering::codec;

use super::hostile;

/// The body of a frame, as it comes off the wire.
pub fn frame(data: &[u8]) {
    let message = match codec::decode(data) {
        Ok(Some(message)) => message,
        Ok(None) => return,
        Err(error) => {
            assert!(!error.to_string().is_empty(), "a refusal says why");
            return;
        }
    };
    hostile::assert_bounded(&message);
    let again = codec::encode(&message);
    let (head, body) = again.split_at(4);
    assert_eq!(head, (u32::try_from(body.len()).unwrap_or(u32::MAX)).to_be_bytes(), "the length is said");
    // An absent list may become an empty one.
    assert!(body.len() <= data.len() + 8, "{} bytes became {}", data.len(), body.len());
    assert_eq!(codec::decode(body), Ok(Some(message)), "another way through the wire changed it");
}
