//! What a message or an input says about keys: the only place of the simulation that knows the kinds of messages.

use shardgate_peering_core::{Change, ClaimResult, Entry, Input, Item, Message, StickKey};

fn each_item<'m>(items: &'m [Item], tell: &mut impl FnMut(&'m StickKey, Option<&'m Entry>)) {
    for item in items {
        let entry = if let Change::Entry(entry) = &item.change { Some(entry) } else { None };
        tell(&item.key, entry);
    }
}

/// Tells every key that a message speaks of, with the entry if it carries one.
pub(super) fn each_in_message<'m>(
    message: &'m Message,
    tell: &mut impl FnMut(&'m StickKey, Option<&'m Entry>),
) {
    match message {
        Message::Update(update) => each_item(&update.items, tell),
        Message::Correction { items } => each_item(items, tell),
        Message::Give(give) => each_item(&give.items, tell),
        Message::Claim(claim) => tell(&claim.key, claim.known.as_ref().map(|(entry, _)| entry)),
        Message::ClaimAnswer(answer) => {
            let entry = match &answer.result {
                ClaimResult::Entry(entry, _) | ClaimResult::Kept { entry, .. } => Some(entry),
                ClaimResult::Refused(_) => None,
            };
            tell(&answer.key, entry);
        }
        Message::LeaseReport(report) => {
            for lease in &report.leases {
                tell(&lease.key, None);
            }
        }
        Message::Dispute { items, .. } => items.iter().for_each(|item| tell(&item.key, Some(&item.entry))),
        Message::SessionsTold { items, .. } => items.iter().for_each(|(key, _)| tell(key, None)),
        Message::LeaseAsk { keys } | Message::SessionsAsk { keys, .. } | Message::PeopleMoved { keys } => {
            keys.iter().for_each(|key| tell(key, None));
        }
        Message::ProbeAsk { .. }
        | Message::ProbeAnswer { .. }
        | Message::Hello(_)
        | Message::Welcome(_)
        | Message::Heartbeat(_)
        | Message::Ack { .. }
        | Message::Compare(_)
        | Message::Compared(_)
        | Message::GiveAck { .. }
        | Message::Reconciled { .. } => {}
    }
}

/// The same for an input.
pub(super) fn each_in_input<'i>(input: &'i Input, tell: &mut impl FnMut(&'i StickKey, Option<&'i Entry>)) {
    match input {
        Input::Claim { key, .. }
        | Input::Clear { key, .. }
        | Input::Touch { key }
        | Input::SessionOpened { key, .. }
        | Input::SessionClosed { key, .. } => tell(key, None),
        Input::Received { message, .. } => each_in_message(message, tell),
        Input::PeersChanged { .. }
        | Input::PeerConnected { .. }
        | Input::PeerLost { .. }
        | Input::DialFailed { .. }
        | Input::RoundTrip { .. }
        | Input::Probed { .. }
        | Input::ReadyOverride
        | Input::Timeout => {}
    }
}

/// A message that tells an entry with a lifetime beyond all reason.
#[must_use]
pub(super) fn damaged_lifetime(key: StickKey, entry: Entry) -> Message {
    let item = Item { key, change: Change::Entry(entry), remaining_ms: u64::MAX, held: false };
    Message::Correction { items: vec![item] }
}

/// Whether nobody wants to see it in a trace.
pub(super) const fn is_dull(message: &Message) -> bool {
    matches!(message, Message::Heartbeat(_) | Message::Ack { .. } | Message::GiveAck { .. })
}
