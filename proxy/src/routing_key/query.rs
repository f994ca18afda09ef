//! Parameters of a target, as both ways to read a request need them.

use std::borrow::Cow;

/// R05: `[?&]name=` anywhere in the target, its path included.
pub(super) fn has_parameter(target: &str, name: &str) -> bool {
    behind(target, name).any(|rest| rest.starts_with('='))
}

/// R16: `[?&]flag` anywhere in the target, its path included, whatever follows it.
pub(super) fn has_flag(target: &str, flag: &str) -> bool {
    behind(target, flag).next().is_some()
}

/// What follows each `text` that begins a parameter.
fn behind<'a>(target: &'a str, text: &'a str) -> impl Iterator<Item = &'a str> {
    let begins = |at: usize| at > 0 && matches!(target.as_bytes()[at - 1], b'?' | b'&');
    target.match_indices(text).filter(move |(at, _)| begins(*at)).map(|(at, text)| &target[at + text.len()..])
}

/// The value of a parameter called exactly `name`.
pub(super) fn value_of<'a>(parameter: &'a str, name: &str) -> Option<&'a str> {
    parameter.strip_prefix(name)?.strip_prefix('=')
}

/// R06: the values of the parameters whose name is exactly `name`. HAProxy's `url_param` ends and begins one at `&`, `;` and `?`: where
/// R06 says that `;` begins none, it was the pattern of R05 that saw no room (asked of a HAProxy 3.2: `?a;room=x&room=y` is room x).
pub(super) fn parameters<'a>(query: &'a str, name: &str) -> impl Iterator<Item = &'a str> {
    query.split(['&', ';', '?']).filter_map(move |part| value_of(part, name))
}

/// R17: the first `release=`, provided that any of them is not empty.
pub(super) fn release_override(query: &str) -> Option<Cow<'_, str>> {
    let first = parameters(query, "release").next()?;
    parameters(query, "release").any(|value| !value.is_empty()).then(|| lower(first))
}

pub(super) fn lower(text: &str) -> Cow<'_, str> {
    if text.bytes().any(|byte| byte.is_ascii_uppercase()) {
        Cow::Owned(text.to_ascii_lowercase())
    } else {
        Cow::Borrowed(text)
    }
}
