//! Checkpoints and state transfer of all protocols: every so many positions each replica signs the digest of its
//! state; a quorum of the same makes it stable, lets the log go, and lets a replica that is behind take the state in
//! place of the log. The digest covers the ledger, the protocol's own state and the application's.
use alloc::collections::{BTreeMap, btree_map::Entry};
use alloc::sync::Arc;
use alloc::vec::Vec;

use crate::core::{Core, CoreMessage, Kind, mutant};
use crate::crypto::{Certificate, Signature};
use crate::io::{Corrupt, Ended, Key, Output, Stable};
use crate::ledger::Head;
use crate::plan::Plan;
use crate::types::{Digest, ReplicaId, Time, domain};
use crate::votes::Votes;
use crate::wire::{Reader, Wire, WireError, wire_struct};

/// Checkpoints under way, the stable one, and the state being taken from a peer.
#[derive(Debug, Default)]
pub(crate) struct Checkpoints {
    /// Ledger and protocol state at positions whose application state was asked for.
    begun: BTreeMap<u64, Vec<u8>>,
    /// Own snapshots that are not stable yet.
    own: BTreeMap<u64, (Digest, Arc<[u8]>)>,
    votes: BTreeMap<u64, Votes>,
    stable: Option<(Stable, Arc<[u8]>)>,
    /// The epoch's last position, and what follows.
    last: Option<(u64, Plan)>,
    /// The best certificate beyond what is stable here.
    known: Option<Stable>,
    /// Where execution stood, and since when, while it was behind `known`.
    behind: Option<(u64, Time)>,
    transfer: Option<Transfer>,
    /// For the protocol to look at.
    pub(crate) news: Vec<News>,
}

/// What happened to checkpoints.
#[derive(Debug)]
pub(crate) enum News {
    /// This position is stable.
    Stable(u64),
    /// The state was replaced by the one after this position; with it comes the protocol's own state.
    Restored(u64, Vec<u8>),
}

#[derive(Debug)]
struct Transfer {
    target: Stable,
    attempts: usize,
    bytes: Vec<u8>,
    asked: Time,
}

wire_struct! {
    /// A replica's state after a position.
    #[derive(Debug, Clone, Copy, PartialEq, Eq)]
    pub(crate) struct CheckpointVote {
        position: u64,
        /// What is signed: of the snapshot, and at the end of the epoch of what follows too.
        digest: Digest,
        is_last: bool,
        signature: Signature,
    }
}

wire_struct! {
    /// Asks for a part of a snapshot.
    #[derive(Debug, Clone, Copy, PartialEq, Eq)]
    pub(crate) struct SnapshotWish {
        position: u64,
        offset: u32,
    }
}

wire_struct! {
    /// A part of a snapshot. Proven by the digest of the whole.
    #[derive(Debug, Clone, PartialEq, Eq)]
    pub(crate) struct SnapshotPart {
        position: u64,
        offset: u32,
        total: u32,
        bytes: Arc<[u8]>,
    }
}

impl Wire for Stable {
    fn write(&self, out: &mut Vec<u8>) {
        self.position.write(out);
        self.digest.write(out);
        self.successor.write(out);
        self.certificate.write(out);
    }

    fn read(input: &mut Reader<'_>) -> Result<Self, WireError> {
        Ok(Self {
            position: Wire::read(input)?,
            digest: Wire::read(input)?,
            successor: Wire::read(input)?,
            certificate: Certificate::read(input)?,
        })
    }
}

impl Stable {
    /// What its signatures are of.
    pub(crate) fn signed(&self) -> Digest {
        signed_digest(&self.digest, self.successor.as_ref())
    }
}

/// What a checkpoint's signature is of: the snapshot's digest, at the end of an epoch together with what follows.
fn signed_digest(digest: &Digest, successor: Option<&Plan>) -> Digest {
    let Some(plan) = successor else { return *digest };
    let mut bytes = digest.encoded();
    plan.write(&mut bytes);
    Digest::of(domain::BOUNDARY, &bytes)
}

/// Bytes of one part.
pub(crate) const PART_BYTES: usize = 256 << 10;

impl Checkpoints {
    pub(crate) fn stable(&self) -> Option<&Stable> {
        self.stable.as_ref().map(|(stable, _)| stable)
    }

    pub(crate) fn stable_position(&self) -> u64 {
        self.stable().map_or(0, |stable| stable.position)
    }

    /// Whether the last position of the epoch is executed.
    pub(crate) fn is_over(&self) -> bool {
        self.last.is_some()
    }

    /// What follows a position, where the epoch ends there.
    fn successor_of(&self, position: u64) -> Option<&Plan> {
        self.last.as_ref().filter(|(last, _)| *last == position).map(|(_, plan)| plan)
    }

    /// The highest position that a certificate proves to be stable.
    pub(crate) fn best_position(&self) -> u64 {
        self.known.as_ref().map_or(0, |known| known.position).max(self.stable_position())
    }

    /// Whether a quorum is known to be further than a position.
    pub(crate) fn is_behind(&self, position: u64) -> bool {
        self.known.as_ref().is_some_and(|known| known.position > position)
    }
}

impl Core {
    /// The position executed last is a checkpoint's: remember the ledger as it is, ask for the application's state.
    pub(crate) fn begin_checkpoint(&mut self, order_state: &[u8]) {
        let position = self.ledger.position();
        let mut bytes = self.ledger.head(order_state.len()).encoded();
        bytes.extend_from_slice(order_state);
        self.checkpoints.begun.insert(position, bytes);
        self.put(Output::TakeSnapshot { position });
    }

    /// The position executed last is the epoch's last: its checkpoint says what follows.
    pub(crate) fn begin_last_checkpoint(&mut self, order_state: &[u8], successor: Plan) {
        self.checkpoints.last = Some((self.ledger.position(), successor));
        self.begin_checkpoint(order_state);
    }

    /// The application's state at a checkpoint: sign the whole.
    pub(crate) fn handle_snapshot(&mut self, position: u64, state: &[u8]) {
        let Some(mut bytes) = self.checkpoints.begun.remove(&position) else { return };
        bytes.extend_from_slice(state);
        let digest = Digest::of(domain::SNAPSHOT, &bytes);
        self.checkpoints.own.insert(position, (digest, bytes.into()));
        if self.is_member() {
            let vote = self.checkpoint_vote(position, &digest);
            let votes = self.checkpoints.votes.entry(position).or_default();
            votes.add_own(self.config.me, vote.digest, vote.signature);
            self.broadcast(&CoreMessage::Checkpoint(vote));
        }
        let signed = signed_digest(&digest, self.checkpoints.successor_of(position));
        self.count_checkpoint(position, signed, self.checkpoints.successor_of(position).is_some());
        self.settle();
    }

    /// The own vote for a state.
    fn checkpoint_vote(&self, position: u64, digest: &Digest) -> CheckpointVote {
        let successor = self.checkpoints.successor_of(position);
        let (digest, is_last) = (signed_digest(digest, successor), successor.is_some());
        let signature = self.crypto.sign(&self.checkpoint_statement(position, is_last, &digest));
        CheckpointVote { position, digest, is_last, signature }
    }

    fn checkpoint_statement(&self, position: u64, is_last: bool, digest: &Digest) -> [u8; 81] {
        self.statement(Kind::Checkpoint, [position, u64::from(is_last)], digest)
    }

    pub(crate) fn handle_checkpoint(&mut self, from: ReplicaId, vote: CheckpointVote) {
        let CheckpointVote { position, digest, is_last, signature } = vote;
        let may_be = is_last || position.is_multiple_of(self.config.checkpoint_interval);
        let sound = self.config.committee.contains(from) && may_be;
        if !sound {
            return self.refuse();
        }
        if position <= self.checkpoints.stable_position() {
            return;
        }
        self.forget_older_votes(from, position);
        let checkpoints = &mut self.checkpoints;
        let votes = match checkpoints.votes.entry(position) {
            Entry::Occupied(entry) => entry.into_mut(),
            Entry::Vacant(entry) => entry.insert(Votes::default()),
        };
        votes.add(from, digest, signature);
        self.count_checkpoint(position, digest, is_last);
    }

    /// A peer's votes are kept for few positions: a flood of votes for far ones costs nothing.
    fn forget_older_votes(&mut self, from: ReplicaId, position: u64) {
        let standing = self
            .checkpoints
            .votes
            .iter()
            .filter(|(other, votes)| **other != position && votes.contains(from));
        let standing: Vec<u64> = standing.map(|(other, _)| *other).collect();
        if standing.len() < VOTES_PER_PEER_MAX {
            return;
        }
        // The highest is given up, not the lowest: what is near is needed first, and what is real comes again.
        if let Some(votes) = standing.last().and_then(|highest| self.checkpoints.votes.get_mut(highest)) {
            votes.remove(from);
        }
        self.checkpoints.votes.retain(|_, votes| !votes.is_empty());
    }

    fn count_checkpoint(&mut self, position: u64, digest: Digest, is_last: bool) {
        let statement = self.checkpoint_statement(position, is_last, &digest);
        let quorum = self.config.committee.quorum();
        let Some(votes) = self.checkpoints.votes.get_mut(&position) else { return };
        let Some(certificate) = votes.certificate(&*self.crypto, quorum, &digest, &statement) else { return };
        // What follows the epoch is not in the votes: who has not executed its last position hears it from others.
        let (digest, successor) = match (is_last, self.checkpoints.own.get(&position)) {
            (false, _) => (digest, None),
            (true, Some((own, _)))
                if signed_digest(own, self.checkpoints.successor_of(position)) == digest =>
            {
                (*own, self.checkpoints.successor_of(position).cloned())
            }
            (true, _) => return,
        };
        self.know(Stable { position, digest, successor, certificate });
    }

    /// A checkpoint that a peer says is stable.
    pub(crate) fn handle_stable(&mut self, stable: Stable) {
        let known = self.checkpoints.known.as_ref().map_or(0, |known| known.position);
        if stable.position <= self.checkpoints.stable_position().max(known) {
            return;
        }
        if self.is_stable(&stable) { self.know(stable) } else { self.refuse() }
    }

    /// Whether a quorum signed a checkpoint.
    pub(crate) fn is_stable(&self, stable: &Stable) -> bool {
        let is_last = stable.successor.is_some();
        let statement = self.checkpoint_statement(stable.position, is_last, &stable.signed());
        let may_be = match &stable.successor {
            None => stable.position.is_multiple_of(self.config.checkpoint_interval),
            Some(plan) => self.may_follow(plan),
        };
        may_be && stable.certificate.holds(&*self.crypto, &self.config.committee, &statement)
    }

    /// Takes note of a certificate that holds.
    pub(crate) fn know(&mut self, stable: Stable) {
        let known = self.checkpoints.known.as_ref().map_or(0, |known| known.position);
        if stable.position > known.max(self.checkpoints.stable_position()) {
            self.checkpoints.known = Some(stable);
            self.settle();
        }
    }

    /// Compares what a quorum has with what is here.
    pub(crate) fn settle(&mut self) {
        let Some(known) = self.checkpoints.known.clone() else { return };
        if known.position <= self.checkpoints.stable_position() {
            self.checkpoints.known = None;
            return;
        }
        if let Some((digest, snapshot)) = self.checkpoints.own.get(&known.position).cloned() {
            let agrees = digest == known.digest
                && self.checkpoints.successor_of(known.position) == known.successor.as_ref();
            if agrees || mutant!(self, CheckpointUncompared) {
                self.checkpoints.transfer = None;
                self.become_stable(known, snapshot);
            } else {
                // What was executed here is not what the quorum executed.
                self.figures.conflicts += 1;
                self.begin_transfer(known);
            }
            return;
        }
        let position = self.ledger.position();
        if known.position <= position {
            return;
        }
        let far = known.position >= position + self.config.window();
        let stuck = match self.checkpoints.behind {
            Some((stood, since)) if stood == position => self.now >= since + 2 * self.config.retry,
            _ => {
                self.checkpoints.behind = Some((position, self.now));
                false
            }
        };
        if far || stuck {
            self.begin_transfer(known);
        }
    }

    fn become_stable(&mut self, stable: Stable, snapshot: Arc<[u8]>) {
        let position = stable.position;
        if stable.successor.is_some() {
            let left = self.take_left();
            self.put(Output::Ended(Ended { last: stable.clone(), snapshot: snapshot.clone(), left }));
        }
        let mut value = stable.encoded();
        value.extend_from_slice(&snapshot);
        self.put(Output::Persist { key: Key::Stable, value });
        self.checkpoints.stable = Some((stable, snapshot));
        self.checkpoints.known = None;
        self.checkpoints.behind = None;
        self.checkpoints.own.retain(|other, _| *other > position);
        self.checkpoints.begun.retain(|other, _| *other > position);
        self.checkpoints.votes.retain(|other, _| *other > position);
        self.forget_batches(position);
        self.figures.stable = position;
        self.checkpoints.news.push(News::Stable(position));
    }

    fn begin_transfer(&mut self, target: Stable) {
        if self.checkpoints.transfer.as_ref().is_some_and(|transfer| transfer.target == target) {
            return;
        }
        self.checkpoints.transfer = Some(Transfer { target, attempts: 0, bytes: Vec::new(), asked: 0 });
        self.ask_for_part();
    }

    fn server(&self) -> Option<ReplicaId> {
        let me = self.config.me;
        let transfer = self.checkpoints.transfer.as_ref()?;
        let signers = transfer.target.certificate.signatures.iter().map(|signed| signed.signer);
        let servers: Vec<_> = signers.filter(|peer| *peer != me).collect();
        servers.get((usize::from(me.0) + transfer.attempts) % servers.len().max(1)).copied()
    }

    fn ask_for_part(&mut self) {
        let Some(server) = self.server() else { return };
        let now = self.now;
        let Some(transfer) = self.checkpoints.transfer.as_mut() else { return };
        transfer.asked = now;
        let wish = SnapshotWish { position: transfer.target.position, offset: transfer.bytes.len() as u32 };
        self.send(server, &CoreMessage::FetchSnapshot(wish));
    }

    pub(crate) fn handle_fetch_snapshot(&mut self, from: ReplicaId, wish: &SnapshotWish) {
        let Some((stable, snapshot)) = self.checkpoints.stable.clone() else { return };
        if stable.position > wish.position {
            return self.send(from, &CoreMessage::Stable(stable));
        }
        let offset = wish.offset as usize;
        if stable.position < wish.position || offset > snapshot.len() {
            return;
        }
        let bytes = &snapshot[offset..snapshot.len().min(offset + PART_BYTES)];
        if self.may_serve(from, bytes.len()) {
            let total = snapshot.len() as u32;
            let part =
                SnapshotPart { position: wish.position, offset: wish.offset, total, bytes: bytes.into() };
            self.send(from, &CoreMessage::Snapshot(part));
        }
    }

    pub(crate) fn handle_snapshot_part(&mut self, from: ReplicaId, part: &SnapshotPart) {
        if self.server() != Some(from) {
            return;
        }
        let snapshot_bytes_max = self.config.snapshot_bytes_max;
        let Some(transfer) = self.checkpoints.transfer.as_mut() else { return };
        let expected =
            part.position == transfer.target.position && part.offset as usize == transfer.bytes.len();
        if !expected {
            return;
        }
        transfer.bytes.extend_from_slice(&part.bytes);
        let (have, total) = (transfer.bytes.len(), part.total as usize);
        if total > snapshot_bytes_max || have > total || (part.bytes.is_empty() && have < total) {
            self.refuse();
            return self.ask_next_server();
        }
        if have < total {
            return self.ask_for_part();
        }
        let digest = Digest::of(domain::SNAPSHOT, &transfer.bytes);
        if digest != transfer.target.digest && !mutant!(self, SnapshotUnchecked) {
            self.refuse();
            return self.ask_next_server();
        }
        self.finish_transfer();
    }

    fn ask_next_server(&mut self) {
        if let Some(transfer) = self.checkpoints.transfer.as_mut() {
            transfer.attempts += 1;
            transfer.bytes.clear();
        }
        self.ask_for_part();
    }

    fn finish_transfer(&mut self) {
        let Some(transfer) = self.checkpoints.transfer.take() else { return };
        let snapshot: Arc<[u8]> = transfer.bytes.into();
        self.figures.transfers += 1;
        let Ok(order_state) = self.install(&snapshot) else {
            // A quorum signed what is no snapshot.
            self.figures.conflicts += 1;
            return;
        };
        if let Some(successor) = transfer.target.successor.clone() {
            self.checkpoints.last = Some((transfer.target.position, successor));
            return self.become_stable(transfer.target, snapshot);
        }
        self.become_stable(transfer.target, snapshot);
        self.forget_done_batches();
        let position = self.ledger.position();
        self.checkpoints.news.push(News::Restored(position, order_state));
    }

    /// Replaces the ledger's and the application's state; returns the protocol's.
    fn install(&mut self, snapshot: &[u8]) -> Result<Vec<u8>, WireError> {
        let mut input = Reader::new(snapshot);
        let head = Head::read(&mut input)?;
        let order_state = input.take(head.order_state_length as usize)?.to_vec();
        let state = input.take(input.left())?;
        let position = head.position;
        self.ledger.restore(head);
        self.checkpoints.begun.clear();
        self.checkpoints.own.clear();
        self.put(Output::Restore { position, state: Some(state.into()) });
        Ok(order_state)
    }

    /// Takes up the last stable checkpoint from the records.
    pub(crate) fn resume_checkpoint(&mut self, record: Option<&[u8]>) -> Result<(), Corrupt> {
        let Some(record) = record else {
            let state = self.begin_epoch()?;
            self.put(Output::Restore { position: 0, state });
            return Ok(());
        };
        let mut input = Reader::new(record);
        let stable = Stable::read(&mut input)?;
        let snapshot: Arc<[u8]> = input.take(input.left())?.into();
        if Digest::of(domain::SNAPSHOT, &snapshot) != stable.digest {
            return Err(Corrupt);
        }
        let order_state = self.install(&snapshot)?;
        self.figures.stable = stable.position;
        if let Some(successor) = stable.successor.clone() {
            self.checkpoints.last = Some((stable.position, successor));
            self.put(Output::Ended(Ended { last: stable, snapshot, left: Vec::new() }));
            return Ok(());
        }
        self.checkpoints.news.push(News::Restored(stable.position, order_state));
        self.checkpoints.stable = Some((stable, snapshot));
        Ok(())
    }

    /// Takes over what the last snapshot of the epoch before says; returns the application's state.
    fn begin_epoch(&mut self) -> Result<Option<Arc<[u8]>>, Corrupt> {
        let Some(origin) = self.origin.take() else { return Ok(None) };
        let mut input = Reader::new(&origin);
        let mut head = Head::read(&mut input)?;
        input.take(head.order_state_length as usize)?;
        if mutant!(self, SessionsForgotten) {
            head.forget_sessions();
        }
        self.ledger.begin_epoch(head, &self.config.plan);
        Ok(Some(input.take(input.left())?.into()))
    }

    pub(crate) fn retry_checkpoints(&mut self) {
        self.settle();
        // Longer each time: on a long path no answer comes within one retry.
        let patience =
            |transfer: &Transfer| self.config.retry << transfer.attempts.min(PATIENCE_DOUBLINGS_MAX);
        let is_late = |transfer: &Transfer| transfer.asked + patience(transfer) <= self.now;
        if self.checkpoints.transfer.as_ref().is_some_and(is_late) {
            self.ask_next_server();
        }
        if !self.is_member() {
            return;
        }
        let own: Vec<_> =
            self.checkpoints.own.iter().map(|(position, (digest, _))| (*position, *digest)).collect();
        for (position, digest) in own.into_iter().take(VOTES_PER_PEER_MAX) {
            let vote = self.checkpoint_vote(position, &digest);
            self.broadcast(&CoreMessage::Checkpoint(vote));
        }
    }
}

/// Patience with whoever is asked for a state doubles so often.
pub(crate) const PATIENCE_DOUBLINGS_MAX: usize = 5;
/// Checkpoints that are not stable for which one peer's votes are kept.
const VOTES_PER_PEER_MAX: usize = 4;

#[cfg(feature = "mutations")]
impl CheckpointVote {
    /// Another digest, well signed.
    pub(crate) fn falsified(mut self, core: &Core) -> Self {
        self.digest.0[0] ^= 1;
        self.signature =
            core.crypto.sign(&core.checkpoint_statement(self.position, self.is_last, &self.digest));
        self
    }
}

#[cfg(feature = "mutations")]
impl SnapshotPart {
    /// Other bytes of the same length.
    pub(crate) fn falsified(mut self) -> Self {
        let mut bytes = self.bytes.to_vec();
        if let Some(last) = bytes.last_mut() {
            *last ^= 1;
        }
        self.bytes = bytes.into();
        self
    }
}
