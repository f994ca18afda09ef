//! What `dev` is to do by itself, and when: the flags for scripts.

use std::time::Duration;

use super::link::Link;

/// Something done to the mesh.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// Cut the regions apart, or heal them.
    Link(Link),
    /// Kill the shard of this index.
    Kill(usize),
    /// Start it again.
    Start(usize),
    /// End.
    Quit,
}

/// A shard's number and a moment, as in `2@10s`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ShardAt {
    /// Index of the shard, from 0.
    pub shard: usize,
    /// Time since the start.
    pub after: Duration,
}

/// Why a `N@DURATION` is refused.
#[derive(Debug, thiserror::Error, PartialEq)]
pub enum ShardAtError {
    /// No `@`.
    #[error("{0:?} is not of the form N@DURATION, for example 2@10s")]
    Form(String),
    /// Not a shard's number.
    #[error("{0:?} is no shard, expected 1, 2 or 3")]
    Shard(String),
    /// Not a duration.
    #[error("{text:?} is no duration ({source}), expected for example 10s or 1500ms")]
    Duration {
        /// What was written.
        text: String,
        /// What is wrong with it.
        source: humantime::DurationError,
    },
}

impl ShardAt {
    /// Reads `N@DURATION`.
    pub fn parse(text: &str) -> Result<Self, ShardAtError> {
        let (shard, after) = text.split_once('@').ok_or_else(|| ShardAtError::Form(text.to_owned()))?;
        let shard = match shard {
            "1" | "s1" => 0,
            "2" | "s2" => 1,
            "3" | "s3" => 2,
            other => return Err(ShardAtError::Shard(other.to_owned())),
        };
        let after = humantime::parse_duration(after)
            .map_err(|source| ShardAtError::Duration { text: after.to_owned(), source })?;
        Ok(Self { shard, after })
    }
}

/// Actions in the order of their moments; equal moments keep the order they were given in.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Timeline {
    actions: Vec<(Duration, Action)>,
}

impl Timeline {
    /// Adds an action.
    pub fn at(mut self, after: Option<Duration>, action: Action) -> Self {
        if let Some(after) = after {
            let place = self.actions.partition_point(|(moment, _)| *moment <= after);
            self.actions.insert(place, (after, action));
        }
        self
    }

    /// When the next action is due.
    pub fn next_at(&self) -> Option<Duration> {
        self.actions.first().map(|(moment, _)| *moment)
    }

    /// Takes the next action.
    pub fn take(&mut self) -> Option<Action> {
        (!self.actions.is_empty()).then(|| self.actions.remove(0).1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shards_and_moments() {
        let at = |text| ShardAt::parse(text).map_err(|error| error.to_string());
        assert_eq!(at("2@10s"), Ok(ShardAt { shard: 1, after: Duration::from_secs(10) }));
        assert_eq!(at("s3@1500ms"), Ok(ShardAt { shard: 2, after: Duration::from_millis(1500) }));
        assert_eq!(at("2"), Err(r#""2" is not of the form N@DURATION, for example 2@10s"#.into()));
        assert_eq!(at("4@1s"), Err(r#""4" is no shard, expected 1, 2 or 3"#.into()));
        assert!(at("1@soon").unwrap_err().starts_with(r#""soon" is no duration"#));
    }

    #[test]
    fn actions_come_in_the_order_of_their_moments() {
        let second = Duration::from_secs(1);
        let mut timeline = Timeline::default()
            .at(Some(3 * second), Action::Quit)
            .at(None, Action::Kill(0))
            .at(Some(second), Action::Link(Link::Cut))
            .at(Some(second), Action::Kill(1));
        assert_eq!(timeline.next_at(), Some(second));
        let order: Vec<_> = std::iter::from_fn(|| timeline.take()).collect();
        assert_eq!(order, [Action::Link(Link::Cut), Action::Kill(1), Action::Quit]);
    }
}
