//! Client connections: accepted, served by hyper, and at the end closed, refused or turned into a tunnel.

use crate::body::AnswerBody;
use crate::client::{BodyState, Client, ClientStream};
use crate::counters::TimeoutKind;
use crate::forward;
use crate::rescue::{Failure, respond_raw};
use crate::tunnel;
use crate::worker::{Connected, Worker};
use http::{HeaderValue, Request, Response};
use hyper::body::Incoming;
use hyper::server::conn::http1::Connection;
use hyper_util::rt::TokioIo;
use shardgate_peering::Readiness;
use std::convert::Infallible;
use std::future::poll_fn;
use std::net::SocketAddr;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::timeout;

/// An address that clients connect to, as its connections see it.
#[derive(Debug)]
pub(crate) struct Frontend {
    pub(crate) name: String,
    pub(crate) forwarded_proto: HeaderValue,
}

/// How long accepting pauses when the process is out of descriptors.
const EXHAUSTED_PAUSE: Duration = Duration::from_millis(100);
/// How long and how much is still read from a client that was answered before it had sent everything: were its socket closed at
/// once, the kernel would reset the connection, and the answer might never be read.
const LINGER: Duration = Duration::from_secs(1);
const LINGER_BYTES_MAX: usize = 1024 * 1024;

/// How long connections wait in the kernel's queue for a node that is not ready: it knows too little to decide well. After that
/// serving badly is better than not serving.
const READY_WAIT: Duration = Duration::from_secs(10);

/// Accepts connections until the worker drains and drops the future. Begins when the node is ready.
pub(crate) async fn accept(worker: Rc<Worker>, frontend: Rc<Frontend>, listener: TcpListener) {
    let mut readiness = worker.table.watch_readiness();
    let ready = readiness.wait_for(|readiness| matches!(readiness, Readiness::Ready { .. }));
    if timeout(READY_WAIT, ready).await.is_err() {
        tracing::warn!(frontend = frontend.name, "serving before the mesh is ready");
    }
    loop {
        worker.room().await;
        match listener.accept().await {
            Ok((stream, peer)) => {
                // A connection that died in the queue fails here; it will not be served anyway.
                if stream.set_nodelay(true).is_ok() {
                    let connected = Connected::new(&worker);
                    let serving = serve(Rc::clone(&worker), Rc::clone(&frontend), stream, peer, connected);
                    drop(tokio::task::spawn_local(serving));
                }
            }
            Err(error) => match error.raw_os_error() {
                Some(libc::EMFILE | libc::ENFILE | libc::ENOBUFS | libc::ENOMEM) => {
                    worker.counters.accept_pauses.up();
                    tracing::warn!(%error, frontend = frontend.name, "cannot accept connections, pausing");
                    tokio::time::sleep(EXHAUSTED_PAUSE).await;
                }
                // The client was gone before it was accepted.
                _ => tracing::debug!(%error, frontend = frontend.name, "connection lost while accepting"),
            },
        }
    }
}

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
        Box::pin(forward::answer(Rc::clone(&self.worker), Rc::clone(&self.client), request))
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

async fn serve(
    worker: Rc<Worker>,
    frontend: Rc<Frontend>,
    stream: TcpStream,
    peer: SocketAddr,
    connected: Connected,
) {
    let client = Rc::new(Client::new(peer, frontend, worker.clock.coarse()));
    let registered = worker.register(&client);
    let stream = TokioIo::new(ClientStream::new(stream, Rc::clone(&client), Rc::clone(&worker)));
    let service = Service { worker: Rc::clone(&worker), client: Rc::clone(&client) };
    let mut http = worker.client_http.serve_connection(stream, service);
    let ended = poll_fn(|cx| poll(&worker, &client, &mut http, cx)).await;
    if matches!(ended, Ended::LetGo) {
        return;
    }
    let parts = http.into_parts();
    let mut stream = parts.io.into_inner().into_inner();
    if let Some(opening) = client.opening.take() {
        if matches!(ended, Ended::Through) {
            tunnel::open(&worker, stream, &parts.read_buf, *opening, &client, connected);
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
        refuse(&worker, &client, &mut stream, &failure).await;
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
            tracing::debug!(%error, client = %client.peer, "client connection ended");
            Poll::Ready(Ended::Broken)
        }
        Poll::Pending if worker.is_draining() && client.is_between_requests() => Poll::Ready(Ended::LetGo),
        Poll::Pending => Poll::Pending,
    }
}

/// Answers a head that hyper has refused, or did not get.
async fn refuse(worker: &Worker, client: &Client, stream: &mut TcpStream, failure: &Failure) {
    worker.refused(client, failure);
    let page = respond_raw(failure, &worker.settings.pages);
    // Whoever does not read even that is not waited for.
    let written = timeout(LINGER, stream.write_all(&page)).await;
    tracing::debug!(client = %client.peer, %failure, written = matches!(written, Ok(Ok(()))), "refused");
}

async fn linger(stream: &mut TcpStream) {
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
