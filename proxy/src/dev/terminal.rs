//! The terminal at the edge: keys in, screen out. The terminal is given back as it was, however `dev` ends.

use std::io::{self, Stdout, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use crossterm::cursor::{Hide, MoveTo, Show};
use crossterm::event::{self, Event, KeyCode, KeyEventKind, KeyModifiers};
use crossterm::style::Print;
use crossterm::terminal::{
    Clear, ClearType, EnterAlternateScreen, LeaveAlternateScreen, disable_raw_mode, enable_raw_mode, size,
};
use crossterm::{execute, queue};
use tokio::sync::mpsc;

/// How soon the key thread notices that it should end.
const KEY_POLL: Duration = Duration::from_millis(100);

/// A key that means something.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Key {
    /// Cut or heal the regions.
    Link,
    /// Kill or start the shard of this number, from 1.
    Shard(usize),
    /// End.
    Quit,
}

/// The screen and the keyboard, ours until dropped.
pub struct Terminal {
    out: Stdout,
    stop: Arc<AtomicBool>,
    reader: Option<JoinHandle<()>>,
}

impl Terminal {
    /// Takes the screen; keys come through the receiver.
    pub fn open() -> io::Result<(Self, mpsc::Receiver<Key>)> {
        let mut out = io::stdout();
        enable_raw_mode()?;
        let stop = Arc::<AtomicBool>::default();
        let (keys, pressed) = mpsc::channel(16);
        let reader = {
            let stop = stop.clone();
            thread::Builder::new().name("dev-keys".to_owned()).spawn(move || read_keys(&stop, &keys))
        };
        // From here on the drop gives the terminal back.
        let mut terminal = Self { out: io::stdout(), stop, reader: None };
        terminal.reader = Some(reader?);
        execute!(out, EnterAlternateScreen, Hide, Clear(ClearType::All))?;
        Ok((terminal, pressed))
    }

    /// Shows the text in place of what was there, as much of it as fits.
    pub fn draw(&mut self, text: &str) -> io::Result<()> {
        let (columns, rows) = size()?;
        for (row, line) in (0..rows).zip(text.lines()) {
            let line: String = line.chars().take(columns.into()).collect();
            queue!(self.out, MoveTo(0, row), Print(line), Clear(ClearType::UntilNewLine))?;
        }
        queue!(self.out, Clear(ClearType::FromCursorDown))?;
        self.out.flush()
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(reader) = self.reader.take() {
            reader.join().ok();
        }
        execute!(self.out, Show, LeaveAlternateScreen).ok();
        disable_raw_mode().ok();
    }
}

fn read_keys(stop: &AtomicBool, keys: &mpsc::Sender<Key>) {
    while !stop.load(Ordering::Relaxed) {
        match event::poll(KEY_POLL) {
            Ok(false) => {}
            Ok(true) => {
                let Ok(event) = event::read() else { return };
                if let Some(key) = meaning(&event) {
                    // Sixteen keys that nobody has dealt with yet: the seventeenth is dropped.
                    keys.try_send(key).ok();
                }
            }
            Err(_) => return,
        }
    }
}

fn meaning(event: &Event) -> Option<Key> {
    let Event::Key(key) = event else { return None };
    if key.kind == KeyEventKind::Release {
        return None;
    }
    let KeyCode::Char(letter) = key.code else { return None };
    // In raw mode the terminal sends no signal for ctrl-c.
    if key.modifiers.contains(KeyModifiers::CONTROL) {
        return (letter == 'c').then_some(Key::Quit);
    }
    match letter {
        'c' | 'C' => Some(Key::Link),
        'q' | 'Q' => Some(Key::Quit),
        '1'..='9' => letter.to_digit(10).and_then(|n| usize::try_from(n).ok()).map(Key::Shard),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use crossterm::event::KeyEvent;

    use super::*;

    #[test]
    fn keys_mean_what_the_screen_says() {
        let press = |letter, modifiers| meaning(&Event::Key(KeyEvent::new(KeyCode::Char(letter), modifiers)));
        assert_eq!(press('c', KeyModifiers::NONE), Some(Key::Link));
        assert_eq!(press('2', KeyModifiers::NONE), Some(Key::Shard(2)));
        assert_eq!(press('q', KeyModifiers::NONE), Some(Key::Quit));
        assert_eq!(press('c', KeyModifiers::CONTROL), Some(Key::Quit));
        assert_eq!(press('x', KeyModifiers::NONE), None);
        assert_eq!(meaning(&Event::Resize(80, 24)), None);
    }
}
