//! A run's surroundings: the folder, the origin and the started subjects.

use std::fs;
use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::process::ExitCode;
use std::thread::sleep;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tempfile::TempDir;

use super::http_load::room_name;
use super::load_report::LoadReport;
use super::net::AddressPlan;
use super::options::{Options, USAGE};
use super::process::{Cpus, Obedient, sibling};
use super::report::{Report, grouped};
use super::rounds::{Measured, ask_report};
use super::site::Routing;
use super::subject::{Entrances, Ground, Kind, Subject};
use super::wire::HOST;
use super::{haproxy, shardgate};
use crate::certificates::Authority;

/// By then a proxy must have written out its access log.
const LOG_FLUSH_MAX: Duration = Duration::from_secs(5);

/// Everything that runs during a bench. Dropping it stops all of it and removes the folder.
pub struct Stage {
    // Stopped in this order; the folder goes last.
    subjects: Vec<Subject>,
    _origin: Obedient,
    cpus: Cpus,
    routing: Routing,
    versions: Vec<String>,
    _folder: TempDir,
}

impl Stage {
    /// Starts the origin and the wanted subjects, all for the same site.
    pub fn set(
        options: &Options,
        routing: Routing,
        entrances: Entrances,
        report: &Report,
    ) -> io::Result<Self> {
        let folder = tempfile::Builder::new().prefix("shardgate-bench-").tempdir()?;
        let (plan, cpus) = (AddressPlan::of_this_process(), Cpus::pick()?);
        let ground = Ground { plan, cpus, folder: folder.path(), entrances };
        if entrances == Entrances::PlainAndTls {
            write_certificate(&ground.certificate())?;
        }
        let site = routing.site(plan);
        let shards = site.addresses().into_iter().map(|address| address.to_string());
        let origin = Obedient::start("origin", cpus.rest, &sibling("bench_origin")?, shards)?;
        let mut subjects = Vec::new();
        let mut versions = Vec::new();
        for kind in &options.subjects {
            let (version, subject) = match kind {
                Kind::HaProxy => (haproxy::version()?, haproxy::start(ground, &site, routing)?),
                Kind::Shardgate => (shardgate::version()?, shardgate::start(ground, &site)?),
                Kind::Relay => ("bare TCP relay: the limit".to_owned(), Subject::relay(ground, &site)?),
            };
            report.say(&version);
            versions.push(version);
            subjects.push(subject);
        }
        Ok(Self { subjects, _origin: origin, cpus, routing, versions, _folder: folder })
    }

    /// The subjects in the order of their first turns.
    #[must_use]
    pub fn subjects(&self) -> &[Subject] {
        &self.subjects
    }

    /// Starts a load of requests for rooms towards a subject.
    pub fn load(&self, subject: &Subject, connections: usize) -> io::Result<Obedient> {
        self.load_of(self.routing.load(), subject.kind, subject.address, &connections.to_string())
    }

    /// Starts a load of tunnels towards a subject.
    pub fn tunnels(&self, subject: &Subject, tunnels: usize) -> io::Result<Obedient> {
        self.load_of("tunnels", subject.kind, subject.address, &tunnels.to_string())
    }

    /// Starts a load towards a subject's entrance with TLS: what `bench_load` calls it, and how many connections (and streams).
    pub fn tls_load(&self, load: &str, subject: &Subject, shape: &str) -> io::Result<Obedient> {
        self.load_of(load, subject.kind, subject.tls_address(), shape)
    }

    fn load_of(&self, load: &str, kind: Kind, target: SocketAddr, shape: &str) -> io::Result<Obedient> {
        let name = format!("{load} load on {}", kind.name());
        let arguments = [load.to_owned(), target.to_string(), shape.to_owned()];
        Obedient::start(&name, self.cpus.rest, &sibling("bench_load")?, arguments)
    }

    /// Has every subject asked for all rooms once, and waits until its second node knows them: the work that is compared includes
    /// the replication, so it must be seen to happen.
    pub fn warm_and_replicate(&mut self, rooms: u64, report: &Report) -> io::Result<()> {
        for index in 0..self.subjects.len() {
            let mut load = self.load(&self.subjects[index], 64)?;
            warm(&mut load)?;
            let subject = &mut self.subjects[index];
            if subject.kind.sticks() {
                check_headers(subject)?;
            }
            if let Some(entries) = subject.wait_until_replicated(rooms)? {
                report.say(format!("{}: {entries} rooms in its second node's table", subject.kind.name()));
            }
        }
        Ok(())
    }

    /// Lines in the subjects' access logs so far.
    pub fn logged_lines(&self) -> io::Result<Vec<Option<u64>>> {
        self.subjects.iter().map(Subject::logged_lines).collect()
    }

    /// Checks that the requests measured since `before` have all been logged: a proxy that drops lines does less work.
    pub fn check_access_logs<'a>(
        &self,
        before: &[Option<u64>],
        measured: impl Iterator<Item = &'a Measured> + Clone,
        report: &mut Report,
    ) -> io::Result<()> {
        for (subject, before) in self.subjects.iter().zip(before) {
            let Some(before) = before else { continue };
            let name = subject.kind.name();
            let of_it = measured.clone().filter(|measured| measured.kind == subject.kind);
            let done: u64 = of_it.map(|measured| measured.report.done).sum();
            let deadline = Instant::now() + LOG_FLUSH_MAX;
            let lines = loop {
                let lines = subject.logged_lines()?.unwrap_or(0) - before;
                if lines >= done || Instant::now() > deadline {
                    break lines;
                }
                sleep(Duration::from_millis(200));
            };
            report.say(format!(
                "{name}: {} lines in its access log for {} requests",
                grouped(lines),
                grouped(done)
            ));
            if lines < done - done / 1000 {
                report
                    .add_void("access log", vec![format!("{name} wrote {lines} lines for {done} requests")]);
            }
        }
        Ok(())
    }

    /// What the JSON document says about the run.
    #[must_use]
    pub fn head(&self, bench: &str, options: &Options) -> Value {
        let names: Vec<&str> = self.subjects.iter().map(|subject| subject.kind.name()).collect();
        json!({
            "bench": bench,
            "rounds": options.rounds,
            "seconds": options.seconds,
            "subjects": names,
            "versions": self.versions,
        })
    }
}

fn write_certificate(file: &Path) -> io::Result<()> {
    if let Some(folder) = file.parent() {
        fs::create_dir_all(folder)?;
    }
    fs::write(file, Authority::new()?.issue(HOST, 1)?.bundle())
}

/// Both proxies name themselves in every answer; one that did not would do less work.
fn check_headers(subject: &Subject) -> io::Result<()> {
    let mut stream = TcpStream::connect(subject.address)?;
    stream.set_read_timeout(Some(Duration::from_secs(5)))?;
    write!(
        stream,
        "GET /http-bind?room={} HTTP/1.1\r\nHost: bench\r\nConnection: close\r\n\r\n",
        room_name(0)
    )?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    let lower = answer.to_ascii_lowercase();
    match ["x-proxy-region: bench", "x-proxy-host: ", "x-jitsi-shard: bench-s"]
        .iter()
        .find(|name| !lower.contains(**name))
    {
        None => Ok(()),
        Some(name) => Err(io::Error::other(format!("{}: no {name:?} in {answer:?}", subject.kind.name()))),
    }
}

/// Asks for every room once, over all connections; faults end the bench.
pub fn warm(load: &mut Obedient) -> io::Result<LoadReport> {
    load.ask("warm", Duration::from_secs(70))?;
    let report = ask_report(load, "report", Duration::from_secs(10))?;
    match &report.faults()[..] {
        [] => Ok(report),
        faults => Err(io::Error::other(format!("while warming up: {}", faults.join(", ")))),
    }
}

/// Runs a bench with the process's arguments: a wrong argument ends it with 2, what went wrong on the way with 1.
pub fn start_or_usage(
    name: &str,
    rounds: u32,
    seconds: u32,
    bench: impl FnOnce(&Options) -> io::Result<ExitCode>,
) -> ExitCode {
    let options = Options::parse(std::env::args().skip(1), rounds, seconds);
    run_or_usage(name, USAGE, options, bench)
}

/// The same for a bench that has read its arguments itself.
pub fn run_or_usage<O>(
    name: &str,
    usage: &str,
    options: Result<O, String>,
    bench: impl FnOnce(&O) -> io::Result<ExitCode>,
) -> ExitCode {
    let (code, message) = match options {
        Err(error) => (2, format!("{error}\nusage: {name} {usage}")),
        Ok(options) => match bench(&options) {
            Ok(code) => return code,
            Err(error) => (1, error.to_string()),
        },
    };
    writeln!(io::stderr(), "{name}: {message}").ok();
    ExitCode::from(code)
}
