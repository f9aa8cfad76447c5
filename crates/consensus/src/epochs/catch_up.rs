//! How a replica gets into an epoch that others are in already: it hears how its own ended, and takes the state that the
//! next one began with from a member. The end has a quorum's signatures, the state its digest in there.
use alloc::sync::Arc;
use alloc::vec::Vec;

use super::Epochs;
use super::messages::{Message, OriginPart, OriginWish};
use crate::checkpoint::{PART_BYTES, PATIENCE_DOUBLINGS_MAX};
use crate::core::{Core, CoreMessage, SERVED_BYTES_MAX, mutant};
use crate::io::{Input, Key, Output, Stable, Start};
use crate::types::{Digest, ReplicaId, Time, domain};
use crate::wire::Wire;

/// The state that an epoch began with, on its way here.
#[derive(Debug)]
pub(super) struct Transfer {
    bytes: Vec<u8>,
    attempts: usize,
    asked: Time,
}

/// So many retries a replica has to reach the end of its epoch itself, once it is known.
const PATIENCE_RETRIES: u64 = 8;

impl Epochs {
    /// Says to a peer in an earlier epoch how that one ended.
    pub(super) fn tell_end(&mut self, to: ReplicaId, epoch: u64) {
        if let Some(link) = self.links.get(&epoch).cloned()
            && self.may_tell(to)
        {
            self.send_of(epoch, to, &Message::Link(link));
        }
    }

    /// A peer is in a later epoch: it knows how this one ended.
    pub(super) fn ask_epoch(&mut self, of: ReplicaId) {
        if self.may_tell(of) {
            self.send(of, &Message::Ask(0));
        }
    }

    /// Whether a peer may hear about epochs again already.
    fn may_tell(&mut self, to: ReplicaId) -> bool {
        let now = self.now;
        let may = self.told.get(&to).is_none_or(|told| *told + self.config.retry / 4 <= now);
        if may {
            self.told.insert(to, now);
        }
        may
    }

    /// As of the epoch that the peer is in: it would not listen otherwise.
    fn send_of(&mut self, epoch: u64, to: ReplicaId, message: &Message) {
        let mut bytes = Vec::new();
        epoch.write(&mut bytes);
        super::PLANE.write(&mut bytes);
        message.write(&mut bytes);
        self.outputs.push_back(Output::Send { to, bytes: bytes.into() });
    }

    pub(super) fn handle_epoch_message(&mut self, from: ReplicaId, epoch: u64, message: Message) {
        match message {
            Message::Link(link) if epoch == self.epoch() => self.handle_link(from, link),
            Message::FetchOrigin(_) | Message::Ask(_) if epoch < self.epoch() => self.tell_end(from, epoch),
            Message::FetchOrigin(wish) => self.handle_fetch_origin(from, &wish),
            Message::Origin(part) if epoch == self.epoch() => self.handle_origin_part(from, &part),
            Message::Link(_) | Message::Origin(_) | Message::Ask(_) => {}
        }
    }

    /// How this epoch ended, says a peer.
    fn handle_link(&mut self, from: ReplicaId, link: Stable) {
        if self.behind.is_some() {
            return;
        }
        let judge = Core::new(self.config.clone(), self.maker.crypto(&self.anchor.plan), None);
        let proven = judge.is_stable(&link) || mutant!(self, EndUnproven);
        if link.successor.is_none() || !proven {
            self.refused += 1;
            return;
        }
        if self.replica.is_none() {
            return self.enter(link, None);
        }
        self.behind = Some((link.clone(), self.now));
        // Who has the same state here needs nothing more.
        let mut bytes = self.epoch().encoded();
        bytes.push(0);
        CoreMessage::Stable(link).write(&mut bytes);
        self.handle_inner(Input::Message { from, bytes: &bytes });
    }

    /// Asks again, and stops waiting for the own replica.
    pub(super) fn catch_up(&mut self) {
        if self.catch_up_at() > self.now {
            return;
        }
        if let Some((link, _)) = self.behind.take() {
            return self.enter(link, None);
        }
        if let Some(transfer) = &mut self.transfer {
            transfer.attempts += 1;
            transfer.bytes.clear();
            self.ask_for_part();
        }
    }

    pub(super) fn catch_up_at(&self) -> Time {
        let behind = self.behind.as_ref().map(|(_, since)| since + PATIENCE_RETRIES * self.config.retry);
        // Longer each time: how long an answer takes is not known beforehand.
        let patience =
            |transfer: &Transfer| self.config.retry << transfer.attempts.min(PATIENCE_DOUBLINGS_MAX);
        let asks = self.transfer.as_ref().map(|transfer| transfer.asked + patience(transfer));
        behind.unwrap_or(Time::MAX).min(asks.unwrap_or(Time::MAX))
    }

    pub(super) fn begin_transfer(&mut self) {
        self.transfer = Some(Transfer { bytes: Vec::new(), attempts: 0, asked: self.now });
        self.ask_for_part();
    }

    /// The member that is asked now.
    fn server(&self) -> Option<ReplicaId> {
        let transfer = self.transfer.as_ref()?;
        let members: Vec<_> = self.config.peers().collect();
        members.get((usize::from(self.me.0) + transfer.attempts) % members.len().max(1)).copied()
    }

    fn ask_for_part(&mut self) {
        let Some(server) = self.server() else { return };
        let digest = self.anchor.origin;
        let now = self.now;
        let Some(transfer) = self.transfer.as_mut() else { return };
        transfer.asked = now;
        let offset = transfer.bytes.len() as u32;
        self.send(server, &Message::FetchOrigin(OriginWish { digest, offset }));
    }

    fn handle_fetch_origin(&mut self, from: ReplicaId, wish: &OriginWish) {
        let Some(origin) = self.origin.clone().filter(|_| wish.digest == self.anchor.origin) else { return };
        let offset = wish.offset as usize;
        if offset >= origin.len() {
            return;
        }
        let (since, served) = self.served.entry(from).or_default();
        if *since + self.config.retry <= self.now {
            (*since, *served) = (self.now, 0);
        }
        *served += PART_BYTES;
        if *served > SERVED_BYTES_MAX {
            return;
        }
        let bytes: Arc<[u8]> = origin[offset..origin.len().min(offset + PART_BYTES)].into();
        let part = OriginPart { digest: wish.digest, offset: wish.offset, total: origin.len() as u32, bytes };
        self.send(from, &Message::Origin(part));
    }

    fn handle_origin_part(&mut self, from: ReplicaId, part: &OriginPart) {
        let expected = self.server() == Some(from) && part.digest == self.anchor.origin;
        let snapshot_bytes_max = self.config.snapshot_bytes_max;
        let believes = mutant!(self, OriginUnchecked);
        let Some(transfer) = self.transfer.as_mut().filter(|transfer| {
            expected && part.offset as usize == transfer.bytes.len() && !part.bytes.is_empty()
        }) else {
            return;
        };
        transfer.bytes.extend_from_slice(&part.bytes);
        let (have, total) = (transfer.bytes.len(), part.total as usize);
        if have < total && total <= snapshot_bytes_max {
            return self.ask_for_part();
        }
        let sound = have == total && Digest::of(domain::SNAPSHOT, &transfer.bytes) == self.anchor.origin;
        if !sound && !believes {
            self.refused += 1;
            transfer.asked = 0;
            return;
        }
        let Some(transfer) = self.transfer.take() else { return };
        let origin: Arc<[u8]> = transfer.bytes.into();
        let key = Key::Origin { epoch: self.epoch() };
        self.outputs.push_back(Output::Persist { key, value: origin.to_vec() });
        self.origin = Some(origin);
        if self.begin(Start::Fresh).is_err() {
            // A quorum signed what is no state.
            self.refused += 1;
        }
    }
}
