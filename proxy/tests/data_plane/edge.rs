//! Who a client is, behind balancers and proxies; and what the edge adds to requests and answers.

use crate::harness::{DEADLINE, Node, Upstream, Wire, config, eventually, limits, shard, told};
use shardgate_peering::Mesh;
use shardgate_peering::core::{Config, PeerId};
use shardgate_proxy::Limits;
use shardgate_proxy::answer_headers::{AnswerHeaders, Hsts, ResponseHeader};
use shardgate_proxy::config::AcceptProxy;
use shardgate_proxy::counters::ProxyRefusal;
use shardgate_proxy::proxy_protocol::{Addresses, encode};
use shardgate_proxy::redirect::ToHttps;
use shardgate_proxy::request_id::RequestIds;
use shardgate_proxy::trust::{ForwardedFor, Trust};
use shardgate_proxy::worker::{ForwardedProto, WorkersConfig};
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::process::Command;
use std::time::Duration;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpListener;

/// A node with one shard, configured as `change` says.
async fn node(limits: Limits, change: impl FnOnce(&mut WorkersConfig)) -> (Node, Upstream) {
    let upstream = Upstream::start("s1").await;
    let mut config = config(limits);
    change(&mut config);
    let mesh = Mesh::alone(Config::new(PeerId::parse("me").unwrap(), 1)).unwrap();
    (Node::start_on(mesh, &[shard("s1", upstream.address)], config), upstream)
}

fn trust(proxies: &[&str], forwarded_for: ForwardedFor) -> Trust {
    Trust { proxies: proxies.iter().map(|range| range.parse().unwrap()).collect(), forwarded_for }
}

fn takes_proxy_headers(config: &mut WorkersConfig) {
    config.frontends[0].accept_proxy = AcceptProxy::Required;
    config.trust = trust(&["127.0.0.0/8"], ForwardedFor::Append);
}

const GET: &str = "GET /foo HTTP/1.1\r\nHost: meet\r\n\r\n";

#[tokio::test(flavor = "multi_thread")]
async fn balancers_say_whose_connection_it_is() {
    let (node, _upstream) = node(limits(), takes_proxy_headers).await;
    let v2 = encode(Some(&Addresses {
        source: "[2001:db8::7]:40000".parse().unwrap(),
        destination: "[2001:db8::1]:443".parse().unwrap(),
    }));
    // 3 kB of a TLV that nobody knows.
    let mut long = [&b"\r\n\r\n\0\r\nQUIT\n\x21\x11"[..], &3015_u16.to_be_bytes()].concat();
    long.extend([192, 0, 2, 8, 192, 0, 2, 1, 0, 9, 1, 187, 0xe0]);
    long.extend(3000_u16.to_be_bytes());
    long.resize(16 + 3015, b'x');
    for (header, client) in [
        (&b"PROXY TCP4 192.0.2.7 192.0.2.1 40000 443\r\n"[..], "192.0.2.7"),
        (b"PROXY TCP6 ::ffff:192.0.2.7 ::1 40000 443\r\n", "192.0.2.7"),
        (b"PROXY UNKNOWN\r\n", "127.0.0.1"),
        (&encode(None), "127.0.0.1"),
        (&v2, "2001:db8::7"),
        (&long, "192.0.2.8"),
    ] {
        let whole = [header, GET.as_bytes()].concat();
        for piece in [1, 7, usize::MAX] {
            let mut wire = node.client().await;
            for part in
                whole.chunks(piece.min(whole.len())).take(if header.len() > 200 { usize::MAX } else { 500 })
            {
                wire.stream.write_all(part).await.unwrap();
            }
            let answer = wire.answer().await;
            assert_eq!(told(answer.text(), "x-forwarded-for"), [client]);
            // The second request of the connection has no header of its own.
            wire.send(GET).await;
            assert_eq!(told(wire.answer().await.text(), "x-forwarded-for"), [client]);
        }
    }
    let totals = node.totals();
    assert_eq!((totals.proxy_headers, totals.proxy_refusals.iter().sum::<u64>()), (18, 0));
    let log = node.stop().await;
    for client in ["192.0.2.7:40000 [", "2001:db8::7:40000 [", "192.0.2.8:9 [", "127.0.0.1:"] {
        assert!(log.lines().filter(|line| line.starts_with(client)).count() >= 6, "{client} {log}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn who_is_no_balancer_is_closed_without_a_word() {
    let short = Limits { head_timeout: Duration::from_millis(200), ..limits() };
    let (node, _upstream) = node(short, takes_proxy_headers).await;
    let refused = |why: ProxyRefusal| node.totals().proxy_refusals[why as usize];
    let cases = [
        (GET, ProxyRefusal::NoHeader),
        ("PROXY TCP4 1.2.3.4 x 1 2\r\n", ProxyRefusal::Invalid),
        ("\r\n\r\n\0\r\nQUIT\n\x11\x11\0\0", ProxyRefusal::Invalid),
        ("PROXY TCP4 1.2", ProxyRefusal::Timeout),
        ("", ProxyRefusal::Timeout),
    ];
    for (sent, why) in cases {
        let before = refused(why);
        let mut wire = node.client().await;
        wire.send(sent).await;
        assert_eq!(wire.rest().await, b"", "{sent:?}");
        assert_eq!(refused(why), before + 1, "{sent:?}");
    }
    let mut wire = node.client().await;
    wire.send("PROXY TCP4 1.2").await;
    wire.stream.shutdown().await.unwrap();
    assert_eq!(wire.rest().await, b"");
    assert_eq!(refused(ProxyRefusal::Closed), 1);
    assert_eq!((node.totals().requests, node.totals().proxy_headers), (0, 0));
    node.stop().await;

    let (node, _upstream) = self::node(limits(), |config| {
        takes_proxy_headers(config);
        config.trust = trust(&["10.0.0.0/8"], ForwardedFor::Append);
    })
    .await;
    let mut wire = node.client().await;
    assert_eq!(wire.rest().await, b"");
    assert_eq!(node.totals().proxy_refusals[ProxyRefusal::Untrusted as usize], 1);
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn curl_speaks_through_as_a_balancer_does() {
    let (node, _upstream) = node(limits(), takes_proxy_headers).await;
    let url = format!("http://{}/foo", node.address());
    let curl = tokio::task::spawn_blocking(move || {
        Command::new("curl").args(["-sS", "--max-time", "10", "--haproxy-protocol", &url, &url]).output()
    });
    let output = tokio::time::timeout(DEADLINE, curl).await.unwrap().unwrap().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    assert_eq!(told(&text, "x-forwarded-for"), ["127.0.0.1"; 2], "{text} {:?}", output.stderr);
    assert_eq!(node.totals().proxy_headers, 1);
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn only_proxies_that_are_listed_say_who_a_client_is() {
    let sent = "GET /foo HTTP/1.1\r\nHost: meet\r\nX-Forwarded-For: 1.2.3.4, 192.0.2.7\r\nX-Forwarded-For: 127.0.0.3\r\n\
                X-Forwarded-Proto: http\r\nForwarded: for=1.2.3.4\r\n\r\n";
    let lines = ["1.2.3.4, 192.0.2.7", "127.0.0.3"];
    for (proxies, forwarded_for, client, told_for, told_proto, forwarded) in [
        // As HAProxy does.
        (
            &[][..],
            ForwardedFor::Append,
            "127.0.0.1:",
            [&lines[..], &["127.0.0.1"]].concat(),
            &["http", "https"][..],
            1,
        ),
        (
            &["127.0.0.0/8"],
            ForwardedFor::Append,
            "192.0.2.7:0 ",
            [&lines[..], &["127.0.0.1"]].concat(),
            &["http", "http"],
            1,
        ),
        (&[], ForwardedFor::Replace, "127.0.0.1:", vec!["127.0.0.1"], &["https"], 0),
        (
            &["127.0.0.0/8"],
            ForwardedFor::Replace,
            "192.0.2.7:0 ",
            [&lines[..], &["127.0.0.1"]].concat(),
            &["http"],
            0,
        ),
    ] {
        let (node, _upstream) = node(limits(), |config| config.trust = trust(proxies, forwarded_for)).await;
        let mut wire = node.client().await;
        wire.send(sent).await;
        let answer = wire.answer().await;
        assert_eq!(told(answer.text(), "x-forwarded-for"), told_for, "{proxies:?} {forwarded_for:?}");
        assert_eq!(told(answer.text(), "x-forwarded-proto"), told_proto, "{proxies:?} {forwarded_for:?}");
        assert_eq!(told(answer.text(), "forwarded").len(), forwarded, "{proxies:?} {forwarded_for:?}");
        // Each request has a client of its own.
        wire.send(GET).await;
        assert_eq!(told(wire.answer().await.text(), "x-forwarded-for"), ["127.0.0.1"]);
        let log = node.stop().await;
        let begins: Vec<_> = log.lines().collect();
        assert!(begins[0].starts_with(client) && begins[1].starts_with("127.0.0.1:"), "{log}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_has_one_name_everywhere() {
    let named = "GET /foo HTTP/1.1\r\nHost: meet\r\nX-Request-Id: from-client-1\r\n\r\n";
    for (ids, taken) in [(RequestIds::Accept, true), (RequestIds::Make, false)] {
        let (node, _upstream) = node(limits(), |config| config.request_ids = ids).await;
        let mut wire = node.client().await;
        let mut names = Vec::new();
        for sent in [
            named,
            GET,
            "GET /foo HTTP/1.1\r\nHost: meet\r\nX-Request-Id: a b\r\n\r\n",
            "GET /foo\u{e9} HTTP/1.1\r\nHost: meet\r\n\r\n",
        ] {
            wire.send(sent).await;
            let answer = wire.answer().await;
            let name = answer.header("x-request-id").join("+");
            if answer.status == 200 {
                assert_eq!(told(answer.text(), "x-request-id"), [name.as_str()]);
            }
            names.push(name);
        }
        assert_eq!((names[0] == "from-client-1", names[1].len()), (taken, 36), "{names:?}");
        let log = node.stop().await;
        for (line, name) in log.lines().zip(&names) {
            assert!(line.ends_with(&format!("\" {name}")), "{name} in {log}");
        }
        assert_eq!(log.lines().count(), 4);
    }
    let (node, _upstream) = node(limits(), |config| config.request_ids = RequestIds::Off).await;
    let mut wire = node.client().await;
    wire.send(named).await;
    let answer = wire.answer().await;
    assert_eq!(told(answer.text(), "x-request-id"), ["from-client-1"]);
    assert!(answer.header("x-request-id").is_empty(), "{answer:?}");
    let log = node.stop().await;
    assert!(log.ends_with("\"GET /foo\" -\n"), "{log}");
}

#[tokio::test(flavor = "multi_thread")]
async fn plain_http_is_sent_on_but_for_challenges() {
    let (node, _upstream) =
        node(limits(), |config| config.frontends[0].to_https = Some(ToHttps { port: 443 })).await;
    for (request, status, location) in [
        (
            "GET /acme/Foo?x=1 HTTP/1.1\r\nHost: Meet.example:80\r\n\r\n",
            301,
            Some("https://Meet.example/acme/Foo?x=1"),
        ),
        (
            "POST /http-bind?room=x HTTP/1.1\r\nHost: meet\r\nContent-Length: 3\r\n\r\nabc",
            308,
            Some("https://meet/http-bind?room=x"),
        ),
        ("GET http://meet/a HTTP/1.1\r\nHost: meet\r\n\r\n", 301, Some("https://meet/a")),
        ("GET http://evil/a HTTP/1.1\r\nHost: meet\r\n\r\n", 400, None),
        ("GET /a HTTP/1.1\r\nHost: meet\r\nHost: evil\r\n\r\n", 400, None),
        ("GET /a HTTP/1.1\r\nHost: me@evil\r\n\r\n", 400, None),
        ("GET /.well-known/acme-challenge/token HTTP/1.1\r\nHost: meet\r\n\r\n", 200, None),
    ] {
        // What is refused before it is a request ends its connection, and has no name.
        let mut wire = node.client().await;
        wire.send(request).await;
        let answer = wire.answer().await;
        assert_eq!(
            (answer.status, answer.header("location").first().copied()),
            (status, location),
            "{request}"
        );
        assert!(answer.header("x-request-id").len() == 1 || status == 400, "{answer:?}");
    }
    let url = format!("http://{}/foo", node.address());
    let curl = tokio::task::spawn_blocking(move || {
        let form = "%{http_code} %{redirect_url}";
        Command::new("curl")
            .args(["-sS", "--max-time", "10", "-I", "-o", "/dev/null", "-w", form, &url])
            .output()
    });
    let output = tokio::time::timeout(DEADLINE, curl).await.unwrap().unwrap().unwrap();
    assert_eq!(String::from_utf8_lossy(&output.stdout), "301 https://127.0.0.1/foo");
    assert_eq!(node.totals().https_redirects, 4);
    let log = node.stop().await;
    assert!(log.contains(" 301 0 LR - 0 \"GET /acme/Foo?x=1\" "), "{log}");
    assert_eq!(log.matches(" -/- ").count(), 7, "{log}");
}

#[tokio::test(flavor = "multi_thread")]
async fn every_answer_has_the_configured_headers() {
    let set = ["X-Content-Type-Options: nosniff", "X-Jitsi-Shard: hidden"];
    let set = set.map(|line| ResponseHeader::parse(line).unwrap());
    for (proto, hsts) in [(ForwardedProto::Https, &["max-age=9"][..]), (ForwardedProto::Http, &[])] {
        let (node, _upstream) = node(limits(), |config| {
            config.frontends[0].forwarded_proto = proto;
            config.answer_headers = AnswerHeaders::new(&set, Hsts::parse("max-age=9").as_ref());
        })
        .await;
        let mut wire = node.client().await;
        let too_many = format!("GET /foo HTTP/1.1\r\nHost: meet\r\n{}\r\n", "A: b\r\n".repeat(200));
        for (request, status) in
            [(GET, 200), ("GET /caf\u{e9} HTTP/1.1\r\nHost: meet\r\n\r\n", 400), (&too_many, 431)]
        {
            wire.send(request).await;
            let answer = wire.answer().await;
            assert_eq!(answer.status, status, "{answer:?}");
            assert_eq!(answer.header("x-content-type-options"), ["nosniff"], "{answer:?}");
            assert_eq!(answer.header("x-jitsi-shard"), ["hidden"], "{answer:?}");
            assert_eq!(answer.header("strict-transport-security"), hsts, "{answer:?}");
        }
        // And when a trusted proxy says how it was asked.
        node.stop().await;
    }
    let (node, _upstream) = node(limits(), |config| {
        config.frontends[0].forwarded_proto = ForwardedProto::Http;
        config.trust = trust(&["127.0.0.1"], ForwardedFor::Append);
        config.answer_headers = AnswerHeaders::new(&[], Hsts::parse("max-age=9").as_ref());
    })
    .await;
    let mut wire = node.client().await;
    wire.send("GET /foo HTTP/1.1\r\nHost: meet\r\nX-Forwarded-Proto: https\r\n\r\n").await;
    assert_eq!(wire.answer().await.header("strict-transport-security"), ["max-age=9"]);
    wire.send(GET).await;
    assert!(wire.answer().await.header("strict-transport-security").is_empty());
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn one_listener_takes_both_families() {
    let listener = TcpListener::bind((Ipv6Addr::LOCALHOST, 0)).await.unwrap();
    let upstream = Upstream::start_on(listener, "s6");
    assert!(upstream.address.is_ipv6());
    let mut config = config(limits());
    config.frontends[0].address = SocketAddr::from((Ipv6Addr::UNSPECIFIED, 0));
    config.trust = trust(&["::ffff:127.0.0.2"], ForwardedFor::Append);
    let mesh = Mesh::alone(Config::new(PeerId::parse("me").unwrap(), 1)).unwrap();
    let node = Node::start_on(mesh, &[shard("s6", upstream.address)], config);
    let port = node.address().port();
    for (address, seen) in [
        (SocketAddr::from((Ipv4Addr::LOCALHOST, port)), "127.0.0.1"),
        (SocketAddr::from((Ipv6Addr::LOCALHOST, port)), "::1"),
    ] {
        let mut wire = Wire::connect(address).await;
        wire.send("GET /foo HTTP/1.1\r\nHost: meet\r\nX-Forwarded-For: 1.2.3.4\r\n\r\n").await;
        let answer = wire.answer().await;
        assert_eq!(told(answer.text(), "x-forwarded-for"), ["1.2.3.4", seen]);
        wire.send("GET /xmpp-websocket?room=a HTTP/1.1\r\nHost: meet\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n")
            .await;
        assert_eq!(wire.head().await.status, 101);
        assert_eq!(wire.exactly(14).await, b"hello from s6\n");
    }
    eventually("both tunnels end", async || node.totals().tunnels() == 0).await;
    let log = node.stop().await;
    assert_eq!(log.lines().filter(|line| line.starts_with("127.0.0.1:")).count(), 3, "{log}");
    assert_eq!(log.lines().filter(|line| line.starts_with("::1:")).count(), 3, "{log}");
    let tunnels: Vec<_> = log.lines().filter(|line| line.contains("\"TUNNEL ")).collect();
    let opened: Vec<_> = log.lines().filter(|line| line.contains("\"GET /xmpp")).collect();
    let name = |line: &&str| line.rsplit(' ').next().unwrap().to_owned();
    assert!(
        tunnels.iter().map(name).all(|tunnel| opened.iter().map(name).any(|request| request == tunnel)),
        "{log}"
    );
}
