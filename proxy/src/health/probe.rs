//! Asking one server, once.

use super::agent::{self, LINE_MAX, Said};
use super::checks::{Came, Checked, Passed};
use super::target::{Plan, Target};
use crate::config::{Check, HttpCheck, SendProxy};
use crate::proxy_protocol;
use crate::socket::Socket;
use bytes::Bytes;
use http::header::{CONNECTION, HOST, USER_AGENT};
use http::uri::Authority;
use http::{HeaderValue, Method, Request, Response};
use http_body_util::{BodyExt as _, Empty};
use hyper::body::Incoming;
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use std::io;
use std::net::SocketAddr;
use std::time::{Duration, Instant};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;

/// How much of an answer's body is looked at.
const BODY_MAX: usize = 64 * 1024;

/// Why a check failed.
#[derive(Debug, thiserror::Error)]
enum CheckError {
    #[error("connection refused")]
    Refused,
    #[error("no answer within {} ms", _0.as_millis())]
    Timeout(Duration),
    #[error("not reachable: {0}")]
    Io(io::Error),
    #[error("TLS: {0}")]
    Tls(io::Error),
    #[error("answer is no HTTP: {0}")]
    Http(hyper::Error),
    #[error("status {0}")]
    Status(u16),
    #[error("body without {0:?}")]
    Body(String),
}

impl From<io::Error> for CheckError {
    fn from(error: io::Error) -> Self {
        if error.kind() == io::ErrorKind::ConnectionRefused { Self::Refused } else { Self::Io(error) }
    }
}

/// Checks a server as its plan says; where that says nothing, by a connection.
pub(super) async fn check(target: &Target, within: Duration) -> Checked {
    let began = Instant::now();
    let plan = &target.plan;
    let mut came = Came::Nowhere;
    let checked = timeout(within, async {
        let stream = TcpStream::connect(target.address).await?;
        came = Came::ToConnection;
        match plan.config.check {
            Check::Http => {
                let socket = begin(stream, target.address, plan).await?;
                ask(socket, target.address, &plan.config.http).await
            }
            // Whose certificate it has to be is known for requests alone.
            Check::Tcp | Check::Off => Ok("connection accepted".to_owned()),
        }
    });
    let result = checked.await.unwrap_or(Err(CheckError::Timeout(within)));
    let took = began.elapsed();
    match result {
        Ok(what) => Checked { passed: Passed::Yes, came: Came::ToAnswer, what, took },
        Err(error) => {
            if matches!(error, CheckError::Status(_) | CheckError::Body(_)) {
                came = Came::ToAnswer;
            }
            Checked { passed: Passed::No, came, what: error.to_string(), took }
        }
    }
}

/// Begins as requests do: with the PROXY header, which names nobody's connection, then TLS.
async fn begin(mut stream: TcpStream, address: SocketAddr, plan: &Plan) -> Result<Socket, CheckError> {
    stream.set_nodelay(true)?;
    if plan.send_proxy == SendProxy::V2 {
        stream.write_all(&proxy_protocol::encode(None)).await?;
    }
    let Some(tls) = &plan.tls else { return Ok(Socket::Plain(stream)) };
    let host = plan.config.http.host.as_deref().and_then(|host| host.parse::<Authority>().ok());
    let name = tls.name(host.as_ref().map(Authority::host), address.ip());
    let stream = TlsConnector::from(tls.config()).connect(name, stream).await.map_err(CheckError::Tls)?;
    Ok(Socket::Tls(Box::new(stream.into())))
}

async fn ask(socket: Socket, address: SocketAddr, check: &HttpCheck) -> Result<String, CheckError> {
    let (mut sender, connection) = http1::handshake(TokioIo::new(socket)).await.map_err(CheckError::Http)?;
    let answered = async {
        let response = sender.send_request(request(address, check)).await.map_err(CheckError::Http)?;
        judge(response, check).await
    };
    // Only driving the connection makes the answer come; that it ends by itself is told by the answer, too.
    let driving = async {
        let ended = connection.await;
        match ended {
            Ok(()) => std::future::pending().await,
            Err(error) => error,
        }
    };
    tokio::select! {
        biased;
        answered = answered => answered,
        error = driving => Err(CheckError::Http(error)),
    }
}

fn request(address: SocketAddr, check: &HttpCheck) -> Request<Empty<Bytes>> {
    let mut request = Request::new(Empty::new());
    *request.method_mut() = Method::from_bytes(check.method.as_str().as_bytes()).unwrap_or_default();
    // It was read as a path.
    *request.uri_mut() = check.path.parse().unwrap_or_default();
    let headers = request.headers_mut();
    let host = check.host.clone().unwrap_or_else(|| address.to_string());
    if let Ok(host) = HeaderValue::try_from(host) {
        headers.insert(HOST, host);
    }
    headers.insert(USER_AGENT, HeaderValue::from_static("shardgate-check"));
    headers.insert(CONNECTION, HeaderValue::from_static("close"));
    request
}

async fn judge(response: Response<Incoming>, check: &HttpCheck) -> Result<String, CheckError> {
    let status = response.status().as_u16();
    if !check.statuses.contain(status) {
        return Err(CheckError::Status(status));
    }
    let Some(wanted) = &check.body else { return Ok(format!("status {status}")) };
    let (mut body, mut read) = (response.into_body(), Vec::new());
    while read.len() < BODY_MAX {
        let Some(frame) = body.frame().await else { break };
        if let Ok(data) = frame.map_err(CheckError::Http)?.into_data() {
            let room = BODY_MAX - read.len();
            read.extend_from_slice(&data[..data.len().min(room)]);
        }
    }
    let holds = read.windows(wanted.len()).any(|window| window == wanted.as_bytes());
    if holds { Ok(format!("status {status}")) } else { Err(CheckError::Body(wanted.clone())) }
}

/// Reads an agent's line.
pub(super) async fn hear(address: SocketAddr, within: Duration) -> Result<Said, String> {
    let heard = timeout(within, async {
        let mut stream = TcpStream::connect(address).await?;
        let mut line = Vec::with_capacity(64);
        while line.len() <= LINE_MAX && !line.iter().any(|byte| matches!(byte, b'\r' | b'\n')) {
            let room = (LINE_MAX + 1 - line.len()) as u64;
            if (&mut stream).take(room).read_buf(&mut line).await? == 0 {
                break;
            }
        }
        Ok::<_, CheckError>(line)
    });
    match heard.await {
        Err(_) => Err(CheckError::Timeout(within).to_string()),
        Ok(Err(error)) => Err(error.to_string()),
        Ok(Ok(line)) => agent::read(&line).map_err(|error| error.to_string()),
    }
}
