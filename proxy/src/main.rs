//! `shardgate`, the daemon.

use std::process::ExitCode;

/// Thousands of connections of few sizes come and go: jemalloc's size classes keep what idle tunnels leave behind compact.
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

fn main() -> ExitCode {
    shardgate_proxy::cli::run()
}
