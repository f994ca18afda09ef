//! The core without std: the guard crate builds, and it stops building when std comes in, by whatever way.
//!
//! Each test builds a copy of the core and its guard in a folder of its own, so that nothing here is ever broken.

use std::fs;
use std::path::Path;

use tempfile::TempDir;

use crate::repository::{cargo, manifest, root};

/// A workspace of only the core and its guard, copied.
struct Scratch {
    folder: TempDir,
}

impl Scratch {
    fn new() -> Self {
        let folder = tempfile::tempdir().expect("a scratch folder");
        copy(&root().join("peering/core"), &folder.path().join("peering/core"));
        fs::copy(root().join("Cargo.lock"), folder.path().join("Cargo.lock"))
            .expect("the lock file is copied");
        let scratch = Self { folder };
        scratch.edit_manifest(|workspace| {
            workspace.insert("members".to_owned(), vec!["peering/core", "peering/core/guard"].into());
            workspace.remove("default-members");
        });
        scratch
    }

    /// Changes `[workspace]` of the copy's manifest, which is the original's until then.
    fn edit_manifest(&self, change: impl FnOnce(&mut toml::Table)) {
        let path = self.folder.path().join("Cargo.toml");
        let mut whole = manifest(if path.exists() {
            &path
        } else {
            Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../Cargo.toml"))
        });
        change(whole["workspace"].as_table_mut().expect("[workspace]"));
        fs::write(path, whole.to_string()).expect("the manifest is written");
    }

    /// Builds the guard; what rustc says when it refuses.
    fn build(&self) -> Result<(), String> {
        let output = cargo()
            .args(["build", "--offline", "--quiet", "--profile", "guard", "-p", "shardgate-core-guard"])
            .current_dir(self.folder.path())
            .env("CARGO_TARGET_DIR", self.folder.path().join("target"))
            .output()
            .expect("cargo starts");
        if output.status.success() {
            Ok(())
        } else {
            Err(String::from_utf8_lossy(&output.stderr).into_owned())
        }
    }

    fn refused(&self) -> String {
        let said = self.build().expect_err("the guard was built although std came in");
        assert!(said.contains("found duplicate lang item `panic_impl`"), "refused, but not for std:\n{said}");
        said
    }
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).expect("a scratch folder");
    for entry in fs::read_dir(from).expect("the core is readable") {
        let entry = entry.expect("an entry of the core is readable");
        let target = to.join(entry.file_name());
        if entry.file_type().expect("an entry has a type").is_dir() {
            copy(&entry.path(), &target);
        } else {
            fs::copy(entry.path(), target).expect("a file is copied");
        }
    }
}

#[test]
fn the_core_links_without_std() {
    Scratch::new()
        .build()
        .unwrap_or_else(|said| panic!("std came into the core, or its guard is broken:\n{said}"));
}

#[test]
fn std_asked_for_by_the_core_is_refused() {
    let scratch = Scratch::new();
    let lib = scratch.folder.path().join("peering/core/src/lib.rs");
    let mut text = fs::read_to_string(&lib).expect("the core has a lib.rs");
    text.push_str("\n#[cfg(not(test))]\nextern crate std;\n");
    fs::write(&lib, text).expect("the copy is written");
    let said = scratch.refused();
    assert!(said.contains("which `shardgate_peering_core` depends on"), "{said}");
}

#[test]
fn std_coming_in_through_a_dependency_is_refused_and_the_dependency_named() {
    let scratch = Scratch::new();
    scratch.edit_manifest(|workspace| {
        let hash = &mut workspace["dependencies"]["twox-hash"];
        hash["features"].as_array_mut().expect("features of twox-hash").push("std".into());
    });
    let said = scratch.refused();
    assert!(said.contains("which `twox_hash` depends on"), "{said}");
}
