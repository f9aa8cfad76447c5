//! Keys of the simulation: keyed hashes, which nobody can forge who does not hold the key, at a fraction of the cost of
//! curves. Each replica notes what it signs, so that the checker sees every vote that leaves it.
use std::cell::RefCell;
use std::rc::Rc;

use dwcp_consensus::{Batch, Check, Crypto, RandomProof, ReplicaId, Signature, TransactionId};

/// Statements signed since they were looked at last.
pub(crate) type Signings = Rc<RefCell<Vec<[u8; 81]>>>;

/// One replica's keys.
#[derive(Debug)]
pub(crate) struct SimulatedKeys {
    me: ReplicaId,
    signings: Signings,
}

impl SimulatedKeys {
    pub(crate) fn new(me: ReplicaId, signings: Signings) -> Self {
        Self { me, signings }
    }
}

fn key(role: u8, replica: ReplicaId) -> [u8; 32] {
    let mut key = [role; 32];
    key[..2].copy_from_slice(&replica.0.to_le_bytes());
    key
}

fn signature(replica: ReplicaId, statement: &[u8]) -> Signature {
    let hash = blake3::keyed_hash(&key(1, replica), statement);
    let mut bytes = [0; 64];
    bytes[..32].copy_from_slice(hash.as_bytes());
    Signature(bytes)
}

fn random(replica: ReplicaId, input: &[u8]) -> ([u8; 64], RandomProof) {
    let mut output = [0; 64];
    blake3::Hasher::new_keyed(&key(2, replica)).update(input).finalize_xof().fill(&mut output);
    let mut proof = [0; 80];
    proof[..64].copy_from_slice(&output);
    (output, RandomProof(proof))
}

/// What a client's transaction carries: only clients can make it.
pub(crate) fn payload(transaction: TransactionId) -> [u8; 16] {
    let mut input = [0; 16];
    input[..8].copy_from_slice(&transaction.client.to_le_bytes());
    input[8..].copy_from_slice(&transaction.sequence.to_le_bytes());
    let hash = blake3::keyed_hash(&[3; 32], &input);
    hash.as_bytes()[..16].try_into().expect("16 of 32 bytes")
}

impl Crypto for SimulatedKeys {
    fn sign(&self, statement: &[u8]) -> Signature {
        if let Ok(statement) = statement.try_into() {
            self.signings.borrow_mut().push(statement);
        }
        signature(self.me, statement)
    }

    fn verify(&self, check: Check<'_>) -> bool {
        signature(check.signer, check.statement) == *check.signature
    }

    fn admit(&self, batch: &Batch) -> bool {
        let mut clients = batch.transactions().filter(|(transaction, _)| !transaction.is_command());
        clients.all(|(transaction, bytes)| bytes == payload(transaction))
    }

    fn random(&self, input: &[u8]) -> ([u8; 64], RandomProof) {
        random(self.me, input)
    }

    fn check_random(&self, replica: ReplicaId, input: &[u8], proof: &RandomProof) -> Option<[u8; 64]> {
        let (output, sound) = random(replica, input);
        (sound == *proof).then_some(output)
    }
}
