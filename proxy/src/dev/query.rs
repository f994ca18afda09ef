//! One value of a query string, percent-decoded. The shards of `dev` need no more of it.

/// The first value of `name`; bytes that are no UTF-8 are replaced, a broken escape stays as it is.
pub fn value(query: &str, name: &str) -> Option<String> {
    query
        .split('&')
        .filter_map(|pair| pair.split_once('='))
        .find(|(key, _)| *key == name)
        .map(|(_, v)| decode(v))
}

fn decode(text: &str) -> String {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((&first, tail)) = rest.split_first() {
        let escaped = match (first, tail) {
            (b'%', [high, low, ..]) => hex(*high).zip(hex(*low)),
            _ => None,
        };
        match (first, escaped) {
            (_, Some((high, low))) => {
                bytes.push(high << 4 | low);
                rest = &tail[2..];
            }
            (b'+', None) => {
                bytes.push(b' ');
                rest = tail;
            }
            (_, None) => {
                bytes.push(first);
                rest = tail;
            }
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

fn hex(digit: u8) -> Option<u8> {
    char::from(digit).to_digit(16).and_then(|value| u8::try_from(value).ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn decodes_the_first_value_and_leaves_broken_escapes() {
        assert_eq!(value("a=1&room=x%20y+z&room=2", "room").as_deref(), Some("x y z"));
        assert_eq!(value("room=100%", "room").as_deref(), Some("100%"));
        assert_eq!(value("room=%zz%4", "room").as_deref(), Some("%zz%4"));
        assert_eq!(value("room=%ff", "room").as_deref(), Some("\u{fffd}"));
        assert_eq!(value("bedroom=1", "room"), None);
    }
}
