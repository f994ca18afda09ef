//! A client of raw bytes: it sends what it is told, and reads answers byte by byte as strictly as the RFC allows.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::time::Duration;

use super::case::Method;

/// The lines behind a chunked body.
type Trailers = Vec<(String, String)>;

/// An answer that takes longer does not come; the slowest wait is for a timeout of one second.
const PATIENCE: Duration = Duration::from_secs(4);

/// One answer, or an interim one.
#[derive(Debug, Clone, Default)]
pub(super) struct Read1 {
    pub(super) status: u16,
    pub(super) lines: Vec<(String, String)>,
    pub(super) body: Vec<u8>,
    pub(super) trailers: Vec<(String, String)>,
}

impl Read1 {
    pub(super) fn get(&self, name: &str) -> Option<&str> {
        self.lines.iter().find(|(other, _)| other.eq_ignore_ascii_case(name)).map(|(_, value)| value.as_str())
    }
}

/// A connection to shardgate.
pub(super) struct Client {
    stream: TcpStream,
    reader: BufReader<TcpStream>,
}

impl Client {
    pub(super) fn connect(to: SocketAddr) -> io::Result<Self> {
        let stream = TcpStream::connect(to)?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        Ok(Self { reader: BufReader::new(stream.try_clone()?), stream })
    }

    /// Sends; whoever has been refused in the middle need not take all of it.
    pub(super) fn send(&mut self, bytes: &[u8]) {
        drop(self.stream.write_all(bytes));
    }

    pub(super) fn finish(&mut self) {
        drop(self.stream.shutdown(Shutdown::Write));
    }

    pub(super) fn read(&mut self, method: Method) -> Result<Read1, String> {
        let line = self.line()?;
        let mut words = line.splitn(3, ' ');
        let version = words.next().unwrap_or("");
        let status: Option<u16> = words.next().and_then(|status| status.parse().ok());
        let (Some(status), "HTTP/1.1" | "HTTP/1.0") = (status, version) else {
            return Err(format!("no status line: {line:?}"));
        };
        let mut answer = Read1 { status, lines: self.fields()?, ..Read1::default() };
        if status < 200 || status == 204 || status == 304 || method == Method::Head {
            return Ok(answer);
        }
        let count =
            |name: &str| answer.lines.iter().filter(|(other, _)| other.eq_ignore_ascii_case(name)).count();
        match (count("transfer-encoding"), count("content-length")) {
            (1, 0) => {
                let coding = answer.get("transfer-encoding").unwrap_or("");
                if coding != "chunked" {
                    return Err(format!("transfer coding {coding:?}"));
                }
                (answer.body, answer.trailers) = self.chunks()?;
            }
            (0, 1) => {
                let length = answer.get("content-length").and_then(|length| length.parse().ok());
                let length: usize = length.ok_or("a length that is no number")?;
                answer.body = vec![0; length];
                self.reader.read_exact(&mut answer.body).map_err(|error| format!("body: {error}"))?;
            }
            (0, 0) => {
                self.reader.read_to_end(&mut answer.body).map_err(|error| format!("body: {error}"))?;
            }
            (codings, lengths) => return Err(format!("{codings} transfer codings and {lengths} lengths")),
        }
        Ok(answer)
    }

    /// Whatever comes until the connection ends.
    pub(super) fn rest(&mut self) -> Result<Vec<u8>, String> {
        let mut rest = Vec::new();
        match self.reader.read_to_end(&mut rest) {
            Ok(_) => Ok(rest),
            // Closed with bytes of ours unread: closed all the same.
            Err(error) if error.kind() == io::ErrorKind::ConnectionReset => Ok(rest),
            Err(error) => Err(format!("the connection stays open: {error}")),
        }
    }

    pub(super) fn echo(&mut self, bytes: &[u8]) -> Result<(), String> {
        let mut back = vec![0; bytes.len()];
        self.reader.read_exact(&mut back).map_err(|error| format!("no echo: {error}"))?;
        if back == bytes { Ok(()) } else { Err(format!("echoed {:?}", String::from_utf8_lossy(&back))) }
    }

    fn chunks(&mut self) -> Result<(Vec<u8>, Trailers), String> {
        let mut body = Vec::new();
        loop {
            let line = self.line()?;
            let size = usize::from_str_radix(&line, 16).map_err(|_| format!("chunk size {line:?}"))?;
            if size == 0 {
                return Ok((body, self.fields()?));
            }
            let from = body.len();
            body.resize(from + size, 0);
            self.reader.read_exact(&mut body[from..]).map_err(|error| format!("chunk: {error}"))?;
            if !self.line()?.is_empty() {
                return Err("a chunk does not end".to_owned());
            }
        }
    }

    fn fields(&mut self) -> Result<Vec<(String, String)>, String> {
        let mut fields = Vec::new();
        loop {
            let line = self.line()?;
            if line.is_empty() {
                return Ok(fields);
            }
            let (name, value) = line.split_once(':').ok_or_else(|| format!("no field: {line:?}"))?;
            fields.push((name.to_owned(), value.trim().to_owned()));
        }
    }

    /// A line that ends with CR LF.
    fn line(&mut self) -> Result<String, String> {
        let mut line = Vec::new();
        let read = self.reader.read_until(b'\n', &mut line);
        read.map_err(|error| format!("no more comes: {error}"))?;
        let text = String::from_utf8_lossy(&line).into_owned();
        match text.strip_suffix("\r\n") {
            Some(text) => Ok(text.to_owned()),
            None if text.is_empty() => Err("the connection ended".to_owned()),
            None => Err(format!("a line without an end: {text:?}")),
        }
    }
}
