//! The repository as the guards see it: its folders, its files, and what cargo says about its crates.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

use cargo_metadata::{MetadataCommand, Package};

/// Folders that hold nothing of ours.
const NOT_OURS: &[&str] = &[".git", "target", "node_modules", "__pycache__"];

/// One text file of ours.
pub(crate) struct SourceFile {
    /// Relative to the repository, with forward slashes.
    pub(crate) path: String,
    pub(crate) text: String,
}

impl SourceFile {
    /// Whether a program wrote it; those say so in their first line.
    pub(crate) fn is_generated(&self) -> bool {
        self.text.lines().next().is_some_and(|line| line.contains("@generated"))
    }

    /// The lines, counted from one, each with `path:line` for a message.
    pub(crate) fn lines(&self) -> impl Iterator<Item = (String, &str)> {
        self.text.lines().enumerate().map(|(index, line)| (format!("{}:{}", self.path, index + 1), line))
    }
}

pub(crate) fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("tests/ stands in the repository")
}

/// The text of one file that must exist.
pub(crate) fn read(path: &str) -> String {
    fs::read_to_string(root().join(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

/// A manifest, parsed.
pub(crate) fn manifest(path: &Path) -> toml::Table {
    let text = fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    text.parse().unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// The crates of the workspace, sorted by name.
pub(crate) fn crates() -> &'static [Package] {
    static CRATES: OnceLock<Vec<Package>> = OnceLock::new();
    CRATES.get_or_init(|| {
        let metadata = MetadataCommand::new()
            .manifest_path(root().join("Cargo.toml"))
            .no_deps()
            .exec()
            .expect("cargo metadata reads the workspace");
        let mut packages = metadata.packages;
        packages.sort_by(|one, other| one.name.cmp(&other.name));
        packages
    })
}

/// The folder of a crate, relative to the repository.
pub(crate) fn folder(package: &Package) -> String {
    let folder = package.manifest_path.parent().expect("a manifest stands in a folder");
    let relative = folder.as_std_path().strip_prefix(root()).expect("every crate stands in the repository");
    relative.to_string_lossy().into_owned()
}

/// Every file of ours whose name ends in one of `extensions`, sorted by path.
pub(crate) fn files(extensions: &[&str]) -> Vec<SourceFile> {
    let mut found = Vec::new();
    collect(root(), &mut found);
    found.sort();
    let wanted = |path: &PathBuf| {
        path.extension().is_some_and(|end| extensions.contains(&end.to_string_lossy().as_ref()))
    };
    let ours = found.into_iter().filter(wanted).map(|path| {
        let relative = path.strip_prefix(root()).expect("collected below the root");
        let name = relative.to_string_lossy().replace('\\', "/");
        let text = read(&name);
        SourceFile { path: name, text }
    });
    ours.collect()
}

/// Cargo, as a child of these tests. The variables that cargo sets for a test would only make it build things anew.
pub(crate) fn cargo() -> Command {
    let mut command = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    for (name, _) in std::env::vars_os() {
        if name.to_string_lossy().starts_with("CARGO_PKG_") || name == "CARGO_MANIFEST_DIR" {
            command.env_remove(name);
        }
    }
    command
}

/// Fails with every offence, if there are any.
pub(crate) fn no_offences(rule: &str, offences: &[String]) {
    assert!(offences.is_empty(), "{rule}:\n  {}\n", offences.join("\n  "));
}

fn collect(folder: &Path, found: &mut Vec<PathBuf>) {
    let entries = fs::read_dir(folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display()));
    for entry in entries {
        let entry = entry.expect("a folder of ours is readable");
        let name = entry.file_name();
        if NOT_OURS.contains(&name.to_string_lossy().as_ref()) {
            continue;
        }
        let kind = entry.file_type().expect("a file of ours has a type");
        if kind.is_dir() {
            collect(&entry.path(), found);
        } else if kind.is_file() {
            found.push(entry.path());
        }
    }
}
