//! Answers to the questions of a scenario: what is so now, at every node that runs.

use std::collections::BTreeMap;

use shardgate_peering_core::{Agreement, Entry, LinkState, Node, PeerId, PeerView, StickKey};

use crate::world::Seat;

use super::command::Lease;
use super::render::{names, seconds};
use super::stage::Stage;

/// The nodes that answer alike, in the order of the first of them.
fn alike<T: PartialEq>(answers: impl IntoIterator<Item = (PeerId, T)>) -> Vec<(Vec<PeerId>, T)> {
    let mut groups: Vec<(Vec<PeerId>, T)> = Vec::new();
    for (peer, answer) in answers {
        match groups.iter_mut().find(|(_, other)| *other == answer) {
            Some((peers, _)) => peers.push(peer),
            None => groups.push((vec![peer], answer)),
        }
    }
    groups
}

const fn link(state: LinkState) -> &'static str {
    match state {
        LinkState::Dialing => "dialling",
        LinkState::Down => "down",
        LinkState::Greeting => "greeting",
        LinkState::Learning => "learning",
        LinkState::Reconciled => "reconciled",
    }
}

/// What is there instead of agreement with a peer.
fn agreement(view: &PeerView) -> Option<&'static str> {
    match (view.link, view.agreement) {
        (LinkState::Reconciled | LinkState::Learning, Agreement::Agreed) => None,
        (LinkState::Reconciled | LinkState::Learning, Agreement::Disagreed) => Some("differs"),
        (LinkState::Reconciled | LinkState::Learning, Agreement::Unknown) => Some("not compared yet"),
        (LinkState::Dialing | LinkState::Down | LinkState::Greeting, _) => Some("not connected"),
    }
}

impl Stage {
    fn at_each<T>(&self, ask: impl Fn(Seat, &Node) -> T) -> Vec<(PeerId, T)> {
        self.running()
            .filter_map(|seat| {
                let node = self.world.node(seat)?;
                Some((self.world.name(seat).clone(), ask(seat, node)))
            })
            .collect()
    }

    /// The entry of a conference.
    #[must_use]
    pub(super) fn table(&self, name: &str, key: &StickKey, lease: Lease) -> Vec<String> {
        let text = |entry: &Entry, left_ms: u64| {
            let decided = self.scenario_time(entry.created.wall_ms());
            let entry = self.recorder.trace.render.entry(entry);
            let left = match lease {
                Lease::Shown => format!(", {}.{} s left", left_ms / 1_000, left_ms % 1_000 / 100),
                Lease::Hidden => String::new(),
            };
            format!("{entry}, decided at {decided}{left}")
        };
        let answers = self.at_each(|_, node| {
            node.entry(key).map_or_else(|| "nothing".to_owned(), |(entry, left_ms)| text(entry, left_ms))
        });
        alike(answers)
            .into_iter()
            .map(|(peers, answer)| format!("{name} at {}: {answer}", names(&peers)))
            .collect()
    }

    /// A stamp in the scenario's time, by the clock of whoever gave it.
    fn scenario_time(&self, wall_ms: u64) -> String {
        let (Some(true_ms), Some(stamp_ms)) =
            (i64::try_from(self.world.true_wall_ms()).ok(), i64::try_from(wall_ms).ok())
        else {
            return "never".to_owned();
        };
        let now_ms = i64::try_from(self.now_ms()).unwrap_or(0);
        let at = now_ms + stamp_ms - true_ms;
        format!("{}{}", if at < 0 { "-" } else { "" }, seconds(at.unsigned_abs()))
    }

    /// What a request would find.
    #[must_use]
    pub(super) fn lookup(&self, name: &str, key: &StickKey) -> Vec<String> {
        let answers = self
            .at_each(|_, node| node.lookup(key).map_or_else(|| "nothing".to_owned(), ToString::to_string));
        alike(answers)
            .into_iter()
            .map(|(peers, answer)| format!("a request for {name} at {} finds {answer}", names(&peers)))
            .collect()
    }

    /// Which tables are equal, and how long they are.
    #[must_use]
    pub(super) fn tables(&self) -> Vec<String> {
        let tables = self.at_each(|_, node| {
            let entries = node.entries(None, usize::MAX).into_iter().map(|(key, entry, _)| (key, entry));
            let mut live: Vec<(StickKey, Entry)> =
                entries.filter(|(_, entry)| !entry.is_tombstone()).collect();
            live.sort_by(|(a, _), (b, _)| a.cmp(b));
            live
        });
        let groups = alike(tables);
        let equal = if groups.len() == 1 { "equal tables" } else { "its own table" };
        groups
            .into_iter()
            .map(|(peers, live)| {
                let which = if peers.len() > 1 { "equal tables" } else { equal };
                let rooms = if live.len() == 1 { "room" } else { "rooms" };
                format!("{}: {which}, {} {rooms}", names(&peers), live.len())
            })
            .collect()
    }

    /// How a node sees its peers.
    #[must_use]
    pub(super) fn peers(&self, seat: Seat) -> Vec<String> {
        let Some(node) = self.world.node(seat) else { return vec!["it does not run".to_owned()] };
        let name = self.world.name(seat);
        let lines: Vec<String> = node
            .peers()
            .map(|(peer, view)| {
                let ready = if view.ready { ", ready" } else { "" };
                let suspect = if view.suspect { ", suspect" } else { "" };
                format!(
                    "{name} sees {peer}: {}{ready}{suspect}, {} updates behind",
                    link(view.link),
                    view.behind
                )
            })
            .collect();
        if lines.is_empty() { vec![format!("{name} sees nobody")] } else { lines }
    }

    /// A counter at each node. `Err`: the counters that there are.
    ///
    /// # Errors
    /// The names of all counters when there is none of this name.
    pub(super) fn stat(&self, field: &str) -> Result<String, String> {
        let mut known = BTreeMap::new();
        let mut found = Vec::new();
        for (peer, counters) in self.at_each(|_, node| counters(node)) {
            if let Some(number) = counters.get(field)
                && *number > 0
            {
                found.push(format!("{peer} {number}"));
            }
            known = counters;
        }
        if !known.contains_key(field) {
            return Err(known.into_keys().collect::<Vec<_>>().join(" "));
        }
        let found = if found.is_empty() { "0 everywhere".to_owned() } else { found.join(", ") };
        Ok(format!("{field}: {found}"))
    }

    /// With whom each node is not in agreement.
    #[must_use]
    pub(super) fn agreement(&self) -> Vec<String> {
        let answers = self.at_each(|_, node| {
            let others: Vec<String> = node
                .peers()
                .filter_map(|(peer, view)| agreement(&view).map(|state| format!("{peer} {state}")))
                .collect();
            others
        });
        alike(answers)
            .into_iter()
            .map(|(peers, others)| {
                let peers = names(&peers);
                if others.is_empty() {
                    format!("{peers}: in agreement with every peer")
                } else {
                    format!("{peers}: not in agreement: {}", others.join(", "))
                }
            })
            .collect()
    }

    /// Whether every running node agrees with every running peer that it lists.
    #[must_use]
    pub(super) fn all_agree(&self) -> bool {
        self.at_each(|_, node| {
            node.peers().all(|(peer, view)| {
                let runs = self.world.seat_of(peer).is_some_and(|seat| self.world.node(seat).is_some());
                !runs || agreement(&view).is_none()
            })
        })
        .into_iter()
        .all(|(_, agrees)| agrees)
    }

    /// Which nodes are ready.
    #[must_use]
    pub(super) fn readiness(&self) -> Vec<String> {
        alike(self.at_each(|seat, _| self.world.is_ready(seat)))
            .into_iter()
            .map(|(peers, ready)| format!("{}: {}", names(&peers), if ready { "ready" } else { "not ready" }))
            .collect()
    }
}

/// The counters of a node by their names, as its `Debug` gives them: a new counter needs no word here.
fn counters(node: &Node) -> BTreeMap<String, u64> {
    let text = format!("{:?}", node.stats());
    let inner = text.split_once('{').map_or("", |(_, inner)| inner).trim_end_matches([' ', '}']);
    inner
        .split(", ")
        .filter_map(|field| {
            let (name, number) = field.trim().split_once(": ")?;
            Some((name.to_owned(), number.parse().ok()?))
        })
        .collect()
}
