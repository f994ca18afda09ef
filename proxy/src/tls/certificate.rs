//! One certificate: its chain, its key, its names, its end.

use super::error::TlsError;
use super::files::{CertificateFiles, Content};
use rustls::crypto::CryptoProvider;
use rustls::pki_types::pem::{self, PemObject as _};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::sign::CertifiedKey;
use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;
use x509_parser::extensions::GeneralName;
use x509_parser::prelude::{FromDer as _, X509Certificate};

/// A certificate that can be shown to clients.
#[derive(Debug, Clone)]
pub(super) struct Certificate {
    pub(super) path: PathBuf,
    /// The DNS names of its subject alternative names, in lower case; a wildcard as `*.example.com`.
    pub(super) names: Vec<String>,
    /// Seconds of Unix time.
    pub(super) not_before: i64,
    /// Seconds of Unix time.
    pub(super) not_after: i64,
    pub(super) certified: Arc<CertifiedKey>,
}

/// What is no fault, but seldom meant.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TlsWarning {
    /// Clients will refuse it.
    Expired(PathBuf),
    /// Clients will refuse it for now.
    NotYetValid(PathBuf),
    /// It can only be the default.
    NoNames(PathBuf),
    /// Two of one kind for one name: the first is shown.
    Hidden {
        /// The name.
        name: String,
        /// The file that is not used for it.
        path: PathBuf,
        /// The file that is.
        by: PathBuf,
    },
}

impl fmt::Display for TlsWarning {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Expired(path) => write!(f, "{}: has expired", path.display()),
            Self::NotYetValid(path) => write!(f, "{}: is not valid yet", path.display()),
            Self::NoNames(path) => {
                write!(f, "{}: has no DNS name (subject alternative name)", path.display())
            }
            Self::Hidden { name, path, by } => {
                write!(f, "{}: is not shown for {name}, {} is", path.display(), by.display())
            }
        }
    }
}

impl Certificate {
    /// Checks the files of one certificate against each other.
    pub(super) fn parse(files: &CertificateFiles, provider: &CryptoProvider) -> Result<Self, TlsError> {
        let path = || files.cert.path.clone();
        let chain = certificates(&files.cert)?;
        let Some(own) = chain.first() else { return Err(TlsError::NoCertificate { path: path() }) };
        let broken = |what: &dyn fmt::Display| TlsError::Certificate { path: path(), what: what.to_string() };
        let (_, parsed) = X509Certificate::from_der(own).map_err(|error| broken(&error))?;
        let (names, validity) = (names(&parsed).map_err(|error| broken(&error))?, parsed.validity());
        let (not_before, not_after) = (validity.not_before.timestamp(), validity.not_after.timestamp());
        let key_file = files.key.as_ref().unwrap_or(&files.cert);
        let key = provider
            .key_provider
            .load_private_key(private_key(key_file)?)
            .map_err(|source| TlsError::Key { path: key_file.path.clone(), source })?;
        let mut certified = CertifiedKey::new(chain, key);
        match certified.keys_match() {
            Ok(()) => {}
            Err(rustls::Error::InconsistentKeys(_)) => {
                return Err(TlsError::Mismatch { cert: path(), key: key_file.path.clone() });
            }
            Err(error) => return Err(broken(&error)),
        }
        certified.ocsp = match &files.ocsp {
            Some(file) => staple(file)?,
            None => None,
        };
        Ok(Self { path: path(), names, not_before, not_after, certified: Arc::new(certified) })
    }

    /// What is to be said of it at `now` (Unix time, seconds).
    pub(super) fn warnings(&self, now: i64) -> impl Iterator<Item = TlsWarning> {
        let path = || self.path.clone();
        [
            (self.not_after < now).then(|| TlsWarning::Expired(path())),
            (now < self.not_before).then(|| TlsWarning::NotYetValid(path())),
            self.names.is_empty().then(|| TlsWarning::NoNames(path())),
        ]
        .into_iter()
        .flatten()
    }
}

/// The certificates of a PEM file, at least one.
pub(super) fn certificates(file: &Content) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let path = || file.path.clone();
    let chain: Vec<_> = CertificateDer::pem_slice_iter(file.get()?)
        .collect::<Result<_, _>>()
        .map_err(|source| TlsError::Pem { path: path(), source })?;
    if chain.is_empty() { Err(TlsError::NoCertificate { path: path() }) } else { Ok(chain) }
}

/// The first key of a PEM file.
pub(super) fn private_key(file: &Content) -> Result<PrivateKeyDer<'static>, TlsError> {
    PrivateKeyDer::from_pem_slice(file.get()?).map_err(|source| {
        let path = file.path.clone();
        if matches!(source, pem::Error::NoItemsFound) {
            TlsError::NoKey { path }
        } else {
            TlsError::Pem { path, source }
        }
    })
}

fn names(certificate: &X509Certificate<'_>) -> Result<Vec<String>, x509_parser::error::X509Error> {
    let Some(extension) = certificate.subject_alternative_name()? else { return Ok(Vec::new()) };
    let names = extension.value.general_names.iter();
    let dns = names.filter_map(|name| if let GeneralName::DNSName(name) = name { Some(name) } else { None });
    Ok(dns.map(|name| name.to_ascii_lowercase()).collect())
}

/// An empty file is HAProxy's for "none yet".
fn staple(file: &Content) -> Result<Option<Vec<u8>>, TlsError> {
    match file.get()? {
        [] => Ok(None),
        der if is_successful_response(der) => Ok(Some(der.to_vec())),
        _ => Err(TlsError::Ocsp { path: file.path.clone() }),
    }
}

/// Whether it is one whole `OCSPResponse` with `responseStatus` successful (RFC 6960 section 4.2.1); clients judge the rest.
fn is_successful_response(der: &[u8]) -> bool {
    // SEQUENCE of a long length (a signature alone takes more than 127 bytes), then ENUMERATED successful(0).
    let [0x30, length, rest @ ..] = der else { return false };
    let Some(size) = length.checked_sub(0x80).map(usize::from).filter(|size| (1..=4).contains(size)) else {
        return false;
    };
    let Some((length, body)) = rest.split_at_checked(size) else { return false };
    let length = length.iter().fold(0_usize, |length, byte| length << 8 | usize::from(*byte));
    length == body.len() && body.starts_with(&[0x0a, 0x01, 0x00])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_whole_successful_answer_is_stapled() {
        let mut good = vec![0x30, 0x82, 0x01, 0x2c, 0x0a, 0x01, 0x00];
        good.resize(4 + 300, 7);
        assert!(is_successful_response(&good));
        assert!(!is_successful_response(&good[..303]));
        let mut trying_later = good.clone();
        trying_later[6] = 3;
        assert!(!is_successful_response(&trying_later));
        for bad in [&b""[..], b"0", b"\x30\x03\x0a\x01\x06", b"\x30\x85", b"-----BEGIN OCSP RESPONSE-----"] {
            assert!(!is_successful_response(bad), "{bad:?}");
        }
    }
}
