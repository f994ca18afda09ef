//! Who may speak on the mesh: certificates of the mesh CA that name the peer and its environment.

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::RootCertStore;
use rustls::pki_types::pem::{self, PemObject as _};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::WebPkiClientVerifier;
use shardgate_peering_core::{IdError, PeerId};

/// The protocol versions this node speaks, newest first. The next release lists its own and this one.
pub const ALPN: [&[u8]; 1] = [b"shardgate-mesh/1"];

/// Names in certificates end with this; it need not resolve anywhere.
const SUFFIX: &str = "mesh.shardgate.internal";

/// The name of an environment, a DNS label.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Environment(String);

impl Environment {
    /// Parses an environment's name: `[a-z0-9-]`, 1 to 63 characters.
    ///
    /// # Errors
    /// [`IdError`] when it is no lower-case DNS label.
    pub fn parse(text: &str) -> Result<Self, IdError> {
        PeerId::parse(text).map_err(|error| IdError { what: "environment", ..error })?;
        Ok(Self(text.to_owned()))
    }
}

impl fmt::Display for Environment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// The DNS name (subject alternative name) in the certificate of `peer`.
#[must_use]
pub fn dns_name(peer: &PeerId, environment: &Environment) -> String {
    format!("{peer}.{environment}.{SUFFIX}")
}

/// Files of this node's identity, PEM.
#[derive(Debug, Clone)]
pub struct IdentityFiles {
    /// The mesh CA's certificate.
    pub ca: PathBuf,
    /// This node's certificate.
    pub cert: PathBuf,
    /// Its key.
    pub key: PathBuf,
}

/// Why an identity is not usable.
#[derive(Debug, thiserror::Error)]
pub enum IdentityError {
    /// A file that cannot be read or holds no PEM of that kind.
    #[error("{field} {}: {what}", path.display())]
    File {
        /// `ca`, `cert` or `key`.
        field: &'static str,
        /// The file.
        path: PathBuf,
        /// Why. Not the reader's own words: they quote the file, which may hold a key.
        what: String,
    },
    /// A certificate list without certificates.
    #[error("{field} {}: holds no certificate, expected PEM", path.display())]
    Empty {
        /// `ca` or `cert`.
        field: &'static str,
        /// The file.
        path: PathBuf,
    },
    /// The certificate names somebody else.
    #[error("cert {}: is for {found}, expected {expected}; issue one with `shardgate pki issue`", path.display())]
    WrongName {
        /// The file.
        path: PathBuf,
        /// The name it holds.
        found: String,
        /// The name of this node.
        expected: String,
    },
    /// Certificate and key do not fit, or another fault that rustls found.
    #[error("identity: {0}")]
    Tls(#[from] rustls::Error),
    /// The CA cannot verify anybody.
    #[error("ca: {0}")]
    Verifier(#[from] rustls::server::VerifierBuilderError),
    /// No TLS 1.3 cipher that QUIC needs.
    #[error("identity: {0}")]
    Quic(#[from] quinn::crypto::rustls::NoInitialCipherSuite),
}

/// Both sides' TLS configuration.
#[derive(Debug, Clone)]
pub(crate) struct Identity {
    pub(crate) client: Arc<rustls::ClientConfig>,
    pub(crate) server: Arc<rustls::ServerConfig>,
}

impl Identity {
    /// Reads and checks the files: the certificate must be this node's own.
    pub(crate) fn load(
        files: &IdentityFiles,
        me: &PeerId,
        environment: &Environment,
    ) -> Result<Self, IdentityError> {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let mut roots = RootCertStore::empty();
        for cert in certificates("ca", &files.ca)? {
            roots.add(cert)?;
        }
        let roots = Arc::new(roots);
        let chain = certificates("cert", &files.cert)?;
        let expected = dns_name(me, environment);
        let found = names(&chain[0]);
        if !found.contains(&expected) {
            return Err(IdentityError::WrongName {
                path: files.cert.clone(),
                found: found.join(", "),
                expected,
            });
        }
        let key = PrivateKeyDer::from_pem_file(&files.key).map_err(|error| IdentityError::File {
            field: "key",
            path: files.key.clone(),
            what: fault(&error),
        })?;
        let verifier =
            WebPkiClientVerifier::builder_with_provider(Arc::clone(&roots), Arc::clone(&provider)).build()?;
        let tls13 = &[&rustls::version::TLS13];
        let alpn: Vec<Vec<u8>> = ALPN.iter().map(|version| version.to_vec()).collect();
        let mut server = rustls::ServerConfig::builder_with_provider(Arc::clone(&provider))
            .with_protocol_versions(tls13)?
            .with_client_cert_verifier(verifier)
            .with_single_cert(chain.clone(), key.clone_key())?;
        server.alpn_protocols.clone_from(&alpn);
        // No 0-RTT: a replayed frame would be a decision out of its time.
        server.max_early_data_size = 0;
        let mut client = rustls::ClientConfig::builder_with_provider(provider)
            .with_protocol_versions(tls13)?
            .with_root_certificates(roots)
            .with_client_auth_cert(chain, key)?;
        client.alpn_protocols = alpn;
        client.enable_early_data = false;
        Ok(Self { client: Arc::new(client), server: Arc::new(server) })
    }
}

fn certificates(field: &'static str, path: &Path) -> Result<Vec<CertificateDer<'static>>, IdentityError> {
    let file_error =
        |error: pem::Error| IdentityError::File { field, path: path.to_owned(), what: fault(&error) };
    let list: Vec<_> = CertificateDer::pem_file_iter(path)
        .map_err(file_error)?
        .collect::<Result<_, _>>()
        .map_err(file_error)?;
    if list.is_empty() {
        return Err(IdentityError::Empty { field, path: path.to_owned() });
    }
    Ok(list)
}

fn fault(error: &pem::Error) -> String {
    match error {
        pem::Error::MissingSectionEnd { .. } => {
            "a section has no END line: are its lines complete?".to_owned()
        }
        pem::Error::IllegalSectionStart { .. } => {
            "a BEGIN line does not end with -----: are its line ends lost?".to_owned()
        }
        pem::Error::Io(error) => error.to_string(),
        pem::Error::NoItemsFound => "no items found".to_owned(),
        pem::Error::Base64Decode(_) | pem::Error::SectionTooLarge | _ => "is no PEM".to_owned(),
    }
}

fn names(cert: &CertificateDer<'_>) -> Vec<String> {
    webpki::EndEntityCert::try_from(cert)
        .map(|cert| cert.valid_dns_names().map(str::to_owned).collect())
        .unwrap_or_default()
}

/// What a verified certificate says about who it is.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Named {
    /// A peer of this environment.
    Peer(PeerId),
    /// Of the same CA, but of another environment.
    OtherEnvironment(String),
    /// No name of a mesh's node.
    Nobody(String),
}

/// Who a certificate is, which the CA's signature has already been checked of.
pub(crate) fn named(cert: &CertificateDer<'_>, environment: &Environment) -> Named {
    let names = names(cert);
    for name in &names {
        let Some(rest) = name.strip_suffix(SUFFIX).and_then(|rest| rest.strip_suffix('.')) else { continue };
        let Some((peer, other)) = rest.split_once('.') else { continue };
        if other != environment.0 {
            return Named::OtherEnvironment(other.to_owned());
        }
        if let Ok(peer) = PeerId::parse(peer) {
            return Named::Peer(peer);
        }
    }
    Named::Nobody(names.join(", "))
}
