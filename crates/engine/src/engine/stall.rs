//! Lanes that others wait for. A connection can stand still while its neighbours go on: one path of several is broken,
//! one worker of the peer is busy, several segments in a row were lost. Its kernel gives it up after half a minute.
//!
//! So a lane gets no more when its oldest task takes longer than is usual towards its peer and a younger one got through.
//! Where nothing else is left to send, its chunks are sent on another lane as well, and whichever comes first counts. One
//! that is far behind is closed; its work goes to the others.
use alloc::vec::Vec;

use dwcp_abi::wire::{CHUNK_BYTES, Code};

use super::{Engine, Owed, Task};
use crate::io::{LaneId, PeerId, TaskId, Time};

/// How long something takes: mean and mean deviation (RFC 6298, section 2).
#[derive(Debug, Default, Clone, Copy)]
pub(super) struct Usual {
    mean: Time,
    deviation: Time,
    seen: u32,
}

/// Tasks that must have been seen before one counts as late.
const SEEN_MIN: u32 = 8;
/// Below this nothing is late: a flush at the receiver takes as long.
const LATE_MIN: Time = 400_000_000;
/// Between an answer and the next question.
const ASK_EVERY: Time = 1_000_000_000;
/// A lane that has not answered for so long is spoken to no more, until it does.
const DEAF_AFTER: Time = 2_000_000_000;
/// A lane is closed when the others have got through what was sent so much later: in times of what counts as late, and at
/// least.
const BEHIND_TIMES: Time = 4;
const BEHIND_MIN: Time = 3_000_000_000;

impl Usual {
    fn add(&mut self, took: Time) {
        if self.seen == 0 {
            (self.mean, self.deviation) = (took, took / 2);
        } else {
            self.deviation = self.deviation - self.deviation / 4 + self.mean.abs_diff(took) / 4;
            self.mean = self.mean - self.mean / 8 + took / 8;
        }
        self.seen = self.seen.saturating_add(1);
    }

    /// What takes longer is late; none = too little is known.
    fn late_after(&self) -> Option<Time> {
        let twice = self.mean.saturating_add(self.deviation.saturating_mul(4)).saturating_mul(2);
        (self.seen >= SEEN_MIN).then(|| twice.max(LATE_MIN))
    }
}

impl Engine {
    /// A task was acknowledged. Small ones say nothing of the others, and neither does what was sent twice: nobody knows
    /// which of the two arrived (RFC 6298, section 3).
    pub(super) fn time_taken(&mut self, peer: PeerId, task: TaskId, since: Time) {
        match self.tasks.get(task.0) {
            Some(Task::Chunk { raced: false, piece, .. }) if piece.length * 2 > u64::from(CHUNK_BYTES) => {}
            _ => return,
        }
        let (now, state) = (self.now, self.peers.entry(peer).or_default());
        state.usual.add(now.saturating_sub(since));
        state.youngest = state.youngest.max(since);
    }

    /// A lane that was late has got something through.
    pub(super) fn caught_up(&mut self, id: LaneId) {
        let Some(lane) = self.lane_mut(id) else { return };
        let peer = lane.peer;
        if core::mem::take(&mut lane.late) {
            self.rest_lanes(peer);
            self.turn_to_carried(peer);
        }
    }

    /// Finds the lanes that stand still.
    pub(super) fn watch_lanes(&mut self) {
        let peers: Vec<PeerId> = self.peers.keys().copied().collect();
        for peer in peers {
            self.ask_lanes(peer);
            let Some(limit) = self.peers.get(&peer).and_then(|state| state.usual.late_after()) else {
                continue;
            };
            let tail = self.has_all_out(peer);
            self.judge_lanes(peer, limit, tail);
            if tail {
                self.race(peer, limit);
            }
        }
    }

    /// What is said beside tasks is acknowledged by nobody. So lanes that were used are asked for an answer while a job lives;
    /// when none comes, what may have got lost is said again on others.
    fn ask_lanes(&mut self, peer: PeerId) {
        let needed = self.jobs_here().any(|job| job.peer == peer);
        let Some(state) = self.peers.get(&peer).filter(|_| needed) else { return };
        let patience = state.usual.late_after().unwrap_or(0).max(DEAF_AFTER);
        let (now, mut lost) = (self.now, false);
        for id in state.lanes.clone() {
            let Some(lane) = self.lane_mut(id).filter(|lane| !lane.silent && !lane.closing) else { continue };
            match lane.asked {
                Some(asked) => {
                    let deaf = now.saturating_sub(asked) > patience;
                    lost |= deaf && !core::mem::replace(&mut lane.deaf, deaf);
                }
                None if !lane.used || now.saturating_sub(lane.answered) < ASK_EVERY => {}
                None => {
                    (lane.asked, lane.used) = (Some(now), false);
                    self.ping(id);
                }
            }
        }
        if let Some(state) = self.peers.get_mut(&peer) {
            state.resync |= lost;
        }
    }

    /// A lane has answered.
    pub(super) fn answered(&mut self, id: LaneId) {
        let now = self.now;
        if let Some(lane) = self.lane_mut(id) {
            (lane.asked, lane.deaf, lane.answered) = (None, false, now);
        }
    }

    /// Whether all there is for a peer is on its lanes.
    fn has_all_out(&mut self, peer: PeerId) -> bool {
        let turns = self.peers.get(&peer).map_or_else(Default::default, |state| state.turns.clone());
        turns.into_iter().all(|job| self.work_of(job).is_none_or(|(_, work)| work.is_empty()))
    }

    fn judge_lanes(&mut self, peer: PeerId, limit: Time, tail: bool) {
        let Some(state) = self.peers.get(&peer) else { return };
        let behind = (limit * BEHIND_TIMES).max(BEHIND_MIN);
        let (now, youngest, lanes, mut changed) = (self.now, state.youngest, state.lanes.clone(), false);
        let tail = tail || lanes.len() == 1;
        for id in lanes {
            let Some(lane) = self.lane_mut(id) else { continue };
            let Some(&Owed { since, .. }) = lane.unacknowledged.front() else { continue };
            let late = now.saturating_sub(since) > limit && (tail || youngest > since);
            changed |= core::mem::replace(&mut lane.late, late) != late;
            if late {
                self.take_back(id);
            }
            if late && youngest.saturating_sub(since) > behind {
                self.close_lane(id, Code::Timeout, "it stood still while other lanes went on");
            }
        }
        if changed {
            self.rest_lanes(peer);
            if !self.has_lanes(peer) {
                self.give_back_carried(peer);
                self.announce_all_work(peer);
            }
        }
    }

    /// What a lane has not begun to send goes to the others.
    fn take_back(&mut self, id: LaneId) {
        let Some(lane) = self.lane_mut(id) else { return };
        let ready = core::mem::take(&mut lane.ready);
        lane.assigned -= ready.len() as u8;
        for task in ready {
            self.return_task(task);
        }
    }

    /// Gives what the late lanes carry to those that have nothing to do, or to the other workers where all are late.
    fn race(&mut self, peer: PeerId, limit: Time) {
        let Some(state) = self.peers.get(&peer) else { return };
        let lanes = state.lanes.clone();
        let able = |engine: &Self, id: LaneId| {
            engine.lanes.get(id.0 as usize).and_then(Option::as_ref).is_some_and(super::Lane::can_take)
        };
        let mut idle = lanes.iter().filter(|&&id| able(self, id)).count();
        if !self.has_lanes(peer) {
            idle = usize::MAX;
        }
        for id in lanes {
            let Some(lane) = self.lane_mut(id).filter(|lane| lane.late) else { continue };
            for Owed { task, since, .. } in lane.unacknowledged.clone() {
                let is_late = self.now.saturating_sub(since) > limit;
                if idle > 0 && is_late && self.race_task(task) {
                    idle -= 1;
                }
            }
        }
    }

    /// Gives a chunk out once more. False when it is no chunk, not wanted any more, or given out already.
    fn race_task(&mut self, task: TaskId) -> bool {
        let Some(&Task::Chunk { job, attempt, piece, raced: false, .. }) = self.tasks.get(task.0) else {
            return false;
        };
        if !self.is_wanted(job, attempt) {
            return false;
        }
        if let Some(Task::Chunk { raced, .. }) = self.tasks.get_mut(task.0) {
            *raced = true;
        }
        if let Some((_, work)) = self.work_of(job) {
            work.raced.push_back(piece);
        }
        self.has_work(job);
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Time = 1_000_000;

    #[test]
    fn what_is_usual_decides_what_is_late() {
        let mut usual = Usual::default();
        for _ in 0..SEEN_MIN {
            assert_eq!(usual.late_after(), None);
            usual.add(300 * MS);
        }
        let steady = usual.late_after().unwrap();
        assert!((600 * MS..1000 * MS).contains(&steady), "{steady}");
        for took in [100, 900, 100, 900, 100, 900] {
            usual.add(took * MS);
        }
        assert!(usual.late_after().unwrap() > 2 * steady, "uneven times make it patient");
        let mut quick = Usual::default();
        (0..100).for_each(|_| quick.add(MS));
        assert_eq!(quick.late_after(), Some(LATE_MIN));
    }
}
