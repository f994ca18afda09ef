//! A request on its way to one server: over a connection of the pool, else over a new one, and what becomes of it there.

use crate::backend::{ConnectError, Destination, Upstream, connect};
use crate::body::{RequestBody, waiting};
use crate::client::{Asked, BodyState, Client};
use crate::counters::TimeoutKind;
use crate::record::Record;
use crate::rescue::Failure;
use crate::worker::Worker;
use http::{Request, Response};
use hyper::body::Incoming;
use shardgate_discovery::Shard;
use std::future::poll_fn;
use std::pin::pin;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;
use tokio::task::unconstrained;

/// The longest pause between two attempts at one shard.
const PAUSE_MAX: Duration = Duration::from_secs(1);

/// Why a shard gave no answer.
pub(super) enum SendError {
    /// The request was not sent at all: it can go elsewhere.
    Unreached { request: Box<Request<RequestBody>>, cause: ConnectError },
    /// It was, or may have been.
    Failed(Failure),
}

impl SendError {
    /// The answer that was awaited will not come: what may be repeated goes elsewhere.
    fn of_end(shard: &Shard, end: AnswerLost, again: Option<Box<Request<RequestBody>>>) -> Self {
        let address = shard.address;
        match (again, end) {
            (Some(request), AnswerLost::Down) => {
                Self::Unreached { request, cause: ConnectError::Down { address } }
            }
            (Some(request), AnswerLost::Moved) => {
                Self::Unreached { request, cause: ConnectError::Moved { address } }
            }
            (None, _) => Self::Failed(Failure::ShardDown),
        }
    }
}

/// Sends a request to a shard: over a connection of the pool, else over a new one, which is tried several times.
pub(super) async fn send(
    worker: &Rc<Worker>,
    client: &Rc<Client>,
    record: &mut Record,
    shard: &Shard,
    destination: Destination,
    mut request: Box<Request<RequestBody>>,
) -> Result<(Response<Incoming>, Box<Upstream>), SendError> {
    if record.has_ended() {
        return Err(SendError::Unreached { request, cause: ConnectError::Down { address: shard.address } });
    }
    if let Some(upstream) = worker.pool.take(&destination) {
        worker.counters.shard_reuses.up();
        record.timers.connect = Some(0);
        let again = repeatable(&request);
        match exchange(worker, client, record, upstream, request).await {
            Ok(answer) => return Ok(answer),
            Err(ExchangeError::Unsent(unsent)) => request = unsent,
            Err(ExchangeError::Lost(end)) => return Err(SendError::of_end(shard, end, again)),
            // The shard closed a kept-alive connection just when the request was under way (RFC 9112, 9.3.1).
            Err(ExchangeError::Closed) => {
                let Some(again) = again else { return Err(SendError::Failed(Failure::Broken)) };
                request = again;
            }
            Err(ExchangeError::Failed(failure)) => return Err(SendError::Failed(failure)),
        }
        record.retries += 1;
        worker.counters.retries.up();
    }
    let limits = record.settings.limits.connect.clone();
    // Somebody has just been through all attempts: once is enough to see whether it is back.
    let attempts = if worker.is_suspect(&shard.name) { 1 } else { 1 + limits.retries };
    let mut pause = limits.backoff;
    let mut attempt = 1;
    let cause = loop {
        let cause = match open(worker, client, record, shard, destination.clone()).await {
            Ok(upstream) => {
                let again = repeatable(&request);
                match (exchange(worker, client, record, upstream, request).await, again) {
                    (Ok(answer), _) => return Ok(answer),
                    (Err(ExchangeError::Unsent(unsent)), _) => {
                        request = unsent;
                        ConnectError::closed_at_once(shard.address)
                    }
                    (Err(ExchangeError::Lost(end)), again) => {
                        return Err(SendError::of_end(shard, end, again));
                    }
                    // A shard that still takes connections did not like the request, and gets it no second time (R39).
                    (Err(ExchangeError::Closed), Some(again)) => {
                        match open(worker, client, record, shard, destination.clone()).await {
                            Ok(_) => return Err(SendError::Failed(Failure::Broken)),
                            Err(cause) => {
                                request = again;
                                cause
                            }
                        }
                    }
                    (Err(ExchangeError::Closed), None) => {
                        return Err(SendError::Failed(Failure::Broken));
                    }
                    (Err(ExchangeError::Failed(failure)), _) => return Err(SendError::Failed(failure)),
                }
            }
            // Nothing is wrong with the shard.
            Err(cause @ ConnectError::Moved { .. }) => return Err(SendError::Unreached { request, cause }),
            Err(cause) => cause,
        };
        worker.counters.connect_failures[cause.reason() as usize].up();
        if attempt == attempts || !cause.is_worth_retrying() {
            break cause;
        }
        tokio::time::sleep(pause).await;
        if record.has_ended() {
            break ConnectError::Down { address: shard.address };
        }
        pause = (pause * 3).min(PAUSE_MAX);
        attempt += 1;
        record.retries += 1;
        worker.counters.retries.up();
    };
    // Whoever sends a strange Host shall not make others avoid the shard, and a peer's word is about the peer.
    let elsewhere = matches!(
        cause,
        ConnectError::Local { .. } | ConnectError::Disagreed { .. } | ConnectError::Relay { .. }
    );
    if !elsewhere {
        worker.suspect(&shard.name);
    }
    Err(SendError::Unreached { request, cause })
}

async fn open(
    worker: &Worker,
    client: &Client,
    record: &mut Record,
    shard: &Shard,
    destination: Destination,
) -> Result<Box<Upstream>, ConnectError> {
    client.progress();
    let began = record.elapsed();
    // Boxed: most requests find a connection in the pool.
    let (limits, protocols) = (&record.settings.limits.connect, worker.protocols());
    let direct = destination.is_direct();
    let mut connecting = Box::pin(connect(destination, limits, &protocols.shard_http, &worker.relays));
    record.awaits_shard();
    let connected = poll_fn(|cx| match (connecting.as_mut().poll(cx), client.asked()) {
        (Poll::Pending, Asked::WentDown) => Poll::Ready(Err(ConnectError::Down { address: shard.address })),
        (Poll::Pending, Asked::Moved) => Poll::Ready(Err(ConnectError::Moved { address: shard.address })),
        (polled, _) => polled,
    });
    let upstream = connected.await?;
    record.timers.connect = Some(record.elapsed() - began);
    worker.counters.shard_connects.up();
    // That a peer reaches it says nothing about this node.
    if direct {
        worker.trust(&shard.name);
    }
    Ok(upstream)
}

/// A copy of a request that may be sent twice: its method is safe and there is no body, or its body was read whole for this.
fn repeatable(request: &Request<RequestBody>) -> Option<Box<Request<RequestBody>>> {
    if !is_repeatable(request) {
        return None;
    }
    let mut again = Request::new(request.body().again()?);
    *again.method_mut() = request.method().clone();
    *again.uri_mut() = request.uri().clone();
    *again.headers_mut() = request.headers().clone();
    Some(Box::new(again))
}

fn is_repeatable(request: &Request<RequestBody>) -> bool {
    let body = request.body();
    body.is_whole() || request.method().is_safe() && body.again().is_some()
}

/// Why a connection brought no answer.
enum ExchangeError {
    /// It closed before the request was begun.
    Unsent(Box<Request<RequestBody>>),
    /// It closed behind the request.
    Closed,
    /// Its answer will not come.
    Lost(AnswerLost),
    /// Anything else.
    Failed(Failure),
}

/// Why an answer is awaited no longer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum AnswerLost {
    /// The shard went down, and what runs on it is to end.
    Down,
    /// The conference is on another shard by now.
    Moved,
}

/// Why the wait for the head of an answer ended without one.
enum Ended {
    Failed(Failure),
    Lost(AnswerLost),
}

/// Sends a request over a connection and waits for the head of the answer.
async fn exchange(
    worker: &Worker,
    client: &Client,
    record: &mut Record,
    mut upstream: Box<Upstream>,
    request: Box<Request<RequestBody>>,
) -> Result<(Response<Incoming>, Box<Upstream>), ExchangeError> {
    let began = record.elapsed();
    client.progress();
    record.awaits_shard();
    // What cannot be sent once more is better answered where it is.
    let repeatable = is_repeatable(&request);
    let result = {
        // Outside tokio's budget: a future that gives way asks to be polled again, and here nobody would hear it.
        let mut answer = pin!(unconstrained(upstream.send(*request)));
        poll_fn(|cx| {
            if upstream.poll_drive(cx).is_ready() {
                // A connection that ended before it took the request gives it back only when it is dropped.
                if let Poll::Ready(result) = answer.as_mut().poll(&mut Context::from_waker(Waker::noop())) {
                    return Poll::Ready(Ok(result));
                }
                upstream.abandon();
            }
            // Only driving the connection can make the answer ready, so nobody needs to be woken by it.
            if let Poll::Ready(result) = answer.as_mut().poll(&mut Context::from_waker(Waker::noop())) {
                return Poll::Ready(Ok(result));
            }
            match (client.expired(), client.asked()) {
                (Some(TimeoutKind::Server), _) => Poll::Ready(Err(Ended::Failed(Failure::ShardTimeout))),
                (Some(_), _) => Poll::Ready(Err(Ended::Failed(Failure::BodyTimeout))),
                (None, Asked::WentDown) => Poll::Ready(Err(Ended::Lost(AnswerLost::Down))),
                (None, Asked::Moved) if repeatable => Poll::Ready(Err(Ended::Lost(AnswerLost::Moved))),
                (None, Asked::Answers | Asked::Moved) => {
                    client.wait(waiting(client), worker.clock.coarse());
                    Poll::Pending
                }
            }
        })
        .await
    };
    match result {
        Ok(Ok(response)) => {
            client.progress();
            record.timers.answer = Some(record.elapsed() - began);
            Ok((response, upstream))
        }
        Ok(Err(mut error)) => match error.take_message() {
            Some(unsent) => Err(ExchangeError::Unsent(Box::new(unsent))),
            None if client.body() == BodyState::Broken => Err(ExchangeError::Failed(Failure::Body)),
            None => {
                let error = error.into_error();
                tracing::debug!(%error, "shard did not answer");
                // An answer that is no HTTP would be none the second time.
                Err(if error.is_parse() {
                    ExchangeError::Failed(Failure::Broken)
                } else {
                    ExchangeError::Closed
                })
            }
        },
        Err(Ended::Lost(end)) => Err(ExchangeError::Lost(end)),
        Err(Ended::Failed(failure)) => Err(ExchangeError::Failed(failure)),
    }
}
