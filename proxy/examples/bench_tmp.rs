use shardgate_discovery::*;
use shardgate_peering::core::{Config, PeerId, ShardName};
use shardgate_peering::Mesh;
use shardgate_proxy::access_log::AccessLogTarget;
use shardgate_proxy::routing_key::Routing;
use shardgate_proxy::worker::*;
use shardgate_proxy::{Limits, Pages};
use std::num::NonZeroUsize;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
#[global_allocator]
static A: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;
async fn origin(mut s: tokio::net::TcpStream) {
    let mut buf = Vec::with_capacity(8192);
    let answer = format!("HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nX-Jitsi-Shard: s1\r\nContent-Length: 200\r\n\r\n{}", "x".repeat(200));
    loop {
        match s.read_buf(&mut buf).await { Ok(0) | Err(_) => return, Ok(_) => {} }
        while let Some(at) = buf.windows(4).position(|w| w == b"\r\n\r\n") {
            let ws = buf[..at].windows(9).any(|w| w.eq_ignore_ascii_case(b"websocket"));
            buf.drain(..at + 4);
            if ws {
                s.write_all(b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n").await.unwrap();
                buf = Vec::new();
                let mut b = [0u8; 256];
                loop { match s.read(&mut b).await { Ok(0) | Err(_) => return, Ok(n) => { if s.write_all(&b[..n]).await.is_err() { return } } } }
            }
            if s.write_all(answer.as_bytes()).await.is_err() { return }
        }
    }
}
fn main() {
    let args: Vec<String> = std::env::args().collect();
    let rt = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    rt.block_on(async {
        match args[1].as_str() {
            "origin" => {
                let l = tokio::net::TcpListener::bind(&args[2]).await.unwrap();
                loop { let (s, _) = l.accept().await.unwrap(); s.set_nodelay(true).unwrap(); tokio::spawn(origin(s)); }
            }
            "proxy" => {
                let mesh = Mesh::alone(Config::new(PeerId::parse("me").unwrap(), 1)).unwrap();
                let mut b = SnapshotBuilder::new().live_release(ReleaseName::parse("live").unwrap());
                for n in 0..8u32 {
                    b = b.shard(Shard { name: ShardName::parse(&format!("prod-s{n}")).unwrap(), id: n, region: RegionName::parse("here").unwrap(), release: ReleaseName::parse("live").unwrap(), address: format!("127.0.0.{}:{}", n + 1, args[3]).parse().unwrap(), state: ShardState::Ready, weight: 256 });
                }
                let (_p, h) = Publisher::new("x", b.build().unwrap());
                let c = WorkersConfig { threads: NonZeroUsize::new(args[4].parse().unwrap()).unwrap(), frontends: vec![FrontendConfig { name: "http".into(), address: args[2].parse().unwrap(), forwarded_proto: ForwardedProto::Https }], region: RegionName::parse("here").unwrap(), host: "node".into(), limits: Limits::default(), routing: Routing::default(), pages: Pages::default(), access_log: AccessLogTarget::File("/tmp/bench-access.log".into()) };
                let r = Workers::start(c, &mesh.handle(), &h.subscribe()).unwrap();
                eprintln!("up {}", std::process::id());
                loop { tokio::time::sleep(std::time::Duration::from_secs(30)).await; eprintln!("{:?}", r.counters().snapshot()); }
            }
            "tunnels" => {
                let n: usize = args[3].parse().unwrap();
                let mut all = Vec::new();
                for i in 0..n {
                    let mut s = tokio::net::TcpStream::connect(&args[2]).await.unwrap();
                    s.write_all(format!("GET /xmpp-websocket?room=room{} HTTP/1.1\r\nHost: meet.example.com\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nUser-Agent: Mozilla/5.0 whatever\r\nSec-WebSocket-Key: x3JJHMbDL1EzLkh9GBhXDw==\r\n\r\n", i / 3).as_bytes()).await.unwrap();
                    let mut buf = Vec::new();
                    while !buf.ends_with(b"\r\n\r\n") { assert!(s.read_buf(&mut buf).await.unwrap() > 0); }
                    s.write_all(&[b'x'; 200]).await.unwrap();
                    let mut got = [0; 200];
                    s.read_exact(&mut got).await.unwrap();
                    all.push(s);
                }
                println!("opened {n}");
                if args.len() > 4 {
                    let start = std::time::Instant::now();
                    let mut count = 0u64;
                    while start.elapsed().as_secs() < 5 {
                        for chunk in all.chunks_mut(64).take(16) {
                            for s in chunk.iter_mut() { s.write_all(&[b'x'; 200]).await.unwrap(); }
                            for s in chunk.iter_mut() { let mut got = [0; 200]; s.read_exact(&mut got).await.unwrap(); count += 1; }
                        }
                    }
                    println!("round trips {count}");
                }
                tokio::time::sleep(std::time::Duration::from_secs(3600)).await;
            }
            _ => panic!(),
        }
    });
}
