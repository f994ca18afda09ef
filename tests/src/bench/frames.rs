//! The least of RFC 6455 that an echo needs: one binary message a frame, lengths up to 65,535.

/// Bytes of a client's frame before the payload when it is longer than 125: two, the length, the mask.
pub const CLIENT_HEAD: usize = 8;
/// The same of a server's frame, which has no mask.
pub const SERVER_HEAD: usize = 4;
const FIN_BINARY: u8 = 0x82;
const MASKED: u8 = 0x80;
const LENGTH_OF_16_BITS: u8 = 126;

/// A client's frame; the payload must be 126 to 65,535 bytes long.
#[must_use]
pub fn client_frame(payload: &[u8], mask: [u8; 4]) -> Vec<u8> {
    let mut frame = head(payload.len(), MASKED);
    frame.extend(mask);
    frame.extend(payload.iter().zip(mask.iter().cycle()).map(|(byte, mask)| byte ^ mask));
    frame
}

/// A server's frame; the payload must be 126 to 65,535 bytes long.
#[must_use]
pub fn server_frame(payload: &[u8]) -> Vec<u8> {
    let mut frame = head(payload.len(), 0);
    frame.extend(payload);
    frame
}

/// Takes one whole client's frame off the front of `bytes`: its payload without the mask, and how many bytes it took.
#[must_use]
pub fn take_client_frame(bytes: &[u8]) -> Taken {
    let &[first, second, ..] = bytes else { return Taken::Incomplete };
    if first != FIN_BINARY || second != MASKED | LENGTH_OF_16_BITS {
        return Taken::Unexpected;
    }
    let &[_, _, high, low, m0, m1, m2, m3, ..] = bytes else { return Taken::Incomplete };
    let length = usize::from(u16::from_be_bytes([high, low]));
    let Some(masked) = bytes.get(CLIENT_HEAD..CLIENT_HEAD + length) else { return Taken::Incomplete };
    let payload =
        masked.iter().zip([m0, m1, m2, m3].iter().cycle()).map(|(byte, mask)| byte ^ mask).collect();
    Taken::Frame { payload, length: CLIENT_HEAD + length }
}

/// What the front of a buffer held.
#[derive(Debug, PartialEq, Eq)]
pub enum Taken {
    /// More bytes are needed.
    Incomplete,
    /// Not a frame that this bench's client sends (a close frame, say).
    Unexpected,
    /// A frame.
    Frame {
        /// The unmasked payload.
        payload: Vec<u8>,
        /// Bytes that the frame took.
        length: usize,
    },
}

fn head(length: usize, masked: u8) -> Vec<u8> {
    let length = u16::try_from(length).expect("a bench message is shorter than 64 KiB");
    let [high, low] = length.to_be_bytes();
    vec![FIN_BINARY, masked | LENGTH_OF_16_BITS, high, low]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_client_frames_the_origin_takes() {
        let payload: Vec<u8> = (0..200).collect();
        let mut bytes = client_frame(&payload, [1, 2, 3, 250]);
        assert_eq!(take_client_frame(&bytes[..7]), Taken::Incomplete);
        assert_eq!(take_client_frame(&bytes[..100]), Taken::Incomplete);
        bytes.push(0x82);
        assert_eq!(take_client_frame(&bytes), Taken::Frame { payload, length: 208 });
        assert_eq!(take_client_frame(&[0x88, 0x80]), Taken::Unexpected);
    }
}
