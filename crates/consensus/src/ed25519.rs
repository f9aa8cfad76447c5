//! The real keys: Ed25519 signatures (RFC 8032) and the ristretto255 verifiable random function (RFC 9381). Made by the
//! driver from keys that it keeps; no key is generated here, because that needs a random source.
use alloc::collections::BTreeMap;
use alloc::vec::Vec;

use ed25519_dalek::{Signature as DalekSignature, Signer, SigningKey, VerifyingKey, verify_batch};
use vrf_r255::{Proof, PublicKey as RandomPublicKey, SecretKey as RandomSecretKey};

use crate::batch::Batch;
use crate::crypto::{Check, Crypto, RandomProof, Signature};
use crate::plan::Member;
use crate::types::ReplicaId;

/// One replica's keys, and the public keys of all replicas of its epoch.
#[derive(Debug)]
pub struct Ed25519 {
    signing: SigningKey,
    random: RandomSecretKey,
    members: BTreeMap<ReplicaId, (VerifyingKey, RandomPublicKey)>,
    admission: fn(&Batch) -> bool,
}

/// A key that is none.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BadKey;

/// A replica's two public keys: for signatures and for random proofs.
pub type PublicKeys = ([u8; 32], [u8; 32]);

impl Ed25519 {
    /// Keys from their bytes. `members` has everybody's public keys; `admission` says whether a batch's
    /// transactions are what their clients sent.
    ///
    /// # Errors
    /// [`BadKey`] where bytes are no key, or a public key has a small order.
    pub fn new(
        signing: &[u8; 32],
        random: &[u8; 32],
        members: &[Member],
        admission: fn(&Batch) -> bool,
    ) -> Result<Self, BadKey> {
        let random: Option<_> = RandomSecretKey::from_bytes(*random).into();
        let members = members.iter().map(|member| {
            let (signature, random) = &member.keys;
            let key = VerifyingKey::from_bytes(signature).map_err(|_| BadKey)?;
            let random = RandomPublicKey::from_bytes(*random).ok_or(BadKey)?;
            if key.is_weak() { Err(BadKey) } else { Ok((member.replica, (key, random))) }
        });
        Ok(Self {
            signing: SigningKey::from_bytes(signing),
            random: random.ok_or(BadKey)?,
            members: members.collect::<Result<_, _>>()?,
            admission,
        })
    }

    /// Whether bytes are public keys. A member whose keys are none would make the keys of a whole epoch unusable.
    #[must_use]
    pub fn are_keys(keys: &PublicKeys) -> bool {
        let signs = VerifyingKey::from_bytes(&keys.0).is_ok_and(|key| !key.is_weak());
        signs && RandomPublicKey::from_bytes(keys.1).is_some()
    }

    /// The public keys to tell the others.
    #[must_use]
    pub fn public_keys(signing: &[u8; 32], random: &[u8; 32]) -> Option<PublicKeys> {
        let random: Option<RandomSecretKey> = RandomSecretKey::from_bytes(*random).into();
        let random = RandomPublicKey::from(random?);
        Some((SigningKey::from_bytes(signing).verifying_key().to_bytes(), random.to_bytes()))
    }

    fn replica(&self, replica: ReplicaId) -> Option<&(VerifyingKey, RandomPublicKey)> {
        self.members.get(&replica)
    }
}

impl Crypto for Ed25519 {
    fn sign(&self, statement: &[u8]) -> Signature {
        Signature(self.signing.sign(statement).to_bytes())
    }

    /// Strict: a certificate that one replica takes must be taken by all, so points of small order are refused.
    fn verify(&self, check: Check<'_>) -> bool {
        let signature = DalekSignature::from_bytes(&check.signature.0);
        self.replica(check.signer)
            .is_some_and(|(key, _)| key.verify_strict(check.statement, &signature).is_ok())
    }

    /// In one batch. Odd points may pass a batch and fail alone, but only where the signer made them so; a certificate
    /// still has a quorum of signers who meant it.
    fn verify_all(&self, checks: &[Check<'_>]) -> bool {
        if let [check] = checks {
            return self.verify(*check);
        }
        let keys: Option<Vec<_>> =
            checks.iter().map(|check| self.replica(check.signer).map(|(key, _)| *key)).collect();
        let Some(keys) = keys else { return false };
        let statements: Vec<_> = checks.iter().map(|check| check.statement).collect();
        let signatures: Vec<_> =
            checks.iter().map(|check| DalekSignature::from_bytes(&check.signature.0)).collect();
        verify_batch(&statements, &signatures, &keys).is_ok()
    }

    fn admit(&self, batch: &Batch) -> bool {
        (self.admission)(batch)
    }

    fn random(&self, input: &[u8]) -> ([u8; 64], RandomProof) {
        let proof = self.random.prove(input);
        let output: Option<[u8; 64]> = RandomPublicKey::from(self.random).verify(input, &proof).into();
        (output.expect("an own proof holds"), RandomProof(proof.to_bytes()))
    }

    fn check_random(&self, replica: ReplicaId, input: &[u8], proof: &RandomProof) -> Option<[u8; 64]> {
        let proof = Proof::from_bytes(proof.0)?;
        self.replica(replica)?.1.verify(input, &proof).into()
    }
}
