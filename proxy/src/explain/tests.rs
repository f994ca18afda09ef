use super::*;
use crate::routing_key::Compat;
use http::Request;
use shardgate_discovery::file::parse_text;

const DISCOVERY: &str = r#"
    live_release = "live"
    [[shards]]
    name = "l1"
    id = 1
    region = "here"
    release = "live"
    address = "127.0.0.1:1"
    [[shards]]
    name = "l2"
    id = 2
    region = "here"
    release = "live"
    address = "127.0.0.1:2"
    state = "drain"
    [[shards]]
    name = "far"
    id = 3
    region = "there"
    release = "live"
    address = "127.0.0.1:3"
    [[shards]]
    name = "old"
    id = 4
    region = "there"
    release = "old"
    address = "127.0.0.1:4"
    weight = 0
    [bans]
    exact = ["bannedroom"]
    unban_prefix = [{ pattern = "vip", verdict = "allow" }]
"#;

fn site(compat: Compat) -> Site {
    Site {
        routing: Routing { compat, ..Routing::default() },
        region: RegionName::parse("here").unwrap(),
        balance_percent: 150,
        snapshot: Arc::new(parse_text(DISCOVERY).unwrap()),
    }
}

fn explain(target: &str, entry: Option<&str>) -> Explanation {
    let (head, ()) = Request::get(target).body(()).unwrap().into_parts();
    let entry = entry.map(|name| ShardName::parse(name).unwrap());
    site(Compat::None).explain(&head, entry.as_ref())
}

#[test]
fn one_line() {
    for (target, entry, line) in [
        ("/Foo", None, "l1 (live) [room-from-path live-release token-hash]"),
        (
            "/http-bind?room=foo",
            None,
            "l1 (live), stored as foo [not-a-room room-parameter signaling-path live-release first-join bounded-load token-hash]",
        ),
        ("/foo", Some("l2"), "l2 (entry) [room-from-path entry]"),
        (
            "/http-bind?room=foo",
            Some("gone"),
            "l1 (live), moves foo from gone [not-a-room room-parameter signaling-path entry-unusable live-release move bounded-load token-hash]",
        ),
        ("/", Some("l2"), "l1 (live), by turns [live-release no-token]"),
        (
            "/bannedroom",
            None,
            "302 to /: room or tenant is banned, and a page is answered with a redirect [room-from-path ban-room-exact ban-redirect]",
        ),
        (
            "/vip/bannedroom",
            None,
            "l1 (live) [tenant-from-path room-from-path unban-tenant live-release token-hash]",
        ),
    ] {
        let explanation = explain(target, entry);
        assert_eq!(explanation.line(), line);
        assert_eq!(explanation.is_routed(), !line.starts_with(|first: char| first.is_ascii_digit()));
    }
}

#[test]
fn for_people() {
    assert_eq!(
        explain("/acme/xmpp-websocket?room=Foo", None).to_string(),
        "\
GET /acme/xmpp-websocket?room=Foo

the routing key
  tenant-from-path  path /acme/xmpp-websocket  tenant acme
  not-a-room        path /acme/xmpp-websocket  no room in the path
  room-parameter    query room=Foo             room foo
  signaling-path    path /acme/xmpp-websocket  signaling: a room makes an entry

the decision
  live-release      live_release               release live
  first-join        token acme/foo             makes an entry under acme/foo
  bounded-load      conferences of each shard  as if no shard were full
  token-hash        token acme/foo             shard l1

key        acme/foo (signaling; an entry is followed, or made)
bans       none says anything
candidates  shard  release  region  level            state, weight
          * l1     live     here    1 release here   ready 256
            l2     live     here    1 release here   drain 256
            far    live     there   2 elsewhere      ready 256
            old    old      there   4 other release  ready 0
decision   l1 (live), stored as acme/foo
"
    );
}

#[test]
fn a_terminal_of_a_hundred_columns_is_enough() {
    let long = "x".repeat(500);
    for target in [format!("/{long}/{long}"), format!("/http-bind?room={long}"), format!("/{long}_l1")] {
        let text = explain(&target, Some("l2")).to_string();
        let widest = text.lines().map(|line| line.chars().count()).max();
        assert!(widest <= Some(100), "{widest:?}\n{text}");
    }
}

#[test]
fn for_scripts() {
    let json = serde_json::to_value(explain("/acme/http-bind?room=Foo&release=old", None)).unwrap();
    assert_eq!(json["key"]["token"], "acme/foo");
    assert_eq!(json["key"]["tenant"], "acme");
    assert_eq!(json["key"]["kind"], "signaling");
    assert_eq!(json["key"]["table"], "reads-and-stores");
    assert_eq!(json["key"]["release_override"], "old");
    assert_eq!(json["decision"]["outcome"], "routed");
    assert_eq!(json["decision"]["stored_under"], "acme/foo");
    // Nothing of the release takes new conferences, and the first elsewhere stands in.
    assert_eq!((&json["decision"]["why"], &json["decision"]["shard"]), (&"fallback".into(), &"l1".into()));
    assert_eq!(json["candidates"][0]["takes_new"], false);
    let refused = serde_json::to_value(explain("/http-bind?room=bannedroom", None)).unwrap();
    assert_eq!(refused["decision"]["outcome"], "answered");
    assert_eq!(refused["decision"]["status"], 403);
    assert_eq!(refused["ban"]["rule"], "ban-room-exact");
    assert_eq!(explain("/foo_l1", None).line(), "l1 (named) [room-from-path named-shard-suffix]");
}

#[test]
fn compat_is_explained_as_it_routes() {
    let request = Request::get("/http-bind").header("x-room", "a,foo").header("x-group", "acme/");
    let (head, ()) = request.body(()).unwrap().into_parts();
    let line = site(Compat::Haproxy).explain(&head, None).line();
    assert_eq!(line, "l1 (live) [not-a-room client-headers signaling-path live-release first-join bounded-load token-hash]".replace("l1 (live)", "l1 (live), stored as acme/foo"));
}

#[test]
fn every_rule_has_words() {
    for (rule, case) in crate::rule::tests::cases() {
        let explanation = case.explained();
        let step = explanation.steps.iter().find(|step| step.rule == rule.name());
        // These say what only a running node or its listener can know.
        if matches!(rule, Rule::HttpsRedirect | Rule::OnlySuspects | Rule::OnlyByPeers | Rule::TriedInVain) {
            continue;
        }
        let step = step.unwrap_or_else(|| panic!("{rule}: {}", explanation.line()));
        assert!(!step.says.is_empty() && !step.looked_at.is_empty(), "{rule}: {step:?}");
        assert!(!step.looked_at.ends_with(' ') && !step.says.ends_with(' '), "{rule}: {step:?}");
    }
}
