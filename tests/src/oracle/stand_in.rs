//! A stand-in for a shard: it answers everything, and tells what it received.

use std::collections::BTreeMap;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::mpsc::Sender;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use socket2::SockRef;
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;

/// A request as a shard received it. Characters stand for the bytes of their numbers.
#[derive(Debug, Clone)]
pub(super) struct Received {
    pub(super) shard: String,
    pub(super) method: String,
    pub(super) target: String,
    /// Names in lower case.
    pub(super) headers: Vec<(String, String)>,
}

impl Received {
    /// The values of all lines of a header.
    pub(super) fn all(&self, name: &str) -> Vec<&str> {
        self.headers.iter().filter(|(other, _)| other == name).map(|(_, value)| value.as_str()).collect()
    }
}

/// A shard's place: it answers, or refuses connections, until it is dropped.
pub(super) struct StandIn {
    shard: String,
    address: SocketAddr,
    told: Sender<Received>,
    open: Option<Open>,
}

/// What runs while it answers.
struct Open {
    listener: TcpListener,
    accepting: JoinHandle<()>,
    /// Connections of clients, to be cut when it closes.
    streams: Streams,
}

/// Open connections, by their number.
type Streams = Arc<Mutex<BTreeMap<usize, TcpStream>>>;

impl StandIn {
    /// Answers for `shard` at `address`. What it receives is told before it is answered.
    pub(super) fn start(shard: &str, address: SocketAddr, told: &Sender<Received>) -> io::Result<Self> {
        let mut stand_in = Self { shard: shard.to_owned(), address, told: told.clone(), open: None };
        stand_in.open()?;
        Ok(stand_in)
    }

    /// Takes connections from now on.
    pub(super) fn open(&mut self) -> io::Result<()> {
        if self.open.is_some() {
            return Ok(());
        }
        let Self { shard, address, told, .. } = &*self;
        let listener = TcpListener::bind(address)
            .map_err(|error| io::Error::other(format!("stand-in of {shard} at {address}: {error}")))?;
        let streams = Streams::default();
        let (shard, told) = (shard.clone(), told.clone());
        let (accepts, known) = (listener.try_clone()?, Arc::clone(&streams));
        let accepting = thread::spawn(move || {
            for (number, stream) in accepts.incoming().map_while(Result::ok).enumerate() {
                let (shard, told, known) = (shard.clone(), told.clone(), Arc::clone(&known));
                if let Ok(stream) = stream.try_clone() {
                    open_streams(&known).insert(number, stream);
                }
                thread::spawn(move || {
                    drop(talk(&shard, stream, &told));
                    drop(open_streams(&known).remove(&number));
                });
            }
        });
        self.open = Some(Open { listener, accepting, streams });
        Ok(())
    }

    /// Refuses connections from now on, and cuts those that there are.
    pub(super) fn close(&mut self) {
        let Some(Open { listener, accepting, streams }) = self.open.take() else { return };
        // The accepting thread wakes up with an error; its handle was the last one.
        drop(SockRef::from(&listener).shutdown(Shutdown::Both));
        drop(listener);
        drop(accepting.join());
        for stream in open_streams(&streams).values() {
            drop(stream.shutdown(Shutdown::Both));
        }
    }
}

impl Drop for StandIn {
    fn drop(&mut self) {
        self.close();
    }
}

fn open_streams(streams: &Streams) -> MutexGuard<'_, BTreeMap<usize, TcpStream>> {
    streams.lock().unwrap_or_else(PoisonError::into_inner)
}

fn talk(shard: &str, mut stream: TcpStream, told: &Sender<Received>) -> io::Result<()> {
    let mut reader = BufReader::new(stream.try_clone()?);
    while let Some(received) = head(shard, &mut reader)? {
        body(&received, &mut reader)?;
        let upgrades = received.all("upgrade").contains(&"websocket");
        // HAProxy does not pass on an answer without it.
        let accept = received.all("sec-websocket-key").first().map_or_else(String::new, |key| {
            format!("Sec-WebSocket-Accept: {}\r\n", derive_accept_key(key.as_bytes()))
        });
        let is_head = received.method == "HEAD";
        // How long the recordings' shard took to answer.
        let delay = received.all("x-test-delay").first().and_then(|seconds| seconds.parse().ok());
        let status = received
            .all("x-test-status")
            .first()
            .map_or_else(|| "200 OK".to_owned(), |status| format!("{status} Test"));
        if told.send(received).is_err() {
            return Ok(());
        }
        if let Some(seconds) = delay {
            thread::sleep(Duration::from_secs_f64(seconds));
        }
        if upgrades {
            write!(
                stream,
                "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n{accept}\r\n"
            )?;
            // Until the client has had enough.
            return io::copy(&mut reader, &mut io::sink()).map(drop);
        }
        let body = if is_head { "" } else { "ok" };
        write!(stream, "HTTP/1.1 {status}\r\nContent-Length: 2\r\n\r\n{body}")?;
    }
    Ok(())
}

fn head(shard: &str, reader: &mut impl BufRead) -> io::Result<Option<Received>> {
    let Some(first) = line(reader)? else { return Ok(None) };
    let mut words = first.split(' ');
    let (method, target) = (words.next().unwrap_or("").to_owned(), words.next().unwrap_or("").to_owned());
    let mut headers = Vec::new();
    while let Some(line) = line(reader)?.filter(|line| !line.is_empty()) {
        let (name, value) = line.split_once(':').unwrap_or((&line, ""));
        headers.push((name.to_ascii_lowercase(), value.trim_matches([' ', '\t']).to_owned()));
    }
    Ok(Some(Received { shard: shard.to_owned(), method, target, headers }))
}

fn body(received: &Received, reader: &mut impl BufRead) -> io::Result<()> {
    if let Some(len) = received.all("content-length").first().and_then(|len| len.parse().ok()) {
        io::copy(&mut reader.by_ref().take(len), &mut io::sink())?;
    } else if received.all("transfer-encoding").contains(&"chunked") {
        while let Some(size) = line(reader)? {
            let size = u64::from_str_radix(size.trim(), 16).unwrap_or(0);
            io::copy(&mut reader.by_ref().take(size + 2), &mut io::sink())?;
            if size == 0 {
                break;
            }
        }
    }
    Ok(())
}

/// A line without its end; `None` at the end of the stream.
fn line(reader: &mut impl BufRead) -> io::Result<Option<String>> {
    let mut bytes = Vec::new();
    if reader.read_until(b'\n', &mut bytes)? == 0 {
        return Ok(None);
    }
    while bytes.last().is_some_and(|byte| matches!(byte, b'\r' | b'\n')) {
        bytes.pop();
    }
    Ok(Some(bytes.into_iter().map(char::from).collect()))
}
