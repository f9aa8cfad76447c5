//! One connection: what is known of its two directions and what has yet to be said of it. A record with small questions;
//! the rest of the tunnel core moves it along.
use alloc::collections::VecDeque;
use alloc::vec::Vec;

use dwcp_abi::wire::{TUNNEL_PAYLOAD_MAX, TUNNEL_WINDOW_FIRST};

use super::TunnelLane;
use crate::Time;

/// A connection.
#[derive(Debug)]
pub(super) struct Connection {
    /// Where this end speaks of it.
    pub(super) lane: Option<TunnelLane>,
    pub(super) opening: Opening,
    pub(super) says: Says,
    pub(super) out: Outgoing,
    pub(super) incoming: Incoming,
    /// In its lane's queue of data, and in its queue of words.
    pub(super) queued: Queued,
    pub(super) told_readable: bool,
    pub(super) told_writable: bool,
}

/// How far its beginning is.
#[derive(Debug)]
pub(super) enum Opening {
    /// This end asked, and the peer has not answered.
    Asking { target: Vec<u8>, since: Time },
    /// The peer asked, and the driver sees to it.
    Asked,
    /// The target is connected.
    Done,
}

/// Words that wait for the lane.
#[derive(Debug, Default, Clone, Copy)]
pub(super) struct Says {
    pub(super) open: bool,
    pub(super) accept: bool,
    pub(super) ack: bool,
}

/// Which of its lane's queues it stands in.
#[derive(Debug, Default, Clone, Copy)]
pub(super) struct Queued {
    pub(super) data: bool,
    pub(super) words: bool,
}

/// The direction to the peer. Offsets count from the stream's first byte.
#[derive(Debug, Default)]
pub(super) struct Outgoing {
    /// What is not acknowledged, from `acked` on.
    pub(super) buffer: VecDeque<u8>,
    pub(super) acked: u64,
    /// Next to send on the present lane.
    pub(super) sent: u64,
    /// Highest that was ever sent.
    pub(super) sent_max: u64,
    pub(super) credit: u64,
    /// Where the stream ends, once that is known.
    pub(super) end: Option<u64>,
    pub(super) end_sent: bool,
    pub(super) end_acked: bool,
    /// Credit at which the peer was told that it is too small.
    pub(super) blocked_said: Option<u64>,
}

/// The direction from the peer.
#[derive(Debug)]
pub(super) struct Incoming {
    /// What has arrived and was not consumed.
    pub(super) buffer: VecDeque<u8>,
    pub(super) received: u64,
    pub(super) consumed: u64,
    pub(super) window: u64,
    /// The window grows again once the peer has used what the last growth gave.
    pub(super) grown_until: u64,
    pub(super) acked_said: u64,
    pub(super) credit_said: u64,
    pub(super) end: Option<u64>,
    pub(super) end_taken: bool,
    pub(super) end_acked: bool,
}

impl Connection {
    pub(super) fn new(opening: Opening) -> Self {
        Self {
            lane: None,
            opening,
            says: Says::default(),
            out: Outgoing::default(),
            incoming: Incoming::new(),
            queued: Queued::default(),
            told_readable: false,
            told_writable: false,
        }
    }

    /// Both directions have come to their ends, and both ends know it.
    pub(super) fn is_over(&self) -> bool {
        self.out.end_acked && self.incoming.end_taken && self.incoming.end_acked
    }

    /// Both ends of stream were said, and only the peer's acknowledgement of ours is missing.
    pub(super) fn is_nearly_over(&self) -> bool {
        self.incoming.end.is_some() && self.out.end.is_some()
    }

    pub(super) fn waits_too_long(&self, now: Time, answer_max: Time) -> bool {
        matches!(self.opening, Opening::Asking { since, .. } if now.saturating_sub(since) > answer_max)
    }

    /// Whether it has something for the queue of data.
    pub(super) fn has_data(&self) -> bool {
        // The acceptor is silent until it has accepted.
        !matches!(self.opening, Opening::Asked) && (self.out.may_send() || self.out.must_complain())
    }

    pub(super) fn has_words(&self) -> bool {
        self.says.open || self.says.accept || self.says.ack
    }
}

impl Outgoing {
    /// Bytes to send may lie beyond the credit by one frame, so that a sender notices that it is blocked.
    pub(super) fn room(&self, window_max: u64) -> usize {
        if self.end.is_some() {
            return 0;
        }
        let credit = self.credit.saturating_sub(self.acked).min(window_max);
        (credit as usize + TUNNEL_PAYLOAD_MAX).saturating_sub(self.buffer.len())
    }

    /// Where the bytes end that are known.
    pub(super) fn written(&self) -> u64 {
        self.acked + self.buffer.len() as u64
    }

    /// Bytes that may go now.
    pub(super) fn sendable(&self) -> u64 {
        self.written().min(self.credit).saturating_sub(self.sent)
    }

    pub(super) fn may_send(&self) -> bool {
        self.sendable() > 0 || self.may_end()
    }

    /// Everything was sent but the end.
    pub(super) fn may_end(&self) -> bool {
        self.end == Some(self.sent) && !self.end_sent
    }

    /// There is more than the credit allows, and the peer does not know.
    pub(super) fn must_complain(&self) -> bool {
        self.is_blocked() && self.blocked_said != Some(self.credit)
    }

    pub(super) fn is_blocked(&self) -> bool {
        self.sent == self.credit && self.written() > self.sent
    }

    /// Begins again at what the peer has for certain.
    pub(super) fn rewind(&mut self) {
        self.sent = self.acked;
        self.end_sent = self.end_acked;
        self.blocked_said = None;
    }
}

impl Incoming {
    fn new() -> Self {
        Self {
            buffer: VecDeque::new(),
            received: 0,
            consumed: 0,
            window: TUNNEL_WINDOW_FIRST,
            grown_until: 0,
            acked_said: 0,
            credit_said: TUNNEL_WINDOW_FIRST,
            end: None,
            end_taken: false,
            end_acked: false,
        }
    }

    /// Offset that the peer may send up to.
    pub(super) fn credit(&self) -> u64 {
        self.consumed + self.window
    }

    /// The peer could go on, or will have to wait soon: it must hear of it at once.
    pub(super) fn owes_credit(&self) -> bool {
        self.end.is_none() && self.credit() - self.credit_said >= self.window / 4
    }

    /// Something arrived that the peer still keeps.
    pub(super) fn owes_ack(&self) -> bool {
        self.received > self.acked_said || (self.end.is_some() && !self.end_acked)
    }

    /// What an acknowledgement says: the end counts as a byte.
    pub(super) fn acknowledged(&self) -> u64 {
        self.received + u64::from(self.end.is_some())
    }
}
