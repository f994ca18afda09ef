//! Who may import whom. A new dependency is a decision: it enters the table here and its reason enters ARCHITECTURE.md.

use std::collections::{BTreeMap, BTreeSet};

use cargo_metadata::{DependencyKind, Package, TargetKind};

use crate::repository::{crates, files, folder, manifest, no_offences};

/// A crate of ours: its storey (imports go strictly down) and the foreign crates it may import.
struct Allowed {
    name: &'static str,
    storey: u8,
    foreign: &'static [&'static str],
}

const ALLOWED: &[Allowed] = &[
    Allowed { name: "shardgate-peering-core", storey: 1, foreign: &["arcstr", "twox-hash"] },
    Allowed { name: "shardgate-core-guard", storey: 2, foreign: &[] },
    Allowed { name: "shardgate-proto", storey: 2, foreign: &["prost", "tonic", "tonic-prost"] },
    Allowed {
        name: "shardgate-peering",
        storey: 3,
        foreign: &[
            "arc-swap",
            "bytes",
            "dashmap",
            "foldhash",
            "prost",
            "quinn",
            "rcgen",
            "rustix",
            "rustls",
            "rustls-webpki",
            "thiserror",
            "tokio",
            "tracing",
        ],
    },
    Allowed {
        name: "shardgate-discovery",
        storey: 3,
        foreign: &[
            "aho-corasick",
            "base64",
            "foldhash",
            "http",
            "reqwest",
            "rustls",
            "serde",
            "serde_json",
            "thiserror",
            "tokio",
            "toml",
            "tracing",
        ],
    },
    Allowed {
        name: "shardgate-proxy",
        storey: 4,
        foreign: &[
            "arc-swap",
            "axum",
            "base64",
            "bytes",
            "clap",
            "crossterm",
            "foldhash",
            "futures-util",
            "h2",
            "http",
            "http-body",
            "http-body-util",
            "humantime",
            "hyper",
            "hyper-util",
            "libc",
            "prometheus-client",
            "ring",
            "rustix",
            "rustls",
            "serde",
            "serde_json",
            "slab",
            "socket2",
            "thiserror",
            "tikv-jemallocator",
            "tokio",
            "tokio-rustls",
            "tokio-tungstenite",
            "toml",
            "tonic",
            "tracing",
            "tracing-subscriber",
            "x509-parser",
        ],
    },
    Allowed {
        name: "shardgate-ops",
        storey: 4,
        foreign: &["clap", "humantime", "serde", "serde_json", "strsim", "thiserror", "tokio", "tonic"],
    },
    Allowed {
        name: "shardgate-tests",
        storey: 5,
        foreign: &[
            "cargo_metadata",
            "mio",
            "prost",
            "rcgen",
            "rustls",
            "serde",
            "serde_json",
            "socket2",
            "tempfile",
            "tokio",
            "tokio-rustls",
            "tokio-tungstenite",
            "toml",
        ],
    },
];

/// What tests beside the code may use in addition.
const ALLOWED_IN_TESTS: &[&str] =
    &["insta", "proptest", "prost-build", "protox", "rcgen", "tempfile", "tonic-prost-build"];

/// Packages whose library has another name than they: (package, library).
const LIBRARY_NAMES: &[(&str, &str)] = &[("rustls-webpki", "webpki")];

/// Crates that must stay behind one door, whatever the table says: (crate, doors).
const ONE_DOOR: &[(&str, &[&str])] = &[
    ("dashmap", &["shardgate-peering"]),
    ("hyper", &["shardgate-proxy"]),
    ("quinn", &["shardgate-peering", "shardgate-tests"]),
    ("reqwest", &["shardgate-discovery"]),
    ("rustls", &["shardgate-discovery", "shardgate-peering", "shardgate-proxy", "shardgate-tests"]),
    ("tonic", &["shardgate-ops", "shardgate-proto", "shardgate-proxy"]),
];

/// Names of the dependencies of one kind.
fn dependencies(package: &Package, kind: DependencyKind) -> BTreeSet<&str> {
    package.dependencies.iter().filter(|d| d.kind == kind).map(|d| d.name.as_str()).collect()
}

fn is_ours(name: &str) -> bool {
    name.starts_with("shardgate-")
}

fn allowed(name: &str) -> &'static Allowed {
    ALLOWED
        .iter()
        .find(|entry| entry.name == name)
        .unwrap_or_else(|| panic!("{name} is new: give it a storey and its imports in {}", file!()))
}

/// What a package is called in the code that uses it.
fn library(package: &str) -> String {
    let other = LIBRARY_NAMES.iter().find(|(name, _)| *name == package);
    other.map_or_else(|| package.replace('-', "_"), |(_, library)| (*library).to_owned())
}

#[test]
fn every_crate_imports_what_the_table_says_and_nothing_else() {
    let mut offences = Vec::new();
    for package in crates() {
        let entry = allowed(&package.name);
        let foreign = dependencies(package, DependencyKind::Normal);
        for name in &foreign {
            if !is_ours(name) && !entry.foreign.contains(name) {
                offences.push(format!("{} imports {name}, which its row does not allow", package.name));
            }
        }
        for name in entry.foreign {
            if !foreign.contains(name) {
                offences
                    .push(format!("{} does not import {name} any more: take it from its row", package.name));
            }
        }
        for name in dependencies(package, DependencyKind::Development) {
            if !is_ours(name) && !entry.foreign.contains(&name) && !ALLOWED_IN_TESTS.contains(&name) {
                offences.push(format!("the tests of {} import {name}, which is not allowed", package.name));
            }
        }
    }
    no_offences("imports differ from the table", &offences);
}

#[test]
fn imports_of_ours_go_strictly_down_and_nothing_imports_the_tests() {
    let mut offences = Vec::new();
    for package in crates() {
        let storey = allowed(&package.name).storey;
        for dependency in &package.dependencies {
            if is_ours(&dependency.name) && allowed(&dependency.name).storey >= storey {
                offences.push(format!("{} imports {}, which is not below it", package.name, dependency.name));
            }
        }
    }
    no_offences("imports of ours go down", &offences);
}

#[test]
fn a_crate_with_one_door_is_imported_only_there() {
    let mut offences = Vec::new();
    for (name, doors) in ONE_DOOR {
        for package in crates() {
            let imports = package.dependencies.iter().any(|dependency| dependency.name == *name);
            if imports && !doors.contains(&package.name.as_str()) {
                offences.push(format!("{} imports {name}: only {doors:?} may", package.name));
            }
        }
    }
    no_offences("one door each", &offences);
}

#[test]
fn nothing_runs_at_build_time() {
    let mut offences = Vec::new();
    for package in crates() {
        if package.targets.iter().any(|target| target.kind.contains(&TargetKind::CustomBuild)) {
            offences.push(format!("{} has a build script; generated code is checked in", package.name));
        }
        for name in dependencies(package, DependencyKind::Build) {
            offences.push(format!("{} has the build dependency {name}", package.name));
        }
    }
    no_offences("no build scripts", &offences);
}

#[test]
fn every_dependency_is_used_by_the_crate_that_asks_for_it() {
    let mut sources: BTreeMap<String, String> = BTreeMap::new();
    for package in crates() {
        sources.insert(folder(package), String::new());
    }
    for file in files(&["rs"]) {
        // The longest folder wins: peering/core stands inside peering.
        let owner = sources.iter_mut().rfind(|(folder, _)| file.path.starts_with(&format!("{folder}/")));
        let (_, text) = owner.unwrap_or_else(|| panic!("{} belongs to no crate", file.path));
        text.push_str(&file.text);
    }
    let mut offences = Vec::new();
    for package in crates() {
        let text = &sources[&folder(package)];
        for dependency in &package.dependencies {
            let name = library(dependency.rename.as_ref().unwrap_or(&dependency.name));
            if !text.contains(&format!("{name}::")) && !text.contains(&format!("use {name} as _;")) {
                offences.push(format!("{} never names {name}", package.name));
            }
        }
    }
    no_offences("unused dependencies", &offences);
}

#[test]
fn every_crate_inherits_lints_and_versions_from_the_workspace() {
    let mut offences = Vec::new();
    for package in crates() {
        let manifest = manifest(package.manifest_path.as_std_path());
        let from_workspace = |value: Option<&toml::Value>| {
            value.and_then(|v| v.get("workspace")).and_then(toml::Value::as_bool) == Some(true)
        };
        if !from_workspace(manifest.get("lints")) {
            offences.push(format!("{}: [lints] workspace = true is missing", package.name));
        }
        for field in ["version", "edition", "license", "publish"] {
            if !from_workspace(manifest.get("package").and_then(|p| p.get(field))) {
                offences.push(format!("{}: {field}.workspace = true is missing", package.name));
            }
        }
        for section in ["dependencies", "dev-dependencies"] {
            let table = manifest.get(section).and_then(toml::Value::as_table);
            for (name, value) in table.into_iter().flatten() {
                if !from_workspace(Some(value)) {
                    offences.push(format!("{}: {name} has a version of its own", package.name));
                }
            }
        }
    }
    no_offences("one place for lints and versions", &offences);
}
