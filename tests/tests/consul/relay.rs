//! A relay before an agent that does to chosen requests what an agent, or what is before it, may do. One request a connection.

use std::collections::BTreeMap;
use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinHandle;

/// What happens to an answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fault {
    /// Nothing.
    None,
    /// 500.
    Error,
    /// 429, without a word of when.
    TooMany,
    /// 429 with `Retry-After`, in seconds.
    TooManyFor(u32),
    /// The request is taken and waits until the fault is over: an agent that is frozen and thaws.
    Silence,
    /// Something that is no HTTP.
    Garbage,
    /// Half of the body, then the end.
    Cut,
    /// An empty list of an index far ahead, of who asks with `stale`: of a server that lost its mind.
    EmptyIfStale,
    /// An index that goes back to one.
    IndexGoesBack,
    /// A server that has not heard of the leader for long.
    FarBehind,
    /// A server that knows no leader.
    NoLeader,
    /// A body without an end.
    Endless,
}

/// What is done to whom.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Switch {
    fault: Fault,
    /// Requests whose path begins like this.
    path: &'static str,
}

impl Switch {
    fn of(&self, request: &Request) -> Fault {
        let asked_so = self.fault != Fault::EmptyIfStale || request.target.contains("stale");
        if asked_so && request.target.starts_with(self.path) { self.fault } else { Fault::None }
    }
}

struct Request {
    /// Path and query.
    target: String,
    head: String,
    body: Vec<u8>,
}

/// A relay; dropped, it ends.
pub(crate) struct Relay {
    pub(crate) address: SocketAddr,
    switch: watch::Sender<Switch>,
    counts: Arc<Mutex<BTreeMap<String, u64>>>,
    accepting: JoinHandle<()>,
}

impl Drop for Relay {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

impl Relay {
    /// Listens on a free port of `ip` and passes on to `agent`.
    pub(crate) async fn start(ip: &str, agent: SocketAddr) -> Self {
        let listener = TcpListener::bind((ip, 0)).await.unwrap();
        let address = listener.local_addr().unwrap();
        let (switch, switched) = watch::channel(Switch { fault: Fault::None, path: "" });
        let counts = Arc::new(Mutex::new(BTreeMap::new()));
        let counted = Arc::clone(&counts);
        let accepting = tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let (switched, counted) = (switched.clone(), Arc::clone(&counted));
                tokio::spawn(async move {
                    // A connection that breaks is what a client has to live with here.
                    drop(serve(stream, agent, switched, &counted).await);
                });
            }
        });
        Self { address, switch, counts, accepting }
    }

    /// From now on this happens to requests whose path begins with `path`; those that are held are ended.
    pub(crate) fn switch(&self, fault: Fault, path: &'static str) {
        self.switch.send_replace(Switch { fault, path });
    }

    /// How often each path was asked for until now.
    pub(crate) fn counts(&self) -> BTreeMap<String, u64> {
        self.counts.lock().unwrap().clone()
    }
}

async fn read_request(stream: &mut TcpStream) -> io::Result<Request> {
    let mut bytes = Vec::new();
    let head_bytes = loop {
        if let Some(end) = bytes.windows(4).position(|four| four == b"\r\n\r\n") {
            break end + 4;
        }
        if stream.read_buf(&mut bytes).await? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
    };
    let mut body = bytes.split_off(head_bytes);
    let head = String::from_utf8_lossy(&bytes).into_owned();
    let length = header(&head, "content-length").and_then(|text| text.parse().ok()).unwrap_or(0);
    while body.len() < length {
        if stream.read_buf(&mut body).await? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
    }
    let target = head.split(' ').nth(1).unwrap_or_default().to_owned();
    Ok(Request { target, head, body })
}

fn header<'a>(head: &'a str, name: &str) -> Option<&'a str> {
    head.lines().find_map(|line| {
        let (found, value) = line.split_once(':')?;
        found.eq_ignore_ascii_case(name).then(|| value.trim())
    })
}

/// A head with another value of a header, which is added when there was none.
fn with_header(head: &str, name: &str, value: &str) -> String {
    let others = head.lines().filter(|line| {
        !line.is_empty() && !line.split(':').next().is_some_and(|found| found.eq_ignore_ascii_case(name))
    });
    let kept: Vec<_> = others.collect();
    format!("{}\r\n{name}: {value}\r\n\r\n", kept.join("\r\n"))
}

async fn serve(
    mut stream: TcpStream,
    agent: SocketAddr,
    mut switched: watch::Receiver<Switch>,
    counts: &Mutex<BTreeMap<String, u64>>,
) -> io::Result<()> {
    let request = read_request(&mut stream).await?;
    let path = request.target.split('?').next().unwrap_or_default().to_owned();
    *counts.lock().unwrap().entry(path).or_default() += 1;
    let mut fault = switched.borrow_and_update().of(&request);
    if fault == Fault::Silence {
        let over = switched.wait_for(|switch| switch.of(&request) != Fault::Silence).await;
        fault = over.map_err(io::Error::other)?.of(&request);
    }
    match fault {
        Fault::Error => return plain(&mut stream, "500 Internal Server Error", "No cluster leader").await,
        Fault::TooMany => return plain(&mut stream, "429 Too Many Requests", "slowly").await,
        Fault::TooManyFor(seconds) => {
            let head = format!("429 Too Many Requests\r\nRetry-After: {seconds}");
            return plain(&mut stream, &head, "slowly").await;
        }
        Fault::Garbage => return stream.write_all(b"\x00\x01 nonsense\r\n\r\n").await,
        Fault::Endless => {
            let head = "HTTP/1.1 200 OK\r\nConnection: close\r\nX-Consul-Index: 7\r\nX-Consul-KnownLeader: true\r\n\r\n[";
            stream.write_all(head.as_bytes()).await?;
            loop {
                stream.write_all(&[b' '; 1 << 16]).await?;
            }
        }
        Fault::None
        | Fault::Silence
        | Fault::Cut
        | Fault::EmptyIfStale
        | Fault::IndexGoesBack
        | Fault::FarBehind
        | Fault::NoLeader => {}
    }
    let answer = tokio::select! {
        answer = pass_on(agent, &request) => answer?,
        // Who is held at the agent gets no answer when something begins, and asks again.
        true = begins(&mut switched, &request) => return Ok(()),
    };
    let Some(end) = answer.windows(4).position(|four| four == b"\r\n\r\n") else { return Ok(()) };
    let (head, body) = answer.split_at(end + 4);
    let head = String::from_utf8_lossy(head).into_owned();
    let head = match fault {
        Fault::EmptyIfStale => {
            let index = header(&head, "x-consul-index").and_then(|text| text.parse().ok());
            let ahead = (index.unwrap_or(1_u64) + 1_000_000).to_string();
            with_header(&with_header(&head, "Content-Length", "2"), "X-Consul-Index", &ahead)
        }
        Fault::IndexGoesBack => with_header(&head, "X-Consul-Index", "1"),
        Fault::FarBehind => with_header(&head, "X-Consul-LastContact", "86400000"),
        Fault::NoLeader => with_header(&head, "X-Consul-KnownLeader", "false"),
        Fault::None
        | Fault::Error
        | Fault::TooMany
        | Fault::TooManyFor(_)
        | Fault::Silence
        | Fault::Garbage
        | Fault::Cut
        | Fault::Endless => head,
    };
    let body = match fault {
        Fault::Cut => &body[..body.len() / 2],
        Fault::EmptyIfStale => b"[]",
        Fault::None
        | Fault::Error
        | Fault::TooMany
        | Fault::TooManyFor(_)
        | Fault::Silence
        | Fault::Garbage
        | Fault::IndexGoesBack
        | Fault::FarBehind
        | Fault::NoLeader
        | Fault::Endless => body,
    };
    stream.write_all(head.as_bytes()).await?;
    stream.write_all(body).await?;
    stream.shutdown().await
}

/// Waits until a fault begins that is this request's.
async fn begins(switched: &mut watch::Receiver<Switch>, request: &Request) -> bool {
    loop {
        // A relay that was dropped begins nothing.
        if switched.changed().await.is_err() {
            return std::future::pending().await;
        }
        if switched.borrow_and_update().of(request) != Fault::None {
            return true;
        }
    }
}

async fn plain(stream: &mut TcpStream, status: &str, body: &str) -> io::Result<()> {
    let length = body.len();
    let answer = format!("HTTP/1.1 {status}\r\nConnection: close\r\nContent-Length: {length}\r\n\r\n{body}");
    stream.write_all(answer.as_bytes()).await
}

/// The agent's whole answer.
async fn pass_on(agent: SocketAddr, request: &Request) -> io::Result<Vec<u8>> {
    let mut upstream = TcpStream::connect(agent).await?;
    upstream.write_all(with_header(&request.head, "Connection", "close").as_bytes()).await?;
    upstream.write_all(&request.body).await?;
    let mut answer = Vec::new();
    upstream.read_to_end(&mut answer).await?;
    Ok(answer)
}
