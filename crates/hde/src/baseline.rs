//! Content that both ends have, and what blocks may name of it. The dataplane implements [`Baseline`] over files of its
//! store; [`MemoryBaseline`] is for what is in memory or mapped.
use dwcp_abi::wire::ContentId;

/// Content that blocks are coded against. Its bytes must be those of its name: whoever opens it checks that.
pub trait Baseline {
    /// Its name.
    fn id(&self) -> ContentId;

    /// Its bytes.
    fn length(&self) -> u64;

    /// Reads from `offset` on until `out` is full.
    ///
    /// # Errors
    /// It ends before, or its storage fails.
    fn read(&self, offset: u64, out: &mut [u8]) -> Result<(), BaselineError>;

    /// All of it, where it is in memory. [`dwcp_abi::wire::BlockCodec::Reference`] needs it so.
    fn bytes(&self) -> Option<&[u8]> {
        None
    }
}

/// A baseline could not be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{length} bytes of the baseline at {offset} cannot be read")]
pub struct BaselineError {
    /// Where.
    pub offset: u64,
    /// How many bytes were asked for.
    pub length: usize,
}

/// A baseline in memory.
#[derive(Debug, Clone, Copy)]
pub struct MemoryBaseline<'a> {
    id: ContentId,
    bytes: &'a [u8],
}

impl<'a> MemoryBaseline<'a> {
    /// Names bytes by their own digest, which takes a pass over them.
    #[must_use]
    pub fn new(bytes: &'a [u8]) -> Self {
        Self { id: content_id(bytes), bytes }
    }

    /// Bytes whose name is known already.
    #[must_use]
    pub const fn named(id: ContentId, bytes: &'a [u8]) -> Self {
        Self { id, bytes }
    }
}

impl Baseline for MemoryBaseline<'_> {
    fn id(&self) -> ContentId {
        self.id
    }

    fn length(&self) -> u64 {
        self.bytes.len() as u64
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> Result<(), BaselineError> {
        let length = out.len();
        let start = usize::try_from(offset).ok();
        let range = start.and_then(|start| Some(start..start.checked_add(length)?));
        let bytes = range.and_then(|range| self.bytes.get(range)).ok_or(BaselineError { offset, length })?;
        out.copy_from_slice(bytes);
        Ok(())
    }

    fn bytes(&self) -> Option<&[u8]> {
        Some(self.bytes)
    }
}

/// The name of content: the first half of its BLAKE3 digest.
#[must_use]
pub fn content_id(bytes: &[u8]) -> ContentId {
    id_of_digest(blake3::hash(bytes).as_bytes())
}

/// The name of content whose BLAKE3 digest is known.
#[must_use]
pub fn id_of_digest(digest: &[u8; 32]) -> ContentId {
    let mut id = [0; dwcp_abi::wire::CONTENT_ID_BYTES];
    id.copy_from_slice(&digest[..dwcp_abi::wire::CONTENT_ID_BYTES]);
    ContentId(id)
}
