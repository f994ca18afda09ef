//! Whom discovery lists: who is talked to, who is let go, and who is left out of a mesh that is too large.

use alloc::vec::Vec;

use crate::id::PeerId;
use crate::node::Node;
use crate::output::{Output, Violation};
use crate::session::{LinkState, Session};
use crate::time::Now;

impl Node {
    /// Discovery lists these nodes now.
    pub(crate) fn peers_changed(&mut self, now: Now, listed: &[PeerId]) {
        let mut changed = !core::mem::replace(&mut self.peers_told, true);
        let me = self.config.me.clone();
        // Every node must leave out the same ones, itself among them.
        let mut others: Vec<PeerId> = listed.iter().chain([&me]).cloned().collect();
        others.sort();
        others.dedup();
        let most = self.config.peers_max + 1;
        self.stats.peers_beyond_max += others.len().saturating_sub(most) as u64;
        others.truncate(most);
        let has_place = others.contains(&me);
        if has_place {
            others.retain(|peer| *peer != me);
        } else {
            others.clear();
        }
        changed |= core::mem::replace(&mut self.has_place, has_place) != has_place;
        for peer in &others {
            let session = self.sessions.entry(peer.clone()).or_insert_with(Session::new);
            if !core::mem::replace(&mut session.listed, true) {
                session.listed_since = now.mono;
                changed = true;
            }
        }
        let gone: Vec<PeerId> = self
            .sessions
            .iter()
            .filter(|(peer, session)| session.listed && others.binary_search(peer).is_err())
            .map(|(peer, _)| peer.clone())
            .collect();
        changed |= !gone.is_empty();
        let ended_there = self.held_that_ends_at(&gone);
        for peer in gone {
            if let Some(session) = self.sessions.get_mut(&peer) {
                session.listed = false;
            }
            self.peer_lost(now, &peer);
            self.outputs.push_back(Output::Disconnect { peer, violation: Violation::NotListed });
        }
        if changed {
            self.listed_at = now.mono;
            self.mesh_has_changed(now);
        }
        // Others may have heard sooner that it is gone, and who ends them now must not wait for the next report.
        self.report_holds(now, ended_there);
        if !self.has_place {
            self.leave_mesh();
        }
    }

    /// There are more nodes than the mesh takes, and this one is of those left out: it decides nothing for others, takes no traffic, and
    /// learns anew when it has a place again.
    fn leave_mesh(&mut self) {
        self.ready = false;
        self.decides = false;
        for session in self.sessions.values_mut() {
            session.reconciled_once = false;
            session.dial_failed = false;
        }
    }

    /// A first full dial was in vain.
    pub(crate) fn dial_failed(&mut self, peer: &PeerId) {
        if let Some(session) = self.sessions.get_mut(peer)
            && matches!(session.link, LinkState::Dialing | LinkState::Down)
        {
            session.link = LinkState::Down;
            session.dial_failed = true;
        }
    }
}
