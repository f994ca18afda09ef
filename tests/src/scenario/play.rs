//! Carries out the commands of a scenario.

use std::collections::BTreeSet;

use shardgate_peering_core::{ClaimReason, ClaimToken, Input, PeerId, ShardName, StickKey};

use crate::world::{Delay, Seat, Sleep, State, Trouble};

use super::command::{Act, Awaited, Command, NodeChange, PathChange, Query, ShardChange, Start};
use super::file::{CommandLine, Fault, ScenarioFile};
use super::render::{names, seconds};
use super::stage::Stage;

/// How long `mesh` and `wait` wait at most.
const WAIT_MAX_MS: u64 = 30_000;
/// After `mesh` everybody has heard from everybody that all are ready, and the digests of the start have been compared.
const SETTLE_MS: u64 = 5_000;

/// A scenario under way.
#[derive(Debug, Default)]
pub(super) struct Player<'f> {
    file: &'f str,
    stage: Option<Stage>,
    tokens: u64,
    load: Option<Load>,
}

/// First joins at a steady rate.
#[derive(Debug)]
struct Load {
    per_second: u64,
    began_ms: u64,
    joined: u64,
    /// Rooms of earlier loads.
    before: u64,
}

/// Plays a whole scenario: the trace of each block.
///
/// # Errors
/// [`Fault`] for the first command that cannot be carried out, and when a claim stays without an answer.
pub(super) fn play(file: &ScenarioFile) -> Result<Vec<Vec<String>>, Fault> {
    let mut player = Player { file: &file.name, ..Player::default() };
    let mut traces = Vec::new();
    for block in &file.blocks {
        for line in &block.commands {
            player.carry_out(line)?;
        }
        traces.push(player.stage.as_mut().map(|stage| stage.recorder.trace.take()).unwrap_or_default());
    }
    let last = file.blocks.last().and_then(|block| block.commands.last());
    if let (Some(stage), Some(last)) = (&player.stage, last)
        && let Some(ClaimToken(token)) = stage.recorder.waiting.keys().next()
    {
        return Err(player.fault(
            last,
            &format!("the claim #{token} has no answer"),
            "every claim is answered",
        ));
    }
    Ok(traces)
}

impl Player<'_> {
    fn fault(&self, line: &CommandLine, value: &str, expected: &str) -> Fault {
        Fault {
            file: self.file.to_owned(),
            line: line.line,
            value: value.to_owned(),
            expected: expected.to_owned(),
        }
    }

    fn stage(&mut self, line: &CommandLine) -> Result<&mut Stage, Fault> {
        let fault = self.fault(line, &line.text, "mesh or nodes before any other command");
        self.stage.as_mut().ok_or(fault)
    }

    fn seat(&mut self, line: &CommandLine, peer: &PeerId) -> Result<Seat, Fault> {
        let stage = self.stage(line)?;
        let seat = stage.world.seat_of(peer);
        seat.ok_or_else(|| self.fault(line, peer.as_str(), "a node that mesh or nodes named"))
    }

    fn seats(&mut self, line: &CommandLine, peers: &[PeerId]) -> Result<Vec<Seat>, Fault> {
        peers.iter().map(|peer| self.seat(line, peer)).collect()
    }

    fn running(&mut self, line: &CommandLine, peer: &PeerId) -> Result<Seat, Fault> {
        let seat = self.seat(line, peer)?;
        let runs = self.stage(line)?.running().any(|other| other == seat);
        if runs { Ok(seat) } else { Err(self.fault(line, peer.as_str(), "a node that was started")) }
    }

    fn key(&mut self, line: &CommandLine, name: &str) -> Result<StickKey, Fault> {
        let key = self.stage(line)?.key(name);
        key.ok_or_else(|| self.fault(line, name, "a conference's name of at most 1024 bytes"))
    }

    fn token(&mut self) -> ClaimToken {
        self.tokens += 1;
        ClaimToken(self.tokens)
    }

    /// A line of the trace.
    fn print(&mut self, line: &CommandLine, text: String) -> Result<(), Fault> {
        self.stage(line)?.recorder.trace.line(text);
        Ok(())
    }

    /// A command that is no input of a node stands in the trace by itself.
    fn print_command(&mut self, line: &CommandLine) -> Result<(), Fault> {
        let at = seconds(self.stage(line)?.now_ms());
        self.stage(line)?.recorder.trace.event(format!("{at:>8} ** {}", line.text));
        Ok(())
    }

    fn carry_out(&mut self, line: &CommandLine) -> Result<(), Fault> {
        let command = Command::parse(self.file, line)?;
        match command {
            Command::Nodes { names, options, start } => {
                let distinct: BTreeSet<&PeerId> = names.iter().collect();
                if distinct.len() < names.len() {
                    return Err(self.fault(line, &line.text, "each node once"));
                }
                let lines = self.stage.as_mut().map(|stage| stage.recorder.trace.take()).unwrap_or_default();
                self.stage = Some(Stage::new(&names, &options));
                self.load = None;
                self.tokens = 0;
                for earlier in lines {
                    self.print(line, earlier)?;
                }
                if start == Start::Now {
                    self.settle(line)?;
                }
            }
            Command::Settle => self.settle(line)?,
            Command::Config { node, options } => {
                let seat = self.seat(line, &node)?;
                self.stage(line)?.config(seat, &options);
            }
            Command::Key { name, homes } => {
                self.seats(line, &homes)?;
                match self.stage(line)?.name_key(&name, &homes) {
                    Some(order) => {
                        let (first, next) = order.split_at(1);
                        let text = format!("{name}: its home is {}, then {}", names(first), names(next));
                        self.print(line, text)?;
                    }
                    None => return Err(self.fault(line, &line.text, "an order of homes, each node once")),
                }
            }
            Command::Delay { from, to, least_ms, most_ms } => {
                for (from, to) in self.pairs(line, &from, &to)? {
                    self.stage(line)?.world.set_delay(from, to, Delay::Range(least_ms, most_ms));
                    self.stage(line)?.world.set_delay(to, from, Delay::Range(least_ms, most_ms));
                }
            }
            Command::Act { node, key, act } => self.act(line, &node, &key, act)?,
            Command::Fill { node, prefix, count, shard } => {
                self.print_command(line)?;
                let seat = self.running(line, &node)?;
                for n in 0..count {
                    let key = self.key(line, &format!("{prefix}-{n}"))?;
                    self.join(line, seat, key, shard.clone())?;
                }
            }
            Command::Load { per_second } => {
                self.print_command(line)?;
                let before = self.load.as_ref().map_or(0, |load| load.before + load.joined);
                let began_ms = self.stage(line)?.world.now_ms();
                self.load = Some(Load { per_second, began_ms, joined: 0, before });
            }
            Command::Path { change, from, to } => self.path(line, change, &from, &to)?,
            Command::Shard { shard, change, from } => self.shard(line, &shard, change, &from)?,
            Command::Probes { node, takes_ms } => {
                self.print_command(line)?;
                let seat = self.seat(line, &node)?;
                self.stage(line)?.world.set_probe_time(seat, Delay::Fixed(takes_ms));
            }
            Command::Change { change, nodes } => self.change(line, change, &nodes)?,
            Command::Clock { node, offset_ms } => {
                self.print_command(line)?;
                let seat = self.seat(line, &node)?;
                self.stage(line)?.world.set_wall_error_ms(seat, offset_ms);
            }
            Command::Speaks { node, oldest, newest } => {
                self.print_command(line)?;
                let seat = self.seat(line, &node)?;
                self.stage(line)?.world.set_contracts(seat, Some((oldest, newest)));
            }
            Command::Listed { at, listed } => {
                let listed = self.seats(line, &listed)?;
                let at = match at {
                    Some(at) => vec![self.seat(line, &at)?],
                    None => (0..self.stage(line)?.world.len()).collect(),
                };
                for seat in at {
                    self.stage(line)?.list(seat, &listed);
                }
            }
            Command::Inject { at, from, message } => {
                let (seat, _) = (self.running(line, &at)?, self.seat(line, &from)?);
                let key = message.key.as_ref().map(|name| self.key(line, name)).transpose()?;
                let wall = self.stage(line)?.world.clocks(seat).wall;
                let message = message.message(key, &from, wall);
                self.stage(line)?.inject(seat, Input::Received { peer: from, message });
            }
            Command::Run(ms) => {
                let until = self.stage(line)?.world.now_ms() + ms;
                self.run_to(line, until)?;
            }
            Command::Wait(awaited) => self.wait(line, awaited)?,
            Command::Show { detail, at } => {
                self.seats(line, &at)?;
                let at_ms = self.stage(line)?.now_ms();
                self.stage(line)?.recorder.trace.show(at_ms, detail, at);
            }
            Command::Query(query) => self.query(line, query)?,
        }
        Ok(())
    }

    fn settle(&mut self, line: &CommandLine) -> Result<(), Fault> {
        use super::command::Detail;
        let stage = self.stage(line)?;
        stage.recorder.trace.show(0, Detail::Nothing, Vec::new());
        let asleep: Vec<Seat> =
            (0..stage.world.len()).filter(|seat| stage.world.state(*seat) == State::Crashed).collect();
        for seat in asleep {
            stage.start(seat);
        }
        let began_ms = self.stage(line)?.world.now_ms();
        self.wait_until(line, |stage| stage.running().all(|seat| stage.world.is_ready(seat)))?;
        let took_ms = self.stage(line)?.world.now_ms() - began_ms;
        let until = began_ms + took_ms + SETTLE_MS;
        self.run_to(line, until)?;
        let stage = self.stage(line)?;
        stage.begin();
        let nodes = names((0..stage.world.len()).map(|seat| stage.world.name(seat)));
        stage.recorder.trace.show(0, Detail::Events, Vec::new());
        stage.recorder.trace.line(format!("{nodes} are connected and ready"));
        Ok(())
    }

    fn pairs(
        &mut self,
        line: &CommandLine,
        from: &[PeerId],
        to: &[PeerId],
    ) -> Result<Vec<(Seat, Seat)>, Fault> {
        let (from, to) = (self.seats(line, from)?, self.seats(line, to)?);
        let each = from.iter().flat_map(|from| to.iter().map(move |to| (*from, *to)));
        Ok(each.filter(|(from, to)| from != to).collect())
    }

    fn join(
        &mut self,
        line: &CommandLine,
        seat: Seat,
        key: StickKey,
        proposal: ShardName,
    ) -> Result<(), Fault> {
        let token = self.token();
        self.stage(line)?.inject(seat, Input::Claim { token, key, proposal, reason: ClaimReason::Join });
        Ok(())
    }

    fn act(&mut self, line: &CommandLine, node: &PeerId, name: &str, act: Act) -> Result<(), Fault> {
        let seat = self.running(line, node)?;
        let key = self.key(line, name)?;
        let input = match act {
            Act::Join(proposal) => return self.join(line, seat, key, proposal),
            Act::Down { failed, proposal } => {
                Input::Claim { token: self.token(), key, proposal, reason: ClaimReason::Down { failed } }
            }
            Act::Maint { failed, proposal } => {
                Input::Claim { token: self.token(), key, proposal, reason: ClaimReason::Maint { failed } }
            }
            Act::Set(proposal) => {
                Input::Claim { token: self.token(), key, proposal, reason: ClaimReason::Operator }
            }
            Act::Clear => Input::Clear { token: self.token(), key },
            Act::Touch => Input::Touch { key },
            Act::Open { shard, people } => {
                return self.repeat(line, seat, people, || Input::SessionOpened {
                    key: key.clone(),
                    shard: shard.clone(),
                });
            }
            Act::Close { shard, people } => {
                return self.repeat(line, seat, people, || Input::SessionClosed {
                    key: key.clone(),
                    shard: shard.clone(),
                });
            }
        };
        self.stage(line)?.inject(seat, input);
        Ok(())
    }

    fn repeat(
        &mut self,
        line: &CommandLine,
        seat: Seat,
        times: u64,
        input: impl Fn() -> Input,
    ) -> Result<(), Fault> {
        let stage = self.stage(line)?;
        (0..times).for_each(|_| stage.inject(seat, input()));
        Ok(())
    }

    fn path(
        &mut self,
        line: &CommandLine,
        change: PathChange,
        from: &[PeerId],
        to: &[PeerId],
    ) -> Result<(), Fault> {
        self.print_command(line)?;
        let mut pairs = self.pairs(line, from, to)?;
        if pairs.is_empty() {
            let all = self.stage(line)?.world.len();
            pairs = (0..all).flat_map(|from| (from + 1..all).map(move |to| (from, to))).collect();
        }
        let Stage { world, recorder, .. } = self.stage(line)?;
        for (from, to) in pairs {
            match change {
                PathChange::Cut => world.cut(from, to, recorder),
                PathChange::Silent => {
                    world.block(from, to);
                    world.block(to, from);
                }
                PathChange::OneWay => world.block(to, from),
                PathChange::Clog => world.clog(from, to),
                PathChange::ClogBulk => world.clog_bulk(from, to),
                PathChange::Heal | PathChange::Unclog => {
                    for (from, to) in [(from, to), (to, from)] {
                        world.unclog(from, to);
                        if change == PathChange::Heal {
                            world.unblock(from, to);
                        }
                    }
                }
            }
        }
        Ok(())
    }

    fn shard(
        &mut self,
        line: &CommandLine,
        shard: &ShardName,
        change: ShardChange,
        from: &[PeerId],
    ) -> Result<(), Fault> {
        self.print_command(line)?;
        let seats = self.seats(line, from)?;
        let trouble = match change {
            ShardChange::Refuses => Some(Trouble::Refuses),
            ShardChange::Silent => Some(Trouble::Silent),
            ShardChange::Works => None,
        };
        let world = &mut self.stage(line)?.world;
        if seats.is_empty() {
            world.set_shard(shard, trouble);
        }
        for seat in seats {
            world.set_shard_path(seat, shard, trouble);
        }
        Ok(())
    }

    fn change(&mut self, line: &CommandLine, change: NodeChange, nodes: &[PeerId]) -> Result<(), Fault> {
        self.print_command(line)?;
        for node in nodes {
            let seat =
                if change == NodeChange::Start { self.seat(line, node)? } else { self.running(line, node)? };
            let running = self.stage(line)?.running().any(|other| other == seat);
            if change == NodeChange::Start && running {
                return Err(self.fault(line, node.as_str(), "a node that does not run"));
            }
            let stage = self.stage(line)?;
            match change {
                NodeChange::Start => stage.start(seat),
                NodeChange::Crash => stage.crash(seat),
                NodeChange::Restart => {
                    stage.crash(seat);
                    stage.start(seat);
                }
                NodeChange::Pause => stage.world.pause(seat, Sleep::Process),
                NodeChange::Suspend => stage.world.pause(seat, Sleep::Machine),
                NodeChange::Resume => {
                    let Stage { world, recorder, .. } = stage;
                    world.resume(seat, recorder);
                }
                NodeChange::Hang => stage.world.hang(seat),
                NodeChange::Override => stage.inject(seat, Input::ReadyOverride),
            }
        }
        Ok(())
    }

    fn run_to(&mut self, line: &CommandLine, until: u64) -> Result<(), Fault> {
        while let Some(Load { per_second, began_ms, joined, before }) = &mut self.load {
            if *per_second == 0 {
                break;
            }
            let next = *began_ms + *joined * 1_000 / *per_second;
            if next > until {
                break;
            }
            let number = *before + *joined;
            *joined += 1;
            let stage = self.stage(line)?;
            stage.run_to(next);
            let seats: Vec<Seat> = stage.running().collect();
            let number_of_seats = seats.len() as u64;
            let seat = usize::try_from(number % number_of_seats).ok().and_then(|index| seats.get(index));
            let key = self.key(line, &format!("load-{number}"))?;
            let shard = ShardName::parse(&format!("s{}", number % 8)).ok();
            if let (Some(seat), Some(shard)) = (seat.copied(), shard) {
                self.join(line, seat, key, shard)?;
            }
        }
        self.stage(line)?.run_to(until);
        Ok(())
    }

    fn wait_until(&mut self, line: &CommandLine, done: impl Fn(&Stage) -> bool) -> Result<(), Fault> {
        let end_ms = self.stage(line)?.world.now_ms() + WAIT_MAX_MS;
        loop {
            let stage = self.stage(line)?;
            if done(stage) {
                return Ok(());
            }
            let next = stage.world.now_ms() + 1;
            if next > end_ms {
                return Err(self.fault(line, &line.text, &format!("that it is so within {WAIT_MAX_MS} ms")));
            }
            self.run_to(line, next)?;
        }
    }

    fn wait(&mut self, line: &CommandLine, awaited: Awaited) -> Result<(), Fault> {
        let from_ms = self.stage(line)?.now_ms();
        let what = match awaited {
            Awaited::Answers => {
                self.wait_until(line, |stage| stage.recorder.waiting.is_empty())?;
                "every claim is answered"
            }
            Awaited::Ready => {
                self.wait_until(line, |stage| stage.running().all(|seat| stage.world.is_ready(seat)))?;
                "every node is ready"
            }
            Awaited::End(name) => {
                let key = self.key(line, &name)?;
                let ended = |stage: &Stage, seat: Seat| {
                    let entry = stage.world.node(seat).and_then(|node| node.entry(&key));
                    entry.is_some_and(|(entry, _)| entry.is_tombstone())
                };
                self.wait_until(line, |stage| stage.running().any(|seat| ended(stage, seat)))?;
                "some node has ended it"
            }
            Awaited::Agreement => {
                self.wait_until(line, Stage::all_agree)?;
                "every node is in agreement with every other"
            }
        };
        let now_ms = self.stage(line)?.now_ms();
        self.print(line, format!("{:>8} == {what}, after {} s", seconds(now_ms), seconds(now_ms - from_ms)))
    }

    fn query(&mut self, line: &CommandLine, query: Query) -> Result<(), Fault> {
        let lines = match query {
            Query::Table { key: name, lease } => {
                let key = self.key(line, &name)?;
                self.stage(line)?.table(&name, &key, lease)
            }
            Query::Lookup(name) => {
                let key = self.key(line, &name)?;
                self.stage(line)?.lookup(&name, &key)
            }
            Query::Tables => self.stage(line)?.tables(),
            Query::Peers(peer) => {
                let seat = self.seat(line, &peer)?;
                self.stage(line)?.peers(seat)
            }
            Query::Stats(fields) => {
                let mut lines = Vec::new();
                for field in fields {
                    let found = self.stage(line)?.stat(&field);
                    match found {
                        Ok(text) => lines.push(text),
                        Err(known) => return Err(self.fault(line, &field, &format!("a counter: {known}"))),
                    }
                }
                lines
            }
            Query::Agreement => self.stage(line)?.agreement(),
            Query::Ready => self.stage(line)?.readiness(),
        };
        for text in lines {
            self.print(line, format!("  == {text}"))?;
        }
        Ok(())
    }
}
