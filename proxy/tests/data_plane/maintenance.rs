//! No shard is left: what people are shown, and what programs are told.

use crate::harness::{Node, Upstream, config, eventually, limits, shard, snapshot};
use bytes::Bytes;
use shardgate_discovery::ShardState;
use shardgate_peering::Mesh;
use shardgate_peering::core::{Config, PeerId};
use shardgate_proxy::Pages;
use shardgate_proxy::worker::WorkersConfig;

#[tokio::test(flavor = "multi_thread")]
async fn people_get_a_page_and_programs_an_error() {
    let upstream = Upstream::start("s1").await;
    let mut pages = Pages::default();
    pages.set_maintenance(Some(Bytes::from_static(b"<h1>back soon</h1>")), 90);
    let mesh = Mesh::alone(Config::new(PeerId::parse("me").unwrap(), 1)).unwrap();
    let mut away = shard("s1", upstream.address);
    away.state = ShardState::Maint;
    let mut node = Node::start_on(mesh, &[away], WorkersConfig { pages, ..config(limits()) });
    for target in ["/", "/foo", "/acme/foo"] {
        let answer = node.get(target).await;
        assert_eq!((answer.status, answer.text()), (503, "<h1>back soon</h1>"), "{target}");
        assert_eq!(answer.header("retry-after"), ["90"], "{target}");
        assert_eq!(answer.header("cache-control"), ["no-cache"], "{target}");
    }
    let upgrade = "Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n\
                   Sec-WebSocket-Key: x3JJHMbDL1EzLkh9GBhXDw==\r\n";
    for (method, target, headers) in [
        ("POST", "/http-bind?room=foo", ""),
        ("GET", "/acme/http-bind?room=foo", ""),
        ("GET", "/xmpp-websocket?room=foo", upgrade),
        ("GET", "/chat", upgrade),
        ("POST", "/conference-request/v1", ""),
        ("GET", "/_unlock?room=foo", ""),
        ("GET", "/foo?room=other", ""),
        ("PUT", "/foo", ""),
    ] {
        let mut client = node.client().await;
        client
            .send(&format!("{method} {target} HTTP/1.1\r\nHost: meet\r\nContent-Length: 0\r\n{headers}\r\n"))
            .await;
        let answer = client.answer().await;
        assert_eq!((answer.status, answer.header("retry-after")), (503, vec!["90"]), "{method} {target}");
        assert!(answer.text().contains("503 Service Unavailable"), "{method} {target}: {}", answer.text());
    }
    let mut client = node.client().await;
    client.send("HEAD /foo HTTP/1.1\r\nHost: meet\r\n\r\n").await;
    let answer = client.head().await;
    assert_eq!((answer.status, answer.header("content-length")), (503, vec!["18"]));
    // It is back.
    node.discovery.publish(snapshot(&[shard("s1", upstream.address)]));
    eventually("the shard serves", async || node.get("/foo").await.status == 200).await;
    node.stop().await;
}
