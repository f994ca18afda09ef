//! A request as HAProxy reads it with Jitsi's rules, rule by rule, bugs and all (`compat = "haproxy"`).

use std::borrow::Cow;

use super::lists::Routing;
use super::query::{has_parameter, lower, parameters};
use super::{Reading, Said, Told, group_of_path};
use crate::rule::{Fired, Rule};

pub(super) fn read<'a>(
    target: &'a str,
    path: &'a str,
    query: &'a str,
    said: &Said<'a>,
    routing: &Routing,
    fired: &mut Fired,
) -> Reading<'a> {
    let is_health = routing.is_health(path);
    let not_room = is_health || routing.is_not_room(path);
    if not_room && !is_health {
        fired.note(Rule::NotARoom);
    }
    let room_page = !not_room && path.starts_with('/') && path.len() > 1;
    let set_room = if has_parameter(target, &routing.room_parameter) {
        fired.note(Rule::RoomParameter);
        let room = parameters(query, &routing.room_parameter).next().unwrap_or("");
        if room.is_empty() {
            fired.note(Rule::EmptyRoom);
        }
        Some(room)
    } else {
        room_page.then(|| room_of_path(path, fired))
    };
    let path_group = group_of_path(path, routing, fired);
    if path_group.contains(',') || set_room.is_some_and(|room| room.contains(',')) {
        fired.note(Rule::LastCommaPart);
    }
    let counts_as_sent = said.flag.is_some()
        || (set_room.is_none() && said.room.is_some())
        || (path_group.is_empty() && said.group.is_some());
    if counts_as_sent {
        fired.note(Rule::ClientHeaders);
    }
    // R13 and R26: what was set is read back as any header is, and so is what the client sent where nothing was set.
    let (room, has_room, room_told) = match set_room {
        Some(room) => (lower(after_last_comma(room)), any_part(room), Told::Text(lower(room))),
        None => {
            let sent = said.room.map(text_of).unwrap_or_default();
            (last_part(&sent), any_part(&sent), kept(said.room))
        }
    };
    let (group, group_told) = if path_group.is_empty() {
        (last_part(&said.group.map(text_of).unwrap_or_default()), kept(said.group))
    } else {
        (lower(after_last_comma(path_group)), Told::Text(lower(path_group)))
    };
    Reading {
        tenant_group: Cow::Owned(group.to_ascii_lowercase()),
        group_by_path: !path_group.is_empty(),
        group,
        room,
        group_told,
        room_told,
        has_room,
        hidden_room: "",
        flag_sent: said.flag,
        room_page,
    }
}

/// R09 and R10: the last segment, or the whole path when it ends with a slash.
fn room_of_path<'a>(path: &'a str, fired: &mut Fired) -> &'a str {
    fired.note(Rule::RoomFromPath);
    match path.rsplit_once('/') {
        Some((_, "")) => {
            fired.note(Rule::TrailingSlash);
            path
        }
        None => path,
        Some((_, last)) => last,
    }
}

fn after_last_comma(text: &str) -> &str {
    text.rsplit_once(',').map_or(text, |(_, last)| last)
}

/// The last of a header's parts, as a text of its own: HAProxy takes the blanks around it away.
fn last_part<'a>(sent: &str) -> Cow<'a, str> {
    Cow::Owned(after_last_comma(sent).trim().to_owned())
}

/// Whether a condition on a header's length finds a part that is not empty.
fn any_part(text: &str) -> bool {
    text.split(',').any(|part| !part.trim().is_empty())
}

fn kept<'a>(sent: Option<&[u8]>) -> Told<'a> {
    if sent.is_some() { Told::AsSent } else { Told::Nothing }
}

/// A header's value: bytes that are no ASCII stand for the characters of their numbers, so that none is lost and every value is a key.
fn text_of(value: &[u8]) -> String {
    value.iter().copied().map(char::from).collect()
}
