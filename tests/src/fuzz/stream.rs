//! What comes on a stream of a peer: frames one after another, until one is refused or the stream ends.

use std::pin::pin;
use std::task::{Context, Poll, Waker};

use shardgate_peering::codec::{Decoder, FRAME_MAX, FrameError, read_frame};

use super::hostile;

/// A stream's bytes.
pub fn stream(data: &[u8]) {
    let mut rest = data;
    let mut decoder = Decoder::default();
    loop {
        let from = rest;
        let body = match at_once(read_frame(&mut rest)) {
            Ok(Some(body)) => body,
            Ok(None) => {
                assert!(from.is_empty(), "{} bytes are left out", from.len());
                return;
            }
            Err(error) => return assert_refused(&error, from, FRAME_MAX),
        };
        let mut said = from;
        assert_eq!(prost::decode_length_delimiter(&mut said), Ok(body.len()), "the length is protobuf's");
        assert!(body.len() <= FRAME_MAX && said.starts_with(&body) && said[body.len()..] == *rest);
        match decoder.decode(&body) {
            Ok(messages) => messages.iter().for_each(hostile::assert_bounded),
            Err(error) => return assert!(!error.to_string().is_empty(), "a refusal says why"),
        }
    }
}

/// What is refused is no frame of at most `max` bytes.
pub(super) fn assert_refused(error: &FrameError, whole: &[u8], max: usize) {
    let length_bytes_max = max.ilog2() as usize / 7 + 1;
    let mut from = whole;
    let said = prost::decode_length_delimiter(&mut from);
    let says_why = if matches!(error, FrameError::TooLong { .. }) {
        // The first bits of it are enough to know.
        said.is_err() || said.is_ok_and(|len| len > max)
    } else if matches!(error, FrameError::LongLength) {
        whole.len() >= length_bytes_max && whole[..length_bytes_max].iter().all(|byte| *byte >= 0x80)
    } else {
        matches!(error, FrameError::Truncated) && (said.is_err() || said.is_ok_and(|len| len > from.len()))
    };
    assert!(says_why, "what could not be read as a frame is refused with: {error}");
}

/// Bytes in memory keep nobody waiting.
pub(super) fn at_once<T>(future: impl Future<Output = T>) -> T {
    match pin!(future).poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(value) => value,
        Poll::Pending => panic!("reading from memory waits"),
    }
}
