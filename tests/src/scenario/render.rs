//! Inputs, messages and outputs in the words of a trace.

use std::collections::BTreeMap;

use shardgate_peering_core::{
    Change, Claim, ClaimAnswer, ClaimReason, ClaimRefusal, ClaimResult, ClaimToken, Claimed, Disputed, Entry,
    Heartbeat, Hello, Input, Item, Lease, Message, PeerId, Rank, Reached, Readiness, Reason, ShardName,
    StickKey, TimeoutReason, Unstored, Verdict, Welcome, Why,
};

use super::reconciliation;

/// What is needed to name things shortly.
#[derive(Debug, Default)]
pub(super) struct Render {
    /// Short names of conferences.
    pub(super) short: BTreeMap<StickKey, String>,
    /// A remaining time as long as this is not worth a word.
    pub(super) ttl_ms: u64,
}

/// Items shown of a list; of a longer one only their number.
const ITEMS_SHOWN: usize = 3;

/// A capacity that is not worth a word: the default.
const USUAL_CAPACITY: u64 = 1_000_000;

/// A length of time, in seconds.
#[must_use]
pub(super) fn seconds(ms: u64) -> String {
    if ms == u64::MAX { "ever".to_owned() } else { format!("{}.{:03}", ms / 1_000, ms % 1_000) }
}

/// Names with spaces between them.
pub(super) fn names<'n>(names: impl IntoIterator<Item = &'n PeerId>) -> String {
    names.into_iter().map(PeerId::as_str).collect::<Vec<_>>().join(" ")
}

/// An incarnation: the world numbers starts of processes in the upper bits, a node that starts anew in place counts in the lower ones.
fn start(incarnation: u64) -> String {
    let (process, in_place) = (incarnation >> 16, incarnation & 0xffff);
    match (process, in_place) {
        (0, _) => in_place.to_string(),
        (_, 0) => process.to_string(),
        (_, _) => format!("{process}+{in_place}"),
    }
}

const fn reason(reason: Reason) -> &'static str {
    match reason {
        Reason::Claim | Reason::End => "",
        Reason::Down => ", shard down",
        Reason::Operator => ", operator",
        Reason::Arbitration => ", verdict",
        Reason::Full => ", table full",
    }
}

const fn unstored(why: Unstored) -> &'static str {
    match why {
        Unstored::TableFull => "the table is full",
        Unstored::Overload => "too many claims",
        Unstored::NoHome => "no home answers",
        Unstored::Restarted => "this node starts anew",
        Unstored::Outranked => "its end stands against everything",
    }
}

const fn reached(reached: Reached) -> &'static str {
    match reached {
        Reached::Yes => "reached",
        Reached::No => "not reached",
    }
}

impl Render {
    /// A conference's short name.
    #[must_use]
    pub(super) fn key<'k>(&'k self, key: &'k StickKey) -> &'k str {
        self.short.get(key).map_or(key.as_str(), String::as_str)
    }

    /// An entry.
    #[must_use]
    pub(super) fn entry(&self, entry: &Entry) -> String {
        let place = entry.shard.as_ref().map_or("ended", |shard| shard.as_str());
        let rank = match entry.rank {
            Rank::Home => "home",
            Rank::Alone => "alone",
        };
        format!("{place} (g{}, {rank} {}{})", entry.generation, entry.origin, reason(entry.reason))
    }

    fn left(&self, entry: &Entry, remaining_ms: u64) -> String {
        let usual = if entry.is_tombstone() { 3 * self.ttl_ms } else { self.ttl_ms };
        if remaining_ms == usual { String::new() } else { format!(" for {}", seconds(remaining_ms)) }
    }

    fn item(&self, item: &Item) -> String {
        let key = self.key(&item.key);
        let held = if item.held { ", held" } else { "" };
        match &item.change {
            Change::Entry(entry) => {
                format!("{key} {}{}{held}", self.entry(entry), self.left(entry, item.remaining_ms))
            }
            Change::Renewed => format!("{key} renewed for {}{held}", seconds(item.remaining_ms)),
            Change::Dropped { .. } => format!("{key} dropped"),
        }
    }

    fn list(&self, items: &[Item]) -> String {
        if items.is_empty() {
            return "nothing".to_owned();
        }
        if items.len() > ITEMS_SHOWN {
            return format!("{} items", items.len());
        }
        items.iter().map(|item| self.item(item)).collect::<Vec<_>>().join("; ")
    }

    fn hello(&self, hello: &Hello) -> String {
        let Hello { contract, contract_oldest, incarnation, ready, capacity, resume } = hello;
        let ready = if *ready { "ready" } else { "not ready" };
        let resume = resume.map_or(String::new(), |resume| {
            format!(", has your updates (start {}) up to {}", start(resume.incarnation), resume.through)
        });
        let contracts = if (*contract_oldest, *contract) == (1, 1) {
            String::new()
        } else {
            format!(", speaks {contract_oldest} to {contract}")
        };
        let capacity =
            if *capacity == USUAL_CAPACITY { String::new() } else { format!(", takes {capacity} rooms") };
        let start = start(*incarnation);
        format!("hello: start {start}, {ready}{contracts}{capacity}{resume}")
    }

    fn claim(&self, claim: &Claim) -> String {
        let key = self.key(&claim.key);
        let to = claim.proposal.as_ref().map_or("nowhere", |proposal| proposal.as_str());
        let mut text = format!("claim {}: {key} to {to}", claim.id);
        match claim.reason {
            Reason::Claim => {}
            Reason::Down => {
                let failed = claim.failed.as_ref().map_or("?", |failed| failed.as_str());
                text.push_str(&format!(", {failed} is down"));
            }
            Reason::Operator | Reason::Arbitration | Reason::End | Reason::Full => {
                text.push_str(reason(claim.reason));
                if let Some(failed) = &claim.failed {
                    text.push_str(&format!(", {failed} may not be used"));
                }
            }
        }
        if let Some((entry, remaining_ms)) = &claim.known {
            text.push_str(&format!(", knows {}{}", self.entry(entry), self.left(entry, *remaining_ms)));
        }
        if let Some(tried) = &claim.tried {
            text.push_str(&format!(", {tried} did not answer"));
        }
        if claim.hops > 0 {
            text.push_str(", passed on");
        }
        text
    }

    fn claim_answer(&self, answer: &ClaimAnswer) -> String {
        let ClaimAnswer { id, key, result } = answer;
        let what = match result {
            ClaimResult::Entry(entry, remaining_ms) => {
                format!("{}{}", self.entry(entry), self.left(entry, *remaining_ms))
            }
            ClaimResult::Kept { entry, remaining_ms, via } => {
                let (entry, left) = (self.entry(entry), self.left(entry, *remaining_ms));
                format!("stays, {entry}{left}, reached by {}", names(via))
            }
            ClaimResult::Refused(ClaimRefusal::NotReady) => "refused, not ready".to_owned(),
            ClaimResult::Refused(ClaimRefusal::TableFull) => "refused, the table is full".to_owned(),
            ClaimResult::Refused(ClaimRefusal::Overload) => "refused, too many claims".to_owned(),
            ClaimResult::Refused(ClaimRefusal::Held) => "refused, it is held".to_owned(),
            ClaimResult::Refused(ClaimRefusal::NoEntry) => "refused, there is none".to_owned(),
            ClaimResult::Refused(ClaimRefusal::Outranked) => "refused, its end stands".to_owned(),
        };
        format!("answer {id}: {} {what}", self.key(key))
    }

    /// A message.
    #[must_use]
    pub(super) fn message(&self, message: &Message) -> String {
        match message {
            Message::Hello(hello) => self.hello(hello),
            Message::Welcome(Welcome { resumed: true, continues_after, .. }) => {
                format!("welcome: you continue, after {continues_after}")
            }
            Message::Welcome(Welcome { resumed: false, continues_after, .. }) => {
                format!("welcome: you reconcile, updates begin after {continues_after}")
            }
            Message::Heartbeat(Heartbeat { ready, .. }) => {
                format!("heartbeat, {}", if *ready { "ready" } else { "not ready" })
            }
            Message::Update(update) => format!("update {}: {}", update.through, self.list(&update.items)),
            Message::Ack { through } => format!("ack {through}"),
            Message::Correction { items } => format!("correction: {}", self.list(items)),
            Message::Claim(claim) => self.claim(claim),
            Message::ClaimAnswer(answer) => self.claim_answer(answer),
            Message::ProbeAsk { round, shard } => format!("round {round}: do you reach {shard}?"),
            Message::ProbeAnswer { round, shard, reached: outcome } => {
                format!("round {round}: {shard} is {}", reached(*outcome))
            }
            Message::Dispute { tried, items } => {
                let item = |item: &Disputed| {
                    format!(
                        "{} is {}, here are {}",
                        self.key(&item.key),
                        self.entry(&item.entry),
                        sides(&item.sessions)
                    )
                };
                let items = items.iter().map(item).collect::<Vec<_>>().join("; ");
                let tried = tried.as_ref().map(|tried| format!(", {tried} said nothing"));
                format!("dispute: {items}{}", tried.unwrap_or_default())
            }
            Message::SessionsAsk { number, keys } => {
                let keys: Vec<&str> = keys.iter().map(|key| self.key(key)).collect();
                format!("question {number}: how many people of {} are where?", keys.join(", "))
            }
            Message::SessionsTold { number, items } => {
                let item = |(key, on): &(StickKey, Vec<(ShardName, u64)>)| {
                    format!("{}: {}", self.key(key), sides(on))
                };
                let items: Vec<String> = items.iter().map(item).collect();
                format!(
                    "question {number}: {}",
                    if items.is_empty() { "none".to_owned() } else { items.join("; ") }
                )
            }
            Message::PeopleMoved { keys } => {
                let keys: Vec<&str> = keys.iter().map(|key| self.key(key)).collect();
                format!("the people of {} have moved", keys.join(", "))
            }
            Message::LeaseReport(report) => {
                let lease = |lease: &Lease| {
                    let held = if lease.held { ", held" } else { "" };
                    format!("{} for {}{held}", self.key(&lease.key), seconds(lease.remaining_ms))
                };
                let keys = if report.leases.len() > ITEMS_SHOWN {
                    format!("{} keys", report.leases.len())
                } else {
                    report.leases.iter().map(lease).collect::<Vec<_>>().join("; ")
                };
                format!("lease report: {keys}")
            }
            Message::LeaseAsk { keys } if keys.len() <= ITEMS_SHOWN => {
                let keys: Vec<&str> = keys.iter().map(|key| self.key(key)).collect();
                format!("does it still live: {}?", keys.join(", "))
            }
            Message::LeaseAsk { keys } => format!("do they still live: {} rooms?", keys.len()),
            Message::Compare(compare) => reconciliation::compare(compare),
            Message::Compared(compared) => reconciliation::compared(compared),
            Message::Give(give) => format!("give {}: {}", give.number, self.list(&give.items)),
            Message::GiveAck { number } => format!("give ack {number}"),
            Message::Reconciled { id } => format!("reconciled {id}"),
        }
    }

    /// Conferences that an input is about, if they are few.
    #[must_use]
    pub(super) fn keys(input: &Input) -> Vec<StickKey> {
        let items = |items: &[Item]| items.iter().map(|item| item.key.clone()).collect::<Vec<_>>();
        let keys = match input {
            Input::Claim { key, .. } | Input::Clear { key, .. } => vec![key.clone()],
            Input::Received { message, .. } => match message {
                Message::Update(update) => items(&update.items),
                Message::Correction { items: corrected } => items(corrected),
                Message::Give(give) => items(&give.items),
                Message::Claim(claim) => vec![claim.key.clone()],
                Message::ClaimAnswer(answer) => vec![answer.key.clone()],
                Message::Dispute { items, .. } => items.iter().map(|item| item.key.clone()).collect(),
                Message::SessionsAsk { keys, .. } | Message::PeopleMoved { keys } => keys.clone(),
                Message::Hello(_)
                | Message::Welcome(_)
                | Message::Heartbeat(_)
                | Message::Ack { .. }
                | Message::ProbeAsk { .. }
                | Message::ProbeAnswer { .. }
                | Message::SessionsTold { .. }
                | Message::LeaseReport(_)
                | Message::LeaseAsk { .. }
                | Message::Compare(_)
                | Message::Compared(_)
                | Message::GiveAck { .. }
                | Message::Reconciled { .. } => Vec::new(),
            },
            Input::Touch { .. }
            | Input::SessionOpened { .. }
            | Input::SessionClosed { .. }
            | Input::PeersChanged { .. }
            | Input::PeerConnected { .. }
            | Input::PeerLost { .. }
            | Input::DialFailed { .. }
            | Input::RoundTrip { .. }
            | Input::Probed { .. }
            | Input::ReadyOverride
            | Input::Timeout => Vec::new(),
        };
        if keys.len() > ITEMS_SHOWN { Vec::new() } else { keys }
    }

    /// What happened at a node. `None`: not worth a line by itself.
    #[must_use]
    pub(super) fn input(&self, input: &Input, due: TimeoutReason) -> Option<String> {
        Some(match input {
            Input::Claim { token: ClaimToken(token), key, proposal, reason } => {
                let key = self.key(key);
                match reason {
                    ClaimReason::Join => format!("#{token} joins {key}, proposes {proposal}"),
                    ClaimReason::Down { failed } => {
                        format!("#{token} cannot reach {failed} for {key}, proposes {proposal}")
                    }
                    ClaimReason::Maint { failed } => {
                        format!("#{token} may not use {failed} for {key}, proposes {proposal}")
                    }
                    ClaimReason::Operator => format!("#{token} sets {key} to {proposal}"),
                }
            }
            Input::Clear { token: ClaimToken(token), key } => format!("#{token} clears {}", self.key(key)),
            Input::ReadyOverride => "an operator declares it ready".to_owned(),
            Input::Touch { key } => format!("a request uses {}", self.key(key)),
            Input::SessionOpened { key, shard } => {
                format!("a tunnel of {} opens on {shard}", self.key(key))
            }
            Input::SessionClosed { key, shard } => {
                format!("a tunnel of {} closes on {shard}", self.key(key))
            }
            Input::PeersChanged { listed } => format!("discovery lists {}", names(listed)),
            Input::PeerConnected { peer } => format!("connected to {peer}"),
            Input::PeerLost { peer } => format!("lost {peer}"),
            Input::DialFailed { peer } => format!("cannot reach {peer}"),
            Input::Probed { reached: outcome, .. } => format!("its probe: {}", reached(*outcome)),
            Input::Received { peer, message } => format!("<- {peer}  {}", self.message(message)),
            Input::Timeout => match due {
                TimeoutReason::ClaimBudget => "(a home's budget is over)".to_owned(),
                TimeoutReason::Verdict => "(a round of probes is over)".to_owned(),
                TimeoutReason::Arbitration => "(a split brain is due)".to_owned(),
                TimeoutReason::LeaseReport => "(a lease report is due)".to_owned(),
                TimeoutReason::Expiry => "(a lease is over)".to_owned(),
                TimeoutReason::Flush => "(what waited for company goes out)".to_owned(),
                TimeoutReason::Heartbeat => "(heartbeat)".to_owned(),
                TimeoutReason::Readiness => {
                    "(all have heard that it is ready: it decides from now on)".to_owned()
                }
            },
            Input::RoundTrip { .. } => return None,
        })
    }

    /// What became of a split brain.
    #[must_use]
    pub(super) fn verdict(&self, verdict: &Verdict) -> String {
        let on: Vec<(ShardName, u64)> =
            verdict.sides.iter().map(|side| (side.shard.clone(), side.sessions)).collect();
        let why = match verdict.why {
            Why::MostSessions => "most are there",
            Why::Join => "as many are elsewhere",
            Why::Reached => "nobody reaches the others",
        };
        let winner = verdict.entry.shard.as_ref().map_or("-", ShardName::as_str);
        format!("decides that {} is on {winner}: {}, {why}", self.key(&verdict.key), sides(&on))
    }

    /// An answer to a client.
    #[must_use]
    pub(super) fn answer(&self, token: ClaimToken, claimed: &Claimed) -> String {
        let ClaimToken(token) = token;
        match claimed {
            Claimed::Stick { shard } => format!("#{token} is answered {shard}"),
            Claimed::Keep { shard, via } => {
                format!("#{token} is answered: it stays on {shard}, reached by {}", names(via))
            }
            Claimed::Cleared => format!("#{token} is answered: cleared"),
            Claimed::Held => format!("#{token} is answered: not cleared, it is held"),
            Claimed::Unstored { why } => format!("#{token} is answered: not stored, {}", unstored(*why)),
        }
    }

    /// Whether a node is ready.
    #[must_use]
    pub(super) fn readiness(&self, readiness: &Readiness) -> String {
        match readiness {
            Readiness::Ready { reconciled, unreachable } => {
                format!("ready: {reconciled} peers reconciled, {unreachable} unreachable")
            }
            Readiness::NotReady { waiting_for } => format!("not ready: waits for {}", names(waiting_for)),
            Readiness::NoPlace { peers_max } => {
                format!("not ready: left out of a mesh of at most {peers_max} peers each")
            }
        }
    }
}

/// How many people are on which shards.
fn sides(sides: &[(ShardName, u64)]) -> String {
    if sides.is_empty() {
        return "none".to_owned();
    }
    sides.iter().map(|(shard, count)| format!("{count} on {shard}")).collect::<Vec<_>>().join(", ")
}
