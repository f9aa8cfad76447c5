//! Where things lie in a large buffer, so that payload never moves.
//!
//! ```text
//! 0                    4032          4064          4096                                528384
//! │        unused      │frame header │ chunk head  │ data, aligned for the file system  │
//!                                  4080┤pack head  │
//! ```
use dwcp_abi::wire::{CHUNK_BYTES, CHUNK_HEAD_BYTES, FRAME_HEADER_BYTES, FrameKind, PACK_HEAD_BYTES};
use dwcp_engine::BufferId as Large;
use dwcp_sys::proactor::{BufferId, Span};

/// Bytes of a large buffer. A sealed chunk (33 records) fits as well.
pub(super) const LARGE_BYTES: u32 = DATA + CHUNK_BYTES;
/// Bytes of a small buffer: four records, or a small frame.
pub(super) const SMALL_BYTES: u32 = 68 * 1024;
/// Where data starts.
pub(super) const DATA: u32 = 4096;

/// The large buffer that the engine means.
pub(super) const fn large(buffer: Large) -> BufferId {
    BufferId(buffer.0)
}

/// Data of a chunk.
pub(super) const fn data(buffer: Large, length: u32) -> Span {
    Span { buffer: large(buffer), start: DATA, length }
}

/// Where the payload of a task starts: its head, with the data behind it where it belongs.
pub(super) const fn payload_start(kind: FrameKind) -> u32 {
    match kind {
        FrameKind::Pack => DATA - PACK_HEAD_BYTES as u32,
        _ => DATA - CHUNK_HEAD_BYTES as u32,
    }
}

/// Where the frame of a task starts.
pub(super) const fn frame_start(kind: FrameKind) -> u32 {
    payload_start(kind) - FRAME_HEADER_BYTES as u32
}
