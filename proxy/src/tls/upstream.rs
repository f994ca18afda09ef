//! TLS towards servers: whom this node believes, what it shows of itself, and the sessions that it resumes.

use super::certificate::{certificates, private_key};
use super::error::TlsError;
use super::files::Content;
use super::intermediate;
use crate::config::{UpstreamConfig, UpstreamProtocol, Verify};
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{Resumption, WebPkiServerVerifier};
use rustls::crypto::{CryptoProvider, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::{CertificateDer, DnsName, ServerName, UnixTime};
use rustls::{ClientConfig, DigitallySignedStruct, Error, RootCertStore, SignatureScheme};
use std::net::IpAddr;
use std::path::Path;
use std::sync::Arc;

/// The CAs that the system trusts, where Debian and its kin put them, as HAProxy's `ca-file @system-ca` finds them. The file and no
/// list of our own: whoever runs the system updates it, and adds a CA of their own to it.
const SYSTEM_CA: &str = "/etc/ssl/certs/ca-certificates.crt";
/// Names of servers with sessions to resume, in each worker. Names come from clients, so the least used ones give way.
const SESSIONS_MAX: usize = 256;

/// Who has chosen the name that a server is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Asked {
    /// A client: its request's host.
    ByClient,
    /// The configuration, or nobody.
    ByUs,
}

/// How TLS is spoken to the servers of a pool.
#[derive(Debug, Clone)]
pub(crate) struct UpstreamTls {
    config: Arc<ClientConfig>,
    /// A name for all, instead of the request's host.
    name: Option<ServerName<'static>>,
}

impl UpstreamTls {
    /// Reads the files; `None` where no TLS is spoken.
    pub(crate) fn load(config: &UpstreamConfig) -> Result<Option<Self>, TlsError> {
        if config.protocol == UpstreamProtocol::Http {
            return Ok(None);
        }
        let provider = Arc::new(intermediate());
        let verifier: Arc<dyn ServerCertVerifier> = match config.verify {
            Verify::Off => {
                // Not used, but no surprise on the day when it is.
                config.ca.as_deref().map(|ca| roots(Some(ca))).transpose()?;
                Arc::new(Unverified(Arc::clone(&provider)))
            }
            Verify::On => {
                let roots = Arc::new(roots(config.ca.as_deref())?);
                // It can only lack roots, and those were counted.
                WebPkiServerVerifier::builder_with_provider(roots, Arc::clone(&provider))
                    .build()
                    .map_err(|error| Error::General(error.to_string()))?
            }
        };
        let builder = ClientConfig::builder_with_provider(provider)
            .with_protocol_versions(&[&rustls::version::TLS13, &rustls::version::TLS12])?
            .dangerous()
            .with_custom_certificate_verifier(verifier);
        let mut tls = match &config.client_cert {
            None => builder.with_no_client_auth(),
            Some(cert) => {
                let cert = Content::read(cert);
                let key = config.client_key.as_deref().map(Content::read);
                let key = key.as_ref().unwrap_or(&cert);
                let (chain, key_der) = (certificates(&cert)?, private_key(key)?);
                builder.with_client_auth_cert(chain, key_der).map_err(|source| {
                    let path = key.path.clone();
                    if matches!(source, Error::InconsistentKeys(_)) {
                        TlsError::Mismatch { cert: cert.path.clone(), key: path }
                    } else {
                        TlsError::Key { path, source }
                    }
                })?
            }
        };
        tls.alpn_protocols = vec![b"http/1.1".to_vec()];
        // No 0-RTT: a replayed request would be a request.
        tls.enable_early_data = false;
        // `sni` was read as a name.
        let name = config.sni.clone().and_then(|name| ServerName::try_from(name).ok());
        Ok(Some(Self { config: Arc::new(tls), name }))
    }

    /// The same with sessions of its own: those of all workers together would be behind one lock.
    pub(crate) fn for_worker(&self) -> Self {
        let mut config = ClientConfig::clone(&self.config);
        config.resumption = Resumption::in_memory_sessions(SESSIONS_MAX);
        Self { config: Arc::new(config), name: self.name.clone() }
    }

    pub(crate) fn config(&self) -> Arc<ClientConfig> {
        Arc::clone(&self.config)
    }

    /// Whose the name is that a server is asked for.
    pub(crate) fn asked(&self, name: &ServerName<'_>) -> Asked {
        match (&self.name, name) {
            (None, ServerName::DnsName(_)) => Asked::ByClient,
            _ => Asked::ByUs,
        }
    }

    /// What the server at `address` is asked for by a request to `host`. An address is never sent (RFC 6066 section 3); it is what the
    /// certificate has to hold then.
    pub(crate) fn name(&self, host: Option<&str>, address: IpAddr) -> ServerName<'static> {
        let given = || self.name.clone();
        let host = || {
            let name = DnsName::try_from(host?.to_ascii_lowercase()).ok()?;
            name.as_ref().parse::<IpAddr>().is_err().then_some(ServerName::DnsName(name))
        };
        given().or_else(host).unwrap_or_else(|| ServerName::IpAddress(address.to_canonical().into()))
    }
}

fn roots(ca: Option<&Path>) -> Result<RootCertStore, TlsError> {
    let file = Content::read(ca.unwrap_or_else(|| Path::new(SYSTEM_CA)));
    let certificates = certificates(&file)?;
    let mut roots = RootCertStore::empty();
    match ca {
        None => {
            // Some of the system's are of forms that nobody uses any more.
            let (added, _) = roots.add_parsable_certificates(certificates);
            if added == 0 {
                return Err(TlsError::NoCertificate { path: file.path });
            }
        }
        Some(_) => {
            for certificate in certificates {
                roots.add(certificate).map_err(|error| TlsError::Certificate {
                    path: file.path.clone(),
                    what: error.to_string(),
                })?;
            }
        }
    }
    Ok(roots)
}

/// Believes whoever holds the key of the certificate that it shows, whatever that says.
#[derive(Debug)]
struct Unverified(Arc<CryptoProvider>);

impl ServerCertVerifier for Unverified {
    fn verify_server_cert(
        &self,
        _own: &CertificateDer<'_>,
        _chain: &[CertificateDer<'_>],
        _name: &ServerName<'_>,
        _ocsp: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls12_signature(message, cert, signed, &self.0.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature(message, cert, signed, &self.0.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_host_is_asked_for_when_it_is_a_name() {
        let https = UpstreamConfig {
            protocol: UpstreamProtocol::Https,
            verify: Verify::Off,
            ..UpstreamConfig::default()
        };
        let address: IpAddr = "10.0.0.1".parse().unwrap();
        let asked = |config: &UpstreamConfig, host| {
            let tls = UpstreamTls::load(config).unwrap().unwrap();
            tls.name(host, address).to_str().into_owned()
        };
        for (host, expected) in [
            (Some("Meet.example"), "meet.example"),
            (Some("192.0.2.1"), "10.0.0.1"),
            (Some("::1"), "10.0.0.1"),
            (Some("a b"), "10.0.0.1"),
            (Some(""), "10.0.0.1"),
            (None, "10.0.0.1"),
        ] {
            assert_eq!(asked(&https, host), expected, "{host:?}");
        }
        let fixed = UpstreamConfig { sni: Some("shard.example".to_owned()), ..https };
        assert_eq!(asked(&fixed, Some("meet.example")), "shard.example");
    }

    #[test]
    fn faulty_files_are_named() {
        let folder = tempfile::tempdir().unwrap();
        let empty = folder.path().join("empty.pem");
        std::fs::write(&empty, "").unwrap();
        let https = UpstreamConfig { protocol: UpstreamProtocol::Https, ..UpstreamConfig::default() };
        let refused = |config: &UpstreamConfig| UpstreamTls::load(config).unwrap_err().to_string();
        let said = refused(&UpstreamConfig { ca: Some(empty.clone()), ..https.clone() });
        assert!(said.contains("empty.pem: holds no certificate"), "{said}");
        let verify = Verify::Off;
        let said = refused(&UpstreamConfig { client_cert: Some(empty), verify, ..https.clone() });
        assert!(said.contains("empty.pem: holds no certificate"), "{said}");
        let lost = Some(folder.path().join("lost.pem"));
        assert!(refused(&UpstreamConfig { ca: lost, ..https.clone() }).contains("lost.pem: No such file"));
        assert!(UpstreamTls::load(&https).is_ok(), "{SYSTEM_CA}");
    }
}
