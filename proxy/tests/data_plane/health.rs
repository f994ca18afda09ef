//! Checks and agents against real servers, and what routing makes of them.

use crate::harness::{Node, Upstream, Wire, config, deaf, eventually, key, limits, name, shard};
use shardgate_discovery::Shard;
use shardgate_peering::core::{ClaimReason, Claimed, Config, PeerId};
use shardgate_peering::{Mesh, ProbeAsk, Reached};
use shardgate_proxy::Manners;
use shardgate_proxy::config::{
    AgentCheck, Check, CheckMethod, HealthConfig, HttpCheck, Observe, OnError, OnMarkedDown,
};
use shardgate_proxy::counters::TunnelEnd;
use shardgate_proxy::health::{HealthSettings, Reach, ServerReport};
use shardgate_proxy::limits::{Ceilings, PerShard};
use shardgate_proxy::worker::WorkersConfig;
use std::collections::BTreeSet;
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

const OPENS_TUNNEL: &str = "GET /xmpp-websocket?room=a HTTP/1.1\r\nHost: meet\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
     Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: x3JJHMbDL1EzLkh9GBhXDw==\r\n\r\n";

/// Checks so close together that a test need not wait.
fn quick() -> HealthConfig {
    let quick = Duration::from_millis(20);
    HealthConfig {
        inter: quick,
        fastinter: quick,
        downinter: quick,
        agent_inter: quick,
        timeout: Duration::from_millis(500),
        ..HealthConfig::default()
    }
}

fn node(shards: &[Shard], health: &HealthConfig) -> Node {
    let mesh = Mesh::alone(Config::new(PeerId::parse("me").unwrap(), 1)).unwrap();
    let health = HealthSettings::new(health, &[], &Manners::default());
    Node::start_on(mesh, shards, WorkersConfig { health, ..config(limits()) })
}

async fn report(node: &Node, server: &str) -> ServerReport {
    let all = node.running.health().report().await;
    all.into_iter().find(|report| report.name == name(server)).unwrap()
}

async fn probe(node: &Node, server: &str) -> Reached {
    let (reply, answer) = tokio::sync::oneshot::channel();
    node.running.health().probe(ProbeAsk { shard: name(server), reply }).await;
    answer.await.unwrap()
}

/// A server that says the same to everybody, and can be told to say something else.
#[derive(Clone)]
struct Says(Arc<Mutex<(String, Vec<String>)>>);

impl Says {
    fn new(text: &str) -> Self {
        Self(Arc::new(Mutex::new((text.to_owned(), Vec::new()))))
    }

    fn say(&self, text: &str) {
        self.0.lock().unwrap().0 = text.to_owned();
    }

    fn asked(&self) -> Vec<String> {
        self.0.lock().unwrap().1.clone()
    }

    /// Answers a request's head.
    async fn answer(self, mut stream: TcpStream) {
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            if stream.read_buf(&mut head).await.unwrap_or(0) == 0 {
                return;
            }
        }
        let text = {
            let mut state = self.0.lock().unwrap();
            state.1.push(String::from_utf8(head).unwrap());
            state.0.clone()
        };
        drop(stream.write_all(text.as_bytes()).await);
    }

    /// Says it to whoever connects.
    async fn speak(self, mut stream: TcpStream) {
        let text = self.0.lock().unwrap().0.clone();
        drop(stream.write_all(text.as_bytes()).await);
    }

    async fn http(&self) -> Upstream {
        let says = self.clone();
        Upstream::serve(move |stream| says.clone().answer(stream)).await
    }

    async fn agent(&self) -> Upstream {
        let says = self.clone();
        Upstream::serve(move |stream| says.clone().speak(stream)).await
    }
}

const WELL: &str = "HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nall is ok\n";
const UNWELL: &str = "HTTP/1.1 503 No\r\nContent-Length: 0\r\n\r\n";

/// Which shards take new rooms.
async fn takers(node: &Node, tag: &str) -> BTreeSet<String> {
    let mut seen = BTreeSet::new();
    for room in 0..24 {
        let answer = node.get(&format!("/about?room={tag}{room}")).await;
        seen.extend(answer.header("x-jitsi-shard").first().map(ToString::to_string));
    }
    seen
}

#[tokio::test(flavor = "multi_thread")]
async fn a_check_says_who_gets_requests() {
    let says = Says::new(WELL);
    let (sick, well) = (says.http().await, Upstream::start("s2").await);
    let http = HttpCheck { host: Some("meet.example.com".to_owned()), ..HttpCheck::default() };
    let check = HealthConfig { check: Check::Http, http, ..quick() };
    let node = node(&[shard("s1", sick.address), shard("s2", well.address)], &check);
    eventually("it is checked", async || report(&node, "s1").await.check.unwrap().passed > 2).await;
    let asked = says.asked();
    let expected = "GET /about/health HTTP/1.1\r\nhost: meet.example.com\r\nuser-agent: shardgate-check\r\nconnection: close\r\n\r\n";
    assert_eq!(asked[0], expected);
    // A room of the one that falls ill, as s1 answers without a name of its own.
    let mut room = 0;
    while node.get(&format!("/xmpp-websocket?room=on{room}")).await.header("x-jitsi-shard") == ["s2"] {
        room += 1;
    }
    says.say(UNWELL);
    eventually("it is down", async || report(&node, "s1").await.standing.reach == Reach::Down).await;
    let down = report(&node, "s1").await;
    assert_eq!((down.check.unwrap().last.as_str(), down.downs), ("status 503", 1));
    assert_eq!(node.running.health().subscribe().borrow().of(&name("s1")).reach, Reach::Down);
    eventually("nothing goes there", async || takers(&node, "a").await.len() == 1).await;
    let moved = node.get(&format!("/xmpp-websocket?room=on{room}")).await;
    assert_eq!(moved.header("x-jitsi-shard"), ["s2"]);
    says.say(WELL);
    eventually("it is up", async || report(&node, "s1").await.standing.reach == Reach::Up).await;
    let told = says.asked().len();
    eventually("it gets new rooms", async || {
        takers(&node, "b").await;
        says.asked()[told..].iter().any(|head| head.starts_with("GET /about?room=b"))
    })
    .await;
    assert_eq!(report(&node, "s2").await.downs, 0);
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_an_answer_has_to_be() {
    let says = Says::new(WELL);
    let server = says.http().await;
    let http = |method, body: Option<&str>| HealthConfig {
        check: Check::Http,
        http: HttpCheck { method, body: body.map(ToOwned::to_owned), ..HttpCheck::default() },
        ..quick()
    };
    let long = format!(
        "HTTP/1.1 200 OK\r\nContent-Length: 70000\r\n\r\n{}ok{}",
        "x".repeat(66_000),
        "x".repeat(3_998)
    );
    for (check, says_now, reach, what) in [
        (http(CheckMethod::Get, Some("is ok")), WELL, Reach::Up, "status 200"),
        (http(CheckMethod::Get, Some("is not")), WELL, Reach::Down, "body without \"is not\""),
        (http(CheckMethod::Get, Some("ok")), long.as_str(), Reach::Down, "body without \"ok\""),
        (
            http(CheckMethod::Head, None),
            "HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\n",
            Reach::Up,
            "status 200",
        ),
        (http(CheckMethod::Get, None), "SSH-2.0-OpenSSH_9.2\r\n\r\n", Reach::Down, "answer is no HTTP"),
        (http(CheckMethod::Get, None), "", Reach::Down, "answer is no HTTP"),
        (HealthConfig { check: Check::Tcp, ..quick() }, UNWELL, Reach::Up, "connection accepted"),
    ] {
        says.say(says_now);
        let node = node(&[shard("s1", server.address)], &check);
        eventually(what, async || {
            let report = report(&node, "s1").await;
            let last = report.check.unwrap().last;
            last.starts_with(what) && report.standing.reach == reach
        })
        .await;
        let reached = if reach == Reach::Up { Reached::Yes } else { Reached::No };
        assert_eq!(probe(&node, "s1").await, reached, "{what}");
        node.stop().await;
    }
    drop(server);
    let refusing = node(
        &[shard("s1", crate::harness::refusing().await)],
        &HealthConfig { check: Check::Tcp, ..quick() },
    );
    eventually("refused", async || report(&refusing, "s1").await.check.unwrap().last == "connection refused")
        .await;
    assert_eq!(probe(&refusing, "s1").await, Reached::No);
    assert_eq!(probe(&refusing, "unknown").await, Reached::No);
    refusing.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn agents_say_how_much_they_take() {
    let says = Says::new("up ready 100%\n");
    let agent = says.agent().await;
    let (first, second) = (Upstream::start("s1").await, Upstream::start("s2").await);
    let agents = HealthConfig { agent_check: AgentCheck::On, agent_port: 1, ..quick() };
    let told = Shard { agent_port: Some(agent.address.port()), ..shard("s1", first.address) };
    let node = node(&[told, shard("s2", second.address)], &agents);
    let says_now = async |text: &str| report(&node, "s1").await.agent.unwrap().says == text;
    eventually("it is heard", async || says_now("up ready 100%").await).await;
    let silent = report(&node, "s2").await.agent.unwrap();
    eventually("one that is not there", async || report(&node, "s2").await.agent.unwrap().error.is_some())
        .await;
    assert_eq!((silent.says.as_str(), silent.heard), ("", None));
    assert_eq!(takers(&node, "a").await.len(), 2, "who says nothing changes nothing");
    let stuck = |room: &str| format!("/xmpp-websocket?room={room}");
    let mut room = 0;
    while node.get(&stuck(&format!("on{room}"))).await.header("x-jitsi-shard") != ["s1"] {
        room += 1;
    }
    let room = format!("on{room}");
    for (line, shown, kept, new) in [
        ("up drain 0%\n", "up drain 0%", "s1", vec!["s2"]),
        ("ready 100%\n", "up ready 100%", "s1", vec!["s1", "s2"]),
        ("up ready 0%\n", "up ready 0%", "s1", vec!["s2"]),
        ("50%\n", "up ready 50%", "s1", vec!["s1", "s2"]),
        ("down 100% # no disk\n", "down ready 100% # no disk", "s2", vec!["s2"]),
    ] {
        says.say(line);
        eventually(line, async || says_now(shown).await).await;
        eventually(line, async || {
            takers(&node, line.split(' ').next().unwrap().trim()).await.into_iter().eq(new.iter().copied())
        })
        .await;
        assert_eq!(node.get(&stuck(&room)).await.header("x-jitsi-shard"), [kept], "{line}");
    }
    says.say("up ready\n");
    eventually("it is back", async || takers(&node, "z").await.len() == 2).await;
    assert_eq!(node.get(&stuck(&room)).await.header("x-jitsi-shard"), ["s2"], "a join that moved stays");
    node.stop().await;
}

/// No limit is configured; the agent's holds for tunnels that begin from then on, and the others' requests are refused, as there is no line.
#[tokio::test(flavor = "multi_thread")]
async fn agents_say_how_much_at_once() {
    let says = Says::new("up maxconn:1\n");
    let agent = says.agent().await;
    let upstream = Upstream::start("s1").await;
    let agents = HealthConfig { agent_check: AgentCheck::On, agent_port: 1, ..quick() };
    let told = Shard { agent_port: Some(agent.address.port()), ..shard("s1", upstream.address) };
    let node = node(&[told], &agents);
    let mut tunnel = node.client().await;
    eventually("it is heard", async || report(&node, "s1").await.agent.unwrap().says == "up maxconn:1").await;
    eventually("a request holds a place", async || {
        node.get("/page").await;
        !node.running.gate().shard_loads().is_empty()
    })
    .await;
    tunnel.send(OPENS_TUNNEL).await;
    assert_eq!(tunnel.head().await.status, 101);
    assert_eq!(node.get("/page").await.status, 503);
    says.say("maxconn:2\n");
    eventually("there are two", async || node.get("/page").await.status == 200).await;
    says.say("maxconn:1\n");
    eventually("there is one", async || node.get("/page").await.status == 503).await;
    says.say("maxconn:0\n");
    eventually("no limit", async || node.get("/page").await.status == 200).await;
    drop(tunnel);
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_agent_that_is_mad_changes_nothing() {
    let says = Says::new("up drain\n");
    let agent = says.agent().await;
    let upstream = Upstream::start("s1").await;
    let agents = HealthConfig { agent_check: AgentCheck::On, timeout: Duration::from_millis(50), ..quick() };
    let told = Shard { agent_port: Some(agent.address.port()), ..shard("s1", upstream.address) };
    let trickling = Upstream::serve(|mut stream| async move {
        while stream.write_all(b"u").await.is_ok() {
            tokio::time::sleep(Duration::from_secs(1)).await;
        }
    })
    .await;
    let node = node(&[told], &agents);
    let error = async || report(&node, "s1").await.agent.unwrap().error;
    eventually("it is heard", async || report(&node, "s1").await.agent.unwrap().says == "up drain").await;
    let megabyte = "x".repeat(1 << 20);
    for (line, why) in [
        ("no end", "its line has no end"),
        ("", "its line has no end"),
        (megabyte.as_str(), "its line is longer than 1024 bytes"),
    ] {
        says.say(line);
        eventually(why, async || error().await.as_deref() == Some(why)).await;
    }
    says.say("\u{1}\u{2} what? \n");
    eventually("garbage is told", async || {
        report(&node, "s1").await.agent.unwrap().says.contains("unknown word")
    })
    .await;
    let standing = report(&node, "s1").await.standing;
    assert_eq!(standing.state.map(|state| state.as_str()), Some("drain"), "what it said before holds");
    // One that says a byte a second is given up, each time anew, and nobody else waits for it.
    let slow = Shard { agent_port: Some(trickling.address.port()), ..shard("s1", upstream.address) };
    let mut node = node;
    node.discovery.publish(crate::harness::snapshot(&[slow]));
    eventually("it is given up", async || {
        report(&node, "s1").await.agent.unwrap().error.as_deref() == Some("no answer within 50 ms")
    })
    .await;
    assert_eq!(node.get("/about").await.status, 503, "its only shard is drained");
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn sessions_end_with_their_shard() {
    let upstream = Upstream::start("s1").await;
    let agent = Says::new("up\n");
    let listening = agent.agent().await;
    let told = Shard { agent_port: Some(listening.address.port()), ..shard("s1", upstream.address) };
    let both = HealthConfig {
        agent_check: AgentCheck::On,
        on_marked_down: OnMarkedDown::ShutdownSessions,
        ..quick()
    };
    let node = node(&[told], &both);
    let mut tunnel = Wire::connect(node.address()).await;
    tunnel.send(OPENS_TUNNEL).await;
    assert_eq!(tunnel.head().await.status, 101);
    tunnel.exactly(14).await;
    agent.say("down\n");
    assert_eq!(tunnel.rest().await, b"", "closed, and nothing forged");
    eventually("counted", async || node.totals().tunnel_ends[TunnelEnd::ShardDown as usize] == 1).await;
    let log = node.stop().await;
    assert!(log.contains(" DD shard_down "), "{log}");
}

/// An answer that has begun breaks off; who waits for a connection goes elsewhere.
#[tokio::test(flavor = "multi_thread")]
async fn requests_end_with_their_shard() {
    let streams = Upstream::serve(|mut stream| async move {
        let _head = stream.read(&mut [0; 4096]).await;
        let begins = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n";
        stream.write_all(begins).await.unwrap();
        std::future::pending::<()>().await;
    })
    .await;
    let (deaf, _keeps_it_so) = deaf().await;
    let well = Upstream::start("s3").await;
    let [first, second] = [Says::new("up\n"), Says::new("up\n")];
    let agents = [first.agent().await, second.agent().await];
    let told = |agent: usize, name: &str, address| {
        let agent_port = Some(agents[agent].address.port());
        Shard { agent_port, ..shard(name, address) }
    };
    let ends = HealthConfig {
        agent_check: AgentCheck::On,
        agent_port: 1,
        on_marked_down: OnMarkedDown::ShutdownSessions,
        ..quick()
    };
    let shards = [told(0, "s1", streams.address), told(1, "s2", deaf), shard("s3", well.address)];
    let node = node(&shards, &ends);
    for on in ["s1", "s2"] {
        let placed = node.table.claim(key(on), name(on), ClaimReason::Join).await;
        assert_eq!(placed, Claimed::Stick { shard: name(on) });
    }
    let [mut reads, mut connects] = [node.client().await, node.client().await];
    reads.send("GET /page?room=s1 HTTP/1.1\r\nHost: meet\r\n\r\n").await;
    reads.until(b"hello\r\n").await;
    connects.send("GET /page?room=s2 HTTP/1.1\r\nHost: meet\r\n\r\n").await;
    eventually("it connects", async || node.totals().requests == 2).await;
    first.say("down\n");
    assert_eq!(reads.rest().await, b"", "no end of chunks is made up");
    second.say("down\n");
    let answer = connects.answer().await;
    assert_eq!((answer.status, answer.text().starts_with("s3\n")), (200, true), "{answer:?}");
    let log = node.stop().await;
    assert!(log.contains(" live/s1 ") && log.contains(" DD "), "{log}");
}

/// Who is let in to a shard that has gone down meanwhile, because others left it, goes elsewhere as they did.
#[tokio::test(flavor = "multi_thread")]
async fn who_stood_in_line_goes_elsewhere_too() {
    let silent = Upstream::serve(async |stream| {
        let _open = stream;
        std::future::pending::<()>().await;
    })
    .await;
    let well = Upstream::start("s2").await;
    let says = Says::new("up\n");
    let agent = says.agent().await;
    let told = Shard { agent_port: Some(agent.address.port()), ..shard("s1", silent.address) };
    let ends = HealthConfig {
        agent_check: AgentCheck::On,
        agent_port: 1,
        on_marked_down: OnMarkedDown::ShutdownSessions,
        ..quick()
    };
    let per_shard = PerShard {
        connections_max: 2,
        queue_max: 10,
        queue_timeout: Duration::from_secs(60),
        ..PerShard::OFF
    };
    let mesh = Mesh::alone(Config::new(PeerId::parse("me").unwrap(), 1)).unwrap();
    let health = HealthSettings::new(&ends, &[], &Manners::default());
    let ceilings = Ceilings { per_shard, ..Ceilings::OFF };
    let config = WorkersConfig { health, ceilings, ..config(limits()) };
    let node = Node::start_on(mesh, &[told, shard("s2", well.address)], config);
    assert_eq!(
        node.table.claim(key("foo"), name("s1"), ClaimReason::Join).await,
        Claimed::Stick { shard: name("s1") }
    );
    let mut clients = Vec::new();
    for _ in 0..6 {
        let mut client = node.client().await;
        client.send("GET /page?room=foo HTTP/1.1\r\nHost: meet\r\n\r\n").await;
        clients.push(client);
    }
    let load = || node.running.gate().shard_loads().into_iter().find(|load| load.shard == name("s1"));
    eventually("four wait", async || load().is_some_and(|load| (load.active, load.queued) == (2, 4))).await;
    says.say("down\n");
    for mut client in clients {
        let answer = client.answer().await;
        assert_eq!((answer.status, answer.text().starts_with("s2\n")), (200, true), "{answer:?}");
    }
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn requests_that_fail_are_observed() {
    let says = Says::new(WELL);
    let (sick, well) = (says.http().await, Upstream::start("s2").await);
    let observed = HealthConfig {
        check: Check::Tcp,
        inter: Duration::from_secs(600),
        fastinter: Duration::from_secs(600),
        downinter: Duration::from_millis(20),
        rise: 1,
        observe: Observe::Layer7,
        error_limit: 3,
        on_error: OnError::MarkDown,
        ..quick()
    };
    let node = node(&[shard("s1", sick.address), shard("s2", well.address)], &observed);
    says.say(UNWELL);
    let mut seen = 0;
    let mut room = 0;
    while report(&node, "s1").await.downs == 0 {
        seen += usize::from(node.get(&format!("/about?room=o{room}")).await.status == 503);
        room += 1;
        assert!(room < 1_000, "it is never down");
    }
    // Two workers count each for themselves.
    assert!((3..=6).contains(&seen), "{seen}");
    node.stop().await;
}
