//! The receiving end of a job, at its home: from the peer's `JobOpen` (or our fetch) to `JobDone`. Chunks and packs
//! may arrive on any worker's lanes, in any order, and more than once.
use alloc::collections::BTreeMap;
use alloc::string::String;
use alloc::vec::Vec;

use dwcp_abi::link::{Counts, JobState, Outcome};
use dwcp_abi::wire::{
    CHUNK_BYTES, CHUNK_HEAD_BYTES, ChunkHead, Code, Codec, FetchRequest, FrameHeader, FrameKind, JobAbort,
    JobDone, JobEnd, JobOpen, ObjectDone, ObjectEnd, ObjectOpened, PACK_HEAD_BYTES, PackHead,
};

use super::sending::{EMPTY, bounded};
use super::{Engine, Incoming, PAST_MAX, Target, Task};
use crate::digest::SubtreeDigests;
use crate::io::{
    BufferId, Digest, Hash, JobKey, LaneId, OpenedObject, Output, Owner, Place, Source, TaskId, Tell, Time,
};
use crate::range::RangeSet;

#[derive(Debug)]
pub(super) struct ReceiveJob {
    attempt: u32,
    stage: Stage,
    started: Time,
    heard: Time,
    skip_unchanged: bool,
    /// What a local fetch asks for; empty when the peer started the job.
    sources: Vec<u8>,
    packs: RangeSet,
    objects: BTreeMap<u64, ReceiveObject>,
    /// Objects that need nothing more, whatever became of them.
    over: RangeSet,
    end: Option<JobEnd>,
    counts: Counts,
    lanes_most: u16,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    /// A fetch that the peer has not answered.
    Asking,
    /// The tree is being made.
    Opening,
    Running,
    Finishing,
}

#[derive(Debug)]
struct ReceiveObject {
    size: u64,
    written: RangeSet,
    digests: SubtreeDigests,
    end: Option<Hash>,
    committing: bool,
    /// Workers that have no write of it under way, once it is being committed.
    quiet: u16,
    /// Some part was written twice: what lies on disk may not be what was hashed.
    twice: bool,
}

impl Engine {
    pub(super) fn start_fetch(
        &mut self,
        job: JobKey,
        attempt: u32,
        sources: &[u8],
        streams: u16,
        skip: bool,
    ) {
        if self.refuse_start(job, attempt) {
            return;
        }
        self.add_receive(job, attempt, Stage::Asking, skip, sources.to_vec());
        let streams = if streams == 0 { self.config.initial_streams } else { streams };
        self.want_lanes(job, streams.clamp(1, self.config.max_streams));
        self.send_fetch(job);
    }

    fn send_fetch(&mut self, job: JobKey) {
        let Some(receive) = self.receives.get(&job) else { return };
        let sources = receive.sources.clone();
        let (attempt, skip_unchanged) = (receive.attempt, receive.skip_unchanged);
        self.send_frame(job, FrameKind::Fetch, &FetchRequest { attempt, skip_unchanged, sources: &sources });
    }

    fn add_receive(
        &mut self,
        job: JobKey,
        attempt: u32,
        stage: Stage,
        skip_unchanged: bool,
        sources: Vec<u8>,
    ) {
        let receive = ReceiveJob {
            attempt,
            stage,
            started: self.now,
            heard: self.now,
            skip_unchanged,
            sources,
            packs: RangeSet::new(),
            objects: BTreeMap::new(),
            over: RangeSet::new(),
            end: None,
            counts: EMPTY,
            lanes_most: 0,
        };
        self.receives.insert(job, receive);
    }

    /// The sender asks to start.
    pub(super) fn job_open(&mut self, job: JobKey, open: JobOpen<'_>) {
        match self.receives.get_mut(&job) {
            // A new attempt of its owner: what is left of the former one goes first.
            Some(receive) if job.owner == Owner::Remote && open.attempt > receive.attempt => {
                self.drop_receive(job);
            }
            Some(receive) => {
                receive.heard = self.now;
                match receive.stage {
                    Stage::Asking => {
                        receive.stage = Stage::Opening;
                        let skip_unchanged = receive.skip_unchanged;
                        self.outputs.push_back(Output::OpenReceiver {
                            job,
                            destination: None,
                            skip_unchanged,
                        });
                    }
                    Stage::Opening => {}
                    Stage::Running | Stage::Finishing => {
                        self.send_frame(job, FrameKind::JobAccept, &[0u8; 0])
                    }
                }
                return;
            }
            None => {}
        }
        if job.owner == Owner::Local {
            let text = b"the fetch is over here";
            return self.send_frame(job, FrameKind::JobAbort, &JobAbort { code: Code::NotFound, text });
        }
        if self.jobs() >= self.config.jobs_max {
            let text = b"too many jobs at the peer: try again later";
            return self.send_frame(job, FrameKind::JobAbort, &JobAbort { code: Code::Busy, text });
        }
        self.past.retain(|(past, _)| *past != job);
        self.add_receive(job, open.attempt, Stage::Opening, open.skip_unchanged, Vec::new());
        let destination = Some(open.destination.to_vec());
        self.outputs.push_back(Output::OpenReceiver {
            job,
            destination,
            skip_unchanged: open.skip_unchanged,
        });
    }

    pub(super) fn receiver_opened(&mut self, job: JobKey, result: Result<(), (Code, &str)>) {
        let Some(receive) = self.receives.get_mut(&job) else { return };
        match result {
            Ok(()) => {
                receive.stage = Stage::Running;
                self.send_frame(job, FrameKind::JobAccept, &[0u8; 0]);
            }
            Err((code, text)) => self.abort_receive(job, code, text),
        }
    }

    /// A chunk is in its buffer.
    pub(super) fn chunk(&mut self, lane: LaneId, header: FrameHeader, head: ChunkHead, buffer: BufferId) {
        let Some(state) = self.lane_mut(lane) else { return };
        state.incoming = Incoming::Nothing;
        let job = self.key_of(lane, &header);
        let from = (lane, header.sequence);
        let target = job.and_then(|job| self.targets.get(&(job, head.object)));
        let wanted = target.filter(|target| !target.closed && target.attempt == head.attempt);
        let (Some(job), Some(&Target { file, size, .. })) = (job, wanted) else {
            // Of an object, attempt or job that is over. The sender hears of that; the chunk is not wanted.
            self.release_receive(buffer);
            return self.acknowledge(from);
        };
        if self.is_written(job, head.object, head.offset) {
            self.release_receive(buffer);
            return self.acknowledge(from);
        }
        let coded = header.length - CHUNK_HEAD_BYTES as u32;
        let source = match head.codec {
            Codec::Hole => Source::Hole,
            Codec::Raw | Codec::Block => Source::File,
        };
        let expected_coded = if source == Source::Hole { 0 } else { head.length };
        let whole = size.saturating_sub(head.offset).min(u64::from(CHUNK_BYTES));
        if !head.offset.is_multiple_of(u64::from(CHUNK_BYTES)) || head.length != whole || whole == 0 {
            self.release_receive(buffer);
            return self.close_lane(lane, Code::Protocol, "sent a chunk that does not fit its object");
        }
        if head.codec == Codec::Raw && u64::from(coded) != expected_coded
            || source == Source::Hole && coded != 0
        {
            self.release_receive(buffer);
            return self.close_lane(lane, Code::Protocol, "sent a chunk whose length is wrong");
        }
        let (object, offset, length) = (head.object, head.offset, head.length);
        if let Some(target) = self.targets.get_mut(&(job, object)) {
            target.writes += 1;
        }
        let task = self.tasks.insert(Task::Write { job, object, offset, length, from, buffer: Some(buffer) });
        self.outputs.push_back(Output::Write {
            task: TaskId(task),
            file,
            offset,
            length: length as u32,
            source,
            buffer,
            digest: Digest { object_size: size },
        });
    }

    pub(super) fn written(&mut self, task: TaskId, result: Result<Hash, Code>, text: &str) {
        let Some(Task::Write { job, object, offset, length, from, buffer }) = self.tasks.remove(task.0)
        else {
            return;
        };
        if let Some(buffer) = buffer {
            self.release_receive(buffer);
        }
        self.acknowledge(from);
        if !self.is_home(job) {
            let result = result.map_err(|code| (code, String::from(text)));
            self.tell(self.home(job), Tell::Wrote { job, object, offset, length, result });
        } else {
            match result {
                Ok(hash) => self.wrote(job, object, offset, length, hash),
                Err(code) => self.write_failed(job, object, code, text),
            }
        }
        let Some(target) = self.targets.get_mut(&(job, object)) else { return };
        target.writes -= 1;
        if target.closed && target.writes == 0 {
            self.target_quiet(job, object);
        }
    }

    fn is_written(&self, job: JobKey, object: u64, offset: u64) -> bool {
        let object = self.receives.get(&job).and_then(|receive| receive.objects.get(&object));
        object.is_some_and(|object| object.written.contains(offset))
    }

    /// Takes no more chunks of an object, and says so to its home once no write is under way.
    pub(super) fn close_target(&mut self, job: JobKey, object: u64) {
        let Some(target) = self.targets.get_mut(&(job, object)) else { return };
        target.closed = true;
        if target.writes == 0 {
            self.target_quiet(job, object);
        }
    }

    fn target_quiet(&mut self, job: JobKey, object: u64) {
        self.targets.remove(&(job, object));
        if self.is_home(job) {
            self.object_quiet(job, object);
        } else {
            self.tell(self.home(job), Tell::ObjectQuiet { job, object });
        }
    }

    /// One more worker has no write of the object under way. After the last one it gets its name: a late duplicate
    /// of a chunk must not be written into a file that was verified already.
    pub(super) fn object_quiet(&mut self, job: JobKey, object: u64) {
        let workers = self.config.workers;
        let Some(state) = self.receives.get_mut(&job).and_then(|receive| receive.objects.get_mut(&object))
        else {
            return;
        };
        state.quiet += 1;
        if state.quiet == workers && state.committing {
            let verify = if state.twice { state.end } else { None };
            self.outputs.push_back(Output::Commit { job, object, verify });
        }
    }

    pub(super) fn wrote(&mut self, job: JobKey, object: u64, offset: u64, length: u64, hash: Hash) {
        let Some(receive) = self.receives.get_mut(&job) else { return };
        receive.heard = self.now;
        let Some(state) = receive.objects.get_mut(&object) else { return };
        let new = state.written.insert(offset, offset + length);
        receive.counts.bytes_done += new;
        receive.counts.bytes_wire += length;
        if new > 0 {
            state.digests.insert(offset, hash);
        } else {
            state.twice = true;
        }
        self.check_object(job, object);
    }

    pub(super) fn write_failed(&mut self, job: JobKey, object: u64, code: Code, text: &str) {
        if code == Code::NoSpace {
            return self.abort_receive(job, code, text);
        }
        self.refuse_object(job, object, code, text.as_bytes());
    }

    pub(super) fn object_ended(&mut self, job: JobKey, end: ObjectEnd) {
        let Some(receive) = self.receives.get_mut(&job) else { return };
        receive.heard = self.now;
        if receive.over.contains(end.object) {
            let done = ObjectDone { object: end.object, code: Code::Ok, text: b"" };
            return self.send_frame(job, FrameKind::ObjectDone, &done);
        }
        let Some(state) = receive.objects.get_mut(&end.object) else { return };
        if state.size != end.size {
            return self.refuse_object(job, end.object, Code::Changed, b"its size changed while it was sent");
        }
        state.end = Some(end.digest);
        self.check_object(job, end.object);
    }

    /// The sender cannot send an object after all.
    pub(super) fn object_given_up(&mut self, job: JobKey, done: ObjectDone<'_>) {
        let Some(receive) = self.receives.get_mut(&job) else { return };
        receive.heard = self.now;
        self.refuse_object(job, done.object, done.code, done.text);
    }

    /// Commits an object that is complete: every byte written, and their digest is the sender's.
    fn check_object(&mut self, job: JobKey, object: u64) {
        let Some(state) = self.receives.get_mut(&job).and_then(|receive| receive.objects.get_mut(&object))
        else {
            return;
        };
        let (Some(expected), false) = (state.end, state.committing) else { return };
        if state.written.covered() < state.size {
            return;
        }
        if state.digests.root() != Some(expected) {
            let text = b"what arrived is not what was read: send it again, and look for failing memory or a changing source";
            return self.refuse_object(job, object, Code::Integrity, text);
        }
        state.committing = true;
        self.tell_others(&Tell::ObjectGone { job, object });
        self.close_target(job, object);
    }

    pub(super) fn committed(&mut self, job: JobKey, object: u64, result: Result<(), (Code, &str)>) {
        let (code, text) = match result {
            Ok(()) => (Code::Ok, ""),
            Err((code, text)) => (code, text),
        };
        self.object_over_here(job, object, code, text.as_bytes());
    }

    fn refuse_object(&mut self, job: JobKey, object: u64, code: Code, text: &[u8]) {
        let Some(receive) = self.receives.get_mut(&job) else { return };
        if receive.objects.contains_key(&object) {
            self.outputs.push_back(Output::Discard { job, object });
        }
        self.object_over_here(job, object, code, text);
    }

    fn object_over_here(&mut self, job: JobKey, object: u64, code: Code, text: &[u8]) {
        let Some(receive) = self.receives.get_mut(&job) else { return };
        if receive.objects.remove(&object).is_some() && code != Code::Ok {
            receive.counts.failures += 1;
        }
        receive.over.insert(object, object + 1);
        self.targets.remove(&(job, object));
        self.tell_others(&Tell::ObjectGone { job, object });
        let text = &text[..text.len().min(1024)];
        self.send_frame(job, FrameKind::ObjectDone, &ObjectDone { object, code, text });
        self.maybe_finish(job);
    }

    /// A pack is in its buffer.
    pub(super) fn pack(&mut self, lane: LaneId, header: FrameHeader, head: PackHead, buffer: BufferId) {
        let Some(state) = self.lane_mut(lane) else { return };
        state.incoming = Incoming::Nothing;
        let from = (lane, header.sequence);
        let Some(job) = self.key_of(lane, &header) else { return };
        let length = header.length - PACK_HEAD_BYTES as u32;
        let task = TaskId(self.tasks.insert(Task::Unpack { job, head, from, buffer }));
        self.outputs.push_back(Output::Unpack { task, job, buffer, length });
    }

    pub(super) fn unpacked(
        &mut self,
        task: TaskId,
        figures: (u64, u64, u64),
        opened: Vec<OpenedObject>,
        fatal: Option<(Code, &str)>,
    ) {
        let Some(Task::Unpack { job, head, from, buffer }) = self.tasks.remove(task.0) else { return };
        self.release_receive(buffer);
        self.acknowledge(from);
        if self.is_home(job) {
            return self.pack_unpacked(job, head, figures, opened, fatal);
        }
        let (entries, bytes, failures) = figures;
        let fatal = fatal.map(|(code, text)| (code, String::from(text)));
        self.tell(self.home(job), Tell::Unpacked { job, head, entries, bytes, opened, failures, fatal });
    }

    pub(super) fn pack_unpacked(
        &mut self,
        job: JobKey,
        head: PackHead,
        (entries, bytes, failures): (u64, u64, u64),
        opened: Vec<OpenedObject>,
        fatal: Option<(Code, &str)>,
    ) {
        let Some(receive) = self.receives.get_mut(&job) else { return };
        if receive.attempt != head.attempt {
            return;
        }
        receive.heard = self.now;
        if receive.packs.insert(head.number, head.number.saturating_add(1)) > 0 {
            receive.counts.entries_total += entries;
            receive.counts.bytes_done += bytes;
            receive.counts.bytes_total += bytes;
            receive.counts.failures += failures;
        }
        if let Some((code, text)) = fatal {
            return self.abort_receive(job, code, text);
        }
        for object in opened {
            self.object_placed(job, object);
        }
        self.maybe_finish(job);
    }

    fn object_placed(&mut self, job: JobKey, placed: OpenedObject) {
        let OpenedObject { object, place, size } = placed;
        let Some(receive) = self.receives.get_mut(&job) else { return };
        if receive.over.contains(object) {
            return;
        }
        match place {
            Place::Held => {
                receive.over.insert(object, object + 1);
                receive.counts.bytes_total += size;
                receive.counts.bytes_done += size;
                self.send_frame(job, FrameKind::ObjectOpened, &ObjectOpened { object, held: true });
            }
            Place::Refused(code) => {
                self.object_over_here(job, object, code, b"it cannot be stored: see the job's report")
            }
            Place::Open(file) => {
                if !receive.objects.contains_key(&object) {
                    receive.counts.bytes_total += size;
                    let state = ReceiveObject {
                        size,
                        written: RangeSet::new(),
                        digests: SubtreeDigests::new(size),
                        end: None,
                        committing: false,
                        quiet: 0,
                        twice: false,
                    };
                    receive.objects.insert(object, state);
                    let attempt = receive.attempt;
                    let target = Target { attempt, file, size, writes: 0, closed: false };
                    self.targets.insert((job, object), target);
                    self.tell_others(&Tell::Object { job, attempt, object, file, size });
                }
                self.send_frame(job, FrameKind::ObjectOpened, &ObjectOpened { object, held: false });
            }
        }
    }

    pub(super) fn job_ended(&mut self, job: JobKey, end: JobEnd) {
        if let Some((_, frame)) = self.past.iter().find(|(past, _)| *past == job) {
            let frame = frame.clone();
            return self.send_whole_frame(job.peer, &frame);
        }
        let Some(receive) = self.receives.get_mut(&job) else { return };
        receive.heard = self.now;
        receive.end = Some(end);
        self.maybe_finish(job);
    }

    fn maybe_finish(&mut self, job: JobKey) {
        let Some(receive) = self.receives.get_mut(&job) else { return };
        let Some(end) = receive.end else { return };
        if receive.stage != Stage::Running
            || receive.packs.covered() < end.packs
            || receive.over.covered() < end.objects
        {
            return;
        }
        receive.stage = Stage::Finishing;
        self.outputs.push_back(Output::Finish { job });
    }

    pub(super) fn finished(
        &mut self,
        job: JobKey,
        result: Result<(), (Code, &str)>,
        failures: u64,
        text: &str,
    ) {
        if let Err((code, text)) = result {
            return self.abort_receive(job, code, text);
        }
        let Some(receive) = self.receives.get_mut(&job) else { return };
        receive.counts.failures = receive.counts.failures.max(failures);
        let failures = receive.counts.failures;
        receive.counts.entries_done = receive.counts.entries_total.saturating_sub(failures);
        let done = JobDone { failures, text: bounded(text) };
        self.remember(job, &done);
        self.send_frame(job, FrameKind::JobDone, &done);
        let outcome = if failures == 0 { Outcome::Done } else { Outcome::Partial };
        self.end_receive(job, outcome, String::from(text));
    }

    /// Keeps the last word of a job, in case the lane that carries it dies.
    fn remember(&mut self, job: JobKey, done: &JobDone<'_>) {
        let mut bytes = [0; 8192];
        let flags = if job.owner == Owner::Local { dwcp_abi::wire::FLAG_OWNER } else { 0 };
        let Ok(length) = dwcp_abi::wire::frame(FrameKind::JobDone, flags, job.id, done, &mut bytes) else {
            return;
        };
        if self.past.len() == PAST_MAX {
            self.past.pop_front();
        }
        self.past.push_back((job, bytes[..length].to_vec()));
    }

    pub(super) fn abort_receive(&mut self, job: JobKey, code: Code, text: &str) {
        self.send_frame(job, FrameKind::JobAbort, &JobAbort { code, text: bounded(text) });
        self.outputs.push_back(Output::CloseReceiver { job });
        let outcome = if code == Code::Cancelled { Outcome::Cancelled } else { Outcome::Failed };
        self.end_receive(job, outcome, String::from(text));
    }

    pub(super) fn drop_receive(&mut self, job: JobKey) {
        self.outputs.push_back(Output::CloseReceiver { job });
        self.end_receive(job, Outcome::Interrupted, String::new());
    }

    pub(super) fn end_receive(&mut self, job: JobKey, outcome: Outcome, text: String) {
        let Some(receive) = self.receives.remove(&job) else { return };
        self.targets.retain(|&(other, _), _| other != job);
        self.tell_others(&Tell::JobGone { job });
        if job.owner == Owner::Local {
            let elapsed_ns = self.now - receive.started;
            let (attempt, lanes, counts) = (receive.attempt, receive.lanes_most, receive.counts);
            self.outputs.push_back(Output::Ended { job, attempt, outcome, lanes, counts, elapsed_ns, text });
        }
        self.release_lanes(job);
    }

    /// Says again what a lost lane may have swallowed.
    pub(super) fn resync_receive(&mut self, job: JobKey) {
        let Some(receive) = self.receives.get(&job) else { return };
        match receive.stage {
            Stage::Asking => self.send_fetch(job),
            Stage::Opening => {}
            Stage::Running | Stage::Finishing => {
                let untouched = receive.objects.iter().filter(|(_, state)| state.written.covered() == 0);
                let untouched: Vec<u64> = untouched.map(|(&object, _)| object).collect();
                self.send_frame(job, FrameKind::JobAccept, &[0u8; 0]);
                for object in untouched {
                    self.send_frame(job, FrameKind::ObjectOpened, &ObjectOpened { object, held: false });
                }
            }
        }
    }

    pub(super) fn watch_receives(&mut self) {
        let jobs: Vec<JobKey> = self.receives.keys().copied().collect();
        for job in jobs {
            let lanes = self.lanes_of(job.peer);
            let (now, patience) = (self.now, self.config.patience);
            let wanted = self.peers.get(&job.peer).map_or(0, |peer| peer.wanted);
            let Some(receive) = self.receives.get_mut(&job) else { continue };
            receive.lanes_most = receive.lanes_most.max(lanes);
            if lanes > 0 && receive.stage != Stage::Asking {
                receive.heard = receive.heard.max(now.saturating_sub(patience / 2));
            }
            if now.saturating_sub(receive.heard) > patience {
                let text = self.trouble(job.peer);
                self.outputs.push_back(Output::CloseReceiver { job });
                self.end_receive(job, Outcome::Interrupted, text);
                continue;
            }
            if job.owner == Owner::Local {
                let state = match receive.stage {
                    Stage::Asking | Stage::Opening => JobState::Connecting,
                    Stage::Running => JobState::Running,
                    Stage::Finishing => JobState::Finishing,
                };
                let (attempt, scanned, counts) = (receive.attempt, receive.end.is_some(), receive.counts);
                self.outputs.push_back(Output::Progress { job, attempt, state, scanned, lanes, counts });
                if lanes < wanted {
                    self.outputs.push_back(Output::WantLanes { peer: job.peer, lanes: wanted });
                }
            }
        }
    }
}
