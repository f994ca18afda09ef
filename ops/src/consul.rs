//! The connection to Consul's agent, by the options and variables that the consul command has.

use std::path::{Path, PathBuf};

use clap::Args;
use shardgate_discovery::consul::{
    Agent, AgentAddress, AgentConfig, AgentError, AgentTls, Datacenter, ServiceNames, Survey, Token, survey,
};
use shardgate_discovery::{EnvironmentName, ServiceName};

/// How the agent is reached, and what is meant there. Texts are looked at when they are needed: a variable that is wrong for Consul is
/// no reason not to ask a node.
#[derive(Debug, Args)]
#[command(next_help_heading = "Consul (pin, release, ban, and shard without --node)")]
pub(crate) struct ConsulOptions {
    /// The environment whose keys and shards are meant, such as prod.
    #[arg(long, value_name = "NAME", env = "SHARDGATE_ENVIRONMENT", global = true)]
    environment: Option<String>,
    /// Only these datacenters' keys; repeat it for several (default: all that the agent knows).
    #[arg(long = "datacenter", value_name = "NAME", global = true)]
    datacenters: Vec<String>,
    /// The agent: http://HOST:PORT, https://HOST:PORT or unix:///PATH.
    #[arg(
        long = "consul",
        value_name = "ADDRESS",
        env = "CONSUL_HTTP_ADDR",
        default_value = "http://127.0.0.1:8500",
        global = true
    )]
    address: String,
    /// The file of the ACL token. The variable CONSUL_HTTP_TOKEN holds the token itself; there is no option for it, since others see those.
    #[arg(long = "consul-token-file", value_name = "FILE", env = "CONSUL_HTTP_TOKEN_FILE", global = true)]
    token_file: Option<PathBuf>,
    /// Whose certificates are valid (PEM; default: the system's CAs).
    #[arg(long = "consul-ca", value_name = "FILE", env = "CONSUL_CACERT", global = true)]
    ca: Option<PathBuf>,
    /// Your certificate for the agent.
    #[arg(long = "consul-cert", value_name = "FILE", env = "CONSUL_CLIENT_CERT", global = true)]
    cert: Option<PathBuf>,
    /// Its key.
    #[arg(long = "consul-key", value_name = "FILE", env = "CONSUL_CLIENT_KEY", global = true)]
    key: Option<PathBuf>,
    /// Consul Enterprise's namespace.
    #[arg(long = "consul-namespace", value_name = "NAME", env = "CONSUL_NAMESPACE", global = true)]
    namespace: Option<String>,
    /// Consul Enterprise's partition.
    #[arg(long = "consul-partition", value_name = "NAME", env = "CONSUL_PARTITION", global = true)]
    partition: Option<String>,
    /// The service that shards are registered as.
    #[arg(long, value_name = "NAME", default_value = "signal", global = true)]
    shard_service: String,
    /// The service that shards with their bridge in one are registered as, or "off".
    #[arg(long, value_name = "NAME", default_value = "all", global = true)]
    standalone_service: String,
}

/// Why Consul cannot be asked.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ConsulError {
    /// Which keys?
    #[error("--environment is missing, expected the environment whose keys are meant, such as prod")]
    NoEnvironment,
    /// An option's text.
    #[error("--{option} {value:?} is not valid, expected {expected}")]
    Option {
        /// Its name.
        option: &'static str,
        /// What was given.
        value: String,
        /// What would have been accepted.
        expected: &'static str,
    },
    /// A datacenter that the agent does not know.
    #[error("--datacenter {name} is not known to the agent at {agent}")]
    Datacenter {
        /// Its name.
        name: Datacenter,
        /// Who does not know it.
        agent: String,
        /// Those that it knows.
        known: Vec<Datacenter>,
    },
    /// A token that cannot be used; it is not shown.
    #[error("{place}: {what}")]
    Token {
        /// Option and file, or the variable.
        place: String,
        /// What is wrong.
        what: String,
    },
    /// Certificate without key, or key without certificate.
    #[error("--{given} is given without --{missing}, expected both")]
    HalfIdentity {
        /// The one.
        given: &'static str,
        /// The other.
        missing: &'static str,
    },
    /// The agent did not answer, or no client can be made.
    #[error(transparent)]
    Agent(#[from] AgentError),
    /// No datacenter did.
    #[error("no datacenter could be read: {what}")]
    Nothing {
        /// What each said.
        what: String,
    },
}

impl ConsulError {
    pub(crate) fn hint(&self) -> Option<String> {
        match self {
            Self::NoEnvironment => Some("--environment prod, or SHARDGATE_ENVIRONMENT=prod".to_owned()),
            Self::Datacenter { known, .. } => {
                let known: Vec<&str> = known.iter().map(Datacenter::as_str).collect();
                Some(format!("it knows {}", known.join(", ")))
            }
            Self::Agent(AgentError::NoAnswer { .. }) => Some(
                "is a Consul agent running there? --consul or CONSUL_HTTP_ADDR says where; https wants --consul-ca"
                    .to_owned(),
            ),
            Self::Agent(AgentError::Forbidden { .. }) => {
                Some("--consul-token-file FILE, or CONSUL_HTTP_TOKEN".to_owned())
            }
            Self::Option { .. }
            | Self::Token { .. }
            | Self::HalfIdentity { .. }
            | Self::Agent(_)
            | Self::Nothing { .. } => None,
        }
    }
}

/// An agent, and what is meant there.
pub(crate) struct Consul {
    pub(crate) agent: Agent,
    pub(crate) environment: EnvironmentName,
    services: ServiceNames,
    /// Datacenters that were named; none: all.
    named: Vec<Datacenter>,
}

/// A variable that is set to nothing is not set.
fn given<T: AsRef<std::ffi::OsStr>>(value: Option<&T>) -> Option<&T> {
    value.filter(|value| !value.as_ref().is_empty())
}

impl ConsulOptions {
    /// Reads the options; nothing is asked yet.
    pub(crate) fn open(&self) -> Result<Consul, ConsulError> {
        let not_valid = |option, value: &str, expected| ConsulError::Option {
            option,
            value: value.chars().take(80).collect(),
            expected,
        };
        let environment = given(self.environment.as_ref()).ok_or(ConsulError::NoEnvironment)?;
        let environment = EnvironmentName::parse(environment)
            .map_err(|_| not_valid("environment", environment, EnvironmentName::EXPECTED))?;
        let address = AgentAddress::parse(&self.address)
            .ok_or_else(|| not_valid("consul", &self.address, AgentAddress::EXPECTED))?;
        let named = self.datacenters.iter().map(|name| {
            Datacenter::parse(name).ok_or_else(|| not_valid("datacenter", name, Datacenter::EXPECTED))
        });
        let named: Vec<Datacenter> = named.collect::<Result<_, _>>()?;
        let service = |option, name: &str| match ServiceName::parse(name) {
            Ok(_) => Ok(name.to_owned()),
            Err(_) => Err(not_valid(option, name, ServiceName::EXPECTED)),
        };
        let standalones = service("standalone-service", &self.standalone_service)?;
        let services = ServiceNames {
            shards: service("shard-service", &self.shard_service)?,
            standalones: Some(standalones).filter(|name| name != "off"),
            ..ServiceNames::default()
        };
        let config = AgentConfig {
            address,
            token: self.token()?,
            tls: AgentTls { ca: given(self.ca.as_ref()).cloned(), client: self.identity()? },
            namespace: given(self.namespace.as_ref()).cloned(),
            partition: given(self.partition.as_ref()).cloned(),
            source: None,
        };
        Ok(Consul { agent: Agent::new(config)?, environment, services, named })
    }

    /// The file's, else the variable's, as the consul command does it.
    fn token(&self) -> Result<Option<Token>, ConsulError> {
        let (place, text) = if let Some(path) = given(self.token_file.as_ref()) {
            let place = format!("--consul-token-file {}", path.display());
            (place.clone(), read(path).map_err(|what| ConsulError::Token { place, what })?)
        } else {
            match std::env::var_os("CONSUL_HTTP_TOKEN") {
                Some(text) if !text.is_empty() => {
                    ("CONSUL_HTTP_TOKEN".to_owned(), text.to_string_lossy().into_owned())
                }
                Some(_) | None => return Ok(None),
            }
        };
        let what = "holds no token, expected one of visible ASCII".to_owned();
        Token::parse(&text).map(Some).ok_or(ConsulError::Token { place, what })
    }

    fn identity(&self) -> Result<Option<(PathBuf, PathBuf)>, ConsulError> {
        match (given(self.cert.as_ref()), given(self.key.as_ref())) {
            (Some(cert), Some(key)) => Ok(Some((cert.clone(), key.clone()))),
            (None, None) => Ok(None),
            (Some(_), None) => Err(ConsulError::HalfIdentity { given: "consul-cert", missing: "consul-key" }),
            (None, Some(_)) => Err(ConsulError::HalfIdentity { given: "consul-key", missing: "consul-cert" }),
        }
    }
}

fn read(path: &Path) -> Result<String, String> {
    std::fs::read_to_string(path).map_err(|error| error.to_string())
}

impl Consul {
    /// All datacenters that the agent knows, and those of them whose keys are meant.
    async fn known_and_meant(&self) -> Result<(Vec<Datacenter>, Vec<Datacenter>), ConsulError> {
        let known = self.agent.datacenters().await?;
        for name in &self.named {
            if !known.contains(name) {
                let (name, agent) = (name.clone(), self.agent.address().to_string());
                return Err(ConsulError::Datacenter { name, agent, known });
            }
        }
        let meant = if self.named.is_empty() { known.clone() } else { self.named.clone() };
        Ok((known, meant))
    }

    /// The datacenters whose keys are meant.
    pub(crate) async fn datacenters(&self) -> Result<Vec<Datacenter>, ConsulError> {
        Ok(self.known_and_meant().await?.1)
    }

    /// The keys that are meant, and the shards of all datacenters. At least one datacenter's keys are known.
    pub(crate) async fn survey(&self) -> Result<Survey, ConsulError> {
        let (known, meant) = self.known_and_meant().await?;
        let survey = survey(&self.agent, &self.environment, &self.services, &known, &meant).await;
        if survey.routed_by().is_empty() {
            let unanswered = survey.unanswered().iter().filter(|missing| missing.what == "keys");
            let what: Vec<String> =
                unanswered.map(|missing| format!("{}: {}", missing.datacenter, missing.error)).collect();
            return Err(ConsulError::Nothing { what: what.join("; ") });
        }
        Ok(survey)
    }
}
