//! The driver's side of a lane: its socket, its two small buffers, its keys, and how far it is in both directions.
use std::collections::VecDeque;
use std::time::Instant;

use dwcp_abi::wire::{ChunkHead, FrameHeader, PackHead};
use dwcp_engine::{BufferId as Large, Congestion, FileId, PackId, PeerId};
use dwcp_sys::proactor::{BufferId, Handle};

use super::pace::Seen;
use crate::record::{Opener, Sealer};

/// A lane of this worker.
pub(super) struct Lane {
    pub(super) peer: PeerId,
    /// Checksum of the peer's name, by which control knows it.
    pub(super) peer_crc: u32,
    pub(super) socket: Handle,
    /// Receives headers and small frames, or ciphertext.
    pub(super) inbound: BufferId,
    /// Sends small frames.
    pub(super) outbound: BufferId,
    pub(super) keys: Option<Keys>,
    pub(super) reception: Reception,
    pub(super) receiving: bool,
    pub(super) sending: Option<Sending>,
    /// What waits for a staging buffer.
    pub(super) waiting: VecDeque<Waiting>,
    pub(super) closing: bool,
    /// Bytes came or went since the last look.
    pub(super) last_received: Instant,
    pub(super) last_used: Instant,
    pub(super) why: String,
    /// Its ceiling in bytes per second; none = unpaced.
    pub(super) pacing: Option<u64>,
    /// Whether little may wait in its socket.
    pub(super) short: bool,
    /// What was chosen for it last.
    pub(super) congestion: Congestion,
    pub(super) seen: Seen,
    /// Its bytes go over a queue pair.
    pub(super) rdma: bool,
}

/// What tells a damaged task from a sound one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Guard {
    /// The CRC-32C in its header.
    Checksum,
    /// The authentication tags of the records that it came in: a checksum beside them would find nothing more.
    Tags,
}

impl Lane {
    pub(super) fn guard(&self) -> Guard {
        if self.keys.is_some() { Guard::Tags } else { Guard::Checksum }
    }
}

/// Record protection, one key for each direction.
pub(super) struct Keys {
    pub(super) sealer: Sealer,
    pub(super) opener: Opener,
    /// Ciphertext in the inbound buffer: `start..end`.
    pub(super) start: u32,
    pub(super) end: u32,
    /// Plain bytes of a record that did not fit where they belong: `taken..` of it.
    pub(super) spill: Vec<u8>,
    pub(super) taken: usize,
}

/// What the next plain bytes of a lane are.
#[derive(Debug, Clone, Copy)]
pub(super) enum Reception {
    /// A frame's header; so many bytes of it are there.
    Header { have: u32 },
    /// A small frame's payload.
    Small { header: FrameHeader, have: u32 },
    /// Nothing yet: the task has no buffer.
    Starving { header: FrameHeader },
    /// A task's payload.
    Task { header: FrameHeader, buffer: Large, have: u32 },
}

/// What is on its way to the kernel.
#[derive(Debug, Clone, Copy)]
pub(super) struct Sending {
    pub(super) bytes: u32,
    /// A staging buffer that becomes free afterwards.
    pub(super) staging: Option<BufferId>,
    pub(super) since: Instant,
}

/// A task that cannot be sent before a staging buffer is free.
#[derive(Debug, Clone, Copy)]
pub(super) enum Waiting {
    Chunk { job: u64, flags: u8, sequence: u64, buffer: Large, file: FileId, head: ChunkHead },
    Pack { job: u64, flags: u8, sequence: u64, pack: PackId, head: PackHead },
}

impl Lane {
    /// Operations of the lane that the kernel has not finished.
    pub(super) fn is_quiet(&self) -> bool {
        !self.receiving && self.sending.is_none()
    }

    /// The peer owes bytes: it announced a frame and has not sent all of it.
    pub(super) fn is_owed(&self) -> bool {
        match self.reception {
            Reception::Header { have } => have > 0,
            Reception::Small { .. } | Reception::Task { .. } => true,
            // We owe it a buffer.
            Reception::Starving { .. } => false,
        }
    }
}
