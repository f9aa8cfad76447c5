//! How the work of a job gets from its home to the lanes of other workers, and back when those die.
use dwcp_abi::wire::Code;

use super::pump::Given;
use super::{Engine, Extent, FullPack, Piece};
use crate::io::{Hash, JobKey, Output, PeerId, Tell};

impl Engine {
    /// Work has come up where no lane is: the other workers hear of it, or it goes home.
    pub(super) fn pass_on(&mut self, job: JobKey) {
        if self.is_home(job) {
            self.announce_work(job);
        } else {
            self.send_home(job);
        }
    }

    /// Tells the other workers that a job has something for their lanes.
    pub(super) fn announce_work(&mut self, job: JobKey) {
        let Some(attempt) = self.sends.get(&job).map(|send| send.attempt) else { return };
        self.tell_others(&Tell::Work { job, attempt });
    }

    /// The last lane to a peer is gone here: what its jobs have left is for the others.
    pub(super) fn announce_all_work(&mut self, peer: PeerId) {
        let jobs: alloc::vec::Vec<JobKey> = (self.sends.iter())
            .filter(|(job, send)| job.peer == peer && !send.work.is_empty())
            .map(|(&job, _)| job)
            .collect();
        for job in jobs {
            self.announce_work(job);
        }
    }

    /// A home has something to carry.
    pub(super) fn work_announced(&mut self, job: JobKey, attempt: u32) {
        if self.carried.get(&job).is_some_and(|carried| carried.attempt != attempt) {
            self.drop_carried(job);
        }
        self.carried.entry(job).or_default().attempt = attempt;
        let peer = self.peers.entry(job.peer).or_default();
        if !peer.turns.contains(&job) {
            peer.turns.push_back(job);
        }
        self.pump(job.peer);
    }

    /// There are lanes to the peer again: its jobs are asked for work.
    pub(super) fn turn_to_carried(&mut self, peer: PeerId) {
        let Some(state) = self.peers.get_mut(&peer) else { return };
        for &job in self.carried.keys().filter(|job| job.peer == peer) {
            if !state.turns.contains(&job) {
                state.turns.push_back(job);
            }
        }
    }

    /// A carrier's lanes ran dry.
    pub(super) fn ask_for_work(&mut self, job: JobKey) {
        let home = self.home(job);
        let Some(carried) = self.carried.get_mut(&job) else { return };
        if !carried.asked {
            carried.asked = true;
            let attempt = carried.attempt;
            self.tell(home, Tell::Want { job, attempt });
        }
    }

    pub(super) fn give(&mut self, worker: u16, job: JobKey, attempt: u32) {
        let have_lanes = self.has_lanes(job.peer);
        let send = self.sends.get_mut(&job).filter(|send| send.attempt == attempt);
        let given = send
            .and_then(|send| if have_lanes { send.work.split().map(Given::Part) } else { send.work.take() });
        let tell = match given {
            Some(Given::Part(Extent { object, file, size, start, end, source })) => {
                Tell::Part { job, attempt, object, file, size, start, end, source }
            }
            Some(Given::Pack(FullPack { pack, number, entries, bytes })) => {
                Tell::Pack { job, attempt, pack, number, entries, bytes }
            }
            None => Tell::NoWork { job, attempt },
        };
        self.tell(worker, tell);
    }

    pub(super) fn part_given(&mut self, job: JobKey, attempt: u32, extent: Extent) {
        // Without the job it was over before this came: nobody waits for the part.
        let Some(carried) = self.carried.get_mut(&job).filter(|carried| carried.attempt == attempt) else {
            return;
        };
        carried.asked = false;
        carried.work.extents.push_back(extent);
        self.has_work(job);
    }

    pub(super) fn pack_given(&mut self, job: JobKey, attempt: u32, pack: FullPack) {
        match self.carried.get_mut(&job).filter(|carried| carried.attempt == attempt) {
            Some(carried) => {
                carried.asked = false;
                carried.work.packs.push_back(pack);
                self.has_work(job);
            }
            None => self.outputs.push_back(Output::DropPack { pack: pack.pack }),
        }
    }

    pub(super) fn nothing_given(&mut self, job: JobKey, attempt: u32) {
        if let Some(carried) = self.carried.get_mut(&job).filter(|carried| carried.attempt == attempt) {
            carried.asked = false;
        }
    }

    pub(super) fn part_back(
        &mut self,
        job: JobKey,
        attempt: u32,
        piece: (u64, u64, u64),
        source: crate::io::Source,
    ) {
        let (object, start, length) = piece;
        let Some(send) = self.sends.get_mut(&job).filter(|send| send.attempt == attempt) else { return };
        let Some(known) = send.objects.get(&object) else { return };
        let (file, size, end) = (known.file, known.size, start + length);
        send.work.extents.push_front(Extent { object, file, size, start, end, source });
        self.has_work(job);
        self.announce_work(job);
    }

    /// The last lane to a peer is gone here: its work goes home, where there may be others.
    pub(super) fn give_back_carried(&mut self, peer: PeerId) {
        let jobs: alloc::vec::Vec<JobKey> =
            self.carried.keys().filter(|job| job.peer == peer).copied().collect();
        for job in jobs {
            self.send_home(job);
        }
    }

    fn send_home(&mut self, job: JobKey) {
        let home = self.home(job);
        let Some(carried) = self.carried.get_mut(&job) else { return };
        let (attempt, work) = (carried.attempt, core::mem::take(&mut carried.work));
        for Piece { object, offset, length, source, .. } in work.returned.into_iter().chain(work.raced) {
            self.tell(home, Tell::PartBack { job, attempt, object, offset, length, source });
        }
        for Extent { object, start, end, source, .. } in work.extents {
            let (offset, length) = (start, end - start);
            self.tell(home, Tell::PartBack { job, attempt, object, offset, length, source });
        }
        for FullPack { pack, number, entries, bytes } in work.packs {
            self.tell(home, Tell::PackBack { job, attempt, pack, number, entries, bytes });
        }
    }

    /// A job is over at its home.
    pub(super) fn drop_carried(&mut self, job: JobKey) {
        let Some(carried) = self.carried.remove(&job) else { return };
        for pack in carried.work.packs {
            self.outputs.push_back(Output::DropPack { pack: pack.pack });
        }
        self.end_turns(job);
    }

    pub(super) fn end_turns(&mut self, job: JobKey) {
        if let Some(peer) = self.peers.get_mut(&job.peer) {
            peer.turns.retain(|&other| other != job);
        }
    }

    pub(super) fn part_read_anywhere(
        &mut self,
        job: JobKey,
        attempt: u32,
        object: u64,
        offset: u64,
        result: Result<Hash, Code>,
    ) {
        if self.is_home(job) {
            self.part_read(job, attempt, object, offset, result);
        } else {
            self.tell(self.home(job), Tell::PartRead { job, attempt, object, offset, result });
        }
    }

    pub(super) fn resent_anywhere(&mut self, job: JobKey, attempt: u32, wire: u64) {
        if self.is_home(job) {
            self.count_resent(job, attempt, wire);
        } else if wire > 0 {
            self.tell(self.home(job), Tell::Resent { job, attempt, wire });
        }
    }
}
