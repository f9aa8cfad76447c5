//! The sending end of a job, at its home: from the command (or a peer's fetch) to the receiver's `JobDone`.
//!
//! ```text
//! Opening ── accepted, scanner ready ─► Running ── scanned, all acknowledged ─► Finals ─► Ending ── JobDone ─► over
//! ```
use alloc::collections::BTreeMap;
use alloc::string::String;
use alloc::vec::Vec;

use dwcp_abi::link::{Counts, JobState, Outcome};
use dwcp_abi::wire::{
    CHUNK_BYTES, Code, FrameKind, JobAbort, JobDone, JobEnd, JobOpen, ObjectDone, ObjectEnd, ObjectOpened,
};

use super::{Engine, Extent, FullPack, Work};
use crate::digest::SubtreeDigests;
use crate::io::{FileId, FinalCheck, FoundObject, Hash, JobKey, Output, Owner, PackId, Source, Tell, Time};
use crate::range::RangeSet;

#[derive(Debug)]
pub(super) struct SendJob {
    pub(super) attempt: u32,
    destination: Vec<u8>,
    skip_unchanged: bool,
    streams: u16,
    started: Time,
    /// When the peer was last heard of.
    heard: Time,
    stage: Stage,
    pub(super) work: Work,
    filling: bool,
    scanned: bool,
    packs_filled: u64,
    packs_open: u32,
    entries_sent: u64,
    objects_found: u64,
    pub(super) objects: BTreeMap<u64, SendObject>,
    pub(super) counts: Counts,
    lanes_most: u16,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    Opening { accepted: bool, scanner: bool },
    Running,
    Finals,
    Ending,
}

#[derive(Debug)]
pub(super) struct SendObject {
    pub(super) file: FileId,
    pub(super) size: u64,
    extents: Vec<(u64, u64)>,
    opened: bool,
    digests: SubtreeDigests,
    read: RangeSet,
    /// What was last said about its end; said again when a lane is lost.
    end: Option<End>,
}

#[derive(Debug, Clone, Copy)]
enum End {
    Checking,
    Sent(Hash),
    GivenUp(Code),
}

/// Bytes for which one more lane is worth its handshake.
const BYTES_PER_LANE: u64 = 2 * CHUNK_BYTES as u64;
/// Lanes to open before the size of a job is known.
const LANES_AT_FIRST: u16 = 4;

impl Engine {
    pub(super) fn start_send(
        &mut self,
        job: JobKey,
        attempt: u32,
        destination: &[u8],
        streams: u16,
        skip: bool,
    ) {
        if self.refuse_start(job, attempt) {
            return;
        }
        self.add_send(job, attempt, destination, streams, skip);
        self.outputs.push_back(Output::OpenScanner { job, sources: None });
        let want = self.streams_of(job).min(LANES_AT_FIRST);
        self.want_lanes(job, want);
        self.send_job_open(job);
    }

    /// A peer's fetch: it numbered the job, and it knows where everything goes.
    pub(super) fn serve_fetch(&mut self, job: JobKey, attempt: u32, sources: &[u8], skip: bool) {
        match self.sends.get(&job) {
            Some(send) if send.attempt >= attempt => return self.send_job_open(job),
            // A new attempt of its owner: nobody waits for the former one.
            Some(_) => self.end_send(job, Outcome::Interrupted, String::new()),
            None => {}
        }
        if self.jobs() >= self.config.jobs_max {
            let text = b"too many jobs at the peer: try again later";
            return self.send_frame(job, FrameKind::JobAbort, &JobAbort { code: Code::Busy, text });
        }
        self.add_send(job, attempt, &[], 0, skip);
        self.outputs.push_back(Output::OpenScanner { job, sources: Some(sources.to_vec()) });
    }

    fn add_send(
        &mut self,
        job: JobKey,
        attempt: u32,
        destination: &[u8],
        streams: u16,
        skip_unchanged: bool,
    ) {
        let send = SendJob {
            attempt,
            destination: destination.to_vec(),
            skip_unchanged,
            streams,
            started: self.now,
            heard: self.now,
            stage: Stage::Opening { accepted: false, scanner: false },
            work: Work::default(),
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
    }

    /// True when the job cannot start: it runs already, or there are too many.
    pub(super) fn refuse_start(&mut self, job: JobKey, attempt: u32) -> bool {
        if self.sends.contains_key(&job) || self.receives.contains_key(&job) {
            return true;
        }
        if self.jobs() < self.config.jobs_max {
            return false;
        }
        self.outputs.push_back(Output::Ended {
            job,
            attempt,
            outcome: Outcome::Interrupted,
            lanes: 0,
            counts: EMPTY,
            elapsed_ns: 0,
            text: String::from("too many jobs run on this worker: it is tried again"),
        });
        true
    }

    fn streams_of(&self, job: JobKey) -> u16 {
        let asked = self.sends.get(&job).map_or(0, |send| send.streams);
        let streams = if asked == 0 { self.config.initial_streams } else { asked };
        streams.clamp(1, self.config.max_streams)
    }

    pub(super) fn want_lanes(&mut self, job: JobKey, lanes: u16) {
        let peer = self.peers.entry(job.peer).or_default();
        if lanes > peer.wanted || peer.lanes_everywhere() < lanes.min(peer.wanted) {
            peer.wanted = peer.wanted.max(lanes);
            self.outputs.push_back(Output::WantLanes { peer: job.peer, lanes: peer.wanted });
        }
    }

    fn send_job_open(&mut self, job: JobKey) {
        let Some(send) = self.sends.get(&job) else { return };
        let destination = send.destination.clone();
        let open =
            JobOpen { attempt: send.attempt, skip_unchanged: send.skip_unchanged, destination: &destination };
        self.send_frame(job, FrameKind::JobOpen, &open);
    }

    pub(super) fn scanner_opened(&mut self, job: JobKey, result: Result<(), (Code, &str)>) {
        let Some(send) = self.sends.get_mut(&job) else { return };
        if let Err((code, text)) = result {
            return self.abort_send(job, code, text);
        }
        if let Stage::Opening { scanner, .. } = &mut send.stage {
            *scanner = true;
        }
        if job.owner == Owner::Remote {
            self.send_job_open(job);
        }
        self.fill(job);
    }

    pub(super) fn job_accepted(&mut self, job: JobKey) {
        let Some(send) = self.sends.get_mut(&job) else { return };
        send.heard = self.now;
        if let Stage::Opening { accepted, .. } = &mut send.stage {
            *accepted = true;
        }
        self.fill(job);
    }

    /// Asks the scanner for the next pack, if there is room for one.
    fn fill(&mut self, job: JobKey) {
        let limits = (self.config.packs_max, self.config.objects_max as usize);
        let Some(send) = self.sends.get_mut(&job) else { return };
        if let Stage::Opening { accepted: true, scanner: true } = send.stage {
            send.stage = Stage::Running;
        }
        let room = send.packs_open < limits.0 && send.objects.len() < limits.1;
        if send.filling || !room {
            return;
        }
        match send.stage {
            Stage::Running if !send.scanned => self.outputs.push_back(Output::Fill { job }),
            Stage::Running if send.objects.is_empty() && send.packs_open == 0 => {
                send.stage = Stage::Finals;
                self.outputs.push_back(Output::FillFinals { job });
            }
            Stage::Finals => self.outputs.push_back(Output::FillFinals { job }),
            Stage::Running | Stage::Opening { .. } | Stage::Ending => return,
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
                self.outputs.push_back(Output::CloseFile { job, object, file });
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
            let object_state =
                SendObject { file, size, extents, opened: false, digests, read: RangeSet::new(), end: None };
            send.objects.insert(object, object_state);
        }
        let total = send.counts.bytes_total;
        self.queue_pack(job, pack, (entries, announced), bytes);
        let worth = total.div_ceil(BYTES_PER_LANE).clamp(1, u64::from(u16::MAX)) as u16;
        let want = self.streams_of(job).min(worth);
        self.want_lanes(job, want);
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

    fn send_job_end(&mut self, job: JobKey) {
        let Some(send) = self.sends.get(&job) else { return };
        let end =
            JobEnd { packs: send.packs_filled, entries: send.entries_sent, objects: send.objects_found };
        self.send_frame(job, FrameKind::JobEnd, &end);
    }

    pub(super) fn pack_done(&mut self, job: JobKey, pack: FullPack, wire: u64) {
        self.outputs.push_back(Output::DropPack { pack: pack.pack });
        let Some(send) = self.sends.get_mut(&job) else { return };
        send.heard = self.now;
        send.packs_open -= 1;
        send.counts.bytes_done += pack.bytes;
        send.counts.entries_done += pack.entries;
        send.counts.bytes_wire += wire;
        self.fill(job);
    }

    /// The receiver has made a place for an object, or holds it already.
    pub(super) fn object_opened(&mut self, job: JobKey, opened: ObjectOpened) {
        let Some(send) = self.sends.get_mut(&job) else { return };
        send.heard = self.now;
        let Some(object) = send.objects.get_mut(&opened.object) else { return };
        if object.opened {
            return;
        }
        object.opened = true;
        if opened.held {
            send.counts.bytes_done += object.size;
            return self.object_over(job, opened.object);
        }
        let (file, size) = (object.file, object.size);
        let extents = core::mem::take(&mut object.extents);
        for (start, end, source) in with_holes(&extents, size) {
            send.work.extents.push_back(Extent { object: opened.object, file, size, start, end, source });
        }
        if size == 0 {
            return self.all_read(job, opened.object);
        }
        self.has_work(job);
        self.announce_work(job);
    }

    /// A chunk was read here or by a carrier.
    pub(super) fn part_read(&mut self, job: JobKey, object: u64, offset: u64, result: Result<Hash, Code>) {
        let Some(send) = self.sends.get_mut(&job) else { return };
        let Some(state) = send.objects.get_mut(&object) else { return };
        match result {
            Ok(hash) => {
                let end = (offset + u64::from(CHUNK_BYTES)).min(state.size);
                if state.read.insert(offset, end) > 0 {
                    state.digests.insert(offset, hash);
                    if state.digests.root().is_some() {
                        self.all_read(job, object);
                    }
                }
            }
            Err(code) => self.give_up_object(job, object, code),
        }
    }

    fn all_read(&mut self, job: JobKey, object: u64) {
        let Some(state) = self.sends.get_mut(&job).and_then(|send| send.objects.get_mut(&object)) else {
            return;
        };
        if state.end.is_none() {
            state.end = Some(End::Checking);
            self.outputs.push_back(Output::CheckSource { job, object, file: state.file });
        }
    }

    pub(super) fn source_checked(&mut self, job: JobKey, object: u64, check: FinalCheck) {
        let Some(state) = self.sends.get_mut(&job).and_then(|send| send.objects.get_mut(&object)) else {
            return;
        };
        match (check, state.digests.root()) {
            (FinalCheck::Unchanged, Some(digest)) => {
                state.end = Some(End::Sent(digest));
                self.send_object_end(job, object);
            }
            (FinalCheck::Changed, _) | (FinalCheck::Unchanged, None) => {
                self.give_up_object(job, object, Code::Changed)
            }
        }
    }

    /// The object cannot be sent: the receiver shall forget what it has of it, and say so.
    fn give_up_object(&mut self, job: JobKey, object: u64, code: Code) {
        let Some(send) = self.sends.get_mut(&job) else { return };
        let Some(state) = send.objects.get_mut(&object) else { return };
        if matches!(state.end, Some(End::GivenUp(_))) {
            return;
        }
        state.end = Some(End::GivenUp(code));
        send.work.extents.retain(|extent| extent.object != object);
        send.work.returned.retain(|piece| piece.object != object);
        self.send_object_end(job, object);
    }

    fn send_object_end(&mut self, job: JobKey, object: u64) {
        let Some(state) = self.sends.get(&job).and_then(|send| send.objects.get(&object)) else { return };
        match state.end {
            Some(End::Sent(digest)) => {
                let end = ObjectEnd { object, size: state.size, digest };
                self.send_frame(job, FrameKind::ObjectEnd, &end);
            }
            Some(End::GivenUp(code)) => {
                let text: &[u8] = match code {
                    Code::Changed => b"it changed while it was read: send it again when it is at rest",
                    _ => b"it could not be read at the sender",
                };
                self.send_frame(job, FrameKind::ObjectDone, &ObjectDone { object, code, text });
            }
            Some(End::Checking) | None => {}
        }
    }

    /// A chunk is written at the receiver.
    pub(super) fn part_done(&mut self, job: JobKey, object: u64, length: u64, wire: u64) {
        let Some(send) = self.sends.get_mut(&job) else { return };
        send.heard = self.now;
        send.counts.bytes_wire += wire;
        if send.objects.contains_key(&object) {
            send.counts.bytes_done += length;
        }
    }

    pub(super) fn count_resent(&mut self, job: JobKey, wire: u64) {
        if let Some(send) = self.sends.get_mut(&job) {
            send.counts.bytes_resent += wire;
            send.counts.bytes_wire += wire;
        }
    }

    /// The receiver is through with an object.
    pub(super) fn object_done(&mut self, job: JobKey, done: ObjectDone<'_>) {
        let Some(send) = self.sends.get_mut(&job) else { return };
        send.heard = self.now;
        if !send.objects.contains_key(&done.object) {
            return;
        }
        if done.code == Code::Ok {
            send.counts.entries_done += 1;
        } else {
            send.counts.failures += 1;
        }
        self.object_over(job, done.object);
    }

    fn object_over(&mut self, job: JobKey, object: u64) {
        let Some(send) = self.sends.get_mut(&job) else { return };
        let Some(state) = send.objects.remove(&object) else { return };
        send.work.extents.retain(|extent| extent.object != object);
        send.work.returned.retain(|piece| piece.object != object);
        self.outputs.push_back(Output::CloseFile { job, object, file: state.file });
        self.fill(job);
    }

    pub(super) fn job_done(&mut self, job: JobKey, done: JobDone<'_>) {
        let Some(send) = self.sends.get_mut(&job) else { return };
        send.counts.failures = send.counts.failures.max(done.failures);
        send.counts.entries_done = send.counts.entries_total.saturating_sub(send.counts.failures);
        let outcome = if send.counts.failures == 0 { Outcome::Done } else { Outcome::Partial };
        let text = String::from_utf8_lossy(done.text).into_owned();
        self.end_send(job, outcome, text);
    }

    /// Ends a job that cannot go on, and tells the peer.
    pub(super) fn abort_send(&mut self, job: JobKey, code: Code, text: &str) {
        self.send_frame(job, FrameKind::JobAbort, &JobAbort { code, text: bounded(text) });
        let outcome = if code == Code::Cancelled { Outcome::Cancelled } else { Outcome::Failed };
        self.end_send(job, outcome, String::from(text));
    }

    pub(super) fn end_send(&mut self, job: JobKey, outcome: Outcome, text: String) {
        let Some(mut send) = self.sends.remove(&job) else { return };
        for pack in send.work.packs.drain(..) {
            self.outputs.push_back(Output::DropPack { pack: pack.pack });
        }
        for (&object, state) in &send.objects {
            self.outputs.push_back(Output::CloseFile { job, object, file: state.file });
        }
        self.outputs.push_back(Output::CloseScanner { job });
        self.tell_others(&Tell::JobGone { job });
        if job.owner == Owner::Local {
            let elapsed_ns = self.now - send.started;
            let (attempt, lanes, counts) = (send.attempt, send.lanes_most, send.counts);
            self.outputs.push_back(Output::Ended { job, attempt, outcome, lanes, counts, elapsed_ns, text });
        }
        self.release_lanes(job);
    }

    /// The peer wants fewer lanes once no job needs them; they close by themselves when they stay idle.
    pub(super) fn release_lanes(&mut self, job: JobKey) {
        let busy = self.sends.keys().chain(self.receives.keys()).any(|other| other.peer == job.peer);
        if let Some(peer) = self.peers.get_mut(&job.peer)
            && !busy
        {
            peer.wanted = 0;
            self.outputs.push_back(Output::WantLanes { peer: job.peer, lanes: 0 });
        }
    }

    /// Says again whatever a lost lane may have swallowed. All of it may arrive twice.
    pub(super) fn resync_send(&mut self, job: JobKey) {
        let Some(send) = self.sends.get(&job) else { return };
        match send.stage {
            Stage::Opening { accepted: false, scanner } if job.owner == Owner::Local || scanner => {
                self.send_job_open(job);
            }
            Stage::Opening { .. } => {}
            Stage::Running | Stage::Finals | Stage::Ending => {
                let ending = send.stage == Stage::Ending;
                let objects: Vec<u64> = send.objects.keys().copied().collect();
                for object in objects {
                    self.send_object_end(job, object);
                }
                if ending {
                    self.send_job_end(job);
                }
            }
        }
    }

    pub(super) fn watch_sends(&mut self) {
        let jobs: Vec<JobKey> = self.sends.keys().copied().collect();
        for job in jobs {
            let lanes = self.lanes_of(job.peer);
            let now = self.now;
            let patience = self.config.patience;
            let Some(send) = self.sends.get_mut(&job) else { continue };
            send.lanes_most = send.lanes_most.max(lanes);
            if lanes > 0 && !matches!(send.stage, Stage::Opening { accepted: false, .. }) {
                send.heard = send.heard.max(now.saturating_sub(patience / 2));
            }
            if now.saturating_sub(send.heard) > patience {
                let text = self.trouble(job.peer);
                self.end_send(job, Outcome::Interrupted, text);
                continue;
            }
            if job.owner == Owner::Local {
                let state = match send.stage {
                    Stage::Opening { .. } => JobState::Connecting,
                    Stage::Running => JobState::Running,
                    Stage::Finals | Stage::Ending => JobState::Finishing,
                };
                let (attempt, scanned, counts) = (send.attempt, send.scanned, send.counts);
                self.outputs.push_back(Output::Progress { job, attempt, state, scanned, lanes, counts });
            }
            let wanted = self.peers.get(&job.peer).map_or(0, |peer| peer.wanted);
            if lanes < wanted {
                self.outputs.push_back(Output::WantLanes { peer: job.peer, lanes: wanted });
            }
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
    failures: 0,
};

/// The first part of a text that surely fits a frame.
pub(super) fn bounded(text: &str) -> &[u8] {
    &text.as_bytes()[..text.len().min(4096)]
}

/// The object from start to end: its extents, and the holes between them.
fn with_holes(extents: &[(u64, u64)], size: u64) -> Vec<(u64, u64, Source)> {
    let mut parts = Vec::with_capacity(extents.len() * 2 + 1);
    let mut at = 0;
    for &(start, end) in extents {
        if start > at {
            parts.push((at, start, Source::Hole));
        }
        let end = end.min(size);
        if end > start.max(at) {
            parts.push((start.max(at), end, Source::File));
        }
        at = at.max(end);
    }
    if at < size {
        parts.push((at, size, Source::Hole));
    }
    parts
}
