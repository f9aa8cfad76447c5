//! Receiving on a lane: bytes into frames, and tasks straight into the buffer that they are written from.
//!
//! In clear a header is received first, then exactly its payload into its place. Under TLS records are received into
//! the lane's small buffer and opened into that place; only the parts of records that straddle frames are copied.
use dwcp_abi::codec::Encoded;
use dwcp_abi::shm::WorkerCounter as Counter;
use dwcp_abi::wire::{
    CHUNK_HEAD_BYTES, ChunkHead, Code, Codec, FRAME_HEADER_BYTES, FrameHeader, FrameKind, PACK_HEAD_BYTES,
    PackHead, checksum,
};
use dwcp_engine::{BufferId as Large, Input, LaneId};
use dwcp_sys::proactor::{BufferId, Errno, Span};
use std::time::Instant;

use super::Worker;
use super::differences::Unmade;
use super::lane::{Guard, Keys, Lane, Reception};
use super::layout::{self, SMALL_BYTES};
use super::timing::{About, Over};
use super::token::Token;
use crate::record::{HEADER_LENGTH, Opened, Opener};

const HEADER: u32 = FRAME_HEADER_BYTES as u32;

/// Where the next plain bytes go.
struct Place {
    buffer: BufferId,
    start: u32,
    length: u32,
}

impl Worker {
    /// Asks for the lane's next bytes, unless they are asked for or must wait.
    pub(super) fn receive_more(&mut self, id: LaneId) {
        let Some(lane) = self.lanes.get_mut(&id) else { return };
        if lane.receiving || lane.closing {
            return;
        }
        let Some(place) = place(lane) else { return };
        match &lane.keys {
            None => {
                let span = Span { buffer: place.buffer, start: place.start, length: place.length };
                self.proactor.recv_all(lane.socket, span, Token::Receive(id).pack());
            }
            Some(keys) => {
                let span = Span { buffer: lane.inbound, start: keys.end, length: SMALL_BYTES - keys.end };
                self.proactor.recv(lane.socket, span, Token::Receive(id).pack());
            }
        }
        lane.receiving = true;
    }

    pub(super) fn received(&mut self, id: LaneId, result: Result<u32, Errno>) {
        let Some(lane) = self.lanes.get_mut(&id) else { return };
        lane.receiving = false;
        if lane.closing {
            return self.finish_closing(id);
        }
        let count = match result {
            Ok(0) => return self.lose_lane(id, Code::Ok, "the peer closed the connection"),
            Ok(count) => count,
            Err(errno) => return self.lose_lane(id, Code::Io, &format!("receiving failed: {errno}")),
        };
        lane.last_received = self.now;
        lane.last_used = self.now;
        self.figures.add(Counter::BytesReceived, u64::from(count));
        if lane.rdma {
            self.figures.add(Counter::RdmaBytesReceived, u64::from(count));
        }
        let lane = match &mut lane.keys {
            Some(keys) => {
                keys.end += count;
                return self.open_records(id);
            }
            None => lane,
        };
        let expected = place(lane).map_or(0, |place| place.length);
        advance(lane, count);
        if count < expected {
            return self.lose_lane(id, Code::Io, "the connection ended in the middle of a frame");
        }
        self.complete(id);
        self.receive_more(id);
    }

    /// Opens as many records as are there and have somewhere to go.
    fn open_records(&mut self, id: LaneId) {
        loop {
            self.use_spill(id);
            let Some(lane) = self.lanes.get_mut(&id) else { return };
            let Some(place) = place(lane).filter(|_| !lane.closing) else { return };
            let inbound = lane.inbound;
            let Some(keys) = &mut lane.keys else { return };
            if keys.taken < keys.spill.len() {
                continue;
            }
            let held = Span { buffer: inbound, start: keys.start, length: keys.end - keys.start };
            let Some(header) = self.proactor.bytes(held).first_chunk::<HEADER_LENGTH>() else { break };
            let length = match Opener::record_length(header) {
                Ok(length) if length <= held.length as usize => length,
                Ok(_) => break,
                Err(error) => return self.lose_lane(id, Code::Protocol, &error.to_string()),
            };
            let record = Span { length: length as u32, ..held };
            keys.start += length as u32;
            let opened = if Opener::room_for(length) <= place.length as usize {
                let room = Span { buffer: place.buffer, start: place.start, length: place.length };
                if place.buffer == inbound {
                    open_into_spill(keys, self.proactor.bytes_mut(record))
                } else {
                    let (record, room) = self.proactor.pair_mut(record, room);
                    keys.opener.open(record, room).map(|opened| match opened {
                        Opened::Data(count) => Some(count as u32),
                        Opened::CloseNotify => None,
                    })
                }
            } else {
                open_into_spill(keys, self.proactor.bytes_mut(record))
            };
            match opened {
                Ok(Some(count)) => {
                    let filled = place.length == count;
                    advance(lane, count);
                    if filled {
                        self.complete(id);
                    }
                }
                Ok(None) => return self.lose_lane(id, Code::Ok, "the peer closed the connection"),
                Err(error) => {
                    self.figures.add(Counter::CrcFailures, 1);
                    return self.lose_lane(id, Code::Integrity, &error.to_string());
                }
            }
        }
        self.make_room(id);
        self.receive_more(id);
    }

    /// Moves what is left of a record to where it belongs, frame by frame.
    fn use_spill(&mut self, id: LaneId) {
        loop {
            let Some(lane) = self.lanes.get_mut(&id) else { return };
            if lane.closing {
                return;
            }
            let Some(place) = place(lane) else { return };
            let Some(keys) = &mut lane.keys else { return };
            let rest = &keys.spill[keys.taken..];
            if rest.is_empty() {
                return;
            }
            let count = rest.len().min(place.length as usize);
            let span = Span { buffer: place.buffer, start: place.start, length: count as u32 };
            self.proactor.bytes_mut(span).copy_from_slice(&rest[..count]);
            keys.taken += count;
            let filled = count == place.length as usize;
            advance(lane, count as u32);
            if filled {
                self.complete(id);
            }
        }
    }

    /// Moves the beginning of a record to the front of the inbound buffer, so that the rest fits behind it.
    fn make_room(&mut self, id: LaneId) {
        let Some(lane) = self.lanes.get_mut(&id) else { return };
        let inbound = lane.inbound;
        let Some(keys) = &mut lane.keys else { return };
        let (start, end) = (keys.start, keys.end);
        (keys.start, keys.end) = (CIPHER, CIPHER + end - start);
        if start != CIPHER && start != end {
            let whole = Span { buffer: inbound, start: 0, length: SMALL_BYTES };
            self.proactor.bytes_mut(whole).copy_within(start as usize..end as usize, CIPHER as usize);
        }
    }

    /// All bytes of a header or payload are there.
    fn complete(&mut self, id: LaneId) {
        let Some(lane) = self.lanes.get_mut(&id) else { return };
        match lane.reception {
            Reception::Header { .. } => {
                let span = Span { buffer: lane.inbound, start: 0, length: HEADER };
                let Some(bytes) = self.proactor.bytes(span).first_chunk() else { return };
                match FrameHeader::from_bytes(bytes) {
                    Ok(header) => self.header_complete(id, header),
                    Err(error) => {
                        self.figures.add(Counter::ProtocolErrors, 1);
                        self.lose_lane(id, Code::Protocol, &error.to_string());
                    }
                }
            }
            Reception::Small { header, .. } => self.small_complete(id, header),
            Reception::Task { header, buffer, .. } => self.task_complete(id, header, buffer),
            Reception::Starving { .. } => {}
        }
    }

    fn header_complete(&mut self, id: LaneId, header: FrameHeader) {
        self.figures.add(Counter::FramesReceived, 1);
        let Some(lane) = self.lanes.get_mut(&id) else { return };
        if !header.kind.is_task() {
            lane.reception = Reception::Small { header, have: 0 };
            if header.length == 0 {
                self.small_complete(id, header);
            }
            return;
        }
        let head = if header.kind == FrameKind::Pack { PACK_HEAD_BYTES } else { CHUNK_HEAD_BYTES };
        if (header.length as usize) < head {
            self.figures.add(Counter::ProtocolErrors, 1);
            return self.lose_lane(id, Code::Protocol, "the peer sent a task without its head");
        }
        lane.reception = Reception::Starving { header };
        if header.kind == FrameKind::Chunk {
            self.timing.announced(id);
        }
        self.engine_input(Input::TaskHeader { lane: id, header });
    }

    fn small_complete(&mut self, id: LaneId, header: FrameHeader) {
        let Some(lane) = self.lanes.get_mut(&id) else { return };
        lane.reception = Reception::Header { have: 0 };
        let span = Span { buffer: lane.inbound, start: HEADER, length: header.length };
        let payload = self.proactor.bytes(span);
        if checksum(payload) != header.payload_crc {
            self.figures.add(Counter::CrcFailures, 1);
            return self.lose_lane(id, Code::Integrity, "a frame's checksum does not match");
        }
        if header.kind == FrameKind::Ack {
            self.timing.acknowledged(id, payload);
        }
        let now = self.clock.nanoseconds(Instant::now());
        self.engine.handle(now, Input::Frame { lane: id, header, payload });
    }

    fn task_complete(&mut self, id: LaneId, header: FrameHeader, buffer: Large) {
        let Some(lane) = self.lanes.get_mut(&id) else { return };
        lane.reception = Reception::Header { have: 0 };
        let peer_crc = lane.peer_crc;
        self.timing.received(id);
        let start = layout::payload_start(header.kind);
        let payload =
            self.proactor.bytes(Span { buffer: layout::large(buffer), start, length: header.length });
        if lane.guard() == Guard::Checksum && checksum(payload) != header.payload_crc {
            self.figures.add(Counter::CrcFailures, 1);
            return self.lose_lane(
                id,
                Code::Integrity,
                "a chunk's checksum does not match: it is sent again",
            );
        }
        if header.kind == FrameKind::Pack {
            match PackHead::decode(&payload[..PACK_HEAD_BYTES]) {
                Ok(head) => self.engine_input(Input::Pack { lane: id, header, head, buffer }),
                Err(error) => self.refuse_task(id, &error.to_string()),
            }
            return;
        }
        let head = match ChunkHead::decode(&payload[..CHUNK_HEAD_BYTES]) {
            Ok(head) => head,
            Err(error) => return self.refuse_task(id, &error.to_string()),
        };
        self.figures.add(Counter::ChunksReceived, 1);
        self.timing.over(buffer, Over::Check);
        if head.codec == Codec::Block {
            let file = self.engine.target_file(id, &header, head.object);
            match self.decode_chunk(file, &head, buffer, header.length - CHUNK_HEAD_BYTES as u32) {
                Ok(()) => {}
                Err(Unmade::Baseline) => {
                    return self.engine_input(Input::Unmade { lane: id, header, head, buffer });
                }
                Err(Unmade::Nonsense(why)) => return self.refuse_task(id, &why),
            }
        }
        self.timing.over(buffer, Over::Decode);
        let FrameHeader { job, flags, sequence, .. } = header;
        self.timing.is_of(buffer, About { lane: id, peer_crc, job, flags, sequence, bytes: head.length });
        self.engine_input(Input::Chunk { lane: id, header, head, buffer });
    }

    fn refuse_task(&mut self, id: LaneId, why: &str) {
        self.figures.add(Counter::ProtocolErrors, 1);
        self.lose_lane(id, Code::Protocol, why);
    }

    /// The engine has found a buffer for an announced task.
    pub(super) fn receive_into(&mut self, id: LaneId, buffer: Large) {
        let Some(lane) = self.lanes.get_mut(&id) else { return };
        let Reception::Starving { header } = lane.reception else { return };
        self.timing.received_into(id, buffer);
        lane.reception = Reception::Task { header, buffer, have: 0 };
        if lane.keys.is_some() {
            self.open_records(id);
        } else {
            self.receive_more(id);
        }
    }
}

/// Ciphertext starts behind the place of small frames in the inbound buffer, which under TLS are opened to its front.
pub(super) const CIPHER: u32 = HEADER + dwcp_abi::wire::CONTROL_PAYLOAD_MAX as u32;

fn place(lane: &Lane) -> Option<Place> {
    match lane.reception {
        Reception::Header { have } => {
            Some(Place { buffer: lane.inbound, start: have, length: HEADER - have })
        }
        Reception::Small { header, have } => {
            Some(Place { buffer: lane.inbound, start: HEADER + have, length: header.length - have })
        }
        Reception::Starving { .. } => None,
        Reception::Task { header, buffer, have } => Some(Place {
            buffer: layout::large(buffer),
            start: layout::payload_start(header.kind) + have,
            length: header.length - have,
        }),
    }
}

fn advance(lane: &mut Lane, count: u32) {
    match &mut lane.reception {
        Reception::Header { have } | Reception::Small { have, .. } | Reception::Task { have, .. } => {
            *have += count
        }
        Reception::Starving { .. } => {}
    }
}

/// Opens a record aside; none at the end of the stream, else how many bytes went to their place (here: none yet).
fn open_into_spill(keys: &mut Keys, record: &mut [u8]) -> Result<Option<u32>, crate::record::RecordError> {
    keys.spill.resize(Opener::room_for(record.len()), 0);
    keys.taken = 0;
    match keys.opener.open(record, &mut keys.spill)? {
        Opened::Data(count) => {
            keys.spill.truncate(count);
            Ok(Some(0))
        }
        Opened::CloseNotify => Ok(None),
    }
}
