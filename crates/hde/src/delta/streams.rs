//! What a delta block consists of before it is compressed: seven streams. Written by the delta encoder out of segments,
//! read by the decoder; the layout of the whole is `dwcp_abi::wire::DeltaHead`.
//!
//! A segment is three numbers: literal bytes before it, its length, and where it stands in the baseline, relative to the
//! end of the one before plus those literals (the first relative to 0). Between a segment and its part of the baseline
//! there may be differences: runs, each with the equal bytes before it (over all segments), its length, and its bytes:
//! what to add to the baseline's bytes (`Values`), or what stands in their place (in order among the `Literals`).
use std::ops::Range;

use dwcp_abi::wire::DeltaKind;

use super::compare::equal_prefix;
use super::matcher::Segment;

/// The streams of one block.
#[derive(Debug, Default)]
pub(crate) struct Streams {
    pub(crate) gaps: Vec<u8>,
    pub(crate) lengths: Vec<u8>,
    pub(crate) seeks: Vec<u8>,
    pub(crate) skips: Vec<u8>,
    pub(crate) runs: Vec<u8>,
    pub(crate) values: Vec<u8>,
    pub(crate) literals: Vec<u8>,
}

/// A run of differences in a target.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Run {
    target: u32,
    base: u32,
    length: u32,
}

impl Run {
    /// Where in the target.
    pub(crate) fn target(self) -> Range<usize> {
        self.target as usize..(self.target + self.length) as usize
    }

    /// Where in the window of the baseline, of which an index covers no more than 32 bits can name.
    fn base(self) -> Range<usize> {
        self.base as usize..self.base as usize + self.length as usize
    }

    pub(crate) const fn length(self) -> usize {
        self.length as usize
    }
}

impl Streams {
    pub(crate) fn clear(&mut self) {
        let Self { gaps, lengths, seeks, skips, runs, values, literals } = self;
        for stream in [gaps, lengths, seeks, skips, runs, values, literals] {
            stream.clear();
        }
    }

    /// Writes where the segments are. The baseline given begins at `base_offset` of the whole one.
    pub(crate) fn write_segments(&mut self, base_offset: u64, segments: &[Segment]) {
        let (mut at, mut expected) = (0, 0_u64);
        for segment in segments {
            let gap = (segment.target - at) as u64;
            let base = base_offset + segment.base as u64;
            put(&mut self.gaps, gap);
            put(&mut self.lengths, segment.length as u64);
            put(&mut self.seeks, zigzag(base.wrapping_sub(expected.wrapping_add(gap)) as i64));
            expected = base + segment.length as u64;
            at = segment.target_end();
        }
    }

    /// Writes where the runs are.
    pub(crate) fn write_runs(&mut self, segments: &[Segment], runs: &[Run]) {
        let mut runs = runs.iter().peekable();
        let mut equal = 0;
        for segment in segments {
            let mut at = segment.target;
            while let Some(run) = runs.next_if(|run| run.target().start < segment.target_end()) {
                put(&mut self.skips, (equal + run.target().start - at) as u64);
                put(&mut self.runs, run.length() as u64);
                at = run.target().end;
                equal = 0;
            }
            equal += segment.target_end() - at;
        }
    }

    /// Writes the bytes of runs as differences.
    pub(crate) fn write_values(&mut self, target: &[u8], baseline: &[u8], runs: &[Run]) {
        for run in runs {
            let (target, base) = (&target[run.target()], &baseline[run.base()]);
            self.values.extend(target.iter().zip(base).map(|(target, base)| target.wrapping_sub(*base)));
        }
    }

    /// Writes what no segment covers and, where `kind` wants it so, the bytes of runs.
    pub(crate) fn write_literals(
        &mut self,
        target: &[u8],
        kind: DeltaKind,
        segments: &[Segment],
        runs: &[Run],
    ) {
        let runs = if kind == DeltaKind::Exact { runs } else { &[] };
        let mut runs = runs.iter().peekable();
        let mut at = 0;
        for segment in segments {
            self.literals.extend_from_slice(&target[at..segment.target]);
            at = segment.target_end();
            while let Some(run) = runs.next_if(|run| run.target().start < at) {
                self.literals.extend_from_slice(&target[run.target()]);
            }
        }
        self.literals.extend_from_slice(&target[at..]);
    }
}

/// Finds the runs of differences between segments and their parts of the baseline.
pub(crate) fn find_runs(target: &[u8], baseline: &[u8], segments: &[Segment], runs: &mut Vec<Run>) {
    runs.clear();
    for segment in segments {
        let target = &target[segment.target..segment.target_end()];
        let base = &baseline[segment.base..segment.base_end()];
        let mut at = 0;
        loop {
            at += equal_prefix(&target[at..], &base[at..]);
            if at == target.len() {
                break;
            }
            let length = run_length(&target[at..], &base[at..]);
            runs.push(Run {
                target: (segment.target + at) as u32,
                base: (segment.base + at) as u32,
                length: length as u32,
            });
            at += length;
        }
    }
}

/// Length of the run of differences at the front, which one or two equal bytes do not end.
fn run_length(target: &[u8], base: &[u8]) -> usize {
    let (mut end, mut equal) = (0, 0);
    for (at, (target, base)) in target.iter().zip(base).enumerate() {
        if target != base {
            (end, equal) = (at + 1, 0);
            continue;
        }
        equal += 1;
        if equal > RUN_BRIDGE {
            break;
        }
    }
    end
}

/// Equal bytes within a run: fewer than this cost more to skip than to send.
const RUN_BRIDGE: usize = 2;

/// Appends a number in LEB128.
#[inline]
pub(crate) fn put(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

/// Takes a number in LEB128 from the front.
#[inline]
pub(crate) fn take(bytes: &mut &[u8]) -> Option<u64> {
    let mut value = 0;
    for shift in (0..64).step_by(7) {
        let (byte, rest) = bytes.split_first()?;
        *bytes = rest;
        let bits = u64::from(byte & 0x7f);
        if bits << shift >> shift != bits {
            return None;
        }
        value |= bits << shift;
        if byte & 0x80 == 0 {
            return Some(value);
        }
    }
    None
}

#[inline]
const fn zigzag(value: i64) -> u64 {
    ((value << 1) ^ (value >> 63)) as u64
}

/// The inverse of what is done to seeks.
#[inline]
pub(crate) const fn unzigzag(value: u64) -> i64 {
    (value >> 1) as i64 ^ -((value & 1) as i64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_come_back() {
        let mut numbers: Vec<u64> = (0..64).flat_map(|bit| [1 << bit, (1 << bit) - 1]).collect();
        numbers.push(u64::MAX);
        let mut bytes = Vec::new();
        numbers.iter().for_each(|number| put(&mut bytes, *number));
        let mut rest = &bytes[..];
        numbers.iter().for_each(|number| assert_eq!(take(&mut rest), Some(*number)));
        assert_eq!(take(&mut rest), None);
        for value in [0, 1, -1, i64::MAX, i64::MIN] {
            assert_eq!(unzigzag(zigzag(value)), value);
        }
    }

    #[test]
    fn numbers_beyond_64_bits_are_refused() {
        assert_eq!(take(&mut &[0xff; 11][..]), None);
        assert_eq!(take(&mut &[0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 2][..]), None);
        assert_eq!(take(&mut &[0x80, 0x80][..]), None);
    }
}
