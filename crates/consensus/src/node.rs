//! A replica: the shared core and one protocol. Decodes what peers send, hands it to the right half, lets both act on
//! the time, and executes what came out.
use alloc::vec::Vec;

use crate::checkpoint::News;
use crate::core::{Core, CoreMessage, ENVELOPE_BYTES, MESSAGE_BYTES_MAX, Status, mutant};
use crate::io::{Corrupt, Figures, Input, Key, Output, Replica, Start};
use crate::types::{ReplicaId, Time};
use crate::wire::{Wire, WireError};

/// Decides the order of certified batches. Everything else is the core's.
pub(crate) trait Protocol: Sized + core::fmt::Debug {
    type Message: Wire;

    /// A protocol at its start, with its own records.
    fn new(core: &mut Core, records: &[(Key, Vec<u8>)]) -> Result<Self, Corrupt>;

    fn handle_message(&mut self, core: &mut Core, from: ReplicaId, message: Self::Message);

    /// A peer says how far it is.
    fn handle_status(&mut self, core: &mut Core, from: ReplicaId, status: &Status);

    /// Something was handled, or time passed.
    fn advance(&mut self, core: &mut Core);

    /// Time to say again what may be lost.
    fn retry(&mut self, core: &mut Core);

    /// A checkpoint is stable: what is before it can go.
    fn handle_stable(&mut self, core: &mut Core, position: u64);

    /// The state was replaced.
    fn handle_restored(&mut self, core: &mut Core, position: u64, order_state: &[u8]);

    /// View or round.
    fn mark(&self) -> u64;

    /// Whether something is under way.
    fn is_busy(&self, core: &Core) -> bool;

    fn timeout(&self, core: &Core) -> Time;

    /// Slots or rounds held, and messages put aside.
    fn sizes(&self) -> (usize, usize);
}

/// Stands among the records from the loss of all others until nothing that was forgotten can matter.
pub(crate) const LOST: Key = Key::Protocol { kind: 0, number: 0 };

/// A replica of one protocol.
#[derive(Debug)]
pub(crate) struct Node<P> {
    core: Core,
    protocol: P,
}

impl<P: Protocol> Node<P> {
    /// A replica from what it finds on its disk. Outputs may already wait.
    ///
    /// # Errors
    /// [`Corrupt`] where a record is not what was written.
    pub(crate) fn start(mut core: Core, now: Time, start: Start) -> Result<Self, Corrupt> {
        core.now = now;
        let records = match start {
            Start::Fresh => Vec::new(),
            Start::Resume(records) => records,
            Start::Lost => {
                core.lost = true;
                core.put(Output::Persist { key: LOST, value: Vec::new() });
                Vec::new()
            }
        };
        // Records made after the loss are no memory of what was said before it.
        core.lost |= records.iter().any(|(key, _)| *key == LOST);
        let stable = records.iter().find(|(key, _)| *key == Key::Stable);
        core.resume_checkpoint(stable.map(|(_, value)| value.as_slice()))?;
        for (_, value) in records.iter().filter(|(key, _)| matches!(key, Key::Batch { .. })) {
            core.resume_batch(value)?;
        }
        let protocol = P::new(&mut core, &records)?;
        let mut node = Self { core, protocol };
        node.settle();
        Ok(node)
    }

    #[cfg(feature = "mutations")]
    pub(crate) fn core(&self) -> &Core {
        &self.core
    }

    fn handle_bytes(&mut self, from: ReplicaId, bytes: &[u8]) {
        let known = self.core.config.plan.contains(from) && from != self.core.config.me;
        if !known || bytes.len() > MESSAGE_BYTES_MAX || self.decode(from, bytes).is_err() {
            self.core.refuse();
        }
    }

    fn decode(&mut self, from: ReplicaId, bytes: &[u8]) -> Result<(), WireError> {
        let (head, body) = bytes.split_at_checked(ENVELOPE_BYTES).ok_or(WireError::Short)?;
        let (epoch, plane) = <(u64, u8)>::decoded(head)?;
        if epoch != self.core.config.epoch && !mutant!(self.core, EpochUnbound) {
            return Err(WireError::Invalid);
        }
        match plane {
            0 => {
                let message = CoreMessage::decoded(body)?;
                if let CoreMessage::Status(status) = &message {
                    self.protocol.handle_status(&mut self.core, from, status);
                }
                self.core.handle_message(from, message);
            }
            1 => self.protocol.handle_message(&mut self.core, from, P::Message::decoded(body)?),
            _ => return Err(WireError::Invalid),
        }
        Ok(())
    }

    /// Acts until nothing follows from what was handled.
    fn settle(&mut self) {
        self.take_news();
        let busy = self.protocol.is_busy(&self.core);
        if self.core.retry(self.protocol.mark(), busy) {
            self.protocol.retry(&mut self.core);
        }
        self.core.rate_in_time();
        self.core.close_batch_in_time();
        self.protocol.advance(&mut self.core);
        self.core.execute();
        while self.take_news() {
            self.protocol.advance(&mut self.core);
            self.core.execute();
        }
    }

    /// Lets the protocol see what happened to checkpoints; false where nothing did.
    fn take_news(&mut self) -> bool {
        let news = core::mem::take(&mut self.core.checkpoints.news);
        let any = !news.is_empty();
        for news in news {
            match news {
                News::Stable(position) => self.protocol.handle_stable(&mut self.core, position),
                News::Restored(position, order_state) => {
                    self.protocol.handle_restored(&mut self.core, position, &order_state);
                }
            }
        }
        any
    }
}

impl<P: Protocol> Replica for Node<P> {
    fn handle(&mut self, now: Time, input: Input<'_>) {
        self.core.now = self.core.now.max(now);
        match input {
            Input::Message { from, bytes } => self.handle_bytes(from, bytes),
            Input::Submit { transaction, payload } => {
                self.core.handle_submit(transaction, payload);
                // Nothing follows from a transaction until its batch is closed: thousands come in a turn.
                if !self.core.has_batch_to_close() {
                    return;
                }
            }
            Input::Snapshot { position, state } => self.core.handle_snapshot(position, &state),
            Input::Succeed(plan) => self.core.handle_wish(plan),
            Input::Tick => {}
        }
        self.settle();
    }

    fn poll_output(&mut self) -> Option<Output> {
        self.core.outputs.pop_front()
    }

    fn poll_timeout(&self) -> Time {
        let closes = self.core.mempool.closes_at(self.core.config.batch_delay).unwrap_or(Time::MAX);
        // A batch that is due and cannot be closed waits for an earlier one, not for the time.
        let closes = if closes <= self.core.now { Time::MAX } else { closes };
        self.core.next_retry.min(closes).min(self.protocol.timeout(&self.core))
    }

    fn figures(&self) -> Figures {
        let (log_length, put_aside) = self.protocol.sizes();
        Figures {
            epoch: self.core.config.epoch,
            position: self.core.ledger.position(),
            mark: self.protocol.mark(),
            batches: self.core.mempool.held(),
            log_length,
            put_aside,
            ..self.core.figures
        }
    }
}
