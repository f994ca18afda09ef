//! What a message or an input says about keys: the only place of the simulation that knows the kinds of messages.

use shardgate_peering_core::{ClaimResult, Entry, Input, Item, Message, StickKey};

/// Tells every key that a message speaks of, with the entry if it carries one.
pub(super) fn each_in_message<'m>(
    message: &'m Message,
    tell: &mut impl FnMut(&'m StickKey, Option<&'m Entry>),
) {
    match message {
        Message::Update(update) => {
            for item in &update.items {
                tell(&item.key, item.entry.as_ref());
            }
        }
        Message::Correction { items } => {
            for item in items {
                tell(&item.key, item.entry.as_ref());
            }
        }
        Message::ResyncChunk(chunk) => {
            for item in &chunk.items {
                tell(&item.key, item.entry.as_ref());
            }
        }
        Message::Claim(claim) => tell(&claim.key, claim.known.as_ref().map(|(entry, _)| entry)),
        Message::ClaimAnswer(answer) => {
            let entry = if let ClaimResult::Entry(entry, _) = &answer.result { Some(entry) } else { None };
            tell(&answer.key, entry);
        }
        Message::LeaseReport(report) => {
            for (key, _) in &report.leases {
                tell(key, None);
            }
        }
        Message::Hello(_) | Message::Heartbeat { .. } | Message::Ack { .. } | Message::ResyncAck { .. } => {}
    }
}

/// The same for an input.
pub(super) fn each_in_input<'i>(input: &'i Input, tell: &mut impl FnMut(&'i StickKey, Option<&'i Entry>)) {
    match input {
        Input::Claim { key, .. }
        | Input::Touch { key }
        | Input::SessionOpened { key, .. }
        | Input::SessionClosed { key, .. } => tell(key, None),
        Input::Received { message, .. } => each_in_message(message, tell),
        Input::PeersChanged { .. }
        | Input::PeerConnected { .. }
        | Input::PeerLost { .. }
        | Input::DialFailed { .. }
        | Input::RoundTrip { .. }
        | Input::Timeout => {}
    }
}

/// A message that tells an entry with a lifetime beyond all reason.
#[must_use]
pub(super) fn damaged_lifetime(key: StickKey, entry: Entry) -> Message {
    Message::Correction { items: vec![Item { key, entry: Some(entry), remaining_ms: u64::MAX }] }
}
