//! Three servers, and an agent that is none: a leader that dies, and all of them gone.

use std::time::{Duration, Instant};

use shardgate_discovery::consul::watch_consul;

use crate::cluster::{Keys as _, Role, Server, within};
use crate::discovery::{Fewest, config, shards};
use crate::nodes::ask;

const CAUGHT_UP: Duration = Duration::from_secs(2);
const ALL: &str = "s1 ready, s2 ready, s3 ready";

/// Which of the servers leads, as another one has it.
fn leader(asked: &Server, servers: &[Server]) -> Option<usize> {
    let answer = ask(asked.http(), "/v1/status/leader");
    servers.iter().position(|server| answer.contains(&format!("\"{}:8300\"", server.ip)))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_leader_that_dies_takes_no_shard_with_it() {
    let join = "retry_join = [\"127.61.31.1\", \"127.61.31.2\", \"127.61.31.3\"]\nretry_interval = \"1s\"\nports { dns = -1 }";
    let start = |role, last: u8| Server::start_as(role, "test-east", &format!("127.61.31.{last}"), join);
    let mut servers = [1, 2, 3].map(|last| start(Role::OfThree, last));
    let client = start(Role::Client, 4);
    client.ready().await;
    let agent = client.agent();
    for (name, id) in [("s1", 1), ("s2", 2), ("s3", 3)] {
        agent.register(&client.shard(name, id)).await.unwrap();
    }
    let mut leads = None;
    within(Duration::from_secs(10), "a leader is known", async || {
        leads = leader(&client, &servers);
        leads.is_some()
    })
    .await;
    let first = leads.unwrap();
    // By the agent that is no server, and by a server that does not lead.
    let follower = &servers[(first + 1) % 3];
    let (by_client, watching) = watch_consul(config(&client, client.config(), None)).await.unwrap();
    let (by_follower, watching_too) = watch_consul(config(&client, follower.config(), None)).await.unwrap();
    let handles = [by_client, by_follower];
    let everywhere = async |within_time: Duration, what: &str, tenant: &str| {
        let began = Instant::now();
        for handle in &handles {
            within(within_time, what, async || handle.current().tenant_pin(tenant).is_some()).await;
        }
        began.elapsed()
    };
    for handle in &handles {
        within(CAUGHT_UP, "all three", async || shards(handle) == ALL).await;
    }
    let fewest = [0, 1].map(|number: usize| Fewest::follow(&handles[number]));
    // Waits until a key is taken, and says how long that took.
    let written = async |key: &str| {
        within(Duration::from_secs(30), "a key is taken", async || {
            agent.set(&client.datacenter, key, "release-1").await.is_ok()
        })
        .await
    };

    servers[first].kill();
    let election = written("releases/test/tenant/one").await;
    let took = everywhere(CAUGHT_UP, "a change after the election", "one").await;
    println!("leader killed: a key is taken after {election:?}, and known {took:?} later");
    written("releases/test/tenant/two").await;
    let took = everywhere(CAUGHT_UP, "the next one", "two").await;
    println!("leader killed: the next one is known after {took:?}");

    servers[first].start_again();
    within(Duration::from_secs(20), "it is back", async || leader(&servers[first], &servers).is_some()).await;
    for server in &mut servers {
        server.kill();
    }
    within(Duration::from_secs(30), "both tell it", async || {
        handles.iter().all(|handle| handle.status().last_error.is_some())
    })
    .await;
    println!("no server: {}", handles[0].status().last_error.unwrap_or_default());
    // No condition to wait for: time in which nothing may be lost.
    tokio::time::sleep(Duration::from_secs(3)).await;
    for server in &mut servers {
        server.start_again();
    }
    let election = written("releases/test/tenant/three").await;
    let took = everywhere(CAUGHT_UP, "a change after all servers are back", "three").await;
    println!("all servers gone and back: a key is taken after {election:?}, and known {took:?} later");
    for handle in &handles {
        assert_eq!(shards(handle), ALL);
    }
    assert_eq!(fewest.map(Fewest::end), [3, 3], "shards were lost");
    watching.stop().await;
    watching_too.stop().await;
}
