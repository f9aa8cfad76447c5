//! The log above the last checkpoint: entries by slot, without gaps. Holds them and answers about them.
use alloc::collections::BTreeMap;
use alloc::vec::Vec;

use super::messages::Entry;

#[derive(Debug, Default)]
pub(super) struct Log {
    /// What stands for everything below: a slot and its term.
    base: (u64, u64),
    entries: BTreeMap<u64, Entry>,
}

impl Log {
    pub(super) fn new(base: u64, entries: BTreeMap<u64, Entry>) -> Self {
        let mut log = Self { base: (base, 0), entries };
        log.forget_below(base);
        log.close_gaps();
        log
    }

    pub(super) fn base(&self) -> u64 {
        self.base.0
    }

    /// The last slot, and its term.
    pub(super) fn last(&self) -> (u64, u64) {
        self.entries.last_key_value().map_or(self.base, |(slot, entry)| (*slot, entry.term))
    }

    /// The term of a slot; `None` where it is not here.
    pub(super) fn term(&self, slot: u64) -> Option<u64> {
        if slot == self.base.0 { Some(self.base.1) } else { self.entries.get(&slot).map(|entry| entry.term) }
    }

    pub(super) fn get(&self, slot: u64) -> Option<&Entry> {
        self.entries.get(&slot)
    }

    pub(super) fn len(&self) -> usize {
        self.entries.len()
    }

    pub(super) fn above(&self, slot: u64) -> impl Iterator<Item = (u64, &Entry)> {
        self.entries.range(slot + 1..).map(|(slot, entry)| (*slot, entry))
    }

    /// Puts an entry after the last.
    pub(super) fn push(&mut self, entry: Entry) -> u64 {
        let slot = self.last().0 + 1;
        self.entries.insert(slot, entry);
        slot
    }

    /// Lets go of a slot and all above; returns which those were.
    pub(super) fn cut(&mut self, slot: u64) -> Vec<u64> {
        self.entries.split_off(&slot).into_keys().collect()
    }

    /// A checkpoint stands for everything up to a slot of a term. Returns slots that are of no more use: those below, and
    /// all others where this log went another way.
    pub(super) fn rebase(&mut self, slot: u64, term: u64) -> Vec<u64> {
        let agrees = slot == self.base.0 || self.term(slot) == Some(term);
        let mut gone = self.forget_below(slot);
        if !agrees {
            gone.extend(self.cut(slot + 1));
        }
        self.base = (slot, term);
        gone
    }

    fn forget_below(&mut self, slot: u64) -> Vec<u64> {
        let kept = self.entries.split_off(&(slot + 1));
        core::mem::replace(&mut self.entries, kept).into_keys().collect()
    }

    fn close_gaps(&mut self) {
        let first = self.base.0 + 1;
        let whole = self.entries.keys().zip(first..).take_while(|(slot, expected)| *slot == expected).count();
        self.entries = core::mem::take(&mut self.entries).into_iter().take(whole).collect();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn log(terms: &[u64]) -> Log {
        let entry = |(slot, term): (u64, &u64)| (slot, Entry { term: *term, block: Default::default() });
        Log::new(0, (1..).zip(terms).map(entry).collect())
    }

    #[test]
    fn a_checkpoint_keeps_what_follows_it_and_nothing_of_another_way() {
        let mut same = log(&[1, 1, 2, 2]);
        assert_eq!(same.rebase(2, 1), [1, 2]);
        assert_eq!((same.base(), same.last(), same.term(2), same.term(1)), (2, (4, 2), Some(1), None));
        let mut other = log(&[1, 1, 2, 2]);
        assert_eq!(other.rebase(3, 5), [1, 2, 3, 4]);
        assert_eq!(other.last(), (3, 5));
        let mut short = log(&[1]);
        short.rebase(9, 4);
        assert_eq!(short.last(), (9, 4));
    }

    #[test]
    fn a_log_has_no_gaps() {
        let entry = |slot: u64| (slot, Entry { term: 1, block: Default::default() });
        let log = Log::new(2, [1, 3, 4, 6].into_iter().map(entry).collect());
        assert_eq!((log.last().0, log.len()), (4, 2));
    }
}
