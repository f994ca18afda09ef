//! One certificate: its chain, its key, its names, its end.

use super::error::TlsError;
use super::files::{CertificateFiles, Content};
use super::ocsp::Staple;
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
    pub(super) stapled: Stapled,
    pub(super) certified: Arc<CertifiedKey>,
}

/// What of an OCSP response clients get.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Stapled {
    /// There is none.
    Nothing,
    /// It, until then (Unix time, seconds).
    Until(i64),
    /// It has ended: clients that look would refuse the handshake.
    Expired,
    /// It is about another certificate, as after a renewal: the same.
    Foreign,
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
    /// Its OCSP response has expired and is not stapled.
    StapleExpired(PathBuf),
    /// Its OCSP response is about another certificate and is not stapled.
    StapleForeign(PathBuf),
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
            Self::StapleExpired(path) => {
                write!(f, "{}: its OCSP response has expired, it is not stapled", path.display())
            }
            Self::StapleForeign(path) => {
                write!(
                    f,
                    "{}: its OCSP response is about another certificate, it is not stapled",
                    path.display()
                )
            }
            Self::Hidden { name, path, by } => {
                write!(f, "{}: is not shown for {name}, {} is", path.display(), by.display())
            }
        }
    }
}

impl Certificate {
    /// Checks the files of one certificate against each other, at `now` (Unix time, seconds).
    pub(super) fn parse(
        files: &CertificateFiles,
        provider: &CryptoProvider,
        now: i64,
    ) -> Result<Self, TlsError> {
        let path = || files.cert.path.clone();
        let chain = certificates(&files.cert)?;
        let Some(own) = chain.first() else { return Err(TlsError::NoCertificate { path: path() }) };
        let broken = |what: &dyn fmt::Display| TlsError::Certificate { path: path(), what: what.to_string() };
        let (_, parsed) = X509Certificate::from_der(own).map_err(|error| broken(&error))?;
        let (names, validity) = (names(&parsed).map_err(|error| broken(&error))?, parsed.validity());
        let serial = parsed.raw_serial().to_vec();
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
        let staple = files.ocsp.as_ref().map(Staple::read).transpose()?.flatten();
        let stapled = match staple {
            None => Stapled::Nothing,
            Some(staple) if !staple.is_about(&serial) => Stapled::Foreign,
            Some(Staple { next_update: Some(end), .. }) if end <= now => Stapled::Expired,
            Some(Staple { der, next_update, .. }) => {
                certified.ocsp = Some(der);
                Stapled::Until(next_update.unwrap_or(i64::MAX))
            }
        };
        Ok(Self { path: path(), names, not_before, not_after, stapled, certified: Arc::new(certified) })
    }

    /// When its staple ends (Unix time, seconds).
    pub(super) const fn stapled_until(&self) -> Option<i64> {
        match self.stapled {
            Stapled::Until(end) => Some(end),
            Stapled::Nothing | Stapled::Expired | Stapled::Foreign => None,
        }
    }

    /// What is to be said of it at `now` (Unix time, seconds).
    pub(super) fn warnings(&self, now: i64) -> impl Iterator<Item = TlsWarning> {
        let path = || self.path.clone();
        [
            (self.not_after < now).then(|| TlsWarning::Expired(path())),
            (now < self.not_before).then(|| TlsWarning::NotYetValid(path())),
            self.names.is_empty().then(|| TlsWarning::NoNames(path())),
            (self.stapled == Stapled::Expired).then(|| TlsWarning::StapleExpired(path())),
            (self.stapled == Stapled::Foreign).then(|| TlsWarning::StapleForeign(path())),
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
        .map_err(|error| TlsError::Pem { path: path(), what: fault(&error) })?;
    if chain.is_empty() { Err(TlsError::NoCertificate { path: path() }) } else { Ok(chain) }
}

/// The first key of a PEM file.
pub(super) fn private_key(file: &Content) -> Result<PrivateKeyDer<'static>, TlsError> {
    PrivateKeyDer::from_pem_slice(file.get()?).map_err(|error| {
        let path = file.path.clone();
        if matches!(error, pem::Error::NoItemsFound) {
            TlsError::NoKey { path }
        } else {
            TlsError::Pem { path, what: fault(&error) }
        }
    })
}

fn names(certificate: &X509Certificate<'_>) -> Result<Vec<String>, x509_parser::error::X509Error> {
    let Some(extension) = certificate.subject_alternative_name()? else { return Ok(Vec::new()) };
    let names = extension.value.general_names.iter();
    let dns = names.filter_map(|name| if let GeneralName::DNSName(name) = name { Some(name) } else { None });
    Ok(dns.map(|name| name.to_ascii_lowercase()).collect())
}

/// How PEM is broken, without a word of what the file holds.
const fn fault(error: &pem::Error) -> &'static str {
    match error {
        pem::Error::MissingSectionEnd { .. } => "a section has no END line: are its lines complete?",
        pem::Error::IllegalSectionStart { .. } => {
            "a BEGIN line does not end with -----: are its line ends lost?"
        }
        pem::Error::Base64Decode(_) => "a section is no base64",
        pem::Error::Io(_) | pem::Error::NoItemsFound | pem::Error::SectionTooLarge | _ => "it cannot be read",
    }
}
