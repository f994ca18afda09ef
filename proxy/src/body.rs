//! Bodies on their way through: frames are passed on as they come, never copied, and each way sees how the other is doing.

use crate::backend::Upstream;
use crate::client::{BodyState, Client, Waiting};
use crate::counters::TimeoutKind;
use crate::record::Record;
use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use hyper::body::Incoming;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};

/// A request's body on its way to the shard.
pub(crate) struct RequestBody {
    /// `None` when there is none.
    incoming: Option<Incoming>,
    client: Rc<Client>,
}

impl RequestBody {
    pub(crate) fn new(incoming: Incoming, client: Rc<Client>) -> Self {
        Self { incoming: Some(incoming).filter(|incoming| !incoming.is_end_stream()), client }
    }

    /// The body of a request that is sent once more because it has none.
    pub(crate) fn none(client: Rc<Client>) -> Self {
        Self { incoming: None, client }
    }
}

impl Body for RequestBody {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        let Some(incoming) = &mut self.incoming else { return Poll::Ready(None) };
        let polled = Pin::new(incoming).poll_frame(cx);
        match &polled {
            Poll::Ready(Some(Ok(_))) => {
                self.client.progress();
                self.client.set_body(BodyState::Flowing);
            }
            Poll::Ready(Some(Err(_))) => self.client.set_body(BodyState::Broken),
            Poll::Ready(None) => {
                self.incoming = None;
                self.client.set_body(BodyState::Flowing);
            }
            Poll::Pending => self.client.set_body(BodyState::Awaited),
        }
        polled
    }

    fn is_end_stream(&self) -> bool {
        self.incoming.as_ref().is_none_or(Incoming::is_end_stream)
    }

    fn size_hint(&self) -> SizeHint {
        self.incoming.as_ref().map_or_else(|| SizeHint::with_exact(0), Incoming::size_hint)
    }
}

impl Drop for RequestBody {
    fn drop(&mut self) {
        self.client.set_body(if self.is_end_stream() { BodyState::Flowing } else { BodyState::Abandoned });
    }
}

/// Why an answer breaks off.
#[derive(Debug, thiserror::Error)]
pub(crate) enum AnswerError {
    /// The shard broke off.
    #[error("shard broke off its answer")]
    Shard,
    /// The shard, or the client with its request's body, was too slow.
    #[error("the exchange stalled")]
    Stalled,
}

/// An answer's body on its way to the client. It drives the connection that it comes from, and gives it back to the pool at its
/// end; it carries the request's record, which is closed with it.
pub(crate) struct AnswerBody {
    source: Source,
    record: Box<Record>,
}

enum Source {
    Page(Option<Bytes>),
    Shard { incoming: Incoming, upstream: Option<Box<Upstream>>, end: End },
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum End {
    Ahead,
    Reached,
    /// The shard broke off; told at the next poll, when hyper has written what came before.
    Breaking,
    Failed,
}

impl AnswerBody {
    /// Our own words.
    pub(crate) fn page(page: Bytes, record: Box<Record>) -> Self {
        Self { source: Source::Page(Some(page).filter(|page| !page.is_empty())), record }
    }

    /// A shard's.
    pub(crate) fn shard(incoming: Incoming, upstream: Box<Upstream>, record: Box<Record>) -> Self {
        Self { source: Source::Shard { incoming, upstream: Some(upstream), end: End::Ahead }, record }
    }
}

impl Body for AnswerBody {
    type Data = Bytes;
    type Error = AnswerError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, AnswerError>>> {
        let Self { source, record } = &mut *self;
        match source {
            Source::Page(page) => Poll::Ready(page.take().map(|page| {
                record.bytes += page.len() as u64;
                Ok(Frame::data(page))
            })),
            Source::Shard { end, .. } if *end == End::Breaking => {
                *end = End::Failed;
                Poll::Ready(Some(Err(AnswerError::Shard)))
            }
            Source::Shard { incoming, upstream, end, .. } => {
                if let Some(upstream) = upstream {
                    let _over: Poll<()> = upstream.poll_drive(cx);
                }
                // Only driving the connection can make a frame come, so nobody needs to be woken by it.
                match Pin::new(incoming).poll_frame(&mut Context::from_waker(Waker::noop())) {
                    Poll::Ready(Some(Ok(frame))) => {
                        record.bytes += frame.data_ref().map_or(0, |data| data.len() as u64);
                        record.client.progress();
                        Poll::Ready(Some(Ok(frame)))
                    }
                    Poll::Ready(Some(Err(error))) => {
                        tracing::debug!(%error, "shard broke off its answer");
                        *end = End::Breaking;
                        record.termination = *b"SD";
                        cx.waker().wake_by_ref();
                        Poll::Pending
                    }
                    Poll::Ready(None) => {
                        *end = End::Reached;
                        Poll::Ready(None)
                    }
                    Poll::Pending => {
                        let now = record.worker.clock.coarse();
                        record.termination = match record.client.expired() {
                            Some(TimeoutKind::Server) => *b"sD",
                            Some(_) => *b"cD",
                            None => {
                                record.client.wait(waiting(&record.client), now);
                                return Poll::Pending;
                            }
                        };
                        *end = End::Failed;
                        Poll::Ready(Some(Err(AnswerError::Stalled)))
                    }
                }
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        match &self.source {
            Source::Page(page) => page.is_none(),
            Source::Shard { incoming, .. } => incoming.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match &self.source {
            Source::Page(page) => SizeHint::with_exact(page.as_ref().map_or(0, |page| page.len() as u64)),
            Source::Shard { incoming, .. } => incoming.size_hint(),
        }
    }
}

impl Drop for AnswerBody {
    fn drop(&mut self) {
        let Self { source: Source::Shard { incoming, upstream, end }, record } = self else {
            return;
        };
        match end {
            End::Ahead if !incoming.is_end_stream() => record.termination = *b"CD",
            End::Ahead | End::Reached => {
                let worker = &record.worker;
                if let Some(mut upstream) = upstream.take().filter(|_| !worker.is_draining())
                    && upstream.is_reusable()
                {
                    worker.pool.put(upstream, worker.clock.coarse());
                }
            }
            End::Breaking | End::Failed => {}
        }
    }
}

/// Whom an exchange waits for: the client while more of the request's body is awaited, else the shard.
pub(crate) fn waiting(client: &Client) -> Waiting {
    match client.body() {
        BodyState::Awaited => Waiting::Body,
        BodyState::Flowing | BodyState::Broken | BodyState::Abandoned => Waiting::Shard,
    }
}
