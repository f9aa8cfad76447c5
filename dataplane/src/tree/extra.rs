//! Records behind the names of entries, written one after the other.
use dwcp_abi::codec::{Encoded, SHORT_BYTES_MAX};
use dwcp_abi::wire::{EXTRA_BYTES_MAX, Extra};

/// A list as [`dwcp_abi::wire::extras`] reads it.
#[derive(Debug, Default)]
pub(super) struct ExtraList(Vec<u8>);

impl ExtraList {
    /// Appends a record; false where there is no room for it.
    pub(super) fn push(&mut self, extra: &Extra<'_>) -> bool {
        let start = self.0.len();
        self.0.resize(start + RECORD_BYTES_MAX, 0);
        let length = extra.encode(&mut self.0[start..]).unwrap_or(EXTRA_BYTES_MAX);
        let fits = start + length <= EXTRA_BYTES_MAX;
        self.0.truncate(if fits { start + length } else { start });
        fits
    }

    /// The list.
    pub(super) fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    /// Bytes of the list so far.
    pub(super) fn len(&self) -> usize {
        self.0.len()
    }

    /// Forgets what was appended behind so many bytes.
    pub(super) fn truncate(&mut self, length: usize) {
        self.0.truncate(length);
    }
}

/// A tag and two byte strings with their lengths.
const RECORD_BYTES_MAX: usize = 1 + 2 * (2 + SHORT_BYTES_MAX);
