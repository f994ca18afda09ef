//! The benches' clients: `bench_load http|tenants|rooms|tunnels TARGET COUNT`, commanded on standard input.

use std::io;

use shardgate_tests::bench::{http_load, room_load, site, tunnel_load};

fn main() -> io::Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [kind, target, count] = &arguments[..] else {
        return Err(io::Error::other("expected: bench_load http|tenants|rooms|tunnels TARGET COUNT"));
    };
    let target = target.parse().map_err(io::Error::other)?;
    let count = count.parse().map_err(io::Error::other)?;
    match kind.as_str() {
        "http" => http_load::obey(target, count, http_load::target, io::stdin().lock(), io::stdout().lock()),
        "tenants" => http_load::obey(target, count, site::target, io::stdin().lock(), io::stdout().lock()),
        "rooms" => room_load::obey(target, count, io::stdin().lock(), io::stdout().lock()),
        "tunnels" => tunnel_load::obey(target, count, io::stdin().lock(), io::stdout().lock()),
        _ => Err(io::Error::other(format!("expected http, tenants, rooms or tunnels, found {kind:?}"))),
    }
}
