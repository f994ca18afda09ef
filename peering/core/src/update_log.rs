//! The node's own decisions in order, so that every peer can be told from where it stands.

use alloc::collections::VecDeque;

use crate::id::StickKey;
use crate::time::Stamp;

/// What is kept of a number in each slot, never 0. Two numbers with the same tag are further apart than the log is long.
pub(crate) fn tag(number: u64) -> u32 {
    u32::try_from(number % u64::from(u32::MAX)).unwrap_or(0) + 1
}

/// What happened to a key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum LogKind {
    /// A decision: the entry as it stands when it is sent (later ones supersede earlier ones).
    Decision,
    /// Its lease was renewed.
    Renewal,
    /// It was forgotten without a decision.
    Dropped {
        /// The forgotten entry's digest.
        digest: u64,
        /// When.
        at: Stamp,
    },
}

/// Numbered from 1 on; holds the newest `max`. Whoever stands before its tail must reconcile.
#[derive(Debug)]
pub(crate) struct UpdateLog {
    items: VecDeque<(StickKey, LogKind)>,
    /// Number of the newest item, 0 when there was none.
    head: u64,
    max: usize,
}

impl UpdateLog {
    pub(crate) const fn new(max: usize) -> Self {
        Self { items: VecDeque::new(), head: 0, max }
    }

    /// Appends and answers the item's number.
    pub(crate) fn push(&mut self, key: StickKey, kind: LogKind) -> u64 {
        if self.items.len() >= self.max {
            self.items.pop_front();
        }
        self.items.push_back((key, kind));
        self.head += 1;
        self.head
    }

    /// Something happened that nobody listens to: whoever comes later must reconcile.
    pub(crate) fn skip(&mut self) {
        self.items.clear();
        self.head += 1;
    }

    pub(crate) const fn head(&self) -> u64 {
        self.head
    }

    /// Whether everything after `number` is still here.
    pub(crate) fn reaches(&self, number: u64) -> bool {
        number <= self.head && number >= self.tail()
    }

    /// The item after `number`, `None` at the head or when it was dropped.
    pub(crate) fn after(&self, number: u64) -> Option<(u64, &StickKey, LogKind)> {
        let index = usize::try_from(number.checked_sub(self.tail())?).ok()?;
        self.items.get(index).map(|(key, kind)| (number + 1, key, *kind))
    }

    /// Forgets everything up to `number`, which every peer has applied.
    pub(crate) fn trim(&mut self, number: u64) {
        while self.tail() < number && self.items.pop_front().is_some() {}
    }

    fn tail(&self) -> u64 {
        self.head - self.items.len() as u64
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::format;

    #[test]
    fn a_reader_continues_where_the_log_still_reaches() {
        let mut log = UpdateLog::new(3);
        assert!(log.reaches(0) && log.after(0).is_none());
        for n in 1..=5 {
            assert_eq!(log.push(StickKey::parse(&format!("k{n}")).unwrap(), LogKind::Decision), n);
        }
        assert!(!log.reaches(1) && log.reaches(2) && log.reaches(5) && !log.reaches(6));
        assert_eq!(log.after(2).map(|(n, key, _)| (n, key.as_str())), Some((3, "k3")));
        assert!(log.after(5).is_none() && log.after(1).is_none());
        log.trim(4);
        assert!(!log.reaches(3) && log.reaches(4));
        log.trim(99);
        assert!(log.reaches(5));
    }
}
