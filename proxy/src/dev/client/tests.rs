//! The clients directly against built-in shards, without any node between.

use std::net::Ipv4Addr;

use http::StatusCode;

use super::super::shard::{DevShard, ShardSpec};
use super::*;

const SOON: Duration = Duration::from_secs(5);
const SPEC: ShardSpec = ShardSpec { name: "s1", id: 1, region: "region-a", release: "release-1" };

async fn shard() -> DevShard {
    DevShard::start(SPEC, (Ipv4Addr::new(127, 84, 0, 1), 0).into()).await.unwrap()
}

fn door(shard: &DevShard) -> Door {
    Door { node: "a1".into(), address: shard.address(), spelling: Spelling::Same }
}

#[tokio::test]
async fn two_people_meet_talk_and_part() {
    let shard = shard().await;
    let ann = Person::join(door(&shard), "hello", "Ann");
    let bob = Person::join(door(&shard), "hello", "Bob");
    let seen = ann.until(SOON, |seen| seen.sees("Bob") && seen.sees("Ann")).await.unwrap();
    assert_eq!((seen.shard.as_str(), seen.hellos), ("s1", 1));
    bob.until(SOON, |seen| seen.connected).await.unwrap();
    bob.say("hi").await;
    ann.until(SOON, |seen| seen.heard == ["Bob: hi"]).await.unwrap();
    assert_eq!(shard.counts().map(|counts| counts.people), Some(2));
    drop(bob);
    ann.until(SOON, |seen| !seen.sees("Bob")).await.unwrap();
    assert_eq!(ann.seen().hellos, 1);
}

#[tokio::test]
async fn people_with_a_room_spelled_per_node_do_not_meet() {
    let shard = shard().await;
    let spelled = |node: &str| Door { node: node.into(), spelling: Spelling::PerNode, ..door(&shard) };
    let ann = Person::join(spelled("a1"), "hello", "Ann");
    let bob = Person::join(spelled("b1"), "hello", "Bob");
    bob.until(SOON, |seen| seen.connected).await.unwrap();
    ann.until(SOON, |seen| seen.connected).await.unwrap();
    assert_eq!(shard.counts().map(|counts| (counts.rooms, counts.people)), Some((2, 2)));
    assert_eq!(spelled("a1").target("_unlock", "acme/x", ""), "/acme/_unlock?room=x-a1");
}

#[tokio::test]
async fn a_killed_shard_drops_everybody_and_comes_back_empty() {
    let mut shard = shard().await;
    let ann = Person::join(door(&shard), "hello", "Ann");
    ann.until(SOON, |seen| seen.connected).await.unwrap();
    let address = shard.address();
    shard.kill().await;
    assert_eq!(shard.counts(), None);
    assert!(matches!(get(address, "/about/health", SOON).await, Err(GetError::Connect { .. })));
    ann.until(SOON, |seen| !seen.connected).await.unwrap();
    shard.restart().await.unwrap();
    assert_eq!(shard.address(), address);
    ann.until(SOON, |seen| seen.connected && seen.hellos == 2).await.unwrap();
}

#[tokio::test]
async fn services_answer_with_the_shards_headers() {
    let shard = shard().await;
    let answer = door(&shard).unlock("hello", SOON).await.unwrap();
    assert_eq!((answer.status, answer.header("x-jitsi-shard")), (StatusCode::OK, "s1"));
    assert_eq!(answer.header("x-jitsi-release"), "release-1");
    let page = get(shard.address(), "/acme/hello", SOON).await.unwrap();
    assert_eq!(page.status, StatusCode::OK);
    assert!(page.body.starts_with(b"<!doctype html>"));
    assert_eq!(get(shard.address(), "/about/health", SOON).await.unwrap().status, StatusCode::OK);
    assert_eq!(get(shard.address(), "/a/b/c", SOON).await.unwrap().status, StatusCode::NOT_FOUND);
    let refused = get(shard.address(), "/xmpp-websocket?room=x", SOON).await.unwrap();
    assert_eq!(refused.status, StatusCode::BAD_REQUEST);
}

#[tokio::test]
async fn a_frame_that_is_not_understood_is_refused_and_the_session_goes_on() {
    let shard = shard().await;
    let url = format!("ws://{}/xmpp-websocket?room=x&name=Raw", shard.address());
    let stream = TcpStream::connect(shard.address()).await.unwrap();
    let (mut socket, _) = tokio_tungstenite::client_async(url.as_str(), stream).await.unwrap();
    socket.send(Message::text(r#"{"type":"shout"}"#)).await.unwrap();
    let mut frames = Vec::new();
    while frames.len() < 2 {
        let frame = socket.next().await.unwrap().unwrap();
        frames.push(serde_json::from_str::<FromShard>(frame.to_text().unwrap()).unwrap());
    }
    assert!(matches!(&frames[1], FromShard::Refused { reason } if reason.contains("shout")), "{frames:?}");
    socket.send(Message::text(ToShard::Say { text: "still here".into() }.to_json())).await.unwrap();
    let next = socket.next().await.unwrap().unwrap();
    assert!(next.to_text().unwrap().contains("still here"));
}
