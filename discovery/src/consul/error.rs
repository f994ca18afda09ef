//! Why an agent did not do what it was asked.

use super::agent::AgentTls;
use super::blocking::Failure;
use std::error::Error;
use std::fmt;
use std::io;
use std::path::PathBuf;
use std::time::Duration;

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
    #[error("no answer from the Consul agent at {address} to {path}: {what}{}", hint.as_ref().map(|hint| format!(" ({hint})")).unwrap_or_default())]
    NoAnswer {
        /// Where it was asked.
        address: String,
        /// What for.
        path: String,
        /// What the system or the HTTP client says.
        what: String,
        /// What is most likely wrong, where that can be told.
        hint: Option<Hint>,
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
        /// How long it wants not to be asked (`Retry-After`).
        retry_after: Option<Duration>,
    },
    /// It knows nobody in the datacenter.
    #[error(
        "the Consul agent at {address} knows no way to datacenter {datacenter}: is that its name, and do its servers live?"
    )]
    NoDatacenter {
        /// Where it was asked.
        address: String,
        /// Which was asked for.
        datacenter: String,
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

/// What is most likely behind an answer that did not come.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Hint {
    /// The agent took the connection and closed it: Consul 1.8 does so beyond its limit, without a word.
    Closed,
    /// As [`Self::Closed`], of an agent that speaks TLS and was shown no certificate: it may want one.
    ClosedWithoutCertificate,
    /// The agent's certificate is signed by nobody that is trusted: by none of this file, or of the system's.
    Authority(Option<PathBuf>),
    /// The agent refuses this client certificate.
    Certificate(PathBuf),
    /// The agent wants a client certificate, and there is none.
    NoCertificate,
    /// What answers does not speak TLS.
    NoTls,
}

impl fmt::Display for Hint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const LIMIT: &str = "the agent closed the connection: it was ended, or this client has more connections than its limits.http_max_conns_per_client, 200 by default";
        match self {
            Self::Closed => f.write_str(LIMIT),
            Self::ClosedWithoutCertificate => {
                write!(f, "{LIMIT}, or it wants a client certificate and none is configured")
            }
            Self::Authority(Some(ca)) => {
                write!(f, "the agent's certificate is not signed by a CA of {}", ca.display())
            }
            Self::Authority(None) => f.write_str(
                "the agent's certificate is not signed by a CA of this system, and no ca is configured",
            ),
            Self::Certificate(cert) => {
                write!(f, "the agent refuses the client certificate of {}", cert.display())
            }
            Self::NoCertificate => {
                f.write_str("the agent wants a client certificate, and no client_cert is configured")
            }
            Self::NoTls => f.write_str("what answers there does not speak TLS: is it Consul's https port?"),
        }
    }
}

impl Hint {
    /// Of what a request failed with, down to its last cause, and of the files that TLS was tried with; `None` for these: no TLS.
    pub(crate) fn of(error: &(dyn Error + 'static), tls: Option<&AgentTls>) -> Option<Self> {
        let mut cause = Some(error);
        let mut closed = false;
        while let Some(error) = cause {
            if let Some(error) = error.downcast_ref::<rustls::Error>() {
                return Self::of_tls(error, tls?);
            }
            let system = error.downcast_ref::<io::Error>();
            // hyper has this by its words only, for who does not depend on it.
            closed |= system.is_some_and(|error| {
                matches!(error.kind(), io::ErrorKind::ConnectionReset | io::ErrorKind::BrokenPipe)
            }) || error.to_string() == "connection closed before message completed";
            // An error inside of the system's is not its source, only what is behind that one.
            cause = match system.and_then(io::Error::get_ref) {
                Some(inner) => Some(inner),
                None => error.source(),
            };
        }
        closed.then_some(match tls {
            Some(AgentTls { client: None, .. }) => Self::ClosedWithoutCertificate,
            Some(_) | None => Self::Closed,
        })
    }

    fn of_tls(error: &rustls::Error, tls: &AgentTls) -> Option<Self> {
        use rustls::{AlertDescription, CertificateError};
        if let rustls::Error::InvalidCertificate(
            CertificateError::UnknownIssuer | CertificateError::BadSignature,
        ) = error
        {
            return Some(Self::Authority(tls.ca.clone()));
        }
        // What servers answer to a certificate that is missing depends on their age; Consul 1.8 says `BadCertificate`.
        if let rustls::Error::AlertReceived(
            AlertDescription::CertificateRequired
            | AlertDescription::BadCertificate
            | AlertDescription::UnsupportedCertificate
            | AlertDescription::CertificateExpired
            | AlertDescription::CertificateUnknown
            | AlertDescription::UnknownCA,
        ) = error
        {
            let shown = tls.client.as_ref();
            return Some(shown.map_or(Self::NoCertificate, |(cert, _)| Self::Certificate(cert.clone())));
        }
        matches!(error, rustls::Error::InvalidMessage(_)).then_some(Self::NoTls)
    }
}

impl AgentError {
    pub(crate) const fn failure(&self) -> Failure {
        match self {
            Self::TooMany { retry_after, .. } => Failure::TooMany(*retry_after),
            Self::Client { .. }
            | Self::Tls { .. }
            | Self::NoAnswer { .. }
            | Self::Forbidden { .. }
            | Self::NoDatacenter { .. }
            | Self::Status { .. }
            | Self::TooLong { .. }
            | Self::Json { .. } => Failure::NoAnswer,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustls::{AlertDescription, CertificateError};

    #[test]
    fn what_is_behind_an_answer_that_did_not_come() {
        let none = AgentTls::default();
        let given = AgentTls {
            ca: Some(PathBuf::from("/ca.pem")),
            client: Some((PathBuf::from("/node.pem"), PathBuf::from("/node.key"))),
        };
        let reset = || io::Error::from(io::ErrorKind::ConnectionReset);
        let wanted = || rustls::Error::AlertReceived(AlertDescription::CertificateRequired);
        let foreign = || rustls::Error::InvalidCertificate(CertificateError::UnknownIssuer);
        let garbage = || rustls::Error::InvalidMessage(rustls::InvalidMessage::InvalidContentType);
        let table: [(io::Error, Option<&AgentTls>, Option<&str>); 11] = [
            (reset(), None, Some("limits.http_max_conns_per_client, 200 by default")),
            (reset(), Some(&given), Some("limits.http_max_conns_per_client, 200 by default")),
            (reset(), Some(&none), Some("or it wants a client certificate and none is configured")),
            (io::Error::other(wanted()), Some(&none), Some("no client_cert is configured")),
            (io::Error::other(wanted()), Some(&given), Some("the client certificate of /node.pem")),
            (io::Error::other(foreign()), Some(&given), Some("not signed by a CA of /ca.pem")),
            (io::Error::other(foreign()), Some(&none), Some("a CA of this system, and no ca is configured")),
            (
                io::Error::other(io::Error::other(foreign())),
                Some(&given),
                Some("not signed by a CA of /ca.pem"),
            ),
            (io::Error::other(garbage()), Some(&none), Some("is it Consul's https port?")),
            (io::Error::from(io::ErrorKind::ConnectionRefused), None, None),
            (
                io::Error::other("connection closed before message completed"),
                None,
                Some("closed the connection"),
            ),
        ];
        for (error, tls, expected) in table {
            let hint = Hint::of(&error, tls).map(|hint| hint.to_string());
            let Some(expected) = expected else {
                assert_eq!(hint, None, "{error}");
                continue;
            };
            assert!(hint.as_ref().is_some_and(|hint| hint.contains(expected)), "{error}: {hint:?}");
        }
    }
}
