//! The shipped example documents every field, and every default in it is the real one.

use super::*;
use shardgate_discovery::EnvironmentName;
use std::collections::BTreeSet;

fn example() -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../ops/config/shardgate.example.toml");
    fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// Loads the example as if its folder were `/etc/shardgate`.
fn load_in(folder: &Folder, text: &str) -> Config {
    fs::create_dir_all(folder.path("mesh")).unwrap();
    for name in ["mesh/ca.pem", "mesh/proxy-us-1.pem", "mesh/proxy-us-1.key"] {
        fs::write(folder.path(name), "pem").unwrap();
    }
    let text = text.replace("/etc/shardgate", &folder.0.path().display().to_string());
    fs::write(folder.path("c.toml"), text).unwrap();
    folder.load(&[], &[]).unwrap_or_else(|errors| panic!("{errors}"))
}

/// Takes the `#` from `#name = value`; prose has a space after it.
fn with_defaults_spelled_out(text: &str) -> String {
    let line = |line: &str| match line.strip_prefix('#') {
        Some(field) if field.starts_with(|first: char| first.is_ascii_lowercase()) => format!("{field}\n"),
        Some(_) | None => format!("{line}\n"),
    };
    text.lines().map(line).collect()
}

#[test]
fn commented_fields_are_the_defaults() {
    let folder = minimal();
    let text = example();
    let shipped = load_in(&folder, &text);
    let spelled_out = with_defaults_spelled_out(&text);
    assert!(spelled_out.matches("\nheader_timeout = \"10s\"").count() == 1);
    assert_eq!(load_in(&folder, &spelled_out), shipped);

    let mut expected = Config::new(
        NodeConfig::new(shipped.node.id.clone(), shipped.node.region.clone()),
        shipped.discovery.clone(),
    );
    expected.node.environment = EnvironmentName::parse("prod").unwrap();
    let pem = |name| folder.path(name);
    expected.mesh =
        Some(MeshConfig::new(pem("mesh/ca.pem"), pem("mesh/proxy-us-1.pem"), pem("mesh/proxy-us-1.key")));
    expected.admin = shipped.admin.clone();
    assert_eq!(shipped, expected, "a production value of the example differs from a default without a word");
}

#[test]
fn every_field_is_documented() {
    let folder = minimal();
    let text = example();
    let shipped = load_in(&folder, &text);
    let documented = fields(&with_defaults_spelled_out(&text));
    let real = fields(&shipped.to_string());
    assert_eq!(documented, real);
    assert!(text.contains("\n# dir = ") && text.contains("\n# 503 = "));
    // Each field is preceded by a comment, its own or one that it shares with the field before it.
    for (before, line) in text.lines().zip(text.lines().skip(1)) {
        let named = line.trim_start_matches('#');
        let is_field = named.starts_with(|first: char| first.is_ascii_lowercase()) && named.contains(" = ");
        assert!(!is_field || !before.is_empty(), "no comment before {line}");
    }
}

/// `[section] field` of every field.
fn fields(text: &str) -> BTreeSet<String> {
    let mut section = "";
    let mut found = BTreeSet::new();
    for line in text.lines() {
        if line.starts_with('[') {
            section = line;
        } else if let Some((field, _)) = line.split_once(" = ").filter(|_| !line.starts_with('#')) {
            found.insert(format!("{section} {field}"));
        }
    }
    found
}

#[test]
fn the_example_binds_the_ports_that_haproxy_had() {
    let shipped = load_in(&minimal(), &example());
    let served: Vec<_> = shipped
        .admin
        .iter()
        .map(|admin| (admin.listen.to_string(), admin.serve.iter().next().copied()))
        .collect();
    assert_eq!(
        served[..3],
        [
            ("0.0.0.0:8080".to_owned(), Some(AdminRole::Health)),
            ("0.0.0.0:8081".to_owned(), Some(AdminRole::Balancer)),
            ("0.0.0.0:8405".to_owned(), Some(AdminRole::Metrics))
        ]
    );
}
