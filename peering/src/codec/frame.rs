//! Where a frame ends: each begins with the length of its body, a varint (protobuf's "length-delimited").

use std::io::ErrorKind;

use tokio::io::{AsyncRead, AsyncReadExt};

use super::{FRAME_MAX, FrameError};

/// The body of the next frame; `None` at the end of the stream between two frames, or when the connection is gone.
///
/// # Errors
/// [`FrameError::TooLong`], [`FrameError::LongLength`] and [`FrameError::Truncated`].
pub async fn read_frame(stream: &mut (impl AsyncRead + Unpin)) -> Result<Option<Vec<u8>>, FrameError> {
    read_frame_within(stream, FRAME_MAX).await
}

/// The same for a body of at most `max` bytes. Nothing behind the frame is read.
///
/// # Errors
/// As [`read_frame`].
pub async fn read_frame_within(
    stream: &mut (impl AsyncRead + Unpin),
    max: usize,
) -> Result<Option<Vec<u8>>, FrameError> {
    // The last seven bits of a length begin at this one.
    let length_bits_max = max.max(1).ilog2() / 7 * 7;
    let mut len = 0_usize;
    for shift in (0..).step_by(7) {
        let byte = match stream.read_u8().await {
            Ok(byte) => byte,
            Err(error) if shift > 0 && error.kind() == ErrorKind::UnexpectedEof => {
                return Err(FrameError::Truncated);
            }
            Err(_) => return Ok(None),
        };
        len |= usize::from(byte & 0x7f) << shift;
        if len > max {
            return Err(FrameError::TooLong { len, max });
        }
        if byte < 0x80 {
            break;
        }
        if shift >= length_bits_max {
            return Err(FrameError::LongLength);
        }
    }
    let mut body = vec![0; len];
    match stream.read_exact(&mut body).await {
        Ok(_) => Ok(Some(body)),
        Err(error) if error.kind() == ErrorKind::UnexpectedEof => Err(FrameError::Truncated),
        Err(_) => Ok(None),
    }
}
