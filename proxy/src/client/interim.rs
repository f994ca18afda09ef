//! Interim answers of a shard on their way to an HTTP/1.1 client. hyper's server cannot write any: they go past it.

use http::header::{CONNECTION, CONTENT_LENGTH, TE, TRANSFER_ENCODING, UPGRADE};
use http::{HeaderMap, StatusCode};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};

/// Bytes that wait for a client; what is more is dropped, as the client may ignore it anyway (RFC 9110, 15.2).
const BYTES_MAX: usize = 16 * 1024;

/// Those of one connection that are not written yet. hyper wants to be told of them from any thread, so it is a lock, though
/// there is only one thread: it is never waited for.
#[derive(Debug, Default)]
pub(super) struct Interims {
    any: AtomicBool,
    bytes: Mutex<Vec<u8>>,
}

impl Interims {
    /// Takes one of a shard; 100 is hyper's own to say, and 101 is no interim answer.
    pub(super) fn push(&self, status: StatusCode, headers: &HeaderMap) {
        if status == StatusCode::CONTINUE || status == StatusCode::SWITCHING_PROTOCOLS {
            return;
        }
        let reason = status.canonical_reason().unwrap_or("Interim");
        let mut interim = format!("HTTP/1.1 {} {reason}\r\n", status.as_u16()).into_bytes();
        for (name, value) in headers {
            // It frames nothing, and is no word about the connection.
            if ![CONNECTION, CONTENT_LENGTH, TE, TRANSFER_ENCODING, UPGRADE].contains(name) {
                interim.extend_from_slice(name.as_str().as_bytes());
                interim.extend_from_slice(b": ");
                interim.extend_from_slice(value.as_bytes());
                interim.extend_from_slice(b"\r\n");
            }
        }
        interim.extend_from_slice(b"\r\n");
        let mut bytes = self.bytes.lock().unwrap_or_else(PoisonError::into_inner);
        if bytes.len() + interim.len() <= BYTES_MAX {
            bytes.append(&mut interim);
            self.any.store(true, Ordering::Release);
        }
    }

    /// Forgets what there is.
    pub(super) fn clear(&self) {
        self.take(&mut Vec::new());
    }

    /// Moves what there is behind `to`.
    pub(super) fn take(&self, to: &mut Vec<u8>) {
        if self.any.swap(false, Ordering::Acquire) {
            to.append(&mut self.bytes.lock().unwrap_or_else(PoisonError::into_inner));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::HeaderValue;
    use http::header::LINK;

    #[test]
    fn what_is_pushed_is_taken_once_and_only_so_much_of_it() {
        let interims = Interims::default();
        let mut headers = HeaderMap::new();
        headers.insert(LINK, HeaderValue::from_static("</x>"));
        headers.insert(CONNECTION, HeaderValue::from_static("close"));
        interims.push(StatusCode::CONTINUE, &headers);
        let (mut taken, mut again) = (Vec::new(), Vec::new());
        interims.push(StatusCode::EARLY_HINTS, &headers);
        interims.take(&mut taken);
        interims.take(&mut again);
        assert_eq!(String::from_utf8(taken).unwrap(), "HTTP/1.1 103 Early Hints\r\nlink: </x>\r\n\r\n");
        assert!(again.is_empty());
        (0..10_000).for_each(|_| interims.push(StatusCode::EARLY_HINTS, &headers));
        interims.take(&mut again);
        assert!(again.len() <= BYTES_MAX && again.len() > BYTES_MAX / 2, "{}", again.len());
    }
}
