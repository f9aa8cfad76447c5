//! How fast a worker's lanes may send: the kernel's figures of each lane go to the path's control, and its ceiling and
//! the configured one, divided among the lanes, go back into the sockets (SO_MAX_PACING_RATE: TCP paces itself, without
//! rights and without `fq`).
use std::time::Duration;

use dwcp_abi::bpf::Class;
use dwcp_abi::link::CONGESTION_AUTO;
use dwcp_engine::{Congestion, Input, LaneId, PeerId};
use dwcp_sys::socket::{set_congestion_control, set_pacing_rate, set_unsent_bound, tcp_figures};

use super::Worker;
use super::coding::Link;
use crate::door::PeerName;
use crate::paths::Measured;

/// Between two measurements while no lane stands.
const IDLE: Duration = Duration::from_millis(500);

/// What may wait in the socket of a lane of a long path: 10 ms at 100 Mbit/s.
const UNSENT_BYTES: u32 = 128 * 1024;

/// Bytes that count as a sign of life: many more than our own questions, which the kernel of a peer that is deaf takes too.
const ALIVE_BYTES: u64 = 16 * 1024;

/// What was last seen of a lane's connection.
#[derive(Debug, Default, Clone, Copy)]
pub(super) struct Seen {
    arrived_bytes: u64,
    resent_bytes: u64,
    received_bytes: u64,
}

impl Worker {
    /// Measures all lanes and sets their rates.
    pub(super) fn pace(&mut self) {
        let mut peers: Vec<PeerId> = self.lanes.values().map(|lane| lane.peer).collect();
        peers.sort_unstable();
        peers.dedup();
        let spans = peers.into_iter().map(|peer| self.pace_peer(peer)).min();
        self.next_pace = self.now + spans.unwrap_or(IDLE);
    }

    /// Measures the lanes to a peer. Says when to do so again.
    pub(super) fn pace_peer(&mut self, peer: PeerId) -> Duration {
        let (measured, received) = self.measure(peer);
        let moved = self.moved.entry(peer).or_default();
        *moved += measured.delivered_bytes + received;
        if *moved >= ALIVE_BYTES {
            *moved = 0;
            self.engine_input(Input::Alive { peer });
        }
        let mut paths = self.node.paths.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        let advice = paths.report(peer, self.index, &measured, self.now);
        drop(paths);
        let name = self.node.peer_name(peer);
        if let Some(known) = &advice.known {
            self.report.path(&known.figures(&name.0));
        }
        let plan = self.node.plan();
        let configured = [plan.transport.pacing_bytes_per_s, plan.peer_bytes_per_s(&name)];
        let configured = configured.into_iter().filter(|&rate| rate > 0);
        let carried = advice.carried_bytes_per_s.into_iter().chain(configured).min();
        let link = Link { is_long: advice.is_long, bytes_per_s: carried };
        self.links.insert(peer, link);
        let pay = self.node.plan().transport.deltas && link.differences_pay(self.node.worker_count());
        self.engine_input(Input::Deltas { peer, pay });
        if let Some(lanes) = advice.lanes {
            self.engine_input(Input::PathLanes { peer, lanes });
        }
        let ceiling = self.configured_share(&name).into_iter().chain(advice.lane_bytes_per_s).min();
        let lanes: Vec<LaneId> =
            self.lanes.iter().filter(|(_, lane)| lane.peer == peer).map(|(&id, _)| id).collect();
        let is_chosen = self.node.plan().transport.congestion == CONGESTION_AUTO;
        let congestion = is_chosen.then_some(advice.congestion);
        for id in lanes {
            self.pace_lane(id, ceiling);
            self.choose_congestion(id, congestion);
            self.shorten(id, advice.is_long);
        }
        Duration::from_nanos(advice.span_ns)
    }

    /// What a lane's handshake carried is no part of what is measured.
    pub(super) fn see_first(&mut self, id: LaneId) {
        let Some(lane) = self.lanes.get_mut(&id) else { return };
        let figures = self.proactor.fd(lane.socket).and_then(|fd| tcp_figures(&fd).ok());
        lane.seen = figures.map_or(Seen::default(), |figures| Seen {
            arrived_bytes: figures.arrived_bytes(),
            resent_bytes: figures.resent_bytes,
            received_bytes: figures.received_bytes,
        });
    }

    /// What the configuration allows a lane: its part of the node's rate and of the peer's, at most the rate of a bulk
    /// connection.
    fn configured_share(&self, name: &PeerName) -> Option<u64> {
        let plan = self.node.plan();
        let (all, to_peer) = self.keeper(|keeper| (keeper.lanes_of_all(), u32::from(keeper.lanes(name).0)));
        let share =
            |rate: u64, lanes: u32| if rate > 0 { (rate / u64::from(lanes.max(1))).max(1) } else { 0 };
        let total = share(plan.transport.pacing_bytes_per_s, all);
        let peer = share(plan.peer_bytes_per_s(name), to_peer);
        let each = plan.kernel.classes[Class::Bulk as usize].flow_bytes_per_s;
        [total, peer, each].into_iter().filter(|&rate| rate > 0).min()
    }

    /// What its lanes sent, and how many bytes came.
    fn measure(&mut self, peer: PeerId) -> (Measured, u64) {
        let mut received = 0;
        let mut measured =
            Measured { delivered_bytes: 0, resent_bytes: 0, rtt_ns: 0, rtt_min_ns: 0, busy: 0 };
        let (mut weighted, mut weight) = (0u128, 0u128);
        for lane in self.lanes.values_mut().filter(|lane| lane.peer == peer && !lane.closing) {
            let Some(fd) = self.proactor.fd(lane.socket) else { continue };
            // A connection that is gone says nothing; its lane hears of that by its next operation.
            let Ok(figures) = tcp_figures(&fd) else { continue };
            // Where there is a gap, what is acknowledged stands still and then leaps.
            let arrived_bytes = figures.arrived_bytes().max(lane.seen.arrived_bytes);
            let delivered = arrived_bytes - lane.seen.arrived_bytes;
            measured.delivered_bytes += delivered;
            measured.resent_bytes += figures.resent_bytes.saturating_sub(lane.seen.resent_bytes);
            received += figures.received_bytes.saturating_sub(lane.seen.received_bytes);
            lane.seen = Seen {
                arrived_bytes,
                resent_bytes: figures.resent_bytes,
                received_bytes: figures.received_bytes,
            };
            if figures.rtt_min_us != u32::MAX && figures.rtt_min_us > 0 {
                let rtt_min_ns = u64::from(figures.rtt_min_us) * 1000;
                let known = measured.rtt_min_ns;
                measured.rtt_min_ns = if known == 0 { rtt_min_ns } else { known.min(rtt_min_ns) };
            }
            // What a queue pair carries is nothing that its silent connection knows of.
            if (figures.unsent_bytes > 0 || lane.sending.is_some()) && !lane.rdma {
                measured.busy += 1;
                let lane_weight = u128::from(delivered) + 1;
                weighted += u128::from(figures.rtt_us) * 1000 * lane_weight;
                weight += lane_weight;
            }
        }
        measured.rtt_ns = (weighted / weight.max(1)) as u64;
        (measured, received)
    }

    /// A lane is made with bbr (the door); what it is worth is only known later.
    fn choose_congestion(&mut self, id: LaneId, wanted: Option<Congestion>) {
        let (Some(lane), Some(wanted)) = (self.lanes.get_mut(&id), wanted) else { return };
        if std::mem::replace(&mut lane.congestion, wanted) == wanted {
            return;
        }
        let Some(fd) = self.proactor.fd(lane.socket) else { return };
        let name = match wanted {
            Congestion::Bbr => "bbr",
            Congestion::Cubic => "cubic",
        };
        if let Err(error) = set_congestion_control(&fd, name) {
            tracing::debug!(name, %error, "a lane keeps its congestion control");
        }
    }

    /// On a long path little waits in a lane's socket: a small frame soon gets its turn, and at the end of an object no lane
    /// still has two chunks before it while others have none.
    fn shorten(&mut self, id: LaneId, wanted: bool) {
        let Some(lane) = self.lanes.get_mut(&id) else { return };
        if std::mem::replace(&mut lane.short, wanted) == wanted {
            return;
        }
        let Some(fd) = self.proactor.fd(lane.socket) else { return };
        if let Err(error) = set_unsent_bound(&fd, wanted.then_some(UNSENT_BYTES)) {
            tracing::debug!(%error, "a lane keeps its send buffer");
        }
    }

    fn pace_lane(&mut self, id: LaneId, ceiling: Option<u64>) {
        let Some(lane) = self.lanes.get_mut(&id) else { return };
        if lane.pacing == ceiling {
            return;
        }
        let Some(fd) = self.proactor.fd(lane.socket) else { return };
        if let Err(error) = set_pacing_rate(&fd, ceiling) {
            tracing::warn!(%error, "a lane cannot be paced");
        }
        lane.pacing = ceiling;
    }
}
