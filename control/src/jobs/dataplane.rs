//! Jobs and the dataplane: attaching, reconciling, events. Everything that comes from there is checked against what
//! is known here; a report that does not fit changes nothing.
use std::collections::{BTreeSet, VecDeque};

use dwcp_abi::link::{
    CancelJob, Command, Event, ForgetJob, JobFinished, JobProgress, JobState, Outcome, PauseJob, Ping,
    Snapshot,
};
use dwcp_api::{Counts, TransferState};

use super::gate::Sign;
use super::{Jobs, Now, Pause, Phase, encode};

/// The dataplane that is attached.
pub(crate) struct Home {
    pub(crate) instance: u64,
    workers: Vec<Worker>,
}

#[derive(Default)]
struct Worker {
    /// Commands that are not in the ring yet.
    commands: VecDeque<Vec<u8>>,
    /// The snapshot that is being taken.
    snapshot: Option<Taking>,
    /// Something was lost: take another snapshot at the next tick. A worker that keeps losing things costs one
    /// snapshot a second.
    is_behind: bool,
}

struct Taking {
    token: u64,
    /// Jobs that the worker must know, less those that it has reported.
    missing: BTreeSet<u64>,
}

/// An event that cannot be: counted, never followed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Strange {
    /// The worker is not the job's home, or does not exist.
    WrongWorker,
    /// Nobody asked for this snapshot.
    UnknownToken,
}

impl Jobs {
    /// A dataplane attached. The same instance as before is asked what it has; what another one had begins anew.
    pub(crate) fn handle_attached(&mut self, instance: u64, workers: u16, now: Now) {
        let workers = (0..workers.max(1)).map(|_| Worker::default()).collect();
        self.home = Some(Home { instance, workers });
        let ids: Vec<u64> = self.live.keys().copied().collect();
        for id in ids {
            let Some(live) = self.live.get(&id) else { continue };
            let is_foreign = live.record.instance != instance;
            if live.phase == Phase::Submitted && is_foreign {
                self.interrupt(id, "the dataplane was started anew", Pause::None, now);
            }
        }
        for worker in 0..self.workers() {
            self.begin_snapshot(worker);
        }
        self.handle_tick(now);
    }

    /// The dataplane went away; its jobs may live on.
    pub(crate) fn handle_detached(&mut self) {
        self.home = None;
        for live in self.live.values_mut().filter(|live| live.phase == Phase::Submitted) {
            live.record.state = TransferState::Interrupted;
            live.record.error =
                Some("no connection to the dataplane: the transfer goes on when it is back".into());
            live.record.lanes = 0;
            live.changed.send_replace(());
        }
    }

    /// What the worker's ring should take next; [`Jobs::handle_command_taken`] removes it.
    pub(crate) fn next_command(&self, worker: usize) -> Option<&[u8]> {
        self.home.as_ref()?.workers.get(worker)?.commands.front().map(Vec::as_slice)
    }

    /// The ring took the command.
    pub(crate) fn handle_command_taken(&mut self, worker: usize) {
        if let Some(worker) = self.worker(worker) {
            worker.commands.pop_front();
        }
    }

    /// Whether anything waits for a ring.
    pub(crate) fn has_commands(&self) -> bool {
        self.home.as_ref().is_some_and(|home| home.workers.iter().any(|worker| !worker.commands.is_empty()))
    }

    /// One event of a worker; lanes are not the jobs' business.
    pub(crate) fn handle_event(&mut self, worker: usize, event: &Event<'_>, now: Now) -> Result<(), Strange> {
        match event {
            Event::Progress(progress) => self.handle_progress(worker, progress, now),
            Event::Finished(finished) => self.handle_finished(worker, finished, now),
            Event::SnapshotEnd(end) => self.handle_snapshot_end(worker, end.token, now),
            Event::RingReset(_) => {
                self.handle_lost_events(worker);
                Ok(())
            }
            Event::Lane(_) | Event::Path(_) | Event::Tunnel(_) | Event::TunnelPeer(_) | Event::Pong(_) => {
                Ok(())
            }
        }
    }

    /// The event ring held something impossible and was emptied: ask for everything again.
    pub(crate) fn handle_lost_events(&mut self, worker: usize) {
        if let Some(worker) = self.worker(worker) {
            worker.is_behind = true;
        }
    }

    /// Takes the snapshots that are due.
    pub(super) fn catch_up(&mut self) {
        for index in 0..self.workers() {
            let is_behind = self.worker(index).is_some_and(|worker| std::mem::take(&mut worker.is_behind));
            if is_behind {
                self.begin_snapshot(index);
            }
        }
    }

    fn handle_progress(&mut self, worker: usize, progress: &JobProgress, now: Now) -> Result<(), Strange> {
        self.note_reported(worker, progress.job)?;
        let Some(live) = self.live.get_mut(&progress.job) else {
            // Given up here, or known to an older store: nobody waits for it.
            self.command(worker, &Command::Cancel(CancelJob { job: progress.job }));
            return Ok(());
        };
        let record = &mut live.record;
        if live.phase != Phase::Submitted || record.attempt != progress.attempt {
            return Ok(());
        }
        record.state = match progress.state {
            JobState::Connecting => TransferState::Connecting,
            JobState::Running => TransferState::Running,
            JobState::Finishing => TransferState::Finishing,
        };
        record.error = None;
        record.is_scanned = progress.scanned;
        record.lanes = progress.lanes;
        record.counts = counts(&progress.counts);
        record.started_ms.get_or_insert(now.unix_ms);
        live.rate.observe(now.uptime, record.counts.bytes_done);
        live.changed.send_replace(());
        if progress.state != JobState::Connecting && progress.lanes > 0 {
            self.handle_sign(progress.job, Sign::Works, now);
        }
        Ok(())
    }

    fn handle_finished(
        &mut self,
        worker: usize,
        finished: &JobFinished<'_>,
        now: Now,
    ) -> Result<(), Strange> {
        self.note_reported(worker, finished.job)?;
        let id = finished.job;
        let Some(live) = self.live.get_mut(&id) else {
            // Its end is stored: the worker did not hear the first Forget.
            self.command(worker, &Command::Forget(ForgetJob { job: id }));
            return Ok(());
        };
        if live.phase != Phase::Submitted || live.record.attempt != finished.attempt {
            return Ok(());
        }
        live.record.counts = counts(&finished.counts);
        live.record.lanes = finished.lanes;
        live.record.changes = finished.changes.into();
        // Short jobs end before their first progress.
        let elapsed_ms = finished.elapsed_ns / 1_000_000;
        live.record.started_ms.get_or_insert(now.unix_ms.saturating_sub(elapsed_ms));
        let text = clean(finished.text);
        let error = Some(text.clone()).filter(|text| !text.is_empty());
        if matches!(finished.outcome, Outcome::Done | Outcome::Partial) {
            self.handle_sign(id, Sign::Works, now);
        }
        match finished.outcome {
            Outcome::Done => self.end(id, TransferState::Done, None, now),
            Outcome::Partial => self.end(id, TransferState::Partial, error, now),
            Outcome::Failed => self.end(id, TransferState::Failed, error, now),
            Outcome::Cancelled => self.end(id, TransferState::Cancelled, error, now),
            // What took no time was refused by our own worker: it has too many jobs, or its plan is not there yet.
            Outcome::Interrupted if finished.elapsed_ns == 0 => {
                self.interrupt(id, &text, Pause::PolicyAlone, now);
            }
            Outcome::Interrupted => self.interrupt(id, &text, Pause::Policy, now),
        }
        Ok(())
    }

    fn handle_snapshot_end(&mut self, worker: usize, token: u64, now: Now) -> Result<(), Strange> {
        let slot = &mut self.worker(worker).ok_or(Strange::WrongWorker)?.snapshot;
        let Some(taken) = slot.take_if(|taking| taking.token == token) else {
            return Err(Strange::UnknownToken);
        };
        for id in taken.missing {
            let Some(live) = self.live.get(&id).filter(|live| live.phase == Phase::Submitted) else {
                continue;
            };
            if live.record.is_cancelled {
                self.end(id, TransferState::Cancelled, None, now);
            } else if live.record.is_paused {
                self.rest(id);
            } else {
                tracing::info!(
                    component = "jobs",
                    job = id,
                    worker,
                    "transfer unknown to its worker, given again"
                );
                self.command_start(id);
            }
        }
        Ok(())
    }

    /// Asks a worker for all it knows. Only jobs given to it before this moment can be missing in its answer.
    fn begin_snapshot(&mut self, worker: usize) {
        self.tokens += 1;
        let (token, count) = (self.tokens, self.workers() as u64);
        let Some(instance) = self.home.as_ref().map(|home| home.instance) else { return };
        let given: Vec<(u64, bool)> = self
            .live
            .iter()
            .filter(|(id, live)| {
                live.phase == Phase::Submitted
                    && live.record.instance == instance
                    && *id % count == worker as u64
            })
            .map(|(id, live)| (*id, live.record.is_cancelled))
            .collect();
        let missing = given.iter().map(|(id, _)| *id).collect();
        let Some(state) = self.worker(worker) else { return };
        state.snapshot = Some(Taking { token, missing });
        self.command(worker, &Command::Snapshot(Snapshot { token }));
        for (job, is_cancelled) in given {
            if is_cancelled {
                self.command_cancel(job);
            } else {
                self.halt(job);
            }
        }
    }

    /// Checks that the worker is the job's home, and crosses the job off its snapshot.
    fn note_reported(&mut self, worker: usize, job: u64) -> Result<(), Strange> {
        if job % self.workers().max(1) as u64 != worker as u64 {
            return Err(Strange::WrongWorker);
        }
        if let Some(taking) = self.worker(worker).and_then(|worker| worker.snapshot.as_mut()) {
            taking.missing.remove(&job);
        }
        Ok(())
    }

    pub(super) fn command_start(&mut self, id: u64) {
        let Some(home) = &self.home else { return };
        let Some(live) = self.live.get(&id).filter(|live| live.record.instance == home.instance) else {
            return;
        };
        match encode::start(&live.record) {
            Ok(bytes) => self.push(self.home_of(id), bytes),
            // Requests that do not fit are refused before they become jobs.
            Err(error) => {
                tracing::error!(component = "jobs", job = id, %error, "transfer does not fit a command")
            }
        }
    }

    pub(super) fn command_cancel(&mut self, id: u64) {
        self.command(self.home_of(id), &Command::Cancel(CancelJob { job: id }));
    }

    pub(super) fn command_pause(&mut self, id: u64) {
        self.command(self.home_of(id), &Command::Pause(PauseJob { job: id }));
    }

    pub(super) fn command_forget(&mut self, id: u64) {
        self.command(self.home_of(id), &Command::Forget(ForgetJob { job: id }));
    }

    /// Lets the dataplane measure a round trip; false where there is none.
    pub(crate) fn command_ping(&mut self, peer: &str, token: u64) -> bool {
        let is_attached = self.workers() > 0;
        self.command(PINGING_WORKER, &Command::Ping(Ping { token, peer: peer.as_bytes() }));
        is_attached
    }

    fn command(&mut self, worker: usize, command: &Command<'_>) {
        match encode::encode(command) {
            Ok(bytes) => self.push(worker, bytes),
            Err(error) => tracing::error!(component = "jobs", %error, "command does not fit the ring"),
        }
    }

    fn push(&mut self, worker: usize, bytes: Vec<u8>) {
        let Some(state) = self.worker(worker) else { return };
        if state.commands.len() < COMMANDS_WAITING_MAX {
            state.commands.push_back(bytes);
            return;
        }
        // A worker that takes nothing: what is dropped here is told again after the next snapshot.
        tracing::warn!(component = "jobs", worker, "worker takes no commands, one dropped");
    }

    fn workers(&self) -> usize {
        self.home.as_ref().map_or(0, |home| home.workers.len())
    }

    fn worker(&mut self, worker: usize) -> Option<&mut Worker> {
        self.home.as_mut()?.workers.get_mut(worker)
    }

    fn home_of(&self, id: u64) -> usize {
        (id % self.workers().max(1) as u64) as usize
    }
}

fn counts(counts: &dwcp_abi::link::Counts) -> Counts {
    Counts {
        entries_done: counts.entries_done,
        entries_total: counts.entries_total,
        bytes_done: counts.bytes_done,
        bytes_total: counts.bytes_total,
        bytes_wire: counts.bytes_wire,
        bytes_resent: counts.bytes_resent,
        bytes_resumed: counts.bytes_resumed,
        failures: counts.failures,
    }
}

/// A text of the other side for people: UTF-8, bounded, without control characters.
pub(crate) fn clean(text: &[u8]) -> String {
    let text = String::from_utf8_lossy(text);
    text.chars().map(|c| if c.is_control() { ' ' } else { c }).take(TEXT_CHARS_MAX).collect()
}

/// Any would do: the tunnels' thread measures.
const PINGING_WORKER: usize = 0;
const TEXT_CHARS_MAX: usize = 1024;
const COMMANDS_WAITING_MAX: usize = 8192;
