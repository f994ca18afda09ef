//! The shards behind the benches' subjects: `bench_origin ADDRESS...`.

use std::io::{self, Write};
use std::net::SocketAddr;

use shardgate_tests::bench::origin;

fn main() -> io::Result<()> {
    let addresses = std::env::args().skip(1).map(|argument| argument.parse());
    let addresses: Vec<SocketAddr> = addresses.collect::<Result<_, _>>().map_err(io::Error::other)?;
    origin::serve(&addresses, || {
        // Whoever started it may not be listening.
        writeln!(io::stdout(), "ready").ok();
    })
}
