//! TLS towards clients: which certificates they are shown, by which rules they may speak, and how they resume.
//!
//! What a handshake needs stands in one immutable generation. A reload builds the next one whole and switches; a file that is
//! faulty refuses the whole, and the last good generation stays. Connections keep the generation that they began with.
//! This module knows no socket: whoever accepts asks for [`ServerTls::config`] and shakes hands with it.

use crate::config::{TlsConfig, TlsVersion};
use arc_swap::ArcSwap;
use certificate::Certificate;
use files::{Fingerprint, Material};
use resolver::Resolver;
use rustls::ServerConfig;
use rustls::crypto::CryptoProvider;
use rustls::crypto::ring::{Ticketer, cipher_suite, default_provider, kx_group};
use rustls::server::{NoServerSessionStorage, ProducesTickets};
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{SystemTime, UNIX_EPOCH};
use tickets::FileTickets;
use tracing::{info, warn};

mod certificate;
mod error;
mod files;
mod ocsp;
mod resolver;
mod tickets;
mod upstream;
mod watch;

pub use certificate::TlsWarning;
pub use error::{TlsError, TlsErrors};
pub(crate) use upstream::{Asked, UpstreamTls};
pub use watch::{TlsWatch, TlsWatchConfig};

/// What a listener offers by ALPN (RFC 7301).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Alpn {
    /// `http/1.1`.
    Http1,
    /// `h2`, then `http/1.1`.
    Http2AndHttp1,
}

/// The end of a certificate.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Expiry {
    /// Its file.
    pub path: PathBuf,
    /// The first of its names, if it has one.
    pub name: Option<String>,
    /// `notAfter`, in seconds of Unix time.
    pub not_after: i64,
}

/// What happened to the files.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TlsCounts {
    /// New material that came into use, the first not counted.
    pub reloads: u64,
    /// New material that was refused.
    pub refused: u64,
}

/// What clients are shown now, shared by the whole process; a clone is the same one.
#[derive(Debug, Clone)]
pub struct ServerTls(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    current: ArcSwap<Generation>,
    /// Random keys, in use unless there is a file of them. They turn by themselves and outlive generations.
    own_tickets: Arc<dyn ProducesTickets>,
    judged: Mutex<Judged>,
    reloads: AtomicU64,
    refused: AtomicU64,
}

/// What was last judged, whatever the verdict.
#[derive(Debug, Clone)]
struct Judged {
    config: TlsConfig,
    fingerprint: Fingerprint,
}

#[derive(Debug)]
struct Generation {
    http1: Arc<ServerConfig>,
    http2: Arc<ServerConfig>,
    expiries: Vec<Expiry>,
    warnings: Vec<TlsWarning>,
    /// When the first OCSP response ends (Unix time, seconds).
    stapled_until: Option<i64>,
}

/// A generation that can come into use, see [`ServerTls::prepare`].
#[derive(Debug)]
#[must_use = "it comes into use by ServerTls::apply"]
pub struct Prepared {
    generation: Generation,
    judged: Judged,
}

impl ServerTls {
    /// Reads and checks everything that `config` names.
    ///
    /// # Errors
    /// [`TlsErrors`] with every fault of every file.
    pub fn load(config: &TlsConfig) -> Result<Self, TlsErrors> {
        let own_tickets = Ticketer::new().map_err(TlsError::from)?;
        let Prepared { generation, judged } = prepare(config, &own_tickets)?;
        tell(&generation);
        Ok(Self(Arc::new(Shared {
            current: ArcSwap::from_pointee(generation),
            own_tickets,
            judged: Mutex::new(judged),
            reloads: AtomicU64::new(0),
            refused: AtomicU64::new(0),
        })))
    }

    /// For the next handshake: the newest certificates and ticket keys.
    #[must_use]
    pub fn config(&self, alpn: Alpn) -> Arc<ServerConfig> {
        let current = self.0.current.load();
        match alpn {
            Alpn::Http1 => Arc::clone(&current.http1),
            Alpn::Http2AndHttp1 => Arc::clone(&current.http2),
        }
    }

    /// Reads all files anew, whether they look changed or not, and uses them from the next handshake on. Reads files: not for
    /// the threads of requests.
    ///
    /// # Errors
    /// [`TlsErrors`]; the last good ones stay in use then.
    pub fn reload(&self) -> Result<(), TlsErrors> {
        let config = self.judged().config.clone();
        let prepared = self.prepare(&config).inspect_err(|_| self.count_refused())?;
        self.apply(prepared);
        Ok(())
    }

    /// The first half of a change of `[tls]` itself: reads and checks what `config` names, and changes nothing.
    ///
    /// # Errors
    /// [`TlsErrors`] with every fault of every file.
    pub fn prepare(&self, config: &TlsConfig) -> Result<Prepared, TlsErrors> {
        prepare(config, &self.0.own_tickets)
    }

    /// The second half: what was prepared is used from the next handshake on, and its files are watched.
    pub fn apply(&self, prepared: Prepared) {
        self.switch(self.judged(), prepared);
    }

    fn switch(&self, mut last: MutexGuard<'_, Judged>, Prepared { generation, judged }: Prepared) {
        tell(&generation);
        *last = judged;
        self.0.current.store(Arc::new(generation));
        self.0.reloads.fetch_add(1, Ordering::Relaxed);
    }

    /// When the certificates in use end.
    #[must_use]
    pub fn expiries(&self) -> Vec<Expiry> {
        self.0.current.load().expiries.clone()
    }

    /// What is no fault of those in use, but seldom meant.
    #[must_use]
    pub fn warnings(&self) -> Vec<TlsWarning> {
        self.0.current.load().warnings.clone()
    }

    /// How often the files changed.
    #[must_use]
    pub fn counts(&self) -> TlsCounts {
        TlsCounts {
            reloads: self.0.reloads.load(Ordering::Relaxed),
            refused: self.0.refused.load(Ordering::Relaxed),
        }
    }

    /// Whether an OCSP response in use has ended.
    fn staples_what_has_ended(&self) -> bool {
        self.0.current.load().stapled_until.is_some_and(|end| end <= now())
    }

    fn judged(&self) -> MutexGuard<'_, Judged> {
        // Whoever panicked with it left it whole: it is written in one piece.
        self.0.judged.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn count_refused(&self) {
        self.0.refused.fetch_add(1, Ordering::Relaxed);
    }
}

fn tell(generation: &Generation) {
    info!(certificates = generation.expiries.len(), "certificates in use");
    for warning in &generation.warnings {
        warn!(%warning, "certificate");
    }
}

fn prepare(config: &TlsConfig, own_tickets: &Arc<dyn ProducesTickets>) -> Result<Prepared, TlsErrors> {
    let material = Material::read(config);
    let judged = Judged { config: config.clone(), fingerprint: material.fingerprint() };
    Ok(Prepared { generation: Generation::new(material, config.min_version, own_tickets)?, judged })
}

impl Generation {
    fn new(
        material: Material,
        min_version: TlsVersion,
        own_tickets: &Arc<dyn ProducesTickets>,
    ) -> Result<Self, TlsErrors> {
        let provider = Arc::new(intermediate());
        let now = now();
        let Material { certificates: files, ticket_keys, fault } = material;
        let mut errors = Vec::from_iter(fault);
        let mut certificates = Vec::with_capacity(files.len());
        for files in &files {
            match Certificate::parse(files, &provider, now) {
                Ok(certificate) => certificates.push(certificate),
                Err(error) => errors.push(error),
            }
        }
        let tickets: Arc<dyn ProducesTickets> = match ticket_keys.as_ref().map(FileTickets::parse) {
            Some(Ok(tickets)) => Arc::new(tickets),
            Some(Err(error)) => {
                errors.push(error);
                Arc::clone(own_tickets)
            }
            None => Arc::clone(own_tickets),
        };
        if !errors.is_empty() {
            return Err(TlsErrors(errors));
        }
        let (resolver, hidden) = Resolver::new(&certificates);
        let warnings = certificates.iter().flat_map(|certificate| certificate.warnings(now)).chain(hidden);
        let expiry = |certificate: &Certificate| Expiry {
            path: certificate.path.clone(),
            name: certificate.names.first().cloned(),
            not_after: certificate.not_after,
        };
        let versions: &[_] = match min_version {
            TlsVersion::V1_2 => &[&rustls::version::TLS13, &rustls::version::TLS12],
            TlsVersion::V1_3 => &[&rustls::version::TLS13],
        };
        let mut http1 = ServerConfig::builder_with_provider(provider)
            .with_protocol_versions(versions)
            .map_err(TlsError::from)?
            .with_no_client_auth()
            .with_cert_resolver(Arc::new(resolver));
        http1.ticketer = tickets;
        // The order of the suites is ours, as HAProxy's is by default: all are good, the first is the one that costs least.
        http1.ignore_client_order = true;
        // Tickets resume; a store of sessions would be one lock for all cores.
        http1.session_storage = Arc::new(NoServerSessionStorage {});
        // No 0-RTT: a replayed request would be a request.
        http1.max_early_data_size = 0;
        http1.send_half_rtt_data = false;
        http1.alpn_protocols = vec![b"http/1.1".to_vec()];
        let mut http2 = http1.clone();
        http2.alpn_protocols.insert(0, b"h2".to_vec());
        Ok(Self {
            http1: Arc::new(http1),
            http2: Arc::new(http2),
            expiries: certificates.iter().map(expiry).collect(),
            warnings: warnings.collect(),
            stapled_until: certificates.iter().filter_map(Certificate::stapled_until).min(),
        })
    }
}

/// Unix time, seconds.
fn now() -> i64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
    i64::try_from(now).unwrap_or(i64::MAX)
}

/// Mozilla's intermediate set (Server Side TLS 5.7): TLS 1.3's three suites, ECDHE with AES-GCM or ChaCha20-Poly1305, X25519,
/// P-256 and P-384, but for the order, which is ours. Its DHE-RSA suites are left out: ring has none, and of the clients it lists only
/// Internet Explorer 11 on Windows 7 with an RSA certificate needs them. Listed and not taken from rustls' defaults, which change.
fn intermediate() -> CryptoProvider {
    CryptoProvider {
        cipher_suites: vec![
            cipher_suite::TLS13_AES_128_GCM_SHA256,
            cipher_suite::TLS13_AES_256_GCM_SHA384,
            cipher_suite::TLS13_CHACHA20_POLY1305_SHA256,
            cipher_suite::TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256,
            cipher_suite::TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256,
            cipher_suite::TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384,
            cipher_suite::TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384,
            cipher_suite::TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256,
            cipher_suite::TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256,
        ],
        kx_groups: vec![kx_group::X25519, kx_group::SECP256R1, kx_group::SECP384R1],
        ..default_provider()
    }
}

#[cfg(test)]
mod tests;
