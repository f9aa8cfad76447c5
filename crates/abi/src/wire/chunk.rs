//! What stands before the bytes of a chunk.
use crate::codec::{codes, records};

codes! {
    /// How the bytes of a chunk are coded.
    pub enum Codec: u8 {
        /// As they are.
        Raw = 0,
        /// Not there at all: the range is a hole of the source and reads as zeros.
        Hole = 1,
        /// A block of `hde`, which names its own codec, lengths and checksum.
        Block = 2,
    }
}

/// Bytes of a [`ChunkHead`].
pub const CHUNK_HEAD_BYTES: usize = 32;

records! {
    /// Where a chunk belongs. The chunk's bytes follow.
    pub struct ChunkHead {
        /// The object, as its announcement in a pack numbered it.
        pub object: u64,
        /// Offset of the first byte. A multiple of [`super::CHUNK_BYTES`].
        pub offset: u64,
        /// Plain bytes that it stands for; at most [`super::CHUNK_BYTES`] unless it is a hole.
        pub length: u64,
        /// How they are coded.
        pub codec: Codec,
        /// Zero.
        pub reserved: [u8; 3],
        /// The attempt of the job that read it. A chunk of a former attempt is dropped.
        pub attempt: u32,
    }

    /// Which pack it is. The pack's entries follow.
    pub struct PackHead {
        /// From 0, in the order of filling.
        pub number: u64,
        /// The attempt of the job that filled it.
        pub attempt: u32,
        /// Zero.
        pub reserved: u32,
    }
}

/// Bytes of a [`PackHead`].
pub const PACK_HEAD_BYTES: usize = 16;
