//! Real nodes in two datacenters: what operators write is what they route by, and what happens to Consul is nothing to their clients.

use std::collections::HashMap;
use std::fs;
use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use shardgate_discovery::consul::{Agent, Cas, Registration};
use shardgate_tests::plain_shard;

use crate::cluster::{Keys as _, Server, federated};

/// A number that the long form sets; empty or unset it is that of the short form.
pub(crate) fn of_form<T: std::str::FromStr>(variable: &str, short: T) -> T {
    std::env::var(variable).ok().and_then(|text| text.parse().ok()).unwrap_or(short)
}

/// Changes of each kind.
fn changes() -> usize {
    of_form("CONSUL_CHANGES", 20)
}

/// How long an agent is gone.
fn outage() -> Duration {
    Duration::from_secs(of_form("CONSUL_OUTAGE_SECONDS", 5))
}

/// How many conferences the load is of.
const LOAD_ROOMS: u32 = 500;

/// Requests a second to each node, beside those that look.
const LOAD_PER_SECOND: u32 = 150;

/// A node; dropped, it is killed.
pub(crate) struct Node {
    http: SocketAddr,
    admin: SocketAddr,
    folder: tempfile::TempDir,
    child: Child,
}

pub(crate) fn free(ip: &str) -> SocketAddr {
    TcpListener::bind((ip, 0)).and_then(|socket| socket.local_addr()).unwrap()
}

impl Node {
    fn start(region: &str, agent: &str) -> Self {
        Self::start_with(region, &format!("address = \"{agent}:8500\"\n"))
    }

    /// Starts one; `consul` says how the agent is reached.
    pub(crate) fn start_with(region: &str, consul: &str) -> Self {
        let (http, admin) = (free("127.61.8.1"), free("127.61.8.1"));
        let folder = tempfile::tempdir().unwrap();
        let config = format!(
            "[node]\nid = \"{region}\"\nregion = \"{region}\"\nenvironment = \"test\"\n\
             [frontend]\nlisten = [\"{http}\"]\nworkers = 1\n\
             [consul]\n{consul}state_file = \"state.json\"\nstart_timeout = \"2s\"\n\
             [shutdown]\ndrain = \"1s\"\n\
             [[admin]]\nlisten = \"{admin}\"\nserve = [\"metrics\", \"status\"]\n"
        );
        fs::write(folder.path().join("shardgate.toml"), config).unwrap();
        let child = run(folder.path());
        let node = Self { http, admin, folder, child };
        node.wait_ready();
        node
    }

    fn wait_ready(&self) {
        let until = Instant::now() + Duration::from_secs(20);
        while status(&ask(self.admin, "/readyz")) != 200 {
            let log = fs::read_to_string(self.folder.path().join("log")).unwrap_or_default();
            assert!(Instant::now() < until, "not ready\n{log}");
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// Ends it in order and starts it again.
    fn restart(&mut self) {
        let pid = self.child.id().to_string();
        assert!(Command::new("kill").args(["-TERM", &pid]).status().unwrap().success());
        self.child.wait().unwrap();
        self.child = run(self.folder.path());
        self.wait_ready();
    }

    /// What `shardgatectl status` shows of it.
    fn status(&self) -> String {
        let node = self.admin.to_string();
        let shown = Command::new(binary("shardgatectl")).args(["--node", &node, "status"]).output().unwrap();
        String::from_utf8(shown.stdout).unwrap()
    }

    fn metric(&self, name: &str) -> u64 {
        let metrics = ask(self.admin, "/metrics");
        let line = metrics.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
        line.and_then(|value| value.trim().parse().ok()).unwrap_or_else(|| panic!("no {name} in\n{metrics}"))
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

fn binary(name: &str) -> PathBuf {
    let this = std::env::current_exe().unwrap();
    this.parent().and_then(Path::parent).unwrap().join(name)
}

pub(crate) fn run(folder: &Path) -> Child {
    let log = fs::File::options().create(true).append(true).open(folder.join("log")).unwrap();
    let mut command = Command::new(binary("shardgate"));
    command.env_clear().arg("serve").arg("--config").arg(folder.join("shardgate.toml"));
    command.stdout(Stdio::null()).stderr(log).spawn().unwrap()
}

/// One request on a connection of its own; empty when there is no answer.
pub(crate) fn ask(address: SocketAddr, target: &str) -> String {
    let mut answer = Vec::new();
    if let Ok(mut stream) = TcpStream::connect(address) {
        stream.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
        let request = format!("GET {target} HTTP/1.1\r\nHost: meet\r\nConnection: close\r\n\r\n");
        if stream.write_all(request.as_bytes()).is_ok() {
            drop(stream.read_to_end(&mut answer));
        }
    }
    String::from_utf8_lossy(&answer).into_owned()
}

pub(crate) fn status(answer: &str) -> u16 {
    answer.get(9..12).and_then(|status| status.parse().ok()).unwrap_or(0)
}

/// Which shard answered, or with what status it was refused.
pub(crate) fn routed(node: &Node, target: &str) -> String {
    routed_at(node.http, target)
}

pub(crate) fn routed_at(http: SocketAddr, target: &str) -> String {
    let answer = ask(http, target);
    match status(&answer) {
        200 => answer.rsplit("\r\n\r\n").next().unwrap_or("").to_owned(),
        status => status.to_string(),
    }
}

/// Requests as long as it runs: of conferences of everybody's, which no change here concerns, and every fifth of a tenant's whose pin and
/// whose shards change.
struct Load {
    began: Instant,
    stop: Arc<AtomicBool>,
    counts: Arc<Counts>,
    threads: Vec<JoinHandle<()>>,
}

#[derive(Default)]
struct Counts {
    asked: AtomicU64,
    failed: AtomicU64,
    /// Requests that another shard answered than the one before of the same conference.
    moved: AtomicU64,
    /// The same of the tenant.
    tenant_moved: AtomicU64,
}

/// What a load has seen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Seen {
    asked: u64,
    failed: u64,
    moved: u64,
    tenant_moved: u64,
}

impl Load {
    fn start(nodes: &[&Node]) -> Self {
        let began = Instant::now();
        let mut load = Self { began, stop: Arc::default(), counts: Arc::default(), threads: Vec::new() };
        for node in nodes {
            let http = node.http;
            let (stop, counts) = (Arc::clone(&load.stop), Arc::clone(&load.counts));
            load.threads.push(std::thread::spawn(move || {
                let mut shards = HashMap::new();
                for number in 0_u32.. {
                    if stop.load(Ordering::Relaxed) {
                        return;
                    }
                    let due = began + Duration::from_secs(1) * number / LOAD_PER_SECOND;
                    std::thread::sleep(due.saturating_duration_since(Instant::now()));
                    let room = number % LOAD_ROOMS;
                    let (tenant, moved) =
                        if number % 5 == 0 { ("/acme", &counts.tenant_moved) } else { ("", &counts.moved) };
                    let target = format!("{tenant}/http-bind?room=load{room}");
                    let shard = routed_at(http, &target);
                    counts.asked.fetch_add(1, Ordering::Relaxed);
                    if shard.parse::<u16>().is_ok() {
                        println!("{target}: {shard}");
                        counts.failed.fetch_add(1, Ordering::Relaxed);
                    } else if shards.insert(target, shard.clone()).is_some_and(|before| before != shard) {
                        moved.fetch_add(1, Ordering::Relaxed);
                    }
                }
            }));
        }
        load
    }

    fn seen(&self) -> Seen {
        let Counts { asked, failed, moved, tenant_moved } = &*self.counts;
        let [asked, failed, moved, tenant_moved] =
            [asked, failed, moved, tenant_moved].map(|count| count.load(Ordering::Relaxed));
        Seen { asked, failed, moved, tenant_moved }
    }

    /// Ends it: what it has seen, and how many requests a second it made.
    fn end(mut self) -> (Seen, f64) {
        self.stop.store(true, Ordering::Relaxed);
        for thread in self.threads.drain(..) {
            thread.join().unwrap();
        }
        let seen = self.seen();
        (seen, seen.asked as f64 / self.began.elapsed().as_secs_f64())
    }
}

impl Drop for Load {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
    }
}

/// A shard that answers with its name.
pub(crate) fn shard(server: &Server, name: &str, id: u32, release: &str) -> Registration {
    let mut registration = server.shard(name, id);
    registration.address = plain_shard::serve("127.61.9.1", name).unwrap();
    registration.tags = vec!["test".to_owned(), format!("release-{release}"), format!("shard-{name}")];
    registration.meta.insert("release_number".to_owned(), release.to_owned());
    registration.meta.insert("http_backend_port".to_owned(), registration.address.port().to_string());
    registration
}

/// What changes take until every node routes by them.
#[derive(Default)]
struct Delays(Vec<Duration>);

impl Delays {
    /// Waits until every node sends a conference that it has never seen to `expected`, since `began`. No answer may be a refusal that is not expected.
    fn watch(
        &mut self,
        began: Instant,
        nodes: &[&Node],
        what: &str,
        target: impl Fn(usize) -> String,
        expected: &str,
    ) {
        let mut number = 0;
        for node in nodes {
            loop {
                number += 1;
                let found = routed(node, &target(number));
                if found == expected {
                    break;
                }
                assert!(found.parse::<u16>().is_err(), "{what}: a request failed: {found}");
                assert!(began.elapsed() < Duration::from_secs(10), "{what}: {found}, expected {expected:?}");
                std::thread::sleep(Duration::from_millis(2));
            }
        }
        self.0.push(began.elapsed());
    }

    fn tell(mut self, kind: &str) {
        self.0.sort();
        let (half, last) = (self.0[self.0.len() / 2], self.0[self.0.len() - 1]);
        let p99 = self.0[self.0.len() * 99 / 100 - 1];
        println!("{kind}: {} changes, median {half:?}, p99 {p99:?}, longest {last:?}", self.0.len());
        // Of fewer than a hundred all but the longest.
        assert!(p99 < Duration::from_secs(1), "{kind}: {p99:?}");
    }
}

async fn everywhere(agent: &Agent, servers: [&Server; 2], key: &str, value: Option<&str>) {
    for server in servers {
        match value {
            Some(value) => agent.set(&server.datacenter, key, value).await.unwrap(),
            None => {
                agent.delete_key(&server.datacenter, key, Cas::Any).await.unwrap();
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn nodes_route_by_what_consul_says_and_go_on_without_it() {
    let (mut east, west) = federated(4).await;
    let servers = [&east, &west];
    let agent = east.agent();
    agent.register(&shard(&east, "one", 1, "1")).await.unwrap();
    agent.register(&shard(&east, "two", 2, "2")).await.unwrap();
    let (three, four) = (shard(&east, "three", 3, "3"), shard(&east, "four", 4, "3"));
    agent.register(&three).await.unwrap();
    everywhere(&agent, servers, "releases/test/live", Some("release-1")).await;
    let (mut in_east, in_west) = (Node::start("east", &east.ip), Node::start("west", &west.ip));
    let nodes = [&in_east, &in_west];
    let room = |prefix: &'static str, round: usize| move |n: usize| format!("{prefix}r{round}x{n}");
    Delays::default().watch(Instant::now(), &nodes, "the beginning", room("/http-bind?room=", 0), "one");
    let load = Load::start(&nodes);

    let mut delays = Delays::default();
    for round in 0..changes() {
        let (release, shard) = if round % 2 == 0 { ("release-2", "two") } else { ("release-3", "three") };
        let began = Instant::now();
        everywhere(&agent, servers, "releases/test/tenant/acme", Some(release)).await;
        delays.watch(began, &nodes, "a pin", room("/acme/http-bind?room=p", round), shard);
    }
    delays.tell("pin set");
    let mut delays = Delays::default();
    for round in 0..changes() {
        let began = Instant::now();
        everywhere(&agent, servers, "releases/test/tenant/acme", None).await;
        delays.watch(began, &nodes, "no pin", room("/acme/http-bind?room=u", round), "one");
        everywhere(&agent, servers, "releases/test/tenant/acme", Some("release-2")).await;
        let again = room("/acme/http-bind?room=v", round);
        Delays::default().watch(Instant::now(), &nodes, "a pin", again, "two");
    }
    delays.tell("pin removed");
    let mut delays = Delays::default();
    for round in 0..changes() {
        let (release, shard) = if round % 2 == 0 { ("release-2", "two") } else { ("release-1", "one") };
        let began = Instant::now();
        everywhere(&agent, servers, "releases/test/live", Some(release)).await;
        delays.watch(began, &nodes, "live", room("/http-bind?room=l", round), shard);
    }
    delays.tell("live release switched");
    let mut delays = Delays::default();
    for round in 0..changes() {
        let key = format!("bans/test/room/evil{round}");
        let began = Instant::now();
        everywhere(&agent, servers, &key, Some("ban")).await;
        delays.watch(began, &nodes, "a ban", |_| format!("/http-bind?room=evil{round}"), "403");
    }
    delays.tell("ban added");
    let (mut delays, mut gone) = (Delays::default(), Delays::default());
    everywhere(&agent, servers, "releases/test/tenant/acme", Some("release-3")).await;
    for round in 0..changes() {
        let began = Instant::now();
        agent.register(&four).await.unwrap();
        delays.watch(began, &nodes, "registered", room("/acme/http-bind?room=n", round), "four");
        let began = Instant::now();
        agent.deregister(&four.id).await.unwrap();
        // Gone when the shard's own name finds nothing any more.
        let named = |n| format!("/acme/http-bind?room=x{round}y{n}_four");
        gone.watch(began, &nodes, "deregistered", named, "three");
    }
    delays.tell("shard registered");
    gone.tell("shard deregistered");
    let mut delays = Delays::default();
    agent.register(&four).await.unwrap();
    Delays::default().watch(Instant::now(), &nodes, "registered", room("/acme/http-bind?room=o", 0), "four");
    // Conferences that both have, and keep when they are drained: the load's, and some that come to the new shard, which has fewer.
    let held = |node: &Node| -> Vec<String> {
        let rooms = (0..20).flat_map(|n| [format!("load{}", n * 5), format!("held{n}")]);
        rooms.map(|room| routed(node, &format!("/acme/http-bind?room={room}"))).collect()
    };
    let held_before = nodes.map(held);
    assert!(held_before.iter().flatten().any(|shard| shard == "three"));
    assert!(held_before.iter().flatten().any(|shard| shard == "four"));
    for round in 0..changes() {
        let (drained, other) = if round % 2 == 0 { ("three", "four") } else { ("four", "three") };
        let began = Instant::now();
        everywhere(&agent, servers, &format!("shard-states/test/{other}"), Some("ready")).await;
        everywhere(&agent, servers, &format!("shard-states/test/{drained}"), Some("drain")).await;
        // A single conference may be another shard's by its hash: eight say it together.
        let mut number = 0;
        while !nodes.iter().all(|node| {
            (0..8).all(|n| {
                let found = routed(node, &format!("/acme/http-bind?room=d{round}x{number}y{n}"));
                assert!(found.parse::<u16>().is_err(), "a request failed: {found}");
                found == other
            })
        }) {
            number += 1;
            assert!(began.elapsed() < Duration::from_secs(10), "{drained} still gets conferences");
        }
        delays.0.push(began.elapsed());
        for node in nodes {
            for n in 0..30 {
                let found = routed(node, &format!("/acme/http-bind?room=e{round}y{n}"));
                assert_eq!(found, other, "{drained} is drained, and got a conference by chance");
            }
        }
        assert_eq!(nodes.map(held), held_before, "{drained} keeps its conferences");
    }
    let takes_new = if changes() % 2 == 1 { "four" } else { "three" };
    // The last switch of the live release was to this one's.
    let live = if changes() % 2 == 1 { "two" } else { "one" };
    delays.tell("shard drained");

    // The agent of one node is gone: nothing changes for anybody.
    let existing = |node: &Node, rooms: u32| -> Vec<_> {
        (0..rooms).map(|n| routed(node, &format!("/http-bind?room=load{n}"))).collect()
    };
    let before = existing(&in_east, LOAD_ROOMS);
    let at_the_kill = load.seen();
    east.kill();
    let began = Instant::now();
    let mut fresh = 0;
    while began.elapsed() < outage() {
        assert_eq!(before[..50], existing(&in_east, 50), "the same routes");
        // What no table knows: by the live release, the pin, the states and the bans.
        fresh += 1;
        assert_eq!(routed(&in_east, &format!("/http-bind?room=out{fresh}")), live);
        assert_eq!(routed(&in_east, &format!("/acme/http-bind?room=out{fresh}")), takes_new);
        assert_eq!(routed(&in_east, "/http-bind?room=evil0"), "403");
    }
    assert_eq!(before, existing(&in_east, LOAD_ROOMS), "the same routes");
    let gone = began.elapsed();
    assert!(in_east.metric("shardgate_discovery_refused_total") > 0);
    // It is stale after 30 s of silence, of which an answer may have been the end of.
    if gone > Duration::from_secs(45) {
        let ready = ask(in_east.admin, "/readyz");
        assert!(status(&ready) == 200 && ready.contains("policy is stale: keys "), "{ready}");
    }
    east.start_again();
    east.ready().await;
    // What is commanded then is routed by at once.
    agent.set(&east.datacenter, "releases/test/tenant/acme", "release-2").await.unwrap();
    let mut delays = Delays::default();
    let began = Instant::now();
    delays.watch(began, &[&in_east], "a pin after it", |n| format!("/acme/http-bind?room=c{n}"), "two");
    let caught_up = delays.0[0];
    assert_eq!(before, existing(&in_east, LOAD_ROOMS), "the same routes");
    let (seen, rate) = load.end();
    println!(
        "an agent gone for {gone:?}: {} requests since then, caught up {caught_up:?} after it took a key; {rate:.0} requests/s, {seen:?}",
        seen.asked - at_the_kill.asked
    );
    assert!(caught_up < Duration::from_secs(2), "{caught_up:?}");
    assert_eq!((seen.failed, seen.moved), (0, 0), "of {}", seen.asked);
    assert_eq!(seen.tenant_moved, at_the_kill.tenant_moved, "while the agent was gone");
    assert!(rate > 0.9 * 2.0 * f64::from(LOAD_PER_SECOND), "{rate} requests/s");
    east.kill();

    // A cold start without Consul: by what was kept on disk, and it says so.
    in_east.restart();
    assert_eq!(in_east.metric("shardgate_discovery_from_disk"), 1);
    assert_eq!(in_east.metric("shardgate_discovery_policy_stale"), 1);
    let ready = ask(in_east.admin, "/readyz");
    assert!(
        ready.ends_with("s old at the start\n") && ready.contains("ready\npolicy is stale: kept on disk, "),
        "{ready}"
    );
    let told = in_east.status();
    assert!(told.contains("POLICY IS STALE: kept on disk, ") && told.contains("keys releases"), "{told}");
    println!("{told}");
    assert_eq!(routed(&in_east, "/http-bind?room=cold"), live);
    east.start_again();
    east.ready().await;
    let until = Instant::now() + Duration::from_secs(20);
    while in_east.metric("shardgate_discovery_from_disk") == 1 {
        assert!(Instant::now() < until, "Consul is back");
        std::thread::sleep(Duration::from_millis(20));
    }
    assert_eq!(routed(&in_east, "/http-bind?room=warm"), live);
    assert!(ask(in_east.admin, "/readyz").ends_with("\r\n\r\nready\n"));
    assert!(!in_east.status().contains("STALE"));

    // A pool of a service, named while the node runs: its servers are known before the first request goes there.
    let mut server = shard(&east, "jigasi-a", 9, "1");
    server.name = "jigasi".to_owned();
    agent.register(&server).await.unwrap();
    let file = in_east.folder.path().join("shardgate.toml");
    let pool = "[[pools]]\nname = \"jigasi\"\npaths = [\"/jigasi/\"]\nservice = \"jigasi\"\n";
    let config = fs::read_to_string(&file).unwrap() + pool;
    fs::write(&file, config).unwrap();
    let until = Instant::now() + Duration::from_secs(20);
    loop {
        match routed(&in_east, "/jigasi/about/health").as_str() {
            "jigasi-a" => break,
            other => assert!(other.parse::<u16>().is_err(), "the pool has no server: {other}"),
        }
        assert!(Instant::now() < until, "the pool is there");
        std::thread::sleep(Duration::from_millis(5));
    }
    agent.deregister(&server.id).await.unwrap();
}
