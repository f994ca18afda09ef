//! Connections to shards. One is driven by whoever uses it, inside that request's own task: there is no task for it, so a
//! request costs one wake-up per socket event and no message between tasks. While it lies in the pool nobody drives it.

use crate::body::RequestBody;
use crate::socket::Socket;
use bytes::Bytes;
use hyper::body::Incoming;
use hyper::client::conn::TrySendError;
use hyper::client::conn::http1::{Connection, SendRequest};
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use std::task::{Context, Poll, Waker, ready};

mod connect;
mod manner;
mod pool;
mod suspects;

pub(crate) use connect::ConnectError;
pub use connect::ConnectLimits;
pub(crate) use connect::{connect, tcp};
pub(crate) use manner::Destination;
pub use manner::{MannerError, Manners};
pub(crate) use pool::Pool;
pub use pool::PoolLimits;
pub(crate) use suspects::Suspects;

/// What hyper answers to a request, the request itself when it was not begun.
pub(crate) type SendResult = Result<Response<Incoming>, TrySendError<Request<RequestBody>>>;

/// A connection to a shard, with both of hyper's halves.
pub(crate) struct Upstream {
    sender: SendRequest<RequestBody>,
    state: State,
    destination: Destination,
}

enum State {
    Open(Connection<TokioIo<Socket>, RequestBody>),
    /// hyper is through with it; after an upgrade the socket is still to be taken.
    Over(Connection<TokioIo<Socket>, RequestBody>),
    Abandoned,
}

impl Upstream {
    /// Moves bytes as far as they go. `Ready` when hyper is through with the connection: closed, broken or upgraded.
    pub(crate) fn poll_drive(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let State::Open(connection) = &mut self.state else { return Poll::Ready(()) };
        // An error comes out of the request's future or of the answer's body as well.
        ready!(connection.poll_without_shutdown(cx)).ok();
        self.state = match std::mem::replace(&mut self.state, State::Abandoned) {
            State::Open(connection) | State::Over(connection) => State::Over(connection),
            State::Abandoned => State::Abandoned,
        };
        Poll::Ready(())
    }

    /// Drops hyper's connection: what was queued on it and not begun comes back.
    pub(crate) fn abandon(&mut self) {
        self.state = State::Abandoned;
    }

    /// Whether another request can be sent. Looks for a close that has come meanwhile, and forgets the task that used the
    /// connection before: it shall neither be woken nor kept in memory by it.
    pub(crate) fn is_reusable(&mut self) -> bool {
        self.poll_drive(&mut Context::from_waker(Waker::noop())).is_pending() && self.sender.is_ready()
    }

    /// Hands a request to hyper; the future is to be polled after [`Self::poll_drive`], which alone can make it ready.
    pub(crate) fn send(&mut self, request: Request<RequestBody>) -> impl Future<Output = SendResult> + use<> {
        self.sender.try_send_request(request)
    }

    /// The socket, and what was read beyond HTTP, once hyper is through with it after an upgrade; `None` after [`Self::abandon`].
    pub(crate) fn into_stream(self) -> Option<(Socket, Bytes)> {
        match self.state {
            State::Open(connection) | State::Over(connection) => {
                let parts = connection.into_parts();
                Some((parts.io.into_inner(), parts.read_buf))
            }
            State::Abandoned => None,
        }
    }
}
