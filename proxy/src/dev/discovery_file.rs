//! The discovery file of the dev mesh: written by `dev`, edited by people, watched by every node.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::fs;
use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use super::shard::ShardSpec;

/// What the file says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DiscoveryFile {
    path: PathBuf,
    /// The release that gets new conferences.
    pub live_release: &'static str,
    /// Tenant and the release it is pinned to.
    pub pins: BTreeMap<&'static str, &'static str>,
    /// Shards and where they answer.
    pub shards: Vec<(ShardSpec, SocketAddr)>,
    /// Nodes: name, region, and where the others reach it.
    pub peers: Vec<(&'static str, &'static str, SocketAddr)>,
}

impl DiscoveryFile {
    /// Nothing yet, to be written to `path`.
    pub fn at(path: PathBuf, live_release: &'static str) -> Self {
        Self { path, live_release, pins: BTreeMap::new(), shards: Vec::new(), peers: Vec::new() }
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Writes it, whole or not at all: a watcher never reads half a file.
    pub fn write(&self) -> io::Result<()> {
        let new = self.path.with_extension("new");
        fs::write(&new, self.render())?;
        fs::rename(&new, &self.path)
    }

    fn render(&self) -> String {
        let mut out = String::from(
            "# Written by `shardgate dev`. Edit it while dev runs: every node takes the change without a restart,\n\
             # and a broken edit changes nothing but is reported in the log.\n\n\
             # The release that new conferences go to; existing ones stay where they are.\n",
        );
        self.render_into(&mut out).ok();
        out
    }

    fn render_into(&self, out: &mut String) -> std::fmt::Result {
        writeln!(out, "live_release = \"{}\"", self.live_release)?;
        for (shard, address) in &self.shards {
            writeln!(out, "\n[[shards]]")?;
            writeln!(out, "name = \"{}\"", shard.name)?;
            writeln!(out, "id = {}", shard.id)?;
            writeln!(out, "region = \"{}\"", shard.region)?;
            writeln!(out, "release = \"{}\"", shard.release)?;
            writeln!(out, "address = \"{address}\"")?;
            writeln!(out, "state = \"ready\"    # or \"drain\": keeps its conferences, gets no new ones")?;
        }
        for (id, region, address) in &self.peers {
            writeln!(out, "\n[[peers]]")?;
            writeln!(out, "id = \"{id}\"")?;
            writeln!(out, "region = \"{region}\"")?;
            writeln!(out, "address = \"{address}\"    # a relay, so that dev can cut the wire")?;
        }
        writeln!(out, "\n# tenant = \"release\": new conferences of this tenant go there, whatever is live")?;
        writeln!(out, "[pins]")?;
        for (tenant, release) in &self.pins {
            writeln!(out, "{tenant} = \"{release}\"")?;
        }
        Ok(())
    }
}
