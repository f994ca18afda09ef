//! The connection to one node's admin API.

use std::path::PathBuf;
use std::time::Duration;

use clap::Args;
use shardgate_proto::admin::admin_client::AdminClient;
use tonic::transport::{Certificate, Channel, ClientTlsConfig, Endpoint, Identity};

/// How long a node may take to accept, to answer what is not streamed, and to show that it is there while something is.
const PATIENCE: Duration = Duration::from_secs(5);

/// Where a node listens by default.
const USUAL: &str = "127.0.0.1:8405";

/// Whom to ask, and how.
#[derive(Debug, Clone, Args)]
#[command(
    next_help_heading = "Nodes (status, table, conferences, node, shard, release drain, sessions, override-readiness)"
)]
pub(crate) struct Nodes {
    /// A node's admin listener, HOST:PORT or unix:PATH (default: 127.0.0.1:8405); repeat it to ask several. One that serves "status"
    /// answers questions, one that serves "admin" takes orders as well. `shard` without it speaks to Consul.
    #[arg(long = "node", value_name = "ADDRESS", global = true)]
    nodes: Vec<String>,
    /// Speak TLS with nodes whose certificates this CA has signed (PEM).
    #[arg(long, value_name = "FILE", global = true, requires_all = ["tls_cert", "tls_key"])]
    tls_ca: Option<PathBuf>,
    /// Your certificate, by which the nodes know you.
    #[arg(long, value_name = "FILE", global = true, requires = "tls_ca")]
    tls_cert: Option<PathBuf>,
    /// Its key.
    #[arg(long, value_name = "FILE", global = true, requires = "tls_ca")]
    tls_key: Option<PathBuf>,
    /// The name in the nodes' certificates, when it is not HOST.
    #[arg(long, value_name = "NAME", global = true, requires = "tls_ca")]
    tls_name: Option<String>,
}

/// Why a node could not be asked.
#[derive(Debug, thiserror::Error)]
pub(crate) enum AskError {
    /// The address is none.
    #[error("--node {address:?} is not valid, expected HOST:PORT or unix:PATH of a node's admin listener")]
    Address {
        /// What was given.
        address: String,
    },
    /// A file cannot be read.
    #[error("--{option} {}: {source}", path.display())]
    File {
        /// `tls-ca`, `tls-cert` or `tls-key`.
        option: &'static str,
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// Certificate and key are none, or do not fit.
    #[error("--tls-ca, --tls-cert and --tls-key are not usable: {}", root(source))]
    Tls {
        /// Why.
        source: tonic::transport::Error,
    },
    /// It cannot be reached.
    #[error("node {address}: {}", root(source))]
    Unreachable {
        /// Its address.
        address: String,
        /// Why.
        source: tonic::transport::Error,
    },
    /// It answered with an error.
    #[error("node {address}: {}", status.message())]
    Refused {
        /// Its address.
        address: String,
        /// What it said.
        status: Box<tonic::Status>,
    },
}

impl AskError {
    pub(crate) fn hint(&self) -> Option<&'static str> {
        match self {
            Self::Address { .. } => Some("--node 127.0.0.1:8405 is where a node listens by default"),
            Self::Unreachable { .. } => Some(
                "is it running, and does one of its [[admin]] listeners serve \"status\" or \"admin\"? One with TLS wants --tls-ca, --tls-cert and --tls-key",
            ),
            Self::Refused { status, .. } if status.code() == tonic::Code::PermissionDenied => Some(
                "such as --node unix:/run/shardgate/admin.sock; ops/config/shardgate.example.toml shows how to set one up",
            ),
            Self::File { .. } | Self::Tls { .. } | Self::Refused { .. } => None,
        }
    }
}

/// The cause that says most: the innermost.
fn root(error: &tonic::transport::Error) -> String {
    let mut cause: &dyn std::error::Error = error;
    while let Some(source) = cause.source() {
        cause = source;
    }
    cause.to_string()
}

/// Nothing is waited for longer than that, twice that in the middle of a stream: the time for an answer ends with its head, so whoever has
/// said nothing for a while has to answer a ping.
fn patient(endpoint: Endpoint, patience: Duration) -> Endpoint {
    endpoint
        .connect_timeout(patience)
        .timeout(patience)
        .http2_keep_alive_interval(patience)
        .keep_alive_timeout(patience)
        .keep_alive_while_idle(true)
}

/// A node and how to ask it.
#[derive(Debug, Clone)]
pub(crate) struct Node {
    pub(crate) address: String,
    pub(crate) client: AdminClient<Channel>,
}

impl Nodes {
    /// Where they are, in the order in which they were named; at least one.
    pub(crate) fn addresses(&self) -> Vec<&str> {
        self.named().unwrap_or_else(|| vec![USUAL])
    }

    /// Those that were named, if any were.
    pub(crate) fn named(&self) -> Option<Vec<&str>> {
        (!self.nodes.is_empty()).then(|| self.nodes.iter().map(String::as_str).collect())
    }

    /// Connects to one of them.
    pub(crate) async fn connect(&self, address: &str) -> Result<Node, AskError> {
        let not_valid = |_| AskError::Address { address: address.to_owned() };
        let endpoint = match (address.strip_prefix("unix:"), self.tls()?) {
            (Some(_), _) => Endpoint::from_shared(address.to_owned()).map_err(not_valid)?,
            (None, None) => Endpoint::from_shared(format!("http://{address}")).map_err(not_valid)?,
            (None, Some(tls)) => {
                let endpoint = Endpoint::from_shared(format!("https://{address}")).map_err(not_valid)?;
                endpoint.tls_config(tls).map_err(|source| AskError::Tls { source })?
            }
        };
        let channel = patient(endpoint, PATIENCE)
            .connect()
            .await
            .map_err(|source| AskError::Unreachable { address: address.to_owned(), source })?;
        Ok(Node { address: address.to_owned(), client: AdminClient::new(channel) })
    }

    /// Whether they are spoken to with TLS.
    pub(crate) const fn with_tls(&self) -> bool {
        self.tls_ca.is_some()
    }

    fn tls(&self) -> Result<Option<ClientTlsConfig>, AskError> {
        let (Some(ca), Some(cert), Some(key)) = (&self.tls_ca, &self.tls_cert, &self.tls_key) else {
            return Ok(None);
        };
        let read = |option, path: &PathBuf| {
            std::fs::read(path).map_err(|source| AskError::File { option, path: path.clone(), source })
        };
        let tls = ClientTlsConfig::new()
            .timeout(PATIENCE)
            .ca_certificate(Certificate::from_pem(read("tls-ca", ca)?))
            .identity(Identity::from_pem(read("tls-cert", cert)?, read("tls-key", key)?));
        Ok(Some(self.tls_name.iter().fold(tls, |tls, name| tls.domain_name(name))))
    }
}

impl Node {
    pub(crate) fn refused(&self) -> impl Fn(tonic::Status) -> AskError + use<> {
        let address = self.address.clone();
        move |status| AskError::Refused { address: address.clone(), status: Box::new(status) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use shardgate_proto::admin::ConferencesRequest;
    use std::net::SocketAddr;
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio::net::{TcpListener, TcpStream};

    /// An answer's head, and not a word more: SETTINGS, then HEADERS with status 200 and a content type.
    const HEAD: &[u8] = b"\0\0\0\x04\0\0\0\0\0\0\0\x13\x01\x04\0\0\0\x01\x88\x5f\x10application/grpc";

    /// Reads up to the request, begins to answer, and stops as a process does that is stopped.
    async fn begins_to_answer(mut stream: TcpStream) -> std::io::Result<()> {
        stream.read_exact(&mut [0; b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".len()]).await?;
        loop {
            let mut head = [0; 9];
            stream.read_exact(&mut head).await?;
            let [a, b, c, kind, ..] = head;
            stream.read_exact(&mut vec![0; u32::from_be_bytes([0, a, b, c]) as usize]).await?;
            if kind == 1 {
                stream.write_all(HEAD).await?;
                std::future::pending::<()>().await;
            }
        }
    }

    #[tokio::test]
    async fn a_node_that_stops_in_the_middle_is_given_up() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address: SocketAddr = listener.local_addr().unwrap();
        tokio::spawn(async move { begins_to_answer(listener.accept().await?.0).await });
        let endpoint = Endpoint::from_shared(format!("http://{address}")).unwrap();
        let channel = patient(endpoint, Duration::from_millis(200)).connect().await.unwrap();
        let answer = AdminClient::new(channel).conferences(ConferencesRequest::default()).await;
        let mut rows = answer.unwrap().into_inner();
        let row = tokio::time::timeout(Duration::from_secs(20), rows.message()).await;
        assert!(row.expect("it does not wait for ever").is_err());
    }
}
