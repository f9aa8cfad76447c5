//! A replica through all epochs: one replica of one protocol at a time, and the step from each to the next.
//!
//! An epoch ends at a position that follows from what was executed: enough members had it put into the order that they
//! want another plan, or a committee's time is over. The checkpoint after that position names the plan of the next epoch,
//! so that a quorum of the old one signs state and plan together. Nothing beyond the position is executed; transactions
//! that were taken and not applied are submitted again, and those that were applied are remembered across the step. All
//! signatures of an epoch are bound to its plan and to the state that it began with, so nothing can be replayed.
//!
//! There is no timer and no way to go on alone: where the old members cannot agree, there is no new epoch.
mod catch_up;
mod messages;
mod records;

use alloc::boxed::Box;
use alloc::collections::{BTreeMap, BTreeSet, VecDeque};
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::fmt::Debug;

use crate::config::Config;
use crate::core::{ENVELOPE_BYTES, MESSAGE_BYTES_MAX, mutant};
use crate::crypto::Crypto;
use crate::io::{Began, Corrupt, Ended, Figures, Input, Key, Output, Refusal, Replica, Stable, Start};
use crate::ledger::Head;
use crate::plan::{Plan, ProtocolKind};
use crate::start::Parts;
use crate::types::{Digest, ReplicaId, Time, TransactionId};
use crate::wire::{Reader, Wire};
use catch_up::Transfer;
use messages::Message;

pub use messages::Anchor;
#[cfg(feature = "mutations")]
pub(crate) use messages::false_end;
#[cfg(feature = "mutations")]
pub use messages::falsify_origin;

/// What the driver brings for each epoch.
pub trait Maker: Debug {
    /// Settings for an epoch's replica, by [`Config::of_plan`] and whatever the driver changes. `None` where the plan is
    /// not sound.
    fn config(&self, plan: &Plan, binding: Digest) -> Option<Config>;

    /// This replica's keys, and those of the members.
    fn crypto(&self, plan: &Plan) -> Box<dyn Crypto>;

    /// The replica itself.
    ///
    /// # Errors
    /// As [`start`](crate::start()).
    fn replica(&self, kind: ProtocolKind, parts: Parts, now: Time) -> Result<Box<dyn Replica>, Corrupt> {
        crate::start::start(kind, parts, now)
    }
}

/// What a replica through all epochs is made of.
#[derive(Debug)]
pub struct EpochParts {
    /// Who this is, in every epoch.
    pub me: ReplicaId,
    /// Settings and keys of each epoch.
    pub maker: Box<dyn Maker>,
    /// Where it begins when it was never here or has lost its records.
    pub anchor: Anchor,
    /// What it finds on its disk.
    pub start: Start,
}

/// A replica through all epochs.
#[derive(Debug)]
pub struct Epochs {
    me: ReplicaId,
    maker: Box<dyn Maker>,
    now: Time,
    outputs: VecDeque<Output>,
    anchor: Anchor,
    /// The state that this epoch began with, for those who lack it.
    origin: Option<Arc<[u8]>>,
    /// `None` while the epoch's first state is not here, and where this replica is no member.
    replica: Option<Box<dyn Replica>>,
    config: Config,
    crypto: Box<dyn Crypto>,
    /// How epochs ended, by epoch.
    links: BTreeMap<u64, Stable>,
    transfer: Option<Transfer>,
    /// Since when the end of this epoch is known while the replica has not reached it.
    behind: Option<(Stable, Time)>,
    /// Records of this epoch that are on disk.
    keys: BTreeSet<Key>,
    /// When each peer was told last how its epoch ended, or asked.
    told: BTreeMap<ReplicaId, Time>,
    left: Vec<(TransactionId, Vec<u8>)>,
    lost: bool,
    /// Messages that were refused here.
    refused: u64,
    /// Counted in the epochs before.
    earlier: Figures,
    /// Bytes sent on demand since the last retry, by peer.
    served: BTreeMap<ReplicaId, (Time, usize)>,
    #[cfg(feature = "mutations")]
    mutation: Option<crate::mutation::Mutation>,
}

/// Ends of epochs that are kept. Who was away for more must be admitted anew.
const LINKS_MAX: usize = 256;
/// Of a message about epochs, where others say which half of a replica it is for.
const PLANE: u8 = 2;

impl Epochs {
    /// A replica from what it finds on its disk. Outputs may already wait.
    ///
    /// # Errors
    /// [`Corrupt`] where a record is not what was written: start it again as [`Start::Lost`].
    pub fn start(parts: EpochParts, now: Time) -> Result<Self, Corrupt> {
        let EpochParts { me, maker, anchor, start } = parts;
        let (kept, inner) = records::sort(start)?;
        let anchor = kept.record.map_or(anchor, |record| record.anchor);
        let binding = anchor.plan.binding(&anchor.origin);
        let config = maker.config(&anchor.plan, binding).ok_or(Corrupt)?;
        let mut epochs = Self {
            me,
            now,
            outputs: VecDeque::new(),
            origin: kept.origin,
            replica: None,
            crypto: maker.crypto(&anchor.plan),
            config,
            maker,
            anchor,
            links: kept.links,
            transfer: None,
            behind: None,
            keys: kept.keys,
            told: BTreeMap::new(),
            left: Vec::new(),
            lost: kept.lost,
            refused: 0,
            earlier: Figures::default(),
            served: BTreeMap::new(),
            #[cfg(feature = "mutations")]
            mutation: None,
        };
        epochs.check_origin()?;
        if kept.is_new {
            epochs.persist_epoch();
        }
        epochs.begin(inner)?;
        Ok(epochs)
    }

    /// Switches a deliberate bug on.
    #[cfg(feature = "mutations")]
    pub fn mutate(&mut self, mutation: Option<crate::mutation::Mutation>) {
        self.mutation = mutation;
    }

    /// The plan of the epoch that it is in.
    #[must_use]
    pub fn plan(&self) -> &Plan {
        &self.anchor.plan
    }

    /// Where this epoch began: what a new member needs to enter it.
    #[must_use]
    pub fn anchor(&self) -> &Anchor {
        &self.anchor
    }

    /// Whether it has the state that its epoch began with. Until then it takes nothing.
    #[must_use]
    pub fn is_running(&self) -> bool {
        self.replica.is_some()
    }

    fn epoch(&self) -> u64 {
        self.anchor.plan.epoch
    }

    fn is_member(&self) -> bool {
        self.anchor.plan.contains(self.me)
    }

    fn check_origin(&mut self) -> Result<(), Corrupt> {
        let Some(origin) = &self.origin else { return Ok(()) };
        let sound = Digest::of(crate::types::domain::SNAPSHOT, origin) == self.anchor.origin;
        if sound || mutant!(self, OriginUnchecked) { Ok(()) } else { Err(Corrupt) }
    }

    /// Enters the epoch, as far as its first state is here.
    fn begin(&mut self, start: Start) -> Result<(), Corrupt> {
        self.say_began();
        if !self.is_member() {
            return Ok(());
        }
        if self.origin.is_none() && self.anchor.origin != Digest::default() {
            self.begin_transfer();
            return Ok(());
        }
        let start = if self.lost && !self.keys.contains(&crate::node::LOST) { Start::Lost } else { start };
        let (config, crypto) = (self.config.clone(), self.maker.crypto(&self.anchor.plan));
        let parts = Parts { config, crypto, start, origin: self.origin.clone() };
        self.replica = Some(self.maker.replica(self.anchor.plan.protocol, parts, self.now)?);
        self.drain();
        for (transaction, payload) in core::mem::take(&mut self.left) {
            self.handle_inner(Input::Submit { transaction, payload: &payload });
        }
        Ok(())
    }

    fn say_began(&mut self) {
        let plan = self.anchor.plan.clone();
        let head = self.origin.as_ref().and_then(|origin| Head::read(&mut Reader::new(origin)).ok());
        let standing = head.filter(|_| plan.rotation.is_some()).map(|head| head.trust().standing(&plan));
        let millionths = |trust: u64| (u128::from(trust) * 1_000_000 / u128::from(crate::trust::ONE)) as u32;
        let (trust, trust_rounds) = standing.map_or((Vec::new(), 0), |standing| {
            let trust = standing.members.iter().map(|(member, trust)| (*member, millionths(*trust)));
            (trust.collect(), standing.settled_after as u32)
        });
        let began = Began { plan, position: self.anchor.position, trust, trust_rounds };
        self.outputs.push_back(Output::Began(began));
    }

    fn handle_inner(&mut self, input: Input<'_>) {
        if let Some(replica) = self.replica.as_mut() {
            replica.handle(self.now, input);
            self.drain();
        }
    }

    /// Takes what the epoch's replica wants done, in terms that hold in every epoch.
    fn drain(&mut self) {
        let base = self.anchor.position;
        let mut ended = None;
        while let Some(output) = self.replica.as_mut().and_then(|replica| replica.poll_output()) {
            match output {
                Output::Persist { key, value } => self.persist(key, &value),
                Output::Forget { key } => self.forget(key),
                Output::Apply(mut apply) => {
                    apply.position += base;
                    self.outputs.push_back(Output::Apply(apply));
                }
                Output::TakeSnapshot { position } => {
                    self.outputs.push_back(Output::TakeSnapshot { position: position + base });
                }
                Output::Restore { position, state } => {
                    self.outputs.push_back(Output::Restore { position: position + base, state });
                }
                Output::Probable(mut probable) => {
                    probable.position += base;
                    self.outputs.push_back(Output::Probable(probable));
                }
                Output::Ended(end) => ended = Some(end),
                other @ (Output::Send { .. }
                | Output::Refused { .. }
                | Output::Reached(_)
                | Output::Evidence(_)
                | Output::Began(_)) => {
                    self.outputs.push_back(other);
                }
            }
        }
        if let Some(ended) = ended {
            self.end(ended);
        }
    }

    /// This replica has executed the epoch to its end, and a quorum the same.
    fn end(&mut self, ended: Ended) {
        let Ended { last, snapshot, left } = ended;
        self.left = left;
        // The state is on disk before anything says that the old epoch's records are of no use.
        let key = Key::Origin { epoch: self.epoch() + 1 };
        self.outputs.push_back(Output::Persist { key, value: snapshot.to_vec() });
        self.enter(last, Some(snapshot));
    }

    /// Goes on to the epoch that follows a certified end.
    fn enter(&mut self, last: Stable, origin: Option<Arc<[u8]>>) {
        let Some(plan) = last.successor.clone() else { return };
        let binding = plan.binding(&last.digest);
        let Some(config) = self.maker.config(&plan, binding) else { return };
        let (old, position) = (self.epoch(), self.anchor.position + last.position);
        (self.earlier, self.refused) = (self.figures(), 0);
        self.replica = None;
        (self.behind, self.transfer) = (None, None);
        self.anchor = Anchor { plan, position, origin: last.digest };
        (self.config, self.crypto) = (config, self.maker.crypto(&self.anchor.plan));
        self.outputs.push_back(Output::Persist { key: Key::Link { epoch: old }, value: last.encoded() });
        self.links.insert(old, last);
        self.persist_epoch();
        self.forget_epoch(old);
        self.origin = origin;
        // Records that this replica has just made its own cannot be corrupt.
        if self.begin(Start::Fresh).is_err() {
            self.refused += 1;
        }
    }

    fn send(&mut self, to: ReplicaId, message: &Message) {
        let mut bytes = Vec::new();
        self.epoch().write(&mut bytes);
        PLANE.write(&mut bytes);
        message.write(&mut bytes);
        self.outputs.push_back(Output::Send { to, bytes: bytes.into() });
    }

    fn handle_bytes(&mut self, from: ReplicaId, bytes: &[u8]) {
        let head = bytes.split_at_checked(ENVELOPE_BYTES).filter(|_| bytes.len() <= MESSAGE_BYTES_MAX);
        let Some(((epoch, plane), body)) =
            head.and_then(|(head, body)| Some((<(u64, u8)>::decoded(head).ok()?, body)))
        else {
            self.refused += 1;
            return;
        };
        if plane == PLANE {
            match Message::decoded(body) {
                Ok(message) => self.handle_epoch_message(from, epoch, message),
                Err(_) => self.refused += 1,
            }
            return;
        }
        if epoch < self.epoch() {
            self.tell_end(from, epoch);
        } else if epoch > self.epoch() {
            self.ask_epoch(from);
        }
        if epoch == self.epoch() || mutant!(self, EpochUnbound) {
            self.handle_inner(Input::Message { from, bytes });
        } else {
            self.refused += 1;
        }
    }
}

impl Replica for Epochs {
    fn handle(&mut self, now: Time, input: Input<'_>) {
        self.now = self.now.max(now);
        match input {
            Input::Message { from, bytes } => self.handle_bytes(from, bytes),
            Input::Submit { transaction, .. } if self.replica.is_none() => {
                self.outputs.push_back(Output::Refused { transaction, refusal: Refusal::Busy });
            }
            // A state of the epoch before has nobody left who asked for it.
            Input::Snapshot { position, .. } if position <= self.anchor.position => {}
            Input::Snapshot { position, state } => {
                self.handle_inner(Input::Snapshot { position: position - self.anchor.position, state });
            }
            other @ (Input::Submit { .. } | Input::Succeed(_) | Input::Tick) => self.handle_inner(other),
        }
        self.catch_up();
    }

    fn poll_output(&mut self) -> Option<Output> {
        self.outputs.pop_front()
    }

    fn poll_timeout(&self) -> Time {
        let inner = self.replica.as_ref().map_or(Time::MAX, |replica| replica.poll_timeout());
        inner.min(self.catch_up_at())
    }

    fn figures(&self) -> Figures {
        let inner = self.replica.as_ref().map(|replica| replica.figures()).unwrap_or_default();
        let (base, earlier) = (self.anchor.position, &self.earlier);
        Figures {
            epoch: self.epoch(),
            position: inner.position + base,
            stable: inner.stable + base,
            refused: inner.refused + earlier.refused + self.refused,
            leaders_given_up: inner.leaders_given_up + earlier.leaders_given_up,
            transfers: inner.transfers + earlier.transfers,
            conflicts: inner.conflicts + earlier.conflicts,
            ..inner
        }
    }
}
