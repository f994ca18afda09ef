//! Which certificate a client is shown.

use super::certificate::{Certificate, TlsWarning};
use foldhash::fast::RandomState;
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use rustls::{SignatureAlgorithm, SignatureScheme};
use std::collections::HashMap;
use std::path::Path;
use std::sync::Arc;

/// Certificates by name. As HAProxy without `strict-sni`: the exact name, then the wildcard of one label, then the default.
/// Among those of a name the client's signature schemes decide, and where several would do, ECDSA: its signatures cost a
/// tenth of RSA's.
#[derive(Debug)]
pub(super) struct Resolver {
    names: HashMap<String, Vec<Arc<CertifiedKey>>, RandomState>,
    default: Vec<Arc<CertifiedKey>>,
}

impl Resolver {
    /// The first one is the default, together with those of another kind that have its first name.
    pub(super) fn new(certificates: &[Certificate]) -> (Self, Vec<TlsWarning>) {
        let mut warnings = Vec::new();
        let mut found: HashMap<&str, Vec<&Certificate>, RandomState> = HashMap::default();
        for certificate in certificates {
            for name in &certificate.names {
                let others = found.entry(name).or_default();
                let by = others.iter().find(|other| kind(other) == kind(certificate));
                if let Some(by) = by.filter(|by| by.path != certificate.path) {
                    warnings.push(hidden(name, &certificate.path, &by.path));
                }
                others.push(certificate);
            }
        }
        let by_preference = |certificates: &[&Certificate]| {
            let mut certificates = certificates.to_vec();
            certificates.sort_by_key(|certificate| preference(kind(certificate)));
            certificates.into_iter().map(|certificate| Arc::clone(&certificate.certified)).collect()
        };
        let first = certificates.first();
        let default = match first.and_then(|first| first.names.first()) {
            Some(name) => {
                let mut of_name: Vec<&Certificate> = found.get(name.as_str()).cloned().unwrap_or_default();
                // One of its kind: the others are hidden by it.
                of_name.retain(|other| {
                    first.is_none_or(|first| kind(other) != kind(first) || other.path == first.path)
                });
                by_preference(&of_name)
            }
            None => by_preference(&first.into_iter().collect::<Vec<_>>()),
        };
        let names = found.iter().map(|(name, of_name)| ((*name).to_owned(), by_preference(of_name)));
        (Self { names: names.collect(), default }, warnings)
    }

    /// `None` only without any certificate. One that the client cannot verify is returned when there is no better one: the
    /// handshake fails with the right alert.
    pub(super) fn choose(
        &self,
        name: Option<&str>,
        schemes: &[SignatureScheme],
    ) -> Option<&Arc<CertifiedKey>> {
        let name = name.map(|name| name.trim_end_matches('.').to_ascii_lowercase());
        let exact = name.as_deref().and_then(|name| self.names.get(name));
        let wildcard = || {
            let (_, parent) = name.as_deref()?.split_once('.')?;
            self.names.get(&format!("*.{parent}"))
        };
        let usable = |of_name: &Vec<Arc<CertifiedKey>>| -> Option<usize> {
            of_name.iter().position(|certified| certified.key.choose_scheme(schemes).is_some())
        };
        let (mut first_level, mut levels) =
            (None, [exact, wildcard(), Some(&self.default)].into_iter().flatten());
        levels
            .find_map(|of_name| {
                first_level.get_or_insert(of_name);
                usable(of_name).and_then(|index| of_name.get(index))
            })
            .or_else(|| first_level.and_then(|of_name: &Vec<_>| of_name.first()))
    }
}

impl ResolvesServerCert for Resolver {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        self.choose(hello.server_name(), hello.signature_schemes()).cloned()
    }
}

fn hidden(name: &str, path: &Path, by: &Path) -> TlsWarning {
    TlsWarning::Hidden { name: name.to_owned(), path: path.to_owned(), by: by.to_owned() }
}

fn kind(certificate: &Certificate) -> SignatureAlgorithm {
    certificate.certified.key.algorithm()
}

const fn preference(kind: SignatureAlgorithm) -> u8 {
    if matches!(kind, SignatureAlgorithm::ECDSA) {
        0
    } else if matches!(kind, SignatureAlgorithm::ED25519) {
        1
    } else {
        2
    }
}
