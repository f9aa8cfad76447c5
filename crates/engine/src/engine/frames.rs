//! What the peer says. Frames of a lane are handled where they arrive; frames of a job at the job's home.
use dwcp_abi::codec::{CodecError, Encoded};
use dwcp_abi::wire::{
    Ack, Close, Code, FLAG_OWNER, FetchRequest, FrameHeader, FrameKind, JobAbort, JobAccept, JobDone, JobEnd,
    JobOpen, ObjectDone, ObjectEnd, ObjectOpened, ObjectPlain,
};

use alloc::string::String;

use super::Engine;
use super::receiving::outcome_of;
use crate::io::{JobKey, LaneId, Owner, Tell};

impl Engine {
    pub(super) fn frame(&mut self, lane: LaneId, header: FrameHeader, payload: &[u8]) {
        if self.lane_mut(lane).is_none_or(|lane| lane.closing) {
            return;
        }
        self.heard(lane);
        let result = match header.kind {
            FrameKind::Ack => Ack::decode(payload).map(|ack| self.acknowledged(lane, &ack)),
            FrameKind::Ping => {
                self.pong(lane, &payload[..payload.len().min(8)]);
                Ok(())
            }
            FrameKind::Pong => {
                self.answered(lane);
                Ok(())
            }
            FrameKind::Close => {
                Close::decode(payload).map(|_| self.close_lane(lane, Code::Ok, "closed by the peer"))
            }
            FrameKind::Chunk | FrameKind::Pack => Err(CodecError::Unknown { field: "small frame", value: 0 }),
            FrameKind::JobOpen
            | FrameKind::JobAccept
            | FrameKind::ObjectOpened
            | FrameKind::ObjectEnd
            | FrameKind::ObjectDone
            | FrameKind::ObjectPlain
            | FrameKind::JobEnd
            | FrameKind::JobDone
            | FrameKind::JobAbort
            | FrameKind::Fetch => {
                if let Some(job) = self.key_of(lane, &header) {
                    if self.is_home(job) {
                        self.job_frame(job, header, payload);
                    } else {
                        let payload = payload.to_vec();
                        self.tell(self.home(job), Tell::Frame { job, header, payload });
                    }
                }
                Ok(())
            }
        };
        if result.is_err() {
            self.close_lane(lane, Code::Protocol, "sent a frame that cannot be read");
        }
    }

    /// The job of a frame that came on a lane.
    pub(super) fn key_of(&self, lane: LaneId, header: &FrameHeader) -> Option<JobKey> {
        let peer = self.lanes.get(lane.0 as usize)?.as_ref()?.peer;
        let owner = if header.flags & FLAG_OWNER != 0 { Owner::Remote } else { Owner::Local };
        Some(JobKey { peer, owner, id: header.job })
    }

    /// A frame of a job whose home this is. One that cannot be read ends the job: its peer speaks another language.
    pub(super) fn job_frame(&mut self, job: JobKey, header: FrameHeader, payload: &[u8]) {
        let opens = matches!(header.kind, FrameKind::JobOpen | FrameKind::Fetch);
        if !opens && !self.is_current(job, &header) {
            return;
        }
        if self.try_job_frame(job, header.kind, payload).is_err() {
            let text =
                "the peer sent a frame of this job that cannot be read: compare the versions of both nodes";
            if self.sends.contains_key(&job) {
                self.abort_send(job, Code::Protocol, text);
            } else if self.receives.contains_key(&job) {
                self.abort_receive(job, Code::Protocol, text);
            }
        }
    }

    /// Whether a frame speaks of the attempt that lives here. A former one's frames may be late; one that nobody
    /// knows here is answered, so that its other end need not wait.
    fn is_current(&mut self, job: JobKey, header: &FrameHeader) -> bool {
        let Ok(attempt) = u32::try_from(header.sequence) else { return false };
        let send = self.sends.get(&job).map(|send| send.attempt);
        let current = send.or_else(|| self.receives.get(&job).map(|receive| receive.attempt));
        let last_word = matches!(header.kind, FrameKind::JobAbort | FrameKind::JobDone);
        if current.is_none() && !last_word {
            self.answer_unknown(job, attempt);
        }
        current == Some(attempt)
    }

    fn try_job_frame(&mut self, job: JobKey, kind: FrameKind, payload: &[u8]) -> Result<(), CodecError> {
        match kind {
            FrameKind::JobOpen => self.job_open(job, JobOpen::decode(payload)?),
            FrameKind::JobAccept => {
                let accept = JobAccept::decode(payload)?;
                if self.sends.contains_key(&job) {
                    self.job_accepted(job, accept);
                } else {
                    self.receive_accepted(job, accept);
                }
            }
            FrameKind::ObjectOpened => {
                let opened = ObjectOpened::decode(payload)?;
                if self.sends.contains_key(&job) {
                    self.object_opened(job, opened);
                } else {
                    self.object_asked(job, opened);
                }
            }
            FrameKind::ObjectEnd => self.object_ended(job, ObjectEnd::decode(payload)?),
            FrameKind::ObjectDone => {
                let done = ObjectDone::decode(payload)?;
                if self.sends.contains_key(&job) {
                    self.object_done(job, done);
                } else {
                    self.object_given_up(job, done);
                }
            }
            FrameKind::ObjectPlain => self.object_plain(job, ObjectPlain::decode(payload)?),
            FrameKind::JobEnd => self.job_ended(job, JobEnd::decode(payload)?),
            FrameKind::JobDone => self.job_done(job, JobDone::decode(payload)?),
            FrameKind::JobAbort => self.job_aborted(job, JobAbort::decode(payload)?),
            FrameKind::Fetch => {
                let fetch = FetchRequest::decode(payload)?;
                self.serve_fetch(job, fetch);
            }
            FrameKind::Chunk
            | FrameKind::Pack
            | FrameKind::Ack
            | FrameKind::Ping
            | FrameKind::Pong
            | FrameKind::Close => {
                return Err(CodecError::Unknown { field: "job frame", value: kind as u64 });
            }
        }
        Ok(())
    }

    fn job_aborted(&mut self, job: JobKey, abort: JobAbort<'_>) {
        let text = String::from_utf8_lossy(abort.text);
        let outcome = outcome_of(abort.code);
        if self.sends.contains_key(&job) {
            self.end_send(job, outcome, text.into_owned());
        } else if self.receives.contains_key(&job) {
            self.close_receiver(job, outcome);
            self.end_receive(job, outcome, text.into_owned());
        }
    }

    /// Ends a job as its operator wants it.
    pub(super) fn stop(&mut self, job: JobKey, code: Code, text: &str) {
        if self.sends.contains_key(&job) {
            self.abort_send(job, code, text);
        } else if self.receives.contains_key(&job) {
            self.abort_receive(job, code, text);
        }
    }
}
