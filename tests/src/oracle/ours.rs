//! What is expected of shardgate where it puts HAProxy right, rule by rule, from what was recorded. Written apart from the code under test,
//! and simpler: it knows which rules a recording is about, and takes everything else from it.

use super::expect::{Expected, Stored};
use super::plan::{HOST_NAME, Plan};
use super::record::{Request, Vector};

/// The longest key of the table.
const TOKEN_MAX: usize = 1_024;

/// Rules by which shardgate answers otherwise when it is not asked to be HAProxy.
const MAY_DIFFER: [&str; 16] = [
    "R04", "R05", "R06", "R07", "R10", "R13", "R14", "R18", "R20", "R26", "R29", "R31", "R35", "R39", "R40",
    "R42",
];

/// Whether a recording is about a rule by which our own answer may be another one.
pub(super) fn may_differ(vector: &Vector) -> bool {
    any_may_differ(&vector.rules) || breaks_host_rule(&vector.request)
}

/// Whether one of these rules is among those by which our own answer may be another one.
pub(super) fn any_may_differ(rules: &[String]) -> bool {
    rules.iter().any(|rule| MAY_DIFFER.contains(&rule.as_str()))
}

/// Corrects what was recorded by the rules that may differ. `all` are the recordings of the same variant: one of them may say whether a path
/// is a room's page.
pub(super) fn corrected(
    vector: &Vector,
    recorded: Expected,
    plan: &Plan,
    live_primaries: &[String],
    all: &[Vector],
) -> Expected {
    let request = &vector.request;
    if breaks_host_rule(request) {
        return refused(recorded, 400, None);
    }
    let (path, query) = split(&request.target);
    let mut expected = recorded;
    let parameter = query.split('&').find_map(|part| part.strip_prefix("room=")).map(str::to_ascii_lowercase);
    let page = page_of(path, all);
    let room = parameter.clone().or_else(|| page.clone());
    let group = group_of(path, parameter.is_none() && page.is_some(), all);
    let token = format!("{}{}", group.as_deref().unwrap_or(""), room.as_deref().unwrap_or(""));
    let token = token.replace("%25", "%");
    let has_room = room.as_ref().is_some_and(|room| !room.is_empty());
    if has_room && token.len() > TOKEN_MAX {
        return refused(expected, 400, None);
    }
    if referer_is_banned(request, plan) {
        return refused(expected, 429, None);
    }
    // A shard's answer, HAProxy's buffer (R29), or a ban that no longer holds.
    let tenant_group = group_of(path, false, all).unwrap_or_default();
    let hidden = if parameter.as_deref() == Some("") { page } else { None };
    let banned = [room.as_deref(), hidden.as_deref()]
        .into_iter()
        .flatten()
        .chain([""])
        .any(|room| is_banned(room, &tenant_group, &token, plan));
    if banned {
        let has_parameter = ["?room=", "&room="].iter().any(|text| request.target.contains(text));
        return if has_parameter { refused(expected, 403, None) } else { refused(expected, 302, Some("/")) };
    }
    // HAProxy was led elsewhere by a part between commas, or by what the client said of itself; or it refused.
    let tenant_by_part = tenant_group.contains(',') && !query.contains("release=");
    let says = request.headers.iter().any(|(name, _)| name.eq_ignore_ascii_case("x-room"));
    let by_suffix = vector.result.backend.as_ref().is_some_and(|backend| !backend.starts_with("release-"))
        && (says || request.target.contains(','));
    if expected.servers.is_empty() || tenant_by_part || by_suffix {
        let line = |text: &str| vec![text.to_owned()];
        (expected.status, expected.location) = (200, None);
        expected.servers = live_primaries.to_vec();
        set(&mut expected, "x-forwarded-for", line("127.0.0.1"));
        set(&mut expected, "x-forwarded-proto", line("https"));
        set(&mut expected, "x-proxy-region", line(&plan.region));
        expected.to_client = vec![("x-proxy-region", line(&plan.region)), ("x-proxy-host", line(HOST_NAME))];
    }
    let flagged = has_room
        && (told(&expected, "x-sticktokenflag") == ["true"] || stores_anyway(request, is_page(path, all)));
    let line = |text: Option<&String>| text.cloned().into_iter().collect::<Vec<_>>();
    set(&mut expected, "x-room", line(room.as_ref()));
    set(&mut expected, "x-group", line(group.as_ref()));
    set(&mut expected, "x-sticktoken", vec![token.clone()]);
    set(&mut expected, "x-sticktokenflag", if flagged { vec!["true".to_owned()] } else { Vec::new() });
    let is_shard = |name: &String| plan.shards.iter().any(|shard| shard.name == *name);
    let by_release = vector.result.backend.as_ref().is_some_and(is_shard)
        && request.target.contains("release=")
        && !by_suffix;
    let named = by_release
        || plan.shards.iter().any(|shard| expected.servers == [shard.name.clone()])
            && plan.shards.iter().any(|shard| {
                path.starts_with(&format!("/{}/", shard.name))
                    || room.as_ref().is_some_and(|room| room.ends_with(&format!("_{}", shard.name)))
            });
    expected.stored =
        if flagged && !named && !expected.servers.is_empty() { Stored::Key(token) } else { Stored::Nothing };
    expected
}

/// RFC 9112, 3.2: in HTTP/1.1 there is one Host, and always is it a host, perhaps with a port. HAProxy takes any.
fn breaks_host_rule(request: &Request) -> bool {
    let mut hosts = request.headers.iter().filter(|(name, _)| name.eq_ignore_ascii_case("host"));
    let Some((_, host)) = hosts.next() else { return request.http_version == "1.1" };
    let no_part_of_a_host = |letter: char| !letter.is_ascii_graphic() || "/@?#\\\"<>^`{|}".contains(letter);
    hosts.next().is_some() || host.contains(no_part_of_a_host)
}

fn split(target: &str) -> (&str, &str) {
    let path =
        target.strip_prefix("http://").map_or(target, |rest| rest.find('/').map_or("/", |at| &rest[at..]));
    path.split_once('?').unwrap_or((path, ""))
}

/// R11's names, for paths that no recording is about.
const NO_PAGES: [&str; 20] = [
    "config.js",
    "http-bind",
    "http-pre-bind",
    "xmpp-websocket",
    "conference-request/v1",
    "/room",
    "/room-size",
    "/room-password",
    "/_unlock",
    "/_health",
    "external_api.min.js",
    "external_api.js",
    "apple-app-site-association",
    "assetlinks.json",
    "close.html",
    "close.js",
    "close2.html",
    "pwa-worker.js",
    "manifest.json",
    "favicon.ico",
];

/// R08's folders, for paths that no recording is about.
const NO_GROUPS: [&str; 10] = [
    "libs",
    "css",
    "static",
    "images",
    "fonts",
    "lang",
    "sounds",
    "connection_optimization",
    "conference-request",
    ".well-known",
];

/// Whether a recording without any parameter says that this path is a room's page.
fn is_page(path: &str, all: &[Vector]) -> bool {
    let known = all.iter().find(|vector| {
        vector.request.target == path && vector.request.headers.len() <= 1 && vector.result.status == 200
    });
    match known {
        Some(vector) => vector.result.x_room.is_some(),
        None => !NO_PAGES.iter().any(|end| path.ends_with(end)) && !path.starts_with("/static/"),
    }
}

/// The room that a page's path names: R09, and R10 without its bug.
fn page_of(path: &str, all: &[Vector]) -> Option<String> {
    let trimmed = path.trim_end_matches('/');
    let last = trimmed.rsplit_once('/').map(|(_, last)| last.to_ascii_lowercase())?;
    (!last.is_empty() && is_page(path, all) && is_page(trimmed, all)).then_some(last)
}

/// R08: the first segment, when there is a second one; of a page's path a slash at its end does not count.
fn group_of(path: &str, is_page: bool, all: &[Vector]) -> Option<String> {
    let path = if is_page { path.trim_end_matches('/') } else { path };
    let (first, _) = path.strip_prefix('/')?.split_once('/')?;
    let group = format!("{}/", first.to_ascii_lowercase());
    // Folders of assets are no tenants, as recordings of them say.
    let of_folder = |vector: &&Vector| vector.request.target.starts_with(&format!("/{first}/"));
    let listed =
        NO_GROUPS.contains(&first) || path.starts_with("/about/health") || path.starts_with("/_health");
    let has_none = listed
        || all.iter().filter(of_folder).any(|vector| {
            vector.result.status == 200
                && vector.result.x_group.is_none()
                && vector.request.headers.len() <= 1
        });
    (!first.is_empty() && !has_none).then_some(group)
}

/// What flags a request by itself where HAProxy saw no room: a service, `stick=true`, `release=`.
fn stores_anyway(request: &Request, is_page: bool) -> bool {
    let (path, query) = split(&request.target);
    let services =
        ["http-bind", "http-pre-bind", "xmpp-websocket", "config.js", "conference-request/v1", "/_unlock"];
    services.iter().any(|end| path.ends_with(end)) || is_page && query.contains("stick=true")
}

fn refused(recorded: Expected, status: u16, location: Option<&str>) -> Expected {
    let told = recorded.told.iter().map(|(name, _)| (*name, Vec::new())).collect();
    let to_client = recorded.to_client.iter().map(|(name, _)| (*name, Vec::new())).collect();
    let (location, servers, stored) = (location.map(str::to_owned), Vec::new(), Stored::Nothing);
    Expected { status, location, servers, told, to_client, stored, target: None }
}

fn told<'e>(expected: &'e Expected, name: &str) -> &'e [String] {
    expected.told.iter().find(|(other, _)| *other == name).map_or(&[], |(_, lines)| lines)
}

fn set(expected: &mut Expected, name: &str, to: Vec<String>) {
    for (_, lines) in expected.told.iter_mut().filter(|(other, _)| *other == name) {
        lines.clone_from(&to);
    }
}

fn list<'p>(plan: &'p Plan, name: &str) -> impl Iterator<Item = (String, bool)> + use<'p> {
    let entries = plan.maps.bans.get(name).into_iter().flatten();
    entries.map(|(pattern, verdict)| (pattern.to_ascii_lowercase(), verdict == "ban"))
}

/// R04: the URL, its host, or a domain above it.
fn referer_is_banned(request: &Request, plan: &Plan) -> bool {
    let referers = request.headers.iter().filter(|(name, _)| name.eq_ignore_ascii_case("referer"));
    let mut verdicts = referers.filter_map(|(_, value)| {
        let value = value.trim().to_ascii_lowercase();
        let url = list(plan, "domain").find(|(pattern, _)| *pattern == value);
        let rest = value.split_once("://").map_or(value.as_str(), |(_, rest)| rest);
        let host = rest.split('/').next().unwrap_or("");
        let below = |pattern: &str| host == pattern || host.ends_with(&format!(".{pattern}"));
        let domain = || {
            list(plan, "domain")
                .filter(|(pattern, _)| below(pattern))
                .max_by_key(|(pattern, _)| pattern.len())
        };
        url.or_else(domain).map(|(_, bans)| bans)
    });
    verdicts.next().unwrap_or(false)
}

/// R20, patterns in either case.
fn is_banned(room: &str, group: &str, token: &str, plan: &Plan) -> bool {
    let exact = |text: &str| list(plan, "exact").find(|(pattern, _)| *pattern == text).map(|(_, bans)| bans);
    let prefix = |name: &str, text: &str| {
        let found = list(plan, name).filter(|(pattern, _)| text.starts_with(pattern.as_str()));
        found.max_by_key(|(pattern, _)| pattern.len()).map(|(_, bans)| bans)
    };
    let written = token.replacen('/', "___", 1);
    let part =
        list(plan, "substr").find(|(pattern, _)| written.contains(pattern.as_str())).map(|(_, bans)| bans);
    let verdicts = [
        exact(room),
        exact(group),
        prefix("prefix", room),
        prefix("prefix", group),
        part,
        prefix("unban_prefix", group),
    ];
    verdicts.into_iter().flatten().next_back().unwrap_or(false)
}
