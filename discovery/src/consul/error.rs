//! Why an agent did not do what it was asked.

use std::path::PathBuf;

/// What went wrong with one request to an agent.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AgentError {
    /// No client can be made at all.
    #[error("no HTTP client can be made: {what}")]
    Client {
        /// Why.
        what: String,
    },
    /// A file for TLS is not usable.
    #[error("{}: {what}", path.display())]
    Tls {
        /// The file.
        path: PathBuf,
        /// What is wrong with it; it tells nothing of a key.
        what: String,
    },
    /// Nobody answers.
    #[error("no answer from the Consul agent at {address} to {path}: {what}")]
    NoAnswer {
        /// Where it was asked.
        address: String,
        /// What for.
        path: String,
        /// What the system or the HTTP client says.
        what: String,
    },
    /// The token may not.
    #[error(
        "Consul refuses {path} (403 {said}): {}",
        if *token { "the token lacks a right, it needs service:read, node:read and key:read for what is watched, key:write and service:write for what is written" }
        else { "no token is configured, and the anonymous one may not" }
    )]
    Forbidden {
        /// What was asked for.
        path: String,
        /// What Consul says.
        said: String,
        /// Whether a token was sent.
        token: bool,
    },
    /// Too much for the agent.
    #[error(
        "the Consul agent at {address} has enough of this client (429 {said}): see limits.http_max_conns_per_client of the agent, 200 by default"
    )]
    TooMany {
        /// Where it was asked.
        address: String,
        /// What Consul says.
        said: String,
    },
    /// An error of Consul's.
    #[error("Consul answers {path} with {status} {said}")]
    Status {
        /// What was asked for.
        path: String,
        /// The status.
        status: u16,
        /// What Consul says.
        said: String,
    },
    /// More than is read.
    #[error("Consul's answer to {path} is longer than {max} bytes")]
    TooLong {
        /// What was asked for.
        path: String,
        /// The most that is read.
        max: usize,
    },
    /// Not what was expected.
    #[error("Consul's answer to {path} cannot be read: {what}")]
    Json {
        /// What was asked for.
        path: String,
        /// What is wrong with it.
        what: String,
    },
}
