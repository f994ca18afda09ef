//! Identifiers: parsed once at the edge, cheap to clone, ordered.

use alloc::string::String;
use core::borrow::Borrow;
use core::fmt;

use arcstr::ArcStr;

/// The longest stick key in bytes. A longer one is refused, never truncated (HAProxy truncates at `len`).
pub const KEY_LEN_MAX: usize = 1024;

/// Why a text is no stick key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum KeyError {
    /// The text is empty: such a request has no conference.
    Empty,
    /// The text is longer than [`KEY_LEN_MAX`].
    TooLong {
        /// Its length in bytes.
        len: usize,
    },
}

impl fmt::Display for KeyError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Empty => f.write_str("stick key is empty, expected 1 to 1024 bytes"),
            Self::TooLong { len } => write!(f, "stick key has {len} bytes, expected at most {KEY_LEN_MAX}"),
        }
    }
}

impl core::error::Error for KeyError {}

/// Why a text is no identifier.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IdError {
    /// What was to be named: `shard`, `peer`.
    pub what: &'static str,
    /// The text, cut to 64 characters.
    pub value: String,
    /// What would have been accepted.
    pub expected: &'static str,
}

impl fmt::Display for IdError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} name {:?} is not valid, expected {}", self.what, self.value, self.expected)
    }
}

impl core::error::Error for IdError {}

macro_rules! text_id {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(ArcStr);

        impl $name {
            /// The text as parsed.
            #[must_use]
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl Borrow<str> for $name {
            fn borrow(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }
    };
}

text_id! {
    /// The stick token of a conference (`tenant/room` or `room`), normalised by whoever parsed the request; whole, 1 to
    /// [`KEY_LEN_MAX`] bytes.
    StickKey
}

text_id! {
    /// The name of a shard, `[A-Za-z0-9._-]`, 1 to 128 characters.
    ShardName
}

text_id! {
    /// The name of a node of the mesh: a DNS label (`[a-z0-9-]`, 1 to 63 characters), as it stands in its certificate.
    PeerId
}

impl StickKey {
    /// Takes `text` as it is.
    ///
    /// # Errors
    /// [`KeyError`] when it is empty or too long.
    pub fn parse(text: &str) -> Result<Self, KeyError> {
        if text.is_empty() {
            return Err(KeyError::Empty);
        }
        if text.len() > KEY_LEN_MAX {
            return Err(KeyError::TooLong { len: text.len() });
        }
        Ok(Self(ArcStr::from(text)))
    }
}

impl ShardName {
    /// Parses a shard's name.
    ///
    /// # Errors
    /// [`IdError`] when the text is empty, too long or holds another character.
    pub fn parse(text: &str) -> Result<Self, IdError> {
        let valid = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'-');
        if text.is_empty() || text.len() > 128 || !text.bytes().all(valid) {
            return Err(id_error("shard", text, "1 to 128 of A-Z a-z 0-9 . _ -"));
        }
        Ok(Self(ArcStr::from(text)))
    }
}

impl PeerId {
    /// Parses a node's name.
    ///
    /// # Errors
    /// [`IdError`] when the text is no lower-case DNS label.
    pub fn parse(text: &str) -> Result<Self, IdError> {
        let valid = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
        let edge = text.starts_with('-') || text.ends_with('-');
        if text.is_empty() || text.len() > 63 || edge || !text.bytes().all(valid) {
            return Err(id_error("peer", text, "1 to 63 of a-z 0-9 -, not at its ends"));
        }
        Ok(Self(ArcStr::from(text)))
    }
}

fn id_error(what: &'static str, text: &str, expected: &'static str) -> IdError {
    IdError { what, value: text.chars().take(64).collect(), expected }
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::string::ToString;

    #[test]
    fn keys_are_bounded_and_never_truncated() {
        assert_eq!(StickKey::parse(""), Err(KeyError::Empty));
        assert!(StickKey::parse(&"x".repeat(KEY_LEN_MAX)).is_ok());
        let error = StickKey::parse(&"x".repeat(KEY_LEN_MAX + 1)).unwrap_err();
        assert_eq!(error.to_string(), "stick key has 1025 bytes, expected at most 1024");
    }

    #[test]
    fn names_say_what_was_expected() {
        assert!(ShardName::parse("prod-us-phoenix-1-s1").is_ok());
        let error = ShardName::parse("a b").unwrap_err();
        assert_eq!(
            error.to_string(),
            "shard name \"a b\" is not valid, expected 1 to 128 of A-Z a-z 0-9 . _ -"
        );
        assert!(PeerId::parse("proxy-a1").is_ok());
        for bad in ["", "A", "-a", "a-", "a.b", "ü", &"a".repeat(64)] {
            assert!(PeerId::parse(bad).is_err(), "{bad:?}");
        }
    }
}
