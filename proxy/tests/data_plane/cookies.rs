//! Pools that stick on a cookie, over one node and over two of a real mesh.

use crate::harness::{Answer, Node, Pair, Wire, config, eventually, key, limits, name, peer};
use shardgate_discovery::RegionName;
use shardgate_peering::core::{Config, ShardName, StickKey};
use shardgate_peering::{ClaimReason, Claimed, Mesh};
use shardgate_proxy::cookie::{CookieName, stick_key};
use shardgate_proxy::counters::{ClaimOutcome, TunnelEnd};
use shardgate_proxy::routing_key::{Pool, PoolServer, Routing};
use shardgate_proxy::worker::WorkersConfig;
use std::collections::{BTreeMap, BTreeSet};
use std::net::{Ipv4Addr, SocketAddr};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::task::JoinHandle;

/// A server that tells its label, sets what `?set=` asks it to set, and echoes over WebSockets. It ends connections after an answer, so
/// one that stops serves nobody.
struct Server {
    address: SocketAddr,
    label: &'static str,
    /// Keeps the address while nobody listens on it.
    _kept: TcpSocket,
    task: Option<JoinHandle<()>>,
}

impl Server {
    fn start(label: &'static str) -> Self {
        let kept = socket(SocketAddr::from((Ipv4Addr::LOCALHOST, 0)));
        let address = kept.local_addr().unwrap();
        let mut server = Self { address, label, _kept: kept, task: None };
        server.open();
        server
    }

    fn open(&mut self) {
        let listener = socket(self.address).listen(128).unwrap();
        self.task = Some(tokio::spawn(serve(listener, self.label)));
    }

    /// From now on connections are refused.
    async fn stop(&mut self) {
        let task = self.task.take().unwrap();
        task.abort();
        assert!(task.await.unwrap_err().is_cancelled());
    }

    /// Its name as a server of the pool `chat`.
    fn name(&self) -> ShardName {
        name(&format!("chat-127.0.0.1-{}", self.address.port()))
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        if let Some(task) = &self.task {
            task.abort();
        }
    }
}

fn socket(address: SocketAddr) -> TcpSocket {
    let socket = TcpSocket::new_v4().unwrap();
    socket.set_reuseport(true).unwrap();
    socket.bind(address).unwrap();
    socket
}

async fn serve(listener: TcpListener, label: &'static str) {
    loop {
        let (stream, _) = listener.accept().await.unwrap();
        tokio::spawn(answer(stream, label));
    }
}

async fn answer(mut stream: TcpStream, label: &str) {
    let mut read = Vec::new();
    while !read.ends_with(b"\r\n\r\n") {
        if !matches!(stream.read_buf(&mut read).await, Ok(1..)) {
            return;
        }
    }
    let head = String::from_utf8(read).unwrap();
    let target = head.split(' ').nth(1).unwrap();
    let set = target.split_once("?set=").map(|(_, value)| format!("Set-Cookie: SID={value}; Path=/\r\n"));
    let set = set.unwrap_or_default();
    if head.to_ascii_lowercase().contains("upgrade: websocket") {
        let switch = format!(
            "HTTP/1.1 101 OK\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nX-Server: {label}\r\n{set}\r\n"
        );
        stream.write_all(switch.as_bytes()).await.unwrap();
        let (mut reader, mut writer) = stream.into_split();
        drop(tokio::io::copy(&mut reader, &mut writer).await);
        return;
    }
    let text = format!(
        "HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 0\r\nX-Server: {label}\r\n{set}\r\n"
    );
    stream.write_all(text.as_bytes()).await.unwrap();
}

/// `/chat/` sticks on `SID`, `/plain/` takes turns, over the same servers.
fn routing(servers: &[Server]) -> Routing {
    let servers = servers.iter().map(|server| PoolServer::parse(&server.address.to_string()).unwrap());
    let servers: Vec<_> = servers.collect();
    let pool = |text: &str| {
        let region = RegionName::parse("here").unwrap();
        Pool::new(name(text), vec![format!("/{text}/")], servers.clone(), &region).unwrap()
    };
    Routing { pools: vec![pool("chat").sticking_on(sid()), pool("plain")], ..Routing::default() }
}

fn sid() -> CookieName {
    CookieName::parse("SID").unwrap()
}

fn key_of(value: &str) -> StickKey {
    stick_key(&name("chat"), &sid(), value.as_bytes()).unwrap()
}

fn servers() -> Vec<Server> {
    ["s1", "s2", "s3"].map(Server::start).into()
}

fn alone(servers: &[Server], table: Config) -> Node {
    let mesh = Mesh::alone(table).unwrap();
    Node::start_on(mesh, &[], with(routing(servers)))
}

fn with(routing: Routing) -> WorkersConfig {
    WorkersConfig { routing, ..config(limits()) }
}

/// Two nodes that are ready.
async fn pair(servers: &[Server]) -> Pair {
    Pair::start(|_, mesh| Node::start_on(mesh, &[], with(routing(servers)))).await
}

/// One request; `cookie` is a whole line, or none.
async fn get(node: &Node, target: &str, cookie: &str) -> Answer {
    let mut client = node.client().await;
    let cookie = if cookie.is_empty() { String::new() } else { format!("Cookie: {cookie}\r\n") };
    client.send(&format!("GET {target} HTTP/1.1\r\nHost: meet\r\n{cookie}\r\n")).await;
    client.answer().await
}

/// Which server answers.
async fn at(node: &Node, target: &str, cookie: &str) -> String {
    let answer = get(node, target, cookie).await;
    assert_eq!(answer.status, 200, "{target} {cookie}: {}", answer.head);
    answer.header("x-server")[0].to_owned()
}

/// Whether there are sessions enough: 12, and some on each of the three servers, which turns bring about soon.
fn enough(places: &BTreeMap<String, String>) -> bool {
    assert!(places.len() < 200, "not by turns: {places:?}");
    let used: BTreeSet<_> = places.values().collect();
    places.len() >= 12 && used.len() == 3
}

/// Asks with each cookie at a node and finds it where it is expected.
async fn assert_sticks(node: &Node, places: &BTreeMap<String, String>) {
    for (value, server) in places {
        assert_eq!(at(node, "/chat/room", &format!("lang=en; SID={value}")).await, *server, "SID={value}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cookie_that_one_node_learns_from_an_answer_is_followed_by_both() {
    let servers = servers();
    let pair = pair(&servers).await;
    let [first, second] = &pair.nodes;
    let mut places = BTreeMap::new();
    while !enough(&places) {
        let session = places.len();
        let server = at(first, &format!("/chat/login?set=v{session}"), "").await;
        // At once: the question is under way before the answer is.
        assert_eq!(at(first, "/chat/room", &format!("SID=v{session}")).await, server);
        places.insert(format!("v{session}"), server);
    }
    for value in places.keys() {
        eventually("the other one knows", async || second.table.lookup(key_of(value).as_str()).is_some())
            .await;
    }
    for _ in 0..3 {
        assert_sticks(second, &places).await;
        assert_sticks(first, &places).await;
    }
    let totals = first.totals();
    assert_eq!((totals.cookies_learned, totals.cookies_lost), (places.len() as u64, 0));
    pair.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cookie_that_a_client_brings_along_is_followed_by_both_at_once() {
    let servers = servers();
    let pair = pair(&servers).await;
    let mut places = BTreeMap::new();
    while !enough(&places) {
        let session = places.len();
        let (here, there) = (&pair.nodes[session % 2], &pair.nodes[1 - session % 2]);
        let cookie = format!("SID=old{session}; SID=other");
        let server = at(here, "/chat/room", &cookie).await;
        // No wait: where the entry has not come yet its home is asked.
        assert_eq!(at(there, "/chat/room", &cookie).await, server);
        assert_eq!(at(here, "/chat/other", &format!("SID=old{session}")).await, server);
        places.insert(format!("old{session}"), server);
    }
    pair.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn cookies_of_a_server_that_stops_are_lent_and_come_back() {
    let mut servers = servers();
    // With one worker each: every worker finds out for itself that a server is back, and a connection may come to any of them.
    let config = || WorkersConfig { threads: 1.try_into().unwrap(), ..with(routing(&servers)) };
    let pair = Pair::start(|_, mesh| Node::start_on(mesh, &[], config())).await;
    let [first, second] = &pair.nodes;
    let mut places = BTreeMap::new();
    while !enough(&places) {
        let value = format!("v{}", places.len());
        let server = at(first, "/chat/room", &format!("SID={value}")).await;
        places.insert(value, server);
    }
    assert_sticks(second, &places).await;
    servers[0].stop().await;
    let mut lent = places.clone();
    for (value, server) in &mut lent {
        let now = at(first, "/chat/room", &format!("SID={value}")).await;
        assert_eq!(now == *server, server != "s1", "SID={value} was on {server}, is on {now}");
        assert_ne!(now, "s1");
        *server = now;
    }
    assert_ne!(lent, places);
    // All of a session's requests go to the same other server, whichever node they come to.
    for _ in 0..3 {
        assert_sticks(first, &lent).await;
        assert_sticks(second, &lent).await;
    }
    servers[0].open();
    for node in [first, second] {
        let back = async || {
            let mut back = true;
            for (value, server) in &places {
                back &= at(node, "/chat/room", &format!("SID={value}")).await == *server;
            }
            back
        };
        eventually("its sessions come back", back).await;
    }
    assert_sticks(first, &places).await;
    let moved = first.table.status().await.stats.moved + second.table.status().await.stats.moved;
    assert_eq!(moved, 0);
    pair.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_cookie_requests_take_turns() {
    let servers = servers();
    let node = alone(&servers, Config::new(peer("me"), 1));
    // Neither other cookies nor an empty value are a session; the pool beside it looks at no cookie at all.
    for (target, cookie) in [
        ("/chat/room", ""),
        ("/chat/room", "sid=1; XSID=2; SID"),
        ("/chat/room", "SID=; SID=1"),
        ("/plain/room", "SID=1"),
        ("/plain/room?set=1", "SID=1"),
    ] {
        let mut used = BTreeMap::<_, u32>::new();
        let mut client = node.client().await;
        for _ in 0..60 {
            client.send(&format!("GET {target} HTTP/1.1\r\nHost: meet\r\nCookie: {cookie}\r\n\r\n")).await;
            *used.entry(client.answer().await.header("x-server")[0].to_owned()).or_default() += 1;
        }
        assert_eq!(used.len(), 3, "{target} {cookie}");
        assert!(used.values().all(|count| (15..=25).contains(count)), "{target} {cookie}: {used:?}");
    }
    assert_eq!((node.table.conferences_total(), node.totals().cookies_learned), (0, 0), "nothing is stored");
    let log = node.stop().await;
    let line = format!(" chat/{} ", servers[0].name());
    let turns: Vec<_> = log.lines().filter(|text| text.contains(&line)).collect();
    assert!(!turns.is_empty() && turns.iter().all(|text| text.contains(" -- pool 0 ")), "{log}");
}

#[tokio::test(flavor = "multi_thread")]
async fn when_the_table_takes_no_more_the_cookies_hash_chooses() {
    let servers = servers();
    let node = alone(&servers, Config { entries_max: 1, ..Config::new(peer("me"), 1) });
    let claimed = node.table.claim(key("room"), name("s9"), ClaimReason::Join).await;
    assert_eq!(claimed, Claimed::Stick { shard: name("s9") });
    node.table.session_opened(key("room"), name("s9")).await;
    let mut used = BTreeSet::new();
    for session in 0..12 {
        let cookie = format!("SID=v{session}");
        let server = at(&node, "/chat/room", &cookie).await;
        for _ in 0..4 {
            assert_eq!(at(&node, "/chat/room", &cookie).await, server);
        }
        assert_eq!(node.table.lookup(key_of(&format!("v{session}")).as_str()), None);
        used.insert(server);
    }
    assert_eq!(used.len(), 3, "spread");
    assert_eq!(node.totals().claims[ClaimOutcome::Unstored as usize], 60);
    node.stop().await;
}

const UPGRADE: &str = "Host: meet\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n\
                       Sec-WebSocket-Key: x3JJHMbDL1EzLkh9GBhXDw==\r\n";

async fn tunnel(node: &Node, target: &str, cookie: &str) -> (Wire, String) {
    let mut client = node.client().await;
    client.send(&format!("GET {target} HTTP/1.1\r\n{UPGRADE}Cookie: {cookie}\r\n\r\n")).await;
    let answer = client.head().await;
    assert_eq!(answer.status, 101, "{}", answer.head);
    client.send("hello").await;
    assert_eq!(client.exactly(5).await, b"hello");
    (client, answer.header("x-server")[0].to_owned())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tunnel_holds_its_cookies_entry_and_ends_when_it_moves() {
    let servers = servers();
    let node = alone(&servers, Config { ttl_ms: 1_000, ..Config::new(peer("me"), 1) });
    let (brought, _) = tunnel(&node, "/chat/ws", "SID=brought").await;
    let (learned, _) = tunnel(&node, "/chat/ws?set=learned", "a=b").await;
    let (turns, _) = tunnel(&node, "/chat/ws", "a=b").await;
    let is_there = |value: &str| node.table.lookup(key_of(value).as_str()).is_some();
    // What nobody holds is used last, and ends first.
    assert_eq!(get(&node, "/chat/room", "SID=idle").await.status, 200);
    assert!(is_there("idle"));
    eventually("an idle one ends", async || !is_there("idle")).await;
    assert!(is_there("brought") && is_there("learned"));
    drop(brought);
    eventually("it lets go", async || !is_there("brought")).await;
    // Moved to another server: the tunnel to the first one ends, and nobody else's.
    let there = node.table.lookup(key_of("learned").as_str()).unwrap();
    let other = servers.iter().map(Server::name).find(|server| *server != there).unwrap();
    let moved = node.table.claim(key_of("learned"), other.clone(), ClaimReason::Operator).await;
    assert_eq!(moved, Claimed::Stick { shard: other });
    let mut learned = learned;
    assert_eq!(learned.rest().await, b"");
    eventually("it is counted", async || node.totals().tunnel_ends[TunnelEnd::Moved as usize] == 1).await;
    let mut turns = turns;
    turns.send("still here").await;
    assert_eq!(turns.exactly(10).await, b"still here");
    drop(turns);
    node.stop().await;
}
