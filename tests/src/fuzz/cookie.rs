//! Cookie lines of requests and answers, and the keys made of their values.

use shardgate_discovery::ShardName;
use shardgate_proxy::cookie::{CookieName, of_answer, of_request, stick_key};

/// A cookie's name, or any line that is none, then lines of `Cookie` or `Set-Cookie`.
pub fn cookie(data: &[u8]) {
    let mut lines = data.split(|byte| *byte == b'\n');
    let first = lines.next().and_then(|line| std::str::from_utf8(line).ok());
    let name = first.and_then(CookieName::parse);
    let name = name.unwrap_or_else(|| CookieName::parse("SID").expect("a name"));
    let lines: Vec<&[u8]> = lines.collect();
    requests(&lines, &name);
    answers(&lines, &name);
}

fn requests(lines: &[&[u8]], name: &CookieName) {
    let value = of_request(lines.iter().copied(), name);
    assert_eq!(of_request([&lines.join(&b';')[..]].into_iter(), name), value, "lines are one list");
    let (own, other) = (format!("{name}=first"), format!("{name}x=first"));
    let before = |line: &'static [u8]| [line].into_iter().chain(lines.iter().copied());
    assert_eq!(of_request(before(b"; ;=;"), name), value, "what names nothing changes nothing");
    let with = |line: &str, lines: &[&[u8]]| {
        let list = [line.as_bytes()].into_iter().chain(lines.iter().copied());
        of_request(list, name).map(<[u8]>::to_vec)
    };
    assert_eq!(with(&own, lines).as_deref(), Some(&b"first"[..]), "the first one counts");
    assert_eq!(with(&other, lines).as_deref(), value, "names are compared whole");
    if let Some(value) = value {
        let pair = [name.as_str().as_bytes(), b"=", value].concat();
        assert_eq!(of_request([&pair[..]].into_iter(), name), Some(value), "read back as it was read");
        key(name, value);
    }
}

fn answers(lines: &[&[u8]], name: &CookieName) {
    let value = of_answer(lines.iter().copied(), name);
    let with = |line: &str| {
        let list = lines.iter().copied().chain([line.as_bytes()]);
        of_answer(list, name).map(<[u8]>::to_vec)
    };
    assert_eq!(with(&format!("{name}=last; Path=/")).as_deref(), Some(&b"last"[..]), "the last one counts");
    assert_eq!(with(&format!("{name}=; Max-Age=0")), None, "it is taken away");
    assert_eq!(with(&format!("{name}x=1; {name}=2")).as_deref(), value, "attributes are no cookies");
    if let Some(value) = value {
        key(name, value);
    }
}

fn key(name: &CookieName, value: &[u8]) {
    assert!(!value.is_empty() && !value.contains(&b';') && value.trim_ascii() == value);
    let pool = ShardName::parse("chat").expect("a pool");
    let key = stick_key(&pool, name, value).expect("every value has a key");
    assert!(!key.as_str().is_ascii() && key.as_str().len() < 64, "{key}");
    let longer = [value, b"x"].concat();
    assert_ne!(stick_key(&pool, name, &longer), Some(key), "values are not cut");
}
