//! The tail of a partial file: which version of which source it is of, and which of its chunks are there.
//!
//! ```text
//!  0                size     next page   +128            +128 + chunks      +128 + 2 × chunks
//!  ┌────────────────┬─ ─ ─ ─ ┬───────────┬───────────────┬──────────────────┐
//!  │ the object     │  hole  │  header   │ written, each │ synced, each     │
//!  └────────────────┴─ ─ ─ ─ ┴───────────┴───────────────┴──────────────────┘
//! ```
//! The tail is cut off before the file gets its name. It lies in the file itself, so that it can never be told of
//! another file, costs no name of its own and goes when the file goes; it has a fixed place per chunk, so that any
//! number of workers mark theirs without a lock, and so that its size is known: two bytes for 512 KiB.
//!
//! A byte of `written` is set after the chunk's bytes were written. It survives the end of the process, but not that
//! of the system, which keeps no order among its writes. A byte of `synced` is set after a flush that began when
//! `written` was set: it holds whenever it is found.
use crate::codec::{CodecError, Reader, Writer};
use crate::wire::{CHUNK_BYTES, checksum};

/// Version of the header and of the tail's layout.
pub const PARTIAL_VERSION: u8 = 1;

/// Bytes of a [`PartialHeader`].
pub const PARTIAL_HEADER_BYTES: usize = 128;

/// Most chunks of an object whose partial file has a tail: 32 TiB.
pub const PARTIAL_CHUNKS_MAX: u64 = 1 << 26;

/// Fewest: an object of one chunk is there or is not.
pub const PARTIAL_CHUNKS_MIN: u64 = 2;

/// The byte of a chunk that is there. Any other value says nothing.
pub const CHUNK_WRITTEN: u8 = 1;

const MAGIC: [u8; 8] = *b"DWCPPART";
const PAGE_BYTES: u64 = 4096;

/// What a partial file is a part of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PartialHeader {
    /// The system's boot in which `written` was kept.
    pub boot: [u8; 16],
    /// BLAKE3 of the object's path in its job.
    pub path: [u8; 32],
    /// The source's size in bytes.
    pub size: u64,
    /// The source's time of last change, in seconds since 1970.
    pub mtime_s: i64,
    /// And nanoseconds.
    pub mtime_ns: u32,
}

impl PartialHeader {
    /// Writes the header with its checksum.
    #[must_use]
    pub fn to_bytes(&self) -> [u8; PARTIAL_HEADER_BYTES] {
        let mut bytes = [0; PARTIAL_HEADER_BYTES];
        let mut writer = Writer::new(&mut bytes);
        let fields = [
            writer.bytes(&MAGIC),
            writer.u32(u32::from(PARTIAL_VERSION)),
            writer.u32(self.mtime_ns),
            writer.u64(self.size),
            writer.i64(self.mtime_s),
            writer.bytes(&self.boot),
            writer.bytes(&self.path),
        ];
        debug_assert!(fields.iter().all(Result::is_ok), "the fields are 80 bytes");
        let crc = checksum(&bytes[..CRC_AT]);
        bytes[CRC_AT..].copy_from_slice(&crc.to_le_bytes());
        bytes
    }

    /// Reads and checks a header.
    ///
    /// # Errors
    /// Another magic number or version, a checksum that does not match, or bytes where there should be none.
    pub fn from_bytes(bytes: &[u8; PARTIAL_HEADER_BYTES]) -> Result<Self, CodecError> {
        let (body, crc) = bytes.split_at(CRC_AT);
        if crc != checksum(body).to_le_bytes() {
            return Err(CodecError::Checksum { what: "partial file's header" });
        }
        let mut reader = Reader::new(body);
        let magic = reader.array::<8>()?;
        if magic != MAGIC {
            return Err(CodecError::Unknown { field: "magic number", value: u64::from_le_bytes(magic) });
        }
        let version = reader.u32()?;
        if version != u32::from(PARTIAL_VERSION) {
            return Err(CodecError::Unknown { field: "partial file's version", value: u64::from(version) });
        }
        let (mtime_ns, size, mtime_s) = (reader.u32()?, reader.u64()?, reader.i64()?);
        let header = Self { mtime_ns, size, mtime_s, boot: reader.array()?, path: reader.array()? };
        match reader.rest().iter().find(|&&byte| byte != 0) {
            Some(&byte) => Err(CodecError::Unknown { field: "reserved", value: u64::from(byte) }),
            None => Ok(header),
        }
    }
}

/// Where the tail lies, in bytes from the file's start.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PartialLayout {
    /// Chunks of the object.
    pub chunks: u64,
    /// The header.
    pub header_at: u64,
    /// First of `chunks` bytes.
    pub written_at: u64,
    /// First of `chunks` bytes.
    pub synced_at: u64,
    /// The file's length.
    pub end: u64,
}

impl PartialLayout {
    /// The layout for an object of `size` bytes; none for one that has no tail.
    #[must_use]
    pub fn of(size: u64) -> Option<Self> {
        let chunks = size.div_ceil(u64::from(CHUNK_BYTES));
        if !(PARTIAL_CHUNKS_MIN..=PARTIAL_CHUNKS_MAX).contains(&chunks) {
            return None;
        }
        let header_at = size.next_multiple_of(PAGE_BYTES);
        let written_at = header_at + PARTIAL_HEADER_BYTES as u64;
        let synced_at = written_at + chunks;
        Some(Self { chunks, header_at, written_at, synced_at, end: synced_at + chunks })
    }
}

/// The runs of chunks that are there, from first to one past the last, in order.
pub fn written_runs(map: &[u8]) -> impl Iterator<Item = (u64, u64)> {
    let mut at = 0;
    core::iter::from_fn(move || {
        let start = at + map[at..].iter().position(|&byte| byte == CHUNK_WRITTEN)?;
        at = map[start..].iter().position(|&byte| byte != CHUNK_WRITTEN).map_or(map.len(), |run| start + run);
        Some((start as u64, at as u64))
    })
}

const CRC_AT: usize = PARTIAL_HEADER_BYTES - 4;

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const CHUNK: u64 = CHUNK_BYTES as u64;

    #[test]
    fn the_tail_lies_behind_the_object_and_its_parts_do_not_overlap() {
        for size in [CHUNK + 1, 2 * CHUNK - 1, 2 * CHUNK, 7 * CHUNK + 4095, PARTIAL_CHUNKS_MAX * CHUNK] {
            let layout = PartialLayout::of(size).unwrap();
            assert!(layout.header_at >= size && layout.header_at.is_multiple_of(PAGE_BYTES));
            assert_eq!(layout.written_at - layout.header_at, PARTIAL_HEADER_BYTES as u64);
            assert_eq!(layout.synced_at - layout.written_at, layout.chunks);
            assert_eq!(layout.end - layout.synced_at, layout.chunks);
            assert_eq!(layout.chunks, size.div_ceil(CHUNK));
        }
        for size in [0, 1, CHUNK, PARTIAL_CHUNKS_MAX * CHUNK + 1, u64::MAX] {
            assert_eq!(PartialLayout::of(size), None);
        }
    }

    proptest! {
        #[test]
        fn runs_are_the_set_bytes(map in proptest::collection::vec(0u8..3, 0..200)) {
            let mut found = vec![false; map.len()];
            let mut last = None;
            for (start, end) in written_runs(&map) {
                prop_assert!(start < end && last.is_none_or(|last| last < start));
                last = Some(end);
                found[start as usize..end as usize].fill(true);
            }
            let expected: Vec<bool> = map.iter().map(|&byte| byte == CHUNK_WRITTEN).collect();
            prop_assert_eq!(found, expected);
        }

        #[test]
        fn a_header_that_is_changed_in_any_place_is_refused(at in 0..PARTIAL_HEADER_BYTES, bit in 0u32..8) {
            let header = PartialHeader { boot: [1; 16], path: [2; 32], size: 3, mtime_s: -4, mtime_ns: 5 };
            let mut bytes = header.to_bytes();
            prop_assert_eq!(PartialHeader::from_bytes(&bytes), Ok(header));
            bytes[at] ^= 1u8 << bit;
            prop_assert!(PartialHeader::from_bytes(&bytes).is_err());
        }
    }
}
