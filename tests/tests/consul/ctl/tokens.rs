//! What tokens may do, and how it is told when they may not.

use shardgate_discovery::consul::{Agent, AgentConfig, Token};

use super::{WROTE, http, run};
use crate::cluster::{Keys as _, Server};

#[tokio::test(flavor = "multi_thread")]
async fn a_token_that_may_not_write() {
    let acl = "ports { dns = -1 }\nacl { enabled = true\n default_policy = \"deny\"\n tokens { master = \"root-token\"\n agent = \"root-token\" } }";
    let server = Server::start("test-east", "127.61.20.3", acl);
    let root = AgentConfig { token: Token::parse("root-token"), ..server.config() };
    let root = Agent::new(root).unwrap();
    server.ready_as(&root).await;
    root.register(&server.shard("s1", 1)).await.unwrap();
    let reader = "6f1d3a52-5a1c-4f5b-9e0a-2f8f6a0b7c11";
    let rules = r#"{"Name":"reader","Rules":"key_prefix \"\" { policy = \"read\" } service_prefix \"\" { policy = \"read\" } node_prefix \"\" { policy = \"read\" }"}"#;
    let token = format!(r#"{{"SecretID":"{reader}","Policies":[{{"Name":"reader"}}]}}"#);
    for (path, body) in [("/v1/acl/policy", rules), ("/v1/acl/token", &token)] {
        let answer = http(&server.ip, "PUT", path, "root-token", body);
        assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    }
    let address = format!("{}:8500", server.ip);
    let with = |token: &str, command: &str| {
        let variables = [
            ("CONSUL_HTTP_ADDR", address.as_str()),
            ("SHARDGATE_ENVIRONMENT", "test"),
            ("CONSUL_HTTP_TOKEN", token),
        ];
        run(&variables, &command.split(' ').collect::<Vec<_>>())
    };
    let said = with(reader, "release live set release-1");
    assert_eq!(said.code, Some(1), "{said:?}");
    said.tells(&["written in 0 of 1 datacenters, not in test-east: ", "403", "lacks a right", "key:write"]);
    assert!(!format!("{said:?}").contains(reader), "{said:?}");
    // A dry run finds it out, too.
    let said = with(reader, "release live set release-1 --dry-run");
    assert_eq!(said.code, Some(1), "{said:?}");
    said.tells(&[
        "would be written in 0 of 1 datacenters, not in test-east: ",
        "may not be written",
        "key:write",
    ]);
    let listed = with(reader, "shard list");
    assert_eq!((listed.code, listed.out.lines().count()), (Some(0), 2), "{listed:?}");
    // Nobody's token reads nothing, which is not the same as that there is nothing.
    with("", "pin list").refuses(2, &["403", "no token is configured"]);
    // A file counts more than the variable.
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), "root-token\n").unwrap();
    let path = file.path().to_str().unwrap();
    assert_eq!(with(reader, &format!("--consul-token-file {path} release live set release-1")).code, Some(0));
    let live = with(reader, "release live get");
    live.is(0, &["DATACENTER RELEASE SHARDS", "test-east release-1 1 of 1 ready"]);
    with(reader, "--consul-token-file /nowhere pin list").refuses(2, &["--consul-token-file /nowhere: "]);
}

/// Tokens that may do one thing and no other: rules that the README names are enough, and what may be read in part is not read.
#[tokio::test(flavor = "multi_thread")]
async fn tokens_that_may_do_little() {
    let acl = "ports { dns = -1 }\nacl { enabled = true\n default_policy = \"deny\"\n tokens { master = \"root-token\"\n agent = \"root-token\" } }";
    let server = Server::start("test-east", "127.61.20.5", acl);
    let root = AgentConfig { token: Token::parse("root-token"), ..server.config() };
    let root = Agent::new(root).unwrap();
    server.ready_as(&root).await;
    root.register(&server.shard("s1", 1)).await.unwrap();
    for (key, value) in [
        ("releases/test/live", "release-1"),
        ("releases/test/tenant/acme", "release-1"),
        ("bans/test/room/evil", "ban"),
    ] {
        root.set(&server.datacenter, key, value).await.unwrap();
    }
    let shards = r#"service "signal" { policy = "read" } node_prefix "" { policy = "read" }"#;
    let token = |number: u8, name: &str, rules: &str| {
        let secret = format!("6f1d3a52-5a1c-4f5b-9e0a-2f8f6a0b7c{number}");
        let policy = serde_json::json!({"Name": name, "Rules": format!("{rules} {shards}")}).to_string();
        let token = serde_json::json!({"SecretID": secret, "Policies": [{"Name": name}]}).to_string();
        for (path, body) in [("/v1/acl/policy", policy), ("/v1/acl/token", token)] {
            let answer = http(&server.ip, "PUT", path, "root-token", &body);
            assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
        }
        secret
    };
    let address = format!("{}:8500", server.ip);
    let with = |token: &str, command: &str| {
        let variables = [
            ("CONSUL_HTTP_ADDR", address.as_str()),
            ("SHARDGATE_ENVIRONMENT", "test"),
            ("CONSUL_HTTP_TOKEN", token),
        ];
        run(&variables, &command.split(' ').collect::<Vec<_>>())
    };

    // Without a right to read shards with their bridge in one, which many sites have none of.
    let releases = token(20, "releases", r#"key_prefix "releases/test/" { policy = "write" }"#);
    let said = with(&releases, "pin set acme release-1");
    said.is(0, &["releases/test/tenant/acme", WROTE, "test-east release-1 release-1 as before"]);
    said.tells(&["note: whether a shard of release-1 is ready is not known", "shard-states/test/"]);
    assert_eq!(with(&releases, "release live set release-1 --dry-run").code, Some(0));
    with(&releases, "shard drain s1").refuses(2, &["403", "shard-states/test/"]);
    // Which of both families is refused first is open.
    with(&releases, "ban list").refuses(2, &["403", r#"key_prefix "ban"#]);

    let states = token(
        21,
        "states",
        r#"key_prefix "shard-states/test/" { policy = "write" } service "all" { policy = "read" }"#,
    );
    assert_eq!(with(&states, "shard drain s1").code, Some(0));
    with(&states, "shard list")
        .is(0, &["SHARD ID RELEASE REGION ADDRESS STATE", "s1 1 release-1 east 127.61.9.1:443 drain"]);

    let bans =
        r#"key_prefix "banlists/test/" { policy = "write" } key_prefix "bans/test/" { policy = "write" }"#;
    let bans = token(22, "bans", bans);
    assert_eq!(with(&bans, "ban add x").code, Some(0));
    with(&bans, "ban list")
        .is(0, &["LIST PATTERN VERDICT DATACENTERS", "exact x ban all", "room evil ban all"]);

    // Of the releases it may read one, and Consul lists that one as if it were all.
    let part =
        r#"key "releases/test/live" { policy = "read" } key_prefix "shard-states/test/" { policy = "read" }"#;
    let part = token(23, "part", part);
    with(&part, "pin list").refuses(2, &["403", "left out", "releases/test/"]);
    with(&part, "release live get").refuses(2, &["left out"]);
}
