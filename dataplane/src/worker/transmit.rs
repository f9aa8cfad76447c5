//! Sending on a lane: small frames from the engine's outbox, chunks out of the buffer that they were read into, packs
//! and ciphertext out of staging buffers. One send of a lane is under way at a time; the socket's buffer keeps the
//! link busy meanwhile.
use dwcp_abi::codec::Encoded;
use dwcp_abi::shm::WorkerCounter as Counter;
use dwcp_abi::wire::{
    CHUNK_HEAD_BYTES, ChunkHead, Code, Codec, FRAME_HEADER_BYTES, FrameHeader, FrameKind, PACK_HEAD_BYTES,
    PackHead, checksum,
};
use dwcp_engine::{BufferId as Large, FileId, Input, LaneId, PackId};
use dwcp_sys::proactor::{BufferId, Errno, Span};

use super::Worker;
use super::lane::{Guard, Sending, Waiting};
use super::layout::{self, DATA, LARGE_BYTES, SMALL_BYTES};
use super::timing::About;
use super::token::Token;
use crate::record::sealed_length;

const HEAD_BYTES: usize = FRAME_HEADER_BYTES + CHUNK_HEAD_BYTES;
/// Plain bytes of small frames sent at once. Sealed they still fit the outbound buffer.
const OUTBOX_BYTES: usize = 32 * 1024;

impl Worker {
    /// Sends the small frames that wait for a lane.
    pub(super) fn send_outbox(&mut self, id: LaneId) {
        let Some(lane) = self.lanes.get_mut(&id) else { return };
        if lane.closing || lane.sending.is_some() {
            return;
        }
        let span = Span { buffer: lane.outbound, start: 0, length: SMALL_BYTES };
        let room = self.proactor.bytes_mut(span);
        let length = match &mut lane.keys {
            None => self.engine.outbox(id, &mut room[..OUTBOX_BYTES]),
            Some(keys) => {
                let plain = &mut self.scratch[..OUTBOX_BYTES];
                let length = self.engine.outbox(id, plain);
                match keys.sealer.seal(&plain[..length], room) {
                    Ok(length) => length,
                    Err(error) => return self.lose_lane(id, Code::Protocol, &error.to_string()),
                }
            }
        };
        let span = Span { buffer: lane.outbound, start: 0, length: length as u32 };
        self.figures.add(Counter::FramesSent, 1);
        self.start_send(id, span, None);
    }

    /// Sends a task, or lets it wait for a staging buffer.
    pub(super) fn send_task(&mut self, id: LaneId, task: Waiting) {
        let Some(lane) = self.lanes.get_mut(&id) else { return };
        if lane.closing {
            return;
        }
        let is_encrypted = lane.keys.is_some();
        let needs_staging = match task {
            Waiting::Chunk { head, file, .. } => {
                let link = self.links.get(&lane.peer).copied().unwrap_or_default();
                head.codec != Codec::Hole
                    && (is_encrypted || self.coding.is_on(link) || self.has_baseline(file))
            }
            Waiting::Pack { .. } => true,
        };
        if needs_staging && self.staging.is_empty() {
            let Some(lane) = self.lanes.get_mut(&id) else { return };
            lane.waiting.push_back(task);
            self.starved.push_back(id);
            return;
        }
        self.figures.add(Counter::FramesSent, 1);
        self.figures.add(Counter::ChunksSent, 1);
        match task {
            Waiting::Chunk { job, flags, sequence, buffer, file, head } => {
                self.send_chunk(id, (job, flags, sequence), (buffer, file), head);
            }
            Waiting::Pack { job, flags, sequence, pack, head } => {
                self.send_pack(id, (job, flags, sequence), pack, head);
            }
        }
    }

    fn send_chunk(
        &mut self,
        id: LaneId,
        about: (u64, u8, u64),
        (buffer, file): (Large, FileId),
        head: ChunkHead,
    ) {
        if head.codec == Codec::Hole {
            return self.send_hole(id, about, head);
        }
        if let Some(lane) = self.lanes.get(&id) {
            let ((job, flags, sequence), peer_crc) = (about, lane.peer_crc);
            let about = About { lane: id, peer_crc, job, flags, sequence, bytes: head.length };
            self.timing.codes(buffer, about);
        }
        let length = head.length as u32;
        if let Some(coded) = self.code_chunk(id, (about.0, file), &head, layout::data(buffer, length)) {
            let head = ChunkHead { codec: Codec::Block, ..head };
            return self.send_coded(id, about, &head, coded);
        }
        let start = layout::frame_start(FrameKind::Chunk);
        let span = Span { buffer: layout::large(buffer), start, length: (HEAD_BYTES as u32) + length };
        let frame = self.proactor.bytes_mut(span);
        let Some(lane) = self.lanes.get_mut(&id) else { return };
        write_head(frame, FrameKind::Chunk, about, &head, lane.guard());
        let Some(keys) = &mut lane.keys else {
            return self.start_send(id, span, None);
        };
        let Some(staging) = self.staging.pop() else { return };
        let room = Span { buffer: staging, start: 0, length: LARGE_BYTES };
        let (plain, room) = self.proactor.pair(span, room);
        match keys.sealer.seal(plain, room) {
            Ok(sealed) => {
                let span = Span { buffer: staging, start: 0, length: sealed as u32 };
                self.start_send(id, span, Some(staging));
            }
            Err(error) => {
                self.staging.push(staging);
                self.lose_lane(id, Code::Protocol, &error.to_string());
            }
        }
    }

    /// Codes a chunk into the scratch, behind room for its headers; none where that does not pay.
    fn code_chunk(
        &mut self,
        lane: LaneId,
        (job, file): (u64, FileId),
        head: &ChunkHead,
        data: Span,
    ) -> Option<usize> {
        let link =
            self.lanes.get(&lane).and_then(|lane| self.links.get(&lane.peer)).copied().unwrap_or_default();
        if self.has_baseline(file) {
            return self.code_difference(link, file, head, data, HEAD_BYTES);
        }
        if !self.coding.is_on(link) {
            return None;
        }
        let plain = self.proactor.bytes(data);
        let coded = self.coding.encode(link, (job, head.object), plain, &mut self.scratch[HEAD_BYTES..]);
        self.figures.add(Counter::CompressBytesIn, head.length);
        self.figures.add(Counter::CompressBytesOut, coded.map_or(head.length, |length| length as u64));
        coded
    }

    /// Sends the block that lies in the scratch.
    fn send_coded(&mut self, id: LaneId, about: (u64, u8, u64), head: &ChunkHead, coded: usize) {
        let Some(staging) = self.staging.pop() else { return };
        let Some(lane) = self.lanes.get_mut(&id) else { return };
        let frame = &mut self.scratch[..HEAD_BYTES + coded];
        write_head(frame, FrameKind::Chunk, about, head, lane.guard());
        let room = self.proactor.bytes_mut(Span { buffer: staging, start: 0, length: LARGE_BYTES });
        let length = match &mut lane.keys {
            None => {
                room[..frame.len()].copy_from_slice(frame);
                Ok(frame.len())
            }
            Some(keys) => keys.sealer.seal(frame, room),
        };
        match length {
            Ok(length) => {
                self.start_send(id, Span { buffer: staging, start: 0, length: length as u32 }, Some(staging))
            }
            Err(error) => {
                self.staging.push(staging);
                self.lose_lane(id, Code::Protocol, &error.to_string());
            }
        }
    }

    fn send_hole(&mut self, id: LaneId, about: (u64, u8, u64), head: ChunkHead) {
        let mut frame = [0; HEAD_BYTES];
        write_head(&mut frame, FrameKind::Chunk, about, &head, Guard::Checksum);
        self.send_small(id, &frame);
    }

    /// Sends a few bytes out of the outbound buffer, which nothing else uses meanwhile.
    fn send_small(&mut self, id: LaneId, plain: &[u8]) {
        let Some(lane) = self.lanes.get_mut(&id) else { return };
        let whole = Span { buffer: lane.outbound, start: 0, length: SMALL_BYTES };
        let room = self.proactor.bytes_mut(whole);
        let length = match &mut lane.keys {
            None => {
                room[..plain.len()].copy_from_slice(plain);
                Ok(plain.len())
            }
            Some(keys) => keys.sealer.seal(plain, room),
        };
        match length {
            Ok(length) => self.start_send(id, Span { length: length as u32, ..whole }, None),
            Err(error) => self.lose_lane(id, Code::Protocol, &error.to_string()),
        }
    }

    fn send_pack(&mut self, id: LaneId, about: (u64, u8, u64), pack: PackId, head: PackHead) {
        const HEAD: usize = FRAME_HEADER_BYTES + PACK_HEAD_BYTES;
        let Some(bytes) = self.node.packs.get(pack) else {
            return self.lose_lane(id, Code::Io, "a pack is gone before it was acknowledged");
        };
        let Some(staging) = self.staging.pop() else { return };
        let Some(lane) = self.lanes.get_mut(&id) else { return };
        let length = HEAD + bytes.len();
        let sent = match &mut lane.keys {
            None => {
                let span = Span { buffer: staging, start: 0, length: length as u32 };
                let frame = self.proactor.bytes_mut(span);
                frame[HEAD..].copy_from_slice(&bytes);
                write_head(frame, FrameKind::Pack, about, &head, Guard::Checksum);
                Ok(length)
            }
            Some(keys) => {
                let frame = &mut self.scratch[..length];
                frame[HEAD..].copy_from_slice(&bytes);
                write_head(frame, FrameKind::Pack, about, &head, Guard::Tags);
                let span = Span { buffer: staging, start: 0, length: LARGE_BYTES };
                keys.sealer.seal(frame, self.proactor.bytes_mut(span))
            }
        };
        match sent {
            Ok(length) => {
                let span = Span { buffer: staging, start: 0, length: length as u32 };
                self.start_send(id, span, Some(staging));
            }
            Err(error) => {
                self.staging.push(staging);
                self.lose_lane(id, Code::Protocol, &error.to_string());
            }
        }
    }

    fn start_send(&mut self, id: LaneId, span: Span, staging: Option<BufferId>) {
        let Some(lane) = self.lanes.get_mut(&id) else { return };
        lane.sending = Some(Sending { bytes: span.length, staging, since: self.now });
        lane.last_used = self.now;
        self.timing.sends(id);
        self.proactor.send_all(lane.socket, span, Token::Send(id).pack());
    }

    pub(super) fn sent(&mut self, id: LaneId, result: Result<u32, Errno>) {
        let Some(lane) = self.lanes.get_mut(&id) else { return };
        let Some(sending) = lane.sending.take() else { return };
        if let Some(staging) = sending.staging {
            self.staging.push(staging);
        }
        let (lane_closing, rdma) = (lane.closing, lane.rdma);
        let retire = lane.keys.as_ref().is_some_and(|keys| keys.sealer.needs_retirement());
        let latency_ns = self.now.saturating_duration_since(sending.since).as_nanos() as u64;
        match result {
            Ok(count) if count == sending.bytes => {
                self.figures.add(Counter::BytesSent, u64::from(count));
                if rdma {
                    self.figures.add(Counter::RdmaBytesSent, u64::from(count));
                }
                self.figures.observe_send_latency_ns(latency_ns);
                self.timing.sent(id);
                if lane_closing {
                    self.finish_closing(id);
                } else {
                    self.engine_input(Input::Sent { lane: id, bytes: u64::from(count) });
                    if retire {
                        self.lose_lane(id, Code::Ok, "its key has protected as much as it may");
                    }
                }
            }
            Ok(_) => self.lose_lane(id, Code::Io, "the connection took only part of a frame"),
            Err(errno) => self.lose_lane(id, Code::Io, &format!("sending failed: {errno}")),
        }
        self.use_staging();
    }

    /// Sends what waited for a staging buffer.
    pub(super) fn use_staging(&mut self) {
        while !self.staging.is_empty() {
            let Some(id) = self.starved.pop_front() else { return };
            let task = self.lanes.get_mut(&id).and_then(|lane| lane.waiting.pop_front());
            if let Some(task) = task {
                self.send_task(id, task);
            }
        }
    }
}

/// Fills in the headers before the data that is in `frame` already.
fn write_head<'a>(
    frame: &mut [u8],
    kind: FrameKind,
    (job, flags, sequence): (u64, u8, u64),
    head: &impl Encoded<'a>,
    guard: Guard,
) {
    let (header, payload) = frame.split_at_mut(FRAME_HEADER_BYTES);
    let encoded = head.encode(payload);
    debug_assert!(encoded.is_ok(), "the head's place has its size");
    let payload_crc = match guard {
        Guard::Checksum => checksum(payload),
        Guard::Tags => 0,
    };
    let length = payload.len() as u32;
    header.copy_from_slice(&FrameHeader { kind, flags, length, job, sequence, payload_crc }.to_bytes());
}

const _: () = assert!(sealed_length(OUTBOX_BYTES) <= SMALL_BYTES as usize);
const _: () =
    assert!(sealed_length(HEAD_BYTES + dwcp_abi::wire::CHUNK_BYTES as usize) <= LARGE_BYTES as usize);
const _: () = assert!(DATA as usize >= HEAD_BYTES);
