//! Which stored object is like a new one, whatever their names: min-hash over anchors. Called where an object has no
//! version under its own name.
use crate::delta::anchor_hashes;

/// A sample of an object's anchors that two objects share as far as they share anchors (Broder, "On the resemblance and
/// containment of documents", 1997).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Sketch([u32; SKETCH_HASHES]);

impl Sketch {
    /// Of an object without bytes: like nothing.
    #[must_use]
    pub const fn new() -> Self {
        Self([u32::MAX; SKETCH_HASHES])
    }

    /// Takes bytes of the object; parts may come in any order, anchors across their borders are left out.
    pub fn push(&mut self, bytes: &[u8]) {
        anchor_hashes(bytes, |hash| {
            for (least, odd) in self.0.iter_mut().zip(ODD) {
                *least = (*least).min(hash.wrapping_mul(odd) ^ (hash >> 15).wrapping_mul(odd));
            }
        });
    }

    /// Estimated share of anchors in common, in thousandths.
    #[must_use]
    pub fn likeness_thousandths(&self, other: &Self) -> u32 {
        let pairs = self.0.iter().zip(&other.0);
        let same = pairs.filter(|(left, right)| left == right && **left != u32::MAX).count();
        (same * 1000 / SKETCH_HASHES) as u32
    }

    /// As bytes, to be sent or stored.
    #[must_use]
    pub fn to_bytes(&self) -> [u8; SKETCH_BYTES] {
        let mut bytes = [0; SKETCH_BYTES];
        for (room, hash) in bytes.chunks_exact_mut(4).zip(self.0) {
            room.copy_from_slice(&hash.to_le_bytes());
        }
        bytes
    }

    /// From bytes; all are possible.
    #[must_use]
    pub fn from_bytes(bytes: &[u8; SKETCH_BYTES]) -> Self {
        let mut sketch = Self::new();
        for (hash, bytes) in sketch.0.iter_mut().zip(bytes.as_chunks().0) {
            *hash = u32::from_le_bytes(*bytes);
        }
        sketch
    }
}

impl Default for Sketch {
    fn default() -> Self {
        Self::new()
    }
}

/// Hashes of a sketch: likeness is known to about a quarter at half.
pub const SKETCH_HASHES: usize = 32;

/// Bytes of a sketch.
pub const SKETCH_BYTES: usize = 4 * SKETCH_HASHES;

/// Odd multipliers, one per hash.
const ODD: [u32; SKETCH_HASHES] = {
    let mut odd = [0; SKETCH_HASHES];
    let mut state = 0x9e37_79b9_u32;
    let mut at = 0;
    while at < odd.len() {
        state = state.wrapping_mul(0x0019_660d).wrapping_add(0x3c6e_f35f);
        odd[at] = (state ^ (state >> 13)) | 1;
        at += 1;
    }
    odd
};
