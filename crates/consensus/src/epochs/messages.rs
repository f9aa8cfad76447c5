//! What replicas say to each other about epochs, and what is kept of them.
use alloc::sync::Arc;

use crate::io::Stable;
use crate::plan::Plan;
use crate::types::Digest;
use crate::wire::{wire_enum, wire_struct};

wire_enum! {
    /// Everything about epochs.
    #[derive(Debug, Clone)]
    pub(crate) enum Message {
        /// How the epoch ended that the receiver is still in.
        0 => Link(Stable),
        /// The state that an epoch began with?
        1 => FetchOrigin(OriginWish),
        /// A part of it.
        2 => Origin(OriginPart),
        /// Which epoch is it?
        3 => Ask(u8),
    }
}

wire_struct! {
    #[derive(Debug, Clone, Copy)]
    pub(crate) struct OriginWish {
        pub(crate) digest: Digest,
        pub(crate) offset: u32,
    }
}

wire_struct! {
    #[derive(Debug, Clone)]
    pub(crate) struct OriginPart {
        pub(crate) digest: Digest,
        pub(crate) offset: u32,
        pub(crate) total: u32,
        pub(crate) bytes: Arc<[u8]>,
    }
}

wire_struct! {
    /// Where an epoch begins: enough for a replica to enter it, once it has the state of that digest.
    #[derive(Debug, Clone, PartialEq, Eq)]
    pub struct Anchor {
        /// What it is made of.
        pub plan: Plan,
        /// The position before its first.
        pub position: u64,
        /// Digest of the state that it begins with; zero where it begins with nothing.
        pub origin: Digest,
    }
}

wire_struct! {
    /// Kept: which epoch this is, and whether what was said in it may be forgotten.
    #[derive(Debug, Clone)]
    pub(crate) struct EpochRecord {
        pub(crate) anchor: Anchor,
        pub(crate) lost: bool,
    }
}

/// An end of the epoch that nobody signed, for replicas that lie.
#[cfg(feature = "mutations")]
pub(crate) fn false_end(core: &crate::core::Core) -> Arc<[u8]> {
    use crate::crypto::{Certificate, Signature, Signed};
    use crate::wire::Wire;
    let plan = &core.config.plan;
    let mut successor = Plan { epoch: plan.epoch + 1, ..plan.clone() };
    successor.committee.reverse();
    let mut signers = plan.committee.clone();
    signers.sort_unstable();
    let signatures = signers.into_iter().map(|signer| Signed { signer, signature: Signature([5; 64]) });
    let certificate = Certificate { signatures: signatures.collect() };
    let digest = Digest([6; 32]);
    let link = Stable { position: core.ledger.position(), digest, successor: Some(successor), certificate };
    let mut bytes = plan.epoch.encoded();
    bytes.push(super::PLANE);
    Message::Link(link).write(&mut bytes);
    bytes.into()
}

/// The same message with another state in it, where it carries one; for replicas that lie.
#[cfg(feature = "mutations")]
#[must_use]
pub fn falsify_origin(bytes: &[u8]) -> Option<alloc::vec::Vec<u8>> {
    let is_origin = bytes.get(8) == Some(&super::PLANE) && bytes.get(9) == Some(&2);
    let mut other = bytes.to_vec();
    *other.last_mut().filter(|_| is_origin)? ^= 1;
    Some(other)
}
