//! Cookies that a pool sticks on: found in requests and answers, and made the keys of entries. Pure, and never panics.

use ring::digest::{Context, SHA256};
use shardgate_peering_core::{ShardName, StickKey};
use std::fmt;

/// What [`CookieName::parse`] takes.
pub const COOKIE_NAME: &str = "a cookie's name such as \"JSESSIONID\", 1 to 128 visible ASCII characters without ( ) < > @ , ; : \\ \" / [ ] ? = { }";

const NAME_LEN_MAX: usize = 128;

/// A cookie's name, a token of RFC 6265 (4.1.1); its letters count as they are written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CookieName(Box<str>);

impl CookieName {
    /// Parses a name.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let separators = b"()<>@,;:\\\"/[]?={}";
        let valid = |byte: u8| byte.is_ascii_graphic() && !separators.contains(&byte);
        ((1..=NAME_LEN_MAX).contains(&text.len()) && text.bytes().all(valid)).then(|| Self(text.into()))
    }

    /// The text as parsed.
    #[must_use]
    pub const fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for CookieName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// The value that a request has for `name`, quotes included: that of the first pair of this name in all its `Cookie` lines, for a
/// client names the cookie of the longest path first (RFC 6265, 5.4). An empty one is none.
pub fn of_request<'h>(lines: impl Iterator<Item = &'h [u8]>, name: &CookieName) -> Option<&'h [u8]> {
    let mut pairs = lines.flat_map(|line| line.split(|byte| *byte == b';')).filter_map(pair);
    value_of(pairs.find(|pair| is_named(pair, name)))
}

/// The value that an answer sets for `name`: that of the last of its `Set-Cookie` lines of this name, for it is the one that the
/// client keeps (RFC 6265, 5.3). An empty one, with which servers take a cookie away, is none.
pub fn of_answer<'h>(
    lines: impl DoubleEndedIterator<Item = &'h [u8]>,
    name: &CookieName,
) -> Option<&'h [u8]> {
    let mut pairs = lines.rev().filter_map(|line| pair(line.split(|byte| *byte == b';').next()?));
    value_of(pairs.find(|pair| is_named(pair, name)))
}

/// The key of the entry for a cookie of a pool.
///
/// `\u{203a}` separates its parts: the tokens of conferences are made of ASCII, or with HAProxy's way of reading of the first 256
/// characters, so none of them is such a key. The value is a secret of its client, and as long as a server likes. So half of its
/// SHA-256 stands for it: nobody can read it in the table, and none is cut down to another one.
#[must_use]
pub fn stick_key(pool: &ShardName, name: &CookieName, value: &[u8]) -> Option<StickKey> {
    let mut hash = Context::new(&SHA256);
    for part in [name.as_str().as_bytes(), b"=", value] {
        hash.update(part);
    }
    let digest = hash.finish();
    let half = digest.as_ref().iter().take(16).fold(0_u128, |bits, byte| bits << 8 | u128::from(*byte));
    StickKey::parse(&format!("cookie\u{203a}{pool}\u{203a}{half:032x}")).ok()
}

/// Whether a key is such a cookie's, and not a conference's.
#[must_use]
pub fn is_cookie(key: &StickKey) -> bool {
    key.as_str().starts_with("cookie\u{203a}")
}

type Pair<'h> = (&'h [u8], &'h [u8]);

/// Name and value, without the blanks around them; what has no `=` names nothing.
fn pair(text: &[u8]) -> Option<Pair<'_>> {
    let at = text.iter().position(|byte| *byte == b'=')?;
    Some((text[..at].trim_ascii(), text[at + 1..].trim_ascii()))
}

fn is_named((found, _): &Pair<'_>, name: &CookieName) -> bool {
    *found == name.as_str().as_bytes()
}

fn value_of(pair: Option<Pair<'_>>) -> Option<&[u8]> {
    pair.map(|(_, value)| value).filter(|value| !value.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn sent(lines: &[&str]) -> Option<String> {
        let name = CookieName::parse("SID").unwrap();
        let value = of_request(lines.iter().map(|line| line.as_bytes()), &name);
        value.map(|value| String::from_utf8(value.to_vec()).unwrap())
    }

    fn set(lines: &[&str]) -> Option<String> {
        let name = CookieName::parse("SID").unwrap();
        let value = of_answer(lines.iter().map(|line| line.as_bytes()), &name);
        value.map(|value| String::from_utf8(value.to_vec()).unwrap())
    }

    #[test]
    fn a_name_is_a_token() {
        for good in ["JSESSIONID", "a", "__Host-sid", "x.y!#$%&'*+-^_`|~", &"n".repeat(128)] {
            assert_eq!(CookieName::parse(good).map(|name| name.to_string()).as_deref(), Some(good));
        }
        for bad in ["", "a b", "a=", "a;", "a,b", "\"a\"", "ü", "a\t", "a/b", "{a}", &"n".repeat(129)] {
            assert_eq!(CookieName::parse(bad), None, "{bad:?}");
        }
    }

    #[test]
    fn the_first_pair_of_the_name_counts_in_a_request() {
        for (lines, value) in [
            (&["SID=1"][..], Some("1")),
            (&["a=b; SID=1; SID=2"], Some("1")),
            (&["a=b", "c=d;SID=1", "SID=2"], Some("1")),
            (&["SID = 1 ;a=b"], Some("1")),
            (&["SID=\"1\""], Some("\"1\"")),
            (&["SID=\"\""], Some("\"\"")),
            (&["SID=a=b=="], Some("a=b==")),
            (&["SID=1,SID=2"], Some("1,SID=2")),
            (&["a=\"x; SID=1\""], Some("1\"")),
            (&["SID=; SID=1"], None),
            (&["SID= "], None),
            (&["SID"], None),
            (&["sid=1; XSID=2; SIDX=3; SI D=4; =SID"], None),
            (&[""], None),
            (&[], None),
        ] {
            assert_eq!(sent(lines).as_deref(), value, "{lines:?}");
        }
    }

    #[test]
    fn the_last_line_of_the_name_counts_in_an_answer() {
        for (lines, value) in [
            (&["SID=1"][..], Some("1")),
            (&["SID=1; Path=/; HttpOnly"], Some("1")),
            (&["SID=old", "SID=new; Secure", "other=3"], Some("new")),
            (&["SID=old", "SID=; Max-Age=0"], None),
            (&["a=b; SID=1"], None),
            (&["sid=1"], None),
            (&["; SID=1"], None),
        ] {
            assert_eq!(set(lines).as_deref(), value, "{lines:?}");
        }
        assert_eq!(set(&[]), None);
    }

    #[test]
    fn keys_differ_by_pool_name_and_value() {
        let key = |pool: &str, name: &str, value: &[u8]| {
            let (pool, name) = (ShardName::parse(pool).unwrap(), CookieName::parse(name).unwrap());
            stick_key(&pool, &name, value).unwrap()
        };
        // SHA-256 of `SID=1`, by sha256sum.
        assert_eq!(
            key("chat", "SID", b"1").as_str(),
            "cookie\u{203a}chat\u{203a}abd2353bf9e4dee47a0024103228bece"
        );
        let long = vec![b'x'; 20_000];
        let longer = vec![b'x'; 20_001];
        let keys = [
            key("chat", "SID", b"1"),
            key("chat", "SID", b"2"),
            key("chat", "SID2", b"1"),
            key("chat2", "SID", b"1"),
            key(&"p".repeat(128), "SID", &long),
            key(&"p".repeat(128), "SID", &longer),
        ];
        for (at, one) in keys.iter().enumerate() {
            assert!(keys[..at].iter().all(|other| other != one), "{one}");
        }
    }

    proptest! {
        #[test]
        fn what_a_client_sends_is_found(
            before in prop::collection::vec("[a-z]{1,4}=[!-:<-~]{0,6}", 0..4),
            value in "[!-:<-~]{1,40}",
            after in prop::collection::vec("(SID|sid)=[!-:<-~]{0,6}", 0..4),
            at in 0..5_usize,
        ) {
            let mut pairs = before;
            pairs.push(format!("SID={value}"));
            pairs.extend(after);
            let (first, second) = pairs.split_at(at.min(pairs.len()));
            let lines = [first.join("; "), second.join("; ")];
            prop_assert_eq!(sent(&[&lines[0], &lines[1]]), Some(value.clone()));
            prop_assert_eq!(set(&["SID=old", &format!("SID={value}; Path=/")]), Some(value));
        }
    }
}
