//! One end of a session without files: an engine and a proactor as a worker has them, with real lanes, real frames and
//! a checksum in every chunk. What a worker reads from files and writes to them is done at once, in memory, and no
//! object is hashed: this measures transport.
use std::collections::HashMap;
use std::net::TcpStream;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use dwcp_abi::codec::Encoded;
use dwcp_abi::wire::{
    CHUNK_BYTES, CHUNK_HEAD_BYTES, ChunkHead, FRAME_HEADER_BYTES, FrameHeader, FrameKind, Held,
    PACK_HEAD_BYTES, PackHead, TreeOptions, checksum,
};
use dwcp_engine::{
    BufferId as Large, Config, Engine, FileId, FinalCheck, FoundObject, Input, JobKey, LaneEnd, LaneId,
    OpenedObject, Output, Owner, PackId, PeerId, Place,
};
use dwcp_sys::proactor::{BufferId, Completion, Handle, Options, Proactor, Span, Wait};

/// What a sender sends.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Data<'a> {
    /// Whatever lies in its buffers.
    Hot,
    /// This memory, from its start to its end, again and again.
    Walked(&'a [u8]),
}

/// One end.
pub(crate) struct Side<'a> {
    engine: Engine,
    proactor: Proactor,
    lanes: Vec<Lane>,
    packs: HashMap<PackId, Vec<u8>>,
    data: Data<'a>,
    bytes: u64,
    start: Instant,
    state: State,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Running,
    /// The job is done, or the peer has closed its lanes because it is.
    Over,
}

struct Lane {
    socket: Handle,
    inbound: BufferId,
    outbound: BufferId,
    reception: Reception,
}

#[derive(Debug, Clone, Copy)]
enum Reception {
    Header,
    Small(FrameHeader),
    Starving(FrameHeader),
    Task(FrameHeader, Large),
}

impl<'a> Side<'a> {
    /// Takes connected sockets as lanes.
    pub(crate) fn new(sockets: Vec<TcpStream>, end: LaneEnd, data: Data<'a>, bytes: u64) -> Result<Self> {
        let options = Options {
            large_count: 2 * BUFFERS,
            large_bytes: DATA + CHUNK_BYTES,
            small_count: 2 * sockets.len() as u32,
            small_bytes: SMALL_BYTES,
            ..Options::default()
        };
        let mut proactor = Proactor::open(&options)?;
        let large: Vec<Large> = proactor.large().map(|buffer| Large(buffer.0)).collect();
        let (send_buffers, receive_buffers) = large.split_at(BUFFERS as usize);
        let engine = Engine::new(Config {
            worker: 0,
            workers: 1,
            send_buffers: send_buffers.to_vec(),
            receive_buffers: receive_buffers.to_vec(),
            initial_streams: sockets.len() as u16,
            max_streams: sockets.len() as u16,
            packs_max: 32,
            objects_max: 128,
            jobs_max: 1,
            patience: 30_000_000_000,
        });
        let mut small: Vec<BufferId> = proactor.small().collect();
        let mut lanes = Vec::new();
        for socket in sockets {
            let (inbound, outbound) = small.pop().zip(small.pop()).context("two small buffers per lane")?;
            let socket = proactor.add(socket.into())?;
            lanes.push(Lane { socket, inbound, outbound, reception: Reception::Header });
        }
        let packs = HashMap::new();
        let (start, state) = (Instant::now(), State::Running);
        let mut side = Self { engine, proactor, lanes, packs, data, bytes, start, state };
        for index in 0..side.lanes.len() {
            let lane = LaneId(index as u32);
            side.input(Input::LaneUp { lane, peer: PEER, instance: 1, end });
            side.receive_more(lane);
        }
        Ok(side)
    }

    /// Orders the one job of a sender.
    pub(crate) fn order(&mut self) {
        let streams = self.lanes.len() as u16;
        self.input(Input::Send {
            job: JOB,
            attempt: 1,
            destination: b"memory",
            filters: b"",
            streams,
            options: TreeOptions::NONE,
        });
    }

    /// Turns until the job is done, or the peer closes its lanes.
    pub(crate) fn run(&mut self) -> Result<()> {
        let mut completions: Vec<Completion> = Vec::new();
        let deadline = Instant::now() + PATIENCE;
        loop {
            for completion in completions.drain(..) {
                let count = completion.result.unwrap_or(0);
                let lane = LaneId(completion.token as u32);
                match completion.token >> 32 {
                    RECEIVE => self.received(lane, count)?,
                    _ => self.input(Input::Sent { lane, bytes: u64::from(count) }),
                }
            }
            self.input(Input::Tick);
            self.carry_out()?;
            self.engine.flush();
            self.carry_out()?;
            if self.state == State::Over {
                return Ok(());
            }
            ensure!(Instant::now() < deadline, "the transfer stands still");
            self.proactor.turn(Wait::Until(TICK), &mut completions)?;
        }
    }

    fn input(&mut self, input: Input<'_>) {
        self.engine.handle(self.start.elapsed().as_nanos() as u64, input);
    }

    fn carry_out(&mut self) -> Result<()> {
        while let Some(output) = self.engine.poll_output() {
            match output {
                Output::SendOutbox { lane } => self.send_outbox(lane),
                Output::SendChunk { lane, job, flags, sequence, buffer, head, .. } => {
                    let start = DATA - (FRAME_HEADER_BYTES + CHUNK_HEAD_BYTES) as u32;
                    let length = DATA - start + head.length as u32;
                    let span = Span { buffer: BufferId(buffer.0), start, length };
                    let frame = self.proactor.bytes_mut(span);
                    write_head(frame, FrameKind::Chunk, (job, flags, sequence), &head)?;
                    self.send(lane, span);
                }
                Output::SendPack { lane, job, flags, sequence, pack, head } => {
                    let outbound = self.lane(lane)?.outbound;
                    let bytes = self.packs.get(&pack).context("a pack that was filled")?;
                    let head_bytes = FRAME_HEADER_BYTES + PACK_HEAD_BYTES;
                    let length = (head_bytes + bytes.len()) as u32;
                    let span = Span { buffer: outbound, start: 0, length };
                    let frame = self.proactor.bytes_mut(span);
                    frame[head_bytes..].copy_from_slice(bytes);
                    write_head(frame, FrameKind::Pack, (job, flags, sequence), &head)?;
                    self.send(lane, span);
                }
                Output::Receive { lane, buffer } => {
                    let lane_state = self.lane(lane)?;
                    if let Reception::Starving(header) = lane_state.reception {
                        lane_state.reception = Reception::Task(header, buffer);
                        self.receive_more(lane);
                    }
                }
                Output::CloseLane { text, .. } => bail!("a lane was closed: {text}"),
                Output::Read { task, offset, length, buffer, .. } => {
                    self.read(offset, length, buffer);
                    self.input(Input::Read { task, result: Ok([0; 32]) });
                }
                Output::Write { task, .. } => {
                    self.input(Input::Written { task, result: Ok([0; 32]), text: "" })
                }
                Output::Unpack { task, .. } => self.unpack(task),
                Output::Ended { text, .. } => {
                    ensure!(text.is_empty(), "the job failed: {text}");
                    self.state = State::Over;
                }
                tree => self.answer(tree),
            }
        }
        Ok(())
    }

    /// What trees of files answer in a worker.
    fn answer(&mut self, output: Output) {
        match output {
            Output::OpenScanner { job, .. } => self.input(Input::ScannerOpened { job, result: Ok(()) }),
            Output::Fill { job } => self.fill(job),
            Output::FillFinals { job } => {
                self.input(Input::FinalsFilled { job, pack: PackId(2), entries: 0, end: true });
            }
            Output::CheckSource { job, object, .. } => {
                self.input(Input::SourceChecked { job, object, check: FinalCheck::Unchanged });
            }
            Output::OpenReceiver { job, .. } => self.input(Input::ReceiverOpened { job, result: Ok(()) }),
            Output::Commit { job, object, .. } => {
                self.input(Input::Committed { job, object, result: Ok(()) })
            }
            Output::Finish { job } => {
                self.input(Input::Finished { job, result: Ok(()), failures: 0, text: "", changes: b"" })
            }
            // The rest lets go of things that are not there, or reports.
            _ => {}
        }
    }

    fn fill(&mut self, job: JobKey) {
        self.packs.insert(PackId(1), b"one object".to_vec());
        let extents = vec![(0, self.bytes)];
        let object = FoundObject { object: 0, file: FileId(0), size: self.bytes, extents };
        let (pack, objects) = (PackId(1), vec![object]);
        self.input(Input::Filled { job, pack, entries: 1, bytes: 0, objects, failures: 0, end: true });
    }

    fn unpack(&mut self, task: dwcp_engine::TaskId) {
        let opened = vec![OpenedObject {
            object: 0,
            place: Place::Open(FileId(0)),
            size: self.bytes,
            held: Vec::new(),
            baseline: Held::NOTHING,
        }];
        self.input(Input::Unpacked { task, entries: 1, bytes: 0, opened, failures: 0, fatal: None });
    }

    fn read(&mut self, offset: u64, length: u32, buffer: Large) {
        let Data::Walked(memory) = self.data else { return };
        let start = offset as usize % memory.len();
        let span = Span { buffer: BufferId(buffer.0), start: DATA, length };
        self.proactor.bytes_mut(span).copy_from_slice(&memory[start..start + length as usize]);
    }

    fn lane(&mut self, lane: LaneId) -> Result<&mut Lane> {
        self.lanes.get_mut(lane.0 as usize).context("a lane that stands")
    }

    fn send_outbox(&mut self, lane: LaneId) {
        let buffer = self.lanes[lane.0 as usize].outbound;
        let room = self.proactor.bytes_mut(Span { buffer, start: 0, length: SMALL_BYTES });
        let length = self.engine.outbox(lane, room) as u32;
        self.send(lane, Span { buffer, start: 0, length });
    }

    fn send(&mut self, lane: LaneId, span: Span) {
        let socket = self.lanes[lane.0 as usize].socket;
        self.proactor.send_all(socket, span, SEND << 32 | u64::from(lane.0));
    }

    fn receive_more(&mut self, lane: LaneId) {
        let state = &self.lanes[lane.0 as usize];
        let header = FRAME_HEADER_BYTES as u32;
        let span = match state.reception {
            Reception::Header => Span { buffer: state.inbound, start: 0, length: header },
            Reception::Small(head) => Span { buffer: state.inbound, start: header, length: head.length },
            Reception::Starving(_) => return,
            Reception::Task(head, buffer) => task_span(&head, buffer),
        };
        self.proactor.recv_all(state.socket, span, RECEIVE << 32 | u64::from(lane.0));
    }

    fn received(&mut self, id: LaneId, count: u32) -> Result<()> {
        let lane = self.lane(id)?;
        let inbound = lane.inbound;
        if count == 0 && !matches!(lane.reception, Reception::Small(head) if head.length == 0) {
            self.state = State::Over;
            return Ok(());
        }
        match lane.reception {
            Reception::Header => {
                let span = Span { buffer: inbound, start: 0, length: FRAME_HEADER_BYTES as u32 };
                let bytes = *self.proactor.bytes(span).first_chunk().context("a whole header")?;
                let header = FrameHeader::from_bytes(&bytes)?;
                if header.kind.is_task() {
                    self.lane(id)?.reception = Reception::Starving(header);
                    self.input(Input::TaskHeader { lane: id, header });
                } else {
                    self.lane(id)?.reception = Reception::Small(header);
                }
            }
            Reception::Small(header) => {
                lane.reception = Reception::Header;
                let span = Span { buffer: inbound, start: FRAME_HEADER_BYTES as u32, length: header.length };
                let payload = self.proactor.bytes(span);
                ensure!(checksum(payload) == header.payload_crc, "a frame's checksum");
                let now = self.start.elapsed().as_nanos() as u64;
                self.engine.handle(now, Input::Frame { lane: id, header, payload });
            }
            Reception::Task(header, buffer) => {
                lane.reception = Reception::Header;
                self.task_complete(id, header, buffer)?;
            }
            Reception::Starving(_) => bail!("received without a place"),
        }
        self.receive_more(id);
        Ok(())
    }

    fn task_complete(&mut self, lane: LaneId, header: FrameHeader, buffer: Large) -> Result<()> {
        let payload = self.proactor.bytes(task_span(&header, buffer));
        ensure!(checksum(payload) == header.payload_crc, "a chunk's checksum");
        let input = if header.kind == FrameKind::Pack {
            let head = PackHead::decode(&payload[..PACK_HEAD_BYTES])?;
            Input::Pack { lane, header, head, buffer }
        } else {
            let head = ChunkHead::decode(&payload[..CHUNK_HEAD_BYTES])?;
            Input::Chunk { lane, header, head, buffer }
        };
        self.input(input);
        Ok(())
    }
}

fn task_span(header: &FrameHeader, buffer: Large) -> Span {
    let head = if header.kind == FrameKind::Pack { PACK_HEAD_BYTES } else { CHUNK_HEAD_BYTES };
    Span { buffer: BufferId(buffer.0), start: DATA - head as u32, length: header.length }
}

fn write_head<'h>(
    frame: &mut [u8],
    kind: FrameKind,
    (job, flags, sequence): (u64, u8, u64),
    head: &impl Encoded<'h>,
) -> Result<()> {
    let (header, payload) = frame.split_at_mut(FRAME_HEADER_BYTES);
    head.encode(payload)?;
    let (length, payload_crc) = (payload.len() as u32, checksum(payload));
    header.copy_from_slice(&FrameHeader { kind, flags, length, job, sequence, payload_crc }.to_bytes());
    Ok(())
}

const PEER: PeerId = PeerId(0);
const JOB: JobKey = JobKey { peer: PEER, owner: Owner::Local, id: 1 };
const RECEIVE: u64 = 1;
const SEND: u64 = 2;
/// Large buffers a direction: few, so that they stay in the cache.
const BUFFERS: u32 = 8;
const SMALL_BYTES: u32 = 68 * 1024;
/// Where a chunk's data starts in its buffer, as in a worker.
const DATA: u32 = 4096;
const TICK: Duration = Duration::from_millis(100);
const PATIENCE: Duration = Duration::from_secs(120);
