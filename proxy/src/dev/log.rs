//! The log of the four nodes: a file in the mesh's folder, since the terminal shows the status or the assertions.

use std::fs::File;
use std::io;
use std::path::Path;
use std::sync::Mutex;

use tracing_subscriber::EnvFilter;

/// What is logged unless `RUST_LOG` says otherwise.
const FILTER: &str = "info";

/// Sends everything that is logged from now on to `path`. No effect when a subscriber is set already.
pub fn to_file(path: &Path) -> io::Result<()> {
    let file = Mutex::new(File::create(path)?);
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new(FILTER));
    let subscriber =
        tracing_subscriber::fmt().with_env_filter(filter).with_ansi(false).with_writer(file).finish();
    tracing::subscriber::set_global_default(subscriber).ok();
    Ok(())
}
