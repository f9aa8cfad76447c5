//! The sender's end of an object: from the receiver's place for it to the receiver's word that it is stored.
use alloc::vec::Vec;

use dwcp_abi::wire::{CHUNK_BYTES, Code, FrameKind, ObjectDone, ObjectEnd, ObjectOpened, ObjectPlain};

use super::sending::End;
use super::{Engine, Extent};
use crate::io::{FinalCheck, Hash, JobKey, Output, Source};
use crate::range::RangeSet;

impl Engine {
    /// The receiver has made a place for an object, or holds it already.
    pub(super) fn object_opened(&mut self, job: JobKey, opened: ObjectOpened) {
        let Some(send) = self.sends.get_mut(&job) else { return };
        send.heard = self.now;
        if !core::mem::replace(&mut send.accepted, true) {
            // It says so, too, but that may come on a slower lane.
            self.fill(job);
        }
        let Some(send) = self.sends.get_mut(&job) else { return };
        let Some(object) = send.objects.get_mut(&opened.object) else { return };
        if object.opened {
            return;
        }
        object.opened = true;
        if opened.held {
            send.counts.bytes_done += object.size - object.done;
            return self.object_over(job, opened.object, None);
        }
        let (file, size) = (object.file, object.size);
        let extents = core::mem::take(&mut object.extents);
        let mut held = RangeSet::new();
        for (start, end) in opened.chunks.bytes(size) {
            held.insert(start, end);
        }
        object.done = held.covered();
        send.counts.bytes_done += object.done;
        send.counts.bytes_resumed += object.done;
        for (start, end, source) in with_holes(&extents, size) {
            for (start, end, is_held) in cut(start, end, &held) {
                let extent = Extent { object: opened.object, file, size, start, end, source };
                if is_held { send.known.push_back(extent) } else { object.waiting.push(extent) }
            }
        }
        if size == 0 {
            return self.all_read(job, opened.object);
        }
        self.hash_known();
        let (object, baseline) = (opened.object, opened.baseline);
        if baseline.length > 0 {
            return self.outputs.push_back(Output::Prepare { job, object, file, baseline });
        }
        self.object_prepared(job, object);
    }

    /// It is known what an object's chunks are sent as.
    pub(super) fn object_prepared(&mut self, job: JobKey, object: u64) {
        let Some(send) = self.sends.get_mut(&job) else { return };
        let Some(state) = send.objects.get_mut(&object) else { return };
        send.work.extents.extend(core::mem::take(&mut state.waiting));
        self.has_work(job);
        self.announce_work(job);
    }

    /// The receiver could not make these chunks from what it has: they are sent as they are, like all that follow.
    pub(super) fn object_plain(&mut self, job: JobKey, plain: ObjectPlain) {
        let Some(send) = self.sends.get_mut(&job) else { return };
        send.heard = self.now;
        let Some(state) = send.objects.get_mut(&plain.object) else { return };
        if !state.opened || matches!(state.end, Some(End::GivenUp(_))) {
            return;
        }
        let (object, file, size, source) = (plain.object, state.file, state.size, Source::File);
        self.outputs.push_back(Output::SendPlain { file });
        for (start, end) in plain.chunks.bytes(size) {
            let in_vain = (end - start).min(state.done);
            state.done -= in_vain;
            send.counts.bytes_done = send.counts.bytes_done.saturating_sub(in_vain);
            send.work.extents.push_front(Extent { object, file, size, start, end, source });
        }
        self.has_work(job);
        self.announce_work(job);
    }

    /// A chunk was read here or by a carrier.
    pub(super) fn part_read(
        &mut self,
        job: JobKey,
        attempt: u32,
        object: u64,
        offset: u64,
        result: Result<Hash, Code>,
    ) {
        let Some(send) = self.sends.get_mut(&job).filter(|send| send.attempt == attempt) else { return };
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
        state.waiting.clear();
        send.known.retain(|extent| extent.object != object);
        send.work.forget(object);
        self.send_object_end(job, object);
    }

    pub(super) fn send_object_end(&mut self, job: JobKey, object: u64) {
        let Some(send) = self.sends.get(&job) else { return };
        let attempt = send.attempt;
        let Some(state) = send.objects.get(&object) else { return };
        match state.end {
            Some(End::Sent(digest)) => {
                let end = ObjectEnd { object, size: state.size, digest };
                self.send_frame((job, attempt), FrameKind::ObjectEnd, &end);
            }
            Some(End::GivenUp(code)) => {
                let text: &[u8] = match code {
                    Code::Changed => b"it changed while it was read: send it again when it is at rest",
                    _ => b"it could not be read at the sender",
                };
                self.send_frame((job, attempt), FrameKind::ObjectDone, &ObjectDone { object, code, text });
            }
            Some(End::Checking) | None => {}
        }
    }

    /// A chunk is written at the receiver.
    pub(super) fn part_done(&mut self, job: JobKey, attempt: u32, object: u64, length: u64, wire: u64) {
        let Some(send) = self.sends.get_mut(&job).filter(|send| send.attempt == attempt) else { return };
        send.heard = self.now;
        send.counts.bytes_wire += wire;
        if let Some(state) = send.objects.get_mut(&object) {
            let length = length.min(state.size - state.done);
            state.done += length;
            send.counts.bytes_done += length;
        }
    }

    pub(super) fn count_resent(&mut self, job: JobKey, attempt: u32, wire: u64) {
        if let Some(send) = self.sends.get_mut(&job).filter(|send| send.attempt == attempt) {
            send.counts.bytes_resent += wire;
            send.counts.bytes_wire += wire;
        }
    }

    /// The receiver is through with an object.
    pub(super) fn object_done(&mut self, job: JobKey, done: ObjectDone<'_>) {
        let Some(send) = self.sends.get_mut(&job) else { return };
        send.heard = self.now;
        let Some(object) = send.objects.get(&done.object) else { return };
        let end = object.end;
        if done.code == Code::Ok {
            // The acknowledgements of its last chunks may be under way on other lanes.
            send.counts.bytes_done += object.size - object.done;
            send.counts.entries_done += 1;
        } else {
            send.counts.failures += 1;
        }
        let keep = match end {
            Some(End::Sent(digest)) if done.code == Code::Ok && self.deltas_pay(job.peer) => Some(digest),
            _ => None,
        };
        self.object_over(job, done.object, keep);
    }

    fn object_over(&mut self, job: JobKey, object: u64, keep: Option<Hash>) {
        let Some(send) = self.sends.get_mut(&job) else { return };
        let Some(state) = send.objects.remove(&object) else { return };
        send.known.retain(|extent| extent.object != object);
        send.work.forget(object);
        self.outputs.push_back(Output::CloseFile { job, object, file: state.file, keep });
        self.fill(job);
    }
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

/// A part of an object, cut where what the receiver holds begins and ends.
fn cut(start: u64, end: u64, held: &RangeSet) -> Vec<(u64, u64, bool)> {
    let (mut parts, mut at) = (Vec::new(), start);
    for (held_start, held_end) in
        held.iter().filter(|&(held_start, held_end)| held_start < end && start < held_end)
    {
        let (held_start, held_end) = (held_start.max(start), held_end.min(end));
        if at < held_start {
            parts.push((at, held_start, false));
        }
        parts.push((held_start, held_end, true));
        at = held_end;
    }
    if at < end {
        parts.push((at, end, false));
    }
    parts
}
