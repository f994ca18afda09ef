//! The last good state on disk, for a start without Consul: written beside its place and renamed, so it is there whole or as it was.

use super::agent::Datacenter;
use super::policy::PolicyKind;
use super::world::{Records, ServiceKind, Source, World};
use crate::name::ServiceName;
use serde::{Deserialize, Serialize};
use std::fs::{self, File};
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// Another one is not read.
const VERSION: u32 = 1;

#[derive(Debug, Serialize, Deserialize)]
struct Saved {
    version: u32,
    environment: String,
    /// Unix time, seconds.
    saved_at: u64,
    sources: Vec<SavedSource>,
}

#[derive(Debug, Serialize, Deserialize)]
struct SavedSource {
    /// `None` for keys.
    datacenter: Option<String>,
    service: Option<ServiceKind>,
    keys: Option<String>,
    /// The service of a pool.
    #[serde(default)]
    pool: Option<String>,
    records: Records,
}

/// What was read.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Remembered {
    pub(crate) world: World,
    /// How long ago it was true.
    pub(crate) age: Duration,
}

/// Why there is nothing to begin with.
#[derive(Debug, thiserror::Error)]
pub(crate) enum DiskError {
    #[error("{}: {source}", path.display())]
    Io { path: PathBuf, source: io::Error },
    #[error("{}: {what}", path.display())]
    Content { path: PathBuf, what: String },
}

/// Writes what is known now.
pub(crate) fn save(path: &Path, environment: &str, world: &World, now: SystemTime) -> Result<(), DiskError> {
    let sources = world.0.iter().map(|(source, records)| {
        let records = records.clone();
        match source {
            Source::Policy(kind) => {
                let keys = Some(kind.as_str().to_owned());
                SavedSource { datacenter: None, service: None, keys, pool: None, records }
            }
            Source::Services(datacenter, kind) => {
                let datacenter = Some(datacenter.as_str().to_owned());
                SavedSource { datacenter, service: Some(*kind), keys: None, pool: None, records }
            }
            Source::Pool(service) => {
                let pool = Some(service.to_string());
                SavedSource { datacenter: None, service: None, keys: None, pool, records }
            }
        }
    });
    let saved = Saved {
        version: VERSION,
        environment: environment.to_owned(),
        saved_at: now.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs(),
        sources: sources.collect(),
    };
    let io = |source| DiskError::Io { path: path.to_owned(), source };
    let bytes = serde_json::to_vec(&saved)
        .map_err(|error| DiskError::Content { path: path.to_owned(), what: error.to_string() })?;
    let mut name = path.as_os_str().to_owned();
    // Another process may be writing, too.
    name.push(format!(".{}.new", std::process::id()));
    let fresh = PathBuf::from(name);
    let written = File::create(&fresh)
        .and_then(|mut file| file.write_all(&bytes).and_then(|()| file.sync_all()))
        .and_then(|()| fs::rename(&fresh, path));
    if written.is_err() {
        // What is half written takes room that may be needed; the next process would have another name for it.
        drop(fs::remove_file(&fresh));
    }
    written.map_err(io)
}

/// Reads what was known last; `None` when nothing was ever saved.
pub(crate) fn load(path: &Path, environment: &str, now: SystemTime) -> Result<Option<Remembered>, DiskError> {
    let bytes = match fs::read(path) {
        Ok(bytes) => bytes,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(source) => return Err(DiskError::Io { path: path.to_owned(), source }),
    };
    let content = |what: String| DiskError::Content { path: path.to_owned(), what };
    let saved: Saved = serde_json::from_slice(&bytes).map_err(|error| content(error.to_string()))?;
    if saved.version != VERSION {
        return Err(content(format!("has version {}, expected {VERSION}", saved.version)));
    }
    if saved.environment != environment {
        return Err(content(format!(
            "is of the environment {:?}, expected {environment:?}",
            saved.environment
        )));
    }
    let mut world = World::default();
    for SavedSource { datacenter, service, keys, pool, records } in saved.sources {
        let pool = pool.as_deref().and_then(|name| ServiceName::parse(name).ok());
        let source = match (datacenter.as_deref().and_then(Datacenter::parse), service, keys, pool) {
            (Some(datacenter), Some(kind), None, None) => Source::Services(datacenter, kind),
            (None, None, None, Some(service)) => Source::Pool(service),
            (None, None, Some(keys), None) => {
                let kind = PolicyKind::ALL.into_iter().find(|kind| kind.as_str() == keys);
                Source::Policy(kind.ok_or_else(|| content(format!("has keys {keys:?}")))?)
            }
            _ => return Err(content("has a source that is neither keys nor a service".to_owned())),
        };
        world.0.insert(source, records);
    }
    let saved_at = UNIX_EPOCH + Duration::from_secs(saved.saved_at);
    Ok(Some(Remembered { world, age: now.duration_since(saved_at).unwrap_or_default() }))
}

#[cfg(test)]
mod tests {
    use super::super::policy::Pair;
    use super::*;

    #[test]
    fn what_is_saved_is_loaded() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("state.json");
        let now = UNIX_EPOCH + Duration::from_secs(1_000_000);
        assert_eq!(load(&path, "prod", now).unwrap(), None);
        let mut world = World::default();
        let pair = Pair { key: "releases/prod/live".to_owned(), value: Some("eA==".to_owned()) };
        world.take(Source::Policy(PolicyKind::Releases), Records::Pairs(vec![pair]));
        let east = Datacenter::parse("prod-east").unwrap();
        world.take(Source::Services(east, ServiceKind::Shards), Records::Instances(Vec::new()));
        save(&path, "prod", &world, now).unwrap();
        let remembered = load(&path, "prod", now + Duration::from_secs(90)).unwrap().unwrap();
        assert_eq!(remembered, Remembered { world, age: Duration::from_secs(90) });
        let refused = load(&path, "stage", now).unwrap_err().to_string();
        assert!(refused.ends_with("is of the environment \"prod\", expected \"stage\""), "{refused}");
        for broken in ["", "{}", "{\"version\":2,\"environment\":\"prod\",\"saved_at\":0,\"sources\":[]}"] {
            fs::write(&path, broken).unwrap();
            assert!(load(&path, "prod", now).is_err(), "{broken}");
        }
    }
}
