//! What a worker's own requests say of servers (HAProxy's `observe`).

use crate::config::{HealthConfig, Observe};
use foldhash::fast::RandomState;
use shardgate_peering_core::ShardName;
use std::collections::{BTreeSet, HashMap};

/// What a request met.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Observed {
    /// No connection came about.
    NoConnection,
    /// No answer, none that is HTTP, or one with this kind of status: 500 or more, but 501 and 505.
    BadAnswer,
    /// An answer.
    Answer,
}

impl Observed {
    /// What an answer's status says.
    pub(crate) const fn of_status(status: u16) -> Self {
        if status >= 500 && status != 501 && status != 505 { Self::BadAnswer } else { Self::Answer }
    }
}

/// A worker's count of failures in a row; at most as many servers as are watched.
#[derive(Debug, Default)]
pub(crate) struct Observer(HashMap<ShardName, u32, RandomState>);

impl Observer {
    /// Notes what a request met; true when it was the one too many, and the count begins anew.
    pub(crate) fn note(&mut self, server: &ShardName, what: Observed, config: &HealthConfig) -> bool {
        let failed = match (config.observe, what) {
            (Observe::Off, _) => return false,
            (_, Observed::NoConnection) | (Observe::Layer7, Observed::BadAnswer) => true,
            (_, Observed::Answer) | (Observe::Layer4, Observed::BadAnswer) => false,
        };
        if !failed {
            if !self.0.is_empty() {
                self.0.remove(server);
            }
            return false;
        }
        let count = self.0.entry(server.clone()).or_default();
        *count += 1;
        let enough = *count >= config.error_limit;
        if enough {
            self.0.remove(server);
        }
        enough
    }

    /// Forgets servers that nobody watches any more.
    pub(crate) fn keep(&mut self, watched: impl FnOnce() -> BTreeSet<ShardName>) {
        if !self.0.is_empty() {
            let watched = watched();
            self.0.retain(|server, _| watched.contains(server));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_is_not_watched_any_more_begins_anew() {
        let [stays, goes] = ["s1", "s2"].map(|name| ShardName::parse(name).unwrap());
        let config = HealthConfig { observe: Observe::Layer4, error_limit: 2, ..HealthConfig::default() };
        let mut observer = Observer::default();
        observer.keep(|| unreachable!("nothing is counted"));
        for server in [&stays, &goes] {
            assert!(!observer.note(server, Observed::NoConnection, &config));
        }
        observer.keep(|| BTreeSet::from([stays.clone()]));
        assert!(observer.note(&stays, Observed::NoConnection, &config));
        assert!(!observer.note(&goes, Observed::NoConnection, &config));
    }

    #[test]
    fn failures_in_a_row_count() {
        let server = ShardName::parse("s1").unwrap();
        let config = |observe| HealthConfig { observe, error_limit: 3, ..HealthConfig::default() };
        let enough = |observe, requests: &[Observed]| {
            let (mut observer, config) = (Observer::default(), config(observe));
            let noted = requests.iter().map(|what| observer.note(&server, *what, &config));
            noted.collect::<Vec<_>>().iter().filter(|enough| **enough).count()
        };
        use Observed::{Answer, BadAnswer, NoConnection};
        assert_eq!(enough(Observe::Layer7, &[BadAnswer, NoConnection, BadAnswer, BadAnswer]), 1);
        assert_eq!(enough(Observe::Layer7, &[BadAnswer, BadAnswer, Answer, BadAnswer, BadAnswer]), 0);
        assert_eq!(enough(Observe::Layer4, &[BadAnswer; 9]), 0);
        assert_eq!(enough(Observe::Layer4, &[NoConnection; 9]), 3);
        assert_eq!(enough(Observe::Off, &[NoConnection; 9]), 0);
        for (status, what) in [
            (200, Answer),
            (404, Answer),
            (499, Answer),
            (501, Answer),
            (505, Answer),
            (500, BadAnswer),
            (503, BadAnswer),
        ] {
            assert_eq!(Observed::of_status(status), what, "{status}");
        }
    }
}
