//! A stand-in for a shard: it answers everything, and tells what it received.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::mpsc::Sender;
use std::thread;

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

/// Serves `shard` at `address`, until the process ends. What it receives is told before it is answered.
pub(super) fn serve(shard: &str, address: SocketAddr, told: &Sender<Received>) -> io::Result<()> {
    let listener = TcpListener::bind(address)
        .map_err(|error| io::Error::other(format!("stand-in of {shard} at {address}: {error}")))?;
    let (shard, told) = (shard.to_owned(), told.clone());
    thread::spawn(move || {
        for stream in listener.incoming().map_while(Result::ok) {
            let (shard, told) = (shard.clone(), told.clone());
            thread::spawn(move || drop(talk(&shard, stream, &told)));
        }
    });
    Ok(())
}

fn talk(shard: &str, mut stream: TcpStream, told: &Sender<Received>) -> io::Result<()> {
    let mut reader = BufReader::new(stream.try_clone()?);
    while let Some(received) = head(shard, &mut reader)? {
        body(&received, &mut reader)?;
        let upgrades = received.all("upgrade").contains(&"websocket");
        let is_head = received.method == "HEAD";
        if told.send(received).is_err() {
            return Ok(());
        }
        if upgrades {
            stream.write_all(
                b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n",
            )?;
            // Until the client has had enough.
            return io::copy(&mut reader, &mut io::sink()).map(drop);
        }
        let body = if is_head { "" } else { "ok" };
        write!(stream, "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{body}")?;
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
