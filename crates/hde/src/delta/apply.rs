//! Coded bytes of delta blocks to plain bytes. Called by [`crate::Decoder`]; every number in a block is hostile.
use dwcp_abi::codec::Reader;
use dwcp_abi::wire::{DeltaHead, DeltaKind, Stream};
use zstd_safe::DCtx;

use super::streams::{take, unzigzag};
use super::{near, pieces, words};
use crate::{Baseline, DecodeError};

/// A segment whose place in the baseline is known to exist.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Place {
    pub(crate) target: usize,
    pub(crate) base: u64,
    pub(crate) length: usize,
}

impl Place {
    pub(crate) const fn target_end(&self) -> usize {
        self.target + self.length
    }

    pub(crate) const fn base_end(&self) -> u64 {
        self.base + self.length as u64
    }
}

/// Decodes delta blocks. Keeps its buffers: together at most four times the longest block, and 1 MiB.
#[derive(Debug, Default)]
pub(crate) struct Applier {
    streams: [Vec<u8>; dwcp_abi::wire::STREAMS],
    places: Vec<Place>,
    near: Vec<u8>,
}

impl Applier {
    /// Fills `plain` from `coded` and the baseline.
    pub(crate) fn apply(
        &mut self,
        context: &mut DCtx<'static>,
        coded: &[u8],
        baseline: &dyn Baseline,
        plain: &mut [u8],
    ) -> Result<(), DecodeError> {
        let mut reader = Reader::new(coded);
        let head = DeltaHead::read(&mut reader, plain.len() as u32)?;
        for (stream, length) in self.streams.iter_mut().zip(head.lengths).take(Stream::Literals as usize) {
            pieces::read(context, &mut reader, length as usize, stream)?;
        }
        self.read_places(&head, plain.len(), baseline.length())?;
        let literals = head.lengths[Stream::Literals as usize] as usize;
        self.read_near(baseline, plain.len(), literals)?;
        let stream = &mut self.streams[Stream::Literals as usize];
        pieces::read_near(context, &mut reader, &self.near, literals, stream)?;
        reader.finish()?;
        self.fill(head.kind, baseline, plain)
    }

    pub(crate) fn memory_bytes(&self) -> usize {
        let streams: usize = self.streams.iter().map(Vec::capacity).sum();
        streams + self.near.capacity() + self.places.capacity() * size_of::<Place>()
    }

    /// Reads the segments, in order in the target and within target and baseline.
    fn read_places(&mut self, head: &DeltaHead, plain: usize, base_length: u64) -> Result<(), DecodeError> {
        let [gaps, lengths, seeks, ..] = &self.streams;
        let (mut gaps, mut lengths, mut seeks) = (&gaps[..], &lengths[..], &seeks[..]);
        // Each takes a byte of every stream, so there is never room for more than were received.
        if head.segments as usize > gaps.len().min(lengths.len()).min(seeks.len()) {
            return Err(SEGMENTS);
        }
        self.places.clear();
        let (mut at, mut expected) = (0_u64, 0_u64);
        for _ in 0..head.segments {
            let number = |stream: &mut &[u8]| take(stream).ok_or(SEGMENTS);
            let (gap, length) = (number(&mut gaps)?, number(&mut lengths)?);
            let seek = unzigzag(number(&mut seeks)?);
            let target = at.checked_add(gap).ok_or(SEGMENTS)?;
            let end = target.checked_add(length).filter(|end| *end <= plain as u64).ok_or(SEGMENTS)?;
            let base =
                expected.checked_add(gap).and_then(|at| at.checked_add_signed(seek)).ok_or(SEGMENTS)?;
            expected = base.checked_add(length).filter(|end| *end <= base_length).ok_or(SEGMENTS)?;
            self.places.push(Place { target: target as usize, base, length: length as usize });
            at = end;
        }
        if gaps.is_empty() && lengths.is_empty() && seeks.is_empty() { Ok(()) } else { Err(SEGMENTS) }
    }

    fn read_near(
        &mut self,
        baseline: &dyn Baseline,
        plain: usize,
        literals: usize,
    ) -> Result<(), DecodeError> {
        self.near.clear();
        if literals > 0 {
            gather_near(&mut self.near, &self.places, plain, literals, baseline)?;
        }
        Ok(())
    }

    fn fill(&self, kind: DeltaKind, baseline: &dyn Baseline, plain: &mut [u8]) -> Result<(), DecodeError> {
        let [.., values, literals] = &self.streams;
        let mut fill = Fill { kind, runs: self.runs(), values: &values[..], literals: &literals[..] };
        let mut at = 0;
        for place in &self.places {
            fill.literals(&mut plain[at..place.target])?;
            at = place.target_end();
            let target = &mut plain[place.target..at];
            baseline.read(place.base, target)?;
            match kind {
                DeltaKind::Difference | DeltaKind::Exact => fill.differences(target)?,
                DeltaKind::Words => fill.words(target)?,
            }
        }
        fill.literals(&mut plain[at..])?;
        fill.finish()
    }

    fn runs(&self) -> Runs<'_> {
        let [_, _, _, skips, runs, ..] = &self.streams;
        Runs { skips: &skips[..], lengths: &runs[..], pending: None }
    }
}

/// Puts the parts of the baseline that are near the places into `near`. The byte at the front keeps Zstandard from taking
/// them for a dictionary of its own format.
pub(crate) fn gather_near(
    near: &mut Vec<u8>,
    places: &[Place],
    plain: usize,
    literals: usize,
    baseline: &dyn Baseline,
) -> Result<(), crate::BaselineError> {
    near.clear();
    near.push(0);
    for part in near::parts(places, plain, baseline.length(), literals) {
        let start = near.len();
        near.resize(start + (part.end - part.start) as usize, 0);
        baseline.read(part.start, &mut near[start..])?;
    }
    Ok(())
}

/// What is left of the streams while the plain bytes are filled in.
struct Fill<'a> {
    kind: DeltaKind,
    runs: Runs<'a>,
    values: &'a [u8],
    literals: &'a [u8],
}

impl Fill<'_> {
    fn literals(&mut self, out: &mut [u8]) -> Result<(), DecodeError> {
        let (bytes, rest) = self.literals.split_at_checked(out.len()).ok_or(LITERALS)?;
        out.copy_from_slice(bytes);
        self.literals = rest;
        Ok(())
    }

    /// Applies the runs that begin in this segment, which holds its part of the baseline.
    fn differences(&mut self, target: &mut [u8]) -> Result<(), DecodeError> {
        let mut at = 0;
        while let Some(run) = self.runs.within(target.len() - at)? {
            let start = at + run.skip;
            let out = target.get_mut(start..start + run.length).ok_or(RUNS)?;
            at = start + run.length;
            if self.kind == DeltaKind::Exact {
                self.literals(out)?;
                continue;
            }
            let (values, rest) = self.values.split_at_checked(run.length).ok_or(RUNS)?;
            out.iter_mut().zip(values).for_each(|(byte, value)| *byte = byte.wrapping_add(*value));
            self.values = rest;
        }
        Ok(())
    }

    fn words(&mut self, target: &mut [u8]) -> Result<(), DecodeError> {
        let whole = target.len() / words::WORD * words::WORD;
        let (planes, rest) = self.values.split_at_checked(target.len()).ok_or(VALUES)?;
        let (planes, tail) = planes.split_at(whole);
        words::join(planes, &mut target[..whole]);
        target[whole..].copy_from_slice(tail);
        self.values = rest;
        Ok(())
    }

    fn finish(self) -> Result<(), DecodeError> {
        if !self.values.is_empty() {
            return Err(VALUES);
        }
        if !self.literals.is_empty() {
            return Err(LITERALS);
        }
        self.runs.finish()
    }
}

/// Runs that are left. One may begin segments later than the one before.
struct Runs<'a> {
    skips: &'a [u8],
    lengths: &'a [u8],
    /// Equal bytes before the next run.
    pending: Option<u64>,
}

struct RunAhead {
    skip: usize,
    length: usize,
}

impl Runs<'_> {
    /// The next run, if it begins within so many bytes. Otherwise these have been passed.
    #[inline]
    fn within(&mut self, left: usize) -> Result<Option<RunAhead>, DecodeError> {
        let skip = match self.pending.take() {
            Some(skip) => skip,
            None if self.skips.is_empty() => return Ok(None),
            None => take(&mut self.skips).ok_or(RUNS)?,
        };
        if skip >= left as u64 {
            self.pending = Some(skip - left as u64);
            return Ok(None);
        }
        let length = take(&mut self.lengths).filter(|length| *length <= left as u64 - skip).ok_or(RUNS)?;
        Ok(Some(RunAhead { skip: skip as usize, length: length as usize }))
    }

    fn finish(self) -> Result<(), DecodeError> {
        let done = self.skips.is_empty() && self.lengths.is_empty() && self.pending.is_none();
        if done { Ok(()) } else { Err(RUNS) }
    }
}

const SEGMENTS: DecodeError = DecodeError::Corrupt { field: "delta segments" };
const RUNS: DecodeError = DecodeError::Corrupt { field: "delta runs" };
const VALUES: DecodeError = DecodeError::Corrupt { field: "delta values" };
const LITERALS: DecodeError = DecodeError::Corrupt { field: "delta literals" };
