//! What a job has changed at its receiver, or would change: the receiver says it at the job's end, the sender's
//! dataplane and control hand it on as it is.
use crate::codec::{CodecError, Encoded, Reader, codes, records};

codes! {
    /// What happens to a name at the receiver.
    pub enum Change: u8 {
        /// It was not there.
        Created = 1,
        /// Something else was there.
        Replaced = 2,
        /// The source does not have it.
        Deleted = 3,
    }
}

records! {
    /// Figures, and the first names.
    pub struct JobChanges<'a> {
        /// Entries that would be new. Only a rehearsal counts them, as it does the next two.
        pub created: u64,
        /// Entries that would take the place of others.
        pub replaced: u64,
        /// Bytes of files among these.
        pub bytes: u64,
        /// Entries that were deleted, or would be.
        pub deleted: u64,
        /// [`ChangedName`]s one after the other, at most [`CHANGED_NAMES_BYTES_MAX`].
        pub names: &'a [u8],
        /// What an operator should know though nothing failed: lines of UTF-8, at most [`NOTES_BYTES_MAX`].
        pub notes: &'a [u8],
    }

    /// One name.
    pub struct ChangedName<'a> {
        /// What happens to it.
        pub change: Change,
        /// Path below the destination.
        pub name: &'a [u8],
    }
}

/// Longest [`JobChanges`] in bytes.
pub const JOB_CHANGES_BYTES_MAX: usize = CHANGED_NAMES_BYTES_MAX + NOTES_BYTES_MAX + 36;

/// Longest notes in bytes.
pub const NOTES_BYTES_MAX: usize = 1024;

/// Longest list of names: it shares a frame, and a record of the ring, with a text about failures.
pub const CHANGED_NAMES_BYTES_MAX: usize = 8 * 1024 - 64;

/// Walks a list of names; ends after the first error.
///
/// # Errors
/// Each item: any [`CodecError`] for a list that is damaged.
pub fn changed_names(list: &[u8]) -> impl Iterator<Item = Result<ChangedName<'_>, CodecError>> {
    let mut reader = Reader::new(list);
    core::iter::from_fn(move || {
        if reader.remaining() == 0 {
            return None;
        }
        let name = ChangedName::read(&mut reader);
        if name.is_err() {
            reader = Reader::new(&[]);
        }
        Some(name)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_list_is_walked_to_its_first_damage() {
        let mut list = [0; 64];
        let one = ChangedName { change: Change::Deleted, name: b"a/b" };
        let length = one.encode(&mut list).unwrap();
        assert_eq!(changed_names(&list[..length]).collect::<Result<std::vec::Vec<_>, _>>().unwrap(), [one]);
        assert_eq!(changed_names(&list[..length - 1]).last(), Some(Err(CodecError::Truncated)));
        assert_eq!(changed_names(&[4, 0, 0]).count(), 1);
        assert_eq!(changed_names(&[]).count(), 0);
    }
}
