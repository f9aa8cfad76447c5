//! Which parts of a target stand in a baseline, nearly or exactly. Called by the delta encoder for one block; decides
//! nothing about how the parts are written.
//!
//! It follows one alignment (a place in the target and one in the baseline) for as long as equal bytes outweigh
//! different ones. Where something differs, anchors are looked up, and another alignment that explains the next bytes
//! better takes over. The extension is that of bsdiff (Percival, "Naive differences of executable code", 2003); a
//! sampled hash table stands in for its suffix array.
use super::compare::{
    STRIDE, best_split, equal_count, equal_in_stride, equal_prefix, worthwhile_prefix, worthwhile_suffix,
};
use super::gear::{Gear, WINDOW};
use super::index::Index;

/// A part of the target that is like a part of the baseline of the same length.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Segment {
    pub(crate) target: usize,
    pub(crate) base: usize,
    pub(crate) length: usize,
}

impl Segment {
    pub(crate) const fn target_end(self) -> usize {
        self.target + self.length
    }

    pub(crate) const fn base_end(self) -> usize {
        self.base + self.length
    }
}

/// Finds the segments of `target`, in order and without overlap in the target. `hint` is a place in the baseline where
/// the target's first byte may be.
pub(crate) fn find(target: &[u8], baseline: &[u8], index: &Index, hint: usize, segments: &mut Vec<Segment>) {
    segments.clear();
    let mut search = Search { target, baseline, index, segments };
    let mut next = search.begin(hint);
    while let Some(start) = next {
        next = search.follow(start);
    }
}

struct Search<'a> {
    target: &'a [u8],
    baseline: &'a [u8],
    index: &'a Index,
    segments: &'a mut Vec<Segment>,
}

/// An alignment from the place on where it is known to hold.
#[derive(Debug, Clone, Copy)]
struct Alignment {
    /// First byte in the target that belongs to it.
    start: usize,
    /// From here on it is to be followed.
    at: usize,
    /// Place in the baseline that stands for `at`.
    base: usize,
}

impl Alignment {
    /// Place in the baseline that stands for a place in the target not before `start`.
    const fn base_of(self, target: usize) -> usize {
        self.base + target - self.at
    }
}

impl Search<'_> {
    fn begin(&self, hint: usize) -> Option<Alignment> {
        let length = self.target.len().min(self.baseline.len().saturating_sub(hint)).min(HINT_BYTES);
        let like =
            equal_count(&self.target[..length], &self.baseline[hint.min(self.baseline.len())..][..length]);
        if length > 0 && like * 2 >= length {
            return Some(Alignment { start: 0, at: 0, base: hint });
        }
        self.search_from(0, Some(Alignment { start: 0, at: 0, base: hint }))
    }

    /// Follows an alignment to its end, and keeps what it was good for. The next one, unless the target ends.
    fn follow(&mut self, alignment: Alignment) -> Option<Alignment> {
        let mut walk = Walk::new(alignment);
        let left = self.target.len() - alignment.at;
        let end = alignment.at + left.min(self.baseline.len() - alignment.base);
        while walk.at < end {
            walk.skip_equal(self.target, self.baseline, end);
            if !walk.step(self.target, self.baseline, end) {
                break;
            }
            if let Some(rival) = self.rival(&mut walk) {
                return Some(self.change_over(&walk, rival));
            }
        }
        let end = walk.best_end;
        self.keep(alignment.start, alignment.base_of(alignment.start), end);
        self.search_from(end, Some(alignment))
    }

    /// An alignment by an anchor in what was just stepped over that explains what follows better than this one.
    fn rival(&self, walk: &mut Walk) -> Option<Alignment> {
        while let Some(start) = walk.gear.next(self.target, walk.at) {
            let Some(window) = self.target[start..].first_chunk::<WINDOW>() else { continue };
            let own = walk.alignment.base_of(start);
            if self.baseline.get(own..own + WINDOW).is_some_and(|own| own == window) {
                continue;
            }
            let better = self.index.matches(self.baseline, window).find(|base| self.gains(start, own, *base));
            if let Some(base) = better {
                return Some(Alignment { start, at: start, base });
            }
        }
        None
    }

    /// Whether the baseline from `rival` on equals the target from `start` on in enough more bytes than from `own` on.
    fn gains(&self, start: usize, own: usize, rival: usize) -> bool {
        let mut lead = 0_i64;
        let end = self.target.len().min(start + RIVAL_BYTES_MAX);
        for from in (start..end).step_by(RIVAL_STEP) {
            let ahead = from - start;
            let target = &self.target[from..end.min(from + RIVAL_STEP)];
            let like = |base: usize| {
                let there = self.baseline.get(base.min(self.baseline.len())..).unwrap_or_default();
                let length = target.len().min(there.len());
                equal_count(&target[..length], &there[..length]) as i64
            };
            lead += like(rival + ahead) - like(own + ahead);
            if lead >= RIVAL_GAIN {
                return true;
            }
            if lead < -RIVAL_GAIN {
                return false;
            }
        }
        false
    }

    /// Ends the walk's alignment where the rival becomes better.
    fn change_over(&mut self, walk: &Walk, rival: Alignment) -> Alignment {
        let old = walk.alignment;
        let forward_end = walk.best_end.min(rival.at).max(old.start);
        let back = self.backward(rival, old.start.max(forward_end.saturating_sub(OVERLAP_BYTES_MAX)));
        let start = if back < forward_end {
            let range = back..forward_end;
            let base = rival.base - (rival.at - back);
            let first = &self.baseline[old.base_of(back)..][..range.len()];
            back + best_split(&self.target[range.clone()], first, &self.baseline[base..][..range.len()])
        } else {
            back
        };
        self.keep(old.start, old.base_of(old.start), forward_end.min(start));
        Alignment { start, ..rival }
    }

    /// First target byte that an alignment is worth, not before `floor`.
    fn backward(&self, alignment: Alignment, floor: usize) -> usize {
        let reach = (alignment.at - floor).min(alignment.base).min(BACKWARD_BYTES_MAX);
        let target = &self.target[alignment.at - reach..alignment.at];
        alignment.at - worthwhile_suffix(target, &self.baseline[alignment.base - reach..alignment.base], DROP)
    }

    /// The next alignment that holds at or after `from`: that of before, or what an anchor gives.
    fn search_from(&self, from: usize, before: Option<Alignment>) -> Option<Alignment> {
        let mut gear = Gear::starting(from);
        let mut nudge = Nudge { at: from, step: NUDGE_STEP };
        let mut at = from;
        while at < self.target.len() {
            let end = self.target.len().min(at + RESUME_STEP);
            while let Some(anchor) = gear.next(self.target, end) {
                if let Some(found) = self.by_anchor(anchor) {
                    return Some(Alignment { start: self.backward(found, from), ..found });
                }
            }
            let resumed = before.and_then(|before| {
                self.resume(before, at, end).or_else(|| nudge.due(at).then(|| self.nudge(before, at))?)
            });
            if let Some(resumed) = resumed {
                return Some(Alignment { start: self.backward(resumed, from), ..resumed });
            }
            at = end;
        }
        None
    }

    /// The alignment of before, moved a little: entries of a table that came or went move all that follow, and where all
    /// of those changed a little no anchor finds them again.
    fn nudge(&self, before: Alignment, at: usize) -> Option<Alignment> {
        let target = self.target.get(at..at + NUDGE_BYTES)?;
        let expected = (before.base + at).checked_sub(before.at)?;
        let first = expected.saturating_sub(NUDGE_REACH) + (expected.min(NUDGE_REACH) % NUDGE_GRAIN);
        let last = (expected + NUDGE_REACH).min(self.baseline.len().checked_sub(NUDGE_BYTES)?);
        let like = |base: usize| equal_count(target, &self.baseline[base..base + NUDGE_BYTES]);
        let bases = (first..=last).step_by(NUDGE_GRAIN);
        let (best, base) = bases.map(|base| (like(base), base)).max()?;
        (best * 4 >= NUDGE_BYTES * 3).then_some(Alignment { start: at, at, base })
    }

    /// The alignment of before, where it holds again.
    fn resume(&self, before: Alignment, at: usize, end: usize) -> Option<Alignment> {
        let base = (before.base + at).checked_sub(before.at)?;
        let there = self.baseline.get(base..base + (end - at))?;
        let like = equal_count(&self.target[at..end], there);
        (like * RESUME_SHARE.1 >= (end - at) * RESUME_SHARE.0).then_some(Alignment { start: at, at, base })
    }

    fn by_anchor(&self, at: usize) -> Option<Alignment> {
        let window = self.target[at..].first_chunk::<WINDOW>()?;
        let longest = |base: &usize| {
            let end = self.target.len().min(at + CANDIDATE_BYTES);
            equal_prefix(&self.target[at..end], &self.baseline[*base..])
        };
        let base = self.index.matches(self.baseline, window).max_by_key(longest)?;
        Some(Alignment { start: at, at, base })
    }

    fn keep(&mut self, start: usize, base: usize, end: usize) {
        if end < start + SEGMENT_BYTES_MIN {
            return;
        }
        self.segments.push(Segment { target: start, base, length: end - start });
    }
}

/// When to look around: ever more rarely while nothing is found.
struct Nudge {
    at: usize,
    step: usize,
}

impl Nudge {
    fn due(&mut self, at: usize) -> bool {
        if at < self.at {
            return false;
        }
        self.at = at + self.step;
        self.step = (self.step * 2).min(NUDGE_STEP_MAX);
        true
    }
}

/// How far an alignment has been followed, and up to where it was worth it.
struct Walk {
    alignment: Alignment,
    at: usize,
    score: i32,
    best: i32,
    best_end: usize,
    gear: Gear,
}

impl Walk {
    const fn new(alignment: Alignment) -> Self {
        Self {
            alignment,
            at: alignment.at,
            score: 0,
            best: 0,
            best_end: alignment.at,
            gear: Gear::starting(alignment.at),
        }
    }

    /// Goes over whole strides that are equal.
    fn skip_equal(&mut self, target: &[u8], baseline: &[u8], end: usize) {
        let there = &baseline[self.alignment.base_of(self.at)..];
        let equal = equal_prefix(&target[self.at..end], there);
        self.at += equal;
        self.score = self.score.saturating_add(equal.min(EQUAL_SCORE_MAX) as i32);
        if self.score >= self.best {
            // Only differences to the best matter.
            (self.score, self.best, self.best_end) = (0, 0, self.at);
        }
    }

    /// Goes over one stride with differences. False where the alignment has been lost.
    fn step(&mut self, target: &[u8], baseline: &[u8], end: usize) -> bool {
        let length = STRIDE.min(end - self.at);
        let here = &target[self.at..self.at + length];
        let there = &baseline[self.alignment.base_of(self.at)..][..length];
        let equal = match (here.first_chunk(), there.first_chunk()) {
            (Some(here), Some(there)) => equal_in_stride(here, there),
            _ => equal_count(here, there),
        };
        // Windows that lie wholly in equal bytes can only find this very alignment.
        let window_start = (self.at + 1).saturating_sub(WINDOW).max(self.alignment.at);
        if self.gear.position() < window_start {
            self.gear = Gear::starting(window_start);
        }
        let gained = 2 * equal as i32 - length as i32;
        if self.score + gained > self.best || equal * 4 >= length * 3 {
            let worth = worthwhile_prefix(here, there, DROP);
            let inner = 2 * equal_count(&here[..worth], &there[..worth]) as i32 - worth as i32;
            if self.score + inner > self.best {
                (self.best, self.best_end) = (self.score + inner, self.at + worth);
            }
        }
        self.score += gained;
        self.at += length;
        self.score >= self.best - DROP && self.at - self.best_end <= WANDER_BYTES_MAX
    }
}

/// A hint is followed where half of so many bytes are as they were.
const HINT_BYTES: usize = 4096;

/// Different bytes more than equal ones after which an alignment is lost.
const DROP: i32 = 64;

/// Most bytes that are followed without anything gained: bounds what is looked at twice.
const WANDER_BYTES_MAX: usize = 1024;

/// Equal bytes in excess that another alignment must have, and within how many bytes.
const RIVAL_GAIN: i64 = 20;
const RIVAL_BYTES_MAX: usize = 4096;
const RIVAL_STEP: usize = 128;

/// Most bytes that an alignment is extended to before its anchor.
const BACKWARD_BYTES_MAX: usize = 16 * 1024;

/// While nothing holds, the alignment of before is tried every so many bytes, and taken up again where this share of
/// them is equal.
const RESUME_STEP: usize = 64;
const RESUME_SHARE: (usize, usize) = (5, 8);

/// Most bytes in which the place of a change-over is looked for.
const OVERLAP_BYTES_MAX: usize = 1024;

/// So many bytes are compared at places so far to both sides, every so many bytes, at first and in the end.
const NUDGE_BYTES: usize = 64;
const NUDGE_REACH: usize = 256;
const NUDGE_GRAIN: usize = 4;
const NUDGE_STEP: usize = 128;
const NUDGE_STEP_MAX: usize = 8192;

/// Bytes by which candidates for an anchor are compared.
const CANDIDATE_BYTES: usize = 1024;

const SEGMENT_BYTES_MIN: usize = dwcp_abi::wire::DELTA_SEGMENT_BYTES_MIN as usize;

/// A run of equal bytes counts no more than this: enough to outweigh any loss so far.
const EQUAL_SCORE_MAX: usize = 1 << 20;
