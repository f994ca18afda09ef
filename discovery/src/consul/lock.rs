//! A lock at Consul (sessions, `/v1/session`, and `?acquire=` of a key) for work that one process of an environment does.
//!
//! A session is the holder's life: renewed a third of its TTL after the last time, and given back at the end. Consul takes one that is not renewed
//! away after its TTL at the soonest, so a holder that cannot renew it steps down by its own clock before that: never two at once. When a session ends
//! otherwise (operators, a node that is deregistered), Consul lets nobody have the lock for another TTL, in which the holder finds out. A lock is one
//! datacenter's; whoever wants one for an environment names the same datacenter everywhere.

use super::agent::{Agent, Datacenter, Reading, SHORT, Target, key_path};
use super::blocking::{Ask, Freshness};
use super::error::AgentError;
use super::rights::Right;
use reqwest::Method;
use serde::Deserialize;
use std::time::{Duration, Instant};
use tokio::sync::{oneshot, watch};
use tokio::task::JoinHandle;
use tokio::time::{sleep, timeout, timeout_at};
use tracing::{info, warn};

/// Consul's least TTL of a session.
pub const LOCK_TTL_MIN: Duration = Duration::from_secs(10);
/// How long a query for a key that somebody holds is held.
const WATCH: Duration = Duration::from_secs(10);
/// How long until a failed attempt is made again.
const AGAIN: Duration = Duration::from_secs(1);
/// What giving it back may take.
const GIVEN_BACK_WITHIN: Duration = Duration::from_secs(2);

/// Which lock, and for whom.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LockConfig {
    /// Where its key is; `None`: in the agent's own datacenter.
    pub datacenter: Option<Datacenter>,
    /// Its key, such as `shardgate/prod/monitor`.
    pub key: String,
    /// Who asks, for people: the key's value.
    pub holder: String,
    /// After how long without a word the lock is another's to take; [`LOCK_TTL_MIN`] at least, which a shorter one is taken for.
    pub ttl: Duration,
}

/// Whether the work is this process' to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Lock {
    /// Somebody else's, or nobody's.
    NotHeld,
    /// Ours.
    Held,
}

/// A process that wants a lock, until it is dropped or gives up.
#[derive(Debug)]
pub struct LockSeeker {
    state: watch::Receiver<Lock>,
    stop: Option<oneshot::Sender<()>>,
    task: Option<JoinHandle<()>>,
}

impl LockSeeker {
    /// Begins to seek; the lock is taken when it is free, and again after it was lost.
    #[must_use]
    pub fn seek(agent: Agent, config: LockConfig) -> Self {
        let (told, state) = watch::channel(Lock::NotHeld);
        let (stop, stopped) = oneshot::channel();
        let task = tokio::spawn(seek(agent, config, told, stopped));
        Self { state, stop: Some(stop), task: Some(task) }
    }

    /// Whether it is held, now and as that changes. When the receiver's sender is gone it is not.
    #[must_use]
    pub fn state(&self) -> watch::Receiver<Lock> {
        self.state.clone()
    }

    /// Gives the lock back, if it is held, and seeks no more. Consul has two seconds for it; without its word the session's TTL ends it.
    pub async fn give_up(mut self) {
        drop(self.stop.take());
        if let Some(task) = self.task.take()
            && let Err(error) = task.await
        {
            warn!(%error, "a lock's task did not end well");
        }
    }
}

impl Drop for LockSeeker {
    fn drop(&mut self) {
        if let Some(task) = &self.task {
            task.abort();
        }
    }
}

/// A session, as Consul names it.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
struct Session(String);

/// The key of a lock, as `/v1/kv/:key` lists it.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct LockKey {
    session: Option<Session>,
}

/// Until when a holder that renewed its session may act: Consul counts from later than it began to ask.
fn held_until(asked_at: Instant, ttl: Duration) -> Instant {
    asked_at + ttl
}

async fn seek(
    agent: Agent,
    config: LockConfig,
    told: watch::Sender<Lock>,
    mut stopped: oneshot::Receiver<()>,
) {
    let config = LockConfig { ttl: config.ttl.max(LOCK_TTL_MIN), ..config };
    let mut session = None;
    tokio::select! {
        // A dropped sender is the signal as well.
        _ = &mut stopped => {}
        () = hold_again_and_again(&agent, &config, &told, &mut session) => {}
    }
    told.send_replace(Lock::NotHeld);
    let Some(session) = session else { return };
    let give_back = async {
        // Released before its session ends it can be taken at once.
        agent.release(&config, &session).await?;
        agent.destroy(&config, &session).await
    };
    let given_back = timeout(GIVEN_BACK_WITHIN, give_back).await;
    if let Ok(Err(error)) = given_back {
        warn!(%error, key = config.key, "the lock could not be given back, it is free after its TTL");
    }
}

async fn hold_again_and_again(
    agent: &Agent,
    config: &LockConfig,
    told: &watch::Sender<Lock>,
    session: &mut Option<Session>,
) {
    let mut failing = false;
    loop {
        match hold_once(agent, config, told, session).await {
            Ok(()) => failing = false,
            Err(error) => {
                if !failing {
                    warn!(%error, key = config.key, "the lock cannot be had, it is tried again");
                }
                failing = true;
            }
        }
        if told.send_replace(Lock::NotHeld) == Lock::Held {
            warn!(key = config.key, "the lock is lost");
        }
        sleep(AGAIN).await;
    }
}

/// Waits until the key is free, takes it, and holds it until it is lost.
async fn hold_once(
    agent: &Agent,
    config: &LockConfig,
    told: &watch::Sender<Lock>,
    session: &mut Option<Session>,
) -> Result<(), AgentError> {
    agent.wait_until_free(config).await?;
    let mut asked_at = Instant::now();
    let own = match session {
        // One that could not be renewed in time may be gone, or come back to life: it is none any more.
        Some(own) if agent.renew(config, own).await? => own.clone(),
        Some(_) | None => agent.create(config).await?,
    };
    *session = Some(own.clone());
    if !agent.acquire(config, &own).await? {
        // Somebody was faster, or the lock was lost a moment ago.
        return Ok(());
    }
    loop {
        let until = held_until(asked_at, config.ttl);
        let left = until.saturating_duration_since(Instant::now());
        // Consul may have been slow, or this process: then it is Consul's to give again.
        if left.is_zero() {
            return Ok(());
        }
        if told.send_replace(Lock::Held) == Lock::NotHeld {
            info!(key = config.key, "the lock is held");
        }
        sleep(left.min(config.ttl / 3)).await;
        match timeout_at(until.into(), keep(agent, config, &own)).await {
            Ok(Kept::Since(at)) => asked_at = at,
            Ok(Kept::Lost) | Err(_) => return Ok(()),
        }
    }
}

/// What became of a lock that was to be kept.
enum Kept {
    /// It is, by a word that was asked for then.
    Since(Instant),
    /// The session or the key is not ours any more.
    Lost,
}

/// Asks for the lock to be kept until there is an answer.
async fn keep(agent: &Agent, config: &LockConfig, own: &Session) -> Kept {
    loop {
        let asked_at = Instant::now();
        // The session may live while the key is another's: operators can take a lock away.
        let kept = async {
            Ok::<_, AgentError>(
                agent.renew(config, own).await? && agent.lock_session(config).await?.as_ref() == Some(own),
            )
        };
        match kept.await {
            Ok(true) => return Kept::Since(asked_at),
            Ok(false) => return Kept::Lost,
            Err(error) => {
                warn!(%error, key = config.key, "the lock cannot be renewed, it is tried again until its time is up");
                sleep(AGAIN).await;
            }
        }
    }
}

impl Agent {
    async fn create(&self, config: &LockConfig) -> Result<Session, AgentError> {
        #[derive(Deserialize)]
        #[serde(rename_all = "PascalCase")]
        struct Created {
            #[serde(rename = "ID")]
            id: Session,
        }
        let mut body = serde_json::json!({
            "Name": config.holder,
            "TTL": format!("{}s", config.ttl.as_secs()),
            "LockDelay": format!("{}s", config.ttl.as_secs()),
            "Behavior": "release",
            // By default the health of the agent's node ends a session too, at once: before its holder can know.
            "NodeChecks": [],
            "Checks": [],
        });
        if let Some(datacenter) = &config.datacenter {
            body["Node"] = self.node_of(datacenter).await?.into();
        }
        let path = "/v1/session/create";
        let request = self.request(Method::PUT, path, config.datacenter.as_ref()).body(body.to_string());
        let answer = self.send(request, path, SHORT).await?;
        Ok(self.read::<Created>(answer, path).await?.id)
    }

    /// A server of another datacenter: a session stands in the name of a node, and the agent's own is not known there. Servers stay longest.
    async fn node_of(&self, datacenter: &Datacenter) -> Result<String, AgentError> {
        #[derive(Deserialize)]
        #[serde(rename_all = "PascalCase")]
        struct Node {
            node: String,
        }
        let path = "/v1/catalog/service/consul";
        let answer = self.send(self.request(Method::GET, path, Some(datacenter)), path, SHORT).await?;
        let nodes: Vec<Node> = self.read(answer, path).await?;
        let first = nodes.into_iter().map(|node| node.node).min();
        first.ok_or_else(|| AgentError::Json {
            path: path.to_owned(),
            what: format!("{datacenter} has no server"),
        })
    }

    /// Whether the session lives.
    async fn renew(&self, config: &LockConfig, Session(id): &Session) -> Result<bool, AgentError> {
        let path = format!("/v1/session/renew/{id}");
        match self.put(&path, config.datacenter.as_ref(), &[], Vec::new()).await {
            Ok(_) => Ok(true),
            Err(AgentError::Status { status: 404, .. }) => Ok(false),
            Err(error) => Err(error),
        }
    }

    async fn destroy(&self, config: &LockConfig, Session(id): &Session) -> Result<(), AgentError> {
        let path = format!("/v1/session/destroy/{id}");
        self.put(&path, config.datacenter.as_ref(), &[], Vec::new()).await.map(drop)
    }

    async fn release(&self, config: &LockConfig, Session(id): &Session) -> Result<(), AgentError> {
        let query = [("release", id.clone())];
        self.put(&key_path(&config.key), config.datacenter.as_ref(), &query, Vec::new()).await.map(drop)
    }

    async fn acquire(&self, config: &LockConfig, Session(id): &Session) -> Result<bool, AgentError> {
        let query = [("acquire", id.clone())];
        let value = config.holder.as_bytes().to_vec();
        self.put(&key_path(&config.key), config.datacenter.as_ref(), &query, value).await
    }

    fn lock_target(config: &LockConfig) -> Target {
        Target {
            path: key_path(&config.key),
            query: Vec::new(),
            right: Right::Keys(config.key.clone()),
            datacenter: config.datacenter.clone(),
        }
    }

    /// Whose the key is, by the leader's word.
    async fn lock_session(&self, config: &LockConfig) -> Result<Option<Session>, AgentError> {
        let answer = self.list::<LockKey>(&Self::lock_target(config), Reading::Confirmed).await?;
        Ok(answer.records.into_iter().find_map(|key| key.session))
    }

    async fn wait_until_free(&self, config: &LockConfig) -> Result<(), AgentError> {
        let mut index = None;
        loop {
            let ask = Ask { index, wait: WATCH, freshness: Freshness::Leader };
            let answer = self.list::<LockKey>(&Self::lock_target(config), Reading::Blocking(ask)).await?;
            if answer.records.iter().all(|key| key.session.is_none()) {
                return Ok(());
            }
            let next = answer.arrival.index.filter(|next| index.is_none_or(|last| *next >= last));
            if next == index {
                // A query that was not held: never in a hurry.
                sleep(Duration::from_millis(100)).await;
            }
            index = next;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_holder_steps_down_before_consul_lets_go() {
        let asked_at = Instant::now();
        assert_eq!(held_until(asked_at, LOCK_TTL_MIN), asked_at + LOCK_TTL_MIN);
        let session: LockKey =
            serde_json::from_str(r#"{"Key": "k", "Value": null, "Session": "abc"}"#).unwrap();
        assert_eq!(session.session, Some(Session("abc".to_owned())));
        let free: LockKey = serde_json::from_str(r#"{"Key": "k", "Value": null}"#).unwrap();
        assert_eq!(free.session, None);
    }
}
