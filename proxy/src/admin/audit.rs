//! The audit log: a line of JSON for each order that the admin was given, with who gave it, from where, and what became of it.
//!
//! ```text
//! {"at":"2026-11-24T09:30:00.123Z","node":"proxy-a1","who":"alice","certificate":"sha256:5b…","from":"10.52.1.9:40100","order":"set_entry",
//!  "arguments":{"key":"acme/standup","shard":"prod-us-s2"},"result":"answered","answer":{"outcome":"set","shard":"prod-us-s2"}}
//! ```
//!
//! `result` is `answered` (with `answer`), `refused` (with `error`), or `left`: whoever asked did not wait for the answer, and the order may
//! have been carried out. Orders wait for no disk: a line is handed to the log's writer, and what that has no room for is lost and counted.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::SyncSender;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::SystemTime;

use serde::ser::{Serialize, SerializeMap as _, Serializer};

use crate::log_writer::LogWriter;

/// Bytes of a text that are shown: a key has at most so many. Longer ones are refused, and need not fill the disk.
const TEXT_BYTES_MAX: usize = 1_024;

/// Where lines are handed on.
#[derive(Debug)]
pub struct AuditLog {
    node: String,
    /// `None`: the log is off, or the node has ended.
    sender: Mutex<Option<SyncSender<Vec<u8>>>>,
    not_taken: AtomicU64,
    unwritten: Arc<AtomicU64>,
}

impl AuditLog {
    pub(crate) fn new(node: &str, writer: &LogWriter) -> Self {
        Self {
            node: node.to_owned(),
            sender: Mutex::new(writer.sender()),
            not_taken: AtomicU64::new(0),
            unwritten: writer.unwritten(),
        }
    }

    /// Nothing is handed on any more: the writer can come to its end.
    pub(crate) fn close(&self) {
        drop(self.sender.lock().unwrap_or_else(PoisonError::into_inner).take());
    }

    /// Lines that were lost.
    pub(crate) fn lost(&self) -> u64 {
        self.not_taken.load(Ordering::Relaxed) + self.unwritten.load(Ordering::Relaxed)
    }

    /// Hands a line on; waits for nothing.
    pub(super) fn write(&self, at: SystemTime, caller: &Caller, order: &'static str, deed: &Deed<'_>) {
        let sender = self.sender.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(sender) = &*sender else { return };
        let line = line(&self.node, at, caller, order, deed);
        if sender.try_send(line.into_bytes()).is_err() {
            self.not_taken.fetch_add(1, Ordering::Relaxed);
            tracing::error!(order, "an order is missing in the audit log, which does not keep up");
        }
    }
}

/// Who gave an order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Caller {
    /// Somebody with a certificate of the listener's CA.
    Certified {
        /// The common name, else the first name of a host or a resource.
        name: String,
        /// SHA-256 of the certificate, in hexadecimal digits.
        fingerprint: String,
        /// The address.
        from: String,
    },
    /// A process of this machine.
    Process {
        /// Its user.
        uid: u32,
        /// Its number, where the system tells.
        pid: Option<i32>,
        /// The socket.
        from: String,
    },
    /// Nobody has said who.
    Anybody {
        /// The address, or the listener's where it is not known.
        from: String,
    },
}

/// What was ordered, and what became of it.
#[derive(Debug)]
pub(super) struct Deed<'a> {
    pub(super) arguments: &'a Fields,
    pub(super) outcome: Outcome<'a>,
}

/// What became of an order.
#[derive(Debug)]
pub(super) enum Outcome<'a> {
    Answered(Fields),
    Refused(&'a str),
    /// Whoever asked is gone.
    Left,
}

/// Names and values in their order.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Fields(pub(super) Vec<(&'static str, String)>);

impl Fields {
    /// Those that say something.
    pub(super) fn of(fields: &[(&'static str, &dyn std::fmt::Display)]) -> Self {
        let said = fields.iter().map(|(name, value)| (*name, value.to_string()));
        Self(said.filter(|(_, value)| !value.is_empty()).collect())
    }
}

impl Serialize for Fields {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(Some(self.0.len()))?;
        for (name, value) in &self.0 {
            map.serialize_entry(name, cut(value))?;
        }
        map.end()
    }
}

#[derive(serde::Serialize)]
struct Line<'a> {
    at: String,
    node: &'a str,
    who: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    certificate: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pid: Option<i32>,
    from: &'a str,
    order: &'static str,
    arguments: &'a Fields,
    result: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    answer: Option<&'a Fields>,
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<&'a str>,
}

/// One line with its end.
fn line(node: &str, at: SystemTime, caller: &Caller, order: &'static str, deed: &Deed<'_>) -> String {
    let (who, certificate, pid, from) = match caller {
        Caller::Certified { name, fingerprint, from } => {
            (cut(name).to_owned(), Some(format!("sha256:{fingerprint}")), None, from)
        }
        Caller::Process { uid, pid, from } => (format!("uid {uid}"), None, *pid, from),
        Caller::Anybody { from } => ("-".to_owned(), None, None, from),
    };
    let (result, answer, error) = match &deed.outcome {
        Outcome::Answered(fields) => ("answered", Some(fields), None),
        Outcome::Refused(why) => ("refused", None, Some(cut(why))),
        Outcome::Left => ("left", None, None),
    };
    let at = humantime::format_rfc3339_millis(at).to_string();
    let arguments = deed.arguments;
    let line = Line { at, node, who, certificate, pid, from, order, arguments, result, answer, error };
    // Texts and numbers: nothing of it can fail.
    let text = serde_json::to_string(&line).unwrap_or_default();
    escaped(&text)
}

/// What a terminal obeys, or what makes text look like another (directions of writing), as JSON escapes it: keys are up to whoever made them.
/// Such letters stand only in strings.
fn escaped(text: &str) -> String {
    let obeyed = |letter: char| {
        letter.is_control()
            || matches!(letter, '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
    };
    let mut shown = String::with_capacity(text.len() + 1);
    for letter in text.chars() {
        if obeyed(letter) {
            shown.push_str(&format!("\\u{:04x}", u32::from(letter)));
        } else {
            shown.push(letter);
        }
    }
    shown.push('\n');
    shown
}

fn cut(text: &str) -> &str {
    let end = text.floor_char_boundary(TEXT_BYTES_MAX);
    &text[..end]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::log_writer::{LogKind, LogTarget};
    use std::time::{Duration, UNIX_EPOCH};

    const AT: SystemTime = UNIX_EPOCH;

    fn said(
        caller: &Caller,
        arguments: &[(&'static str, &dyn std::fmt::Display)],
        outcome: Outcome<'_>,
    ) -> String {
        let arguments = Fields::of(arguments);
        line(
            "a",
            AT + Duration::from_millis(1_001),
            caller,
            "clear",
            &Deed { arguments: &arguments, outcome },
        )
    }

    #[test]
    fn a_line_says_who_what_from_where_and_what_became_of_it() {
        let alice = Caller::Certified {
            name: "alice".to_owned(),
            fingerprint: "5b".to_owned(),
            from: "10.0.0.1:9".to_owned(),
        };
        assert_eq!(
            said(
                &alice,
                &[("key", &"t/r"), ("shard", &"")],
                Outcome::Answered(Fields::of(&[("outcome", &"held")]))
            ),
            "{\"at\":\"1970-01-01T00:00:01.001Z\",\"node\":\"a\",\"who\":\"alice\",\"certificate\":\"sha256:5b\",\
             \"from\":\"10.0.0.1:9\",\"order\":\"clear\",\"arguments\":{\"key\":\"t/r\"},\"result\":\"answered\",\
             \"answer\":{\"outcome\":\"held\"}}\n"
        );
        let process = Caller::Process { uid: 0, pid: Some(7), from: "unix:/a.sock".to_owned() };
        let refused = said(&process, &[], Outcome::Refused("no"));
        assert!(refused.contains("\"who\":\"uid 0\",\"pid\":7,\"from\":\"unix:/a.sock\""), "{refused}");
        assert!(refused.ends_with("\"result\":\"refused\",\"error\":\"no\"}\n"), "{refused}");
        let anybody = Caller::Anybody { from: "127.0.0.1:1".to_owned() };
        let left = said(&anybody, &[], Outcome::Left);
        assert!(left.contains("\"who\":\"-\"") && left.ends_with("\"result\":\"left\"}\n"), "{left}");
    }

    #[test]
    fn what_others_wrote_makes_no_line_of_its_own_and_does_not_fill_the_disk() {
        let anybody = Caller::Anybody { from: "-".to_owned() };
        let key = "a\n{\"at\"\u{9b}\u{202e}";
        let text = said(&anybody, &[("key", &key)], Outcome::Left);
        assert_eq!((text.matches('\n').count(), text.contains(['\u{9b}', '\u{202e}'])), (1, false), "{text}");
        let read: serde_json::Value = serde_json::from_str(&text).unwrap();
        assert_eq!(read["arguments"]["key"], key);
        let long = "ü".repeat(1 << 20);
        assert!(said(&anybody, &[("key", &long)], Outcome::Refused(&long)).len() < 4_096);
    }

    #[tokio::test]
    async fn lines_come_in_their_order_and_what_a_full_disk_does_not_take_is_counted() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("audit.log");
        let anybody = Caller::Anybody { from: "-".to_owned() };
        for (target, lost) in [(LogTarget::File(path.clone()), 0), (LogTarget::File("/dev/full".into()), 2)] {
            let writer = LogWriter::start(LogKind::Audit, &target).unwrap();
            let log = AuditLog::new("a", &writer);
            for order in ["clear", "set_entry"] {
                let arguments = Fields::default();
                log.write(AT, &anybody, order, &Deed { arguments: &arguments, outcome: Outcome::Left });
            }
            log.close();
            writer.finish().await;
            assert_eq!(log.lost(), lost);
        }
        let text = std::fs::read_to_string(path).unwrap();
        let orders: Vec<_> = text.lines().map(|line| line.contains("set_entry")).collect();
        assert_eq!(orders, [false, true]);
    }
}
