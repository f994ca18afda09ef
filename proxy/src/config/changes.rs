//! What a change of the configuration means to a running node: which fields differ, and which of them it cannot change.

use super::Config;
use std::collections::BTreeMap;
use std::fmt::Write as _;
use toml::{Table, Value};

impl Config {
    /// This configuration as far as a node that runs by `running` can take it on: identity, mesh, table, discovery and admin listeners stay,
    /// and so do the threads, the access log and the audit log.
    #[must_use]
    pub fn for_running(mut self, running: &Self) -> Self {
        self.node = running.node.clone();
        self.mesh = running.mesh.clone();
        self.stick_table = running.stick_table.clone();
        self.discovery = running.discovery.clone();
        self.admin = running.admin.clone();
        self.frontend.workers = running.frontend.workers;
        self.frontend.backlog = running.frontend.backlog;
        self.log.access = running.log.access.clone();
        self.log.audit = running.log.audit.clone();
        self
    }

    /// The fields in which two configurations differ, as they are written: `frontend.client_timeout`, `listeners[1].protocol`.
    #[must_use]
    pub fn differences(&self, other: &Self) -> Vec<String> {
        let (ours, theirs) = (fields(self), fields(other));
        let names: std::collections::BTreeSet<&String> = ours.keys().chain(theirs.keys()).collect();
        names.into_iter().filter(|name| ours.get(*name) != theirs.get(*name)).cloned().collect()
    }
}

/// Every field with its value, from the text that `check` prints.
fn fields(config: &Config) -> BTreeMap<String, String> {
    let mut found = BTreeMap::new();
    // What Display writes is what `load` reads: a test of every section says so.
    if let Ok(table) = config.to_string().parse::<Table>() {
        walk(&mut found, String::new(), &Value::Table(table));
    }
    found
}

fn walk(found: &mut BTreeMap<String, String>, path: String, value: &Value) {
    match value {
        Value::Table(table) => {
            for (name, value) in table {
                let path = if path.is_empty() { name.clone() } else { format!("{path}.{name}") };
                walk(found, path, value);
            }
        }
        Value::Array(items) if items.iter().any(Value::is_table) => {
            for (index, item) in items.iter().enumerate() {
                let mut path = path.clone();
                // Writing to a String cannot fail.
                let _written: std::fmt::Result = write!(path, "[{index}]");
                walk(found, path, item);
            }
        }
        Value::String(_)
        | Value::Integer(_)
        | Value::Float(_)
        | Value::Boolean(_)
        | Value::Datetime(_)
        | Value::Array(_) => {
            found.insert(path, value.to_string());
        }
    }
}
