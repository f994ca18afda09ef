//! How a relayed stream begins: one frame, and what follows it is left alone.

use shardgate_peering::codec::{
    CONNECT_WITHIN_MAX, RELAY_FRAME_MAX, decode_relay_open, decode_relay_opened, encode_relay_open,
    encode_relay_opened, read_frame_within,
};

use super::stream::{assert_refused, at_once};

/// A stream's bytes, as either side may send them.
pub fn relay(data: &[u8]) {
    let mut rest = data;
    let body = match at_once(read_frame_within(&mut rest, RELAY_FRAME_MAX)) {
        Ok(Some(body)) => body,
        Ok(None) => return assert!(data.is_empty(), "{} bytes are left out", data.len()),
        Err(error) => return assert_refused(&error, data, RELAY_FRAME_MAX),
    };
    assert!(body.len() <= RELAY_FRAME_MAX && data.ends_with(rest), "bytes behind the frame are the client's");
    match decode_relay_open(&body) {
        Ok(open) => {
            assert!(!open.shard.as_str().is_empty() && open.connect_within <= CONNECT_WITHIN_MAX);
            let frame = encode_relay_open(&open);
            assert_eq!(decode_relay_open(again(&frame)).as_ref(), Ok(&open));
        }
        Err(error) => assert!(!error.to_string().is_empty(), "a refusal says why"),
    }
    match decode_relay_opened(&body) {
        Ok(answer) => assert_eq!(decode_relay_opened(again(&encode_relay_opened(answer))), Ok(answer)),
        Err(error) => assert!(!error.to_string().is_empty(), "a refusal says why"),
    }
}

/// The body of a frame of ours.
fn again(frame: &[u8]) -> &[u8] {
    let mut body = frame;
    let len = prost::decode_length_delimiter(&mut body).expect("the length is said");
    assert!(len == body.len() && len <= RELAY_FRAME_MAX, "a frame of ours is whole and short");
    body
}
