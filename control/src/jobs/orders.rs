//! What an operator wants of a job that has not ended: its end, a rest, to go on. Part of the jobs' state machine; every
//! order is durable before it is answered.
//!
//! A job that rests belongs to no dataplane. One that is under way rests when its dataplane has ended the attempt, which
//! keeps what has arrived; until then it is shown as it was.
use dwcp_api::TransferState;
use tokio::sync::oneshot;

use super::{JobRecord, Jobs, Now, Phase, Then, answer};

/// What became of an order.
pub(crate) enum Order {
    /// Wait for this, then show the job.
    Accepted(oneshot::Receiver<bool>),
    /// It was ordered before, or there is nothing to do.
    Already,
    /// The job is ending, or somebody has cancelled it.
    Late,
    /// No such job is unfinished.
    Unknown,
}

impl Jobs {
    /// Orders a job's end.
    pub(crate) fn cancel(&mut self, id: u64, now: Now) -> Order {
        let Some(live) = self.live.get_mut(&id) else { return Order::Unknown };
        if live.record.is_cancelled || live.phase == Phase::Ending || live.phase == Phase::Creating {
            return Order::Already;
        }
        live.record.is_cancelled = true;
        let (done, heard) = oneshot::channel();
        match live.phase {
            Phase::Waiting | Phase::Pausing(_) | Phase::Paused => {
                self.end(id, TransferState::Cancelled, None, now);
                answer(done, true);
            }
            Phase::Storing | Phase::Submitted | Phase::Creating | Phase::Ending => {
                self.store(id, Then::Cancel(Some(done)));
            }
        }
        Order::Accepted(heard)
    }

    /// Orders a job to rest until it is resumed.
    pub(crate) fn pause(&mut self, id: u64) -> Order {
        let Some(live) = self.live.get_mut(&id) else { return Order::Unknown };
        if live.record.is_cancelled || live.phase == Phase::Ending {
            return Order::Late;
        }
        if live.record.is_paused {
            return Order::Already;
        }
        live.record.is_paused = true;
        if matches!(live.phase, Phase::Waiting | Phase::Pausing(_)) {
            live.begin_rest();
        }
        let (done, heard) = oneshot::channel();
        self.store(id, Then::Pause(Some(done)));
        Order::Accepted(heard)
    }

    /// Lets a job go on that an operator had paused.
    pub(crate) fn resume(&mut self, id: u64) -> Order {
        let Some(live) = self.live.get_mut(&id) else { return Order::Unknown };
        if live.record.is_cancelled || live.phase == Phase::Ending {
            return Order::Late;
        }
        if !live.record.is_paused {
            return Order::Already;
        }
        live.record.is_paused = false;
        if live.phase == Phase::Paused {
            live.phase = Phase::Waiting;
            live.record.state = state_between_attempts(&live.record);
        }
        let (done, heard) = oneshot::channel();
        self.store(id, Then::Resume(Some(done)));
        Order::Accepted(heard)
    }

    /// Tells the dataplane that has the job to end the attempt, if the job is to rest.
    pub(super) fn halt(&mut self, id: u64) {
        let Some(live) = self.live.get_mut(&id) else { return };
        if live.phase == Phase::Submitted && live.record.is_paused {
            live.is_halted = true;
            self.command_pause(id);
        }
    }

    /// The attempt of a job that is to rest has ended.
    pub(super) fn rest(&mut self, id: u64) {
        let Some(live) = self.live.get_mut(&id) else { return };
        live.begin_rest();
        tracing::info!(component = "jobs", job = id, "transfer paused");
        self.store(id, Then::Forget);
    }
}

impl super::Live {
    fn begin_rest(&mut self) {
        self.phase = Phase::Paused;
        self.record.state = TransferState::Paused;
        self.record.error = None;
        self.record.lanes = 0;
        self.held_since = None;
        // Who rests has not failed: the attempts before do not count against those that follow.
        self.excused = self.record.attempt;
    }
}

/// Where a job stands that a control before this one has stored. One that is to rest may still be with a dataplane.
pub(super) fn phase_after_restart(record: &mut JobRecord) -> Phase {
    let is_between = record.attempt == 0 || record.state == TransferState::Interrupted;
    match record.state {
        TransferState::Paused => Phase::Paused,
        _ if record.is_paused && record.attempt == 0 => {
            record.state = TransferState::Paused;
            Phase::Paused
        }
        _ if is_between && !record.is_paused => Phase::Waiting,
        _ => Phase::Submitted,
    }
}

fn state_between_attempts(record: &JobRecord) -> TransferState {
    if record.attempt == 0 { TransferState::Queued } else { TransferState::Interrupted }
}
