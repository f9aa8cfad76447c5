//! How a Bullshark replica lies.
use alloc::vec::Vec;

use super::Lie;
use crate::bullshark::Bullshark;
use crate::bullshark::messages::{Authors, Header, Message, Propose, Vertex, Vote};
use crate::core::{Core, Kind};
use crate::crypto::{Certificate, Signature, Signed};

fn signed(core: &Core, header: &Header) -> Signature {
    core.crypto.sign(&core.statement(
        Kind::Header,
        [u64::from(header.author.0), header.round],
        &header.digest(),
    ))
}

/// Another header of the same author and round: fewer batches, or fewer parents.
fn another(header: &Header) -> Header {
    let mut header = header.clone();
    if header.batches.pop().is_none() {
        header.parents = Authors(header.parents.0 & header.parents.0.wrapping_sub(1));
    }
    header
}

impl Lie for Bullshark {
    fn other(core: &Core, message: &Message) -> Option<Message> {
        match message {
            Message::Propose(propose) => {
                let header = another(&propose.header);
                let signature = signed(core, &header);
                Some(Message::Propose(Propose { header, signature }))
            }
            Message::Vote(_) | Message::Vertex(_) | Message::Fetch(_) => None,
        }
    }

    fn corrupted(mut message: Message) -> Message {
        match &mut message {
            Message::Propose(propose) => propose.signature.0[2] ^= 1,
            Message::Vote(vote) => vote.signature.0[2] ^= 1,
            Message::Vertex(vertex) => vertex.certificate.signatures.truncate(2),
            Message::Fetch(_) => {}
        }
        message
    }

    /// Votes for whatever is proposed, also the second time.
    fn echo(core: &Core, message: &Message) -> Vec<Message> {
        match message {
            Message::Propose(propose) => {
                let signature = signed(core, &propose.header);
                let (round, digest) = (propose.header.round, propose.header.digest());
                alloc::vec![Message::Vote(Vote { round, digest, signature })]
            }
            Message::Vote(_) | Message::Vertex(_) | Message::Fetch(_) => Vec::new(),
        }
    }

    /// A vertex that nobody voted for: one's own, or somebody's.
    fn fabricated(core: &Core, message: &Message, chance: u64) -> Option<Message> {
        let header = match message {
            Message::Propose(propose) => &propose.header,
            Message::Vertex(vertex) => &vertex.header,
            Message::Vote(_) | Message::Fetch(_) => return None,
        };
        let mut header = another(header);
        header.round += chance % 2;
        if chance.is_multiple_of(3) {
            header.author = core.config.me;
            let signature = signed(core, &header);
            return Some(Message::Propose(Propose { header, signature }));
        }
        let mut signatures: Vec<_> = core
            .config
            .committee
            .members()
            .iter()
            .take(core.config.committee.quorum())
            .map(|signer| Signed { signer: *signer, signature: Signature([3; 64]) })
            .collect();
        signatures.sort_unstable_by_key(|signed| signed.signer);
        Some(Message::Vertex(Vertex { header, certificate: Certificate { signatures } }))
    }
}
