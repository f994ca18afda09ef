//! Plays the vectors against a HAProxy with our own configuration of rules R01-R42 (`bench::haproxy_rules`): what the bench compares us
//! with must do what the recorded one did.

use std::collections::BTreeMap;
use std::fs;
use std::io::{self, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;

use super::ask::ask;
use super::expect::{Expected, Stored, of};
use super::ground::Ground;
use super::plan::{HOST_NAME, Plan};
use super::record::{DecidedBy, Environment, Vector, environments, lines};
use super::run::{Report, VARIANTS, judge};
use super::site::Shards;
use crate::bench::haproxy::{ask as ask_socket, version_of};
use crate::bench::haproxy_rules::{self, Place, TABLE};
use crate::bench::site::{Shard, Site, Standing};

/// The recorded version whose answers count (R02): the only one with 3.x's parser.
const RECORDED: &str = "3.0.11";
/// The biggest head that HAProxy takes (R29): its buffer, less what it keeps free for rewriting.
const HEAD_MAX: usize = 16_384 - 1_024;
const STARTS_WITHIN: Duration = Duration::from_secs(10);
const PEER: &str = "oracle";

/// Plays the folder's vectors against `runner`, a program that runs HAProxy, and tells each failure to `out`. `only` are vectors whose id
/// begins so.
///
/// # Errors
/// When a file cannot be read, or HAProxy cannot be started or asked.
pub fn check_haproxy(
    folder: &Path,
    runner: &Path,
    only: Option<&str>,
    out: &mut impl Write,
) -> io::Result<Report> {
    let environments = environments(folder)?;
    let vectors = vectors(folder)?;
    let parser = Parser::of(&version_of(runner)?);
    let ground = Ground::new(0).ok_or_else(|| io::Error::other("no slot"))?;
    forget_log(ground.log_sink())?;
    let mut report = Report::default();
    for variant in VARIANTS {
        let plan = Plan::of(&environments, variant)?;
        let shards = Shards::start(ground, std::iter::once(&plan))?;
        let haproxy = HaProxy::start(runner, ground, &site(&environments, variant, &plan, ground))?;
        let wanted = vectors.iter().filter(|vector| vector.variant == variant);
        for vector in wanted.filter(|vector| only.is_none_or(|only| vector.id.starts_with(only))) {
            if let Some(reason) = skipped(vector, parser) {
                report.skip(reason);
                continue;
            }
            let faults = play(&haproxy, &shards, vector, parser)?;
            if faults.is_empty() {
                report.passed += 1;
                continue;
            }
            report.failed += 1;
            let target: String = vector.request.target.chars().take(100).collect();
            writeln!(out, "FAILED: {} {} {target} {:?}", vector.id, vector.request.method, vector.rules)?;
            for fault in faults {
                writeln!(out, "    {fault}")?;
            }
        }
    }
    Ok(report)
}

/// The vectors, each with the result that [`RECORDED`] gave.
fn vectors(folder: &Path) -> io::Result<Vec<Vector>> {
    let mut records: Vec<Value> = lines(&folder.join("vectors.jsonl"))?;
    for record in &mut records {
        let Some(Value::Object(otherwise)) = record["versions"].get(RECORDED).cloned() else { continue };
        for (name, value) in otherwise {
            record["result"][name] = value;
        }
    }
    records.into_iter().map(|record| serde_json::from_value(record).map_err(io::Error::other)).collect()
}

/// How HAProxy reads a request's head.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Parser {
    /// As recorded.
    Recorded,
    /// As the versions after it, where 3.2 was looked at.
    Newer,
}

impl Parser {
    /// By the line that `haproxy -v` begins with.
    fn of(version: &str) -> Self {
        match version.contains("version 3.0.") {
            true => Self::Recorded,
            false => Self::Newer,
        }
    }
}

/// Why a vector is not asked, by rule.
fn skipped(vector: &Vector, parser: Parser) -> Option<&'static str> {
    if vector.result.backend.as_deref() == Some("local_health") {
        return Some("HAProxy's own pages (R18): not in our configuration");
    }
    let authority_and_query = vector
        .request
        .target
        .strip_prefix("http://")
        .is_some_and(|rest| rest.find('?').is_some_and(|query| !rest[..query].contains('/')));
    if parser == Parser::Newer && authority_and_query {
        return Some("parser: http://host?x (R01): refused by HAProxy 3.0, passed by newer ones");
    }
    None
}

/// As recorded, but for the status by which newer versions refuse what their buffer does not take.
fn expected(vector: &Vector, parser: Parser) -> Expected {
    let mut expected = of(&vector.result);
    let too_big = vector.result.decided_by == DecidedBy::Parser && vector.request.target.len() > HEAD_MAX;
    if parser == Parser::Newer && too_big {
        expected.status = 431;
    }
    expected
}

fn play(haproxy: &HaProxy, shards: &Shards, vector: &Vector, parser: Parser) -> io::Result<Vec<String>> {
    let expected = expected(vector, parser);
    drop(shards.received());
    let answer = ask(haproxy.frontend, &vector.request)?;
    let got = shards.received();
    let mut faults = judge(&expected, &vector.request.target, &answer, &got);
    let wanted: Vec<String> = match expected.stored {
        Stored::Nothing => vec![],
        Stored::Key(key) => vec![key],
    };
    let keys = haproxy.keys()?;
    if keys != wanted {
        faults.push(format!("stored: {keys:?}, expected {wanted:?}"));
    }
    haproxy.clear()?;
    Ok(faults)
}

/// What HAProxy is told, by what the environment says of a variant.
fn site(environments: &BTreeMap<String, Environment>, variant: &str, plan: &Plan, ground: Ground) -> Site {
    let alone: Vec<&str> = environments
        .get(variant)
        .into_iter()
        .flat_map(|own| own.standalones.iter().map(|shard| shard.name.as_str()))
        .collect();
    let shards = plan.shards.iter().map(|shard| Shard {
        name: shard.name.clone(),
        number: shard.n,
        region: shard.region.clone(),
        release: format!("release-{}", shard.release),
        address: ground.shard(shard.n),
        standing: match shard.status == "critical" || alone.contains(&shard.name.as_str()) {
            true => Standing::Alone,
            false => Standing::InRelease,
        },
    });
    Site {
        region: plan.region.clone(),
        regions: plan.regions.clone(),
        live: plan.live.clone(),
        shards: shards.collect(),
        pins: plan.maps.tenant.clone(),
        bans: plan.maps.bans.clone(),
        bridges: plan.pools.first().map(|_| ground.pool()),
    }
}

/// Takes the access log, and forgets it, until the process ends.
fn forget_log(sink: SocketAddr) -> io::Result<()> {
    let listener = TcpListener::bind(sink)?;
    std::thread::spawn(move || {
        for mut stream in listener.incoming().map_while(Result::ok) {
            std::thread::spawn(move || io::copy(&mut stream, &mut io::sink()));
        }
    });
    Ok(())
}

/// A running HAProxy. Dropping it kills it and waits for its end.
struct HaProxy {
    child: Child,
    frontend: SocketAddr,
    socket: PathBuf,
    folder: tempfile::TempDir,
}

impl HaProxy {
    /// Starts one, and waits until it takes connections.
    fn start(runner: &Path, ground: Ground, site: &Site) -> io::Result<Self> {
        let folder = tempfile::tempdir()?;
        let (file, socket) = (folder.path().join("haproxy.cfg"), folder.path().join("socket"));
        let place = Place {
            file: &file,
            maps: folder.path(),
            socket: &socket,
            binds: &format!("bind {}", ground.frontend(1)),
            log: ground.log_sink(),
            peers: &[(PEER, ground.haproxy_peer(1))],
            host_name: HOST_NAME,
        };
        haproxy_rules::write(site, place)?;
        let log = fs::File::create(folder.path().join("log"))?;
        let child = Command::new(runner)
            .arg("-f")
            .arg(&file)
            .args(["-L", PEER])
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            .spawn()?;
        let mut started = Self { child, frontend: ground.frontend(1), socket, folder };
        started.wait_until_listening()?;
        Ok(started)
    }

    fn wait_until_listening(&mut self) -> io::Result<()> {
        let deadline = Instant::now() + STARTS_WITHIN;
        while TcpStream::connect(self.frontend).is_err() {
            let ended = self.child.try_wait()?;
            if ended.is_some() || Instant::now() > deadline {
                let log = fs::read_to_string(self.folder.path().join("log")).unwrap_or_default();
                let why =
                    ended.map_or_else(|| "does not listen".to_owned(), |status| format!("ended ({status})"));
                return Err(io::Error::other(format!("HAProxy {why}:\n{log}")));
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        Ok(())
    }

    /// The keys of the table.
    fn keys(&self) -> io::Result<Vec<String>> {
        Ok(keys(&ask_socket(&self.socket, &format!("show table {TABLE}"))?))
    }

    /// Clears the table, waiting for what still holds an entry.
    fn clear(&self) -> io::Result<()> {
        let deadline = Instant::now() + STARTS_WITHIN;
        while !self.keys()?.is_empty() {
            if Instant::now() > deadline {
                return Err(io::Error::other("HAProxy's table cannot be cleared"));
            }
            ask_socket(&self.socket, &format!("clear table {TABLE}"))?;
        }
        Ok(())
    }
}

impl Drop for HaProxy {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

/// From lines as `0x7f12: key=acme/foo use=0 exp=299999 shard=0 server_id=11 server_key=..`, where a key's spaces are escaped.
fn keys(table: &str) -> Vec<String> {
    let entries = table.lines().filter_map(|line| line.split_once(": key="));
    entries.map(|(_, rest)| unescaped(rest.split(" use=").next().unwrap_or(""))).collect()
}

/// HAProxy writes a byte that is no plain letter as `\xHH`, and a few others with a backslash before them.
fn unescaped(text: &str) -> String {
    let mut plain = String::new();
    let mut rest = text.chars();
    while let Some(letter) = rest.next() {
        if letter != '\\' {
            plain.push(letter);
            continue;
        }
        match rest.next() {
            Some('x') => {
                let digits: String = rest.by_ref().take(2).collect();
                plain.extend(u8::from_str_radix(&digits, 16).map(char::from));
            }
            Some('t') => plain.push('\t'),
            Some(other) => plain.push(other),
            None => {}
        }
    }
    plain
}

#[cfg(test)]
mod tests {
    use super::haproxy_rules::{Duty, servers};
    use super::*;

    fn folder() -> PathBuf {
        Path::new(env!("CARGO_MANIFEST_DIR")).join("oracle")
    }

    #[test]
    fn release_backends_have_the_servers_of_the_recorded_ones() {
        let environments = environments(&folder()).unwrap();
        let mut releases = 0;
        for variant in ["main", "colibri", "live3500", "live4000"] {
            let plan = Plan::of(&environments, variant).unwrap();
            let site = site(&environments, variant, &plan, Ground::new(0).unwrap());
            for (backend, recorded) in &environments[variant].backends {
                if !backend.starts_with("release-") {
                    continue;
                }
                let recorded = recorded.as_array().unwrap().iter();
                let recorded: Vec<(&str, bool)> = recorded
                    .map(|server| (server["shard"].as_str().unwrap(), server["backup"].as_bool().unwrap()))
                    .collect();
                let ours: Vec<(&str, bool)> = servers(&site, backend)
                    .into_iter()
                    .map(|(shard, duty)| (shard.name.as_str(), duty == Duty::Backup))
                    .collect();
                assert_eq!(ours, recorded, "{variant}: {backend}");
                releases += 1;
            }
        }
        assert_eq!(releases, 16);
    }

    #[test]
    fn what_3_0_answered_otherwise_counts() {
        let vectors = vectors(&folder()).unwrap();
        let refused = |id: &str| {
            let vector = vectors.iter().find(|vector| vector.id == id).unwrap();
            vector.result.decided_by == DecidedBy::Parser
        };
        assert!(refused("host-form-007"));
        assert!(!refused("absolute-003"));
    }

    #[test]
    fn keys_are_read_from_a_table() {
        let table = "# table: nodes, type: string, size:204800, used:2\n\
            0x7f1: key=a\\ b\\=c\\\\d\\xE9 use=0 exp=299999 shard=0 server_id=11 server_key=127.84.1.1\n\
            0x7f2: key= use=0 exp=299999 shard=0 server_id=12\n\n";
        assert_eq!(keys(table), ["a b=c\\d\u{e9}", ""]);
        assert!(keys("# table: nodes, type: string, size:204800, used:0\n\n").is_empty());
    }
}
