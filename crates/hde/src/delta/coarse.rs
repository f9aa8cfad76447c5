//! Baselines larger than memory: one anchor in 64 says where in the baseline a block belongs, and only that part is read
//! and indexed. Called by the dataplane's helper threads in place of one [`Index`] over everything.
use super::gear::{Gear, WINDOW, window_hash};
use super::{Against, Index};
use crate::{Baseline, BaselineError};

/// Where each 4 KiB of a baseline are, roughly: 8 bytes for them, 0.2 %. Kept with the baseline.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CoarseIndex {
    /// The hash of an anchor, and its place in steps of [`STEP`] plus one; 0 is empty.
    slots: Box<[(u32, u32)]>,
}

impl CoarseIndex {
    /// Reads a baseline once, from its beginning. Only its first 16 TiB are covered.
    ///
    /// # Errors
    /// The baseline cannot be read.
    pub fn new(baseline: &dyn Baseline) -> Result<Self, BaselineError> {
        let slots = (baseline.length() / STEP).clamp(1, SLOTS_MAX) as usize;
        let mut index = Self { slots: vec![(0, 0); slots].into() };
        let mut buffer = vec![0; READ_BYTES + WINDOW];
        let mut start = 0;
        while start < baseline.length() {
            let length = (baseline.length() - start).min(buffer.len() as u64) as usize;
            let bytes = &mut buffer[..length];
            baseline.read(start, bytes)?;
            coarse_anchors(bytes, |at, hash| index.insert(hash, start + at as u64));
            start += READ_BYTES as u64;
        }
        Ok(index)
    }

    /// Bytes of memory held.
    #[must_use]
    pub fn memory_bytes(&self) -> usize {
        size_of::<Self>() + size_of_val(&*self.slots)
    }

    /// Where in the baseline `block` most likely begins: where most of its anchors say so, or at `hint`.
    #[must_use]
    pub fn locate(&self, block: &[u8], hint: u64) -> u64 {
        let mut votes: Vec<u64> = Vec::new();
        coarse_anchors(block, |at, hash| {
            let place = self.place(hash).and_then(|place| place.checked_sub(at as u64));
            votes.extend(place.map(|place| place / VOTE_BYTES));
        });
        votes.sort_unstable();
        let most = votes.chunk_by(|left, right| left == right).max_by_key(|same| same.len());
        match most {
            Some(same) if same.len() >= VOTES_MIN => same[0] * VOTE_BYTES,
            _ => hint,
        }
    }

    fn insert(&mut self, hash: u32, place: u64) {
        let at = self.slot_of(hash);
        if let Ok(step) = u32::try_from(place / STEP + 1) {
            self.slots[at] = (hash, step);
        }
    }

    fn place(&self, hash: u32) -> Option<u64> {
        let (known, step) = self.slots[self.slot_of(hash)];
        (known == hash && step > 0).then(|| u64::from(step - 1) * STEP)
    }

    fn slot_of(&self, hash: u32) -> usize {
        ((u64::from(hash.wrapping_mul(0x9e37_79b1)) * self.slots.len() as u64) >> 32) as usize
    }
}

/// The part of a large baseline that blocks are coded against at the moment.
#[derive(Default)]
pub struct Window {
    bytes: Vec<u8>,
    offset: u64,
    index: Option<Index>,
}

impl Window {
    /// What `block`, expected at `hint`, is to be coded against. Reads and indexes another [`WINDOW_BYTES`] only where
    /// the ones at hand do not surround the place.
    ///
    /// # Errors
    /// The baseline cannot be read.
    pub fn against<'a>(
        &'a mut self,
        baseline: &'a dyn Baseline,
        coarse: &CoarseIndex,
        block: &[u8],
        hint: u64,
    ) -> Result<Against<'a>, BaselineError> {
        let place = coarse.locate(block, hint).min(baseline.length());
        if self.index.is_none() || !self.surrounds(place, block.len() as u64, baseline.length()) {
            self.index = None;
            self.offset = place.saturating_sub(WINDOW_BYTES / 4);
            let length = WINDOW_BYTES.min(baseline.length() - self.offset) as usize;
            self.bytes.resize(length, 0);
            baseline.read(self.offset, &mut self.bytes)?;
        }
        let index = self.index.get_or_insert_with(|| Index::new(&self.bytes));
        Ok(Against { baseline, window: &self.bytes, window_offset: self.offset, index })
    }

    /// Bytes of memory held.
    #[must_use]
    pub fn memory_bytes(&self) -> usize {
        self.bytes.capacity() + self.index.as_ref().map_or(0, Index::memory_bytes)
    }

    fn surrounds(&self, place: u64, length: u64, baseline_length: u64) -> bool {
        let end = self.offset + self.bytes.len() as u64;
        let margin = WINDOW_BYTES / 16;
        let front = self.offset == 0 || place >= self.offset + margin;
        place >= self.offset && front && (end == baseline_length || place + length + margin <= end)
    }
}

/// Anchors whose hash of all 32 bytes ends in six more zero bits.
fn coarse_anchors(bytes: &[u8], mut found: impl FnMut(usize, u32)) {
    let mut gear = Gear::starting(0);
    while let Some(at) = gear.next(bytes, bytes.len()) {
        let Some(window) = bytes[at..].first_chunk() else { return };
        let hash = window_hash(window);
        if hash & COARSE_MASK == 0 {
            found(at, hash);
        }
    }
}

/// Bytes of a baseline that are searched at once.
pub const WINDOW_BYTES: u64 = 16 * 1024 * 1024;

const STEP: u64 = 4096;
const SLOTS_MAX: u64 = 1 << 31;
const READ_BYTES: usize = 1024 * 1024;
const COARSE_MASK: u32 = 0x3f;

/// Places that differ by less than this are the same place.
const VOTE_BYTES: u64 = 1024 * 1024;
const VOTES_MIN: usize = 2;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::MemoryBaseline;

    fn noise(length: usize, seed: u64) -> Vec<u8> {
        let mut state = seed | 1;
        let mut next = || {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            state.to_le_bytes()
        };
        (0..length / 8).flat_map(|_| next()).collect()
    }

    #[test]
    fn blocks_are_located_and_windows_kept() {
        let bytes = noise(40 << 20, 3);
        let baseline = MemoryBaseline::new(&bytes);
        let coarse = CoarseIndex::new(&baseline).unwrap();
        assert!(coarse.memory_bytes() * 400 < bytes.len());
        let mut window = Window::default();
        for start in [0_usize, 4 << 20, 8 << 20, 30 << 20, 36 << 20] {
            let block = &bytes[start..start + (1 << 20)];
            let against = window.against(&baseline, &coarse, block, 0).unwrap();
            let end = against.window_offset + against.window.len() as u64;
            assert!(against.window_offset <= start as u64 && end >= (start + block.len()) as u64, "{start}");
            assert_eq!(against.window, &bytes[against.window_offset as usize..end as usize]);
        }
        assert!(window.memory_bytes() < 20 << 20);
        let strange = noise(1 << 20, 77);
        assert_eq!(coarse.locate(&strange, 12_345), 12_345);
    }
}
