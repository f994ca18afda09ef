//! The connection to one node's admin API.

use std::time::Duration;

use shardgate_proto::admin::admin_client::AdminClient;
use tonic::transport::{Channel, Endpoint};

/// How long a node may take to accept, and to answer what is not streamed.
const PATIENCE: Duration = Duration::from_secs(5);

/// Why a node could not be asked.
#[derive(Debug, thiserror::Error)]
pub(crate) enum AskError {
    /// The address is none.
    #[error("--node {address:?} is not valid, expected HOST:PORT of a node's admin listener")]
    Address {
        /// What was given.
        address: String,
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
    pub(crate) const fn hint(&self) -> Option<&'static str> {
        match self {
            Self::Address { .. } => Some("--node 127.0.0.1:8405 is where a node listens by default"),
            Self::Unreachable { .. } => {
                Some("is it running, and does one of its [[admin]] listeners serve \"status\"?")
            }
            Self::Refused { .. } => None,
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

/// A node and how to ask it.
pub(crate) struct Node {
    pub(crate) address: String,
    pub(crate) client: AdminClient<Channel>,
}

impl Node {
    pub(crate) async fn connect(address: &str) -> Result<Self, AskError> {
        let endpoint = Endpoint::from_shared(format!("http://{address}"))
            .map_err(|_| AskError::Address { address: address.to_owned() })?
            .connect_timeout(PATIENCE);
        let channel = endpoint
            .connect()
            .await
            .map_err(|source| AskError::Unreachable { address: address.to_owned(), source })?;
        Ok(Self { address: address.to_owned(), client: AdminClient::new(channel) })
    }

    pub(crate) fn refused(&self) -> impl Fn(tonic::Status) -> AskError {
        let address = self.address.clone();
        move |status| AskError::Refused { address: address.clone(), status: Box::new(status) }
    }
}
