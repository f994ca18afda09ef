//! The benches' clients: `bench_load LOAD TARGET SHAPE`, commanded on standard input.

use std::io;

use shardgate_tests::bench::h2_load::{self, Shape};
use shardgate_tests::bench::wire::{Sessions, Transport};
use shardgate_tests::bench::{handshake_load, http_load, room_load, site, tls_tunnel_load, tunnel_load};

const LOADS: &str = "http, tenants, tls, handshakes, resumptions, h2, rooms, tunnels or tls-tunnels";

fn main() -> io::Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [load, target, shape] = &arguments[..] else {
        return Err(io::Error::other("expected: bench_load LOAD TARGET CONNECTIONS[xSTREAMS]"));
    };
    let target = target.parse().map_err(io::Error::other)?;
    let (count, streams) = shape.split_once('x').unwrap_or((shape, "1"));
    let count = count.parse().map_err(io::Error::other)?;
    let shape = Shape { connections: count, streams: streams.parse().map_err(io::Error::other)? };
    let (input, output) = (io::stdin().lock(), io::stdout().lock());
    match load.as_str() {
        "http" => http_load::obey(target, count, http_load::target, Transport::Plain, input, output),
        "tenants" => http_load::obey(target, count, site::target, Transport::Plain, input, output),
        "tls" => {
            let tls = Transport::tls("http/1.1", Sessions::Forgotten)?;
            http_load::obey(target, count, site::target, tls, input, output)
        }
        "handshakes" => handshake_load::obey(target, count, site::target, Sessions::Forgotten, input, output),
        "resumptions" => handshake_load::obey(target, count, site::target, Sessions::Kept, input, output),
        "h2" => h2_load::obey(target, shape, site::target, input, output),
        "rooms" => room_load::obey(target, count, input, output),
        "tunnels" => tunnel_load::obey(target, count, input, output),
        "tls-tunnels" => tls_tunnel_load::obey(target, count, input, output),
        _ => Err(io::Error::other(format!("expected {LOADS}, found {load:?}"))),
    }
}
