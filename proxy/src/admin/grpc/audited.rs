//! Orders: taken where they may be given, and written down with what became of them.

use std::time::SystemTime;

use shardgate_proto::admin as wire;
use tonic::{Request, Response, Status};

use super::super::Access;
use super::super::audit::{AuditLog, Caller, Deed, Fields, Outcome};
use super::Service;

/// Something that is ordered, as the audit log tells it.
pub(super) trait Order: Send + 'static {
    /// The procedure's name.
    const NAME: &'static str;
    /// How it comes.
    const COMES: Comes = Comes::Alone;
    /// Its answer.
    type Answer: Send + 'static;

    /// What it says.
    fn arguments(&self) -> Fields;

    /// What is answered.
    fn answer(answer: &Self::Answer) -> Fields;
}

/// How orders of a kind come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Comes {
    /// One by one, each given by somebody.
    Alone,
    /// By the million, a file of them: only those are told that changed something.
    InMasses {
        /// The outcome of such.
        done: &'static str,
    },
}

impl Comes {
    fn is_told(self, answer: &Fields) -> bool {
        match self {
            Self::Alone => true,
            Self::InMasses { done } => answer.0.iter().any(|(name, said)| *name == "outcome" && said == done),
        }
    }
}

/// An order under way. Whoever gave it may go before it is answered, and then it is told nevertheless.
struct UnderWay<'a> {
    log: &'a AuditLog,
    at: SystemTime,
    caller: Caller,
    name: &'static str,
    arguments: Fields,
    /// Nothing was said of its end yet.
    open: bool,
}

impl UnderWay<'_> {
    fn ends(&mut self, outcome: Outcome<'_>) {
        if std::mem::take(&mut self.open) {
            let deed = Deed { arguments: &self.arguments, outcome };
            self.log.write(self.at, &self.caller, self.name, &deed);
        }
    }
}

impl Drop for UnderWay<'_> {
    fn drop(&mut self) {
        self.ends(Outcome::Left);
    }
}

impl Service {
    /// Takes an order where orders are taken.
    pub(super) async fn audited<O: Order, F: Future<Output = Result<O::Answer, Status>> + Send>(
        &self,
        request: Request<O>,
        carry_out: impl FnOnce(O) -> F + Send,
    ) -> Result<Response<O::Answer>, Status> {
        let caller = Caller::of(&request, &self.listen);
        let order = request.into_inner();
        let mut under_way = UnderWay {
            log: &self.parts.audit,
            at: SystemTime::now(),
            caller,
            name: O::NAME,
            arguments: order.arguments(),
            open: true,
        };
        let done = match self.may_order(&under_way, O::COMES) {
            Ok(()) => carry_out(order).await,
            Err(refused) => Err(refused),
        };
        match &done {
            Ok(answer) => {
                let answer = O::answer(answer);
                if O::COMES.is_told(&answer) {
                    under_way.ends(Outcome::Answered(answer));
                }
            }
            Err(status) => under_way.ends(Outcome::Refused(status.message())),
        }
        // What is not told has ended, too.
        under_way.open = false;
        done.map(Response::new)
    }

    /// Names of rooms are told at debug level alone, and in the audit log.
    fn may_order(&self, order: &UnderWay<'_>, comes: Comes) -> Result<(), Status> {
        match self.access {
            Access::Orders => {
                if comes == Comes::Alone {
                    tracing::info!(kind = order.name, "an operator orders");
                }
                tracing::debug!(kind = order.name, order = ?order.arguments, "an operator's order");
                Ok(())
            }
            Access::Questions | Access::None => Err(Status::permission_denied(
                "this listener answers questions only, expected one that serves \"admin\" for an order",
            )),
        }
    }
}

impl Order for wire::CloseTunnelsRequest {
    const NAME: &'static str = "close_tunnels";
    type Answer = wire::CloseTunnelsResponse;

    fn arguments(&self) -> Fields {
        use wire::close_tunnels_request::Which;
        match &self.which {
            Some(Which::Key(key)) => Fields::of(&[("key", key)]),
            Some(Which::Shard(shard)) => Fields::of(&[("shard", shard)]),
            None => Fields::default(),
        }
    }

    fn answer(answer: &Self::Answer) -> Fields {
        Fields::of(&[("closed", &answer.closed)])
    }
}

impl Order for wire::ClearRequest {
    const NAME: &'static str = "clear";
    type Answer = wire::ClearResponse;

    fn arguments(&self) -> Fields {
        Fields::of(&[("key", &self.key)])
    }

    fn answer(answer: &Self::Answer) -> Fields {
        Fields::of(&[("outcome", &answer.outcome)])
    }
}

impl Order for wire::SetEntryRequest {
    const NAME: &'static str = "set_entry";
    type Answer = wire::SetEntryResponse;

    fn arguments(&self) -> Fields {
        Fields::of(&[("key", &self.key), ("shard", &self.shard)])
    }

    fn answer(answer: &Self::Answer) -> Fields {
        Fields::of(&[("outcome", &answer.outcome), ("shard", &answer.shard)])
    }
}

impl Order for wire::OrderShardRequest {
    const NAME: &'static str = "order_shard";
    type Answer = wire::OrderShardResponse;

    fn arguments(&self) -> Fields {
        use wire::order_shard_request::Order;
        match &self.order {
            Some(Order::State(state)) => Fields::of(&[("shard", &self.shard), ("state", state)]),
            Some(Order::Weight(weight)) => Fields::of(&[("shard", &self.shard), ("weight", weight)]),
            Some(Order::SourceWeight(_)) => Fields::of(&[("shard", &self.shard), ("weight", &"source")]),
            None => Fields::of(&[("shard", &self.shard)]),
        }
    }

    fn answer(answer: &Self::Answer) -> Fields {
        Fields::of(&[("state", &answer.state), ("weight", &answer.weight)])
    }
}

impl Order for wire::OverrideReadinessRequest {
    const NAME: &'static str = "override_readiness";
    type Answer = wire::OverrideReadinessResponse;

    fn arguments(&self) -> Fields {
        Fields::default()
    }

    fn answer(_: &Self::Answer) -> Fields {
        Fields::default()
    }
}

impl Order for wire::OrderNodeRequest {
    const NAME: &'static str = "order_node";
    type Answer = wire::OrderNodeResponse;

    fn arguments(&self) -> Fields {
        Fields::of(&[("state", &self.state)])
    }

    fn answer(answer: &Self::Answer) -> Fields {
        Fields::of(&[("state", &answer.state)])
    }
}

impl Order for wire::RestoreEntryRequest {
    const NAME: &'static str = "restore_entry";
    const COMES: Comes = Comes::InMasses { done: "restored" };
    type Answer = wire::RestoreEntryResponse;

    fn arguments(&self) -> Fields {
        Fields::of(&[("key", &self.key), ("shard", &self.shard), ("created_ms", &self.created_ms)])
    }

    fn answer(answer: &Self::Answer) -> Fields {
        let wire::RestoreEntryResponse { outcome, shard, why } = answer;
        Fields::of(&[("outcome", outcome), ("shard", shard), ("why", why)])
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::log_writer::{LogKind, LogTarget, LogWriter};

    #[tokio::test]
    async fn an_order_is_told_once_however_it_ends() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("audit.log");
        let writer = LogWriter::start(LogKind::Audit, &LogTarget::File(path.clone())).unwrap();
        let log = AuditLog::new("a", &writer);
        let begun = || UnderWay {
            log: &log,
            at: SystemTime::now(),
            caller: Caller::Anybody { from: "-".to_owned() },
            name: "clear",
            arguments: Fields::default(),
            open: true,
        };
        drop(begun());
        begun().ends(Outcome::Refused("no"));
        begun().open = false;
        log.close();
        writer.finish().await;
        let text = std::fs::read_to_string(path).unwrap();
        let ends: Vec<bool> = text.lines().map(|line| line.contains("\"result\":\"left\"")).collect();
        assert_eq!(ends, [true, false], "whoever left may have been obeyed: {text}");
    }

    #[test]
    fn what_comes_in_masses_is_told_where_it_changed_something() {
        let answer = |outcome: &str| Fields::of(&[("outcome", &outcome)]);
        let masses = <wire::RestoreEntryRequest as Order>::COMES;
        assert_eq!(
            ["restored", "kept", "overtaken"].map(|outcome| masses.is_told(&answer(outcome))),
            [true, false, false]
        );
        assert!(<wire::ClearRequest as Order>::COMES.is_told(&answer("held")));
    }
}
