//! Services that this process registers at its agent (`/v1/agent/service`), with a TTL check that says that it lives.

use super::agent::Agent;
use super::error::AgentError;
use serde::Serialize;
use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;
use tokio::time::{MissedTickBehavior, interval, timeout};
use tracing::{info, warn};

/// An instance of a service.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Registration {
    /// The service.
    pub name: String,
    /// The instance, unique on its agent.
    pub id: String,
    /// Its tags; the environment is one of them.
    pub tags: Vec<String>,
    /// What others connect to; with an unspecified IP (`0.0.0.0`) it is the address of its agent's node.
    pub address: SocketAddr,
    /// The address for other datacenters, if that is another one.
    pub wan: Option<IpAddr>,
    /// The port of its tagged addresses `lan` and `wan`: where clients come in.
    pub public_port: u16,
    /// What else is said of it.
    pub meta: BTreeMap<String, String>,
    /// How its life is checked.
    pub check: Check,
}

/// How Consul knows whether an instance lives.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Check {
    /// It does not.
    None,
    /// By word of the instance. Silent for `ttl`, it is critical; critical for `deregister_after`, it is taken out.
    Ttl {
        /// The longest pause.
        ttl: Duration,
        /// When it is forgotten; Consul's least is a minute.
        deregister_after: Duration,
    },
}

#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct Body<'a> {
    name: &'a str,
    #[serde(rename = "ID")]
    id: &'a str,
    tags: &'a [String],
    address: String,
    port: u16,
    meta: &'a BTreeMap<String, String>,
    tagged_addresses: BTreeMap<&'static str, TaggedBody>,
    #[serde(skip_serializing_if = "Option::is_none")]
    check: Option<CheckBody>,
}

#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct TaggedBody {
    address: String,
    port: u16,
}

#[derive(Serialize)]
struct CheckBody {
    #[serde(rename = "CheckID")]
    id: String,
    #[serde(rename = "Name")]
    name: String,
    #[serde(rename = "TTL")]
    ttl: String,
    #[serde(rename = "DeregisterCriticalServiceAfter")]
    deregister_after: String,
}

impl Registration {
    fn check_id(&self) -> String {
        format!("service:{}", self.id)
    }

    fn body(&self) -> Body<'_> {
        let own = Some(self.address.ip()).filter(|ip| !ip.is_unspecified());
        let tagged = |(name, ip): (&'static str, Option<IpAddr>)| {
            Some((name, TaggedBody { address: ip?.to_string(), port: self.public_port }))
        };
        let tagged_addresses =
            [("lan", own), ("wan", self.wan.or(own))].into_iter().filter_map(tagged).collect();
        let check = match self.check {
            Check::None => None,
            Check::Ttl { ttl, deregister_after } => Some(CheckBody {
                id: self.check_id(),
                name: format!("{} is alive", self.name),
                ttl: format!("{}ms", ttl.as_millis()),
                deregister_after: format!("{}s", deregister_after.as_secs()),
            }),
        };
        Body {
            name: &self.name,
            id: &self.id,
            tags: &self.tags,
            // Consul takes an empty one for its node's.
            address: own.map(|ip| ip.to_string()).unwrap_or_default(),
            port: self.address.port(),
            meta: &self.meta,
            tagged_addresses,
            check,
        }
    }
}

impl Agent {
    /// Registers an instance, or changes what is known of it.
    ///
    /// # Errors
    /// [`AgentError`].
    pub async fn register(&self, registration: &Registration) -> Result<(), AgentError> {
        let path = "/v1/agent/service/register";
        let body = serde_json::to_vec(&registration.body())
            .map_err(|error| AgentError::Json { path: path.to_owned(), what: error.to_string() })?;
        // A check that is there already keeps its state.
        self.put(path, None, &[("replace-existing-checks", "true".to_owned())], body).await.map(drop)
    }

    /// Takes an instance out.
    ///
    /// # Errors
    /// [`AgentError`].
    pub async fn deregister(&self, id: &str) -> Result<(), AgentError> {
        self.put(&format!("/v1/agent/service/deregister/{id}"), None, &[], Vec::new()).await.map(drop)
    }

    async fn say(&self, registration: &Registration, word: &Word) -> Result<(), AgentError> {
        let (status, output) = match word {
            Word::Passing => ("passing", "serves"),
            Word::Warning(why) => ("warning", why.as_str()),
        };
        let path = format!("/v1/agent/check/update/{}", registration.check_id());
        let body = serde_json::json!({"Status": status, "Output": output}).to_string();
        self.put(&path, None, &[], body.into_bytes()).await.map(drop)
    }
}

/// What an instance says of itself while it lives.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Word {
    /// It serves.
    Passing,
    /// It lives and should not be sent traffic, because of this.
    Warning(String),
}

/// A registration that is kept up, whatever happens to the agent. Dropped, it is silent, and critical after its TTL.
#[derive(Debug)]
pub struct Registered {
    stop: Option<oneshot::Sender<()>>,
    task: Option<JoinHandle<()>>,
}

impl Registered {
    /// Registers now and as often as the agent has forgotten it; `word` is asked for what its check says.
    #[must_use]
    pub fn keep(
        agent: Agent,
        registration: Registration,
        word: impl Fn() -> Word + Send + Sync + 'static,
    ) -> Self {
        let (stop, stopped) = oneshot::channel();
        let task = tokio::spawn(keep(agent, registration, word, stopped));
        Self { stop: Some(stop), task: Some(task) }
    }

    /// Takes it out, and waits for that, but no longer than two seconds: an agent that is gone must not hold up an end.
    pub async fn deregister(mut self) {
        if let Some(stop) = self.stop.take() {
            // The task may have panicked; then there is nobody to tell.
            let _told: Result<(), ()> = stop.send(());
        }
        let Some(mut task) = self.task.take() else { return };
        match timeout(DEREGISTERED_WITHIN, &mut task).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => warn!(%error, "the registration at Consul did not end well"),
            Err(_) => {
                task.abort();
                warn!("Consul does not answer, the registration stays until its check takes it out");
            }
        }
    }
}

impl Drop for Registered {
    fn drop(&mut self) {
        if let Some(task) = &self.task {
            task.abort();
        }
    }
}

/// How often a registration is looked after at least.
const LOOK_EVERY: Duration = Duration::from_secs(5);
/// What a deregistration may take.
const DEREGISTERED_WITHIN: Duration = Duration::from_secs(2);

async fn keep(
    agent: Agent,
    registration: Registration,
    word: impl Fn() -> Word,
    mut stopped: oneshot::Receiver<()>,
) {
    let every = match registration.check {
        Check::None => LOOK_EVERY,
        // Two words may be lost.
        Check::Ttl { ttl, .. } => (ttl / 3).min(LOOK_EVERY),
    };
    let mut ticks = interval(every);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let (mut known, mut failing) = (false, false);
    loop {
        tokio::select! {
            told = &mut stopped => {
                // Whoever only lets go wants it to become critical.
                if told.is_ok() && let Err(error) = agent.deregister(&registration.id).await {
                    warn!(%error, id = registration.id, "cannot be deregistered at Consul");
                }
                return;
            }
            _ = ticks.tick() => {}
        }
        let checked = registration.check != Check::None;
        // Refused: the agent has lost it.
        let kept = async {
            if known && checked && agent.say(&registration, &word()).await.is_ok() {
                return Ok(());
            }
            agent.register(&registration).await?;
            if checked { agent.say(&registration, &word()).await } else { Ok(()) }
        };
        // A word that is late is said again: waited for, it would be the last before the check is critical.
        let kept = match timeout(every, kept).await {
            Ok(kept) => kept,
            Err(_) => Err(AgentError::NoAnswer {
                address: agent.address().to_string(),
                path: "/v1/agent".to_owned(),
                what: format!("not within {every:?}"),
                hint: None,
            }),
        };
        match kept {
            Ok(()) => {
                if !known || failing {
                    info!(id = registration.id, "registered at Consul");
                }
                (known, failing) = (true, false);
            }
            Err(error) => {
                if !failing {
                    warn!(%error, id = registration.id, "cannot be registered at Consul, it is tried again");
                }
                failing = true;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_consul_is_told() {
        let registration = Registration {
            name: "shardgate".to_owned(),
            id: "prod-shardgate-n1".to_owned(),
            tags: vec!["prod".to_owned()],
            address: "10.0.0.1:1024".parse().unwrap(),
            wan: Some("192.0.2.1".parse().unwrap()),
            public_port: 80,
            meta: BTreeMap::from([("environment".to_owned(), "prod".to_owned())]),
            check: Check::Ttl { ttl: Duration::from_secs(15), deregister_after: Duration::from_secs(3600) },
        };
        assert_eq!(
            serde_json::to_value(registration.body()).unwrap(),
            serde_json::json!({
                "Name": "shardgate", "ID": "prod-shardgate-n1", "Tags": ["prod"], "Address": "10.0.0.1", "Port": 1024,
                "Meta": {"environment": "prod"},
                "TaggedAddresses": {
                    "lan": {"Address": "10.0.0.1", "Port": 80}, "wan": {"Address": "192.0.2.1", "Port": 80}
                },
                "Check": {
                    "CheckID": "service:prod-shardgate-n1", "Name": "shardgate is alive", "TTL": "15000ms",
                    "DeregisterCriticalServiceAfter": "3600s"
                }
            })
        );
        let unspecified =
            Registration { address: "0.0.0.0:1024".parse().unwrap(), wan: None, ..registration };
        let body = serde_json::to_value(unspecified.body()).unwrap();
        assert_eq!((&body["Address"], &body["TaggedAddresses"]), (&"".into(), &serde_json::json!({})));
    }
}
