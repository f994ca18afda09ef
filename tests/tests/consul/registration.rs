//! Nodes that register themselves and find each other so, and locks, with real Consul servers.

use std::fs;
use std::path::Path;
use std::process::{Child, Command};
use std::time::Duration;

use serde_json::Value;
use shardgate_discovery::PeerId;
use shardgate_discovery::consul::{LOCK_TTL_MIN, Lock, LockConfig, LockSeeker};
use shardgate_peering::Environment;
use shardgate_peering::pki::CaFiles;

use crate::cluster::{Keys as _, Server, federated, within};
use crate::nodes::{ask, free, routed_at, run, shard, status};

/// After this a silent node's check is critical; three seconds are the least.
const CHECK_TTL: Duration = Duration::from_secs(3);

/// A node with a mesh, which nothing but Consul names to the others; dropped, it is killed.
struct MeshNode {
    id: &'static str,
    http: std::net::SocketAddr,
    admin: std::net::SocketAddr,
    folder: tempfile::TempDir,
    child: Child,
}

impl MeshNode {
    /// `mesh_ip` may be unspecified: then the agent's address is what the others are told.
    fn start(ca: &CaFiles, id: &'static str, agent: &Server, mesh_ip: &str) -> Self {
        let region = agent.datacenter.as_str().trim_start_matches("test-");
        let (http, admin) = (free("127.61.8.2"), free("127.61.8.2"));
        let mesh = std::net::UdpSocket::bind((mesh_ip, 0)).unwrap().local_addr().unwrap();
        let environment = Environment::parse("test").unwrap();
        let files = ca.issue(&environment, &PeerId::parse(id).unwrap()).unwrap();
        let folder = tempfile::tempdir().unwrap();
        let config = format!(
            "[node]\nid = \"{id}\"\nregion = \"{region}\"\nenvironment = \"test\"\nhost_name = \"{id}.example.com\"\n\
             [frontend]\nlisten = [\"{http}\"]\nworkers = 1\n\
             [mesh]\nlisten = \"{mesh}\"\nca = \"{}\"\ncert = \"{}\"\nkey = \"{}\"\n\
             [consul]\naddress = \"{}:8500\"\nstate_file = \"off\"\nstart_timeout = \"2s\"\n\
             domain = \"meet.example.com\"\ncheck_ttl = \"{}s\"\n\
             [shutdown]\ndrain = \"1s\"\n\
             [[admin]]\nlisten = \"{admin}\"\nserve = [\"metrics\", \"status\"]\n",
            ca.cert().display(),
            files.cert.display(),
            files.key.display(),
            agent.ip,
            CHECK_TTL.as_secs(),
        );
        fs::write(folder.path().join("shardgate.toml"), config).unwrap();
        let child = run(folder.path());
        Self { id, http, admin, folder, child }
    }

    fn start_again(&mut self) {
        self.child = run(self.folder.path());
    }

    async fn ready(&self) {
        within(Duration::from_secs(20), "ready", async || status(&ask(self.admin, "/readyz")) == 200).await;
    }

    fn talks_with(&self, peer: &str) -> bool {
        let line = format!("shardgate_peer_reconciled{{peer=\"{peer}\"}} 1");
        ask(self.admin, "/metrics").lines().any(|found| found == line)
    }

    fn lists(&self, peer: &str) -> bool {
        ask(self.admin, "/metrics").contains(&format!("shardgate_peer_reconciled{{peer=\"{peer}\"}}"))
    }

    fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    fn end(&mut self) {
        let pid = self.child.id().to_string();
        assert!(Command::new("kill").args(["-TERM", &pid]).status().unwrap().success());
        assert!(self.child.wait().unwrap().success());
    }

    fn log(&self) -> String {
        fs::read_to_string(self.folder.path().join("log")).unwrap_or_default()
    }
}

impl Drop for MeshNode {
    fn drop(&mut self) {
        if std::thread::panicking() {
            println!("--- {}\n{}", self.id, self.log());
        }
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

/// What Consul answers to a question of ours.
fn consul(server: &Server, path: &str) -> Value {
    let address = format!("{}:8500", server.ip).parse().unwrap();
    let answer = ask(address, path);
    let body = answer.split_once("\r\n\r\n").map_or("", |(_, body)| body);
    serde_json::from_str(body).unwrap_or_else(|error| panic!("{path}: {error}: {answer}"))
}

/// The status of a node's check, as its datacenter knows it; `None` when it is not registered.
fn check(server: &Server, id: &str) -> Option<String> {
    let checks = consul(server, "/v1/health/checks/shardgate");
    let own = checks.as_array()?.iter().find(|check| check["ServiceID"] == format!("test-shardgate-{id}"))?;
    Some(own["Status"].as_str()?.to_owned())
}

async fn becomes(server: &Server, id: &str, expected: Option<&str>) {
    let what = format!("{id} is {expected:?}");
    within(CHECK_TTL * 4, &what, async || check(server, id).as_deref() == expected).await;
}

pub(crate) fn ca(folder: &Path) -> CaFiles {
    let ca = CaFiles::at(folder);
    ca.init(&Environment::parse("test").unwrap()).unwrap();
    ca
}

#[tokio::test(flavor = "multi_thread")]
async fn nodes_find_each_other_by_what_they_register() {
    let (east, mut west) = federated(5).await;
    let agent = east.agent();
    agent.register(&shard(&east, "one", 1, "1")).await.unwrap();
    agent.register(&shard(&east, "two", 2, "1")).await.unwrap();
    for server in [&east, &west] {
        agent.set(&server.datacenter, "releases/test/live", "release-1").await.unwrap();
    }
    let pki = tempfile::tempdir().unwrap();
    let ca = ca(pki.path());
    let in_east = MeshNode::start(&ca, "n-east", &east, "0.0.0.0");
    let mut in_west = MeshNode::start(&ca, "n-west", &west, "127.61.5.3");
    in_east.ready().await;
    in_west.ready().await;
    let soon = Duration::from_secs(5);
    within(soon, "they talk", async || in_east.talks_with("n-west") && in_west.talks_with("n-east")).await;

    // What is decided at one holds at the other: the drain sends new conferences to the second shard, those of before stay.
    for server in [&east, &west] {
        agent.set(&server.datacenter, "shard-states/test/two", "drain").await.unwrap();
    }
    let target = |prefix: &str, n: usize| format!("/http-bind?room={prefix}{n}");
    let mut fresh = 0;
    within(soon, "only one takes conferences", async || {
        fresh += 8;
        (0..8).all(|n| routed_at(in_east.http, &target("a", fresh + n)) == "one")
    })
    .await;
    for n in 0..20 {
        assert_eq!(routed_at(in_east.http, &target("b", n)), "one");
    }
    for server in [&east, &west] {
        agent.set(&server.datacenter, "shard-states/test/two", "ready").await.unwrap();
        agent.set(&server.datacenter, "shard-states/test/one", "drain").await.unwrap();
    }
    within(soon, "only two takes conferences", async || {
        fresh += 8;
        (0..8).all(|n| routed_at(in_west.http, &target("c", fresh + n)) == "two")
    })
    .await;
    for n in 0..20 {
        assert_eq!(routed_at(in_west.http, &target("b", n)), "one", "known by the table alone");
    }

    // What Consul is told of them.
    let listed = consul(&west, "/v1/catalog/service/shardgate?tag=test");
    let own = &listed[0];
    assert_eq!(listed.as_array().unwrap().len(), 1);
    assert_eq!(own["ServiceID"], "test-shardgate-n-west");
    assert_eq!(own["ServiceAddress"], "127.61.5.3");
    assert_eq!(own["ServiceTaggedAddresses"]["lan"]["Port"], in_west.http.port());
    for (name, value) in [
        ("environment", "test"),
        ("domain", "meet.example.com"),
        ("hostname", "n-west.example.com"),
        ("shardgate_node", "n-west"),
        ("shardgate_region", "west"),
    ] {
        assert_eq!(own["ServiceMeta"][name], value, "{name}");
    }
    assert_eq!(consul(&east, "/v1/catalog/service/shardgate?tag=test")[0]["ServiceAddress"], "");

    // Ready: passing. Killed: critical, and listed still. Back: passing.
    becomes(&west, "n-west", Some("passing")).await;
    in_west.kill();
    becomes(&west, "n-west", Some("critical")).await;
    assert!(in_east.lists("n-west"));
    in_west.start_again();
    in_west.ready().await;
    becomes(&west, "n-west", Some("passing")).await;

    // An agent that has forgotten it is told again.
    west.agent().deregister("test-shardgate-n-west").await.unwrap();
    becomes(&west, "n-west", None).await;
    becomes(&west, "n-west", Some("passing")).await;

    // An end in order takes it out.
    in_west.end();
    assert_eq!(check(&west, "n-west"), None);
    within(Duration::from_secs(15), "let go", async || !in_east.lists("n-west")).await;

    // A start without Consul, and with nothing kept: it does not decide alone, then or when Consul comes.
    west.kill();
    in_west.start_again();
    within(Duration::from_secs(10), "it says what it waits for", async || {
        ask(in_west.admin, "/readyz").contains("has not answered yet")
    })
    .await;
    west.start_again();
    within(Duration::from_secs(60), "ready", async || {
        let ready = status(&ask(in_west.admin, "/readyz")) == 200;
        assert!(!ready || in_west.talks_with("n-east"), "ready beside a peer that it has not talked with");
        ready
    })
    .await;
    for n in 0..20 {
        assert_eq!(routed_at(in_west.http, &target("b", n)), "one", "known by the table alone");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lock_is_ones_alone() {
    let (mut east, west) = federated(6).await;
    // One seeks from the other datacenter.
    let config = |holder: &str, server: &Server| LockConfig {
        datacenter: (server.ip != east.ip).then(|| east.datacenter.clone()),
        key: "shardgate/test/monitor".to_owned(),
        holder: holder.to_owned(),
        ttl: LOCK_TTL_MIN,
    };
    let (first, second) = (config("first", &east), config("second", &west));
    let one = LockSeeker::seek(east.agent(), first.clone());
    let held = |seeker: &LockSeeker| *seeker.state().borrow() == Lock::Held;
    let soon = Duration::from_secs(5);
    within(soon, "the first has it", async || held(&one)).await;
    let two = LockSeeker::seek(west.agent(), second.clone());
    let key = consul(&east, "/v1/kv/shardgate/test/monitor");
    assert_eq!(key[0]["Value"], "Zmlyc3Q=", "who it is, for people");
    // Longer than a session lives that nobody renews.
    let began = std::time::Instant::now();
    within(LOCK_TTL_MIN * 3, "held on", async || {
        assert!(held(&one) && !held(&two));
        began.elapsed() > LOCK_TTL_MIN * 5 / 2
    })
    .await;
    one.give_up().await;
    within(soon, "the second has it", async || held(&two)).await;

    // Taken away by an operator: nobody acts on.
    let one = LockSeeker::seek(east.agent(), first.clone());
    let session = consul(&east, "/v1/kv/shardgate/test/monitor")[0]["Session"].as_str().unwrap().to_owned();
    let destroy = format!("http://{}:8500/v1/session/destroy/{session}", east.ip);
    assert!(
        Command::new("curl")
            .args(["-fsS", "-o", "/dev/null", "-X", "PUT", &destroy])
            .status()
            .unwrap()
            .success()
    );
    // Consul waits for as long as the second may need to know.
    within(LOCK_TTL_MIN * 3, "the first is next", async || {
        assert!(!(held(&one) && held(&two)), "two hold it");
        held(&one)
    })
    .await;
    assert!(!held(&two));

    // Consul is gone: the holder steps down by its own clock, and nobody holds it.
    east.kill();
    within(LOCK_TTL_MIN + Duration::from_secs(1), "stepped down", async || !held(&one)).await;
    assert!(!held(&two));
    east.start_again();
    east.ready().await;
    within(LOCK_TTL_MIN * 5, "one of them again", async || {
        assert!(!(held(&one) && held(&two)));
        held(&one) || held(&two)
    })
    .await;
    one.give_up().await;
    two.give_up().await;
}
