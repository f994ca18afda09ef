//! A shardgate with one shard: one of the two servers.

use std::fs;
use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use super::upstream::{Kind, Upstream};
use crate::bench::process::without_overrides;

const STARTS_WITHIN: Duration = Duration::from_secs(15);
const LOOK_EVERY: Duration = Duration::from_millis(10);

/// What a client is given before its head or a part of its body is late.
pub(super) const PATIENCE: &str = "1s";

/// A running pair.
pub(super) struct Site {
    pub(super) kind: Kind,
    pub(super) upstream: Upstream,
    child: Child,
    _folder: tempfile::TempDir,
}

impl Drop for Site {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

impl Site {
    /// Starts both, and waits until they are ready.
    pub(super) fn start(kind: Kind, shardgate: &Path) -> io::Result<Self> {
        let folder = tempfile::tempdir()?;
        let upstream = Upstream::start(kind, folder.path())?;
        let discovery = folder.path().join("discovery.toml");
        let shard = Upstream::shard(kind);
        fs::write(
            &discovery,
            format!(
                "live_release = \"r\"\n[[shards]]\nname = \"{}\"\nid = 1\nregion = \"here\"\nrelease = \"r\"\naddress = \"{shard}\"\n",
                kind.name()
            ),
        )?;
        let file = folder.path().join("shardgate.toml");
        let (frontend, admin) = (Self::frontend_of(kind), kind.address(1, 18405));
        fs::write(
            &file,
            format!(
                "[node]\nid = \"conformance\"\nregion = \"here\"\n\
                 [frontend]\nlisten = [\"{frontend}\"]\nworkers = 1\nheader_timeout = \"{PATIENCE}\"\n\
                 client_timeout = \"{PATIENCE}\"\n\
                 [discovery]\nfile = {:?}\n\
                 [[admin]]\nlisten = \"{admin}\"\nserve = [\"health\"]\n",
                discovery.display().to_string()
            ),
        )?;
        let log = folder.path().join("shardgate.log");
        let output = fs::File::create(&log)?;
        let mut command = Command::new(shardgate);
        without_overrides(&mut command);
        command.args(["serve", "--config"]).arg(&file).stdin(Stdio::null());
        let child = command.stdout(output.try_clone()?).stderr(output).spawn()?;
        let mut site = Self { kind, upstream, child, _folder: folder };
        let deadline = Instant::now() + STARTS_WITHIN;
        while !is_ready(admin) {
            if site.child.try_wait()?.is_some() || Instant::now() > deadline {
                let log = fs::read_to_string(log).unwrap_or_default();
                return Err(io::Error::other(format!("shardgate is not ready:\n{log}")));
            }
            std::thread::sleep(LOOK_EVERY);
        }
        Ok(site)
    }

    const fn frontend_of(kind: Kind) -> SocketAddr {
        kind.address(1, 18000)
    }

    /// Where clients connect to.
    pub(super) const fn frontend(&self) -> SocketAddr {
        Self::frontend_of(self.kind)
    }

    /// Whether shardgate is still there.
    pub(super) fn runs(&mut self) -> bool {
        matches!(self.child.try_wait(), Ok(None))
    }
}

fn is_ready(admin: SocketAddr) -> bool {
    let ask = || -> io::Result<bool> {
        let mut stream = TcpStream::connect(admin)?;
        stream.set_read_timeout(Some(Duration::from_secs(5)))?;
        write!(stream, "GET /haproxy_health HTTP/1.1\r\nHost: admin\r\nConnection: close\r\n\r\n")?;
        let mut text = String::new();
        stream.read_to_string(&mut text)?;
        Ok(text.starts_with("HTTP/1.1 200 "))
    };
    ask().unwrap_or(false)
}
