//! One turn of a worker, as the dataplane's own loop has it: what is collected is gathered first, then the other
//! workers are heard, then the engine gets what was gathered, then its outputs become operations.
use dwcp_abi::codec::Encoded;
use dwcp_abi::wire::{
    CHUNK_HEAD_BYTES, ChunkHead, Codec, FLAG_OWNER, FRAME_HEADER_BYTES, FrameHeader, FrameKind, ObjectEnd,
    PACK_HEAD_BYTES, PackHead, checksum,
};
use dwcp_engine::{BufferId, Input, JobKey, LaneId, Output, Owner, PeerId};

use super::node::{Against, File};
use super::op::Completion;
use super::world::{Event, World};

/// Chunks with a baseline that are smaller as differences, and those of them that the receiver cannot make.
const DIFFERENCES_PER_MILLE: u64 = 700;
const UNMADE_PER_MILLE: u64 = 150;
/// How often differences are worth sending, when a lane comes up.
const DELTAS_PAY_PER_MILLE: u64 = 500;
/// Outputs of one turn. More is a loop.
const OUTPUTS_MAX: usize = 20_000;
/// Stands for "no buffer".
pub(super) const NO_BUFFER: BufferId = BufferId(u32::MAX);

impl World {
    pub(super) fn turn(&mut self, node: usize, worker: usize) {
        let state = &mut self.nodes[node].workers[worker];
        state.turn_at = None;
        let completions = std::mem::take(&mut state.completions);
        let tells = std::mem::take(&mut state.tells);
        for (from, tell) in tells {
            state.engine.handle(self.now, Input::Told { worker: from, tell });
        }
        for completion in completions {
            self.feed(node, worker, completion);
        }
        let now = self.now;
        let engine = &mut self.nodes[node].workers[worker].engine;
        if engine.poll_timeout().is_some_and(|due| due <= now) {
            engine.handle(now, Input::Tick);
        }
        engine.flush();
        let mut outputs = 0;
        while let Some(output) = self.nodes[node].workers[worker].engine.poll_output() {
            outputs += 1;
            assert!(outputs < OUTPUTS_MAX, "one turn has more than {OUTPUTS_MAX} outputs");
            self.perform(node, worker, output);
        }
        self.note(outputs as u64);
        let state = &mut self.nodes[node].workers[worker];
        for lane in &mut state.lanes {
            lane.take_if(|lane| lane.gone);
        }
        assert!(state.engine.tasks() < super::check::TASKS_MAX, "an engine has too many tasks");
        if let Some(due) = state.engine.poll_timeout() {
            self.wake_at(node, worker, due);
        }
    }

    fn feed(&mut self, node: usize, worker: usize, completion: Completion) {
        let now = self.now;
        let serial_of = self.serial_of(node, &completion);
        let state = &mut self.nodes[node].workers[worker];
        if serial_of == Some(Stale) {
            return self.free_stale(node, completion);
        }
        let why = "the simulator says so";
        let input = match &completion {
            Completion::Arrived { lane } => return self.parse(node, worker, *lane),
            Completion::LaneUp { lane, peer, instance, end } => {
                if let Some(lane) = state.lane_mut(*lane) {
                    lane.up = true;
                }
                let (lane, peer, instance, end) = (*lane, *peer, *instance, *end);
                let pay = self.rng.chance(DELTAS_PAY_PER_MILLE);
                let state = &mut self.nodes[node].workers[worker];
                state.engine.handle(now, Input::Deltas { peer, pay });
                state.completions.push(Completion::Arrived { lane });
                self.wake(node, worker);
                let up = Input::LaneUp { lane, peer, instance, end };
                return self.nodes[node].workers[worker].engine.handle(now, up);
            }
            Completion::LaneDown { lane } => {
                if let Some(lane) = state.lane_mut(*lane) {
                    lane.gone = true;
                }
                Input::LaneDown { lane: *lane }
            }
            Completion::Send { job, attempt, destination, streams, options } => Input::Send {
                job: *job,
                attempt: *attempt,
                destination,
                filters: b"",
                streams: *streams,
                options: *options,
            },
            Completion::Fetch { job, attempt, sources, streams, options } => Input::Fetch {
                job: *job,
                attempt: *attempt,
                sources,
                filters: &[],
                streams: *streams,
                options: *options,
            },
            Completion::Cancel { job } => Input::Cancel { job: *job },
            Completion::Pause { job } => Input::Pause { job: *job },
            Completion::DialFailed { peer } => Input::DialFailed { peer: *peer, text: why },
            Completion::LaneClosing { lane } => Input::LaneClosing { lane: *lane },
            Completion::Sent { lane, bytes } => Input::Sent { lane: *lane, bytes: *bytes },
            Completion::Read { task, result, .. } => Input::Read { task: *task, result: *result },
            Completion::Written { task, result, .. } => {
                Input::Written { task: *task, result: *result, text: why }
            }
            Completion::ScannerOpened { job, result, .. } => {
                Input::ScannerOpened { job: *job, result: result.map_err(|code| (code, why)) }
            }
            Completion::Filled { job, pack, entries, bytes, objects, failures, end, .. } => Input::Filled {
                job: *job,
                pack: *pack,
                entries: *entries,
                bytes: *bytes,
                objects: objects.clone(),
                failures: *failures,
                end: *end,
            },
            Completion::FinalsFilled { job, pack, entries, end, .. } => {
                Input::FinalsFilled { job: *job, pack: *pack, entries: *entries, end: *end }
            }
            Completion::Prepared { job, object, .. } => Input::Prepared { job: *job, object: *object },
            Completion::SourceChecked { job, object, check, .. } => {
                Input::SourceChecked { job: *job, object: *object, check: *check }
            }
            Completion::ReceiverOpened { job, result, .. } => {
                Input::ReceiverOpened { job: *job, result: result.map_err(|code| (code, why)) }
            }
            Completion::Unpacked { task, entries, bytes, opened, failures, fatal, .. } => Input::Unpacked {
                task: *task,
                entries: *entries,
                bytes: *bytes,
                opened: opened.clone(),
                failures: *failures,
                fatal: fatal.map(|code| (code, why)),
            },
            Completion::Unclaimed { task } => Input::Unclaimed { task: *task },
            Completion::Committed { job, object, result, .. } => {
                Input::Committed { job: *job, object: *object, result: result.map_err(|code| (code, why)) }
            }
            Completion::Finished { job, failures, text, .. } => {
                Input::Finished { job: *job, result: Ok(()), failures: *failures, text, changes: b"" }
            }
        };
        state.engine.handle(now, input);
    }

    /// Feeds the whole frames that have arrived on a lane.
    fn parse(&mut self, node: usize, worker: usize, id: LaneId) {
        loop {
            let Some(lane) = self.nodes[node].workers[worker].lane_mut(id) else { return };
            if !lane.up || lane.closing {
                return;
            }
            let (connection, side) = (lane.connection, lane.side);
            if let Some(header) = lane.task {
                let Some(buffer) = lane.buffer else { return };
                if lane.inbox.len() < header.length as usize {
                    return;
                }
                (lane.task, lane.buffer) = (None, None);
                let payload: Vec<u8> = lane.inbox.drain(..header.length as usize).collect();
                self.taken(connection, side, u64::from(header.length));
                if !self.feed_task(node, worker, (id, buffer), header, payload) {
                    return self.protocol_error(node, worker, id);
                }
                continue;
            }
            if lane.inbox.len() < FRAME_HEADER_BYTES {
                return;
            }
            let mut head = [0; FRAME_HEADER_BYTES];
            head.iter_mut().zip(&lane.inbox).for_each(|(to, from)| *to = *from);
            let Ok(header) = FrameHeader::from_bytes(&head) else {
                return self.protocol_error(node, worker, id);
            };
            let small = if header.kind.is_task() { 0 } else { header.length as usize };
            if lane.inbox.len() < FRAME_HEADER_BYTES + small {
                return;
            }
            lane.inbox.drain(..FRAME_HEADER_BYTES);
            let payload: Vec<u8> = lane.inbox.drain(..small).collect();
            if header.kind.is_task() {
                lane.task = Some(header);
            }
            self.taken(connection, side, (FRAME_HEADER_BYTES + small) as u64);
            let input = if header.kind.is_task() {
                Input::TaskHeader { lane: id, header }
            } else if checksum(&payload) == header.payload_crc {
                Input::Frame { lane: id, header, payload: &payload }
            } else {
                return self.protocol_error(node, worker, id);
            };
            let now = self.now;
            self.nodes[node].workers[worker].engine.handle(now, input);
        }
    }

    /// False when the bytes are no task.
    fn feed_task(
        &mut self,
        node: usize,
        worker: usize,
        (lane, buffer): (LaneId, BufferId),
        header: FrameHeader,
        payload: Vec<u8>,
    ) -> bool {
        let now = self.now;
        self.nodes[node].workers[worker].busy.remove(&buffer);
        if checksum(&payload) != header.payload_crc {
            return false;
        }
        let input = if header.kind == FrameKind::Chunk {
            let Some(bytes) = payload.get(..CHUNK_HEAD_BYTES) else { return false };
            let Ok(head) = ChunkHead::decode(bytes) else { return false };
            self.check_not_held(node, worker, lane, &header, &head);
            if head.codec == Codec::Block && self.rng.chance(UNMADE_PER_MILLE) {
                self.unmade += 1;
                Input::Unmade { lane, header, head, buffer }
            } else {
                Input::Chunk { lane, header, head, buffer }
            }
        } else {
            let Some(bytes) = payload.get(..PACK_HEAD_BYTES) else { return false };
            let Ok(head) = PackHead::decode(bytes) else { return false };
            Input::Pack { lane, header, head, buffer }
        };
        let state = &mut self.nodes[node].workers[worker];
        state.buffers[buffer.0 as usize] = payload;
        state.engine.handle(now, input);
        true
    }

    /// What a receiver held when it opened an object is not sent to it again.
    fn check_not_held(
        &self,
        node: usize,
        worker: usize,
        lane: LaneId,
        header: &FrameHeader,
        head: &ChunkHead,
    ) {
        let node = &self.nodes[node];
        let Some(Some(lane)) = node.workers[worker].lanes.get(lane.0 as usize) else { return };
        let owner = if header.flags & FLAG_OWNER == 0 { Owner::Local } else { Owner::Remote };
        let key = JobKey { peer: lane.peer, owner, id: header.job };
        let tree = node.trees.get(&key).filter(|tree| tree.attempt == head.attempt);
        let file = tree.and_then(|tree| tree.objects.get(&head.object)?.file);
        if let Some(File::Partial { partial, .. }) = file.and_then(|file| node.files.get(&file))
            && !self.is_hostile(usize::from(lane.peer.0))
        {
            assert!(!partial.has_held(head.offset), "a chunk is sent that the receiver held");
        }
    }

    /// The driver gives a lane up.
    fn protocol_error(&mut self, node: usize, worker: usize, id: LaneId) {
        let now = self.now;
        let state = &mut self.nodes[node].workers[worker];
        let Some(lane) = state.lane_mut(id) else { return };
        let (connection, side) = (lane.connection, lane.side);
        self.close(connection, side);
        self.nodes[node].workers[worker].engine.handle(now, Input::LaneClosing { lane: id });
    }

    /// Sends the small frames that wait, a chunk or a pack.
    pub(super) fn send(&mut self, node: usize, worker: usize, lane: LaneId, output: &Output) {
        let state = &mut self.nodes[node].workers[worker];
        let Some(open) = state.lane_mut(lane) else { panic!("an output names a lane that is gone") };
        let (connection, side, peer) = (open.connection, open.side, open.peer);
        if open.closing {
            return;
        }
        assert!(open.sending.is_none(), "a send starts while another is under way on its lane");
        let mut used = None;
        let bytes = match output {
            Output::SendChunk { job, flags, sequence, buffer, file, head, .. } => {
                let mut head = *head;
                let against = self.nodes[node].files.get(file);
                let differs = matches!(against, Some(File::Source { against: Against::Baseline, .. }));
                if differs && head.codec == Codec::Raw && self.rng.chance(DIFFERENCES_PER_MILLE) {
                    head.codec = Codec::Block;
                }
                let state = &mut self.nodes[node].workers[worker];
                let data = match head.codec {
                    Codec::Hole => &[],
                    Codec::Raw | Codec::Block => {
                        used = Some(*buffer);
                        assert!(state.busy.insert(*buffer), "a chunk is sent out of a buffer in use");
                        &state.buffers[buffer.0 as usize][..head.length as usize]
                    }
                };
                let mut bytes = [0; CHUNK_HEAD_BYTES];
                head.encode(&mut bytes).expect("a chunk's head has a fixed size");
                task_frame(FrameKind::Chunk, (*job, *flags, *sequence), &bytes, data)
            }
            Output::SendPack { job, flags, sequence, pack, head, .. } => {
                let mut bytes = [0; PACK_HEAD_BYTES];
                head.encode(&mut bytes).expect("a pack's head has a fixed size");
                let pack = self.nodes[node].packs.get(pack).expect("a pack is sent after it was dropped");
                task_frame(FrameKind::Pack, (*job, *flags, *sequence), &bytes, pack)
            }
            _ => {
                let mut bytes = vec![0; 64 << 10];
                let length = state.engine.outbox(lane, &mut bytes);
                bytes.truncate(length);
                bytes
            }
        };
        if matches!(output, Output::SendOutbox { .. }) {
            self.note_digests(node, peer, &bytes);
        }
        let Some(open) = self.nodes[node].workers[worker].lane_mut(lane) else { return };
        open.sending = Some((bytes.len() as u64, used));
        self.transmit(connection, side, bytes);
    }

    /// Keeps the digests of objects that a node sends, to hold what is committed against them.
    fn note_digests(&mut self, node: usize, peer: PeerId, mut bytes: &[u8]) {
        while let Some((head, tail)) = bytes.split_first_chunk::<FRAME_HEADER_BYTES>() {
            let Ok(header) = FrameHeader::from_bytes(head) else { return };
            let Some((payload, tail)) = tail.split_at_checked(header.length as usize) else { return };
            bytes = tail;
            let owner = if header.flags & FLAG_OWNER == 0 { Owner::Remote } else { Owner::Local };
            let key = JobKey { peer, owner, id: header.job };
            let job = self.job_of_key(node, key);
            if let (FrameKind::ObjectEnd, Some(job)) = (header.kind, job)
                && let Ok(end) = ObjectEnd::decode(payload)
            {
                let scanner = self.nodes[node].scanners.get(&key);
                let changed = scanner.is_some_and(|scanner| scanner.changed.contains(&end.object));
                assert!(!changed, "an object is sent whose source has changed");
                let former = self.digests.insert((job, header.sequence as u32, end.object), end.digest);
                assert!(former.is_none_or(|former| former == end.digest), "an object has two digests");
            }
        }
    }

    /// Has a worker look again at once, for bytes that arrived before there was a buffer for them.
    pub(super) fn look_again(&mut self, node: usize, worker: usize, lane: LaneId) {
        let epoch = self.nodes[node].epoch;
        let completion = Completion::Arrived { lane };
        self.after(0, Event::Complete { node, epoch, worker, completion });
    }

    /// What belongs to a closed scanner or tree is not fed any more.
    fn serial_of(&self, node: usize, completion: &Completion) -> Option<Stale> {
        let node = &self.nodes[node];
        let (now, then) = match completion {
            Completion::ScannerOpened { job, serial, .. }
            | Completion::Filled { job, serial, .. }
            | Completion::FinalsFilled { job, serial, .. }
            | Completion::Prepared { job, serial, .. }
            | Completion::SourceChecked { job, serial, .. } => {
                (node.scanners.get(job).map(|scanner| scanner.serial), serial)
            }
            Completion::ReceiverOpened { job, serial, .. } | Completion::Committed { job, serial, .. } => {
                (node.trees.get(job).map(|tree| tree.serial), serial)
            }
            // The tree is gone already when it is finished: only a newer one makes this stale.
            Completion::Finished { job, serial, .. } => {
                (Some(node.trees.get(job).map_or(*serial, |tree| tree.serial)), serial)
            }
            _ => return None,
        };
        (now != Some(*then)).then_some(Stale)
    }

    fn free_stale(&mut self, node: usize, completion: Completion) {
        match completion {
            Completion::Filled { pack, objects, .. } => {
                self.nodes[node].packs.remove(&pack);
                for object in objects {
                    self.nodes[node].files.remove(&object.file);
                }
            }
            Completion::FinalsFilled { pack, .. } => {
                self.nodes[node].packs.remove(&pack);
            }
            _ => {}
        }
    }
}

/// Its scanner or tree is closed.
#[derive(PartialEq, Eq)]
struct Stale;

pub(super) fn task_frame(
    kind: FrameKind,
    (job, flags, sequence): (u64, u8, u64),
    head: &[u8],
    data: &[u8],
) -> Vec<u8> {
    let payload = [head, data].concat();
    let (length, payload_crc) = (payload.len() as u32, checksum(&payload));
    let header = FrameHeader { kind, flags, length, job, sequence, payload_crc };
    [&header.to_bytes()[..], &payload].concat()
}
