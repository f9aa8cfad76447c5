//! Which names a job has brought, so that others can be told from them when it deletes.
//!
//! Eight bytes for each name, a keyed hash of its path: two names with the same hash would only let a name stay that
//! should go, once in 2⁶⁴ pairs. What the source has is remembered here and not listed by the sender once more, because
//! nothing more than that crosses the wire, several sources may fill one directory, and the names are those that were
//! really sent, whatever happened at the source since.
use std::hash::{BuildHasher, RandomState};

/// A set of names.
#[derive(Debug)]
pub(super) struct Sent {
    hasher: RandomState,
    hashes: Vec<u64>,
    names_max: usize,
    /// Names have found no room: nothing may be deleted.
    is_full: bool,
    /// The destination's own directory is one that was sent.
    pub(super) root: bool,
}

impl Sent {
    /// Holds at most so many names.
    pub(super) fn new(names_max: usize) -> Self {
        Self { hasher: RandomState::new(), hashes: Vec::new(), names_max, is_full: false, root: false }
    }

    /// Takes a name in, perhaps again.
    pub(super) fn insert(&mut self, path: &[u8]) {
        if self.hashes.len() >= self.names_max {
            // A pack that came twice has brought its names twice.
            self.sort();
            self.is_full |= self.hashes.len() >= self.names_max;
        }
        if !self.is_full {
            self.hashes.push(self.hasher.hash_one(path));
        }
    }

    /// Makes [`Sent::contains`] fast; says whether all names are in it.
    pub(super) fn close(&mut self) -> bool {
        self.sort();
        !self.is_full
    }

    /// Whether a name was brought, once the set is closed.
    pub(super) fn contains(&self, path: &[u8]) -> bool {
        self.hashes.binary_search(&self.hasher.hash_one(path)).is_ok()
    }

    fn sort(&mut self) {
        self.hashes.sort_unstable();
        self.hashes.dedup();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_million_names_cost_eight_bytes_each() {
        let mut sent = Sent::new(1 << 20);
        for number in 0..1_000_000 {
            sent.insert(format!("directory/{}/{number}", number % 1000).as_bytes());
        }
        assert!(sent.close());
        assert!(sent.hashes.capacity() * size_of::<u64>() <= 8 << 20);
        assert!(sent.contains(b"directory/7/7") && !sent.contains(b"directory/7/8"));
    }

    #[test]
    fn names_beyond_the_bound_are_noticed_and_repeated_ones_are_not() {
        let mut sent = Sent::new(3);
        for name in ["a", "b", "a", "b", "a", "c"] {
            sent.insert(name.as_bytes());
        }
        assert!(sent.close() && sent.contains(b"c"));
        sent.insert(b"d");
        assert!(!sent.close());
    }
}
