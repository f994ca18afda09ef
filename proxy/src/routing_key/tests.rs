use super::*;
use proptest::prelude::*;

fn routing(compat: Compat) -> Routing {
    Routing { compat, ..Routing::default() }
}

fn parse_as(target: &str, compat: Compat) -> RoutingKey<'_> {
    let said = Said { host: Some(b"meet.example.com"), ..Said::default() };
    RoutingKey::parse(target, &said, &routing(compat)).unwrap()
}

fn parse(target: &str) -> RoutingKey<'_> {
    parse_as(target, Compat::None)
}

#[test]
fn tokens() {
    for (target, token) in [
        ("/Foo", "foo"),
        ("/acme/Foo", "acme/foo"),
        ("/", ""),
        ("*", ""),
        ("/a/b/c/d", "a/d"),
        ("//acme/foo", "foo"),
        ("/img/x.png", "img/"),
        ("/img/", "img/"),
        ("/acme/?room=foo", "acme/foo"),
        ("/static/x.js", ""),
        ("/acme/static/x", "acme/"),
        ("/other/deep/static/x.js", "other/x.js"),
        ("/other/configxjs", "other/"),
        ("/xwell-known/a", ""),
        ("/http-bind?room=Foo", "foo"),
        ("/acme/xmpp-websocket?room=Foo&x=1", "acme/foo"),
        ("/http-bind?a=1;room=foo", ""),
        ("/http-bind?room=&room=foo", ""),
        ("/http-bind?room=acme/foo", "acme/foo"),
        ("/http-bind?Room=foo", ""),
        ("/foo?room=bar", "bar"),
        ("/foo%25c3", "foo%c3"),
        ("/foo%2525", "foo%25"),
        ("/about/health?room=x", "x"),
    ] {
        for compat in [Compat::None, Compat::Haproxy] {
            assert_eq!(parse_as(target, compat).token(), token, "{target} {compat:?}");
        }
    }
}

#[test]
fn tokens_that_are_not_haproxys() {
    for (target, ours, theirs) in [
        ("/acme/", "acme", "acme//acme/"),
        ("/foo/", "foo", "foo//foo/"),
        ("/acme/foo//", "acme/foo", "acme//acme/foo//"),
        ("//", "", "//"),
        ("/http-bind?room=foo;bar", "foo;bar", "foo"),
        ("/http-bind?a;room=x&room=y", "y", "x"),
        ("/http-bind?room=foo?x", "foo?x", "foo"),
        ("/http-bind?a=1?room=foo", "", "foo"),
        ("/foo&room=bar", "foo&room=bar", ""),
        ("/foo,bar", "foo,bar", "bar"),
        ("/x,acme/foo", "x,acme/foo", "acme/foo"),
        ("/http-bind?room=foo,", "foo,", ""),
    ] {
        assert_eq!(parse(target).token(), ours, "{target}");
        assert_eq!(parse_as(target, Compat::Haproxy).token(), theirs, "{target}");
    }
}

#[test]
fn stores() {
    use Store::{MatchOnly, MatchOrStore, Nothing};
    for (target, store) in [
        ("/foo", MatchOnly),
        ("/", Nothing),
        ("/foo?stick=true", MatchOrStore),
        ("/foo/?stick=true", MatchOrStore),
        ("/?stick=true", Nothing),
        ("/foo?release=x", MatchOrStore),
        ("/foo?release=", MatchOnly),
        ("/http-bind?room=foo", MatchOrStore),
        ("/http-bind", Nothing),
        ("/acme/http-bind?room=", Nothing),
        ("/my-http-bind?room=foo", MatchOrStore),
        ("/robots.txt?room=foo", MatchOnly),
        ("/_unlock?room=foo", MatchOrStore),
    ] {
        for compat in [Compat::None, Compat::Haproxy] {
            assert_eq!(parse_as(target, compat).store(), store, "{target} {compat:?}");
        }
    }
    assert_eq!(parse_as("/http-bind?room=foo,", Compat::Haproxy).store(), Nothing);
    let (routing, said) =
        (Routing::default(), Said { host: Some(b"Signal-API-x.example.com"), ..Said::default() });
    assert_eq!(RoutingKey::parse("/foo", &said, &routing).unwrap().store(), MatchOrStore);
}

#[test]
fn tenants_overrides_and_shards() {
    assert_eq!(parse("/Acme/foo").tenant(), Some("acme"));
    assert_eq!(parse("/Acme/").tenant(), Some("acme"), "a tenant's first page is its own");
    assert_eq!(parse("/foo").tenant(), None);
    assert_eq!(parse("/a%25b/foo").tenant(), Some("a%25b"));
    assert_eq!(parse("/x,acme/foo").tenant(), Some("x,acme"));
    assert_eq!(parse_as("/x,acme/foo", Compat::Haproxy).tenant(), Some("acme"));
    assert_eq!(parse("/foo?release=Release-1").release_override(), Some("release-1"));
    assert_eq!(parse("/foo?a=1;release=x").release_override(), Some("x"));
    assert_eq!(parse("/foo?release=&release=x").release_override(), Some(""));
    assert_eq!(parse("/foo?release=").release_override(), None);
    assert_eq!(parse("/prod-s1/about").first_segment(), Some("prod-s1"));
    assert_eq!(parse("/prod-s1").first_segment(), None);
    let suffixes = |target, compat| {
        let key = parse_as(target, compat);
        key.room_suffixes().map(Cow::into_owned).collect::<Vec<_>>()
    };
    assert_eq!(suffixes("/a_b_Prod-S1", Compat::None), ["b_prod-s1", "prod-s1"]);
    assert_eq!(suffixes("/a_Prod-S1,x_y", Compat::None), ["prod-s1,x_y", "y"]);
    assert_eq!(suffixes("/a_Prod-S1,x_y", Compat::Haproxy), ["prod-s1", "y"]);
}

#[test]
fn what_a_client_says_of_itself_counts_for_haproxy_alone() {
    let said = Said { host: None, room: Some(b"a,Evil "), group: Some(b"Acme/"), flag: Some(b"1") };
    let parsed = |target, compat| RoutingKey::parse(target, &said, &routing(compat)).unwrap();
    let theirs = parsed("/xmpp-websocket", Compat::Haproxy);
    assert_eq!((theirs.token(), theirs.store()), ("Acme/Evil", Store::MatchOrStore));
    assert_eq!((theirs.room_told(), theirs.group_told()), (&Told::AsSent, &Told::AsSent));
    assert_eq!(theirs.tenant(), None, "a pin is for the path's group");
    let ours = parsed("/xmpp-websocket", Compat::None);
    assert_eq!((ours.token(), ours.store(), ours.flag()), ("", Store::Nothing, Flag::Unset));
    assert_eq!((ours.room_told(), ours.group_told()), (&Told::Nothing, &Told::Nothing));
    let set = parsed("/acme/xmpp-websocket?room=R", Compat::Haproxy);
    assert_eq!((set.token(), set.room_told()), ("acme/r", &Told::Text(Cow::Borrowed("r"))));
    let bytes = Said { room: Some(b"b\xe9b\xe9"), ..Said::default() };
    let key = RoutingKey::parse("/xmpp-websocket", &bytes, &routing(Compat::Haproxy)).unwrap();
    assert_eq!(key.token(), "b\u{e9}b\u{e9}");
}

#[test]
fn the_room_parameter_and_the_stick_flag_have_the_names_that_they_are_given() {
    let named = Routing {
        room_parameter: "conference".to_owned(),
        stick_flag: "keep=1".to_owned(),
        ..Routing::default()
    };
    for compat in [Compat::None, Compat::Haproxy] {
        let routing = Routing { compat, ..named.clone() };
        let parse = |target| RoutingKey::parse(target, &Said::default(), &routing).unwrap();
        let key = parse("/http-bind?room=no&conference=Yes");
        assert_eq!((key.token(), key.store(), key.has_room_parameter()), ("yes", Store::MatchOrStore, true));
        let key = parse("/foo?room=no&stick=true&xkeep=1");
        assert_eq!((key.token(), key.store(), key.has_room_parameter()), ("foo", Store::MatchOnly, false));
        assert_eq!(parse("/foo?keep=1").store(), Store::MatchOrStore);
        assert_eq!(parse("/foo?conferences=1").token(), "foo");
    }
}

#[test]
fn refused_with_a_reason() {
    let (routing, said) = (Routing::default(), Said::default());
    let long = format!("/acme/{}", "x".repeat(TOKEN_LEN_MAX));
    let error = RoutingKey::parse(&long, &said, &routing).unwrap_err();
    assert_eq!(error.to_string(), "stick token has 1029 bytes, expected at most 1024");
    assert_eq!(parse_as(&long, Compat::Haproxy).store(), Store::Nothing);
    let error = RoutingKey::parse("/caf\u{e9}", &said, &routing).unwrap_err();
    assert_eq!(error.to_string(), "request target has the byte 0xc3 at 4, expected visible ASCII characters");
}

proptest! {
    #[test]
    fn any_target_is_parsed_or_refused(target in "\\PC*", host in proptest::collection::vec(any::<u8>(), 0..40)) {
        let (routing, said) = (Routing::default(), Said { host: Some(&host), ..Said::default() });
        if let Ok(key) = RoutingKey::parse(&target, &said, &routing) {
            prop_assert!(key.token().len() <= TOKEN_LEN_MAX);
            prop_assert!(!key.token().bytes().any(|byte| byte.is_ascii_uppercase()));
            prop_assert!(key.store() == Store::Nothing || !key.token().is_empty());
            prop_assert!(key.room_suffixes().all(|suffix| suffix.len() <= SHARD_NAME_LEN_MAX));
            let _ = (key.tenant().map(str::len), key.first_segment(), key.release_override().map(str::len));
        }
    }

    #[test]
    fn url_like_targets_keep_the_rules(target in "[/?&;=,_%a-zA-Z0-9.-]{0,60}(room=|release=|stick=true|/http-bind\\?room=)?[/?&;=,_%a-z0-9.-]{0,30}") {
        let (routing, said) = (routing(Compat::Haproxy), Said::default());
        let key = RoutingKey::parse(&target, &said, &routing).unwrap();
        // The token depends on case in nothing but the names of paths and parameters: parsing it again changes nothing.
        prop_assert_eq!(key.token().to_ascii_lowercase(), key.token());
        prop_assert!(!key.token().contains(','));
    }
}
