//! Inputs to begin with, made of what is real: messages, the examples that are shipped, URLs of Jitsi.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::time::Duration;

use prost::bytes::BytesMut;
use shardgate_peering::RelayRefusal;
use shardgate_peering::codec::{self, RelayOpen};
use shardgate_peering::core::ShardName;

use super::hostile;

/// The seeds of a target, by the names of their files.
///
/// # Panics
/// When an example is not where it is shipped.
#[must_use]
pub fn seeds(target: &str) -> BTreeMap<String, Vec<u8>> {
    let list = match target {
        "agent" => AGENTS.iter().map(|line| line.as_bytes().to_vec()).collect(),
        "frame" => hostile::every_kind().iter().map(|message| codec::encode(message).to_vec()).collect(),
        "stream" => streams(),
        "node" | "mesh" => steps(target),
        "discovery_file" => vec![example("discovery.example.toml")],
        "config" => {
            let example = example("shardgate.example.toml");
            vec![example, MINIMAL.to_vec(), OVERLAID.to_vec(), MESHED.to_vec(), BY_CONSUL.to_vec()]
        }
        "consul" => LISTS.iter().map(|lists| lists.as_bytes().to_vec()).collect(),
        "cookie" => COOKIES.iter().map(|lines| lines.as_bytes().to_vec()).collect(),
        "request_head" => REQUESTS.iter().map(|text| [b"\x0a", text.as_bytes()].concat()).collect(),
        "proxy_header" => {
            let binary = PROXY_BINARY.iter().map(|rest| [&b"\r\n\r\n\0\r\nQUIT\n"[..], rest].concat());
            PROXY_LINES.iter().map(|line| line.as_bytes().to_vec()).chain(binary).collect()
        }
        "relay" => relays(),
        "routing_key" => TARGETS.iter().map(|line| [b"\x00", line.as_bytes()].concat()).collect(),
        _ => Vec::new(),
    };
    list.into_iter().enumerate().map(|(index, data)| (format!("seed-{index:02}"), data)).collect()
}

/// What agents say, and what they should not.
const AGENTS: &[&str] = &[
    "up ready 100%,maint\tUP drain 50% maxconn:20 # no disk left: /var\r\n",
    "stopped fail 4294967296% maxconn:-1 gibberish # \u{1b}[2J\nup\n",
    "up ready",
];

/// Frames as they go out: all of them together, a busy stream's columns, and one that is cut short.
fn streams() -> Vec<Vec<u8>> {
    let encoded = |rounds: usize| {
        let (mut encoder, mut frames) = (codec::Encoder::default(), BytesMut::new());
        for _ in 0..rounds {
            encoder.encode(hostile::every_kind(), &mut frames);
        }
        frames.to_vec()
    };
    let (one, two) = (encoded(1), encoded(2));
    let cut = one[..one.len() - 1].to_vec();
    vec![one, two, cut, vec![0], vec![0xff, 0xff, 0xff, 0xff, 0x0f]]
}

/// A question with bytes behind it, every answer, one from the future, and frames that are too long.
fn relays() -> Vec<Vec<u8>> {
    let shard = ShardName::parse("prod-s1").expect("a name");
    let open = codec::encode_relay_open(&RelayOpen { shard, connect_within: Duration::from_secs(10) });
    let answers = RelayRefusal::ALL.into_iter().map(Err).chain([Ok(())]);
    let answers = answers.map(|answer| codec::encode_relay_opened(answer).to_vec());
    let asked = [&open[..], b"GET / HTTP/1.1\r\n\r\n"].concat();
    [asked, vec![2, 8, 99], vec![0], vec![0x81, 0x04], vec![0x80, 0x80], vec![9, 1]]
        .into_iter()
        .chain(answers)
        .collect()
}

fn example(name: &str) -> Vec<u8> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../ops/config").join(name);
    fs::read(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// Programs of steps: the hostile peer greets, then says each kind once, as it stands on the wire, or fills the table.
fn steps(target: &str) -> Vec<Vec<u8>> {
    let hostile = |act: &[u8]| [if target == "mesh" { &[1, 11][..] } else { &[8] }, act].concat();
    let frame = |message: &_| {
        let body = codec::encode(message).to_vec();
        let len = u16::try_from(body.len()).unwrap_or(u16::MAX).to_le_bytes();
        hostile(&[&[5], &len[..], &body[..]].concat())
    };
    let kinds = hostile::every_kind();
    let (hello, others) = kinds.split_first().expect("a hello comes first");
    let all = kinds.iter().flat_map(frame).collect();
    let floods = hostile::floods();
    let floods = floods.iter().map(|flood| [hello].into_iter().chain(flood).flat_map(frame).collect());
    others.iter().map(|message| [frame(hello), frame(message)].concat()).chain([all]).chain(floods).collect()
}

const MINIMAL: &[u8] = b"[node]\nid = \"a\"\nregion = \"r\"\n[discovery]\nfile = \"discovery.toml\"\n";

const OVERLAID: &[u8] =
    b"[node]\nid = \"a\"\nregion = \"r\"\n\0SHARDGATE_DISCOVERY__FILE=/etc/discovery.toml\0\
SHARDGATE_FRONTEND__LISTEN=127.0.0.1:8000,[::1]:8000\0admin=[]\0pages.dir=pages\0log.access=/var/log/a.log\0\
backend.redispatch=off\0shutdown.drain=0s";

const MESHED: &[u8] = b"[node]\nid = \"a\"\nregion = \"r\"\n[discovery]\nfile = \"discovery.toml\"\n[mesh]\n\
ca = \"ca.pem\"\ncert = \"cert.pem\"\nkey = \"key.pem\"\n[pages]\n503 = \"pages/503.html\"\n[[admin]]\n\
listen = \"127.0.0.1:8405\"\nserve = [\"health\", \"metrics\"]\n";

const BY_CONSUL: &[u8] = b"[node]\nid = \"a\"\nregion = \"r\"\nenvironment = \"prod\"\n[consul]\naddress = \"unix:///run/consul.sock\"\n\
datacenters = [\"prod-b\"]\nremote_address = \"wan\"\nmax_stale = \"3s\"\nstate_file = \"off\"\nadvertise = \"10.0.0.1\"\ncheck_ttl = \"5s\"\n\
standalone_service = \"off\"\n[[pools]]\nname = \"jigasi\"\npaths = [\"/jigasi/\"]\nservice = \"jigasi\"\n";

/// A list of Consul's each line, behind the letter that says which.
const LISTS: [&str; 4] = [
    concat!(
        "s[{\"ID\":\"5f\",\"Node\":\"n1\",\"Address\":\"10.0.0.1\",\"Datacenter\":\"prod-east\",\"ServiceID\":\"prod-s1\",\"ServiceName\":\"signal\",",
        "\"ServiceTags\":[\"prod\",\"release-3630\",\"shard-s1\"],\"ServiceAddress\":\"\",\"ServicePort\":5280,",
        "\"ServiceMeta\":{\"shard\":\"s1\",\"shard_id\":\"21\",\"release_number\":\"3630\",\"http_backend_port\":\"8443\"},",
        "\"ServiceTaggedAddresses\":{\"lan\":{\"Address\":\"10.0.0.2\",\"Port\":1},\"wan\":{\"Address\":\"192.0.2.1\",\"Port\":1}}}]\n",
        "r[{\"Key\":\"releases/prod/live\",\"Value\":\"cmVsZWFzZS0zNjMw\"},{\"Key\":\"releases/prod/tenant/acme\",\"Value\":\"cmVsZWFzZS0x\"}]\n",
        "t[{\"Key\":\"shard-states/prod/s1\",\"Value\":\"ZHJhaW4=\"},{\"Key\":\"shard-states/prod/\",\"Value\":null}]",
    ),
    concat!(
        "n[{\"Node\":\"n1\",\"Address\":\"10.0.0.1\",\"Datacenter\":\"prod-west\",\"ServiceID\":\"prod-shardgate-a\",\"ServiceTags\":null,\"ServicePort\":1024,",
        "\"ServiceMeta\":{\"shardgate_node\":\"a\",\"shardgate_peer_port\":\"1024\",\"shardgate_region\":\"west\"},\"ServiceTaggedAddresses\":null}]\n",
        "p[{\"Address\":\"10.0.0.1\",\"Datacenter\":\"x\",\"ServiceID\":\"h\",\"ServiceTags\":[],\"ServiceMeta\":{\"shardgate_peer_port\":\"0\"}}]\n",
        "l[{\"Key\":\"banlists/prod/exact/a/b\",\"Value\":\"YmFu\"}]\nb[{\"Key\":\"bans/prod/room/x\",\"Value\":\"YWxsb3c=\"}]",
    ),
    concat!(
        "a[{\"Address\":\"10.0.0.1\",\"Datacenter\":\"prod-east\",\"ServiceID\":\"a\",\"ServiceTags\":[\"standalone-x\"],\"ServiceMeta\":{\"shard\":\"x\"}}]\n",
        "j[{\"Address\":\"::1\",\"Datacenter\":\"prod-east\",\"ServiceID\":\"j\",\"ServicePort\":80,\"ServiceTags\":[],\"ServiceMeta\":{}}]",
    ),
    "c[{\"Key\":\"signal-report/prod/s1\",\"Value\":\"eyJyb29tX2NlbnN1cyI6W3sicm9vbV9uYW1lIjoiYSIsInBhcnRpY2lwYW50cyI6MX1dfQ==\"}]",
];

const COOKIES: [&str; 8] = [
    "JSESSIONID\nlang=en; JSESSIONID=2F7A1C; theme=dark\nJSESSIONID=other",
    "SID\nsid=1; XSID=2; SIDX=3; SI D=4; =5; SID",
    "SID\nSID=\"a b;c\"",
    "SID\nSID=; SID=1",
    "SID\nSID=old; Path=/\nSID=new; Secure; HttpOnly\nlang=en",
    "SID\n SID = a=b== ;\t;",
    "not a name\nSID=1,SID=2",
    "__Host-s\n__Host-s=\u{e9}\u{203a}",
];

/// Pipelined requests, and a few of the ways to smuggle one.
const REQUESTS: [&str; 14] = [
    "GET / HTTP/1.1\r\nHost: a\r\n\r\n",
    "\r\nPOST /x?y HTTP/1.1\r\nHost: a:80\r\nContent-Length: 3\r\n\r\nabcGET / HTTP/1.0\r\n\r\n",
    "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n3;x=\"y\"\r\nabc\r\n0\r\nX-Sum: 1\r\n\r\n",
    "GET / HTTP/1.1\r\nHost: a\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n\u{1}\u{2}",
    "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: gzip, chunked\r\n\r\n",
    "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding:\u{b}chunked\r\nContent-Length: 1\r\n\r\nx",
    "GET / HTTP/1.1\r\nHost: a\r\nX: y\r\n z\r\n\r\n",
    "GET / HTTP/1.1\nHost: a\n\n",
    "GET / HTTP/1.1\r\nHost : a\r\n\r\n",
    "GET http://a/ HTTP/2.0\r\nHost: a\r\nHost: b\r\n\r\n",
    "PUT / HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 05, 5\r\n\r\nabcde",
    "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n2;\nxx\r\n4c\r\n0\r\n\r\n",
    "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n0\r\nContent-Length: 5\r\n\r\n",
];

const PROXY_LINES: [&str; 6] = [
    "PROXY TCP4 192.0.2.1 192.0.2.2 40000 443\r\nGET / HTTP/1.1\r\n\r\n",
    "PROXY TCP6 2001:db8::1 ::ffff:192.0.2.2 0 65535\r\n",
    "PROXY UNKNOWN\r\n",
    "PROXY UNKNOWN ::1 ::1 1 1\r\n",
    "PROXY TCP4 192.0.2.1 192.0.2.2 40000",
    "GET / HTTP/1.1\r\n\r\n",
];

/// What follows the signature of version 2: TCP over both families, with a checksum, a health check, and a unix socket cut short.
const PROXY_BINARY: [&[u8]; 5] = [
    b"\x21\x11\0\x0c\xc0\0\x02\x01\xc0\0\x02\x02\0\x50\x01\xbb",
    b"\x21\x21\0\x29\x20\x01\x0d\xb8\0\0\0\0\0\0\0\0\0\0\0\x01\0\0\0\0\0\0\0\0\0\0\xff\xff\xc0\0\x02\x02\0\x50\x01\xbb\x01\0\x02h2",
    b"\x21\x11\0\x13\xc0\0\x02\x01\xc0\0\x02\x02\0\x50\x01\xbb\x03\0\x04\0\0\0\0",
    b"\x20\0\0\0",
    b"\x21\x31\0\xd8/run/a.sock",
];

const TARGETS: [&str; 18] = [
    "/Foo\nmeet.example.com",
    "/acme/Foo",
    "/acme/",
    "*",
    "//acme/foo",
    "/static/x.js",
    "/acme/xmpp-websocket?room=Foo&x=1",
    "/http-bind?room=foo;bar?x",
    "/http-bind?room=&room=foo",
    "/foo%2525?release=release-1",
    "/x,acme/foo?stick=true",
    "/about/health?room=x",
    "/acme/_unlock?room=foo",
    "/r1-s1/xmpp-websocket?room=foo",
    "/http-bind?room=foo_r1-s2,bar_r2-s4",
    "/acme/conference-request/v1?room=foo\nfocus.example.com",
    "/robots.txt?release=&room=foo",
    "http://a/b?room=c",
];
