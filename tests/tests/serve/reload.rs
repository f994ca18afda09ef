//! A changed configuration on a running node, by the file's change and by SIGHUP.

use super::{HOST, Site, free_tcp, get, run, text, until};
use shardgate_tests::certificates::Authority;
use std::fs;
use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::process::Command;
use std::time::{Duration, Instant};

const SHARD: &str = "live_release = \"release-1\"\n[[shards]]\nname = \"s1\"\nid = 1\nregion = \"here\"\n\
                     release = \"release-1\"\naddress = \"127.38.0.2:9\"\nstate = \"ready\"\n";

/// The node's configuration file, replaced by a rename.
fn change(site: &Site, edit: impl FnOnce(String) -> String) {
    let path = site.folder.path().join("n1.toml");
    let next = site.folder.path().join("n1.next");
    fs::write(&next, edit(fs::read_to_string(&path).expect("it was written"))).expect("it is written");
    fs::rename(next, path).expect("it is renamed");
}

fn metric(admin: SocketAddr, name: &str) -> u64 {
    let text = get(admin, "/metrics");
    let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
    line.unwrap_or_else(|| panic!("no {name} in {text}")).trim().parse().expect("a number")
}

/// Asks for a page that no shard is needed for, on a connection that stays.
fn ask(stream: &mut TcpStream) -> std::io::Result<String> {
    stream.write_all(b"GET /x HTTP/1.1\r\nHost: meet\r\nUser-Agent: WordPress/6\r\n\r\n")?;
    let mut buffer = [0; 4096];
    let read = stream.read(&mut buffer)?;
    Ok(String::from_utf8_lossy(&buffer[..read]).into_owned())
}

fn connect(address: SocketAddr) -> TcpStream {
    let stream = TcpStream::connect(address).expect("it listens");
    stream.set_read_timeout(Some(Duration::from_secs(10))).expect("a timeout can be set");
    stream
}

#[test]
fn listeners_timeouts_certificates_and_log_change_without_a_restart() {
    let mut site = Site::new(&[("n1", "here")], SHARD);
    site.start_all();
    let (http, admin) = (site.nodes[0].http, site.nodes[0].admin);
    let mut old = connect(http);
    assert!(ask(&mut old).expect("an answer").starts_with("HTTP/1.1 403"));

    // Another plain listener instead of the first, one with TLS, a shorter timeout, more events.
    let (plain, secure) = (free_tcp(HOST), free_tcp(HOST));
    let certificate = site.folder.path().join("meet.pem");
    let authority = Authority::new().expect("a key");
    let issued = authority.issue("meet", 1).expect("a certificate");
    fs::write(&certificate, issued.bundle()).expect("it is written");
    change(&site, |config| {
        config.replace(&format!("listen = [\"{http}\"]\n"), "header_timeout = \"300ms\"\n")
            + &format!(
                "[[listeners]]\nname = \"plain\"\nlisten = [\"{plain}\"]\n[[listeners]]\nname = \"secure\"\n\
                 listen = [\"{secure}\"]\nprotocol = \"https\"\n[tls]\n[[tls.certificates]]\ncert = \"{}\"\n\
                 [log]\nlevel = \"debug\"\n",
                text(&certificate)
            )
    });
    until("the new listener", || TcpStream::connect(plain).is_ok());
    until("the configuration is in use", || metric(admin, "shardgate_config_reloads_total") == 1);
    assert!(TcpStream::connect(http).is_err(), "the old listener is closed");
    assert!(ask(&mut old).expect("its connection stays").starts_with("HTTP/1.1 403"));
    let answer = Command::new("curl")
        .args([
            "-sk",
            "--http2",
            "-A",
            "WordPress/6",
            "-o",
            "/dev/null",
            "-w",
            "%{http_code} %{http_version}",
        ])
        .arg(format!("https://{secure}/x"))
        .output()
        .expect("curl runs");
    assert_eq!(String::from_utf8_lossy(&answer.stdout), "403 2");
    let mut slow = connect(plain);
    slow.write_all(b"GET / HT").expect("it is written");
    let began = Instant::now();
    let mut page = String::new();
    slow.read_to_string(&mut page).expect("an end");
    assert!(page.starts_with("HTTP/1.1 408"), "{page}");
    assert!(began.elapsed() < Duration::from_secs(5), "the old timeout was 10 s");
    until("an event at debug level", || site.log("n1").contains("DEBUG"));
    assert_eq!(metric(admin, "shardgate_config_restart_needed"), 0);
}

#[test]
fn a_faulty_change_is_refused_whole_and_what_needs_a_restart_is_named() {
    let mut site = Site::new(&[("n1", "here")], SHARD);
    site.start_all();
    let (http, admin) = (site.nodes[0].http, site.nodes[0].admin);
    let plain = free_tcp(HOST);
    let listener = format!("[[listeners]]\nname = \"plain\"\nlisten = [\"{plain}\"]\n");
    change(&site, |config| {
        config.replace("workers = 1", "workers = 1\nclient_timeout = \"soon\"") + &listener
    });
    until("the refusal", || metric(admin, "shardgate_config_refused_total") == 1);
    assert!(TcpStream::connect(plain).is_err(), "nothing of a faulty file is used");
    assert!(site.log("n1").contains("frontend.client_timeout is \"soon\""), "{}", site.log("n1"));
    assert!(ask(&mut connect(http)).expect("an answer").starts_with("HTTP/1.1 403"));

    // An address that somebody else has refuses the whole as well.
    let taken = std::net::TcpListener::bind("127.38.0.1:0").expect("a port");
    let address = taken.local_addr().expect("its address");
    change(&site, |config| {
        config.replace("\"soon\"", "\"9s\"").replace(&plain.to_string(), &format!("{plain}\", \"{address}"))
    });
    until("the second refusal", || metric(admin, "shardgate_config_refused_total") == 2);
    assert!(TcpStream::connect(plain).is_err(), "nothing of it is used");
    assert!(site.log("n1").contains(&format!("cannot listen on {address}")), "{}", site.log("n1"));
    drop(taken);

    // The address is free now; the file is as it was, so only SIGHUP reads it again.
    change(&site, |config| config + "[stick_table]\nsize = 4242\n");
    let child = site.nodes[0].child.as_ref().expect("it runs").id();
    run_kill(child);
    until("the change", || TcpStream::connect(plain).is_ok());
    until("what waits", || metric(admin, "shardgate_config_restart_needed") == 1);
    let log = site.log("n1");
    assert!(log.contains("stick_table.size") && log.contains("only after a restart"), "{log}");
    assert!(log.contains("frontend.client_timeout"), "{log}");
    assert!(run("shardgatectl", &["--node", &admin.to_string(), "status"]).contains("n1"));
}

fn run_kill(pid: u32) {
    let done = Command::new("kill").args(["-HUP", &pid.to_string()]).status().expect("kill runs");
    assert!(done.success());
}
