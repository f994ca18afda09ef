//! Parameters of a target, as both ways to read a request need them.

use std::borrow::Cow;

/// R05: `[?&]name` anywhere in the target, its path included; `name` ends in what follows the parameter's name.
pub(super) fn has_parameter(target: &str, name: &str) -> bool {
    let bytes = target.as_bytes();
    target.match_indices(name).any(|(at, _)| at > 0 && matches!(bytes[at - 1], b'?' | b'&'))
}

/// R06: the values of the parameters whose name is exactly `name` (its `=` included): a second `?` begins one as well, and `;` ends one.
pub(super) fn parameters<'a>(query: &'a str, name: &str) -> impl Iterator<Item = &'a str> {
    query.split(['&', '?']).filter_map(move |part| {
        part.strip_prefix(name).map(|value| value.split_once(';').map_or(value, |(value, _)| value))
    })
}

/// R17: the first `release=`, provided that any of them is not empty.
pub(super) fn release_override(query: &str) -> Option<Cow<'_, str>> {
    let first = parameters(query, "release=").next()?;
    parameters(query, "release=").any(|value| !value.is_empty()).then(|| lower(first))
}

pub(super) fn lower(text: &str) -> Cow<'_, str> {
    if text.bytes().any(|byte| byte.is_ascii_uppercase()) {
        Cow::Owned(text.to_ascii_lowercase())
    } else {
        Cow::Borrowed(text)
    }
}
