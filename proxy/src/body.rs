//! Bodies on their way through: frames are passed on as they come, never copied, and each way sees how the other is doing.

use crate::backend::Upstream;
use crate::client::{Asked, BodyState, Client, Waiting};
use crate::clock::Millis;
use crate::counters::TimeoutKind;
use crate::record::Record;
use crate::rescue::Failure;
use bytes::{Bytes, BytesMut};
use http_body::{Body, Frame, SizeHint};
use hyper::body::Incoming;
use std::future::poll_fn;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};

/// The most of a body that is read before a shard is asked, to be sent once more if need be. What BOSH clients ask is far smaller.
const WHOLE_MAX: u64 = 16 * 1024;

/// A request's body on its way to the shard.
pub(crate) struct RequestBody {
    given: Given,
    client: Rc<Client>,
}

enum Given {
    /// There is none, or it has gone.
    Nothing,
    /// As it comes.
    Coming(Incoming),
    /// All of it.
    Whole(Bytes),
}

impl RequestBody {
    pub(crate) fn new(incoming: Incoming, client: Rc<Client>) -> Self {
        let given = if incoming.is_end_stream() { Given::Nothing } else { Given::Coming(incoming) };
        Self { given, client }
    }

    /// The same body for a request that is sent once more; `None` when it has been let through already.
    pub(crate) fn again(&self) -> Option<Self> {
        let given = match &self.given {
            Given::Nothing => Given::Nothing,
            Given::Whole(bytes) => Given::Whole(bytes.clone()),
            Given::Coming(_) => return None,
        };
        Some(Self { given, client: Rc::clone(&self.client) })
    }

    /// Whether it was read whole.
    pub(crate) const fn is_whole(&self) -> bool {
        matches!(self.given, Given::Whole(_))
    }

    /// Reads a body of known and small length whole, so that it can be sent more than once; others stay as they are.
    pub(crate) async fn read_whole(&mut self, now: impl Fn() -> Millis) -> Result<(), Failure> {
        let Given::Coming(incoming) = &mut self.given else { return Ok(()) };
        if incoming.size_hint().upper().is_none_or(|bytes| bytes > WHOLE_MAX) {
            return Ok(());
        }
        let client = &self.client;
        let mut read = BytesMut::new();
        loop {
            let frame = poll_fn(|cx| {
                let polled = Pin::new(&mut *incoming).poll_frame(cx);
                if polled.is_pending() {
                    if client.expired().is_some() {
                        return Poll::Ready(Err(Failure::BodyTimeout));
                    }
                    client.wait(Waiting::Body, now());
                }
                polled.map(Ok)
            });
            match frame.await? {
                None => break,
                Some(Ok(frame)) => {
                    client.progress();
                    if let Ok(data) = frame.into_data() {
                        read.extend_from_slice(&data);
                    }
                }
                Some(Err(_)) => {
                    client.set_body(BodyState::Broken);
                    return Err(Failure::Body);
                }
            }
        }
        self.given = Given::Whole(read.freeze());
        Ok(())
    }
}

impl Body for RequestBody {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        let this = &mut *self;
        let incoming = match &mut this.given {
            Given::Nothing => return Poll::Ready(None),
            Given::Whole(bytes) => {
                let bytes = std::mem::take(bytes);
                this.given = Given::Nothing;
                return Poll::Ready(Some(Ok(Frame::data(bytes))));
            }
            Given::Coming(incoming) => incoming,
        };
        let polled = Pin::new(incoming).poll_frame(cx);
        match &polled {
            Poll::Ready(Some(Ok(_))) => {
                this.client.progress();
                this.client.set_body(BodyState::Flowing);
            }
            Poll::Ready(Some(Err(_))) => this.client.set_body(BodyState::Broken),
            Poll::Ready(None) => {
                this.given = Given::Nothing;
                this.client.set_body(BodyState::Flowing);
            }
            Poll::Pending => this.client.set_body(BodyState::Awaited),
        }
        polled
    }

    fn is_end_stream(&self) -> bool {
        match &self.given {
            Given::Nothing => true,
            Given::Whole(bytes) => bytes.is_empty(),
            Given::Coming(incoming) => incoming.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match &self.given {
            Given::Nothing => SizeHint::with_exact(0),
            Given::Whole(bytes) => SizeHint::with_exact(bytes.len() as u64),
            Given::Coming(incoming) => incoming.size_hint(),
        }
    }
}

impl Drop for RequestBody {
    fn drop(&mut self) {
        // One that was read whole leaves nothing in the socket.
        let left = matches!(&self.given, Given::Coming(incoming) if !incoming.is_end_stream());
        self.client.set_body(if left { BodyState::Abandoned } else { BodyState::Flowing });
    }
}

/// Why an answer breaks off.
#[derive(Debug, thiserror::Error)]
pub(crate) enum AnswerError {
    /// The shard broke off.
    #[error("shard broke off its answer")]
    Shard,
    /// The shard went down, and what runs on it is to end.
    #[error("shard went down")]
    Down,
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

    /// A shard's. When that goes down, and what runs on it is to end, the answer breaks off.
    pub(crate) fn shard(incoming: Incoming, upstream: Box<Upstream>, mut record: Box<Record>) -> Self {
        // An answer may last for hours.
        record.seen = None;
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
                        let (termination, error) = match (record.client.expired(), record.client.asked()) {
                            (Some(TimeoutKind::Server), _) => (*b"sD", AnswerError::Stalled),
                            (Some(_), _) => (*b"cD", AnswerError::Stalled),
                            (None, Asked::WentDown) => (*b"DD", AnswerError::Down),
                            (None, Asked::Answers | Asked::Moved) => {
                                record.client.wait(waiting(&record.client), now);
                                return Poll::Pending;
                            }
                        };
                        record.termination = termination;
                        *end = End::Failed;
                        Poll::Ready(Some(Err(error)))
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
