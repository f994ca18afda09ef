//! What the rules are made of: the names that make a path no room, no group, or signaling: data, with Jitsi's lists as the default.

use super::Pool;
use shardgate_discovery::RegionName;

/// Whose word counts where HAProxy has a bug.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Compat {
    /// Ours: what splits or merges rooms, or lets a client past a rule, is put right.
    #[default]
    None,
    /// HAProxy's with Jitsi's configuration, rule by rule.
    Haproxy,
}

impl Compat {
    /// The word for it in the configuration.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Haproxy => "haproxy",
        }
    }

    /// The one that `word` stands for.
    #[must_use]
    pub fn from_word(word: &str) -> Option<Self> {
        [Self::None, Self::Haproxy].into_iter().find(|compat| compat.as_str() == word)
    }
}

/// Which paths are rooms, tenants and services. Names are compared case-sensitively and raw, as HAProxy does.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Routing {
    /// Whether HAProxy's bugs are kept.
    pub compat: Compat,
    /// User agents that hold one of these, in any case, are denied (R03).
    pub denied_user_agents: Vec<String>,
    /// Referers that hold one of these, in any case, are denied, beside those that are banned (R04).
    pub denied_referers: Vec<String>,
    /// The parameter that names the room, case-sensitively (R05).
    pub room_parameter: String,
    /// How a parameter begins that makes a room's page store the entry: its name, `=` and a value (R16).
    pub stick_flag: String,
    /// The other regions in the order in which their shards stand in; those that are not named follow by name (R38).
    pub region_order: Vec<RegionName>,
    /// Servers without conferences, by the paths that lead to them; the first that takes a path counts.
    pub pools: Vec<Pool>,
    /// First path segments that are no tenant; a `.` stands for any character (R08).
    pub not_group: Vec<String>,
    /// Paths that begin so are health checks: neither tenant nor room, but signaling (R08, R11, R15).
    pub health: Vec<String>,
    /// Paths that end so are no rooms, whatever stands before it (R11).
    pub not_room_ends: Vec<String>,
    /// First path segments of assets, whose paths are no rooms; a `.` stands for any character (R11).
    pub not_room_folders: Vec<String>,
    /// The same as second segment, below a tenant (R11).
    pub not_room_tenant_folders: Vec<String>,
    /// Paths that end so are signaling, which makes stick entries (R15).
    pub service_ends: Vec<String>,
    /// Hosts that begin so, in any case, are signaling as a whole (R15).
    pub service_hosts: Vec<String>,
}

impl Default for Routing {
    fn default() -> Self {
        Self {
            compat: Compat::None,
            denied_user_agents: strings(&["wordpress"]),
            denied_referers: Vec::new(),
            room_parameter: "room".to_owned(),
            stick_flag: "stick=true".to_owned(),
            region_order: Vec::new(),
            pools: Vec::new(),
            not_group: strings(&[
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
            ]),
            health: strings(&["/about/health", "/_health"]),
            not_room_ends: strings(&[
                "config.js",
                "interface_config.js",
                "favicon.ico",
                "http-bind",
                "http-pre-bind",
                "xmpp-websocket",
                "conference-request/v1",
                "/room",
                "/room-size",
                "/room-password",
                "external_api.min.js",
                "external_api.min.map",
                "external_api.js",
                "analytics.js",
                "apple-app-site-association",
                "assetlinks.json",
                "close.html",
                "close.js",
                "close2.html",
                "close3.html",
                "dialininfo.html",
                "robots.txt",
                "/_unlock",
                "/_health",
                "pwa-worker.js",
                "manifest.json",
            ]),
            not_room_folders: strings(&[
                "static",
                "images",
                "img",
                "css",
                "fonts",
                "libs",
                "connection_optimization",
                "sounds",
                ".well-known",
                "lang",
            ]),
            not_room_tenant_folders: strings(&[
                "static",
                "images",
                "css",
                "fonts",
                "libs",
                "connection_optimization",
                "sounds",
                ".well-known",
                "lang",
            ]),
            service_ends: strings(&[
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
            ]),
            service_hosts: strings(&["signal-api-"]),
        }
    }
}

impl Routing {
    pub(super) fn is_health(&self, path: &str) -> bool {
        self.health.iter().any(|prefix| path.starts_with(prefix.as_str()))
    }

    pub(super) fn is_not_group(&self, segment: &str) -> bool {
        self.not_group.iter().any(|name| dot_matches(name, segment))
    }

    pub(super) fn is_not_room(&self, path: &str) -> bool {
        if self.not_room_ends.iter().any(|end| path.ends_with(end.as_str())) {
            return true;
        }
        let Some((first, rest)) = path.strip_prefix('/').and_then(|path| path.split_once('/')) else {
            return false;
        };
        if self.not_room_folders.iter().any(|folder| dot_matches(folder, first)) {
            return true;
        }
        if first.is_empty() {
            return false;
        }
        let folder = rest.split_once('/').map(|(second, _)| second);
        folder.is_some_and(|second| self.not_room_tenant_folders.iter().any(|name| dot_matches(name, second)))
            || self.not_room_ends.iter().any(|name| dot_matches(name.trim_start_matches('/'), rest))
    }

    pub(super) fn is_service_path(&self, path: &str) -> bool {
        self.service_ends.iter().any(|end| path.ends_with(end.as_str()))
    }

    /// Whether any part of the Host header begins so.
    pub(super) fn is_service_host(&self, host: &[u8]) -> bool {
        host.split(|byte| *byte == b',').map(<[u8]>::trim_ascii_start).any(|host| {
            self.service_hosts.iter().any(|prefix| {
                host.get(..prefix.len()).is_some_and(|start| start.eq_ignore_ascii_case(prefix.as_bytes()))
            })
        })
    }
}

/// Equal, where a `.` of the pattern stands for any one byte: Jitsi's names are regular expressions without escapes.
fn dot_matches(pattern: &str, text: &str) -> bool {
    pattern.len() == text.len()
        && pattern.bytes().zip(text.bytes()).all(|(want, have)| want == b'.' || want == have)
}

fn strings(names: &[&str]) -> Vec<String> {
    names.iter().map(|name| (*name).to_owned()).collect()
}
