//! What must hold in every run, whatever the faults: one order, of what clients sent, each once, at every correct
//! replica; no correct replica signs two things that exclude each other; nothing acknowledged is ever lost.
use std::collections::{BTreeMap, BTreeSet};

use dwcp_consensus::{Apply, BatchName, Began, Digest, Plan, Probable, ReplicaId, TransactionId};

use crate::keys::payload;

/// What all correct replicas together have shown.
#[derive(Debug, Default)]
pub(crate) struct Check {
    /// The order: what was applied at a position, piece by piece.
    order: BTreeMap<u64, Vec<(Digest, Vec<u32>)>>,
    /// Positions that a replica has left: how many pieces they have.
    lengths: BTreeMap<u64, usize>,
    /// Application state after a checkpoint's position.
    states: BTreeMap<u64, Vec<u8>>,
    applied: BTreeSet<TransactionId>,
    pub(crate) submitted: BTreeSet<TransactionId>,
    votes: BTreeMap<(ReplicaId, u8, [u8; 48]), [u8; 32]>,
    /// What correct replicas said to be probable, by position and place in it; and how often they differed.
    probable: BTreeMap<u64, Vec<BatchName>>,
    pub(crate) forecasts: u64,
    pub(crate) false_forecasts: u64,
    /// Epochs as correct replicas began them.
    epochs: BTreeMap<u64, (Plan, u64)>,
}

/// One replica's application, in one life.
#[derive(Debug, Default, Clone)]
pub(crate) struct Application {
    position: u64,
    pieces: usize,
    hash: [u8; 32],
    count: u64,
}

impl Application {
    pub(crate) fn position(&self) -> u64 {
        self.position
    }

    pub(crate) fn state(&self) -> Vec<u8> {
        [&self.hash[..], &self.count.to_le_bytes()].concat()
    }

    fn restore(&mut self, position: u64, state: Option<&[u8]>) {
        *self = Self { position, ..Self::default() };
        if let Some(state) = state {
            self.hash.copy_from_slice(&state[..32]);
            self.count = u64::from_le_bytes(state[32..40].try_into().expect("a state of 40 bytes"));
        }
    }
}

/// Kinds of statements of which a replica may sign one for each pair of numbers: checkpoints, prepares, commits,
/// headers, and of pieces the leader's, prepares and commits.
const EXCLUSIVE: [u8; 7] = [2, 3, 4, 7, 8, 9, 10];

impl Check {
    /// A correct replica's vote left it.
    pub(crate) fn signed(&mut self, replica: ReplicaId, statement: &[u8; 81]) {
        if !EXCLUSIVE.contains(&statement[0]) {
            return;
        }
        let about: [u8; 48] = statement[1..49].try_into().expect("48 bytes");
        let digest: [u8; 32] = statement[49..].try_into().expect("32 bytes");
        let earlier = *self.votes.entry((replica, statement[0], about)).or_insert(digest);
        assert_eq!(earlier, digest, "{replica:?} signed two statements of kind {}", statement[0]);
    }

    /// A correct replica began an epoch: all begin the same one, after the same position.
    pub(crate) fn began(&mut self, began: &Began) {
        let this = (began.plan.clone(), began.position);
        let known = self.epochs.entry(began.plan.epoch).or_insert_with(|| this.clone());
        assert_eq!(*known, this, "two epochs {}", began.plan.epoch);
    }

    pub(crate) fn plans(&self) -> Vec<Plan> {
        self.epochs.values().map(|(plan, _)| plan.clone()).collect()
    }

    /// A correct replica applied something. Returns the transactions that nobody had applied before.
    pub(crate) fn applied(&mut self, application: &mut Application, apply: &Apply) -> Vec<TransactionId> {
        self.leave(application, apply.position);
        let pieces = self.order.entry(apply.position).or_default();
        let piece = (apply.batch.name().digest, apply.passed_over.clone());
        let first = pieces.len() == application.pieces;
        if first {
            assert!(
                !self.lengths.contains_key(&apply.position),
                "more at {} than others had",
                apply.position
            );
            pieces.push(piece);
        } else {
            assert_eq!(pieces[application.pieces], piece, "two orders at {}", apply.position);
        }
        application.pieces += 1;
        let mut new = Vec::new();
        for (transaction, bytes) in apply.transactions() {
            assert_eq!(bytes, payload(transaction), "nobody sent this");
            assert!(self.submitted.contains(&transaction), "{transaction:?} was never submitted");
            if first {
                assert!(self.applied.insert(transaction), "{transaction:?} applied twice");
                new.push(transaction);
            }
            let input = [&application.hash[..], bytes].concat();
            application.hash = *blake3::hash(&input).as_bytes();
            application.count += 1;
        }
        new
    }

    /// A correct replica forecasts what comes at `place` of a position. Whether forecasts must agree is for others to say.
    pub(crate) fn forecast(&mut self, probable: &Probable, place: &mut (u64, usize)) {
        if place.0 != probable.position {
            *place = (probable.position, 0);
        }
        self.forecasts += 1;
        let known = self.probable.entry(probable.position).or_default();
        let mut differs = false;
        for batch in &probable.batches {
            match known.get(place.1) {
                Some(other) => differs |= other != batch,
                None => known.push(*batch),
            }
            place.1 += 1;
        }
        if differs {
            println!("position {}: {:?} forecast to end in {:?}", probable.position, probable.batches, known);
        }
        self.false_forecasts += u64::from(differs);
    }

    /// Positions whose certain order does not begin with what was forecast for them.
    pub(crate) fn broken_forecasts(&self) -> usize {
        let broken = self.probable.iter().filter(|(position, forecast)| {
            let Some(order) = self.order.get(position) else { return false };
            let digests: Vec<_> = order.iter().map(|(digest, _)| *digest).collect();
            // A batch that stands in two pieces counts where it stands first.
            let mut kept: Vec<Digest> = Vec::new();
            for name in forecast.iter().filter(|name| digests.contains(&name.digest)) {
                if !kept.contains(&name.digest) {
                    kept.push(name.digest);
                }
            }
            let broken = !digests.starts_with(&kept);
            if broken {
                println!("position {position}: forecast {forecast:?}, ordered {digests:?}");
            }
            broken
        });
        broken.count()
    }

    /// A replica goes on to a position: those before it are complete.
    fn leave(&mut self, application: &mut Application, position: u64) {
        assert!(position >= application.position, "{position} after {}", application.position);
        while application.position < position {
            let pieces = application.pieces;
            if application.position > 0 {
                let length = *self.lengths.entry(application.position).or_insert(pieces);
                assert_eq!(length, pieces, "{} is left incomplete", application.position);
            }
            application.position += 1;
            application.pieces = 0;
        }
    }

    /// A correct replica's state at a checkpoint.
    pub(crate) fn snapshot(&mut self, application: &mut Application, position: u64) -> Vec<u8> {
        self.leave(application, position);
        let state = application.state();
        let known = self.states.entry(position).or_insert_with(|| state.clone());
        assert_eq!(*known, state, "two states at {position}");
        state
    }

    /// A correct replica takes a state in place of its own.
    pub(crate) fn restored(&mut self, application: &mut Application, position: u64, state: Option<&[u8]>) {
        let known = self.states.get(&position).map(Vec::as_slice);
        assert_eq!(known, state, "a state at {position} that no correct replica had");
        application.restore(position, state);
        // What the position has is done; how much that was, others know.
        application.pieces = self.order.get(&position).map_or(0, Vec::len);
    }

    pub(crate) fn is_applied(&self, transaction: TransactionId) -> bool {
        self.applied.contains(&transaction)
    }

    /// The highest position at which anything was applied.
    pub(crate) fn highest(&self) -> u64 {
        self.order.last_key_value().map_or(0, |(position, _)| *position)
    }
}
