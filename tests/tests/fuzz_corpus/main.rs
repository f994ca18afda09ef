//! Replays every kept input of every fuzz target. With `SHARDGATE_REGENERATE=1` the seeds (`seed-*`) are written anew.
#![expect(clippy::unwrap_used, reason = "what fails here fails the test")]

use std::collections::BTreeSet;
use std::fs;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};

use shardgate_tests::fuzz::{TARGETS, Target, seeds};

/// So that the corpus stays one to read, and a run of it one of seconds.
const FILES_MAX: usize = 640;
const BYTES_MAX: u64 = 1 << 20;

fn folder(of: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz").join(of)
}

/// Names of what is in a folder, sorted.
fn names(folder: &Path) -> BTreeSet<String> {
    let entries = fs::read_dir(folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display()));
    entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
}

fn corpus(target: &Target) -> PathBuf {
    folder("corpus").join(target.name)
}

fn replay(name: &str) {
    let target = TARGETS.iter().find(|target| target.name == name).unwrap();
    let mut failed = Vec::new();
    let files = names(&corpus(target));
    assert!(!files.is_empty(), "no corpus");
    for file in &files {
        let data = fs::read(corpus(target).join(file)).unwrap();
        if catch_unwind(AssertUnwindSafe(|| (target.run)(&data))).is_err() {
            failed.push(file);
        }
    }
    assert!(failed.is_empty(), "{} of {} inputs of {name} fail: {failed:?}", failed.len(), files.len());
}

macro_rules! replayed {
    ($($name:ident)*) => {
        $(#[test]
        fn $name() {
            replay(stringify!($name));
        })*

        const REPLAYED: &[&str] = &[$(stringify!($name)),*];
    };
}

replayed! { agent config consul cookie discovery_file frame mesh node proxy_header relay request_head routing_key stream }

#[test]
fn every_target_is_replayed_has_a_file_for_cargo_fuzz_and_a_corpus() {
    let targets: BTreeSet<String> = TARGETS.iter().map(|target| target.name.to_owned()).collect();
    let replayed: BTreeSet<String> = REPLAYED.iter().map(|name| (*name).to_owned()).collect();
    assert_eq!(replayed, targets, "replayed here");
    assert_eq!(names(&folder("corpus")), targets, "tests/fuzz/corpus");
    let files: BTreeSet<String> = targets.iter().map(|name| format!("{name}.rs")).collect();
    assert_eq!(names(&folder("fuzz_targets")), files, "tests/fuzz/fuzz_targets");
    let manifest: toml::Table = fs::read_to_string(folder("Cargo.toml")).unwrap().parse().unwrap();
    let bins: BTreeSet<String> = manifest["bin"]
        .as_array()
        .unwrap()
        .iter()
        .map(|bin| bin["name"].as_str().unwrap().to_owned())
        .collect();
    assert_eq!(bins, targets, "tests/fuzz/Cargo.toml");
}

#[test]
fn the_seeds_are_those_of_today() {
    for target in TARGETS {
        let folder = corpus(target);
        let seeds = seeds(target.name);
        assert!(!seeds.is_empty(), "{} has no seeds", target.name);
        if std::env::var_os("SHARDGATE_REGENERATE").is_some() {
            fs::create_dir_all(&folder).unwrap();
            for old in names(&folder).iter().filter(|name| name.starts_with("seed-")) {
                fs::remove_file(folder.join(old)).unwrap();
            }
            for (name, data) in &seeds {
                fs::write(folder.join(name), data).unwrap();
            }
        }
        let kept: BTreeSet<String> =
            names(&folder).into_iter().filter(|name| name.starts_with("seed-")).collect();
        assert_eq!(kept, seeds.keys().cloned().collect(), "seeds of {}: {}", target.name, "write them anew");
        for (name, data) in seeds {
            let kept = fs::read(folder.join(&name)).unwrap();
            assert!(kept == data, "{}/{name} is stale: SHARDGATE_REGENERATE=1 writes it anew", target.name);
        }
    }
}

#[test]
fn the_corpus_is_small() {
    let (mut files, mut bytes) = (0, 0);
    for target in TARGETS {
        for name in names(&corpus(target)) {
            files += 1;
            bytes += fs::metadata(corpus(target).join(name)).unwrap().len();
        }
    }
    assert!(files <= FILES_MAX && bytes <= BYTES_MAX, "{files} files, {bytes} bytes");
}
