//! Whether a valid answer that is empty, or much smaller than the one before, is believed. Pure.

use std::time::Duration;

/// How long a smaller answer has to last.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Grace {
    /// When the servers count on: somebody deleted that much.
    pub(crate) counted_on: Duration,
    /// When they count anew: they lost what they had, and whoever knows it writes it again.
    pub(crate) counted_anew: Duration,
}

/// What is to be done with an answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Judged {
    /// It is what there is.
    Believed,
    /// What was known before stays; ask the leader (`consistent`) when that much time has passed.
    Doubted(Duration),
}

/// Who said it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Word {
    /// Any server.
    Any,
    /// The leader, who made sure that it is (`consistent`).
    Confirmed,
}

/// The doubt about one source.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Belief {
    grace: Grace,
    /// How many records are believed in; `None` before the first answer.
    believed: Option<usize>,
    doubt: Option<Doubt>,
}

/// Since when there is doubt, and why.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Doubt {
    since: Duration,
    cause: Cause,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Cause {
    /// So few all of a sudden.
    Few,
    /// The servers count anew: they may have lost what is not there.
    Restart,
}

/// The leader is asked that often when doubt begins, and at last.
const CONFIRM_EVERY: Duration = Duration::from_millis(200);
const CONFIRM_SELDOM: Duration = Duration::from_secs(2);

impl Belief {
    /// Nothing is known; `believed` records are in use already (from disk), if any.
    pub(crate) const fn new(grace: Grace, believed: Option<usize>) -> Self {
        Self { grace, believed, doubt: None }
    }

    /// Whether it is believed that there is nothing.
    pub(crate) fn is_of_nothing(&self) -> bool {
        self.believed == Some(0) && self.doubt.is_none()
    }

    /// The servers began to count anew.
    pub(crate) const fn restarted(&mut self, now: Duration) {
        self.doubt = Some(Doubt { since: now, cause: Cause::Restart });
    }

    /// Judges an answer of so many records. `now` counts from any fixed moment.
    pub(crate) fn judge(&mut self, records: usize, word: Word, now: Duration) -> Judged {
        let restarted = self.doubt.is_some_and(|doubt| doubt.cause == Cause::Restart);
        // After a restart it comes back bit by bit.
        let suspicious =
            self.believed.is_some_and(|before| records * 2 < before || restarted && records < before);
        if !suspicious {
            self.doubt = None;
            self.believed = Some(records);
            return Judged::Believed;
        }
        let Doubt { since, cause } = *self.doubt.get_or_insert(Doubt { since: now, cause: Cause::Few });
        let grace = match cause {
            Cause::Few => self.grace.counted_on,
            Cause::Restart => self.grace.counted_anew,
        };
        if word == Word::Confirmed && now.saturating_sub(since) >= grace {
            self.doubt = None;
            self.believed = Some(records);
            return Judged::Believed;
        }
        // Seldomer the longer it lasts: all nodes ask one leader, who may have come up just now.
        let pause = (now.saturating_sub(since) / 4).clamp(CONFIRM_EVERY, CONFIRM_SELDOM);
        Judged::Doubted(pause.min(grace))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GRACE: Grace = Grace { counted_on: Duration::from_secs(10), counted_anew: Duration::from_secs(60) };

    fn at(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    #[test]
    fn half_is_believed_and_less_is_not() {
        let mut belief = Belief::new(GRACE, None);
        assert_eq!(belief.judge(10, Word::Any, at(0)), Judged::Believed);
        assert_eq!(belief.judge(5, Word::Any, at(1)), Judged::Believed);
        assert!(matches!(belief.judge(2, Word::Any, at(2)), Judged::Doubted(_)));
        assert_eq!(belief.judge(3, Word::Any, at(3)), Judged::Believed, "five are still believed in");
        assert!(matches!(belief.judge(0, Word::Any, at(4)), Judged::Doubted(_)));
    }

    #[test]
    fn the_leader_and_time_confirm_it() {
        let mut belief = Belief::new(GRACE, Some(4));
        assert!(matches!(belief.judge(0, Word::Any, at(0)), Judged::Doubted(_)));
        assert!(matches!(belief.judge(0, Word::Confirmed, at(9)), Judged::Doubted(_)));
        assert!(
            matches!(belief.judge(0, Word::Any, at(10)), Judged::Doubted(_)),
            "only the leader's word counts"
        );
        assert_eq!(belief.judge(0, Word::Confirmed, at(10)), Judged::Believed);
        assert_eq!(belief.judge(0, Word::Any, at(11)), Judged::Believed, "as before");
    }

    #[test]
    fn after_a_restart_it_takes_longer() {
        let mut belief = Belief::new(GRACE, Some(4));
        belief.restarted(at(0));
        assert!(matches!(belief.judge(0, Word::Confirmed, at(30)), Judged::Doubted(_)));
        assert!(matches!(belief.judge(3, Word::Confirmed, at(30)), Judged::Doubted(_)), "one is missing");
        assert_eq!(belief.judge(4, Word::Any, at(31)), Judged::Believed);
        // The next emptiness is another matter.
        assert!(matches!(belief.judge(0, Word::Any, at(32)), Judged::Doubted(_)));
        assert_eq!(belief.judge(0, Word::Confirmed, at(42)), Judged::Believed);
    }

    #[test]
    fn the_first_answer_is_what_there_is() {
        assert_eq!(Belief::new(GRACE, None).judge(0, Word::Any, at(0)), Judged::Believed);
    }
}
