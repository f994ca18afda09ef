//! Snapshots made of what real Consul servers say.

use crate::cluster::{Keys as _, Server, federated, within};
use shardgate_discovery::consul::{
    AddressKind, AgentConfig, Cas, ConsulConfig, ConsulWatch, Place, ServiceNames, Token, watch_consul,
};
use shardgate_discovery::{DiscoveryHandle, EnvironmentName, Origin, ServiceName, ShardState};
use std::path::PathBuf;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;
use tokio::task::JoinHandle;

const SOON: Duration = Duration::from_secs(1);

pub(crate) fn config(server: &Server, agent: AgentConfig, state_file: Option<PathBuf>) -> ConsulConfig {
    ConsulConfig {
        agent,
        place: Place {
            environment: EnvironmentName::parse("test").unwrap(),
            datacenter: server.datacenter.clone(),
            services: ServiceNames::default(),
            remote_address: AddressKind::Lan,
        },
        datacenters: None,
        pools: [ServiceName::parse("jigasi").unwrap()].into(),
        behind_max: Duration::from_secs(10),
        state_file,
        start_within: Duration::from_secs(5),
    }
}

pub(crate) async fn watch(server: &Server) -> (DiscoveryHandle, ConsulWatch) {
    watch_consul(config(server, server.config(), None)).await.unwrap()
}

pub(crate) fn shards(handle: &DiscoveryHandle) -> String {
    let snapshot = handle.current();
    let shards = snapshot.shards().iter().map(|shard| format!("{} {}", shard.name, shard.state));
    shards.collect::<Vec<_>>().join(", ")
}

/// The fewest shards that any snapshot had.
pub(crate) struct Fewest {
    seen: Arc<AtomicUsize>,
    following: JoinHandle<()>,
}

impl Fewest {
    /// Follows every snapshot from now on.
    pub(crate) fn follow(handle: &DiscoveryHandle) -> Self {
        let mut changes = handle.subscribe();
        let seen = Arc::new(AtomicUsize::new(handle.current().shards().len()));
        let fewest = Arc::clone(&seen);
        let following = tokio::spawn(async move {
            while changes.changed().await.is_ok() {
                fewest.fetch_min(changes.borrow_and_update().shards().len(), Ordering::Relaxed);
            }
        });
        Self { seen, following }
    }

    pub(crate) fn end(self) -> usize {
        self.following.abort();
        self.seen.load(Ordering::Relaxed)
    }
}

async fn says(handle: &DiscoveryHandle, expected: &str) -> Duration {
    within(SOON, expected, async || shards(handle) == expected).await
}

#[tokio::test(flavor = "multi_thread")]
async fn two_datacenters_are_followed() {
    let (mut east, mut west) = federated(1).await;
    let (to_east, to_west) = (east.agent(), west.agent());
    to_east.register(&east.shard("s1", 1)).await.unwrap();
    to_east.set(&east.datacenter, "releases/test/live", "release-1").await.unwrap();
    let (handle, watching) = watch(&east).await;
    says(&handle, "s1 ready").await;
    assert_eq!(handle.current().live_release().unwrap().as_str(), "release-1");

    // Services of both, keys of the own one alone.
    to_west.register(&west.shard("s2", 2)).await.unwrap();
    says(&handle, "s1 ready, s2 ready").await;
    to_east.set(&east.datacenter, "shard-states/test/s2", "drain").await.unwrap();
    to_east.set(&west.datacenter, "shard-states/test/s1", "drain").await.unwrap();
    says(&handle, "s1 ready, s2 drain").await;
    to_east.set(&east.datacenter, "releases/test/tenant/acme", "release-1").await.unwrap();
    within(SOON, "the pin", async || handle.current().tenant_pin("acme").is_some()).await;
    to_east.delete_key(&east.datacenter, "releases/test/tenant/acme", Cas::Any).await.unwrap();
    within(SOON, "no pin", async || handle.current().tenant_pin("acme").is_none()).await;
    to_east.set(&east.datacenter, "bans/test/room/evil", "ban").await.unwrap();
    within(SOON, "the ban", async || !handle.current().bans().is_empty()).await;
    // The last ban of a list is no accident of Consul's for long.
    to_east.delete_key(&east.datacenter, "bans/test/room/evil", Cas::Any).await.unwrap();
    within(SOON, "no ban", async || handle.current().bans().is_empty()).await;
    to_east.set(&east.datacenter, "releases/test/live", "release-2").await.unwrap();
    within(SOON, "the live release", async || {
        handle.current().live_release().unwrap().as_str() == "release-2"
    })
    .await;

    // A standalone shard of the other datacenter, and the servers of a pool, which are the own one's alone.
    let mut standalone = west.shard("s9", 9);
    standalone.name = "all".to_owned();
    standalone.tags = vec!["test".to_owned(), "standalone-s9".to_owned()];
    standalone.meta.remove("release_number");
    to_west.register(&standalone).await.unwrap();
    within(SOON, "the standalone shard", async || {
        handle.current().shard("s9").is_some_and(|shard| shard.release.as_str() == "standalone-s9")
    })
    .await;
    to_west.deregister(&standalone.id).await.unwrap();
    within(Duration::from_secs(15), "the standalone shard is gone", async || {
        shards(&handle) == "s1 ready, s2 drain"
    })
    .await;
    let mut server = east.shard("jigasi", 7);
    server.name = "jigasi".to_owned();
    to_east.register(&server).await.unwrap();
    // A port that is none, which Consul takes, is no reason to read no list.
    let odd = format!("{}/v1/catalog/register", east.url());
    let record = r#"{"Node":"odd","Address":"127.61.9.9","Service":{"ID":"odd","Service":"signal","Tags":["test"],"Port":70000}}"#;
    assert!(
        Command::new("curl")
            .args(["-fsS", "-o", "/dev/null", "-X", "PUT", "-d", record, &odd])
            .status()
            .unwrap()
            .success()
    );
    within(SOON, "one record is left out", async || handle.status().invalid == 1).await;
    let servers = async || handle.current().servers_of("jigasi").len();
    within(SOON, "the server", async || servers().await == 1).await;
    assert_eq!(handle.current().servers_of("jigasi")[0].name.as_str(), "jigasi-127.61.9.7-5280");
    to_east.deregister(&server.id).await.unwrap();

    // What shards report of themselves.
    let report = r#"{"healthy":true,"room_census":[{"room_name":"a@conference.meet","participants":3,"created_time":1700000000}]}"#;
    to_east.set(&west.datacenter, "signal-report/test/s2", report).await.unwrap();
    to_east.set(&west.datacenter, "signal-report/test/s3", "nonsense").await.unwrap();
    let reports = to_east.reports(&west.datacenter, "test").await.unwrap();
    let census: Vec<_> =
        reports.censuses.iter().map(|(shard, census)| (shard.as_str(), census.rooms.len())).collect();
    assert_eq!((census, reports.invalid.len()), (vec![("s2", 1)], 1));
    assert!(to_east.reports(&east.datacenter, "test").await.unwrap().censuses.is_empty());

    // One unreachable datacenter does not hold up the other, and loses nothing.
    west.kill();
    to_east.register(&east.shard("s3", 3)).await.unwrap();
    says(&handle, "s1 ready, s2 drain, s3 ready").await;
    let parts = async || handle.status().parts;
    within(Duration::from_secs(30), "the loss is told", async || {
        parts().await.iter().any(|part| part.name == "shards of test-west" && part.error.is_some())
    })
    .await;
    assert!(parts().await.iter().all(|part| part.error.is_none() || part.name.ends_with("test-west")));
    assert_eq!(shards(&handle), "s1 ready, s2 drain, s3 ready");

    // The agent is gone, and comes back with what it had.
    east.kill();
    within(Duration::from_secs(5), "the loss is told", async || handle.status().last_error.is_some()).await;
    assert_eq!(shards(&handle), "s1 ready, s2 drain, s3 ready");
    east.start_again();
    east.ready().await;
    to_east.set(&east.datacenter, "shard-states/test/s3", "maint").await.unwrap();
    within(Duration::from_secs(2), "caught up", async || shards(&handle) == "s1 ready, s2 drain, s3 maint")
        .await;
    watching.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn servers_that_have_lost_everything_take_nothing_away() {
    let mut east = Server::start("test-east", "127.61.2.1", "ports { dns = -1 }");
    east.ready().await;
    let agent = east.agent();
    for (name, id) in [("s1", 1), ("s2", 2), ("s3", 3)] {
        agent.register(&east.shard(name, id)).await.unwrap();
    }
    agent.set(&east.datacenter, "releases/test/live", "release-1").await.unwrap();
    let folder = tempfile::tempdir().unwrap();
    let state_file = Some(folder.path().join("state.json"));
    let (handle, watching) = watch_consul(config(&east, east.config(), state_file.clone())).await.unwrap();
    let all = "s1 ready, s2 ready, s3 ready";
    says(&handle, all).await;
    // Enough writes that the new index will be below.
    for number in 0..50 {
        agent.set(&east.datacenter, "releases/test/tenant/acme", &format!("release-{number}")).await.unwrap();
    }
    east.kill();
    east.start_empty();
    east.ready().await;
    // Whoever knows it writes it again, with a shard more. Until it is whole, what was known stays.
    let fewest = Fewest::follow(&handle);
    for (name, id) in [("s1", 1), ("s2", 2), ("s3", 3), ("s4", 4)] {
        // No condition to wait for: time in which the watch sees a part of it, and nothing may happen.
        tokio::time::sleep(Duration::from_millis(300)).await;
        assert!(shards(&handle).starts_with(all), "{}", shards(&handle));
        agent.register(&east.shard(name, id)).await.unwrap();
    }
    agent.set(&east.datacenter, "releases/test/live", "release-9").await.unwrap();
    agent.set(&east.datacenter, "releases/test/tenant/acme", "release-9").await.unwrap();
    within(Duration::from_secs(15), "all four", async || {
        shards(&handle) == "s1 ready, s2 ready, s3 ready, s4 ready"
    })
    .await;
    // Ten at the worst: that long a fresh server may hold a query that names an index of the old one.
    within(Duration::from_secs(15), "the release", async || {
        handle.current().live_release().unwrap().as_str() == "release-9"
    })
    .await;
    assert!(fewest.end() >= 3, "some were gone for a moment");

    // All taken out while the servers count on: believed after ten seconds, and not before.
    for name in ["s1", "s2", "s3", "s4"] {
        agent.deregister(&format!("test-{name}")).await.unwrap();
    }
    let took = within(Duration::from_secs(20), "believed at last", async || shards(&handle).is_empty()).await;
    assert!(took >= Duration::from_secs(9), "{took:?}");
    watching.stop().await;

    // Consul is down, and the disk has what was known last.
    agent.register(&east.shard("s5", 5)).await.unwrap();
    let (handle, watching) = watch_consul(config(&east, east.config(), state_file.clone())).await.unwrap();
    says(&handle, "s5 ready").await;
    watching.stop().await;
    east.kill();
    let start_within = Duration::from_millis(500);
    let cold = ConsulConfig { start_within, ..config(&east, east.config(), state_file) };
    let (handle, watching) = watch_consul(cold).await.unwrap();
    assert_eq!(shards(&handle), "s5 ready");
    assert_eq!(handle.current().shards()[0].state, ShardState::Ready);
    assert!(handle.status().parts.iter().all(|part| part.last_good.is_none()));
    assert!(matches!(handle.status().origin, Origin::Disk { .. }));
    watching.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_that_may_not_is_told_so() {
    let acl = "ports { dns = -1 }\nacl { enabled = true\n default_policy = \"deny\"\n tokens { master = \"root-token\"\n agent = \"root-token\" } }";
    let east = Server::start("test-east", "127.61.3.1", acl);
    let with = |token: &str| AgentConfig { token: Token::parse(token), ..east.config() };
    let root = shardgate_discovery::consul::Agent::new(with("root-token")).unwrap();
    east.ready_as(&root).await;
    root.register(&east.shard("s1", 1)).await.unwrap();
    let (handle, watching) = watch_consul(config(&east, with("root-token"), None)).await.unwrap();
    says(&handle, "s1 ready").await;
    watching.stop().await;
    for (agent, hint) in
        [(with("weak-token"), "the token lacks a right"), (east.config(), "no token is configured")]
    {
        let start_within = Duration::from_millis(500);
        let (handle, watching) =
            watch_consul(ConsulConfig { start_within, ..config(&east, agent, None) }).await.unwrap();
        within(SOON, "an error", async || handle.status().last_error.is_some()).await;
        let error = handle.status().last_error.unwrap();
        assert!(error.contains("403") && error.contains(hint), "{error}");
        assert!(!error.contains("weak-token"), "{error}");
        watching.stop().await;
    }
}
