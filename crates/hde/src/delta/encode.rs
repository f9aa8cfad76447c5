//! Plain bytes to the coded bytes of `Same` and `Delta` blocks. Called by [`crate::Encoder`], which writes the header and
//! sends plain what does not fit.
use dwcp_abi::wire::{BlockCodec, DeltaHead, DeltaKind, STREAMS};
use zstd_safe::CCtx;

use super::apply::{Place, gather_near};
use super::matcher::{Segment, find};
use super::pieces::{self, Out};
use super::streams::{Run, Streams, find_runs};
use super::{Index, words};
use crate::Baseline;

/// What a block is coded against: a baseline, and the part of it that is searched, which must be in memory.
#[derive(Clone, Copy)]
pub struct Against<'a> {
    /// The whole.
    pub baseline: &'a dyn Baseline,
    /// The part that is searched.
    pub window: &'a [u8],
    /// Where that begins in the whole.
    pub window_offset: u64,
    /// Made from the window.
    pub index: &'a Index,
}

impl<'a> Against<'a> {
    /// The whole of a baseline that is in memory.
    #[must_use]
    pub fn whole(baseline: &'a dyn Baseline, index: &'a Index) -> Option<Self> {
        let window = baseline.bytes()?;
        Some(Self { baseline, window, window_offset: 0, index })
    }
}

/// What became of a block.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Coded {
    pub(crate) codec: BlockCodec,
    pub(crate) length: usize,
    pub(crate) hint_next: u64,
    pub(crate) literals: usize,
}

/// Codes blocks against baselines. Keeps its buffers: at most twice the longest block, and what Zstandard takes.
#[derive(Default)]
pub(crate) struct DeltaEncoder {
    segments: Vec<Segment>,
    places: Vec<Place>,
    runs: Vec<Run>,
    streams: Streams,
    near: Vec<u8>,
    trial: Vec<u8>,
}

impl DeltaEncoder {
    /// Codes `plain`, whose first byte is expected at `hint` of the baseline, into `out`. None where it does not fit.
    pub(crate) fn encode(
        &mut self,
        context: &mut CCtx<'static>,
        plain: &[u8],
        against: &Against<'_>,
        hint: u64,
        level: u8,
        out: &mut [u8],
    ) -> Option<Coded> {
        let Against { window, window_offset, index, .. } = *against;
        let window = &window[..window.len().min(index.covered_bytes())];
        let start = hint.saturating_sub(window_offset).min(window.len() as u64) as usize;
        find(plain, window, index, start, &mut self.segments);
        find_runs(plain, window, &self.segments, &mut self.runs);
        self.streams.clear();
        let last = self.segments.last();
        let hint_next = last.map_or(hint.saturating_add(plain.len() as u64), |last| {
            window_offset + (last.base_end() + plain.len() - last.target_end()) as u64
        });
        if let ([whole], []) = (&self.segments[..], &self.runs[..])
            && whole.length == plain.len()
        {
            out.get_mut(..8)?.copy_from_slice(&(window_offset + whole.base as u64).to_le_bytes());
            return Some(Coded { codec: BlockCodec::Same, length: 8, hint_next, literals: 0 });
        }
        let kind = self.choose_kind(context, plain, window, start);
        let length = self.write(context, plain, against, kind, level, out)?;
        let literals = self.streams.literals.len();
        Some(Coded { codec: BlockCodec::Delta, length, hint_next, literals })
    }

    /// How differences are written. Numbers get one segment of their own.
    fn choose_kind(
        &mut self,
        context: &mut CCtx<'static>,
        plain: &[u8],
        window: &[u8],
        start: usize,
    ) -> DeltaKind {
        let covered: usize = self.segments.iter().map(|segment| segment.length).sum();
        let there = &window[start..];
        if covered < plain.len() / 2 && there.len() >= plain.len() && self.words_pay(context, plain, there) {
            let length = plain.len() / words::WORD * words::WORD;
            self.segments.clear();
            self.segments.push(Segment { target: 0, base: start, length });
            self.runs.clear();
            self.streams.values.resize(length, 0);
            words::split(plain, there, &mut self.streams.values);
            return DeltaKind::Words;
        }
        self.streams.write_values(plain, window, &self.runs);
        let sample_runs = sample(&self.runs);
        self.trial.clear();
        for run in sample_runs {
            self.trial.extend_from_slice(&plain[run.target()]);
        }
        let values = &self.streams.values[..self.trial.len()];
        let mut room = vec![0; zstd_safe::compress_bound(values.len())];
        let mut length = |bytes: &[u8]| context.compress(&mut room[..], bytes, 1).unwrap_or(usize::MAX);
        if length(&self.trial) < length(values) {
            self.streams.values.clear();
            return DeltaKind::Exact;
        }
        DeltaKind::Difference
    }

    /// Whether samples are a tenth smaller as differences of words.
    fn words_pay(&mut self, context: &mut CCtx<'static>, plain: &[u8], there: &[u8]) -> bool {
        if plain.len() < 4 * WORDS_SAMPLE_BYTES {
            return false;
        }
        let mut planes = [0; WORDS_SAMPLE_BYTES];
        let mut room = [0; 2 * WORDS_SAMPLE_BYTES];
        let (mut as_words, mut as_bytes) = (0, 0);
        for quarter in 0..4 {
            let at = quarter * (plain.len() / 4) / words::WORD * words::WORD;
            let sample = &plain[at..at + WORDS_SAMPLE_BYTES];
            words::split(sample, &there[at..at + WORDS_SAMPLE_BYTES], &mut planes);
            let mut length =
                |bytes: &[u8]| context.compress(&mut room[..], bytes, 1).unwrap_or(usize::MAX / 8);
            as_words += planes.chunks(WORDS_SAMPLE_BYTES / words::WORD).map(&mut length).sum::<usize>();
            as_bytes += length(sample);
        }
        as_words * 10 < as_bytes * 9
    }

    fn write(
        &mut self,
        context: &mut CCtx<'static>,
        plain: &[u8],
        against: &Against<'_>,
        kind: DeltaKind,
        level: u8,
        out: &mut [u8],
    ) -> Option<usize> {
        let streams = &mut self.streams;
        streams.write_segments(against.window_offset, &self.segments);
        streams.write_runs(&self.segments, &self.runs);
        streams.write_literals(plain, kind, &self.segments, &self.runs);
        self.places.clear();
        self.places.extend(self.segments.iter().map(|segment| Place {
            target: segment.target,
            base: against.window_offset + segment.base as u64,
            length: segment.length,
        }));
        let Streams { gaps, lengths, seeks, skips, runs, values, literals } = &self.streams;
        let plain_streams = [gaps, lengths, seeks, skips, runs, values];
        let mut all = [0; STREAMS];
        for (length, stream) in all.iter_mut().zip(plain_streams.iter().copied().chain([literals])) {
            *length = u32::try_from(stream.len()).ok()?;
        }
        if all.iter().map(|length| *length as usize).sum::<usize>() > 2 * plain.len() {
            return None;
        }
        let mut out = Out::new(out);
        out.bytes(&DeltaHead { kind, segments: self.segments.len() as u32, lengths: all }.to_bytes())?;
        plain_streams.iter().try_for_each(|stream| pieces::write(context, stream, level, &mut out))?;
        if !literals.is_empty() {
            gather_near(&mut self.near, &self.places, plain.len(), literals.len(), against.baseline).ok()?;
            pieces::write_near(context, literals, &self.near, level, &mut out)?;
        }
        Some(out.written())
    }

    /// The literals of the latest block.
    pub(crate) fn literals(&self) -> &[u8] {
        &self.streams.literals
    }

    pub(crate) fn memory_bytes(&self) -> usize {
        let Streams { gaps, lengths, seeks, skips, runs, values, literals } = &self.streams;
        let streams = [gaps, lengths, seeks, skips, runs, values, literals];
        streams.iter().map(|stream| stream.capacity()).sum::<usize>()
            + self.segments.capacity() * size_of::<Segment>()
            + self.places.capacity() * size_of::<Place>()
            + self.runs.capacity() * size_of::<Run>()
            + self.near.capacity()
            + self.trial.capacity()
    }
}

/// The first runs, up to 16 KiB of them.
fn sample(runs: &[Run]) -> &[Run] {
    let mut bytes = 0;
    let within = runs.iter().take_while(|run| {
        bytes += run.length();
        bytes <= KIND_SAMPLE_BYTES
    });
    &runs[..within.count()]
}

const KIND_SAMPLE_BYTES: usize = 16 * 1024;
const WORDS_SAMPLE_BYTES: usize = 8 * 1024;
