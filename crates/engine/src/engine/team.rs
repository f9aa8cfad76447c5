//! What the workers of a node tell each other. A job's decisions are made at its home; the other workers carry
//! parts of its objects on their lanes, and hand over what arrives on them.
use super::{Engine, Extent, FullPack, Target};
use crate::io::Tell;

impl Engine {
    pub(super) fn told(&mut self, worker: u16, tell: Tell) {
        match tell {
            Tell::Frame { job, header, payload } => self.job_frame(job, header, &payload),
            Tell::Send { peer, frame } => drop(self.send_here(peer, &frame)),
            Tell::Lanes { peer, instance, lanes, lost } => {
                self.lanes_elsewhere(worker, (peer, instance), lanes, lost);
            }
            Tell::Work { job, attempt } => self.work_announced(job, attempt),
            Tell::Want { job, attempt } => self.give(worker, job, attempt),
            Tell::Part { job, attempt, object, file, size, start, end, source } => {
                self.part_given(job, attempt, Extent { object, file, size, start, end, source });
            }
            Tell::Pack { job, attempt, pack, number, entries, bytes } => {
                self.pack_given(job, attempt, FullPack { pack, number, entries, bytes });
            }
            Tell::NoWork { job, attempt } => self.nothing_given(job, attempt),
            Tell::PartRead { job, attempt, object, offset, result } => {
                self.part_read(job, attempt, object, offset, result);
            }
            Tell::PartDone { job, attempt, object, length, wire } => {
                self.part_done(job, attempt, object, length, wire);
            }
            Tell::PackDone { job, attempt, entries, bytes, wire } => {
                self.pack_counted(job, attempt, (entries, bytes), wire);
            }
            Tell::Resent { job, attempt, wire } => self.count_resent(job, attempt, wire),
            Tell::PartBack { job, attempt, object, offset, length, source } => {
                self.part_back(job, attempt, (object, offset, length), source);
            }
            Tell::PackBack { job, attempt, pack, number, entries, bytes } => {
                self.return_pack(job, attempt, FullPack { pack, number, entries, bytes });
            }
            Tell::JobGone { job } => {
                self.drop_carried(job);
                self.targets.retain(|&(other, _), _| other != job);
            }
            Tell::Object { job, attempt, object, file, size } => {
                self.targets.insert((job, object), Target { attempt, file, size, writes: 0, closed: false });
            }
            Tell::ObjectGone { job, attempt, object } => self.close_target(job, attempt, object),
            Tell::ObjectQuiet { job, attempt, object } => self.object_quiet(job, attempt, object),
            Tell::Wrote { job, attempt, object, offset, length, result } => match result {
                Ok(hash) => self.wrote(job, attempt, object, (offset, length), hash),
                Err((code, text)) => self.write_failed(job, attempt, object, code, &text),
            },
            Tell::Unmade { job, attempt, object, offset, length } => {
                self.chunk_unmade(job, attempt, object, (offset, length));
            }
            Tell::Unpacked { job, head, entries, bytes, opened, failures, fatal } => {
                let fatal = fatal.as_ref().map(|(code, text)| (*code, text.as_str()));
                self.pack_unpacked(job, head, (entries, bytes, failures), opened, fatal);
            }
        }
    }
}
