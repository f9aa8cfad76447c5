//! Lanes: two streams of bytes between two workers, each with its delay, bandwidth and window, that may fall
//! silent in one direction or die at any byte, which the two ends notice at different times.
use std::rc::Rc;

use dwcp_engine::{LaneEnd, LaneId, PeerId, Time};

use super::node::Lane;
use super::op::Completion;
use super::scenario::MS;
use super::world::{Event, World};

/// A lane as the network knows it.
#[derive(Debug)]
pub(super) struct Connection {
    pub(super) ends: [End; 2],
    pub(super) ways: [Way; 2],
    pub(super) dead: bool,
}

/// One end of a connection.
#[derive(Debug, Clone, Copy)]
pub(super) struct End {
    pub(super) node: usize,
    pub(super) epoch: u32,
    pub(super) worker: usize,
    pub(super) lane: LaneId,
}

/// The direction away from the end of the same number.
#[derive(Debug, Default)]
pub(super) struct Way {
    /// Beyond what all lanes have: frames overtake each other.
    extra_delay: Time,
    busy_until: Time,
    last_arrival: Time,
    /// Sent, and not yet taken by the receiver.
    in_transit: u64,
    waiting: Option<Vec<u8>>,
    /// Nothing arrives after this time.
    cut: Option<Time>,
    swallowed: bool,
}

impl World {
    /// Opens the lanes that a node wants and may have.
    pub(super) fn dial(&mut self, node: usize) {
        if !self.nodes[node].up {
            return;
        }
        for peer in (0..self.nodes.len()).filter(|&peer| peer != node) {
            let id = PeerId(peer as u16);
            let target = self.nodes[node].wanted(id).min(self.scenario.lanes_max);
            let dialling = self.nodes[node].dialling.get(&id).copied().unwrap_or(0);
            let have = self.nodes[node].lanes_with(id) + dialling;
            for _ in 0..target.saturating_sub(have).min(4u16.saturating_sub(dialling)) {
                *self.nodes[node].dialling.entry(id).or_default() += 1;
                let after = 2 * self.scenario.delay + self.rng.below(20 * MS);
                let epoch = self.nodes[node].epoch;
                self.after(after, Event::Dialled { node, epoch, peer });
            }
        }
    }

    pub(super) fn dialled(&mut self, node: usize, peer: usize) {
        let id = PeerId(peer as u16);
        if let Some(dialling) = self.nodes[node].dialling.get_mut(&id) {
            *dialling -= 1;
        }
        let other = PeerId(node as u16);
        let full = self.nodes[peer].lanes_with(other) >= self.scenario.lanes_max;
        let faulty = self.faults_on() && self.rng.chance(self.scenario.dial_failures);
        if !self.nodes[peer].up || full || faulty {
            for worker in 0..self.nodes[node].workers.len() {
                if self.nodes[node].wants.get(&(id, worker as u16)).is_some_and(|&lanes| lanes > 0) {
                    self.complete(node, worker, Completion::DialFailed { peer: id });
                }
            }
            return;
        }
        self.connect(node, peer);
    }

    fn connect(&mut self, node: usize, peer: usize) {
        let connection = self.connections.len();
        let mut ends = [None; 2];
        for (side, (here, there)) in [(node, peer), (peer, node)].into_iter().enumerate() {
            let worker = self.rng.below(self.nodes[here].workers.len() as u64) as usize;
            let lane = Lane {
                connection,
                side,
                peer: PeerId(there as u16),
                announced: false,
                up: false,
                closing: false,
                gone: false,
                sending: None,
                inbox: std::collections::VecDeque::new(),
                task: None,
                buffer: None,
            };
            let lane = self.nodes[here].workers[worker].add_lane(lane);
            ends[side] = Some(End { node: here, epoch: self.nodes[here].epoch, worker, lane });
            let instance = self.nodes[there].instance;
            let after = side as u64 * self.rng.below(2 * self.scenario.delay + MS);
            self.after(after, Event::Up { connection, side, instance });
        }
        if let [Some(first), Some(second)] = ends {
            let extra_delay = self.rng.below(4) * self.rng.below(self.scenario.delay);
            let ways = [(); 2].map(|()| Way { extra_delay, ..Way::default() });
            self.connections.push(Connection { ends: [first, second], ways, dead: false });
        }
    }

    /// An end has finished its handshake.
    pub(super) fn up(&mut self, connection: usize, side: usize, instance: u64) {
        let end = self.connections[connection].ends[side];
        let Some(lane) = self.end_lane(connection, side) else { return };
        lane.announced = true;
        let peer = lane.peer;
        let lane = end.lane;
        let end_kind = if side == 0 { LaneEnd::Dialled } else { LaneEnd::Accepted };
        self.complete(end.node, end.worker, Completion::LaneUp { lane, peer, instance, end: end_kind });
    }

    /// Whether an end's process lives and still has this lane.
    pub(super) fn end_lane(&mut self, connection: usize, side: usize) -> Option<&mut Lane> {
        let end = self.connections[connection].ends[side];
        let node = &mut self.nodes[end.node];
        if !node.up || node.epoch != end.epoch {
            return None;
        }
        let lane = node.workers[end.worker].lane_mut(end.lane)?;
        (lane.connection == connection).then_some(lane)
    }

    /// Starts a send; `Sent` follows when the kernel has it all.
    pub(super) fn transmit(&mut self, connection: usize, side: usize, bytes: Vec<u8>) {
        let way = &mut self.connections[connection].ways[side];
        if way.in_transit > self.scenario.window {
            way.waiting = Some(bytes);
        } else {
            self.push_out(connection, side, bytes);
        }
    }

    fn push_out(&mut self, connection: usize, side: usize, bytes: Vec<u8>) {
        let length = bytes.len() as u64;
        let (now, rate, delay) = (self.now, self.scenario.bytes_per_s, self.scenario.delay);
        let way = &mut self.connections[connection].ways[side];
        let delay = delay + way.extra_delay;
        let start = way.busy_until.max(now);
        let end = start + length * 1_000_000_000 / rate;
        (way.busy_until, way.in_transit) = (end, way.in_transit + length);
        let to_end = self.rng.below(end - now + 1);
        // With the kernel at once, as it leaves, or even after the peer has answered.
        let sent = match self.rng.below(10) {
            0..=4 => to_end,
            5..=7 => self.rng.below(10_000),
            _ => end - now + self.rng.below(6 * delay + 10 * MS),
        };
        self.after(sent, Event::Sent { connection, side });
        let bytes = Rc::new(bytes);
        let mut at = 0;
        while at < bytes.len() {
            let rest = bytes.len() - at;
            let part = if self.rng.chance(700) { rest } else { self.rng.between(1, rest as u64) as usize };
            let time = start + (at + part) as u64 * 1_000_000_000 / rate + delay;
            let way = &mut self.connections[connection].ways[side];
            way.last_arrival = way.last_arrival.max(time);
            let time = way.last_arrival;
            let range = at..at + part;
            self.at(time, Event::Arrive { connection, side, bytes: bytes.clone(), range });
            at += part;
        }
    }

    pub(super) fn sent(&mut self, connection: usize, side: usize) {
        let end = self.connections[connection].ends[side];
        let Some(lane) = self.end_lane(connection, side) else { return };
        let Some((bytes, buffer)) = lane.sending.take() else { return };
        let id = end.lane;
        if let Some(buffer) = buffer {
            self.nodes[end.node].workers[end.worker].busy.remove(&buffer);
        }
        self.complete(end.node, end.worker, Completion::Sent { lane: id, bytes });
    }

    pub(super) fn arrive(&mut self, connection: usize, side: usize, bytes: &[u8]) {
        let now = self.now;
        let way = &mut self.connections[connection].ways[side];
        if way.cut.is_some_and(|cut| now > cut) {
            way.swallowed = true;
            return;
        }
        let end = self.connections[connection].ends[1 - side];
        let Some(lane) = self.end_lane(connection, 1 - side) else { return };
        if lane.closing {
            return;
        }
        lane.inbox.extend(bytes);
        let id = end.lane;
        self.complete(end.node, end.worker, Completion::Arrived { lane: id });
    }

    /// The receiver took bytes out of its window.
    pub(super) fn taken(&mut self, connection: usize, receiver: usize, bytes: u64) {
        let side = 1 - receiver;
        let window = self.scenario.window;
        let way = &mut self.connections[connection].ways[side];
        way.in_transit -= bytes;
        if way.in_transit <= window
            && let Some(waiting) = way.waiting.take()
        {
            self.push_out(connection, side, waiting);
        }
    }

    /// The connection is dead: what is under way is lost from some byte on, and the ends hear of it by and by.
    pub(super) fn kill(&mut self, connection: usize, spread: Time) {
        if std::mem::replace(&mut self.connections[connection].dead, true) {
            return;
        }
        for side in 0..2 {
            let left = self.rng.below(3 * self.scenario.delay + MS);
            let cut = self.now + left;
            let way = &mut self.connections[connection].ways[side];
            way.cut = Some(way.cut.map_or(cut, |former| former.min(cut)));
            let after = self.rng.below(spread + 1);
            self.after(after, Event::Notice { connection, side });
        }
    }

    /// One direction carries nothing any more; the kernel gives up after a while.
    pub(super) fn silence(&mut self, connection: usize, seconds: (u64, u64)) {
        let side = self.rng.below(2) as usize;
        let now = self.now;
        let way = &mut self.connections[connection].ways[side];
        way.cut = Some(way.cut.map_or(now, |former| former.min(now)));
        let after = self.rng.between(seconds.0 * 1000, seconds.1 * 1000) * MS;
        self.after(after, Event::Kill { connection });
    }

    /// An end hears that the connection is dead.
    pub(super) fn notice(&mut self, connection: usize, side: usize) {
        let end = self.connections[connection].ends[side];
        let finishes = self.rng.chance(300);
        let Some(lane) = self.end_lane(connection, side) else { return };
        if lane.closing {
            return;
        }
        if !lane.announced {
            self.nodes[end.node].workers[end.worker].lanes[end.lane.0 as usize] = None;
            return;
        }
        lane.closing = true;
        self.complete(end.node, end.worker, Completion::LaneClosing { lane: end.lane });
        if finishes {
            self.sent(connection, side);
        }
        let after = self.rng.below(100 * MS);
        self.after(after, Event::Down { connection, side });
    }

    /// The last operation of a closing lane has ended.
    pub(super) fn down(&mut self, connection: usize, side: usize) {
        let end = self.connections[connection].ends[side];
        let Some(lane) = self.end_lane(connection, side) else { return };
        let (sending, buffer) = (lane.sending.take(), lane.buffer.take());
        let worker = &mut self.nodes[end.node].workers[end.worker];
        for buffer in sending.and_then(|(_, buffer)| buffer).into_iter().chain(buffer) {
            worker.busy.remove(&buffer);
        }
        self.complete(end.node, end.worker, Completion::LaneDown { lane: end.lane });
    }

    /// The engine closes a lane.
    pub(super) fn close(&mut self, connection: usize, side: usize) {
        let Some(lane) = self.end_lane(connection, side) else { return };
        if lane.closing {
            return;
        }
        lane.closing = true;
        let after = self.rng.below(100 * MS);
        self.after(after, Event::Down { connection, side });
        let spread = 2 * self.scenario.delay + 500 * MS;
        self.kill(connection, spread);
    }
}
