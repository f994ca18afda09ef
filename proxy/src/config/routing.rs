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
const REFERER: &str = "a part of a referer, such as \"spam.example.com\": 1 to 128 visible ASCII characters";
const PARAMETER: &str =
    "the name of a parameter, such as \"room\": 1 to 64 of A-Z a-z 0-9 . _ -, other than release";
const FLAG: &str =
    "a parameter and how its value begins, such as \"stick=true\": 3 to 64 of A-Z a-z 0-9 . _ - around one =";
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
        denied_referers: section
            .list("denied_referers", "parts of referers", value::text(REFERER, referer))
            .unwrap_or(default.denied_referers),
        room_parameter: section
            .get("room_parameter", value::text(PARAMETER, parameter))
            .unwrap_or(default.room_parameter),
        stick_flag: section.get("stick_flag", value::text(FLAG, flag)).unwrap_or(default.stick_flag),
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

fn referer(text: &str) -> Option<String> {
    let valid = |byte: u8| byte.is_ascii_graphic();
    (!text.is_empty() && text.len() <= 128 && text.bytes().all(valid)).then(|| text.to_owned())
}

/// `release` has a meaning of its own.
fn parameter(text: &str) -> Option<String> {
    (is_word(text) && text.len() <= 64 && text != "release").then(|| text.to_owned())
}

fn flag(text: &str) -> Option<String> {
    let (name, value) = text.split_once('=')?;
    (is_word(name) && is_word(value) && text.len() <= 64).then(|| text.to_owned())
}

fn is_word(text: &str) -> bool {
    let valid = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'-');
    !text.is_empty() && text.bytes().all(valid)
}

pub(super) fn write(f: &mut fmt::Formatter<'_>, routing: &Routing) -> fmt::Result {
    writeln!(f, "[routing]")?;
    writeln!(f, "compat = {}", write::text(routing.compat.as_str()))?;
    writeln!(f, "denied_user_agents = {}", write::list(&routing.denied_user_agents))?;
    writeln!(f, "denied_referers = {}", write::list(&routing.denied_referers))?;
    writeln!(f, "room_parameter = {}", write::text(&routing.room_parameter))?;
    writeln!(f, "stick_flag = {}", write::text(&routing.stick_flag))?;
    writeln!(f, "region_order = {}", write::list(&routing.region_order))?;
    writeln!(f, "not_group = {}", write::list(&routing.not_group))?;
    writeln!(f, "health = {}", write::list(&routing.health))?;
    writeln!(f, "not_room_ends = {}", write::list(&routing.not_room_ends))?;
    writeln!(f, "not_room_folders = {}", write::list(&routing.not_room_folders))?;
    writeln!(f, "not_room_tenant_folders = {}", write::list(&routing.not_room_tenant_folders))?;
    writeln!(f, "service_ends = {}", write::list(&routing.service_ends))?;
    writeln!(f, "service_hosts = {}", write::list(&routing.service_hosts))
}
