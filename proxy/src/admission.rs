//! Who is not let in: user agents, referers, banned rooms and tenants. Pure; looked at before anything is routed.

use http::header::{HOST, REFERER, USER_AGENT};
use http::uri::Scheme;
use http::{HeaderMap, Method, Uri};
use shardgate_discovery::{BanList, Bans, Letters, Verdict};

use crate::headers::Sent;
use crate::redirect::ToHttps;
use crate::rescue::Failure;
use crate::routing_key::{Compat, Routing, RoutingKey, Told};
use crate::rule::{Fired, Rule};

/// HAProxy's buffer (`tune.bufsize`), less what it keeps free for rewriting (`tune.maxrewrite`): the largest head that it reads.
const HAPROXY_HEAD_MAX: usize = 16_384 - 1_024;
/// What fits into it together with the headers that Jitsi's rules add; found by trying (R29).
const HAPROXY_REWRITTEN_MAX: usize = 16_000;

/// Why a request is not let in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// R03: 403.
    #[error("user agent is denied")]
    UserAgent,
    /// R04, by the configuration: 429.
    #[error("referer is denied")]
    DeniedReferer,
    /// R04: 429.
    #[error("referer is banned")]
    Referer,
    /// R21, a request with `room=`: 403.
    #[error("room or tenant is banned")]
    Banned,
    /// R21, any other one: 302 to `/`.
    #[error("room or tenant is banned, and a page is answered with a redirect")]
    BannedPage,
    /// R01: 400.
    #[error("Host headers differ, or differ from the target's authority")]
    Hosts,
    /// R01, with [`Compat::Haproxy`]: 400.
    #[error("request head is larger than HAProxy's buffer")]
    HeadBeyondBuffer,
    /// R29, with [`Compat::Haproxy`]: 500.
    #[error("request head is larger than HAProxy's buffer with the headers that tell of its room")]
    RewrittenBeyondBuffer,
}

impl Refusal {
    /// The rule that refuses.
    #[must_use]
    pub const fn rule(self) -> Rule {
        match self {
            Self::UserAgent => Rule::DeniedUserAgent,
            Self::DeniedReferer => Rule::DeniedReferer,
            Self::Referer => Rule::RefererBan,
            Self::Banned => Rule::BanDenied,
            Self::BannedPage => Rule::BanRedirect,
            Self::Hosts => Rule::HostsDiffer,
            Self::HeadBeyondBuffer | Self::RewrittenBeyondBuffer => Rule::HeadTooLarge,
        }
    }
}

/// Reads a request's head as far as its routing key; what remains is [`check_key`]. Notes in `fired` what matched, and what refused.
///
/// # Errors
/// The [`Failure`] with which it is answered.
pub(crate) fn read_head<'a>(
    method: &Method,
    uri: &'a Uri,
    headers: &HeaderMap,
    sent: &'a Sent,
    bans: &Bans,
    routing: &Routing,
    fired: &mut Fired,
) -> Result<RoutingKey<'a>, Failure> {
    let mut read = || {
        check_target(method, uri)?;
        check_hosts(uri, headers)?;
        check_headers(headers, bans, routing)?;
        let target = uri.path_and_query().map_or("", |target| target.as_str());
        let key = RoutingKey::parse(target, &sent.said(), routing)?;
        fired.join(key.fired());
        check_size(target, headers, &key, routing.compat)?;
        Ok(key)
    };
    let key: Result<_, Failure> = read();
    if let Some(rule) = key.as_ref().err().and_then(Failure::rule) {
        fired.note(rule);
    }
    key
}

/// Looks at whether a listener of plain HTTP takes the request at all: one that redirects answers with where the same is over TLS.
/// What is no valid request is refused first, so that nobody is sent to a host that was only one of two. Notes in `fired` what refused.
///
/// # Errors
/// The [`Failure`] with which it is answered.
pub(crate) fn check_security(
    to_https: Option<ToHttps>,
    method: &Method,
    uri: &Uri,
    headers: &HeaderMap,
    fired: &mut Fired,
) -> Result<(), Failure> {
    let Some(to_https) = to_https else { return Ok(()) };
    let check = || {
        check_target(method, uri)?;
        check_hosts(uri, headers)?;
        to_https.of(method, uri, headers)?.map_or(Ok(()), |elsewhere| Err(Failure::Elsewhere(elsewhere)))
    };
    let checked: Result<_, Failure> = check();
    if let Some(rule) = checked.as_ref().err().and_then(Failure::rule) {
        fired.note(rule);
    }
    checked
}

/// Looks at the form of method and target (R01, R28).
fn check_target(method: &Method, uri: &Uri) -> Result<(), Failure> {
    if *method == Method::CONNECT {
        return Err(Failure::Connect);
    }
    let is_authority = uri.scheme().is_none() && uri.authority().is_some();
    // `http://host?x`, which RFC 3986 allows and HAProxy refuses (R01).
    let has_no_path = uri.path_and_query().is_some_and(|target| target.as_str().starts_with('?'));
    if is_authority || has_no_path {
        return Err(Failure::Target(uri.to_string()));
    }
    Ok(())
}

/// Looks at what is said of the host (R01; RFC 9112, 3.2): one Host, and no other one in an absolute target.
///
/// # Errors
/// [`Refusal::Hosts`].
pub fn check_hosts(uri: &Uri, headers: &HeaderMap) -> Result<(), Refusal> {
    let mut hosts = headers.get_all(HOST).iter();
    let Some(host) = hosts.next() else { return Ok(()) };
    if hosts.any(|other| !other.as_bytes().eq_ignore_ascii_case(host.as_bytes())) {
        return Err(Refusal::Hosts);
    }
    let Some(authority) = uri.authority() else { return Ok(()) };
    let authority = authority.as_str();
    let authority = authority.rsplit_once('@').map_or(authority, |(_, host)| host);
    let port = if uri.scheme() == Some(&Scheme::HTTPS) { ":443" } else { ":80" };
    let bare = |text: &[u8]| text.strip_suffix(port.as_bytes()).unwrap_or(text).to_ascii_lowercase();
    if bare(authority.as_bytes()) == bare(host.as_bytes()) { Ok(()) } else { Err(Refusal::Hosts) }
}

/// Looks at the size of a head, as HAProxy's buffer bounds it (R29); ours is `frontend.max_header_size`.
///
/// # Errors
/// The [`Refusal`].
pub fn check_size(
    target: &str,
    headers: &HeaderMap,
    key: &RoutingKey<'_>,
    compat: Compat,
) -> Result<(), Refusal> {
    if compat == Compat::None {
        return Ok(());
    }
    let lines = headers.iter().map(|(name, value)| name.as_str().len() + value.len() + 4);
    let head = target.len() + lines.sum::<usize>();
    let told = |told: &Told<'_>| if let Told::Text(text) = told { text.len() } else { 0 };
    let added = told(key.room_told()) + told(key.group_told()) + key.token().len();
    if head > HAPROXY_HEAD_MAX {
        Err(Refusal::HeadBeyondBuffer)
    } else if head + added > HAPROXY_REWRITTEN_MAX {
        Err(Refusal::RewrittenBeyondBuffer)
    } else {
        Ok(())
    }
}

const fn letters(compat: Compat) -> Letters {
    match compat {
        Compat::None => Letters::EitherCase,
        Compat::Haproxy => Letters::AsWritten,
    }
}

/// Looks at the headers (R03, R04), before the target is even parsed.
///
/// # Errors
/// The [`Refusal`].
pub fn check_headers(headers: &HeaderMap, bans: &Bans, routing: &Routing) -> Result<(), Refusal> {
    let holds = |name, denied: &[String]| {
        let holds = |line: &[u8]| denied.iter().any(|part| contains_ignoring_case(line, part.as_bytes()));
        !denied.is_empty() && headers.get_all(name).iter().any(|line| holds(line.as_bytes()))
    };
    if holds(USER_AGENT, &routing.denied_user_agents) {
        return Err(Refusal::UserAgent);
    }
    if holds(REFERER, &routing.denied_referers) {
        return Err(Refusal::DeniedReferer);
    }
    if bans.list(BanList::Domain).is_empty() {
        return Ok(());
    }
    // A byte that is no text in the path is no way past a ban of its domain.
    let mut referers =
        headers.get_all(REFERER).iter().map(|referer| String::from_utf8_lossy(referer.as_bytes()));
    let said = match routing.compat {
        Compat::Haproxy => referers.next_back().and_then(|last| referer_as_haproxy(&last, bans)),
        Compat::None => referers.find_map(|referer| referer_of_domain(&referer, bans)),
    };
    if said == Some(Verdict::Ban) { Err(Refusal::Referer) } else { Ok(()) }
}

/// Every text contains the empty one.
fn contains_ignoring_case(text: &[u8], part: &[u8]) -> bool {
    part.is_empty() || text.windows(part.len()).any(|window| window.eq_ignore_ascii_case(part))
}

/// The last part between commas, as a whole.
fn referer_as_haproxy(referer: &str, bans: &Bans) -> Option<Verdict> {
    let last = referer.rsplit_once(',').map_or(referer, |(_, last)| last).trim().to_ascii_lowercase();
    bans.exact(BanList::Domain, &last, Letters::AsWritten)
}

/// The whole URL if it is listed, else its host, else the nearest domain above it that is.
fn referer_of_domain(referer: &str, bans: &Bans) -> Option<Verdict> {
    let referer = referer.trim().to_ascii_lowercase();
    let listed = |text: &str| bans.exact(BanList::Domain, text, Letters::EitherCase);
    if let Some(verdict) = listed(&referer) {
        return Some(verdict);
    }
    let rest = referer.split_once("://").map_or(referer.as_str(), |(_, rest)| rest);
    let authority = rest.split(['/', '?', '#']).next().unwrap_or("");
    let host = authority.rsplit_once('@').map_or(authority, |(_, host)| host);
    let host = host.rsplit_once(':').map_or(host, |(name, port)| {
        if port.bytes().all(|byte| byte.is_ascii_digit()) { name } else { host }
    });
    let above = std::iter::successors(Some(host.trim_end_matches('.')), |name| {
        name.split_once('.').map(|(_, above)| above)
    });
    above.filter(|name| !name.is_empty()).find_map(listed)
}

/// Looks at room, group and token (R20, R21). Notes in `fired` which list counts, and what becomes of it.
///
/// # Errors
/// The [`Refusal`].
pub fn check_key(
    key: &RoutingKey<'_>,
    bans: &Bans,
    compat: Compat,
    fired: &mut Fired,
) -> Result<(), Refusal> {
    if bans.is_empty() || !is_banned(key, bans, compat, fired) {
        return Ok(());
    }
    let refusal = if key.has_room_parameter() { Refusal::Banned } else { Refusal::BannedPage };
    fired.note(refusal.rule());
    Err(refusal)
}

/// R20: each list that says anything overrules the ones after it.
fn is_banned(key: &RoutingKey<'_>, bans: &Bans, compat: Compat, fired: &mut Fired) -> bool {
    let letters = letters(compat);
    let (group, room) = (key.banned_group(), key.banned_room());
    let by = |rule: Rule| move |verdict: Verdict| (rule, verdict);
    let prefix = |list, text: &str, rule| bans.longest_prefix(list, text, letters).map(by(rule));
    let exact = |list, text: &str, rule| bans.exact(list, text, letters).map(by(rule));
    let unbanned = prefix(BanList::UnbanPrefix, group, Rule::UnbanTenant);
    let listed = |room: &str, token: &str| {
        let joined = || token.to_ascii_lowercase().replacen('/', "___", 1);
        unbanned
            .or_else(|| bans.first_substring(&joined(), letters).map(by(Rule::BanSubstring)))
            .or_else(|| prefix(BanList::Prefix, group, Rule::BanTenantPrefix))
            .or_else(|| prefix(BanList::Prefix, room, Rule::BanRoomPrefix))
            .or_else(|| exact(BanList::Exact, group, Rule::BanTenantExact))
            .or_else(|| exact(BanList::Exact, room, Rule::BanRoomExact))
            // Written by the job that bans, and read by no HAProxy: the least exact word there is.
            .or_else(|| exact(BanList::Tenant, group.strip_suffix('/')?, Rule::BanTenant))
            .or_else(|| exact(BanList::Room, room, Rule::BanRoom))
    };
    let mut bans_it = |said: Option<(Rule, Verdict)>| {
        said.is_some_and(|(rule, verdict)| {
            fired.note(rule);
            verdict == Verdict::Ban
        })
    };
    if bans_it(listed(&room, key.token())) {
        return true;
    }
    // What an empty parameter hides is banned as it would be by itself, whatever is said of the tenant alone.
    let hidden = key.hidden_room();
    let hidden_banned =
        !hidden.is_empty() && bans_it(listed(hidden, &format!("{group}{hidden}").replace("%25", "%")));
    if hidden_banned {
        fired.note(Rule::BanHiddenRoom);
    }
    hidden_banned
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::routing_key::Said;
    use http::HeaderValue;
    use shardgate_discovery::file::parse_text;

    const BANS: &str = r#"
        [bans]
        domain = ["banned.example.com", "https://x.example.com/page", { pattern = "ok.banned.example.com", verdict = "allow" }]
        exact = ["bannedroom", "badtenant/", "Upper"]
        prefix = ["spam"]
        substr = ["evilt___evilr"]
        unban_prefix = [{ pattern = "viptenant", verdict = "allow" }]
        room = ["jobroom"]
        tenant = ["jobtenant"]
    "#;

    fn routing(compat: Compat) -> Routing {
        Routing { compat, ..Routing::default() }
    }

    fn checked(target: &str, compat: Compat) -> Result<(), Refusal> {
        let snapshot = parse_text(BANS).unwrap();
        let routing = routing(compat);
        let key = RoutingKey::parse(target, &Said::default(), &routing).unwrap();
        check_key(&key, snapshot.bans(), compat, &mut Fired::default())
    }

    #[test]
    fn banned_rooms_are_banned_however_their_link_is_written() {
        for target in
            ["/bannedroom", "/BannedRoom", "/acme/bannedroom", "/badtenant/foo", "/spam1", "/evilt/evilr"]
        {
            for compat in [Compat::None, Compat::Haproxy] {
                assert_eq!(checked(target, compat), Err(Refusal::BannedPage), "{target}");
            }
        }
        for (target, refusal) in [
            ("/bannedroom/", Refusal::BannedPage),
            ("/bannedroom?room=", Refusal::Banned),
            ("/evilt/evilr?room=", Refusal::Banned),
            ("/upper", Refusal::BannedPage),
            ("/jobroom", Refusal::BannedPage),
            ("/jobtenant/http-bind?room=x", Refusal::Banned),
        ] {
            assert_eq!(checked(target, Compat::None), Err(refusal), "{target}");
        }
        assert_eq!(checked("/bannedroom/", Compat::Haproxy), Ok(()));
        assert_eq!(checked("/bannedroom?room=", Compat::Haproxy), Ok(()));
        assert_eq!(checked("/upper", Compat::Haproxy), Ok(()));
        assert_eq!(checked("/viptenant/bannedroom", Compat::None), Ok(()));
        assert_eq!(checked("/ok", Compat::None), Ok(()));
    }

    #[test]
    fn one_host() {
        let check = |target: &str, hosts: &[&str]| {
            let mut headers = HeaderMap::new();
            for host in hosts {
                headers.append(HOST, HeaderValue::from_str(host).unwrap());
            }
            check_hosts(&target.parse().unwrap(), &headers)
        };
        for (target, hosts) in [
            ("/foo", &[][..]),
            ("/foo", &["a", "A"]),
            ("http://U:p@Meet.example.com:80/foo", &["meet.example.com"]),
            ("https://meet.example.com/foo", &["meet.example.com:443"]),
        ] {
            assert_eq!(check(target, hosts), Ok(()), "{target} {hosts:?}");
        }
        for (target, hosts) in
            [("/foo", &["a", "b"][..]), ("http://a/foo", &["b"]), ("http://a:81/foo", &["a"])]
        {
            assert_eq!(check(target, hosts), Err(Refusal::Hosts), "{target} {hosts:?}");
        }
    }

    #[test]
    fn haproxys_buffer() {
        let headers = HeaderMap::from_iter([(HOST, HeaderValue::from_static("meet.example.com"))]);
        let check = |room: usize, compat| {
            let target = format!("/{}", "a".repeat(room));
            let key = RoutingKey::parse(&target, &Said::default(), &routing(Compat::Haproxy)).unwrap();
            check_size(&target, &headers, &key, compat)
        };
        assert_eq!(check(5_200, Compat::Haproxy), Ok(()));
        assert_eq!(check(5_400, Compat::Haproxy), Err(Refusal::RewrittenBeyondBuffer));
        assert_eq!(check(16_000, Compat::Haproxy), Err(Refusal::HeadBeyondBuffer));
        assert_eq!(check(5_400, Compat::None), Ok(()));
    }

    #[test]
    fn referers_and_user_agents() {
        let snapshot = parse_text(BANS).unwrap();
        let check = |name, value: &str, compat| {
            let mut headers = HeaderMap::new();
            headers.append(name, HeaderValue::from_bytes(value.as_bytes()).unwrap());
            check_headers(&headers, snapshot.bans(), &routing(compat))
        };
        assert_eq!(check(USER_AGENT, "x WordPress/6", Compat::None), Err(Refusal::UserAgent));
        assert_eq!(check(USER_AGENT, "wordpres", Compat::None), Ok(()));
        for (referer, ours, theirs) in [
            ("banned.example.com", Err(Refusal::Referer), Err(Refusal::Referer)),
            ("https://banned.example.com/other", Err(Refusal::Referer), Ok(())),
            ("https://user@Sub.Banned.example.com:8443?x", Err(Refusal::Referer), Ok(())),
            ("https://ok.banned.example.com/", Ok(()), Ok(())),
            ("https://x.example.com/page", Err(Refusal::Referer), Err(Refusal::Referer)),
            ("https://x.example.com/", Ok(()), Ok(())),
            ("x, banned.example.com", Ok(()), Err(Refusal::Referer)),
            ("https://meet.example.com/banned.example.com", Ok(()), Ok(())),
            ("https://banned.example.com/caf\u{e9}", Err(Refusal::Referer), Ok(())),
        ] {
            assert_eq!(check(REFERER, referer, Compat::None), ours, "{referer}");
            assert_eq!(check(REFERER, referer, Compat::Haproxy), theirs, "{referer}");
        }
    }
}
