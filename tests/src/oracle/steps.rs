//! What each step of a sequence does, and what is expected of it.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::thread;
use std::time::Duration;

use super::ask::{Answer, Kept as KeptConnection, ask};
use super::ours;
use super::record::{Kept, Many, Request, ShardRef, Step, What};
use super::run::Mode;
use super::sequence::{Player, Token, Verdict};
use super::site::NodeAt;

/// The time between two requests that the recordings call concurrent.
const APART: Duration = Duration::from_millis(40);
/// What a use may be told later than it was: uses this close together are told once, and the recordings round to seconds.
const EXPIRY_OFF_S: u64 = 4;

impl Player<'_> {
    /// Does what a step does.
    pub(super) fn step(&mut self, step: &Step) -> io::Result<Verdict> {
        let n = step.n;
        if matches!(step.what, What::Start) {
            self.site.start(self.settings)?;
            return Ok(Verdict::Done);
        }
        let node = self.site.node(step.at.as_deref())?;
        let judged = |faults| Ok(Verdict::Judged(faults));
        match &step.what {
            What::Request { request, result, relation } => {
                self.request(n, node, request, result, relation.as_ref())
            }
            What::Spread(many) | What::Repeat(many) => judged(self.many(node, many)?),
            What::Table { keys, entry_set_by_step } => judged(self.table(node, keys, entry_set_by_step)?),
            What::TableSet { key, shard } => judged(self.set(node, key, shard)?),
            What::TableSetId { key, id } => self.set_by_id(node, key, *id),
            What::ClearTable => {
                self.site.clear(node, &self.site.table(node)?)?;
                self.stored.clear();
                Ok(Verdict::Done)
            }
            What::StickElsewhere { token, join } => judged(self.stick_elsewhere(n, node, token, join)?),
            // With agents, what operators say on HAProxy's socket is what they command of one node.
            What::ServerState { shards, state, .. } if self.agents.is_some() => {
                for shard in self.named(shards)? {
                    self.site.command(node, &shard, state)?;
                    self.commanded.insert(shard);
                }
                Ok(Verdict::Done)
            }
            What::ServerState { backend, shards, state } => {
                for shard in self.named(shards)? {
                    self.site.plan.states.insert((backend.clone(), shard), state.clone());
                }
                self.site.plan_has_changed()?;
                Ok(Verdict::Done)
            }
            What::Weight { shards, weight } => {
                for shard in self.named(shards)? {
                    let weight =
                        weight.of_256().ok_or_else(|| io::Error::other(format!("weight {weight:?}")))?;
                    self.site.plan.weights.insert(shard, weight);
                }
                self.site.plan_has_changed()?;
                Ok(Verdict::Done)
            }
            What::Map { op, map, key, value } => {
                self.site.plan.change_map(op, map, key.as_deref(), value.as_deref())?;
                self.site.plan_has_changed()?;
                Ok(Verdict::Done)
            }
            What::Close { shards } => {
                for shard in self.named(shards)? {
                    self.shards.get(&shard)?.close();
                }
                Ok(Verdict::Done)
            }
            What::Open { shards } => {
                for shard in self.named(shards)? {
                    self.shards.get(&shard)?.open()?;
                }
                Ok(Verdict::Done)
            }
            What::Expiry { key, expiry_seconds_left } => {
                judged(self.expiry(node, key, *expiry_seconds_left)?)
            }
            What::Sleep { seconds } => self.sleep(*seconds),
            What::Concurrent { target, count, delay, same_as } => {
                judged(self.concurrent(n, node, target, *count, *delay, *same_as)?)
            }
            What::Keepalive { requests, results } => judged(self.keepalive(node, requests, results)?),
            What::During { request, delay, keys_after } => {
                judged(self.during(n, node, request, *delay, keys_after)?)
            }
            What::CompareHash { target, count, same } => judged(self.compare_hash(target, *count, *same)?),
            What::Race { targets } => judged(self.race(n, targets)?),
            What::RaceMany { count } => judged(self.race_many(*count)?),
            What::Agent { shards, says } => {
                let agents = self.agents.as_ref().ok_or_else(|| io::Error::other("no agents"))?;
                for shard in self.named(shards)? {
                    agents.say(&shard, says)?;
                    self.site.until("the agent is heard", || Ok(self.site.agent(node, &shard)? == *says))?;
                }
                Ok(Verdict::Done)
            }
            What::States { shards, states } => judged(self.states(node, shards, states)?),
            What::Unknown => judged(vec!["a kind of step that is not known".to_owned()]),
            What::Start => Ok(Verdict::Done),
        }
    }

    fn named(&self, shards: &[ShardRef]) -> io::Result<Vec<String>> {
        let name = |shard: &ShardRef| match shard {
            ShardRef::Name(short) => self.site.plan.shard(short),
            ShardRef::Reached { step } => self.reached(*step).cloned(),
        };
        shards.iter().map(name).collect()
    }

    fn many(&mut self, node: NodeAt, many: &Many) -> io::Result<Vec<String>> {
        let (mut statuses, mut seen) = (BTreeMap::new(), BTreeMap::<String, u32>::new());
        drop(self.shards.received());
        for number in 0..many.count {
            let target = many.target.replace("{n}", &number.to_string());
            let answer = ask(self.site.frontend(node), &get(&target))?;
            *statuses.entry(answer.status.to_string()).or_insert(0) += 1;
        }
        for received in self.shards.received() {
            *seen.entry(received.shard).or_default() += 1;
        }
        let mut faults = Vec::new();
        if statuses != many.statuses {
            faults.push(format!("statuses {statuses:?}, expected {:?}", many.statuses));
        }
        let names: BTreeSet<&String> = seen.keys().collect();
        if let Some(wanted) = &many.servers_seen {
            let wanted: io::Result<BTreeSet<String>> =
                wanted.iter().map(|short| self.site.plan.shard(short)).collect();
            let wanted = self.without_commanded(wanted?);
            if names != wanted.iter().collect() {
                faults.push(format!("{seen:?} served, expected {wanted:?}"));
            }
        }
        let never = self.named(&many.never)?;
        if let Some(name) = never.iter().find(|name| names.contains(name)) {
            faults.push(format!("{name} served, expected that it does not"));
        }
        let (least, all) = (seen.values().min().copied().unwrap_or(0), seen.values().sum::<u32>());
        if many.share && u64::from(least) * names.len() as u64 * 3 > u64::from(all) {
            faults.push(format!("{seen:?} served, expected that one gets less than a third of its share"));
        }
        if let Some(distinct) = many.distinct.filter(|distinct| *distinct != names.len()) {
            faults.push(format!("{seen:?} served, expected {distinct} of them"));
        }
        Ok(faults)
    }

    /// R41: in HAProxy an agent's `ready` takes back what operators commanded; ours, the strictest state holds.
    fn without_commanded(&self, mut shards: BTreeSet<String>) -> BTreeSet<String> {
        if self.mode == Mode::Ours {
            shards.retain(|shard| !self.commanded.contains(shard));
        }
        shards
    }

    /// The states that HAProxy shows: `no check` is one that nobody took out.
    fn states(
        &self,
        node: NodeAt,
        shards: &[ShardRef],
        recorded: &BTreeMap<String, String>,
    ) -> io::Result<Vec<String>> {
        if let Some(other) = recorded.values().find(|state| *state != "no check") {
            return Ok(vec![format!("a state that is not known: {other}")]);
        }
        for shard in self.named(shards)? {
            let wanted = if self.mode == Mode::Ours { "maint" } else { "ready" };
            self.site
                .until(&format!("{shard} is {wanted}"), || Ok(self.site.state(node, &shard)? == wanted))?;
        }
        Ok(Vec::new())
    }

    fn table(
        &self,
        node: NodeAt,
        keys: &[String],
        set_by: &BTreeMap<String, Option<u32>>,
    ) -> io::Result<Vec<String>> {
        let rows = self.rows(node)?;
        let mut faults = Vec::new();
        let recorded: BTreeSet<String> = keys.iter().filter_map(|key| self.key(key)).collect();
        // Where we may read requests otherwise, other conferences are stored.
        let wanted = match self.mode {
            Mode::Ours if ours::any_may_differ(&self.sequence.rules) => self.stored.clone(),
            Mode::Ours | Mode::Compat => recorded,
        };
        let found: BTreeSet<String> = rows.keys().cloned().collect();
        if found != wanted {
            faults.push(format!("keys {found:?}, expected {wanted:?}"));
        }
        for (key, step) in set_by {
            if let (Some(key), Some(step)) = (self.key(key).filter(|key| wanted.contains(key)), step)
                && rows.get(&key) != Some(self.reached(*step)?)
            {
                faults.push(format!("{key} is on {:?}, expected {}", rows.get(&key), self.reached(*step)?));
            }
        }
        Ok(faults)
    }

    fn set(&mut self, node: NodeAt, key: &str, shard: &str) -> io::Result<Vec<String>> {
        self.stored.extend((!key.is_empty()).then(|| key.to_owned()));
        let set = self.site.set(node, key, &self.site.plan.shard(shard)?)?;
        // There is no empty key (R14), and HAProxy's command does not take one either.
        Ok(match (key, set) {
            ("", Ok(())) => vec!["the empty key was set, expected that it is refused".to_owned()],
            ("", Err(_)) | (_, Ok(())) => Vec::new(),
            (_, Err(said)) => vec![format!("not set: {said}")],
        })
    }

    /// R40: ids are the shards' numbers + 10. One that no shard has is as no entry, and is refused here.
    fn set_by_id(&mut self, node: NodeAt, key: &str, id: u16) -> io::Result<Verdict> {
        let of_id = self.site.plan.shards.iter().find(|shard| u16::from(shard.n) + 10 == id);
        let name = of_id.map(|shard| shard.name.clone());
        self.set_by_id.push(key.to_owned());
        self.stored.extend(name.as_ref().map(|_| key.to_owned()));
        let set = self.site.set(node, key, name.as_deref().unwrap_or("no-such-shard"))?;
        Ok(Verdict::Judged(match (name, set) {
            (Some(_), Ok(())) | (None, Err(_)) => Vec::new(),
            (Some(_), Err(said)) => vec![format!("not set: {said}")],
            (None, Ok(())) => vec!["an unknown shard was set, expected that it is refused".to_owned()],
        }))
    }

    /// An entry that differs from the hash's choice.
    fn stick_elsewhere(&mut self, n: u32, node: NodeAt, token: &str, join: &str) -> io::Result<Vec<String>> {
        let first = self.reach(node, join)?;
        self.site.clear(node, &self.site.table(node)?)?;
        let shard = self.site.plan.shards.iter().find(|shard| shard.name == first.0);
        let release = shard.map(|shard| format!("release-{}", shard.release)).unwrap_or_default();
        let place = (release, first.0.clone());
        self.site.plan.states.insert(place.clone(), "maint".to_owned());
        self.site.plan_has_changed()?;
        let (second, ours) = self.reach(node, join)?;
        self.site.plan.states.remove(&place);
        self.site.plan_has_changed()?;
        self.tokens.insert(n, Token { recorded: token.to_owned(), ours: ours.clone() });
        self.reached.insert(n, second.clone());
        let rows = self.rows(node)?;
        let mut faults = Vec::new();
        if second == first.0 {
            faults.push(format!("{second} served though it is in maint"));
        }
        self.stored = self.key(token).into_iter().collect();
        let wanted: BTreeMap<String, String> = self.key(token).map(|key| (key, second)).into_iter().collect();
        if rows != wanted {
            faults.push(format!("the table has {rows:?}, expected {wanted:?}"));
        }
        Ok(faults)
    }

    /// Who serves a target, and the token that the shard is told.
    fn reach(&self, node: NodeAt, target: &str) -> io::Result<(String, String)> {
        drop(self.shards.received());
        let answer = ask(self.site.frontend(node), &get(target))?;
        match self.shards.received().as_slice() {
            [received] => Ok((
                received.shard.clone(),
                received.all("x-sticktoken").first().map_or("", |token| token).to_owned(),
            )),
            _ => Err(io::Error::other(format!("{target}: {} and no shard", answer.status))),
        }
    }

    fn expiry(&self, node: NodeAt, key: &str, wanted: u64) -> io::Result<Vec<String>> {
        let rows = self.site.table(node)?;
        let left = rows.iter().find(|row| row.key == key).map(|row| row.remaining_ms / 1_000);
        Ok(match left {
            Some(left) if left.abs_diff(wanted) <= EXPIRY_OFF_S => Vec::new(),
            left => vec![format!("{key} has {left:?} s left, expected about {wanted}")],
        })
    }

    /// Time passes where it is what is tested; where it is there for entries to travel, that is waited for.
    fn sleep(&self, seconds: f64) -> io::Result<Verdict> {
        let nodes: Vec<NodeAt> = self.site.all().collect();
        if let [first, others @ ..] = nodes.as_slice()
            && !others.is_empty()
        {
            self.site.until("the tables agree", || {
                let rows = self.rows(*first)?;
                others.iter().try_fold(true, |agree, node| Ok(agree && self.rows(*node)? == rows))
            })?;
        } else {
            thread::sleep(Duration::from_secs_f64(seconds * self.pace));
        }
        Ok(Verdict::Done)
    }

    fn concurrent(
        &mut self,
        n: u32,
        node: NodeAt,
        target: &str,
        count: u32,
        delay: f64,
        same_as: Option<u32>,
    ) -> io::Result<Vec<String>> {
        drop(self.shards.received());
        let (address, request) = (self.site.frontend(node), delayed(target, delay));
        let answers = thread::scope(|scope| {
            let asking: Vec<_> = (0..count)
                .map(|turn| {
                    let request = &request;
                    scope.spawn(move || {
                        thread::sleep(APART * turn);
                        ask(address, request)
                    })
                })
                .collect();
            asking.into_iter().map(joined).collect::<io::Result<Vec<Answer>>>()
        })?;
        let received = self.shards.received();
        let served: BTreeSet<String> = received.iter().map(|received| received.shard.clone()).collect();
        let flagged = received.iter().filter(|received| received.all("x-sticktokenflag") == ["true"]);
        let tokens = flagged.flat_map(|received| received.all("x-sticktoken")).map(str::to_owned);
        self.stored.extend(tokens);
        let mut faults = Vec::new();
        if answers.iter().any(|answer| answer.status != 200) {
            faults.push(format!(
                "statuses {:?}",
                answers.iter().map(|answer| answer.status).collect::<Vec<_>>()
            ));
        }
        // R35 splits first joins; here all who join a conference meet.
        let wanted = match same_as {
            Some(step) => BTreeSet::from([self.reached(step)?.clone()]),
            None => served.iter().take(1).cloned().collect(),
        };
        if served != wanted {
            faults.push(format!("{served:?} served, expected {wanted:?} alone"));
        }
        if let Some(one) = served.into_iter().next() {
            self.reached.insert(n, one);
        }
        Ok(faults)
    }

    fn keepalive(&mut self, node: NodeAt, requests: &[String], results: &[Kept]) -> io::Result<Vec<String>> {
        let mut connection = KeptConnection::open(self.site.frontend(node))?;
        let mut faults = Vec::new();
        for (target, result) in requests.iter().zip(results) {
            drop(self.shards.received());
            let answer = connection.ask(&get(target))?;
            let got = self.shards.received();
            let Kept { status, backend, stick_token_flag, x_stick_token, .. } = result;
            if answer.status != *status {
                faults.push(format!("{target}: status {}, expected {status}", answer.status));
            }
            let wanted = match backend {
                Some(backend) => self.site.plan_of(node).primaries(backend),
                None => Vec::new(),
            };
            match got.as_slice() {
                [] if wanted.is_empty() => {}
                [received] if wanted.contains(&received.shard) => {
                    let told = |name: &str| received.all(name).first().map(|value| (*value).to_owned());
                    if (told("x-sticktoken"), told("x-sticktokenflag"))
                        != (x_stick_token.clone(), stick_token_flag.clone())
                    {
                        faults.push(format!("{target}: token and flag differ: {:?}", received.headers));
                    }
                }
                several => {
                    let names: Vec<&str> = several.iter().map(|received| received.shard.as_str()).collect();
                    faults.push(format!("{}: {names:?} served, expected one of {wanted:?}", result.target));
                }
            }
        }
        Ok(faults)
    }

    /// R31: HAProxy writes when the answer comes, we decide before; afterwards both have it.
    fn during(
        &mut self,
        n: u32,
        node: NodeAt,
        target: &str,
        delay: f64,
        keys_after: &[String],
    ) -> io::Result<Vec<String>> {
        drop(self.shards.received());
        let answer = ask(self.site.frontend(node), &delayed(target, delay))?;
        if let [received] = self.shards.received().as_slice() {
            self.reached.insert(n, received.shard.clone());
        }
        self.stored.extend(keys_after.iter().cloned());
        let mut faults = self.table(node, keys_after, &BTreeMap::new())?;
        if answer.status != 200 {
            faults.push(format!("status {}", answer.status));
        }
        Ok(faults)
    }

    fn compare_hash(&self, target: &str, count: u32, same: u32) -> io::Result<Vec<String>> {
        let mut alike = 0;
        for number in 0..count {
            let target = target.replace("{n}", &number.to_string());
            let served: io::Result<BTreeSet<String>> =
                self.site.all().map(|node| Ok(self.reach(node, &target)?.0)).collect();
            alike += u32::from(served?.len() == 1);
        }
        Ok(if alike == same {
            Vec::new()
        } else {
            vec![format!("{alike} of {count} alike, expected {same}")]
        })
    }

    /// R42: HAProxies split them, and the later update wins. Here they meet.
    fn race(&mut self, n: u32, targets: &[(String, String)]) -> io::Result<Vec<String>> {
        drop(self.shards.received());
        let addresses: io::Result<Vec<_>> = targets
            .iter()
            .map(|(region, target)| Ok((self.site.frontend(self.site.node(Some(region))?), get(target))))
            .collect();
        let answers = thread::scope(|scope| {
            let asking: Vec<_> = addresses?
                .into_iter()
                .map(|(address, request)| scope.spawn(move || ask(address, &request)))
                .collect();
            asking.into_iter().map(joined).collect::<io::Result<Vec<Answer>>>()
        })?;
        let received = self.shards.received();
        let served: BTreeSet<String> = received.iter().map(|received| received.shard.clone()).collect();
        let mut faults = Vec::new();
        if served.len() != 1 || answers.iter().any(|answer| answer.status != 200) {
            faults.push(format!("{served:?} served one conference, expected one shard"));
        }
        if let Some(one) = received.first() {
            self.reached.insert(n, one.shard.clone());
            self.stored.extend(one.all("x-sticktoken").iter().map(|token| (*token).to_owned()));
        }
        Ok(faults)
    }

    fn race_many(&mut self, count: u32) -> io::Result<Vec<String>> {
        let regions: Vec<String> = self.site.all().map(|node| self.site.plan_of(node).region).collect();
        let mut faults = Vec::new();
        for number in 0..count {
            let target = format!("/xmpp-websocket?room=race{number}");
            let targets: Vec<_> = regions.iter().map(|region| (region.clone(), target.clone())).collect();
            faults.extend(self.race(number, &targets)?);
        }
        self.sleep(0.0)?;
        Ok(faults)
    }
}

fn get(target: &str) -> Request {
    Request {
        method: "GET".to_owned(),
        target: target.to_owned(),
        http_version: "1.1".to_owned(),
        headers: vec![("Host".to_owned(), "meet.example.com".to_owned())],
        body: None,
    }
}

/// A request that its shard answers after `delay` seconds.
fn delayed(target: &str, delay: f64) -> Request {
    let mut request = get(target);
    request.headers.push(("X-Test-Delay".to_owned(), delay.to_string()));
    request
}

fn joined<T>(thread: thread::ScopedJoinHandle<'_, io::Result<T>>) -> io::Result<T> {
    thread.join().map_err(|_| io::Error::other("a client panicked"))?
}
