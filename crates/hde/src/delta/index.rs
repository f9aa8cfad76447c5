//! Where a baseline's anchors are. Built once per baseline by whoever sends and kept with it; asked by the delta search.
use super::gear::{Gear, SPACING, WINDOW, window_hash};

/// Anchors of a baseline, or of a window of one: two places per bucket, an eighth of the bytes that it covers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Index {
    /// One more than the start of an anchor; 0 is empty.
    buckets: Box<[[u32; 2]]>,
    covered: usize,
}

impl Index {
    /// Indexes `baseline`, of which all but the first 4 GiB − 64 KiB are left out.
    #[must_use]
    pub fn new(baseline: &[u8]) -> Self {
        let covered = baseline.len().min(COVERED_MAX);
        let baseline = &baseline[..covered];
        let mut index = Self { buckets: vec![[0; 2]; (covered / SPACING).max(1)].into(), covered };
        let mut gear = Gear::starting(0);
        let mut batch = [(0, 0); BATCH];
        loop {
            let found = index.gather(baseline, &mut gear, &mut batch);
            index.insert(&batch[..found]);
            if found < BATCH {
                return index;
            }
        }
    }

    /// Bytes of the baseline that it was made for.
    #[must_use]
    pub const fn covered_bytes(&self) -> usize {
        self.covered
    }

    /// Bytes of memory held.
    #[must_use]
    pub fn memory_bytes(&self) -> usize {
        size_of::<Self>() + size_of_val(&*self.buckets)
    }

    /// Places in `baseline` whose window equals the one given.
    #[inline]
    pub(crate) fn matches<'a>(
        &'a self,
        baseline: &'a [u8],
        window: &'a [u8; WINDOW],
    ) -> impl Iterator<Item = usize> + 'a {
        let bucket = self.buckets[self.bucket_of(window)];
        let starts = bucket.into_iter().filter(|start| *start != 0).map(|start| start as usize - 1);
        starts.filter(move |start| baseline.get(*start..*start + WINDOW).is_some_and(|there| there == window))
    }

    /// The next anchors: bucket and value of each.
    fn gather(&self, baseline: &[u8], gear: &mut Gear, batch: &mut [(usize, u32); BATCH]) -> usize {
        for (found, entry) in batch.iter_mut().enumerate() {
            let Some(start) = gear.next(baseline, baseline.len()) else { return found };
            let Some(window) = baseline[start..].first_chunk() else { return found };
            *entry = (self.bucket_of(window), start as u32 + 1);
        }
        BATCH
    }

    /// Keeps the first and the latest of what falls into one bucket. Memory is slow here, and waits for many at once.
    fn insert(&mut self, batch: &[(usize, u32)]) {
        for (bucket, value) in batch {
            let bucket = &mut self.buckets[*bucket];
            let place = usize::from(bucket[0] != 0);
            bucket[place] = *value;
        }
    }

    #[inline]
    fn bucket_of(&self, window: &[u8; WINDOW]) -> usize {
        ((u64::from(window_hash(window)) * self.buckets.len() as u64) >> 32) as usize
    }
}

/// Anchors that are found before any is put down.
const BATCH: usize = 64;

/// Places must fit 32 bits.
const COVERED_MAX: usize = u32::MAX as usize - 0xffff;
