//! What is wrong with certificates and ticket keys, and in which file.

use std::fmt;
use std::io;
use std::path::PathBuf;

/// One fault.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// The folder cannot be listed.
    #[error("tls.directory {}: {source}, expected a readable folder", path.display())]
    Directory {
        /// The folder.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
    /// There is nothing to show to clients.
    #[error("tls.directory {}: holds no *.pem file, expected at least one", path.display())]
    NoFiles {
        /// The folder.
        path: PathBuf,
    },
    /// More files than will be read.
    #[error("tls: {found} certificates, expected at most {most}")]
    TooMany {
        /// How many there are.
        found: usize,
        /// How many there may be.
        most: usize,
    },
    /// A file cannot be read.
    #[error("tls: {}: {what}, expected a readable file of at most 1 MiB", path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// What the system says.
        what: String,
    },
    /// No certificate in it.
    #[error("tls: {}: holds no certificate, expected certificates in PEM, in a chain the own one first", path.display())]
    NoCertificate {
        /// The file.
        path: PathBuf,
    },
    /// Its PEM is broken.
    #[error("tls: {}: is no PEM ({what})", path.display())]
    Pem {
        /// The file.
        path: PathBuf,
        /// How it is broken. Not the reader's own words: they quote the file, which may hold a key.
        what: &'static str,
    },
    /// The server's certificate is none.
    #[error("tls: {}: its first certificate cannot be read ({what}), expected X.509 version 3", path.display())]
    Certificate {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        what: String,
    },
    /// No key in it.
    #[error("tls: {}: holds no private key, expected one in PEM without a passphrase", path.display())]
    NoKey {
        /// The file.
        path: PathBuf,
    },
    /// The key is of no kind that can be used.
    #[error("tls: {}: its private key cannot be used ({source}), expected ECDSA P-256 or P-384, RSA from 2048 bits or Ed25519", path.display())]
    Key {
        /// The file.
        path: PathBuf,
        /// What rustls says.
        source: rustls::Error,
    },
    /// Certificate and key are of two pairs.
    #[error("tls: {}: its key does not match the certificate in {}", key.display(), cert.display())]
    Mismatch {
        /// The certificate's file.
        cert: PathBuf,
        /// The key's file.
        key: PathBuf,
    },
    /// What should be stapled is no successful answer.
    #[error("tls: {}: is no successful OCSP response, expected one in DER (RFC 6960)", path.display())]
    Ocsp {
        /// The file.
        path: PathBuf,
    },
    /// Ticket keys that cannot be used.
    #[error("tls.ticket_keys {}: {what}", path.display())]
    TicketKeys {
        /// The file.
        path: PathBuf,
        /// What is wrong and what was expected; it tells nothing of a key.
        what: String,
    },
    /// The system gives no random numbers, or rustls refuses the whole.
    #[error("tls: {0}")]
    Rustls(#[from] rustls::Error),
}

/// Everything that is wrong, a line each.
#[derive(Debug)]
pub struct TlsErrors(pub Vec<TlsError>);

impl fmt::Display for TlsErrors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, error) in self.0.iter().enumerate() {
            if index > 0 {
                f.write_str("\n")?;
            }
            write!(f, "{error}")?;
        }
        Ok(())
    }
}

impl std::error::Error for TlsErrors {}

impl From<TlsError> for TlsErrors {
    fn from(error: TlsError) -> Self {
        Self(vec![error])
    }
}
