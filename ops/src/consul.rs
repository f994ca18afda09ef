//! The connection to Consul's agent, by the options and variables that the consul command has.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use clap::Args;
use clap::builder::{OsStringValueParser, TypedValueParser};
use shardgate_discovery::consul::{
    AddressKind, Agent, AgentAddress, AgentConfig, AgentError, AgentTls, AskedNodes, Datacenter, PolicyKind,
    Reports, ServiceNames, Survey, Token, asked_nodes, survey,
};
use shardgate_discovery::{EnvironmentName, ServiceName};

use crate::render::tell;

/// Where an agent listens by default. It has no scheme: CONSUL_HTTP_SSL is about it, too.
const USUAL: &str = "127.0.0.1:8500";

/// The datacenters that are expected, with commas. It is not read by clap: who asks a node by --node may have it set.
const DATACENTERS: &str = "SHARDGATE_DATACENTERS";

/// How the agent is reached, and what is meant there. Texts are looked at when they are needed: a variable that is wrong for Consul is
/// no reason not to ask a node.
#[derive(Debug, Args)]
#[command(next_help_heading = "Consul (pin, release, ban, and shard without --node)")]
pub(crate) struct ConsulOptions {
    /// The environment whose keys and shards are meant, such as prod.
    #[arg(long, value_name = "NAME", env = "SHARDGATE_ENVIRONMENT", global = true)]
    environment: Option<String>,
    /// Only these datacenters' keys; repeat it for several, or put commas between them [env: SHARDGATE_DATACENTERS] (default: all that the
    /// agent knows, which may be too few after a long outage).
    #[arg(long = "datacenter", value_name = "NAME", value_delimiter = ',', global = true)]
    datacenters: Vec<String>,
    /// The agent: HOST:PORT, http://HOST:PORT, https://HOST:PORT or unix:///PATH. HOST:PORT is http, with CONSUL_HTTP_SSL=true https.
    #[arg(
        id = "consul",
        long = "consul",
        value_name = "ADDRESS",
        env = "CONSUL_HTTP_ADDR",
        hide_env_values = true,
        default_value = USUAL,
        global = true
    )]
    address: String,
    /// The file of the ACL token. The variable CONSUL_HTTP_TOKEN holds the token itself; there is no option for it, since others see those.
    #[arg(id = "consul-token-file", long = "consul-token-file", value_name = "FILE", env = "CONSUL_HTTP_TOKEN_FILE", value_parser = path(), global = true)]
    token_file: Option<PathBuf>,
    /// Whose certificates are valid (PEM; default: the system's CAs).
    #[arg(id = "consul-ca", long = "consul-ca", value_name = "FILE", env = "CONSUL_CACERT", value_parser = path(), global = true)]
    ca: Option<PathBuf>,
    /// Your certificate for the agent.
    #[arg(id = "consul-cert", long = "consul-cert", value_name = "FILE", env = "CONSUL_CLIENT_CERT", value_parser = path(), global = true)]
    cert: Option<PathBuf>,
    /// Its key.
    #[arg(id = "consul-key", long = "consul-key", value_name = "FILE", env = "CONSUL_CLIENT_KEY", value_parser = path(), global = true)]
    key: Option<PathBuf>,
    /// Consul Enterprise's namespace.
    #[arg(
        id = "consul-namespace",
        long = "consul-namespace",
        value_name = "NAME",
        env = "CONSUL_NAMESPACE",
        global = true
    )]
    namespace: Option<String>,
    /// Consul Enterprise's partition.
    #[arg(
        id = "consul-partition",
        long = "consul-partition",
        value_name = "NAME",
        env = "CONSUL_PARTITION",
        global = true
    )]
    partition: Option<String>,
    /// The service that shards are registered as.
    #[arg(long, value_name = "NAME", default_value = "signal", global = true)]
    shard_service: String,
    /// The service that shards with their bridge in one are registered as, or "off".
    #[arg(long, value_name = "NAME", default_value = "all", global = true)]
    standalone_service: String,
    /// The service that nodes of ours are registered as.
    #[arg(long, value_name = "NAME", default_value = "shardgate", global = true)]
    node_service: String,
    /// Which addresses of nodes in other datacenters are asked, "lan", or "wan" where there is one, as the nodes' own consul.remote_address. For
    /// "wan" the agent is asked which datacenter is its own, which wants agent:read.
    #[arg(
        long,
        value_name = "lan|wan",
        env = "SHARDGATE_REMOTE_ADDRESS",
        default_value = "lan",
        global = true
    )]
    remote_address: String,
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
    /// A variable's text.
    #[error("{variable} has {value:?}, expected {expected}")]
    Variable {
        /// Its name.
        variable: &'static str,
        /// What was given.
        value: String,
        /// What would have been accepted.
        expected: &'static str,
    },
    /// A datacenter that the agent does not know.
    #[error(
        "datacenter {name} (of --datacenter or SHARDGATE_DATACENTERS) is not known to the agent at {agent}"
    )]
    Datacenter {
        /// Its name.
        name: Datacenter,
        /// Who does not know it.
        agent: String,
        /// Those that it knows.
        known: Vec<Datacenter>,
    },
    /// Nothing is meant at all.
    #[error("the agent at {agent} knows no datacenter")]
    NoDatacenters {
        /// Who knows none.
        agent: String,
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
            Self::NoDatacenters { .. } => {
                Some("does it reach its servers? consul catalog datacenters has to list some".to_owned())
            }
            Self::Agent(AgentError::NoAnswer { .. }) => Some(
                "is a Consul agent running there? --consul or CONSUL_HTTP_ADDR says where; https wants --consul-ca"
                    .to_owned(),
            ),
            Self::Agent(AgentError::Forbidden { .. }) => {
                Some("--consul-token-file FILE, or CONSUL_HTTP_TOKEN".to_owned())
            }
            Self::Option { .. }
            | Self::Variable { .. }
            | Self::Token { .. }
            | Self::HalfIdentity { .. }
            | Self::Agent(_)
            | Self::Nothing { .. } => None,
        }
    }
}

/// Why the nodes of a datacenter are not known.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Unlisted {
    /// It is one of those that were named.
    #[error("the agent does not know this datacenter (of --datacenter or SHARDGATE_DATACENTERS)")]
    Unknown,
    /// It was asked.
    #[error(transparent)]
    Agent(#[from] AgentError),
}

/// The nodes of datacenters.
pub(crate) type Listed = BTreeMap<Datacenter, Result<AskedNodes, Unlisted>>;

/// An agent, and what is meant there.
pub(crate) struct Consul {
    pub(crate) agent: Agent,
    pub(crate) environment: EnvironmentName,
    services: ServiceNames,
    /// Datacenters that were named; none: all.
    named: Vec<Datacenter>,
    remote_address: AddressKind,
}

/// A path that may be empty: a variable that is set to nothing gives one, and `PathBuf`'s own parser refuses it.
fn path() -> impl TypedValueParser<Value = PathBuf> {
    OsStringValueParser::new().map(PathBuf::from)
}

/// A variable that is set to nothing is not set.
fn given<T: AsRef<std::ffi::OsStr>>(value: Option<&T>) -> Option<&T> {
    value.filter(|value| !value.as_ref().is_empty())
}

fn not_valid(option: &'static str, value: &str, expected: &'static str) -> ConsulError {
    ConsulError::Option { option, value: value.chars().take(80).collect(), expected }
}

/// What a variable of consul's says that is true or false; `None` for other words, which consul ignores.
fn flag(value: &str) -> Option<bool> {
    match value {
        "1" | "t" | "T" | "true" | "TRUE" | "True" => Some(true),
        "0" | "f" | "F" | "false" | "FALSE" | "False" => Some(false),
        _ => None,
    }
}

/// Where the agent is: nothing means the usual place, and `ssl` is about addresses that do not say it themselves.
fn address(text: &str, ssl: Option<bool>) -> Option<AgentAddress> {
    let text = given(Some(&text)).copied().unwrap_or(USUAL);
    if ssl == Some(true) && !text.contains("://") {
        return AgentAddress::parse(&format!("https://{text}"));
    }
    AgentAddress::parse(text)
}

/// An address without user and password.
fn without_user(address: &str) -> String {
    let (scheme, rest) = address.split_once("://").unwrap_or(("", address));
    let Some((_, rest)) = rest.rsplit_once('@') else { return address.to_owned() };
    format!("{scheme}{}…@{rest}", if scheme.is_empty() { "" } else { "://" })
}

/// The datacenters that are named: by options, else by the variable.
fn named(options: &[String], variable: Option<&str>) -> Result<Vec<Datacenter>, ConsulError> {
    let parsed = |option, name: &str| {
        Datacenter::parse(name).ok_or_else(|| not_valid(option, name, Datacenter::EXPECTED))
    };
    let mut named: Vec<Datacenter> = if options.is_empty() {
        let names = variable.unwrap_or_default().split(',').map(str::trim).filter(|name| !name.is_empty());
        names
            .map(|name| {
                Datacenter::parse(name).ok_or_else(|| ConsulError::Variable {
                    variable: DATACENTERS,
                    value: name.chars().take(80).collect(),
                    expected: Datacenter::EXPECTED,
                })
            })
            .collect::<Result<_, _>>()?
    } else {
        options.iter().map(|name| parsed("datacenter", name)).collect::<Result<_, _>>()?
    };
    named.sort_unstable();
    named.dedup();
    Ok(named)
}

/// The datacenters that are named, and that the agent does not know.
fn unknown<'a>(known: &[Datacenter], named: &'a [Datacenter]) -> impl Iterator<Item = &'a Datacenter> {
    named.iter().filter(|name| !known.contains(name))
}

/// The datacenters whose keys are meant: those that are named, else all that the agent knows.
fn meant(
    known: &[Datacenter],
    named: &[Datacenter],
    agent: &AgentAddress,
) -> Result<Vec<Datacenter>, ConsulError> {
    if let Some(name) = unknown(known, named).next() {
        let (name, agent, known) = (name.clone(), agent.to_string(), known.to_vec());
        return Err(ConsulError::Datacenter { name, agent, known });
    }
    let meant = if named.is_empty() { known } else { named };
    if meant.is_empty() {
        Err(ConsulError::NoDatacenters { agent: agent.to_string() })
    } else {
        Ok(meant.to_vec())
    }
}

/// What variables of consul's ask for that is not done here, each in words; their values may be secret.
fn not_honoured(variable: impl Fn(&str) -> Option<String>) -> Vec<String> {
    let set = |name: &str| variable(name).filter(|value| !value.is_empty());
    let mut notes = Vec::new();
    for (name, instead) in [
        ("CONSUL_TLS_SERVER_NAME", "the certificate has to name the address"),
        ("CONSUL_CAPATH", "CONSUL_CACERT names one file"),
        ("CONSUL_HTTP_AUTH", "a token is what is sent"),
    ] {
        if set(name).is_some() {
            notes.push(format!("note: {name} is not honoured: {instead}"));
        }
    }
    if set("CONSUL_HTTP_SSL_VERIFY").is_some_and(|value| flag(&value) == Some(false)) {
        notes.push(
            "note: CONSUL_HTTP_SSL_VERIFY is not honoured: certificates are always verified".to_owned(),
        );
    }
    if set("CONSUL_HTTP_SSL").is_some_and(|value| flag(&value).is_none()) {
        notes.push("note: CONSUL_HTTP_SSL is not honoured: it is neither true nor false".to_owned());
    }
    notes
}

impl ConsulOptions {
    /// Whether it is said which environment is meant, without which Consul is not asked.
    pub(crate) fn is_given(&self) -> bool {
        given(self.environment.as_ref()).is_some()
    }

    /// Whether datacenters are named by option, which only Consul is asked about.
    pub(crate) const fn names_datacenters(&self) -> bool {
        !self.datacenters.is_empty()
    }

    /// Reads the options; nothing is asked yet.
    pub(crate) fn open(&self) -> Result<Consul, ConsulError> {
        let environment = given(self.environment.as_ref()).ok_or(ConsulError::NoEnvironment)?;
        let environment = EnvironmentName::parse(environment)
            .map_err(|_| not_valid("environment", environment, EnvironmentName::EXPECTED))?;
        let variable = |name: &str| std::env::var_os(name).map(|value| value.to_string_lossy().into_owned());
        not_honoured(variable).iter().for_each(|note| tell(note));
        let ssl = variable("CONSUL_HTTP_SSL").and_then(|value| flag(&value));
        let address = address(&self.address, ssl)
            .ok_or_else(|| not_valid("consul", &without_user(&self.address), AgentAddress::EXPECTED))?;
        let named = named(&self.datacenters, variable(DATACENTERS).as_deref())?;
        let service = |option, name: &str| match ServiceName::parse(name) {
            Ok(_) => Ok(name.to_owned()),
            Err(_) => Err(not_valid(option, name, ServiceName::EXPECTED)),
        };
        let remote_address = match self.remote_address.as_str() {
            "" | "lan" => AddressKind::Lan,
            "wan" => AddressKind::Wan,
            other => return Err(not_valid("remote-address", other, "lan or wan")),
        };
        let standalones = service("standalone-service", &self.standalone_service)?;
        let services = ServiceNames {
            shards: service("shard-service", &self.shard_service)?,
            standalones: Some(standalones).filter(|name| name != "off"),
            nodes: service("node-service", &self.node_service)?,
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
        Ok(Consul { agent: Agent::new(config)?, environment, services, named, remote_address })
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
        let meant = meant(&known, &self.named, self.agent.address())?;
        Ok((known, meant))
    }

    /// The nodes of all datacenters, whatever keys are meant: sessions are everywhere. One that is named and not known stands there as well.
    pub(crate) async fn nodes(&self) -> Result<Listed, ConsulError> {
        let known = self.agent.datacenters().await?;
        if known.is_empty() {
            return Err(ConsulError::NoDatacenters { agent: self.agent.address().to_string() });
        }
        let own = match self.remote_address {
            AddressKind::Lan => None,
            AddressKind::Wan => Some(self.agent.datacenter().await?),
        };
        let kind = |of: &Datacenter| match &own {
            Some(own) if own != of => AddressKind::Wan,
            Some(_) | None => AddressKind::Lan,
        };
        let answers = asked_nodes(&self.agent, &self.environment, &self.services, &known, kind).await;
        let answers = answers.into_iter().map(|(of, answer)| (of, answer.map_err(Unlisted::from)));
        let unknown = unknown(&known, &self.named).map(|name| (name.clone(), Err(Unlisted::Unknown)));
        Ok(answers.chain(unknown).collect())
    }

    /// What the shards of all datacenters report of themselves.
    pub(crate) async fn reports(
        &self,
    ) -> Result<BTreeMap<Datacenter, Result<Reports, AgentError>>, ConsulError> {
        let mut reports = BTreeMap::new();
        for datacenter in self.agent.datacenters().await? {
            let read = self.agent.reports(&datacenter, self.environment.as_str()).await;
            reports.insert(datacenter, read);
        }
        Ok(reports)
    }

    /// The datacenters whose keys are meant.
    pub(crate) async fn datacenters(&self) -> Result<Vec<Datacenter>, ConsulError> {
        Ok(self.known_and_meant().await?.1)
    }

    /// The keys that are meant of these families, and the shards of all datacenters. At least one datacenter's keys are known.
    pub(crate) async fn survey(&self, families: &[PolicyKind]) -> Result<Survey, ConsulError> {
        let (known, meant) = self.known_and_meant().await?;
        let survey = self.ask(&known, &meant, families).await;
        if survey.routed_by().is_empty() { Err(nothing(&survey)) } else { Ok(survey) }
    }

    /// The shards of all datacenters, and their states as far as the token may read them: who may write a release need not.
    pub(crate) async fn shards(&self) -> Result<Survey, ConsulError> {
        let (known, meant) = self.known_and_meant().await?;
        let survey = self.ask(&known, &meant, &[PolicyKind::ShardStates]).await;
        let unlisted = survey.unanswered().iter().filter(|missing| missing.what == "shards").count();
        let forbidden = |error: &AgentError| matches!(error, AgentError::Forbidden { .. });
        let keys_forbidden = survey
            .unanswered()
            .iter()
            .filter(|missing| missing.what == "keys")
            .all(|missing| forbidden(&missing.error));
        if survey.routed_by().is_empty() && (unlisted == known.len() || !keys_forbidden) {
            return Err(nothing(&survey));
        }
        Ok(survey)
    }

    /// The keys of these families in all datacenters, whichever are meant, and the shards; as far as they are answered.
    pub(crate) async fn everywhere(&self, families: &[PolicyKind]) -> Result<Survey, ConsulError> {
        let (known, _) = self.known_and_meant().await?;
        Ok(self.ask(&known, &known, families).await)
    }

    async fn ask(&self, known: &[Datacenter], meant: &[Datacenter], families: &[PolicyKind]) -> Survey {
        survey(&self.agent, &self.environment, &self.services, known, meant, families).await
    }
}

fn nothing(survey: &Survey) -> ConsulError {
    let unanswered = survey.unanswered().iter().filter(|missing| missing.what == "keys");
    let what: Vec<String> =
        unanswered.map(|missing| format!("{}: {}", missing.datacenter, missing.error)).collect();
    ConsulError::Nothing { what: what.join("; ") }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn datacenters(names: &[&str]) -> Vec<Datacenter> {
        names.iter().map(|name| Datacenter::parse(name).unwrap()).collect()
    }

    #[test]
    fn addresses_and_the_variable_about_their_scheme() {
        for (text, ssl, found) in [
            ("", None, "http://127.0.0.1:8500"),
            ("", Some(true), "https://127.0.0.1:8500"),
            ("consul:8501", Some(true), "https://consul:8501"),
            ("consul:8501", Some(false), "http://consul:8501"),
            ("http://consul:8500", Some(true), "http://consul:8500"),
            ("unix:///run/consul.sock", Some(true), "unix:///run/consul.sock"),
        ] {
            assert_eq!(address(text, ssl).unwrap().to_string(), found, "{text:?} {ssl:?}");
        }
        let flags = ["true", "1", "false", "0", "yes", ""].map(flag);
        assert_eq!(flags, [Some(true), Some(true), Some(false), Some(false), None, None]);
    }

    #[test]
    fn a_password_is_not_told() {
        assert_eq!(without_user("http://user:pa@ss@consul:8500"), "http://…@consul:8500");
        assert_eq!(without_user("user:pass@consul"), "…@consul");
        assert_eq!(without_user("http://consul/x"), "http://consul/x");
    }

    #[test]
    fn which_datacenters_are_meant() {
        let option = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>();
        assert_eq!(named(&[], Some(" b,a,,b")).unwrap(), datacenters(&["a", "b"]));
        assert_eq!(named(&option(&["c"]), Some("a")).unwrap(), datacenters(&["c"]));
        assert!(
            named(&[], Some("a.b")).unwrap_err().to_string().starts_with("SHARDGATE_DATACENTERS has \"a.b\"")
        );
        assert!(named(&option(&["a.b"]), None).unwrap_err().to_string().starts_with("--datacenter \"a.b\""));
        let known = datacenters(&["a", "b"]);
        let meant =
            |known: &[Datacenter], named: &[Datacenter]| meant(known, named, &AgentAddress::default());
        assert_eq!(meant(&known, &[]).unwrap(), known);
        assert_eq!(meant(&known, &datacenters(&["b"])).unwrap(), datacenters(&["b"]));
        assert!(matches!(meant(&known, &datacenters(&["c"])), Err(ConsulError::Datacenter { .. })));
        assert!(matches!(meant(&[], &[]), Err(ConsulError::NoDatacenters { .. })));
        let wanted = datacenters(&["a", "c"]);
        assert_eq!(unknown(&known, &wanted).collect::<Vec<_>>(), [&wanted[1]]);
    }

    #[test]
    fn what_is_not_honoured_is_told() {
        let notes = |set: &[(&str, &str)]| {
            not_honoured(|name| {
                set.iter().find(|(key, _)| *key == name).map(|(_, value)| (*value).to_owned())
            })
        };
        assert_eq!(
            notes(&[("CONSUL_HTTP_SSL_VERIFY", "true"), ("CONSUL_HTTP_SSL", "1"), ("CONSUL_CAPATH", "")]),
            [""; 0]
        );
        let told = notes(&[
            ("CONSUL_HTTP_SSL_VERIFY", "0"),
            ("CONSUL_HTTP_SSL", "yes"),
            ("CONSUL_CAPATH", "/etc/consul"),
            ("CONSUL_TLS_SERVER_NAME", "x"),
            ("CONSUL_HTTP_AUTH", "user:secret"),
        ]);
        assert_eq!(told.len(), 5, "{told:?}");
        assert!(
            told.iter().all(|note| note.contains("is not honoured") && !note.contains("secret")),
            "{told:?}"
        );
    }
}
