//! Documents that must keep up with the code.

use crate::repository::{crates, manifest, no_offences, read, root};

/// Whether `text` names `word` by itself: `http` does not count as named where only `http-body` is.
fn names(text: &str, word: &str) -> bool {
    let part_of_a_name = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '_';
    text.match_indices(word).any(|(at, _)| {
        let before = text[..at].chars().next_back();
        let after = text[at + word.len()..].chars().next();
        !before.is_some_and(part_of_a_name) && !after.is_some_and(part_of_a_name)
    })
}

#[test]
fn a_name_inside_a_longer_name_does_not_count() {
    assert!(names("we use `http` here", "http"));
    assert!(!names("we use `http-body` and shttp here", "http"));
}

#[test]
fn architecture_tells_every_crate_and_why_each_dependency_is_there() {
    let text = read("ARCHITECTURE.md");
    let mut offences = Vec::new();
    for package in crates() {
        if !names(&text, &package.name) {
            offences.push(format!("the crate {} is not mentioned", package.name));
        }
    }
    let workspace = manifest(&root().join("Cargo.toml"));
    let dependencies = workspace["workspace"]["dependencies"].as_table().expect("[workspace.dependencies]");
    for name in dependencies.keys() {
        if !names(&text, name) {
            offences.push(format!("the dependency {name} is not mentioned"));
        }
    }
    no_offences("ARCHITECTURE.md", &offences);
}

#[test]
fn every_workspace_dependency_is_asked_for_by_a_crate() {
    let workspace = manifest(&root().join("Cargo.toml"));
    let dependencies = workspace["workspace"]["dependencies"].as_table().expect("[workspace.dependencies]");
    // Ours may be imported by nothing: the proxy is.
    let foreign = dependencies.keys().filter(|name| !name.starts_with("shardgate-"));
    let unused = foreign
        .filter(|name| !crates().iter().any(|package| package.dependencies.iter().any(|d| d.name == **name)));
    let offences: Vec<String> = unused.map(|name| format!("{name} is used by no crate")).collect();
    no_offences("[workspace.dependencies]", &offences);
}

#[test]
fn the_changelog_has_an_unreleased_section_on_top() {
    let text = read("CHANGELOG.md");
    let first = text.lines().find(|line| line.starts_with("## "));
    assert!(
        first.is_some_and(|line| line.to_lowercase().contains("unreleased")),
        "CHANGELOG.md: the first section must be the unreleased one, not {first:?}"
    );
}

#[test]
fn the_readme_names_its_two_commands() {
    let text = read("README.md");
    for command in ["cargo run --release -- dev", "tests/run"] {
        assert!(text.contains(command), "README.md does not name `{command}`");
    }
}

#[test]
fn the_license_is_the_one_that_the_manifests_name() {
    let text = read("LICENSE");
    assert!(text.contains("Apache License") && text.contains("Version 2.0, January 2004"));
    for package in crates() {
        assert_eq!(package.license.as_deref(), Some("Apache-2.0"), "{}", package.name);
    }
}
