//! A client that sends exactly what was recorded, valid or not, and reads the head of the answer.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::time::Duration;

use socket2::{Domain, Socket, Type};

use super::record::Request;

/// An answer that does not come within this time is none.
const PATIENCE: Duration = Duration::from_secs(5);

/// The head of an answer; status 0 when the connection ended without one.
#[derive(Debug, Clone)]
pub(super) struct Answer {
    pub(super) status: u16,
    /// Names in lower case.
    pub(super) headers: Vec<(String, String)>,
}

impl Answer {
    pub(super) fn all(&self, name: &str) -> Vec<&str> {
        self.headers.iter().filter(|(other, _)| other == name).map(|(_, value)| value.as_str()).collect()
    }
}

/// Asks on a connection of its own, which is closed afterwards: the recordings' client had the address 127.0.0.1.
pub(super) fn ask(node: SocketAddr, request: &Request) -> io::Result<Answer> {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None)?;
    socket.bind(&SocketAddr::from((Ipv4Addr::LOCALHOST, 0)).into())?;
    socket.connect(&node.into())?;
    let mut stream = TcpStream::from(socket);
    stream.set_read_timeout(Some(PATIENCE))?;
    // A node that refuses the head may close before it has taken all of it.
    drop(stream.write_all(&bytes(request)));
    read(&mut BufReader::new(stream))
}

/// A connection that is kept from request to request.
pub(super) struct Kept {
    stream: TcpStream,
    reader: BufReader<TcpStream>,
}

impl Kept {
    pub(super) fn open(node: SocketAddr) -> io::Result<Self> {
        let stream = TcpStream::connect(node)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        Ok(Self { reader: BufReader::new(stream.try_clone()?), stream })
    }

    /// Asks, and reads the whole answer.
    pub(super) fn ask(&mut self, request: &Request) -> io::Result<Answer> {
        self.stream.write_all(&bytes(request))?;
        let answer = read(&mut self.reader)?;
        let length = answer.all("content-length").first().and_then(|length| length.parse().ok()).unwrap_or(0);
        io::copy(&mut (&mut self.reader).take(length), &mut io::sink())?;
        Ok(answer)
    }
}

fn bytes(request: &Request) -> Vec<u8> {
    let Request { method, target, http_version, headers, body } = request;
    let mut text = format!("{method} {target}");
    match http_version.as_str() {
        "" => {}
        version => text.push_str(&format!(" HTTP/{version}")),
    }
    text.push_str("\r\n");
    for (name, value) in headers {
        text.push_str(&format!("{name}: {value}\r\n"));
    }
    let has_length = headers.iter().any(|(name, _)| name.eq_ignore_ascii_case("content-length"));
    if let Some(body) = body.as_ref().filter(|_| !has_length) {
        text.push_str(&format!("Content-Length: {}\r\n", body.len()));
    }
    text.push_str("\r\n");
    text.push_str(body.as_deref().unwrap_or(""));
    text.chars().map(|letter| u8::try_from(u32::from(letter)).unwrap_or(b'?')).collect()
}

fn read(reader: &mut impl BufRead) -> io::Result<Answer> {
    let mut lines = Vec::new();
    loop {
        let mut line = Vec::new();
        // A reset is an end as well.
        let read = match reader.read_until(b'\n', &mut line) {
            Err(error) if error.kind() == io::ErrorKind::ConnectionReset => 0,
            other => other?,
        };
        let line: String = line.into_iter().map(char::from).collect();
        let line = line.trim_end_matches(['\r', '\n']);
        if read == 0 || line.is_empty() {
            break;
        }
        lines.push(line.to_owned());
    }
    let status = lines.first().and_then(|line| line.split(' ').nth(1)?.parse().ok()).unwrap_or(0);
    let headers = lines.iter().skip(1).filter_map(|line| line.split_once(':'));
    let headers = headers.map(|(name, value)| (name.to_ascii_lowercase(), value.trim().to_owned()));
    Ok(Answer { status, headers: headers.collect() })
}
