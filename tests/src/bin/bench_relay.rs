//! The limit of every proxy: `bench_relay LISTEN SHARD...`.

use std::io;
use std::net::SocketAddr;

use shardgate_tests::bench::relay;

fn main() -> io::Result<()> {
    let addresses = std::env::args().skip(1).map(|argument| argument.parse());
    let addresses: Vec<SocketAddr> = addresses.collect::<Result<_, _>>().map_err(io::Error::other)?;
    match &addresses[..] {
        [listen, shards @ ..] if !shards.is_empty() => relay::serve(*listen, shards, || ()),
        _ => Err(io::Error::other("expected: bench_relay LISTEN SHARD...")),
    }
}
