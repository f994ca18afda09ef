use super::*;
use crate::{BanList, SHARDS_MAX, ShardState};
use std::fmt::Write;
use std::path::Path;

/// What stands in front of most cases: lines 1 to 6 are a valid shard.
const SHARD: &str = "[[shards]]\nname = \"s1\"\nid = 1\nregion = \"r1\"\nrelease = \"release-1\"\naddress = \"10.0.0.1:5280\"\n";

fn refusal(text: &str) -> String {
    let path = Path::new("d.toml").to_owned();
    match parse_text(text) {
        Ok(snapshot) => panic!("accepted: {text}\n{snapshot:?}"),
        Err(faults) => FileError::Invalid { path, faults }.to_string(),
    }
}

/// `(text, message)`; a text that begins with `+` comes after [`SHARD`].
const CASES: &[(&str, &str)] = &[
    ("live_release = \n", "d.toml:1:16: string values must be quoted, expected literal string"),
    ("live_release = \"a\"\nlive_release = \"b\"\n", "d.toml:2:1: duplicate key"),
    (
        "live_release = \"release 1\"\n",
        "d.toml:1:16: live_release is \"release 1\", expected a text such as \"release-3630\", 1 to 128 of A-Z a-z 0-9 . _ -",
    ),
    (
        "live_relase = \"release-1\"\n",
        "d.toml:1:1: unknown field `live_relase`, expected one of `live_release`, `shards`, `peers`, `pins`, `bans`",
    ),
    (
        "shards = 3\n",
        "d.toml:1:10: shards: invalid type: integer `3`, expected a list of tables (each begins with [[...]])",
    ),
    (
        "shards = [3]\n",
        "d.toml:1:11: shards: invalid type: integer `3`, expected a table with the fields of a shard",
    ),
    (
        "[shards]\nname = \"s1\"\n",
        "d.toml:1:1: shards: invalid type: map, expected a list of tables (each begins with [[...]])",
    ),
    (
        "[pins]\nacme = 3\n",
        "d.toml:2:8: pins.acme is 3, expected a text such as \"release-3630\", 1 to 128 of A-Z a-z 0-9 . _ -",
    ),
    (
        "[pins]\nAcme = \"release-1\"\n",
        "d.toml:2:1: a key of pins is \"Acme\", expected a tenant, 1 to 256 visible ASCII characters in lower case without / ? # ,",
    ),
    (
        "[pins]\n\"a/b\" = \"release-1\"\n",
        "d.toml:2:1: a key of pins is \"a/b\", expected a tenant, 1 to 256 visible ASCII characters in lower case without / ? # ,",
    ),
    (
        "[bans]\nexact = [\"a\", 3]\n",
        "d.toml:2:15: bans.exact[1] is 3, expected a pattern, 1 to 256 visible ASCII characters, or { pattern = \"...\", verdict = \"ban\" or \"allow\" }",
    ),
    (
        "[bans]\nsubstr = [{ pattern = \"a\", verdict = \"perhaps\" }]\n",
        "d.toml:2:11: bans.substr[0] is { pattern = \"a\", verdict = \"perhaps\" }, expected a pattern, 1 to 256 visible ASCII characters, or { pattern = \"...\", verdict = \"ban\" or \"allow\" }",
    ),
    (
        "[bans]\nroom = [\"a\", \"b\"]\nprefix = [\"b\",\n\"b\"]\n",
        "d.toml:4:1: bans.prefix[1] is \"b\", which line 3 has already, expected it once",
    ),
    (
        "[bans]\nexakt = []\n",
        "d.toml:2:1: bans: unknown field `exakt`, expected one of `domain`, `exact`, `prefix`, `substr`, `unban_prefix`, `room`, `tenant`",
    ),
    ("pins = \"release-1\"\n", "d.toml:1:8: pins: invalid type: string \"release-1\", expected a table"),
    (
        "[[shards]]\n",
        "d.toml:1:1: shards[0].name is missing, expected a text of 1 to 128 of A-Z a-z 0-9 . _ -\nd.toml:1:1: shards[0].id is missing, expected an integer from 0 to 4294967285\nd.toml:1:1: shards[0].region is missing, expected a text such as \"us-phoenix-1\", 1 to 64 of A-Z a-z 0-9 . _ -\nd.toml:1:1: shards[0].release is missing, expected a text such as \"release-3630\", 1 to 128 of A-Z a-z 0-9 . _ -\nd.toml:1:1: shards[0].address is missing, expected an IP address and port to dial, such as \"10.0.0.1:5280\"",
    ),
    (
        "+adress = \"10.0.0.1:80\"\n",
        "d.toml:7:1: shards: unknown field `adress`, expected one of `name`, `id`, `region`, `release`, `address`, `state`, `weight`, `agent_port`, `state_in`",
    ),
    (
        "+state_in = { \"release-1\" = \"up\", \"no release\" = \"drain\" }\n",
        "d.toml:7:34: a key of shards[0].state_in is \"no release\", expected a text such as \"release-3630\", 1 to 128 of A-Z a-z 0-9 . _ -\nd.toml:7:28: shards[0].state_in.release-1 is \"up\", expected \"ready\", \"drain\" or \"maint\"",
    ),
    (
        "+state = \"up\"\n",
        "d.toml:7:9: shards[0].state is \"up\", expected \"ready\", \"drain\" or \"maint\"",
    ),
    ("+state = true\n", "d.toml:7:9: shards[0].state is true, expected \"ready\", \"drain\" or \"maint\""),
    ("+weight = 257\n", "d.toml:7:10: shards[0].weight is 257, expected an integer from 0 to 256"),
    ("+weight = -1\n", "d.toml:7:10: shards[0].weight is -1, expected an integer from 0 to 256"),
    ("+weight = 1.5\n", "d.toml:7:10: shards[0].weight is 1.5, expected an integer from 0 to 256"),
    ("+weight = \"100%\"\n", "d.toml:7:10: shards[0].weight is \"100%\", expected an integer from 0 to 256"),
    (
        "+[[shards]]\nname = \"s1\"\nid = 2\nregion = \"r1\"\nrelease = \"release-1\"\naddress = \"10.0.0.2:5280\"\n",
        "d.toml:8:8: shards[1].name is \"s1\", which line 2 has already, expected it once",
    ),
    (
        "+[[shards]]\nname = \"s2\"\nid = 1\nregion = \"r1\"\nrelease = \"release-1\"\naddress = \"10.0.0.2:5280\"\n",
        "d.toml:9:6: shards[1].id is 1, which line 3 has already, expected it once",
    ),
    (
        "+[[shards]]\nname = \"s 2\"\nid = 4294967286\nregion = \"\"\nrelease = [\"release-1\"]\naddress = \"shard.example.com:80\"\n",
        "d.toml:8:8: shards[1].name is \"s 2\", expected a text of 1 to 128 of A-Z a-z 0-9 . _ -\nd.toml:9:6: shards[1].id is 4294967286, expected an integer from 0 to 4294967285\nd.toml:10:10: shards[1].region is \"\", expected a text such as \"us-phoenix-1\", 1 to 64 of A-Z a-z 0-9 . _ -\nd.toml:11:11: shards[1].release is [\"release-1\"], expected a text such as \"release-3630\", 1 to 128 of A-Z a-z 0-9 . _ -\nd.toml:12:11: shards[1].address is \"shard.example.com:80\", expected an IP address and port to dial, such as \"10.0.0.1:5280\"",
    ),
    (
        "+[[shards]]\nname = \"s2\"\nid = 2\nregion = \"r1\"\nrelease = \"release-1\"\naddress = \"10.0.0.2\"\n",
        "d.toml:12:11: shards[1].address is \"10.0.0.2\", expected an IP address and port to dial, such as \"10.0.0.1:5280\"",
    ),
    (
        "+[[shards]]\nname = \"s2\"\nid = 2\nregion = \"r1\"\nrelease = \"release-1\"\naddress = \"10.0.0.2:0\"\n",
        "d.toml:12:11: shards[1].address is \"10.0.0.2:0\", expected an IP address and port to dial, such as \"10.0.0.1:5280\"",
    ),
    (
        "+[[shards]]\nname = \"s2\"\nid = 2\nregion = \"r1\"\nrelease = \"release-1\"\naddress = \"0.0.0.0:80\"\n",
        "d.toml:12:11: shards[1].address is \"0.0.0.0:80\", expected an IP address and port to dial, such as \"10.0.0.1:5280\"",
    ),
    (
        "+[[peers]]\nid = \"Proxy_A\"\nregion = \"r1\"\naddress = \"10.0.0.1:7000\"\n",
        "d.toml:8:6: peers[0].id is \"Proxy_A\", expected a text of 1 to 63 of a-z 0-9 -, not at its ends",
    ),
    (
        "[[peers]]\nid = \"a\"\nregion = \"r1\"\naddress = \"10.0.0.1:7000\"\n[[peers]]\nid = \"a\"\nregion = \"r1\"\naddress = \"10.0.0.2:7000\"\n",
        "d.toml:6:6: peers[1].id is \"a\", which line 2 has already, expected it once",
    ),
    (
        "[[peers]]\nid = \"a\"\nregion = \"r1\"\n",
        "d.toml:1:1: peers[0].address is missing, expected an IP address and port to dial, such as \"10.0.0.1:5280\"",
    ),
    (
        "[[peers]]\nid = \"a\"\nregion = \"r1\"\naddress = \"10.0.0.1:70000\"\n",
        "d.toml:4:11: peers[0].address is \"10.0.0.1:70000\", expected an IP address and port to dial, such as \"10.0.0.1:5280\"",
    ),
    (
        "pins = { \"\u{fc}\" = 3 } # columns count characters\n",
        "d.toml:1:10: a key of pins is \"\u{fc}\", expected a tenant, 1 to 256 visible ASCII characters in lower case without / ? # ,\nd.toml:1:16: pins.\u{fc} is 3, expected a text such as \"release-3630\", 1 to 128 of A-Z a-z 0-9 . _ -",
    ),
    (
        "live_release = \"\"\"\nline\nline\"\"\"\n",
        "d.toml:1:16: live_release is \"line\\nline\", expected a text such as \"release-3630\", 1 to 128 of A-Z a-z 0-9 . _ -",
    ),
];

#[test]
fn every_broken_file_says_where_and_what() {
    assert!(CASES.len() >= 20);
    for (text, expected) in CASES {
        let text = text.strip_prefix('+').map_or_else(|| (*text).to_owned(), |tail| format!("{SHARD}{tail}"));
        let message = refusal(&text);
        assert_eq!(message, *expected, "\n{text}");
    }
}

#[test]
fn lists_are_bounded() {
    let mut text = String::new();
    for index in 0..=SHARDS_MAX {
        write!(text, "[[shards]]\nname = \"s{index}\"\nid = {index}\n").unwrap();
    }
    assert_eq!(refusal(&text), "d.toml:1:1: shards has 10001 entries, expected at most 10000");
    let mut text = "[pins]\n".to_owned();
    for index in 0..=crate::PINS_MAX {
        writeln!(text, "t{index} = \"release-1\"").unwrap();
    }
    assert_eq!(refusal(&text), "d.toml:2:1: pins has 100001 entries, expected at most 100000");
}

#[test]
fn the_largest_valid_file_fits() {
    let mut text = String::new();
    for index in 0..SHARDS_MAX {
        let (b, c) = (index / 256, index % 256);
        write!(
            text,
            "[[shards]]\nname = \"prod-us-phoenix-1-s{index}\"\nid = {index}\nregion = \"us-phoenix-1\"\n\
             release = \"release-3630\"\naddress = \"10.1.{b}.{c}:5280\"\n"
        )
        .unwrap();
    }
    text.push_str("[pins]\n");
    for index in 0..crate::PINS_MAX {
        writeln!(text, "tenant{index} = \"release-3630\"").unwrap();
    }
    assert!((text.len() as u64) < FILE_BYTES_MAX / 2);
    let snapshot = parse_text(&text).unwrap();
    assert_eq!(snapshot.shards().len(), SHARDS_MAX);
    assert_eq!(snapshot.tenant_pin("tenant99999").unwrap().as_str(), "release-3630");
}

#[test]
fn a_hopeless_file_makes_a_short_message() {
    let text = "[[shards]]\nname = \"s1\"\n".repeat(100);
    let message = refusal(&text);
    assert_eq!(message.lines().count(), 21);
    assert!(message.ends_with("\nd.toml: and 380 more faults"), "{message}");
}

#[test]
fn what_is_no_text_file_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let message = |path: &Path| {
        read_file(path).unwrap_err().to_string().replace(&dir.path().display().to_string(), "DIR")
    };
    assert_eq!(
        message(dir.path()),
        "DIR: is no regular file, expected a TOML file with shards, peers, live_release and pins"
    );
    let binary = dir.path().join("binary");
    std::fs::write(&binary, b"# fine\n# \xff\n").unwrap();
    assert_eq!(message(&binary), "DIR/binary:2: is not UTF-8, expected TOML text");
    let large = dir.path().join("large");
    File::create(&large).unwrap().set_len(FILE_BYTES_MAX + 1).unwrap();
    assert_eq!(message(&large), "DIR/large: is larger than 16777216 bytes (16 MiB), expected a smaller file");
}

#[test]
fn an_empty_file_is_the_operators_word() {
    let snapshot = parse_text("").unwrap();
    assert!(snapshot.shards().is_empty());
    assert_eq!(snapshot.warnings().len(), 1);
}

#[test]
fn defaults_are_ready_and_full_weight() {
    let snapshot = parse_text(SHARD).unwrap();
    let shard = snapshot.shard("s1").unwrap();
    assert_eq!((shard.state, shard.weight), (ShardState::Ready, 256));
}

#[test]
fn the_shipped_example_is_valid() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../ops/config/discovery.example.toml");
    let snapshot = read_file(&path).unwrap();
    assert!(snapshot.warnings().is_empty(), "{:?}", snapshot.warnings());
    let states: Vec<_> = snapshot.shards().iter().map(|shard| shard.state).collect();
    for state in [ShardState::Ready, ShardState::Drain, ShardState::Maint] {
        assert!(states.contains(&state), "the example does not show {state}");
    }
    assert!(snapshot.peers().len() >= 2 && snapshot.pins().count() >= 1);
    for list in BanList::ALL {
        assert!(!snapshot.bans().list(list).is_empty(), "the example does not show the ban list {list}");
    }
}
