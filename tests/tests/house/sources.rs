//! What no source file of ours may hold.

use std::path::Path;

use crate::repository::{crates, files, folder, no_offences, root};

/// Everything that may stand at the top of the repository.
const TOP_LEVEL: &[&str] = &[
    ".ci",
    ".clippy.toml",
    ".gitignore",
    ".rustfmt.toml",
    "ARCHITECTURE.md",
    "CHANGELOG.md",
    "Cargo.lock",
    "Cargo.toml",
    "LICENSE",
    "README.md",
    "discovery",
    "ops",
    "peering",
    "proto",
    "proxy",
    "tests",
];

/// A longer file hides two things with one name.
const LINES_MAX: usize = 600;

/// Names that say nothing about what is inside.
const EMPTY_NAMES: &[&str] = &["common", "helper", "helpers", "misc", "shared", "types", "util", "utils"];

/// Marks of unfinished work and of tests that do not run. Written in halves, since this file is searched as well.
const UNFINISHED: &[&str] = &[
    concat!("TO", "DO"),
    concat!("FIX", "ME"),
    concat!("XX", "X:"),
    concat!("todo", "!("),
    concat!("unimplemented", "!("),
    concat!("#[ig", "nore"),
    concat!("dbg", "!("),
];

/// What would make two runs of the core differ, or tie it to a machine: (text, instead).
const NOT_IN_CORE: &[(&str, &str)] = &[
    ("HashMap", "an ordered map: one seed gives one trace"),
    ("HashSet", "an ordered set: one seed gives one trace"),
    ("std::time", "crate::time: the moment comes in with the input"),
    ("std::thread", "an output: the shell owns the tasks"),
    ("std::net", "an output: the shell owns the sockets"),
    ("std::env", "crate::config"),
    ("tokio", "an output: the shell owns the runtime"),
    ("prost", "crate::message: the shell translates"),
];

#[test]
fn the_top_level_holds_what_the_owner_named() {
    let mut offences = Vec::new();
    let mut seen = Vec::new();
    for entry in root().read_dir().expect("the repository is readable") {
        let name = entry.expect("an entry is readable").file_name().to_string_lossy().into_owned();
        if ![".git", "target"].contains(&name.as_str()) && !TOP_LEVEL.contains(&name.as_str()) {
            offences.push(format!("{name} does not belong there"));
        }
        seen.push(name);
    }
    for name in TOP_LEVEL {
        if !seen.iter().any(|entry| entry == name) {
            offences.push(format!("{name} is missing"));
        }
    }
    no_offences("top level of the repository", &offences);
}

#[test]
fn no_source_file_is_too_long() {
    let mut offences = Vec::new();
    for file in files(&["rs", "sh", "mjs", "js", "py"]) {
        let lines = file.text.lines().count();
        if lines > LINES_MAX && !file.is_generated() {
            offences.push(format!("{} has {lines} lines", file.path));
        }
    }
    no_offences("at most 600 lines, or find the seam", &offences);
}

#[test]
fn every_name_says_what_is_inside() {
    let mut offences = Vec::new();
    for file in files(&["rs", "sh", "mjs", "js", "py"]) {
        for part in Path::new(&file.path).with_extension("").iter() {
            if EMPTY_NAMES.contains(&part.to_string_lossy().as_ref()) {
                offences.push(format!("{}: {} is no noun of the field", file.path, part.display()));
            }
        }
        for (place, line) in file.lines() {
            let declared = line.trim().trim_start_matches("pub ").trim_start_matches("pub(crate) ");
            let module = declared.strip_prefix("mod ").and_then(|rest| rest.split([' ', ';', '{']).next());
            if module.is_some_and(|name| EMPTY_NAMES.contains(&name)) {
                offences.push(format!("{place}: {}", line.trim()));
            }
        }
    }
    no_offences("names", &offences);
}

#[test]
fn nothing_is_left_unfinished_and_no_test_is_switched_off() {
    let mut offences = Vec::new();
    for file in files(&["rs", "sh", "mjs", "js", "py", "toml", "proto", "html", "md"]) {
        for (place, line) in file.lines() {
            for mark in UNFINISHED {
                if line.contains(mark) {
                    offences.push(format!("{place}: {mark}"));
                }
            }
        }
    }
    no_offences("unfinished", &offences);
}

#[test]
fn the_core_names_no_clock_no_runtime_and_no_unordered_map() {
    let mut offences = Vec::new();
    let mut searched = 0;
    for file in files(&["rs"]) {
        if !file.path.starts_with("peering/core/src/") {
            continue;
        }
        searched += 1;
        for (place, line) in file.lines() {
            for (text, instead) in NOT_IN_CORE {
                if line.contains(text) && !line.trim_start().starts_with("//") {
                    offences.push(format!("{place}: {text}; instead: {instead}"));
                }
            }
        }
    }
    assert!(searched > 5, "the core's sources are not where this test looks: {searched} files found");
    no_offences("the core is pure", &offences);
}

#[test]
fn no_lint_is_switched_off_without_a_reason() {
    let mut offences = Vec::new();
    for file in files(&["rs"]) {
        if file.is_generated() {
            continue;
        }
        let lines: Vec<(String, &str)> = file.lines().collect();
        for (index, (place, line)) in lines.iter().enumerate() {
            let attribute = line.trim_start();
            let opens = |name: &str| {
                let exact = [format!("#[{name}("), format!("#![{name}(")];
                exact.iter().any(|start| attribute.starts_with(start.as_str()))
            };
            let reasoned = || lines[index..].iter().take(6).any(|(_, line)| line.contains("reason = "));
            if (opens("allow") || opens("expect")) && !reasoned() {
                offences.push(format!("{place}: no reason in {attribute}"));
            }
        }
    }
    no_offences("lints", &offences);
}

#[test]
fn every_crate_begins_by_saying_what_it_is() {
    let mut offences = Vec::new();
    for package in crates() {
        for name in ["lib.rs", "main.rs"] {
            let path = root().join(folder(package)).join("src").join(name);
            let Ok(text) = std::fs::read_to_string(&path) else { continue };
            if !text.starts_with("//!") {
                offences.push(format!("{}: no header", path.display()));
            }
        }
    }
    no_offences("crate headers", &offences);
}
