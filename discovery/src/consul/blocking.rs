//! One blocking query after the other (Consul's "Blocking Queries"): what to ask next, and when. Pure: time and luck come in as arguments.
//!
//! The rules that clients get wrong: an index below the last one begins anew, if it is the leader's (another server may only be behind); an
//! index of zero would make the server answer at once, for ever; the same index is a timeout and no news; an error begins anew, because
//! nobody knows what was missed; and whatever a server answers, it is never asked more often than the bucket allows.

use std::time::Duration;

/// How long a server may hold a query about its own datacenter. It also bounds how long a server that was restarted empty, between two
/// queries, is not found out: it holds whoever names an index that it has not reached yet.
pub(crate) const WAIT_OWN: Duration = Duration::from_secs(10);
/// The same for other datacenters.
pub(crate) const WAIT_OTHERS: Duration = Duration::from_secs(55);
/// How much longer than that an answer is waited for; a server adds up to a sixteenth by itself, so that not all come at once.
const LATER: Duration = Duration::from_secs(10);

/// Queries that may follow each other at once, and how many a second from then on.
const BURST: f64 = 10.0;
const PER_SECOND: f64 = 5.0;
/// What an answer without news costs beside its query: a server that holds queries gives few, one that answers at once is asked less often.
const NO_NEWS: f64 = 2.0;

/// The first pause after a failure; each further one doubles it.
const PAUSE_MIN: Duration = Duration::from_millis(100);
/// The longest pause while nobody answers, or the agent has enough (429) and names no time: whoever comes back is found within a second.
const PAUSE_MAX: Duration = Duration::from_secs(1);
/// The longest pause that an agent is granted when it names one (`Retry-After`).
const PAUSE_MAX_NAMED: Duration = Duration::from_secs(30);

/// What the next query says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Ask {
    /// Answer only when the index is beyond this one, or after `wait`; `None`: at once.
    pub(crate) index: Option<u64>,
    /// How long the server may hold it.
    pub(crate) wait: Duration,
    /// How old an answer may be.
    pub(crate) freshness: Freshness,
}

impl Ask {
    /// How long its answer is waited for.
    pub(crate) fn answered_within(&self) -> Duration {
        if self.index.is_some() { self.wait + self.wait / 16 + LATER } else { LATER }
    }
}

/// Whose word it has to be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Freshness {
    /// Any server's (`stale`): no single one has to answer all.
    Any,
    /// The leader's (Consul's default): after any server was too far behind it, or contradicted by it.
    Leader,
}

/// What an answer's headers say.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Arrival {
    /// `X-Consul-Index`.
    pub(crate) index: Option<u64>,
    /// `X-Consul-LastContact`: how far the server that answered is behind the leader.
    pub(crate) behind: Duration,
    /// `X-Consul-KnownLeader`.
    pub(crate) leader: Leader,
}

impl Arrival {
    /// The index to go on from. Zero, or none at all, is a server's bug; asked with it, a server would answer at once.
    fn counted(&self) -> u64 {
        self.index.unwrap_or(1).max(1)
    }
}

/// Whether the server that answered knows a leader.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Leader {
    Known,
    Unknown,
}

/// How an answer relates to the one before.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum News {
    /// It may say something else.
    New,
    /// Nothing happened while the server waited.
    Same,
    /// The server counts anew: it lost what it had, or was restored.
    Restarted,
    /// Too old to be believed; it is asked for again.
    TooOld,
}

/// Why there is no answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Failure {
    /// Nobody, or nothing that makes sense, or a server's error.
    NoAnswer,
    /// The agent refuses for now: too many requests, or connections. It may say for how long.
    TooMany(Option<Duration>),
}

/// Where a chain of blocking queries is.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Blocking {
    index: Option<u64>,
    /// The index of the last answer, also after an error: a server that counts anew was seldom reachable in between.
    seen: Option<u64>,
    wait: Duration,
    freshness: Freshness,
    behind_max: Duration,
    failures: u32,
    tokens: f64,
    filled_at: Duration,
}

impl Blocking {
    /// At its beginning: servers may hold queries for `wait`, and those that are further behind the leader than `behind_max` are not
    /// believed.
    pub(crate) const fn new(wait: Duration, behind_max: Duration) -> Self {
        Self {
            index: None,
            seen: None,
            wait,
            freshness: Freshness::Any,
            behind_max,
            failures: 0,
            tokens: BURST,
            filled_at: Duration::ZERO,
        }
    }

    /// The next query, and how long to wait before it. `now` counts from any fixed moment, `luck` is evenly spread in 0..1.
    pub(crate) fn next(&mut self, now: Duration, luck: f64) -> (Duration, Ask) {
        let passed = now.saturating_sub(self.filled_at).as_secs_f64();
        self.tokens = (self.tokens + passed * PER_SECOND).min(BURST);
        self.filled_at = self.filled_at.max(now);
        self.tokens -= 1.0;
        // Who owes tokens waits until they are there.
        let owed = (-self.tokens).max(0.0) / PER_SECOND;
        // A little luck, so that nodes that were told the same do not ask at the same moment.
        let spread = if owed > 0.0 { owed * luck / 4.0 } else { 0.0 };
        let wait = Duration::from_secs_f64(owed + spread);
        (wait, Ask { index: self.index, wait: self.wait, freshness: self.freshness })
    }

    /// Takes an answer.
    pub(crate) fn answered(&mut self, arrival: Arrival) -> News {
        let index = arrival.counted();
        // A server that counts anew looks like one that is a little behind: the leader tells which.
        let goes_back = self.seen.is_some_and(|last| index < last);
        let too_old = arrival.leader == Leader::Unknown || arrival.behind > self.behind_max || goes_back;
        if too_old && self.freshness == Freshness::Any {
            self.freshness = Freshness::Leader;
            self.index = None;
            return News::TooOld;
        }
        self.failures = 0;
        let asked = self.index.replace(index);
        let before = self.seen.replace(index);
        // The leader holds one query before any server is asked again, and that one at once: a server far behind would hold it, too.
        if self.freshness == Freshness::Leader && asked.is_some() {
            self.freshness = Freshness::Any;
            self.index = None;
        }
        match before {
            Some(last) if index < last => {
                self.index = None;
                News::Restarted
            }
            Some(_) if asked == Some(index) => {
                self.without_news();
                News::Same
            }
            Some(_) | None => News::New,
        }
    }

    /// An answer was news for Consul, and none here.
    pub(crate) fn without_news(&mut self) {
        self.tokens -= NO_NEWS;
    }

    /// Takes the leader's word beside the chain (`consistent`), which goes on from there: what a server that was wrong counted to is
    /// nothing to wait for.
    pub(crate) fn confirmed(&mut self, arrival: Arrival) -> News {
        let index = arrival.counted();
        self.freshness = Freshness::Leader;
        self.index = Some(index);
        match self.seen.replace(index) {
            Some(last) if index < last => News::Restarted,
            Some(_) | None => News::New,
        }
    }

    /// Takes a failure, and says how long to wait.
    pub(crate) fn failed(&mut self, failure: Failure, luck: f64) -> Duration {
        self.index = None;
        self.failures = self.failures.saturating_add(1);
        let doubled = PAUSE_MIN.saturating_mul(1 << (self.failures - 1).min(16)).min(PAUSE_MAX);
        // Between half of it and all of it.
        let own = doubled.mul_f64(0.5 + luck / 2.0);
        match failure {
            Failure::NoAnswer | Failure::TooMany(None) => own,
            // Not before it, and not all at once.
            Failure::TooMany(Some(named)) => named.min(PAUSE_MAX_NAMED) + own,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BEHIND_MAX: Duration = Duration::from_secs(10);

    fn arrival(index: Option<u64>) -> Arrival {
        Arrival { index, behind: Duration::ZERO, leader: Leader::Known }
    }

    /// Indices as servers answer, what that is, and what is asked then.
    #[test]
    fn indices() {
        type Step = (Option<u64>, News, Option<u64>);
        let table: &[(&str, &[Step])] = &[
            ("grows", &[(Some(7), News::New, Some(7)), (Some(9), News::New, Some(9))]),
            ("timeout", &[(Some(7), News::New, Some(7)), (Some(7), News::Same, Some(7))]),
            (
                "goes back",
                &[
                    (Some(70), News::New, Some(70)),
                    (Some(3), News::TooOld, None),
                    (Some(3), News::Restarted, None),
                    (Some(3), News::New, Some(3)),
                ],
            ),
            ("zero", &[(Some(0), News::New, Some(1)), (Some(0), News::Same, Some(1))]),
            ("none", &[(None, News::New, Some(1)), (Some(5), News::New, Some(5))]),
            (
                "is behind for a moment",
                &[
                    (Some(70), News::New, Some(70)),
                    (Some(69), News::TooOld, None),
                    (Some(70), News::New, Some(70)),
                ],
            ),
            (
                "largest",
                &[
                    (Some(u64::MAX), News::New, Some(u64::MAX)),
                    (Some(1), News::TooOld, None),
                    (Some(1), News::Restarted, None),
                ],
            ),
        ];
        for (name, steps) in table {
            let mut blocking = Blocking::new(WAIT_OWN, BEHIND_MAX);
            for (step, (index, news, asked)) in steps.iter().enumerate() {
                assert_eq!(blocking.answered(arrival(*index)), *news, "{name}, step {step}");
                let (_, ask) = blocking.next(Duration::ZERO, 0.0);
                assert_eq!(ask.index, *asked, "{name}, step {step}");
            }
        }
    }

    #[test]
    fn an_error_begins_anew_and_pauses_grow_to_their_bound() {
        let mut blocking = Blocking::new(WAIT_OWN, BEHIND_MAX);
        blocking.answered(arrival(Some(7)));
        assert_eq!(blocking.failed(Failure::NoAnswer, 1.0), PAUSE_MIN);
        assert_eq!(blocking.next(Duration::ZERO, 0.0).1.index, None);
        let mut restarted = blocking.clone();
        assert_eq!(restarted.answered(arrival(Some(6))), News::TooOld, "it may be behind");
        assert_eq!(restarted.answered(arrival(Some(6))), News::Restarted, "while nobody answered");
        assert_eq!(blocking.failed(Failure::NoAnswer, 0.0), PAUSE_MIN, "half of twice as much");
        for _ in 0..100 {
            assert!(blocking.failed(Failure::NoAnswer, 1.0) <= PAUSE_MAX);
        }
        assert_eq!(blocking.failed(Failure::TooMany(None), 1.0), PAUSE_MAX, "found again as soon as others");
        let named = Duration::from_secs(7);
        assert_eq!(blocking.failed(Failure::TooMany(Some(named)), 1.0), named + PAUSE_MAX);
        let long = blocking.failed(Failure::TooMany(Some(Duration::MAX)), 1.0);
        assert_eq!(long, PAUSE_MAX_NAMED + PAUSE_MAX);
        blocking.answered(arrival(Some(8)));
        assert_eq!(blocking.failed(Failure::NoAnswer, 1.0), PAUSE_MIN, "an answer ends the count");
    }

    #[test]
    fn an_old_answer_is_asked_for_again_at_the_leader() {
        let old = Arrival { behind: BEHIND_MAX * 2, ..arrival(Some(7)) };
        let lost = Arrival { leader: Leader::Unknown, ..arrival(Some(7)) };
        for arrival in [old, lost] {
            let mut blocking = Blocking::new(WAIT_OWN, BEHIND_MAX);
            assert_eq!(blocking.answered(arrival), News::TooOld);
            let (_, ask) = blocking.next(Duration::ZERO, 0.0);
            assert_eq!(ask, Ask { index: None, wait: WAIT_OWN, freshness: Freshness::Leader });
            // What the leader says is what there is. It holds one query, then any server is asked how far it is by now.
            assert_eq!(blocking.answered(arrival), News::New);
            let (_, ask) = blocking.next(Duration::ZERO, 0.0);
            assert_eq!(ask, Ask { index: Some(7), wait: WAIT_OWN, freshness: Freshness::Leader });
            assert_eq!(blocking.answered(arrival), News::Same);
            let (_, ask) = blocking.next(Duration::ZERO, 0.0);
            assert_eq!(ask, Ask { index: None, wait: WAIT_OWN, freshness: Freshness::Any });
        }
    }

    #[test]
    fn the_chain_goes_on_from_what_the_leader_confirmed() {
        let mut blocking = Blocking::new(WAIT_OWN, BEHIND_MAX);
        blocking.answered(arrival(Some(70)));
        assert_eq!(blocking.answered(arrival(Some(1070))), News::New, "a server that is wrong");
        assert_eq!(blocking.confirmed(arrival(Some(71))), News::Restarted);
        let (_, ask) = blocking.next(Duration::ZERO, 0.0);
        assert_eq!(ask, Ask { index: Some(71), wait: WAIT_OWN, freshness: Freshness::Leader });
        assert_eq!(blocking.confirmed(arrival(Some(72))), News::New);
    }

    #[test]
    fn a_server_that_answers_at_once_is_not_asked_all_the_time() {
        let mut blocking = Blocking::new(WAIT_OWN, BEHIND_MAX);
        let (mut now, mut asked) = (Duration::ZERO, 0);
        while now < Duration::from_secs(60) {
            let (wait, _) = blocking.next(now, 0.5);
            now += wait;
            asked += 1;
            blocking.answered(arrival(Some(asked)));
        }
        assert!((250..=320).contains(&asked), "{asked}");
        // Whoever was quiet for a while may be quick again.
        let later = now + Duration::from_secs(10);
        let mut same = blocking.clone();
        assert!((0..10).all(|_| blocking.next(later, 1.0).0 == Duration::ZERO));
        assert!(blocking.next(later, 1.0).0 > Duration::ZERO);
        // One that does not even have news, still less.
        let (mut now, mut asked) = (later, 0);
        while now < later + Duration::from_secs(60) {
            now += same.next(now, 0.5).0;
            asked += 1;
            same.answered(arrival(Some(1_000)));
        }
        assert!((80..=110).contains(&asked), "{asked}");
    }
}
