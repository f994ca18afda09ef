//! TLS in both directions and unix sockets: how else an agent is reached.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use shardgate_discovery::DiscoveryHandle;
use shardgate_discovery::consul::{Agent, AgentAddress, AgentConfig, AgentTls, ConsulConfig, watch_consul};
use shardgate_tests::certificates::Authority;

use crate::cluster::{Keys as _, Server, within};
use crate::discovery::{config, shards};
use crate::nodes::{Node, routed, shard};

const SOON: Duration = Duration::from_secs(1);

/// Writes a certificate and its key, for both sides.
fn issue(authority: &Authority, folder: &Path, file: &str, name: &str) -> (PathBuf, PathBuf) {
    let issued = authority.issue_for_both_sides(name, 1).unwrap();
    let (cert, key) = (folder.join(format!("{file}.pem")), folder.join(format!("{file}.key")));
    fs::write(&cert, issued.cert).unwrap();
    fs::write(&key, issued.key).unwrap();
    (cert, key)
}

fn write_authority(authority: &Authority, folder: &Path, file: &str) -> PathBuf {
    let path = folder.join(file);
    fs::write(&path, authority.pem()).unwrap();
    path
}

/// A shard more arrives, and goes.
async fn changes_arrive(handle: &DiscoveryHandle, agent: &Agent, server: &Server) {
    within(SOON, "one shard", async || shards(handle) == "s1 ready").await;
    agent.register(&server.shard("s2", 2)).await.unwrap();
    within(SOON, "two shards", async || shards(handle) == "s1 ready, s2 ready").await;
    agent.deregister("test-s2").await.unwrap();
    within(SOON, "one shard again", async || shards(handle) == "s1 ready").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn tls_is_spoken_and_what_is_wrong_with_it_is_told() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    let (authority, foreign) = (Authority::new().unwrap(), Authority::new().unwrap());
    let ca = write_authority(&authority, folder, "ca.pem");
    let foreign_ca = write_authority(&foreign, folder, "foreign-ca.pem");
    let (cert, key) = issue(&authority, folder, "agent", "127.61.30.1");
    let client = issue(&authority, folder, "client", "node-1");
    let foreign_client = issue(&foreign, folder, "foreign-client", "node-1");
    let more = format!(
        "ports {{ dns = -1\n http = -1\n https = 8501 }}\nverify_incoming = true\n\
         ca_file = \"{}\"\ncert_file = \"{}\"\nkey_file = \"{}\"",
        ca.display(),
        cert.display(),
        key.display()
    );
    let east = Server::start("test-east", "127.61.30.1", &more);
    let with = |ca: &PathBuf, client: Option<&(PathBuf, PathBuf)>| AgentConfig {
        address: AgentAddress::parse("https://127.61.30.1:8501").unwrap(),
        tls: AgentTls { ca: Some(ca.clone()), client: client.cloned() },
        ..AgentConfig::default()
    };
    let good = with(&ca, Some(&client));
    let agent = Agent::new(good.clone()).unwrap();
    east.ready_as(&agent).await;
    agent.register(&east.shard("s1", 1)).await.unwrap();
    let (handle, watching) = watch_consul(config(&east, good, None)).await.unwrap();
    changes_arrive(&handle, &agent, &east).await;
    watching.stop().await;

    let no_tls = AgentConfig { address: AgentAddress::parse("127.61.30.1:8501").unwrap(), ..east.config() };
    for (what, wrong, hints) in [
        ("no client certificate", with(&ca, None), ["client certificate", "configured"]),
        ("a foreign client certificate", with(&ca, Some(&foreign_client)), ["refuses", "foreign-client.pem"]),
        ("a wrong CA", with(&foreign_ca, Some(&client)), ["not signed by a CA of", "foreign-ca.pem"]),
        ("no TLS", no_tls, ["HTTP request to an HTTPS server", "400"]),
    ] {
        let cold = ConsulConfig { start_within: Duration::from_millis(500), ..config(&east, wrong, None) };
        let (handle, watching) = watch_consul(cold).await.unwrap();
        let mut error = String::new();
        within(Duration::from_secs(5), what, async || {
            error = handle.status().last_error.unwrap_or_default();
            hints.iter().all(|hint| error.contains(hint))
        })
        .await;
        println!("{what}: {error}");
        watching.stop().await;
    }

    // And a node with the same files.
    agent.deregister("test-s1").await.unwrap();
    agent.register(&shard(&east, "one", 1, "1")).await.unwrap();
    agent.register(&shard(&east, "two", 2, "2")).await.unwrap();
    agent.set(&east.datacenter, "releases/test/live", "release-1").await.unwrap();
    let node = Node::start_with(
        "east",
        &format!(
            "address = \"https://127.61.30.1:8501\"\nca = \"{}\"\nclient_cert = \"{}\"\nclient_key = \"{}\"\n",
            ca.display(),
            client.0.display(),
            client.1.display()
        ),
    );
    within(SOON, "routed by the live release", async || routed(&node, "/http-bind?room=a") == "one").await;
    agent.set(&east.datacenter, "releases/test/tenant/acme", "release-2").await.unwrap();
    let mut number = 0;
    within(SOON, "routed by the pin", async || {
        number += 1;
        routed(&node, &format!("/acme/http-bind?room=b{number}")) == "two"
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_unix_socket_is_an_agent_as_well() {
    let folder = tempfile::tempdir().unwrap();
    let socket = folder.path().join("http.sock");
    let address = format!("unix://{}", socket.display());
    let more = format!("ports {{ dns = -1 }}\naddresses {{ http = \"{address}\" }}");
    let east = Server::start("test-east", "127.61.34.1", &more);
    let by_socket = AgentConfig { address: AgentAddress::parse(&address).unwrap(), ..AgentConfig::default() };
    let agent = Agent::new(by_socket.clone()).unwrap();
    east.ready_as(&agent).await;
    agent.register(&east.shard("s1", 1)).await.unwrap();
    let (handle, watching) = watch_consul(config(&east, by_socket, None)).await.unwrap();
    changes_arrive(&handle, &agent, &east).await;
    watching.stop().await;
}
