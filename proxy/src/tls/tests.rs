//! Handshakes in memory between rustls' own client and what [`ServerTls`] gives out.

use super::ocsp::tests::response;
use super::watch::{Eye, Sight};
use super::*;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{Resumption, WebPkiServerVerifier};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{
    ClientConfig, ClientConnection, DigitallySignedStruct, HandshakeKind, ProtocolVersion, RootCertStore,
    ServerConnection, SignatureAlgorithm, SignatureScheme, SupportedProtocolVersion,
};
use std::fs;
use std::process::Command;
use std::sync::OnceLock;
use std::time::{Duration, Instant};

mod faults;
mod reload;
mod resume;
mod select;

/// A CA in memory, and a folder for what it issues.
struct Issuer {
    folder: tempfile::TempDir,
    root: CertificateDer<'static>,
    ca: rcgen::Issuer<'static, rcgen::KeyPair>,
}

impl Issuer {
    fn new() -> Self {
        let key = rcgen::KeyPair::generate().unwrap();
        let mut params = rcgen::CertificateParams::default();
        params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
        let root = params.self_signed(&key).unwrap().der().clone();
        let ca = rcgen::Issuer::new(params, key);
        Self { folder: tempfile::tempdir().unwrap(), root, ca }
    }

    fn path(&self, file: &str) -> PathBuf {
        self.folder.path().join(file)
    }

    /// The chain and the key for these names.
    fn pair(&self, names: &[&str], key: &rcgen::KeyPair) -> (String, String) {
        let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
        let params = rcgen::CertificateParams::new(names).unwrap();
        (params.signed_by(key, &self.ca).unwrap().pem(), key.serialize_pem())
    }

    /// Writes chain and key into one file.
    fn issue(&self, file: &str, names: &[&str], key: &rcgen::KeyPair) {
        let (cert, key) = self.pair(names, key);
        self.write(file, format!("{cert}{key}"));
    }

    fn ecdsa(&self, file: &str, names: &[&str]) {
        self.issue(file, names, &rcgen::KeyPair::generate().unwrap());
    }

    /// The same with this serial number.
    fn numbered(&self, file: &str, name: &str, serial: &[u8]) {
        let key = rcgen::KeyPair::generate().unwrap();
        let mut params = rcgen::CertificateParams::new(vec![name.to_owned()]).unwrap();
        params.serial_number = Some(rcgen::SerialNumber::from_slice(serial));
        let cert = params.signed_by(&key, &self.ca).unwrap().pem();
        self.write(file, format!("{cert}{}", key.serialize_pem()));
    }

    /// As a careful writer does.
    fn write(&self, file: &str, bytes: impl AsRef<[u8]>) {
        let unready = self.path(".unready");
        fs::write(&unready, bytes).unwrap();
        fs::rename(unready, self.path(file)).unwrap();
    }

    fn config(&self) -> TlsConfig {
        TlsConfig::of_directory(self.folder.path().to_owned())
    }

    fn load(&self) -> ServerTls {
        ServerTls::load(&self.config()).unwrap()
    }

    fn refused(&self, config: &TlsConfig) -> String {
        let errors = ServerTls::load(config).unwrap_err().to_string();
        errors.replace(&format!("{}/", self.folder.path().display()), "")
    }

    fn client(&self) -> Client {
        Client::new(&self.root)
    }
}

/// One RSA key for all tests: making one takes long, and ring cannot.
fn rsa_key() -> rcgen::KeyPair {
    static PEM: OnceLock<String> = OnceLock::new();
    let make = || {
        let made = Command::new("openssl")
            .args(["genpkey", "-algorithm", "RSA", "-pkeyopt", "rsa_keygen_bits:2048"])
            .output()
            .expect("openssl runs");
        assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
        String::from_utf8(made.stdout).unwrap()
    };
    rcgen::KeyPair::from_pem(PEM.get_or_init(make)).unwrap()
}

/// rustls' verifier, with a say about schemes and an eye on the staple.
#[derive(Debug)]
struct Verifier {
    inner: Arc<WebPkiServerVerifier>,
    schemes: Vec<SignatureScheme>,
    stapled: Mutex<Option<Vec<u8>>>,
}

impl ServerCertVerifier for Verifier {
    fn verify_server_cert(
        &self,
        own: &CertificateDer<'_>,
        chain: &[CertificateDer<'_>],
        name: &ServerName<'_>,
        ocsp: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        *self.stapled.lock().unwrap() = (!ocsp.is_empty()).then(|| ocsp.to_vec());
        self.inner.verify_server_cert(own, chain, name, &[], now)
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.inner.verify_tls12_signature(message, cert, signed)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.inner.verify_tls13_signature(message, cert, signed)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.schemes.clone()
    }
}

/// What a client saw.
#[derive(Debug)]
struct Shaken {
    own: CertificateDer<'static>,
    kind: HandshakeKind,
    version: ProtocolVersion,
    alpn: Option<Vec<u8>>,
}

impl Shaken {
    fn names(&self) -> Vec<String> {
        use x509_parser::prelude::FromDer as _;
        let (_, parsed) = x509_parser::prelude::X509Certificate::from_der(&self.own).unwrap();
        let names = parsed.subject_alternative_name().unwrap().unwrap();
        names.value.general_names.iter().map(|name| name.to_string()).collect()
    }

    fn kind_of_key(&self) -> SignatureAlgorithm {
        use x509_parser::prelude::FromDer as _;
        let (_, parsed) = x509_parser::prelude::X509Certificate::from_der(&self.own).unwrap();
        let key = parsed.public_key().parsed().unwrap();
        let rsa = matches!(key, x509_parser::public_key::PublicKey::RSA(_));
        if rsa { SignatureAlgorithm::RSA } else { SignatureAlgorithm::ECDSA }
    }
}

const ALL_SCHEMES: [SignatureScheme; 5] = [
    SignatureScheme::ECDSA_NISTP256_SHA256,
    SignatureScheme::ECDSA_NISTP384_SHA384,
    SignatureScheme::RSA_PSS_SHA256,
    SignatureScheme::RSA_PKCS1_SHA256,
    SignatureScheme::ED25519,
];
const RSA_SCHEMES: [SignatureScheme; 2] =
    [SignatureScheme::RSA_PSS_SHA256, SignatureScheme::RSA_PKCS1_SHA256];
const BOTH: &[&SupportedProtocolVersion] = &[&rustls::version::TLS13, &rustls::version::TLS12];
const ONLY_12: &[&SupportedProtocolVersion] = &[&rustls::version::TLS12];

/// A client that remembers its sessions.
struct Client {
    config: Arc<ClientConfig>,
    verifier: Arc<Verifier>,
}

impl Client {
    fn new(root: &CertificateDer<'static>) -> Self {
        let mut roots = RootCertStore::empty();
        roots.add(root.clone()).unwrap();
        let provider = Arc::new(default_provider());
        let inner = WebPkiServerVerifier::builder_with_provider(Arc::new(roots), provider).build().unwrap();
        let verifier = Verifier { inner, schemes: ALL_SCHEMES.to_vec(), stapled: Mutex::default() };
        Self::of(Arc::new(verifier), BOTH)
    }

    fn of(verifier: Arc<Verifier>, versions: &[&'static SupportedProtocolVersion]) -> Self {
        let config = ClientConfig::builder_with_provider(Arc::new(default_provider()))
            .with_protocol_versions(versions)
            .unwrap()
            .dangerous()
            .with_custom_certificate_verifier(Arc::<Verifier>::clone(&verifier))
            .with_no_client_auth();
        Self { config: Arc::new(config), verifier }
    }

    fn speaking(&self, versions: &[&'static SupportedProtocolVersion]) -> Self {
        Self::of(Arc::clone(&self.verifier), versions)
    }

    fn verifying(&self, schemes: &[SignatureScheme], versions: &[&'static SupportedProtocolVersion]) -> Self {
        let inner = Arc::clone(&self.verifier.inner);
        Self::of(Arc::new(Verifier { inner, schemes: schemes.to_vec(), stapled: Mutex::default() }), versions)
    }

    fn with(&self, change: impl FnOnce(&mut ClientConfig)) -> Self {
        let mut config = ClientConfig::clone(&self.config);
        config.resumption = Resumption::in_memory_sessions(8);
        change(&mut config);
        Self { config: Arc::new(config), verifier: Arc::clone(&self.verifier) }
    }

    /// Shakes hands and reads the tickets; the error is whoever's came first.
    fn shake(&self, server: &Arc<ServerConfig>, name: &str) -> Result<Shaken, rustls::Error> {
        let name = ServerName::try_from(name.to_owned()).unwrap();
        let mut client = ClientConnection::new(Arc::clone(&self.config), name)?;
        let mut server = ServerConnection::new(Arc::clone(server))?;
        let mut wire = Vec::new();
        while client.is_handshaking() || server.is_handshaking() || server.wants_write() {
            while client.wants_write() {
                client.write_tls(&mut wire).unwrap();
            }
            let mut sent = &wire[..];
            while !sent.is_empty() {
                server.read_tls(&mut sent).unwrap();
                server.process_new_packets()?;
            }
            wire.clear();
            while server.wants_write() {
                server.write_tls(&mut wire).unwrap();
            }
            let mut sent = &wire[..];
            while !sent.is_empty() {
                client.read_tls(&mut sent).unwrap();
                client.process_new_packets()?;
            }
            wire.clear();
        }
        Ok(Shaken {
            own: client.peer_certificates().unwrap()[0].clone().into_owned(),
            kind: client.handshake_kind().unwrap(),
            version: client.protocol_version().unwrap(),
            alpn: client.alpn_protocol().map(<[u8]>::to_vec),
        })
    }

    /// Whose certificate `name` gets.
    fn names(&self, server: &ServerTls, name: &str) -> Vec<String> {
        self.shake(&server.config(Alpn::Http1), name).unwrap().names()
    }
}

#[test]
fn the_set_is_mozillas_intermediate() {
    let provider = intermediate();
    let suites: Vec<_> = provider.cipher_suites.iter().map(|suite| format!("{:?}", suite.suite())).collect();
    assert_eq!(
        suites,
        [
            "TLS13_AES_128_GCM_SHA256",
            "TLS13_AES_256_GCM_SHA384",
            "TLS13_CHACHA20_POLY1305_SHA256",
            "TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256",
            "TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256",
            "TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384",
            "TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384",
            "TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256",
            "TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256",
        ]
    );
    let groups: Vec<_> = provider.kx_groups.iter().map(|group| format!("{:?}", group.name())).collect();
    assert_eq!(groups, ["X25519", "secp256r1", "secp384r1"]);
}

#[test]
fn versions_are_as_configured() {
    let issuer = Issuer::new();
    issuer.ecdsa("a.pem", &["a.example"]);
    let (modern, old) = (issuer.client(), issuer.client().speaking(ONLY_12));
    let both = issuer.load().config(Alpn::Http1);
    assert_eq!(modern.shake(&both, "a.example").unwrap().version, ProtocolVersion::TLSv1_3);
    assert_eq!(old.shake(&both, "a.example").unwrap().version, ProtocolVersion::TLSv1_2);
    let only_13 = TlsConfig { min_version: TlsVersion::V1_3, ..issuer.config() };
    let only_13 = ServerTls::load(&only_13).unwrap().config(Alpn::Http1);
    assert_eq!(modern.shake(&only_13, "a.example").unwrap().version, ProtocolVersion::TLSv1_3);
    assert!(old.shake(&only_13, "a.example").is_err());
}

#[test]
fn alpn_is_offered_as_asked() {
    let issuer = Issuer::new();
    issuer.ecdsa("a.pem", &["a.example"]);
    let server = issuer.load();
    let asking = |protocols: &[&str]| {
        issuer.client().with(|config| {
            config.alpn_protocols = protocols.iter().map(|protocol| protocol.as_bytes().to_vec()).collect();
        })
    };
    for (asked, alpn, expected) in [
        (&["http/1.1", "h2"][..], Alpn::Http2AndHttp1, Some("h2")),
        (&["http/1.1"], Alpn::Http2AndHttp1, Some("http/1.1")),
        (&["h2", "http/1.1"], Alpn::Http1, Some("http/1.1")),
        (&[], Alpn::Http2AndHttp1, None),
    ] {
        let shaken = asking(asked).shake(&server.config(alpn), "a.example").unwrap();
        assert_eq!(shaken.alpn.as_deref(), expected.map(str::as_bytes), "{asked:?} of {alpn:?}");
    }
}
