//! HTTP/1 connections: served by hyper, and at the end closed, refused or turned into a tunnel.

use crate::body::AnswerBody;
use crate::client::{BodyState, Carrier, Client, ClientStream, Origin};
use crate::counters::TimeoutKind;
use crate::forward;
use crate::rescue::{Failure, respond_raw};
use crate::socket::Socket;
use crate::tunnel::{self, ClientEnd, Place};
use crate::worker::{Connected, Watched, Worker};
use http::{Request, Response};
use hyper::body::Incoming;
use hyper::server::conn::http1::Connection;
use hyper_util::rt::TokioIo;
use std::convert::Infallible;
use std::future::poll_fn;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::timeout;

/// How long and how much is still read from a client that was answered before it had sent everything: were its socket closed at
/// once, the kernel would reset the connection, and the answer might never be read.
const LINGER: Duration = Duration::from_secs(1);
const LINGER_BYTES_MAX: usize = 1024 * 1024;

/// What hyper asks for each request.
struct Service {
    worker: Rc<Worker>,
    client: Rc<Client>,
}

impl hyper::service::Service<Request<Incoming>> for Service {
    type Response = Response<AnswerBody>;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Infallible>>>>;

    fn call(&self, request: Request<Incoming>) -> Self::Future {
        // Said here and not with the first look at the answer: in between hyper may read on.
        self.client.asks();
        let answering = forward::answer(Rc::clone(&self.worker), Rc::clone(&self.client), request);
        let client = Rc::clone(&self.client);
        Box::pin(async move {
            let answer = answering.await;
            client.answers();
            Ok(answer)
        })
    }
}

/// Why a connection is no longer served.
enum Ended {
    /// hyper is through with it.
    Through,
    /// It broke, or was refused.
    Broken,
    /// It was idle for too long, or the worker drains, or it does not read: nothing is left to be said.
    LetGo,
}

/// Serves a connection to its end.
pub(super) async fn serve(worker: Rc<Worker>, origin: Rc<Origin>, socket: Socket, connected: Connected) {
    let client = Rc::new(Client::new(origin, Carrier::Connection, worker.clock.coarse()));
    let registered = worker.register(Watched::Exchange(Rc::clone(&client)));
    let stream = TokioIo::new(ClientStream::new(socket, Rc::clone(&client), Rc::clone(&worker)));
    let service = Service { worker: Rc::clone(&worker), client: Rc::clone(&client) };
    let mut http = worker.protocols().client_http.serve_connection(stream, service);
    let ended = poll_fn(|cx| poll(&worker, &client, &mut http, cx)).await;
    if matches!(ended, Ended::LetGo) {
        if client.is_blocked() {
            http.into_parts().io.into_inner().into_inner().discard_unread();
        }
        return;
    }
    let parts = http.into_parts();
    let mut stream = parts.io.into_inner().into_inner();
    if let Some(opening) = client.opening.take() {
        if matches!(ended, Ended::Through) {
            tunnel::open(
                &worker,
                ClientEnd::Socket(stream),
                &parts.read_buf,
                *opening,
                &client.origin,
                Place::Connection(connected),
            );
        }
        return;
    }
    let refusal = match (client.refused(), client.expired()) {
        (_, Some(TimeoutKind::Head)) => Some(Failure::HeadTimeout),
        (Some(status), _) => Some(Failure::Head(status)),
        (None, _) => None,
    };
    drop(registered);
    if let Some(failure) = refusal {
        refuse(&worker, &client.origin, &mut stream, &failure).await;
        linger(&mut stream).await;
    } else if client.body() == BodyState::Abandoned && matches!(ended, Ended::Through) {
        linger(&mut stream).await;
    }
    // Its place in the count is free only now that the socket is.
    drop((stream, connected));
}

fn poll(
    worker: &Worker,
    client: &Client,
    http: &mut Connection<TokioIo<ClientStream>, Service>,
    cx: &mut Context<'_>,
) -> Poll<Ended> {
    client.remember(cx.waker());
    if matches!(client.expired(), Some(TimeoutKind::KeepAlive | TimeoutKind::Client)) {
        return Poll::Ready(Ended::LetGo);
    }
    match Pin::new(http).poll(cx) {
        Poll::Ready(Ok(())) => Poll::Ready(Ended::Through),
        Poll::Ready(Err(error)) => {
            tracing::debug!(%error, client = %client.origin.peer, "client connection ended");
            Poll::Ready(Ended::Broken)
        }
        Poll::Pending if worker.is_draining() && client.is_between_requests() => Poll::Ready(Ended::LetGo),
        Poll::Pending => Poll::Pending,
    }
}

/// Answers a head that hyper has refused, or did not get.
async fn refuse(worker: &Worker, origin: &Origin, stream: &mut Socket, failure: &Failure) {
    worker.refused(origin, failure);
    let (settings, proto) = (worker.settings(), origin.frontend.forwarded_proto);
    let page = respond_raw(failure, &settings.pages, &settings.answer_headers, proto);
    // Whoever does not read even that is not waited for.
    let written = timeout(LINGER, async {
        stream.write_all(&page).await?;
        stream.flush().await
    })
    .await;
    tracing::debug!(client = %origin.peer, %failure, written = matches!(written, Ok(Ok(()))), "refused");
}

async fn linger(stream: &mut Socket) {
    let reading = async {
        stream.shutdown().await?;
        let mut buffer = [0; 1024];
        let mut left = LINGER_BYTES_MAX;
        while left > 0 {
            match stream.read(&mut buffer).await? {
                0 => break,
                bytes => left = left.saturating_sub(bytes),
            }
        }
        Ok::<(), std::io::Error>(())
    };
    if let Ok(Err(error)) = timeout(LINGER, reading).await {
        tracing::trace!(%error, "client reset its connection");
    }
}
