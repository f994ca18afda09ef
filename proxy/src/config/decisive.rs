//! The part of a configuration that says where requests go, by itself: whoever asks about it needs none of the node's other files.

use super::section::{Reading, Section};
use super::{BackendConfig, ConfigErrors, NodeConfig, overrides, pools, routing, tree, value};
use crate::routing_key::Routing;
use shardgate_discovery::RegionName;
use std::path::{Path, PathBuf};

/// `[routing]`, the pools, and the fields of other sections that have a say.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Decisive {
    /// `node.region`; `None` only where there is no file that has to name it.
    pub region: Option<RegionName>,
    /// `[routing]` and `[[pools]]`.
    pub routing: Routing,
    /// `backend.balance_factor`.
    pub balance_percent: u32,
    /// `discovery.file`.
    pub discovery: Option<PathBuf>,
}

/// Reads it from the file at `path`, or from the defaults, and from what overrides them (see [`super::load`]). Other sections are not looked
/// at, right or wrong.
///
/// # Errors
/// [`ConfigErrors`] with every fault of what is read.
pub fn load_decisive(
    path: Option<&Path>,
    env: impl Iterator<Item = (String, String)>,
    sets: &[String],
) -> Result<Decisive, ConfigErrors> {
    let mut table = match path {
        Some(path) => tree::read(path)?,
        None => tree::Table::new(),
    };
    let mut errors = Vec::new();
    overrides::apply_environment(&mut table, env, &mut errors);
    overrides::apply_sets(&mut table, sets, &mut errors);
    let mut reading = Reading::new(path.unwrap_or_else(|| Path::new("the defaults")), errors);
    let mut root = Section::root(table, &mut reading);
    let pool_tables = root.sections("pools").unwrap_or_default();
    let mut node = root.section("node");
    // A pool's servers stand in the node's region.
    let region = if path.is_some() || !pool_tables.is_empty() {
        NodeConfig::required_region(&mut node)
    } else {
        NodeConfig::region(&mut node)
    };
    let balance_percent = BackendConfig::balance_factor(&mut root.section("backend"));
    let mut discovery = root.section("discovery");
    let given =
        discovery.get("file", value::text("the path of a discovery file", |text| Some(text.to_owned())));
    let discovery = given.map(|given| discovery.resolve("file", &given));
    let mut routing = routing::read(root.section("routing"));
    for table in pool_tables {
        routing.pools.extend(pools::read(
            root.entry(table),
            region.as_ref(),
            pools::Catalog::There,
            &routing.pools,
        ));
    }
    drop(root);
    let errors = reading.into_errors();
    if errors.is_empty() {
        Ok(Decisive { region, routing, balance_percent, discovery })
    } else {
        Err(ConfigErrors(errors))
    }
}
