//! Entries of cookies: clients of pools, which stick to servers by one and are no conferences (`cookie›POOL›VALUE`).

/// Whether the entry of this key is a cookie's.
pub(super) fn is_cookie(key: &str) -> bool {
    key.starts_with("cookie\u{203a}")
}
