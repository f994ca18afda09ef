//! What an agent may answer instead of what there is: shards stay, the status tells, nobody spins, and all is well once it is over.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use shardgate_discovery::DiscoveryHandle;
use shardgate_discovery::consul::{Agent, AgentAddress, AgentConfig, ConsulWatch, watch_consul};

use crate::cluster::{Keys as _, Server, within};
use crate::discovery::{Fewest, config, shards};
use crate::relay::{Fault, Relay};

/// How long a fault lasts, most often.
const LASTS: Duration = Duration::from_secs(5);
/// Until a change has to be there once an agent is back.
const CAUGHT_UP: Duration = Duration::from_secs(2);
const ALL: &str = "s1 ready, s2 ready, s3 ready, s4 ready";
const SIGNAL: &str = "/v1/catalog/service/signal";
const RELEASES: &str = "/v1/kv/releases/";

/// What happens, to whom, and what is said of it.
struct Case {
    name: &'static str,
    fault: Fault,
    path: &'static str,
    lasts: Duration,
    /// A part of the status' error; `None`: it is not one, the leader's word makes up for it.
    told: Option<&'static str>,
    /// What becomes of changes meanwhile.
    meanwhile: Meanwhile,
    /// Within which time a change has to be there after it.
    caught_up: Duration,
}

/// Whether changes arrive while a fault lasts.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Meanwhile {
    /// By the leader, as soon as ever.
    Followed,
    /// Not before it is over.
    Missed,
}

impl Case {
    /// A fault that the status tells.
    const fn told(name: &'static str, fault: Fault, path: &'static str, told: &'static str) -> Self {
        let meanwhile = Meanwhile::Missed;
        Self { name, fault, path, lasts: LASTS, told: Some(told), meanwhile, caught_up: CAUGHT_UP }
    }

    /// One that the leader's word makes up for.
    const fn made_up_for(name: &'static str, fault: Fault, path: &'static str) -> Self {
        let meanwhile = Meanwhile::Followed;
        Self { name, fault, path, lasts: LASTS, told: None, meanwhile, caught_up: CAUGHT_UP }
    }
}

/// How often the list was asked for that was asked for most, none of them too often.
fn most_asked(relay: &Relay, before: &BTreeMap<String, u64>, lasted: Duration) -> u64 {
    let most = (lasted.as_secs_f64() * 4.0) as u64;
    let mut busiest = 0;
    for (path, count) in relay.counts() {
        let asked = count - before.get(&path).unwrap_or(&0);
        // The question for rights is one of every list that is empty, and most are here.
        if path == "/v1/internal/acl/authorize" {
            assert!(asked <= most * 6, "{asked} requests of {path} in {lasted:?}");
        } else {
            assert!(asked <= most, "{asked} requests of {path} in {lasted:?}");
            busiest = busiest.max(asked);
        }
    }
    busiest
}

fn agent_at(address: impl std::fmt::Display) -> AgentConfig {
    let address = AgentAddress::parse(&address.to_string()).unwrap();
    AgentConfig { address, ..AgentConfig::default() }
}

fn pinned(handle: &DiscoveryHandle, tenant: &str) -> bool {
    handle.current().tenant_pin(tenant).is_some()
}

async fn pin(agent: &Agent, server: &Server, tenant: &str) {
    agent.set(&server.datacenter, &format!("releases/test/tenant/{tenant}"), "release-1").await.unwrap();
}

/// A server with four shards.
async fn with_four(ip: &str) -> (Server, Agent) {
    let server = Server::start("test-east", ip, "ports { dns = -1 }");
    server.ready().await;
    let agent = server.agent();
    for (name, id) in [("s1", 1), ("s2", 2), ("s3", 3), ("s4", 4)] {
        agent.register(&server.shard(name, id)).await.unwrap();
    }
    (server, agent)
}

async fn watch_through(server: &Server, agent: AgentConfig) -> (DiscoveryHandle, ConsulWatch) {
    let (handle, watching) = watch_consul(config(server, agent, None)).await.unwrap();
    within(CAUGHT_UP, "all four", async || shards(&handle) == ALL).await;
    (handle, watching)
}

async fn endure(case: Case, server: &Server, agent: &Agent) {
    let Case { name, fault, path, lasts, told, meanwhile, caught_up } = case;
    let relay = Relay::start("127.61.32.9", server.http()).await;
    let (handle, watching) = watch_through(server, agent_at(relay.address)).await;
    let fewest = Fewest::follow(&handle);
    let before = relay.counts();
    relay.switch(fault, path);
    let began = Instant::now();
    if let Some(told) = told {
        within(lasts, &format!("{name}: {told:?} is told"), async || {
            handle.status().last_error.is_some_and(|error| error.contains(told))
        })
        .await;
    }
    if meanwhile == Meanwhile::Followed {
        let tenant = format!("{name}-meanwhile");
        pin(agent, server, &tenant).await;
        within(CAUGHT_UP, &format!("{tenant}: a change"), async || pinned(&handle, &tenant)).await;
    }
    // No condition to wait for: time in which nothing may be lost.
    tokio::time::sleep(lasts.saturating_sub(began.elapsed())).await;
    let lasted = began.elapsed();
    let most = most_asked(&relay, &before, lasted);
    relay.switch(Fault::None, "");
    pin(agent, server, name).await;
    let took = within(caught_up, &format!("{name}: a change after it"), async || pinned(&handle, name)).await;
    within(Duration::from_secs(3), &format!("{name}: the error is over"), async || {
        handle.status().last_error.is_none()
    })
    .await;
    println!("{name}: {lasted:?}, at most {most} requests of a list; a change after it took {took:?}");
    assert_eq!(fewest.end(), 4, "{name}: shards were lost");
    watching.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn whatever_an_agent_answers_no_shard_is_lost() {
    let (server, agent) = with_four("127.61.32.1").await;
    let silence = Case::told("silence", Fault::Silence, "", "operation timed out");
    let named = Case::told("too-many-for", Fault::TooManyFor(4), "", "429 slowly");
    let endless = Case::told("endless", Fault::Endless, RELEASES, "longer than 67108864 bytes");
    let cases = [
        Case::told("error", Fault::Error, "", "500 No cluster leader"),
        Case::told("too-many", Fault::TooMany, "", "429 slowly"),
        // It is taken at its word, and a pause of one's own comes on top.
        Case { caught_up: Duration::from_secs(5), ..named },
        // Nobody can tell it from a query that is held before that time is over.
        Case { lasts: Duration::from_secs(24), ..silence },
        Case::told("garbage", Fault::Garbage, "", "invalid HTTP"),
        Case::told("cut", Fault::Cut, "", "body"),
        Case::made_up_for("empty", Fault::EmptyIfStale, SIGNAL),
        Case::made_up_for("empty-keys", Fault::EmptyIfStale, RELEASES),
        // An index that stays the same says that nothing happened.
        Case { meanwhile: Meanwhile::Missed, ..Case::made_up_for("index", Fault::IndexGoesBack, "") },
        Case::made_up_for("behind", Fault::FarBehind, ""),
        Case::made_up_for("no-leader", Fault::NoLeader, ""),
        // Enough to read 64 MiB a few times.
        Case { lasts: Duration::from_secs(2), ..endless },
    ];
    // In groups: all at once would measure the machine.
    let mut cases = cases.into_iter().peekable();
    while cases.peek().is_some() {
        let next = [(); 4].map(|()| cases.next());
        let [a, b, c, d] = next.map(|case| async {
            if let Some(case) = case {
                endure(case, &server, &agent).await;
            }
        });
        tokio::join!(a, b, c, d);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_agent_that_takes_too_few_connections_is_told_by_its_limit() {
    let (mut server, _) = with_four("127.61.33.1").await;
    // The limit is one of each client's address: the watch's, the relay's, and the operator's.
    let from = |ip: &str| AgentConfig { source: ip.parse().ok(), ..server.config() };
    let (direct, operator) = (from("127.61.33.8"), from("127.61.33.7"));
    let agent = Agent::new(operator).unwrap();
    let relay = Relay::start("127.61.33.9", server.http()).await;
    let (handle, watching) = watch_through(&server, direct).await;
    let (behind, watching_behind) = watch_through(&server, agent_at(relay.address)).await;
    let fewest = [Fewest::follow(&handle), Fewest::follow(&behind)];
    server.kill();
    server.start_again_with("ports { dns = -1 }\nlimits { http_max_conns_per_client = 5 }");
    server.ready_as(&agent).await;
    let before = relay.counts();
    let began = Instant::now();
    let named = "limits.http_max_conns_per_client";
    for handle in [&handle, &behind] {
        within(LASTS, "the limit is told", async || {
            handle.status().last_error.is_some_and(|error| error.contains(named))
        })
        .await;
    }
    println!("beyond the limit: {}", handle.status().last_error.unwrap_or_default());
    // No condition to wait for: time in which nothing may be lost.
    tokio::time::sleep(LASTS.saturating_sub(began.elapsed())).await;
    let lasted = began.elapsed();
    let most = most_asked(&relay, &before, lasted);
    println!("beyond the limit: at most {most} requests of a list in {lasted:?}");
    let refused =
        |handle: &DiscoveryHandle| handle.status().parts.iter().filter(|part| part.error.is_some()).count();
    assert!(refused(&handle) > 0 && refused(&behind) > 0, "a limit that is none");

    server.kill();
    server.start_again_with("ports { dns = -1 }");
    server.ready_as(&agent).await;
    pin(&agent, &server, "acme").await;
    let began = Instant::now();
    for handle in [&handle, &behind] {
        within(CAUGHT_UP, "a change after it", async || pinned(handle, "acme")).await;
    }
    println!("beyond the limit: a change after it took {:?}", began.elapsed());
    for handle in [&handle, &behind] {
        within(CAUGHT_UP, "every list is back", async || refused(handle) == 0).await;
    }
    assert_eq!(fewest.map(Fewest::end), [4, 4], "shards were lost");
    watching.stop().await;
    watching_behind.stop().await;
}
