//! `[routing]`: whose word counts, who is denied, and which paths are rooms, tenants and signaling. The lists, their defaults and
//! what they mean are [`Routing`]'s; here they are read and written.

use super::section::Section;
use super::value;
use super::write;
use crate::routing_key::{Compat, Routing};
use shardgate_discovery::RegionName;
use std::fmt;

const PATH: &str =
    "a part of a path, such as \"http-bind\" or \"/_health\": 1 to 128 visible ASCII characters without ? #";
const FOLDER: &str = "a folder's name, such as \"static\": 1 to 128 visible ASCII characters without / ? #";
const AGENT: &str = "a part of a user agent, such as \"wordpress\": 1 to 128 printable ASCII characters";
const HOST: &str = "the beginning of a host name, such as \"signal-api-\": 1 to 128 of A-Z a-z 0-9 . -";

pub(super) fn read(mut section: Section<'_>) -> Routing {
    let default = Routing::default();
    let compats = [Compat::None, Compat::Haproxy].map(|compat| (compat.as_str(), compat));
    let region = |text: &str| RegionName::parse(text).ok();
    let routing = Routing {
        pools: default.pools,
        compat: section.get("compat", value::word(&compats)).unwrap_or(default.compat),
        denied_user_agents: section
            .list("denied_user_agents", "parts of user agents", value::text(AGENT, agent))
            .unwrap_or(default.denied_user_agents),
        region_order: section
            .list("region_order", "regions", value::text(RegionName::EXPECTED, region))
            .unwrap_or(default.region_order),
        not_group: folders(&mut section, "not_group").unwrap_or(default.not_group),
        health: paths(&mut section, "health").unwrap_or(default.health),
        not_room_ends: paths(&mut section, "not_room_ends").unwrap_or(default.not_room_ends),
        not_room_folders: folders(&mut section, "not_room_folders").unwrap_or(default.not_room_folders),
        not_room_tenant_folders: folders(&mut section, "not_room_tenant_folders")
            .unwrap_or(default.not_room_tenant_folders),
        service_ends: paths(&mut section, "service_ends").unwrap_or(default.service_ends),
        service_hosts: section
            .list("service_hosts", "host name beginnings", value::text(HOST, host))
            .unwrap_or(default.service_hosts),
    };
    section.finish();
    routing
}

fn paths(section: &mut Section<'_>, name: &'static str) -> Option<Vec<String>> {
    section.list(name, "parts of paths", value::text(PATH, path))
}

fn folders(section: &mut Section<'_>, name: &'static str) -> Option<Vec<String>> {
    let folder = |text: &str| path(text).filter(|text| !text.contains('/'));
    section.list(name, "folder names", value::text(FOLDER, folder))
}

fn path(text: &str) -> Option<String> {
    let valid = |byte: u8| byte.is_ascii_graphic() && !matches!(byte, b'?' | b'#');
    (!text.is_empty() && text.len() <= 128 && text.bytes().all(valid)).then(|| text.to_owned())
}

fn host(text: &str) -> Option<String> {
    let valid = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'-');
    (!text.is_empty() && text.len() <= 128 && text.bytes().all(valid)).then(|| text.to_owned())
}

fn agent(text: &str) -> Option<String> {
    let valid = |byte: u8| byte.is_ascii_graphic() || byte == b' ';
    (!text.is_empty() && text.len() <= 128 && text.bytes().all(valid)).then(|| text.to_owned())
}

pub(super) fn write(f: &mut fmt::Formatter<'_>, routing: &Routing) -> fmt::Result {
    writeln!(f, "[routing]")?;
    writeln!(f, "compat = {}", write::text(routing.compat.as_str()))?;
    writeln!(f, "denied_user_agents = {}", write::list(&routing.denied_user_agents))?;
    writeln!(f, "region_order = {}", write::list(&routing.region_order))?;
    writeln!(f, "not_group = {}", write::list(&routing.not_group))?;
    writeln!(f, "health = {}", write::list(&routing.health))?;
    writeln!(f, "not_room_ends = {}", write::list(&routing.not_room_ends))?;
    writeln!(f, "not_room_folders = {}", write::list(&routing.not_room_folders))?;
    writeln!(f, "not_room_tenant_folders = {}", write::list(&routing.not_room_tenant_folders))?;
    writeln!(f, "service_ends = {}", write::list(&routing.service_ends))?;
    writeln!(f, "service_hosts = {}", write::list(&routing.service_hosts))
}
