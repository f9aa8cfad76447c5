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

#[cfg(test)]
mod tests {
    use alloc::sync::Arc;

    use super::*;
    use crate::types::ReplicaId;

    fn bytes<const N: usize>(text: &str) -> [u8; N] {
        let digits: Vec<u8> =
            text.bytes().map(|digit| (digit as char).to_digit(16).expect("hex") as u8).collect();
        assert_eq!(digits.len(), 2 * N);
        core::array::from_fn(|at| 16 * digits[2 * at] + digits[2 * at + 1])
    }

    fn keys(random: &[u8; 32], me: u16) -> Ed25519 {
        let member = |number: u16, random: &[u8; 32]| Member {
            replica: ReplicaId(number),
            keys: Ed25519::public_keys(&[number as u8 + 1; 32], random).expect("keys"),
            about: Arc::from([]),
        };
        let other = [7; 32].map(|byte: u8| byte % 8);
        let members = [member(0, random), member(1, &other)];
        let own = if me == 0 { random } else { &other };
        Ed25519::new(&[me as u8 + 1; 32], own, &members, |_| true).expect("keys")
    }

    /// The published vector of ECVRF-RISTRETTO255-SHA512 (c2sp.org/vrf-r255), the suite of RFC 9381's construction that
    /// is used here.
    #[test]
    fn random_outputs_are_those_of_the_published_vector() {
        let secret = bytes("3431c2b03533e280b23232e280b34e2c3132c2b03238e280b23131e280b34500");
        let keys = keys(&secret, 0);
        let public = Ed25519::public_keys(&[1; 32], &secret).expect("keys").1;
        assert_eq!(public, bytes("54136cd90d99fbd1d4e855d9556efea87ba0337f2a6ce22028d0f5726fcb854e"));
        let input = *b"c2sp.org/vrf-r255";
        let (output, proof) = keys.random(&input);
        assert_eq!(
            proof.0,
            bytes(
                "0a97d961262fb549b4175c5117860f42ae44a123f93c476c439eddd1c0cff9265c805525233e2284\
             dbed45e593b8eea31d5ca9734d72bcbba9738d5237f955f3b2422351149d1312503b6441a47c940c"
            )
        );
        assert_eq!(
            output,
            bytes(
                "dd653f0879b48c3ef69e13551239bec4cbcc1c18fe8894de2e9e1c790e18273603bf1c6c25d7a797\
             aeff3c43fd32b974d3fcbd4bcce916007097922a3ea3a794"
            )
        );
        assert_eq!(keys.check_random(ReplicaId(0), &input, &proof), Some(output));
    }

    #[test]
    fn a_random_proof_is_of_one_key_and_one_input_and_cannot_be_bent() {
        let keys = keys(&[3; 32].map(|byte: u8| byte % 16), 0);
        let (output, proof) = keys.random(b"input");
        assert_eq!(keys.check_random(ReplicaId(0), b"input", &proof), Some(output));
        assert_eq!(keys.check_random(ReplicaId(0), b"other", &proof), None);
        assert_eq!(keys.check_random(ReplicaId(1), b"input", &proof), None);
        assert_eq!(keys.check_random(ReplicaId(2), b"input", &proof), None);
        for bit in 0..proof.0.len() * 8 {
            let mut bent = proof;
            bent.0[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(keys.check_random(ReplicaId(0), b"input", &bent), None, "bit {bit}");
        }
    }
}
