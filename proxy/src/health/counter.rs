//! When checks in a row make a server up or down. Pure; HAProxy's counter (`check->health` in its check.c).

/// A server's good and failed checks, as one number: from 0, down for sure, over `rise`, from which on it is up, to `rise + fall - 1`, up for
/// sure.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Counter {
    health: u32,
    rise: u32,
    fall: u32,
}

/// What the number says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Phase {
    /// Up, and the last check said so.
    Up,
    /// Up yet: so many failed checks of those that make it down.
    GoingDown {
        /// Failed in a row.
        failed: u32,
        /// How many make it down.
        of: u32,
    },
    /// Down, and the last check said so.
    Down,
    /// Down yet: so many good checks of those that make it up.
    GoingUp {
        /// Good in a row.
        good: u32,
        /// How many make it up.
        of: u32,
    },
}

impl Phase {
    /// Whether the server is up.
    #[must_use]
    pub const fn is_up(self) -> bool {
        matches!(self, Self::Up | Self::GoingDown { .. })
    }
}

impl std::fmt::Display for Phase {
    /// In HAProxy's words: `UP`, `UP 1/2`, `DOWN`, `DOWN 1/3`.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Up => f.write_str("UP"),
            Self::GoingDown { failed, of } => write!(f, "UP {failed}/{of}"),
            Self::Down => f.write_str("DOWN"),
            Self::GoingUp { good, of } => write!(f, "DOWN {good}/{of}"),
        }
    }
}

impl Counter {
    /// Up, but the first failed check makes it down: what was never seen well is not believed for long. `rise` and `fall` are at least 1.
    pub(super) const fn new(rise: u32, fall: u32) -> Self {
        Self { health: rise, rise, fall }
    }

    const fn top(&self) -> u32 {
        self.rise + self.fall - 1
    }

    pub(super) const fn is_up(&self) -> bool {
        self.health >= self.rise
    }

    pub(super) const fn phase(&self) -> Phase {
        match self.health {
            0 => Phase::Down,
            health if health < self.rise => Phase::GoingUp { good: health, of: self.rise },
            health if health < self.top() => Phase::GoingDown { failed: self.top() - health, of: self.fall },
            _ => Phase::Up,
        }
    }

    pub(super) fn passed(&mut self) {
        self.health += 1;
        if self.is_up() {
            self.health = self.top();
        }
    }

    pub(super) const fn failed(&mut self) {
        // One that is going up begins anew.
        self.health = if self.health > self.rise { self.health - 1 } else { 0 };
    }

    /// The next failed check makes it down, if it is up.
    pub(super) fn weaken(&mut self) {
        self.health = self.health.min(self.rise);
    }

    pub(super) const fn set_up(&mut self) {
        self.health = self.top();
    }

    pub(super) const fn set_down(&mut self) {
        self.health = 0;
    }

    /// Other bounds count from now on; who is up stays up, who is down stays down.
    pub(super) const fn set_bounds(&mut self, rise: u32, fall: u32) {
        let up = self.is_up();
        let phase = self.phase();
        (self.rise, self.fall) = (rise, fall);
        self.health = match phase {
            _ if !up => 0,
            Phase::Up => self.top(),
            Phase::GoingDown { .. } | Phase::GoingUp { .. } | Phase::Down => rise,
        };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn said(counter: &mut Counter, checks: &str) -> Vec<String> {
        let after = checks.chars().map(|check| {
            if check == '+' {
                counter.passed()
            } else {
                counter.failed()
            }
            counter.phase().to_string()
        });
        after.collect()
    }

    #[test]
    fn checks_in_a_row_decide() {
        let mut counter = Counter::new(3, 2);
        assert_eq!(counter.phase().to_string(), "UP 1/2");
        assert_eq!(
            said(&mut counter, "+-+--++-+++-"),
            [
                "UP", "UP 1/2", "UP", "UP 1/2", "DOWN", "DOWN 1/3", "DOWN 2/3", "DOWN", "DOWN 1/3",
                "DOWN 2/3", "UP", "UP 1/2"
            ]
        );
        let mut fresh = Counter::new(3, 2);
        assert_eq!(said(&mut fresh, "-"), ["DOWN"], "it was never seen well");
        let mut quick = Counter::new(1, 1);
        assert_eq!(said(&mut quick, "-+-+"), ["DOWN", "UP", "DOWN", "UP"]);
    }

    #[test]
    fn a_flapping_check_with_two_to_fall_changes_nothing() {
        let mut counter = Counter::new(2, 2);
        counter.passed();
        for _ in 0..1_000 {
            counter.failed();
            assert!(counter.is_up());
            counter.passed();
            assert!(counter.is_up());
        }
        let mut down = Counter::new(2, 2);
        down.set_down();
        for _ in 0..1_000 {
            down.passed();
            assert!(!down.is_up());
            down.failed();
            assert!(!down.is_up());
        }
    }

    #[test]
    fn other_bounds_keep_what_is_up() {
        let mut counter = Counter::new(3, 2);
        counter.passed();
        counter.set_bounds(1, 5);
        assert_eq!(counter.phase(), Phase::Up);
        counter.set_down();
        counter.set_bounds(2, 2);
        assert_eq!(counter.phase(), Phase::Down);
        counter.set_up();
        counter.weaken();
        counter.set_bounds(4, 4);
        assert!(counter.is_up());
        counter.failed();
        assert!(!counter.is_up());
    }
}
