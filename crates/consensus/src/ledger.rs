//! What was executed: the order's chain, and which batches and transactions count as done. The same at every correct
//! replica at the same position, and part of every snapshot: it is what makes a transaction apply once.
//!
//! Fed by the core with blocks in order; it holds no payload.
use alloc::collections::{BTreeMap, BTreeSet};
use alloc::vec::Vec;

use crate::batch::{Batch, BatchName, BatchRef};
use crate::commands::Matters;
use crate::plan::Plan;
use crate::types::{Digest, ReplicaId, TransactionId, domain};
use crate::wire::{Reader, Wire, WireError, wire_struct};

/// Everything executed so far, and what is ordered next.
#[derive(Debug, Default)]
pub(crate) struct Ledger {
    position: u64,
    chain: Digest,
    authors: BTreeMap<ReplicaId, Window>,
    sessions: Sessions,
    ordered: BTreeMap<u64, Ordered>,
    /// What the replicas' own commands came to.
    pub(crate) matters: Matters,
}

/// A block that is ordered and not yet executed.
#[derive(Debug, Clone, Default)]
pub(crate) struct Ordered {
    pub(crate) batches: Vec<BatchRef>,
    /// The protocol's own state after this position, where that is a checkpoint's.
    pub(crate) order_state: Vec<u8>,
    /// How many of the batches are executed.
    pub(crate) done: usize,
}

wire_struct! {
    /// The ledger's part of a snapshot.
    #[derive(Debug, Clone, PartialEq, Eq)]
    pub(crate) struct Head {
        pub(crate) position: u64,
        pub(crate) chain: Digest,
        authors: Vec<(ReplicaId, Window)>,
        sessions: Vec<Session>,
        matters: Matters,
        /// How long the protocol's part is, which follows.
        pub(crate) order_state_length: u32,
    }
}

wire_struct! {
    /// What is remembered of a client.
    #[derive(Debug, Clone, Copy, PartialEq, Eq)]
    struct Session list 65536 {
        client: u64,
        used: u64,
        window: Window,
    }
}

impl Head {
    /// What members think of each other.
    pub(crate) fn trust(&self) -> &crate::trust::Trust {
        &self.matters.trust
    }

    #[cfg(feature = "mutations")]
    pub(crate) fn forget_sessions(&mut self) {
        self.sessions.clear();
    }

    #[cfg(not(feature = "mutations"))]
    pub(crate) fn forget_sessions(&mut self) {}
}

impl Ledger {
    pub(crate) fn position(&self) -> u64 {
        self.position
    }

    /// The highest sequence of an author that was executed.
    pub(crate) fn author_high(&self, author: ReplicaId) -> u64 {
        self.authors.get(&author).map_or(0, |window| window.high)
    }

    /// Whether nothing will come of this batch any more.
    pub(crate) fn is_done(&self, name: &BatchName) -> bool {
        self.authors.get(&name.author).is_some_and(|window| window.contains(name.sequence))
    }

    pub(crate) fn is_repeated(&self, transaction: TransactionId) -> bool {
        self.sessions
            .clients
            .get(&transaction.client)
            .is_some_and(|session| session.window.contains(transaction.sequence))
    }

    /// Takes a block in its place. Places already taken or executed are left alone.
    pub(crate) fn order(&mut self, position: u64, ordered: Ordered) {
        if position > self.position {
            self.ordered.entry(position).or_insert(ordered);
        }
    }

    /// The block to execute next.
    pub(crate) fn next(&self) -> Option<&Ordered> {
        self.ordered.get(&(self.position + 1))
    }

    /// Passes over the next block's next batch, which was executed before.
    pub(crate) fn pass_batch(&mut self) {
        if let Some(ordered) = self.ordered.get_mut(&(self.position + 1)) {
            ordered.done += 1;
        }
    }

    /// Counts the next block's next batch as executed, and says which of its transactions were before.
    pub(crate) fn execute_batch(&mut self, batch: &Batch, clients_max: usize) -> Vec<u32> {
        let name = batch.name();
        let window = self.authors.entry(name.author).or_default();
        let fresh = window.insert(name.sequence);
        debug_assert!(fresh, "a batch is executed once");
        let position = self.position + 1;
        let numbered = batch.transactions().enumerate();
        let repeated = numbered
            .filter(|(_, (transaction, _))| !self.sessions.take(*transaction, position, clients_max))
            .map(|(place, _)| place as u32)
            .collect();
        self.pass_batch();
        repeated
    }

    /// Ends the next block, all of whose batches are executed.
    pub(crate) fn finish_block(&mut self) -> Ordered {
        self.position += 1;
        let ordered = self.ordered.remove(&self.position).unwrap_or_default();
        let mut bytes = Vec::new();
        self.chain.write(&mut bytes);
        self.position.write(&mut bytes);
        ordered.batches.iter().for_each(|batch| batch.name.write(&mut bytes));
        self.chain = Digest::of(domain::CHAIN, &bytes);
        ordered
    }

    pub(crate) fn head(&self, order_state_length: usize) -> Head {
        Head {
            position: self.position,
            chain: self.chain,
            authors: self.authors.iter().map(|(author, window)| (*author, *window)).collect(),
            sessions: self.sessions.clients.values().copied().collect(),
            matters: self.matters.clone(),
            order_state_length: order_state_length as u32,
        }
    }

    /// Begins again after a snapshot. What was ordered beyond it stays where `keep_ordered`.
    pub(crate) fn restore(&mut self, head: Head) {
        self.position = head.position;
        self.chain = head.chain;
        self.authors = head.authors.into_iter().collect();
        self.matters = head.matters;
        self.sessions = Sessions::default();
        for session in head.sessions {
            self.sessions.by_use.insert((session.used, session.client));
            self.sessions.clients.insert(session.client, session);
        }
        self.ordered.retain(|position, _| *position > head.position);
        self.ordered.values_mut().for_each(|ordered| ordered.done = 0);
    }

    /// Begins an epoch with what the last snapshot of the one before says. Batches and positions are counted anew;
    /// transactions are not.
    pub(crate) fn begin_epoch(&mut self, head: Head, plan: &Plan) {
        let matters = head.matters.inherited(plan);
        // When a client was heard of last is told by positions, which begin again.
        let mut sessions = head.sessions;
        sessions.iter_mut().for_each(|session| session.used = 0);
        self.restore(Head { position: 0, authors: Vec::new(), sessions, matters, ..head });
    }

    /// Something that follows from everything executed so far.
    pub(crate) fn seed(&self, domain: u8) -> Digest {
        Digest::of(domain, &self.chain.0)
    }

    /// The highest sequence of a client that was applied.
    pub(crate) fn client_high(&self, client: u64) -> u64 {
        self.sessions.clients.get(&client).map_or(0, |session| session.window.high)
    }

    /// Forgets what is ordered beyond what was executed.
    pub(crate) fn forget_ordered(&mut self) {
        self.ordered.clear();
    }
}

/// What clients did, and in which order they were heard of last.
#[derive(Debug, Default)]
struct Sessions {
    clients: BTreeMap<u64, Session>,
    by_use: BTreeSet<(u64, u64)>,
}

impl Sessions {
    /// Counts a transaction; false where it was counted before.
    fn take(&mut self, transaction: TransactionId, position: u64, clients_max: usize) -> bool {
        let client = transaction.client;
        let fresh = Session { client, used: position, window: Window::default() };
        let session = self.clients.entry(client).or_insert(fresh);
        self.by_use.remove(&(session.used, client));
        session.used = position;
        let taken = session.window.insert(transaction.sequence);
        self.by_use.insert((position, client));
        if self.clients.len() > clients_max
            && let Some((_, silent)) = self.by_use.pop_first()
        {
            self.clients.remove(&silent);
        }
        taken
    }
}

/// Which of the last 256 numbers below the highest were seen. Lower ones count as seen.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Window {
    high: u64,
    /// Bit `i` is for `high - i`.
    seen: [u64; 4],
}

/// Numbers that a [`Window`] tells apart.
pub(crate) const WINDOW: u64 = 256;

impl Window {
    pub(crate) fn contains(&self, number: u64) -> bool {
        if number > self.high {
            return false;
        }
        let back = self.high - number;
        back >= WINDOW || number == 0 || self.seen[(back / 64) as usize] & (1 << (back % 64)) != 0
    }

    /// Marks a number; false where it was.
    pub(crate) fn insert(&mut self, number: u64) -> bool {
        if self.contains(number) || number == 0 {
            return false;
        }
        if number > self.high {
            self.shift(number - self.high);
            self.high = number;
        }
        let back = self.high - number;
        self.seen[(back / 64) as usize] |= 1 << (back % 64);
        true
    }

    fn shift(&mut self, by: u64) {
        let (words, bits) = ((by / 64) as usize, by % 64);
        let old = self.seen;
        for (index, word) in self.seen.iter_mut().enumerate() {
            let from = |back: usize| index.checked_sub(words + back).map_or(0, |at| old[at]);
            *word = from(0) << bits;
            if bits > 0 {
                *word |= from(1) >> (64 - bits);
            }
        }
    }
}

impl Wire for Window {
    fn write(&self, out: &mut Vec<u8>) {
        self.high.write(out);
        self.seen.iter().for_each(|word| word.write(out));
    }

    fn read(input: &mut Reader<'_>) -> Result<Self, WireError> {
        let high = u64::read(input)?;
        let mut seen = [0; 4];
        for word in &mut seen {
            *word = u64::read(input)?;
        }
        Ok(Self { high, seen })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_window_is_a_set_that_forgets_downwards() {
        let mut window = Window::default();
        let mut model = BTreeSet::new();
        let mut state = 1_u64;
        for _ in 0..20_000 {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            let number = (window.high + state % 90).saturating_sub(60) + 1;
            let below = number + WINDOW <= window.high;
            let fresh = !below && model.insert(number);
            assert_eq!(window.insert(number), fresh, "{number}");
        }
        assert!(window.insert(window.high + 10_000));
        assert!(!window.insert(window.high - WINDOW), "below the window counts as seen");
        assert!(window.insert(window.high - WINDOW + 1));
    }

    #[test]
    fn the_client_silent_longest_is_forgotten() {
        let mut sessions = Sessions::default();
        let take = |sessions: &mut Sessions, client, position| {
            sessions.take(TransactionId { client, sequence: 1 }, position, 2)
        };
        assert!(take(&mut sessions, 1, 1) && take(&mut sessions, 2, 2));
        assert!(!take(&mut sessions, 1, 3), "known");
        assert!(take(&mut sessions, 3, 4));
        assert_eq!(sessions.clients.keys().copied().collect::<Vec<_>>(), [1, 3]);
    }
}
