//! How it is found out whether a shard, or a server of a pool, can be used: fields that `[backend]` and each of `[[pools]]` have. Names and
//! meanings are those of HAProxy's `server` line (manual 5.2).

use super::section::Section;
use super::upstream::{UpstreamConfig, UpstreamProtocol, Verify};
use super::value;
use super::write;
use http::uri::{Authority, PathAndQuery};
use std::fmt;
use std::ops::RangeInclusive;
use std::time::Duration;

const DAY: Duration = Duration::from_secs(86_400);
const SHORTEST: Duration = Duration::from_millis(10);
const PATH: &str = "a path such as \"/about/health\", of visible ASCII characters";
const HOST: &str = "a host such as \"meet.example.com\"";
const STATUS: &str = "a status such as \"200\" or a range such as \"200-399\", from 100 to 599";
const BODY: &str = "a text of 1 to 256 bytes";

/// What is asked of a server from time to time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Check {
    /// Nothing.
    #[default]
    Off,
    /// To take a connection.
    Tcp,
    /// To answer a request.
    Http,
}

impl Check {
    const WORDS: &[(&'static str, Self)] = &[("off", Self::Off), ("tcp", Self::Tcp), ("http", Self::Http)];
}

/// What the request of a check asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum CheckMethod {
    /// The whole answer.
    #[default]
    Get,
    /// Its head.
    Head,
}

impl CheckMethod {
    const WORDS: &[(&'static str, Self)] = &[("GET", Self::Get), ("HEAD", Self::Head)];

    /// As it stands in the request.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        value::word_of(Self::WORDS, self)
    }
}

/// Statuses that say that a server is well.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Statuses(Vec<RangeInclusive<u16>>);

impl Statuses {
    /// Whether `status` is one of them.
    #[must_use]
    pub fn contain(&self, status: u16) -> bool {
        self.0.iter().any(|range| range.contains(&status))
    }

    fn parse(text: &str) -> Option<RangeInclusive<u16>> {
        let (from, to) = text.split_once('-').unwrap_or((text, text));
        let number = |text: &str| text.parse().ok().filter(|status| (100..=599).contains(status));
        let (from, to) = (number(from)?, number(to)?);
        (from <= to).then_some(from..=to)
    }

    fn texts(&self) -> impl Iterator<Item = String> {
        self.0.iter().map(|range| match (range.start(), range.end()) {
            (from, to) if from == to => from.to_string(),
            (from, to) => format!("{from}-{to}"),
        })
    }
}

/// The request of an HTTP check, and which answers are good.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HttpCheck {
    /// Default GET.
    pub method: CheckMethod,
    /// Default `/about/health`, as at Jitsi.
    pub path: String,
    /// Default: the server's address.
    pub host: Option<String>,
    /// Default 200 alone.
    pub statuses: Statuses,
    /// What has to stand in the first 64 KiB of the answer's body. Default: anything may.
    pub body: Option<String>,
}

impl Default for HttpCheck {
    fn default() -> Self {
        Self {
            method: CheckMethod::default(),
            path: "/about/health".to_owned(),
            host: None,
            statuses: Statuses(vec![200..=200]),
            body: None,
        }
    }
}

/// Whether servers' agents are asked how they are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum AgentCheck {
    /// They are not.
    #[default]
    Off,
    /// They are.
    On,
}

impl AgentCheck {
    const WORDS: &[(&'static str, Self)] = &[("off", Self::Off), ("on", Self::On)];
}

/// Which of a server's failures with real requests count.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Observe {
    /// None.
    #[default]
    Off,
    /// Connections that do not come about.
    Layer4,
    /// These, and answers that are no HTTP, do not come, or have a status of 500 or more but 501 and 505.
    Layer7,
}

impl Observe {
    const WORDS: &[(&'static str, Self)] =
        &[("off", Self::Off), ("layer4", Self::Layer4), ("layer7", Self::Layer7)];
}

/// What enough failures in a row with real requests mean.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum OnError {
    /// The next check comes after `fastinter`.
    #[default]
    Fastinter,
    /// The same as a failed check.
    FailCheck,
    /// The next failed check says that the server is down.
    SuddenDeath,
    /// The server is down.
    MarkDown,
}

impl OnError {
    const WORDS: &[(&'static str, Self)] = &[
        ("fastinter", Self::Fastinter),
        ("fail-check", Self::FailCheck),
        ("sudden-death", Self::SuddenDeath),
        ("mark-down", Self::MarkDown),
    ];
}

/// What becomes of a server's sessions when it goes down.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum OnMarkedDown {
    /// They end when they end.
    #[default]
    Nothing,
    /// Tunnels are closed; requests that wait for its answer are given up, and go elsewhere where they may be repeated. What goes by a peer is not
    /// touched: that this node does not reach the server is why it goes so.
    ShutdownSessions,
}

impl OnMarkedDown {
    const WORDS: &[(&'static str, Self)] =
        &[("none", Self::Nothing), ("shutdown-sessions", Self::ShutdownSessions)];
}

/// How a server is watched.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HealthConfig {
    /// Default off, as HAProxy without `check`.
    pub check: Check,
    /// What `http` asks.
    pub http: HttpCheck,
    /// How long a check may take, its connection included; also an agent's. Default 3 s.
    pub timeout: Duration,
    /// Between the beginnings of two checks of a server that is up for sure. Default 10 s, as at Jitsi.
    pub inter: Duration,
    /// The same while it is going up or down. Default: `inter`.
    pub fastinter: Duration,
    /// The same while it is down. Default: `inter`.
    pub downinter: Duration,
    /// Failed checks in a row that make it down. Default 2, as at Jitsi.
    pub fall: u32,
    /// Good ones that make it up. Default 3, as at Jitsi.
    pub rise: u32,
    /// Default off.
    pub agent_check: AgentCheck,
    /// Where its agent listens, unless discovery says. Default 6060, signal-sidecar's.
    pub agent_port: u16,
    /// Between two questions to an agent. Default: `inter`.
    pub agent_inter: Duration,
    /// Default off.
    pub observe: Observe,
    /// Failures in a row of one worker's requests that count as one trouble. Default 10, as HAProxy's `error-limit`.
    pub error_limit: u32,
    /// Default fastinter.
    pub on_error: OnError,
    /// How long a server that came up takes to get its whole weight. Default 0: at once.
    pub slowstart: Duration,
    /// In how many steps. Default 20, as in HAProxy.
    pub slowstart_steps: u32,
    /// Default none.
    pub on_marked_down: OnMarkedDown,
}

impl Default for HealthConfig {
    fn default() -> Self {
        let inter = Duration::from_secs(10);
        Self {
            check: Check::default(),
            http: HttpCheck::default(),
            timeout: Duration::from_secs(3),
            inter,
            fastinter: inter,
            downinter: inter,
            fall: 2,
            rise: 3,
            agent_check: AgentCheck::default(),
            agent_port: 6060,
            agent_inter: inter,
            observe: Observe::default(),
            error_limit: 10,
            on_error: OnError::default(),
            slowstart: Duration::ZERO,
            slowstart_steps: 20,
            on_marked_down: OnMarkedDown::default(),
        }
    }
}

impl HealthConfig {
    /// Reads the fields; `upstream` are those of the same section about what is spoken to its servers.
    pub(super) fn read(section: &mut Section<'_>, upstream: &UpstreamConfig) -> Self {
        let default = Self::default();
        let time = || value::duration(SHORTEST..=DAY);
        let check = section.get("check", value::word(Check::WORDS)).unwrap_or_default();
        let http = read_http(section, check);
        let verified = upstream.protocol == UpstreamProtocol::Https && upstream.verify == Verify::On;
        if check == Check::Http && verified && upstream.sni.is_none() && http.host.is_none() {
            let expected =
                "a host whose name the servers' certificates hold, or sni: a check has no request's host";
            section.refuse("check_host", &"", expected.to_owned());
        }
        let inter = section.get("inter", time()).unwrap_or(default.inter);
        let observe = section.get("observe", value::word(Observe::WORDS)).unwrap_or_default();
        let on_error = section.get("on_error", value::word(OnError::WORDS)).unwrap_or_default();
        if observe != Observe::Off && check == Check::Off && on_error != OnError::MarkDown {
            // Nothing would ever say that the server is well, or unwell.
            section.refuse(
                "observe",
                &"",
                "\"off\" where check is \"off\" and on_error not \"mark-down\"".to_owned(),
            );
        }
        if observe != Observe::Off && check == Check::Off && on_error == OnError::MarkDown {
            section.refuse(
                "on_error",
                &"",
                "a check that finds out when the server is well again".to_owned(),
            );
        }
        Self {
            check,
            http,
            timeout: section.get("check_timeout", time()).unwrap_or(default.timeout),
            inter,
            fastinter: section.get("fastinter", time()).unwrap_or(inter),
            downinter: section.get("downinter", time()).unwrap_or(inter),
            fall: section.get("fall", value::integer(1..=100)).unwrap_or(default.fall),
            rise: section.get("rise", value::integer(1..=100)).unwrap_or(default.rise),
            agent_check: section.get("agent_check", value::word(AgentCheck::WORDS)).unwrap_or_default(),
            agent_port: section.get("agent_port", value::integer(1..=u16::MAX)).unwrap_or(default.agent_port),
            agent_inter: section.get("agent_inter", time()).unwrap_or(inter),
            observe,
            error_limit: section
                .get("error_limit", value::integer(1..=1_000_000))
                .unwrap_or(default.error_limit),
            on_error,
            slowstart: section
                .get("slowstart", value::duration(Duration::ZERO..=DAY))
                .unwrap_or(default.slowstart),
            slowstart_steps: section
                .get("slowstart_steps", value::integer(1..=1_000))
                .unwrap_or(default.slowstart_steps),
            on_marked_down: section
                .get("on_marked_down", value::word(OnMarkedDown::WORDS))
                .unwrap_or_default(),
        }
    }

    /// Whether anything is asked of a server at all.
    #[must_use]
    pub fn asks(&self) -> bool {
        self.check != Check::Off || self.agent_check == AgentCheck::On
    }
}

fn read_http(section: &mut Section<'_>, check: Check) -> HttpCheck {
    let default = HttpCheck::default();
    let fields = ["check_method", "check_path", "check_host", "check_status", "check_body"];
    let given = fields.map(|field| section.has(field));
    let path = |text: &str| {
        let valid = text.starts_with('/') && text.parse::<PathAndQuery>().is_ok();
        valid.then(|| text.to_owned())
    };
    let host = |text: &str| text.parse::<Authority>().is_ok().then(|| text.to_owned());
    let body = |text: &str| (1..=256).contains(&text.len()).then(|| text.to_owned());
    let statuses = section.list("check_status", "statuses", value::text(STATUS, Statuses::parse));
    if statuses.as_ref().is_some_and(Vec::is_empty) {
        section.refuse("check_status", &"", "at least one status".to_owned());
    }
    let http = HttpCheck {
        method: section.get("check_method", value::word(CheckMethod::WORDS)).unwrap_or_default(),
        path: section.get("check_path", value::text(PATH, path)).unwrap_or(default.path),
        host: section.get("check_host", value::text(HOST, host)),
        statuses: statuses.map_or(default.statuses, Statuses),
        body: section.get("check_body", value::text(BODY, body)),
    };
    for (field, _) in fields.into_iter().zip(given).filter(|(_, given)| *given) {
        if check != Check::Http {
            section.refuse(field, &"", "nothing where check is not \"http\"".to_owned());
        }
    }
    if http.method == CheckMethod::Head && http.body.is_some() {
        section.refuse("check_body", &"", "nothing where check_method is \"HEAD\"".to_owned());
    }
    http
}

impl fmt::Display for HealthConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let word = |f: &mut fmt::Formatter<'_>, name: &str, word: &str| {
            writeln!(f, "{name} = {}", write::text(word))
        };
        word(f, "check", value::word_of(Check::WORDS, self.check))?;
        if self.check == Check::Http {
            word(f, "check_method", self.http.method.as_str())?;
            word(f, "check_path", &self.http.path)?;
            if let Some(host) = &self.http.host {
                word(f, "check_host", host)?;
            }
            writeln!(f, "check_status = {}", write::list(self.http.statuses.texts()))?;
            if let Some(body) = &self.http.body {
                word(f, "check_body", body)?;
            }
        }
        writeln!(f, "check_timeout = {}", write::duration(self.timeout))?;
        writeln!(f, "inter = {}", write::duration(self.inter))?;
        writeln!(f, "fastinter = {}", write::duration(self.fastinter))?;
        writeln!(f, "downinter = {}", write::duration(self.downinter))?;
        writeln!(f, "fall = {}", self.fall)?;
        writeln!(f, "rise = {}", self.rise)?;
        word(f, "agent_check", value::word_of(AgentCheck::WORDS, self.agent_check))?;
        writeln!(f, "agent_port = {}", self.agent_port)?;
        writeln!(f, "agent_inter = {}", write::duration(self.agent_inter))?;
        word(f, "observe", value::word_of(Observe::WORDS, self.observe))?;
        writeln!(f, "error_limit = {}", self.error_limit)?;
        word(f, "on_error", value::word_of(OnError::WORDS, self.on_error))?;
        writeln!(f, "slowstart = {}", write::duration(self.slowstart))?;
        writeln!(f, "slowstart_steps = {}", self.slowstart_steps)?;
        word(f, "on_marked_down", value::word_of(OnMarkedDown::WORDS, self.on_marked_down))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn statuses_as_text() {
        for (text, good, bad) in [("200", 200, 201), ("200-399", 302, 400), ("100-599", 599, 600)] {
            let statuses = Statuses(vec![Statuses::parse(text).unwrap()]);
            assert!(statuses.contain(good) && !statuses.contain(bad), "{text}");
            assert_eq!(statuses.texts().collect::<Vec<_>>(), [text]);
        }
        for bad in ["", "20", "600", "399-200", "200-", "-200", "200-300-400", "+200", "2xx"] {
            assert_eq!(Statuses::parse(bad).filter(|_| bad != "+200"), None, "{bad}");
        }
    }
}
