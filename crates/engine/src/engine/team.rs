//! What the workers of a node tell each other. A job's decisions are made at its home; the other workers carry
//! parts of its objects on their lanes, and hand over what arrives on them.
use dwcp_abi::wire::Code;

use super::{Engine, Extent, Piece, Target};
use crate::io::{Hash, JobKey, Output, PeerId, Tell};

impl Engine {
    pub(super) fn told(&mut self, worker: u16, tell: Tell) {
        match tell {
            Tell::Frame { job, header, payload } => self.job_frame(job, header, &payload),
            Tell::Send { peer, frame } => self.send_whole_frame(peer, &frame),
            Tell::Lanes { peer, lanes, lost } => self.lanes_elsewhere(worker, peer, lanes, lost),
            Tell::Work { job, attempt } => {
                self.carried.entry(job).or_default().attempt = attempt;
                self.has_work(job);
            }
            Tell::Want { job } => self.give_part(worker, job),
            Tell::Part { job, object, file, size, start, end, source } => {
                let Some(carried) = self.carried.get_mut(&job) else {
                    return self.tell(
                        worker,
                        Tell::PartBack { job, object, offset: start, length: end - start, source },
                    );
                };
                carried.asked = false;
                carried.work.extents.push_back(Extent { object, file, size, start, end, source });
                self.has_work(job);
            }
            Tell::NoWork { job } => {
                if let Some(carried) = self.carried.get_mut(&job) {
                    carried.asked = false;
                }
            }
            Tell::PartRead { job, object, offset, result } => self.part_read(job, object, offset, result),
            Tell::PartDone { job, object, length, wire, .. } => self.part_done(job, object, length, wire),
            Tell::PartBack { job, object, offset, length, source } => {
                let Some(send) = self.sends.get_mut(&job) else { return };
                let Some(known) = send.objects.get(&object) else { return };
                let (file, size) = (known.file, known.size);
                send.work.extents.push_front(Extent {
                    object,
                    file,
                    size,
                    start: offset,
                    end: offset + length,
                    source,
                });
                self.has_work(job);
                self.announce_work(job);
            }
            Tell::JobGone { job } => {
                self.carried.remove(&job);
                self.targets.retain(|&(other, _), _| other != job);
            }
            Tell::Object { job, attempt, object, file, size } => {
                self.targets.insert((job, object), Target { attempt, file, size, writes: 0, closed: false });
            }
            Tell::ObjectGone { job, object } => self.close_target(job, object),
            Tell::ObjectQuiet { job, object } => self.object_quiet(job, object),
            Tell::Wrote { job, object, offset, length, result } => match result {
                Ok(hash) => self.wrote(job, object, offset, length, hash),
                Err((code, text)) => self.write_failed(job, object, code, &text),
            },
            Tell::Unpacked { job, head, entries, bytes, opened, failures, fatal } => {
                let fatal = fatal.as_ref().map(|(code, text)| (*code, text.as_str()));
                self.pack_unpacked(job, head, (entries, bytes, failures), opened, fatal);
            }
        }
    }

    /// Tells the other workers that a job has chunks for their lanes.
    pub(super) fn announce_work(&mut self, job: JobKey) {
        let Some(attempt) = self.sends.get(&job).map(|send| send.attempt) else { return };
        self.tell_others(&Tell::Work { job, attempt });
    }

    /// A carrier's lanes ran dry.
    pub(super) fn ask_for_work(&mut self, job: JobKey) {
        let home = self.home(job);
        let Some(carried) = self.carried.get_mut(&job) else { return };
        if !carried.asked {
            carried.asked = true;
            self.tell(home, Tell::Want { job });
        }
    }

    fn give_part(&mut self, worker: u16, job: JobKey) {
        let part = self.sends.get_mut(&job).and_then(|send| send.work.split());
        let answer = match part {
            Some(Extent { object, file, size, start, end, source }) => {
                Tell::Part { job, object, file, size, start, end, source }
            }
            None => Tell::NoWork { job },
        };
        self.tell(worker, answer);
    }

    /// The last lane to a peer is gone here: its work goes home, where there may be others.
    pub(super) fn give_back_carried(&mut self, peer: PeerId) {
        if self.peers.get(&peer).is_some_and(|peer| !peer.lanes.is_empty()) {
            return;
        }
        let config = (self.config.worker, self.config.workers);
        for (&job, carried) in self.carried.iter_mut().filter(|(job, _)| job.peer == peer) {
            let home = (job.id % u64::from(config.1)) as u16;
            let pieces = carried
                .work
                .returned
                .drain(..)
                .map(|Piece { object, offset, length, source, .. }| (object, offset, length, source));
            let extents = carried
                .work
                .extents
                .drain(..)
                .map(|Extent { object, start, end, source, .. }| (object, start, end - start, source));
            for (object, offset, length, source) in pieces.chain(extents) {
                let tell = Tell::PartBack { job, object, offset, length, source };
                self.outputs.push_back(Output::Tell { worker: home, tell });
            }
        }
    }

    pub(super) fn part_read_anywhere(
        &mut self,
        job: JobKey,
        object: u64,
        offset: u64,
        result: Result<Hash, Code>,
    ) {
        if self.is_home(job) {
            self.part_read(job, object, offset, result);
        } else {
            self.tell(self.home(job), Tell::PartRead { job, object, offset, result });
        }
    }
}
