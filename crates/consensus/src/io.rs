//! The border of a replica: what goes in, what comes out, what is kept on disk. The driver's side of the contract
//! stands here.
use alloc::sync::Arc;
use alloc::vec::Vec;

use crate::batch::{Batch, BatchName};
use crate::crypto::{Certificate, Signature};
use crate::plan::Plan;
use crate::types::{Digest, ReplicaId, Time, TransactionId};
use crate::wire::{Reader, Wire, WireError};

/// A replica of any protocol. One mutation, then a drain.
///
/// The driver carries outputs out in their order. One rule makes persistence safe: nothing that stands behind a
/// [`Output::Persist`] may leave the machine before that record is durable. (It may go on handling inputs meanwhile,
/// and make many records durable at once.)
pub trait Replica: core::fmt::Debug {
    /// Takes one input. Times never go back; a time that does is taken as the latest.
    fn handle(&mut self, now: Time, input: Input<'_>);

    /// The next thing to do; drained to `None` after each [`handle`](Self::handle).
    fn poll_output(&mut self) -> Option<Output>;

    /// When [`Input::Tick`] is due.
    fn poll_timeout(&self) -> Time;

    /// What is counted and what is bounded.
    fn figures(&self) -> Figures;
}

/// What a replica is told.
#[derive(Debug)]
pub enum Input<'a> {
    /// Bytes of an authenticated peer.
    Message {
        /// Who sent them, by its connection's certificate.
        from: ReplicaId,
        /// One whole message.
        bytes: &'a [u8],
    },
    /// A transaction of a client of this replica.
    Submit {
        /// Its name. The same name applies once, however often it is submitted and where.
        transaction: TransactionId,
        /// What the application will see.
        payload: &'a [u8],
    },
    /// The application's state, as [`Output::TakeSnapshot`] asked for.
    Snapshot {
        /// After which position it was taken.
        position: u64,
        /// The same bytes at every replica that applied the same.
        state: Arc<[u8]>,
    },
    /// This replica wants its epoch to end and the plan to follow. Happens when so many members of the committee want
    /// the same that one of them is correct. Said until it does, or another is wanted.
    Succeed(Plan),
    /// Time passed.
    Tick,
}

/// What a replica wants done.
#[derive(Debug, Clone)]
pub enum Output {
    /// Send bytes to a peer. May be lost.
    Send {
        /// To whom.
        to: ReplicaId,
        /// One whole message.
        bytes: Arc<[u8]>,
    },
    /// Make a record durable, in place of the one of the same key. A barrier: see [`Replica`].
    Persist {
        /// Under which key.
        key: Key,
        /// The record.
        value: Vec<u8>,
    },
    /// The record of this key is of no more use.
    Forget {
        /// Which.
        key: Key,
    },
    /// Apply transactions to the application.
    Apply(Apply),
    /// Answer with [`Input::Snapshot`] of the state after everything applied so far.
    TakeSnapshot {
        /// The position that was applied last.
        position: u64,
    },
    /// Replace the application's whole state.
    Restore {
        /// The position that it was taken after.
        position: u64,
        /// `None` is the state before the first transaction.
        state: Option<Arc<[u8]>>,
    },
    /// Something will be applied, in all likelihood. Nothing irreversible may follow from it.
    Probable(Probable),
    /// An order came so far. For metrics only.
    Reached(Reached),
    /// A transaction was not taken.
    Refused {
        /// Which.
        transaction: TransactionId,
        /// Why.
        refusal: Refusal,
    },
    /// A replica signed two statements that exclude each other.
    Evidence(Evidence),
    /// The epoch is over. Said once, by a replica of one epoch; [`Epochs`](crate::Epochs) takes it and goes on.
    Ended(Ended),
    /// An epoch began. From [`Epochs`](crate::Epochs) only.
    Began(Began),
}

/// The end of an epoch.
#[derive(Debug, Clone)]
pub struct Ended {
    /// Its last checkpoint, with the plan of the next one.
    pub last: Stable,
    /// The whole state after it.
    pub snapshot: Arc<[u8]>,
    /// Transactions of own clients that were taken and not applied.
    pub left: Vec<(TransactionId, Vec<u8>)>,
}

/// The beginning of an epoch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Began {
    /// What it is made of.
    pub plan: Plan,
    /// The position before its first.
    pub position: u64,
    /// Trust in each member, in millionths of the whole, by number; empty before anybody said anything.
    pub trust: Vec<(ReplicaId, u32)>,
    /// Steps until trust had settled; 0 where there was none.
    pub trust_rounds: u32,
}

/// Transactions at a position of the order.
#[derive(Debug, Clone)]
pub struct Apply {
    /// Where in the order. Several batches may share a position; they come in order.
    pub position: u64,
    /// The batch.
    pub batch: Batch,
    /// Which of its transactions must be passed over, by place, rising: they were applied before, or are not for the
    /// application.
    pub passed_over: Vec<u32>,
}

impl Apply {
    /// The transactions to apply, in order.
    pub fn transactions(&self) -> impl Iterator<Item = (TransactionId, &[u8])> {
        let numbered = self.batch.transactions().enumerate();
        numbered
            .filter(|(place, _)| self.passed_over.binary_search(&(*place as u32)).is_err())
            .map(|(_, transaction)| transaction)
    }
}

/// What a sampled quorum has decided: it stands but for an unlikely accident, or for leaders and networks that work
/// together. What stands for certain is applied ([`Output::Apply`]), and only that.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Probable {
    /// The position that it will have.
    pub position: u64,
    /// Its batches, in order.
    pub batches: Vec<BatchName>,
    /// Transactions in those that are here.
    pub transactions: Vec<TransactionId>,
    /// The votes, for whoever wants to check them.
    pub proof: Vec<u8>,
}

/// How long a part of the order took at this replica, from when it accepted the proposal.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Reached {
    /// How far it came.
    pub stage: Stage,
    /// What it took, in nanoseconds.
    pub took: Time,
}

/// A point on the way of a proposal.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stage {
    /// A quorum stands behind it.
    Quorum,
    /// It stands but for an unlikely accident.
    Probable,
    /// It stands.
    Certain,
    /// From one own certified vertex to the next; only of a DAG.
    Round,
}

/// Why a transaction was not taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refusal {
    /// Too much waits already. Try later, or another replica.
    Busy,
    /// It does not fit into a batch.
    TooLarge,
    /// It was applied before, or its number is below what is remembered.
    Repeated,
}

/// Two statements of one signer that exclude each other. Anybody can check it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Evidence {
    /// Who signed both.
    pub culprit: ReplicaId,
    /// Statements and signatures.
    pub signed: [(Vec<u8>, Signature); 2],
}

/// A checkpoint that a quorum signed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stable {
    /// After which position.
    pub position: u64,
    /// Digest of the snapshot.
    pub digest: Digest,
    /// What follows, where the epoch ended here.
    pub successor: Option<Plan>,
    /// The signatures.
    pub certificate: Certificate,
}

/// Counters for metrics, and sizes that have a bound.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Figures {
    /// Which epoch.
    pub epoch: u64,
    /// Last position applied.
    pub position: u64,
    /// Last stable checkpoint.
    pub stable: u64,
    /// View or round.
    pub mark: u64,
    /// Messages that were refused: undecodable, of another epoch, out of bounds, falsely signed.
    pub refused: u64,
    /// Leaders given up.
    pub leaders_given_up: u64,
    /// States taken from peers.
    pub transfers: u64,
    /// Two certificates that exclude each other were seen: more replicas are faulty than was assumed.
    pub conflicts: u64,
    /// Slots or DAG rounds held.
    pub log_length: usize,
    /// Batches held.
    pub batches: usize,
    /// Messages put aside for later.
    pub put_aside: usize,
}

/// Under which name a record is kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Key {
    /// The last stable checkpoint and its snapshot.
    Stable,
    /// A batch that this replica promised to keep.
    Batch {
        /// Who made it.
        author: ReplicaId,
        /// Its author's count.
        sequence: u64,
    },
    /// Of a protocol: what kind, and which.
    Protocol {
        /// Told apart by the protocol.
        kind: u8,
        /// Slot, round or author.
        number: u64,
    },
    /// Which epoch this is.
    Epoch,
    /// The state that an epoch began with.
    Origin {
        /// Which epoch.
        epoch: u64,
    },
    /// How an epoch ended.
    Link {
        /// Which epoch.
        epoch: u64,
    },
}

impl Wire for Key {
    fn write(&self, out: &mut Vec<u8>) {
        let (tag, number) = match *self {
            Self::Stable => ([0, 0, 0], 0),
            Self::Batch { author, sequence } => {
                let [low, high] = author.0.to_le_bytes();
                ([1, low, high], sequence)
            }
            Self::Protocol { kind, number } => ([2, kind, 0], number),
            Self::Epoch => ([3, 0, 0], 0),
            Self::Origin { epoch } => ([4, 0, 0], epoch),
            Self::Link { epoch } => ([5, 0, 0], epoch),
        };
        tag.write(out);
        number.write(out);
    }

    fn read(input: &mut Reader<'_>) -> Result<Self, WireError> {
        let tag: [u8; 3] = Wire::read(input)?;
        let number = u64::read(input)?;
        match (tag, number) {
            ([0, 0, 0], 0) => Ok(Self::Stable),
            ([1, low, high], sequence) => {
                Ok(Self::Batch { author: ReplicaId(u16::from_le_bytes([low, high])), sequence })
            }
            ([2, kind, 0], number) => Ok(Self::Protocol { kind, number }),
            ([3, 0, 0], 0) => Ok(Self::Epoch),
            ([4, 0, 0], epoch) => Ok(Self::Origin { epoch }),
            ([5, 0, 0], epoch) => Ok(Self::Link { epoch }),
            _ => Err(WireError::Invalid),
        }
    }
}

/// What a replica finds when it starts.
#[derive(Debug)]
pub enum Start {
    /// It was never here: the cluster is new, or the replica is.
    Fresh,
    /// Its records as they were made durable.
    Resume(Vec<(Key, Vec<u8>)>),
    /// It was here before, and its records are gone or cannot be trusted. It votes again once nothing that it may have
    /// forgotten can matter; until then it counts as faulty.
    Lost,
}

/// A record that is not what was written. The driver starts the replica again with [`Start::Lost`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Corrupt;

impl From<WireError> for Corrupt {
    fn from(_: WireError) -> Self {
        Self
    }
}
