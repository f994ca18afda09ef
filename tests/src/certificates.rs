//! Certificates for clients that meet a proxy from outside: an authority of the test's own, and what it signs.

use std::io;

use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DnType, ExtendedKeyUsagePurpose, IsCa, KeyPair,
    KeyUsagePurpose, SerialNumber,
};

/// A certificate authority with an ECDSA P-256 key.
pub struct Authority {
    issuer: CertifiedIssuer<'static, KeyPair>,
}

/// A certificate and its key.
pub struct Issued {
    /// The certificate, PEM.
    pub cert: String,
    /// The same, DER.
    pub der: Vec<u8>,
    /// Its key, PEM (PKCS #8).
    pub key: String,
}

impl Issued {
    /// Both in one file, as HAProxy's `crt` wants them.
    #[must_use]
    pub fn bundle(&self) -> String {
        format!("{}{}", self.cert, self.key)
    }
}

impl Authority {
    /// A new one.
    ///
    /// # Errors
    /// When no key can be made.
    pub fn new() -> io::Result<Self> {
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, "shardgate test CA");
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        let key = KeyPair::generate().map_err(io::Error::other)?;
        let issuer = CertifiedIssuer::self_signed(params, key).map_err(io::Error::other)?;
        Ok(Self { issuer })
    }

    /// Its own certificate, DER: what clients trust.
    #[must_use]
    pub fn der(&self) -> &[u8] {
        self.issuer.der()
    }

    /// The same, PEM.
    #[must_use]
    pub fn pem(&self) -> String {
        self.issuer.pem()
    }

    /// A server's certificate with a new ECDSA P-256 key and this serial number.
    ///
    /// # Errors
    /// When `name` is no DNS name.
    pub fn issue(&self, name: &str, serial: u64) -> io::Result<Issued> {
        self.issue_for(vec![ExtendedKeyUsagePurpose::ServerAuth], name, serial)
    }

    /// As [`Self::issue`], for an address or a name, and to be shown by a client as well.
    ///
    /// # Errors
    /// When `name` is neither.
    pub fn issue_for_both_sides(&self, name: &str, serial: u64) -> io::Result<Issued> {
        let both = vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
        self.issue_for(both, name, serial)
    }

    fn issue_for(
        &self,
        purposes: Vec<ExtendedKeyUsagePurpose>,
        name: &str,
        serial: u64,
    ) -> io::Result<Issued> {
        let mut params = CertificateParams::new(vec![name.to_owned()]).map_err(io::Error::other)?;
        params.distinguished_name.push(DnType::CommonName, name);
        params.serial_number = Some(SerialNumber::from(serial));
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = purposes;
        params.use_authority_key_identifier_extension = true;
        let key = KeyPair::generate().map_err(io::Error::other)?;
        let cert = params.signed_by(&key, &self.issuer).map_err(io::Error::other)?;
        Ok(Issued { cert: cert.pem(), der: cert.der().to_vec(), key: key.serialize_pem() })
    }
}
