//! The shipped binary as its user meets it on the command line.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

const EXAMPLE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../ops/config/shardgate.example.toml");
const DISCOVERY_EXAMPLE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../ops/config/discovery.example.toml");

/// The binary of the same build: this test stands in `target/PROFILE/deps`, the binary in `target/PROFILE`.
fn shardgate() -> Command {
    let this = std::env::current_exe().expect("a test has a path");
    let folder = this.parent().and_then(Path::parent).expect("a test stands in target/PROFILE/deps");
    let binary = folder.join("shardgate");
    assert!(
        binary.exists(),
        "{} is not built: cargo build --workspace --bins with this profile",
        binary.display()
    );
    let mut command = Command::new(binary);
    command.env_clear();
    command
}

fn run(args: &[&str]) -> Output {
    shardgate().args(args).output().expect("the binary starts")
}

fn stdout(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned()
}

fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// `check` on a file with this text.
fn check(text: &str) -> Output {
    let folder = tempfile::tempdir().expect("a scratch folder");
    let file: PathBuf = folder.path().join("broken.toml");
    fs::write(&file, text).expect("the file is written");
    run(&["check", &file.to_string_lossy()])
}

#[test]
fn help_names_every_command() {
    let output = run(&["--help"]);
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    let help = stdout(&output);
    for command in ["serve", "check", "route", "dev", "pki"] {
        assert!(help.lines().any(|line| line.trim_start().starts_with(command)), "no {command} in:\n{help}");
    }
}

#[test]
fn version_is_the_one_of_the_workspace() {
    let output = run(&["--version"]);
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    assert_eq!(stdout(&output).trim(), concat!("shardgate ", env!("CARGO_PKG_VERSION")));
}

#[test]
fn a_wrong_command_line_is_told_on_stderr_with_status_2() {
    for args in [&["no-such-command"][..], &["serve", "--no-such-flag"], &["check"], &[]] {
        let output = run(args);
        assert_eq!(output.status.code(), Some(2), "{args:?}: {}{}", stdout(&output), stderr(&output));
        assert!(stderr(&output).contains("Usage"), "{args:?}: {}", stderr(&output));
    }
}

#[test]
fn check_prints_what_the_shipped_example_will_run() {
    let folder = tempfile::tempdir().expect("a scratch folder");
    let place = |name: &str| folder.path().join(name).to_string_lossy().into_owned();
    let ca = ["--dir", &place(""), "--environment", "prod"];
    let node = ["--peer", "proxy-us-1"];
    for args in [[&["pki", "init"][..], &ca].concat(), [&["pki", "issue"][..], &ca, &node].concat()] {
        let output = run(&args);
        assert_eq!(output.status.code(), Some(0), "{args:?}: {}", stderr(&output));
    }
    // The example names files of a real node: here they stand elsewhere.
    let here = [
        format!("mesh.ca={}", place("ca.pem")),
        format!("mesh.cert={}", place("proxy-us-1.pem")),
        format!("mesh.key={}", place("proxy-us-1.key")),
        format!("discovery.file={DISCOVERY_EXAMPLE}"),
    ];
    let mut args = vec!["check", EXAMPLE];
    for value in &here {
        args.extend(["--set", value]);
    }
    let output = run(&args);
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    let plan = stdout(&output);
    for part in ["proxy-us-1", "0.0.0.0:8080", "0.0.0.0:8081", "0.0.0.0:8405", "live release release-3630"] {
        assert!(plan.contains(part), "the plan does not name {part}:\n{plan}");
    }
}

#[test]
fn check_tells_which_files_of_the_example_are_missing_here() {
    let output = run(&["check", EXAMPLE]);
    let said = stderr(&output);
    assert_eq!(output.status.code(), Some(1), "{said}");
    for part in ["shardgate.example.toml:", "mesh.ca", "/etc/shardgate/mesh/ca.pem"] {
        assert!(said.contains(part), "no {part:?} in: {said}");
    }
}

#[test]
fn check_names_the_file_the_line_and_the_field_of_what_is_wrong() {
    for (text, place, field) in [
        ("no_such_field = 1\n", "broken.toml:1:1", "no_such_field"),
        ("[node]\nid = \"a\"\nregion = 7\n", "broken.toml:3:10", "node.region"),
        ("[frontend]\n\nheader_timeout = \"5 parsecs\"\n", "broken.toml:3:18", "frontend.header_timeout"),
    ] {
        let output = check(text);
        let said = stderr(&output);
        assert_eq!(output.status.code(), Some(1), "{said}");
        for part in [place, field] {
            assert!(said.contains(part), "no {part:?} in: {said}");
        }
    }
}

#[test]
fn check_refuses_what_is_no_toml_and_names_the_line() {
    let output = check("# fine\n\n[frontend\n");
    let said = stderr(&output);
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(said.contains("broken.toml:3:"), "{said}");
}

#[test]
fn check_names_a_file_that_is_not_there() {
    let output = run(&["check", "/nowhere/shardgate.toml"]);
    let said = stderr(&output);
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(said.contains("/nowhere/shardgate.toml"), "{said}");
}
