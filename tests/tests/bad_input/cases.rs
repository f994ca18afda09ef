//! The inputs.

use prost::Message as _;
use shardgate_proto::peer as wire;

/// They follow a minimal configuration, unless they begin with their own `[node]`.
pub(crate) const CONFIGURATIONS: &[&str] = &[
    "[node]\nid = \"Proxy_1\"\nregion = \"r\"\n[discovery]\nfile = \"discovery.toml\"\n",
    "[node]\nid = \"a\"\n[discovery]\nfile = \"discovery.toml\"\n",
    "[frontent]\n",
    "[frontend]\nlistn = []\n",
    "[frontend]\nlisten = [\"localhost:80\"]\n",
    "[frontend]\nworkers = 0\n",
    "[frontend]\nheader_timeout = \"ten\"\n",
    "[frontend]\nmax_header_size = \"64 potatoes\"\n",
    "[backend]\nretries = 99\n",
    "[stick_table]\nsize = 0\n",
    "[mesh]\nca = \"ca.pem\"\ncert = \"a.pem\"\nkey = \"a.key\"\n",
    "[routing]\ncompat = \"HAProxy\"\n",
    "[[pools]]\nname = \"chat\"\npaths = [\"/chat/\"]\nservers = [\"10.0.0.1:80\"]\nstick_on_cookie = \"session id\"\n",
    "[[pools]]\nname = \"chat\"\npaths = [\"/chat/\"]\nservers = [\"10.0.0.1:80\"]\nstick_on_coookie = \"SID\"\n",
    "[routing]\nroom_parameter = \"release\"\n",
    "[routing]\nroom_parameter = \"a&b\"\n",
    "[routing]\nstick_flag = \"stick\"\n",
    "[routing]\ndenied_referers = \"spam.example.com\"\n",
    "[routing]\nservice_hosts = [\"signal api\"]\n",
    "[log]\nlevel = \"inof\"\n",
    "[[admin]]\nlisten = \"127.0.0.1:8405\"\nserve = [\"metric\"]\n",
    "[pages]\n503 = \"nowhere.html\"\n",
];

pub(crate) const DISCOVERY_FILES: &[&str] = &[
    "live_release = 3630\n",
    "shrads = []\n",
    "[[shards]]\nname = \"s 1\"\nid = 1\nregion = \"r\"\nrelease = \"release-1\"\naddress = \"127.0.0.1:1\"\n",
    "[[shards]]\nname = \"s1\"\nid = 1\nregion = \"r\"\nrelease = \"release-1\"\naddress = \"somewhere\"\n",
    "[[shards]]\nname = \"s1\"\nid = 1\nregion = \"r\"\nrelease = \"release-1\"\naddress = \"127.0.0.1:1\"\nstate = \"up\"\n",
    "[[shards]]\nname = \"s1\"\nid = 1\nregion = \"r\"\nrelease = \"release-1\"\naddress = \"127.0.0.1:1\"\nweight = 257\n",
    "[[shards]]\nname = \"s1\"\nid = 1\nregion = \"r\"\nrelease = \"release-1\"\n",
    "[[peers]]\nid = \"a\"\nregion = \"r\"\naddress = \"127.0.0.1:1\"\n[[peers]]\nid = \"a\"\nregion = \"r\"\naddress = \"127.0.0.1:2\"\n",
    "[pins]\nAcme = \"release-1\"\n",
    "[bans]\nexact = [{ pattern = \"a\" }]\n",
    "[[shards\n",
];

/// (bytes, as they are shown).
pub(crate) fn requests() -> Vec<(Vec<u8>, String)> {
    let text = |text: &str| (text.as_bytes().to_vec(), text.to_owned());
    let long = |len: usize| "x".repeat(len);
    vec![
        text("hello\r\n\r\n"),
        text("GET / HTTP/9.9\r\n\r\n"),
        text("GET /a b HTTP/1.1\r\nHost: a\r\n\r\n"),
        text("GET / HTTP/1.1\r\nHost: a\r\nbroken header\r\n\r\n"),
        text("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nab"),
        text("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: gzip\r\n\r\n"),
        text("GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n"),
        text("CONNECT a:443 HTTP/1.1\r\nHost: a\r\n\r\n"),
        text("GET / HTTP/1.1\r\nHost: a\r\n"),
        (
            format!("GET /http-bind?room={} HTTP/1.1\r\nHost: a\r\n\r\n", long(1_100)).into_bytes(),
            "GET /http-bind?room=(1,100 characters) HTTP/1.1".to_owned(),
        ),
        (
            format!("GET / HTTP/1.1\r\nHost: a\r\nX: {}\r\n\r\n", long(40_000)).into_bytes(),
            "GET / with a header of 40,000 characters".to_owned(),
        ),
        (
            format!("GET / HTTP/1.1\r\nHost: a\r\n{}\r\n", "X: y\r\n".repeat(300)).into_bytes(),
            "GET / with 300 headers".to_owned(),
        ),
        text("GET /http-bind?room=r HTTP/1.1\r\nHost: a\r\n\r\n"),
    ]
}

fn envelope(message: wire::envelope::Message) -> Vec<u8> {
    wire::Envelope { message: Some(message) }.encode_to_vec()
}

fn items(items: wire::Items) -> Vec<u8> {
    envelope(wire::envelope::Message::Correction(wire::Correction { items: Some(items) }))
}

/// (what it is, its body).
pub(crate) fn frames() -> Vec<(&'static str, Vec<u8>)> {
    use wire::envelope::Message as W;
    let lease = |key: String| {
        envelope(W::LeaseReport(wire::LeaseReport { keys: vec![key], remaining: vec![1], held: Vec::new() }))
    };
    let good = wire::Items {
        shards: vec!["s1".into()],
        origins: vec!["a".into()],
        keys: vec!["k".into()],
        remaining: vec![1],
        shard: vec![1],
        created: vec![1],
        ..wire::Items::default()
    };
    let compare = |range| {
        let content = Some(wire::compare_part::Content::All(vec![0; 4]));
        let parts = vec![wire::ComparePart { range, content }];
        envelope(W::Compare(wire::Compare { parts, ..wire::Compare::default() }))
    };
    vec![
        ("40 bytes of 0xff", vec![0xff; 40]),
        ("a message of a kind from the future", vec![0xa2, 0x38, 0x00]),
        ("a lease of an empty key", lease(String::new())),
        ("a lease of a key of 2,000 bytes", lease("x".repeat(2_000))),
        (
            "an update with 2,000 items",
            items(wire::Items { keys: vec![String::new(); 2_000], ..good.clone() }),
        ),
        ("an entry on shard \"a b\"", items(wire::Items { shards: vec!["a b".into()], ..good.clone() })),
        (
            "an entry of origin \"Proxy\"",
            items(wire::Items { origins: vec!["Proxy".into()], ..good.clone() }),
        ),
        ("an entry on the ninth of one shard", items(wire::Items { shard: vec![9], ..good.clone() })),
        ("an entry for a reason of number 7", items(wire::Items { kinds: vec![0x70], ..good.clone() })),
        ("an item that is neither entry nor renewal", items(wire::Items { kinds: vec![3], ..good.clone() })),
        ("two stamps for one entry", items(wire::Items { created: vec![1, 2], ..good })),
        ("a question about range 2", compare(2)),
        (
            "an answer with neither entry nor refusal",
            envelope(W::ClaimAnswer(wire::ClaimAnswer {
                id: 1,
                key: "k".into(),
                ..wire::ClaimAnswer::default()
            })),
        ),
    ]
}
