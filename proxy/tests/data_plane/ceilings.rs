//! What is let in, and what is not: by client address, shard, listener, memory.

use crate::harness::{Answer, DEADLINE, Node, Upstream, Wire, config, eventually, limits, shard};
use shardgate_peering::Mesh;
use shardgate_peering::core::{Config, PeerId};
use shardgate_proxy::config::AcceptProxy;
use shardgate_proxy::counters::Refused;
use shardgate_proxy::limits::{Ceilings, MemoryMax, PerAddress, PerShard, Rate};
use shardgate_proxy::worker::{FrontendConfig, WorkersConfig};
use std::num::NonZeroUsize;
use std::time::Duration;
use tokio::io::AsyncReadExt;
use tokio::time::timeout;

/// Two clients.
const ONE: [u8; 4] = [127, 0, 0, 2];
const OTHER: [u8; 4] = [127, 0, 0, 3];

async fn node(per_address: PerAddress) -> (Node, Upstream) {
    let upstream = Upstream::start("s1").await;
    let ceilings = Ceilings { per_address, ..Ceilings::OFF };
    (Node::start_below(&[shard("s1", upstream.address)], ceilings), upstream)
}

async fn below(per_shard: PerShard) -> (Node, Upstream) {
    let upstream = Upstream::start("s1").await;
    let ceilings = Ceilings { per_shard, ..Ceilings::OFF };
    (Node::start_below(&[shard("s1", upstream.address)], ceilings), upstream)
}

fn refused(node: &Node, reason: Refused) -> u64 {
    node.totals().refused[reason as usize]
}

async fn ask(client: &mut Wire, target: &str) -> Answer {
    client.send(&format!("GET {target} HTTP/1.1\r\nHost: meet\r\n\r\n")).await;
    client.answer().await
}

async fn open_tunnel(node: &Node) -> Wire {
    let mut client = node.client().await;
    client
        .send("GET /xmpp-websocket?room=foo HTTP/1.1\r\nHost: meet\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n")
        .await;
    assert_eq!(client.head().await.status, 101);
    assert_eq!(client.exactly(14).await, b"hello from s1\n");
    client
}

/// Whether the other side closes without a word.
async fn is_closed(client: &mut Wire) -> bool {
    // A reset is as good as an end.
    let mut byte = [0];
    matches!(timeout(DEADLINE, client.stream.read(&mut byte)).await, Ok(Ok(0) | Err(_)))
}

#[tokio::test(flavor = "multi_thread")]
async fn new_keys_of_one_address() {
    // The rate is slow enough that a busy machine does not earn a third key meanwhile.
    let per_address = PerAddress { new_key_rate: Rate::new(1, 2), ..PerAddress::OFF };
    let (node, _upstream) = node(per_address).await;
    let mut one = Wire::connect_from(ONE, node.address()).await;
    let mut room = 0;
    let answer = loop {
        let answer = ask(&mut one, &format!("/http-bind?room=r{room}")).await;
        if answer.status != 200 {
            break answer;
        }
        room += 1;
        assert!(room < 100, "never refused");
    };
    assert!(room >= 2, "{room}");
    assert_eq!((answer.status, answer.header("retry-after")), (429, vec!["1"]), "{}", answer.head);
    assert!(answer.text().contains("<h1>429 Too Many Requests</h1>"), "{}", answer.text());
    assert!(answer.header("connection").is_empty(), "the connection goes on: {}", answer.head);
    assert_eq!(refused(&node, Refused::NewKeyRate), 1);
    // What is known already, what makes no key, and who else asks, is not touched.
    assert_eq!(ask(&mut one, "/http-bind?room=r0").await.status, 200);
    assert_eq!(ask(&mut one, "/page").await.status, 200);
    let mut other = Wire::connect_from(OTHER, node.address()).await;
    assert_eq!(ask(&mut other, "/http-bind?room=other").await.status, 200);
    // The table has not heard of it.
    assert_eq!(node.table.lookup(&format!("r{room}")), None);
    eventually("a key is earned again", async || {
        ask(&mut one, &format!("/http-bind?room=r{room}")).await.status == 200
    })
    .await;
    let log = node.stop().await;
    assert!(
        log.lines()
            .any(|line| line.starts_with("127.0.0.2:") && line.contains(" 429 ") && line.contains(" PR ")),
        "{log}"
    );
    assert!(!log.lines().any(|line| line.starts_with("127.0.0.3:") && line.contains(" 429 ")), "{log}");
}

#[tokio::test(flavor = "multi_thread")]
async fn requests_of_one_address() {
    let per_address = PerAddress { request_rate: Rate::new(1, 3), ..PerAddress::OFF };
    let (node, upstream) = node(per_address).await;
    let mut one = Wire::connect_from(ONE, node.address()).await;
    // Over several connections, and so workers.
    let mut two = Wire::connect_from(ONE, node.address()).await;
    let mut answered = Vec::new();
    while answered.last() != Some(&429) {
        answered.push(ask(&mut one, "/page").await.status);
        answered.push(ask(&mut two, "/page").await.status);
        assert!(answered.len() < 100, "never refused");
    }
    assert!(answered.iter().filter(|status| **status == 200).count() >= 3, "{answered:?}");
    assert!(upstream.connections() > 0 && refused(&node, Refused::RequestRate) > 0);
    let mut other = Wire::connect_from(OTHER, node.address()).await;
    assert_eq!(ask(&mut other, "/page").await.status, 200);
    eventually("a request is earned again", async || ask(&mut one, "/page").await.status == 200).await;
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn connections_of_one_address() {
    let (node, _upstream) = node(PerAddress { connections_max: 2, ..PerAddress::OFF }).await;
    let mut first = Wire::connect_from(ONE, node.address()).await;
    assert_eq!(ask(&mut first, "/page").await.status, 200);
    let mut second = Wire::connect_from(ONE, node.address()).await;
    assert_eq!(ask(&mut second, "/page").await.status, 200);
    let mut third = Wire::connect_from(ONE, node.address()).await;
    assert!(is_closed(&mut third).await);
    assert_eq!(refused(&node, Refused::AddressConnections), 1);
    let mut other = Wire::connect_from(OTHER, node.address()).await;
    assert_eq!(ask(&mut other, "/page").await.status, 200);
    drop(first);
    eventually("there is room again", async || {
        let mut again = Wire::connect_from(ONE, node.address()).await;
        again.send("GET /page HTTP/1.1\r\nHost: meet\r\nConnection: close\r\n\r\n").await;
        String::from_utf8_lossy(&again.rest().await).starts_with("HTTP/1.1 200")
    })
    .await;
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn new_connections_of_one_address() {
    let (node, _upstream) = node(PerAddress { connection_rate: Rate::new(1, 2), ..PerAddress::OFF }).await;
    let mut refusals = 0;
    for _ in 0..5 {
        let mut client = Wire::connect_from(ONE, node.address()).await;
        client.stream.set_zero_linger().unwrap();
        client.send("GET /page HTTP/1.1\r\nHost: meet\r\nConnection: close\r\n\r\n").await;
        refusals += u64::from(client.rest().await.is_empty());
    }
    assert!((1..=3).contains(&refusals), "{refusals}");
    assert_eq!(refused(&node, Refused::ConnectionRate), refusals);
    let mut other = Wire::connect_from(OTHER, node.address()).await;
    assert_eq!(ask(&mut other, "/page").await.status, 200);
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn who_is_exempt() {
    let per_address = PerAddress {
        connections_max: 1,
        request_rate: Rate::new(1, 1),
        exempt: vec!["127.0.0.2".parse().unwrap()],
        ..PerAddress::OFF
    };
    let (node, _upstream) = node(per_address).await;
    let mut clients = Vec::new();
    for _ in 0..5 {
        let mut client = Wire::connect_from(ONE, node.address()).await;
        assert_eq!(ask(&mut client, "/page").await.status, 200);
        clients.push(client);
    }
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tunnel_holds_its_place_at_the_shard() {
    let per_shard = PerShard {
        connections_max: 1,
        queue_max: 1,
        queue_timeout: Duration::from_secs(20),
        ..PerShard::OFF
    };
    let (node, _upstream) = below(per_shard).await;
    let mut tunnel = open_tunnel(&node).await;
    let mut waits = node.client().await;
    waits.send("GET /page HTTP/1.1\r\nHost: meet\r\n\r\n").await;
    let queued = || node.running.gate().shard_loads().iter().map(|load| load.queued).sum::<usize>();
    eventually("it is in line", async || queued() == 1).await;
    // The line has one place: whoever comes second is refused at once.
    let mut late = node.client().await;
    assert_eq!(ask(&mut late, "/page").await.status, 503);
    assert_eq!(refused(&node, Refused::QueueFull), 1);
    drop(late);
    // The tunnel still works; when it ends, its place goes to the first in line.
    tunnel.send("ping").await;
    assert_eq!(tunnel.exactly(4).await, b"ping");
    drop(tunnel);
    assert_eq!(waits.answer().await.status, 200);
    // And the next ones come as fast as they did.
    for _ in 0..3 {
        assert_eq!(node.get("/page").await.status, 200);
    }
    let log = node.stop().await;
    assert!(log.contains(" 503 ") && log.contains(" SQ "), "{log}");
}

#[tokio::test(flavor = "multi_thread")]
async fn waiting_for_a_place_ends() {
    let per_shard = PerShard {
        connections_max: 1,
        queue_max: 100,
        queue_timeout: Duration::from_millis(100),
        ..PerShard::OFF
    };
    let (node, _upstream) = below(per_shard).await;
    let tunnel = open_tunnel(&node).await;
    let answer = node.get("/page").await;
    assert_eq!(answer.status, 503);
    assert_eq!(refused(&node, Refused::QueueTimeout), 1);
    drop(tunnel);
    eventually("the place is free again", async || node.get("/page").await.status == 200).await;
    let log = node.stop().await;
    assert!(log.contains(" 503 ") && log.contains(" sQ "), "{log}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_place_is_given_back_whatever_happens() {
    let per_shard = PerShard {
        connections_max: 2,
        queue_max: 100,
        queue_timeout: Duration::from_secs(20),
        ..PerShard::OFF
    };
    let (node, _upstream) = below(per_shard).await;
    // Clients that leave while they wait for an answer, and while they wait in line.
    let mut leaving = Vec::new();
    for _ in 0..20 {
        let mut client = node.client().await;
        client.send("GET /never HTTP/1.1\r\nHost: meet\r\n\r\n").await;
        leaving.push(client);
    }
    eventually("all have been heard", async || node.totals().requests == 20).await;
    drop(leaving);
    assert_eq!(node.get("/page").await.status, 200);
    // Many at once, each served.
    let mut clients = Vec::new();
    for _ in 0..50 {
        let mut client = node.client().await;
        client.send("GET /page HTTP/1.1\r\nHost: meet\r\n\r\n").await;
        clients.push(client);
    }
    for client in &mut clients {
        assert_eq!(client.answer().await.status, 200);
    }
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_listener_has_its_own_bound() {
    let upstream = Upstream::start("s1").await;
    let mesh = Mesh::alone(Config::new(PeerId::parse("me").unwrap(), 1)).unwrap();
    let usual = config(limits());
    let bounded = FrontendConfig {
        name: "bounded".to_owned(),
        connections_max: NonZeroUsize::new(2),
        ..usual.frontends[0].clone()
    };
    let config = WorkersConfig { frontends: vec![usual.frontends[0].clone(), bounded], ..usual };
    let node = Node::start_on(mesh, &[shard("s1", upstream.address)], config);
    let [free, bounded] = node.running.addresses()[..] else { panic!("two addresses") };
    let mut inside = Vec::new();
    for _ in 0..2 {
        let mut client = Wire::connect(bounded).await;
        assert_eq!(ask(&mut client, "/page").await.status, 200);
        inside.push(client);
    }
    // The next ones wait in the backlog, those of the other listener do not.
    let mut outside = Vec::new();
    for _ in 0..6 {
        let mut client = Wire::connect(bounded).await;
        client.send("GET /page HTTP/1.1\r\nHost: meet\r\nConnection: close\r\n\r\n").await;
        outside.push(client);
    }
    for _ in 0..5 {
        let mut client = Wire::connect(free).await;
        assert_eq!(ask(&mut client, "/page").await.status, 200);
    }
    assert_eq!(node.totals().requests, 7, "none of those outside was heard");
    drop(inside);
    for client in &mut outside {
        assert_eq!(client.answer().await.status, 200);
    }
    node.stop().await;
}

/// The resident bytes of this process.
fn resident() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    line.trim().trim_end_matches(" kB").parse::<u64>().unwrap() * 1024
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_new_above_the_memory_ceiling() {
    const MUCH: usize = 512 << 20;
    let upstream = Upstream::start("s1").await;
    // Other tests of this process take some meanwhile: between the two there is much room.
    let ceilings = Ceilings { memory_max: MemoryMax::Bytes(resident() + (MUCH as u64) / 2), ..Ceilings::OFF };
    let node = Node::start_below(&[shard("s1", upstream.address)], ceilings);
    let mut before = node.client().await;
    assert_eq!(ask(&mut before, "/page").await.status, 200);
    let hoard = vec![1_u8; MUCH];
    eventually("new connections are refused", async || {
        let mut client = node.client().await;
        client.send("GET /page HTTP/1.1\r\nHost: meet\r\nConnection: close\r\n\r\n").await;
        client.rest().await.is_empty()
    })
    .await;
    assert!(refused(&node, Refused::Memory) >= 1);
    assert_eq!(ask(&mut before, "/page").await.status, 200, "what is open goes on");
    assert_eq!(hoard.iter().map(|byte| u64::from(*byte)).sum::<u64>(), MUCH as u64);
    drop(hoard);
    eventually("new connections are served again", async || {
        let mut client = node.client().await;
        client.send("GET /page HTTP/1.1\r\nHost: meet\r\nConnection: close\r\n\r\n").await;
        client.rest().await.starts_with(b"HTTP/1.1 200")
    })
    .await;
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn ceilings_change_while_the_node_serves() {
    let per_shard = PerShard {
        connections_max: 1,
        queue_max: 10,
        queue_timeout: Duration::from_secs(20),
        ..PerShard::OFF
    };
    let (mut node, _upstream) = below(per_shard).await;
    let tunnel = open_tunnel(&node).await;
    let mut waits = node.client().await;
    waits.send("GET /page HTTP/1.1\r\nHost: meet\r\n\r\n").await;
    let requests = node.totals().requests;
    eventually("it is heard", async || node.totals().requests > requests.min(1)).await;
    // Room for all, but one connection for each address, and two for the listener.
    let ceilings =
        Ceilings { per_address: PerAddress { connections_max: 3, ..PerAddress::OFF }, ..Ceilings::OFF };
    let mut usual = config(limits());
    usual.frontends[0].connections_max = NonZeroUsize::new(1);
    let change = node.running.prepare(WorkersConfig { ceilings, ..usual.clone() }).unwrap();
    node.running.apply(change).await;
    assert_eq!(waits.answer().await.status, 200, "who waited goes on");
    // What was open before is not counted by limits that came later.
    let mut inside = node.client().await;
    assert_eq!(ask(&mut inside, "/page").await.status, 200);
    let mut outside = node.client().await;
    outside.send("GET /page HTTP/1.1\r\nHost: meet\r\n\r\n").await;
    let answered = timeout(Duration::from_millis(300), outside.stream.readable()).await;
    assert!(answered.is_err(), "the listener is full");
    // And without any bound again: who waits in the backlog comes in.
    let change = node.running.prepare(config(limits())).unwrap();
    node.running.apply(change).await;
    assert_eq!(outside.answer().await.status, 200);
    drop((tunnel, inside));
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn limits_are_those_of_the_client_behind_a_proxy() {
    let upstream = Upstream::start("s1").await;
    let per_address = PerAddress { connections_max: 1, request_rate: Rate::new(1, 2), ..PerAddress::OFF };
    let start = |accept_proxy| {
        let mut config = config(limits());
        config.ceilings = Ceilings { per_address: per_address.clone(), ..Ceilings::OFF };
        config.trust.proxies = vec!["127.0.0.1".parse().unwrap()];
        config.frontends[0].accept_proxy = accept_proxy;
        let mesh = Mesh::alone(Config::new(PeerId::parse("me").unwrap(), 1)).unwrap();
        Node::start_on(mesh, &[shard("s1", upstream.address)], config)
    };

    let node = start(AcceptProxy::Off);
    // More connections than a client may have, and requests of two clients over each.
    let mut wires = [node.client().await, node.client().await, node.client().await];
    let mut answered = [0; 2];
    while answered != [429; 2] {
        for wire in &mut wires {
            for (client, status) in ["192.0.2.1", "192.0.2.2"].into_iter().zip(&mut answered) {
                let request =
                    format!("GET /page HTTP/1.1\r\nHost: meet\r\nX-Forwarded-For: {client}\r\n\r\n");
                wire.send(&request).await;
                *status = wire.answer().await.status;
            }
        }
    }
    wires[0].send("GET /page HTTP/1.1\r\nHost: meet\r\nX-Forwarded-For: 192.0.2.3\r\n\r\n").await;
    assert_eq!(wires[0].answer().await.status, 200, "a third client is not touched");
    assert_eq!(refused(&node, Refused::AddressConnections), 0);
    node.stop().await;

    let node = start(AcceptProxy::Required);
    let line = |client: &str| format!("PROXY TCP4 {client} 192.0.2.9 1 443\r\n");
    let mut first = node.client().await;
    first.send(&line("192.0.2.1")).await;
    assert_eq!(ask(&mut first, "/page").await.status, 200);
    let mut second = node.client().await;
    second.send(&line("192.0.2.1")).await;
    assert!(is_closed(&mut second).await, "its second connection");
    let mut other = node.client().await;
    other.send(&line("192.0.2.2")).await;
    assert_eq!(ask(&mut other, "/page").await.status, 200);
    assert_eq!(refused(&node, Refused::AddressConnections), 1);
    drop(first);
    eventually("the place is free again", async || {
        let mut again = node.client().await;
        again.send(&line("192.0.2.1")).await;
        again.send("GET /page HTTP/1.1\r\nHost: meet\r\n\r\n").await;
        !is_closed(&mut again).await
    })
    .await;
    node.stop().await;
}
