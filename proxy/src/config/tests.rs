use super::*;
use crate::address_range::AddressRange;
use crate::cookie::CookieName;
use crate::limits::{PerAddress, Rate};
use crate::log_writer::LogTarget;
use std::fs;
use std::path::PathBuf;
use std::time::Duration;

mod broken;
mod example;

/// The least that is valid.
const MINIMAL: &str = "[node]\nid = \"a1\"\nregion = \"r1\"\n[discovery]\nfile = \"d.toml\"\n";

/// A folder with a configuration and what it may name.
struct Folder(tempfile::TempDir);

impl Folder {
    fn with(text: impl AsRef<[u8]>) -> Self {
        let folder = tempfile::tempdir().unwrap();
        for name in ["ca.pem", "cert.pem", "key.pem"] {
            fs::write(folder.path().join(name), "pem").unwrap();
        }
        fs::create_dir(folder.path().join("pages")).unwrap();
        fs::write(folder.path().join("pages/503.html"), "<h1>sorry</h1>").unwrap();
        fs::write(folder.path().join("pages/404.html"), "not ours").unwrap();
        fs::write(folder.path().join("large.html"), vec![b'x'; (256 << 10) + 1]).unwrap();
        fs::write(folder.path().join("c.toml"), text).unwrap();
        Self(folder)
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn load(&self, env: &[(&str, &str)], sets: &[&str]) -> Result<Config, String> {
        let env = env.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
        let sets: Vec<String> = sets.iter().map(|set| (*set).to_owned()).collect();
        load(&self.path("c.toml"), env, &sets)
            .map_err(|errors| errors.to_string().replace(&format!("{}/", self.0.path().display()), ""))
    }
}

fn minimal() -> Folder {
    Folder::with(MINIMAL)
}

#[test]
fn the_least_is_the_defaults() {
    let folder = minimal();
    let node = NodeConfig::new(
        shardgate_peering_core::PeerId::parse("a1").unwrap(),
        shardgate_discovery::RegionName::parse("r1").unwrap(),
    );
    let expected = Config::new(node, DiscoveryConfig::file(folder.path("d.toml")));
    assert_eq!(folder.load(&[], &[]).unwrap(), expected);
    assert_eq!(expected.node.host_name, "a1");
    let DiscoveryConfig::File(file) = expected.discovery else { panic!("a file is named") };
    assert_eq!(file.watch().every, Duration::from_millis(500));
}

#[test]
fn waiting_for_a_place_takes_as_long_as_connecting_may() {
    let queue_timeout = |sets: &[&str]| minimal().load(&[], sets).unwrap().backend.queue_timeout;
    assert_eq!(queue_timeout(&["backend.connect_timeout=3s"]), Duration::from_secs(3));
    let sets = ["backend.connect_timeout=3s", "backend.queue_timeout=30s"];
    assert_eq!(queue_timeout(&sets), Duration::from_secs(30));
}

#[test]
fn what_is_limited_by_address() {
    let per_address = |sets: &[&str]| minimal().load(&[], sets).unwrap().limits.per_address();
    let default = per_address(&[]);
    assert_eq!((default.connections_max, default.connection_rate, default.request_rate), (0, None, None));
    assert_eq!(default.new_key_rate, Rate::new(20, 200));
    assert_eq!(default.exempt, AddressRange::LOOPBACK);
    let off = per_address(&["limits.new_key_rate=0", "limits.exempt=[]"]);
    assert_eq!(off, PerAddress::OFF);
}

const POOLS: &str = "pools=[{name='chat', paths=['/chat/'], servers=['10.0.0.1:80', '10.0.0.2:80 weight=0'], \
                     stick_on_cookie='SID', protocol='https', verify='off', sni='Chat.example'}, {name='plain', paths=['/plain/'], servers=['[::1]:80']}]";

#[test]
fn pools_stick_or_take_turns() {
    let pools = minimal().load(&[], &[POOLS]).unwrap().routing.pools;
    let cookies: Vec<_> =
        pools.iter().map(|pool| pool.stick_on_cookie.as_ref().map(CookieName::as_str)).collect();
    assert_eq!(cookies, [Some("SID"), None]);
}

#[test]
fn what_is_printed_is_read_back_equal() {
    let folder = minimal();
    let sets = [
        "mesh.ca=ca.pem",
        "pages.dir=pages",
        "log.access=/var/log/shardgate/access.log",
        "log.audit=stdout",
        "frontend.workers=3",
        "frontend.listen=127.0.0.1:8000,[::1]:8000",
        "backend.redispatch=off",
        "backend.connect_timeout=3s",
        "limits.memory_max=2GiB",
        "limits.exempt=10.0.0.0/8,2001:db8::/32,192.0.2.1",
        "limits.request_rate=100",
        "backend.protocol=https",
        "backend.ca=/ca.pem",
        "backend.client_cert=/node.pem",
        "backend.client_key=/node.key",
        "backend.send_proxy=v2",
        "routing.service_hosts=[]",
        "routing.room_parameter=r",
        "routing.stick_flag=keep=1",
        "routing.denied_referers=spam.example.com,evil.example.com/x",
        "shutdown.drain=0s",
        "frontend.trusted_proxies=10.0.0.0/8,2001:db8::1,192.0.2.1",
        "frontend.forwarded_for=replace",
        "frontend.request_id=make",
        "frontend.hsts=max-age=1; preload",
        "frontend.response_headers=['X-A: \"b, c\"', 'X-D: e']",
    ];
    let tls = "[tls]\ndirectory = \"pages\"\nticket_keys = \"key.pem\"\nmin_version = \"1.3\"\n[[tls.certificates]]\n\
               cert = \"cert.pem\"\n[[tls.certificates]]\ncert = \"cert.pem\"\nkey = \"key.pem\"\nocsp = \"ca.pem\"\n";
    let text = format!("{MINIMAL}{tls}[mesh]\nca = \"ca.pem\"\ncert = \"cert.pem\"\nkey = \"key.pem\"\n");
    let full = Folder::with(text);
    let pages = format!("pages.dir={}", full.path("pages").display());
    let ca = format!("mesh.ca={}", full.path("ca.pem").display());
    let sets: Vec<&str> = sets.iter().skip(2).copied().chain([pages.as_str(), ca.as_str()]).collect();
    for config in [
        folder.load(&[], &[]).unwrap(),
        full.load(&[], &sets).unwrap(),
        full.load(&[], &["admin=[]"]).unwrap(),
        folder.load(&[], &[POOLS]).unwrap(),
    ] {
        let printed = config.to_string();
        let again =
            Folder::with(&printed).load(&[], &[]).unwrap_or_else(|errors| panic!("{errors}\n{printed}"));
        assert_eq!(again, config, "{printed}");
    }
}

#[test]
fn file_then_environment_then_set() {
    let folder = Folder::with(format!("{MINIMAL}[backend]\nretries = 1\n"));
    let retries = |env: &[(&str, &str)], sets: &[&str]| folder.load(env, sets).unwrap().backend.retries;
    assert_eq!(retries(&[], &[]), 1);
    assert_eq!(retries(&[("SHARDGATE_BACKEND__RETRIES", "2")], &[]), 2);
    assert_eq!(retries(&[("SHARDGATE_BACKEND__RETRIES", "2")], &["backend.retries=4"]), 4);
    assert_eq!(retries(&[], &["backend.retries=4", "backend.retries=5"]), 5);
    assert_eq!(
        retries(&[("SHARDGATEX", "2"), ("HOME", "/root"), ("SHARDGATE_SERVICE_HOST", "10.0.0.1")], &[]),
        1
    );
}

#[test]
fn overrides_need_no_quotes() {
    let folder = minimal();
    let config = folder
        .load(
            &[("SHARDGATE_NODE__ID", "7"), ("SHARDGATE_FRONTEND__LISTEN", "127.0.0.1:81, 127.0.0.2:81")],
            &[
                "node.region=\"quoted\"",
                "frontend.workers=auto",
                "backend.connect_timeout = 250ms",
                "node.host_name=1.5",
            ],
        )
        .unwrap();
    assert_eq!((config.node.id.as_str(), config.node.region.as_str()), ("7", "quoted"));
    assert_eq!(config.node.host_name, "1.5");
    assert_eq!(config.frontend.listen.len(), 2);
    assert_eq!(config.backend.connect_timeout, Duration::from_millis(250));
    let admin = "admin=[{listen='127.0.0.1:9000', serve=['metrics']}]";
    assert_eq!(folder.load(&[], &[admin]).unwrap().admin.len(), 1);
}

#[test]
fn paths_start_at_the_file() {
    let folder = Folder::with(format!(
        "{MINIMAL}[log]\naccess = \"access.log\"\naudit = \"audit.log\"\n[pages]\n502 = \"pages/503.html\"\n"
    ));
    let config = folder.load(&[], &[]).unwrap();
    assert_eq!(config.log.access, LogTarget::File(folder.path("access.log")));
    assert_eq!(config.log.audit, LogTarget::File(folder.path("audit.log")));
    assert_eq!(config.discovery, DiscoveryConfig::file(folder.path("d.toml")));
    assert_eq!(config.pages.get(502).unwrap().body, "<h1>sorry</h1>");
    assert!(config.pages.get(503).is_none());
    let elsewhere = folder.load(&[], &["discovery.file=d.toml"]).unwrap();
    assert_eq!(elsewhere.discovery, DiscoveryConfig::file(PathBuf::from("d.toml")));
}

#[test]
fn a_folder_of_pages_gives_those_it_has() {
    let folder = Folder::with(format!("{MINIMAL}[pages]\ndir = \"pages\"\n400 = \"ca.pem\"\n"));
    let pages = folder.load(&[], &[]).unwrap().pages;
    let found: Vec<u16> = (100..600).filter(|status| pages.get(*status).is_some()).collect();
    assert_eq!(found, [400, 503]);
}

#[test]
fn a_mesh_can_come_from_the_environment_alone() {
    let folder = minimal();
    let file = |name| folder.path(name).display().to_string();
    let (ca, cert, key) = (file("ca.pem"), file("cert.pem"), file("key.pem"));
    let env = [
        ("SHARDGATE_MESH__CA", ca.as_str()),
        ("SHARDGATE_MESH__CERT", cert.as_str()),
        ("SHARDGATE_MESH__KEY", key.as_str()),
    ];
    let mesh = folder.load(&env, &[]).unwrap().mesh.unwrap();
    assert_eq!(mesh, MeshConfig::new(ca.clone().into(), cert.clone().into(), key.clone().into()));
}

#[test]
fn consul_is_printed_as_it_was_read() {
    let node = MINIMAL.replace("[discovery]\nfile = \"d.toml\"\n", "");
    assert_ne!(node, MINIMAL);
    let full = format!(
        "{node}[consul]\naddress = \"https://consul:8501\"\ntoken_file = \"token\"\nca = \"ca.pem\"\nclient_cert = \"c.pem\"\n\
         client_key = \"c.key\"\nnamespace = \"ns\"\npartition = \"p\"\ndatacenter = \"dc-1\"\ndatacenters = [\"dc-2\", \"dc-3\"]\n\
         shard_service = \"a\"\nnode_service = \"b\"\nproxy_service = \"c\"\nstandalone_service = \"off\"\nremote_address = \"wan\"\nmax_stale = \"3s\"\n\
         state_file = \"state.json\"\nstart_timeout = \"1s\"\nregister = \"off\"\nadvertise = \"10.0.0.1\"\n\
         advertise_wan = \"192.0.2.1\"\ndomain = \"meet.example.com\"\ncheck_ttl = \"9s\"\nderegister_after = \"1h\"\n"
    );
    for text in [full, format!("{node}[consul]\nstate_file = \"off\"\n"), format!("{node}[consul]\n")] {
        let folder = Folder::with(text);
        let config = folder.load(&[], &[]).unwrap();
        assert!(matches!(config.discovery, DiscoveryConfig::Consul(_)));
        let again = Folder::with(config.to_string());
        assert_eq!(again.load(&[], &[]).unwrap(), config, "{config}");
    }
    let pool = "[[pools]]\nname = \"jigasi\"\npaths = [\"/jigasi/\"]\nservice = \"jigasi\"\n";
    let folder = Folder::with(format!("{node}[consul]\n{pool}"));
    let config = folder.load(&[], &[]).unwrap();
    assert_eq!(config.routing.pools[0].service().unwrap().as_str(), "jigasi");
    assert_eq!(Folder::with(config.to_string()).load(&[], &[]).unwrap(), config);
    for (text, error) in [
        (
            format!("{MINIMAL}{pool}"),
            "pools[0].service is \"jigasi\", expected servers, as there is no [consul]",
        ),
        (
            format!("{node}[consul]\n{pool}servers = [\"10.0.0.1:80\"]\n"),
            "pools[0].service is \"jigasi\", expected nothing beside servers",
        ),
    ] {
        let errors = Folder::with(text).load(&[], &[]).unwrap_err().to_string();
        assert!(errors.contains(error), "{errors}");
    }
    let folder = Folder::with(format!("{node}[consul]\naddress = \"ftp://x\"\nclient_key = \"k\"\n"));
    let errors = folder.load(&[], &[]).unwrap_err().to_string();
    assert!(errors.contains("consul.address is \"ftp://x\", expected an agent's address"), "{errors}");
    assert!(errors.contains("consul.client_key"), "{errors}");
}
