//! The sending end of a job, at its home: from the command (or a peer's fetch) to the receiver's `JobDone`.
//!
//! ```text
//! Opening ── scanner ready ─► Running ── accepted, scanned ─► Finals ─► Ending ── JobDone ─► over
//! ```
//! A job costs two round trips beside its bytes: its first packs go with `JobOpen`, and its end is said as soon as all is
//! scanned. The receiver waits for what is still under way.
use alloc::collections::{BTreeMap, VecDeque};
use alloc::string::String;
use alloc::vec::Vec;

use dwcp_abi::link::{Counts, Outcome};
use dwcp_abi::wire::{
    CHUNK_BYTES, Code, EARLY_PACKS_MAX, FetchRequest, FrameKind, JobAbort, JobAccept, JobDone, JobEnd,
    JobOpen, TreeOptions,
};

use super::receiving::outcome_of;
use super::{Engine, Extent, FullPack, Task, Work};
use crate::digest::SubtreeDigests;
use crate::io::{
    Asked, FileId, FoundObject, Hash, JobKey, Offered, Output, Owner, PackId, PeerId, Tell, Time,
};
use crate::range::RangeSet;

#[derive(Debug)]
pub(super) struct SendJob {
    pub(super) attempt: u32,
    offered: Offered,
    options: TreeOptions,
    pub(super) streams: u16,
    started: Time,
    /// When the peer was last heard of.
    pub(super) heard: Time,
    /// When it was last asked whether the job lives there.
    pub(super) asked: Time,
    /// It wants to hear again what may have got lost.
    pub(super) restate: bool,
    pub(super) stage: Stage,
    /// The receiver knows of the job.
    pub(super) accepted: bool,
    pub(super) work: Work,
    /// Parts that the receiver holds already, and that are not hashed yet.
    pub(super) known: VecDeque<Extent>,
    filling: bool,
    pub(super) scanned: bool,
    pub(super) packs_filled: u64,
    pub(super) packs_open: u32,
    entries_sent: u64,
    objects_found: u64,
    pub(super) objects: BTreeMap<u64, SendObject>,
    pub(super) counts: Counts,
    pub(super) lanes_most: u16,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Stage {
    Opening,
    Running,
    Finals,
    Ending,
}

#[derive(Debug)]
pub(super) struct SendObject {
    pub(super) file: FileId,
    pub(super) size: u64,
    pub(super) extents: Vec<(u64, u64)>,
    pub(super) opened: bool,
    /// Parts to send once it is known whether differences of them can be sent.
    pub(super) waiting: Vec<Extent>,
    pub(super) digests: SubtreeDigests,
    pub(super) read: RangeSet,
    /// Bytes of it that are counted as done.
    pub(super) done: u64,
    /// What was last said about its end; said again when a lane is lost.
    pub(super) end: Option<End>,
}

#[derive(Debug, Clone, Copy)]
pub(super) enum End {
    Checking,
    Sent(Hash),
    GivenUp(Code),
}

/// Bytes for which one more lane is worth its handshake.
const BYTES_PER_LANE: u64 = 2 * CHUNK_BYTES as u64;
/// Lanes to open before the size of a job is known.
const LANES_AT_FIRST: u16 = 4;
/// Most bytes of the paths and filters that a frame names to the peer.
const PATHS_BYTES_MAX: usize = 15 * 1024;
/// For a job whose failures nobody put into words.
pub(super) const UNNAMED_FAILURES: &str =
    "some entries could not be transferred: the logs of both nodes name them";

impl Engine {
    pub(super) fn start_send(
        &mut self,
        job: JobKey,
        attempt: u32,
        offered: Offered,
        streams: u16,
        options: TreeOptions,
    ) {
        if self.refuse_start(job, attempt, offered.destination.len() + offered.filters.len()) {
            return;
        }
        self.add_send(job, attempt, offered, streams, options);
        self.outputs.push_back(Output::OpenScanner { job, asked: None, options });
        let want = self.streams_of(job).min(LANES_AT_FIRST);
        self.want_lanes(job, want);
        self.send_job_open(job);
    }

    /// A peer's fetch: it numbered the job, and it knows where everything goes.
    pub(super) fn serve_fetch(&mut self, job: JobKey, fetch: FetchRequest<'_>) {
        let attempt = fetch.attempt;
        // Only the node that numbered a job may ask for it.
        if job.owner == Owner::Local {
            return;
        }
        match self.sends.get(&job) {
            Some(send) if send.attempt == attempt => return self.send_job_open(job),
            Some(send) if send.attempt > attempt => return,
            // A new attempt of its owner: nobody waits for the former one.
            Some(_) => self.end_send(job, Outcome::Interrupted, String::new()),
            None if self.receives.contains_key(&job) => return,
            // It was over under this number when the peer asked last, or the peer has not heard why it was given up.
            None if self.last_word_of(job).is_some_and(|past| past >= attempt) => {
                return self.answer_unknown(job, attempt);
            }
            None => {}
        }
        if self.jobs() >= self.config.jobs_max {
            let text = b"too many jobs at the peer: try again later";
            return self.send_frame(
                (job, attempt),
                FrameKind::JobAbort,
                &JobAbort { code: Code::Busy, text },
            );
        }
        self.add_send(job, attempt, Offered::default(), 0, fetch.options);
        let asked = Some(Asked { sources: fetch.sources.to_vec(), filters: fetch.filters.to_vec() });
        self.outputs.push_back(Output::OpenScanner { job, asked, options: fetch.options });
    }

    fn add_send(&mut self, job: JobKey, attempt: u32, offered: Offered, streams: u16, options: TreeOptions) {
        let send = SendJob {
            attempt,
            offered,
            options,
            streams,
            started: self.now,
            heard: self.now,
            asked: self.now,
            restate: false,
            stage: Stage::Opening,
            accepted: false,
            work: Work::default(),
            known: VecDeque::new(),
            filling: false,
            scanned: false,
            packs_filled: 0,
            packs_open: 0,
            entries_sent: 0,
            objects_found: 0,
            objects: BTreeMap::new(),
            counts: EMPTY,
            lanes_most: 0,
        };
        self.sends.insert(job, send);
        self.rest_lanes(job.peer);
    }

    /// True when the job cannot start: it runs already, there are too many, or its paths fit no frame.
    pub(super) fn refuse_start(&mut self, job: JobKey, attempt: u32, paths_bytes: usize) -> bool {
        if self.sends.contains_key(&job) || self.receives.contains_key(&job) {
            return true;
        }
        let (outcome, text) = if paths_bytes > PATHS_BYTES_MAX {
            (
                Outcome::Failed,
                "the paths at the peer, and what is left out, are too long together: name fewer, or a directory",
            )
        } else if self.jobs() >= self.config.jobs_max {
            (Outcome::Interrupted, "too many jobs run on this worker: it is tried again")
        } else {
            return false;
        };
        let text = String::from(text);
        let (lanes, counts, elapsed_ns) = (0, EMPTY, 0);
        let changes = Vec::new();
        self.outputs.push_back(Output::Ended {
            job,
            attempt,
            outcome,
            lanes,
            counts,
            elapsed_ns,
            text,
            changes,
        });
        true
    }

    fn streams_of(&self, job: JobKey) -> u16 {
        let asked = self.sends.get(&job).map_or(0, |send| send.streams);
        self.streams(job.peer, asked)
    }

    /// Lanes for a job to a peer that asks for so many; 0 = as many as the path can use.
    pub(super) fn streams(&self, peer: PeerId, asked: u16) -> u16 {
        let enough = self.peers.get(&peer).and_then(|peer| peer.enough);
        let streams = if asked == 0 { enough.unwrap_or(self.config.initial_streams) } else { asked };
        streams.clamp(1, self.config.max_streams)
    }

    /// What is known of the path says how many lanes it can use.
    pub(super) fn path_lanes(&mut self, peer: PeerId, lanes: u16) {
        let state = self.peers.entry(peer).or_default();
        if state.enough.replace(lanes) == Some(lanes) {
            return;
        }
        self.rest_lanes(peer);
        let jobs: Vec<JobKey> = self.sends.keys().filter(|job| job.peer == peer).copied().collect();
        for job in jobs {
            self.want_lanes_for(job);
        }
        self.pump(peer);
    }

    pub(super) fn deltas_pay(&self, peer: PeerId) -> bool {
        self.peers.get(&peer).is_some_and(|peer| peer.deltas)
    }

    /// As many lanes as what was found is worth.
    fn want_lanes_for(&mut self, job: JobKey) {
        let Some(send) = self.sends.get(&job) else { return };
        let worth = send.counts.bytes_total.div_ceil(BYTES_PER_LANE).clamp(1, u64::from(u16::MAX)) as u16;
        let want = self.streams_of(job).min(worth);
        self.want_lanes(job, want);
    }

    pub(super) fn want_lanes(&mut self, job: JobKey, lanes: u16) {
        let peer = self.peers.entry(job.peer).or_default();
        if lanes > peer.wanted || peer.lanes_everywhere() < lanes.min(peer.wanted) {
            peer.wanted = peer.wanted.max(lanes);
            self.outputs.push_back(Output::WantLanes { peer: job.peer, lanes: peer.wanted });
        }
    }

    pub(super) fn send_job_open(&mut self, job: JobKey) {
        let Some(send) = self.sends.get(&job) else { return };
        let Offered { destination, filters } = send.offered.clone();
        let (attempt, options) = (send.attempt, send.options);
        let baselines = self.deltas_pay(job.peer);
        let packs = send.packs_filled - u64::from(send.packs_open);
        let (destination, filters) = (&destination[..], &filters[..]);
        let open = JobOpen { attempt, options, baselines, packs, destination, filters };
        self.send_frame((job, attempt), FrameKind::JobOpen, &open);
    }

    pub(super) fn scanner_opened(&mut self, job: JobKey, result: Result<(), (Code, &str)>) {
        let Some(send) = self.sends.get_mut(&job) else { return };
        if let Err((code, text)) = result {
            return self.abort_send(job, code, text);
        }
        if send.stage == Stage::Opening {
            send.stage = Stage::Running;
        }
        if job.owner == Owner::Remote {
            self.send_job_open(job);
        }
        self.fill(job);
    }

    /// The receiver is ready, or asks whether the job lives here, or answers.
    pub(super) fn job_accepted(&mut self, job: JobKey, accept: JobAccept) {
        let Some(send) = self.sends.get_mut(&job) else { return };
        send.heard = self.now;
        send.accepted = true;
        if accept.question {
            send.restate = true;
            let attempt = send.attempt;
            self.send_frame((job, attempt), FrameKind::JobAccept, &JobAccept { question: false });
        }
        self.fill(job);
    }

    /// Asks the scanner for the next pack, if there is room for one.
    pub(super) fn fill(&mut self, job: JobKey) {
        let limits = (self.config.packs_max, self.config.objects_max as usize);
        let Some(send) = self.sends.get_mut(&job) else { return };
        // A peer's fetch may begin twice under one number; its packs must not be taken for each other.
        let first = send.attempt == 1 && job.owner == Owner::Local;
        let early = first && send.packs_filled < EARLY_PACKS_MAX;
        let room = send.packs_open < limits.0 && send.objects.len() < limits.1 && (send.accepted || early);
        if send.filling || !room {
            return;
        }
        match send.stage {
            Stage::Running if !send.scanned => self.outputs.push_back(Output::Fill { job }),
            Stage::Running if send.accepted => {
                send.stage = Stage::Finals;
                self.outputs.push_back(Output::FillFinals { job });
            }
            Stage::Finals => self.outputs.push_back(Output::FillFinals { job }),
            Stage::Running | Stage::Opening | Stage::Ending => return,
        }
        if let Some(send) = self.sends.get_mut(&job) {
            send.filling = true;
        }
    }

    pub(super) fn filled(
        &mut self,
        job: JobKey,
        pack: PackId,
        (entries, bytes, failures): (u64, u64, u64),
        objects: Vec<FoundObject>,
        end: bool,
    ) {
        let Some(send) = self.sends.get_mut(&job) else {
            for FoundObject { object, file, .. } in objects {
                self.outputs.push_back(Output::CloseFile { job, object, file, keep: None });
            }
            return self.outputs.push_back(Output::DropPack { pack });
        };
        send.filling = false;
        send.scanned = end;
        send.counts.entries_total += entries;
        send.counts.failures += failures;
        send.counts.bytes_total += bytes;
        let announced = objects.len() as u64;
        send.objects_found += announced;
        for FoundObject { object, file, size, extents } in objects {
            send.counts.bytes_total += size;
            let digests = SubtreeDigests::new(size);
            let (read, opened, done, end) = (RangeSet::new(), false, 0, None);
            let waiting = Vec::new();
            let object_state = SendObject { file, size, extents, opened, waiting, digests, read, done, end };
            send.objects.insert(object, object_state);
        }
        self.queue_pack(job, pack, (entries, announced), bytes);
        self.want_lanes_for(job);
        self.fill(job);
    }

    fn queue_pack(&mut self, job: JobKey, pack: PackId, (entries, announced): (u64, u64), bytes: u64) {
        let Some(send) = self.sends.get_mut(&job) else { return };
        if entries == 0 {
            return self.outputs.push_back(Output::DropPack { pack });
        }
        let number = send.packs_filled;
        send.packs_filled += 1;
        send.packs_open += 1;
        send.entries_sent += entries;
        let entries = entries.saturating_sub(announced);
        send.work.packs.push_back(FullPack { pack, number, entries, bytes });
        self.has_work(job);
    }

    pub(super) fn finals_filled(&mut self, job: JobKey, pack: PackId, entries: u64, end: bool) {
        if !self.sends.contains_key(&job) {
            return self.outputs.push_back(Output::DropPack { pack });
        }
        self.queue_pack(job, pack, (entries, 0), 0);
        let Some(send) = self.sends.get_mut(&job) else { return };
        send.filling = false;
        if end {
            send.stage = Stage::Ending;
            self.send_job_end(job);
        } else {
            self.fill(job);
        }
    }

    pub(super) fn send_job_end(&mut self, job: JobKey) {
        let Some(send) = self.sends.get(&job) else { return };
        let (packs, entries, objects) = (send.packs_filled, send.entries_sent, send.objects_found);
        let attempt = send.attempt;
        let end = JobEnd { packs, entries, objects };
        self.send_frame((job, attempt), FrameKind::JobEnd, &end);
    }

    pub(super) fn pack_done(&mut self, job: JobKey, attempt: u32, pack: FullPack, wire: u64) {
        self.pack_counted(job, attempt, (pack.entries, pack.bytes), wire);
    }

    /// A pack is unpacked at the receiver, whoever carried it.
    pub(super) fn pack_counted(
        &mut self,
        job: JobKey,
        attempt: u32,
        (entries, bytes): (u64, u64),
        wire: u64,
    ) {
        let Some(send) = self.sends.get_mut(&job).filter(|send| send.attempt == attempt) else { return };
        send.heard = self.now;
        send.packs_open -= 1;
        send.counts.bytes_done += bytes;
        send.counts.entries_done += entries;
        send.counts.bytes_wire += wire;
        self.fill(job);
    }

    pub(super) fn job_done(&mut self, job: JobKey, done: JobDone<'_>) {
        // It may be faster than the acknowledgements on other lanes of what it speaks of.
        let unacknowledged = self.tasks.iter().filter_map(|task| match *task {
            Task::Chunk { job: of, wire, .. } | Task::Pack { job: of, wire, .. } if of == job => Some(wire),
            _ => None,
        });
        let wire: u64 = unacknowledged.sum();
        let Some(send) = self.sends.get_mut(&job) else { return };
        send.counts.bytes_wire += wire;
        send.counts.failures = send.counts.failures.max(done.failures);
        send.counts.entries_done = send.counts.entries_total.saturating_sub(send.counts.failures);
        let outcome = if send.counts.failures == 0 { Outcome::Done } else { Outcome::Partial };
        if outcome == Outcome::Done {
            // What other lanes acknowledge of it may still be on its way.
            send.counts.bytes_done = send.counts.bytes_total;
        }
        let mut text = String::from_utf8_lossy(done.text).into_owned();
        if outcome == Outcome::Partial && text.is_empty() {
            text.push_str(UNNAMED_FAILURES);
        }
        self.end_send_with(job, outcome, text, done.changes.to_vec());
    }

    /// Ends a job that cannot go on, and tells the peer.
    pub(super) fn abort_send(&mut self, job: JobKey, code: Code, text: &str) {
        let Some(attempt) = self.sends.get(&job).map(|send| send.attempt) else { return };
        self.say_last((job, attempt), FrameKind::JobAbort, &JobAbort { code, text: bounded(text) });
        self.end_send(job, outcome_of(code), String::from(text));
    }

    pub(super) fn end_send(&mut self, job: JobKey, outcome: Outcome, text: String) {
        self.end_send_with(job, outcome, text, Vec::new());
    }

    fn end_send_with(&mut self, job: JobKey, outcome: Outcome, text: String, changes: Vec<u8>) {
        let Some(mut send) = self.sends.remove(&job) else { return };
        for pack in send.work.packs.drain(..) {
            self.outputs.push_back(Output::DropPack { pack: pack.pack });
        }
        // The word about an object may be on a slower lane than that about the whole job.
        let arrived = outcome == Outcome::Done && self.deltas_pay(job.peer);
        for (&object, state) in &send.objects {
            let keep = match state.end {
                Some(End::Sent(digest)) if arrived => Some(digest),
                _ => None,
            };
            self.outputs.push_back(Output::CloseFile { job, object, file: state.file, keep });
        }
        self.outputs.push_back(Output::CloseScanner { job });
        if job.owner == Owner::Remote && self.last_word_of(job) != Some(send.attempt) {
            // Its acknowledgements may still be under way: a question for it that is late must not begin it anew.
            self.remember(job, send.attempt, Vec::new());
        }
        self.tell_others(&Tell::JobGone { job });
        self.end_turns(job);
        if job.owner == Owner::Local {
            let elapsed_ns = self.now - send.started;
            let lanes = send.lanes_most.max(self.lanes_of(job.peer));
            let (attempt, counts) = (send.attempt, send.counts);
            self.outputs.push_back(Output::Ended {
                job,
                attempt,
                outcome,
                lanes,
                counts,
                elapsed_ns,
                text,
                changes,
            });
        }
        self.release_lanes(job);
    }

    /// The peer wants fewer lanes once no job needs them; they close by themselves when they stay idle.
    pub(super) fn release_lanes(&mut self, job: JobKey) {
        self.rest_lanes(job.peer);
        let busy = self.sends.keys().chain(self.receives.keys()).any(|other| other.peer == job.peer);
        if let Some(peer) = self.peers.get_mut(&job.peer)
            && !busy
        {
            peer.wanted = 0;
            self.outputs.push_back(Output::WantLanes { peer: job.peer, lanes: 0 });
        }
    }
}

pub(super) const EMPTY: Counts = Counts {
    entries_done: 0,
    entries_total: 0,
    bytes_done: 0,
    bytes_total: 0,
    bytes_wire: 0,
    bytes_resent: 0,
    bytes_resumed: 0,
    failures: 0,
};

/// The first part of a text that surely fits a frame.
pub(super) fn bounded(text: &str) -> &[u8] {
    &text.as_bytes()[..text.len().min(4096)]
}
