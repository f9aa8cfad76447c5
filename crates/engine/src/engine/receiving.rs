//! The receiving end of a job, at its home: from the peer's `JobOpen` (or our fetch) to `JobDone`. Chunks and packs
//! may arrive on any worker's lanes, in any order, and more than once.
use alloc::collections::BTreeMap;
use alloc::string::String;
use alloc::vec::Vec;

use dwcp_abi::codec::Encoded;
use dwcp_abi::link::{Counts, Outcome};
use dwcp_abi::wire::{
    CONTROL_PAYLOAD_MAX, Code, EARLY_PACKS_MAX, FRAME_HEADER_BYTES, FetchRequest, FrameHeader, FrameKind,
    JobAbort, JobAccept, JobDone, JobEnd, JobOpen, PACK_HEAD_BYTES, PackHead, TreeOptions,
};

use super::pump::flags_of;
use super::sending::{EMPTY, UNNAMED_FAILURES, bounded};
use super::storing::ReceiveObject;
use super::{Engine, Incoming, PAST_MAX, Task};
use crate::io::{
    Asked, BufferId, JobKey, LaneId, Leftovers, Offered, OpenedObject, Output, Owner, TaskId, Tell, Time,
};
use crate::range::RangeSet;

#[derive(Debug)]
pub(super) struct ReceiveJob {
    pub(super) attempt: u32,
    pub(super) stage: Stage,
    started: Time,
    /// When the peer was last heard of.
    pub(super) heard: Time,
    /// When it was last asked whether the job lives there.
    pub(super) asked: Time,
    options: TreeOptions,
    /// What a local fetch asks for; empty when the peer started the job.
    wanted: Asked,
    pub(super) packs: RangeSet,
    pub(super) objects: BTreeMap<u64, ReceiveObject>,
    /// Objects that need nothing more, whatever became of them.
    pub(super) over: RangeSet,
    /// Those of them that failed.
    pub(super) failed: RangeSet,
    /// The first failure in words.
    pub(super) trouble: String,
    pub(super) end: Option<JobEnd>,
    pub(super) counts: Counts,
    pub(super) lanes_most: u16,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Stage {
    /// A fetch that the peer has not answered.
    Asking,
    /// The tree is being made.
    Opening,
    Running,
    Finishing,
}

impl Engine {
    pub(super) fn start_fetch(
        &mut self,
        job: JobKey,
        attempt: u32,
        asked: Asked,
        streams: u16,
        options: TreeOptions,
    ) {
        if self.refuse_start(job, attempt, asked.sources.len() + asked.filters.len()) {
            return;
        }
        self.add_receive(job, attempt, Stage::Asking, options, asked);
        let want = self.streams(job.peer, streams);
        self.want_lanes(job, want);
        self.send_fetch(job);
    }

    pub(super) fn send_fetch(&mut self, job: JobKey) {
        let Some(receive) = self.receives.get(&job) else { return };
        let Asked { sources, filters } = receive.wanted.clone();
        let (attempt, options) = (receive.attempt, receive.options);
        let fetch = FetchRequest { attempt, options, sources: &sources, filters: &filters };
        self.send_frame((job, attempt), FrameKind::Fetch, &fetch);
    }

    fn add_receive(&mut self, job: JobKey, attempt: u32, stage: Stage, options: TreeOptions, wanted: Asked) {
        let receive = ReceiveJob {
            attempt,
            stage,
            started: self.now,
            heard: self.now,
            asked: self.now,
            options,
            wanted,
            packs: RangeSet::new(),
            objects: BTreeMap::new(),
            over: RangeSet::new(),
            failed: RangeSet::new(),
            trouble: String::new(),
            end: None,
            counts: EMPTY,
            lanes_most: 0,
        };
        self.receives.insert(job, receive);
    }

    /// The sender asks to start.
    pub(super) fn job_open(&mut self, job: JobKey, open: JobOpen<'_>) {
        let attempt = open.attempt;
        match self.receives.get_mut(&job) {
            // A new attempt of its owner: what is left of the former one goes first.
            Some(receive) if job.owner == Owner::Remote && open.attempt > receive.attempt => {
                self.interrupt_receive(job, String::new());
            }
            Some(receive) if attempt != receive.attempt => return,
            Some(receive) => {
                receive.heard = self.now;
                match receive.stage {
                    Stage::Asking if open.packs > 0 => self.abort_receive(job, Code::Again, PACKS_LOST),
                    Stage::Asking => {
                        receive.stage = Stage::Opening;
                        let (attempt, options) = (receive.attempt, receive.options);
                        self.outputs.push_back(Output::OpenReceiver {
                            job,
                            attempt,
                            offered: None,
                            options,
                            baselines: open.baselines,
                        });
                    }
                    Stage::Opening => {}
                    Stage::Running | Stage::Finishing => {
                        self.send_frame((job, attempt), FrameKind::JobAccept, &JobAccept { question: false });
                    }
                }
                return;
            }
            None => {}
        }
        if job.owner == Owner::Local || self.last_word_of(job).is_some_and(|past| past >= attempt) {
            return self.answer_unknown(job, attempt);
        }
        if self.sends.contains_key(&job) {
            return;
        }
        if self.jobs() >= self.config.jobs_max {
            let text = b"too many jobs at the peer: try again later";
            return self.send_frame(
                (job, attempt),
                FrameKind::JobAbort,
                &JobAbort { code: Code::Busy, text },
            );
        }
        if open.packs > 0 {
            let text = PACKS_LOST.as_bytes();
            return self.send_frame(
                (job, attempt),
                FrameKind::JobAbort,
                &JobAbort { code: Code::Again, text },
            );
        }
        self.past.retain(|(past, _, _)| *past != job);
        self.add_receive(job, attempt, Stage::Opening, open.options, Asked::default());
        let offered =
            Some(Offered { destination: open.destination.to_vec(), filters: open.filters.to_vec() });
        self.outputs.push_back(Output::OpenReceiver {
            job,
            attempt,
            offered,
            options: open.options,
            baselines: open.baselines,
        });
    }

    /// The attempt of a job whose last word is remembered.
    pub(super) fn last_word_of(&self, job: JobKey) -> Option<u32> {
        self.past.iter().find(|(past, _, _)| *past == job).map(|&(_, attempt, _)| attempt)
    }

    pub(super) fn receiver_opened(&mut self, job: JobKey, result: Result<(), (Code, &str)>) {
        let Some(receive) = self.receives.get_mut(&job) else { return };
        match result {
            Ok(()) => {
                receive.stage = Stage::Running;
                let attempt = receive.attempt;
                self.send_frame((job, attempt), FrameKind::JobAccept, &JobAccept { question: false });
                self.maybe_finish(job);
            }
            Err((code, text)) => self.abort_receive(job, code, text),
        }
    }

    /// The sender asks whether the job lives here, or answers.
    pub(super) fn receive_accepted(&mut self, job: JobKey, accept: JobAccept) {
        let Some(receive) = self.receives.get_mut(&job) else { return };
        receive.heard = self.now;
        let attempt = receive.attempt;
        match receive.stage {
            Stage::Asking | Stage::Opening => {}
            Stage::Running | Stage::Finishing => {
                if accept.question {
                    self.send_frame((job, attempt), FrameKind::JobAccept, &JobAccept { question: false });
                }
            }
        }
    }

    /// The peer speaks of a job that does not live here: it hears the job's last word, or that it is over.
    pub(super) fn answer_unknown(&mut self, job: JobKey, attempt: u32) {
        self.said_again = self.said_again.wrapping_add(1);
        let past = self.past.iter().find(|(past, _, _)| *past == job);
        let past = past.filter(|(_, past, frame)| *past == attempt && !frame.is_empty());
        if let Some((_, _, frame)) = past {
            let frame = frame.clone();
            return self.send_whole_frame(job.peer, &frame);
        }
        let text = b"the other node does not know this job any more";
        self.send_frame((job, attempt), FrameKind::JobAbort, &JobAbort { code: Code::Timeout, text });
    }

    /// A pack is in its buffer.
    pub(super) fn pack(&mut self, lane: LaneId, header: FrameHeader, head: PackHead, buffer: BufferId) {
        let Some(state) = self.lane_mut(lane) else { return };
        state.incoming = Incoming::Nothing;
        let (Some(lane), Some(job)) = (self.lane_ref(lane), self.key_of(lane, &header)) else { return };
        let from = (lane, header.sequence);
        let length = header.length - PACK_HEAD_BYTES as u32;
        let task = TaskId(self.tasks.insert(Task::Unpack { job, head, from, buffer }));
        let (attempt, early) = (head.attempt, head.number < EARLY_PACKS_MAX);
        self.outputs.push_back(Output::Unpack { task, job, attempt, early, buffer, length });
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

    /// An early pack whose job did not come: its lane goes, and the sender sends it again.
    pub(super) fn pack_unclaimed(&mut self, task: TaskId) {
        let Some(Task::Unpack { from, buffer, .. }) = self.tasks.remove(task.0) else { return };
        self.release_receive(buffer);
        if self.lane_at(from.0).is_some_and(|lane| !lane.closing) {
            self.close_lane(from.0.id, Code::Again, "a pack came and its job did not");
        }
    }

    pub(super) fn pack_unpacked(
        &mut self,
        job: JobKey,
        head: PackHead,
        (entries, bytes, failures): (u64, u64, u64),
        opened: Vec<OpenedObject>,
        fatal: Option<(Code, &str)>,
    ) {
        let Some(receive) = self.receives.get_mut(&job) else {
            // One that went ahead of a job that was refused: the sender hears why.
            if head.number >= EARLY_PACKS_MAX {
                self.answer_unknown(job, head.attempt);
            }
            return;
        };
        if receive.attempt != head.attempt || !matches!(receive.stage, Stage::Opening | Stage::Running) {
            return;
        }
        receive.heard = self.now;
        if receive.packs.insert(head.number, head.number.saturating_add(1)) > 0 {
            let counts = &mut receive.counts;
            counts.entries_total = counts.entries_total.saturating_add(entries);
            counts.bytes_done = counts.bytes_done.saturating_add(bytes);
            counts.bytes_wire = counts.bytes_wire.saturating_add(bytes);
            counts.bytes_total = counts.bytes_total.saturating_add(bytes);
            counts.failures = counts.failures.saturating_add(failures);
        }
        if receive.packs.fragments() > FRAGMENTS_MAX {
            return self.abort_receive(
                job,
                Code::Protocol,
                "the packs of this job arrive in too wild an order",
            );
        }
        if let Some((code, text)) = fatal {
            return self.abort_receive(job, code, text);
        }
        for object in opened {
            self.object_placed(job, object);
        }
        self.maybe_finish(job);
    }

    pub(super) fn job_ended(&mut self, job: JobKey, end: JobEnd) {
        let Some(receive) = self.receives.get_mut(&job) else { return };
        receive.heard = self.now;
        receive.end = Some(end);
        self.maybe_finish(job);
    }

    pub(super) fn maybe_finish(&mut self, job: JobKey) {
        let Some(receive) = self.receives.get_mut(&job) else { return };
        let Some(end) = receive.end else { return };
        if receive.stage != Stage::Running
            || receive.packs.covered() < end.packs
            || receive.over.covered() < end.objects
            || !receive.objects.is_empty()
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
        (failures, text, changes): (u64, &str, &[u8]),
    ) {
        if let Err((code, text)) = result {
            return self.abort_receive(job, code, text);
        }
        let Some(receive) = self.receives.get_mut(&job) else { return };
        receive.counts.failures = receive.counts.failures.max(failures);
        let failures = receive.counts.failures;
        receive.counts.entries_done = receive.counts.entries_total.saturating_sub(failures);
        let trouble = core::mem::take(&mut receive.trouble);
        let text = match (failures, text, trouble.as_str()) {
            (0, _, _) => "",
            (_, "", "") => UNNAMED_FAILURES,
            (_, "", trouble) => trouble,
            (_, text, _) => text,
        };
        let attempt = receive.attempt;
        let done = JobDone { failures, text: bounded(text), changes };
        self.say_last((job, attempt), FrameKind::JobDone, &done);
        let outcome = if failures == 0 { Outcome::Done } else { Outcome::Partial };
        self.end_receive_with(job, outcome, String::from(text), changes.to_vec());
    }

    /// Says the last word of a job and keeps it: the lane that carries it may die, or be slower than one on which the
    /// other end asks what became of the job.
    pub(super) fn say_last<'a>(
        &mut self,
        (job, attempt): (JobKey, u32),
        kind: FrameKind,
        payload: &impl Encoded<'a>,
    ) {
        let mut bytes = alloc::vec![0; FRAME_HEADER_BYTES + CONTROL_PAYLOAD_MAX];
        let (flags, sequence) = (flags_of(job), u64::from(attempt));
        let Ok(length) = dwcp_abi::wire::frame(kind, flags, job.id, sequence, payload, &mut bytes) else {
            debug_assert!(false, "frames are built from bounded fields");
            return;
        };
        bytes.truncate(length);
        self.send_whole_frame(job.peer, &bytes);
        self.remember(job, attempt, bytes);
    }

    /// An attempt is over and must not begin again; without a frame nothing more is to be said of it.
    pub(super) fn remember(&mut self, job: JobKey, attempt: u32, frame: Vec<u8>) {
        self.past.retain(|(past, _, _)| *past != job);
        if self.past.len() == PAST_MAX {
            self.past.pop_front();
        }
        self.past.push_back((job, attempt, frame));
    }

    pub(super) fn abort_receive(&mut self, job: JobKey, code: Code, text: &str) {
        let Some(attempt) = self.receives.get(&job).map(|receive| receive.attempt) else { return };
        self.say_last((job, attempt), FrameKind::JobAbort, &JobAbort { code, text: bounded(text) });
        let outcome = match code {
            Code::Again => Outcome::Interrupted,
            Code::Cancelled => Outcome::Cancelled,
            _ => Outcome::Failed,
        };
        self.close_receiver(job, outcome);
        self.end_receive(job, outcome, String::from(text));
    }

    /// What is incomplete stays for the next attempt, if there will be one.
    pub(super) fn close_receiver(&mut self, job: JobKey, outcome: Outcome) {
        let leftovers = match outcome {
            Outcome::Interrupted => Leftovers::Keep,
            Outcome::Done | Outcome::Partial | Outcome::Failed | Outcome::Cancelled => Leftovers::Remove,
        };
        if self.receives.get(&job).is_some_and(|receive| receive.stage != Stage::Asking) {
            self.outputs.push_back(Output::CloseReceiver { job, leftovers });
        }
    }

    /// Gives a job up that may be tried again.
    pub(super) fn interrupt_receive(&mut self, job: JobKey, text: String) {
        self.close_receiver(job, Outcome::Interrupted);
        self.end_receive(job, Outcome::Interrupted, text);
    }

    pub(super) fn end_receive(&mut self, job: JobKey, outcome: Outcome, text: String) {
        self.end_receive_with(job, outcome, text, Vec::new());
    }

    fn end_receive_with(&mut self, job: JobKey, outcome: Outcome, text: String, changes: Vec<u8>) {
        let Some(receive) = self.receives.remove(&job) else { return };
        self.targets.retain(|&(other, _), _| other != job);
        self.tell_others(&Tell::JobGone { job });
        if job.owner == Owner::Local {
            let lanes = receive.lanes_most.max(self.lanes_of(job.peer));
            let (attempt, counts, elapsed_ns) = (receive.attempt, receive.counts, self.now - receive.started);
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
}

/// How a job ends that either end gives up with this code.
pub(super) fn outcome_of(code: Code) -> Outcome {
    match code {
        Code::Busy | Code::Draining | Code::Timeout | Code::Again => Outcome::Interrupted,
        Code::Cancelled => Outcome::Cancelled,
        Code::Ok
        | Code::Forbidden
        | Code::NotFound
        | Code::NoSpace
        | Code::Integrity
        | Code::Changed
        | Code::Io
        | Code::Protocol => Outcome::Failed,
    }
}

/// The receiver gave the job up after it took packs, and the sender has not heard of that.
const PACKS_LOST: &str = "the receiver has lost the beginning of the job: it is tried again";

/// Gaps in what a job has brought that are remembered. An honest sender leaves as many as it has lanes and objects.
pub(super) const FRAGMENTS_MAX: usize = 16_384;
