use super::*;
use proptest::prelude::*;

fn parse(target: &str) -> RoutingKey<'_> {
    RoutingKey::parse(target, Some(b"meet.example.com"), &Routing::default()).unwrap()
}

#[test]
fn tokens() {
    for (target, token) in [
        ("/Foo", "foo"),
        ("/acme/Foo", "acme/foo"),
        ("/acme/", "acme//acme/"),
        ("/foo/", "foo//foo/"),
        ("/", ""),
        ("*", ""),
        ("/a/b/c/d", "a/d"),
        ("//acme/foo", "foo"),
        ("/img/x.png", "img/"),
        ("/static/x.js", ""),
        ("/acme/static/x", "acme/"),
        ("/other/deep/static/x.js", "other/x.js"),
        ("/other/configxjs", "other/"),
        ("/xwell-known/a", ""),
        ("/http-bind?room=Foo", "foo"),
        ("/acme/xmpp-websocket?room=Foo&x=1", "acme/foo"),
        ("/http-bind?room=foo;bar", "foo"),
        ("/http-bind?room=foo?x", "foo"),
        ("/http-bind?a=1?room=foo", "foo"),
        ("/http-bind?a=1;room=foo", ""),
        ("/http-bind?room=&room=foo", ""),
        ("/http-bind?room=acme/foo", "acme/foo"),
        ("/http-bind?Room=foo", ""),
        ("/foo?room=bar", "bar"),
        ("/foo&room=bar", ""),
        ("/foo%25c3", "foo%c3"),
        ("/foo%2525", "foo%25"),
        ("/foo,bar", "bar"),
        ("/x,acme/foo", "acme/foo"),
        ("/about/health?room=x", "x"),
    ] {
        assert_eq!(parse(target).token(), token, "{target}");
    }
}

#[test]
fn stores() {
    use Store::{MatchOnly, MatchOrStore, Nothing};
    for (target, store) in [
        ("/foo", MatchOnly),
        ("/", Nothing),
        ("/foo?stick=true", MatchOrStore),
        ("/?stick=true", Nothing),
        ("/foo?release=x", MatchOrStore),
        ("/foo?release=", MatchOnly),
        ("/http-bind?room=foo", MatchOrStore),
        ("/http-bind", Nothing),
        ("/acme/http-bind?room=", Nothing),
        ("/my-http-bind?room=foo", MatchOrStore),
        ("/robots.txt?room=foo", MatchOnly),
        ("/_unlock?room=foo", MatchOrStore),
        ("/http-bind?room=foo,", Nothing),
    ] {
        assert_eq!(parse(target).store(), store, "{target}");
    }
    let routing = Routing::default();
    let key = RoutingKey::parse("/foo", Some(b"Signal-API-x.example.com"), &routing).unwrap();
    assert_eq!(key.store(), MatchOrStore);
}

#[test]
fn tenants_overrides_and_shards() {
    assert_eq!(parse("/Acme/foo").tenant(), Some("acme"));
    assert_eq!(parse("/foo").tenant(), None);
    assert_eq!(parse("/a%25b/foo").tenant(), Some("a%25b"));
    assert_eq!(parse("/foo?release=Release-1").release_override(), Some("release-1"));
    assert_eq!(parse("/foo?release=&release=x").release_override(), Some(""));
    assert_eq!(parse("/foo?release=").release_override(), None);
    assert_eq!(parse("/prod-s1/about").first_segment(), Some("prod-s1"));
    assert_eq!(parse("/prod-s1").first_segment(), None);
    let suffixes: Vec<_> = parse("/a_b_Prod-S1,x").room_suffixes().map(Cow::into_owned).collect();
    assert_eq!(suffixes, ["b_prod-s1", "prod-s1"]);
}

#[test]
fn refused_with_a_reason() {
    let routing = Routing::default();
    let long = format!("/acme/{}", "x".repeat(TOKEN_LEN_MAX));
    let error = RoutingKey::parse(&long, None, &routing).unwrap_err();
    assert_eq!(error.to_string(), "stick token has 1029 bytes, expected at most 1024");
    let error = RoutingKey::parse("/caf\u{e9}", None, &routing).unwrap_err();
    assert_eq!(error.to_string(), "request target has the byte 0xc3 at 4, expected visible ASCII characters");
}

proptest! {
    #[test]
    fn any_target_is_parsed_or_refused(target in "\\PC*", host in proptest::collection::vec(any::<u8>(), 0..40)) {
        let routing = Routing::default();
        if let Ok(key) = RoutingKey::parse(&target, Some(&host), &routing) {
            prop_assert!(key.token().len() <= TOKEN_LEN_MAX);
            prop_assert!(!key.token().bytes().any(|byte| byte.is_ascii_uppercase()));
            prop_assert!(key.store() == Store::Nothing || !key.token().is_empty());
            prop_assert!(key.room_suffixes().all(|suffix| suffix.len() <= SHARD_NAME_LEN_MAX));
            let _ = (key.tenant().map(str::len), key.first_segment(), key.release_override().map(str::len));
        }
    }

    #[test]
    fn url_like_targets_keep_the_rules(target in "[/?&;=,_%a-zA-Z0-9.-]{0,60}(room=|release=|stick=true|/http-bind\\?room=)?[/?&;=,_%a-z0-9.-]{0,30}") {
        let routing = Routing::default();
        let key = RoutingKey::parse(&target, None, &routing).unwrap();
        // The token depends on case in nothing but the names of paths and parameters: parsing it again changes nothing.
        prop_assert_eq!(key.token().to_ascii_lowercase(), key.token());
        prop_assert!(!key.token().contains(','));
    }
}
