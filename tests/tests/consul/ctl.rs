//! What operators write by `shardgatectl`, in real datacenters.

use std::io::{Read as _, Write as _};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use shardgate_discovery::consul::{Agent, Cas, Registration};

use crate::cluster::{Keys as _, Server, federated, within};

mod tokens;

/// What the program said.
#[derive(Debug)]
pub(crate) struct Said {
    pub(crate) code: Option<i32>,
    pub(crate) out: String,
    pub(crate) error: String,
}

/// Runs the program of the same build with these variables alone.
fn run(variables: &[(&str, &str)], arguments: &[&str]) -> Said {
    let this = std::env::current_exe().unwrap();
    let program = this.parent().and_then(Path::parent).unwrap().join("shardgatectl");
    let mut command = Command::new(program);
    command.env_clear().envs(variables.iter().copied()).args(arguments).stdin(Stdio::null());
    let output = command.output().unwrap();
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    Said { code: output.status.code(), out: text(output.stdout), error: text(output.stderr) }
}

/// A pipe that nobody reads.
fn closed_pipe() -> Stdio {
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    writer.into()
}

/// Runs it for the environment `test`, at an agent, and has its output elsewhere.
fn ctl_into(output: Stdio, ip: &str, command: &str) -> Said {
    let this = std::env::current_exe().unwrap();
    let program = this.parent().and_then(Path::parent).unwrap().join("shardgatectl");
    let mut running = Command::new(program);
    running.env_clear().env("CONSUL_HTTP_ADDR", format!("{ip}:8500")).env("SHARDGATE_ENVIRONMENT", "test");
    running.args(command.split(' ')).stdin(Stdio::null()).stdout(output).stderr(Stdio::piped());
    let output = running.output().unwrap();
    Said { code: output.status.code(), out: String::new(), error: String::from_utf8(output.stderr).unwrap() }
}

/// Runs it for the environment `test`, at an agent.
pub(crate) fn ctl(ip: &str, command: &str) -> Said {
    let address = format!("{ip}:8500");
    let arguments: Vec<&str> = command.split(' ').collect();
    run(&[("CONSUL_HTTP_ADDR", &address), ("SHARDGATE_ENVIRONMENT", "test")], &arguments)
}

impl Said {
    /// Its exit code and output; nothing but notes on the other channel.
    #[track_caller]
    fn is(&self, code: i32, lines: &[&str]) -> &Self {
        assert_eq!(self.code, Some(code), "{self:?}");
        let out: Vec<String> =
            self.out.lines().map(|line| line.split_whitespace().collect::<Vec<_>>().join(" ")).collect();
        assert_eq!(out, lines, "{self:?}");
        self
    }

    /// Nothing on the output, and these words as the error.
    #[track_caller]
    fn refuses(&self, code: i32, words: &[&str]) {
        self.is(code, &[]).tells(words);
    }

    #[track_caller]
    fn tells(&self, words: &[&str]) {
        for word in words {
            assert!(self.error.contains(word), "{word:?} in {self:?}");
        }
    }
}

/// A shard of a release.
fn shard(server: &Server, name: &str, id: u32, release: &str) -> Registration {
    let mut shard = server.shard(name, id);
    shard.tags = vec!["test".to_owned(), format!("release-{release}"), format!("shard-{name}")];
    shard.meta.insert("release_number".to_owned(), release.to_owned());
    shard
}

/// Says something to a server of HTTP, and what it answers.
fn http(ip: &str, method: &str, path: &str, token: &str, body: &str) -> String {
    let mut stream = TcpStream::connect((ip, 8500)).unwrap();
    write!(
        stream,
        "{method} {path} HTTP/1.1\r\nHost: consul\r\nX-Consul-Token: {token}\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{body}",
        body.len()
    )
    .unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    answer
}

/// In front of an agent: the first write through it finds that somebody else has just written.
struct Meddler {
    ip: String,
    stopped: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Meddler {
    fn start(ip: &str, agent: &str, path: &str, value: &str) -> Self {
        let listener = TcpListener::bind((ip, 8500)).unwrap();
        let (stopped, done) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicBool::new(false)));
        let (agent, path, value) = (agent.to_owned(), path.to_owned(), value.to_owned());
        let stop = Arc::clone(&stopped);
        let thread = std::thread::spawn(move || {
            let mut relays = Vec::new();
            for client in listener.incoming().map(Result::unwrap) {
                if stop.load(Ordering::Relaxed) {
                    break;
                }
                let server = TcpStream::connect((agent.as_str(), 8500)).unwrap();
                let (mut from, mut to) = (server.try_clone().unwrap(), client.try_clone().unwrap());
                relays.push(std::thread::spawn(move || {
                    // The client may have gone.
                    let _copied = std::io::copy(&mut from, &mut to);
                }));
                let (agent, path, value, done) =
                    (agent.clone(), path.clone(), value.clone(), Arc::clone(&done));
                relays.push(std::thread::spawn(move || {
                    let meddle = || drop(http(&agent, "PUT", &path, "", &value));
                    relay(client, server, &done, meddle);
                }));
            }
            relays.into_iter().for_each(|relay| relay.join().unwrap());
        });
        Self { ip: ip.to_owned(), stopped, thread: Some(thread) }
    }
}

/// Passes on what the client says, after meddling with its first write to test-west.
fn relay(mut client: TcpStream, mut server: TcpStream, done: &AtomicBool, meddle: impl Fn()) {
    let mut buffer = [0; 16_384];
    while let Ok(read @ 1..) = client.read(&mut buffer) {
        let said = &buffer[..read];
        let head = String::from_utf8_lossy(said);
        let writes = head.starts_with("PUT /v1/kv/") && head.contains("dc=test-west");
        if writes && !done.swap(true, Ordering::Relaxed) {
            meddle();
        }
        if server.write_all(said).is_err() {
            break;
        }
    }
    // It may have closed first.
    let _closed = server.shutdown(Shutdown::Both);
}

impl Drop for Meddler {
    fn drop(&mut self) {
        self.stopped.store(true, Ordering::Relaxed);
        let _wakes = TcpStream::connect((self.ip.as_str(), 8500));
        if let Some(thread) = self.thread.take() {
            thread.join().unwrap();
        }
    }
}

const WROTE: &str = "DATACENTER BEFORE NOW RESULT";

#[tokio::test(flavor = "multi_thread")]
async fn what_operators_write() {
    let (east, mut west) = federated(20).await;
    let (to_east, to_west) = (east.agent(), west.agent());
    to_east.register(&shard(&east, "s1", 1, "1")).await.unwrap();
    to_east.register(&shard(&east, "s2", 2, "2")).await.unwrap();
    to_west.register(&shard(&west, "s3", 3, "2")).await.unwrap();
    let ip = east.ip.clone();
    let ctl = |command: &str| ctl(&ip, command);
    within(Duration::from_secs(20), "all shards are listed", async || {
        ctl("shard list").out.lines().count() == 4
    })
    .await;

    live_releases(&ctl);
    pins(&ctl);
    states_and_bans(&ctl);
    ctl("pin check").is(0, &["checked 4 keys, 3 shards in 2 datacenters: nothing found"]);
    for (command, code) in [("pin check", 0), ("shard list --output json", 0), ("ban remove nobody", 0)] {
        let said = ctl_into(closed_pipe(), &ip, command);
        assert_eq!(said.code, Some(code), "{said:?}");
        assert!(!said.error.contains("panic") && !said.error.contains("cannot be written"), "{said:?}");
    }
    let full = std::fs::File::create("/dev/full").unwrap();
    let said = ctl_into(full.into(), &ip, "shard list");
    assert_eq!(said.code, Some(2), "{said:?}");
    said.tells(&["error: the output cannot be written: No space left"]);
    somebody_else(&ip);
    findings(&ctl, &east, &west).await;

    // One datacenter is down: the others hold it, and it is told.
    west.kill();
    let said = ctl("release live set release-1");
    assert_eq!(said.code, Some(1), "{said:?}");
    assert!(said.out.contains("test-east   release-2  release-1  written\n"), "{said:?}");
    said.tells(&["written in 1 of 2 datacenters, not in test-west: ", "; run it again\n"]);
    assert_eq!(said.error.lines().count(), 1, "{said:?}");
    let json = ctl("release live set release-1 --output json");
    assert_eq!(json.code, Some(1), "{json:?}");
    let lines: Vec<serde_json::Value> =
        json.out.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(
        (&lines[0]["result"], &lines[1]["result"], &lines[1]["now"]),
        (&"as_before".into(), &"failed".into(), &serde_json::Value::Null)
    );
    assert!(lines[1]["error"].is_string(), "{json:?}");
    ctl("pin set acme release-9").refuses(1, &["shards cannot be listed in test-west", "--force"]);
    let check = ctl("pin check");
    assert_eq!(check.code, Some(1), "{check:?}");
    assert!(check.out.contains("keys of test-west are not known"), "{check:?}");
    assert!(check.out.contains("in 1 of 2 datacenters"), "{check:?}");
    assert_eq!(ctl("pin list").code, Some(1));
    assert_eq!(ctl("release live get").code, Some(1));
    let live = ctl("release live get --output json");
    let lines: Vec<serde_json::Value> =
        live.out.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!((lines.len(), &lines[1]["datacenter"]), (2, &"test-west".into()), "{live:?}");
    assert!(lines[1]["release"].is_null() && lines[1]["error"].is_string(), "{live:?}");
    ctl("ban list --datacenter test-east").is(0, &["LIST PATTERN VERDICT DATACENTERS"]);
    ctl("pin unset acme --datacenter test-west").tells(&["deleted in 0 of 1 datacenters"]);
    assert_eq!(ctl("pin unset acme --datacenter test-west").code, Some(2));
}

fn live_releases(ctl: &impl Fn(&str) -> Said) {
    // An environment that nobody has heard of is a typing error; that of a shard is not.
    ctl("ban add evil --environment tset").refuses(
        1,
        &["no shard and no key of the environment tset is known; nothing was written", "--force"],
    );
    assert_eq!(ctl("ban add evil --dry-run").code, Some(0));
    let none = ctl("release live get");
    none.is(1, &["DATACENTER RELEASE SHARDS", "test-east -", "test-west -"]).tells(&["is missing"]);
    ctl("release live set release-11")
        .refuses(1, &["no shard runs release-11; nothing was written", "did you mean release-1?"]);
    ctl("release live set release-1 --dry-run").is(
        0,
        &[
            "releases/test/live",
            WROTE,
            "test-east - - release-1 would be written",
            "test-west - - release-1 would be written",
        ],
    );
    ctl("release live set release-1 --datacenter test-west")
        .is(0, &["releases/test/live", WROTE, "test-west - release-1 written"]);
    ctl("release live get")
        .is(1, &["DATACENTER RELEASE SHARDS", "test-east -", "test-west release-1 1 of 1 ready"]);
    ctl("release live set release-1").is(
        0,
        &[
            "releases/test/live",
            WROTE,
            "test-east - release-1 written",
            "test-west release-1 release-1 as before",
        ],
    );
    let json = ctl("--output json release live set release-2");
    json.is(
        0,
        &[
            r#"{"datacenter":"test-east","key":"releases/test/live","before":"release-1","now":"release-2","result":"written","error":null}"#,
            r#"{"datacenter":"test-west","key":"releases/test/live","before":"release-1","now":"release-2","result":"written","error":null}"#,
        ],
    );
    ctl("release live get --output json").is(
        0,
        &[
            r#"{"datacenter":"test-east","release":"release-2","error":null}"#,
            r#"{"datacenter":"test-west","release":"release-2","error":null}"#,
        ],
    );
}

fn pins(ctl: &impl Fn(&str) -> Said) {
    assert_eq!(ctl("pin set acme release-1").code, Some(0));
    ctl("pin set globex release-9").refuses(1, &["no shard runs release-9"]);
    ctl("pin set globex release-9 --force --datacenter test-east")
        .is(0, &["releases/test/tenant/globex", WROTE, "test-east - release-9 written"]);
    ctl("pin set Acme release-1").refuses(2, &["in lower case", "did you mean acme?"]);
    ctl("pin set .. release-1").refuses(2, &["cannot be a key"]);
    ctl("pin list").is(
        0,
        &[
            "TENANT RELEASE SHARDS DATACENTERS",
            "acme release-1 1 of 1 ready all",
            "globex release-9 none test-east",
        ],
    );
    ctl("pin list --output json").is(
        0,
        &[
            r#"{"tenant":"acme","releases":{"test-east":"release-1","test-west":"release-1"}}"#,
            r#"{"tenant":"globex","releases":{"test-east":"release-9"}}"#,
        ],
    );
    ctl("pin unset globex").is(
        0,
        &["releases/test/tenant/globex", WROTE, "test-east release-9 - deleted", "test-west - - as before"],
    );
    ctl("pin unset globex").tells(&["there was no such key"]);
    ctl("pin list --datacenter test-wst").refuses(2, &["it knows test-east, test-west"]);
    ctl("pin list --datacenter test-west,test-wst").refuses(2, &["datacenter test-wst"]);
}

fn states_and_bans(ctl: &impl Fn(&str) -> Said) {
    let drained = ctl("shard drain s1");
    drained.is(0, &["shard-states/test/s1", WROTE, "test-east - drain written", "test-west - drain written"]);
    drained.tells(&["note: no shard of release-1 is ready then"]);
    assert_eq!(ctl("shard maint s1 --datacenter test-west").code, Some(0));
    ctl("shard list").is(
        0,
        &[
            "SHARD ID RELEASE REGION ADDRESS STATE",
            "s1 1 release-1 east 127.61.9.1:443 drain in test-east, maint in test-west",
            "s2 2 release-2 east 127.61.9.2:443 ready",
            "s3 3 release-2 west 127.61.9.3:443 ready",
        ],
    );
    let pins = ctl("pin list");
    pins.is(0, &["TENANT RELEASE SHARDS DATACENTERS", "acme release-1 0 of 1 ready (1 maint) all"]);
    assert_eq!(ctl("shard ready s1").code, Some(0));
    ctl("shard drain s4").refuses(1, &["no shard s4 is registered", "did you mean s1?"]);
    assert_eq!(ctl("shard weight s1 10").code, Some(2));
    ctl("shard weight s1 10").tells(&["needs --node"]);
    ctl("shard drain s1 --dry-run --node 127.61.20.9:1").refuses(2, &["--node is not"]);
    ctl("shard drain s1 --datacenter test-west --node 127.61.20.9:1")
        .refuses(2, &["--datacenter is about Consul"]);
    // With a node named, it is the node that is asked.
    ctl("shard drain s1 --node 127.61.20.9:1").refuses(2, &["node 127.61.20.9:1: "]);

    assert_eq!(ctl("ban add evil").code, Some(0));
    assert_eq!(ctl("ban add --list tenant spam").code, Some(0));
    assert_eq!(ctl("ban add --list prefix --allow evilish").code, Some(0));
    ctl("ban add Evil").refuses(1, &["upper-case", "evil is the same"]);
    ctl("ban add acme/evil").refuses(1, &["--list substr acme___evil"]);
    ctl("ban add --list tenant acme/").refuses(1, &["--list tenant acme bans"]);
    // The slash belongs to the name: without it, it would be a room.
    ctl("ban add acme/")
        .is(0, &["banlists/test/exact/acme/", WROTE, "test-east - ban written", "test-west - ban written"]);
    ctl("ban add --list rom x").refuses(2, &["unban_prefix"]);
    ctl("ban list").is(
        0,
        &[
            "LIST PATTERN VERDICT DATACENTERS",
            "exact acme/ ban all",
            "exact evil ban all",
            "prefix evilish allow all",
            "tenant spam ban all",
        ],
    );
    for pattern in ["--list tenant spam", "--list prefix evilish", "acme/"] {
        assert_eq!(ctl(&format!("ban remove {pattern}")).code, Some(0));
    }
}

/// Somebody writes between our reading and our writing: theirs stays, and is told.
fn somebody_else(agent: &str) {
    let path = "/v1/kv/releases/test/tenant/acme?dc=test-west";
    let meddler = Meddler::start("127.61.20.4", agent, path, "release-3");
    let said = ctl(&meddler.ip, "pin set acme release-2");
    said.is(
        1,
        &[
            "releases/test/tenant/acme",
            WROTE,
            "test-east release-1 release-2 written",
            "test-west release-1 release-3 changed by somebody else meanwhile",
        ],
    );
    said.tells(&["written in 1 of 2 datacenters, not in test-west: changed by somebody else meanwhile"]);
    assert_eq!(ctl(&meddler.ip, "pin set acme release-2").code, Some(0));
}

/// Each kind of finding, made and found.
async fn findings(ctl: &impl Fn(&str) -> Said, east: &Server, west: &Server) {
    let found = || -> Vec<String> {
        let said = ctl("pin check --output json");
        let kinds = said.out.lines().map(|line| {
            let line: serde_json::Value = serde_json::from_str(line).unwrap();
            assert!(!line["remedy"].as_str().unwrap().is_empty(), "{said:?}");
            line["finding"].as_str().unwrap().to_owned()
        });
        kinds.collect()
    };
    let agent: Agent = east.agent();
    for (server, key, value, kind) in [
        (east, "releases/test/live", "release-9", &["live_without_shards", "disagreement"][..]),
        (east, "releases/test/tenant/acme", "release-9", &["pin_without_shards", "disagreement"]),
        (east, "shard-states/test/s9", "drain", &["disagreement", "state_without_shard"]),
        (west, "bans/test/room/x", "ban", &["disagreement"]),
        (west, "bans/test/room/x", "perhaps", &["unread_key"]),
        (west, "releases/test/next", "release-1", &["unread_key"]),
    ] {
        let before = http(&server.ip, "GET", &format!("/v1/kv/{key}?raw"), "", "");
        let before = before.split_once("\r\n\r\n").filter(|_| before.starts_with("HTTP/1.1 200"));
        agent.set(&server.datacenter, key, value).await.unwrap();
        assert_eq!(found(), kind, "{key} {value}");
        match before {
            Some((_, value)) => agent.set(&server.datacenter, key, value).await.unwrap(),
            None => drop(agent.delete_key(&server.datacenter, key, Cas::Any).await.unwrap()),
        }
        assert_eq!(found(), [""; 0], "{key} is as before");
    }
    agent.delete_key(&east.datacenter, "releases/test/live", Cas::Any).await.unwrap();
    assert_eq!(found(), ["live_missing"]);
    assert_eq!(ctl("release live set release-2").code, Some(0));
    for shard in ["s2", "s3"] {
        assert_eq!(ctl(&format!("shard drain {shard}")).code, Some(0));
    }
    assert_eq!(found(), ["live_not_ready", "pin_not_ready"]);
    for shard in ["s2", "s3"] {
        assert_eq!(ctl(&format!("shard ready {shard}")).code, Some(0));
    }
    let mut twin = shard(east, "s9", 1, "1");
    twin.id = "test-z".to_owned();
    agent.register(&twin).await.unwrap();
    within(Duration::from_secs(20), "the service that is no shard", async || found() == ["unread_service"])
        .await;
    agent.deregister("test-z").await.unwrap();
    within(Duration::from_secs(20), "nothing is found", async || found().is_empty()).await;
    assert_eq!(ctl("pin unset acme").code, Some(0));
    assert_eq!(ctl("ban remove evil").code, Some(0));
}

#[test]
fn empty_variables_are_not_given() {
    let said = |variables: &[(&str, &str)]| run(variables, &["pin", "list"]);
    for name in [
        "CONSUL_CACERT",
        "CONSUL_CLIENT_CERT",
        "CONSUL_CLIENT_KEY",
        "CONSUL_HTTP_TOKEN_FILE",
        "CONSUL_HTTP_TOKEN",
    ] {
        let variables =
            [("SHARDGATE_ENVIRONMENT", "test"), ("CONSUL_HTTP_ADDR", "127.61.20.9:1"), (name, "")];
        said(&variables).refuses(2, &["no answer from the Consul agent at http://127.61.20.9:1"]);
    }
    // The usual place. An agent that listens there does not speak TLS at this port.
    let usual = [
        ("SHARDGATE_ENVIRONMENT", "test"),
        ("CONSUL_HTTP_ADDR", ""),
        ("CONSUL_HTTP_SSL", "1"),
        ("SHARDGATE_DATACENTERS", ""),
    ];
    said(&usual).refuses(2, &["no answer from the Consul agent at https://127.0.0.1:8500"]);
}

#[test]
fn who_cannot_look_says_why() {
    for (variables, command, words) in [
        (&[][..], "pin list", &["--environment is missing", "SHARDGATE_ENVIRONMENT"][..]),
        (&[("SHARDGATE_ENVIRONMENT", "Prod")], "pin list", &["--environment \"Prod\"", "a-z 0-9 -"]),
        (&[("SHARDGATE_ENVIRONMENT", "test")], "pin list --consul http://a/b", &["--consul \"http://a/b\""]),
        (
            &[
                ("SHARDGATE_ENVIRONMENT", "test"),
                ("CONSUL_HTTP_ADDR", "127.61.20.9:1"),
                ("CONSUL_HTTP_SSL", "true"),
                ("CONSUL_TLS_SERVER_NAME", "consul"),
            ],
            "pin list",
            &["the Consul agent at https://127.61.20.9:1", "note: CONSUL_TLS_SERVER_NAME is not honoured"],
        ),
        (
            &[("SHARDGATE_ENVIRONMENT", "test"), ("SHARDGATE_DATACENTERS", "a,b.c")],
            "pin list",
            &["SHARDGATE_DATACENTERS has \"b.c\""],
        ),
        (&[], "pin list --node 127.61.20.9:1", &["pin, release live and ban are about Consul"]),
        (&[], "release live get --node 127.61.20.9:1", &["pin, release live and ban are about Consul"]),
        (&[], "ban add x --node 127.61.20.9:1", &["pin, release live and ban are about Consul"]),
        (
            &[("SHARDGATE_ENVIRONMENT", "test")],
            "--consul-token-file /no\u{1b}[2Jwhere\u{202e} pin list",
            &[r"/no\u{1b}[2Jwhere\u{202e}: "],
        ),
        (
            &[("SHARDGATE_ENVIRONMENT", "test"), ("CONSUL_HTTP_ADDR", "127.61.20.9:1")],
            "pin list",
            &["no answer from the Consul agent at http://127.61.20.9:1", "CONSUL_HTTP_ADDR"],
        ),
        (
            &[("SHARDGATE_ENVIRONMENT", "test"), ("CONSUL_CLIENT_CERT", "c.pem")],
            "pin list",
            &["--consul-cert is given without --consul-key"],
        ),
        (&[("SHARDGATE_ENVIRONMENT", "test")], "pin list --consul-ca /nowhere", &["/nowhere: "]),
        (&[("SHARDGATE_ENVIRONMENT", "test")], "shard drain a/b", &["\"a/b\" is not valid"]),
    ] {
        run(variables, &command.split(' ').collect::<Vec<_>>()).refuses(2, words);
    }
    // What is wrong for Consul does not keep a node from being asked.
    let variables =
        [("CONSUL_HTTP_ADDR", "http://a/b"), ("CONSUL_CLIENT_CERT", "c.pem"), ("SHARDGATE_DATACENTERS", "a")];
    run(&variables, &["--node", "127.61.20.9:1", "status"]).refuses(2, &["node 127.61.20.9:1: "]);
    run(&variables, &["--node", "127.61.20.9:1", "shard", "list"]).refuses(2, &["node 127.61.20.9:1: "]);
    let secret = [("SHARDGATE_ENVIRONMENT", "test"), ("CONSUL_HTTP_ADDR", "http://me:secret@consul:8500")];
    let said = run(&secret, &["pin", "list"]);
    said.refuses(2, &["--consul \"http://…@consul:8500\""]);
    assert!(!said.error.contains("secret") && !run(&secret, &["--help"]).out.contains("secret"), "{said:?}");
}
