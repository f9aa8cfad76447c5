//! What an object consists of: sent before its bytes, so that the other end can say what of it is there already.
//!
//! ```text
//!  0            16       24       28
//!  ┌────────────┬────────┬────────┬───────────────────────────────────┐
//!  │ content id │ length │ chunks │ then of each chunk: id, length    │
//!  └────────────┴────────┴────────┴───────────────────────────────────┘
//!                                     16 bytes, u32
//! ```
//! The answer is a bit per chunk, lowest first, set where it is there.
use super::{CONTENT_ID_BYTES, ContentId};
use crate::codec::{CodecError, Reader, Writer};

/// The first bytes of a recipe.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RecipeHead {
    /// The whole object.
    pub content: ContentId,
    /// Its bytes.
    pub length: u64,
    /// Chunks that follow.
    pub chunks: u32,
}

/// A chunk in a recipe.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RecipeChunk {
    /// Its content.
    pub id: ContentId,
    /// Its bytes.
    pub length: u32,
}

/// Bytes of a [`RecipeHead`].
pub const RECIPE_HEAD_BYTES: usize = CONTENT_ID_BYTES + 12;

/// Bytes of a [`RecipeChunk`].
pub const RECIPE_CHUNK_BYTES: usize = CONTENT_ID_BYTES + 4;

/// Most chunks of one recipe: 1.3 MB of it, and 4 GiB of an object in chunks of 64 KiB. Longer objects send several.
pub const RECIPE_CHUNKS_MAX: u32 = 64 * 1024;

impl RecipeHead {
    /// Appends the head.
    ///
    /// # Errors
    /// [`CodecError::NoRoom`].
    pub fn write(&self, writer: &mut Writer<'_>) -> Result<(), CodecError> {
        writer.bytes(&self.content.0)?;
        writer.u64(self.length)?;
        writer.u32(self.chunks)
    }
}

impl RecipeChunk {
    /// Appends a chunk.
    ///
    /// # Errors
    /// [`CodecError::NoRoom`].
    pub fn write(&self, writer: &mut Writer<'_>) -> Result<(), CodecError> {
        writer.bytes(&self.id.0)?;
        writer.u32(self.length)
    }
}

/// A recipe whose lengths agree with each other.
#[derive(Debug, Clone, Copy)]
pub struct Recipe<'a> {
    head: RecipeHead,
    chunks: &'a [u8],
}

impl<'a> Recipe<'a> {
    /// Reads a recipe that fills `bytes`.
    ///
    /// # Errors
    /// More chunks than [`RECIPE_CHUNKS_MAX`], bytes missing or left over, empty chunks, or chunks that are not as long
    /// as the object.
    pub fn read(bytes: &'a [u8]) -> Result<Self, CodecError> {
        let mut reader = Reader::new(bytes);
        let content = ContentId(reader.array()?);
        let (length, chunks) = (reader.u64()?, reader.u32()?);
        if chunks > RECIPE_CHUNKS_MAX {
            let (value, max) = (u64::from(chunks), u64::from(RECIPE_CHUNKS_MAX));
            return Err(CodecError::TooLarge { field: "recipe chunks", value, max });
        }
        let body = reader.bytes(chunks as usize * RECIPE_CHUNK_BYTES)?;
        reader.finish()?;
        let recipe = Self { head: RecipeHead { content, length, chunks }, chunks: body };
        let total: u64 = recipe.chunks().map(|chunk| u64::from(chunk.length)).sum();
        if total != length || recipe.chunks().any(|chunk| chunk.length == 0) {
            return Err(CodecError::Unknown { field: "recipe length", value: total });
        }
        Ok(recipe)
    }

    /// The head.
    #[must_use]
    pub const fn head(&self) -> RecipeHead {
        self.head
    }

    /// The chunks in order.
    pub fn chunks(&self) -> impl Iterator<Item = RecipeChunk> + 'a {
        let chunks = self.chunks.as_chunks::<RECIPE_CHUNK_BYTES>().0;
        chunks.iter().filter_map(|bytes| {
            let (id, length) = bytes.split_first_chunk()?;
            let length = u32::from_le_bytes(*length.first_chunk()?);
            Some(RecipeChunk { id: ContentId(*id), length })
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn recipe(length: u64, chunks: u32, lengths: &[u32]) -> Vec<u8> {
        let mut bytes = vec![0; RECIPE_HEAD_BYTES + lengths.len() * RECIPE_CHUNK_BYTES];
        let mut writer = Writer::new(&mut bytes);
        RecipeHead { content: ContentId([9; 16]), length, chunks }.write(&mut writer).unwrap();
        for length in lengths {
            RecipeChunk { id: ContentId([*length as u8; 16]), length: *length }.write(&mut writer).unwrap();
        }
        bytes
    }

    #[test]
    fn layout_is_pinned() {
        let bytes = recipe(0x105, 1, &[0x105]);
        let golden =
            [&[9; 16][..], &[5, 1, 0, 0, 0, 0, 0, 0], &[1, 0, 0, 0], &[5; 16], &[5, 1, 0, 0]].concat();
        assert_eq!(bytes, golden);
        let read = Recipe::read(&bytes).unwrap();
        assert_eq!(read.head(), RecipeHead { content: ContentId([9; 16]), length: 0x105, chunks: 1 });
        let chunks: Vec<_> = read.chunks().collect();
        assert_eq!(chunks, [RecipeChunk { id: ContentId([5; 16]), length: 0x105 }]);
    }

    #[test]
    fn recipes_that_lie_are_refused() {
        assert!(Recipe::read(&recipe(30, 2, &[10, 20])).is_ok());
        assert!(Recipe::read(&recipe(0, 0, &[])).is_ok());
        assert!(Recipe::read(&recipe(31, 2, &[10, 20])).is_err());
        assert!(Recipe::read(&recipe(30, 3, &[10, 20])).is_err());
        assert!(Recipe::read(&recipe(30, 1, &[10, 20])).is_err());
        assert!(Recipe::read(&recipe(30, 3, &[10, 20, 0])).is_err());
        assert!(Recipe::read(&recipe(0, u32::MAX, &[])).is_err());
        let whole = recipe(30, 2, &[10, 20]);
        for end in 0..whole.len() {
            assert!(Recipe::read(&whole[..end]).is_err());
        }
    }
}
