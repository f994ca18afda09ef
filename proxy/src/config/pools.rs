//! `[[pools]]`: servers without conferences, by the paths that lead to them. What they mean is [`Pool`]'s.

use std::collections::BTreeSet;
use std::fmt;

use shardgate_discovery::consul::POOL_SERVICES_MAX;
use shardgate_discovery::{RegionName, ServiceName, ShardName};

use super::health::HealthConfig;
use super::section::Section;
use super::upstream::UpstreamConfig;
use super::value;
use super::write;
use crate::cookie::{COOKIE_NAME, CookieName};
use crate::routing_key::{POOL_NAME_LEN_MAX, Pool, PoolServer, PoolServers, SERVER};

const NAME: &str = "a text such as \"jvb-colibri\", 1 to 80 of A-Z a-z 0-9 . _ -";
const PATH: &str =
    "the beginning of a path, such as \"/colibri-ws/\": / and up to 127 visible ASCII characters without ? #";

/// Whether there is a catalog whose services can be servers of pools.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Catalog {
    /// Consul's, or it does not matter here.
    There,
    /// There is none.
    None,
}

pub(super) fn read(
    mut section: Section<'_>,
    region: Option<&RegionName>,
    catalog: Catalog,
    others: &[Pool],
) -> Option<Pool> {
    let name =
        |text: &str| ShardName::parse(text).ok().filter(|name| name.as_str().len() <= POOL_NAME_LEN_MAX);
    let name = section.require("name", NAME, value::text(NAME, name));
    let paths = section.require_list("paths", "beginnings of paths", value::text(PATH, path));
    let servers = section.list("servers", "servers", value::text(SERVER, PoolServer::parse));
    let service = value::text(ServiceName::EXPECTED, |text| ServiceName::parse(text).ok());
    let service = section.get("service", service);
    let cookie = section.get("stick_on_cookie", value::text(COOKIE_NAME, CookieName::parse));
    if let (Some(_), Some(cookie)) = (&service, &cookie) {
        let expected =
            "nothing beside service: its servers are one datacenter's, and cookies are for all".to_owned();
        section.refuse("stick_on_cookie", cookie, expected);
    }
    if let Some(name) = name.as_ref().filter(|name| others.iter().any(|pool| pool.name == **name)) {
        section.refuse("name", name, "a name that no other pool has".to_owned());
    }
    if paths.as_ref().is_some_and(Vec::is_empty) {
        section.refuse("paths", &"[]", "at least one beginning of a path".to_owned());
    }
    if servers.as_ref().is_some_and(|servers| servers.iter().all(|server| server.weight == 0)) {
        section.refuse("servers", &"[]", "at least one server with a weight".to_owned());
    }
    match (&servers, &service) {
        (None, None) => section.refuse(
            "servers",
            &"",
            "servers, or the service of Consul's whose instances they are".to_owned(),
        ),
        (Some(_), Some(service)) => section.refuse("service", service, "nothing beside servers".to_owned()),
        (None, Some(service)) if catalog == Catalog::None => {
            section.refuse("service", service, "servers, as there is no [consul]".to_owned());
        }
        (None, Some(service)) => {
            let mut services: BTreeSet<_> = others.iter().filter_map(Pool::service).collect();
            if services.insert(service) && services.len() > POOL_SERVICES_MAX {
                let expected = format!("at most {POOL_SERVICES_MAX} services of all pools");
                section.refuse("service", service, expected);
            }
        }
        (Some(_), None) => {}
    }
    let upstream = UpstreamConfig::read(&mut section);
    let health = HealthConfig::read(&mut section, &upstream);
    section.finish();
    let pool = match (servers, service) {
        (Some(servers), None) => Pool::new(name?, paths?, servers, region?)?,
        (None, Some(service)) => Pool::of_service(name?, paths?, service),
        // Refused above.
        (Some(_), Some(_)) | (None, None) => return None,
    };
    let pool = pool.spoken_to(upstream).watched(health);
    Some(match cookie {
        Some(cookie) => pool.sticking_on(cookie),
        None => pool,
    })
}

fn path(text: &str) -> Option<String> {
    let valid = |byte: u8| byte.is_ascii_graphic() && !matches!(byte, b'?' | b'#');
    (text.starts_with('/') && text.len() <= 128 && text.bytes().all(valid)).then(|| text.to_owned())
}

pub(super) fn write(f: &mut fmt::Formatter<'_>, pool: &Pool) -> fmt::Result {
    writeln!(f, "[[pools]]")?;
    writeln!(f, "name = {}", write::text(pool.name.as_str()))?;
    writeln!(f, "paths = {}", write::list(&pool.paths))?;
    match &pool.servers {
        PoolServers::Given { listed, .. } => writeln!(f, "servers = {}", write::list(listed))?,
        PoolServers::Service(service) => writeln!(f, "service = {}", write::text(service.as_str()))?,
    }
    if let Some(cookie) = &pool.stick_on_cookie {
        writeln!(f, "stick_on_cookie = {}", write::text(cookie.as_str()))?;
    }
    write!(f, "{}{}", pool.upstream, pool.health)
}
