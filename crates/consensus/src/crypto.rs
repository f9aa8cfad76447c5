//! Signing and checking behind one trait, and the certificates made of signatures. Replicas call it; the driver brings
//! the keys. [`Ed25519`](crate::Ed25519) is the real one, the simulator has its own.
use alloc::vec::Vec;
use core::fmt;

use crate::batch::Batch;
use crate::types::{Committee, ReplicaId};
use crate::wire::{Reader, Wire, WireError, wire_struct};

/// A signature's bytes.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Signature(pub [u8; 64]);

impl fmt::Debug for Signature {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{:02x}{:02x}", self.0[0], self.0[1])
    }
}

impl Wire for Signature {
    fn write(&self, out: &mut Vec<u8>) {
        self.0.write(out);
    }

    fn read(input: &mut Reader<'_>) -> Result<Self, WireError> {
        Ok(Self(Wire::read(input)?))
    }
}

/// Proof of a verifiable random function's output (RFC 9381).
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct RandomProof(pub [u8; 80]);

impl fmt::Debug for RandomProof {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{:02x}{:02x}", self.0[0], self.0[1])
    }
}

impl Wire for RandomProof {
    fn write(&self, out: &mut Vec<u8>) {
        self.0.write(out);
    }

    fn read(input: &mut Reader<'_>) -> Result<Self, WireError> {
        Ok(Self(Wire::read(input)?))
    }
}

/// One signature to be checked.
#[derive(Debug, Clone, Copy)]
pub struct Check<'a> {
    /// Who is said to have signed.
    pub signer: ReplicaId,
    /// What.
    pub statement: &'a [u8],
    /// The signature.
    pub signature: &'a Signature,
}

/// One replica's secret keys and everybody's public ones. Pure: the same call has the same answer.
pub trait Crypto: fmt::Debug {
    /// This replica's signature of a statement.
    fn sign(&self, statement: &[u8]) -> Signature;

    /// Whether a signature is the signer's.
    fn verify(&self, check: Check<'_>) -> bool;

    /// Whether all are. Cheaper than one by one where the scheme allows it.
    fn verify_all(&self, checks: &[Check<'_>]) -> bool {
        checks.iter().all(|check| self.verify(*check))
    }

    /// Whether a batch's transactions are what their clients sent. Asked once, before a promise to keep it.
    fn admit(&self, batch: &Batch) -> bool;

    /// This replica's verifiable random output for an input.
    fn random(&self, input: &[u8]) -> ([u8; 64], RandomProof);

    /// The output that a replica's proof is of; `None` where it is no proof.
    fn check_random(&self, replica: ReplicaId, input: &[u8], proof: &RandomProof) -> Option<[u8; 64]>;
}

/// Which of some signatures are good: all at once where they are, halves where not, so that one bad signature among
/// many costs a logarithm and not the whole saving.
pub(crate) fn verify_each(crypto: &dyn Crypto, checks: &[Check<'_>]) -> Vec<bool> {
    if crypto.verify_all(checks) {
        return alloc::vec![true; checks.len()];
    }
    if checks.len() == 1 {
        return alloc::vec![false];
    }
    let (left, right) = checks.split_at(checks.len() / 2);
    let mut good = verify_each(crypto, left);
    good.extend(verify_each(crypto, right));
    good
}

wire_struct! {
    /// One member's signature within a certificate.
    #[derive(Debug, Clone, Copy, PartialEq, Eq)]
    pub struct Signed list 128 {
        /// Who signed.
        pub signer: ReplicaId,
        /// The signature.
        pub signature: Signature,
    }
}

wire_struct! {
    /// Signatures of one statement by distinct members, in the order of their numbers.
    #[derive(Debug, Clone, PartialEq, Eq, Default)]
    pub struct Certificate {
        /// The signatures.
        pub signatures: Vec<Signed>,
    }
}

impl Certificate {
    /// Whether a quorum of the committee signed the statement, each once.
    pub(crate) fn holds(&self, crypto: &dyn Crypto, committee: &Committee, statement: &[u8]) -> bool {
        let rising = self.signatures.windows(2).all(|pair| pair[0].signer < pair[1].signer);
        let members = self.signatures.iter().all(|signed| committee.contains(signed.signer));
        if !rising || !members || self.signatures.len() < committee.quorum() {
            return false;
        }
        let checks: Vec<_> = self
            .signatures
            .iter()
            .map(|signed| Check { signer: signed.signer, statement, signature: &signed.signature })
            .collect();
        crypto.verify_all(&checks)
    }
}
