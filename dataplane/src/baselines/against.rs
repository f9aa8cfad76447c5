//! A baseline that is ready to be searched. Small ones are searched whole, in memory; of large ones an index says where
//! to look, and each worker reads and indexes the part that it needs.
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use dwcp_hde::{Baseline, BaselineError, CoarseIndex, EncodedDelta, Encoder, Index, MemoryBaseline, Window};

use super::FileBaseline;

/// What the chunks of one file are sent as differences to. Shared by the workers.
pub struct Against {
    kind: Kind,
    given_up: AtomicBool,
}

enum Kind {
    Whole { baseline: FileBaseline, bytes: Vec<u8>, index: Arc<Index> },
    Large { baseline: FileBaseline, coarse: Arc<CoarseIndex> },
}

/// Where things are in a baseline; made once, whoever searches it.
#[derive(Clone)]
pub enum Map {
    /// Of one that is searched whole.
    Whole(Arc<Index>),
    /// Of one that is not.
    Large(Arc<CoarseIndex>),
}

impl Map {
    /// Reads a baseline; none where its content is not that of its name.
    ///
    /// # Errors
    /// It cannot be read.
    pub fn draw(baseline: &FileBaseline) -> io::Result<Option<Self>> {
        if baseline.length() <= WHOLE_BYTES_MAX {
            let bytes = baseline.load()?;
            return Ok(baseline.is(&bytes).then(|| Self::Whole(Arc::new(Index::new(&bytes)))));
        }
        if !baseline.verify()? {
            return Ok(None);
        }
        let coarse = CoarseIndex::new(baseline).map_err(io::Error::other)?;
        Ok(Some(Self::Large(Arc::new(coarse))))
    }

    /// Bytes of memory that it takes.
    #[must_use]
    pub fn memory_bytes(&self) -> usize {
        match self {
            Self::Whole(index) => index.memory_bytes(),
            Self::Large(coarse) => coarse.memory_bytes(),
        }
    }
}

/// Where in the baseline a worker is with one file.
#[derive(Default)]
pub struct Ground {
    window: Window,
    /// From the place of a chunk in the object to that of its like in the baseline.
    shift: i64,
}

/// Longest baseline that is held in memory while an object is sent. Its index takes an eighth more.
const WHOLE_BYTES_MAX: u64 = 32 << 20;

impl Against {
    /// A baseline with its map.
    ///
    /// # Errors
    /// It cannot be read.
    pub fn new(baseline: FileBaseline, map: Map) -> io::Result<Self> {
        let kind = match map {
            Map::Whole(index) => Kind::Whole { bytes: baseline.load()?, baseline, index },
            Map::Large(coarse) => Kind::Large { baseline, coarse },
        };
        Ok(Self { kind, given_up: AtomicBool::new(false) })
    }

    /// The receiver cannot use it.
    pub fn give_up(&self) {
        self.given_up.store(true, Ordering::Relaxed);
    }

    /// Whether differences to it are still to be sent.
    #[must_use]
    pub fn is_of_use(&self) -> bool {
        !self.given_up.load(Ordering::Relaxed)
    }

    /// Writes a block that stands for the bytes of a file at `offset`; none where it is better sent without this.
    pub fn encode(
        &self,
        encoder: &mut Encoder,
        ground: &mut Ground,
        (offset, plain): (u64, &[u8]),
        level: u8,
        out: &mut [u8],
    ) -> Option<EncodedDelta> {
        let hint = offset.saturating_add_signed(ground.shift);
        let encoded = self.encode_at(encoder, &mut ground.window, (hint, plain), level, out)?;
        let end = offset + plain.len() as u64;
        ground.shift = (encoded.hint_next as i64).wrapping_sub(end as i64);
        Some(encoded)
    }

    fn encode_at(
        &self,
        encoder: &mut Encoder,
        window: &mut Window,
        (hint, plain): (u64, &[u8]),
        level: u8,
        out: &mut [u8],
    ) -> Option<EncodedDelta> {
        match &self.kind {
            Kind::Whole { baseline, bytes, index } => {
                let whole = MemoryBaseline::named(baseline.id(), bytes);
                let against = dwcp_hde::Against::whole(&whole, index)?;
                encoder.encode_delta(plain, &against, hint, level, out).ok()
            }
            Kind::Large { baseline, coarse } => {
                let found: Result<_, BaselineError> = window.against(baseline, coarse, plain, hint);
                let against = found.inspect_err(|error| self.lost(error)).ok()?;
                encoder.encode_delta(plain, &against, hint, level, out).ok()
            }
        }
    }

    fn lost(&self, error: &BaselineError) {
        tracing::warn!(%error, "no more differences are sent of this file");
        self.give_up();
    }
}
