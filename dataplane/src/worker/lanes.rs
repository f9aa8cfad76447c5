//! Lanes of a worker: from the door to the last completion.
use std::collections::VecDeque;
use std::time::Duration;

use dwcp_abi::shm::WorkerCounter as Counter;
use dwcp_abi::wire::{Code, checksum};
use dwcp_engine::{Congestion, Input, LaneEnd, LaneId};
use dwcp_sys::proactor::Handle;
use dwcp_sys::socket::{Keepalive, set_keepalive, set_user_timeout};

use super::Worker;
use super::lane::{Keys, Lane, Reception};
use super::pace::Seen;
use super::receive::CIPHER;
use crate::door::{Direction, LaneReady};
use crate::record::{Opener, Sealer};

/// A lane without any traffic, while its peer wants none, is closed after this.
const IDLE_MAX: Duration = Duration::from_secs(60);
/// The same for a lane in whose place there could be a better one.
const IDLE_SUBSTITUTE: Duration = Duration::from_secs(1);
/// Sent bytes that nobody acknowledges for so long mean that the connection is dead (RFC 5482).
const CONNECTION_DEAD: Duration = Duration::from_secs(25);

impl Worker {
    /// A lane from the door.
    pub(super) fn lane_ready(&mut self, ready: LaneReady) {
        let peer_name = ready.peer.clone();
        let keys = match ready.secrets.as_ref().map(keys).transpose() {
            Ok(keys) => keys,
            Err(error) => {
                tracing::error!(%error, "a lane's keys are unusable");
                return self.keeper(|keeper| keeper.down(&peer_name));
            }
        };
        let Some((id, inbound, outbound)) = self.place_for_lane() else {
            tracing::warn!(peer = %shown(&peer_name.0), "no room for another lane: see transport.max_streams");
            return self.keeper(|keeper| keeper.down(&peer_name));
        };
        let rdma = ready.pair.is_some();
        let added = match ready.pair {
            Some(pair) => self.proactor.add_pair(ready.fd, pair),
            None => self.proactor.add(ready.fd),
        };
        let socket = match added {
            Ok(socket) => socket,
            Err(error) => {
                if rdma {
                    let why = format!("a worker cannot use the queue pair: {error}");
                    self.node.rdma.broke(&peer_name, &why, self.now);
                }
                tracing::error!(%error, "a lane's socket was refused");
                self.free_lanes.push(id);
                self.free_small.extend([inbound, outbound]);
                return self.keeper(|keeper| keeper.down(&peer_name));
            }
        };
        self.watch_connection(socket);
        let peer = self.node.peer_id(&ready.peer);
        let encrypted = keys.is_some();
        let lane = Lane {
            peer,
            peer_crc: checksum(&peer_name.0),
            socket,
            inbound,
            outbound,
            keys,
            reception: Reception::Header { have: 0 },
            receiving: false,
            sending: None,
            waiting: VecDeque::new(),
            closing: false,
            last_received: self.now,
            last_used: self.now,
            why: String::new(),
            pacing: None,
            short: false,
            congestion: Congestion::Bbr,
            seen: Seen::default(),
            rdma,
        };
        self.lanes.insert(id, lane);
        self.figures.add(Counter::LanesOpened, 1);
        let end = match ready.direction {
            Direction::Dialled => LaneEnd::Dialled,
            Direction::Accepted => LaneEnd::Accepted,
        };
        self.engine_input(Input::LaneUp { lane: id, peer, instance: ready.instance, end });
        self.receive_more(id);
        self.see_first(id);
        // How long the path is, and so how many lanes it wants, is known from the handshake on.
        let span = self.pace_peer(peer);
        self.next_pace = self.next_pace.min(self.now + span);
        let lanes = self.lanes_of(peer);
        self.report.lane(&peer_name.0, true, lanes, encrypted, "");
        tracing::debug!(peer = %shown(&peer_name.0), lane = id.0, remote = %ready.remote, encrypted, rdma, "lane up");
    }

    /// Lets the kernel notice a peer that is gone without a word.
    fn watch_connection(&self, socket: Handle) {
        let Some(fd) = self.proactor.fd(socket) else { return };
        let keepalive =
            Keepalive { idle: Duration::from_secs(10), interval: Duration::from_secs(5), probes: 3 };
        let set = set_keepalive(&fd, keepalive).and_then(|()| set_user_timeout(&fd, CONNECTION_DEAD));
        if let Err(error) = set {
            tracing::debug!(%error, "a lane's connection is not watched by the kernel");
        }
    }

    fn place_for_lane(
        &mut self,
    ) -> Option<(LaneId, dwcp_sys::proactor::BufferId, dwcp_sys::proactor::BufferId)> {
        if self.lanes.len() >= usize::from(self.lanes_max) || self.free_small.len() < 2 {
            return None;
        }
        Some((self.free_lanes.pop()?, self.free_small.pop()?, self.free_small.pop()?))
    }

    fn lanes_of(&self, peer: dwcp_engine::PeerId) -> u16 {
        self.lanes.values().filter(|lane| lane.peer == peer && !lane.closing).count() as u16
    }

    /// Ends a lane: nothing more is sent or received, and the engine hears of it when the last operation is over.
    pub(super) fn lose_lane(&mut self, id: LaneId, code: Code, why: &str) {
        let Some(lane) = self.lanes.get_mut(&id) else { return };
        if !lane.closing {
            lane.closing = true;
            lane.why.push_str(why);
            let (socket, peer, rdma) = (lane.socket, lane.peer, lane.rdma);
            if code != Code::Ok {
                self.figures.add(Counter::LanesLost, 1);
                tracing::warn!(lane = id.0, code = ?code, why, rdma, "lane lost");
            }
            if rdma {
                self.judge_pair(socket, peer, code, why);
            }
            self.proactor.remove(socket);
            self.engine_input(Input::LaneClosing { lane: id });
        }
        self.finish_closing(id);
    }

    /// A lane over a queue pair ends: what that says of RDMA towards its peer.
    fn judge_pair(&mut self, socket: Handle, peer: dwcp_engine::PeerId, code: Code, why: &str) {
        let name = self.node.peer_name(peer);
        match self.proactor.pair_trouble(socket) {
            Some(trouble) => self.node.rdma.broke(&name, trouble, self.now),
            None if code == Code::Ok => return self.node.rdma.worked(&name),
            // The peer went, and its connection with it.
            None if code == Code::Io => return,
            None => self.node.rdma.broke(&name, why, self.now),
        }
        self.figures.add(Counter::RdmaLanesLost, 1);
    }

    /// Lets go of a closing lane once no operation of it is under way.
    pub(super) fn finish_closing(&mut self, id: LaneId) {
        if !self.lanes.get(&id).is_some_and(|lane| lane.closing && lane.is_quiet()) {
            return;
        }
        let Some(lane) = self.lanes.remove(&id) else { return };
        self.timing.forget_lane(id);
        self.free_small.extend([lane.inbound, lane.outbound]);
        self.free_lanes.push(id);
        self.starved.retain(|&starved| starved != id);
        let name = self.node.peer_name(lane.peer);
        self.keeper(|keeper| keeper.down(&name));
        let lanes = self.lanes_of(lane.peer);
        self.report.lane(&name.0, false, lanes, lane.keys.is_some(), &lane.why);
        self.engine_input(Input::LaneDown { lane: id });
    }

    /// Closes lanes that owe us bytes, take none, or have had nothing to do for long.
    pub(super) fn watch_lanes(&mut self) {
        self.follow_plan();
        let plan = self.node.plan();
        let read_timeout = Duration::from_millis(u64::from(plan.transport.read_timeout_ms));
        let write_timeout = Duration::from_millis(u64::from(plan.transport.write_timeout_ms));
        let mut late = Vec::new();
        for (&id, lane) in self.lanes.iter().filter(|(_, lane)| !lane.closing) {
            let since = |instant| self.now.saturating_duration_since(instant);
            if !plan.peers.iter().any(|peer| self.node.peer_id(&peer.name) == lane.peer) {
                late.push((id, Code::Forbidden, "the peer is not in the plan any more"));
            } else if lane.is_owed() && since(lane.last_received) > read_timeout {
                late.push((id, Code::Timeout, "the peer stopped in the middle of a frame"));
            } else if lane.sending.is_some_and(|sending| since(sending.since) > write_timeout) {
                late.push((id, Code::Timeout, "the peer takes no bytes"));
            } else if since(lane.last_used) > self.idle_max(lane) && lane.sending.is_none() {
                late.push((id, Code::Ok, "nothing to do"));
            }
        }
        for (id, code, why) in late {
            if code == Code::Ok && self.engine.jobs() > 0 {
                continue;
            }
            self.lose_lane(id, code, why);
        }
    }

    /// A lane that is a TCP connection only because RDMA failed does not stay longer than it must.
    fn idle_max(&self, lane: &Lane) -> Duration {
        let is_substitute = !lane.rdma
            && self.now.saturating_duration_since(lane.last_used) > IDLE_SUBSTITUTE
            && self.node.rdma.is_due(&self.node.peer_name(lane.peer), self.now);
        if is_substitute { IDLE_SUBSTITUTE } else { IDLE_MAX }
    }

    pub(super) fn close_all_lanes(&mut self) {
        let lanes: Vec<LaneId> = self.lanes.keys().copied().collect();
        for id in lanes {
            self.lose_lane(id, Code::Ok, "the dataplane stops");
        }
    }

    pub(super) fn keeper<T>(&self, act: impl FnOnce(&mut crate::keeper::Keeper) -> T) -> T {
        act(&mut self.node.keeper.lock().unwrap_or_else(std::sync::PoisonError::into_inner))
    }
}

fn keys(secrets: &crate::record::LaneSecrets) -> Result<Keys, crate::record::RecordError> {
    let (sealer, opener) = (Sealer::new(&secrets.send)?, Opener::new(&secrets.receive)?);
    Ok(Keys { sealer, opener, start: CIPHER, end: CIPHER, spill: Vec::new(), taken: 0 })
}

/// A name for the log.
pub(super) fn shown(name: &[u8]) -> std::borrow::Cow<'_, str> {
    String::from_utf8_lossy(name)
}
