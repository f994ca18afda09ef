//! The snapshot flips under load, and every request is decided by one snapshot.
//!
//! Snapshot `n` is known by its *mark*, `n` modulo [`MARKS`]: its live release, the release that it pins tenants to, the shards of
//! both, and what it bans and allows all carry it, and the server that answers tells the mark of the release that it belongs to.
//! So a pin of one snapshot with a ban of another is an answer that no snapshot gives.
//!
//! What a request got must be what one of these snapshots gives: the last one that this connection is known to have met (a
//! connection stays with its worker, and a worker does not go back), up to the last one published when the answer was there. The
//! next snapshot is published only when every connection has met one less than [`MARKS`] before it: no two of these have one mark.

use crate::harness::{Upstream, Wire, config, key, limits, name, shard};
use shardgate_discovery::{
    BanList, BanPattern, Publisher, ReleaseName, Shard, Snapshot, SnapshotBuilder, TenantName, Verdict,
};
use shardgate_peering::core::{Config, PeerId};
use shardgate_peering::{ClaimReason, Claimed, Mesh};
use shardgate_proxy::counters::Totals;
use shardgate_proxy::route::Why;
use shardgate_proxy::worker::Workers;
use shardgate_proxy::{Limits, PoolLimits};
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::JoinSet;

const FLIPS: u64 = 1_000;
const REQUESTS: u64 = 200_000;
const CLIENTS: u64 = 16;
const MARKS: u64 = 16;
/// So many requests without a flip say that a worker stays with an old snapshot.
const REQUESTS_BETWEEN_FLIPS_MAX: u64 = 100_000;

/// What a request is about. Those with a number are decided otherwise by the snapshot of that mark, or of that number.
#[derive(Debug, Clone, Copy)]
enum Ask {
    /// A page of nobody's tenant.
    Live,
    /// A page of a tenant with a pin.
    Pinned,
    /// A page of a room that all snapshots but those of this mark ban, of a tenant with a pin.
    AllowedBy(u64),
    /// A page of a room that only snapshots of this mark ban.
    BannedBy(u64),
    /// A page of a banned room, of a tenant that snapshots of this mark let in, and all pin.
    UnbannedBy(u64),
    /// A new conference that asks for the pinned release of this snapshot by its name: it is stored.
    Release { version: u64, client: u64, turn: u64 },
    /// A page whose path names the pinned shard of this snapshot.
    Shard(u64),
    /// The first join of a conference, of a tenant with a pin: it is stored.
    Join { client: u64, turn: u64 },
    /// Signaling of a conference whose shard is in every snapshot.
    Held,
}

/// What came of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Outcome {
    /// It was answered by the live release's server of this mark.
    Live(u64),
    /// By the pinned release's.
    Pinned(u64),
    /// By the server of the conference that stays.
    Steady,
    /// It was sent to the front page.
    Banned,
}

impl Ask {
    /// What `client` asks for in its `turn`, with an eye on what `latest` decides otherwise than its neighbours.
    fn of(client: u64, turn: u64, latest: u64) -> Self {
        let aim = latest + turn / 9 % 2;
        match turn % 9 {
            0 => Self::Live,
            1 => Self::Pinned,
            2 => Self::AllowedBy(aim % MARKS),
            3 => Self::BannedBy(aim % MARKS),
            4 => Self::UnbannedBy(aim % MARKS),
            5 => Self::Release { version: aim, client, turn },
            6 => Self::Shard(aim),
            7 => Self::Join { client, turn },
            _ => Self::Held,
        }
    }

    const fn kind(self) -> &'static str {
        match self {
            Self::Live => "live",
            Self::Pinned => "pinned",
            Self::AllowedBy(_) => "allowed",
            Self::BannedBy(_) => "banned",
            Self::UnbannedBy(_) => "unbanned",
            Self::Release { .. } => "release",
            Self::Shard(_) => "shard",
            Self::Join { .. } => "join",
            Self::Held => "held",
        }
    }

    fn target(self) -> String {
        match self {
            Self::Live => "/lobby".to_owned(),
            Self::Pinned => "/acme/lobby".to_owned(),
            Self::AllowedBy(mark) => format!("/acme/allowed{mark}"),
            Self::BannedBy(mark) => format!("/banned{mark}"),
            Self::UnbannedBy(mark) => format!("/vip{mark}/spam"),
            Self::Release { version, client, turn } => {
                format!("/new{client}x{turn}?release=pinned{version}")
            }
            Self::Shard(version) => format!("/pinned{version}-s/lobby"),
            Self::Join { client, turn } => format!("/acme/http-bind?room=join{client}x{turn}"),
            Self::Held => "/http-bind?room=held".to_owned(),
        }
    }

    /// What comes of it where snapshot `version` decides.
    const fn decided_by(self, version: u64) -> Outcome {
        let mark = version % MARKS;
        match self {
            Self::AllowedBy(allowed) | Self::UnbannedBy(allowed) if allowed != mark => Outcome::Banned,
            Self::BannedBy(banned) if banned == mark => Outcome::Banned,
            Self::Release { version: named, .. } | Self::Shard(named) if named != version => {
                Outcome::Live(mark)
            }
            Self::Live | Self::BannedBy(_) => Outcome::Live(mark),
            Self::Pinned
            | Self::AllowedBy(_)
            | Self::UnbannedBy(_)
            | Self::Release { .. }
            | Self::Shard(_)
            | Self::Join { .. } => Outcome::Pinned(mark),
            Self::Held => Outcome::Steady,
        }
    }
}

impl Outcome {
    const fn kind(self) -> &'static str {
        match self {
            Self::Live(_) => "live",
            Self::Pinned(_) => "pinned",
            Self::Steady => "steady",
            Self::Banned => "banned",
        }
    }
}

/// The servers of all marks.
struct Servers {
    live: Vec<Upstream>,
    pinned: Vec<Upstream>,
    steady: Upstream,
}

impl Servers {
    async fn start() -> Self {
        let mut servers =
            Self { live: Vec::new(), pinned: Vec::new(), steady: server("steady".to_owned()).await };
        for mark in 0..MARKS {
            servers.live.push(server(format!("live {mark}")).await);
            servers.pinned.push(server(format!("pinned {mark}")).await);
        }
        servers
    }

    fn snapshot(&self, version: u64) -> Snapshot {
        let mark = version % MARKS;
        let release = |kind: &str| ReleaseName::parse(&format!("{kind}{version}")).unwrap();
        let of_release = |kind: &str, servers: &[Upstream]| Shard {
            release: release(kind),
            ..shard(&format!("{kind}{version}-s"), servers[mark as usize].address)
        };
        let steady =
            Shard { release: ReleaseName::parse("steady").unwrap(), ..shard("steady", self.steady.address) };
        let tenant = |text: &str| TenantName::parse(text).unwrap();
        let pattern = |text: &str| BanPattern::parse(text).unwrap();
        let mut builder = SnapshotBuilder::new()
            .shard(of_release("live", &self.live))
            .shard(of_release("pinned", &self.pinned))
            .shard(steady)
            .live_release(release("live"))
            .pin(tenant("acme"), release("pinned"))
            .ban(BanList::Prefix, pattern("spam"), Verdict::Ban)
            .ban(BanList::UnbanPrefix, pattern(&format!("vip{mark}/")), Verdict::Allow)
            .ban(BanList::Exact, pattern(&format!("banned{mark}")), Verdict::Ban);
        for other in 0..MARKS {
            builder = builder.pin(tenant(&format!("vip{other}")), release("pinned"));
            if other != mark {
                builder = builder.ban(BanList::Exact, pattern(&format!("allowed{other}")), Verdict::Ban);
            }
        }
        builder.build().unwrap()
    }
}

/// A server that answers every request with its name.
async fn server(name: String) -> Upstream {
    Upstream::serve(move |mut stream| {
        let answer = format!("HTTP/1.1 200 OK\r\nContent-Length: 0\r\nX-Server: {name}\r\n\r\n");
        async move {
            while request(&mut stream).await {
                stream.write_all(answer.as_bytes()).await.unwrap();
            }
        }
    })
    .await
}

/// Reads one head; the proxy sends the next one only after the answer.
async fn request(stream: &mut TcpStream) -> bool {
    let mut read = Vec::with_capacity(1024);
    while !read.ends_with(b"\r\n\r\n") {
        if !matches!(stream.read_buf(&mut read).await, Ok(1..)) {
            return false;
        }
    }
    true
}

async fn ask(wire: &mut Wire, what: Ask) -> Outcome {
    wire.send(&format!("GET {} HTTP/1.1\r\nHost: meet\r\n\r\n", what.target())).await;
    let answer = wire.answer().await;
    if answer.status == 302 {
        assert_eq!(answer.header("location"), ["/"]);
        return Outcome::Banned;
    }
    assert_eq!(answer.status, 200, "{what:?}: {}", answer.head);
    let server = answer.header("x-server")[0];
    let mark = |text: &str| text.parse().unwrap();
    match server.split_once(' ') {
        Some(("live", text)) => Outcome::Live(mark(text)),
        Some(("pinned", text)) => Outcome::Pinned(mark(text)),
        _ => {
            assert_eq!(server, "steady");
            Outcome::Steady
        }
    }
}

/// How far the flips are. Behind one lock: who knows the number of a snapshot knows that it is published.
struct Flips {
    publisher: Publisher,
    version: u64,
    requests: u64,
    requests_since: u64,
    /// Of each connection, the last snapshot that it is known to have met.
    met: Vec<u64>,
    outcomes: BTreeMap<(&'static str, &'static str), u64>,
}

impl Flips {
    /// Counts a request and checks what came of it; flips when it is time.
    fn answered(&mut self, client: usize, what: Ask, outcome: Outcome, servers: &Servers) {
        let met = self.met[client];
        let fitting: Vec<u64> =
            (met..=self.version).filter(|version| what.decided_by(*version) == outcome).collect();
        let expected = (met..=self.version).map(|version| (version, what.decided_by(version)));
        assert!(
            !fitting.is_empty(),
            "{what:?} met {outcome:?}, which no snapshot says: {:?}",
            expected.collect::<Vec<_>>()
        );
        if let (Outcome::Live(_) | Outcome::Pinned(_), [version]) = (outcome, &fitting[..]) {
            self.met[client] = *version;
        }
        *self.outcomes.entry((what.kind(), outcome.kind())).or_default() += 1;
        self.requests += 1;
        self.requests_since += 1;
        let next = self.version + 1;
        let everybody_followed = self.met.iter().all(|met| next - met < MARKS);
        if next <= 1 + FLIPS && self.requests_since >= REQUESTS / FLIPS && everybody_followed {
            self.publisher.publish(servers.snapshot(next));
            self.version = next;
            self.requests_since = 0;
        }
        assert!(self.requests_since < REQUESTS_BETWEEN_FLIPS_MAX, "{next} comes nowhere: {:?}", self.met);
    }

    /// Whether a connection has done its part: it has met the last snapshot, too.
    fn is_over(&self, client: usize) -> bool {
        self.requests >= REQUESTS && self.met[client] == 1 + FLIPS
    }

    /// Looks at the whole at its end; `totals` are what the node has counted.
    fn check(&self, totals: &Totals) {
        assert_eq!(self.version, 1 + FLIPS);
        assert!(self.requests >= REQUESTS, "{} requests", self.requests);
        // Everything that can come of each kind came often.
        let outcomes: Vec<_> = self.outcomes.keys().copied().collect();
        let expected = [
            ("allowed", "banned"),
            ("allowed", "pinned"),
            ("banned", "banned"),
            ("banned", "live"),
            ("held", "steady"),
            ("join", "pinned"),
            ("live", "live"),
            ("pinned", "pinned"),
            ("release", "live"),
            ("release", "pinned"),
            ("shard", "live"),
            ("shard", "pinned"),
            ("unbanned", "banned"),
            ("unbanned", "pinned"),
        ];
        assert_eq!(outcomes, expected);
        assert!(self.outcomes.values().all(|count| *count >= 1_000), "{:?}", self.outcomes);
        // The node says the same: no error, no second way.
        let banned = self.outcomes.iter().filter(|((_, outcome), _)| *outcome == "banned");
        let banned = banned.map(|(_, count)| count).sum();
        assert_eq!((totals.requests, totals.rescues), (self.requests, banned));
        let fallbacks = totals.decisions[Why::Fallback as usize];
        assert_eq!((totals.responses[5], totals.redispatches, fallbacks), (0, 0, 0));
    }
}

async fn client(client: u64, address: SocketAddr, servers: Arc<Servers>, flips: Arc<Mutex<Flips>>) {
    let mut wire = Wire::connect(address).await;
    let index = client as usize;
    // Each begins elsewhere in the round of kinds.
    for turn in client.. {
        let latest = flips.lock().unwrap().version;
        let what = Ask::of(client, turn, latest);
        let outcome = ask(&mut wire, what).await;
        let mut flips = flips.lock().unwrap();
        flips.answered(index, what, outcome, &servers);
        if flips.is_over(index) {
            return;
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn each_request_is_decided_by_one_snapshot() {
    let servers = Arc::new(Servers::start().await);
    let mesh = Mesh::alone(Config::new(PeerId::parse("me").unwrap(), 1)).unwrap();
    let (publisher, handle) = Publisher::new("flips", servers.snapshot(1));
    // Few connections lie idle: there are 33 servers, and all sockets are this process's.
    let limits = Limits { pool: PoolLimits { idle_per_shard: 4, ..PoolLimits::default() }, ..limits() };
    let running =
        Workers::start(config(limits), &mesh.handle(), &mesh.relays(), &handle.subscribe()).unwrap();
    let claimed = mesh.handle().claim(key("held"), name("steady"), ClaimReason::Join).await;
    assert_eq!(claimed, Claimed::Stick { shard: name("steady") });
    let flips = Arc::new(Mutex::new(Flips {
        publisher,
        version: 1,
        requests: 0,
        requests_since: 0,
        met: vec![1; CLIENTS as usize],
        outcomes: BTreeMap::new(),
    }));
    let address = running.addresses()[0];
    let mut clients = JoinSet::new();
    for number in 0..CLIENTS {
        clients.spawn(client(number, address, Arc::clone(&servers), Arc::clone(&flips)));
    }
    // The first that fails ends the test, and the others with it.
    while let Some(ended) = clients.join_next().await {
        ended.unwrap();
    }
    assert_eq!(handle.status().changes, FLIPS);
    flips.lock().unwrap().check(&running.counters().snapshot());
    running.shutdown(Duration::from_secs(1)).await;
    mesh.shutdown().await;
}
