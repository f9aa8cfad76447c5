//! A worker and control: commands in, events and figures out, all through shared memory that control may have filled
//! with anything. Ends of jobs are kept until control has stored them; progress may be dropped.
use std::collections::{BTreeMap, VecDeque};
use std::os::fd::{AsFd, OwnedFd};

use dwcp_abi::codec::Encoded;
use dwcp_abi::link::{
    Command, Counts, Event, FetchJob, JobFinished, JobProgress, JobState, LaneChange, Outcome, PathFigures,
    Ping, Pong, RingReset, SendJob, SnapshotEnd, strings,
};
use dwcp_abi::shm::{Consumer, Producer, PushError, RECORD_BYTES_MAX};
use dwcp_abi::shm::{TraceFigures, TracesWriter, WorkerCounter as Counter, WorkerFigures, WorkerStatsWriter};
use dwcp_abi::wire::JOB_CHANGES_BYTES_MAX;
use dwcp_engine::{Input, JobKey, Owner};
use dwcp_sys::doorbell::Doorbell;
use dwcp_sys::link::WorkerLink;
use dwcp_sys::proactor::Proactor;
use dwcp_sys::shm::Part;

use super::{LocalJob, Token, Worker, WorkerError};
use crate::door::PeerName;
use crate::tunnel::Message;

/// A worker's ends of the link.
pub(super) struct Report {
    commands: Consumer<Part>,
    events: Producer<Part>,
    stats: WorkerStatsWriter<Part>,
    traces: TracesWriter<Part>,
    command_doorbell: OwnedFd,
    event_doorbell: Doorbell,
    must_ring: bool,
    record: Vec<u8>,
    /// Events that must not be lost and found no room.
    waiting: VecDeque<Vec<u8>>,
    /// Ends of jobs that control has not stored yet.
    finished: BTreeMap<u64, Vec<u8>>,
    /// Where running jobs are.
    running: BTreeMap<u64, JobProgress>,
    dropped: u64,
    resets: u64,
    /// The command ring was emptied since the last chores.
    pub(super) damaged: bool,
}

/// Commands of one turn.
const COMMAND_BATCH: usize = 64;
/// Events that may wait for room before lane changes are dropped.
const WAITING_MAX: usize = 1024;

impl Report {
    pub(super) fn new(link: &WorkerLink) -> Result<Self, WorkerError> {
        let clone = |doorbell: &Doorbell| doorbell.as_fd().try_clone_to_owned();
        let event_doorbell = Doorbell::open(clone(&link.event_doorbell)?)
            .map_err(|error| std::io::Error::other(error.to_string()))?;
        Ok(Self {
            commands: link.region.command_consumer()?,
            events: link.region.event_producer()?,
            stats: link.region.stats_writer(),
            traces: link.region.traces_writer(),
            command_doorbell: clone(&link.command_doorbell)?,
            event_doorbell,
            must_ring: false,
            record: vec![0; RECORD_BYTES_MAX],
            waiting: VecDeque::new(),
            finished: BTreeMap::new(),
            running: BTreeMap::new(),
            dropped: 0,
            resets: 0,
            damaged: false,
        })
    }

    /// Lets the proactor hear control's doorbell.
    pub(super) fn listen(&self, proactor: &mut Proactor) -> Result<(), WorkerError> {
        Ok(proactor.doorbell(self.command_doorbell.try_clone()?, Token::Command.pack())?)
    }

    pub(super) fn may_sleep(&mut self) -> bool {
        self.commands.prepare_sleep()
    }

    pub(super) fn wake(&mut self) {
        self.commands.wake();
    }

    pub(super) fn publish(&mut self, figures: &WorkerFigures) {
        self.stats.publish(figures);
        self.retry();
    }

    pub(super) fn show_traces(&mut self, traces: &TraceFigures) {
        self.traces.publish(traces);
    }

    /// Rings control's doorbell if anything was said while it slept.
    pub(super) fn ring(&mut self) {
        if std::mem::take(&mut self.must_ring)
            && let Err(error) = self.event_doorbell.ring()
        {
            tracing::warn!(%error, "control cannot be woken");
        }
    }

    pub(super) fn progress(
        &mut self,
        job: u64,
        attempt: u32,
        state: JobState,
        scanned: bool,
        lanes: u16,
        counts: Counts,
    ) {
        let progress = JobProgress { job, attempt, state, scanned, lanes, counts };
        self.running.insert(job, progress);
        self.say_if_room(&Event::Progress(progress));
    }

    #[expect(clippy::too_many_arguments, reason = "they are the fields of one event")]
    pub(super) fn finished(
        &mut self,
        job: u64,
        attempt: u32,
        outcome: Outcome,
        lanes: u16,
        counts: Counts,
        elapsed_ns: u64,
        (text, changes): (&str, &[u8]),
    ) {
        self.running.remove(&job);
        let text = &text.as_bytes()[..text.len().min(TEXT_MAX)];
        // A peer says them: what is no longer than it may be fits the record.
        let changes = if changes.len() > JOB_CHANGES_BYTES_MAX { &[] } else { changes };
        let event =
            Event::Finished(JobFinished { job, attempt, outcome, lanes, counts, elapsed_ns, text, changes });
        let mut bytes = vec![0; RECORD_BYTES_MAX];
        let Ok(length) = event.encode(&mut bytes) else { return };
        bytes.truncate(length);
        self.finished.insert(job, bytes.clone());
        self.say(bytes);
    }

    pub(super) fn lane(&mut self, peer: &[u8], up: bool, lanes: u16, encrypted: bool, text: &str) {
        let text = &text.as_bytes()[..text.len().min(TEXT_MAX)];
        self.say_if_room(&Event::Lane(LaneChange { peer, up, lanes, encrypted, text }));
    }

    pub(super) fn path(&mut self, figures: &PathFigures<'_>) {
        self.say_if_room(&Event::Path(*figures));
    }

    pub(super) fn tunnels(&mut self, report: &crate::tunnel::Report) {
        report.events(|event| self.say_if_room(event));
    }

    pub(super) fn pong(&mut self, token: u64, rtt_ns: u64, text: &str) {
        let text = &text.as_bytes()[..text.floor_char_boundary(TEXT_MAX)];
        // The buffer for events that may be dropped is in use while commands are taken.
        self.say_encoded(&Event::Pong(Pong { token, rtt_ns, text }));
    }

    fn snapshot(&mut self, token: u64) {
        // What waits is part of the snapshot anyway.
        self.waiting.clear();
        let running: Vec<JobProgress> = self.running.values().copied().collect();
        for progress in running {
            self.say_encoded(&Event::Progress(progress));
        }
        let finished: Vec<Vec<u8>> = self.finished.values().cloned().collect();
        for event in finished {
            self.say(event);
        }
        self.say_encoded(&Event::SnapshotEnd(SnapshotEnd { token }));
    }

    fn forget(&mut self, job: u64) {
        self.finished.remove(&job);
    }

    fn say_encoded(&mut self, event: &Event<'_>) {
        let mut bytes = vec![0; RECORD_BYTES_MAX];
        if let Ok(length) = event.encode(&mut bytes) {
            bytes.truncate(length);
            self.say(bytes);
        }
    }

    /// Says something that must not be lost.
    fn say(&mut self, event: Vec<u8>) {
        self.waiting.push_back(event);
        self.retry();
    }

    fn say_if_room(&mut self, event: &Event<'_>) {
        let Ok(length) = event.encode(&mut self.record) else { return };
        if self.waiting.is_empty() {
            match self.events.push(&self.record[..length]) {
                Ok(ring) => return self.must_ring |= ring,
                Err(PushError::Full | PushError::TooLarge { .. } | PushError::Corrupt { .. }) => {}
            }
        }
        self.dropped += 1;
    }

    fn retry(&mut self) {
        while let Some(event) = self.waiting.front() {
            match self.events.push(event) {
                Ok(ring) => self.must_ring |= ring,
                Err(PushError::Full | PushError::Corrupt { .. }) => break,
                Err(PushError::TooLarge { .. }) => {}
            }
            self.waiting.pop_front();
        }
        while self.waiting.len() > WAITING_MAX {
            // A snapshot brings ends of jobs back.
            self.waiting.pop_front();
            self.dropped += 1;
        }
    }
}

/// Longest text of an event.
const TEXT_MAX: usize = 8 * 1024;

impl Worker {
    /// Orders wait for the first plan, which says who the peers are; and after a damaged ring for the next chores, so
    /// that a ring that stays damaged costs ten resets a second and not a core.
    pub(super) fn takes_orders(&self) -> bool {
        self.coding_generation > 0 && !self.report.damaged
    }

    /// Takes what control has ordered.
    pub(super) fn take_commands(&mut self) {
        if !self.takes_orders() {
            return;
        }
        let mut record = std::mem::take(&mut self.report.record);
        for _ in 0..COMMAND_BATCH {
            match self.report.commands.pop(&mut record) {
                Ok(None) => break,
                Ok(Some(length)) => match Command::decode(&record[..length]) {
                    Ok(command) => self.command(&command),
                    Err(error) => {
                        tracing::warn!(%error, "control sent a command that cannot be read");
                        self.reset_commands();
                    }
                },
                Err(error) => {
                    tracing::warn!(%error, "the command ring holds something impossible");
                    self.reset_commands();
                    break;
                }
            }
        }
        self.report.record = record;
        self.figures.set(Counter::EventsDropped, self.report.dropped);
        self.figures.set(Counter::RingResets, self.report.resets);
    }

    fn reset_commands(&mut self) {
        self.report.commands.reset();
        self.report.resets += 1;
        self.report.damaged = true;
        let count = self.report.resets;
        self.report.say_encoded(&Event::RingReset(RingReset { count }));
    }

    fn command(&mut self, command: &Command<'_>) {
        match command {
            Command::Send(send) => self.send_job(send),
            Command::Fetch(fetch) => self.fetch_job(fetch),
            Command::Cancel(cancel) => match self.local_key(cancel.job) {
                Some(job) => self.engine_input(Input::Cancel { job }),
                None => tracing::debug!(job = cancel.job, "no such job to cancel"),
            },
            Command::Pause(pause) => match self.local_key(pause.job) {
                Some(job) => self.engine_input(Input::Pause { job }),
                None => tracing::debug!(job = pause.job, "no such job to pause"),
            },
            Command::Forget(forget) => self.report.forget(forget.job),
            Command::Snapshot(snapshot) => self.report.snapshot(snapshot.token),
            Command::Ping(ping) => self.ping(ping),
        }
    }

    /// Tunnels' lanes measure it: they are there for small things.
    fn ping(&mut self, ping: &Ping<'_>) {
        let (peer, token) = (PeerName(ping.peer.into()), ping.token);
        let is_known = self.node.plan().peers.iter().any(|known| known.name == peer);
        match self.node.tunnels.get().filter(|_| is_known) {
            Some(tunnels) => tunnels.post(Message::Ping { peer, token }),
            None => {
                self.report.pong(token, 0, "the peer is not in the plan: see `peers:` in the configuration")
            }
        }
    }

    fn send_job(&mut self, send: &SendJob<'_>) {
        let lists = (send.sources, send.filters);
        let Some(job) = self.accept_job(send.job, send.attempt, send.peer, lists, send.destination) else {
            return;
        };
        self.engine_input(Input::Send {
            job,
            attempt: send.attempt,
            destination: send.destination,
            filters: send.filters,
            streams: send.options.streams,
            options: send.options.tree,
        });
    }

    fn fetch_job(&mut self, fetch: &FetchJob<'_>) {
        let lists = (fetch.sources, fetch.filters);
        let Some(job) = self.accept_job(fetch.job, fetch.attempt, fetch.peer, lists, fetch.destination)
        else {
            return;
        };
        self.engine_input(Input::Fetch {
            job,
            attempt: fetch.attempt,
            sources: fetch.sources,
            filters: fetch.filters,
            streams: fetch.options.streams,
            options: fetch.options.tree,
        });
    }

    /// Notes a job of control's; none when it runs already or can never run.
    fn accept_job(
        &mut self,
        id: u64,
        attempt: u32,
        peer: &[u8],
        (sources, filters): (&[u8], &[u8]),
        destination: &[u8],
    ) -> Option<JobKey> {
        if self.local_key(id).is_some() {
            return None;
        }
        self.report.forget(id);
        let refuse = |worker: &mut Self, outcome: Outcome, text: &str| {
            worker.report.finished(id, attempt, outcome, 0, NOTHING, 0, (text, &[]));
            None
        };
        let Ok(sources) = strings(sources).map(|path| path.map(<[u8]>::to_vec)).collect() else {
            return refuse(self, Outcome::Failed, "the job's list of sources cannot be read");
        };
        let name = PeerName(peer.into());
        if !self.node.plan().peers.iter().any(|known| known.name == name) {
            // Control knows the peer: its plan is on its way.
            return refuse(
                self,
                Outcome::Interrupted,
                "the peer is not in the plan: see `peers:` in the configuration",
            );
        }
        let job = JobKey { peer: self.node.peer_id(&name), owner: Owner::Local, id };
        let (filters, destination) = (filters.to_vec(), destination.to_vec());
        self.local.insert(job, LocalJob { sources, filters, destination });
        Some(job)
    }

    fn local_key(&self, id: u64) -> Option<JobKey> {
        self.local.keys().find(|job| job.id == id).copied()
    }
}

const NOTHING: Counts = Counts {
    entries_done: 0,
    entries_total: 0,
    bytes_done: 0,
    bytes_total: 0,
    bytes_wire: 0,
    bytes_resent: 0,
    bytes_resumed: 0,
    failures: 0,
};
