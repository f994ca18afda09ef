//! What agents say: one line of words, in the grammar of HAProxy's agent-check (manual 5.2 `agent-check`, and its tcpcheck.c). Pure.

use shardgate_discovery::ShardState;

/// The longest line that is read. HAProxy's own buffer holds 16 KiB; what agents say fits in a hundredth of this.
pub const LINE_MAX: usize = 1_024;

/// Whether an agent says that its server works.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Operating {
    /// `up`.
    Up,
    /// `down`, `stopped` or `fail`.
    Down,
}

/// What one line says. What it does not say stays as it was.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Said {
    /// Whether the server works.
    pub operating: Option<Operating>,
    /// Ready, drain or maint.
    pub state: Option<ShardState>,
    /// How much of its weight it wants, in percent; any number.
    pub percent: Option<u32>,
    /// How many requests and tunnels it wants at once; 0 is no limit.
    pub connections_max: Option<usize>,
    /// What stands behind `#`, without control characters.
    pub description: String,
    /// The first word that means nothing.
    pub unknown: Option<String>,
}

/// Why an agent said nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum NothingSaid {
    /// It closed before.
    #[error("its line has no end")]
    Incomplete,
    /// More would have to be read.
    #[error("its line is longer than {LINE_MAX} bytes")]
    TooLong,
}

/// Reads what an agent has sent until it closed, or until the line had its end or was too long. Of several words of one kind the last
/// counts.
///
/// # Errors
/// [`NothingSaid`].
pub fn read(bytes: &[u8]) -> Result<Said, NothingSaid> {
    let end = bytes.iter().position(|byte| matches!(byte, b'\r' | b'\n'));
    let line = match end {
        Some(end) if end <= LINE_MAX => &bytes[..end],
        Some(_) => return Err(NothingSaid::TooLong),
        None if bytes.len() > LINE_MAX => return Err(NothingSaid::TooLong),
        None => return Err(NothingSaid::Incomplete),
    };
    let line = String::from_utf8_lossy(line);
    let mut said = Said::default();
    let mut rest = &*line;
    loop {
        rest = rest.trim_start_matches([' ', '\t', ',']);
        if let Some(description) = rest.strip_prefix('#') {
            said.description = printable(description.trim_start_matches([' ', '\t']));
            break;
        }
        let end = rest.find([' ', '\t', ',']).unwrap_or(rest.len());
        let (word, after) = rest.split_at(end);
        if word.is_empty() {
            break;
        }
        said.hear(word);
        rest = after;
    }
    Ok(said)
}

impl Said {
    fn hear(&mut self, word: &str) {
        match word.to_ascii_lowercase().as_str() {
            "up" => self.operating = Some(Operating::Up),
            "down" | "stopped" | "fail" => self.operating = Some(Operating::Down),
            "ready" => self.state = Some(ShardState::Ready),
            "drain" => self.state = Some(ShardState::Drain),
            "maint" => self.state = Some(ShardState::Maint),
            other => {
                let known = if let Some(number) = other.strip_suffix('%') {
                    number.parse().ok().map(|percent| self.percent = Some(percent))
                } else if let Some(number) = other.strip_prefix("maxconn:") {
                    number.parse().ok().map(|most| self.connections_max = Some(most))
                } else {
                    None
                };
                if known.is_none() && self.unknown.is_none() {
                    self.unknown = Some(printable(word));
                }
            }
        }
    }
}

/// For logs and screens: at most 80 characters, without control characters.
fn printable(text: &str) -> String {
    text.chars().map(|letter| if letter.is_control() { '?' } else { letter }).take(80).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn words_in_any_order() {
        let of = |text: &str| read(text.as_bytes()).unwrap();
        let up = Some(Operating::Up);
        let down = Some(Operating::Down);
        assert_eq!(
            of("up ready 100%\n"),
            Said { operating: up, state: Some(ShardState::Ready), percent: Some(100), ..Said::default() }
        );
        assert_eq!(
            of("0%,DRAIN\tUp\r\nrest that is not read"),
            Said { operating: up, state: Some(ShardState::Drain), percent: Some(0), ..Said::default() }
        );
        for word in ["down", "fail", "stopped", "FAIL"] {
            let said = of(&format!("{word} # out of disk\n"));
            assert_eq!(
                said,
                Said { operating: down, description: "out of disk".to_owned(), ..Said::default() }
            );
        }
        assert_eq!(of("maint maxconn:30\n").connections_max, Some(30));
        assert_eq!(of("up down up\n").operating, up, "the last word counts");
        assert_eq!(of("\n"), Said::default());
        assert_eq!(of("#\tup down\n"), Said { description: "up down".to_owned(), ..Said::default() });
    }

    #[test]
    fn what_means_nothing_is_told_and_takes_nothing_along() {
        let said = read(b"hello up 50% 1.5% maxconn:x -3% %\n").unwrap();
        assert_eq!((said.operating, said.percent), (Some(Operating::Up), Some(50)));
        assert_eq!(said.unknown.as_deref(), Some("hello"));
        assert_eq!(read(b"1\x1b[31m%\n").unwrap().unknown.as_deref(), Some("1?[31m%"));
        assert_eq!(read(b"up ready 100%"), Err(NothingSaid::Incomplete));
        assert_eq!(read(b""), Err(NothingSaid::Incomplete));
        assert_eq!(read(&[b'x'; LINE_MAX + 1]), Err(NothingSaid::TooLong));
        assert!(read(&[0xff; 20]).is_err());
        assert!(read(b"\xff\xfe\n").unwrap().unknown.is_some());
    }

    proptest! {
        #[test]
        fn nothing_breaks_it(bytes in prop::collection::vec(any::<u8>(), 0..2_000)) {
            if let Ok(said) = read(&bytes) {
                prop_assert!(said.description.chars().count() <= 80);
                prop_assert!(!said.description.contains(char::is_control));
            }
        }
    }
}
