//! A peer that speaks nonsense: frames with valid checksums and wrong contents, in any order, more than allowed.
use dwcp_abi::codec::Encoded;
use dwcp_abi::wire::{
    Ack, CHUNK_BYTES, ChunkRanges, Close, Code, ContentId, FLAG_OWNER, FetchRequest, FrameHeader, FrameKind,
    Held, JobAbort, JobAccept, JobDone, JobEnd, JobOpen, ObjectDone, ObjectEnd, ObjectOpened, ObjectPlain,
    TreeOptions, checksum,
};
use dwcp_engine::{LaneId, PeerId};

use super::disk::{FAILED, FINAL, LARGE, SMALL, path_of};
use super::op::Completion;
use super::scenario::MS;
use super::worker::task_frame;
use super::world::{Event, World};

/// What the hostile node remembers.
#[derive(Debug, Default)]
pub(super) struct Hostile {
    /// Frames of honest nodes, to be sent back to them.
    heard: Vec<Vec<u8>>,
    /// Next sequence by connection.
    sequences: std::collections::BTreeMap<usize, u64>,
    frames: u32,
}

/// Frames of a run.
const FRAMES_MAX: u32 = 1500;
const HEARD_MAX: usize = 200;

impl World {
    pub(super) fn is_hostile(&self, node: usize) -> bool {
        self.scenario.hostile && node == 2
    }

    /// Takes everything that arrived and remembers some of it.
    pub(super) fn hostile_turn(&mut self, node: usize) {
        let worker = 0;
        self.nodes[node].workers[worker].turn_at = None;
        for completion in std::mem::take(&mut self.nodes[node].workers[worker].completions) {
            match completion {
                Completion::LaneUp { lane, .. } => {
                    if let Some(lane) = self.nodes[node].workers[worker].lane_mut(lane) {
                        lane.up = true;
                    }
                }
                Completion::LaneDown { lane } => {
                    self.nodes[node].workers[worker].lanes[lane.0 as usize] = None
                }
                Completion::Arrived { lane } => self.hostile_hears(node, lane),
                _ => {}
            }
        }
    }

    fn hostile_hears(&mut self, node: usize, id: LaneId) {
        let reads = self.rng.chance(900);
        let Some(lane) = self.nodes[node].workers[0].lane_mut(id) else { return };
        if !lane.up || !reads {
            return;
        }
        let (connection, side) = (lane.connection, lane.side);
        let bytes: Vec<u8> = lane.inbox.drain(..).collect();
        self.taken(connection, side, bytes.len() as u64);
        if self.hostile.heard.len() < HEARD_MAX && bytes.len() < 4096 {
            self.hostile.heard.push(bytes);
        }
    }

    /// Sends a few frames on the lanes that there are, and opens more.
    pub(super) fn mischief(&mut self) {
        if self.hostile.frames >= FRAMES_MAX || !self.faults_on() && self.now > 15_000 * MS {
            self.nodes[2].wants.clear();
            return;
        }
        let after = self.rng.below(20 * MS);
        self.after(after, Event::Mischief);
        if !self.nodes[2].up {
            return;
        }
        let lanes = self.rng.below(u64::from(self.scenario.lanes_max) + 1) as u16;
        let peer = PeerId(self.rng.below(2) as u16);
        self.nodes[2].wants.insert((peer, 0), lanes);
        for _ in 0..self.rng.below(4) {
            let workers = &self.nodes[2].workers[0];
            let idle: Vec<(usize, usize, usize)> = (workers.lanes.iter().enumerate())
                .filter_map(|(index, lane)| lane.as_ref().map(|lane| (index, lane)))
                .filter(|(_, lane)| lane.up && !lane.closing && lane.sending.is_none())
                .map(|(index, lane)| (index, lane.connection, lane.side))
                .collect();
            if idle.is_empty() {
                return;
            }
            let (index, connection, side) = self.rng.pick(&idle);
            let bytes = self.nonsense(connection);
            self.hostile.frames += 1;
            if let Some(lane) = self.nodes[2].workers[0].lane_mut(LaneId(index as u32)) {
                lane.sending = Some((bytes.len() as u64, None));
            }
            self.transmit(connection, side, bytes);
        }
    }

    fn nonsense(&mut self, connection: usize) -> Vec<u8> {
        match self.rng.below(20) {
            0 => {
                let mut bytes = vec![0; self.rng.between(1, 200) as usize];
                self.rng.fill(&mut bytes);
                bytes
            }
            1..=3 if !self.hostile.heard.is_empty() => {
                let index = self.rng.below(self.hostile.heard.len() as u64) as usize;
                self.hostile.heard[index].clone()
            }
            4..=9 => self.task(connection),
            _ => self.small_frame(),
        }
    }

    fn some_job(&mut self) -> u64 {
        let jobs: Vec<u64> = self.jobs.iter().map(|job| job.id).collect();
        let known = self.rng.pick(&jobs);
        let other = self.rng.below(40);
        if self.rng.chance(700) { known } else { other }
    }

    fn some_number(&mut self) -> u64 {
        let wide = self.rng.next_u64();
        let near = self.rng.below(6);
        self.rng.pick(&[near, near, near, wide, u64::MAX])
    }

    fn task(&mut self, connection: usize) -> Vec<u8> {
        let next = self.hostile.sequences.entry(connection).or_insert(0);
        let mut sequence = *next;
        *next += 1;
        if self.rng.chance(20) {
            sequence = self.some_number();
        }
        let (job, flags) = (self.some_job(), self.rng.below(2) as u8 * FLAG_OWNER);
        let attempt = self.rng.between(1, 2) as u32;
        if self.rng.chance(500) {
            let pack = self.pack();
            let mut head = Vec::from(self.some_number().to_le_bytes());
            head.extend_from_slice(&attempt.to_le_bytes());
            head.extend_from_slice(&[0; 4]);
            return task_frame(FrameKind::Pack, (job, flags, sequence), &head, &pack);
        }
        let length = self.rng.pick(&[0, 1, 100, u64::from(CHUNK_BYTES), 7]);
        let said = if self.rng.chance(800) { length } else { self.some_number() };
        let mut head = Vec::from(self.some_number().to_le_bytes());
        let near = self.rng.below(4) * u64::from(CHUNK_BYTES);
        let offset = if self.rng.chance(800) { near } else { self.some_number() };
        head.extend_from_slice(&offset.to_le_bytes());
        head.extend_from_slice(&said.to_le_bytes());
        head.extend_from_slice(&[self.rng.below(4) as u8, 0, 0, 0]);
        head.extend_from_slice(&attempt.to_le_bytes());
        let data = vec![0x5a; length as usize];
        task_frame(FrameKind::Chunk, (job, flags, sequence), &head, &data)
    }

    fn pack(&mut self) -> Vec<u8> {
        let mut pack = Vec::new();
        for _ in 0..self.rng.below(6) {
            let kind = self.rng.pick(&[SMALL, LARGE, LARGE, FINAL, FAILED, 9]);
            pack.push(kind);
            pack.extend_from_slice(&(self.rng.below(6) as u32).to_le_bytes());
            if kind == LARGE {
                pack.extend_from_slice(&self.some_number().to_le_bytes());
                let size = self.rng.pick(&[0, 1, 100, u64::from(CHUNK_BYTES) * 2, u64::MAX]);
                pack.extend_from_slice(&size.to_le_bytes());
                pack.extend_from_slice(&self.some_number().to_le_bytes());
            } else if kind == SMALL {
                pack.extend_from_slice(&3u32.to_le_bytes());
                pack.extend_from_slice(b"bad");
            }
        }
        pack
    }

    fn small_frame(&mut self) -> Vec<u8> {
        let kind = self.rng.pick(FrameKind::ALL);
        let job = self.rng.below(self.jobs.len() as u64) as usize;
        let path = path_of(job);
        let (attempt, object) = (self.rng.between(0, 3) as u32, self.some_number());
        let code = self.rng.pick(Code::ALL);
        let flag = self.rng.chance(500);
        let mut bytes = vec![0u8; 16 << 10];
        let text = &b"nonsense"[..];
        let (a, b, c) = (self.some_number(), self.some_number(), self.some_number());
        let length = match kind {
            FrameKind::Ack => {
                let mut ack = Ack::new(a);
                for _ in 0..self.rng.below(40) {
                    ack.add(self.some_number() >> 1);
                }
                ack.encode(&mut bytes)
            }
            FrameKind::JobOpen => JobOpen {
                attempt,
                options: TreeOptions::NONE.with(TreeOptions::SKIP_UNCHANGED, flag),
                baselines: flag,
                packs: 0,
                destination: &path,
                filters: b"",
            }
            .encode(&mut bytes),
            FrameKind::Fetch => FetchRequest {
                attempt,
                options: TreeOptions::NONE.with(TreeOptions::SKIP_UNCHANGED, flag),
                sources: &path,
                filters: &path,
            }
            .encode(&mut bytes),
            FrameKind::ObjectOpened => {
                let chunks = ChunkRanges::of_bytes([(a.min(b), b)], c);
                let baseline = Held { content: ContentId([1; 16]), length: if flag { 0 } else { a } };
                ObjectOpened { object, held: flag, chunks, baseline }.encode(&mut bytes)
            }
            FrameKind::ObjectPlain => {
                let chunks = ChunkRanges::of_bytes([(a.min(b), b)], c);
                ObjectPlain { object, chunks }.encode(&mut bytes)
            }
            FrameKind::ObjectEnd => ObjectEnd { object, size: a, digest: [7; 32] }.encode(&mut bytes),
            FrameKind::ObjectDone => ObjectDone { object, code, text }.encode(&mut bytes),
            FrameKind::JobEnd => JobEnd { packs: a, entries: b, objects: c }.encode(&mut bytes),
            FrameKind::JobDone => JobDone { failures: a, text, changes: text }.encode(&mut bytes),
            FrameKind::JobAbort => JobAbort { code, text }.encode(&mut bytes),
            FrameKind::Close => Close { code, text }.encode(&mut bytes),
            FrameKind::Ping | FrameKind::Pong => Ok(8),
            FrameKind::JobAccept => JobAccept { question: flag }.encode(&mut bytes),
            FrameKind::Chunk | FrameKind::Pack => Ok(0),
        };
        bytes.truncate(length.unwrap_or(0));
        if self.rng.chance(100) && !bytes.is_empty() {
            let at = self.rng.below(bytes.len() as u64) as usize;
            bytes[at] ^= 1 << self.rng.below(8);
        }
        let flags = self.rng.below(2) as u8 * FLAG_OWNER;
        let (id, payload_crc) = (self.some_job(), checksum(&bytes));
        let sequence = if self.rng.chance(800) { u64::from(attempt) } else { 0 };
        let header = FrameHeader { kind, flags, length: bytes.len() as u32, job: id, sequence, payload_crc };
        [&header.to_bytes()[..], &bytes].concat()
    }
}
