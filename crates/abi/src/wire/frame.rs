//! The header that every frame starts with.
use crate::codec::{CodecError, Encoded, Reader, Writer, codes};

codes! {
    /// What a frame is.
    pub enum FrameKind: u8 {
        /// Part of an object (`ChunkHead`, bytes).
        Chunk = 1,
        /// Entries of a tree, many to a frame (`PackHead`, entries).
        Pack = 2,
        /// Tasks that are done with (`Ack`).
        Ack = 3,
        /// A sender asks to start a job (`JobOpen`).
        JobOpen = 4,
        /// The receiver is ready for it; later, of either end: the job lives here (`JobAccept`).
        JobAccept = 5,
        /// The receiver has made a place for an object (`ObjectOpened`). From the sender: has it?
        ObjectOpened = 6,
        /// All of an object was sent (`ObjectEnd`).
        ObjectEnd = 7,
        /// The receiver is through with an object (`ObjectDone`).
        ObjectDone = 8,
        /// All of a job was sent (`JobEnd`).
        JobEnd = 9,
        /// Everything is durable (`JobDone`).
        JobDone = 10,
        /// Either side gives up a job (`JobAbort`).
        JobAbort = 11,
        /// A receiver asks the peer to send (`FetchRequest`).
        Fetch = 12,
        /// Are you there (`Ping`).
        Ping = 13,
        /// I am (`Ping`, returned).
        Pong = 14,
        /// The lane ends in good order (`Close`).
        Close = 15,
        /// Differences to a baseline were of no use to the receiver (`ObjectPlain`).
        ObjectPlain = 16,
    }
}

impl FrameKind {
    /// Chunks and packs: numbered, acknowledged, received into large buffers.
    #[must_use]
    pub fn is_task(self) -> bool {
        matches!(self, Self::Chunk | Self::Pack)
    }
}

/// Set when the sender of the frame is the node that numbered the job.
pub const FLAG_OWNER: u8 = 1;

/// Bytes of a [`FrameHeader`].
pub const FRAME_HEADER_BYTES: usize = 32;

/// Most payload of a frame that is not a task.
pub const CONTROL_PAYLOAD_MAX: usize = 16 * 1024;

/// A frame's first bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FrameHeader {
    /// What it is.
    pub kind: FrameKind,
    /// [`FLAG_OWNER`] or 0.
    pub flags: u8,
    /// Bytes of payload.
    pub length: u32,
    /// The job that it belongs to, as its owner numbered it; 0 = none.
    pub job: u64,
    /// Of a task: its number on this lane in this direction, from 0. Of a job's other frames: the attempt that they
    /// speak of, because a frame of a former attempt may arrive late on a slow lane. Else 0.
    pub sequence: u64,
    /// CRC-32C of the payload. Of a task on an encrypted lane 0: there the records' tags stand for it.
    pub payload_crc: u32,
}

impl FrameHeader {
    /// Writes the header with its own checksum.
    #[must_use]
    pub fn to_bytes(&self) -> [u8; FRAME_HEADER_BYTES] {
        let mut bytes = [0; FRAME_HEADER_BYTES];
        bytes[0] = self.kind as u8;
        bytes[1] = self.flags;
        bytes[4..8].copy_from_slice(&self.length.to_le_bytes());
        bytes[8..16].copy_from_slice(&self.job.to_le_bytes());
        bytes[16..24].copy_from_slice(&self.sequence.to_le_bytes());
        bytes[24..28].copy_from_slice(&self.payload_crc.to_le_bytes());
        let crc = checksum(&bytes[..28]);
        bytes[28..32].copy_from_slice(&crc.to_le_bytes());
        bytes
    }

    /// Reads and checks a header.
    ///
    /// # Errors
    /// A checksum that does not match, an unknown kind or flag, or a length above the kind's limit.
    pub fn from_bytes(bytes: &[u8; FRAME_HEADER_BYTES]) -> Result<Self, CodecError> {
        let mut reader = Reader::new(bytes);
        let kind = reader.u8()?;
        let flags = reader.u8()?;
        let reserved = reader.u16()?;
        let header = Self {
            kind: FrameKind::Close,
            flags,
            length: reader.u32()?,
            job: reader.u64()?,
            sequence: reader.u64()?,
            payload_crc: reader.u32()?,
        };
        if reader.u32()? != checksum(&bytes[..28]) {
            return Err(CodecError::Checksum { what: "frame header" });
        }
        if reserved != 0 || flags & !FLAG_OWNER != 0 {
            return Err(CodecError::Unknown {
                field: "frame flags",
                value: u64::from(reserved) << 8 | u64::from(flags),
            });
        }
        let kind = FrameKind::decode(&[kind])?;
        let max = if kind.is_task() { super::TASK_PAYLOAD_MAX } else { CONTROL_PAYLOAD_MAX as u32 };
        if header.length > max {
            return Err(CodecError::TooLarge {
                field: "frame length",
                value: u64::from(header.length),
                max: u64::from(max),
            });
        }
        Ok(Self { kind, ..header })
    }
}

/// CRC-32C (Castagnoli).
#[must_use]
pub fn checksum(bytes: &[u8]) -> u32 {
    crc_fast::crc32_iscsi(bytes)
}

/// Writes a whole control frame: header and payload. `sequence` is the job's attempt. Says how many bytes it took.
///
/// # Errors
/// [`CodecError::NoRoom`] where `bytes` is too short, [`CodecError::TooLarge`] above [`CONTROL_PAYLOAD_MAX`].
pub fn frame<'a>(
    kind: FrameKind,
    flags: u8,
    job: u64,
    sequence: u64,
    payload: &impl Encoded<'a>,
    bytes: &mut [u8],
) -> Result<usize, CodecError> {
    let (head, body) = bytes.split_at_mut_checked(FRAME_HEADER_BYTES).ok_or(CodecError::NoRoom)?;
    let mut writer = Writer::new(body);
    payload.write(&mut writer)?;
    let length = writer.written();
    if length > CONTROL_PAYLOAD_MAX {
        return Err(CodecError::TooLarge {
            field: "frame length",
            value: length as u64,
            max: CONTROL_PAYLOAD_MAX as u64,
        });
    }
    let payload_crc = checksum(&body[..length]);
    let header = FrameHeader { kind, flags, length: length as u32, job, sequence, payload_crc };
    head.copy_from_slice(&header.to_bytes());
    Ok(FRAME_HEADER_BYTES + length)
}
