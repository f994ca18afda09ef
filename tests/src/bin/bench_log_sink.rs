//! Counts the lines of HAProxy's access log: `bench_log_sink ADDRESS`, asked on standard input.

use std::io;

use shardgate_tests::bench::log_sink;

fn main() -> io::Result<()> {
    match &std::env::args().skip(1).collect::<Vec<_>>()[..] {
        [address] => {
            let address = address.parse().map_err(io::Error::other)?;
            log_sink::obey(address, io::stdin().lock(), io::stdout().lock())
        }
        _ => Err(io::Error::other("expected: bench_log_sink ADDRESS")),
    }
}
