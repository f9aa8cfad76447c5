//! Brings work and lanes together. A lane that can send takes the next piece of the next job, so that a slow lane
//! holds up nothing; what a dead lane owed goes first.
use dwcp_abi::wire::{CHUNK_BYTES, ChunkHead, Code, Codec, FLAG_OWNER, PackHead};

use super::{Engine, Extent, FullPack, Piece, Sending, Task, Work};
use crate::io::{Digest, Hash, JobKey, LaneId, Output, Owner, PeerId, Source, TaskId, Tell};

enum Next {
    Piece(Piece),
    Pack(FullPack),
}

impl Work {
    fn next(&mut self) -> Option<Next> {
        if let Some(piece) = self.returned.pop_front() {
            return Some(Next::Piece(piece));
        }
        if let Some(pack) = self.packs.pop_front() {
            return Some(Next::Pack(pack));
        }
        let extent = self.extents.front_mut()?;
        let piece = extent.cut();
        if extent.start >= extent.end {
            self.extents.pop_front();
        }
        Some(Next::Piece(piece))
    }

    fn needs_buffer(&self) -> bool {
        match (self.returned.front(), self.packs.front(), self.extents.front()) {
            (Some(piece), _, _) => piece.source == Source::File,
            (None, None, Some(extent)) => extent.source == Source::File,
            _ => false,
        }
    }

    /// Gives the second half of the longest extent away, on a chunk border; the whole of it when there are others.
    pub(super) fn split(&mut self) -> Option<Extent> {
        let longest = self.extents.iter().enumerate().max_by_key(|(_, extent)| extent.end - extent.start)?.0;
        let chunk = u64::from(CHUNK_BYTES);
        let extent = self.extents.get_mut(longest)?;
        let chunks = (extent.end - extent.start).div_ceil(chunk);
        if chunks < 2 {
            return if self.extents.len() > 1 { self.extents.remove(longest) } else { None };
        }
        let middle = extent.start + chunks / 2 * chunk;
        let given = Extent { start: middle, ..*extent };
        extent.end = middle;
        Some(given)
    }
}

impl Extent {
    fn cut(&mut self) -> Piece {
        let border = (self.start / u64::from(CHUNK_BYTES) + 1) * u64::from(CHUNK_BYTES);
        let end = border.min(self.end);
        let piece = Piece {
            object: self.object,
            file: self.file,
            size: self.size,
            offset: self.start,
            length: end - self.start,
            source: self.source,
        };
        self.start = end;
        piece
    }
}

impl Engine {
    /// A job has something to send: gives it a turn.
    pub(super) fn has_work(&mut self, job: JobKey) {
        let peer = self.peers.entry(job.peer).or_default();
        if !peer.turns.contains(&job) {
            peer.turns.push_back(job);
        }
        self.pump(job.peer);
    }

    /// Hands work to lanes until one of the two runs out, or the buffers do.
    pub(super) fn pump(&mut self, peer: PeerId) {
        while let Some(lane) = self.next_idle_lane(peer) {
            let Some(job) = self.next_job_with_work(peer) else { break };
            let no_buffer = self.free_send.is_empty();
            let Some(work) = self.work_of(job) else { break };
            if no_buffer && work.needs_buffer() {
                break;
            }
            let Some(next) = work.next() else { break };
            if let Some(state) = self.peers.get_mut(&peer) {
                state.idle.pop_front();
                state.turns.rotate_left(1);
            }
            match next {
                Next::Piece(piece) => self.read_for(job, piece, lane),
                Next::Pack(pack) => self.pack_for(job, pack, lane),
            }
            self.offer(lane);
        }
    }

    fn next_idle_lane(&mut self, peer: PeerId) -> Option<LaneId> {
        loop {
            let lane = *self.peers.get(&peer)?.idle.front()?;
            match self.lane_mut(lane) {
                Some(state) if state.can_take() => {
                    state.listed = false;
                    return Some(lane);
                }
                Some(state) => state.listed = false,
                None => {}
            }
            self.peers.get_mut(&peer)?.idle.pop_front();
        }
    }

    /// The first job in turn that has something; jobs without lose their turn, and carriers ask for more.
    fn next_job_with_work(&mut self, peer: PeerId) -> Option<JobKey> {
        loop {
            let job = *self.peers.get(&peer)?.turns.front()?;
            match self.work_of(job) {
                Some(work) if !work.is_empty() => return Some(job),
                _ => {
                    self.peers.get_mut(&peer)?.turns.pop_front();
                    self.ask_for_work(job);
                }
            }
        }
    }

    pub(super) fn work_of(&mut self, job: JobKey) -> Option<&mut Work> {
        if let Some(send) = self.sends.get_mut(&job) {
            return Some(&mut send.work);
        }
        Some(&mut self.carried.get_mut(&job)?.work)
    }

    fn read_for(&mut self, job: JobKey, piece: Piece, lane: LaneId) {
        let buffer = match piece.source {
            Source::File => self.free_send.pop(),
            Source::Hole => None,
        };
        let task =
            self.tasks.insert(Task::Chunk { job, piece, lane: Some(lane), buffer, read: false, wire: 0 });
        if let Some(state) = self.lane_mut(lane) {
            state.assigned += 1;
        }
        self.outputs.push_back(Output::Read {
            task: TaskId(task),
            file: piece.file,
            offset: piece.offset,
            length: piece.length as u32,
            source: piece.source,
            buffer: buffer.unwrap_or(crate::io::BufferId(u32::MAX)),
            digest: Digest { object_size: piece.size },
        });
    }

    fn pack_for(&mut self, job: JobKey, pack: FullPack, lane: LaneId) {
        let task = self.tasks.insert(Task::Pack { job, pack, wire: 0 });
        if let Some(state) = self.lane_mut(lane) {
            state.assigned += 1;
            state.ready.push_back(TaskId(task));
        }
        self.send_next(lane);
    }

    /// A chunk was read and hashed.
    pub(super) fn read(&mut self, task: TaskId, result: Result<Hash, Code>) {
        let Some(Task::Chunk { job, piece, lane, buffer, read, .. }) = self.tasks.get_mut(task.0) else {
            return;
        };
        *read = true;
        let (job, piece, lane, buffer) = (*job, *piece, *lane, *buffer);
        self.part_read_anywhere(job, piece.object, piece.offset, result);
        let still_wanted = result.is_ok() && self.work_of(job).is_some();
        let lane = lane.filter(|&lane| matches!(self.lane_mut(lane), Some(state) if !state.closing));
        match lane {
            Some(lane) if still_wanted => {
                if let Some(state) = self.lane_mut(lane) {
                    state.ready.push_back(task);
                }
                self.send_next(lane);
            }
            lane => {
                if let Some(state) = lane.and_then(|lane| self.lane_mut(lane)) {
                    state.assigned -= 1;
                }
                self.tasks.remove(task.0);
                if let Some(buffer) = buffer {
                    self.release_send(buffer);
                }
                if still_wanted {
                    self.return_piece(job, piece);
                }
                if let Some(lane) = lane {
                    self.offer(lane);
                }
                self.pump(job.peer);
            }
        }
    }

    pub(super) fn send_task(&mut self, lane: LaneId, task: TaskId, sequence: u64) {
        let output = match self.tasks.get(task.0) {
            Some(&Task::Chunk { job, piece, buffer, .. }) => {
                let codec = match piece.source {
                    Source::File => Codec::Raw,
                    Source::Hole => Codec::Hole,
                };
                let head = ChunkHead {
                    object: piece.object,
                    offset: piece.offset,
                    length: piece.length,
                    codec,
                    reserved: [0; 3],
                    attempt: self.attempt_of(job),
                };
                let buffer = buffer.unwrap_or(crate::io::BufferId(u32::MAX));
                Output::SendChunk { lane, job: job.id, flags: flags_of(job), sequence, buffer, head }
            }
            Some(&Task::Pack { job, pack, .. }) => Output::SendPack {
                lane,
                job: job.id,
                flags: flags_of(job),
                sequence,
                pack: pack.pack,
                head: PackHead { number: pack.number, attempt: self.attempt_of(job), reserved: 0 },
            },
            Some(Task::Write { .. } | Task::Unpack { .. }) | None => {
                debug_assert!(false, "only chunks and packs are queued on lanes");
                return;
            }
        };
        self.outputs.push_back(output);
    }

    fn attempt_of(&self, job: JobKey) -> u32 {
        let carried = self.carried.get(&job).map_or(0, |carried| carried.attempt);
        self.sends.get(&job).map_or(carried, |send| send.attempt)
    }

    /// The kernel has all bytes of a task: its buffer is free again. The source is read once more if they get lost.
    pub(super) fn task_sent(&mut self, task: TaskId, bytes: u64) {
        match self.tasks.get_mut(task.0) {
            Some(Task::Chunk { buffer, wire, .. }) => {
                *wire = bytes;
                if let Some(buffer) = buffer.take() {
                    self.release_send(buffer);
                }
            }
            Some(Task::Pack { wire, .. }) => *wire = bytes,
            Some(Task::Write { .. } | Task::Unpack { .. }) | None => {}
        }
    }

    pub(super) fn task_acknowledged(&mut self, task: TaskId) {
        match self.tasks.remove(task.0) {
            Some(Task::Chunk { job, piece, wire, .. }) => {
                if self.is_home(job) {
                    self.part_done(job, piece.object, piece.length, wire);
                } else {
                    let (object, offset, length) = (piece.object, piece.offset, piece.length);
                    self.tell(self.home(job), Tell::PartDone { job, object, offset, length, wire });
                }
            }
            Some(Task::Pack { job, pack, wire, .. }) => self.pack_done(job, pack, wire),
            Some(Task::Write { .. } | Task::Unpack { .. }) | None => {}
        }
    }

    /// A task's lane died: its work is to be done again.
    pub(super) fn return_task(&mut self, task: TaskId) {
        match self.tasks.remove(task.0) {
            Some(Task::Chunk { job, piece, buffer, wire, .. }) => {
                if let Some(buffer) = buffer {
                    self.release_send(buffer);
                }
                self.count_resent(job, wire);
                self.return_piece(job, piece);
            }
            Some(Task::Pack { job, pack, wire, .. }) => {
                self.count_resent(job, wire);
                match self.sends.get_mut(&job) {
                    Some(send) => send.work.packs.push_front(pack),
                    None => self.outputs.push_back(Output::DropPack { pack: pack.pack }),
                }
                self.has_work(job);
            }
            Some(Task::Write { .. } | Task::Unpack { .. }) | None => {}
        }
    }

    pub(super) fn return_piece(&mut self, job: JobKey, piece: Piece) {
        if let Some(work) = self.work_of(job) {
            work.returned.push_back(piece);
            self.has_work(job);
        }
    }

    /// Whether any lane of this worker is sending or could be: for the driver's statistics.
    #[must_use]
    pub fn is_sending(&self) -> bool {
        self.lanes.iter().flatten().any(|lane| lane.sending != Sending::Nothing)
    }
}

fn flags_of(job: JobKey) -> u8 {
    if job.owner == Owner::Local { FLAG_OWNER } else { 0 }
}
