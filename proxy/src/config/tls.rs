//! `[tls]`: certificates and session tickets of the listeners with `protocol = "https"`.

use super::section::Section;
use super::value;
use super::write;
use std::fmt;
use std::path::{Path, PathBuf};

/// PEM files, staples and ticket keys are small; a larger one is a mistake.
const FILE_BYTES_MAX: usize = 1 << 20;
const PEM: &str = "the path of a PEM file, such as \"/etc/shardgate/tls/example.com.pem\"";
const OCSP: &str = "the path of an OCSP response in DER, such as \"/etc/shardgate/tls/example.com.pem.ocsp\"";
const DIRECTORY: &str =
    "the path of a folder with *.pem files of chain and key, such as \"/etc/shardgate/certs\"";
const TICKET_KEYS: &str =
    "the path of a file with at least three lines of 48 or 80 bytes in base64, as HAProxy's tls-ticket-keys";

/// The oldest TLS version that clients may speak.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TlsVersion {
    /// TLS 1.2 and 1.3, as Mozilla's intermediate set.
    V1_2,
    /// TLS 1.3 alone, as Mozilla's modern set.
    V1_3,
}

impl TlsVersion {
    const fn as_str(self) -> &'static str {
        match self {
            Self::V1_2 => "1.2",
            Self::V1_3 => "1.3",
        }
    }
}

/// A certificate by its files.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TlsCertificate {
    /// The chain, PEM, the server's own certificate first. It has no default.
    pub cert: PathBuf,
    /// Its key, PEM. Default: the chain's file holds it as well, as HAProxy's do.
    pub key: PathBuf,
    /// An OCSP response in DER to be stapled. Default: `cert` with `.ocsp` at its end, if there is one.
    pub ocsp: Option<PathBuf>,
}

/// What clients are shown. One of `directory` and `certificates` is there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TlsConfig {
    /// Every `*.pem` of this folder (and `*.pem.rsa`, `*.pem.ecdsa`), chain and key in one file, as HAProxy's `crt`.
    pub directory: Option<PathBuf>,
    /// HAProxy's `tls-ticket-keys`, which nodes share that are to resume each other's sessions. Default: random ones.
    pub ticket_keys: Option<PathBuf>,
    /// Default 1.2: Mozilla's intermediate set, which serves all but long dead clients.
    pub min_version: TlsVersion,
    /// Certificates beside those of the folder; the first one is the default for clients that name no known host.
    pub certificates: Vec<TlsCertificate>,
}

impl TlsConfig {
    /// All certificates of a folder, with every default.
    #[must_use]
    pub const fn of_directory(directory: PathBuf) -> Self {
        Self {
            directory: Some(directory),
            ticket_keys: None,
            min_version: TlsVersion::V1_2,
            certificates: Vec::new(),
        }
    }

    pub(super) fn read(mut section: Section<'_>) -> Option<Self> {
        let versions = [TlsVersion::V1_2, TlsVersion::V1_3].map(|version| (version.as_str(), version));
        let directory = path(&mut section, "directory", DIRECTORY, is_folder);
        let ticket_keys = path(&mut section, "ticket_keys", TICKET_KEYS, is_readable);
        let min_version = section.get("min_version", value::word(&versions)).unwrap_or(TlsVersion::V1_2);
        let tables = section.sections("certificates");
        let given = directory != Given::Absent || tables.as_ref().is_some_and(|tables| !tables.is_empty());
        if !given {
            section.refuse("directory", &"none", format!("{DIRECTORY}, or [[tls.certificates]]"));
        }
        let certificates = tables.unwrap_or_default().into_iter();
        let certificates: Vec<_> =
            certificates.filter_map(|table| TlsCertificate::read(section.entry(table))).collect();
        section.finish();
        given.then(|| Self {
            directory: directory.value(),
            ticket_keys: ticket_keys.value(),
            min_version,
            certificates,
        })
    }
}

impl TlsCertificate {
    fn read(mut section: Section<'_>) -> Option<Self> {
        section.miss("cert", PEM);
        let cert = path(&mut section, "cert", PEM, is_readable).value();
        let key = path(&mut section, "key", PEM, is_readable);
        let ocsp = path(&mut section, "ocsp", OCSP, is_readable).value();
        section.finish();
        let cert = cert?;
        Some(Self { key: key.value().unwrap_or_else(|| cert.clone()), cert, ocsp })
    }
}

/// A path's field; one that was refused has been noted, and is not absent.
#[derive(PartialEq, Eq)]
enum Given {
    Absent,
    Refused,
    Path(PathBuf),
}

impl Given {
    fn value(self) -> Option<PathBuf> {
        match self {
            Self::Path(path) => Some(path),
            Self::Absent | Self::Refused => None,
        }
    }
}

/// What is named has to be there now: `check` is to say what `serve` would trip over.
fn path(
    section: &mut Section<'_>,
    name: &'static str,
    expected: &str,
    look: fn(&Path) -> Result<(), String>,
) -> Given {
    if !section.has(name) {
        // Known, though not given.
        let _none: Option<()> = section.get(name, |_| Ok(()));
        return Given::Absent;
    }
    let text = value::text(expected, |text| (!text.is_empty()).then(|| text.to_owned()));
    let Some(text) = section.get(name, text) else { return Given::Refused };
    let path = section.resolve(name, &text);
    match look(&path) {
        Ok(()) => Given::Path(path),
        Err(expected) => {
            section.refuse(name, &text, expected);
            Given::Refused
        }
    }
}

fn is_readable(path: &Path) -> Result<(), String> {
    value::read_file(path, FILE_BYTES_MAX).map(drop)
}

fn is_folder(path: &Path) -> Result<(), String> {
    match std::fs::read_dir(path) {
        Ok(_) => Ok(()),
        Err(error) => {
            Err(format!("a readable folder ({}: {error})", path.display().to_string().escape_debug()))
        }
    }
}

impl fmt::Display for TlsConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "[tls]")?;
        if let Some(directory) = &self.directory {
            writeln!(f, "directory = {}", write::path(directory))?;
        }
        if let Some(keys) = &self.ticket_keys {
            writeln!(f, "ticket_keys = {}", write::path(keys))?;
        }
        writeln!(f, "min_version = {}", write::text(self.min_version.as_str()))?;
        for TlsCertificate { cert, key, ocsp } in &self.certificates {
            writeln!(f, "\n[[tls.certificates]]")?;
            writeln!(f, "cert = {}", write::path(cert))?;
            writeln!(f, "key = {}", write::path(key))?;
            if let Some(ocsp) = ocsp {
                writeln!(f, "ocsp = {}", write::path(ocsp))?;
            }
        }
        Ok(())
    }
}
