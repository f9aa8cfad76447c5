//! Every job that has not ended: a state machine over requests, events of the dataplane, what the store has made
//! durable, and time. The app calls it under one lock and carries out its effects; it opens and writes nothing.
//!
//! ```text
//! created ─► (durable) ─► Waiting ─► Storing the attempt ─► Submitted ──Finished──► Ending ─► (durable) ─► Forget
//!                            ▲                                  │ Interrupted, or the dataplane was started anew
//!                            └────────── Pausing ◄──────────────┘
//! ```
//!
//! What waits may start when the circuit breakers of node and peer let it ([`gate`]). What an operator stops or holds:
//! [`orders`].
mod dataplane;
mod encode;
mod gate;
mod orders;
mod rate;
mod record;

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use dwcp_api::TransferState;
use dwcp_policy::{RetryDecision, RetryPolicy};
use tokio::sync::{oneshot, watch};

pub(crate) use dataplane::{Home, clean};
pub(crate) use encode::{fits_the_ring, join_filters, join_paths, transfer_options, tree_options};
use gate::Sign;
pub(crate) use gate::{BreakerFigures, Gate};
pub(crate) use orders::Order;
pub(crate) use rate::RateMeter;
pub(crate) use record::{JobRecord, JobRequest, Pace};

/// Two clocks: one that only grows, one that people read.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Now {
    /// Since control started.
    pub(crate) uptime: Duration,
    /// Since 1970.
    pub(crate) unix_ms: u64,
}

/// What the app must do: write `record`, then say so with [`Jobs::handle_stored`].
pub(crate) struct Effect {
    pub(crate) record: JobRecord,
    pub(crate) then: Then,
}

/// What follows when a record is durable.
pub(crate) enum Then {
    /// Answer the request that made the job, and submit it where its first attempt is decided.
    Created(oneshot::Sender<bool>),
    /// Give the attempt to the dataplane.
    Submit,
    /// Tell the dataplane to stop the job, and answer the request.
    Cancel(Option<oneshot::Sender<bool>>),
    /// Tell the dataplane to end the attempt, and answer the request.
    Pause(Option<oneshot::Sender<bool>>),
    /// Let the job go on, and answer the request.
    Resume(Option<oneshot::Sender<bool>>),
    /// Let the dataplane forget the attempt; the job goes on later.
    Forget,
    /// Let the dataplane forget the job, and forget it here.
    End,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    /// Not durable yet.
    Creating,
    /// For a dataplane, and for the circuit breakers.
    Waiting,
    /// The attempt is decided but not durable.
    Storing,
    /// The dataplane of `record.instance` has it, as far as is known.
    Submitted,
    /// Until the next attempt.
    Pausing(Duration),
    /// Until an operator resumes it.
    Paused,
    /// The end is decided but not durable.
    Ending,
}

struct Live {
    record: JobRecord,
    phase: Phase,
    rate: RateMeter,
    changed: watch::Sender<()>,
    /// What has to be written again because the store did not take it.
    unstored: Option<Then>,
    /// The current attempt has moved bytes, or ended well.
    is_proven: bool,
    /// Attempts that do not count against the job: its peer's breaker was not closed.
    excused: u32,
    /// Since when a breaker holds it back.
    held_since: Option<Duration>,
    /// Its dataplane was told to end this attempt: that it ends says nothing about job or peer.
    is_halted: bool,
}

/// All unfinished jobs.
pub(crate) struct Jobs {
    live: BTreeMap<u64, Live>,
    next_id: u64,
    home: Option<Home>,
    effects: VecDeque<Effect>,
    retry: RetryPolicy,
    tokens: u64,
    /// The circuit breakers.
    pub(crate) gate: Gate,
    is_draining: bool,
}

impl Jobs {
    /// With what the store knew. Attempts that were under way are settled when a dataplane attaches.
    pub(crate) fn new(recovered: crate::store::Recovered, config: &dwcp_config::Config) -> Self {
        let retry = RetryPolicy::default();
        let mut live = BTreeMap::new();
        for mut record in recovered.unfinished {
            let phase = orders::phase_after_restart(&mut record);
            record.lanes = 0;
            let mut job = Live::new(record, phase);
            // Which attempts were excused is not stored: whatever happened, one more is made.
            job.excused = job.record.attempt.saturating_sub(retry.attempts_max - 1);
            live.insert(job.record.id, job);
        }
        let mut gate = Gate::new(gate::limits(config));
        gate.handle_config(config);
        let effects = VecDeque::new();
        Self {
            live,
            next_id: recovered.next_id,
            home: None,
            effects,
            retry,
            tokens: 0,
            gate,
            is_draining: false,
        }
    }

    /// Number of unfinished jobs.
    pub(crate) fn active(&self) -> usize {
        self.live.len()
    }

    /// Number of jobs that a dataplane has or is about to get.
    pub(crate) fn under_way(&self) -> usize {
        let has = |live: &&Live| matches!(live.phase, Phase::Storing | Phase::Submitted | Phase::Ending);
        self.live.values().filter(has).count()
    }

    /// Whether no job is started.
    pub(crate) fn is_draining(&self) -> bool {
        self.is_draining
    }

    /// Starts no job from now on, or starts again what waited.
    pub(crate) fn set_draining(&mut self, is_draining: bool, now: Now) {
        self.is_draining = is_draining;
        self.submit_waiting(now);
    }

    /// The unfinished job that was ordered under this key.
    pub(crate) fn find_key(&self, key: &str) -> Option<JobRecord> {
        let has = |live: &&Live| live.record.key.as_deref() == Some(key);
        self.live.values().find(has).map(|live| live.record.clone())
    }

    /// Number of unfinished jobs whose end cannot be stored at the moment, or whose start cannot.
    pub(crate) fn unstored(&self) -> usize {
        self.live.values().filter(|live| live.unstored.is_some()).count()
    }

    /// The next thing to do.
    pub(crate) fn poll_effect(&mut self) -> Option<Effect> {
        self.effects.pop_front()
    }

    /// One unfinished job.
    pub(crate) fn show(&self, id: u64) -> Option<(JobRecord, Pace)> {
        self.live.get(&id).filter(|live| live.phase != Phase::Creating).map(Live::show)
    }

    /// Unfinished jobs, newest first.
    pub(crate) fn list(&self) -> impl Iterator<Item = (JobRecord, Pace)> {
        self.live.values().rev().filter(|live| live.phase != Phase::Creating).map(Live::show)
    }

    /// Changes whenever the job does; closed when it has ended and its end is durable.
    pub(crate) fn watch(&self, id: u64) -> Option<watch::Receiver<()>> {
        self.live.get(&id).map(|live| live.changed.subscribe())
    }

    /// Takes a job that was admitted. The receiver hears when it is durable.
    pub(crate) fn create(
        &mut self,
        request: Arc<JobRequest>,
        key: Option<String>,
        now: Now,
    ) -> (u64, oneshot::Receiver<bool>) {
        let id = self.next_id;
        self.next_id += 1;
        let mut record = JobRecord::new(id, request, now.unix_ms);
        record.key = key;
        let starts = self.would_start(&record.request.peer, now);
        if let Some(home) = self.home.as_ref().filter(|_| starts) {
            // One write makes the job and its first attempt durable.
            (record.attempt, record.instance) = (1, home.instance);
        }
        let (done, heard) = oneshot::channel();
        self.live.insert(id, Live::new(record, Phase::Creating));
        self.store(id, Then::Created(done));
        (id, heard)
    }

    /// Once a second: due retries, and writes that the store refused.
    pub(crate) fn handle_tick(&mut self, now: Now) {
        let due = |live: &Live| matches!(live.phase, Phase::Pausing(until) if until <= now.uptime);
        let ids: Vec<u64> = self.live.iter().filter(|(_, live)| due(live)).map(|(id, _)| *id).collect();
        for id in ids {
            self.set_phase(id, Phase::Waiting);
        }
        self.give_up_held(now);
        self.submit_waiting(now);
        self.gate.say_changes(now);
        self.catch_up();
        let unstored: Vec<(u64, Then)> = self
            .live
            .iter_mut()
            .filter_map(|(id, live)| live.unstored.take().map(|then| (*id, then)))
            .collect();
        for (id, then) in unstored {
            self.store(id, then);
        }
    }

    /// The store has written, or refused, what an effect asked for.
    pub(crate) fn handle_stored(&mut self, id: u64, then: Then, is_durable: bool, now: Now) {
        if !is_durable {
            return self.handle_refused(id, then);
        }
        match then {
            Then::Created(done) => {
                answer(done, true);
                let is_decided = self.live.get(&id).is_some_and(|live| live.record.attempt > 0);
                if is_decided {
                    self.hand_over(id);
                } else {
                    self.set_phase(id, Phase::Waiting);
                    self.submit_waiting(now);
                }
            }
            Then::Submit => self.hand_over(id),
            Then::Cancel(done) => {
                if let Some(done) = done {
                    answer(done, true);
                }
                if self.live.get(&id).is_some_and(|live| live.phase == Phase::Submitted) {
                    self.command_cancel(id);
                }
            }
            Then::Pause(done) => {
                if let Some(done) = done {
                    answer(done, true);
                }
                self.halt(id);
            }
            Then::Resume(done) => {
                if let Some(done) = done {
                    answer(done, true);
                }
                self.submit_waiting(now);
            }
            Then::Forget => self.command_forget(id),
            Then::End => {
                self.live.remove(&id);
                self.command_forget(id);
            }
        }
    }

    fn handle_refused(&mut self, id: u64, then: Then) {
        match then {
            Then::Created(done) => {
                self.live.remove(&id);
                answer(done, false);
            }
            Then::Cancel(Some(done)) => {
                answer(done, false);
                self.remember_unstored(id, Then::Cancel(None));
            }
            Then::Pause(Some(done)) => {
                answer(done, false);
                self.remember_unstored(id, Then::Pause(None));
            }
            Then::Resume(Some(done)) => {
                answer(done, false);
                self.remember_unstored(id, Then::Resume(None));
            }
            other => self.remember_unstored(id, other),
        }
    }

    fn remember_unstored(&mut self, id: u64, then: Then) {
        if let Some(live) = self.live.get_mut(&id) {
            live.unstored = Some(then);
        }
    }

    fn set_phase(&mut self, id: u64, phase: Phase) {
        if let Some(live) = self.live.get_mut(&id) {
            live.phase = phase;
            live.changed.send_replace(());
        }
    }

    fn store(&mut self, id: u64, then: Then) {
        let Some(live) = self.live.get_mut(&id) else { return };
        live.changed.send_replace(());
        let record = live.record.clone();
        self.effects.push_back(Effect { record, then });
    }

    /// Decides the next attempt of every job that waits and may start, where there is a dataplane.
    fn submit_waiting(&mut self, now: Now) {
        let Some(home) = &self.home else { return };
        let instance = home.instance;
        for id in self.take_permitted(now) {
            let Some(live) = self.live.get_mut(&id) else { continue };
            let was_tried = live.record.attempt > 0;
            live.begin_attempt(instance);
            if was_tried {
                // The attempt before may have been stored by a control that died before it said so.
                self.command_forget(id);
            }
            self.store(id, Then::Submit);
        }
    }

    /// The attempt is durable: the dataplane may have it. Where that dataplane is gone by now, the next one that
    /// attaches settles it.
    fn hand_over(&mut self, id: u64) {
        self.set_phase(id, Phase::Submitted);
        self.command_start(id);
        if self.live.get(&id).is_some_and(|live| live.record.is_cancelled) {
            self.command_cancel(id);
        }
        self.halt(id);
    }

    /// The attempt came to nothing: another one follows after a pause, or the job has failed.
    fn interrupt(&mut self, id: u64, reason: &str, first: Pause, now: Now) {
        let Some(live) = self.live.get_mut(&id) else { return };
        if live.record.is_cancelled {
            return self.end(id, TransferState::Cancelled, None, now);
        }
        if live.record.is_paused {
            return self.rest(id);
        }
        let first = if live.is_halted { Pause::None } else { first };
        let attempt = live.record.attempt;
        if first == Pause::Policy {
            self.handle_sign(id, Sign::Fails, now);
            let is_held_back = self.is_held_back(id, now);
            if let Some(live) = self.live.get_mut(&id).filter(|_| is_held_back) {
                // It is the peer that fails, not the job: the job waits for it.
                live.excused = live.excused.saturating_add(1).min(attempt);
            }
        }
        let Some(live) = self.live.get_mut(&id) else { return };
        let counted = attempt.saturating_sub(live.excused).max(1);
        match self.retry.decide(counted, now.uptime) {
            RetryDecision::GiveUp => {
                let text = format!("given up after {attempt} attempts; the last one: {reason}");
                self.end(id, TransferState::Failed, Some(text), now);
            }
            RetryDecision::At(until) => {
                live.record.state = TransferState::Interrupted;
                live.record.error = Some(reason.to_owned());
                live.record.lanes = 0;
                let until = if first == Pause::None { now.uptime } else { until };
                live.phase = Phase::Pausing(until);
                let pause_ms = until.saturating_sub(now.uptime).as_millis() as u64;
                tracing::warn!(
                    component = "jobs",
                    job = id,
                    attempt,
                    pause_ms,
                    reason,
                    "transfer interrupted, retrying"
                );
                self.store(id, Then::Forget);
            }
        }
    }

    fn end(&mut self, id: u64, state: TransferState, error: Option<String>, now: Now) {
        let Some(live) = self.live.get_mut(&id) else { return };
        let record = &mut live.record;
        record.state = state;
        record.error = error;
        record.finished_ms = Some(now.unix_ms.max(record.created_ms));
        live.phase = Phase::Ending;
        let (peer, bytes, error) =
            (record.request.peer.as_str(), record.counts.bytes_done, record.error.as_deref());
        tracing::info!(
            component = "jobs",
            job = id,
            state = state.name(),
            peer,
            bytes,
            error,
            "transfer ended"
        );
        self.store(id, Then::End);
    }
}

fn answer(done: oneshot::Sender<bool>, is_durable: bool) {
    // A requester that went away does not need its answer.
    let _ = done.send(is_durable);
}

/// Whether an interrupted job waits before its next attempt.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Pause {
    /// The cause is gone already.
    None,
    /// As the policy says.
    Policy,
    /// The same, and it says nothing about the peer: this node's dataplane did not take it.
    PolicyAlone,
}

impl Live {
    fn new(record: JobRecord, phase: Phase) -> Self {
        Self {
            record,
            phase,
            rate: RateMeter::new(RATE_WINDOW),
            changed: watch::Sender::new(()),
            unstored: None,
            is_proven: false,
            excused: 0,
            held_since: None,
            is_halted: false,
        }
    }

    fn show(&self) -> (JobRecord, Pace) {
        let rate = self.rate.per_second().unwrap_or(0.0);
        let mut record = self.record.clone();
        if self.phase == Phase::Ending {
            // An end that is not durable may still be taken back by a crash: nobody is told of it.
            (record.state, record.error, record.finished_ms) = (TransferState::Finishing, None, None);
        }
        (record, Pace { rate_bytes_per_s: rate as u64 })
    }

    fn begin_attempt(&mut self, instance: u64) {
        let record = &mut self.record;
        record.attempt = record.attempt.saturating_add(1);
        record.instance = instance;
        record.state = TransferState::Queued;
        record.counts = dwcp_api::Counts::default();
        record.is_scanned = false;
        self.is_proven = false;
        self.is_halted = false;
        self.rate = RateMeter::new(RATE_WINDOW);
        self.phase = Phase::Storing;
    }
}

const RATE_WINDOW: Duration = Duration::from_secs(4);

#[cfg(test)]
mod tests;
