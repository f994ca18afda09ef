//! What an agent sends: one line, whatever it is cut into.

use shardgate_proxy::health::agent::{LINE_MAX, NothingSaid, Said, read};

/// The most characters of what is shown of it.
const SHOWN_MAX: usize = 80;

/// Any bytes, as they stand when the agent has closed or its line is long enough.
///
/// # Panics
/// When what follows a line counts, a line without its end says something, or what is shown could do harm on a screen.
pub fn agent(data: &[u8]) {
    let said = read(data);
    match data.iter().position(|byte| matches!(byte, b'\r' | b'\n')) {
        Some(end) if end <= LINE_MAX => {
            let said = said.expect("a whole line says something");
            assert_eq!(read(&data[..=end]).as_ref(), Ok(&said), "what follows counts");
            look_at(&said);
            again(&data[..end], &said);
        }
        Some(_) => assert_eq!(said, Err(NothingSaid::TooLong)),
        None if data.len() > LINE_MAX => assert_eq!(said, Err(NothingSaid::TooLong)),
        None => assert_eq!(said, Err(NothingSaid::Incomplete)),
    }
}

fn look_at(said: &Said) {
    for shown in [Some(&said.description), said.unknown.as_ref()].into_iter().flatten() {
        assert!(shown.chars().count() <= SHOWN_MAX && !shown.chars().any(char::is_control), "{shown:?}");
    }
}

/// A line said twice says the same, and what is said before it gives way.
fn again(line: &[u8], said: &Said) {
    let before = [b"down maint 7% maxconn:7 ", line, b"\n"].concat();
    if before.len() > LINE_MAX {
        return;
    }
    let overruled = read(&before).expect("a whole line");
    assert_eq!((&overruled.description, &overruled.unknown), (&said.description, &said.unknown));
    assert!(said.operating.is_none() || said.operating == overruled.operating);
    assert!(said.state.is_none() || said.state == overruled.state);
    assert!(said.percent.is_none() || said.percent == overruled.percent);
    assert!(said.connections_max.is_none() || said.connections_max == overruled.connections_max);
}
