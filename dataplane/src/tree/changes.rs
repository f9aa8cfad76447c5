//! What a receiver has changed, or would change: exact figures, and the first names.
use super::notes::Notes;
use dwcp_abi::codec::Encoded;
use dwcp_abi::wire::{CHANGED_NAMES_BYTES_MAX, Change, ChangedName, JOB_CHANGES_BYTES_MAX, JobChanges};

/// Of one job.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct Changes {
    /// Entries that would be new.
    pub created: u64,
    /// Entries that would take the place of others.
    pub replaced: u64,
    /// Bytes of files among these.
    pub bytes: u64,
    /// Entries that are deleted, or would be.
    pub deleted: u64,
    /// What else an operator should know.
    pub notes: Notes,
    /// As in [`JobChanges::names`].
    names: Vec<u8>,
    is_full: bool,
}

impl Changes {
    /// Counts a change; its name is kept while there is room, and none after the first that found none.
    pub(super) fn note(&mut self, change: Change, name: &[u8], bytes: u64) {
        match change {
            Change::Created => self.created += 1,
            Change::Replaced => self.replaced += 1,
            Change::Deleted => self.deleted += 1,
        }
        self.bytes = self.bytes.saturating_add(bytes);
        let (start, length) = (self.names.len(), HEAD_BYTES + name.len());
        self.is_full = self.is_full || start + length > CHANGED_NAMES_BYTES_MAX;
        if !self.is_full {
            self.names.resize(start + length, 0);
            let written = ChangedName { change, name }.encode(&mut self.names[start..]).unwrap_or(0);
            self.names.truncate(start + written);
        }
    }

    /// As it travels.
    #[must_use]
    pub fn to_bytes(&self) -> Vec<u8> {
        let Self { created, replaced, bytes, deleted, names, notes, .. } = self;
        let (created, replaced, bytes, deleted) = (*created, *replaced, *bytes, *deleted);
        let mut encoded = vec![0; JOB_CHANGES_BYTES_MAX];
        let length =
            JobChanges { created, replaced, bytes, deleted, names, notes: notes.as_str().as_bytes() }
                .encode(&mut encoded);
        // The names are bounded: there is room.
        encoded.truncate(length.unwrap_or(0));
        encoded
    }
}

/// A tag and a length in front of a name.
const HEAD_BYTES: usize = 3;

#[cfg(test)]
mod tests {
    use super::*;
    use dwcp_abi::wire::changed_names;

    #[test]
    fn figures_are_exact_and_names_are_the_first() {
        let mut changes = Changes::default();
        for number in 0..10_000 {
            changes.note(Change::Deleted, format!("name/{number}").as_bytes(), 2);
        }
        changes.note(Change::Replaced, b"a", 1);
        let bytes = changes.to_bytes();
        let read = JobChanges::decode(&bytes).unwrap();
        assert_eq!((read.created, read.replaced, read.deleted, read.bytes), (0, 1, 10_000, 20_001));
        let names: Vec<_> = changed_names(read.names).map(Result::unwrap).collect();
        assert!(names.len() > 500 && names.len() < 1000, "{}", names.len());
        let expected = |number| format!("name/{number}").into_bytes();
        assert!(names.iter().enumerate().all(|(number, name)| name.name == expected(number)));
    }
}
