//! Brings work and lanes together. A lane that can send takes the next piece of the next job, so that a slow lane
//! holds up nothing; what a dead lane owed goes first.
use dwcp_abi::wire::{CHUNK_BYTES, ChunkHead, Code, Codec, FLAG_OWNER, PackHead};

use alloc::vec::Vec;

use super::{Engine, Extent, FullPack, LaneRef, Piece, Sending, Task, Work};
use crate::io::{Digest, Hash, JobKey, LaneId, Output, Owner, PeerId, Source, TaskId, Tell};

enum Next {
    Piece { piece: Piece, raced: bool },
    Pack(FullPack),
}

/// What a home gives a carrier.
pub(super) enum Given {
    Part(Extent),
    Pack(FullPack),
}

impl Work {
    fn next(&mut self) -> Option<Next> {
        if let Some(piece) = self.returned.pop_front() {
            return Some(Next::Piece { piece, raced: false });
        }
        if let Some(piece) = self.raced.pop_front() {
            return Some(Next::Piece { piece, raced: true });
        }
        if let Some(pack) = self.packs.pop_front() {
            return Some(Next::Pack(pack));
        }
        let extent = self.extents.front_mut()?;
        let piece = extent.cut();
        if extent.start >= extent.end {
            self.extents.pop_front();
        }
        Some(Next::Piece { piece, raced: false })
    }

    fn needs_buffer(&self) -> bool {
        let piece = self.returned.front().or(self.raced.front());
        match (piece, self.packs.front(), self.extents.front()) {
            (Some(piece), _, _) => piece.source == Source::File,
            (None, None, Some(extent)) => extent.source == Source::File,
            _ => false,
        }
    }

    /// Gives whatever there is away, for a home without lanes.
    pub(super) fn take(&mut self) -> Option<Given> {
        let piece = self.returned.pop_front().or_else(|| self.raced.pop_front());
        if let Some(Piece { object, file, size, offset, length, source }) = piece {
            let (start, end) = (offset, offset + length);
            return Some(Given::Part(Extent { object, file, size, start, end, source }));
        }
        if let Some(pack) = self.packs.pop_front() {
            return Some(Given::Pack(pack));
        }
        self.split().or_else(|| self.extents.pop_front()).map(Given::Part)
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
    pub(super) fn cut(&mut self) -> Piece {
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
    /// A job has something to send: gives it a turn here, or hands it to where there are lanes.
    pub(super) fn has_work(&mut self, job: JobKey) {
        if !self.has_lanes(job.peer) {
            self.pass_on(job);
        }
        let peer = self.peers.entry(job.peer).or_default();
        if !peer.turns.contains(&job) {
            peer.turns.push_back(job);
        }
        self.pump(job.peer);
    }

    /// Hands a peer's work to its lanes until one of the two runs out, or the buffers do.
    pub(super) fn pump(&mut self, peer: PeerId) {
        while self.pump_one(peer) {}
    }

    /// Hands work to the lanes of all peers, a task each in turn: one peer must not keep all buffers.
    pub(super) fn pump_all(&mut self) {
        let mut peers: Vec<PeerId> = self.peers.keys().copied().collect();
        let first = self.served.map_or(0, |served| peers.partition_point(|&peer| peer <= served));
        peers.rotate_left(first);
        while !peers.is_empty() {
            peers.retain(|&peer| self.pump_one(peer));
        }
    }

    fn pump_one(&mut self, peer: PeerId) -> bool {
        let Some(lane) = self.next_idle_lane(peer) else { return false };
        let Some(job) = self.next_job_with_work(peer) else { return false };
        let no_buffer = self.free_send.is_empty();
        let Some((attempt, work)) = self.work_of(job) else { return false };
        if no_buffer && work.needs_buffer() {
            return false;
        }
        let Some(next) = work.next() else { return false };
        if let Some(state) = self.peers.get_mut(&peer) {
            state.idle.pop_front();
            state.turns.rotate_left(1);
        }
        if let Some(state) = self.lane_mut(lane.id) {
            state.listed = false;
        }
        self.served = Some(peer);
        match next {
            Next::Piece { piece, raced } => self.read_for((job, attempt), piece, raced, lane),
            Next::Pack(pack) => self.pack_for(job, attempt, pack, lane),
        }
        self.offer(lane.id);
        true
    }

    /// The lane with the least before it, put first on the list: at the end of an object all wait for the slowest.
    fn next_idle_lane(&mut self, peer: PeerId) -> Option<LaneRef> {
        let idle = &self.peers.get(&peer)?.idle;
        let able = idle.iter().enumerate().filter_map(|(place, &id)| {
            let lane = self.lanes.get(id.0 as usize)?.as_ref()?;
            lane.can_take().then(|| (lane.load(), place, id))
        });
        let (_, place, id) = able.min_by_key(|&(load, place, _)| (load, place))?;
        self.peers.get_mut(&peer)?.idle.swap(0, place);
        self.lane_ref(id)
    }

    /// The first job in turn that has something; jobs without lose their turn, and carriers ask for more.
    fn next_job_with_work(&mut self, peer: PeerId) -> Option<JobKey> {
        loop {
            let job = *self.peers.get(&peer)?.turns.front()?;
            match self.work_of(job) {
                Some((_, work)) if !work.is_empty() => return Some(job),
                _ => {
                    self.peers.get_mut(&peer)?.turns.pop_front();
                    self.ask_for_work(job);
                }
            }
        }
    }

    pub(super) fn work_of(&mut self, job: JobKey) -> Option<(u32, &mut Work)> {
        if let Some(send) = self.sends.get_mut(&job) {
            return Some((send.attempt, &mut send.work));
        }
        let carried = self.carried.get_mut(&job)?;
        Some((carried.attempt, &mut carried.work))
    }

    /// Whether an attempt is still to be sent.
    pub(super) fn is_wanted(&mut self, job: JobKey, attempt: u32) -> bool {
        self.work_of(job).is_some_and(|(current, _)| current == attempt)
    }

    fn read_for(&mut self, (job, attempt): (JobKey, u32), piece: Piece, raced: bool, lane: LaneRef) {
        let buffer = match piece.source {
            Source::File => self.free_send.pop(),
            Source::Hole => None,
        };
        let task =
            self.tasks.insert(Task::Chunk { job, attempt, piece, lane, buffer, read: false, raced, wire: 0 });
        if let Some(state) = self.lane_at(lane) {
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

    fn pack_for(&mut self, job: JobKey, attempt: u32, pack: FullPack, lane: LaneRef) {
        let task = self.tasks.insert(Task::Pack { job, attempt, pack, wire: 0 });
        if let Some(state) = self.lane_at(lane) {
            state.assigned += 1;
            state.ready.push_back(TaskId(task));
        }
        self.send_next(lane.id);
    }

    /// A chunk was read and hashed.
    pub(super) fn read(&mut self, task: TaskId, result: Result<Hash, Code>) {
        if let Some(Task::Known { .. }) = self.tasks.get(task.0) {
            return self.known_read(task, result);
        }
        let Some(Task::Chunk { job, attempt, piece, lane, buffer, read, .. }) = self.tasks.get_mut(task.0)
        else {
            return;
        };
        if core::mem::replace(read, true) {
            return;
        }
        let (job, attempt, piece, lane, buffer) = (*job, *attempt, *piece, *lane, *buffer);
        self.part_read_anywhere(job, attempt, piece.object, piece.offset, result);
        let still_wanted = result.is_ok() && self.is_wanted(job, attempt);
        if still_wanted && let Some(state) = self.lane_at(lane).filter(|state| !state.closing && !state.late)
        {
            state.ready.push_back(task);
            return self.send_next(lane.id);
        }
        if let Some(state) = self.lane_at(lane) {
            state.assigned -= 1;
        }
        self.tasks.remove(task.0);
        if let Some(buffer) = buffer {
            self.release_send(buffer);
        }
        if still_wanted {
            self.return_piece(job, attempt, piece);
        }
        self.offer(lane.id);
        self.pump_all();
    }

    pub(super) fn send_task(&mut self, lane: LaneId, task: TaskId, sequence: u64) {
        let output = match self.tasks.get(task.0) {
            Some(&Task::Chunk { job, attempt, piece, buffer, .. }) => {
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
                    attempt,
                };
                let buffer = buffer.unwrap_or(crate::io::BufferId(u32::MAX));
                let (flags, file) = (flags_of(job), piece.file);
                Output::SendChunk { lane, job: job.id, flags, sequence, buffer, file, head }
            }
            Some(&Task::Pack { job, attempt, pack, .. }) => Output::SendPack {
                lane,
                job: job.id,
                flags: flags_of(job),
                sequence,
                pack: pack.pack,
                head: PackHead { number: pack.number, attempt, reserved: 0 },
            },
            Some(Task::Known { .. } | Task::Write { .. } | Task::Unpack { .. }) | None => {
                debug_assert!(false, "only chunks and packs are queued on lanes");
                return;
            }
        };
        self.outputs.push_back(output);
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
            Some(Task::Known { .. } | Task::Write { .. } | Task::Unpack { .. }) | None => {}
        }
    }

    pub(super) fn task_acknowledged(&mut self, task: TaskId) {
        match self.tasks.remove(task.0) {
            Some(Task::Chunk { job, attempt, piece, wire, .. }) => {
                let Piece { object, length, .. } = piece;
                if self.is_home(job) {
                    self.part_done(job, attempt, object, length, wire);
                } else {
                    self.tell(self.home(job), Tell::PartDone { job, attempt, object, length, wire });
                }
            }
            Some(Task::Pack { job, attempt, pack, wire }) => {
                self.outputs.push_back(Output::DropPack { pack: pack.pack });
                if self.is_home(job) {
                    self.pack_done(job, attempt, pack, wire);
                } else {
                    let FullPack { entries, bytes, .. } = pack;
                    self.tell(self.home(job), Tell::PackDone { job, attempt, entries, bytes, wire });
                }
            }
            Some(Task::Known { .. } | Task::Write { .. } | Task::Unpack { .. }) | None => {}
        }
    }

    /// A task's lane died: its work is to be done again.
    pub(super) fn return_task(&mut self, task: TaskId) {
        match self.tasks.remove(task.0) {
            Some(Task::Chunk { job, attempt, piece, buffer, wire, .. }) => {
                if let Some(buffer) = buffer {
                    self.release_send(buffer);
                }
                self.resent_anywhere(job, attempt, wire);
                self.return_piece(job, attempt, piece);
            }
            Some(Task::Pack { job, attempt, pack, wire }) => {
                self.resent_anywhere(job, attempt, wire);
                self.return_pack(job, attempt, pack);
            }
            Some(Task::Known { .. } | Task::Write { .. } | Task::Unpack { .. }) | None => {}
        }
    }

    pub(super) fn return_piece(&mut self, job: JobKey, attempt: u32, piece: Piece) {
        if let Some((current, work)) = self.work_of(job)
            && current == attempt
        {
            work.returned.push_back(piece);
            self.has_work(job);
        }
    }

    pub(super) fn return_pack(&mut self, job: JobKey, attempt: u32, pack: FullPack) {
        match self.work_of(job) {
            Some((current, work)) if current == attempt => {
                work.packs.push_front(pack);
                self.has_work(job);
            }
            _ => self.outputs.push_back(Output::DropPack { pack: pack.pack }),
        }
    }

    /// Whether any lane of this worker is sending or could be: for the driver's statistics.
    #[must_use]
    pub fn is_sending(&self) -> bool {
        self.lanes.iter().flatten().any(|lane| lane.sending != Sending::Nothing)
    }
}

/// The flags of a job's frames.
pub(super) fn flags_of(job: JobKey) -> u8 {
    if job.owner == Owner::Local { FLAG_OWNER } else { 0 }
}
