//! One GET over a connection of its own, for the clients of `dev --check`.

use std::net::SocketAddr;
use std::time::Duration;

use bytes::Bytes;
use http::header::HOST;
use http::{HeaderMap, Request, StatusCode};
use http_body_util::{BodyExt, Empty, Limited};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;
use tokio::time::timeout;

/// Largest body read.
const BODY_BYTES_MAX: usize = 1024 * 1024;

/// What came back.
#[derive(Debug)]
pub struct Answer {
    /// Status of the answer.
    pub status: StatusCode,
    /// Headers of the answer.
    pub headers: HeaderMap,
    /// The whole body.
    pub body: Bytes,
}

/// Why nothing came back.
#[derive(Debug, thiserror::Error)]
pub enum GetError {
    /// No connection.
    #[error("connecting to {address}: {source}")]
    Connect {
        /// Where to.
        address: SocketAddr,
        /// What the system said.
        source: std::io::Error,
    },
    /// The target is no valid request target.
    #[error("request for {target:?}: {source}")]
    Target {
        /// What was asked for.
        target: String,
        /// What is wrong with it.
        source: http::Error,
    },
    /// The connection broke before the answer was complete.
    #[error("GET {target} at {address}: {source}")]
    Http {
        /// Where to.
        address: SocketAddr,
        /// What was asked for.
        target: String,
        /// What hyper said.
        source: hyper::Error,
    },
    /// The body broke off or is larger than 1 MiB.
    #[error("GET {target} at {address}: body: {reason}")]
    Body {
        /// Where to.
        address: SocketAddr,
        /// What was asked for.
        target: String,
        /// What went wrong.
        reason: String,
    },
    /// Nothing in time.
    #[error("GET {target} at {address}: no answer within {within:?}")]
    Late {
        /// Where to.
        address: SocketAddr,
        /// What was asked for.
        target: String,
        /// The time given.
        within: Duration,
    },
}

impl Answer {
    /// A header's value, empty when it is missing or no text.
    pub fn header(&self, name: &str) -> &str {
        self.headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default()
    }
}

/// Asks for `target` (path and query) and reads the whole answer.
pub async fn get(address: SocketAddr, target: &str, within: Duration) -> Result<Answer, GetError> {
    timeout(within, exchange(address, target))
        .await
        .unwrap_or_else(|_| Err(GetError::Late { address, target: target.to_owned(), within }))
}

async fn exchange(address: SocketAddr, target: &str) -> Result<Answer, GetError> {
    let broken = |source| GetError::Http { address, target: target.to_owned(), source };
    let request = Request::get(target)
        .header(HOST, address.to_string())
        .body(Empty::<Bytes>::new())
        .map_err(|source| GetError::Target { target: target.to_owned(), source })?;
    let stream = TcpStream::connect(address).await.map_err(|source| GetError::Connect { address, source })?;
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await.map_err(broken)?;
    let answered =
        async {
            let response = sender.send_request(request).await.map_err(broken)?;
            let (parts, body) = response.into_parts();
            let body = Limited::new(body, BODY_BYTES_MAX).collect().await.map_err(|error| {
                GetError::Body { address, target: target.to_owned(), reason: error.to_string() }
            })?;
            Ok(Answer { status: parts.status, headers: parts.headers, body: body.to_bytes() })
        };
    // The connection has to be driven while the answer is awaited. When it ends first, the sender tells why.
    let mut answered = std::pin::pin!(answered);
    tokio::select! {
        answer = &mut answered => answer,
        _ended = connection => answered.await,
    }
}
