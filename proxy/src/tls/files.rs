//! The files behind `[tls]`: which they are, what they hold at one moment, and whether that is what they held before.

use super::error::TlsError;
use crate::config::TlsConfig;
use ring::digest;
use shardgate_discovery::FileStamp;
use std::ffi::OsStr;
use std::fs;
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};

/// A chain of four certificates and a key have 10 kB.
const FILE_BYTES_MAX: u64 = 1 << 20;
/// Each costs a `stat` a second and some 10 kB; beyond that the whole is refused.
const CERTIFICATES_MAX: usize = 4_096;
/// What a certificate's file ends with, as HAProxy's bundles do.
const ENDINGS: [&str; 3] = [".pem", ".pem.rsa", ".pem.ecdsa"];

/// A file and what it held, or why that is not known.
#[derive(Debug)]
pub(super) struct Content {
    pub(super) path: PathBuf,
    pub(super) bytes: Result<Vec<u8>, String>,
}

impl Content {
    pub(super) fn read(path: &Path) -> Self {
        Self { path: path.to_owned(), bytes: read(path).map_err(|error| error.to_string()) }
    }

    /// The bytes.
    pub(super) fn get(&self) -> Result<&[u8], TlsError> {
        match &self.bytes {
            Ok(bytes) => Ok(bytes),
            Err(what) => Err(TlsError::Unreadable { path: self.path.clone(), what: what.clone() }),
        }
    }
}

fn read(path: &Path) -> io::Result<Vec<u8>> {
    // A pipe would hold the reader until somebody writes.
    if !fs::metadata(path)?.is_file() {
        return Err(io::Error::other("it is no regular file"));
    }
    let mut bytes = Vec::new();
    fs::File::open(path)?.take(FILE_BYTES_MAX + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > FILE_BYTES_MAX {
        return Err(io::Error::other("it is larger"));
    }
    Ok(bytes)
}

/// One certificate's files.
#[derive(Debug)]
pub(super) struct CertificateFiles {
    pub(super) cert: Content,
    /// `None` when the chain's file holds the key.
    pub(super) key: Option<Content>,
    pub(super) ocsp: Option<Content>,
}

/// What all files held at one moment.
#[derive(Debug)]
pub(super) struct Material {
    pub(super) certificates: Vec<CertificateFiles>,
    pub(super) ticket_keys: Option<Content>,
    /// Why the list of files is not what it should be.
    pub(super) fault: Option<TlsError>,
}

/// Equal ones are of equal material.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Fingerprint([u8; digest::SHA256_OUTPUT_LEN]);

impl Material {
    /// Reads all files that `config` names, in the order of preference: the listed ones, then the folder's by name.
    pub(super) fn read(config: &TlsConfig) -> Self {
        let (paths, fault) = match list(config) {
            Ok(paths) => (paths, None),
            Err(fault) => (Vec::new(), Some(fault)),
        };
        let read = |paths: &Paths| CertificateFiles {
            cert: Content::read(&paths.cert),
            key: paths.key.as_deref().map(Content::read),
            ocsp: match &paths.ocsp {
                Staple::Named(path) => Some(Content::read(path)),
                Staple::Beside(path) => path.exists().then(|| Content::read(path)),
            },
        };
        Self {
            certificates: paths.iter().map(read).collect(),
            ticket_keys: config.ticket_keys.as_deref().map(Content::read),
            fault,
        }
    }

    fn contents(&self) -> impl Iterator<Item = &Content> {
        let certificates = self.certificates.iter();
        certificates
            .flat_map(|files| std::iter::once(&files.cert).chain(&files.key).chain(&files.ocsp))
            .chain(&self.ticket_keys)
    }

    /// Whether everything could be read: what could not may be there without any file having changed.
    pub(super) fn is_whole(&self) -> bool {
        self.fault.is_none() && self.contents().all(|content| content.bytes.is_ok())
    }

    pub(super) fn fingerprint(&self) -> Fingerprint {
        let mut hash = digest::Context::new(&digest::SHA256);
        let mut field = |bytes: &[u8]| {
            hash.update(&(bytes.len() as u64).to_le_bytes());
            hash.update(bytes);
        };
        if let Some(fault) = &self.fault {
            field(fault.to_string().as_bytes());
        }
        for content in self.contents() {
            field(content.path.as_os_str().as_encoded_bytes());
            match &content.bytes {
                Ok(bytes) => field(bytes),
                Err(what) => field(what.as_bytes()),
            }
        }
        let mut fingerprint = [0; digest::SHA256_OUTPUT_LEN];
        fingerprint.copy_from_slice(hash.finish().as_ref());
        Fingerprint(fingerprint)
    }
}

/// How files look from outside; `None` for one that is not there.
pub(super) type Stamps = Vec<(PathBuf, Option<FileStamp>)>;

/// The stamps of all files, those that may come to be included.
pub(super) fn stamps(config: &TlsConfig) -> Stamps {
    let stamp = |path: &Path| (path.to_owned(), FileStamp::of(path));
    let mut stamps: Vec<_> = config.ticket_keys.iter().map(|path| stamp(path)).collect();
    // A folder that cannot be listed leaves no stamps, which the list before had.
    for Paths { cert, key, ocsp } in list(config).unwrap_or_default() {
        let (Staple::Named(staple) | Staple::Beside(staple)) = &ocsp;
        stamps
            .extend([Some(&cert), key.as_ref(), Some(staple)].into_iter().flatten().map(|path| stamp(path)));
    }
    stamps
}

enum Staple {
    /// It has to be there.
    Named(PathBuf),
    /// It may be there.
    Beside(PathBuf),
}

struct Paths {
    cert: PathBuf,
    key: Option<PathBuf>,
    ocsp: Staple,
}

fn list(config: &TlsConfig) -> Result<Vec<Paths>, TlsError> {
    let mut paths: Vec<Paths> = Vec::new();
    for certificate in &config.certificates {
        let ocsp = match &certificate.ocsp {
            Some(path) => Staple::Named(path.clone()),
            None => Staple::Beside(staple_of(&certificate.cert)),
        };
        let key = (certificate.key != certificate.cert).then(|| certificate.key.clone());
        paths.push(Paths { cert: certificate.cert.clone(), key, ocsp });
    }
    if let Some(folder) = &config.directory {
        let mut files = in_folder(folder)
            .map_err(|source| TlsError::Directory { path: folder.clone(), source })?
            .into_iter()
            .filter(|file| !config.certificates.iter().any(|listed| listed.cert == *file))
            .peekable();
        if files.peek().is_none() && paths.is_empty() {
            return Err(TlsError::NoFiles { path: folder.clone() });
        }
        paths.extend(files.map(|cert| Paths { ocsp: Staple::Beside(staple_of(&cert)), cert, key: None }));
    }
    if paths.len() > CERTIFICATES_MAX {
        return Err(TlsError::TooMany { found: paths.len(), most: CERTIFICATES_MAX });
    }
    Ok(paths)
}

/// The certificates' files of a folder, by name.
fn in_folder(folder: &Path) -> io::Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        if path.file_name().is_some_and(names_a_certificate) && !path.is_dir() {
            files.push(path);
        }
    }
    files.sort();
    Ok(files)
}

/// Whether a file of that name holds a chain and its key. What begins with a dot is somebody's file in the making.
fn names_a_certificate(name: &OsStr) -> bool {
    let bytes = name.as_encoded_bytes();
    !bytes.starts_with(b".") && ENDINGS.iter().any(|ending| bytes.ends_with(ending.as_bytes()))
}

fn staple_of(cert: &Path) -> PathBuf {
    let mut path = cert.as_os_str().to_owned();
    path.push(".ocsp");
    path.into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn certificates_are_known_by_their_names() {
        for name in ["a.pem", "a.pem.rsa", "a.pem.ecdsa", "a.b.pem"] {
            assert!(names_a_certificate(OsStr::new(name)), "{name}");
        }
        for name in [".a.pem", "a.pem.ocsp", "a.key", "a.pem~", "a.crt", "a.pem.rsa.ocsp", "pem"] {
            assert!(!names_a_certificate(OsStr::new(name)), "{name}");
        }
    }

    #[test]
    fn a_fingerprint_tells_where_files_end() {
        let of = |parts: &[(&str, &str)]| {
            let content = |(path, bytes): &(&str, &str)| CertificateFiles {
                cert: Content { path: path.into(), bytes: Ok(bytes.as_bytes().to_vec()) },
                key: None,
                ocsp: None,
            };
            let certificates = parts.iter().map(content).collect();
            Material { certificates, ticket_keys: None, fault: None }.fingerprint()
        };
        assert_eq!(of(&[("a", "xy")]), of(&[("a", "xy")]));
        assert_ne!(of(&[("a", "xy")]), of(&[("ax", "y")]));
        assert_ne!(of(&[("a", "x"), ("b", "y")]), of(&[("a", "xy"), ("b", "")]));
    }
}
