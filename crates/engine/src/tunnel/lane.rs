//! What the tunnel core knows of a lane: whose turn it is, and whether anybody is at its other end. How connections get on
//! lanes stands here as well.
use alloc::collections::VecDeque;
use alloc::vec::Vec;

use super::connection::{Connection, Opening};
use super::{ConnectionKey, Mux, Opener, Reset, TunnelLane};
use crate::{LaneEnd, Time};

/// A lane that stands.
#[derive(Debug)]
pub(super) struct Lane {
    /// Connections that are spoken of here.
    pub(super) pinned: usize,
    /// Those that have words to say.
    pub(super) words: VecDeque<ConnectionKey>,
    /// Those that have just got something to send after a while without: they go first, for one frame. Flows that send
    /// little are told from those that send much by this alone (FQ-CoDel, RFC 8290 §4.2).
    pub(super) fresh: VecDeque<ConnectionKey>,
    /// The others, in turn.
    pub(super) busy: VecDeque<ConnectionKey>,
    /// Answers that are owed.
    pub(super) pongs: VecDeque<u64>,
    /// The ping that waits for its answer: its number, and when it went.
    pub(super) ping: Option<(u64, Time)>,
    pub(super) wants_ping: bool,
    pub(super) pings: u64,
    /// Ends that were said, and may be lost with the lane; those before `unconfirmed_before_ping` went before the ping.
    pub(super) unconfirmed: VecDeque<Reset>,
    pub(super) unconfirmed_before_ping: usize,
    pub(super) heard: Time,
    pub(super) rtt_ns: Time,
    /// The acceptor may not speak before the dialler has: the door's rule.
    pub(super) is_mute: bool,
}

impl Lane {
    pub(super) fn new(end: LaneEnd, now: Time) -> Self {
        Self {
            pinned: 0,
            words: VecDeque::new(),
            fresh: VecDeque::new(),
            busy: VecDeque::new(),
            pongs: VecDeque::new(),
            ping: None,
            // The dialler's first frame must not wait for data: the acceptor waits for it.
            wants_ping: true,
            pings: 0,
            unconfirmed: VecDeque::new(),
            unconfirmed_before_ping: 0,
            heard: now,
            rtt_ns: 0,
            is_mute: end == LaneEnd::Accepted,
        }
    }

    fn has_frames(&self) -> bool {
        let queues = [&self.words, &self.fresh, &self.busy];
        self.wants_ping || !self.pongs.is_empty() || queues.iter().any(|queue| !queue.is_empty())
    }

    pub(super) fn handle_time(&mut self, now: Time, ping_after: Time) {
        let is_quiet = now.saturating_sub(self.heard) >= ping_after || !self.unconfirmed.is_empty();
        self.wants_ping |= self.ping.is_none() && is_quiet;
    }

    /// Nobody answers the ping, or has said a first word.
    pub(super) fn is_silent(&self, now: Time, silence_max: Time) -> bool {
        let waits =
            self.is_mute || self.ping.is_some_and(|(_, since)| now.saturating_sub(since) > silence_max);
        waits && now.saturating_sub(self.heard) > silence_max
    }

    pub(super) fn handle_pong(&mut self, number: u64, now: Time) {
        let Some((_, since)) = self.ping.take_if(|(expected, _)| *expected == number) else { return };
        self.rtt_ns = now.saturating_sub(since).max(1);
        self.unconfirmed.drain(..self.unconfirmed_before_ping.min(self.unconfirmed.len()));
        self.unconfirmed_before_ping = 0;
    }
}

impl Mux {
    /// Gives a connection the lane that has the least to do, and begins again there; without any it waits.
    pub(super) fn move_to_some_lane(&mut self, key: ConnectionKey) {
        let load = |lane: &Lane| (lane.fresh.len() + lane.busy.len(), lane.pinned);
        let lane: Option<TunnelLane> =
            self.speaking_lanes().min_by_key(|(_, lane)| load(lane)).map(|(lane, _)| *lane);
        let Some(connection) = self.connections.get_mut(&key) else { return };
        connection.lane = lane;
        connection.queued = super::connection::Queued::default();
        connection.out.rewind();
        say_all_again(connection, key.opener);
        if let Some(lane) = lane.and_then(|lane| self.lanes.get_mut(&lane)) {
            lane.pinned += 1;
        }
        self.say(key, |_| {});
        self.queue_data(key);
    }

    /// Lanes that may be spoken on.
    fn speaking_lanes(&self) -> impl Iterator<Item = (&TunnelLane, &Lane)> {
        self.lanes.iter().filter(|(_, lane)| !lane.is_mute)
    }

    pub(super) fn has_speaking_lane(&self) -> bool {
        self.speaking_lanes().next().is_some()
    }

    /// There is a lane to speak on: connections that waited for one go on.
    pub(super) fn adopt_orphans(&mut self) {
        self.alone_since = None;
        for key in self.keys(|connection| connection.lane.is_none()) {
            self.move_to_some_lane(key);
        }
    }

    /// Notes words, and queues the connection for them.
    pub(super) fn say(&mut self, key: ConnectionKey, note: impl FnOnce(&mut Connection)) {
        let Some(connection) = self.connections.get_mut(&key) else { return };
        note(connection);
        let Some(lane) = connection.lane.and_then(|lane| self.lanes.get_mut(&lane)) else { return };
        if connection.has_words() && !core::mem::replace(&mut connection.queued.words, true) {
            lane.words.push_back(key);
        }
    }

    /// Queues a connection that has data, or its end, or a complaint.
    pub(super) fn queue_data(&mut self, key: ConnectionKey) {
        let Some(connection) = self.connections.get_mut(&key) else { return };
        let Some(lane) = connection.lane.and_then(|lane| self.lanes.get_mut(&lane)) else { return };
        if connection.has_data() && !core::mem::replace(&mut connection.queued.data, true) {
            lane.fresh.push_back(key);
        }
    }

    /// Lanes with something to send.
    #[must_use]
    pub fn lanes_with_frames(&self) -> Vec<TunnelLane> {
        let is_due = !self.resets.is_empty() || !self.probes.is_empty();
        let wants = |lane: &Lane| !lane.is_mute && (lane.has_frames() || is_due);
        self.lanes.iter().filter(|(_, lane)| wants(lane)).map(|(lane, _)| *lane).collect()
    }
}

/// What the former lane may have lost.
fn say_all_again(connection: &mut Connection, opener: Opener) {
    match (&connection.opening, opener) {
        (Opening::Asking { .. }, _) => connection.says.open = true,
        (Opening::Done, Opener::Peer) => connection.says.accept = true,
        (Opening::Done, Opener::Local) | (Opening::Asked, _) => {}
    }
    // A connection that the peer has not heard of has nothing to acknowledge.
    connection.says.ack = !matches!(connection.opening, Opening::Asking { .. });
}
