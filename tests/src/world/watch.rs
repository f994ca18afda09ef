//! Who looks on: checks, traces and clients see every input, output and event of the network, and change nothing.

use shardgate_peering_core::{Input, Message, Node, Output};

use super::seat::Seat;

/// Where something happens, and when.
#[derive(Debug, Clone, Copy)]
pub struct Scene<'a> {
    /// Virtual milliseconds since the world began.
    pub now_ms: u64,
    /// Which node.
    pub seat: Seat,
    /// The start of it, counted from 1 over all seats.
    pub life: u64,
    /// The node itself, for its public queries.
    pub node: &'a Node,
}

/// What happens between nodes.
#[derive(Debug)]
pub enum Network<'a> {
    /// The first one now sees a connection to the second.
    Connected(Seat, Seat),
    /// The first one no longer does.
    Disconnected(Seat, Seat),
    /// A message of the first for the second was lost.
    Lost(Seat, Seat, &'a Message),
    /// It will come twice.
    Doubled(Seat, Seat, &'a Message),
    /// It will come late.
    Late(Seat, Seat, &'a Message),
    /// More was under way to the second than the first one's shell keeps: the connection ends.
    OutboxFull(Seat, Seat),
    /// A dial of the second by the first was in vain for 3 s.
    DialFailed(Seat, Seat),
    /// A node was started.
    Started(Seat),
    /// It crashed.
    Crashed(Seat),
}

/// Looks on. Every method may be left out.
pub trait Watch {
    /// A node is about to be given an input.
    fn input(&mut self, scene: &Scene<'_>, input: &Input) {
        let _unused = (scene, input);
    }
    /// A node put something out.
    fn output(&mut self, scene: &Scene<'_>, output: &Output) {
        let _unused = (scene, output);
    }
    /// A node has taken its input and all its outputs were seen.
    fn settled(&mut self, scene: &Scene<'_>) {
        let _unused = scene;
    }
    /// Something happened between nodes.
    fn network(&mut self, now_ms: u64, what: &Network<'_>) {
        let _unused = (now_ms, what);
    }
}

/// Nobody looks on.
#[derive(Debug, Clone, Copy)]
pub struct Silent;

impl Watch for Silent {}
