//! Drains and conferences over the nodes that are registered, in two datacenters.

use std::fs;
use std::net::SocketAddr;
use std::process::Child;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use shardgate_discovery::PeerId;
use shardgate_discovery::consul::{Check, Registration};
use shardgate_peering::Environment;
use shardgate_peering::pki::CaFiles;

use crate::cluster::{Keys as _, Server, federated, within};
use crate::ctl::ctl;
use crate::nodes::{ask, free, routed_at, run, shard, status};
use crate::registration::ca;

/// A node of the mesh whose admin listens where it is registered.
struct Node {
    http: SocketAddr,
    admin: SocketAddr,
    child: Child,
    _folder: tempfile::TempDir,
}

impl Node {
    fn start(ca: &CaFiles, id: &str, agent: &Server, ip: &str) -> Self {
        let region = agent.datacenter.as_str().trim_start_matches("test-");
        let (http, admin) = (free(ip), free(ip));
        let mesh = std::net::UdpSocket::bind((ip, 0)).unwrap().local_addr().unwrap();
        let environment = Environment::parse("test").unwrap();
        let files = ca.issue(&environment, &PeerId::parse(id).unwrap()).unwrap();
        let folder = tempfile::tempdir().unwrap();
        let config = format!(
            "[node]\nid = \"{id}\"\nregion = \"{region}\"\nenvironment = \"test\"\n\
             [frontend]\nlisten = [\"{http}\"]\nworkers = 1\n[stick_table]\nexpire = \"2s\"\n\
             [mesh]\nlisten = \"{mesh}\"\nca = \"{}\"\ncert = \"{}\"\nkey = \"{}\"\n\
             [consul]\naddress = \"{}:8500\"\nstate_file = \"off\"\nstart_timeout = \"2s\"\n\
             [shutdown]\ndrain = \"1s\"\n[[admin]]\nlisten = \"{admin}\"\nserve = [\"metrics\", \"status\"]\n",
            ca.cert().display(),
            files.cert.display(),
            files.key.display(),
            agent.ip,
        );
        fs::write(folder.path().join("shardgate.toml"), config).unwrap();
        let child = run(folder.path());
        Self { http, admin, child, _folder: folder }
    }

    fn talks_with(&self, peer: &str) -> bool {
        let line = format!("shardgate_peer_reconciled{{peer=\"{peer}\"}} 1");
        ask(self.admin, "/metrics").lines().any(|found| found == line)
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

/// Requests that keep conferences open, until it is dropped.
struct Busy {
    stop: Arc<AtomicBool>,
    thread: Option<std::thread::JoinHandle<()>>,
}

impl Busy {
    fn start(http: SocketAddr, rooms: Vec<String>) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let told = Arc::clone(&stop);
        let thread = std::thread::spawn(move || {
            while !told.load(Ordering::Relaxed) {
                for room in &rooms {
                    assert_ne!(routed_at(http, &target(room)), "503");
                }
                std::thread::sleep(Duration::from_millis(100));
            }
        });
        Self { stop, thread: Some(thread) }
    }
}

impl Drop for Busy {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            drop(thread.join());
        }
    }
}

fn target(room: &str) -> String {
    format!("/conference-request/v1?room={room}")
}

#[tokio::test(flavor = "multi_thread")]
async fn a_drain_over_all_nodes_that_are_registered() {
    let (east, mut west) = federated(42).await;
    let agent = east.agent();
    for (name, id) in [("one", 1), ("two", 2)] {
        agent.register(&shard(&east, name, id, "1")).await.unwrap();
    }
    for datacenter in [&east.datacenter, &west.datacenter] {
        agent.set(datacenter, "releases/test/live", "release-1").await.unwrap();
    }
    let nobody = ctl(&east.ip, "conferences list");
    assert_eq!(nobody.code, Some(2), "{nobody:?}");
    assert!(nobody.error.contains("no node is registered at Consul"), "{nobody:?}");
    let pki = tempfile::tempdir().unwrap();
    let ca = ca(pki.path());
    let a = Node::start(&ca, "a", &east, "127.61.42.11");
    let mut b = Node::start(&ca, "b", &west, "127.61.42.12");
    within(Duration::from_secs(20), "they are ready and talk", async || {
        [&a, &b].iter().all(|node| status(&ask(node.admin, "/readyz")) == 200)
            && a.talks_with("b")
            && b.talks_with("a")
    })
    .await;

    // Rooms on both shards, made at both nodes; those of one are kept open.
    let mut there = Vec::new();
    for n in 0..20 {
        let (room, http) = (format!("room{n}"), if n % 2 == 0 { a.http } else { b.http });
        if routed_at(http, &target(&room)) == "one" {
            there.push(room);
        }
    }
    assert!((1..20).contains(&there.len()), "{there:?}");
    let busy = Busy::start(b.http, there.clone());
    let census = format!(
        r#"{{"room_census":[{{"room_name":"{}@conference.meet.example.com","participants":3,"created_time":1700000000}},
            {{"room_name":"leaked@conference.meet.example.com","participants":2,"created_time":1700000000}}]}}"#,
        there[0]
    );
    agent.set(&east.datacenter, "signal-report/test/one", &census).await.unwrap();
    let names = ctl(&east.ip, "conferences list --names --shard one");
    println!("{}", names.out);
    assert_eq!(names.code, Some(0), "{names:?}");
    let row = |room: &str| {
        let row = names.out.lines().find(|line| line.split_whitespace().next() == Some(room));
        row.unwrap_or_else(|| panic!("no {room}: {names:?}"))
    };
    assert_eq!(row(&there[0]).split_whitespace().nth(6), Some("3"), "people");
    assert!(row("leaked@conference.meet.example.com").contains("NOT IN THE TABLE, on one"), "{names:?}");
    for room in &there[1..] {
        assert!(row(room).contains("not in its shard's census"), "{names:?}");
    }
    let sums = ctl(&west.ip, "conferences list --release release-1");
    println!("{}", sums.out);
    let counted = sums.out.lines().find(|line| line.starts_with("one ")).unwrap();
    assert_eq!(counted.split_whitespace().nth(2), Some(there.len().to_string().as_str()), "{sums:?}");

    // It waits while somebody is there, and ends by itself.
    let waits = ctl(&east.ip, "shard drain one --wait --timeout 2s");
    println!("{}{}", waits.out, waits.error);
    assert_eq!(waits.code, Some(1), "{waits:?}");
    assert!(waits.out.contains(&format!("shard one: {} of ", there.len())), "{waits:?}");
    drop(busy);
    let ends = ctl(&east.ip, "shard drain one --wait --timeout 30s");
    println!("{}{}", ends.out, ends.error);
    assert_eq!(ends.code, Some(0), "{ends:?}");
    assert!(ends.out.contains("shard one: empty after") && ends.out.contains("(2 nodes asked)"), "{ends:?}");
    // The rest of the release.
    let ends = ctl(&east.ip, "release drain release-1 --wait --timeout 30s");
    println!("{}{}", ends.out, ends.error);
    assert_eq!(ends.code, Some(0), "{ends:?}");
    assert!(ends.out.contains("release-1: empty after"), "{ends:?}");

    // A datacenter that is expected and not known may hide somebody.
    let expected = ctl(&east.ip, "conferences list --datacenter test-east,test-north");
    assert_eq!(expected.code, Some(2), "{expected:?}");
    assert!(expected.error.contains("the nodes of test-north cannot be asked"), "{expected:?}");

    // One of another datacenter is asked where it says that those there find it, here at an address of b's; b is not taken for it.
    let far = Registration {
        name: "shardgate".to_owned(),
        id: "test-far".to_owned(),
        tags: vec!["test".to_owned()],
        address: "127.61.42.99:1".parse().unwrap(),
        wan: Some(b.admin.ip()),
        public_port: 80,
        meta: [("shardgate_node", "far"), ("shardgate_admin_port", &b.admin.port().to_string())]
            .map(|(name, value)| (name.to_owned(), value.to_owned()))
            .into(),
        check: Check::None,
    };
    west.agent().register(&far).await.unwrap();
    for (from, address, wrong) in [
        (&east, "lan", "far cannot be asked, its sessions are missing: node 127.61.42.99:"),
        (&east, "wan", "far cannot be asked, its sessions are missing: b answers there"),
        (&west, "wan", "far cannot be asked, its sessions are missing: node 127.61.42.99:"),
        (&east, "near", "--remote-address \"near\" is not valid, expected lan or wan"),
    ] {
        let listed = ctl(&from.ip, &format!("conferences list --remote-address {address}"));
        println!("{address}: {}{}", listed.out, listed.error);
        assert_eq!(listed.code, Some(2), "{address}: {listed:?}");
        assert!(listed.error.contains(wrong), "{address}: {listed:?}");
    }
    west.agent().deregister(&far.id).await.unwrap();

    // One that is registered and does not answer is named, and nothing is said to be empty.
    b.child.kill().unwrap();
    b.child.wait().unwrap();
    let doubtful = ctl(&east.ip, "shard drain one --wait --timeout 2s");
    println!("{}{}", doubtful.out, doubtful.error);
    assert_eq!(doubtful.code, Some(2), "{doubtful:?}");
    assert!(doubtful.error.contains("b cannot be asked") && !doubtful.out.contains("empty"), "{doubtful:?}");

    // A release may have shards in a datacenter that cannot be listed: it is told, and not waited for.
    west.kill();
    let partly = ctl(&east.ip, "release drain release-1 --wait --datacenter test-east");
    println!("{}{}", partly.out, partly.error);
    assert_eq!(partly.code, Some(1), "{partly:?}");
    assert!(partly.error.contains("shards of test-west are not known"), "{partly:?}");
}
