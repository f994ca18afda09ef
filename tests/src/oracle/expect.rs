//! What is expected of shardgate where HAProxy's answer was recorded: the same, but for what a rule names.

use super::plan::HOST_NAME;
use super::record::{DecidedBy, Lines, Outcome, Vector};

/// What a request is expected to lead to.
#[derive(Debug, Clone)]
pub(super) struct Expected {
    pub(super) status: u16,
    pub(super) location: Option<String>,
    /// Who may have answered; empty when the node answers itself.
    pub(super) servers: Vec<String>,
    /// The target that a shard sees; `None` for whatever was asked.
    pub(super) target: Option<String>,
    /// What a shard hears, by header; no lines for one that must be absent.
    pub(super) told: Vec<(&'static str, Vec<String>)>,
    pub(super) to_client: Vec<(&'static str, Vec<String>)>,
    pub(super) stored: Stored,
}

/// What is expected of the table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Stored {
    Nothing,
    Key(String),
}

/// Why a vector is not asked, by rule.
pub(super) fn skipped(vector: &Vector) -> Option<&'static str> {
    let request = &vector.request;
    let control = |text: &str| text.chars().any(|letter| letter.is_control());
    if request.target.contains(['<', '>', '"', '`']) {
        return Some("parser: refused here, passed by HAProxy: < > \" ` in the target");
    }
    if request.target.contains('#') {
        return Some("parser: passed here without what follows #, refused by HAProxy");
    }
    if request.target.starts_with("*?") {
        return Some("parser: refused here, passed by HAProxy: *?");
    }
    if !matches!(request.http_version.as_str(), "1.0" | "1.1")
        && vector.result.decided_by != DecidedBy::Parser
    {
        return Some("parser: HTTP versions other than 1.0 and 1.1");
    }
    if request.headers.iter().any(|(_, value)| control(value)) {
        return Some("parser: control characters in header values");
    }
    None
}

fn lines(lines: Option<&Lines>) -> Vec<String> {
    match lines {
        None => Vec::new(),
        Some(Lines::One(line)) => vec![line.clone()],
        Some(Lines::Many(lines)) => lines.clone(),
    }
}

/// HAProxy's answer, with its table's mechanics replaced by ours: keys are never empty (R14) and never cut (R29).
pub(super) fn as_recorded(vector: &Vector, live_primaries: &[String], region: &str) -> Expected {
    let result = &vector.result;
    if result.backend.as_deref() == Some("local_health") {
        // R18: no page of HAProxy's own is reached; the name stands for nothing, so the live release counts. The room is flagged (R17).
        let mut expected = Expected { status: 200, servers: live_primaries.to_vec(), ..of(result) };
        let line = |text: &str| vec![text.to_owned()];
        for (name, lines) in &mut expected.told {
            match *name {
                "x-forwarded-for" => *lines = line("127.0.0.1"),
                "x-forwarded-proto" => *lines = line("https"),
                "x-proxy-region" => *lines = line(region),
                _ => {}
            }
        }
        expected.to_client = vec![("x-proxy-region", line(region)), ("x-proxy-host", line(HOST_NAME))];
        expected.stored = Stored::Key(lines(result.x_stick_token.as_ref()).join(""));
        return expected;
    }
    let mut expected = of(result);
    let asked = &vector.request.target;
    if asked.strip_prefix("http://").is_some_and(|rest| !rest.contains('/')) {
        // R02: HAProxy 3.0 writes the path that such a target means, and so does hyper.
        expected.target = Some(format!("{asked}/"));
    }
    if let Stored::Key(key) = &expected.stored {
        let whole = lines(result.x_stick_token.as_ref()).join("");
        expected.stored = match key.len() {
            0 => Stored::Nothing,
            _ if whole.len() > 1_024 => Stored::Nothing,
            _ => Stored::Key(whole),
        };
    }
    expected
}

pub(super) fn of(result: &Outcome) -> Expected {
    let by_server = result.decided_by == DecidedBy::Server;
    let servers = match (&result.server, &result.candidates) {
        (Some(server), _) if by_server => vec![server.clone()],
        (None, Some(candidates)) if by_server => candidates.clone(),
        _ => Vec::new(),
    };
    let to_server = |name: &str| {
        result.to_server.as_ref().and_then(|headers| headers.get(name)).cloned().unwrap_or_default()
    };
    let back = |name: &str| result.response_headers.get(name).cloned().unwrap_or_default();
    Expected {
        status: result.status,
        location: result.location.clone(),
        servers,
        target: result.to_server.as_ref().and_then(|headers| headers.get("rewritten_to")?.get(1).cloned()),
        told: vec![
            ("x-room", lines(result.x_room.as_ref())),
            ("x-group", lines(result.x_group.as_ref())),
            ("x-sticktoken", lines(result.x_stick_token.as_ref())),
            ("x-sticktokenflag", lines(result.stick_token_flag.as_ref())),
            ("x-forwarded-for", to_server("x-forwarded-for")),
            ("x-forwarded-proto", to_server("x-forwarded-proto")),
            ("x-proxy-region", to_server("x-proxy-region")),
        ],
        to_client: vec![("x-proxy-region", back("x-proxy-region")), ("x-proxy-host", back("x-proxy-host"))],
        stored: result.stored_in_table.clone().map_or(Stored::Nothing, Stored::Key),
    }
}
