//! Names that discovery alone knows: parsed once at the edge, cheap to clone.

use std::borrow::Borrow;
use std::fmt;
use std::sync::Arc;

/// Why a text is no name.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{what} name {value:?} is not valid, expected {expected}")]
pub struct NameError {
    /// What was to be named: `release`, `region`, `tenant`.
    pub what: &'static str,
    /// The text, cut to 64 characters.
    pub value: String,
    /// What would have been accepted.
    pub expected: &'static str,
}

macro_rules! name {
    ($(#[$doc:meta])* $type:ident, $what:literal, $len_max:literal, $valid:expr, $expected:literal) => {
        $(#[$doc])*
        #[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $type(Arc<str>);

        impl $type {
            /// What [`Self::parse`] accepts, in words.
            pub const EXPECTED: &'static str = $expected;

            /// Parses a name.
            ///
            /// # Errors
            /// [`NameError`] when the text is empty, too long or holds another character.
            pub fn parse(text: &str) -> Result<Self, NameError> {
                let valid: fn(u8) -> bool = $valid;
                if text.is_empty() || text.len() > $len_max || !text.bytes().all(valid) {
                    let value = text.chars().take(64).collect();
                    return Err(NameError { what: $what, value, expected: $expected });
                }
                Ok(Self(Arc::from(text)))
            }

            /// The text as parsed.
            #[must_use]
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl Borrow<str> for $type {
            fn borrow(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Display for $type {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl fmt::Debug for $type {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }
    };
}

name! {
    /// A release of the shards, `release-3630`.
    ReleaseName, "release", 128,
    |byte| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'-'),
    "1 to 128 of A-Z a-z 0-9 . _ -"
}

name! {
    /// The environment that nodes and shards belong to: `prod`, `stage`. It stands in certificates and in Consul's paths.
    EnvironmentName, "environment", 63,
    |byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-',
    "1 to 63 of a-z 0-9 -"
}

name! {
    /// A region, `us-phoenix-1`; proxies prefer the shards of their own. It is a label of metrics and a header's value.
    RegionName, "region", 64,
    |byte| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'-'),
    "1 to 64 of A-Z a-z 0-9 . _ -"
}

name! {
    /// A tenant as it stands in a request's path: raw, not decoded, in lower case because that is how it is compared. A pin
    /// for a tenant with an upper-case letter could never apply, so it is refused.
    TenantName, "tenant", 256,
    |byte| byte.is_ascii_graphic() && !byte.is_ascii_uppercase() && !matches!(byte, b'/' | b'?' | b'#' | b','),
    "1 to 256 visible ASCII characters in lower case without / ? # ,"
}

name! {
    /// What a ban list names: a room, a group, a referer, or a part of one. Raw, as it stands in a request.
    BanPattern, "ban pattern", 256,
    |byte| byte.is_ascii_graphic(),
    "1 to 256 visible ASCII characters"
}

name! {
    /// A service in Consul's catalog, whose instances are the servers of a pool: `jigasi`.
    ServiceName, "service", 80,
    |byte| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-'),
    "1 to 80 of A-Z a-z 0-9 _ -"
}

impl EnvironmentName {
    /// What is meant when nothing is said, so that nothing is taken for production by accident.
    #[must_use]
    pub fn dev() -> Self {
        Self(Arc::from("dev"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_say_what_was_expected() {
        assert_eq!(ReleaseName::parse("release-3630").unwrap().as_str(), "release-3630");
        assert!(TenantName::parse("acme%20corp").is_ok());
        let error = RegionName::parse("us phoenix").unwrap_err();
        assert_eq!(
            error.to_string(),
            "region name \"us phoenix\" is not valid, expected 1 to 64 of A-Z a-z 0-9 . _ -"
        );
        for bad in ["", "Acme", "a/b", "a b", "ü", "a,b", &"a".repeat(257)] {
            assert!(TenantName::parse(bad).is_err(), "{bad:?}");
        }
    }
}
