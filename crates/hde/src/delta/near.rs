//! The parts of a baseline beside what a block copies of it: literals are likely to resemble them, and are compressed with
//! them before. Encoder and decoder call this with the same segments and must come to the same parts.
use std::ops::Range;

use super::apply::Place;

/// Parts of a baseline of `base_length` bytes, in the order of the segments. `literals` bounds their total: twice as
/// many bytes and 64 KiB, at most 1 MiB.
pub(crate) fn parts(
    places: &[Place],
    plain_length: usize,
    base_length: u64,
    literals: usize,
) -> Vec<Range<u64>> {
    let mut parts =
        Parts { parts: Vec::new(), left: (2 * literals as u64 + 64 * 1024).min(NEAR_BYTES_MAX), base_length };
    let mut before: Option<&Place> = None;
    for place in places {
        let gap = (place.target - before.map_or(0, |before| before.target_end())) as u64;
        if gap > 0 {
            parts.between(before.map(|before| before.base_end()), Some(place.base), gap);
        }
        before = Some(place);
    }
    let gap = (plain_length - before.map_or(0, |before| before.target_end())) as u64;
    if gap > 0 {
        parts.between(before.map(|before| before.base_end()), None, gap);
    }
    parts.parts
}

struct Parts {
    parts: Vec<Range<u64>>,
    left: u64,
    base_length: u64,
}

impl Parts {
    /// What lies between two places of the baseline, or beside both where they are far from each other.
    fn between(&mut self, end: Option<u64>, start: Option<u64>, gap: u64) {
        match (end, start) {
            (Some(end), Some(start)) if start >= end && start - end <= 4 * gap + NEAR => {
                self.push(end.saturating_sub(OVERLAP)..start + OVERLAP);
            }
            (end, start) => {
                if let Some(end) = end {
                    self.push(end.saturating_sub(OVERLAP)..end + gap + BESIDE);
                }
                if let Some(start) = start {
                    self.push(start.saturating_sub(gap + BESIDE)..start + OVERLAP);
                }
            }
        }
    }

    fn push(&mut self, part: Range<u64>) {
        let mut part = part.start..part.end.min(self.base_length);
        if let Some(last) = self.parts.last()
            && last.contains(&part.start)
        {
            part.start = last.end;
        }
        if part.start >= part.end {
            return;
        }
        part.end = part.end.min(part.start + self.left);
        self.left -= part.end - part.start;
        if part.start < part.end {
            self.parts.push(part);
        }
    }
}

/// Bytes of what is copied that are taken along.
const OVERLAP: u64 = 32;

/// Bytes beyond the length of a gap that are taken on one side of it.
const BESIDE: u64 = 256;

/// Two places are near each other when four times the gap and so many bytes lie between them.
const NEAR: u64 = 4096;

/// Most bytes of all parts: where more is new, it is not like what stands beside it.
const NEAR_BYTES_MAX: u64 = 1024 * 1024;
