//! How a PBFT replica lies.
use alloc::vec::Vec;

use super::Lie;
use crate::core::{Core, Kind};
use crate::crypto::{Certificate, Signature, Signed};
use crate::pbft::messages::{Block, Message, Prepared, ViewChange, Vote};
use crate::pbft::{Pbft, messages::Propose};
use crate::types::Digest;

impl Lie for Pbft {
    /// Another block for the same slot, or a vote for another digest, well signed.
    fn other(core: &Core, message: &Message) -> Option<Message> {
        let sign = |kind, view, slot, digest| core.crypto.sign(&core.statement(kind, [view, slot], digest));
        Some(match message {
            Message::Propose(propose) => {
                let mut block = propose.block.clone();
                block.batches.pop();
                let signature = sign(Kind::Prepare, propose.view, propose.slot, &block.digest());
                Message::Propose(Propose { view: propose.view, slot: propose.slot, block, signature })
            }
            Message::Prepare(vote) => {
                let digest = Block::default().digest();
                let signature = sign(Kind::Prepare, vote.view, vote.slot, &digest);
                Message::Prepare(Vote { digest, signature, ..*vote })
            }
            Message::Commit(vote) => {
                let digest = Block::default().digest();
                let signature = sign(Kind::Commit, vote.view, vote.slot, &digest);
                Message::Commit(Vote { digest, signature, ..*vote })
            }
            Message::Decided(_)
            | Message::ViewChange(_)
            | Message::NewView(_)
            | Message::FetchBlock(_)
            | Message::FetchedBlock(_) => return None,
        })
    }

    fn corrupted(mut message: Message) -> Message {
        match &mut message {
            Message::Propose(propose) => propose.signature.0[7] ^= 1,
            Message::Prepare(vote) | Message::Commit(vote) => vote.signature.0[9] ^= 1,
            Message::ViewChange(change) => change.signature.0[3] ^= 1,
            Message::NewView(new_view) => new_view.signature.0[3] ^= 1,
            Message::Decided(decided) => decided.certificate.signatures.truncate(1),
            Message::FetchBlock(_) | Message::FetchedBlock(_) => {}
        }
        message
    }

    fn echo(core: &Core, message: &Message) -> Vec<Message> {
        let vote = match message {
            Message::Propose(propose) => {
                let digest = propose.block.digest();
                Vote { view: propose.view, slot: propose.slot, digest, signature: propose.signature }
            }
            Message::Prepare(vote) | Message::Commit(vote) => *vote,
            Message::Decided(_)
            | Message::ViewChange(_)
            | Message::NewView(_)
            | Message::FetchBlock(_)
            | Message::FetchedBlock(_) => return Vec::new(),
        };
        let signed = |kind| {
            let signature = core.crypto.sign(&core.statement(kind, [vote.view, vote.slot], &vote.digest));
            Vote { signature, ..vote }
        };
        alloc::vec![Message::Prepare(signed(Kind::Prepare)), Message::Commit(signed(Kind::Commit))]
    }

    /// A view change that claims that an empty block was prepared where none was.
    fn fabricated(core: &Core, message: &Message, chance: u64) -> Option<Message> {
        let (view, slot) = match message {
            Message::Prepare(vote) | Message::Commit(vote) => (vote.view, vote.slot),
            Message::ViewChange(change) => (change.view, change.prepared.last()?.slot),
            Message::Propose(_)
            | Message::Decided(_)
            | Message::NewView(_)
            | Message::FetchBlock(_)
            | Message::FetchedBlock(_) => return None,
        };
        let new = view + chance % 2 + u64::from(!matches!(message, Message::ViewChange(_)));
        let digest = if chance.is_multiple_of(3) { Digest([7; 32]) } else { Block::default().digest() };
        let signatures = core.config.committee.members().iter().take(core.config.committee.quorum());
        let mut signatures: Vec<_> =
            signatures.map(|signer| Signed { signer: *signer, signature: Signature([1; 64]) }).collect();
        signatures.sort_unstable_by_key(|signed| signed.signer);
        let certificate = Certificate { signatures };
        let prepared = alloc::vec![Prepared { slot, view: new.saturating_sub(1), digest, certificate }];
        let stable = core.checkpoints.stable().cloned();
        let mut change =
            ViewChange { sender: core.config.me, view: new, stable, prepared, signature: Signature([0; 64]) };
        change.signature = core.crypto.sign(&core.statement(Kind::ViewChange, [new, 0], &change.digest()));
        Some(Message::ViewChange(change))
    }
}
