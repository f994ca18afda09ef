//! An HTTP/1 connection's socket as hyper reads and writes it.

use super::{Ahead, Answer, Beyond, Client};
use crate::counters::TimeoutKind;
use crate::head_guard::{HeadGuard, Scanned, Violation};
use crate::socket::Socket;
use crate::worker::Worker;
use http::StatusCode;
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// Pieces of an answer that are together no longer than this are written as one.
const JOINED_MAX: usize = 1024;

/// A client's socket as hyper has it.
///
/// What is read goes through the guard: where a message breaks a rule, the stream ends before it.
///
/// What hyper writes while there is no answer to write is its own refusal of a head. It is swallowed, and its status kept: how
/// an error looks is for `rescue` alone to say.
pub(crate) struct ClientStream {
    stream: Socket,
    client: Rc<Client>,
    worker: Rc<Worker>,
    guard: HeadGuard,
    cut: Cut,
    /// Interim answers on their way, which go before anything of hyper's.
    interim: Vec<u8>,
}

/// Where the guard has ended what hyper reads.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Cut {
    None,
    /// Before or within a head: told when everything before it is answered.
    Head(Violation),
    /// Within a body.
    Body,
}

impl ClientStream {
    pub(crate) fn new(stream: Socket, client: Rc<Client>, worker: Rc<Worker>) -> Self {
        let guard = HeadGuard::new(worker.settings().head_rules());
        Self { stream, client, worker, guard, cut: Cut::None, interim: Vec::new() }
    }

    pub(crate) fn into_inner(self) -> Socket {
        self.stream
    }

    /// How many of the bytes that were read hyper may see.
    fn guarded(&mut self, bytes: &[u8]) -> usize {
        if self.client.beyond.get() != Beyond::None {
            self.client.beyond.set(Beyond::Bytes);
            return bytes.len();
        }
        match self.guard.scan(bytes) {
            Scanned::Passed => bytes.len(),
            Scanned::Upgrade { end } => {
                self.client.beyond.set(if end == bytes.len() { Beyond::Nothing } else { Beyond::Bytes });
                bytes.len()
            }
            Scanned::Refused { keep, violation } => {
                self.cut = Cut::Head(violation);
                keep
            }
            Scanned::Broken { keep, violation } => {
                tracing::debug!(client = %self.client.origin.peer, %violation, "body refused");
                self.cut = Cut::Body;
                keep
            }
        }
    }

    /// The end of the stream, where the guard says that there is one.
    fn poll_cut(&self) -> Poll<io::Result<()>> {
        if let Cut::Head(violation) = self.cut {
            // To hyper an end while an exchange goes on would be the client's leaving. The flush that ends it wakes the task.
            if self.client.answer.get() != Answer::None {
                return Poll::Pending;
            }
            if self.client.refused.get().is_none() {
                tracing::debug!(client = %self.client.origin.peer, %violation, "head refused");
                self.client.refused.set(Some(violation.status()));
            }
        }
        Poll::Ready(Ok(()))
    }

    /// Writes the interim answers that have come, once all is written that goes before them.
    fn poll_interims(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if let (Ahead::Nothing, Some(interims)) = (self.client.ahead.get(), self.client.interims.get()) {
            interims.take(&mut self.interim);
        }
        while !self.interim.is_empty() {
            let result = Pin::new(&mut self.stream).poll_write(cx, &self.interim);
            self.client.written(&self.worker, &result);
            let written = ready!(result)?;
            self.interim.drain(..written);
        }
        Poll::Ready(Ok(()))
    }

    fn swallow(&self, bytes: &[u8]) {
        if self.client.refused.get().is_none() {
            // "HTTP/1.1 431 ..."
            let status = bytes.get(9..12).and_then(|digits| StatusCode::from_bytes(digits).ok());
            self.client.refused.set(Some(status.unwrap_or(StatusCode::BAD_REQUEST)));
        }
    }
}

impl AsyncRead for ClientStream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if self.client.expired() == Some(TimeoutKind::Head) {
            // To hyper the client has left; the page is written when hyper is through.
            return Poll::Ready(Ok(()));
        }
        if self.cut != Cut::None {
            return self.poll_cut();
        }
        let before = buf.filled().len();
        let result = Pin::new(&mut self.stream).poll_read(cx, buf);
        let bytes = buf.filled().len() - before;
        if bytes > 0 {
            self.worker.counters.client_bytes_in.add(bytes as u64);
            let kept = self.guarded(&buf.filled()[before..]);
            buf.set_filled(before + kept);
            if kept == 0 {
                return self.poll_cut();
            }
            self.client.read(&self.worker);
        }
        result
    }
}

impl AsyncWrite for ClientStream {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        if self.client.answer.get() == Answer::None {
            self.swallow(buf);
            return Poll::Ready(Ok(buf.len()));
        }
        ready!(self.poll_interims(cx))?;
        let result = Pin::new(&mut self.stream).poll_write(cx, buf);
        self.client.written(&self.worker, &result);
        result
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        if self.client.answer.get() == Answer::None {
            self.swallow(bufs.first().map_or(&[], |buf| buf));
            return Poll::Ready(Ok(bufs.iter().map(|buf| buf.len()).sum()));
        }
        ready!(self.poll_interims(cx))?;
        // A small answer is head and body: copying them together costs less than writev does.
        let len: usize = bufs.iter().map(|buf| buf.len()).sum();
        let mut joined = [0; JOINED_MAX];
        let result = match (bufs, joined.get_mut(..len)) {
            ([only], _) => Pin::new(&mut self.stream).poll_write(cx, only),
            (_, Some(joined)) => {
                let mut at = 0;
                for buf in bufs {
                    joined[at..at + buf.len()].copy_from_slice(buf);
                    at += buf.len();
                }
                Pin::new(&mut self.stream).poll_write(cx, joined)
            }
            (_, None) => Pin::new(&mut self.stream).poll_write_vectored(cx, bufs),
        };
        self.client.written(&self.worker, &result);
        result
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        // hyper flushes after each look at the exchange, and only when it has nothing left to write itself.
        self.client.ahead.set(Ahead::Nothing);
        ready!(self.poll_interims(cx))?;
        // TLS may hold records that the socket did not take yet. TCP itself has nothing to flush.
        let flushed = Pin::new(&mut self.stream).poll_flush(cx);
        self.client.took(&self.worker, flushed.is_ready());
        ready!(flushed)?;
        // hyper flushes when all it had is written.
        if self.client.answer.get() == Answer::Ended {
            self.client.answer.set(Answer::None);
            self.client.since.set(self.worker.clock.coarse());
            if self.cut != Cut::None {
                self.client.wake();
            }
        }
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.client.refused().is_some() || self.client.expired() == Some(TimeoutKind::Head) {
            return Poll::Ready(Ok(()));
        }
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}
