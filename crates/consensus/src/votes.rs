//! Votes for one thing: at most one of each member, checked only when they are enough, and then all at once.
use alloc::collections::BTreeMap;
use alloc::vec::Vec;

use crate::crypto::{Certificate, Check, Crypto, Signature, Signed, verify_each};
use crate::types::{Digest, ReplicaId};

/// Votes of replicas for digests.
#[derive(Debug, Clone, Default)]
pub(crate) struct Votes {
    votes: BTreeMap<ReplicaId, Vote>,
}

#[derive(Debug, Clone, Copy)]
struct Vote {
    digest: Digest,
    signature: Signature,
    checked: bool,
}

/// What became of a vote.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Added {
    New,
    Same,
    /// The replica voted for this other digest before.
    Conflict(Digest, Signature),
}

impl Votes {
    /// Adds a peer's vote, unchecked. Its connection is authenticated: a false one takes the place of its own sender's only.
    pub(crate) fn add(&mut self, from: ReplicaId, digest: Digest, signature: Signature) -> Added {
        match self.votes.get(&from) {
            None => {
                self.votes.insert(from, Vote { digest, signature, checked: false });
                Added::New
            }
            Some(vote) if vote.digest == digest => Added::Same,
            Some(vote) => Added::Conflict(vote.digest, vote.signature),
        }
    }

    /// Adds a vote that needs no check: the own one.
    pub(crate) fn add_own(&mut self, me: ReplicaId, digest: Digest, signature: Signature) {
        self.votes.insert(me, Vote { digest, signature, checked: true });
    }

    pub(crate) fn contains(&self, replica: ReplicaId) -> bool {
        self.votes.contains_key(&replica)
    }

    /// Whether a replica voted for this digest.
    pub(crate) fn is_for(&self, replica: ReplicaId, digest: &Digest) -> bool {
        self.votes.get(&replica).is_some_and(|vote| vote.digest == *digest)
    }

    pub(crate) fn count(&self, digest: &Digest) -> usize {
        self.votes.values().filter(|vote| vote.digest == *digest).count()
    }

    /// A certificate, once `quorum` good votes are for the digest. Bad ones are dropped.
    pub(crate) fn certificate(
        &mut self,
        crypto: &dyn Crypto,
        quorum: usize,
        digest: &Digest,
        statement: &[u8],
    ) -> Option<Certificate> {
        if self.count(digest) < quorum {
            return None;
        }
        let unchecked: Vec<_> = self
            .votes
            .iter()
            .filter(|(_, vote)| vote.digest == *digest && !vote.checked)
            .map(|(signer, vote)| (*signer, vote.signature))
            .collect();
        let checks: Vec<_> = unchecked
            .iter()
            .map(|(signer, signature)| Check { signer: *signer, statement, signature })
            .collect();
        let good = if checks.is_empty() { Vec::new() } else { verify_each(crypto, &checks) };
        for ((signer, _), good) in unchecked.iter().zip(good) {
            if good {
                self.votes.entry(*signer).and_modify(|vote| vote.checked = true);
            } else {
                self.votes.remove(signer);
            }
        }
        let signed = self.votes.iter().filter(|(_, vote)| vote.digest == *digest);
        let signatures: Vec<_> = signed
            .take(quorum)
            .map(|(signer, vote)| Signed { signer: *signer, signature: vote.signature })
            .collect();
        (signatures.len() >= quorum).then_some(Certificate { signatures })
    }
}

impl Votes {
    pub(crate) fn remove(&mut self, replica: ReplicaId) {
        self.votes.remove(&replica);
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.votes.is_empty()
    }
}
