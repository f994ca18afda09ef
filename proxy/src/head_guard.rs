//! A strict look at what a client sends, under hyper, which is lenient where a request could be smuggled (RFC 9112, 11.2): it takes
//! a lone LF for a line's end, drops `Content-Length` beside `Transfer-Encoding`, and needs no Host.
//!
//! The guard follows the framing of the client's bytes however they are cut: heads, bodies of a length, chunks and trailers. It
//! changes nothing. Where a head breaks a rule, the stream ends before that message, and hyper never sees the end of the head.
//! Pure: the socket is `client`'s. It allocates nothing.

mod field;
mod octets;
mod violation;

use field::{Field, HostText, Name, Value, check_coding, check_expectation, length_of};
use octets::{is_token, target_run, token_run, value_run};
pub use violation::Violation;

/// Empty lines before a request line (RFC 9112, 2.2): old clients send one after a body.
const EMPTY_LINES_MAX: u8 = 2;
/// Hexadecimal digits of a chunk's size, leading zeros included.
const SIZE_DIGITS_MAX: u8 = 15;
/// Bytes of chunk extensions in one body; nobody here reads any (RFC 9112, 7.1.1).
const EXTENSION_BYTES_MAX: u16 = 8 * 1024;

/// What a head has to keep to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct HeadRules {
    /// Bytes of a head, request line and empty lines included; the same for trailers.
    pub head_bytes_max: usize,
    /// Field lines of a head; the same for trailers.
    pub headers_max: usize,
    /// What is asked of Host.
    pub hosts: HostRule,
}

/// What is asked of Host.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HostRule {
    /// One, with valid characters; in HTTP/1.0 it may be missing (RFC 9112, 3.2).
    Strict,
    /// Whatever HAProxy lets pass: it is no framing, and `admission` still refuses two that differ.
    AsHaproxy,
}

/// What becomes of bytes that were read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scanned {
    /// All pass.
    Passed,
    /// All before `end` pass. There ends a head without a body that asks for an upgrade: whether what follows is HTTP depends on
    /// the answer. The next scan takes it for the next message.
    Upgrade {
        /// The first byte behind that head.
        end: usize,
    },
    /// Only those before `keep` pass, which belong to earlier messages.
    Refused {
        /// Where the refused message begins; 0 when that was in an earlier scan.
        keep: usize,
        /// The rule that it breaks.
        violation: Violation,
    },
    /// Only those before `keep` pass; the body ends early there.
    Broken {
        /// Where the valid beginning of the body ends, or before that: pieces of a line may pass or not.
        keep: usize,
        /// The rule that it breaks.
        violation: Violation,
    },
}

/// Where in the client's bytes the guard is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum At {
    Line(Line),
    /// In a body of a length, before as many bytes.
    Body(u64),
    Chunk(Chunk),
    /// In a chunk, before as many bytes.
    Data(u64),
}

/// Where in a head or a trailer section.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Line {
    /// Before a request line, behind as many empty lines.
    Begin(u8),
    BeginLf(u8),
    Method,
    TargetStart,
    Target,
    /// Behind as many bytes of a version.
    Version(u8),
    /// The same, of one whose major number is not 1.
    OtherVersion(u8),
    RequestLf,
    FieldStart,
    Name,
    ValueStart,
    Value,
    ValueLf,
    SectionLf,
}

/// Where around a chunk's data.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Chunk {
    /// Behind as many digits.
    Size(u8),
    Extension,
    SizeLf,
    DataCr,
    DataLf,
}

/// What the field lines are part of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Section {
    Head,
    Trailers,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Minor {
    Zero,
    One,
}

/// What the current head has said so far.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Said {
    minor: Minor,
    length: Option<u64>,
    chunked: bool,
    host: bool,
    upgrade: bool,
}

impl Said {
    const NOTHING: Self =
        Self { minor: Minor::One, length: None, chunked: false, host: false, upgrade: false };
}

/// What a step came to.
enum Step {
    On,
    /// A message is complete.
    Message,
    /// So is a head that asks for an upgrade.
    Upgrade,
}

/// The guard of one connection.
#[derive(Debug)]
pub struct HeadGuard {
    rules: HeadRules,
    at: At,
    section: Section,
    /// How many more bytes the section may have.
    budget: usize,
    fields: usize,
    field: Field,
    name: Name,
    value: Value,
    host: HostText,
    said: Said,
    /// Of the chunk that began last.
    size: u64,
    extension_bytes: u16,
}

impl HeadGuard {
    /// The guard of a connection that has sent nothing yet.
    #[must_use]
    pub const fn new(rules: HeadRules) -> Self {
        Self {
            rules,
            at: At::Line(Line::Begin(0)),
            section: Section::Head,
            budget: rules.head_bytes_max,
            fields: 0,
            field: Field::Other,
            name: Name::EMPTY,
            value: Value::EMPTY,
            host: HostText::Valid,
            said: Said::NOTHING,
            size: 0,
            extension_bytes: 0,
        }
    }

    /// Looks at the next bytes. After [`Scanned::Refused`] and [`Scanned::Broken`] there is nothing more to look at.
    pub fn scan(&mut self, bytes: &[u8]) -> Scanned {
        let (mut at, mut begin) = (0, 0);
        while at < bytes.len() {
            let step = match self.at {
                At::Line(line) => self.section(line, bytes, &mut at),
                At::Body(left) | At::Data(left) => Ok(self.skip(left, bytes.len(), &mut at)),
                At::Chunk(chunk) => self.chunk_line(chunk, bytes[at], &mut at),
            };
            match step {
                Ok(Step::On) => {}
                Ok(Step::Message) => {
                    self.begin();
                    begin = at;
                }
                Ok(Step::Upgrade) => {
                    self.begin();
                    return Scanned::Upgrade { end: at };
                }
                Err(violation) if self.section == Section::Head && matches!(self.at, At::Line(_)) => {
                    return Scanned::Refused { keep: begin, violation };
                }
                Err(violation) => return Scanned::Broken { keep: at, violation },
            }
        }
        Scanned::Passed
    }

    /// Whether what was scanned ends between two messages.
    #[must_use]
    pub fn is_between_messages(&self) -> bool {
        self.at == At::Line(Line::Begin(0))
    }

    fn begin(&mut self) {
        self.at = At::Line(Line::Begin(0));
        self.said = Said::NOTHING;
        self.extension_bytes = 0;
        self.open(Section::Head);
    }

    fn open(&mut self, section: Section) {
        self.section = section;
        self.budget = self.rules.head_bytes_max;
        self.fields = 0;
    }

    /// Content, which may be anything.
    fn skip(&mut self, left: u64, end: usize, at: &mut usize) -> Step {
        let here = u64::try_from(end - *at).unwrap_or(u64::MAX).min(left);
        // Not more than there are bytes.
        *at += here as usize;
        let left = left - here;
        let is_chunk = matches!(self.at, At::Data(_));
        self.at = match (is_chunk, left) {
            (false, 0) => return Step::Message,
            (false, left) => At::Body(left),
            (true, 0) => At::Chunk(Chunk::DataCr),
            (true, left) => At::Data(left),
        };
        Step::On
    }

    /// A byte of a chunk's size and extensions, or of the end of its data (RFC 9112, 7.1).
    fn chunk_line(&mut self, chunk: Chunk, byte: u8, at: &mut usize) -> Result<Step, Violation> {
        self.at = match chunk {
            Chunk::Size(digits) => match char::from(byte).to_digit(16) {
                Some(digit) if digits < SIZE_DIGITS_MAX => {
                    self.size = self.size << 4 | u64::from(digit);
                    At::Chunk(Chunk::Size(digits + 1))
                }
                None if digits > 0 && byte == b'\r' => At::Chunk(Chunk::SizeLf),
                None if digits > 0 && byte == b';' => At::Chunk(Chunk::Extension),
                Some(_) | None => return Err(Violation::ChunkSize),
            },
            Chunk::Extension if byte == b'\r' => At::Chunk(Chunk::SizeLf),
            Chunk::Extension => {
                self.extension_bytes += 1;
                let is_text = byte == b'\t' || value_run(&[byte]) == 1;
                if !is_text || self.extension_bytes > EXTENSION_BYTES_MAX {
                    return Err(Violation::ChunkExtension);
                }
                At::Chunk(Chunk::Extension)
            }
            Chunk::SizeLf if byte != b'\n' => return Err(Violation::LineEnd),
            Chunk::SizeLf if self.size == 0 => {
                self.open(Section::Trailers);
                At::Line(Line::FieldStart)
            }
            Chunk::SizeLf => At::Data(self.size),
            Chunk::DataCr if byte == b'\r' => At::Chunk(Chunk::DataLf),
            Chunk::DataLf if byte == b'\n' => self.next_chunk(),
            Chunk::DataCr | Chunk::DataLf => return Err(Violation::ChunkEnd),
        };
        *at += 1;
        Ok(Step::On)
    }

    fn next_chunk(&mut self) -> At {
        self.size = 0;
        At::Chunk(Chunk::Size(0))
    }

    /// As much of a head or a trailer section as there is.
    fn section(&mut self, mut line: Line, bytes: &[u8], at: &mut usize) -> Result<Step, Violation> {
        let (from, end) = (*at, bytes.len().min(at.saturating_add(self.budget)));
        let window = &bytes[..end];
        while *at < end {
            let whole = if line == Line::FieldStart {
                self.whole_field(&window[*at..])?
            } else if matches!(line, Line::Begin(_)) {
                self.whole_request_line(&window[*at..])
            } else {
                None
            };
            if let Some(used) = whole {
                *at += used;
                line = Line::FieldStart;
            } else if line == Line::SectionLf {
                lf(window[*at])?;
                *at += 1;
                return self.end_of_section();
            } else {
                // Noted first: where it fails is where the guard stays.
                self.at = At::Line(line);
                line = self.step(line, window, at)?;
            }
        }
        self.at = At::Line(line);
        self.budget -= *at - from;
        match line {
            _ if self.budget > 0 => Ok(Step::On),
            Line::Method | Line::TargetStart | Line::Target | Line::Version(_) | Line::OtherVersion(_) => {
                Err(Violation::TargetTooLong)
            }
            Line::Begin(_)
            | Line::BeginLf(_)
            | Line::RequestLf
            | Line::FieldStart
            | Line::Name
            | Line::ValueStart
            | Line::Value
            | Line::ValueLf
            | Line::SectionLf => Err(Violation::HeadTooLarge),
        }
    }

    /// A request line that is all there, and as usual; `None` leaves it to the single steps.
    fn whole_request_line(&mut self, bytes: &[u8]) -> Option<usize> {
        let method = token_run(bytes);
        let target = bytes.get(method..)?.strip_prefix(b" ")?;
        let len = target_run(target);
        let rest = target.get(len..)?.strip_prefix(b" HTTP/1.")?;
        let minor = match rest.first()? {
            b'0' => Minor::Zero,
            b'1' => Minor::One,
            _ => return None,
        };
        let rest = rest.get(1..)?.strip_prefix(b"\r\n")?;
        if method == 0 || len == 0 || target[..len].contains(&b'#') {
            return None;
        }
        self.said.minor = minor;
        Some(bytes.len() - rest.len())
    }

    /// A field line that is all there, and as usual; `None` leaves it to the single steps.
    fn whole_field(&mut self, bytes: &[u8]) -> Result<Option<usize>, Violation> {
        let name = token_run(bytes);
        let Some(behind) = bytes.get(name..).and_then(|rest| rest.strip_prefix(b":")) else {
            return Ok(None);
        };
        let value = behind.strip_prefix(b" ").unwrap_or(behind);
        let len = value_run(value);
        // A value that begins with white space, or holds HTAB, is not usual.
        let Some(rest) = value.get(len..).and_then(|rest| rest.strip_prefix(b"\r\n")) else {
            return Ok(None);
        };
        if name == 0 || value.first() == Some(&b' ') {
            return Ok(None);
        }
        self.count_field()?;
        self.field = Field::of(&bytes[..name]);
        if self.field != Field::Other {
            self.open_value()?;
            self.valued(&value[..len]);
            self.field()?;
        }
        Ok(Some(bytes.len() - rest.len()))
    }

    fn count_field(&mut self) -> Result<(), Violation> {
        self.fields += 1;
        if self.fields > self.rules.headers_max { Err(Violation::TooManyFields) } else { Ok(()) }
    }

    /// One run of bytes of a head or a trailer section.
    fn step(&mut self, line: Line, bytes: &[u8], at: &mut usize) -> Result<Line, Violation> {
        let byte = bytes[*at];
        let mut used = 1;
        let next = match line {
            Line::Begin(lines) => match byte {
                b'\r' if lines == EMPTY_LINES_MAX => return Err(Violation::EmptyLines),
                b'\r' => Line::BeginLf(lines + 1),
                b'\n' => return Err(Violation::LineEnd),
                _ if is_token(byte) => Line::Method,
                _ => return Err(Violation::Method),
            },
            Line::BeginLf(lines) => {
                lf(byte)?;
                Line::Begin(lines)
            }
            Line::Method => match token_run(&bytes[*at..]) {
                0 if byte == b' ' => Line::TargetStart,
                0 => return Err(Violation::Method),
                run => {
                    used = run;
                    Line::Method
                }
            },
            Line::TargetStart | Line::Target => match target_run(&bytes[*at..]) {
                0 if byte == b' ' && line == Line::Target => Line::Version(0),
                0 => return Err(Violation::Target),
                run if bytes[*at..*at + run].contains(&b'#') => return Err(Violation::Target),
                run => {
                    used = run;
                    Line::Target
                }
            },
            Line::Version(so_far) => self.version(so_far, byte)?,
            Line::OtherVersion(so_far) => match (so_far, byte) {
                (6, b'.') => Line::OtherVersion(7),
                (7, b'0'..=b'9') => return Err(Violation::VersionUnsupported),
                _ => return Err(Violation::Version),
            },
            Line::RequestLf => {
                lf(byte)?;
                Line::FieldStart
            }
            Line::FieldStart => match byte {
                b'\r' => Line::SectionLf,
                b' ' | b'\t' => return Err(Violation::Folded),
                b'\n' => return Err(Violation::LineEnd),
                _ if is_token(byte) => {
                    self.count_field()?;
                    self.name.clear();
                    used = 0;
                    Line::Name
                }
                _ => return Err(Violation::Name),
            },
            Line::Name => {
                used = token_run(&bytes[*at..]);
                self.name.push(&bytes[*at..*at + used]);
                match bytes.get(*at + used) {
                    None => Line::Name,
                    Some(b':') => {
                        used += 1;
                        self.field = self.name.get().map_or(Field::Other, Field::of);
                        self.open_value()?;
                        Line::ValueStart
                    }
                    Some(b' ' | b'\t') => return Err(Violation::SpaceBeforeColon),
                    Some(b'\r' | b'\n') => return Err(Violation::LineEnd),
                    Some(_) => return Err(Violation::Name),
                }
            }
            Line::ValueStart => match byte {
                b' ' | b'\t' => Line::ValueStart,
                _ => {
                    used = 0;
                    Line::Value
                }
            },
            Line::Value => match value_run(&bytes[*at..]) {
                0 => match byte {
                    b'\r' => Line::ValueLf,
                    b'\n' => return Err(Violation::LineEnd),
                    b'\t' => {
                        self.valued(&[byte]);
                        Line::Value
                    }
                    _ => return Err(Violation::Value),
                },
                run => {
                    used = run;
                    self.valued(&bytes[*at..*at + run]);
                    Line::Value
                }
            },
            Line::ValueLf => {
                lf(byte)?;
                self.field()?;
                Line::FieldStart
            }
            // Its caller's.
            Line::SectionLf => Line::SectionLf,
        };
        *at += used;
        Ok(next)
    }

    /// `HTTP/1.0` or `HTTP/1.1`, then the line's end.
    fn version(&mut self, so_far: u8, byte: u8) -> Result<Line, Violation> {
        match (so_far, byte) {
            (0..=4, _) if byte == b"HTTP/"[usize::from(so_far)] => {}
            (5, b'1') | (6, b'.') => {}
            (5, b'0' | b'2'..=b'9') => return Ok(Line::OtherVersion(6)),
            (7, b'0') => self.said.minor = Minor::Zero,
            (7, b'1') => self.said.minor = Minor::One,
            (7, b'2'..=b'9') => return Err(Violation::VersionUnsupported),
            (8, b'\r') => return Ok(Line::RequestLf),
            _ => return Err(Violation::Version),
        }
        Ok(Line::Version(so_far + 1))
    }

    /// The field's name is known, its value begins.
    fn open_value(&mut self) -> Result<(), Violation> {
        self.value.clear();
        self.host = HostText::Valid;
        match (self.section, self.field) {
            (Section::Trailers, Field::ContentLength | Field::TransferEncoding | Field::Host) => {
                Err(Violation::Trailer)
            }
            (Section::Trailers, Field::Expect | Field::Upgrade | Field::Other) => {
                self.field = Field::Other;
                Ok(())
            }
            (Section::Head, _) => Ok(()),
        }
    }

    /// A piece of the value.
    fn valued(&mut self, piece: &[u8]) {
        match self.field {
            Field::Other | Field::Upgrade => {}
            Field::Host => self.host = self.host.and_then(piece),
            Field::ContentLength | Field::TransferEncoding | Field::Expect => self.value.push(piece),
        }
    }

    /// A field line is complete.
    fn field(&mut self) -> Result<(), Violation> {
        match self.field {
            Field::Other => {}
            Field::Upgrade => self.said.upgrade = true,
            Field::Host => {
                let is_one = !self.said.host && self.host != HostText::Invalid;
                if !is_one && self.rules.hosts == HostRule::Strict {
                    return Err(Violation::Host);
                }
                self.said.host = true;
            }
            Field::Expect => check_expectation(&self.value)?,
            Field::ContentLength => {
                let length = length_of(&self.value)?;
                if self.said.length.replace(length).is_some() {
                    return Err(Violation::Length);
                }
            }
            Field::TransferEncoding => {
                check_coding(&self.value)?;
                if self.said.chunked {
                    return Err(Violation::Coding);
                }
                self.said.chunked = true;
            }
        }
        Ok(())
    }

    fn end_of_section(&mut self) -> Result<Step, Violation> {
        if self.section == Section::Trailers {
            return Ok(Step::Message);
        }
        let Said { minor, length, chunked, host, upgrade } = self.said;
        if chunked && length.is_some() {
            return Err(Violation::LengthAndCoding);
        }
        if chunked && minor == Minor::Zero {
            return Err(Violation::Coding);
        }
        if !host && minor == Minor::One && self.rules.hosts == HostRule::Strict {
            return Err(Violation::HostMissing);
        }
        match length {
            _ if chunked => self.at = self.next_chunk(),
            Some(length @ 1..) => self.at = At::Body(length),
            Some(0) | None if upgrade && minor == Minor::One => return Ok(Step::Upgrade),
            Some(0) | None => return Ok(Step::Message),
        }
        Ok(Step::On)
    }
}

fn lf(byte: u8) -> Result<(), Violation> {
    if byte == b'\n' { Ok(()) } else { Err(Violation::LineEnd) }
}

#[cfg(test)]
mod tests;
