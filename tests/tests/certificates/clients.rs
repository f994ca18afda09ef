//! Clients that come at a fixed rate, each for one request, and check what they are shown.

use std::io::{ErrorKind, Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use rustls::pki_types::ServerName;
use rustls::{ClientConfig, ClientConnection, HandshakeKind};

use crate::site::{Known, NAMES, Site};

/// Threads for each name. A visit takes a few milliseconds, most of them waiting.
const THREADS: u32 = 4;
const ANSWER_MAX: Duration = Duration::from_secs(5);

/// What a visit ended with.
pub(crate) type Visit = Result<Served, String>;

/// A visit without a fault.
#[derive(Debug)]
pub(crate) struct Served {
    /// Whom the client asked for.
    pub(crate) name: &'static str,
    /// Which of the certificates for that name it was shown.
    pub(crate) generation: u64,
}

/// What a client needs.
#[derive(Clone)]
pub(crate) struct Visitor {
    /// Where it connects.
    pub(crate) address: SocketAddr,
    /// Whom it trusts; it keeps no sessions.
    pub(crate) config: Arc<ClientConfig>,
    /// All certificates there have been.
    pub(crate) known: Arc<Mutex<Known>>,
}

/// One connection with a full handshake and one request.
pub(crate) fn visit(visitor: &Visitor, name: &'static str) -> Visit {
    let told = |what: &str, error: &dyn std::fmt::Display| format!("{name}: {what}: {error}");
    let mut stream = TcpStream::connect(visitor.address).map_err(|error| told("connecting", &error))?;
    stream.set_read_timeout(Some(ANSWER_MAX)).map_err(|error| told("the time limit", &error))?;
    let server = ServerName::try_from(name).map_err(|error| told("the name", &error))?;
    let mut session = ClientConnection::new(Arc::clone(&visitor.config), server)
        .map_err(|error| told("the session", &error))?;
    while session.is_handshaking() {
        session.complete_io(&mut stream).map_err(|error| told("the handshake", &error))?;
    }
    if session.handshake_kind() != Some(HandshakeKind::Full) {
        return Err(format!("{name}: not a full handshake"));
    }
    let shown = session.peer_certificates().and_then(<[_]>::first).map(|shown| shown.to_vec());
    let known = visitor.known.lock().map_err(|error| told("the list of certificates", &error))?;
    let generation = shown.and_then(|shown| known.get(&shown).copied());
    drop(known);
    let Some(generation) = generation else {
        return Err(format!("{name}: a certificate that was never in the files"));
    };
    let mut tls = rustls::Stream::new(&mut session, &mut stream);
    write!(tls, "GET /http-bind?room=r HTTP/1.1\r\nHost: {name}\r\nConnection: close\r\n\r\n")
        .map_err(|error| told("the request", &error))?;
    let mut answer = Vec::new();
    match tls.read_to_end(&mut answer) {
        // The end of TCP without the end of TLS: the answer's length tells whether it is whole.
        Err(error) if error.kind() != ErrorKind::UnexpectedEof => return Err(told("the answer", &error)),
        Ok(_) | Err(_) => {}
    }
    match answer.starts_with(b"HTTP/1.1 200 ") && answer.ends_with(b"\r\n\r\nhere") {
        true => Ok(Served { name, generation }),
        false => Err(format!("{name}: the answer is {:?}", String::from_utf8_lossy(&answer))),
    }
}

/// Clients of both names at their rates.
pub(crate) struct Clients {
    stop: Arc<AtomicBool>,
    threads: Vec<JoinHandle<Vec<Visit>>>,
}

impl Clients {
    /// Starts them; for each name `rate` connections a second, due at fixed moments whether earlier ones are done or not.
    pub(crate) fn start(site: &Site, rate: u32) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let start = Instant::now();
        let one = |thread: u32, name: &'static str| {
            let (visitor, stop) = (site.visitor(), Arc::clone(&stop));
            std::thread::spawn(move || {
                let due = |number: u32| start + Duration::from_secs(1) * (number * THREADS + thread) / rate;
                let visits = (0..).take_while(|_| !stop.load(Ordering::Relaxed)).map(|number| {
                    std::thread::sleep(due(number).saturating_duration_since(Instant::now()));
                    visit(&visitor, name)
                });
                visits.collect()
            })
        };
        let threads = (0..THREADS).flat_map(|thread| NAMES.map(|(name, _)| one(thread, name))).collect();
        Self { stop, threads }
    }

    /// Ends them; what all their visits ended with.
    pub(crate) fn stop(self) -> Vec<Visit> {
        self.stop.store(true, Ordering::Relaxed);
        self.threads.into_iter().flat_map(|thread| thread.join().expect("no client panics")).collect()
    }
}
