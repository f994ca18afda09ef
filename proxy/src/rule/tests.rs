use super::*;
use crate::admission::{check_key, check_security, read_head};
use crate::cookie::CookieName;
use crate::explain::{Explanation, Site, decide_by_cookie};
use crate::headers::Sent;
use crate::health::{Reach, Standing};
use crate::redirect::ToHttps;
use crate::route::{Outlook, Topology};
use crate::routing_key::{Compat, Pool, PoolServer, Routing};
use http::Request;
use http::request::Parts;
use shardgate_discovery::RegionName;
use shardgate_discovery::file::parse_text;
use shardgate_peering_core::ShardName;
use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::sync::Arc;

const LIVE: &str = "live_release = \"live\"\n";
const SHARDS: &str = r#"
    [[shards]]
    name = "l1"
    id = 1
    region = "here"
    release = "live"
    address = "127.0.0.1:1"
    [[shards]]
    name = "t1"
    id = 2
    region = "there"
    release = "far"
    address = "127.0.0.1:2"
    [[shards]]
    name = "m1"
    id = 3
    region = "here"
    release = "old"
    address = "127.0.0.1:3"
    state = "maint"
    [pins]
    acme = "far"
    pinned-to-old = "old"
    [bans]
    domain = ["banned.example.com"]
    exact = ["bannedroom", "badtenant/"]
    prefix = ["spamroom", "spamtenant"]
    substr = ["evilt___evilr"]
    unban_prefix = [{ pattern = "viptenant", verdict = "allow" }]
    room = ["jobroom"]
    tenant = ["jobtenant"]
"#;
const NO_SHARD: &str = "live_release = \"old\"\n[[shards]]\nname = \"m1\"\nid = 3\nregion = \"here\"\nrelease = \"old\"\naddress = \"127.0.0.1:3\"\nstate = \"maint\"\n";

/// A request and its circumstances.
#[derive(Clone, Copy, Default)]
pub(crate) struct Case<'a> {
    method: &'a str,
    target: &'a str,
    headers: &'a [(&'a str, &'a str)],
    compat: Compat,
    entry: Option<&'a str>,
    excluded: Option<&'a str>,
    suspects: &'a [&'a str],
    cut: &'a [&'a str],
    discovery: Option<&'a str>,
    to_https: Option<ToHttps>,
}

const fn get(target: &str) -> Case<'_> {
    Case {
        method: "GET",
        target,
        headers: &[],
        compat: Compat::None,
        entry: None,
        excluded: None,
        suspects: &[],
        cut: &[],
        discovery: None,
        to_https: None,
    }
}

const fn as_haproxy(target: &str) -> Case<'_> {
    Case { compat: Compat::Haproxy, ..get(target) }
}

impl Case<'_> {
    fn head(&self) -> Parts {
        let mut request = Request::builder().method(self.method).uri(self.target);
        for (name, value) in self.headers {
            request = request.header(*name, *value);
        }
        request.body(()).unwrap().into_parts().0
    }

    fn site(&self) -> Site {
        let region = RegionName::parse("here").unwrap();
        let pool = Pool::new(
            ShardName::parse("bridges").unwrap(),
            vec!["/colibri-ws/".to_owned()],
            vec![PoolServer::parse("127.0.0.1:9").unwrap()],
            &region,
        );
        let chat = Pool::new(
            ShardName::parse("chat").unwrap(),
            vec!["/chat/".to_owned()],
            vec![PoolServer::parse("127.0.0.1:10").unwrap()],
            &region,
        );
        let chat = chat.map(|mut chat| {
            chat.stick_on_cookie = CookieName::parse("SID");
            chat
        });
        let routing = Routing {
            compat: self.compat,
            denied_referers: vec!["denied.example.com".to_owned()],
            pools: vec![pool.unwrap(), chat.unwrap()],
            ..Routing::default()
        };
        let discovery = self.discovery.map_or_else(|| format!("{LIVE}{SHARDS}"), str::to_owned);
        let snapshot = Arc::new(parse_text(&discovery).unwrap());
        Site { routing, region, balance_percent: 150, snapshot }
    }

    /// The rules that it fires, on the way that the data plane goes.
    fn fired(&self) -> Fired {
        let (head, Site { routing, region, snapshot, .. }) = (self.head(), self.site());
        let cut = |name: &&str| {
            (ShardName::parse(name).unwrap(), Standing { reach: Reach::Cut, ..Standing::default() })
        };
        let health = Arc::new(self.cut.iter().map(cut).collect());
        let topology = Topology::new(snapshot, health, &region, &[]);
        let bans = topology.snapshot().bans();
        let (sent, mut fired) = (Sent::of(&head.headers, self.compat), Fired::default());
        if check_security(self.to_https, &head.method, &head.uri, &head.headers, &mut fired).is_err() {
            return fired;
        }
        let read = read_head(&head.method, &head.uri, &head.headers, &sent, bans, &routing, &mut fired);
        let Ok(key) = read else { return fired };
        if check_key(&key, bans, self.compat, &mut fired).is_err() {
            return fired;
        }
        let name = |name: &str| ShardName::parse(name).unwrap();
        let (entry, excluded) = (self.entry.map(name), self.excluded.map(name));
        let outlook = Outlook {
            excluded: excluded.as_ref(),
            suspect: &|name| self.suspects.contains(&name.as_str()),
            detour: &|_| false,
            conferences: &|_| 0,
            health: topology.health(),
            balance_percent: 150,
            nonce: 1,
        };
        let entry = entry.as_ref();
        drop(decide_by_cookie(&key, &head.headers, &topology, entry, &routing, &outlook, &mut fired));
        fired
    }

    /// What is said of it where nothing has failed.
    pub(crate) fn explained(&self) -> Explanation {
        let entry = self.entry.map(|name| ShardName::parse(name).unwrap());
        self.site().explain(&self.head(), entry.as_ref())
    }
}

/// For each rule a request that it matches, in the order of the rules.
pub(crate) fn cases() -> Vec<(Rule, Case<'static>)> {
    let long: &'static str = format!("/{}", "x".repeat(1_100)).leak();
    let huge: &'static str = format!("/{}", "x".repeat(5_400)).leak();
    let service = "/http-bind?room=foo";
    let agent: &[(&str, &str)] = &[("user-agent", "WordPress/6")];
    let denied: &[(&str, &str)] = &[("referer", "https://Denied.example.com/")];
    let banned: &[(&str, &str)] = &[("referer", "https://banned.example.com/page")];
    vec![
        (Rule::ConnectMethod, Case { method: "CONNECT", ..get("meet.example.com:443") }),
        (Rule::TargetForm, get("meet.example.com:443")),
        (Rule::HostsDiffer, Case { headers: &[("host", "a"), ("host", "b")], ..get("/foo") }),
        (
            Rule::HttpsRedirect,
            Case { headers: &[("host", "a")], to_https: Some(ToHttps { port: 443 }), ..get("/foo") },
        ),
        (Rule::DeniedUserAgent, Case { headers: agent, ..get("/foo") }),
        (Rule::DeniedReferer, Case { headers: denied, ..get("/foo") }),
        (Rule::RefererBan, Case { headers: banned, ..get("/foo") }),
        (Rule::TargetBytes, get("/caf\u{e9}")),
        (Rule::HealthPath, get("/about/health")),
        (Rule::NotATenant, get("/static/x.js")),
        (Rule::TenantFromPath, get("/acme/foo")),
        (Rule::NotARoom, get("/http-bind")),
        (Rule::RoomParameter, get(service)),
        (Rule::EmptyRoom, get("/http-bind?room=")),
        (Rule::TrailingSlash, get("/foo/")),
        (Rule::RoomFromPath, get("/foo")),
        (Rule::ClientHeaders, Case { headers: &[("x-room", "foo")], ..as_haproxy("/http-bind") }),
        (Rule::LastCommaPart, as_haproxy("/foo,bar")),
        (Rule::PercentSign, get("/foo%25c3")),
        (Rule::ReleaseOverride, get("/foo?release=x")),
        (Rule::SignalingPath, get(service)),
        (Rule::HostPrefix, Case { headers: &[("host", "Signal-API-1.example.com")], ..get("/foo") }),
        (Rule::StickFlag, get("/foo?stick=true")),
        (Rule::TokenTooLong, get(long)),
        (Rule::HeadTooLarge, as_haproxy(huge)),
        (Rule::UnbanTenant, get("/viptenant/bannedroom")),
        (Rule::BanSubstring, get("/evilt/evilr")),
        (Rule::BanTenantPrefix, get("/spamtenant1/foo")),
        (Rule::BanRoomPrefix, get("/spamroom1")),
        (Rule::BanTenantExact, get("/badtenant/foo")),
        (Rule::BanRoomExact, get("/bannedroom")),
        (Rule::BanTenant, get("/jobtenant/foo")),
        (Rule::BanRoom, get("/jobroom")),
        (Rule::BanHiddenRoom, get("/bannedroom?room=")),
        (Rule::BanDenied, get("/http-bind?room=bannedroom")),
        (Rule::BanRedirect, get("/bannedroom")),
        (Rule::Pool, get("/colibri-ws/x/y")),
        (Rule::PoolCookie, Case { headers: &[("Cookie", "a=1; SID=2")], ..get("/chat/x") }),
        (Rule::NamedShardPath, get("/t1/about")),
        (Rule::NamedShardSuffix, get("/foo_T1")),
        (Rule::Entry, Case { entry: Some("t1"), ..get(service) }),
        (Rule::EntryUnusable, Case { entry: Some("m1"), ..get("/foo") }),
        (Rule::AskedRelease, get("/foo?release=far")),
        (Rule::AskedShard, get("/foo?release=t1")),
        (Rule::TenantPin, get("/acme/foo")),
        (Rule::NotServed, get("/foo?release=nothing")),
        (Rule::LiveRelease, get("/foo")),
        (Rule::NoLiveRelease, Case { discovery: Some(SHARDS), ..get("/foo") }),
        (Rule::FirstJoin, get(service)),
        (Rule::Move, Case { entry: Some("m1"), ..get(service) }),
        (Rule::BoundedLoad, get(service)),
        (Rule::TokenHash, get("/foo")),
        (Rule::NoToken, get("/")),
        (Rule::FallbackRegion, get("/foo?release=far")),
        (Rule::FallbackRelease, get("/pinned-to-old/foo")),
        (Rule::OnlySuspects, Case { suspects: &["l1", "t1"], ..get("/foo") }),
        (Rule::OnlyByPeers, Case { cut: &["l1", "t1"], ..get(service) }),
        (Rule::TriedInVain, Case { excluded: Some("t1"), ..get("/t1/about") }),
        (Rule::NoShard, Case { discovery: Some(NO_SHARD), ..get("/foo") }),
    ]
}

#[test]
fn each_rule_matches_something_and_the_table_is_in_its_order() {
    let cases = cases();
    let order: Vec<Rule> = cases.iter().map(|(rule, _)| *rule).collect();
    assert_eq!(order, Rule::ALL, "one case for each rule");
    for (rule, case) in cases {
        let fired = case.fired();
        assert!(fired.has(rule), "{rule}: {} fires {fired}", case.target);
    }
}

#[test]
fn what_is_refused_early_fires_nothing_later() {
    for (rule, case) in cases() {
        let stages: BTreeSet<Stage> = case.fired().iter().map(Rule::stage).collect();
        let refused = matches!(
            rule,
            Rule::ConnectMethod
                | Rule::TargetForm
                | Rule::HostsDiffer
                | Rule::HttpsRedirect
                | Rule::DeniedUserAgent
                | Rule::DeniedReferer
                | Rule::RefererBan
                | Rule::TargetBytes
                | Rule::TokenTooLong
                | Rule::HeadTooLarge
                | Rule::BanDenied
                | Rule::BanRedirect
        );
        if refused {
            assert_eq!(stages.last(), Some(&rule.stage()), "{rule}: {}", case.fired());
        } else if rule.stage() != Stage::Ban {
            assert_eq!(stages.last(), Some(&Stage::Choice), "{rule}: {}", case.fired());
        }
    }
}

#[test]
fn whole_decisions_by_name() {
    for (case, expected) in [
        (get("/"), "live-release,no-token"),
        (get("/Foo/"), "tenant-from-path,trailing-slash,room-from-path,live-release,token-hash"),
        (
            get("/acme/xmpp-websocket?room=foo"),
            "tenant-from-path,not-a-room,room-parameter,signaling-path,tenant-pin,first-join,fallback-region",
        ),
        (Case { entry: Some("t1"), ..get("/acme/foo") }, "tenant-from-path,room-from-path,entry"),
        (
            Case { entry: Some("gone"), ..get("/http-bind?room=foo") },
            "not-a-room,room-parameter,signaling-path,entry-unusable,live-release,move,bounded-load,token-hash",
        ),
        (
            get("/foo?release=nothing"),
            "room-from-path,release-override,not-served,live-release,first-join,bounded-load,token-hash",
        ),
        (get("/bannedroom?room="), "room-parameter,empty-room,ban-room-exact,ban-hidden-room,ban-denied"),
        (
            as_haproxy("/foo,bar/"),
            "tenant-from-path,trailing-slash,room-from-path,last-comma-part,live-release,token-hash",
        ),
    ] {
        assert_eq!(case.fired().to_string(), expected, "{}", case.target);
    }
    assert_eq!(Fired::default().to_string(), "-");
}

#[test]
fn names_stay_readable_and_each_is_one() {
    let names: BTreeSet<&str> = Rule::ALL.iter().map(|rule| rule.name()).collect();
    assert_eq!(names.len(), Rule::ALL.len());
    for rule in Rule::ALL {
        let name = rule.name();
        assert!(
            name.len() <= 18 && name.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'-'),
            "{name}"
        );
        assert!(rule.text().ends_with('.') && rule.text().len() <= 85, "{name}: {}", rule.text());
        assert!(rule.follows().iter().all(|number| (1..=42).contains(number)), "{name}");
    }
}

const DOCUMENT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../ops/doc/routing-rules.md");

const HEAD: &str = "# The rules of routing

In this order. Their names stand in the access log's debug lines and in what `shardgate route explain URL` says; the numbers are those of the
recorded HAProxy. `proxy/src/rule.rs` is where the order is said; a test writes this page from it (`SHARDGATE_REGENERATE=1`) and compares.
Names in backquotes are fields of `[routing]` in the configuration, ban lists of the discovery file, or parameters of a request.
";

#[test]
fn the_document_is_the_table() {
    let mut document = HEAD.to_owned();
    for stage in Stage::ALL {
        let title = stage.title();
        write!(document, "\n## {}{}\n\n", title[..1].to_uppercase(), &title[1..]).unwrap();
        document.push_str("| rule | what it says | follows |\n|---|---|---|\n");
        for rule in Rule::ALL.iter().filter(|rule| rule.stage() == *stage) {
            let follows: Vec<String> = rule.follows().iter().map(|number| format!("R{number:02}")).collect();
            writeln!(document, "| {rule} | {} | {} |", rule.text(), follows.join(", ")).unwrap();
        }
    }
    if std::env::var_os("SHARDGATE_REGENERATE").is_some() {
        std::fs::write(DOCUMENT, &document).unwrap();
    }
    let kept = std::fs::read_to_string(DOCUMENT).unwrap_or_default();
    assert_eq!(document, kept, "ops/doc/routing-rules.md is stale: SHARDGATE_REGENERATE=1 writes it anew");
}
