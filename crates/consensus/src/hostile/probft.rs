//! How a ProBFT replica lies: as a PBFT replica where it speaks PBFT, and with false pieces, votes and random proofs.
use alloc::vec::Vec;

use super::Lie;
use crate::core::{Core, Kind};
use crate::pbft::Pbft;
use crate::pbft::messages::{Block, Message as PbftMessage};
use crate::probft::ProBft;
use crate::probft::messages::{Announce, Message, OwnMessage, PieceVote};
use crate::types::Digest;

fn own(message: OwnMessage) -> Message {
    Message::Own(message)
}

/// A vote with the own random proof: reaches whom it likes, drawn or not.
fn vote(core: &Core, kind: Kind, to: &PieceVote) -> Message {
    let numbers = [to.view, to.place.number()];
    let input = crate::probft::random_input(core, kind, to.view, to.place);
    let (_, proof) = core.crypto.random(&input.0);
    let signature = core.crypto.sign(&core.statement(kind, numbers, &to.digest));
    let vote = PieceVote { proof, signature, ..*to };
    own(if kind == Kind::PiecePrepare { OwnMessage::Prepare(vote) } else { OwnMessage::Commit(vote) })
}

impl Lie for ProBft {
    fn other(core: &Core, message: &Message) -> Option<Message> {
        match message {
            Message::Pbft(message) => <Pbft as Lie>::other(core, message).map(Message::Pbft),
            Message::Own(OwnMessage::Announce(announce)) => {
                let mut block = announce.block.clone();
                if block.batches.len() > 1 {
                    block.batches.pop();
                } else {
                    block.batches = core.mempool.some_ready();
                }
                let numbers = [announce.view, announce.place.number()];
                let signature = core.crypto.sign(&core.statement(Kind::Piece, numbers, &block.digest()));
                Some(own(OwnMessage::Announce(Announce { block, signature, ..announce.clone() })))
            }
            Message::Own(_) => None,
        }
    }

    fn corrupted(message: Message) -> Message {
        match message {
            Message::Pbft(message) => Message::Pbft(<Pbft as Lie>::corrupted(message)),
            Message::Own(mut message) => {
                match &mut message {
                    OwnMessage::Announce(announce) => announce.signature.0[1] ^= 1,
                    OwnMessage::Prepare(vote) => vote.proof.0[70] ^= 1,
                    OwnMessage::Commit(vote) => vote.proof.0[5] ^= 1,
                    OwnMessage::Report(report) => report.claims.signature.0[0] ^= 1,
                    OwnMessage::Resume(resume) => resume.signature.0[0] ^= 1,
                    OwnMessage::Equivocation(shown) => shown.second.1.0[0] ^= 1,
                }
                Message::Own(message)
            }
        }
    }

    fn echo(core: &Core, message: &Message) -> Vec<Message> {
        let to = match message {
            Message::Pbft(message) => {
                return <Pbft as Lie>::echo(core, message).into_iter().map(Message::Pbft).collect();
            }
            Message::Own(OwnMessage::Announce(announce)) => PieceVote {
                view: announce.view,
                place: announce.place,
                digest: announce.block.digest(),
                leader: announce.signature,
                proof: crate::crypto::RandomProof([0; 80]),
                signature: announce.signature,
            },
            Message::Own(OwnMessage::Prepare(vote) | OwnMessage::Commit(vote)) => *vote,
            Message::Own(_) => return Vec::new(),
        };
        alloc::vec![vote(core, Kind::PiecePrepare, &to), vote(core, Kind::PieceCommit, &to)]
    }

    /// Votes with a proof that is made up, claims of what was never prepared, and blocks that leave pieces out.
    fn fabricated(core: &Core, message: &Message, chance: u64) -> Option<Message> {
        match message {
            Message::Pbft(PbftMessage::Prepare(prepare)) if chance.is_multiple_of(2) => {
                let block = Block::default();
                let numbers = [prepare.view, prepare.slot + 1];
                let signature = core.crypto.sign(&core.statement(Kind::Prepare, numbers, &block.digest()));
                let (view, slot) = (prepare.view, prepare.slot + 1);
                Some(Message::Pbft(PbftMessage::Propose(crate::pbft::messages::Propose {
                    view,
                    slot,
                    block,
                    signature,
                })))
            }
            Message::Pbft(message) => <Pbft as Lie>::fabricated(core, message, chance).map(Message::Pbft),
            Message::Own(OwnMessage::Prepare(seen) | OwnMessage::Commit(seen)) => {
                let mut seen = *seen;
                if chance.is_multiple_of(3) {
                    seen.digest = Digest([7; 32]);
                }
                let kind = if chance.is_multiple_of(2) { Kind::PiecePrepare } else { Kind::PieceCommit };
                let Message::Own(OwnMessage::Prepare(mut vote) | OwnMessage::Commit(mut vote)) =
                    vote(core, kind, &seen)
                else {
                    return None;
                };
                vote.proof.0[0] ^= 1;
                Some(own(if kind == Kind::PiecePrepare {
                    OwnMessage::Prepare(vote)
                } else {
                    OwnMessage::Commit(vote)
                }))
            }
            Message::Own(_) => None,
        }
    }
}
