//! A request as shardgate reads it: one conference, however its link is written, is one key, and nothing a client says changes whose
//! conference it is (`ops/doc/differences-from-haproxy.md`).

use super::lists::Routing;
use super::query::{lower, value_of};
use super::{Reading, Told, group_of_path};
use crate::rule::{Fired, Rule};

pub(super) fn read<'a>(path: &'a str, query: &'a str, routing: &Routing, fired: &mut Fired) -> Reading<'a> {
    // R10: `/foo/` is where `/foo` is.
    let trimmed = path.trim_end_matches('/');
    let is_health = routing.is_health(path);
    let not_room = is_health || routing.is_not_room(path) || routing.is_not_room(trimmed);
    if not_room && !is_health {
        fired.note(Rule::NotARoom);
    }
    let page = trimmed.rsplit_once('/').map_or("", |(_, last)| last);
    let room_page = !not_room && !page.is_empty();
    let page = if room_page { page } else { "" };
    // R05, R06: the first of that name; parameters are what stands between ampersands, in the query alone.
    let parameter = query.split('&').find_map(|part| value_of(part, &routing.room_parameter));
    match parameter {
        Some("") => {
            fired.note(Rule::RoomParameter);
            fired.note(Rule::EmptyRoom);
        }
        Some(_) => fired.note(Rule::RoomParameter),
        None if room_page && trimmed.len() < path.len() => {
            fired.note(Rule::TrailingSlash);
            fired.note(Rule::RoomFromPath);
        }
        None if room_page => fired.note(Rule::RoomFromPath),
        None => {}
    }
    let room = lower(parameter.unwrap_or(page));
    let tenant_group = lower(group_of_path(path, routing, fired));
    // The group of the page `/foo/` is no part of its token, and yet a tenant of that name may be pinned or banned (R08, R19).
    let is_page = parameter.is_none() && room_page;
    let group = if is_page { lower(group_of_path(trimmed, routing, fired)) } else { tenant_group.clone() };
    let has_room = !room.is_empty();
    Reading {
        group_told: if group.is_empty() { Told::Nothing } else { Told::Text(group.clone()) },
        room_told: if parameter.is_some() || room_page { Told::Text(room.clone()) } else { Told::Nothing },
        group,
        room,
        has_room,
        group_by_path: !tenant_group.is_empty(),
        tenant_group,
        // R07: an empty parameter does not open a banned room's page.
        hidden_room: if parameter == Some("") { page } else { "" },
        flag_sent: None,
        room_page,
    }
}
