//! A case: what is sent, what must be answered, and what must arrive.

use super::upstream::Kind;

/// Stands in what is sent and expected for the case's own word, by which its requests are known at the shard.
pub(super) const TAG: &str = "TAG";

/// One thing that the client does.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Step {
    Send(Vec<u8>),
    /// Waits for an interim answer.
    Interim(u16),
    /// Waits for the next final answer before it sends more.
    Answer,
    /// Sends no more, but reads on.
    Finish,
    /// Behind a 101: these bytes must come back.
    Echo(Vec<u8>),
}

/// What the client must be answered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Answer {
    pub(super) status: u16,
    /// Whether a body follows, as far as the request's method says.
    pub(super) method: Method,
    /// Lines that must stand in the head.
    pub(super) lines: Vec<(&'static str, &'static str)>,
    /// Names that must not stand there.
    pub(super) absent: Vec<&'static str>,
    pub(super) body: Option<&'static [u8]>,
    /// Trailer lines.
    pub(super) trailers: Vec<(&'static str, &'static str)>,
}

/// What an answer's body depends on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Method {
    Head,
    Other,
}

/// A request as it must arrive.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Seen {
    pub(super) method: &'static str,
    pub(super) target: &'static str,
    pub(super) body: &'static [u8],
    pub(super) lines: Vec<(&'static str, &'static str)>,
    pub(super) absent: Vec<&'static str>,
    pub(super) trailers: Vec<(&'static str, &'static str)>,
}

/// What becomes of the client's connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum After {
    /// It serves another request.
    Open,
    /// It is closed.
    Closed,
    /// It became a tunnel.
    Tunnel,
}

/// One case.
#[derive(Debug, Clone)]
pub(super) struct Case {
    pub(super) name: &'static str,
    pub(super) steps: Vec<Step>,
    pub(super) interims: Vec<u16>,
    pub(super) answers: Vec<Answer>,
    pub(super) seen: Vec<Seen>,
    /// Whether the shard may have seen the beginning of a request that was then given up.
    pub(super) given_up: GivenUp,
    pub(super) after: After,
    pub(super) only: Option<Kind>,
}

/// What a shard may have seen of a request whose body broke.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum GivenUp {
    No,
    /// Its head, and a body without an end.
    Incomplete,
}

fn case(name: &'static str, sent: &[u8]) -> Case {
    Case {
        name,
        steps: vec![Step::Send(sent.to_vec())],
        interims: Vec::new(),
        answers: Vec::new(),
        seen: Vec::new(),
        given_up: GivenUp::No,
        after: After::Open,
        only: None,
    }
}

/// Refused with `status`: nothing arrives, and the connection closes.
pub(super) fn refused(name: &'static str, status: u16, sent: &[u8]) -> Case {
    case(name, sent).answer(status).then(After::Closed)
}

/// Passed on: one request arrives and is answered with 200.
pub(super) fn passes(name: &'static str, sent: &[u8], seen: Seen) -> Case {
    case(name, sent).answer(200).and_seen(seen)
}

/// The head passes, the body is broken: no whole request arrives, and the connection closes.
pub(super) fn breaks(name: &'static str, sent: &[u8]) -> Case {
    Case { given_up: GivenUp::Incomplete, ..refused(name, 400, sent) }
}

/// Answered with exactly these bytes by Node, on a connection that then ends; `status` must come out of it.
pub(super) fn answered(name: &'static str, status: u16, raw: &str) -> Case {
    let sent = format!(
        "GET /TAG HTTP/1.1\r\nHost: a.example\r\nX-Answer: {}\r\nX-Answer-Close: 1\r\n\r\n",
        base64(raw)
    );
    case(name, sent.as_bytes()).answer(status).and_seen(seen("GET", "/TAG", b"")).at(Kind::Node)
}

/// As [`answered`], for any request, and without the end.
pub(super) fn answered_to(name: &'static str, status: u16, head: &str, raw: &str, seen: Seen) -> Case {
    let sent = format!("{head}X-Answer: {}\r\n\r\n", base64(raw));
    case(name, sent.as_bytes()).answer(status).and_seen(seen).at(Kind::Node)
}

/// A request that must arrive.
pub(super) fn seen(method: &'static str, target: &'static str, body: &'static [u8]) -> Seen {
    Seen { method, target, body, lines: Vec::new(), absent: Vec::new(), trailers: Vec::new() }
}

impl Seen {
    pub(super) fn with(mut self, name: &'static str, value: &'static str) -> Self {
        self.lines.push((name, value));
        self
    }

    pub(super) fn without(mut self, name: &'static str) -> Self {
        self.absent.push(name);
        self
    }

    pub(super) fn trailer(mut self, name: &'static str, value: &'static str) -> Self {
        self.trailers.push((name, value));
        self
    }
}

impl Case {
    /// One more answer.
    pub(super) fn answer(mut self, status: u16) -> Self {
        let (lines, absent, trailers) = (Vec::new(), Vec::new(), Vec::new());
        self.answers.push(Answer { status, method: Method::Other, lines, absent, body: None, trailers });
        self
    }

    /// One more request that arrives.
    pub(super) fn and_seen(mut self, seen: Seen) -> Self {
        self.seen.push(seen);
        self
    }

    pub(super) fn then(mut self, after: After) -> Self {
        self.after = after;
        self
    }

    pub(super) fn at(mut self, only: Kind) -> Self {
        self.only = Some(only);
        self
    }

    pub(super) fn step(mut self, step: Step) -> Self {
        self.steps.push(step);
        self
    }

    pub(super) fn interim(mut self, status: u16) -> Self {
        self.interims.push(status);
        self
    }

    /// These bytes follow at once, in the same piece.
    pub(super) fn continued(mut self, bytes: &[u8]) -> Self {
        if let Some(Step::Send(sent)) = self.steps.last_mut() {
            sent.extend_from_slice(bytes);
        }
        self
    }

    /// The last answer has another status.
    pub(super) fn with_status(self, status: u16) -> Self {
        self.last(|answer| answer.status = status)
    }

    fn last(mut self, change: impl FnOnce(&mut Answer)) -> Self {
        if let Some(answer) = self.answers.last_mut() {
            change(answer);
        }
        self
    }

    /// The last answer is one to HEAD.
    pub(super) fn asked_by_head(self) -> Self {
        self.last(|answer| answer.method = Method::Head)
    }

    /// The last answer has this line.
    pub(super) fn line(self, name: &'static str, value: &'static str) -> Self {
        self.last(|answer| answer.lines.push((name, value)))
    }

    /// The last answer has no such line.
    pub(super) fn no_line(self, name: &'static str) -> Self {
        self.last(|answer| answer.absent.push(name))
    }

    /// The last answer has this body.
    pub(super) fn body(self, body: &'static [u8]) -> Self {
        self.last(|answer| answer.body = Some(body))
    }

    /// The last answer has this trailer.
    pub(super) fn trailer(self, name: &'static str, value: &'static str) -> Self {
        self.last(|answer| answer.trailers.push((name, value)))
    }

    /// The class of smuggling that it is of.
    pub(super) fn is_desync(&self) -> bool {
        self.name.starts_with("desync ")
    }
}

/// RFC 4648, 4.
fn base64(text: &str) -> String {
    const LETTERS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut out = String::new();
    for three in text.as_bytes().chunks(3) {
        let bits =
            three.iter().fold(0u32, |bits, byte| bits << 8 | u32::from(*byte)) << (8 * (3 - three.len()));
        for at in 0..4 {
            let letter = LETTERS[(bits >> (18 - 6 * at) & 63) as usize];
            out.push(if at <= three.len() { char::from(letter) } else { '=' });
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn base64_as_in_the_rfc() {
        for (text, expected) in
            [("", ""), ("f", "Zg=="), ("fo", "Zm8="), ("foo", "Zm9v"), ("foob", "Zm9vYg==")]
        {
            assert_eq!(base64(text), expected);
        }
    }
}
