//! The text of one line. Everything is pushed into the buffer; nothing is allocated.

use super::{End, From, Timers};
use crate::clock::Millis;
use http::{Method, Uri};
use shardgate_discovery::Shard;
use shardgate_peering_core::PeerId;
use std::net::IpAddr;

const MONTHS: [&str; 12] =
    ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];

/// What was asked for.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Request<'a> {
    /// A request whose head was read.
    Http(&'a Method, &'a Uri),
    /// A tunnel, by the target of the request that opened it.
    Tunnel(&'a str),
    /// The head was not read.
    Bad,
}

/// How much passed.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Size {
    /// The answer's body.
    Body(u64),
    /// A tunnel: from the client, and to it.
    Tunnel(u64, u64),
}

/// One line.
#[derive(Debug)]
pub(crate) struct Line<'a> {
    pub(crate) from: From<'a>,
    pub(crate) shard: Option<&'a Shard>,
    /// The peer by whose way the shard was reached.
    pub(crate) via: Option<&'a PeerId>,
    pub(crate) timers: Timers,
    pub(crate) end: End,
    pub(crate) size: Size,
    pub(crate) why: &'static str,
    pub(crate) retries: u32,
    pub(crate) request: Request<'a>,
    /// The request's name.
    pub(crate) id: Option<&'a str>,
}

impl Line<'_> {
    pub(super) fn write(&self, out: &mut Vec<u8>) {
        match self.from.client.ip() {
            IpAddr::V4(ip) => {
                for (index, octet) in ip.octets().into_iter().enumerate() {
                    if index > 0 {
                        out.push(b'.');
                    }
                    number(out, u64::from(octet));
                }
            }
            // Rare enough to let `Display` do it; writing to a `Vec` cannot fail.
            IpAddr::V6(ip) => drop(std::io::Write::write_fmt(out, format_args!("{ip}"))),
        }
        out.push(b':');
        number(out, u64::from(self.from.client.port()));
        out.extend_from_slice(b" [");
        date(out, self.from.at);
        out.extend_from_slice(b"] ");
        out.extend_from_slice(self.from.frontend.as_bytes());
        out.push(b' ');
        match self.shard {
            Some(shard) => {
                out.extend_from_slice(shard.release.as_str().as_bytes());
                out.push(b'/');
                out.extend_from_slice(shard.name.as_str().as_bytes());
            }
            None => out.extend_from_slice(b"-/-"),
        }
        // Neither a shard's nor a peer's name has this sign.
        if let Some(peer) = self.via {
            out.push(b'@');
            out.extend_from_slice(peer.as_str().as_bytes());
        }
        out.push(b' ');
        let Timers { head, claim, connect, answer, all } = self.timers;
        for timer in [Some(head), claim, connect, answer] {
            duration(out, timer);
            out.push(b'/');
        }
        number(out, all);
        out.push(b' ');
        match self.end.status {
            0 => out.extend_from_slice(b"-1"),
            status => number(out, u64::from(status)),
        }
        out.push(b' ');
        match self.size {
            Size::Body(bytes) => number(out, bytes),
            Size::Tunnel(up, down) => {
                number(out, up);
                out.push(b'+');
                number(out, down);
            }
        }
        out.push(b' ');
        out.extend_from_slice(&self.end.termination);
        out.push(b' ');
        out.extend_from_slice(self.why.as_bytes());
        out.push(b' ');
        number(out, u64::from(self.retries));
        out.extend_from_slice(b" \"");
        match self.request {
            Request::Http(method, target) => {
                escaped(out, method.as_str());
                out.push(b' ');
                if let (Some(scheme), Some(authority)) = (target.scheme_str(), target.authority()) {
                    escaped(out, scheme);
                    out.extend_from_slice(b"://");
                    escaped(out, authority.as_str());
                }
                escaped(out, target.path_and_query().map_or("", http::uri::PathAndQuery::as_str));
            }
            Request::Tunnel(target) => {
                out.extend_from_slice(b"TUNNEL ");
                escaped(out, target);
            }
            Request::Bad => out.extend_from_slice(b"<BADREQ>"),
        }
        // At the end, where readers of HAProxy's lines do not look.
        out.extend_from_slice(b"\" ");
        escaped(out, self.id.unwrap_or("-"));
        out.push(b'\n');
    }
}

/// Whatever could forge a line or move a terminal's cursor is written as `#xx`, as HAProxy does.
fn escaped(out: &mut Vec<u8>, text: &str) {
    for byte in text.bytes() {
        match byte {
            b' '..=b'~' if byte != b'"' && byte != b'#' => out.push(byte),
            _ => {
                const HEX: &[u8; 16] = b"0123456789ABCDEF";
                out.extend_from_slice(&[b'#', HEX[usize::from(byte >> 4)], HEX[usize::from(byte & 15)]]);
            }
        }
    }
}

fn number(out: &mut Vec<u8>, mut value: u64) {
    let mut digits = [0; 20];
    let mut at = digits.len();
    loop {
        at -= 1;
        digits[at] = b'0' + (value % 10) as u8;
        value /= 10;
        if value == 0 {
            break;
        }
    }
    out.extend_from_slice(&digits[at..]);
}

fn padded(out: &mut Vec<u8>, value: u64, width: u32) {
    for place in (0..width).rev() {
        out.push(b'0' + (value / 10_u64.pow(place) % 10) as u8);
    }
}

fn duration(out: &mut Vec<u8>, duration: Option<Millis>) {
    match duration {
        Some(duration) => number(out, duration),
        None => out.extend_from_slice(b"-1"),
    }
}

/// `21/Nov/2026:20:43:01.123`, UTC.
fn date(out: &mut Vec<u8>, unix_ms: u64) {
    let (seconds, ms) = (unix_ms / 1000, unix_ms % 1000);
    let (days, second) = (seconds / 86_400, seconds % 86_400);
    let (year, month, day) = civil(days);
    padded(out, day, 2);
    out.push(b'/');
    out.extend_from_slice(MONTHS[month].as_bytes());
    out.push(b'/');
    padded(out, year, 4);
    for part in [second / 3600, second / 60 % 60, second % 60] {
        out.push(b':');
        padded(out, part, 2);
    }
    out.push(b'.');
    padded(out, ms, 3);
}

/// Year, month (from 0) and day of a day since 1970-01-01. Years are counted from March, so that the leap day comes last
/// (Howard Hinnant, "chrono-compatible low-level date algorithms").
const fn civil(days: u64) -> (u64, usize, u64) {
    let shifted = days + 719_468;
    let (era, day_of_era) = (shifted / 146_097, shifted % 146_097);
    let year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_from_march = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month_from_march + 2) / 5 + 1;
    let month = ((month_from_march + 2) % 12) as usize;
    let year = year_of_era + era * 400 + if month < 2 { 1 } else { 0 };
    (year, month, day)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rescue::COMPLETE;
    use crate::route::tests::shard;

    fn text(line: &Line<'_>) -> String {
        let mut out = Vec::new();
        line.write(&mut out);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn lines_have_their_form() {
        let shard = shard("prod-s1", "here", "release-1");
        let target = Uri::from_static("/http-bind?room=x");
        let mut line = Line {
            from: From {
                client: "127.0.0.1:40001".parse().unwrap(),
                frontend: "http",
                at: 1_795_293_781_123,
            },
            shard: Some(&shard),
            via: None,
            timers: Timers { head: 0, claim: Some(0), connect: Some(1), answer: Some(12), all: 15 },
            end: End { status: 200, termination: COMPLETE },
            size: Size::Body(345),
            why: "entry",
            retries: 0,
            request: Request::Http(&Method::GET, &target),
            id: Some("a\"1"),
        };
        assert_eq!(
            text(&line),
            "127.0.0.1:40001 [21/Nov/2026:20:43:01.123] http release-1/prod-s1 0/0/1/12/15 200 345 -- entry 0 \
             \"GET /http-bind?room=x\" a#221\n"
        );
        let peer = PeerId::parse("node-b").unwrap();
        line.via = Some(&peer);
        assert!(text(&line).contains(" release-1/prod-s1@node-b 0/0/"), "{}", text(&line));
        line.via = None;
        line.from.client = "[::1]:7".parse().unwrap();
        line.shard = None;
        line.timers = Timers { all: 1234, ..Timers::default() };
        line.end = End { status: 0, termination: *b"CR" };
        line.size = Size::Tunnel(10, 20);
        line.id = None;
        line.request = Request::Tunnel("/a\"b\nc#\u{e9}");
        assert_eq!(
            text(&line),
            "::1:7 [21/Nov/2026:20:43:01.123] http -/- 0/-1/-1/-1/1234 -1 10+20 CR entry 0 \
             \"TUNNEL /a#22b#0Ac#23#C3#A9\" -\n"
        );
    }

    #[test]
    fn dates_are_right() {
        let said = |ms| {
            let mut out = Vec::new();
            date(&mut out, ms);
            String::from_utf8(out).unwrap()
        };
        assert_eq!(said(0), "01/Jan/1970:00:00:00.000");
        assert_eq!(said(951_782_400_000), "29/Feb/2000:00:00:00.000");
        assert_eq!(said(1_709_251_199_999), "29/Feb/2024:23:59:59.999");
        assert_eq!(said(4_102_444_800_000), "01/Jan/2100:00:00:00.000");
    }
}
