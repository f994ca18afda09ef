//! `shardgate route explain` as its user meets it, and README's examples of it. With `SHARDGATE_REGENERATE=1` these are written anew.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

const REPOSITORY: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/..");
const FILES: [&str; 4] =
    ["--config", "ops/config/shardgate.example.toml", "--discovery", "ops/config/discovery.example.toml"];

/// README's examples: a URL, further arguments, and the exit status.
const EXAMPLES: [(&str, &[&str], i32); 10] = [
    ("https://meet.example.com/Standup", &[], 0),
    ("https://meet.example.com/acme/standup/", &[], 0),
    ("wss://meet.example.com/globex/xmpp-websocket?room=standup", &[], 0),
    ("https://meet.example.com/http-bind?room=standup", &["--entry", "prod-eu-frankfurt-1-s3"], 0),
    ("https://meet.example.com/http-bind?room=standup", &["--entry", "prod-eu-frankfurt-1-s4"], 0),
    ("https://meet.example.com/standup?release=release-9", &[], 0),
    ("https://meet.example.com/prod-eu-frankfurt-1-s4/about/health", &[], 0),
    ("https://meet.example.com/static/app.js", &[], 0),
    ("https://meet.example.com/bannedroom", &[], 1),
    ("https://meet.example.com/standup", &["-H", "User-Agent: WordPress/6.5"], 1),
];

/// The binary of the same build, in the repository's folder.
fn route(args: &[&str]) -> Output {
    let this = std::env::current_exe().expect("a test has a path");
    let folder = this.parent().and_then(Path::parent).expect("a test stands in target/PROFILE/deps");
    let mut command = Command::new(folder.join("shardgate"));
    command.env_clear().current_dir(REPOSITORY).arg("route").args(args).output().expect("the binary starts")
}

fn explain(args: &[&str]) -> (i32, String, String) {
    let Output { status, stdout, stderr } = route(&[&["explain"], args].concat());
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    (status.code().expect("it was not killed"), text(&stdout), text(&stderr))
}

/// An argument as one types it in a shell.
fn typed(argument: &str) -> String {
    if argument.contains(' ') { format!("'{argument}'") } else { argument.to_owned() }
}

#[test]
fn the_readme_shows_what_ten_urls_get() {
    let mut block = String::new();
    for (url, more, status) in EXAMPLES {
        let (code, said, wrong) = explain(&[&[url, "--output", "line"], &FILES[..], more].concat());
        assert_eq!(code, status, "{url}: {said}{wrong}");
        let words: Vec<String> = std::iter::once(url).chain(more.iter().copied()).map(typed).collect();
        block.push_str(&format!("{}\n  {said}", words.join(" ")));
    }
    let path = PathBuf::from(REPOSITORY).join("README.md");
    let readme = fs::read_to_string(&path).expect("README.md is there");
    let section = readme.find("## Where does this URL go?").expect("README.md has the section");
    let fence = "```text\n";
    let start = section + readme[section..].find(fence).expect("it has a block") + fence.len();
    let end = start + readme[start..].find("```").expect("the block ends");
    if std::env::var_os("SHARDGATE_REGENERATE").is_some() {
        fs::write(&path, format!("{}{block}{}", &readme[..start], &readme[end..]))
            .expect("README.md is written");
        return;
    }
    assert_eq!(&readme[start..end], block, "README.md is stale: SHARDGATE_REGENERATE=1 writes it anew");
}

#[test]
fn what_cannot_be_told_has_status_2_and_a_hint() {
    for (args, said) in [
        (&["/foo"][..], "hint: name it with --discovery FILE"),
        (&["/foo", "--discovery", "/nowhere"], "/nowhere: cannot be read"),
        (&["/foo", "--config", "/nowhere"], "/nowhere: cannot be read"),
        (
            &["/foo", "--set", "routing.compat=nginx"],
            "routing.compat is \"nginx\", expected \"none\" or \"haproxy\"",
        ),
        (&["/a b", FILES[2], FILES[3]], "expected a URL or a path"),
        (&["ftp://meet.example.com/", FILES[2], FILES[3]], "scheme ftp, expected http, https, ws or wss"),
        (&["/foo", "-H", "no colon", FILES[2], FILES[3]], "expected NAME: VALUE"),
        (&["/foo", "--entry", "a b", FILES[2], FILES[3]], "--entry"),
        (&["/foo", "--output", "yaml", FILES[2], FILES[3]], "yaml"),
        (&[], "Usage"),
    ] {
        let (code, out, wrong) = explain(args);
        assert_eq!((code, out.as_str()), (2, ""), "{args:?}: {wrong}");
        assert!(wrong.contains(said), "{args:?}: no {said:?} in\n{wrong}");
    }
}

#[test]
fn status_says_whether_it_would_be_routed() {
    let discovery = &FILES[2..];
    for (args, code, said) in [
        (&["/foo"][..], 0, "(live)"),
        (&["/foo", "--method", "CONNECT"], 1, "400: method CONNECT is not served"),
        (&["meet.example.com:80"], 1, "400: request target"),
        (&["/foo", "-H", "Referer: https://www.spam.example.com/x"], 1, "429: referer is banned"),
        (
            &["/foo", "-H", "Referer: https://x.org/", "--set", "routing.denied_referers=x.org"],
            1,
            "429: referer is denied",
        ),
        (&["/http-bind?room=bannedroom"], 1, "403: room or tenant is banned"),
        (&["/foo?stick=true"], 0, "stored as foo [room-from-path stick-flag"),
        (
            &["/foo?keep=1", "--set", "routing.stick_flag=keep=1"],
            0,
            "stored as foo [room-from-path stick-flag",
        ),
        (&["/http-bind?conference=foo", "--set", "routing.room_parameter=conference"], 0, "stored as foo"),
        (&["https://signal-api-1.example.com/foo"], 0, "stored as foo [room-from-path host-prefix"),
        (&["https://signal-api-1.example.com/foo", "-H", "Host: a"], 0, "(live) [room-from-path live"),
        (&["/foo,bar", "--set", "routing.compat=haproxy"], 0, "last-comma-part"),
        (&["/foo", "--set", "node.region=nowhere"], 0, "fallback-region"),
    ] {
        let (status, out, wrong) = explain(&[args, discovery, &["--output", "line"]].concat());
        assert_eq!(status, code, "{args:?}: {out}{wrong}");
        assert!(out.contains(said), "{args:?}: no {said:?} in {out}");
    }
}

#[test]
fn json_is_for_scripts_and_the_rules_are_listed_in_their_order() {
    let (code, out, wrong) = explain(&[&["/acme/Foo", "--output", "json"], &FILES[..]].concat());
    assert_eq!(code, 0, "{wrong}");
    let json: serde_json::Value = serde_json::from_str(&out).expect("one document");
    assert_eq!((&json["key"]["token"], &json["key"]["tenant"]), (&"acme/foo".into(), &"acme".into()));
    let steps: Vec<&str> =
        json["steps"].as_array().expect("steps").iter().filter_map(|step| step["rule"].as_str()).collect();
    let listed = String::from_utf8_lossy(&route(&["rules"]).stdout).into_owned();
    let order: Vec<&str> =
        listed.lines().filter_map(|line| line.strip_prefix("  ")?.split(' ').next()).collect();
    let places: Vec<Option<usize>> =
        steps.iter().map(|rule| order.iter().position(|other| other == rule)).collect();
    assert!(places.is_sorted() && !places.contains(&None), "{steps:?} in {order:?}");
    assert!(order.len() > 50 && listed.lines().all(|line| line.chars().count() <= 110), "{listed}");
}
