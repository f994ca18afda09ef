//! Keys by which operators say something to a job of their own, such as that it shall pause.

use super::agent::{Agent, Datacenter, Reading, Target, key_path};
use super::error::AgentError;
use super::policy::Pair;
use super::rights::Right;

impl Agent {
    /// What a key holds, by the leader's word; `None` when there is none. What is not text is shown as far as it is.
    ///
    /// # Errors
    /// [`AgentError`].
    pub async fn value(&self, datacenter: &Datacenter, key: &str) -> Result<Option<String>, AgentError> {
        let target = Target {
            path: key_path(key),
            query: Vec::new(),
            right: Right::Keys(key.to_owned()),
            datacenter: Some(datacenter.clone()),
        };
        let pairs = self.list::<Pair>(&target, Reading::Confirmed).await?.records;
        Ok(pairs.first().map(|pair| pair.text().unwrap_or_default()))
    }
}
