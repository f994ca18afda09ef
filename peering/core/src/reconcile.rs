//! Reconciliation with one peer: digests say whether two tables differ, questions and answers narrow down where, gifts end it.
//!
//! One side asks and holds all the state; the other one answers each question by itself. Per level of ranges there is one round
//! trip, and there are at most [`DEPTH_MAX`] levels; a table of a million entries needs four. Who has
//! few entries in a range lists them all instead, so a fresh node gets everything after one question.

use alloc::collections::{BTreeMap, BTreeSet};
use alloc::vec::Vec;

use crate::digest::{AsOf, DEPTH_MAX, FAN_OUT, RangeId};
use crate::give::{Giver, Tell, Tombstones, Which};
use crate::id::PeerId;
use crate::message::{
    Compare, CompareContent, ComparePart, Compared, ComparedContent, ComparedPart, Digest, Give, Heartbeat,
    Message,
};
use crate::node::Node;
use crate::output::Violation;
use crate::recent::Since;
use crate::session::{Agreement, LinkState};
use crate::table::Table;
use crate::time::{Instant, Now, Stamp, Wall};

/// A range with at most as many entries is listed, not divided.
const FEW: usize = 32;
/// Ranges in one question; of a longer one the rest is not answered.
const PARTS_MAX: usize = 64;
/// Digests of single entries in one question or answer.
const LISTED_MAX: usize = 1_024;
/// Batches of gifts in a row: the driver does other things in between.
const GIVES_AT_ONCE: usize = 8;
/// Questions that wait for their answers.
const QUESTIONS_MAX: usize = 4;
/// Reconciliations under way at once, with different peers; before the first one has succeeded only one, since each of
/// them would bring the whole table.
const AT_ONCE_MAX: usize = 4;
/// The same for a node that is not ready and has reconciled with somebody: there is little left to learn, but many to ask. Among 200
/// nodes around the world it would not be ready for half a minute otherwise.
const AT_ONCE_BEFORE_READY_MAX: usize = 32;
/// Without any news for so long a reconciliation is given up, and another peer is asked.
const NO_NEWS_MS: u64 = 3_000;
/// A digest tells of the last full second that is at least so long ago: what was decided before has arrived everywhere.
const DIGEST_LAG_MS: u64 = 2_000;
/// A digest's moment must lie so far back here too, and not farther than this.
const DIGEST_PASSED_MS: u64 = 500;
const DIGEST_OLD_MS: u64 = 8_000;
/// In how many heartbeats in a row a range is unequal when tables disagree, and what differs is looked for.
const UNEQUAL_TIMES: u8 = 2;
/// In how many that is told as disagreement when the digests are by a clock far from this node's.
const UNEQUAL_TIMES_CLOCKS_APART: u8 = 10;
/// The longest pause after reconciliations that did not make the digests equal.
const PAUSE_MAX_MS: u64 = 64_000;

/// What stands between this node and one peer about what their tables hold.
#[derive(Debug)]
pub(crate) struct Talk {
    /// Something may have been missed while there was no connection.
    pub(crate) wants: bool,
    pub(crate) agreement: Agreement,
    asking: Option<Asking>,
    answering: Option<Answering>,
    giver: Giver,
    /// The number of its last gift.
    given: u64,
    /// The moment of its last digest.
    as_of: Option<AsOf>,
    /// In how many heartbeats in a row each range differed.
    unequal: [u8; FAN_OUT],
    /// Heartbeats in a row with a disagreement.
    beats: u32,
    /// Reconciliations since the digests were equal.
    in_vain: u32,
    not_before: Instant,
    /// Reconciliations on this connection that got no answers.
    pub(crate) attempts: u32,
}

/// A reconciliation that this node asks for.
#[derive(Debug)]
struct Asking {
    id: u64,
    as_of: AsOf,
    todo: Vec<RangeId>,
    wanted: Vec<(RangeId, Vec<u32>)>,
    /// The number of the last question.
    asked: u64,
    open: BTreeMap<u64, Asked>,
    /// The last question that is answered with gifts too, and the last one whose gifts have come.
    gives_due: u64,
    gives_through: u64,
    news: Instant,
}

/// What a question was about.
#[derive(Debug, Default)]
struct Asked {
    divided: Vec<RangeId>,
    listed: Vec<RangeId>,
}

/// A reconciliation that the peer asks for.
#[derive(Debug)]
struct Answering {
    id: u64,
    as_of: AsOf,
    news: Instant,
}

impl Talk {
    pub(crate) const fn new() -> Self {
        Self {
            wants: false,
            agreement: Agreement::Unknown,
            asking: None,
            answering: None,
            giver: Giver::new(),
            given: 0,
            as_of: None,
            unequal: [0; FAN_OUT],
            beats: 0,
            in_vain: 0,
            not_before: Instant(0),
            attempts: 0,
        }
    }

    /// Whether it may have something to ask or to give.
    pub(crate) fn has_something_due(&self) -> bool {
        self.asking.is_some() || !self.giver.idle()
    }

    /// What made reconciliations vain is over: the next one need not wait.
    pub(crate) fn hurry(&mut self, now: Now) {
        self.in_vain = 0;
        self.not_before = self.not_before.min(now.mono);
    }

    /// The connection is gone.
    pub(crate) fn lost(&mut self) {
        *self = Self { in_vain: self.in_vain, ..Self::new() };
    }
}

/// Whether a range was asked about and not answered yet: an answer counts once.
fn once(asked: &mut Vec<RangeId>, range: RangeId) -> bool {
    let at = asked.iter().position(|asked| *asked == range);
    at.is_some_and(|at| {
        asked.swap_remove(at);
        true
    })
}

/// The digests of these entries, cut.
fn listed(table: &Table, range: RangeId, since: &Since) -> Vec<u32> {
    let mut tags: Vec<u32> =
        table.digests(range, since).into_iter().map(|digest| since.as_of.cut(digest)).collect();
    tags.truncate(LISTED_MAX);
    tags
}

/// These, without those.
fn without(these: &[u32], those: &[u32]) -> Vec<u32> {
    let those: BTreeSet<u32> = those.iter().copied().collect();
    these.iter().filter(|tag| !those.contains(tag)).copied().collect()
}

impl Asking {
    /// The next question, `None` when there is nothing to ask or enough was asked.
    fn next(&mut self, table: &Table, learning: bool) -> Option<Compare> {
        if self.open.len() >= QUESTIONS_MAX || self.todo.is_empty() && self.wanted.is_empty() {
            return None;
        }
        let since = table.since(self.as_of);
        let mut parts = Vec::new();
        let mut asked = Asked::default();
        let mut tags = 0;
        while parts.len() < PARTS_MAX && tags < LISTED_MAX {
            if let Some((range, want)) = self.wanted.pop() {
                tags += want.len();
                parts.push(ComparePart { range, content: CompareContent::Want(want) });
                continue;
            }
            let Some(range) = self.todo.pop() else { break };
            let few = table.cell(range, &since).count as usize <= FEW || range.depth() >= DEPTH_MAX;
            let content = if few {
                let all = listed(table, range, &since);
                tags += all.len();
                asked.listed.push(range);
                CompareContent::All(all)
            } else {
                asked.divided.push(range);
                let cut = |index| self.as_of.cut(table.cell(range.child(index), &since).sum);
                CompareContent::Parts(core::array::from_fn(cut))
            };
            parts.push(ComparePart { range, content });
        }
        self.asked += 1;
        self.open.insert(self.asked, asked);
        Some(Compare { id: self.id, number: self.asked, as_of: self.as_of, learning, parts })
    }

    /// Takes in one range of an answer: what to divide further, what to want, and what to give.
    fn take(
        &mut self,
        table: &Table,
        giver: &mut Giver,
        since: &Since,
        asked: &mut Asked,
        part: ComparedPart,
    ) {
        match part.content {
            ComparedContent::Parts { differ, few } if once(&mut asked.divided, part.range) => {
                for index in (0..16).filter(|index| differ & (1 << index) != 0) {
                    let child = part.range.child(index);
                    match few.iter().find(|(of, _)| usize::from(*of) == index) {
                        None => self.todo.push(child),
                        Some((_, theirs)) => {
                            let ours = listed(table, child, since);
                            let lacking = without(theirs, &ours);
                            if !lacking.is_empty() {
                                self.wanted.push((child, lacking));
                            }
                            if !without(&ours, theirs).is_empty() || ours.len() == LISTED_MAX {
                                let which = Which::Except(theirs.clone(), Tombstones::Without);
                                giver.add(child, which, self.as_of, 0);
                            }
                        }
                    }
                }
            }
            ComparedContent::Want(tags) if once(&mut asked.listed, part.range) => {
                giver.add(part.range, Which::Only(tags), self.as_of, 0);
            }
            // An answer to something that was not asked.
            ComparedContent::Parts { .. } | ComparedContent::Want(_) => {}
        }
    }

    fn finished(&self) -> bool {
        self.todo.is_empty()
            && self.wanted.is_empty()
            && self.open.is_empty()
            && self.gives_through >= self.gives_due
    }
}

impl Node {
    /// What the table held a moment ago, for a heartbeat.
    pub(crate) fn digest(&mut self, now: Now) -> Digest {
        let second = now.wall.0.saturating_sub(DIGEST_LAG_MS) / 1_000 * 1_000;
        let as_of = AsOf(Stamp::at(Wall(second)));
        let told = self.sessions.values().filter_map(|session| session.talk.as_of);
        self.table.set_earliest(told.fold(as_of, Ord::min).0);
        Digest { as_of, ranges: self.table.ranges(now, as_of) }
    }

    pub(crate) fn on_heartbeat(&mut self, now: Now, peer: &PeerId, heartbeat: Heartbeat) {
        let Some(session) = self.sessions.get_mut(peer) else { return };
        let answers_again = heartbeat.ready && (session.suspect || !session.ready);
        session.ready = heartbeat.ready;
        session.suspect = false;
        session.heard = now.mono;
        if answers_again {
            self.reclaim_lone(now, peer);
        }
        self.compare_digest(now, peer, &heartbeat.digest);
    }

    /// Compares a heartbeat's digest with what stood here at that moment. Twice the same range unequal is a disagreement: in between
    /// whatever was under way has arrived. A digest by a clock far from this one counts what is under way; there what differs is looked
    /// for as well, but only a range that is unequal many times is told as disagreement.
    fn compare_digest(&mut self, now: Now, peer: &PeerId, digest: &Digest) {
        let Some(session) = self.sessions.get_mut(peer) else { return };
        if session.link != LinkState::Reconciled {
            return;
        }
        #[cfg(feature = "test-hooks")]
        if self.mutation == Some(crate::mutation::Mutation::DigestSkipped) {
            return;
        }
        let passed_ms = now.wall.0.saturating_sub(digest.as_of.0.wall_ms());
        let apart = !(DIGEST_PASSED_MS..=DIGEST_OLD_MS).contains(&passed_ms);
        self.stats.digests_clock_apart += u64::from(apart);
        let told_times = if apart { UNEQUAL_TIMES_CLOCKS_APART } else { UNEQUAL_TIMES };
        let ours = self.table.ranges(now, digest.as_of);
        let talk = &mut session.talk;
        talk.as_of = Some(digest.as_of);
        for (times, (ours, theirs)) in talk.unequal.iter_mut().zip(ours.iter().zip(&digest.ranges)) {
            *times = if ours == theirs { 0 } else { times.saturating_add(1) };
        }
        self.stats.digests_unequal_once += u64::from(talk.unequal.contains(&1));
        let differ: Vec<RangeId> = RangeId::ROOT
            .children()
            .zip(talk.unequal)
            .filter(|(_, unequal)| *unequal >= UNEQUAL_TIMES)
            .map(|(range, _)| range)
            .collect();
        let disagreed = talk.unequal.iter().any(|unequal| *unequal >= told_times);
        talk.agreement = if disagreed { Agreement::Disagreed } else { Agreement::Agreed };
        if !disagreed {
            session.agreed_at = Some(now.mono);
        }
        self.stats.digests_unequal += u64::from(disagreed);
        if differ.is_empty() {
            talk.beats = 0;
            if talk.unequal == [0; FAN_OUT] {
                talk.in_vain = 0;
            }
            return;
        }
        talk.beats += 1;
        // Both see it. The lower name asks; the higher one does when that did not help.
        let my_turn = self.config.me < *peer || talk.beats > 3;
        let busy = talk.asking.is_some() || !talk.giver.idle() || now.mono < talk.not_before;
        if my_turn && !busy {
            talk.in_vain += 1;
            if talk.in_vain > 3 {
                self.stats.reconciliations_vain += 1;
            }
            talk.not_before = now.mono + (1_000_u64 << talk.in_vain.min(6)).min(PAUSE_MAX_MS);
            self.ask_about(now, peer, digest.as_of, differ);
        }
    }

    fn ask_about(&mut self, now: Now, peer: &PeerId, as_of: AsOf, todo: Vec<RangeId>) {
        self.reconciliation_ids += 1;
        let id = self.reconciliation_ids;
        let Some(session) = self.sessions.get_mut(peer) else { return };
        self.stats.reconciliations += 1;
        session.talk.asking = Some(Asking {
            id,
            as_of,
            todo,
            wanted: Vec::new(),
            asked: 0,
            open: BTreeMap::new(),
            gives_due: 0,
            gives_through: 0,
            news: now.mono,
        });
    }

    /// Begins reconciliations that are wanted since a connection came up. A node that is not ready itself chooses whom it asks first, so
    /// it is not given the whole table by everybody at once; a ready one waits for it.
    pub(crate) fn start_wanted(&mut self, now: Now) {
        let learned = self.sessions.values().any(|session| session.reconciled_once);
        let at_once = match (learned, self.ready) {
            (false, _) => 1,
            (true, false) => AT_ONCE_BEFORE_READY_MAX,
            (true, true) => AT_ONCE_MAX,
        };
        loop {
            let asking = self.sessions.values().filter(|session| session.talk.asking.is_some()).count();
            if asking >= at_once {
                return;
            }
            let (me_ready, now_mono) = (self.ready, now.mono);
            let candidates = self.sessions.iter().filter(|(_, session)| {
                let talk = &session.talk;
                let answering = talk.answering.as_ref();
                talk.wants
                    && session.link == LinkState::Learning
                    && talk.asking.is_none()
                    && answering.is_none_or(|it| now_mono.since_ms(it.news) > NO_NEWS_MS)
                    && now_mono >= talk.not_before
                    && (session.ready || !me_ready)
            });
            let first =
                candidates.min_by_key(|(_, session)| (!session.ready, session.talk.attempts, session.rtt_ms));
            let Some(peer) = first.map(|(peer, _)| peer.clone()) else { return };
            self.ask_about(now, &peer, AsOf::NOW, Vec::from([RangeId::ROOT]));
        }
    }

    /// Gives up what gets no answers.
    pub(crate) fn abandon_silent(&mut self, now: Now) {
        for session in self.sessions.values_mut() {
            let talk = &mut session.talk;
            if talk.asking.as_ref().is_some_and(|asking| now.mono.since_ms(asking.news) >= NO_NEWS_MS) {
                talk.asking = None;
                talk.attempts += 1;
                talk.not_before = now.mono + 1_000;
                self.stats.reconciliations_abandoned += 1;
            }
        }
    }

    pub(crate) fn on_compare(&mut self, now: Now, peer: &PeerId, compare: Compare) -> Result<(), Violation> {
        let me_lower = self.config.me < *peer;
        let Some(session) = self.sessions.get_mut(peer) else { return Err(Violation::NotListed) };
        let talk = &mut session.talk;
        if talk.asking.is_some() {
            // Both ask: the lower name goes on, and at its end both are reconciled.
            if me_lower {
                return Ok(());
            }
            talk.asking = None;
        }
        let Compare { id, number, as_of, learning, parts } = compare;
        if talk.answering.as_ref().is_none_or(|answering| answering.id != id) {
            talk.giver.forget_questions();
        }
        talk.answering = Some(Answering { id, as_of, news: now.mono });
        let since = self.table.since(as_of);
        let tombstones = if learning { Tombstones::With } else { Tombstones::Without };
        let mut answer = Compared { id, number, gives: false, parts: Vec::new() };
        let mut tags = 0;
        // An honest question names each key once; looking at them is not free.
        let mut seen: Vec<RangeId> = Vec::new();
        for ComparePart { range, content } in parts.into_iter().take(PARTS_MAX) {
            let is_want = matches!(content, CompareContent::Want(_));
            if !is_want && seen.iter().any(|seen| seen.overlaps(range)) {
                continue;
            }
            if !is_want {
                seen.push(range);
            }
            match content {
                CompareContent::Parts(theirs) => {
                    let mut differ = 0_u16;
                    let mut few = Vec::new();
                    for (index, child) in range.children().enumerate() {
                        let cell = self.table.cell(child, &since);
                        if as_of.cut(cell.sum) == theirs[index] {
                            continue;
                        }
                        differ |= 1 << index;
                        if cell.count as usize <= FEW && tags + cell.count as usize <= LISTED_MAX {
                            let list = listed(&self.table, child, &since);
                            tags += list.len();
                            few.push((index as u8, list));
                        }
                    }
                    if differ != 0 {
                        let content = ComparedContent::Parts { differ, few };
                        answer.parts.push(ComparedPart { range, content });
                    }
                }
                CompareContent::All(theirs) => {
                    // Many entries against few: something is to be given, and to see which of theirs are lacking costs more than to be told
                    // of all of them.
                    let many = self.table.cell(range, &since).count as usize > LISTED_MAX;
                    let ours = if many { Vec::new() } else { listed(&self.table, range, &since) };
                    let lacking = without(&theirs, &ours);
                    let more = many || !without(&ours, &theirs).is_empty();
                    let teaches = learning && self.table.within(range, None).next().is_some();
                    if more || teaches {
                        answer.gives |=
                            talk.giver.add(range, Which::Except(theirs, tombstones), as_of, number);
                    }
                    if !lacking.is_empty() {
                        answer.parts.push(ComparedPart { range, content: ComparedContent::Want(lacking) });
                    }
                }
                // It is of what was listed, and only ranges of few entries are; some have come since, perhaps.
                CompareContent::Want(tags) if self.table.cell(range, &since).count as usize <= LISTED_MAX => {
                    answer.gives |= talk.giver.add(range, Which::Only(tags), as_of, number);
                }
                CompareContent::Want(_) => {}
            }
        }
        self.stats.compares_answered += 1;
        self.send(peer, Message::Compared(answer));
        Ok(())
    }

    pub(crate) fn on_compared(&mut self, now: Now, peer: &PeerId, compared: Compared) {
        let Some(session) = self.sessions.get_mut(peer) else { return };
        let Talk { asking, giver, .. } = &mut session.talk;
        let Some(asking) = asking.as_mut().filter(|asking| asking.id == compared.id) else { return };
        let Some(mut asked) = asking.open.remove(&compared.number) else { return };
        asking.news = now.mono;
        if compared.gives {
            asking.gives_due = asking.gives_due.max(compared.number);
        }
        let since = self.table.since(asking.as_of);
        for part in compared.parts {
            asking.take(&self.table, giver, &since, &mut asked, part);
        }
    }

    pub(crate) fn on_give(&mut self, now: Now, peer: &PeerId, give: Give) -> Result<(), Violation> {
        let Some(session) = self.sessions.get_mut(peer) else { return Err(Violation::NotListed) };
        if give.number <= session.talk.given {
            return Err(Violation::NumberWentBack);
        }
        session.talk.given = give.number;
        if let Some(asking) = &mut session.talk.asking {
            asking.news = now.mono;
            asking.gives_through = asking.gives_through.max(give.through);
        }
        if let Some(answering) = &mut session.talk.answering {
            answering.news = now.mono;
        }
        let before = self.table.changes();
        self.take_items(now, peer, give.items);
        if self.table.changes() != before
            && let Some(session) = self.sessions.get_mut(peer)
        {
            // It was not in vain, and there may be more.
            session.talk.in_vain = 0;
        }
        self.send(peer, Message::GiveAck { number: give.number });
        Ok(())
    }

    pub(crate) fn on_give_ack(&mut self, now: Now, peer: &PeerId, number: u64) -> Result<(), Violation> {
        let Some(session) = self.sessions.get_mut(peer) else { return Err(Violation::NotListed) };
        if let Some(asking) = &mut session.talk.asking {
            asking.news = now.mono;
        }
        if session.talk.giver.acked(number) { Ok(()) } else { Err(Violation::AckBeyondSent) }
    }

    /// The asker is through: this node has all it had, too.
    pub(crate) fn on_reconciled(&mut self, now: Now, peer: &PeerId, id: u64) {
        let Some(session) = self.sessions.get_mut(peer) else { return };
        let Some(answering) = session.talk.answering.take_if(|answering| answering.id == id) else { return };
        if answering.as_of == AsOf::NOW && session.talk.wants {
            self.has_reconciled(now, peer);
        }
    }

    /// Sends what is to be asked and given, as far as the windows reach.
    pub(crate) fn push_talk(&mut self, now: Now, peer: &PeerId) {
        // Who has reconciled with nobody and does not serve yet has no tombstones.
        let learning = !self.ready;
        let (window, batch) = (self.config.gives_window, self.config.batch_items);
        let Some(session) = self.sessions.get_mut(peer) else { return };
        let mut messages = Vec::new();
        if let Some(asking) = &mut session.talk.asking {
            while let Some(compare) = asking.next(&self.table, learning) {
                self.stats.compares_sent += 1;
                messages.push(Message::Compare(compare));
            }
        }
        let tell = Tell { now, uses: &self.uses, ttl_ms: self.config.ttl_ms };
        let giver = &mut session.talk.giver;
        let gives = core::iter::from_fn(|| giver.next(&self.table, &tell, window, batch));
        let gives: Vec<Give> = gives.take(GIVES_AT_ONCE).collect();
        if gives.len() == GIVES_AT_ONCE {
            // The rest when others had their turn.
            self.flush_at = Some(now.mono);
        }
        self.stats.items_given += gives.iter().map(|give| give.items.len() as u64).sum::<u64>();
        messages.extend(gives.into_iter().map(Message::Give));
        let idle = session.talk.giver.idle();
        let done = session.talk.asking.take_if(|asking| idle && asking.finished());
        if let Some(asking) = &done {
            messages.push(Message::Reconciled { id: asking.id });
        }
        for message in messages {
            self.send(peer, message);
        }
        if let Some(asking) = done {
            // The next one may begin, with another peer.
            self.to_flush = true;
            if asking.as_of == AsOf::NOW {
                self.has_reconciled(now, peer);
            }
            self.start_wanted(now);
            self.update_readiness(now);
        }
    }
}
