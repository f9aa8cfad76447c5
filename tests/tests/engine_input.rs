//! The workers of one node against a peer that sends anything at all, in any state: frames from bytes, tasks in and
//! out of order, answers of the driver early, late, good and bad. Nothing panics, nothing grows without bound, and
//! when the lanes are gone and time has passed, nothing is left. `DWCP_INPUT_SEEDS` asks for more seeds.
use std::collections::VecDeque;

use dwcp_abi::codec::Encoded;
use dwcp_abi::wire::{
    CHUNK_HEAD_BYTES, ChunkHead, Code, ContentId, FLAG_OWNER, FrameHeader, FrameKind, Held, PACK_HEAD_BYTES,
    PackHead, TreeOptions,
};
use dwcp_engine::{
    BufferId, Config, Engine, FileId, FinalCheck, FoundObject, Input, JobKey, LaneEnd, LaneId, OpenedObject,
    Output, Owner, PackId, PeerId, Place, Tell,
};
use dwcp_tests::sim::Rng;

const SECOND: u64 = 1_000_000_000;
const BUFFERS: u32 = 4;
const LANES: u32 = 3;
const PEER: PeerId = PeerId(1);
const WHY: &str = "the test says so";

struct Node {
    rng: Rng,
    now: u64,
    engines: Vec<Engine>,
    /// What a driver owes its engine, by worker.
    owed: Vec<(usize, Output)>,
    /// What the workers have to tell each other: from, to.
    tells: VecDeque<(u16, u16, Tell)>,
    /// By worker and lane: the task that is announced and has a buffer.
    announced: Vec<[Option<FrameHeader>; LANES as usize]>,
    ready: Vec<[Option<BufferId>; LANES as usize]>,
    up: Vec<[bool; LANES as usize]>,
    sequences: Vec<[u64; LANES as usize]>,
    numbers: u64,
}

impl Node {
    fn new(seed: u64) -> Self {
        let mut rng = Rng::new(seed);
        let workers = rng.between(1, 3) as u16;
        let engine = |worker| {
            Engine::new(Config {
                worker,
                workers,
                send_buffers: (0..BUFFERS).map(BufferId).collect(),
                receive_buffers: (BUFFERS..2 * BUFFERS).map(BufferId).collect(),
                initial_streams: 4,
                max_streams: 8,
                packs_max: 3,
                objects_max: 4,
                jobs_max: 6,
                patience: 10 * SECOND,
            })
        };
        let count = usize::from(workers);
        Self {
            rng,
            now: 0,
            engines: (0..workers).map(engine).collect(),
            owed: Vec::new(),
            tells: VecDeque::new(),
            announced: vec![[None; LANES as usize]; count],
            ready: vec![[None; LANES as usize]; count],
            up: vec![[false; LANES as usize]; count],
            sequences: vec![[0; LANES as usize]; count],
            numbers: 0,
        }
    }

    fn handle(&mut self, worker: usize, input: Input<'_>) {
        self.engines[worker].handle(self.now, input);
        self.drain(worker);
        let mut tells = 0;
        while let Some((from, to, tell)) = self.tells.pop_front() {
            tells += 1;
            assert!(tells < 5000, "the workers talk without end");
            self.engines[usize::from(to)].handle(self.now, Input::Told { worker: from, tell });
            self.drain(usize::from(to));
        }
    }

    fn drain(&mut self, worker: usize) {
        self.engines[worker].flush();
        let mut outputs = 0;
        while let Some(output) = self.engines[worker].poll_output() {
            outputs += 1;
            assert!(outputs < 5000, "one input has too many outputs");
            match output {
                Output::Tell { worker: to, tell } => self.tells.push_back((worker as u16, to, tell)),
                Output::Receive { lane, buffer } => {
                    let place = &mut self.ready[worker][lane.0 as usize];
                    assert!(place.replace(buffer).is_none(), "a lane gets two buffers");
                }
                Output::Ended { job, .. } => assert_eq!(job.owner, Owner::Local, "a peer's job ends here"),
                output => self.owed.push((worker, output)),
            }
        }
        assert!(self.engines[worker].tasks() < 1000, "an engine has too many tasks");
        assert!(self.engines[worker].jobs() <= 6, "an engine has too many jobs");
    }

    /// The driver answers one of the things that it owes.
    fn answer(&mut self) {
        if self.owed.is_empty() {
            return;
        }
        let index = self.rng.below(self.owed.len() as u64) as usize;
        let (worker, output) = self.owed.remove(index);
        let fails = self.rng.chance(100);
        let code = self.rng.pick(&[Code::Io, Code::NoSpace, Code::Forbidden, Code::Changed]);
        let result = if fails { Err((code, WHY)) } else { Ok(()) };
        let hash = if fails { Err(code) } else { Ok([self.rng.next_u64() as u8 & 1; 32]) };
        match output {
            Output::SendOutbox { lane } => {
                let bytes = self.engines[worker].outbox(lane, &mut vec![0; 1 << 16]) as u64;
                self.sent(worker, lane, bytes);
            }
            Output::SendChunk { lane, .. } | Output::SendPack { lane, .. } => self.sent(worker, lane, 1000),
            Output::CloseLane { lane, .. } => self.lane_down(worker, lane),
            Output::Read { task, .. } => self.handle(worker, Input::Read { task, result: hash }),
            Output::Write { task, .. } => {
                self.handle(worker, Input::Written { task, result: hash, text: WHY })
            }
            Output::OpenScanner { job, .. } => self.handle(worker, Input::ScannerOpened { job, result }),
            Output::Fill { job } => self.fill(worker, job),
            Output::FillFinals { job } => {
                let (pack, entries, end) = (PackId(self.number()), self.rng.below(3), self.rng.chance(500));
                self.handle(worker, Input::FinalsFilled { job, pack, entries, end });
            }
            Output::Prepare { job, object, .. } => self.handle(worker, Input::Prepared { job, object }),
            Output::CheckSource { job, object, .. } => {
                let check = if fails { FinalCheck::Changed } else { FinalCheck::Unchanged };
                self.handle(worker, Input::SourceChecked { job, object, check });
            }
            Output::OpenReceiver { job, .. } => self.handle(worker, Input::ReceiverOpened { job, result }),
            Output::Unpack { task, early: true, .. } if self.rng.chance(100) => {
                self.handle(worker, Input::Unclaimed { task });
            }
            Output::Unpack { task, .. } => self.unpack(worker, task),
            Output::Commit { job, object, .. } => {
                self.handle(worker, Input::Committed { job, object, result });
            }
            Output::Finish { job } => {
                let failures = self.rng.below(2);
                self.handle(worker, Input::Finished { job, result, failures, text: WHY, changes: b"" });
            }
            _ => {}
        }
    }

    fn number(&mut self) -> u64 {
        self.numbers += 1;
        self.numbers
    }

    fn fill(&mut self, worker: usize, job: JobKey) {
        let mut objects = Vec::new();
        for _ in 0..self.rng.below(3) {
            let object = self.rng.between(1, 9);
            let (file, size) = (FileId(self.number()), self.rng.pick(&[0, 1, 1 << 19, 3 << 19]));
            objects.push(FoundObject { object, file, size, extents: vec![(0, size.min(1 << 19))] });
        }
        let (pack, end) = (PackId(self.number()), self.rng.chance(200));
        let (entries, bytes, failures) = (objects.len() as u64 + self.rng.below(3), 10, 0);
        self.handle(worker, Input::Filled { job, pack, entries, bytes, objects, failures, end });
    }

    fn unpack(&mut self, worker: usize, task: dwcp_engine::TaskId) {
        let mut opened = Vec::new();
        for _ in 0..self.rng.below(4) {
            let file = FileId(self.number());
            let open = Place::Open(file);
            let place = self.rng.pick(&[open, open, Place::Held, Place::Refused(Code::Forbidden)]);
            let size = self.rng.pick(&[0, 1, 1 << 19, 3 << 19, u64::MAX]);
            let held = if self.rng.chance(300) { vec![(0, size.min(1 << 19))] } else { Vec::new() };
            let baseline = Held { content: ContentId([3; 16]), length: self.rng.below(2) };
            opened.push(OpenedObject { object: some_number(&mut self.rng), place, size, held, baseline });
        }
        let fatal = self.rng.chance(20).then_some((Code::NoSpace, WHY));
        let (entries, bytes) = (some_number(&mut self.rng), some_number(&mut self.rng));
        self.handle(worker, Input::Unpacked { task, entries, bytes, opened, failures: 0, fatal });
    }

    fn sent(&mut self, worker: usize, lane: LaneId, bytes: u64) {
        if self.up[worker][lane.0 as usize] {
            self.handle(worker, Input::Sent { lane, bytes });
        }
    }

    fn lane_up(&mut self, worker: usize) {
        let Some(index) = self.up[worker].iter().position(|&up| !up) else { return };
        let instance = 7 + self.rng.below(40) / 39;
        let end = self.rng.pick(&[LaneEnd::Dialled, LaneEnd::Accepted]);
        self.up[worker][index] = true;
        self.sequences[worker][index] = 0;
        let lane = LaneId(index as u32);
        self.handle(worker, Input::LaneUp { lane, peer: PEER, instance, end });
    }

    fn lane_down(&mut self, worker: usize, lane: LaneId) {
        let index = lane.0 as usize;
        if !std::mem::replace(&mut self.up[worker][index], false) {
            return;
        }
        (self.announced[worker][index], self.ready[worker][index]) = (None, None);
        self.owed.retain(|(owing, output)| {
            let of = match output {
                Output::SendOutbox { lane }
                | Output::SendChunk { lane, .. }
                | Output::SendPack { lane, .. }
                | Output::CloseLane { lane, .. } => Some(*lane),
                _ => None,
            };
            *owing != worker || of != Some(lane)
        });
        self.handle(worker, Input::LaneClosing { lane });
        self.handle(worker, Input::LaneDown { lane });
    }

    /// The peer sends something.
    fn frame(&mut self, worker: usize) {
        let index = self.rng.below(u64::from(LANES)) as usize;
        if !self.up[worker][index] {
            return;
        }
        let lane = LaneId(index as u32);
        if let Some(header) = self.announced[worker][index] {
            let Some(buffer) = self.ready[worker][index].take() else { return };
            self.announced[worker][index] = None;
            return self.task(worker, lane, header, buffer);
        }
        let mut kind = self.rng.pick(FrameKind::ALL);
        if self.rng.chance(300) {
            kind = self.rng.pick(&[FrameKind::Chunk, FrameKind::Pack]);
        }
        let flags = self.rng.below(2) as u8 * FLAG_OWNER;
        let mut header =
            FrameHeader { kind, flags, length: 0, job: self.rng.below(6), sequence: 0, payload_crc: 0 };
        if kind.is_task() {
            header.sequence = self.sequences[worker][index];
            header.length = self.rng.pick(&[CHUNK_HEAD_BYTES as u32, CHUNK_HEAD_BYTES as u32 + (1 << 19)]);
            if self.rng.chance(10) {
                header.sequence = some_number(&mut self.rng);
            }
            self.sequences[worker][index] += 1;
            self.announced[worker][index] = Some(header);
            return self.handle(worker, Input::TaskHeader { lane, header });
        }
        header.sequence = if self.rng.chance(900) { 1 } else { some_number(&mut self.rng) };
        let mut payload = vec![0; self.rng.pick(&[0, 1, 4, 9, 13, 24, 40, 48, 64])];
        for part in payload.chunks_mut(8) {
            let value = some_number(&mut self.rng).to_le_bytes();
            part.copy_from_slice(&value[..part.len()]);
        }
        if self.rng.chance(300) {
            payload = vec![1, 0, 0, 0, 0, 1, 0, b'x'];
        }
        header.length = payload.len() as u32;
        self.handle(worker, Input::Frame { lane, header, payload: &payload });
    }

    fn task(&mut self, worker: usize, lane: LaneId, header: FrameHeader, buffer: BufferId) {
        let mut bytes = [0; CHUNK_HEAD_BYTES];
        for part in bytes.chunks_mut(8) {
            part.copy_from_slice(&some_number(&mut self.rng).to_le_bytes());
        }
        let attempt = 1u32.to_le_bytes();
        if header.kind == FrameKind::Pack {
            bytes[8..12].copy_from_slice(&attempt);
            let head = PackHead::decode(&bytes[..PACK_HEAD_BYTES]).expect("any bytes are a pack's head");
            return self.handle(worker, Input::Pack { lane, header, head, buffer });
        }
        let length = u64::from(header.length) - CHUNK_HEAD_BYTES as u64;
        bytes[16..24].copy_from_slice(&self.rng.pick(&[length, 1 << 19, 1]).to_le_bytes());
        bytes[24] = self.rng.below(3) as u8;
        bytes[28..].copy_from_slice(&attempt);
        let head = ChunkHead::decode(&bytes).expect("the codec is known");
        if self.rng.chance(200) {
            return self.handle(worker, Input::Unmade { lane, header, head, buffer });
        }
        self.handle(worker, Input::Chunk { lane, header, head, buffer });
    }

    fn command(&mut self, worker: usize) {
        let id = self.rng.below(2) * self.engines.len() as u64 + worker as u64;
        let job = JobKey { peer: PEER, owner: Owner::Local, id };
        let (attempt, streams, options) = (1, 0, TreeOptions::NONE);
        match self.rng.below(4) {
            0 => self.handle(
                worker,
                Input::Send { job, attempt, destination: b"d", filters: b"", streams, options },
            ),
            1 => self.handle(
                worker,
                Input::Fetch { job, attempt, sources: b"s", filters: b"f", streams, options },
            ),
            2 => self.handle(worker, Input::Pause { job }),
            _ => self.handle(worker, Input::Cancel { job }),
        }
    }

    fn step(&mut self) {
        let worker = self.rng.below(self.engines.len() as u64) as usize;
        self.now += self.rng.below(SECOND / 100);
        match self.rng.below(100) {
            0 => self.command(worker),
            1..=3 => self.lane_up(worker),
            4 => {
                let lane = LaneId(self.rng.below(u64::from(LANES)) as u32);
                self.lane_down(worker, lane);
            }
            5 => self.handle(worker, Input::Tick),
            6..=50 => self.answer(),
            _ => self.frame(worker),
        }
    }

    /// Lanes go, operations end, time passes.
    fn wind_up(&mut self) {
        for worker in 0..self.engines.len() {
            (0..LANES).for_each(|lane| self.lane_down(worker, LaneId(lane)));
        }
        for _ in 0..100 {
            for _ in 0..self.owed.len() {
                self.answer();
            }
            self.now += SECOND;
            (0..self.engines.len()).for_each(|worker| self.handle(worker, Input::Tick));
        }
        for engine in &self.engines {
            assert_eq!(engine.buffers_free(), (BUFFERS as usize, BUFFERS as usize), "buffers are lost");
            assert!(engine.is_idle(), "something is left: {engine:#?}");
        }
    }
}

/// Small mostly, and sometimes as large as can be.
fn some_number(rng: &mut Rng) -> u64 {
    let (near, any) = (rng.below(5), rng.next_u64());
    let chunk = near << 19;
    rng.pick(&[near, near, near, chunk, chunk, any, u64::MAX])
}

#[test]
fn anything_from_a_peer_is_survived() {
    let seeds = std::env::var("DWCP_INPUT_SEEDS").ok().and_then(|text| text.parse().ok()).unwrap_or(150);
    let first = std::env::var("DWCP_INPUT_SEED").ok().and_then(|text| text.parse().ok());
    for seed in first.map_or(0..seeds, |seed| seed..seed + 1) {
        let survived = std::panic::catch_unwind(|| {
            let mut node = Node::new(seed);
            (0..3000).for_each(|_| node.step());
            node.wind_up();
        });
        let line = "cargo test -p dwcp-tests anything_from_a_peer -- --nocapture";
        assert!(survived.is_ok(), "DWCP_INPUT_SEED={seed} {line}");
    }
}
