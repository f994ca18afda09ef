//! A Consul agent over HTTP: what is asked of it, and how it answers. One request each; what follows what is `blocking`'s to say.

use super::blocking::{Arrival, Ask, Freshness, Leader};
use super::error::{AgentError, Hint};
use super::rights::Right;
use reqwest::header::HeaderMap;
use reqwest::redirect::Policy;
use reqwest::{Client, Method, RequestBuilder, Response, StatusCode};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use std::fmt;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::Semaphore;

/// Connections of this process to its agent: a real one resets those beyond 200 of one client address
/// (`limits.http_max_conns_per_client`).
pub(super) const CONNECTIONS_MAX: usize = 150;
/// What a short request may take.
pub(super) const SHORT: Duration = Duration::from_secs(10);
/// A body of so many bytes is read in a moment; a longer one elsewhere, for other tasks need their thread.
const READ_AT_ONCE: usize = 256 << 10;
/// The longest body that is read. 100,000 pins have some 20 MB.
const BODY_BYTES_MAX: usize = 64 << 20;

/// Where an agent answers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum AgentAddress {
    /// `http://127.0.0.1:8500`, or `https://...`; without a path.
    Url(String),
    /// `unix:///run/consul/http.sock`.
    Unix(PathBuf),
}

impl AgentAddress {
    /// What [`Self::parse`] accepts, in words.
    pub const EXPECTED: &'static str = "an agent's address, such as \"http://127.0.0.1:8500\", \"https://consul:8501\" or \"unix:///run/consul.sock\"";

    /// Parses an address; without a scheme it is `http`.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        if let Some(path) = text.strip_prefix("unix://") {
            return path.starts_with('/').then(|| Self::Unix(PathBuf::from(path)));
        }
        let url = match text.contains("://") {
            true => text.to_owned(),
            // As the consul command has it, but for its port, which is the agent's own.
            false if text.contains(':') => format!("http://{text}"),
            false => format!("http://{text}:8500"),
        };
        let url = url.strip_suffix('/').unwrap_or(&url);
        let (scheme, authority) = url.split_once("://")?;
        let authority: http::uri::Authority = authority.parse().ok()?;
        (matches!(scheme, "http" | "https") && !authority.host().is_empty() && !url.contains('@'))
            .then(|| Self::Url(url.to_owned()))
    }
}

impl Default for AgentAddress {
    /// The agent of this machine.
    fn default() -> Self {
        Self::Url("http://127.0.0.1:8500".to_owned())
    }
}

impl fmt::Display for AgentAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Url(url) => f.write_str(url),
            Self::Unix(path) => write!(f, "unix://{}", path.display()),
        }
    }
}

/// An ACL token. It is shown to nobody.
#[derive(Clone, PartialEq, Eq)]
pub struct Token(String);

impl Token {
    /// A token, without white space at its ends; `None` when nothing is left, or when no header could hold it.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let text = text.trim();
        (!text.is_empty() && text.bytes().all(|byte| byte.is_ascii_graphic())).then(|| Self(text.to_owned()))
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Token(..)")
    }
}

/// Files for TLS to the agent; without `ca` its certificate has to be of the system's CAs.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct AgentTls {
    /// Whose certificates are valid.
    pub ca: Option<PathBuf>,
    /// What is shown to the agent, with its key.
    pub client: Option<(PathBuf, PathBuf)>,
}

/// How an agent is reached.
#[derive(Debug, Clone, Default)]
pub struct AgentConfig {
    /// Where.
    pub address: AgentAddress,
    /// Sent with every request.
    pub token: Option<Token>,
    /// For `https`.
    pub tls: AgentTls,
    /// Consul Enterprise's `ns`.
    pub namespace: Option<String>,
    /// Consul Enterprise's `partition`.
    pub partition: Option<String>,
    /// From which of this machine's addresses.
    pub source: Option<IpAddr>,
}

/// A datacenter's name.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Datacenter(Arc<str>);

impl Datacenter {
    /// What [`Self::parse`] accepts, in words.
    pub const EXPECTED: &'static str = "1 to 128 of a-z A-Z 0-9 _ -";

    /// Parses a name, as Consul's `datacenter` is.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let valid = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-');
        ((1..=128).contains(&text.len()) && text.bytes().all(valid)).then(|| Self(Arc::from(text)))
    }

    /// The name.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Datacenter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for Datacenter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A list that can be watched.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Target {
    /// `/v1/kv/releases/prod/`.
    pub(crate) path: String,
    pub(crate) query: Vec<(&'static str, String)>,
    pub(crate) right: Right,
    /// `None`: the agent's own.
    pub(crate) datacenter: Option<Datacenter>,
}

/// How a list is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Reading {
    Blocking(Ask),
    /// At once, as the target says.
    Now,
    /// The leader, who makes sure that it is (`consistent`), at once.
    Confirmed,
}

/// A list, and what the headers say of it.
#[derive(Debug)]
pub(crate) struct Answer<T> {
    pub(crate) arrival: Arrival,
    pub(crate) records: Vec<T>,
}

/// What a list of keys is compared with when one is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cas {
    /// Whatever is there.
    Any,
    /// Nothing is there, or what has this `ModifyIndex`.
    Index(u64),
}

/// A client of one agent. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Agent {
    http: Client,
    base: String,
    config: Arc<AgentConfig>,
    places: Arc<Semaphore>,
}

/// What an agent says of itself.
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct AgentSelf {
    config: AgentSelfConfig,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct AgentSelfConfig {
    datacenter: String,
}

impl Agent {
    /// Prepares a client; nothing is asked yet.
    ///
    /// # Errors
    /// [`AgentError::Tls`] with the file that is not usable.
    pub fn new(config: AgentConfig) -> Result<Self, AgentError> {
        // A system's proxy is for the Internet, not for the agent.
        // Nor does an agent send anybody elsewhere, with a token that is for it alone.
        let mut builder = Client::builder()
            .no_proxy()
            .redirect(Policy::none())
            .http1_only()
            .connect_timeout(Duration::from_secs(3));
        builder = builder.tls_backend_preconfigured(tls(&config.tls)?).local_address(config.source);
        let base = match &config.address {
            AgentAddress::Url(url) => url.clone(),
            AgentAddress::Unix(path) => {
                builder = builder.unix_socket(path.as_path());
                "http://localhost".to_owned()
            }
        };
        let http = builder.build().map_err(|error| AgentError::Client { what: with_causes(&error) })?;
        let places = Arc::new(Semaphore::new(CONNECTIONS_MAX));
        Ok(Self { http, base, config: Arc::new(config), places })
    }

    /// Where it answers.
    #[must_use]
    pub fn address(&self) -> &AgentAddress {
        &self.config.address
    }

    pub(super) fn request(
        &self,
        method: Method,
        path: &str,
        datacenter: Option<&Datacenter>,
    ) -> RequestBuilder {
        let mut request = self.http.request(method, format!("{}{path}", self.base));
        if let Some(Token(token)) = &self.config.token {
            request = request.header("X-Consul-Token", token);
        }
        let AgentConfig { namespace, partition, .. } = &*self.config;
        let given = [
            ("dc", datacenter.map(Datacenter::as_str)),
            ("ns", namespace.as_deref()),
            ("partition", partition.as_deref()),
        ];
        for (name, value) in given {
            if let Some(value) = value {
                request = request.query(&[(name, value)]);
            }
        }
        request
    }

    pub(super) async fn send(
        &self,
        request: RequestBuilder,
        path: &str,
        within: Duration,
    ) -> Result<Response, AgentError> {
        request.timeout(within).send().await.map_err(|error| self.no_answer(&error, path))
    }

    fn no_answer(&self, error: &reqwest::Error, path: &str) -> AgentError {
        let tls = self.base.starts_with("https://").then_some(&self.config.tls);
        AgentError::NoAnswer {
            address: self.config.address.to_string(),
            path: path.to_owned(),
            what: with_causes(error),
            hint: Hint::of(error, tls),
        }
    }

    /// Asks for a list; one that is not there is empty.
    pub(crate) async fn list<T: DeserializeOwned + Send + 'static>(
        &self,
        target: &Target,
        reading: Reading,
    ) -> Result<Answer<T>, AgentError> {
        // Never closed.
        let _place = self.places.acquire().await;
        let mut request =
            self.request(Method::GET, &target.path, target.datacenter.as_ref()).query(&target.query);
        let mut within = SHORT;
        match reading {
            Reading::Blocking(ask) => {
                within = ask.answered_within();
                if let Some(index) = ask.index {
                    let wait = format!("{}s", ask.wait.as_secs());
                    request = request.query(&[("index", index.to_string()), ("wait", wait)]);
                }
                if ask.freshness == Freshness::Any {
                    request = request.query(&[("stale", "")]);
                }
            }
            Reading::Now => {}
            Reading::Confirmed => request = request.query(&[("consistent", "")]),
        }
        let answer = self.send(request, &target.path, within).await?;
        let arrival = arrival(answer.headers());
        let records = match answer.status() {
            // A key that is not there. Anything else that is not found is no word of Consul's.
            StatusCode::NOT_FOUND if matches!(target.right, Right::Keys(_)) && arrival.index.is_some() => {
                Vec::new()
            }
            _ => self.read(answer, &target.path).await?,
        };
        Ok(Answer { arrival, records })
    }

    /// The body of an answer, as JSON.
    pub(super) async fn read<T: DeserializeOwned + Send + 'static>(
        &self,
        answer: Response,
        path: &str,
    ) -> Result<T, AgentError> {
        let bytes = self.body(answer, path).await?;
        let wrong = |what: String| AgentError::Json { path: path.to_owned(), what };
        let read = if bytes.len() > READ_AT_ONCE {
            let reading = tokio::task::spawn_blocking(move || serde_json::from_slice(&bytes));
            reading.await.map_err(|error| wrong(error.to_string()))?
        } else {
            serde_json::from_slice(&bytes)
        };
        read.map_err(|error: serde_json::Error| wrong(error.to_string()))
    }

    async fn body(&self, mut answer: Response, path: &str) -> Result<Vec<u8>, AgentError> {
        let status = answer.status();
        let retry_after = retry_after(answer.headers());
        let asked_of = answer.url().query_pairs().find(|(name, _)| name == "dc");
        let datacenter = asked_of.map(|(_, value)| value.into_owned());
        let mut bytes = Vec::new();
        loop {
            let chunk = answer.chunk().await.map_err(|error| self.no_answer(&error, path))?;
            let Some(chunk) = chunk else { break };
            if bytes.len() + chunk.len() > BODY_BYTES_MAX {
                return Err(AgentError::TooLong { path: path.to_owned(), max: BODY_BYTES_MAX });
            }
            bytes.extend_from_slice(&chunk);
        }
        if status.is_success() {
            return Ok(bytes);
        }
        let said = String::from_utf8_lossy(&bytes);
        let said: String = said.trim().chars().take(200).collect();
        let (path, address) = (path.to_owned(), self.config.address.to_string());
        Err(match status {
            StatusCode::FORBIDDEN => self.forbidden(&path, said),
            StatusCode::TOO_MANY_REQUESTS => AgentError::TooMany { address, said, retry_after },
            StatusCode::INTERNAL_SERVER_ERROR if said.starts_with("No path to datacenter") => {
                AgentError::NoDatacenter { address, datacenter: datacenter.unwrap_or_default() }
            }
            status => AgentError::Status { path, status: status.as_u16(), said },
        })
    }

    pub(super) fn forbidden(&self, path: &str, said: String) -> AgentError {
        AgentError::Forbidden { path: path.to_owned(), said, token: self.config.token.is_some() }
    }

    /// The datacenters that the agent's servers know.
    ///
    /// # Errors
    /// [`AgentError`].
    pub async fn datacenters(&self) -> Result<Vec<Datacenter>, AgentError> {
        let path = "/v1/catalog/datacenters";
        let answer = self.send(self.request(Method::GET, path, None), path, SHORT).await?;
        let names: Vec<String> = self.read(answer, path).await?;
        Ok(names.iter().filter_map(|name| Datacenter::parse(name)).collect())
    }

    /// The datacenter that the agent is in (Consul's `/v1/agent/self`, which wants `agent:read`).
    ///
    /// # Errors
    /// [`AgentError`].
    pub async fn datacenter(&self) -> Result<Datacenter, AgentError> {
        let path = "/v1/agent/self";
        let answer = self.send(self.request(Method::GET, path, None), path, SHORT).await?;
        let AgentSelf { config } = self.read(answer, path).await?;
        Datacenter::parse(&config.datacenter).ok_or_else(|| AgentError::Json {
            path: path.to_owned(),
            what: format!("Config.Datacenter is {:?}, expected {}", config.datacenter, Datacenter::EXPECTED),
        })
    }

    /// Sends something that changes something, and says whether it was done: `false` when a condition did not hold.
    pub(crate) async fn put(
        &self,
        path: &str,
        datacenter: Option<&Datacenter>,
        query: &[(&str, String)],
        body: Vec<u8>,
    ) -> Result<bool, AgentError> {
        let request = self.request(Method::PUT, path, datacenter).query(query).body(body);
        let answer = self.send(request, path, SHORT).await?;
        Ok(self.body(answer, path).await?.trim_ascii() != b"false")
    }

    /// Writes a key.
    ///
    /// # Errors
    /// [`AgentError`]; `false` when `cas` did not hold.
    pub async fn write_key(
        &self,
        datacenter: &Datacenter,
        key: &str,
        value: &str,
        cas: Cas,
    ) -> Result<bool, AgentError> {
        let query: Vec<_> = cas.query().into_iter().collect();
        self.put(&key_path(key), Some(datacenter), &query, value.as_bytes().to_vec()).await
    }

    /// Deletes a key.
    ///
    /// # Errors
    /// [`AgentError`]; `false` when `cas` did not hold.
    pub async fn delete_key(&self, datacenter: &Datacenter, key: &str, cas: Cas) -> Result<bool, AgentError> {
        let path = key_path(key);
        let query: Vec<_> = cas.query().into_iter().collect();
        let request = self.request(Method::DELETE, &path, Some(datacenter)).query(&query);
        let answer = self.send(request, &path, SHORT).await?;
        Ok(self.body(answer, &path).await?.trim_ascii() != b"false")
    }
}

impl Cas {
    fn query(self) -> Option<(&'static str, String)> {
        match self {
            Self::Any => None,
            Self::Index(index) => Some(("cas", index.to_string())),
        }
    }
}

/// The path of a key; what no path may hold is encoded, slashes stay.
pub(crate) fn key_path(key: &str) -> String {
    let mut path = String::from("/v1/kv/");
    for byte in key.bytes() {
        if byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_' | b'~' | b'/') {
            path.push(char::from(byte));
        } else {
            path.push_str(&format!("%{byte:02X}"));
        }
    }
    path
}

fn arrival(headers: &HeaderMap) -> Arrival {
    let text = |name: &str| headers.get(name)?.to_str().ok();
    let behind = text("X-Consul-LastContact").and_then(|text| text.parse().ok());
    Arrival {
        index: text("X-Consul-Index").and_then(|text| text.parse().ok()),
        behind: Duration::from_millis(behind.unwrap_or(0)),
        leader: if text("X-Consul-KnownLeader") == Some("false") { Leader::Unknown } else { Leader::Known },
    }
}

/// In seconds; Consul names no dates.
fn retry_after(headers: &HeaderMap) -> Option<Duration> {
    headers.get(reqwest::header::RETRY_AFTER)?.to_str().ok()?.parse().ok().map(Duration::from_secs)
}

fn with_causes(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text.push_str(": ");
        text.push_str(&cause.to_string());
        source = cause.source();
    }
    text
}

const SYSTEM_CA: &str = "/etc/ssl/certs/ca-certificates.crt";

fn tls(files: &AgentTls) -> Result<rustls::ClientConfig, AgentError> {
    let refused = |path: &Path, what: &str| AgentError::Tls { path: path.to_owned(), what: what.to_owned() };
    let certificates = |path: &Path| -> Result<Vec<CertificateDer<'static>>, AgentError> {
        let bytes = std::fs::read(path).map_err(|error| refused(path, &error.to_string()))?;
        let list: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&bytes).collect();
        list.map_err(|_| refused(path, "holds broken PEM"))
    };
    let mut roots = rustls::RootCertStore::empty();
    match &files.ca {
        Some(ca) => {
            let (added, _) = roots.add_parsable_certificates(certificates(ca)?);
            if added == 0 {
                return Err(refused(ca, "holds no certificate, expected a CA in PEM"));
            }
        }
        // Where the system has none, only `http` can be spoken.
        None => {
            if let Ok(list) = certificates(Path::new(SYSTEM_CA)) {
                roots.add_parsable_certificates(list);
            }
        }
    }
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|error| AgentError::Client { what: error.to_string() })?
        .with_root_certificates(roots);
    let Some((cert, key)) = &files.client else { return Ok(builder.with_no_client_auth()) };
    let bytes = std::fs::read(key).map_err(|error| refused(key, &error.to_string()))?;
    // Not in the reader's own words, which quote the key.
    let private =
        PrivateKeyDer::from_pem_slice(&bytes).map_err(|_| refused(key, "holds no private key in PEM"))?;
    builder
        .with_client_auth_cert(certificates(cert)?, private)
        .map_err(|error| refused(key, &format!("cannot be used: {error}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses() {
        let parsed = |text: &str| AgentAddress::parse(text).map(|address| address.to_string());
        for (text, address) in [
            ("127.0.0.1:8500", Some("http://127.0.0.1:8500")),
            ("http://consul/", Some("http://consul")),
            ("https://[::1]:8501", Some("https://[::1]:8501")),
            ("unix:///run/consul.sock", Some("unix:///run/consul.sock")),
            ("unix://run", None),
            ("ftp://consul", None),
            ("http://", None),
            ("http://a/b", None),
            ("http://user@consul", None),
            ("", None),
        ] {
            assert_eq!(parsed(text).as_deref(), address, "{text:?}");
        }
    }

    #[test]
    fn keys_keep_their_slashes() {
        assert_eq!(key_path("banlists/prod/exact/a b/ü?#"), "/v1/kv/banlists/prod/exact/a%20b/%C3%BC%3F%23");
    }

    #[test]
    fn a_token_is_shown_to_nobody() {
        let token = Token::parse(" secret\n").unwrap();
        assert_eq!(format!("{token:?}"), "Token(..)");
        assert_eq!(Token::parse(" \n"), None);
    }

    #[test]
    fn headers_of_an_answer() {
        let mut headers = HeaderMap::new();
        headers.insert("X-Consul-Index", "7".parse().unwrap());
        headers.insert("X-Consul-LastContact", "1500".parse().unwrap());
        headers.insert("X-Consul-KnownLeader", "false".parse().unwrap());
        let expected =
            Arrival { index: Some(7), behind: Duration::from_millis(1500), leader: Leader::Unknown };
        assert_eq!(arrival(&headers), expected);
        let none = Arrival { index: None, behind: Duration::ZERO, leader: Leader::Known };
        assert_eq!(arrival(&HeaderMap::new()), none);
        headers.insert("Retry-After", "7".parse().unwrap());
        assert_eq!(retry_after(&headers), Some(Duration::from_secs(7)));
        headers.insert("Retry-After", "-1".parse().unwrap());
        assert_eq!(retry_after(&headers), None);
    }
}
