//! Sets of byte ranges: which parts of an object are written.
use alloc::vec::Vec;

/// Disjoint, sorted, non-adjacent half-open ranges.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct RangeSet {
    ranges: Vec<(u64, u64)>,
    covered: u64,
}

impl RangeSet {
    /// The empty set.
    #[must_use]
    pub const fn new() -> Self {
        Self { ranges: Vec::new(), covered: 0 }
    }

    /// Adds `start..end` and says how many values of it were new.
    pub fn insert(&mut self, start: u64, end: u64) -> u64 {
        if start >= end {
            return 0;
        }
        // All ranges in `first..last` touch or overlap the new one.
        let first = self.ranges.partition_point(|&(_, range_end)| range_end < start);
        let last = self.ranges.partition_point(|&(range_start, _)| range_start <= end);
        let touched = &self.ranges[first..last];
        let joined_start = touched.first().map_or(start, |range| range.0.min(start));
        let joined_end = touched.last().map_or(end, |range| range.1.max(end));
        let before: u64 = touched.iter().map(|range| range.1 - range.0).sum();
        if first < last {
            self.ranges[first] = (joined_start, joined_end);
            self.ranges.drain(first + 1..last);
        } else {
            self.ranges.insert(first, (joined_start, joined_end));
        }
        let new = joined_end - joined_start - before;
        self.covered += new;
        new
    }

    /// Whether `value` is in the set.
    #[must_use]
    pub fn contains(&self, value: u64) -> bool {
        let index = self.ranges.partition_point(|&(_, end)| end <= value);
        self.ranges.get(index).is_some_and(|&(start, _)| start <= value)
    }

    /// The ranges, in order.
    pub fn iter(&self) -> impl Iterator<Item = (u64, u64)> {
        self.ranges.iter().copied()
    }

    /// Number of values in the set.
    #[must_use]
    pub fn covered(&self) -> u64 {
        self.covered
    }

    /// Number of separate ranges: what the set costs in memory.
    #[must_use]
    pub fn fragments(&self) -> usize {
        self.ranges.len()
    }
}

#[cfg(test)]
mod tests {
    use super::RangeSet;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn agrees_with_a_set_of_values(inserts in proptest::collection::vec((0u64..200, 0u64..40), 0..40)) {
            let mut set = RangeSet::new();
            let mut model = [false; 256];
            for (start, length) in inserts {
                let mut new = 0;
                for value in start..start + length {
                    new += u64::from(!core::mem::replace(&mut model[value as usize], true));
                }
                prop_assert_eq!(set.insert(start, start + length), new);
            }
            for (value, &inside) in model.iter().enumerate() {
                prop_assert_eq!(set.contains(value as u64), inside);
            }
            prop_assert_eq!(set.covered(), model.iter().filter(|&&inside| inside).count() as u64);
            prop_assert!(set.ranges.windows(2).all(|pair| pair[0].1 < pair[1].0));
        }
    }
}
