//! The watches of sixty nodes on one agent: what they cost while nothing happens, and how soon all of them know.

use std::fs;
use std::net::{IpAddr, Ipv4Addr};
use std::time::{Duration, Instant};

use shardgate_discovery::consul::{AgentConfig, ConsulConfig, watch_consul};

use crate::cluster::{Keys as _, Server, federated, within};
use crate::discovery::config;
use crate::nodes::{ask, of_form};

const NODES: u8 = 60;
const SHARDS: u32 = 20;
/// Ticks of a second in /proc, as Linux has them for every program.
const TICKS_PER_SECOND: f64 = 100.0;

/// What a process has used of a CPU, of its user and of the system.
fn cpu_seconds(pid: u32) -> f64 {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
    // Its name may hold blanks, but is the last thing in parentheses.
    let fields: Vec<_> = stat.rsplit(')').next().unwrap().split_whitespace().collect();
    let ticks = |field: usize| fields[field].parse::<f64>().unwrap();
    (ticks(11) + ticks(12)) / TICKS_PER_SECOND
}

/// Established connections from an address to an agent.
fn connections(from: Ipv4Addr, server: &Server) -> usize {
    let hex = |ip: Ipv4Addr| format!("{:08X}", u32::from_le_bytes(ip.octets()));
    let IpAddr::V4(to) = server.http().ip() else { panic!("an IPv4 address") };
    let (from, to) = (hex(from), format!("{}:{:04X}", hex(to), server.http().port()));
    let table = fs::read_to_string("/proc/net/tcp").unwrap();
    let established = table.lines().filter(|line| {
        let fields: Vec<_> = line.split_whitespace().collect();
        fields.len() > 3 && fields[1].starts_with(&from) && fields[2] == to && fields[3] == "01"
    });
    established.count()
}

/// Requests that the agent answered in its last full ten seconds, and which ten these were.
fn answered(server: &Server) -> (String, u64) {
    let answer = ask(server.http(), "/v1/agent/metrics");
    let body = answer.find('{').map_or("", |start| &answer[start..]);
    // Chunks of a long answer leave their lengths in between, on lines of their own.
    let body: String = body
        .split("\r\n")
        .enumerate()
        .filter_map(|(number, part)| (number % 2 == 0).then_some(part))
        .collect();
    let metrics: serde_json::Value = serde_json::from_str(&body).unwrap();
    let samples = metrics["Samples"].as_array().unwrap().iter();
    let http = samples.filter(|sample| sample["Name"].as_str().is_some_and(|name| name.contains("http.")));
    let count = http.map(|sample| sample["Count"].as_u64().unwrap()).sum();
    (metrics["Timestamp"].to_string(), count)
}

#[tokio::test(flavor = "multi_thread")]
async fn sixty_nodes_are_told_at_once_and_cost_little() {
    let (east, west) = federated(41).await;
    let agent = east.agent();
    for id in 1..=SHARDS {
        let server = if id % 2 == 0 { &east } else { &west };
        server.agent().register(&server.shard(&format!("s{id}"), id)).await.unwrap();
    }
    agent.set(&east.datacenter, "releases/test/live", "release-1").await.unwrap();
    let sources = (1..=NODES).map(|last| Ipv4Addr::new(127, 61, 40, last));
    let (mut handles, mut watches) = (Vec::new(), Vec::new());
    for source in sources.clone() {
        let agent = AgentConfig { source: Some(IpAddr::V4(source)), ..east.config() };
        let patient = ConsulConfig { start_within: Duration::from_secs(30), ..config(&east, agent, None) };
        let (handle, watch) = watch_consul(patient).await.unwrap();
        handles.push(handle);
        watches.push(watch);
    }
    within(Duration::from_secs(30), "all have all", async || {
        handles.iter().all(|handle| handle.current().shards().len() == SHARDS as usize)
    })
    .await;

    // Whole intervals of the agent's own counting.
    let idle = Duration::from_secs(of_form("CONSUL_IDLE_SECONDS", 10));
    let (mut interval, _) = answered(&east);
    // It shows the last interval that is over, and the first one as long as that is the only one to show: for two intervals. Few looks: each is
    // a request as well.
    let mut looks = tokio::time::interval(Duration::from_millis(500));
    within(Duration::from_secs(25), "an interval begins", async || {
        looks.tick().await;
        let now = answered(&east).0;
        now != std::mem::replace(&mut interval, now.clone())
    })
    .await;
    let (began, cpu, mut requests) = (Instant::now(), cpu_seconds(east.pid()), 0);
    for _ in 0..idle.as_secs().div_ceil(10) {
        let mut counted = (String::new(), 0);
        let mut looks = tokio::time::interval(Duration::from_secs(2));
        within(Duration::from_secs(15), "an interval ends", async || {
            looks.tick().await;
            counted = answered(&east);
            counted.0 != interval
        })
        .await;
        interval = counted.0;
        requests += counted.1;
    }
    let seconds = began.elapsed().as_secs_f64();
    let cpu = (cpu_seconds(east.pid()) - cpu) / seconds * 100.0;
    let held: Vec<_> = sources.map(|source| connections(source, &east)).collect();
    let most = *held.iter().max().unwrap();
    println!(
        "{NODES} nodes, {SHARDS} shards, two datacenters, idle for {seconds:.0} s: {:.1} requests/s (Consul's telemetry), \
         {} connections, at most {most} of a node, {cpu:.1} % of a CPU in Consul",
        requests as f64 / seconds,
        held.iter().sum::<usize>()
    );
    assert!(most <= 150, "{most} connections of one node");
    assert!(held.iter().all(|held| *held > 0), "connections are not found: {held:?}");

    let mut changes: Vec<_> = handles.iter().map(|handle| handle.subscribe()).collect();
    let began = Instant::now();
    let waiting = changes.drain(..).map(|mut changes| {
        tokio::spawn(async move {
            let pinned = changes.wait_for(|snapshot| snapshot.tenant_pin("acme").is_some()).await;
            assert!(pinned.is_ok(), "the watch ended");
            began.elapsed()
        })
    });
    let waiting: Vec<_> = waiting.collect();
    agent.set(&east.datacenter, "releases/test/tenant/acme", "release-1").await.unwrap();
    let mut took = Vec::new();
    for task in waiting {
        took.push(tokio::time::timeout(Duration::from_secs(5), task).await.unwrap().unwrap());
    }
    took.sort();
    let (half, p99, last) = (took[took.len() / 2], took[took.len() * 99 / 100], took[took.len() - 1]);
    println!("a pin is known to all {NODES}: p50 {half:?}, p99 {p99:?}, longest {last:?}");
    for watch in watches {
        watch.stop().await;
    }
}
