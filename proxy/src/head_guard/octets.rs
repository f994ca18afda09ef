//! Which bytes may stand where, and how far a run of them goes.

/// `tchar` of RFC 9110, 5.6.2.
const TOKEN: [bool; 256] = table(b"!#$%&'*+-.^_`|~");
/// What Host may hold: `uri-host [ ":" port ]` of RFC 9110, 7.2, with RFC 3986's `host`; its brackets are not paired here.
const HOST: [bool; 256] = table(b"-._~!$&'()*+,;=%:[]");

/// Letters, digits and `marks`.
const fn table(marks: &[u8]) -> [bool; 256] {
    let mut table = [false; 256];
    let mut byte = 0;
    while byte < 128 {
        table[byte] = (byte as u8).is_ascii_alphanumeric();
        byte += 1;
    }
    let mut at = 0;
    while at < marks.len() {
        table[marks[at] as usize] = true;
        at += 1;
    }
    table
}

pub(super) const fn is_token(byte: u8) -> bool {
    TOKEN[byte as usize]
}

pub(super) fn is_host(text: &[u8]) -> bool {
    text.iter().all(|byte| HOST[usize::from(*byte)])
}

/// How many bytes from the beginning are part of a token.
pub(super) fn token_run(bytes: &[u8]) -> usize {
    bytes.iter().position(|byte| !is_token(*byte)).unwrap_or(bytes.len())
}

/// How many bytes from the beginning a field's value may hold; HTAB, which it may hold as well, ends the run (RFC 9110, 5.5).
pub(super) fn value_run(bytes: &[u8]) -> usize {
    run::<0x20>(bytes)
}

/// How many bytes from the beginning a target may hold: neither control characters nor spaces. Bytes above ASCII are the routing
/// rules' to refuse.
pub(super) fn target_run(bytes: &[u8]) -> usize {
    run::<0x21>(bytes)
}

/// How many bytes from the beginning are at least `LEAST` and not DEL; eight at a time.
fn run<const LEAST: u8>(bytes: &[u8]) -> usize {
    const ONES: u64 = 0x0101_0101_0101_0101;
    const HIGH: u64 = ONES << 7;
    let mut at = 0;
    while let Some(eight) = bytes[at..].first_chunk() {
        let word = u64::from_le_bytes(*eight);
        // A borrow may mark bytes above the first hit, never below it.
        let below = word.wrapping_sub(ONES * LEAST as u64) & !word;
        let other = word ^ (ONES * 0x7f);
        let hits = (below | other.wrapping_sub(ONES) & !other) & HIGH;
        if hits != 0 {
            return at + (hits.trailing_zeros() / 8) as usize;
        }
        at += 8;
    }
    let rest = &bytes[at..];
    at + rest.iter().position(|byte| *byte < LEAST || *byte == 0x7f).unwrap_or(rest.len())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_run_ends_at_the_first_byte_that_may_not_be() {
        for byte in 0..=255u8 {
            for at in 0..20 {
                let mut text = [b'a'; 20];
                text[at] = byte;
                let in_value = byte >= 0x20 && byte != 0x7f;
                assert_eq!(value_run(&text), if in_value { 20 } else { at }, "{byte:#x} at {at}");
                let in_target = in_value && byte != b' ';
                assert_eq!(target_run(&text), if in_target { 20 } else { at }, "{byte:#x} at {at}");
            }
        }
    }

    #[test]
    fn tokens_and_hosts() {
        assert_eq!(token_run(b"X-Room_1: y"), 8);
        assert!(!is_token(b' ') && !is_token(b':') && !is_token(0x80) && !is_token(b'"'));
        assert!(is_host(b"meet.example.com:80") && is_host(b"[::1]:80") && is_host(b""));
        assert!(!is_host(b"u@h") && !is_host(b"h/x") && !is_host(b"a b") && !is_host("\u{e9}".as_bytes()));
    }
}
