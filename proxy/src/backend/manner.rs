//! How servers are spoken to, and what a connection to one is good for.

use crate::client::Origin;
use crate::config::{SendProxy, UpstreamConfig};
use crate::proxy_protocol::Addresses;
use crate::tls::{TlsError, UpstreamTls};
use http::Request;
use http::header::HOST;
use http::uri::Authority;
use rustls::pki_types::ServerName;
use shardgate_peering_core::{PeerId, ShardName};
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;

/// How the servers of one kind are spoken to.
#[derive(Debug, Clone, Default)]
pub(crate) struct Manner {
    pub(super) tls: Option<UpstreamTls>,
    send_proxy: SendProxy,
}

/// A file towards servers that is not usable.
#[derive(Debug, thiserror::Error)]
#[error("{section}: {fault}")]
pub struct MannerError {
    /// The section that names it: `backend` or `pools[2]`.
    pub section: String,
    /// What is wrong with it. No source: its words are in this error's.
    pub fault: TlsError,
}

/// How all servers are spoken to: plain HTTP, where nothing else is said.
#[derive(Debug, Clone, Default)]
pub struct Manners {
    shards: Arc<Manner>,
    pools: Vec<Arc<Manner>>,
}

impl Manners {
    /// Reads the files that the shards' and the pools' fields name; the pools in their order.
    ///
    /// # Errors
    /// [`MannerError`] of the first file that is not usable.
    pub fn load<'a>(
        shards: &UpstreamConfig,
        pools: impl IntoIterator<Item = &'a UpstreamConfig>,
    ) -> Result<Self, MannerError> {
        let manner = |section: String, config: &UpstreamConfig| match UpstreamTls::load(config) {
            Ok(tls) => Ok(Arc::new(Manner { tls, send_proxy: config.send_proxy })),
            Err(fault) => Err(MannerError { section, fault }),
        };
        let pools = pools.into_iter().enumerate();
        Ok(Self {
            shards: manner("backend".to_owned(), shards)?,
            pools: pools
                .map(|(index, config)| manner(format!("pools[{index}]"), config))
                .collect::<Result<_, MannerError>>()?,
        })
    }

    /// The same for one worker, which shares no sessions with the others.
    pub(crate) fn for_worker(&self) -> Self {
        let manner = |manner: &Arc<Manner>| {
            let tls = manner.tls.as_ref().map(UpstreamTls::for_worker);
            Arc::new(Manner { tls, send_proxy: manner.send_proxy })
        };
        Self { shards: manner(&self.shards), pools: self.pools.iter().map(manner).collect() }
    }

    /// How the servers of a pool are spoken to, or the shards.
    fn of(&self, pool: Option<usize>) -> &Arc<Manner> {
        pool.and_then(|index| self.pools.get(index)).unwrap_or(&self.shards)
    }

    /// What is spoken to the servers of a pool, or to the shards, by whoever checks them.
    pub(crate) fn spoken(&self, pool: Option<usize>) -> (Option<&UpstreamTls>, SendProxy) {
        let manner = self.of(pool);
        (manner.tls.as_ref(), manner.send_proxy)
    }

    /// Where a request to a server goes.
    pub(crate) fn destination<B>(
        &self,
        pool: Option<usize>,
        address: SocketAddr,
        request: &Request<B>,
        origin: &Origin,
    ) -> Destination {
        let manner = self.of(pool);
        let Manner { tls, send_proxy } = &**manner;
        let name = tls.as_ref().map(|tls| tls.name(host(request).as_deref(), address.ip()));
        let proxied = match send_proxy {
            SendProxy::Off => None,
            SendProxy::V2 => Some(origin.addresses()),
        };
        let plain = name.is_none() && proxied.is_none();
        let terms = || Rc::new(Terms { manner: Arc::clone(manner), name, proxied });
        Destination { address, terms: (!plain).then(terms), hop: None }
    }
}

/// The name, or address, of a request's host, without its port.
fn host<B>(request: &Request<B>) -> Option<String> {
    let header = || request.headers().get(HOST)?.to_str().ok()?.parse::<Authority>().ok();
    let authority = request.uri().authority().cloned().or_else(header)?;
    Some(authority.host().to_owned())
}

/// Where a connection leads and what it is good for.
#[derive(Debug, Clone)]
pub(crate) struct Destination {
    pub(crate) address: SocketAddr,
    pub(crate) terms: Option<Rc<Terms>>,
    pub(super) hop: Option<Rc<Hop>>,
}

/// A way by a peer. The address is the shard's as it is known here; the peer goes by the name.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Hop {
    pub(super) peer: PeerId,
    pub(super) shard: ShardName,
}

/// What a connection was begun with, and what all its requests have to be good with.
#[derive(Debug)]
pub(crate) struct Terms {
    pub(super) manner: Arc<Manner>,
    /// Over TLS, what was asked for.
    pub(super) name: Option<ServerName<'static>>,
    /// With a PROXY header, whose connection it passes on; `None` in it when the node does not know where it was accepted.
    pub(super) proxied: Option<Option<Addresses>>,
}

impl Destination {
    /// The same by way of a peer, if there is one.
    pub(crate) fn by_way_of(self, peer: Option<&PeerId>, shard: &ShardName) -> Self {
        let hop = peer.map(|peer| Rc::new(Hop { peer: peer.clone(), shard: shard.clone() }));
        Self { hop, ..self }
    }

    pub(crate) const fn is_direct(&self) -> bool {
        self.hop.is_none()
    }

    /// Whether a connection to the one is a connection to the other.
    pub(crate) fn is_served_by(&self, other: &Self) -> bool {
        let same = match (&self.terms, &other.terms) {
            // Most of them.
            (None, None) => true,
            // A changed configuration makes another manner, in which nothing was begun yet.
            (Some(ours), Some(theirs)) => {
                Arc::ptr_eq(&ours.manner, &theirs.manner)
                    && ours.name == theirs.name
                    && ours.proxied == theirs.proxied
            }
            (Some(_), None) | (None, Some(_)) => false,
        };
        same && self.address == other.address && self.hop == other.hop
    }
}
