//! A node with two certificates in files, and the files' replacement.

use std::collections::HashMap;
use std::fs;
use std::net::{SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use rustls::client::Resumption;
use rustls::pki_types::CertificateDer;
use rustls::{ClientConfig, RootCertStore};
use shardgate_tests::certificates::Authority;
use shardgate_tests::plain_shard;

use crate::clients::{Visitor, visit};

const IN_ONE_FILE: &str = "bundle.test";
const IN_TWO_FILES: &str = "pair.test";
/// The names that the node serves, and how their certificates stand in files.
pub(crate) const NAMES: [(&str, &str); 2] =
    [(IN_ONE_FILE, "chain and key in one file"), (IN_TWO_FILES, "chain and key in two files")];
const STARTS_WITHIN: Duration = Duration::from_secs(15);

/// Certificates by their bytes, and the generation of each.
pub(crate) type Known = HashMap<Vec<u8>, u64>;

/// A running node. Dropping it kills it and waits for its end.
pub(crate) struct Site {
    folder: tempfile::TempDir,
    authority: Authority,
    address: SocketAddr,
    generation: u64,
    known: Arc<Mutex<Known>>,
    child: Child,
}

impl Drop for Site {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

impl Site {
    /// A node that serves certificates of the first generation.
    pub(crate) fn start() -> Self {
        let folder = tempfile::tempdir().expect("a scratch folder");
        let address = free_tcp();
        let authority = Authority::new().expect("a key");
        let known = Arc::new(Mutex::new(Known::new()));
        fs::create_dir(folder.path().join("certificates")).expect("a folder");
        write_generation(folder.path(), &authority, &known, 1);
        let child = start_node(folder.path(), address);
        let mut site = Self { folder, authority, address, generation: 1, known, child };
        let deadline = Instant::now() + STARTS_WITHIN;
        while let Err(error) = visit(&site.visitor(), IN_ONE_FILE) {
            let ended = site.child.try_wait().expect("its state can be asked for");
            let log = || fs::read_to_string(site.folder.path().join("log")).unwrap_or_default();
            assert!(ended.is_none() && Instant::now() < deadline, "{error}; {ended:?}\n{}", log());
            std::thread::sleep(Duration::from_millis(20));
        }
        site
    }

    /// Replaces everything; the new generation. Each file is replaced by a rename, a certificate and its key by two.
    pub(crate) fn replace(&mut self) -> u64 {
        self.generation += 1;
        write_generation(self.folder.path(), &self.authority, &self.known, self.generation);
        self.generation
    }

    /// The newest one.
    pub(crate) fn generation(&self) -> u64 {
        self.generation
    }

    /// Waits until this generation is served for both names; how long that took.
    pub(crate) fn wait_until_served(&self, generation: u64, within: Duration) -> Duration {
        let (began, visitor) = (Instant::now(), self.visitor());
        for (name, kind) in NAMES {
            let newest = || visit(&visitor, name).map(|served| served.generation);
            while newest().is_ok_and(|served| served < generation) {
                assert!(began.elapsed() < within, "{kind}: number {generation} not served within {within:?}");
                std::thread::sleep(Duration::from_millis(10));
            }
        }
        began.elapsed()
    }

    /// A client that trusts the authority.
    pub(crate) fn visitor(&self) -> Visitor {
        self.visitor_that_trusts(self.authority.der())
    }

    /// A client that trusts this certificate.
    pub(crate) fn visitor_that_trusts(&self, root: &[u8]) -> Visitor {
        let mut roots = RootCertStore::empty();
        roots.add(CertificateDer::from(root.to_vec())).expect("an authority's certificate");
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
        let config = config.expect("ring has all versions").with_root_certificates(roots);
        let mut config = config.with_no_client_auth();
        config.resumption = Resumption::disabled();
        Visitor { address: self.address, config: Arc::new(config), known: Arc::clone(&self.known) }
    }
}

fn write_generation(folder: &Path, authority: &Authority, known: &Mutex<Known>, generation: u64) {
    let issue = |name: &str| {
        let issued = authority.issue(name, generation).expect("a certificate");
        known.lock().expect("no client panics").insert(issued.der.clone(), generation);
        issued
    };
    replace(folder, "certificates/bundle.pem", &issue(IN_ONE_FILE).bundle());
    let pair = issue(IN_TWO_FILES);
    replace(folder, "pair.crt", &pair.cert);
    replace(folder, "pair.key", &pair.key);
}

fn replace(folder: &Path, file: &str, text: &str) {
    let fresh = folder.join("fresh");
    fs::write(&fresh, text).expect("the file is written");
    fs::rename(&fresh, folder.join(file)).expect("the file is renamed");
}

fn start_node(folder: &Path, address: SocketAddr) -> Child {
    let discovery = format!(
        "live_release = \"r1\"\n[[shards]]\nname = \"s1\"\nid = 1\nregion = \"here\"\nrelease = \"r1\"\naddress = \"{}\"\n",
        plain_shard::serve("127.91.1.1", "here").expect("an address of this machine")
    );
    fs::write(folder.join("discovery.toml"), discovery).expect("the file is written");
    let config = format!(
        "[node]\nid = \"a\"\nregion = \"here\"\n[frontend]\nworkers = 1\n\
         [[listeners]]\nname = \"https\"\nlisten = [\"{address}\"]\nprotocol = \"https\"\n\
         [tls]\ndirectory = \"certificates\"\n[[tls.certificates]]\ncert = \"pair.crt\"\nkey = \"pair.key\"\n\
         [discovery]\nfile = \"discovery.toml\"\n[[admin]]\nlisten = \"{}\"\nserve = [\"status\"]\n",
        free_tcp()
    );
    let path = folder.join("shardgate.toml");
    fs::write(&path, config).expect("the configuration is written");
    let log = fs::File::create(folder.join("log")).expect("a log file");
    let mut command = Command::new(binary("shardgate"));
    command.env_clear().arg("serve").arg("--config").arg(path).stdout(Stdio::null()).stderr(log);
    command.spawn().expect("the binary starts")
}

/// A built binary of the same profile as this test.
fn binary(name: &str) -> PathBuf {
    let this = std::env::current_exe().expect("a test has a path");
    this.parent().and_then(Path::parent).expect("a test stands in target/PROFILE/deps").join(name)
}

fn free_tcp() -> SocketAddr {
    TcpListener::bind("127.91.0.1:0").and_then(|socket| socket.local_addr()).expect("a free port")
}
