//! One task for each list that is watched. It asks, doubts, and tells the keeper what it believes.

use super::agent::{Agent, Answer, Reading, Target};
use super::belief::{Belief, Judged, Word};
use super::blocking::{Arrival, Blocking, News};
use super::error::AgentError;
use super::world::{Records, Source};
use std::hash::{BuildHasher as _, Hasher as _, RandomState};
use std::time::Instant;
use tokio::sync::mpsc::Sender;
use tokio::time::sleep;

/// What a watch tells.
#[derive(Debug)]
pub(crate) enum Said {
    /// This is what there is.
    Records(Records),
    /// Nothing has changed.
    Still,
    /// It says so few all of a sudden that it is asked again; what was known stays in use.
    Doubted { records: usize },
    /// No answer.
    Failed(AgentError),
}

/// What the keeper hears.
#[derive(Debug)]
pub(crate) struct Heard {
    pub(crate) source: Source,
    pub(crate) said: Said,
}

/// A watch at its beginning.
#[derive(Debug)]
pub(crate) struct Watch {
    pub(crate) agent: Agent,
    pub(crate) source: Source,
    pub(crate) target: Target,
    pub(crate) belief: Belief,
    pub(crate) blocking: Blocking,
    pub(crate) keeper: Sender<Heard>,
}

/// Nobody listens any more.
struct Unheard;

/// Evenly spread in 0..1.
fn luck() -> f64 {
    // Each has keys of its own.
    let number = RandomState::new().build_hasher().finish();
    (number >> 11) as f64 / (1_u64 << 53) as f64
}

impl Watch {
    /// Watches until nobody listens.
    pub(crate) async fn run(mut self) {
        let began = Instant::now();
        while self.once(began).await.is_ok() {}
    }

    async fn once(&mut self, began: Instant) -> Result<(), Unheard> {
        let (wait, ask) = self.blocking.next(began.elapsed(), luck());
        sleep(wait).await;
        match self.ask(Reading::Blocking(ask)).await {
            Err(error) => self.fail(error).await,
            Ok((arrival, records)) => {
                match self.blocking.answered(arrival) {
                    News::TooOld => return Ok(()),
                    News::Same => return self.tell(Said::Still).await,
                    News::Restarted => self.belief.restarted(began.elapsed()),
                    News::New => {}
                }
                self.judge(records, began).await
            }
        }
    }

    /// Tells records once they are believed. Until then the leader is asked again and again.
    async fn judge(&mut self, mut records: Records, began: Instant) -> Result<(), Unheard> {
        let mut word = Word::Any;
        loop {
            if records.len() == 0 && self.belief.is_of_nothing() {
                // Consul has no index for what is not there, and answers with every change of any key.
                self.blocking.without_news();
                return self.tell(Said::Still).await;
            }
            if records.len() == 0
                && let Err(error) = self.agent.check_right(&self.target).await
            {
                return self.fail(error).await;
            }
            let Judged::Doubted(after) = self.belief.judge(records.len(), word, began.elapsed()) else {
                return self.tell(Said::Records(records)).await;
            };
            if word == Word::Any {
                self.tell(Said::Doubted { records: records.len() }).await?;
            }
            // Not all nodes at once.
            sleep(after.mul_f64(1.0 + luck() / 4.0)).await;
            word = Word::Confirmed;
            match self.ask(Reading::Confirmed).await {
                Ok((arrival, confirmed)) => {
                    if self.blocking.confirmed(arrival) == News::Restarted {
                        self.belief.restarted(began.elapsed());
                    }
                    records = confirmed;
                }
                // The failure began the chain anew, so it is asked for again.
                Err(error) => return self.fail(error).await,
            }
        }
    }

    async fn fail(&mut self, error: AgentError) -> Result<(), Unheard> {
        let pause = self.blocking.failed(error.failure(), luck());
        self.tell(Said::Failed(error)).await?;
        sleep(pause).await;
        Ok(())
    }

    async fn ask(&self, reading: Reading) -> Result<(Arrival, Records), AgentError> {
        Ok(match self.source {
            Source::Policy(_) => {
                let Answer { arrival, records } = self.agent.list(&self.target, reading).await?;
                (arrival, Records::Pairs(records))
            }
            Source::Services(..) | Source::Pool(_) => {
                let Answer { arrival, records } = self.agent.list(&self.target, reading).await?;
                (arrival, Records::Instances(records))
            }
        })
    }

    async fn tell(&self, said: Said) -> Result<(), Unheard> {
        let heard = Heard { source: self.source.clone(), said };
        self.keeper.send(heard).await.map_err(|_| Unheard)
    }
}
