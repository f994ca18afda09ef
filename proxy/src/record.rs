//! What is known of one request, until it is logged and counted: exactly once, when its record is dropped, whatever happened.

use crate::access_log::{End, From, Line, Request, Size, Timers};
use crate::client::{Carrier, Client};
use crate::clock::Millis;
use crate::limits::ShardPlace;
use crate::rescue::{COMPLETE, Failure, Reader, Termination};
use crate::route::{Topology, Why};
use crate::rule::Fired;
use crate::sessions::BoshId;
use crate::trust::forwarded_proto;
use crate::worker::{ForwardedProto, Settings, Worker};
use http::{HeaderMap, HeaderValue, Method, StatusCode, Uri};
use shardgate_discovery::Shard;
use shardgate_peering_core::PeerId;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;

/// One request from its head to the end of its answer.
pub(crate) struct Record {
    pub(crate) worker: Rc<Worker>,
    /// What the configuration said when the request came; it holds to its end.
    pub(crate) settings: Rc<Settings>,
    pub(crate) client: Rc<Client>,
    /// What was known when it was decided where the request goes; `None` once it is answered.
    pub(crate) seen: Option<Rc<Topology>>,
    pub(crate) method: Method,
    pub(crate) target: Uri,
    /// Whose request it is, which is not the connection's peer where that is a trusted proxy.
    pub(crate) sender: SocketAddr,
    /// How the client speaks to the first proxy that it meets.
    pub(crate) proto: ForwardedProto,
    /// Its name in all logs.
    pub(crate) id: Option<HeaderValue>,
    pub(crate) shard: Option<Arc<Shard>>,
    /// The peer that the request goes by.
    pub(crate) via: Option<PeerId>,
    pub(crate) why: Option<Why>,
    /// The rules that matched, of all attempts.
    pub(crate) fired: Fired,
    pub(crate) termination: Termination,
    pub(crate) retries: u32,
    pub(crate) bytes: u64,
    pub(crate) timers: Timers,
    /// At the shard, until the answer is complete; a tunnel takes it along.
    pub(crate) shard_place: Option<ShardPlace>,
    /// Who reads the answer.
    pub(crate) reader: Reader,
    /// The BOSH session that it is a request of.
    pub(crate) bosh: Option<BoshId>,
    status: Option<StatusCode>,
    began: Millis,
}

impl Record {
    /// The head is complete.
    pub(crate) fn begin(
        worker: &Rc<Worker>,
        client: &Rc<Client>,
        method: Method,
        target: Uri,
        headers: &HeaderMap,
    ) -> Box<Self> {
        let (origin, settings) = (&client.origin, worker.settings());
        let proto = forwarded_proto(origin.standing, headers);
        let now = worker.clock.exact();
        let began = client.begin_answer(now);
        worker.counters.requests.up();
        Box::new(Self {
            worker: Rc::clone(worker),
            client: Rc::clone(client),
            seen: None,
            method,
            target,
            sender: origin.sender(headers, &settings.trust),
            proto: proto.unwrap_or(origin.frontend.forwarded_proto),
            id: worker.names.name(settings.request_ids, headers),
            settings,
            shard: None,
            via: None,
            why: None,
            fired: Fired::default(),
            // Until the answer's head is there: whoever drops the record before is the client.
            termination: *b"CH",
            retries: 0,
            bytes: 0,
            timers: Timers { head: now - began, ..Timers::default() },
            shard_place: None,
            reader: Reader::Program,
            bosh: None,
            status: None,
            began,
        })
    }

    /// A shard's answer has come.
    pub(crate) fn answered(&mut self, status: StatusCode) {
        self.status = Some(status);
        self.termination = COMPLETE;
    }

    /// The answer is ours.
    pub(crate) fn failed(&mut self, failure: &Failure) {
        self.status = Some(failure.status());
        self.termination = failure.termination();
        if let Some(id) = self.bosh.take() {
            self.worker.poll_fails(id);
        }
        if matches!(failure, Failure::Elsewhere(_)) {
            self.worker.counters.https_redirects.up();
        } else {
            self.worker.counters.rescues.up();
        }
    }

    pub(crate) fn elapsed(&self) -> Millis {
        self.worker.clock.exact() - self.began
    }

    /// Until the request is over its client hears when the shard goes down that it is on. What goes by a peer does not end because this node
    /// does not reach the shard.
    pub(crate) fn awaits_shard(&self) {
        let direct = self.shard.as_ref().filter(|_| self.via.is_none());
        self.client.awaits(direct.map(|shard| &shard.name));
    }

    /// It is decided by this where the request goes.
    pub(crate) fn sees(&mut self, topology: Rc<Topology>) -> Rc<Topology> {
        Rc::clone(self.seen.insert(topology))
    }

    /// Whether the shard went down since it was decided to go there, and what runs on it is to end: whoever waited for something else was not told.
    pub(crate) fn has_ended(&self) -> bool {
        let direct = self.shard.as_ref().filter(|_| self.via.is_none());
        let seen = direct.zip(self.seen.as_ref());
        seen.is_some_and(|(shard, seen)| self.worker.has_ended(&shard.name, seen))
    }
}

impl Drop for Record {
    fn drop(&mut self) {
        self.client.awaits(None);
        self.client.polls(None);
        self.client.sets_out();
        let now = self.worker.clock.exact();
        self.timers.all = now.saturating_sub(self.began);
        self.client.end_answer(self.worker.clock.coarse());
        if let Some(id) = self.bosh {
            self.worker.poll_ends(id);
        }
        let counters = &self.worker.counters;
        let status = self.status.map_or(0, |status| status.as_u16());
        counters.responses[usize::from(status / 100).min(5)].up();
        match self.termination {
            [b'C', b'H' | b'D'] => {
                counters.client_aborts.up();
                if let Carrier::Stream(stream) = &self.client.carrier {
                    stream.aborted();
                }
            }
            [b'S', b'D'] => counters.shard_aborts.up(),
            _ => {}
        }
        if self.via.is_some() {
            counters.requests_relayed.up();
        }
        if let Some(why) = self.why {
            counters.decisions[why as usize].up();
        }
        let id = self.id.as_ref().and_then(|id| id.to_str().ok());
        // Room names are personal: at debug level only.
        tracing::debug!(
            client = %self.sender,
            id = id.unwrap_or("-"),
            method = %self.method,
            target = %self.target,
            status,
            shard = self.shard.as_ref().map_or("-", |shard| shard.name.as_str()),
            via = self.via.as_ref().map_or("-", PeerId::as_str),
            why = self.why.map_or("-", Why::as_str),
            rules = %self.fired,
            "request"
        );
        self.worker.log(&Line {
            from: From {
                client: self.sender,
                frontend: &self.client.origin.frontend.name,
                at: self.worker.clock.wall(self.began),
            },
            shard: self.shard.as_deref(),
            via: self.via.as_ref(),
            timers: self.timers,
            end: End { status, termination: self.termination },
            size: Size::Body(self.bytes),
            why: self.why.map_or("-", Why::as_str),
            retries: self.retries,
            request: Request::Http(&self.method, &self.target),
            id,
        });
    }
}
