//! A frame from a peer: it is refused, skipped, or a message that says the same after another way through the wire.

use prost::bytes::BytesMut;
use shardgate_peering::codec::{self, Decoder, Encoder};

use super::hostile;

/// The body of a frame, as it comes off the wire.
pub fn frame(data: &[u8]) {
    let messages = match codec::decode(data) {
        Ok(messages) => messages,
        Err(error) => {
            assert!(!error.to_string().is_empty(), "a refusal says why");
            return;
        }
    };
    for message in &messages {
        hostile::assert_bounded(message);
        let again = codec::encode(message);
        // An absent list may become an empty one.
        assert!(
            messages.len() > 1 || again.len() <= data.len() + 8,
            "{} bytes became {}",
            data.len(),
            again.len()
        );
        assert_eq!(
            codec::decode(&again).as_ref(),
            Ok(&vec![message.clone()]),
            "another way through the wire changed it"
        );
    }
    // All of them together, twice, on one stream.
    let (mut encoder, mut decoder) = (Encoder::default(), Decoder::default());
    for _ in 0..2 {
        let mut frames = BytesMut::new();
        encoder.encode(messages.clone(), &mut frames);
        let mut heard = Vec::new();
        while !frames.is_empty() {
            let len = prost::decode_length_delimiter(&mut frames).expect("the length is said");
            heard.extend(decoder.decode(&frames.split_to(len)).expect("what was encoded"));
        }
        assert_eq!(heard.len(), messages.len(), "nothing is lost between two ends of a stream");
    }
}
