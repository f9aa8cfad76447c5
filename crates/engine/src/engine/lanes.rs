//! Lanes: up and down, what waits on them, acknowledgements, buffers for what arrives.
use alloc::collections::VecDeque;
use alloc::string::String;
use alloc::vec::Vec;

use dwcp_abi::codec::Encoded;
use dwcp_abi::wire::{Ack, CONTROL_PAYLOAD_MAX, Code, FRAME_HEADER_BYTES, FrameHeader, FrameKind, checksum};

use super::pump::flags_of;
use super::{
    CREDIT_INITIAL, Engine, Incoming, LANE_TASKS_MAX, Lane, LaneRef, OUTBOX_BYTES_MAX, Owed, Peer, Sending,
    UNACKNOWLEDGED_MAX,
};
use crate::io::{JobKey, LaneEnd, LaneId, Output, PeerId, Tell};

impl Lane {
    fn new(peer: PeerId, generation: u64, instance: u64, end: LaneEnd) -> Self {
        Self {
            peer,
            generation,
            instance,
            closing: false,
            silent: end == LaneEnd::Accepted,
            outbox: Vec::new(),
            sending: Sending::Nothing,
            ready: VecDeque::new(),
            assigned: 0,
            listed: false,
            resting: false,
            next_sequence: 0,
            credit: CREDIT_INITIAL,
            unacknowledged: VecDeque::new(),
            late: false,
            used: false,
            asked: None,
            answered: 0,
            deaf: false,
            acknowledged_early: false,
            incoming: Incoming::Nothing,
            expected_sequence: 0,
            granted: CREDIT_INITIAL,
            ack: None,
        }
    }

    /// Tasks that it has yet to send.
    pub(super) fn load(&self) -> u8 {
        self.assigned + u8::from(matches!(self.sending, Sending::Task(_)))
    }

    pub(super) fn can_take(&self) -> bool {
        !self.closing
            && !self.silent
            && !self.resting
            && !self.late
            && self.assigned < LANE_TASKS_MAX
            && self.next_sequence + u64::from(self.assigned) < self.credit
            && self.unacknowledged.len() < UNACKNOWLEDGED_MAX
    }
}

impl Engine {
    pub(super) fn lane_up(&mut self, lane: LaneId, peer: PeerId, instance: u64, end: LaneEnd) {
        let current = self.peer_instance(peer, instance);
        let index = lane.0 as usize;
        if self.lanes.len() <= index {
            self.lanes.resize_with(index + 1, || None);
        }
        self.next_generation += 1;
        self.lanes[index] = Some(Lane::new(peer, self.next_generation, instance, end));
        let state = self.peers.entry(peer).or_default();
        state.trouble.clear();
        state.resync |= state.lanes_everywhere() == 0;
        state.lanes.push(lane);
        self.rest_lanes(peer);
        self.tell_lanes(peer, false);
        if !current {
            return self.close_lane(lane, Code::Ok, "it leads to a process that is gone");
        }
        // The other end stays silent until it hears something.
        self.ping(lane);
        self.turn_to_carried(peer);
        self.offer(lane);
        self.pump(peer);
    }

    /// Something was received on a lane.
    pub(super) fn heard(&mut self, id: LaneId) {
        let Some(lane) = self.lane_mut(id) else { return };
        if core::mem::replace(&mut lane.silent, false) {
            let peer = lane.peer;
            self.send_next(id);
            self.offer(id);
            self.pump(peer);
        }
    }

    /// Notes which process of the peer speaks. False when it is one that is gone. When it is a new one, what the
    /// former one left on the wire is void, and so is what it knew of the jobs.
    pub(super) fn peer_instance(&mut self, peer: PeerId, instance: u64) -> bool {
        let state = self.peers.entry(peer).or_default();
        if state.instance == Some(instance) {
            return true;
        }
        if state.former.contains(&instance) {
            return false;
        }
        let Some(former) = state.instance.replace(instance) else { return true };
        if state.former.len() == FORMER_MAX {
            state.former.pop_front();
        }
        state.former.push_back(former);
        state.resync = true;
        for lane in state.lanes.clone() {
            if self.lane_mut(lane).is_some_and(|lane| lane.instance != instance) {
                self.close_lane(lane, Code::Ok, "the peer was started anew");
            }
        }
        self.peer_restarted(peer);
        true
    }

    fn tell_lanes(&mut self, peer: PeerId, lost: bool) {
        let Some(state) = self.peers.get(&peer) else { return };
        let (lanes, instance) = (state.lanes.len() as u16, state.instance.unwrap_or(0));
        self.tell_others(&Tell::Lanes { peer, instance, lanes, lost });
    }

    /// Whether a lane of this worker leads to the peer and gets on.
    pub(super) fn has_lanes(&self, peer: PeerId) -> bool {
        self.any_lane(peer, |lane| !lane.late)
    }

    fn any_lane(&self, peer: PeerId, is: impl Fn(&Lane) -> bool) -> bool {
        let is = |id: &LaneId| self.lanes.get(id.0 as usize).and_then(Option::as_ref).is_some_and(&is);
        self.peers.get(&peer).is_some_and(|peer| peer.lanes.iter().any(is))
    }

    pub(super) fn lane_closing(&mut self, lane: LaneId) {
        if let Some(lane) = self.lane_mut(lane) {
            lane.closing = true;
        }
    }

    pub(super) fn lane_down(&mut self, id: LaneId) {
        let Some(lane) = self.lanes.get_mut(id.0 as usize).and_then(Option::take) else { return };
        self.starving.retain(|&starving| starving != id);
        // The driver may use the id again before it comes to what was said about this lane.
        self.outputs.retain(|output| output.lane() != Some(id));
        if let Incoming::Into(buffer) = lane.incoming {
            self.release_receive(buffer);
        }
        if let (Sending::Task(task), true) = (lane.sending, lane.acknowledged_early) {
            self.task_sent(task, 0);
            self.task_acknowledged(task);
        }
        let peer = self.peers.entry(lane.peer).or_default();
        peer.lanes.retain(|&other| other != id);
        peer.idle.retain(|&other| other != id);
        peer.resync = true;
        for task in lane.ready {
            self.return_task(task);
        }
        for owed in lane.unacknowledged {
            self.return_task(owed.task);
        }
        self.rest_lanes(lane.peer);
        self.tell_lanes(lane.peer, true);
        if !self.has_lanes(lane.peer) {
            self.give_back_carried(lane.peer);
            self.announce_all_work(lane.peer);
        }
        self.pump_all();
    }

    pub(super) fn dial_failed(&mut self, peer: PeerId, text: &str) {
        let peer = self.peers.entry(peer).or_default();
        peer.trouble.clear();
        peer.trouble.push_str(text);
    }

    /// Why there is no lane to the peer, for a person.
    pub(super) fn trouble(&self, peer: PeerId) -> String {
        match self.peers.get(&peer).map(|peer| peer.trouble.as_str()) {
            Some(text) if !text.is_empty() => String::from(text),
            _ => String::from("the peer does not answer; see `dwcp peers` and the peer's log"),
        }
    }

    pub(super) fn close_lane(&mut self, lane: LaneId, code: Code, text: &'static str) {
        if let Some(state) = self.lane_mut(lane)
            && !state.closing
        {
            state.closing = true;
            self.outputs.push_back(Output::CloseLane { lane, code, text });
        }
    }

    /// Lets as many lanes carry tasks as the path can use, this worker's part of them; the others stay warm and carry small
    /// frames. Which they are is the order in which they came.
    pub(super) fn rest_lanes(&mut self, peer: PeerId) {
        let asked = self.sends.iter().filter(|(job, _)| job.peer == peer).map(|(_, send)| send.streams).max();
        let Some(state) = self.peers.get(&peer) else { return };
        let (here, everywhere) = (state.lanes.len(), usize::from(state.lanes_everywhere()).max(1));
        let used = match state.enough {
            Some(enough) => {
                let enough = usize::from(enough.max(asked.unwrap_or(0)));
                (enough * here).div_ceil(everywhere).max(1)
            }
            None => here,
        };
        let lanes = state.lanes.clone();
        let is_late = |&id: &LaneId| {
            self.lanes.get(id.0 as usize).is_some_and(|lane| lane.as_ref().is_some_and(|lane| lane.late))
        };
        // A lane that has rested begins with a small window: it is no better than one that is late, but better than none.
        let used = if lanes.iter().take(used).all(is_late) { here } else { used };
        for (rank, id) in lanes.into_iter().enumerate() {
            let Some(lane) = self.lane_mut(id) else { continue };
            lane.resting = rank >= used;
            self.offer(id);
        }
    }

    /// Puts a lane onto its peer's list if it can take a task.
    pub(super) fn offer(&mut self, id: LaneId) {
        let Some(lane) = self.lane_mut(id) else { return };
        if lane.listed || !lane.can_take() {
            return;
        }
        lane.listed = true;
        let peer = lane.peer;
        self.peers.entry(peer).or_default().idle.push_back(id);
    }

    /// Starts the next send of a lane that sends nothing: small frames first, then tasks.
    pub(super) fn send_next(&mut self, id: LaneId) {
        let since = self.now;
        let Some(lane) = self.lane_mut(id) else { return };
        if lane.closing || lane.silent || lane.sending != Sending::Nothing {
            return;
        }
        if !lane.outbox.is_empty() {
            lane.sending = Sending::Outbox;
            self.outputs.push_back(Output::SendOutbox { lane: id });
            return;
        }
        let Some(task) = lane.ready.pop_front() else { return };
        lane.sending = Sending::Task(task);
        lane.used = true;
        let sequence = lane.next_sequence;
        lane.next_sequence += 1;
        lane.unacknowledged.push_back(Owed { sequence, task, since });
        self.send_task(id, task, sequence);
    }

    pub(super) fn sent(&mut self, id: LaneId, bytes: u64) {
        let Some(lane) = self.lane_mut(id) else { return };
        let sending = core::mem::replace(&mut lane.sending, Sending::Nothing);
        if let Sending::Task(task) = sending {
            lane.assigned -= 1;
            let acknowledged = core::mem::replace(&mut lane.acknowledged_early, false);
            self.task_sent(task, bytes);
            if acknowledged {
                self.task_acknowledged(task);
            }
            self.offer(id);
        }
        self.send_next(id);
        // Its buffer may be what lanes to other peers wait for.
        self.pump_all();
    }

    /// The payload of an `Ack` frame: releases tasks and raises the lane's credit.
    pub(super) fn acknowledged(&mut self, id: LaneId, ack: &Ack) {
        let Some(lane) = self.lane_mut(id) else { return };
        let (sent, peer) = (lane.next_sequence, lane.peer);
        for range in ack.ranges() {
            let end = range.start.saturating_add(u64::from(range.count));
            if end > sent {
                return self.close_lane(id, Code::Protocol, "acknowledged what was never sent");
            }
            // Never a loop over what the peer claims: only over what waits. It is sorted.
            let Some(lane) = self.lane_mut(id) else { return };
            let first = lane.unacknowledged.partition_point(|owed| owed.sequence < range.start);
            let last = lane.unacknowledged.partition_point(|owed| owed.sequence < end);
            let covered: Vec<Owed> =
                if first < last { lane.unacknowledged.drain(first..last).collect() } else { Vec::new() };
            for Owed { task, since, .. } in covered {
                self.time_taken(peer, task, since);
                let Some(lane) = self.lane_mut(id) else { return };
                if lane.sending == Sending::Task(task) {
                    // The peer has it all, but the kernel has not yet told us that it let go of the buffer.
                    lane.acknowledged_early = true;
                } else {
                    self.task_acknowledged(task);
                }
            }
        }
        if let Some(lane) = self.lane_mut(id) {
            lane.credit = lane.credit.max(ack.credit);
        }
        self.caught_up(id);
        self.offer(id);
        self.pump(peer);
    }

    /// Notes that a received task is done with. The acknowledgement leaves at the next flush.
    pub(super) fn acknowledge(&mut self, (lane, sequence): (LaneRef, u64)) {
        let id = lane.id;
        let Some(lane) = self.lane_at(lane) else { return };
        lane.granted += 1;
        let granted = lane.granted;
        let ack = lane.ack.get_or_insert_with(|| Ack::new(granted));
        ack.credit = granted;
        if !ack.add(sequence) {
            self.send_ack(id);
            if let Some(lane) = self.lane_mut(id) {
                let ack = lane.ack.insert(Ack::new(granted));
                let fits = ack.add(sequence);
                debug_assert!(fits, "an empty acknowledgement has room");
            }
        }
    }

    pub(super) fn send_ack(&mut self, id: LaneId) {
        let Some(ack) = self.lane_mut(id).and_then(|lane| lane.ack.take()) else { return };
        let mut payload = [0; 512];
        let Ok(length) = ack.encode(&mut payload) else { return };
        self.append_frame(id, FrameKind::Ack, 0, 0, &payload[..length]);
    }

    /// A task is announced: checks order and credit, then finds it a buffer.
    pub(super) fn task_header(&mut self, id: LaneId, header: FrameHeader) {
        let Some(lane) = self.lane_mut(id) else { return };
        if lane.closing {
            return;
        }
        if header.sequence != lane.expected_sequence {
            return self.close_lane(id, Code::Protocol, "sent a task out of order");
        }
        if header.sequence >= lane.granted {
            return self.close_lane(id, Code::Protocol, "sent more tasks than its credit");
        }
        lane.expected_sequence += 1;
        self.heard(id);
        let Some(lane) = self.lane_mut(id) else { return };
        lane.incoming = Incoming::Starving;
        self.starving.push_back(id);
        self.feed_starving();
    }

    pub(super) fn feed_starving(&mut self) {
        while !self.starving.is_empty() {
            let Some(buffer) = self.free_receive.pop() else { return };
            let Some(id) = self.starving.pop_front() else { return };
            match self.lane_mut(id) {
                Some(Lane { closing: false, incoming, .. }) if *incoming == Incoming::Starving => {
                    *incoming = Incoming::Into(buffer);
                    self.outputs.push_back(Output::Receive { lane: id, buffer });
                }
                _ => self.free_receive.push(buffer),
            }
        }
    }

    /// Sends a small frame of an attempt on whatever lane leads to its peer. Where there is none, or where it gets
    /// lost, `liveness` has it said again.
    pub(super) fn send_frame<'a>(
        &mut self,
        (job, attempt): (JobKey, u32),
        kind: FrameKind,
        payload: &impl Encoded<'a>,
    ) {
        let mut bytes = [0; FRAME_HEADER_BYTES + CONTROL_PAYLOAD_MAX];
        let (flags, sequence) = (flags_of(job), u64::from(attempt));
        let Ok(length) = dwcp_abi::wire::frame(kind, flags, job.id, sequence, payload, &mut bytes) else {
            debug_assert!(false, "frames are built from bounded fields");
            return;
        };
        self.send_whole_frame(job.peer, &bytes[..length]);
    }

    pub(super) fn send_whole_frame(&mut self, peer: PeerId, frame: &[u8]) {
        let Some(state) = self.peers.get(&peer) else { return };
        let elsewhere = state.elsewhere.iter().find(|&(_, &lanes)| lanes > 0).map(|(&worker, _)| worker);
        // Where all lanes of this worker stand still, another's carry it.
        let is_heard = || self.any_lane(peer, |lane| !lane.late && !lane.deaf);
        if (elsewhere.is_none() || is_heard()) && self.send_here(peer, frame) {
            return;
        }
        if let Some(worker) = elsewhere {
            self.tell(worker, Tell::Send { peer, frame: frame.to_vec() });
        }
    }

    /// Sends a frame on a lane of this worker. False when there is none: a frame that came from another worker is
    /// lost then, because two workers whose lanes are closing would hand it to each other without end.
    pub(super) fn send_here(&mut self, peer: PeerId, frame: &[u8]) -> bool {
        let Some(state) = self.peers.get(&peer) else { return false };
        let count = state.lanes.len().max(1);
        let turned = (0..count).filter_map(|place| state.lanes.get((place + self.said_again) % count));
        let shortest = turned
            .filter_map(|&id| Some((id, self.lanes.get(id.0 as usize)?.as_ref()?)))
            .filter(|(_, lane)| !lane.closing)
            .min_by_key(|(_, lane)| {
                let busy = usize::from(lane.sending != Sending::Nothing);
                (lane.late || lane.deaf, lane.outbox.len() + busy)
            })
            .map(|(id, _)| id);
        let Some(lane) = shortest else { return false };
        if let Some(state) = self.lane_mut(lane) {
            state.used = true;
        }
        self.append(lane, frame);
        true
    }

    fn append_frame(&mut self, lane: LaneId, kind: FrameKind, flags: u8, job: u64, payload: &[u8]) {
        let header = FrameHeader {
            kind,
            flags,
            length: payload.len() as u32,
            job,
            sequence: 0,
            payload_crc: checksum(payload),
        };
        if let Some(state) = self.lane_mut(lane) {
            state.outbox.extend_from_slice(&header.to_bytes());
        }
        self.append(lane, payload);
    }

    pub(super) fn ping(&mut self, lane: LaneId) {
        self.append_frame(lane, FrameKind::Ping, 0, 0, &0u64.to_le_bytes());
    }

    pub(super) fn pong(&mut self, lane: LaneId, payload: &[u8]) {
        self.append_frame(lane, FrameKind::Pong, 0, 0, payload);
    }

    fn append(&mut self, id: LaneId, bytes: &[u8]) {
        let Some(lane) = self.lane_mut(id) else { return };
        lane.outbox.extend_from_slice(bytes);
        if lane.outbox.len() > OUTBOX_BYTES_MAX {
            return self.close_lane(id, Code::Timeout, "the peer reads none of what it is sent");
        }
        self.send_next(id);
    }

    /// Another worker's lanes changed.
    pub(super) fn lanes_elsewhere(
        &mut self,
        worker: u16,
        (peer, instance): (PeerId, u64),
        lanes: u16,
        lost: bool,
    ) {
        self.peer_instance(peer, instance);
        let state: &mut Peer = self.peers.entry(peer).or_default();
        state.resync |= lost || state.lanes_everywhere() == 0;
        state.elsewhere.insert(worker, lanes);
        self.rest_lanes(peer);
    }
}

/// Processes of a peer that are remembered as gone.
const FORMER_MAX: usize = 16;
