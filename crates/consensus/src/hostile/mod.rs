//! Replicas that lie, for the simulator: a real replica whose words are changed on their way out, and who answers what
//! it should not. Compiled only with the `mutations` feature, which no product build has.
mod bullshark;
mod pbft;
mod probft;

use alloc::boxed::Box;
use alloc::collections::VecDeque;
use alloc::sync::Arc;
use alloc::vec::Vec;

use crate::bullshark::Bullshark;
use crate::core::{Core, CoreMessage, ENVELOPE_BYTES};
use crate::io::{Corrupt, Figures, Input, Output, Replica};
use crate::node::{Node, Protocol};
use crate::pbft::Pbft;
use crate::plan::ProtocolKind;
use crate::probft::ProBft;
use crate::raft::Raft;
use crate::start::Parts;
use crate::types::{ReplicaId, Time};
use crate::wire::Wire;

/// How a replica lies. Any mixture is possible.
#[derive(Debug, Clone, Copy, Default)]
pub struct Lies {
    /// Says nothing at all from now on.
    pub silent: bool,
    /// Says nothing to these peers, by bit of their number.
    pub withholds_from: u128,
    /// Says one thing to these peers and another to the rest.
    pub equivocates: bool,
    /// The other half, by bit of a peer's number.
    pub half: u128,
    /// Signs falsely now and then.
    pub corrupts: bool,
    /// Votes for whatever anybody votes for.
    pub echoes: bool,
    /// Other liars, by bit of their number: not answered, or two of them would never end.
    pub accomplices: u128,
    /// Claims proofs that it does not have.
    pub fabricates: bool,
    /// Serves false states, batches and checkpoints.
    pub poisons: bool,
    /// Says again what it heard long ago, and nonsense.
    pub babbles: bool,
}

/// The part of lying that a protocol's messages need.
pub(crate) trait Lie: Protocol {
    /// What is said to the other half in place of a message.
    fn other(core: &Core, message: &Self::Message) -> Option<Self::Message>;

    /// The message with a false signature or proof.
    fn corrupted(message: Self::Message) -> Self::Message;

    /// What is said to a peer that sent this, to agree with it.
    fn echo(core: &Core, message: &Self::Message) -> Vec<Self::Message>;

    /// Claims without proof, prompted by anything.
    fn fabricated(core: &Core, message: &Self::Message, chance: u64) -> Option<Self::Message>;
}

#[derive(Debug)]
struct Liar<P> {
    node: Node<P>,
    lies: Lies,
    chance: u64,
    outputs: VecDeque<Output>,
    heard: VecDeque<Arc<[u8]>>,
}

/// A lying replica.
///
/// # Errors
/// As [`start`](crate::start()).
pub fn start_hostile(
    kind: ProtocolKind,
    parts: Parts,
    now: Time,
    lies: Lies,
    seed: u64,
) -> Result<Box<dyn Replica>, Corrupt> {
    let core = Core::new(parts.config, parts.crypto, parts.origin);
    Ok(match kind {
        ProtocolKind::Pbft | ProtocolKind::TPbft => {
            Box::new(Liar::new(Node::<Pbft>::start(core, now, parts.start)?, lies, seed))
        }
        // Nobody lies where Raft is used.
        ProtocolKind::Raft => Box::new(Node::<Raft>::start(core, now, parts.start)?),
        ProtocolKind::ProBft => {
            Box::new(Liar::new(Node::<ProBft>::start(core, now, parts.start)?, lies, seed))
        }
        ProtocolKind::Bullshark => {
            Box::new(Liar::new(Node::<Bullshark>::start(core, now, parts.start)?, lies, seed))
        }
    })
}

/// What bytes decode to, encoded again; `None` where they do not decode.
#[must_use]
pub fn reencoded(kind: ProtocolKind, bytes: &[u8]) -> Option<Vec<u8>> {
    let (head, body) = bytes.split_at_checked(ENVELOPE_BYTES)?;
    let body = match head[ENVELOPE_BYTES - 1] {
        0 => CoreMessage::decoded(body).ok()?.encoded(),
        1 => match kind {
            ProtocolKind::Pbft | ProtocolKind::TPbft => {
                <Pbft as Protocol>::Message::decoded(body).ok()?.encoded()
            }
            ProtocolKind::Raft => <Raft as Protocol>::Message::decoded(body).ok()?.encoded(),
            ProtocolKind::ProBft => <ProBft as Protocol>::Message::decoded(body).ok()?.encoded(),
            ProtocolKind::Bullshark => <Bullshark as Protocol>::Message::decoded(body).ok()?.encoded(),
        },
        _ => return None,
    };
    Some([head, &body].concat())
}

impl<P: Lie> Liar<P> {
    fn new(node: Node<P>, lies: Lies, seed: u64) -> Self {
        Self { node, lies, chance: seed, outputs: VecDeque::new(), heard: VecDeque::new() }
    }

    /// SplitMix64 (Steele, Lea, Flood 2014).
    fn next(&mut self) -> u64 {
        self.chance = self.chance.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.chance ^ (self.chance >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    fn rarely(&mut self, one_in: u64) -> bool {
        self.next().is_multiple_of(one_in)
    }

    fn speak(&mut self) {
        while let Some(output) = self.node.poll_output() {
            let Output::Send { to, bytes } = output else {
                self.outputs.push_back(output);
                continue;
            };
            if self.lies.silent || self.lies.withholds_from & (1 << to.0) != 0 {
                continue;
            }
            if let Some(bytes) = self.twist(to, bytes) {
                self.outputs.push_back(Output::Send { to, bytes });
            }
        }
    }

    fn twist(&mut self, to: ReplicaId, bytes: Arc<[u8]>) -> Option<Arc<[u8]>> {
        let (head, body) = bytes.split_at(ENVELOPE_BYTES);
        let twisted = if head[ENVELOPE_BYTES - 1] == 1 {
            let mut message = P::Message::decoded(body).ok()?;
            let other_half = self.lies.half & (1 << to.0) != 0;
            if self.lies.equivocates
                && other_half
                && let Some(other) = P::other(self.node.core(), &message)
            {
                message = other;
            }
            if self.lies.corrupts && self.rarely(4) {
                message = P::corrupted(message);
            }
            message.encoded()
        } else if self.lies.poisons {
            let chance = self.next();
            poisoned(self.node.core(), CoreMessage::decoded(body).ok()?, chance)?.encoded()
        } else {
            return Some(bytes);
        };
        Some([head, &twisted].concat().into())
    }

    fn answer(&mut self, from: ReplicaId, bytes: &[u8]) {
        let Some((head, body)) = bytes.split_at_checked(ENVELOPE_BYTES) else { return };
        if self.lies.silent || self.lies.accomplices & (1 << from.0) != 0 {
            return;
        }
        let mut said = Vec::new();
        if head[ENVELOPE_BYTES - 1] == 1
            && let Ok(message) = P::Message::decoded(body)
        {
            if self.lies.echoes {
                said = P::echo(self.node.core(), &message);
            }
            if self.lies.fabricates && self.rarely(8) {
                let chance = self.next();
                said.extend(P::fabricated(self.node.core(), &message, chance));
            }
        }
        if self.lies.fabricates && self.rarely(16) {
            let bytes = crate::epochs::false_end(self.node.core());
            self.outputs.push_back(Output::Send { to: from, bytes });
        }
        for message in said {
            let bytes = [head, &message.encoded()].concat();
            self.outputs.push_back(Output::Send { to: from, bytes: bytes.into() });
        }
        if self.lies.babbles {
            self.babble(from, bytes);
        }
    }

    fn babble(&mut self, from: ReplicaId, bytes: &[u8]) {
        if self.heard.len() >= 64 {
            self.heard.pop_front();
        }
        self.heard.push_back(bytes.into());
        if !self.rarely(6) {
            return;
        }
        let old = (self.next() % self.heard.len() as u64) as usize;
        let mut bytes = self.heard[old].to_vec();
        if self.rarely(2) {
            let at = (self.next() % bytes.len() as u64) as usize;
            bytes[at] ^= 1 << (self.next() % 8);
        }
        if self.rarely(4) {
            bytes.truncate((self.next() % (bytes.len() as u64 + 1)) as usize);
        }
        self.outputs.push_back(Output::Send { to: from, bytes: bytes.into() });
    }
}

/// A core message that is not true.
fn poisoned(core: &Core, message: CoreMessage, chance: u64) -> Option<CoreMessage> {
    Some(match message {
        CoreMessage::Checkpoint(vote) if chance.is_multiple_of(8) => {
            CoreMessage::Checkpoint(vote.falsified(core))
        }
        CoreMessage::Snapshot(part) => CoreMessage::Snapshot(part.falsified()),
        CoreMessage::Status(mut status) if chance.is_multiple_of(2) => {
            status.position += 1_000_000;
            status.stable += 1_000_000;
            CoreMessage::Status(status)
        }
        // Who has a batch that nobody else keeps could hold up everybody.
        CoreMessage::Certified(mut batch) if chance.is_multiple_of(3) => {
            batch.name.digest.0[5] ^= 1;
            CoreMessage::Certified(batch)
        }
        CoreMessage::FetchedBatch(_) => return None,
        same @ (CoreMessage::Batch(_)
        | CoreMessage::Certified(_)
        | CoreMessage::Checkpoint(_)
        | CoreMessage::Status(_)
        | CoreMessage::Promise(_)
        | CoreMessage::FetchBatch(_)
        | CoreMessage::Stable(_)
        | CoreMessage::FetchSnapshot(_)) => same,
    })
}

impl<P: Lie> Replica for Liar<P> {
    fn handle(&mut self, now: Time, input: Input<'_>) {
        if let Input::Message { from, bytes } = &input {
            self.answer(*from, bytes);
        }
        self.node.handle(now, input);
        self.speak();
    }

    fn poll_output(&mut self) -> Option<Output> {
        self.speak();
        self.outputs.pop_front()
    }

    fn poll_timeout(&self) -> Time {
        self.node.poll_timeout()
    }

    fn figures(&self) -> Figures {
        self.node.figures()
    }
}
