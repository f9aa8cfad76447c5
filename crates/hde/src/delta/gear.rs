//! Anchors: places in a byte string that are found again after bytes before them came or went. Used by the index over a
//! baseline and by the search through a target, which must agree on every detail here.
//!
//! A gear hash (Xia et al., "Ddelta: A deduplication-inspired fast delta compression approach", 2014) rolls over the
//! bytes; a place is an anchor where the hash of the 32 bytes that end there begins with six zero bits.

/// Bytes that decide whether a place is an anchor.
pub(crate) const WINDOW: usize = 32;

/// Mean distance of anchors in bytes.
pub(crate) const SPACING: usize = 64;

/// Rolls over bytes from a starting place and stops at anchors.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Gear {
    hash: u32,
    /// End of the window that was looked at last.
    at: usize,
    /// No window that ends before this is whole.
    warm: usize,
}

impl Gear {
    /// Begins with the window that starts at `from`.
    pub(crate) const fn starting(from: usize) -> Self {
        Self { hash: 0, at: from, warm: from + WINDOW }
    }

    /// Start of the window that would be looked at next, were it whole.
    pub(crate) const fn position(self) -> usize {
        self.at
    }

    /// Start of the next anchor that ends at `end` or before; none moves on to `end`.
    pub(crate) fn next(&mut self, bytes: &[u8], end: usize) -> Option<usize> {
        let end = end.min(bytes.len());
        let mut hash = self.hash;
        let warm_end = self.warm.min(end);
        if self.at < warm_end {
            // The hash of the first whole window is not complete before its last byte.
            let cold_end = warm_end.min(self.warm - 1);
            for byte in &bytes[self.at..cold_end] {
                hash = roll(hash, *byte);
            }
            self.at = cold_end;
        }
        while let Some(group) = bytes[self.at..end].first_chunk::<GROUP>() {
            let (after, found) = group_has_anchor(hash, group);
            if found {
                break;
            }
            hash = after;
            self.at += GROUP;
        }
        for (at, byte) in bytes.iter().enumerate().take(end).skip(self.at) {
            hash = roll(hash, *byte);
            if hash & SAMPLE_MASK == 0 && at + 1 >= self.warm {
                return self.stop(hash, at + 1);
            }
        }
        self.hash = hash;
        self.at = self.at.max(end);
        None
    }

    fn stop(&mut self, hash: u32, at: usize) -> Option<usize> {
        self.hash = hash;
        self.at = at;
        Some(at - WINDOW)
    }
}

/// Rolls over a whole group, and says whether an anchor is in it. The smallest hash says so without a branch per byte.
#[inline]
fn group_has_anchor(mut hash: u32, group: &[u8; GROUP]) -> (u32, bool) {
    let mut least = u32::MAX;
    for byte in group {
        hash = roll(hash, *byte);
        least = least.min(hash);
    }
    (hash, least & SAMPLE_MASK == 0)
}

#[inline]
fn roll(hash: u32, byte: u8) -> u32 {
    (hash << 1).wrapping_add(GEAR[byte as usize])
}

/// A hash of all 32 bytes of a window, for the index's slots.
#[inline]
pub(crate) fn window_hash(window: &[u8; WINDOW]) -> u32 {
    let word = |at: usize| {
        let mut bytes = [0; 8];
        bytes.copy_from_slice(&window[at..at + 8]);
        u64::from_le_bytes(bytes)
    };
    let mixed = (word(0) ^ word(8).rotate_left(17)).wrapping_mul(ODD)
        ^ (word(16).rotate_left(31) ^ word(24)).wrapping_mul(ODD.rotate_left(32) | 1);
    ((mixed ^ (mixed >> 29)).wrapping_mul(ODD) >> 32) as u32
}

const GROUP: usize = 16;
const SAMPLE_MASK: u32 = 0xfc00_0000;
const ODD: u64 = 0x9e37_79b9_7f4a_7c15;

/// A random word for each byte: SplitMix64 (Steele et al., "Fast splittable pseudorandom number generators", 2014).
static GEAR: [u32; 256] = {
    let mut table = [0; 256];
    let mut state = 0_u64;
    let mut at = 0;
    while at < table.len() {
        state = state.wrapping_add(ODD);
        let mut word = (state ^ (state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        word = (word ^ (word >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        table[at] = ((word ^ (word >> 31)) >> 32) as u32;
        at += 1;
    }
    table
};

#[cfg(test)]
mod tests {
    use super::*;

    fn noise(length: usize) -> Vec<u8> {
        let mut state = 5_u64;
        let mut next = || {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            (state >> 40) as u8
        };
        (0..length).map(|_| next()).collect()
    }

    fn anchors(bytes: &[u8], from: usize, step: usize) -> Vec<usize> {
        let mut gear = Gear::starting(from);
        let mut found = Vec::new();
        let mut end = from;
        while end < bytes.len() {
            end = (end + step).min(bytes.len());
            found.extend(std::iter::from_fn(|| gear.next(bytes, end)));
        }
        found
    }

    #[test]
    fn anchors_depend_on_their_window_alone() {
        let bytes = noise(20_000);
        let all = anchors(&bytes, 0, 20_000);
        assert!((200..450).contains(&all.len()), "{}", all.len());
        for (from, step) in [(0, 1), (0, 7), (0, 33), (0, 4096)] {
            assert_eq!(anchors(&bytes, from, step), all, "from {from} in steps of {step}");
        }
        for from in [1, 31, 32, 777, 10_000] {
            let later: Vec<_> = all.iter().copied().filter(|anchor| *anchor >= from).collect();
            assert_eq!(anchors(&bytes, from, 20_000), later, "from {from}");
        }
    }

    #[test]
    fn short_strings_have_none() {
        for length in 0..WINDOW {
            assert_eq!(anchors(&vec![0; length], 0, 64), [0; 0]);
        }
    }
}
