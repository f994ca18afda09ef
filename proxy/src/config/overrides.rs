//! What is laid over the file: environment variables, then `--set`.

use super::error::{ConfigError, Place};
use super::tree::{Item, Table, Value};
use std::collections::btree_map::Entry;
use std::sync::Arc;

const PREFIX: &str = "SHARDGATE_";

/// The process's variables. Those that are no text are taken with replacement characters, so that a wrong one of ours is
/// refused and a foreign one harms nobody.
pub fn process_environment() -> impl Iterator<Item = (String, String)> {
    std::env::vars_os()
        .map(|(name, value)| (name.to_string_lossy().into_owned(), value.to_string_lossy().into_owned()))
}

/// `SHARDGATE_FRONTEND__HEADER_TIMEOUT=5s` is `frontend.header_timeout = "5s"`. Sorted, so that faults come in one order.
///
/// A variable without `__` names no field and is somebody else's: Kubernetes gives every pod `SHARDGATE_SERVICE_HOST` and the
/// like when there is a service called shardgate.
pub(super) fn apply_environment(
    root: &mut Table,
    env: impl Iterator<Item = (String, String)>,
    errors: &mut Vec<ConfigError>,
) {
    let mut ours: Vec<_> = env.filter(|(name, _)| name.starts_with(PREFIX) && name.contains("__")).collect();
    ours.sort();
    for (name, value) in ours {
        let place = Place::Variable(Arc::from(name.as_str()));
        let path = name[PREFIX.len()..].to_ascii_lowercase();
        let path: Vec<&str> = path.split("__").collect();
        if path.iter().any(|part| part.is_empty()) {
            let expected = "SHARDGATE_SECTION__FIELD, such as SHARDGATE_NODE__REGION";
            errors.push(ConfigError::Form { place, expected });
            continue;
        }
        lay(root, &path, Item::given(&value, &place), errors);
    }
}

/// `frontend.header_timeout=5s`, in the order given.
pub(super) fn apply_sets(root: &mut Table, sets: &[String], errors: &mut Vec<ConfigError>) {
    for set in sets {
        let place = Place::Set(Arc::from(set.as_str()));
        let parts =
            set.split_once('=').map(|(path, value)| (path.trim().split('.').collect::<Vec<_>>(), value));
        match parts {
            Some((path, value)) if path.iter().all(|part| !part.is_empty()) => {
                lay(root, &path, Item::given(value.trim(), &place), errors);
            }
            Some(_) | None => {
                let expected = "section.field=value, such as node.region=us-phoenix-1";
                errors.push(ConfigError::Form { place, expected });
            }
        }
    }
}

/// Puts `item` at `path`, in tables that are made as needed.
fn lay(mut table: &mut Table, path: &[&str], item: Item, errors: &mut Vec<ConfigError>) {
    let Some((last, sections)) = path.split_last() else { return };
    for (depth, section) in sections.iter().enumerate() {
        let fresh = || {
            let value = Value::Table(Table::new());
            (item.place.clone(), Item { place: item.place.clone(), value, given: None })
        };
        let inner = match table.entry((*section).to_owned()) {
            Entry::Occupied(entry) => &mut entry.into_mut().1,
            Entry::Vacant(entry) => &mut entry.insert(fresh()).1,
        };
        let shown = inner.to_string();
        let Value::Table(next) = &mut inner.value else {
            errors.push(ConfigError::Value {
                place: item.place,
                field: path[..=depth].join("."),
                value: shown,
                expected: "a table here; a list can only be replaced as a whole".to_owned(),
            });
            return;
        };
        table = next;
    }
    table.insert((*last).to_owned(), (item.place.clone(), item));
}
