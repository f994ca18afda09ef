//! Session tickets (RFC 5077, RFC 8446 section 4.6.1) with keys from a file, so that the nodes of a region resume each other's
//! sessions. The file is HAProxy's `tls-ticket-keys` (HAProxy manual section 5.1); the tickets are our own: HAProxy cannot read
//! them, nor we its.
//!
//! A ticket: the key's name (16 bytes), a salt (16), then what AES-256-GCM makes of the moment (8) and the session, under a key
//! and a nonce that HKDF-SHA256 makes of the secret and the salt. A key of its own per ticket, since a random nonce under one key
//! would meet itself after 2^32 tickets, which a large region makes in hours.

use super::error::TlsError;
use super::files::Content;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use ring::aead::{AES_256_GCM, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use ring::hkdf::{HKDF_SHA256, KeyType, Prk, Salt};
use ring::rand::{SecureRandom as _, SystemRandom};
use rustls::server::ProducesTickets;
use std::fmt;
use std::time::{SystemTime, UNIX_EPOCH};

/// As many of the file's last keys decrypt; the last but one encrypts, so that nodes that read a new file a moment later
/// know the key already (HAProxy's `TLS_TICKETS_NO`).
const KEYS: usize = 3;
const NAME_LEN: usize = 16;
const SALT_LEN: usize = 16;
const MOMENT_LEN: usize = 8;
/// What HKDF makes for a ticket: key and nonce.
const DERIVED_LEN: usize = 32 + NONCE_LEN;
/// Seconds. As long as two turns of rustls' own keys, and below the 7 days of RFC 8446.
const LIFETIME_S: u32 = 12 * 3_600;
/// How far the clocks of nodes may be apart, seconds.
const CLOCKS_APART_S: u64 = 300;
/// A session has some 200 bytes: what is longer is none of ours. It also bounds what one guess at a key can test.
const TICKET_LEN_MAX: usize = 4_096;

/// A key of the file.
struct TicketKey {
    name: [u8; NAME_LEN],
    secret: Prk,
}

/// Makes and reads tickets by the keys of a file.
pub(super) struct FileTickets {
    /// The last ones of the file, in its order.
    keys: [TicketKey; KEYS],
    random: SystemRandom,
}

impl fmt::Debug for FileTickets {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FileTickets").finish_non_exhaustive()
    }
}

struct DerivedLen;

impl KeyType for DerivedLen {
    fn len(&self) -> usize {
        DERIVED_LEN
    }
}

impl TicketKey {
    /// Of 48 bytes (name, AES-128, HMAC) or 80 (name, HMAC, AES-256): name and secrets.
    fn new(bytes: &[u8]) -> Option<Self> {
        let (name, secret) = bytes.split_first_chunk()?;
        matches!(secret.len(), 32 | 64).then(|| Self {
            name: *name,
            secret: Salt::new(HKDF_SHA256, b"shardgate session tickets").extract(secret),
        })
    }

    fn of_ticket(&self, salt: &[u8]) -> Option<(LessSafeKey, Nonce)> {
        let mut derived = [0; DERIVED_LEN];
        self.secret.expand(&[salt], DerivedLen).and_then(|made| made.fill(&mut derived)).ok()?;
        let (key, nonce) = derived.split_at(DERIVED_LEN - NONCE_LEN);
        let key = UnboundKey::new(&AES_256_GCM, key).ok()?;
        Some((LessSafeKey::new(key), Nonce::try_assume_unique_for_key(nonce).ok()?))
    }
}

impl FileTickets {
    /// Reads the keys out of the file's content.
    pub(super) fn parse(file: &Content) -> Result<Self, TlsError> {
        let refuse = |what: String| TlsError::TicketKeys { path: file.path.clone(), what };
        let text = std::str::from_utf8(file.get()?).map_err(|_| refuse("is no text".to_owned()))?;
        let mut keys: Vec<(usize, TicketKey)> = Vec::new();
        let mut len = None;
        for (index, line) in text.lines().enumerate() {
            let line = line.trim();
            if line.is_empty() {
                continue;
            }
            let number = index + 1;
            let bytes = STANDARD.decode(line).map_err(|_| refuse(format!("line {number} is no base64")))?;
            let key = TicketKey::new(&bytes).ok_or_else(|| {
                refuse(format!("line {number} has {} bytes, expected 48 or 80 in base64", bytes.len()))
            })?;
            if *len.get_or_insert(bytes.len()) != bytes.len() {
                return Err(refuse(format!("line {number} is of another length than the first")));
            }
            if let Some((other, _)) = keys.iter().find(|(_, other)| other.name == key.name) {
                return Err(refuse(format!("line {number} begins as line {other}, expected another name")));
            }
            keys.push((number, key));
            if keys.len() > KEYS {
                keys.remove(0);
            }
        }
        let found = keys.len();
        let keys: Vec<TicketKey> = keys.into_iter().map(|(_, key)| key).collect();
        let keys = keys.try_into().map_err(|_| {
            refuse(format!("holds {found} keys, expected at least {KEYS}; the last but one encrypts"))
        })?;
        Ok(Self { keys, random: SystemRandom::new() })
    }

    fn seal(&self, session: &[u8], now_s: u64) -> Option<Vec<u8>> {
        let [_, key, _] = &self.keys;
        let mut salt = [0; SALT_LEN];
        self.random.fill(&mut salt).ok()?;
        let (sealing, nonce) = key.of_ticket(&salt)?;
        let mut body = Vec::with_capacity(NAME_LEN + SALT_LEN + MOMENT_LEN + session.len() + 16);
        body.extend_from_slice(&now_s.to_be_bytes());
        body.extend_from_slice(session);
        sealing.seal_in_place_append_tag(nonce, Aad::from(&key.name), &mut body).ok()?;
        let mut ticket = [&key.name[..], &salt].concat();
        ticket.append(&mut body);
        (ticket.len() <= TICKET_LEN_MAX).then_some(ticket)
    }

    fn open(&self, ticket: &[u8], now_s: u64) -> Option<Vec<u8>> {
        if ticket.len() > TICKET_LEN_MAX {
            return None;
        }
        let (name, rest) = ticket.split_first_chunk::<NAME_LEN>()?;
        let (salt, body) = rest.split_first_chunk::<SALT_LEN>()?;
        let key = self.keys.iter().find(|key| key.name == *name)?;
        let (opening, nonce) = key.of_ticket(salt)?;
        let mut body = body.to_vec();
        let plain = opening.open_in_place(nonce, Aad::from(name), &mut body).ok()?;
        let (moment, session) = plain.split_first_chunk()?;
        let made_s = u64::from_be_bytes(*moment);
        let in_time = made_s <= now_s.saturating_add(CLOCKS_APART_S)
            && now_s.saturating_sub(made_s) <= u64::from(LIFETIME_S);
        in_time.then(|| session.to_vec())
    }
}

fn now_s() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
}

impl ProducesTickets for FileTickets {
    fn enabled(&self) -> bool {
        true
    }

    fn lifetime(&self) -> u32 {
        LIFETIME_S
    }

    fn encrypt(&self, plain: &[u8]) -> Option<Vec<u8>> {
        self.seal(plain, now_s())
    }

    fn decrypt(&self, cipher: &[u8]) -> Option<Vec<u8>> {
        self.open(cipher, now_s())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(seed: u8, len: usize) -> String {
        STANDARD.encode(vec![seed; len])
    }

    fn parse(lines: &[String]) -> Result<FileTickets, String> {
        let file = Content { path: "tickets".into(), bytes: Ok(lines.join("\n").into_bytes()) };
        FileTickets::parse(&file).map_err(|error| error.to_string())
    }

    fn keys(seeds: &[u8]) -> FileTickets {
        parse(&seeds.iter().map(|seed| line(*seed, 80)).collect::<Vec<_>>()).unwrap()
    }

    #[test]
    fn a_ticket_goes_both_ways_and_no_byte_of_it_may_change() {
        let tickets = keys(&[1, 2, 3]);
        let ticket = tickets.seal(b"session", 1_000).unwrap();
        assert_eq!(ticket[..NAME_LEN], [2; NAME_LEN]);
        assert_eq!(tickets.open(&ticket, 1_000).as_deref(), Some(&b"session"[..]));
        for index in 0..ticket.len() {
            let mut changed = ticket.clone();
            changed[index] ^= 1;
            assert_eq!(tickets.open(&changed, 1_000), None, "byte {index}");
            assert_eq!(tickets.open(&ticket[..index], 1_000), None, "cut at {index}");
        }
        assert_ne!(tickets.seal(b"session", 1_000), Some(ticket));
    }

    #[test]
    fn a_ticket_lives_for_its_lifetime_and_no_longer() {
        let (tickets, lifetime) = (keys(&[1, 2, 3]), u64::from(LIFETIME_S));
        let ticket = tickets.seal(b"s", 10_000).unwrap();
        assert!(tickets.open(&ticket, 10_000 + lifetime).is_some());
        assert!(tickets.open(&ticket, 10_001 + lifetime).is_none());
        assert!(tickets.open(&ticket, 9_700).is_some() && tickets.open(&ticket, 9_699).is_none());
    }

    #[test]
    fn an_appended_key_takes_over_and_the_one_before_still_reads() {
        let before = keys(&[1, 2, 3]).seal(b"s", 0).unwrap();
        assert!(keys(&[1, 2, 3, 4]).open(&before, 0).is_some());
        assert!(keys(&[1, 2, 3, 4, 5]).open(&before, 0).is_none());
        // A node that has read the new file a moment earlier is understood by one that has not.
        let after = keys(&[1, 2, 3, 4]).seal(b"s", 0).unwrap();
        assert!(keys(&[1, 2, 3]).open(&after, 0).is_some());
    }

    #[test]
    fn a_broken_file_says_where_and_tells_no_key() {
        let good = |seed| line(seed, 48);
        assert!(parse(&[good(1), String::new(), good(2), good(3)]).is_ok());
        for (lines, expected) in [
            (vec![], "holds 0 keys, expected at least 3; the last but one encrypts"),
            (vec![good(1), good(2)], "holds 2 keys, expected at least 3; the last but one encrypts"),
            (vec![good(1), "secret!".to_owned()], "line 2 is no base64"),
            (vec![good(1), line(2, 47)], "line 2 has 47 bytes, expected 48 or 80 in base64"),
            (vec![good(1), line(2, 80)], "line 2 is of another length than the first"),
            (vec![good(1), good(1)], "line 2 begins as line 1, expected another name"),
        ] {
            assert_eq!(parse(&lines).unwrap_err(), format!("tls.ticket_keys tickets: {expected}"));
        }
    }

    #[test]
    fn what_is_too_long_is_neither_made_nor_read() {
        let tickets = keys(&[1, 2, 3]);
        assert!(tickets.seal(&[0; TICKET_LEN_MAX], 0).is_none());
        assert!(tickets.open(&[2; TICKET_LEN_MAX + 1], 0).is_none());
    }
}
