//! Content-defined chunks: the parts of an object that are named by their content, so that they are found in other objects
//! and at other places. Called where objects are read or written anyway; [`crate::Inventory`] compares what it makes.
use dwcp_abi::wire::ContentId;
use fastcdc::v2020::FastCDC;

use crate::content_id;

/// A part of an object.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Chunk {
    /// Where it begins.
    pub offset: u64,
    /// Its bytes.
    pub length: u32,
    /// Its name.
    pub id: ContentId,
}

/// Cuts an object that is given in parts (FastCDC, Xia et al. 2020).
#[derive(Debug, Default)]
pub struct Chunker {
    offset: u64,
    pending: Vec<u8>,
}

impl Chunker {
    /// Begins an object.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Takes the object's next bytes and appends the chunks that are complete.
    pub fn push(&mut self, bytes: &[u8], chunks: &mut Vec<Chunk>) {
        self.pending.extend_from_slice(bytes);
        // A cut is certain where the longest chunk would fit.
        self.cut(CHUNK_BYTES_MAX, chunks);
    }

    /// Appends the last chunks.
    pub fn finish(mut self, chunks: &mut Vec<Chunk>) {
        self.cut(1, chunks);
    }

    fn cut(&mut self, remaining_min: usize, chunks: &mut Vec<Chunk>) {
        let cutter = FastCDC::new(&self.pending, CHUNK_BYTES_MIN, CHUNK_BYTES_MEAN, CHUNK_BYTES_MAX);
        let mut at = 0;
        while self.pending.len() - at >= remaining_min {
            let (_, end) = cutter.cut(at, self.pending.len() - at);
            let bytes = &self.pending[at..end];
            chunks.push(Chunk {
                offset: self.offset + at as u64,
                length: bytes.len() as u32,
                id: content_id(bytes),
            });
            at = end;
        }
        self.pending.drain(..at);
        self.offset += at as u64;
    }
}

/// Chunks of a whole object in memory.
#[must_use]
pub fn chunks_of(bytes: &[u8]) -> Vec<Chunk> {
    let (mut chunker, mut chunks) = (Chunker::new(), Vec::new());
    chunker.push(bytes, &mut chunks);
    chunker.finish(&mut chunks);
    chunks
}

/// Bytes of chunks. With 20 bytes for each a recipe is 0.03 % of its object.
pub const CHUNK_BYTES_MIN: usize = 16 * 1024;
/// See [`CHUNK_BYTES_MIN`].
pub const CHUNK_BYTES_MEAN: usize = 64 * 1024;
/// See [`CHUNK_BYTES_MIN`].
pub const CHUNK_BYTES_MAX: usize = 256 * 1024;
