//! The mempool of all protocols, after Narwhal (Danezis et al., EuroSys 2022): a batch goes to the committee, a quorum
//! promises to keep it, and from then on 32 bytes and the promises stand for it. The order never waits for payload.
//!
//! Part of the core. Protocols take certified batches from here and give them up when they are executed.
use alloc::collections::{BTreeMap, VecDeque};
use alloc::vec::Vec;

use crate::batch::{Batch, BatchName, BatchRef, Builder, HEAD_BYTES, TRANSACTION_HEAD_BYTES};
use crate::core::{Core, CoreMessage, Kind, mutant};
use crate::crypto::Signature;
use crate::io::{Key, Output, Refusal};
use crate::ledger::WINDOW;
use crate::types::{Digest, ReplicaId, Time, TransactionId};
use crate::votes::Votes;
use crate::wire::wire_struct;

/// Batches on their way into the order.
#[derive(Debug, Default)]
pub(crate) struct Mempool {
    open: Builder,
    open_since: Time,
    last_own: u64,
    /// Own batches that are not executed.
    own: BTreeMap<u64, Own>,
    /// Which batch this replica promised to keep, by its author's count.
    kept: BTreeMap<(ReplicaId, u64), Digest>,
    payloads: BTreeMap<Digest, Batch>,
    /// Certified and not executed.
    ready: BTreeMap<(ReplicaId, u64), Ready>,
    /// Of those, what waits to be proposed, oldest first.
    unproposed: VecDeque<(ReplicaId, u64)>,
    /// Ordered, and not here.
    wanted: BTreeMap<Digest, Wanted>,
    /// Executed since the last stable checkpoint, by position.
    executed: BTreeMap<u64, Vec<BatchName>>,
}

#[derive(Debug)]
struct Own {
    name: BatchName,
    promises: Votes,
    certified: bool,
}

#[derive(Debug)]
struct Ready {
    batch: BatchRef,
    since: Time,
}

#[derive(Debug)]
struct Wanted {
    batch: BatchRef,
    attempts: usize,
}

wire_struct! {
    /// A promise to keep a batch.
    #[derive(Debug, Clone, PartialEq, Eq)]
    pub(crate) struct Promise {
        sequence: u64,
        digest: Digest,
        signature: Signature,
    }
}

impl Mempool {
    /// Whether something waits for the order.
    pub(crate) fn is_waiting(&self) -> bool {
        !self.ready.is_empty()
    }

    /// Since when the oldest certified batch waits.
    pub(crate) fn waiting_since(&self) -> Option<Time> {
        self.ready.values().map(|ready| ready.since).min()
    }

    pub(crate) fn payload(&self, digest: &Digest) -> Option<&Batch> {
        self.payloads.get(digest)
    }

    pub(crate) fn held(&self) -> usize {
        self.payloads.len()
    }

    /// Whether there is work that no order has finished yet.
    pub(crate) fn is_busy(&self) -> bool {
        !self.ready.is_empty() || !self.own.is_empty() || !self.wanted.is_empty()
    }

    pub(crate) fn closes_at(&self, delay: Time) -> Option<Time> {
        (!self.open.is_empty()).then_some(self.open_since + delay)
    }

    /// Some batches that could be proposed, for one who lies about them.
    #[cfg(feature = "mutations")]
    pub(crate) fn some_ready(&self) -> Vec<BatchRef> {
        self.ready.values().take(1).map(|ready| ready.batch.clone()).collect()
    }

    /// Own batches go back into the queue: the order that they were proposed in is void.
    pub(crate) fn propose_again(&mut self, mut is_proposed: impl FnMut(&BatchName) -> bool) {
        let mut waiting: Vec<_> = self
            .ready
            .iter()
            .filter(|(_, ready)| !is_proposed(&ready.batch.name))
            .map(|(place, ready)| (ready.since, *place))
            .collect();
        waiting.sort_unstable();
        self.unproposed = waiting.into_iter().map(|(_, place)| place).collect();
    }
}

impl Core {
    /// Takes a client's transaction into the open batch.
    pub(crate) fn handle_submit(&mut self, transaction: TransactionId, payload: &[u8]) {
        let needed = TRANSACTION_HEAD_BYTES + payload.len();
        let refusal = if HEAD_BYTES + needed > self.config.batch_bytes_max || transaction.is_command() {
            Some(Refusal::TooLarge)
        } else if self.ledger.is_repeated(transaction) || transaction.sequence == 0 {
            Some(Refusal::Repeated)
        } else {
            if self.mempool.open.len() + needed > self.config.batch_bytes_max {
                self.close_batch();
            }
            (self.mempool.open.len() + needed > self.config.batch_bytes_max).then_some(Refusal::Busy)
        };
        if let Some(refusal) = refusal {
            return self.put(Output::Refused { transaction, refusal });
        }
        self.take_transaction(transaction, payload);
    }

    /// Puts a transaction into the open batch, or closes that first where it does not fit.
    pub(crate) fn take_transaction(&mut self, transaction: TransactionId, payload: &[u8]) {
        let needed = TRANSACTION_HEAD_BYTES + payload.len();
        if self.mempool.open.len() + needed > self.config.batch_bytes_max {
            self.close_batch();
        }
        if self.mempool.open.len() + needed > self.config.batch_bytes_max {
            // Only a command comes here so; it is said again.
            return;
        }
        if self.mempool.open.is_empty() {
            self.mempool.open_since = self.now;
        }
        self.mempool.open.push(transaction, payload);
    }

    /// Closes the open batch when it is its time.
    pub(crate) fn close_batch_in_time(&mut self) {
        if self.has_batch_to_close() {
            self.close_batch();
        }
    }

    /// Whether the open batch is full, or its time is over.
    pub(crate) fn has_batch_to_close(&self) -> bool {
        let full = self.mempool.open.len() >= self.config.batch_bytes_max * 7 / 8;
        full || self.mempool.closes_at(self.config.batch_delay).is_some_and(|due| due <= self.now)
    }

    fn close_batch(&mut self) {
        let in_flight = self.mempool.own.len() as u64;
        if self.mempool.open.is_empty() || in_flight >= self.config.batches_in_flight_max || self.lost {
            return;
        }
        let sequence = self.mempool.last_own.max(self.ledger.author_high(self.config.me)) + 1;
        if sequence > self.sequence_max(self.config.me) {
            return;
        }
        self.mempool.last_own = sequence;
        let batch = self.mempool.open.close(self.config.me, sequence);
        self.keep(&batch);
        self.add_own(*batch.name());
        self.broadcast(&CoreMessage::Batch(batch));
        self.certify_own(sequence);
    }

    /// Counts an own batch as under way, with the own promise to keep it.
    fn add_own(&mut self, name: BatchName) {
        let mut promises = Votes::default();
        let me = self.config.me;
        if self.config.committee.contains(me) {
            let statement = self.statement(Kind::Batch, [u64::from(me.0), name.sequence], &name.digest);
            promises.add_own(me, name.digest, self.crypto.sign(&statement));
        }
        self.mempool.own.insert(name.sequence, Own { name, promises, certified: false });
    }

    /// The highest sequence of an author that is worth keeping.
    fn sequence_max(&self, author: ReplicaId) -> u64 {
        self.ledger.author_high(author) + (2 * self.config.batches_in_flight_max).min(WINDOW / 2)
    }

    fn keep(&mut self, batch: &Batch) {
        let name = *batch.name();
        self.mempool.kept.insert(name.place(), name.digest);
        self.mempool.payloads.insert(name.digest, batch.clone());
        let (author, sequence) = name.place();
        self.put(Output::Persist { key: Key::Batch { author, sequence }, value: batch.bytes().to_vec() });
    }

    /// A batch of its author: promise to keep it, once per count.
    pub(crate) fn handle_batch(&mut self, from: ReplicaId, batch: Batch) {
        let name = *batch.name();
        let sound = name.author == from
            && batch.bytes().len() <= self.config.batch_bytes_max
            && name.sequence <= self.sequence_max(from);
        if !sound {
            return self.refuse();
        }
        if self.ledger.is_done(&name) || !self.config.committee.contains(self.config.me) {
            return;
        }
        match self.mempool.kept.get(&name.place()) {
            Some(kept) if *kept == name.digest => {}
            Some(_) => return self.refuse(),
            None if !self.crypto.admit(&batch) => return self.refuse(),
            None => self.keep(&batch),
        }
        self.mempool.wanted.remove(&name.digest);
        let statement = self.statement(Kind::Batch, [u64::from(from.0), name.sequence], &name.digest);
        let signature = self.crypto.sign(&statement);
        let promise = Promise { sequence: name.sequence, digest: name.digest, signature };
        self.send(from, &CoreMessage::Promise(promise));
    }

    pub(crate) fn handle_promise(&mut self, from: ReplicaId, promise: Promise) {
        if !self.config.committee.contains(from) {
            return self.refuse();
        }
        let Some(own) = self.mempool.own.get_mut(&promise.sequence) else { return };
        if own.name.digest != promise.digest {
            return self.refuse();
        }
        own.promises.add(from, promise.digest, promise.signature);
        self.certify_own(promise.sequence);
    }

    fn certify_own(&mut self, sequence: u64) {
        let Some(name) = self.mempool.own.get(&sequence).filter(|own| !own.certified).map(|own| own.name)
        else {
            return;
        };
        let statement = self.statement(Kind::Batch, [u64::from(name.author.0), name.sequence], &name.digest);
        let quorum = self.config.committee.quorum();
        let Some(own) = self.mempool.own.get_mut(&sequence) else { return };
        let Some(certificate) = own.promises.certificate(&*self.crypto, quorum, &name.digest, &statement)
        else {
            return;
        };
        own.certified = true;
        let batch = BatchRef { name, certificate };
        self.broadcast(&CoreMessage::Certified(batch.clone()));
        self.add_ready(batch);
    }

    fn add_ready(&mut self, batch: BatchRef) {
        let place = batch.name.place();
        if !self.ledger.is_done(&batch.name) && !self.mempool.ready.contains_key(&place) {
            self.mempool.ready.insert(place, Ready { batch, since: self.now });
            self.mempool.unproposed.push_back(place);
            if self.mempool.unproposed.len() > 2 * self.mempool.ready.len() + 64 {
                let ready = &self.mempool.ready;
                self.mempool.unproposed.retain(|place| ready.contains_key(place));
            }
        }
    }

    pub(crate) fn handle_certified(&mut self, batch: BatchRef) {
        let known = self.ledger.is_done(&batch.name) || self.mempool.ready.contains_key(&batch.name.place());
        if known {
            return;
        }
        if self.is_certified(&batch) { self.add_ready(batch) } else { self.refuse() }
    }

    /// Whether a quorum promised to keep a batch. What was checked once is not checked again.
    pub(crate) fn is_certified(&self, batch: &BatchRef) -> bool {
        let name = &batch.name;
        let known = self.mempool.ready.get(&name.place()).is_some_and(|ready| ready.batch == *batch);
        if known || mutant!(self, UncertifiedBatches) {
            return true;
        }
        let in_reach = name.sequence > 0 && self.config.plan.contains(name.author);
        let statement = self.statement(Kind::Batch, [u64::from(name.author.0), name.sequence], &name.digest);
        in_reach && batch.certificate.holds(&*self.crypto, &self.config.committee, &statement)
    }

    /// Up to `count` batches that wait to be proposed, oldest first.
    pub(crate) fn take_unproposed(&mut self, count: usize) -> Vec<BatchRef> {
        let mut taken = Vec::new();
        while taken.len() < count
            && let Some(place) = self.mempool.unproposed.pop_front()
        {
            if let Some(ready) = self.mempool.ready.get(&place) {
                taken.push(ready.batch.clone());
            }
        }
        taken
    }

    /// Whether [`take_own_unproposed`](Self::take_own_unproposed) has something.
    pub(crate) fn has_own_unproposed(&self, is_gone: &dyn Fn(ReplicaId) -> bool) -> bool {
        self.mempool.unproposed.iter().any(|place| self.is_own_to_propose(*place, is_gone))
    }

    /// Up to `count` batches that wait to be proposed and are this replica's own, or old and of an author
    /// that is gone. While their author lives others leave them alone: everybody proposing everything that is late would
    /// make all of it later still.
    pub(crate) fn take_own_unproposed(
        &mut self,
        count: usize,
        is_gone: &dyn Fn(ReplicaId) -> bool,
    ) -> Vec<BatchRef> {
        let mut taken = Vec::new();
        let unproposed = core::mem::take(&mut self.mempool.unproposed);
        for place in unproposed {
            if taken.len() < count && self.is_own_to_propose(place, is_gone) {
                taken.extend(self.mempool.ready.get(&place).map(|ready| ready.batch.clone()));
            } else if self.mempool.ready.contains_key(&place) {
                self.mempool.unproposed.push_back(place);
            }
        }
        taken
    }

    fn is_own_to_propose(&self, place: (ReplicaId, u64), is_gone: &dyn Fn(ReplicaId) -> bool) -> bool {
        let orphaned = ORPHANED_TIMEOUTS * self.config.leader_timeout;
        let ready = self.mempool.ready.get(&place);
        ready.is_some_and(|ready| {
            place.0 == self.config.me || (ready.since + orphaned <= self.now && is_gone(place.0))
        })
    }

    /// Asks for a batch that is ordered and not here.
    pub(crate) fn want(&mut self, batch: &BatchRef) {
        if self.mempool.wanted.contains_key(&batch.name.digest) {
            return;
        }
        self.mempool.wanted.insert(batch.name.digest, Wanted { batch: batch.clone(), attempts: 0 });
        self.fetch(&batch.name.digest.clone());
    }

    /// Asks the next of those who promised to keep it.
    fn fetch(&mut self, digest: &Digest) {
        let me = self.config.me;
        let Some(wanted) = self.mempool.wanted.get_mut(digest) else { return };
        let keepers: Vec<_> = wanted
            .batch
            .certificate
            .signatures
            .iter()
            .map(|signed| signed.signer)
            .filter(|peer| *peer != me)
            .collect();
        if keepers.is_empty() {
            return;
        }
        // Everybody begins elsewhere, so that one keeper does not serve all.
        let keeper = keepers[(usize::from(me.0) + wanted.attempts) % keepers.len()];
        wanted.attempts += 1;
        self.send(keeper, &CoreMessage::FetchBatch(*digest));
    }

    pub(crate) fn handle_fetch_batch(&mut self, from: ReplicaId, digest: &Digest) {
        let Some(batch) = self.mempool.payloads.get(digest).cloned() else { return };
        if self.may_serve(from, batch.bytes().len()) {
            self.send(from, &CoreMessage::FetchedBatch(batch));
        }
    }

    /// Taken only where it was asked for: its digest is its proof.
    pub(crate) fn handle_fetched_batch(&mut self, batch: Batch) {
        if self.mempool.wanted.remove(&batch.name().digest).is_none() {
            return;
        }
        self.keep(&batch);
    }

    /// Says again what was not answered.
    pub(crate) fn retry_batches(&mut self) {
        let unanswered: Vec<_> = self
            .mempool
            .own
            .values()
            .filter(|own| !own.certified)
            .take(RESENT_MAX)
            .filter_map(|own| {
                Some((self.mempool.payloads.get(&own.name.digest)?.clone(), own.promises.clone()))
            })
            .collect();
        for (batch, promises) in unanswered {
            let message = CoreMessage::Batch(batch);
            let silent = self.config.committee.members().iter().filter(|peer| !promises.contains(**peer));
            for peer in silent.copied().filter(|peer| *peer != self.config.me).collect::<Vec<_>>() {
                self.send(peer, &message);
            }
        }
        let late = self.now.saturating_sub(self.config.leader_timeout / 2);
        let me = self.config.me;
        let retry = self.now.saturating_sub(self.config.retry);
        let old =
            self.mempool.ready.iter().filter(|((author, _), ready)| {
                ready.since <= late || (*author == me && ready.since <= retry)
            });
        let old: Vec<_> = old.take(RESENT_MAX).map(|(_, ready)| ready.batch.clone()).collect();
        old.into_iter().for_each(|batch| self.broadcast(&CoreMessage::Certified(batch)));
        let wanted: Vec<_> = self.mempool.wanted.keys().take(4 * RESENT_MAX).copied().collect();
        wanted.iter().for_each(|digest| self.fetch(digest));
    }

    /// A batch was executed: nothing waits for it any more. Its bytes stay for those who are behind.
    pub(crate) fn batch_is_done(&mut self, position: u64, name: &BatchName) {
        self.mempool.executed.entry(position).or_default().push(*name);
        self.mempool.ready.remove(&name.place());
        if name.author == self.config.me {
            self.mempool.own.remove(&name.sequence);
        }
    }

    /// Lets go of batches that a stable checkpoint stands for.
    pub(crate) fn forget_batches(&mut self, stable: u64) {
        let later = self.mempool.executed.split_off(&(stable + 1));
        let executed = core::mem::replace(&mut self.mempool.executed, later);
        for name in executed.into_values().flatten() {
            self.mempool.payloads.remove(&name.digest);
            self.forget_kept(name.place());
        }
        // What its author has left far behind can never be executed.
        let ledger = &self.ledger;
        let left = self
            .mempool
            .kept
            .keys()
            .filter(|(author, sequence)| sequence + WINDOW <= ledger.author_high(*author));
        left.copied().collect::<Vec<_>>().into_iter().for_each(|place| self.forget_kept(place));
    }

    /// Lets go of all batches that count as executed: a snapshot was taken in place of executing them.
    pub(crate) fn forget_done_batches(&mut self) {
        self.mempool.executed.clear();
        let ledger = &self.ledger;
        let done = |place: (ReplicaId, u64)| {
            ledger.is_done(&BatchName { author: place.0, sequence: place.1, digest: Digest::default() })
        };
        let mempool = &mut self.mempool;
        mempool.payloads.retain(|_, batch| !done(batch.name().place()));
        mempool.wanted.retain(|_, wanted| !done(wanted.batch.name.place()));
        mempool.ready.retain(|place, _| !done(*place));
        let me = self.config.me;
        mempool.own.retain(|sequence, _| !done((me, *sequence)));
        let forgotten: Vec<_> = mempool.kept.keys().copied().filter(|place| done(*place)).collect();
        forgotten.into_iter().for_each(|place| self.forget_kept(place));
    }

    fn forget_kept(&mut self, place: (ReplicaId, u64)) {
        if let Some(digest) = self.mempool.kept.remove(&place) {
            self.mempool.payloads.remove(&digest);
            let (author, sequence) = place;
            self.put(Output::Forget { key: Key::Batch { author, sequence } });
        }
    }

    /// Transactions of own clients that were taken and not applied, for the next epoch.
    pub(crate) fn take_left(&mut self) -> Vec<(TransactionId, Vec<u8>)> {
        let me = self.config.me;
        let open = (!self.mempool.open.is_empty()).then(|| self.mempool.open.close(me, u64::MAX));
        let own = self.mempool.own.values().filter_map(|own| self.mempool.payloads.get(&own.name.digest));
        let all = own.chain(&open).flat_map(Batch::transactions);
        let left = all.filter(|(id, _)| !id.is_command() && !self.ledger.is_repeated(*id));
        left.map(|(id, payload)| (id, payload.to_vec())).collect()
    }

    /// Takes up batches from the records.
    pub(crate) fn resume_batch(&mut self, bytes: &[u8]) -> Result<(), crate::io::Corrupt> {
        let batch = Batch::parse(bytes.into())?;
        let name = *batch.name();
        self.mempool.kept.insert(name.place(), name.digest);
        self.mempool.payloads.insert(name.digest, batch);
        if name.author == self.config.me {
            self.mempool.last_own = self.mempool.last_own.max(name.sequence);
            if !self.ledger.is_done(&name) {
                self.add_own(name);
            }
        }
        Ok(())
    }

    /// After the loss of all records: own counts begin above all that may have been used, and where peers still take them.
    pub(crate) fn skip_own_sequences(&mut self) {
        self.mempool.last_own = self.ledger.author_high(self.config.me) + self.config.batches_in_flight_max;
    }
}

/// So many times the patience for a leader waits a batch for its author, before others propose it.
const ORPHANED_TIMEOUTS: u64 = 4;
/// Batches of one kind that are sent again at a time.
const RESENT_MAX: usize = 8;
