//! WebSocket tunnels, commanded line by line on the standard input: opened one after another, then idle or echoing at a fixed rate.

use std::io::{self, BufRead, ErrorKind, Read, Write};
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use mio::net::TcpStream;
use mio::{Events, Interest, Poll, Token};

use super::frames::{SERVER_HEAD, client_frame, server_frame};
use super::latency::Latencies;
use super::load_report::LoadReport;
use super::net::dial;
use super::origin::find;
use super::wire::HOST;

/// People per room, as in a small conference.
const PEOPLE_PER_ROOM: usize = 3;
const MESSAGE_LENGTH: usize = 200;
/// A handshake or an echo that has not come after this time is an error.
pub(super) const ANSWER_MAX: Duration = Duration::from_secs(5);
const KEY: &str = "c2hhcmRnYXRlIGJlbmNoLg==";

/// Obeys `open`, `alive`, `run RATE MILLISECONDS` and `report` until the input ends; each is answered by one line of JSON.
///
/// `done` counts tunnels opened or alive, and echoes after `run`.
pub fn obey(target: SocketAddr, count: usize, input: impl BufRead, mut output: impl Write) -> io::Result<()> {
    let mut load = Load::new()?;
    writeln!(output, "ready")?;
    for line in input.lines() {
        let line = line?;
        match line.split(' ').collect::<Vec<_>>()[..] {
            ["open"] => load.open(target, count)?,
            ["alive"] => load.count_alive()?,
            ["run", rate, milliseconds] => {
                let milliseconds = milliseconds.parse().map_err(io::Error::other)?;
                load.run(rate.parse().map_err(io::Error::other)?, Duration::from_millis(milliseconds))?;
            }
            ["report"] => {}
            _ => return Err(io::Error::other(format!("unknown command {line:?}"))),
        }
        load.report.write_line(&load.latencies, &mut output)?;
        if !line.starts_with("run") {
            load.report = LoadReport::default();
            load.latencies = Latencies::default();
        }
    }
    Ok(())
}

struct Load {
    poll: Poll,
    tunnels: Vec<TcpStream>,
    messages: Messages,
    report: LoadReport,
    latencies: Latencies,
}

impl Load {
    fn new() -> io::Result<Self> {
        Ok(Self {
            poll: Poll::new()?,
            tunnels: vec![],
            messages: Messages::new(),
            report: LoadReport::default(),
            latencies: Latencies::default(),
        })
    }

    fn open(&mut self, target: SocketAddr, count: usize) -> io::Result<()> {
        let start = Instant::now();
        for index in 0..count {
            let began = Instant::now();
            let Ok(stream) = self.open_one(target, index) else {
                self.report.errors += 1;
                continue;
            };
            self.latencies.record(began.elapsed());
            let mut stream = TcpStream::from_std(stream);
            self.poll.registry().register(&mut stream, Token(self.tunnels.len()), Interest::READABLE)?;
            self.tunnels.push(stream);
            self.report.done += 1;
        }
        self.report.busy_us += micros(start.elapsed());
        Ok(())
    }

    /// Connects, upgrades and has one message echoed.
    fn open_one(&self, target: SocketAddr, index: usize) -> io::Result<std::net::TcpStream> {
        let mut stream = dial(target, index)?;
        stream.set_read_timeout(Some(ANSWER_MAX))?;
        self.messages.open(&mut stream, index)?;
        stream.set_nonblocking(true)?;
        Ok(stream)
    }

    /// A silent tunnel has nothing to read; one that has was closed or disturbed.
    fn count_alive(&mut self) -> io::Result<()> {
        for tunnel in &mut self.tunnels {
            match tunnel.read(&mut [0]) {
                Err(error) if error.kind() == ErrorKind::WouldBlock => self.report.done += 1,
                Ok(_) | Err(_) => self.report.errors += 1,
            }
        }
        Ok(())
    }

    /// Message number n goes to tunnel n modulo their number, at the moment n / rate, whether earlier ones are back or not.
    fn run(&mut self, rate: u32, time: Duration) -> io::Result<()> {
        let total = usize::try_from(u128::from(rate) * time.as_millis() / 1000).map_err(io::Error::other)?;
        let schedule = Schedule { start: Instant::now(), rate, tunnels: self.tunnels.len(), total };
        let (tunnels, Messages { message, echo }) = (&self.tunnels, &self.messages);
        let (unsent, echoes) = std::thread::scope(|scope| {
            let sender = scope.spawn(move || send_all(tunnels, message, schedule));
            let echoes = receive_all(&mut self.poll, tunnels, echo, schedule, &mut self.latencies);
            (sender.join(), echoes)
        });
        let unsent = unsent.map_err(|_| io::Error::other("the sending thread panicked"))?;
        let echoes = echoes?;
        self.report.done += echoes as u64;
        self.report.errors += (unsent + total.saturating_sub(echoes)) as u64;
        self.report.busy_us += micros(time);
        Ok(())
    }
}

/// What is said in every tunnel, and what comes back.
pub(super) struct Messages {
    message: Vec<u8>,
    echo: Vec<u8>,
}

impl Messages {
    pub(super) fn new() -> Self {
        let payload: Vec<u8> = (0..MESSAGE_LENGTH).map(|index| b' ' + (index % 90) as u8).collect();
        Self { message: client_frame(&payload, [0x5a, 0x13, 0xc7, 0x81]), echo: server_frame(&payload) }
    }

    /// Upgrades a connection, and has one message echoed.
    pub(super) fn open(&self, stream: &mut (impl Read + Write), index: usize) -> io::Result<()> {
        let room = index / PEOPLE_PER_ROOM;
        write!(
            stream,
            "GET /xmpp-websocket?room=room-{room} HTTP/1.1\r\nHost: {HOST}\r\nConnection: Upgrade\r\n\
             Upgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: {KEY}\r\nSec-WebSocket-Protocol: xmpp\r\n\r\n"
        )?;
        let mut head = Vec::new();
        let mut buffer = [0; 1024];
        while find(&head, b"\r\n\r\n").is_none() {
            let count = stream.read(&mut buffer)?;
            head.extend_from_slice(&buffer[..count]);
            if count == 0 || head.len() > 8 * buffer.len() {
                return Err(io::Error::other("no answer to the upgrade"));
            }
        }
        if !head.starts_with(b"HTTP/1.1 101 ") {
            return Err(io::Error::other("the upgrade was refused"));
        }
        stream.write_all(&self.message)?;
        let mut echo = [0; SERVER_HEAD + MESSAGE_LENGTH];
        stream.read_exact(&mut echo)?;
        match echo[..] == self.echo[..] {
            true => Ok(()),
            false => Err(io::Error::other("the echo differs from the message")),
        }
    }
}

#[derive(Clone, Copy)]
struct Schedule {
    start: Instant,
    rate: u32,
    tunnels: usize,
    total: usize,
}

impl Schedule {
    fn due(self, number: usize) -> Instant {
        self.start + Duration::from_nanos(number as u64 * 1_000_000_000 / u64::from(self.rate))
    }
}

/// Sends every message when it is due; how many a tunnel did not take.
fn send_all(tunnels: &[TcpStream], message: &[u8], schedule: Schedule) -> usize {
    let mut unsent = 0;
    for number in 0..schedule.total {
        if let Some(early) = schedule.due(number).checked_duration_since(Instant::now()) {
            std::thread::sleep(early);
        }
        let mut tunnel = &tunnels[number % tunnels.len()];
        unsent += usize::from(!tunnel.write(message).is_ok_and(|count| count == message.len()));
    }
    unsent
}

/// Counts whole, correct echoes until all are there or the last is overdue.
fn receive_all(
    poll: &mut Poll,
    tunnels: &[TcpStream],
    echo: &[u8],
    schedule: Schedule,
    latencies: &mut Latencies,
) -> io::Result<usize> {
    let mut events = Events::with_capacity(1024);
    let mut received_bytes = vec![0_usize; tunnels.len()];
    let mut buffer = vec![0; 64 * 1024];
    let mut echoes = 0;
    let deadline = schedule.due(schedule.total) + ANSWER_MAX;
    while echoes < schedule.total && Instant::now() < deadline {
        match poll.poll(&mut events, Some(Duration::from_millis(100))) {
            Err(error) if error.kind() == ErrorKind::Interrupted => continue,
            other => other?,
        }
        let now = Instant::now();
        for event in &events {
            let Token(index) = event.token();
            let count = match (&tunnels[index]).read(&mut buffer) {
                Ok(0) => return Err(io::Error::other("a tunnel was closed while it echoed")),
                Ok(count) => count,
                Err(error) if error.kind() == ErrorKind::WouldBlock => continue,
                Err(error) => return Err(error),
            };
            for byte in &buffer[..count] {
                let at = received_bytes[index];
                if *byte != echo[at % echo.len()] {
                    return Err(io::Error::other("an echo differs from its message"));
                }
                received_bytes[index] += 1;
                if received_bytes[index].is_multiple_of(echo.len()) {
                    let number = at / echo.len() * schedule.tunnels + index;
                    latencies.record(now.saturating_duration_since(schedule.due(number)));
                    echoes += 1;
                }
            }
        }
    }
    Ok(echoes)
}

pub(super) fn micros(time: Duration) -> u64 {
    u64::try_from(time.as_micros()).unwrap_or(u64::MAX)
}
