//! A mesh CA and certificates of nodes, so that nobody needs openssl.

use std::fs;
use std::io::Write as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose,
};
use shardgate_peering_core::PeerId;

use crate::tls::{Environment, dns_name};

/// Why a CA or a certificate could not be made.
#[derive(Debug, thiserror::Error)]
pub enum PkiError {
    /// A file that is in the way: nothing is overwritten.
    #[error("{} exists already; remove it first if it is to be replaced", .0.display())]
    Exists(PathBuf),
    /// A file could not be read or written.
    #[error("{}: {source}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// The CA's files are none, or a certificate could not be made.
    #[error("certificate: {0}")]
    Certificate(#[from] rcgen::Error),
}

/// Where a CA stands in a directory: `ca.pem` and `ca.key`.
#[derive(Debug, Clone)]
pub struct CaFiles {
    dir: PathBuf,
}

/// The files of one node: `{peer}.pem` and `{peer}.key`.
#[derive(Debug, Clone)]
pub struct NodeFiles {
    /// The certificate, PEM.
    pub cert: PathBuf,
    /// Its key, PEM, readable by its owner only.
    pub key: PathBuf,
}

impl CaFiles {
    /// The CA in `dir`.
    #[must_use]
    pub fn at(dir: &Path) -> Self {
        Self { dir: dir.to_owned() }
    }

    /// The CA's certificate.
    #[must_use]
    pub fn cert(&self) -> PathBuf {
        self.dir.join("ca.pem")
    }

    /// The CA's key.
    #[must_use]
    pub fn key(&self) -> PathBuf {
        self.dir.join("ca.key")
    }

    /// Makes a new CA for an environment.
    ///
    /// # Errors
    /// [`PkiError`]; an existing CA is never overwritten.
    pub fn init(&self, environment: &Environment) -> Result<(), PkiError> {
        let key = KeyPair::generate()?;
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, format!("shardgate mesh CA of {environment}"));
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        let cert = params.self_signed(&key)?;
        fs::create_dir_all(&self.dir).map_err(|source| PkiError::File { path: self.dir.clone(), source })?;
        write_secret(&self.key(), &key.serialize_pem())?;
        write_new(&self.cert(), &cert.pem(), 0o644)
    }

    /// Makes the certificate of a node, signed by this CA; it names the node and its environment.
    ///
    /// # Errors
    /// [`PkiError`]; an existing certificate is never overwritten.
    pub fn issue(&self, environment: &Environment, peer: &PeerId) -> Result<NodeFiles, PkiError> {
        let files = NodeFiles {
            cert: self.dir.join(format!("{peer}.pem")),
            key: self.dir.join(format!("{peer}.key")),
        };
        let ca_key = KeyPair::from_pem(&read(&self.key())?)?;
        let issuer = Issuer::from_ca_cert_pem(&read(&self.cert())?, ca_key)?;
        let key = KeyPair::generate()?;
        let mut params = CertificateParams::new(vec![dns_name(peer, environment)])?;
        params.distinguished_name.push(DnType::CommonName, peer.as_str());
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages =
            vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
        params.use_authority_key_identifier_extension = true;
        let cert = params.signed_by(&key, &issuer)?;
        write_secret(&files.key, &key.serialize_pem())?;
        write_new(&files.cert, &cert.pem(), 0o644)?;
        Ok(files)
    }
}

/// Makes a certificate that no CA has signed, for a web server that answers to these names and addresses: `web.pem` and `web.key` in `dir`.
/// Browsers warn of it unless they are told its key.
///
/// # Errors
/// [`PkiError`]; an existing certificate is never overwritten.
pub fn make_web_certificate(dir: &Path, names: &[&str]) -> Result<NodeFiles, PkiError> {
    let files = NodeFiles { cert: dir.join("web.pem"), key: dir.join("web.key") };
    let key = KeyPair::generate()?;
    let mut params =
        CertificateParams::new(names.iter().map(|name| (*name).to_owned()).collect::<Vec<String>>())?;
    params.distinguished_name.push(DnType::CommonName, "shardgate dev");
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    let cert = params.self_signed(&key)?;
    write_secret(&files.key, &key.serialize_pem())?;
    write_new(&files.cert, &cert.pem(), 0o644)?;
    Ok(files)
}

fn read(path: &Path) -> Result<String, PkiError> {
    fs::read_to_string(path).map_err(|source| PkiError::File { path: path.to_owned(), source })
}

fn write_secret(path: &Path, text: &str) -> Result<(), PkiError> {
    write_new(path, text, 0o600)
}

fn write_new(path: &Path, text: &str, mode: u32) -> Result<(), PkiError> {
    let file = fs::OpenOptions::new().write(true).create_new(true).mode(mode).open(path);
    file.and_then(|mut file| file.write_all(text.as_bytes())).map_err(|source| {
        if source.kind() == std::io::ErrorKind::AlreadyExists {
            PkiError::Exists(path.to_owned())
        } else {
            PkiError::File { path: path.to_owned(), source }
        }
    })
}
