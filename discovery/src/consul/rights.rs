//! What a token may. Consul leaves out of lists what may not be read, without a word; so it is asked, as its own UI does (`/v1/internal/acl/authorize`).

use super::agent::{Agent, Datacenter, SHORT, Target};
use super::error::AgentError;
use reqwest::{Method, StatusCode};
use serde::Deserialize;
use std::fmt;

/// What a token has to be allowed to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Right {
    /// Read keys with this prefix.
    Keys(String),
    /// Read instances of this service.
    Service(String),
    /// Write this key.
    Writing(String),
}

impl Right {
    fn question(&self) -> serde_json::Value {
        let (resource, access, segment) = match self {
            Self::Keys(prefix) => ("key", "read", prefix),
            Self::Service(name) => ("service", "read", name),
            Self::Writing(key) => ("key", "write", key),
        };
        serde_json::json!([{"Resource": resource, "Access": access, "Segment": segment}])
    }
}

impl fmt::Display for Right {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Keys(prefix) => write!(f, "key_prefix {prefix:?} is left out of what is listed"),
            Self::Service(name) => write!(f, "service {name:?} is left out of what is listed"),
            Self::Writing(key) => write!(f, "key {key:?} may not be written"),
        }
    }
}

/// Whether a token may read of any node that it exists.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Nodes {
    Some,
    None,
}

impl Agent {
    /// Whether the token may read a list: one that is empty, or that has to be whole, needs this question. Answers well where Consul has no ACLs, or
    /// cannot tell.
    ///
    /// # Errors
    /// [`AgentError`]; [`AgentError::Forbidden`] when it may not.
    pub(crate) async fn check_right(
        &self,
        Target { right, datacenter, .. }: &Target,
    ) -> Result<(), AgentError> {
        self.authorize(right, datacenter.as_ref()).await?;
        // Without a right to read nodes a service has no instances, and there is always one: a server's.
        if matches!(right, Right::Service(_)) && self.nodes(datacenter.as_ref()).await? == Nodes::None {
            let said = "the nodes of services are left out of what is listed".to_owned();
            return Err(self.forbidden("/v1/catalog/nodes", said));
        }
        Ok(())
    }

    /// Whether the token has a right, in the same way.
    ///
    /// # Errors
    /// [`AgentError`]; [`AgentError::Forbidden`] when it has not.
    pub(crate) async fn authorize(
        &self,
        right: &Right,
        datacenter: Option<&Datacenter>,
    ) -> Result<(), AgentError> {
        #[derive(Deserialize)]
        struct Allowed {
            #[serde(rename = "Allow")]
            allow: bool,
        }
        let path = "/v1/internal/acl/authorize";
        let request = self.request(Method::POST, path, datacenter).body(right.question().to_string());
        let answer = self.send(request, path, SHORT).await?;
        // 401: there are no ACLs. 404: an agent that knows no such question.
        if matches!(answer.status(), StatusCode::UNAUTHORIZED | StatusCode::NOT_FOUND) {
            return Ok(());
        }
        let allowed: Vec<Allowed> = self.read(answer, path).await?;
        if allowed.iter().all(|one| one.allow) {
            Ok(())
        } else {
            Err(self.forbidden(path, right.to_string()))
        }
    }

    async fn nodes(&self, datacenter: Option<&Datacenter>) -> Result<Nodes, AgentError> {
        let path = "/v1/catalog/nodes";
        let request = self.request(Method::GET, path, datacenter).query(&[("stale", "")]);
        let nodes: Vec<serde::de::IgnoredAny> =
            self.read(self.send(request, path, SHORT).await?, path).await?;
        Ok(if nodes.is_empty() { Nodes::None } else { Nodes::Some })
    }
}
