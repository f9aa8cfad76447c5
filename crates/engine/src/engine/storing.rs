//! The receiver's end of an object: its place, its chunks from all lanes and workers, its commit.
use alloc::string::String;

use dwcp_abi::wire::{
    CHUNK_BYTES, CHUNK_HEAD_BYTES, ChunkHead, ChunkRanges, Code, Codec, FrameHeader, FrameKind, Held,
    ObjectDone, ObjectEnd, ObjectOpened, ObjectPlain,
};

use super::receiving::{FRAGMENTS_MAX, ReceiveJob};
use super::{Engine, Incoming, Target, Task};
use crate::digest::SubtreeDigests;
use crate::io::{BufferId, Digest, Hash, JobKey, LaneId, OpenedObject, Output, Place, Source, TaskId, Tell};
use crate::range::RangeSet;

/// Objects of one job that may be open at once, whatever the sender announces: each is an open file.
const OBJECTS_OPEN_MAX: usize = 8192;
/// Most bytes of what is said about one object.
const OBJECT_TEXT_MAX: usize = 1024;

#[derive(Debug)]
pub(super) struct ReceiveObject {
    size: u64,
    /// What there was under its name when it was announced.
    baseline: Held,
    written: RangeSet,
    /// Parts that came as differences and could not be made.
    unmade: RangeSet,
    digests: SubtreeDigests,
    end: Option<Hash>,
    committing: bool,
    /// Workers that have no write of it under way, once it is being committed.
    quiet: u16,
    /// Some part was written twice, or is of a former attempt: what lies on disk may not be what was hashed.
    unsure: bool,
    /// Some part is of a former attempt: its digest is not known here.
    resumed: bool,
}

impl ReceiveObject {
    fn new(size: u64, held: &[(u64, u64)], baseline: Held) -> Self {
        let mut written = RangeSet::new();
        for &(start, end) in held {
            written.insert(start, end.min(size));
        }
        let resumed = written.covered() > 0;
        Self {
            size,
            baseline,
            written,
            unmade: RangeSet::new(),
            digests: SubtreeDigests::new(size),
            end: None,
            committing: false,
            quiet: 0,
            unsure: resumed,
            resumed,
        }
    }
}

impl Engine {
    /// A chunk is in its buffer.
    pub(super) fn chunk(&mut self, lane: LaneId, header: FrameHeader, head: ChunkHead, buffer: BufferId) {
        let Some(state) = self.lane_mut(lane) else { return };
        state.incoming = Incoming::Nothing;
        let (Some(from), Some(job)) = (self.lane_ref(lane), self.key_of(lane, &header)) else { return };
        let from = (from, header.sequence);
        let target = self.targets.get(&(job, head.object));
        let wanted = target.filter(|target| !target.closed && target.attempt == head.attempt);
        let Some(&Target { attempt, file, size, writes, .. }) = wanted else {
            // Of an object, attempt or job that is over. The sender hears of that; the chunk is not wanted.
            self.release_receive(buffer);
            return self.acknowledge(from);
        };
        if self.is_written(job, head.object, head.offset)
            || writes > 0 && self.is_being_written(job, head.object, head.offset)
        {
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
        let task = self.tasks.insert(Task::Write { job, attempt, object, offset, length, from, buffer });
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

    /// A chunk came as differences to something that is not here, or not any more what it was.
    pub(super) fn unmade(&mut self, lane: LaneId, header: FrameHeader, head: ChunkHead, buffer: BufferId) {
        let Some(state) = self.lane_mut(lane) else { return };
        state.incoming = Incoming::Nothing;
        let (Some(from), Some(job)) = (self.lane_ref(lane), self.key_of(lane, &header)) else { return };
        self.release_receive(buffer);
        self.acknowledge((from, header.sequence));
        let ChunkHead { object, offset, length, attempt, .. } = head;
        let target = self.targets.get(&(job, object)).filter(|target| !target.closed);
        if target.is_none_or(|target| target.attempt != attempt) {
            return;
        }
        if self.is_home(job) {
            self.chunk_unmade(job, attempt, object, (offset, length));
        } else {
            self.tell(self.home(job), Tell::Unmade { job, attempt, object, offset, length });
        }
    }

    pub(super) fn chunk_unmade(&mut self, job: JobKey, attempt: u32, object: u64, part: (u64, u64)) {
        let Some(receive) = self.receive_of(job, attempt) else { return };
        let Some(state) = receive.objects.get_mut(&object) else { return };
        let (start, end) = (part.0, part.0.saturating_add(part.1).min(state.size));
        if start >= end || state.written.contains(start) {
            return;
        }
        state.unmade.insert(start, end);
        let chunks = ChunkRanges::of_bytes([(start, end)], state.size);
        self.send_frame((job, attempt), FrameKind::ObjectPlain, &ObjectPlain { object, chunks });
    }

    /// Asks again for what could not be made and has not come since.
    fn say_unmade(&mut self, job: JobKey, object: u64) {
        let Some(receive) = self.receives.get(&job) else { return };
        let Some(state) = receive.objects.get(&object) else { return };
        let attempt = receive.attempt;
        let chunk = u64::from(CHUNK_BYTES);
        let ranges = state.unmade.iter().flat_map(|(start, end)| {
            let chunks = (start / chunk..end.div_ceil(chunk)).map(move |index| index * chunk);
            chunks.map(|start| (start, (start + chunk).min(state.size)))
        });
        let missing = ranges.filter(|&(start, _)| !state.written.contains(start));
        let chunks = ChunkRanges::of_bytes(missing, state.size);
        if !chunks.is_empty() {
            self.send_frame((job, attempt), FrameKind::ObjectPlain, &ObjectPlain { object, chunks });
        }
    }

    pub(super) fn written(&mut self, task: TaskId, result: Result<Hash, Code>, text: &str) {
        let Some(Task::Write { job, attempt, object, offset, length, from, buffer }) =
            self.tasks.remove(task.0)
        else {
            return;
        };
        self.release_receive(buffer);
        self.acknowledge(from);
        if !self.is_home(job) {
            let result = result.map_err(|code| (code, String::from(text)));
            self.tell(self.home(job), Tell::Wrote { job, attempt, object, offset, length, result });
        } else {
            match result {
                Ok(hash) => self.wrote(job, attempt, object, (offset, length), hash),
                Err(code) => self.write_failed(job, attempt, object, code, text),
            }
        }
        let target = self.targets.get_mut(&(job, object)).filter(|target| target.attempt == attempt);
        let Some(target) = target else { return };
        target.writes -= 1;
        if target.closed && target.writes == 0 {
            self.target_quiet(job, attempt, object);
        }
    }

    fn is_written(&self, job: JobKey, object: u64, offset: u64) -> bool {
        let object = self.receives.get(&job).and_then(|receive| receive.objects.get(&object));
        object.is_some_and(|object| object.written.contains(offset))
    }

    /// Two lanes brought a chunk at the same time: written twice, the whole file would have to be read again.
    fn is_being_written(&self, job: JobKey, object: u64, offset: u64) -> bool {
        let of = (job, object, offset);
        self.tasks.iter().any(
            |task| matches!(*task, Task::Write { job, object, offset, .. } if (job, object, offset) == of),
        )
    }

    /// Takes no more chunks of an object, and says so to its home once no write is under way.
    pub(super) fn close_target(&mut self, job: JobKey, attempt: u32, object: u64) {
        let target = self.targets.get_mut(&(job, object)).filter(|target| target.attempt == attempt);
        let Some(target) = target else { return };
        target.closed = true;
        if target.writes == 0 {
            self.target_quiet(job, attempt, object);
        }
    }

    fn target_quiet(&mut self, job: JobKey, attempt: u32, object: u64) {
        self.targets.remove(&(job, object));
        if self.is_home(job) {
            self.object_quiet(job, attempt, object);
        } else {
            self.tell(self.home(job), Tell::ObjectQuiet { job, attempt, object });
        }
    }

    fn receive_of(&mut self, job: JobKey, attempt: u32) -> Option<&mut ReceiveJob> {
        self.receives.get_mut(&job).filter(|receive| receive.attempt == attempt)
    }

    /// One more worker has no write of the object under way. After the last one it gets its name: a late duplicate
    /// of a chunk must not be written into a file that was verified already.
    pub(super) fn object_quiet(&mut self, job: JobKey, attempt: u32, object: u64) {
        let workers = self.config.workers;
        let state = self.receive_of(job, attempt).and_then(|receive| receive.objects.get_mut(&object));
        let Some(state) = state else { return };
        state.quiet += 1;
        if let Some(digest) = state.end.filter(|_| state.quiet == workers && state.committing) {
            let verify = state.unsure;
            self.outputs.push_back(Output::Commit { job, object, digest, verify });
        }
    }

    pub(super) fn wrote(
        &mut self,
        job: JobKey,
        attempt: u32,
        object: u64,
        (offset, length): (u64, u64),
        hash: Hash,
    ) {
        let now = self.now;
        let Some(receive) = self.receive_of(job, attempt) else { return };
        receive.heard = now;
        let Some(state) = receive.objects.get_mut(&object) else { return };
        let new = state.written.insert(offset, offset + length);
        receive.counts.bytes_done = receive.counts.bytes_done.saturating_add(new);
        receive.counts.bytes_wire = receive.counts.bytes_wire.saturating_add(length);
        if new > 0 {
            state.digests.insert(offset, hash);
        } else {
            state.unsure = true;
        }
        self.check_object(job, object);
    }

    pub(super) fn write_failed(&mut self, job: JobKey, attempt: u32, object: u64, code: Code, text: &str) {
        if self.receive_of(job, attempt).is_none() {
            return;
        }
        if code == Code::NoSpace {
            return self.abort_receive(job, code, text);
        }
        self.refuse_object(job, object, code, text.as_bytes());
    }

    pub(super) fn object_ended(&mut self, job: JobKey, end: ObjectEnd) {
        let Some(receive) = self.receives.get_mut(&job) else { return };
        receive.heard = self.now;
        if receive.over.contains(end.object) {
            return self.answer_over(job, end.object);
        }
        let Some(state) = receive.objects.get_mut(&end.object) else { return };
        if state.size != end.size {
            return self.refuse_object(job, end.object, Code::Changed, b"its size changed while it was sent");
        }
        state.end = Some(end.digest);
        self.say_unmade(job, end.object);
        self.check_object(job, end.object);
    }

    /// The sender cannot send an object after all.
    pub(super) fn object_given_up(&mut self, job: JobKey, done: ObjectDone<'_>) {
        let Some(receive) = self.receives.get_mut(&job) else { return };
        receive.heard = self.now;
        match receive.objects.get(&done.object) {
            // All of it is here: it will be over in a moment.
            Some(state) if state.committing => {}
            Some(_) => {
                let code = if done.code == Code::Ok { Code::Io } else { done.code };
                self.refuse_object(job, done.object, code, done.text);
            }
            None if receive.over.contains(done.object) => self.answer_over(job, done.object),
            None => {}
        }
    }

    /// The sender has not heard that there is a place for an object.
    pub(super) fn object_asked(&mut self, job: JobKey, asked: ObjectOpened) {
        let Some(receive) = self.receives.get_mut(&job) else { return };
        receive.heard = self.now;
        let (attempt, object) = (receive.attempt, asked.object);
        if receive.objects.contains_key(&object) {
            self.say_opened(job, object);
            self.say_unmade(job, object);
        } else if receive.failed.contains(object) {
            self.answer_over(job, object);
        } else if receive.over.contains(object) {
            // Nothing of it was sent, and yet it is over: it was held.
            self.say_held((job, attempt), object);
        }
    }

    /// Tells the sender that there is a place for an object, and what is in it already.
    fn say_opened(&mut self, job: JobKey, object: u64) {
        let Some(receive) = self.receives.get(&job) else { return };
        let Some(state) = receive.objects.get(&object) else { return };
        let chunks = ChunkRanges::of_bytes(state.written.iter(), state.size);
        let attempt = receive.attempt;
        let opened = ObjectOpened { object, held: false, chunks, baseline: state.baseline };
        self.send_frame((job, attempt), FrameKind::ObjectOpened, &opened);
    }

    fn say_held(&mut self, job: (JobKey, u32), object: u64) {
        let (chunks, baseline) = (ChunkRanges::NONE, Held::NOTHING);
        let opened = ObjectOpened { object, held: true, chunks, baseline };
        self.send_frame(job, FrameKind::ObjectOpened, &opened);
    }

    /// Says again what became of an object.
    fn answer_over(&mut self, job: JobKey, object: u64) {
        let Some(receive) = self.receives.get(&job) else { return };
        let done = if receive.failed.contains(object) {
            ObjectDone { object, code: Code::Io, text: b"it could not be stored: see the end of the job" }
        } else {
            ObjectDone { object, code: Code::Ok, text: b"" }
        };
        let attempt = receive.attempt;
        self.send_frame((job, attempt), FrameKind::ObjectDone, &done);
    }

    /// Commits an object that is complete: every byte written, and their digest is the sender's.
    fn check_object(&mut self, job: JobKey, object: u64) {
        let Some(receive) = self.receives.get_mut(&job) else { return };
        let attempt = receive.attempt;
        let Some(state) = receive.objects.get_mut(&object) else { return };
        let (Some(expected), false) = (state.end, state.committing) else { return };
        if state.written.covered() < state.size {
            return;
        }
        // What is of a former attempt is read again before it gets its name.
        if !state.resumed && state.digests.root() != Some(expected) {
            let text = b"what arrived is not what was read: send it again, and look for failing memory or a changing source";
            return self.refuse_object(job, object, Code::Integrity, text);
        }
        state.committing = true;
        self.tell_others(&Tell::ObjectGone { job, attempt, object });
        self.close_target(job, attempt, object);
    }

    pub(super) fn committed(&mut self, job: JobKey, object: u64, result: Result<(), (Code, &str)>) {
        let (code, text) = match result {
            Ok(()) => (Code::Ok, ""),
            Err((code, text)) => (code, text),
        };
        let receive = self.receives.get(&job);
        let resumed =
            receive.and_then(|receive| receive.objects.get(&object)).is_some_and(|state| state.resumed);
        if code == Code::Integrity && resumed {
            // What lay here was not of this source. It is gone: the next attempt sends the object from its start.
            let text = alloc::format!("{text}: nothing of it is kept, and it is sent again from its start");
            return self.abort_receive(job, Code::Again, &text);
        }
        self.object_over_here(job, object, code, text.as_bytes());
    }

    fn refuse_object(&mut self, job: JobKey, object: u64, code: Code, text: &[u8]) {
        let Some(receive) = self.receives.get_mut(&job) else { return };
        if receive.objects.contains_key(&object) {
            let text = String::from_utf8_lossy(&text[..text.len().min(OBJECT_TEXT_MAX)]).into_owned();
            self.outputs.push_back(Output::Discard { job, object, text });
        }
        self.object_over_here(job, object, code, text);
    }

    fn object_over_here(&mut self, job: JobKey, object: u64, code: Code, text: &[u8]) {
        let Some(receive) = self.receives.get_mut(&job) else { return };
        let (attempt, end) = (receive.attempt, object.saturating_add(1));
        let text = &text[..text.len().min(OBJECT_TEXT_MAX)];
        if receive.objects.remove(&object).is_some() && code != Code::Ok {
            receive.counts.failures = receive.counts.failures.saturating_add(1);
        }
        if code != Code::Ok {
            receive.failed.insert(object, end);
            if receive.trouble.is_empty() {
                receive.trouble = String::from_utf8_lossy(text).into_owned();
            }
        }
        receive.over.insert(object, end);
        if receive.over.fragments() > FRAGMENTS_MAX {
            return self.abort_receive(job, Code::Protocol, "the objects of this job have too wild numbers");
        }
        self.targets.remove(&(job, object));
        self.tell_others(&Tell::ObjectGone { job, attempt, object });
        self.send_frame((job, attempt), FrameKind::ObjectDone, &ObjectDone { object, code, text });
        self.maybe_finish(job);
    }

    pub(super) fn object_placed(&mut self, job: JobKey, placed: OpenedObject) {
        let OpenedObject { object, place, size, held, baseline } = placed;
        let Some(receive) = self.receives.get_mut(&job) else { return };
        if receive.over.contains(object) {
            return;
        }
        let attempt = receive.attempt;
        match place {
            Place::Held => {
                receive.over.insert(object, object.saturating_add(1));
                receive.counts.bytes_total = receive.counts.bytes_total.saturating_add(size);
                receive.counts.bytes_done = receive.counts.bytes_done.saturating_add(size);
                self.say_held((job, attempt), object);
            }
            Place::Refused(code) => {
                self.object_over_here(job, object, code, b"it cannot be stored: see the job's report")
            }
            Place::Open(file) => {
                if !receive.objects.contains_key(&object) {
                    if receive.objects.len() >= OBJECTS_OPEN_MAX {
                        let text = "the peer announces too many objects at once";
                        return self.abort_receive(job, Code::Busy, text);
                    }
                    receive.counts.bytes_total = receive.counts.bytes_total.saturating_add(size);
                    let state = ReceiveObject::new(size, &held, baseline);
                    let resumed = state.written.covered();
                    receive.counts.bytes_done = receive.counts.bytes_done.saturating_add(resumed);
                    receive.counts.bytes_resumed = receive.counts.bytes_resumed.saturating_add(resumed);
                    receive.objects.insert(object, state);
                    let target = Target { attempt, file, size, writes: 0, closed: false };
                    self.targets.insert((job, object), target);
                    self.tell_others(&Tell::Object { job, attempt, object, file, size });
                }
                self.say_opened(job, object);
            }
        }
    }
}
