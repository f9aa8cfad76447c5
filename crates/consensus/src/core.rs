//! What all protocols share: messages and statements, the mempool, the ledger, checkpoints, catching up. A protocol
//! decides the order and nothing else; [`Node`](crate::node::Node) puts the two together.
use alloc::boxed::Box;
use alloc::collections::{BTreeMap, VecDeque};
use alloc::sync::Arc;
use alloc::vec::Vec;

use crate::batch::{Batch, BatchRef};
use crate::checkpoint::{CheckpointVote, Checkpoints, SnapshotPart, SnapshotWish};
use crate::commands::{Accusation, Opinions};
use crate::config::Config;
use crate::crypto::{Check, Crypto, Signature};
use crate::io::{Apply, Evidence, Figures, Output, Stable};
use crate::ledger::{Ledger, Ordered};
use crate::mempool::{Mempool, Promise};
use crate::types::{Digest, ReplicaId, Time};
use crate::wire::{Wire, wire_enum, wire_struct};

/// The shared part of a replica.
#[derive(Debug)]
pub(crate) struct Core {
    pub(crate) config: Config,
    pub(crate) crypto: Box<dyn Crypto>,
    context: Digest,
    pub(crate) now: Time,
    pub(crate) outputs: VecDeque<Output>,
    pub(crate) mempool: Mempool,
    pub(crate) ledger: Ledger,
    pub(crate) checkpoints: Checkpoints,
    pub(crate) figures: Figures,
    pub(crate) next_retry: Time,
    idle_retries: u32,
    /// Members that a follower has asked.
    asked: usize,
    /// Bytes sent on demand since the last retry, by peer.
    served: BTreeMap<ReplicaId, usize>,
    /// The replica was here before and has forgotten what it said.
    pub(crate) lost: bool,
    /// Some member is past the end of this epoch: who has forgotten what it said may have been, too.
    stays_lost: bool,
    pub(crate) opinions: Opinions,
    /// What the epoch begins with.
    pub(crate) origin: Option<Arc<[u8]>>,
    #[cfg(feature = "mutations")]
    pub(crate) mutation: Option<crate::mutation::Mutation>,
}

/// Whether a deliberate bug is switched on. Constant `false` in product builds.
macro_rules! mutant {
    ($core:expr, $name:ident) => {{
        #[cfg(feature = "mutations")]
        let on = $core.mutation == Some($crate::mutation::Mutation::$name);
        #[cfg(not(feature = "mutations"))]
        let on = {
            let _ = &$core;
            false
        };
        on
    }};
}
pub(crate) use mutant;

wire_enum! {
    /// Messages that every protocol has.
    #[derive(Debug, Clone)]
    pub(crate) enum CoreMessage {
        /// A batch, by its author.
        0 => Batch(Batch),
        /// Keeps it.
        1 => Promise(Promise),
        /// A quorum keeps it.
        2 => Certified(BatchRef),
        /// Who keeps this?
        3 => FetchBatch(Digest),
        /// This.
        4 => FetchedBatch(Batch),
        /// The state after a position.
        5 => Checkpoint(CheckpointVote),
        /// A quorum has the same.
        6 => Stable(Stable),
        /// The state itself?
        7 => FetchSnapshot(SnapshotWish),
        /// A part of it.
        8 => Snapshot(SnapshotPart),
        /// How far the sender is.
        9 => Status(Status),
    }
}

wire_struct! {
    /// How far a replica is. Whoever is further sends what it lacks: what is lost is repaired by state, not by message.
    #[derive(Debug, Clone, Copy, PartialEq, Eq)]
    pub(crate) struct Status {
        pub(crate) position: u64,
        pub(crate) stable: u64,
        /// View or round.
        pub(crate) mark: u64,
        /// Has lost its records and must learn what it may have said.
        pub(crate) lost: bool,
        /// Has executed the last position of the epoch.
        pub(crate) is_over: bool,
    }
}

/// What a signature is about; first byte of each statement.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Kind {
    Batch = 1,
    Checkpoint = 2,
    Prepare = 3,
    Commit = 4,
    ViewChange = 5,
    NewView = 6,
    Header = 7,
    /// A leader's piece of a range.
    Piece = 8,
    PiecePrepare = 9,
    PieceCommit = 10,
    /// What was prepared of ranges, at the change of a view.
    Report = 11,
    Resume = 12,
}

/// No view or term ever gets there. A higher one was damaged or made up.
pub(crate) const COUNT_MAX: u64 = 1 << 62;
/// Largest message that is looked at.
pub(crate) const MESSAGE_BYTES_MAX: usize = 8 << 20;
/// Bytes of batches and snapshots that a peer gets on demand between two retries.
pub(crate) const SERVED_BYTES_MAX: usize = 8 << 20;
/// In front of every message: epoch, and whether it is the core's or the protocol's.
pub(crate) const ENVELOPE_BYTES: usize = 9;

impl Core {
    pub(crate) fn new(config: Config, crypto: Box<dyn Crypto>, origin: Option<Arc<[u8]>>) -> Self {
        Self {
            context: config.context(),
            config,
            crypto,
            now: 0,
            outputs: VecDeque::new(),
            mempool: Mempool::default(),
            ledger: Ledger::default(),
            checkpoints: Checkpoints::default(),
            figures: Figures::default(),
            next_retry: 0,
            idle_retries: 0,
            asked: 0,
            served: BTreeMap::new(),
            lost: false,
            stays_lost: false,
            opinions: Opinions::default(),
            origin,
            #[cfg(feature = "mutations")]
            mutation: None,
        }
    }

    /// Switches a deliberate bug on, before anything else happens.
    #[cfg(feature = "mutations")]
    pub(crate) fn mutate(&mut self, mutation: Option<crate::mutation::Mutation>) {
        self.mutation = mutation;
        if mutant!(self, EpochUnbound) {
            self.context = Digest::default();
        }
    }

    pub(crate) fn put(&mut self, output: Output) {
        self.outputs.push_back(output);
    }

    pub(crate) fn refuse(&mut self) {
        self.figures.refused += 1;
    }

    pub(crate) fn is_member(&self) -> bool {
        self.config.committee.contains(self.config.me)
    }

    /// What is signed: the kind, the epoch's context, two numbers and a digest.
    pub(crate) fn statement(&self, kind: Kind, numbers: [u64; 2], digest: &Digest) -> [u8; 81] {
        let mut bytes = [0; 81];
        bytes[0] = kind as u8;
        bytes[1..33].copy_from_slice(&self.context.0);
        bytes[33..41].copy_from_slice(&numbers[0].to_le_bytes());
        bytes[41..49].copy_from_slice(&numbers[1].to_le_bytes());
        bytes[49..].copy_from_slice(&digest.0);
        bytes
    }

    pub(crate) fn verify(&self, signer: ReplicaId, statement: &[u8], signature: &Signature) -> bool {
        self.crypto.verify(Check { signer, statement, signature })
    }

    fn envelope(&self, plane: u8, message: &impl Wire) -> Arc<[u8]> {
        let mut bytes = Vec::new();
        self.config.epoch.write(&mut bytes);
        plane.write(&mut bytes);
        message.write(&mut bytes);
        bytes.into()
    }

    pub(crate) fn send(&mut self, to: ReplicaId, message: &CoreMessage) {
        let bytes = self.envelope(0, message);
        self.put(Output::Send { to, bytes });
    }

    pub(crate) fn send_protocol(&mut self, to: ReplicaId, message: &impl Wire) {
        let bytes = self.envelope(1, message);
        self.put(Output::Send { to, bytes });
    }

    /// To all other members.
    pub(crate) fn broadcast(&mut self, message: &CoreMessage) {
        let bytes = self.envelope(0, message);
        self.put_to_members(&bytes);
    }

    /// To all other members.
    pub(crate) fn broadcast_protocol(&mut self, message: &impl Wire) {
        let bytes = self.envelope(1, message);
        self.put_to_members(&bytes);
    }

    fn put_to_members(&mut self, bytes: &Arc<[u8]>) {
        let me = self.config.me;
        let peers = self.config.committee.members().iter().copied().filter(|peer| *peer != me);
        self.outputs.extend(peers.map(|to| Output::Send { to, bytes: bytes.clone() }));
    }

    /// To everybody else, whether its votes count or not.
    pub(crate) fn broadcast_to_all(&mut self, message: &CoreMessage) {
        let bytes = self.envelope(0, message);
        let peers = self.config.peers();
        self.outputs.extend(peers.map(|to| Output::Send { to, bytes: bytes.clone() }));
    }

    /// Whether a peer may have so many more bytes on demand. A peer that asks for everything again and again waits.
    pub(crate) fn may_serve(&mut self, to: ReplicaId, bytes: usize) -> bool {
        let served = self.served.entry(to).or_default();
        *served += bytes;
        *served <= SERVED_BYTES_MAX
    }

    pub(crate) fn handle_message(&mut self, from: ReplicaId, message: CoreMessage) {
        match message {
            CoreMessage::Batch(batch) => self.handle_batch(from, batch),
            CoreMessage::Promise(promise) => self.handle_promise(from, promise),
            CoreMessage::Certified(batch) => self.handle_certified(batch),
            CoreMessage::FetchBatch(digest) => self.handle_fetch_batch(from, &digest),
            CoreMessage::FetchedBatch(batch) => self.handle_fetched_batch(batch),
            CoreMessage::Checkpoint(vote) => self.handle_checkpoint(from, vote),
            CoreMessage::Stable(stable) => self.handle_stable(stable),
            CoreMessage::FetchSnapshot(wish) => self.handle_fetch_snapshot(from, &wish),
            CoreMessage::Snapshot(part) => self.handle_snapshot_part(from, &part),
            CoreMessage::Status(status) => self.handle_status(from, &status),
        }
    }

    fn handle_status(&mut self, from: ReplicaId, status: &Status) {
        self.stays_lost |= status.is_over && self.config.committee.contains(from);
        if status.stable < self.checkpoints.stable_position()
            && let Some(stable) = self.checkpoints.stable().cloned()
        {
            self.send(from, &CoreMessage::Stable(stable));
        }
    }

    /// Says again what may be lost; true where it was time to.
    pub(crate) fn retry(&mut self, mark: u64, is_busy: bool) -> bool {
        if self.now < self.next_retry {
            return false;
        }
        let busy = is_busy || self.mempool.is_busy() || self.checkpoints.is_behind(self.ledger.position());
        self.idle_retries = if busy { 0 } else { (self.idle_retries + 1).min(IDLE_RETRIES_MAX) };
        self.next_retry = self.now + (self.config.retry << self.idle_retries);
        self.served.clear();
        self.retry_batches();
        self.retry_checkpoints();
        self.say_wish();
        let status = Status {
            position: self.ledger.position(),
            stable: self.checkpoints.stable_position(),
            mark,
            lost: self.lost,
            is_over: self.checkpoints.is_over(),
        };
        self.say_status(status);
        true
    }

    /// Members tell everybody. Who only follows asks two members at a time, each time others: it needs one answer, and
    /// there may be many followers.
    fn say_status(&mut self, status: Status) {
        let message = CoreMessage::Status(status);
        if self.is_member() {
            return self.broadcast_to_all(&message);
        }
        let members = self.config.committee.members();
        let first = usize::from(self.config.me.0) + 2 * self.asked;
        let asked = [0, 1].map(|next| members[(first + next) % members.len()]);
        self.asked = self.asked.wrapping_add(1) % members.len();
        asked.into_iter().for_each(|member| self.send(member, &message));
    }

    /// Executes what is ordered, as far as its payload is here.
    pub(crate) fn execute(&mut self) {
        while let Some(ordered) = self.ledger.next() {
            if self.checkpoints.is_over() && !mutant!(self, EndIgnored) {
                return;
            }
            let position = self.ledger.position() + 1;
            if let Some(batch) = ordered.batches.get(ordered.done).cloned() {
                if !self.execute_batch(position, &batch) {
                    return;
                }
                continue;
            }
            let ordered = self.ledger.finish_block();
            let is_over = self.checkpoints.is_over();
            if let Some(successor) = self.successor().filter(|_| !is_over) {
                self.begin_last_checkpoint(&ordered.order_state, successor);
            } else if position.is_multiple_of(self.config.checkpoint_interval) {
                self.begin_checkpoint(&ordered.order_state);
            }
        }
    }

    /// False where its payload is not here.
    fn execute_batch(&mut self, position: u64, batch: &BatchRef) -> bool {
        if self.ledger.is_done(&batch.name) {
            self.ledger.pass_batch();
            return true;
        }
        let Some(payload) = self.mempool.payload(&batch.name.digest).cloned() else {
            self.want(batch);
            return false;
        };
        let mut passed_over = self.ledger.execute_batch(&payload, self.config.clients_max);
        if mutant!(self, AppliesRepeated) {
            passed_over.clear();
        }
        self.execute_commands(&payload, &mut passed_over);
        self.batch_is_done(position, &batch.name);
        self.put(Output::Apply(Apply { position, batch: payload, passed_over }));
        true
    }

    /// Executes a batch's commands; they are none of the application's business.
    fn execute_commands(&mut self, batch: &Batch, passed_over: &mut Vec<u32>) {
        let author = batch.name().author;
        let numbered = batch.transactions().zip(0_u32..).filter(|((id, _), _)| id.is_command());
        for ((id, bytes), place) in numbered {
            if let Err(at) = passed_over.binary_search(&place) {
                passed_over.insert(at, place);
                self.execute_command(author, id, bytes);
            }
        }
    }

    /// Nothing that was said before the records were lost can matter any more.
    pub(crate) fn recover(&mut self) {
        if self.stays_lost {
            return;
        }
        self.lost = false;
        self.skip_own_sequences();
        self.put(Output::Forget { key: crate::node::LOST });
    }

    /// Takes a block into the order.
    pub(crate) fn order(&mut self, position: u64, batches: Vec<BatchRef>, order_state: Vec<u8>) {
        self.ledger.order(position, Ordered { batches, order_state, done: 0 });
        self.next_retry = self.next_retry.min(self.now + self.config.retry);
    }

    /// Two signed statements of a replica that exclude each other are handed out, once both are shown to be its own.
    pub(crate) fn accuse(
        &mut self,
        culprit: ReplicaId,
        kind: Kind,
        numbers: [u64; 2],
        votes: [(Digest, Signature); 2],
    ) {
        let signed =
            votes.map(|(digest, signature)| (self.statement(kind, numbers, &digest).to_vec(), signature));
        if signed.iter().all(|(statement, signature)| self.verify(culprit, statement, signature)) {
            self.put(Output::Evidence(Evidence { culprit, signed }));
            let [first, second] = votes;
            let numbers = (numbers[0], numbers[1]);
            self.denounce(Accusation { culprit, kind: kind as u8, numbers, first, second });
        }
    }
}

/// While nothing happens, pauses double so often.
const IDLE_RETRIES_MAX: u32 = 4;
